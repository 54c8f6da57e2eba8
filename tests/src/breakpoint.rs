//! Whether a function of a process is probed: the kernel puts a breakpoint there for as long as it is.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::feed::PATIENCE;
use crate::process::Running;

/// `int3`; of other processors nothing is known here.
const BREAKPOINT: u8 = 0xcc;

/// Whether there is a breakpoint at an address of a process.
pub fn is_set(pid: u32, address: u64) -> Result<bool> {
    let mut byte = [0];
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    memory.read_exact_at(&mut byte, address).with_context(|| format!("reading the memory of process {pid}"))?;
    Ok(byte == [BREAKPOINT])
}

/// Waits until there is one, or none any more: nobody tells.
pub fn wait(pid: u32, address: u64, set: bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while is_set(pid, address)? != set {
        ensure!(Instant::now() < deadline, "a breakpoint in process {pid} should be set: {set}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The address that a program says in its first line of output.
pub fn address(program: &Running) -> Result<u64> {
    let line = program.output.wait_for("an address", |lines: &[String]| lines.first().cloned());
    let line = line.with_context(|| program.log.so_far().join("\n"))?;
    Ok(u64::from_str_radix(line.trim_start_matches("0x"), 16)?)
}
