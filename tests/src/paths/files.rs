//! Paths between sockets and other files: sendfile(2) and splice(2).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::null_mut;

use anyhow::{Result, ensure};

use super::moved;

/// A file's bytes, by sendfile.
pub fn sendfile(to: &TcpStream, bytes: &[u8]) -> Result<()> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    let mut offset = 0;
    while (offset as usize) < bytes.len() {
        let left = bytes.len() - offset as usize;
        // SAFETY: the offset outlives the call.
        let sent = moved(unsafe { libc::sendfile(to.as_raw_fd(), file.as_raw_fd(), &mut offset, left) })?;
        ensure!(sent > 0, "the file ends early");
    }
    Ok(())
}

/// A pipe's bytes, by splice.
pub fn splice_to(to: &TcpStream, bytes: &[u8]) -> Result<()> {
    let (reader, mut writer) = std::io::pipe()?;
    writer.write_all(bytes)?;
    splice(reader.as_raw_fd(), to.as_raw_fd(), bytes.len())
}

/// A socket's bytes into a pipe, by splice.
pub fn splice_from(from: &TcpStream, buffer: &mut [u8]) -> Result<()> {
    let (mut reader, writer) = std::io::pipe()?;
    splice(from.as_raw_fd(), writer.as_raw_fd(), buffer.len())?;
    reader.read_exact(buffer)?;
    Ok(())
}

/// From a socket through a pipe to another socket, as proxies do.
pub fn splice_through(from: &TcpStream, to: &TcpStream, length: usize) -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    splice(from.as_raw_fd(), writer.as_raw_fd(), length)?;
    splice(reader.as_raw_fd(), to.as_raw_fd(), length)
}

/// Moves so many bytes between a pipe and another file.
fn splice(from: RawFd, to: RawFd, mut length: usize) -> Result<()> {
    while length > 0 {
        // SAFETY: no pointer is passed.
        let spliced = moved(unsafe { libc::splice(from, null_mut(), to, null_mut(), length, 0) })?;
        ensure!(spliced > 0, "{length} bytes are missing");
        length -= spliced;
    }
    Ok(())
}
