//! The ways that bytes take between a process and a TCP socket: each as a test takes it, with what the agent sees of it.

use std::fmt;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::feed::PATIENCE;
use crate::syscalls::{Receiving, Sending};

#[cfg(target_arch = "x86_64")]
pub mod compat;
pub mod files;
pub mod flags;
pub mod memory;
mod scene;
pub mod sockets;
pub mod tls;

pub use scene::{Alike, Scene, absent, compare};

/// What the hooks see of bytes that take a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Everything.
    Read,
    /// How many they are, at once, and why no more: a value of the label `cause`.
    Gap(&'static str),
    /// Nothing: the socket's next position tells how many they were.
    Hole,
}

impl Sight {
    /// The cause under which the bytes are counted as unseen.
    pub fn cause(self) -> Option<&'static str> {
        match self {
            Self::Read => None,
            Self::Gap(cause) => Some(cause),
            Self::Hole => Some("hole"),
        }
    }
}

/// Which end of a connection takes the path; the other does as most programs do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum End {
    Sender,
    Receiver,
}

/// Moves all of some bytes from one socket to the other.
type Pass = dyn Fn(&TcpStream, &TcpStream, &[u8]) -> Result<()>;

/// A path.
pub struct Path {
    /// Its name, as in `docs/paths.md`.
    pub name: String,
    /// What the tracepoints see of it.
    pub tracepoint: Sight,
    /// What the function hooks see of it.
    pub fentry: Sight,
    /// Who takes it.
    pub end: End,
    /// Takes it.
    pub pass: Box<Pass>,
}

/// What the two families see, tracepoint and fentry, of bytes in the buffer of the caller.
pub const READ: [Sight; 2] = [Sight::Read; 2];
/// Of bytes in a buffer that only the kernel knows of: the registers are not those of the call.
pub const BY_RING: [Sight; 2] = [Sight::Gap("path"), Sight::Read];
/// Of bytes in pages that no process has mapped for the call.
pub const BY_PAGES: [Sight; 2] = [Sight::Gap("path"), Sight::Gap("pages")];
/// Of bytes in the buffer of a 32-bit program.
pub const BY_32_BIT: [Sight; 2] = [Sight::Gap("compat"), Sight::Read];
/// Of bytes that go from a socket to a pipe.
pub const FROM_SOCKET: [Sight; 2] = [Sight::Hole, Sight::Gap("path")];
/// Of bytes that nobody wants.
pub const THROWN_AWAY: [Sight; 2] = [Sight::Gap("discarded"); 2];

impl Path {
    /// A way to send. The two families' sights come in the order tracepoint, fentry.
    pub fn sends(name: &str, sights: [Sight; 2], send: impl Fn(&TcpStream, &[u8]) -> Result<()> + 'static) -> Self {
        Self::passes(name, End::Sender, sights, move |from, to, bytes| {
            send(from, bytes)?;
            receive(to, bytes)
        })
    }

    /// A way to receive: it fills the buffer.
    pub fn receives(
        name: &str,
        sights: [Sight; 2],
        receive: impl Fn(&TcpStream, &mut [u8]) -> Result<()> + 'static,
    ) -> Self {
        Self::passes(name, End::Receiver, sights, move |from, to, bytes| {
            Sending::Write.all(from, bytes)?;
            let mut buffer = vec![0; bytes.len()];
            receive(to, &mut buffer)?;
            same(bytes, &buffer)
        })
    }

    /// A way that has both ends in its hand.
    pub fn passes(
        name: &str,
        end: End,
        [tracepoint, fentry]: [Sight; 2],
        pass: impl Fn(&TcpStream, &TcpStream, &[u8]) -> Result<()> + 'static,
    ) -> Self {
        Self { name: name.to_owned(), tracepoint, fentry, end, pass: Box::new(pass) }
    }
}

/// A path that this kernel does not have: no failure, and no success.
#[derive(Debug)]
pub struct Absent(pub String);

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this kernel lacks it: {}", self.0)
    }
}

impl std::error::Error for Absent {}

/// Receives these bytes as most programs do.
pub fn receive(to: &TcpStream, bytes: &[u8]) -> Result<()> {
    let mut buffer = vec![0; bytes.len()];
    Receiving::Read.all(to, &mut buffer)?;
    same(bytes, &buffer)
}

/// What arrived is what was sent.
pub fn same(sent: &[u8], received: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy;
    ensure!(sent == received, "{:?} arrived as {:?}", text(sent), text(received));
    Ok(())
}

/// What a system call moved, from what it returned.
pub fn moved(returned: impl TryInto<usize>) -> std::io::Result<usize> {
    returned.try_into().map_err(|_| std::io::Error::last_os_error())
}

/// Waits until all that one end has sent has arrived at the other, and the process there has taken it.
pub fn wait_taken(from: &TcpStream, to: &TcpStream) -> Result<()> {
    for (stream, question) in [(from, libc::TIOCOUTQ), (to, libc::FIONREAD)] {
        wait_until("bytes wait in a socket", || {
            let mut waiting: libc::c_int = 0;
            // SAFETY: both questions are answered with one int.
            moved(unsafe { libc::ioctl(stream.as_raw_fd(), question, &mut waiting) })?;
            Ok(waiting == 0)
        })?;
    }
    Ok(())
}

/// Waits for what no event tells of.
pub fn wait_until(problem: &str, mut reached: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !reached()? {
        ensure!(Instant::now() < deadline, "after {PATIENCE:?} still {problem}");
        thread::yield_now();
    }
    Ok(())
}

/// Waits until one of `events` (poll(2)) has come.
pub fn wait_event(stream: &TcpStream, events: libc::c_short) -> Result<()> {
    let mut poll = libc::pollfd { fd: stream.as_raw_fd(), events, revents: 0 };
    let patience = PATIENCE.as_millis().try_into().context("the deadline is too long for poll")?;
    // SAFETY: one pollfd is there.
    let ready = moved(unsafe { libc::poll(&mut poll, 1, patience) })?;
    ensure!(ready == 1 && poll.revents & events != 0, "poll gives {:#x}, not {events:#x}", poll.revents);
    Ok(())
}
