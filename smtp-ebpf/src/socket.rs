//! Is this socket ours to watch, and how is it written down.

use smtp_ebpf::event::Socket;

use crate::kernel::{Sock, TcpSock, is_watched};

/// `AF_INET` (`include/linux/socket.h`)
pub const AF_INET: u16 = 2;
/// `AF_INET6`
pub const AF_INET6: u16 = 10;

/// The cost that every other program on the host pays: two ports, and back.
#[inline(always)]
pub fn has_watched_port(sock: Sock) -> bool {
    is_watched(sock.remote_port()) || is_watched(sock.local_port())
}

/// The socket as TCP over IP, if it is that.
#[inline(always)]
pub fn tcp_over_ip(sock: Sock) -> Option<TcpSock> {
    let family = sock.family();
    if family == AF_INET || family == AF_INET6 { sock.tcp() } else { None }
}

/// The socket as a record names it.
#[inline(always)]
pub fn describe(sock: Sock, tcp: TcpSock) -> Socket {
    let family = sock.family();
    let (local, remote) = if family == AF_INET6 {
        (bytes(sock.local_v6()), bytes(sock.remote_v6()))
    } else {
        (mapped(sock.local_v4()), mapped(sock.remote_v4()))
    };
    Socket {
        cookie: sock.cookie(),
        netns: sock.netns(),
        family,
        local_port: tcp.local_port(),
        remote_port: sock.remote_port(),
        state: u16::from(sock.state()),
        padding: 0,
        local,
        remote,
    }
}

/// IPv4 as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2).
#[inline(always)]
pub fn mapped(address: [u8; 4]) -> [u8; 16] {
    let low = (u64::from(u32::from_ne_bytes(address)) << 32 | 0xffff_0000).to_le();
    bytes([0, low])
}

#[inline(always)]
fn bytes(words: [u64; 2]) -> [u8; 16] {
    // SAFETY: both are 16 bytes without padding.
    unsafe { core::mem::transmute(words) }
}
