//! Buffers that are not simply there: unmapped, mapped but not yet present, or below 4 GiB.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::ptr::{NonNull, null_mut};
use std::slice;

use anyhow::{Result, bail, ensure};
use nix::errno::Errno;

use super::moved;
use crate::syscalls::{Receiving, Sending, header};

/// Pages of this process, unmapped in the end.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    /// Bytes that are there.
    length: usize,
    mapped: usize,
}

impl Pages {
    /// So many bytes of zeros that nobody has touched, with further flags of mmap(2).
    pub fn new(length: usize, flags: i32) -> io::Result<Self> {
        Self::map(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags, -1)
    }

    /// A file of these bytes, mapped and never touched: the kernel brings its page when it first needs it.
    pub fn of_file(bytes: &[u8]) -> io::Result<Self> {
        let mut file = tempfile::tempfile()?;
        io::Write::write_all(&mut file, bytes)?;
        Self::map(bytes.len(), libc::MAP_PRIVATE, file.as_raw_fd())
    }

    fn map(length: usize, flags: i32, file: i32) -> io::Result<Self> {
        // SAFETY: the kernel chooses the place.
        let start = unsafe { libc::mmap(null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, file, 0) };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => {
                Ok(Self { start: start.cast(), length, mapped: length })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Forbids their last page, which nobody else gets: for a system call nothing is there.
    pub fn cut(&mut self) -> Result<()> {
        let page = page()?;
        ensure!(self.length >= page && self.length.is_multiple_of(page), "{} bytes cannot be cut", self.length);
        self.length -= page;
        // SAFETY: the last page is this value's, and no reference leads there.
        moved(unsafe { libc::mprotect(self.start.as_ptr().add(self.length).cast(), page, libc::PROT_NONE) })?;
        Ok(())
    }

    /// Where the bytes end.
    pub fn end(&self) -> *mut u8 {
        self.start.as_ptr().wrapping_add(self.length)
    }

    /// Where they start.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: they are mapped, readable and writable, and borrowed with this value.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the pages are this value's, and nothing borrows them any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.mapped) };
    }
}

/// Bytes in a page.
pub fn page() -> Result<usize> {
    // SAFETY: sysconf touches no memory.
    Ok(moved(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })?)
}

/// A page where nothing is.
fn nothing() -> Result<Pages> {
    let mut pages = Pages::new(page()?, 0)?;
    pages.cut()?;
    Ok(pages)
}

/// Sends from where nothing is, and then from a vector of which half is nowhere, and then what is left.
pub fn send_faulting(to: &TcpStream, bytes: &[u8]) -> Result<()> {
    let (socket, length) = (to.as_raw_fd(), bytes.len());
    let nothing = nothing()?;
    let nowhere = nothing.start();
    // SAFETY: the kernel checks the address, and nothing is to be there.
    expect_fault(moved(unsafe { libc::write(socket, nowhere.cast(), length) }))?;
    // SAFETY: as before.
    expect_fault(moved(unsafe { libc::send(socket, nowhere.cast(), length, 0) }))?;
    let mut vector = half_there(bytes.as_ptr().cast_mut(), nowhere, length);
    let message = header(&mut vector).msg_hdr;
    // SAFETY: the first part is in `bytes`, which is only read; as before for the second.
    let sent = part(moved(unsafe { libc::sendmsg(socket, &message, 0) }), length / 2)?;
    let rest = &bytes[sent..];
    let mut vector = half_there(rest.as_ptr().cast_mut(), nowhere, rest.len());
    let header = header(&mut vector).msg_hdr;
    // SAFETY: as before.
    let sent = part(moved(unsafe { libc::writev(socket, header.msg_iov, 2) }), rest.len() / 2)?;
    Sending::Write.all(to, &rest[sent..])?;
    Ok(())
}

/// Receives to where nothing is, and then to a vector of which half is nowhere, and then what is left.
pub fn receive_faulting(from: &TcpStream, buffer: &mut [u8]) -> Result<()> {
    let (socket, length) = (from.as_raw_fd(), buffer.len());
    super::wait_event(from, libc::POLLIN)?;
    let nothing = nothing()?;
    let nowhere = nothing.start();
    // SAFETY: the kernel checks the address, and nothing is to be there.
    expect_fault(moved(unsafe { libc::read(socket, nowhere.cast(), length) }))?;
    let vector = half_there(buffer.as_mut_ptr(), nowhere, length);
    // SAFETY: the first part is in `buffer`; as before for the second.
    let received = part(moved(unsafe { libc::readv(socket, vector.as_ptr(), 2) }), length / 2)?;
    Receiving::Read.all(from, &mut buffer[received..])?;
    Ok(())
}

/// Sends from a page of a file that was never touched.
pub fn send_untouched(to: &TcpStream, bytes: &[u8]) -> Result<()> {
    let file = Pages::of_file(bytes)?;
    let mut sent = 0;
    while sent < bytes.len() {
        // SAFETY: so many bytes are mapped behind the place.
        sent += moved(unsafe { libc::write(to.as_raw_fd(), file.start().add(sent).cast(), bytes.len() - sent) })?;
    }
    Ok(())
}

/// Receives into a page that was never touched.
pub fn receive_untouched(from: &TcpStream, buffer: &mut [u8]) -> Result<()> {
    let mut pages = Pages::new(page()?, 0)?;
    let length = buffer.len();
    Receiving::Recv.all(from, &mut pages.bytes()[..length])?;
    buffer.copy_from_slice(&pages.bytes()[..length]);
    Ok(())
}

fn half_there(there: *mut u8, nowhere: *mut u8, length: usize) -> [libc::iovec; 2] {
    let half = length / 2;
    [
        libc::iovec { iov_base: there.cast(), iov_len: half },
        libc::iovec { iov_base: nowhere.cast(), iov_len: length - half },
    ]
}

fn expect_fault(result: io::Result<usize>) -> Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(Errno::EFAULT as i32) => Ok(()),
        other => bail!("with a buffer that is nowhere the call gives {other:?}"),
    }
}

/// What moved of a buffer whose first part alone is there: that, or nothing.
fn part(result: io::Result<usize>, there: usize) -> Result<usize> {
    match result {
        Ok(moved) if moved <= there => Ok(moved),
        other => expect_fault(other).map(|()| 0),
    }
}
