//! Programs that a test starts, each ended at the latest when its guard is dropped.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::feed::{Feed, PATIENCE};
use crate::machine;

/// How long a program whose test has failed may take to end by itself.
const GRACE: Duration = Duration::from_secs(3);

/// A running program and what it prints, each line of output an item.
#[derive(Debug)]
pub struct Running<T = String> {
    name: String,
    child: Child,
    /// Readable once the child has ended: what there is to wait on with a deadline.
    ended: OwnedFd,
    /// Its standard output.
    pub output: Feed<T>,
    /// Lines of its standard error.
    pub log: Feed<String>,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ended<T = String> {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub output: Vec<T>,
    /// Lines of its standard error.
    pub log: Vec<String>,
}

impl Running {
    /// Starts a program. It gets no input, and is ended if the thread or the process that started it goes away.
    pub fn start(command: Command) -> Result<Self> {
        Self::start_parsed(command, |line| Ok(line.to_owned()))
    }

    /// The same, with a pipe to write its input to.
    pub fn start_with_input(command: Command) -> Result<(Self, ChildStdin)> {
        let mut running = Self::spawn(command, Stdio::piped(), |line| Ok(line.to_owned()))?;
        let input = running.child.stdin.take().context("no standard input")?;
        Ok((running, input))
    }
}

impl<T: Clone + Send + 'static> Running<T> {
    /// Starts a program whose lines of output are made items by `parse`.
    pub fn start_parsed(command: Command, parse: fn(&str) -> Result<T>) -> Result<Self> {
        Self::spawn(command, Stdio::null(), parse)
    }

    fn spawn(mut command: Command, input: Stdio, parse: fn(&str) -> Result<T>) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        // SAFETY: prctl is a bare system call: fit for a forked child.
        unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?)) };
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let output = Feed::read(child.stdout.take().context("no standard output")?, parse);
        let log = Feed::read(child.stderr.take().context("no standard error")?, |line| Ok(line.to_owned()));
        guard(child.id()).context("telling the guard")?;
        let pid = rustix::process::Pid::from_child(&child);
        let ended = pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("watching {name}"))?;
        Ok(Self { name, child, ended, output, log })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<Ended<T>> {
        if !self.ends_within(PATIENCE)? {
            bail!("{} did not end within {PATIENCE:?}; its last words: {:?}", self.name, self.log.so_far().last());
        }
        let status = self.child.wait()?;
        Ok(Ended { status, output: self.output.finish()?, log: self.log.finish()? })
    }

    /// Asks it to end, and waits for that.
    pub fn stop(self) -> Result<Ended<T>> {
        self.signal(Signal::SIGTERM)?;
        self.finish()
    }
}

impl<T> Running<T> {
    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // The child is reaped only when `self` is gone: its pid is nobody else's.
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    fn ends_within(&self, patience: Duration) -> Result<bool> {
        let patience = PollTimeout::try_from(patience).context("the deadline is too long for poll")?;
        Ok(poll(&mut [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)], patience)? > 0)
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // First so that it can end what it has started itself.
        let _ = self.signal(Signal::SIGTERM);
        let _ = self.ends_within(GRACE);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end and wants it to succeed.
pub fn run(command: Command) -> Result<Ended> {
    let name = command.get_program().to_string_lossy().into_owned();
    succeeded(&name, Running::start(command)?)
}

/// Waits for a program's end and wants it to have succeeded.
pub fn succeeded(name: &str, running: Running) -> Result<Ended> {
    let ended = running.finish()?;
    if !ended.status.success() {
        bail!("{name} ended with {}\n{}\n{}", ended.status, ended.output.join("\n"), ended.log.join("\n"));
    }
    Ok(ended)
}

/// Has a program ended if this process is killed.
fn guard(pid: u32) -> Result<()> {
    /// It is there from the first program on. Its input ends with this process.
    static GUARD: Mutex<Option<Child>> = Mutex::new(None);

    let mut guard = GUARD.lock().unwrap_or_else(PoisonError::into_inner);
    let guard = match &mut *guard {
        Some(guard) => guard,
        none => {
            let mut command = Command::new(machine::sibling("guard")?);
            // A group of its own: what is sent to this process's group must not end it first.
            command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
            none.insert(command.spawn()?)
        }
    };
    Ok(writeln!(guard.stdin.as_mut().context("it has no input")?, "{pid}")?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use anyhow::ensure;

    use super::*;

    /// What a guard is told of ends once nobody writes to it any more: so it is when a test is killed.
    #[test]
    fn a_guard_ends_what_still_runs() -> Result<()> {
        let mut guard = Command::new(machine::sibling("guard")?).stdin(Stdio::piped()).spawn()?;
        let mut programs = Vec::new();
        for lasts in ["0", "1000"] {
            let mut command = Command::new(machine::installed("sleep")?);
            let mut program = command.arg(lasts).spawn()?;
            writeln!(guard.stdin.as_mut().context("no input")?, "{}", program.id())?;
            if lasts == "0" {
                program.wait()?;
            }
            programs.push(program);
        }
        drop(guard.stdin.take());
        ensure!(guard.wait()?.success(), "it had nothing to complain of");
        let ended = programs.pop().context("no program")?.wait()?;
        ensure!(ended.signal() == Some(Signal::SIGTERM as i32), "{ended}");
        Ok(())
    }
}
