//! Is this socket ours to watch, and how is it written down.

use smtp_ebpf::event::{SeqNumbers, Socket};

use crate::kernel::{Sock, TcpSock, is_watched};
use crate::state::TCP_CLOSE;
use crate::track::{self, Standing};

/// `AF_INET` (`include/linux/socket.h`)
pub const AF_INET: u16 = 2;
/// `AF_INET6`
pub const AF_INET6: u16 = 10;

// include/uapi/linux/in.h
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;

/// Whether the socket is ours, or its next transfer may show that it is. The cost that every other program on the host
/// pays: two ports, a look for tracked sockets, and back.
#[inline(always)]
pub fn is_ours(sock: Sock) -> bool {
    has_watched_port(sock) || track::standing(sock, sock.local_port()) != Standing::None
}

/// Whether the socket is known to be ours.
#[inline(always)]
pub fn is_known(sock: Sock) -> bool {
    has_watched_port(sock) || track::standing(sock, sock.local_port()) == Standing::Tracked
}

/// A socket of TCP whose connection is over.
#[inline(always)]
pub fn is_closed(sock: Sock) -> bool {
    // One of UDP is in that state before it is connected.
    u32::from(sock.state()) == TCP_CLOSE && sock.protocol() == IPPROTO_TCP
}

#[inline(always)]
fn has_watched_port(sock: Sock) -> bool {
    sock.has_watched_remote_port()
        || match sock.local_port() {
            // A reset came in the middle of the call, and took it away.
            0 => Stream::of(sock).is_some_and(Stream::has_watched_port),
            port => is_watched(port),
        }
}

/// A socket that carries one stream of bytes over IP.
#[derive(Clone, Copy)]
pub struct Stream {
    sock: Sock,
    /// Absent where it is MPTCP's, which has a TCP socket for each of its paths.
    tcp: Option<TcpSock>,
}

impl Stream {
    /// The socket as TCP or MPTCP over IP, if it is that.
    #[inline(always)]
    pub fn of(sock: Sock) -> Option<Self> {
        let family = sock.family();
        if family != AF_INET && family != AF_INET6 {
            return None;
        }
        match sock.protocol() {
            IPPROTO_TCP => Some(Self { sock, tcp: Some(sock.tcp()?) }),
            IPPROTO_MPTCP => Some(Self { sock, tcp: None }),
            _ => None,
        }
    }

    /// The local port, which a TCP socket keeps when `skc_num` is given back (`__inet_put_port`).
    #[inline(always)]
    pub fn local_port(self) -> u16 {
        match (self.sock.local_port(), self.tcp) {
            (0, Some(tcp)) => tcp.local_port(),
            (port, _) => port,
        }
    }

    /// Either port is watched, at the end of a connection too.
    #[inline(always)]
    pub fn has_watched_port(self) -> bool {
        // One after the other: of two loads in two branches the compiler makes one with a pointer that is of either type,
        // which the verifier refuses.
        self.sock.has_watched_remote_port()
            || is_watched(self.sock.local_port())
            || self.tcp.is_some_and(TcpSock::has_watched_local_port)
    }

    /// It may have an address that is not this host's.
    #[inline(always)]
    pub fn is_transparent(self) -> bool {
        self.tcp.is_some_and(TcpSock::is_transparent)
    }

    /// Both its ends have one address, or loopback's: its other end is on this host.
    #[inline(always)]
    pub fn stays_here(self) -> bool {
        const LOOPBACK: u8 = 127;
        const LOOPBACK_V6: [u64; 2] = [0, 1_u64.to_be()];
        if self.sock.family() == AF_INET6 {
            let remote = self.sock.remote_v6();
            return remote == LOOPBACK_V6 || remote == self.sock.local_v6() || is_mapped_loopback(remote);
        }
        let remote = self.sock.remote_v4();
        remote[0] == LOOPBACK || remote == self.sock.local_v4()
    }

    /// kTLS works on it, or it is one path of MPTCP.
    #[inline(always)]
    pub fn has_upper_layer(self) -> bool {
        self.tcp.is_some_and(TcpSock::has_upper_layer)
    }

    /// The positions, meaningless where [`Socket::seq_unreliable`] is not zero.
    #[inline(always)]
    pub fn positions(self) -> SeqNumbers {
        self.positions_in(self.sock.state())
    }

    /// The positions of a socket in this state; where its connection is over, it was in this state before.
    #[inline(always)]
    pub fn positions_in(self, state: u8) -> SeqNumbers {
        match self.tcp {
            Some(tcp) => tcp.positions(state),
            None => SeqNumbers { write_seq: 0, copied_seq: 0 },
        }
    }

    /// So many bytes have come and can still be read.
    #[inline(always)]
    pub fn unread(self, positions: SeqNumbers) -> u32 {
        match self.tcp {
            Some(tcp) if !self.sock.is_dead() => tcp.unread(positions.copied_seq),
            _ => 0,
        }
    }

    /// Not zero where its positions are not those of the stream that processes use.
    #[inline(always)]
    pub fn seq_unreliable(self) -> u32 {
        u32::from(self.tcp.is_none_or(TcpSock::has_upper_layer))
    }

    /// Its state (`include/net/tcp_states.h`).
    #[inline(always)]
    pub fn state(self) -> u8 {
        self.sock.state()
    }

    /// The socket as a record names it.
    #[inline(always)]
    pub fn describe(self) -> Socket {
        let Self { sock, .. } = self;
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
            local_port: self.local_port(),
            remote_port: sock.remote_port(),
            state: u16::from(sock.state()),
            seq_unreliable: self.seq_unreliable(),
            local,
            remote,
        }
    }
}

/// IPv4 as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2).
#[inline(always)]
pub fn mapped(address: [u8; 4]) -> [u8; 16] {
    let low = (u64::from(u32::from_ne_bytes(address)) << 32 | 0xffff_0000).to_le();
    bytes([0, low])
}

/// `::ffff:127.0.0.0/104`
#[inline(always)]
fn is_mapped_loopback(address: [u64; 2]) -> bool {
    address[0] == 0 && u64::from_be(address[1]) >> 24 == 0x00ff_ff7f
}

#[inline(always)]
fn bytes(words: [u64; 2]) -> [u8; 16] {
    // SAFETY: both are 16 bytes without padding.
    unsafe { core::mem::transmute(words) }
}
