//! System calls of 32-bit programs, made with `int 0x80` from this one: the kernel takes them for those of an i386.

use std::arch::asm;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::process::abort;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::Absent;
use super::memory::{Pages, page};

// arch/x86/entry/syscalls/syscall_32.tbl
const READ: u32 = 3;
const WRITE: u32 = 4;
const GETPID: u32 = 20;
const SOCKETCALL: u32 = 102;
const SENDTO: u32 = 369;
const RECVFROM: u32 = 371;

// include/uapi/linux/net.h
const SYS_SEND: u32 = 9;
const SYS_RECV: u32 = 10;

/// A call of an i386.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names are the calls' own")]
pub enum Call {
    Write,
    SocketcallSend,
    Sendto,
    Read,
    SocketcallRecv,
    Recvfrom,
}

impl Call {
    /// Sends all bytes.
    pub fn send(self, to: &TcpStream, bytes: &[u8]) -> Result<()> {
        let mut low = low()?;
        low.bytes()[..bytes.len()].copy_from_slice(bytes);
        let sent = self.make(to, &mut low, bytes.len())?;
        ensure!(sent == bytes.len(), "{sent} bytes were sent");
        Ok(())
    }

    /// Receives until the buffer is full.
    pub fn receive(self, from: &TcpStream, mut buffer: &mut [u8]) -> Result<()> {
        let mut low = low()?;
        while !buffer.is_empty() {
            let received = self.make(from, &mut low, buffer.len())?;
            ensure!(received > 0, "{} bytes are missing", buffer.len());
            buffer[..received].copy_from_slice(&low.bytes()[..received]);
            buffer = &mut buffer[received..];
        }
        Ok(())
    }

    /// Makes it with a buffer at the start of these pages.
    fn make(self, stream: &TcpStream, low: &mut Pages, length: usize) -> Result<usize> {
        let socket = u32::try_from(stream.as_raw_fd())?;
        let buffer = u32::try_from(low.start() as usize).context("the buffer is not in low memory")?;
        let length = u32::try_from(length)?;
        let mut socketcall = |call| {
            let start = low.bytes().len() - 16;
            let arguments = &mut low.bytes()[start..];
            for (place, argument) in arguments.chunks_exact_mut(4).zip([socket, buffer, length, 0]) {
                place.copy_from_slice(&argument.to_ne_bytes());
            }
            [SOCKETCALL, call, buffer + start as u32, 0]
        };
        let call = match self {
            Self::Write => [WRITE, socket, buffer, length],
            Self::Read => [READ, socket, buffer, length],
            Self::Sendto => [SENDTO, socket, buffer, length],
            Self::Recvfrom => [RECVFROM, socket, buffer, length],
            Self::SocketcallSend => socketcall(SYS_SEND),
            Self::SocketcallRecv => socketcall(SYS_RECV),
        };
        // SAFETY: every address is within the pages, whose length bounds the call.
        let returned = unsafe { int80(call) };
        match usize::try_from(returned) {
            Ok(moved) => Ok(moved),
            Err(_) => Err(io::Error::from_raw_os_error(-returned).into()),
        }
    }
}

/// A page below 2 GiB, and whether this kernel takes calls of an i386 at all.
fn low() -> Result<Pages> {
    require()?;
    Ok(Pages::new(page()?, libc::MAP_32BIT)?)
}

/// Fails as absent where the kernel has no `int 0x80` (`CONFIG_IA32_EMULATION`, `ia32_emulation=`): it is a fault then.
fn require() -> Result<()> {
    // SAFETY: the child makes one system call and ends, or dies of it.
    match unsafe { fork() }? {
        ForkResult::Child => {
            // SAFETY: getpid takes nothing.
            let pid = unsafe { int80([GETPID, 0, 0, 0]) };
            if pid < 0 {
                abort();
            }
            // SAFETY: nothing of the parent's is to run in the child.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Signaled(_, Signal::SIGSEGV, _) => Err(Absent("32-bit system calls".to_owned()).into()),
            other => anyhow::bail!("a child that makes a 32-bit system call ends with {other:?}"),
        },
    }
}

/// One system call with three arguments, and zeros for two more.
///
/// # Safety
/// As the call's own.
unsafe fn int80([number, first, second, third]: [u32; 4]) -> i32 {
    let returned: i64;
    // SAFETY: the caller's promise. The compiler keeps rbx for itself, so it is put back; r8 to r11 may be cleared.
    unsafe {
        asm!(
            "xchg {first:r}, rbx",
            "int 0x80",
            "xchg {first:r}, rbx",
            first = inout(reg) u64::from(first) => _,
            inout("rax") u64::from(number) => returned,
            in("rcx") u64::from(second),
            in("rdx") u64::from(third),
            in("rsi") 0_u64,
            in("rdi") 0_u64,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    returned as i32
}
