//! Every system call that moves bytes through a socket, each called as itself.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::ptr::{null, null_mut};

/// A system call that sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the calls' own")]
pub enum Sending {
    Write,
    Writev,
    Pwritev2,
    Send,
    Sendto,
    Sendmsg,
    Sendmmsg,
}

/// A system call that receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the calls' own")]
pub enum Receiving {
    Read,
    Readv,
    Preadv2,
    Recv,
    Recvfrom,
    Recvmsg,
    Recvmmsg,
}

/// The call that one side sends with, and the one it receives with.
pub type Pair = (Sending, Receiving);

/// What most programs use.
pub const ORDINARY: Pair = (Sending::Write, Receiving::Read);

/// Every call, with one message.
pub const ALL: [Pair; 7] = [
    ORDINARY,
    (Sending::Writev, Receiving::Readv),
    (Sending::Pwritev2, Receiving::Preadv2),
    (Sending::Send, Receiving::Recv),
    (Sending::Sendto, Receiving::Recvfrom),
    (Sending::Sendmsg, Receiving::Recvmsg),
    (Sending::Sendmmsg, Receiving::Recvmmsg),
];

/// A stream has no offset: preadv2(2) wants -1 for where it is.
const NO_OFFSET: libc::off_t = -1;

impl Sending {
    /// Sends all bytes, in one call where the kernel takes them at once.
    pub fn all(self, stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = self.once(stream.as_raw_fd(), bytes)?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    fn once(self, socket: i32, bytes: &[u8]) -> io::Result<usize> {
        let mut vector = halves(bytes.as_ptr().cast_mut(), bytes.len());
        let mut message = header(&mut vector);
        let header = message.msg_hdr;
        let (start, length) = (bytes.as_ptr().cast(), bytes.len());
        // SAFETY: every pointer leads into `bytes`, which is only read, or to `vector` and `header`, which outlive the call.
        let sent = unsafe {
            match self {
                Self::Write => libc::write(socket, start, length),
                Self::Writev => libc::writev(socket, vector.as_ptr(), 2),
                Self::Pwritev2 => libc::pwritev2(socket, vector.as_ptr(), 2, NO_OFFSET, 0),
                Self::Send => libc::send(socket, start, length, libc::MSG_NOSIGNAL),
                Self::Sendto => libc::sendto(socket, start, length, libc::MSG_NOSIGNAL, null(), 0),
                Self::Sendmsg => libc::sendmsg(socket, &header, libc::MSG_NOSIGNAL),
                Self::Sendmmsg => moved(libc::sendmmsg(socket, &mut message, 1, libc::MSG_NOSIGNAL as _), &[message]),
            }
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

impl Receiving {
    /// Receives until the buffer is full.
    pub fn all(self, stream: &TcpStream, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.once(stream.as_raw_fd(), buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                received => buffer = &mut buffer[received..],
            }
        }
        Ok(())
    }

    fn once(self, socket: i32, buffer: &mut [u8]) -> io::Result<usize> {
        let mut vector = halves(buffer.as_mut_ptr(), buffer.len());
        let mut message = header(&mut vector);
        let mut header = message.msg_hdr;
        let (start, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: every pointer leads into `buffer`, whose length bounds the call, or to `vector` and `header`, which outlive it.
        let received = unsafe {
            match self {
                Self::Read => libc::read(socket, start, length),
                Self::Readv => libc::readv(socket, vector.as_ptr(), 2),
                Self::Preadv2 => libc::preadv2(socket, vector.as_ptr(), 2, NO_OFFSET, 0),
                Self::Recv => libc::recv(socket, start, length, 0),
                Self::Recvfrom => libc::recvfrom(socket, start, length, 0, null_mut(), null_mut()),
                Self::Recvmsg => libc::recvmsg(socket, &mut header, 0),
                Self::Recvmmsg => moved(libc::recvmmsg(socket, &mut message, 1, 0, null_mut()), &[message]),
            }
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }
}

/// Two pieces of one buffer, so that a call with a vector has more than one to go through.
pub fn halves(start: *mut u8, length: usize) -> [libc::iovec; 2] {
    let middle = length / 2;
    [
        libc::iovec { iov_base: start.cast(), iov_len: middle },
        libc::iovec { iov_base: start.wrapping_add(middle).cast(), iov_len: length - middle },
    ]
}

/// One message of all parts.
pub fn header(vector: &mut [libc::iovec]) -> libc::mmsghdr {
    // SAFETY: a header of zeros is one without address, vector, control data and flags.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_iov = vector.as_mut_ptr();
    header.msg_hdr.msg_iovlen = vector.len() as _;
    header
}

/// Each part a message.
pub fn messages(vector: &mut [libc::iovec; 2]) -> [libc::mmsghdr; 2] {
    let [first, second] = vector.each_mut();
    [header(std::slice::from_mut(first)), header(std::slice::from_mut(second))]
}

/// The bytes of the messages that a call says it has moved.
pub fn moved(count: i32, messages: &[libc::mmsghdr]) -> isize {
    let Ok(count) = usize::try_from(count) else { return -1 };
    messages[..count].iter().map(|message| message.msg_len as isize).sum()
}
