//! Sends and receives by io_uring(7): the calls are made by the kernel, when and in which thread it likes.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::thread;

use anyhow::{Context, Result, ensure};
use io_uring::types::Fd;
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use nix::errno::Errno;
use nix::unistd::{Pid, gettid};

use crate::paths::{Absent, moved, same, wait_taken, wait_until};
use crate::syscalls::{Receiving, Sending, header};

/// An operation that moves bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the operations' own")]
pub enum Operation {
    Send,
    SendMsg,
    SendZc,
    Write,
    Writev,
    WriteFixed,
    Recv,
    RecvMsg,
    Read,
    Readv,
    ReadFixed,
}

/// Who carries an operation out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executor {
    /// The thread that submits it.
    Submitter,
    /// A thread of the kernel's for operations that may block (`IOSQE_ASYNC`).
    Worker,
    /// A thread of the kernel's that looks for operations by itself (`IORING_SETUP_SQPOLL`).
    Poller,
}

/// How long the poller looks in vain before it sleeps, in milliseconds.
const POLLER_IDLE: u32 = 1000;

impl Operation {
    /// Moves all bytes: `buffer` is read or written, by what the operation is.
    pub fn all(self, by: Executor, stream: &TcpStream, buffer: &mut [u8]) -> Result<()> {
        apart(|| {
            let mut ring = ring(by)?;
            self.require(&ring)?;
            let mut done = 0;
            while done < buffer.len() {
                let moved = self.once(by, &mut ring, stream, &mut buffer[done..])?;
                ensure!(moved > 0, "{} bytes are missing", buffer.len() - done);
                done += moved;
            }
            Ok(())
        })
    }

    fn once(self, by: Executor, ring: &mut IoUring, stream: &TcpStream, buffer: &mut [u8]) -> Result<usize> {
        let socket = Fd(stream.as_raw_fd());
        let (start, length) = (buffer.as_mut_ptr(), u32::try_from(buffer.len())?);
        let mut vector = [libc::iovec { iov_base: start.cast(), iov_len: buffer.len() }];
        let mut message = header(&mut vector).msg_hdr;
        if matches!(self, Self::WriteFixed | Self::ReadFixed) {
            // SAFETY: the buffer outlives its registration, which ends below.
            unsafe { ring.submitter().register_buffers(&vector) }.context("registering a buffer")?;
        }
        let entry = match self {
            Self::Send => opcode::Send::new(socket, start, length).build(),
            Self::SendMsg => opcode::SendMsg::new(socket, &message).build(),
            Self::SendZc => opcode::SendZc::new(socket, start, length).build(),
            Self::Write => opcode::Write::new(socket, start, length).build(),
            Self::Writev => opcode::Writev::new(socket, vector.as_ptr(), 1).build(),
            Self::WriteFixed => opcode::WriteFixed::new(socket, start, length, 0).build(),
            Self::Recv => opcode::Recv::new(socket, start, length).build(),
            Self::RecvMsg => opcode::RecvMsg::new(socket, &mut message).build(),
            Self::Read => opcode::Read::new(socket, start, length).build(),
            Self::Readv => opcode::Readv::new(socket, vector.as_ptr(), 1).build(),
            Self::ReadFixed => opcode::ReadFixed::new(socket, start, length, 0).build(),
        };
        let entry = if by == Executor::Worker { entry.flags(squeue::Flags::ASYNC) } else { entry };
        // SAFETY: buffer, vector and message outlive the operation, whose end is waited for.
        unsafe { ring.submission().push(&entry) }?;
        let moved = complete(ring)?;
        if matches!(self, Self::WriteFixed | Self::ReadFixed) {
            ring.submitter().unregister_buffers()?;
        }
        Ok(moved)
    }

    fn require(self, ring: &IoUring) -> Result<()> {
        let code = match self {
            Self::Send => opcode::Send::CODE,
            Self::SendMsg => opcode::SendMsg::CODE,
            Self::SendZc => opcode::SendZc::CODE,
            Self::Write => opcode::Write::CODE,
            Self::Writev => opcode::Writev::CODE,
            Self::WriteFixed => opcode::WriteFixed::CODE,
            Self::Recv => opcode::Recv::CODE,
            Self::RecvMsg => opcode::RecvMsg::CODE,
            Self::Read => opcode::Read::CODE,
            Self::Readv => opcode::Readv::CODE,
            Self::ReadFixed => opcode::ReadFixed::CODE,
        };
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).context("asking io_uring for its operations")?;
        if !probe.is_supported(code) {
            return Err(Absent(format!("io_uring's {self:?}")).into());
        }
        Ok(())
    }
}

/// Does what needs a ring in a thread of its own: whoever has used one is another to the hooks, for as long as it lives.
pub fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// Sends by a system call of a thread that has a ring.
pub fn send_beside(to: &TcpStream, bytes: &[u8]) -> Result<()> {
    apart(|| {
        let _ring = ring(Executor::Submitter)?;
        Ok(Sending::Write.all(to, bytes)?)
    })
}

/// Receives by a system call of a thread that has a ring.
pub fn receive_beside(from: &TcpStream, buffer: &mut [u8]) -> Result<()> {
    apart(|| {
        let _ring = ring(Executor::Submitter)?;
        Ok(Receiving::Read.all(from, buffer)?)
    })
}

/// A ring, if this kernel makes one (`CONFIG_IO_URING`, `kernel.io_uring_disabled`).
fn ring(by: Executor) -> Result<IoUring> {
    let mut builder = IoUring::builder();
    if by == Executor::Poller {
        builder.setup_sqpoll(POLLER_IDLE);
    }
    match builder.build(4) {
        Err(error) if [Errno::ENOSYS, Errno::EPERM].iter().any(|&it| error.raw_os_error() == Some(it as i32)) => {
            Err(Absent(format!("io_uring ({error})")).into())
        }
        other => other.context("making a ring"),
    }
}

/// Submits what is there, and waits until the kernel is done with it: how many bytes it moved.
fn complete(ring: &mut IoUring) -> Result<usize> {
    let (moved, more) = next(ring)?;
    if more {
        // Behind a send without copying: the buffer is free again.
        next(ring)?;
    }
    Ok(moved)
}

/// The next completion's result, and whether another belongs to it.
fn next(ring: &mut IoUring) -> Result<(usize, bool)> {
    loop {
        if let Some(completion) = ring.completion().next() {
            let moved =
                usize::try_from(completion.result()).map_err(|_| io::Error::from_raw_os_error(-completion.result()))?;
            return Ok((moved, cqueue::more(completion.flags())));
        }
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
    }
}

/// Receives in the middle of another system call: the operation was submitted before there was anything to receive,
/// and when there is, the thread is reading from a pipe, into a buffer that has other words in it.
pub fn receive_in_passing(from: &TcpStream, to: &TcpStream, bytes: &[u8]) -> Result<()> {
    apart(|| receive_while_reading(from, to, bytes))
}

fn receive_while_reading(from: &TcpStream, to: &TcpStream, bytes: &[u8]) -> Result<()> {
    let mut ring = ring(Executor::Submitter)?;
    let mut buffer = vec![0; bytes.len()];
    let entry = opcode::Recv::new(Fd(to.as_raw_fd()), buffer.as_mut_ptr(), u32::try_from(bytes.len())?).build();
    // SAFETY: the buffer outlives the operation, whose end is waited for.
    unsafe { ring.submission().push(&entry) }?;
    ring.submit()?;
    let (pipe, release) = io::pipe()?;
    let waiting = (gettid(), pipe.as_raw_fd());
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            wait_in_call(libc::SYS_read, waiting)?;
            send_and_release(from, to, bytes, release)
        });
        let waited = wait_in_pipe(pipe, bytes.len());
        match sender.join() {
            Ok(sent) => sent.and(waited),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    let moved = complete(&mut ring)?;
    ensure!(moved == bytes.len(), "{moved} bytes were received");
    same(bytes, &buffer)
}

/// How a ring receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shots {
    /// Once.
    One,
    /// Until it is told to stop, into buffers that it takes one after the other.
    Many,
}

/// What the completions of buffers that were given to a ring are told from the others by.
const PROVIDED: u64 = 1;

/// Receives by a ring and by recv(2) at once, on one socket and in one thread. recv(2) asks for a few bytes a time, at the
/// start of a buffer.
pub fn receive_at_once(
    from: &TcpStream,
    to: &TcpStream,
    bytes: &[u8],
    shots: Shots,
    (buffer, few): (&mut [u8], usize),
) -> Result<()> {
    ensure!(few <= buffer.len(), "the buffer has no room for {few} bytes");
    apart(|| {
        let mut rings = vec![0; bytes.len()];
        let mut ring = ring(Executor::Submitter)?;
        prepare(&mut ring, to, shots, &mut rings)?;
        let waiting = (gettid(), to.as_raw_fd());
        let mut done = thread::scope(|scope| {
            let sender = scope.spawn(move || {
                wait_in_call(libc::SYS_recvfrom, waiting)?;
                Ok(Sending::Write.all(from, bytes)?)
            });
            let received = receive_few(to, buffer, few, 0);
            let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sent.and(received)
        })?;
        wait_until("bytes have not arrived", || {
            done += completed(&mut ring)?;
            done += receive_few(to, buffer, few, libc::MSG_DONTWAIT)?;
            Ok(done >= bytes.len())
        })?;
        ensure!(done == bytes.len(), "{done} bytes arrived");
        // What it still waits for the kernel gives up with this thread.
        Ok(())
    })
}

/// Has a ring wait for what a socket receives, with room for it.
fn prepare(ring: &mut IoUring, to: &TcpStream, shots: Shots, room: &mut [u8]) -> Result<()> {
    const LENGTH: usize = 512;
    const GROUP: u16 = 1;
    let socket = Fd(to.as_raw_fd());
    let entries = match shots {
        Shots::One => vec![opcode::Recv::new(socket, room.as_mut_ptr(), u32::try_from(room.len())?).build()],
        Shots::Many => vec![
            opcode::ProvideBuffers::new(
                room.as_mut_ptr(),
                LENGTH as i32,
                u16::try_from(room.len() / LENGTH)?,
                GROUP,
                0,
            )
            .build()
            .user_data(PROVIDED),
            opcode::RecvMulti::new(socket, GROUP).build(),
        ],
    };
    // SAFETY: the room outlives the ring and its thread, with which the operations end.
    unsafe { ring.submission().push_multiple(&entries) }?;
    ring.submit()?;
    Ok(())
}

/// How many bytes the ring's operations say that they have moved.
fn completed(ring: &mut IoUring) -> Result<usize> {
    let mut moved = 0;
    for completion in ring.completion() {
        match completion.result() {
            result if completion.user_data() == PROVIDED || result == -libc::ENOBUFS => ensure!(result <= 0),
            result => moved += usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))?,
        }
    }
    Ok(moved)
}

/// Receives a few bytes, or none where there is none, or where the thread is called away.
fn receive_few(from: &TcpStream, buffer: &mut [u8], few: usize, flags: i32) -> Result<usize> {
    // SAFETY: the buffer is not shorter than what is asked for.
    match moved(unsafe { libc::recv(from.as_raw_fd(), buffer.as_mut_ptr().cast(), few, flags) }) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        other => Ok(other?),
    }
}

/// Waits until a thread is inside of this system call on this file (proc_pid_syscall(5)).
fn wait_in_call(call: libc::c_long, (thread, file): (Pid, RawFd)) -> Result<()> {
    let call = format!("{call} {file:#x} ");
    let place = format!("/proc/self/task/{thread}/syscall");
    wait_until("the thread is not in its call", || Ok(fs::read_to_string(&place)?.starts_with(&call)))
}

fn send_and_release(from: &TcpStream, to: &TcpStream, bytes: &[u8], mut release: PipeWriter) -> Result<()> {
    Sending::Write.all(from, bytes)?;
    wait_taken(from, to)?;
    Ok(release.write_all(b"x")?)
}

fn wait_in_pipe(mut pipe: PipeReader, length: usize) -> Result<()> {
    let mut words = b"QUIT\r\n".repeat(length.div_ceil(6));
    ensure!(pipe.read(&mut words)? == 1, "the pipe gave more than was put in");
    Ok(())
}
