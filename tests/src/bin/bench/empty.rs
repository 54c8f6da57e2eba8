//! eBPF programs that do nothing, where the agent has those that are run for every call.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use btf_rs::Btf;
use smtp_observer_tests::bpf;

// include/uapi/linux/bpf.h
const BPF_RAW_TRACEPOINT_OPEN: i32 = 17;
const BPF_PROG_TYPE_TRACING: u32 = 26;

/// `r0 = 0; exit`
const RETURN_ZERO: [u64; 2] = [0xb7, 0x95];

/// Where a program is attached (`enum bpf_attach_type`).
#[derive(Clone, Copy)]
enum Attach {
    Tracepoint = 23,
    Entry = 24,
    Exit = 25,
}

/// Attached programs that return at once.
pub struct Empty {
    /// A program lives as long as its descriptors.
    _attached: Vec<[OwnedFd; 2]>,
}

impl Empty {
    /// On each hook that a send or a receive over IPv4 passes in this family.
    pub fn attach(family: &str) -> Result<Self> {
        let hooks: &[_] = match family {
            "tracepoint" => &[("sock_send_length", Attach::Tracepoint), ("sock_recv_length", Attach::Tracepoint)],
            "fentry" => &[
                ("inet_sendmsg", Attach::Entry),
                ("inet_sendmsg", Attach::Exit),
                ("inet_recvmsg", Attach::Entry),
                ("inet_recvmsg", Attach::Exit),
            ],
            other => bail!("there are no empty programs for {other} hooks"),
        };
        let btf = Btf::from_file("/sys/kernel/btf/vmlinux").context("the kernel's types cannot be read")?;
        let attach = |&(name, to): &(&str, Attach)| {
            let typed = match to {
                Attach::Tracepoint => format!("btf_trace_{name}"),
                Attach::Entry | Attach::Exit => name.to_owned(),
            };
            let ids = btf.resolve_ids_by_name(&typed)?;
            let id = ids.first().with_context(|| format!("the kernel has no {typed}"))?;
            attach(*id, to).with_context(|| format!("an empty program cannot be attached to {name}"))
        };
        Ok(Self { _attached: hooks.iter().map(attach).collect::<Result<_>>()? })
    }
}

/// The part of `union bpf_attr` that attaching such a program takes.
#[repr(C)]
struct Open {
    name: u64,
    prog_fd: u32,
    padding: u32,
}

/// The program and its link.
fn attach(btf_id: u32, to: Attach) -> io::Result<[OwnedFd; 2]> {
    let program = bpf::load(BPF_PROG_TYPE_TRACING, to as u32, btf_id, &RETURN_ZERO)?;
    let prog_fd = program.as_raw_fd().cast_unsigned();
    let link = bpf::obtain(BPF_RAW_TRACEPOINT_OPEN, &Open { name: 0, prog_fd, padding: 0 })?;
    Ok([program, link])
}
