//! Sockets that are made in a way of their own: TCP Fast Open and Multipath TCP.

use std::fs;
use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;

use super::flags::set;
use super::{Absent, moved, wait_event};
use crate::netns::Host;

/// Where the server listens.
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 2), 25);

/// `TCPI_OPT_SYN_DATA` (`include/uapi/linux/tcp.h`): the SYN's data was acknowledged.
const SYN_DATA: u8 = 32;

/// `net.ipv4.tcp_fastopen`: client and server, neither with cookies.
const WITHOUT_COOKIES: &str = "519";

/// How a client asks for TCP Fast Open.
#[derive(Debug, Clone, Copy)]
pub enum FastOpen {
    /// `sendto` with `MSG_FASTOPEN`.
    Sendto,
    /// That, on a socket that does not block: the call returns before the connection is made.
    SendtoNotBlocking,
    /// `TCP_FASTOPEN_CONNECT`: connect waits for the first write.
    Connect,
}

impl FastOpen {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Sendto, Self::SendtoNotBlocking, Self::Connect];

    /// A connection whose SYN takes these bytes along: the client's end, and the server's.
    pub fn open(self, client: &Host, server: &Host, bytes: &[u8]) -> Result<(TcpStream, TcpStream)> {
        for host in [client, server] {
            // The file is that of the namespace whose thread opens it.
            host.enter(|| fs::write("/proc/sys/net/ipv4/tcp_fastopen", WITHOUT_COOKIES)).context("tcp_fastopen")?;
        }
        let listener = server.listen(&SERVER.to_string())?;
        set(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &16_i32).context("TCP_FASTOPEN")?;
        let stream = TcpStream::from(socket(client, libc::IPPROTO_TCP)?);
        let sent = self.send(&stream, bytes)?;
        ensure!(sent == bytes.len(), "{sent} bytes were sent");
        let (accepted, _) = listener.accept()?;
        wait_event(&stream, libc::POLLOUT)?;
        stream.set_nonblocking(false)?;
        ensure!(options(&stream)? & SYN_DATA != 0, "the SYN took no data along");
        Ok((stream, accepted))
    }

    fn send(self, stream: &TcpStream, bytes: &[u8]) -> Result<usize> {
        let address = address();
        let (place, length) = (std::ptr::from_ref(&address).cast(), size_of::<libc::sockaddr_in>() as u32);
        let flags = match self {
            Self::Sendto => libc::MSG_FASTOPEN,
            Self::SendtoNotBlocking => {
                stream.set_nonblocking(true)?;
                libc::MSG_FASTOPEN
            }
            Self::Connect => {
                set(stream, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &1_i32).context("TCP_FASTOPEN_CONNECT")?;
                // SAFETY: the address is as long as its type.
                moved(unsafe { libc::connect(stream.as_raw_fd(), place, length) })?;
                // SAFETY: the buffer is as long as the call says.
                return Ok(moved(unsafe { libc::write(stream.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })?);
            }
        };
        // SAFETY: buffer and address are as long as the call says.
        Ok(moved(unsafe {
            libc::sendto(stream.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags, place, length)
        })?)
    }
}

/// Connects a socket, which may have been connected before.
pub fn connect(stream: &TcpStream) -> io::Result<()> {
    let address = address();
    let (place, length) = (std::ptr::from_ref(&address).cast(), size_of::<libc::sockaddr_in>() as u32);
    // SAFETY: the address is as long as its type.
    moved(unsafe { libc::connect(stream.as_raw_fd(), place, length) }).map(|_| ())
}

/// Ends a socket's connection, and leaves the socket open.
pub fn disconnect(stream: &TcpStream) -> io::Result<()> {
    let address = libc::sockaddr { sa_family: libc::AF_UNSPEC as _, sa_data: [0; 14] };
    let (place, length) = (&raw const address, size_of::<libc::sockaddr>() as u32);
    // SAFETY: the address is as long as its type.
    moved(unsafe { libc::connect(stream.as_raw_fd(), place, length) }).map(|_| ())
}

/// A connection to a listener of Multipath TCP, by a client that speaks it too or knows nothing of it.
pub fn multipath(client: &Host, server: &Host, both: bool) -> Result<(TcpStream, TcpStream)> {
    let listener = multipath_socket(server)?;
    let address = address();
    let (place, length) = (std::ptr::from_ref(&address).cast(), size_of::<libc::sockaddr_in>() as u32);
    // SAFETY: the address is as long as its type.
    moved(unsafe { libc::bind(listener.as_raw_fd(), place, length) })?;
    // SAFETY: no pointer is passed.
    moved(unsafe { libc::listen(listener.as_raw_fd(), 1) })?;
    let listener = TcpListener::from(listener);
    let client = if both {
        let client = multipath_socket(client)?;
        // SAFETY: the address is as long as its type.
        moved(unsafe { libc::connect(client.as_raw_fd(), place, length) })?;
        client.into()
    } else {
        client.connect(&SERVER.to_string())?
    };
    let (accepted, _) = listener.accept()?;
    Ok((client, accepted))
}

fn multipath_socket(host: &Host) -> Result<OwnedFd> {
    socket(host, libc::IPPROTO_MPTCP).map_err(|error| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error).map(Errno::from_raw) {
            // CONFIG_MPTCP, and net.mptcp.enabled.
            Some(Errno::EPROTONOSUPPORT | Errno::ENOPROTOOPT) => Absent(format!("MPTCP ({error})")).into(),
            _ => error,
        }
    })
}

fn socket(host: &Host, protocol: i32) -> Result<OwnedFd> {
    let descriptor = host.enter(|| {
        // SAFETY: no pointer is passed.
        let descriptor = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, protocol) };
        moved(descriptor).map(|_| descriptor)
    })?;
    // SAFETY: the kernel has just handed out this descriptor, to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn address() -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as _,
        sin_port: SERVER.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*SERVER.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

/// The options of a connection (`tcp_info.tcpi_options`).
fn options(stream: &TcpStream) -> Result<u8> {
    // SAFETY: zeros are a tcp_info.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    let place = std::ptr::from_mut(&mut info).cast();
    // SAFETY: the place is as long as its type.
    moved(unsafe { libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, place, &mut length) })?;
    Ok(info.tcpi_options)
}
