//! Programs that a test starts, each ended at the latest when its guard is dropped.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::feed::{Feed, PATIENCE};

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
    /// Starts a program. It gets no input, and is ended by the kernel if the thread that started it goes away.
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
        let ended = pidfd(&child).with_context(|| format!("watching {name}"))?;
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

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two numbers and touches no memory.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just handed out this descriptor, to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
