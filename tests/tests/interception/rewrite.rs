//! A program in the kernel that leads the connections of a cgroup elsewhere (`BPF_CGROUP_INET4_CONNECT`).

use std::fs::File;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use smtp_observer_tests::bpf;
use smtp_observer_tests::cgroup::Cgroup;

// include/uapi/linux/bpf.h
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const BPF_CGROUP_INET4_CONNECT: u32 = 10;

/// Where `struct bpf_sock_addr` has the address and the port that were asked for.
const ADDRESS: i16 = 4;
const PORT: i16 = 24;

/// Its program, attached until this is dropped.
pub struct Rewrite {
    _link: OwnedFd,
}

impl Rewrite {
    /// Connections to port 25 go to a port of 127.0.0.1 instead.
    pub fn attach(cgroup: &Cgroup, port: u16) -> Result<Self> {
        let network_order = |port: u16| i32::from(port.to_be());
        let program = [
            instruction(0x61, 2, 1, PORT, 0),              // r2 = the port
            instruction(0x55, 2, 0, 4, network_order(25)), // another one: skip four
            instruction(0xb7, 3, 0, 0, i32::from_ne_bytes([127, 0, 0, 1])),
            instruction(0x63, 1, 3, ADDRESS, 0), // the address = r3
            instruction(0xb7, 3, 0, 0, network_order(port)),
            instruction(0x63, 1, 3, PORT, 0), // the port = r3
            instruction(0xb7, 0, 0, 0, 1),    // r0 = 1: it may connect
            instruction(0x95, 0, 0, 0, 0),
        ];
        let program = bpf::load(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT, 0, &program)
            .context("the kernel refuses the program that rewrites")?;
        let link = bpf::attach(&program, &File::open(cgroup.path())?, BPF_CGROUP_INET4_CONNECT)
            .context("the program that rewrites cannot be attached")?;
        Ok(Self { _link: link })
    }
}

/// An instruction: operation, destination, source, offset, and a number.
fn instruction(operation: u8, to: u8, from: u8, offset: i16, number: i32) -> u64 {
    let [low, high] = offset.to_le_bytes();
    let [a, b, c, d] = number.to_le_bytes();
    u64::from_le_bytes([operation, from << 4 | to, low, high, a, b, c, d])
}
