//! Ends what a test has started, should the test itself be killed: `guard` reads pids from its input, one a line, and
//! asks those that still run to end when its input ends.
//!
//! The kernel's own signal at a parent's death (`PR_SET_PDEATHSIG`) is not enough: a program that changes its user, as
//! mail servers do, loses it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

fn main() -> Result<()> {
    let mut programs: Vec<OwnedFd> = Vec::new();
    for line in io::stdin().lines() {
        let line = line?;
        let pid = line.parse().ok().and_then(Pid::from_raw).with_context(|| format!("{line:?} is no pid"))?;
        programs.retain(runs);
        // One that has ended meanwhile needs no guard.
        programs.extend(pidfd_open(pid, PidfdFlags::empty()));
    }
    for program in programs.iter().filter(|program| runs(program)) {
        pidfd_send_signal(program, Signal::TERM)?;
    }
    Ok(())
}

/// A pid's descriptor is readable once the process has ended.
fn runs(program: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(program.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(0)
}
