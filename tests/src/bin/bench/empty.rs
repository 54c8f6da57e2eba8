//! eBPF programs that do nothing, where the agent has those that are run for every call.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use btf_rs::Btf;

// include/uapi/linux/bpf.h
const BPF_PROG_LOAD: i32 = 5;
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

/// The part of `union bpf_attr` that loading such a program takes.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u32; 4],
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    debug_info: [u32; 9],
    attach_btf_id: u32,
}

/// The part of `union bpf_attr` that attaching it takes.
#[repr(C)]
struct Open {
    name: u64,
    prog_fd: u32,
    padding: u32,
}

/// The program and its link.
fn attach(btf_id: u32, to: Attach) -> io::Result<[OwnedFd; 2]> {
    let load = Load {
        prog_type: BPF_PROG_TYPE_TRACING,
        insn_cnt: RETURN_ZERO.len() as u32,
        insns: RETURN_ZERO.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        expected_attach_type: to as u32,
        attach_btf_id: btf_id,
        ..Load::default()
    };
    let program = bpf(BPF_PROG_LOAD, &load)?;
    let prog_fd = program.as_raw_fd().cast_unsigned();
    let link = bpf(BPF_RAW_TRACEPOINT_OPEN, &Open { name: 0, prog_fd, padding: 0 })?;
    Ok([program, link])
}

/// One of those commands of bpf(2) that hand out a descriptor.
fn bpf<T>(command: i32, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads no more than the attributes' size, and what they point to outlives the call.
    let descriptor = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just handed out this descriptor, to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
