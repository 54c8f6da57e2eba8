//! Paths that flags of a call choose.

use std::io::{self, ErrorKind};
use std::mem::size_of;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::ptr::{null, null_mut};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use super::{moved, receive, same, wait_event, wait_taken};
use crate::syscalls::{Receiving, Sending, header};

/// `SOF_TIMESTAMPING_*` (`include/uapi/linux/net_tstamp.h`): note in software when a packet is queued for its device.
const TIMESTAMPING_SOFTWARE: u32 = 1 << 4;
const TIMESTAMPING_TX_SCHED: u32 = 1 << 8;

/// Sends with `MSG_ZEROCOPY`, and waits until the kernel is done with the buffer.
pub fn zerocopy(to: &TcpStream, bytes: &[u8]) -> Result<()> {
    set(to, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &1_i32).context("SO_ZEROCOPY")?;
    // SAFETY: the buffer outlives the call, and the wait below.
    let sent = moved(unsafe { libc::send(to.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_ZEROCOPY) })?;
    ensure!(sent == bytes.len(), "{sent} bytes were sent");
    wait_event(to, libc::POLLERR)?;
    ensure!(read_errors(to)? == 0, "a completion has no bytes");
    Ok(())
}

/// Sends with timestamps asked for, and reads them: the kernel gives each with the packet that it was taken of.
pub fn timestamped(to: &TcpStream, bytes: &[u8]) -> Result<()> {
    let asked = TIMESTAMPING_SOFTWARE | TIMESTAMPING_TX_SCHED;
    set(to, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &asked).context("SO_TIMESTAMPING")?;
    Sending::Write.all(to, bytes)?;
    wait_event(to, libc::POLLERR)?;
    let packet = read_errors(to)?;
    ensure!(packet >= bytes.len(), "{packet} bytes came with the timestamp, less than were sent");
    set(to, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &0_u32)
}

/// Takes one message from the socket's error queue: how many bytes were in it.
fn read_errors(stream: &TcpStream) -> Result<usize> {
    let (mut packet, mut control) = ([0_u8; 512], [0_u8; 512]);
    let mut vector = [libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() }];
    let mut message = header(&mut vector).msg_hdr;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control.len() as _;
    // SAFETY: the message leads into buffers of the lengths it says.
    let received = moved(unsafe { libc::recvmsg(stream.as_raw_fd(), &mut message, libc::MSG_ERRQUEUE) })?;
    ensure!(message.msg_flags & libc::MSG_ERRQUEUE != 0, "this is not from the error queue");
    Ok(received)
}

/// Looks at the bytes by every call that can, whole and in part, before it reads them in two calls.
pub fn peek(from: &TcpStream, buffer: &mut [u8]) -> Result<()> {
    let (socket, length) = (from.as_raw_fd(), buffer.len());
    let mut looked = vec![0; length];
    let mut vector = [libc::iovec { iov_base: looked.as_mut_ptr().cast(), iov_len: length }];
    let mut message = header(&mut vector);
    let start = looked.as_mut_ptr().cast();
    let whole = libc::MSG_PEEK | libc::MSG_WAITALL;
    // SAFETY: `looked` is as long as the calls say; the second is told not to write.
    let seen = unsafe {
        [
            moved(libc::recv(socket, start, length, whole))?,
            moved(libc::recv(socket, null_mut(), length, libc::MSG_PEEK | libc::MSG_TRUNC))?,
            moved(libc::recvfrom(socket, start, length, whole, null_mut(), null_mut()))?,
            moved(libc::recvmsg(socket, &mut message.msg_hdr, whole))?,
        ]
    };
    ensure!(seen == [length; 4], "{seen:?} bytes were there to look at");
    // SAFETY: the message leads to `looked`.
    moved(unsafe { libc::recvmmsg(socket, &mut message, 1, whole as _, null_mut()) })?;
    let (first, second) = buffer.split_at_mut(length / 2);
    Receiving::Recv.all(from, first)?;
    // SAFETY: the rest is not longer than `looked`.
    let rest = moved(unsafe { libc::recv(socket, start, length, libc::MSG_PEEK) })?;
    ensure!(rest == second.len(), "{rest} bytes are left to look at");
    Receiving::Recv.all(from, second)?;
    same(second, &looked[..rest])
}

/// Sends with flags that mean something to calls that receive.
pub fn send_as_if_looking(to: &TcpStream, bytes: &[u8]) -> Result<()> {
    let flags = libc::MSG_PEEK | libc::MSG_ERRQUEUE;
    // SAFETY: the buffer is as long as the call says.
    let sent = moved(unsafe { libc::send(to.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })?;
    ensure!(sent == bytes.len(), "{sent} bytes were sent");
    Ok(())
}

/// Sends the last byte as urgent data, and reads that beside the stream before it reads it in the stream.
pub fn urgent(from: &TcpStream, to: &TcpStream, bytes: &[u8]) -> Result<()> {
    // SAFETY: the buffer is as long as the call says.
    let sent = moved(unsafe { libc::send(from.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_OOB) })?;
    ensure!(sent == bytes.len(), "{sent} bytes were sent");
    wait_event(to, libc::POLLPRI)?;
    let mut byte = [0];
    // SAFETY: the buffer is as long as the call says.
    moved(unsafe { libc::recv(to.as_raw_fd(), byte.as_mut_ptr().cast(), byte.len(), libc::MSG_OOB) })?;
    ensure!(bytes.ends_with(&byte), "{byte:?} is urgent");
    set(to, libc::SOL_SOCKET, libc::SO_OOBINLINE, &1_i32).context("SO_OOBINLINE")?;
    receive(to, bytes)
}

/// Has the bytes thrown away: `MSG_TRUNC` leaves the buffer alone (tcp(7)).
pub fn discard(from: &TcpStream, to: &TcpStream, bytes: &[u8]) -> Result<()> {
    const UNTOUCHED: u8 = 0xaa;
    Sending::Write.all(from, bytes)?;
    let mut buffer = vec![UNTOUCHED; bytes.len()];
    let mut left = bytes.len();
    while left > 0 {
        // SAFETY: the buffer is as long as the call says.
        let gone = moved(unsafe { libc::recv(to.as_raw_fd(), buffer.as_mut_ptr().cast(), left, libc::MSG_TRUNC) })?;
        ensure!(gone > 0, "{left} bytes are missing");
        left -= gone;
    }
    ensure!(buffer.iter().all(|&byte| byte == UNTOUCHED), "the buffer was written to");
    Ok(())
}

/// Waits for all bytes in one call, while they come in two.
pub fn wait_for_all(from: &TcpStream, to: &TcpStream, bytes: &[u8]) -> Result<()> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut buffer = vec![0; bytes.len()];
    let received = thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            // SAFETY: the buffer is as long as the call says.
            moved(unsafe { libc::recv(to.as_raw_fd(), buffer.as_mut_ptr().cast(), bytes.len(), libc::MSG_WAITALL) })
        });
        Sending::Write.all(from, first)?;
        // Taken, and still the call has not returned.
        wait_taken(from, to)?;
        Sending::Write.all(from, second)?;
        match receiver.join() {
            Ok(received) => anyhow::Ok(received?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    ensure!(received == bytes.len(), "one call received {received} bytes");
    same(bytes, &buffer)
}

/// Asks before there is anything, and again when there is.
pub fn not_blocking(from: &TcpStream, to: &TcpStream, bytes: &[u8]) -> Result<()> {
    let mut buffer = vec![0; bytes.len()];
    to.set_nonblocking(true)?;
    match Receiving::Recv.all(to, &mut buffer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        other => bail!("before anything is sent recv gives {other:?}"),
    }
    Sending::Write.all(from, bytes)?;
    wait_event(to, libc::POLLIN)?;
    to.set_nonblocking(false)?;
    receive(to, bytes)
}

/// Sends what there is room for, and waits for more room only when `drain` has made some: how many calls stopped short
/// of their end, and how many found no room at all.
pub fn fill(to: &TcpStream, mut bytes: &[u8], mut drain: impl FnMut() -> Result<()>) -> Result<(usize, usize)> {
    let (mut partial, mut full) = (0, 0);
    to.set_nonblocking(true)?;
    while !bytes.is_empty() {
        // SAFETY: the buffer is as long as the call says.
        match moved(unsafe {
            libc::sendto(to.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL, null(), 0)
        }) {
            Ok(sent) => {
                partial += usize::from(sent < bytes.len());
                bytes = &bytes[sent..];
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                full += 1;
                drain()?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    to.set_nonblocking(false)?;
    Ok((partial, full))
}

/// Sets a socket option.
pub fn set<T>(stream: &impl AsRawFd, level: i32, option: i32, value: &T) -> Result<()> {
    set_raw(stream, level, option, value)?;
    Ok(())
}

/// Sets a socket option, whose refusal may mean something.
pub fn set_raw<T>(stream: &impl AsRawFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is as long as its type.
    moved(unsafe { libc::setsockopt(stream.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length) })?;
    Ok(())
}
