//! What the two sides of smtp-observer agree on: the records that the eBPF programs write into the ring buffer, and
//! the configuration that user space gives them at load.
//!
//! `no_std` and without dependencies, so that the same source is compiled for the kernel and for the agent.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod config;
pub mod event;
pub mod library_call;
pub mod protocol;
