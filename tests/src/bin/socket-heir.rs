//! A process that comes by a connection which it has not made: `socket-heir inherited|received COMMAND…` says each
//! command and reads its reply. The connection is its standard input, or comes through the Unix socket that is.

use std::io::{self, IoSliceMut};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use smtp_observer_tests::scene::lines::Lines;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let connection = match arguments.next().as_deref() {
        Some("inherited") => io::stdin().as_fd().try_clone_to_owned()?,
        Some("received") => receive()?,
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let mut lines = Lines::new(TcpStream::from(connection))?;
    for command in arguments {
        lines.ask(&format!("{command}\r\n"))?;
    }
    Ok(())
}

fn receive() -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut room = nix::cmsg_space!(RawFd);
    let mut vector = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(io::stdin().as_raw_fd(), &mut vector, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let descriptor = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    let descriptor = descriptor.ok_or(io::ErrorKind::UnexpectedEof)?;
    // SAFETY: the kernel has just put this descriptor here, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
