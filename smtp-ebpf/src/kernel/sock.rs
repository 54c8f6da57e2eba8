//! Sockets: what a descriptor stands for, and what is below it.

use core::ffi::c_void;
use core::ptr::NonNull;

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock};
use smtp_ebpf::event::SeqNumbers;

use super::{OFFSETS, injected, is_watched_network, load, offset, probe_kernel};

/// A `struct socket`, what a descriptor stands for.
#[derive(Clone, Copy)]
pub struct Socket(*const u8);

impl Socket {
    /// The socket that a hooked function is called with.
    #[inline(always)]
    pub fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    /// NULL once it is released.
    #[inline(always)]
    pub fn sock(self) -> Option<Sock> {
        // SAFETY: sk is a struct sock * of struct socket.
        let sock: *const u8 = unsafe { load(self.0, offset(&OFFSETS.socket_sock)) };
        (!sock.is_null()).then_some(Sock(sock))
    }
}

/// A `struct sock`.
#[derive(Clone, Copy)]
pub struct Sock(pub(super) *const u8);

impl Sock {
    /// The socket that a tracepoint passes.
    #[inline(always)]
    pub fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    /// For helpers that take a socket.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut c_void {
        self.0.cast_mut().cast()
    }

    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        u16::from_be(self.remote_network_port())
    }

    #[inline(always)]
    pub fn has_watched_remote_port(self) -> bool {
        is_watched_network(self.remote_network_port())
    }

    #[inline(always)]
    fn remote_network_port(self) -> u16 {
        // SAFETY: skc_dport is a __be16 of struct sock.
        unsafe { load(self.0, offset(&OFFSETS.sock_remote_port)) }
    }

    #[inline(always)]
    pub fn local_port(self) -> u16 {
        // SAFETY: skc_num is a __u16 of struct sock.
        unsafe { load(self.0, offset(&OFFSETS.sock_local_port)) }
    }

    #[inline(always)]
    pub fn family(self) -> u16 {
        // SAFETY: skc_family is an unsigned short of struct sock.
        unsafe { load(self.0, offset(&OFFSETS.sock_family)) }
    }

    #[inline(always)]
    pub fn state(self) -> u8 {
        // SAFETY: skc_state is an unsigned char of struct sock.
        unsafe { load(self.0, offset(&OFFSETS.sock_state)) }
    }

    #[inline(always)]
    pub fn protocol(self) -> u16 {
        // SAFETY: sk_protocol is a u16 of struct sock (since 5.6).
        unsafe { load(self.0, offset(&OFFSETS.sock_protocol)) }
    }

    /// The error that its next call will return (errno(3)), zero: none.
    #[inline(always)]
    pub fn error(self) -> u32 {
        // SAFETY: sk_err is an int of struct sock.
        unsafe { load(self.0, offset(&OFFSETS.sock_error)) }
    }

    /// No process has it any more.
    #[inline(always)]
    pub fn is_dead(self) -> bool {
        // SAFETY: it is a struct sock.
        unsafe { has_flag(self.0, SOCK_DEAD) }
    }

    /// Its host takes what it sends for its own, whatever becomes of it on the way: a local route (`RTN_LOCAL`) leads through
    /// a loopback device. Known of a client from the end of `connect` on.
    #[inline(always)]
    pub fn has_local_route(self) -> bool {
        // include/uapi/linux/if.h
        const IFF_LOOPBACK: u32 = 1 << 3;
        let field = |structure: u64, offset: usize| probe_kernel(structure + offset as u64).filter(|found| *found != 0);
        field(self.as_ptr() as u64, offset(&OFFSETS.sock_route))
            .and_then(|route| field(route, offset(&OFFSETS.route_device)))
            .and_then(|device| probe_kernel::<u32>(device + offset(&OFFSETS.device_flags) as u64))
            .is_some_and(|flags| flags & IFF_LOOPBACK != 0)
    }

    /// Its network namespace's inode number.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        // SAFETY: skc_net.net is a struct net *, whose ns.inum is an unsigned int.
        unsafe { load(load::<*const u8>(self.0, offset(&OFFSETS.sock_net)), offset(&OFFSETS.net_inode)) }
    }

    #[inline(always)]
    pub fn local_v4(self) -> [u8; 4] {
        // SAFETY: skc_rcv_saddr is a __be32 of struct sock.
        unsafe { load::<u32>(self.0, offset(&OFFSETS.sock_local_v4)) }.to_ne_bytes()
    }

    #[inline(always)]
    pub fn remote_v4(self) -> [u8; 4] {
        // SAFETY: skc_daddr is a __be32 of struct sock.
        unsafe { load::<u32>(self.0, offset(&OFFSETS.sock_remote_v4)) }.to_ne_bytes()
    }

    #[inline(always)]
    pub fn local_v6(self) -> [u64; 2] {
        // SAFETY: skc_v6_rcv_saddr is a struct in6_addr of 16 bytes.
        unsafe { [load(self.0, offset(&OFFSETS.sock_local_v6)), load(self.0, offset(&OFFSETS.sock_local_v6) + 8)] }
    }

    #[inline(always)]
    pub fn remote_v6(self) -> [u64; 2] {
        // SAFETY: skc_v6_daddr is a struct in6_addr of 16 bytes.
        unsafe { [load(self.0, offset(&OFFSETS.sock_remote_v6)), load(self.0, offset(&OFFSETS.sock_remote_v6) + 8)] }
    }

    /// The kernel's name for it, the same for as long as it lives and never used again.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        // SAFETY: the helper takes a struct sock * or NULL.
        unsafe { bpf_get_socket_cookie(self.as_ptr()) }
    }

    /// The socket as one of TCP, if it is one.
    #[inline(always)]
    pub fn tcp(self) -> Option<TcpSock> {
        // SAFETY: the helper takes a struct sock * and answers NULL where it is not a full TCP socket.
        let pointer = unsafe { bpf_skc_to_tcp_sock(self.as_ptr()) };
        NonNull::new(pointer.cast()).map(TcpSock)
    }
}

/// What may be a `struct sock`: what a descriptor leads to is not known until it is looked at.
#[derive(Clone, Copy)]
pub struct HeldSock(u64);

impl HeldSock {
    /// The address of the `struct file` that a descriptor of a table of open files stands for.
    #[inline(always)]
    pub fn file_at(table: u64, descriptor: u64) -> Option<u64> {
        // Where nothing is, nothing is read: a fault costs more than a look.
        probe_kernel(table + descriptor * size_of::<u64>() as u64).filter(|file| *file != 0)
    }

    /// What a file is, if it is a socket.
    #[inline(always)]
    pub fn of_file(file: u64) -> Option<Self> {
        let socket: u64 = probe_kernel(file + offset(&OFFSETS.file_private) as u64).filter(|socket| *socket != 0)?;
        probe_kernel(socket + offset(&OFFSETS.socket_sock) as u64).filter(|sock| *sock != 0).map(Self)
    }

    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0
    }
}

/// A `struct tcp_sock`. `None` is a null pointer: a value that there is, in the verifier's eyes.
#[derive(Clone, Copy)]
pub struct TcpSock(NonNull<u8>);

impl TcpSock {
    /// The local port, which stays when `skc_num` is given back (`__inet_put_port`).
    #[inline(always)]
    pub fn local_port(self) -> u16 {
        u16::from_be(self.local_network_port())
    }

    #[inline(always)]
    pub fn has_watched_local_port(self) -> bool {
        is_watched_network(self.local_network_port())
    }

    #[inline(always)]
    fn local_network_port(self) -> u16 {
        // SAFETY: inet_sport is a __be16 of the struct inet_sock that a tcp_sock begins with.
        unsafe { load(self.0.as_ptr(), offset(&OFFSETS.tcp_local_port)) }
    }

    /// Something sits between the stream and its user: kTLS, or MPTCP, whose subflow this then is.
    #[inline(always)]
    pub fn has_upper_layer(self) -> bool {
        // SAFETY: icsk_ulp_ops is a pointer of the struct inet_connection_sock that a tcp_sock begins with.
        unsafe { load::<u64>(self.0.as_ptr(), offset(&OFFSETS.tcp_upper_layer)) != 0 }
    }

    /// `IP_TRANSPARENT` is set on it, or was on the socket that accepted it.
    #[inline(always)]
    pub fn is_transparent(self) -> bool {
        // SAFETY: the flags are of the struct inet_sock that a tcp_sock begins with.
        let flags: u8 = unsafe { load(self.0.as_ptr(), offset(&OFFSETS.tcp_transparent)) };
        flags >> (injected(&OFFSETS.transparent_bit) & 7) & 1 != 0
    }

    /// The stream positions of the socket, without the sequence numbers of FINs. It is in this state; where its connection is
    /// over, it was in this state before.
    #[inline(always)]
    pub fn positions(self, state: u8) -> SeqNumbers {
        // SAFETY: write_seq and copied_seq are u32 of struct tcp_sock.
        let (mut write_seq, mut copied_seq): (u32, u32) = unsafe {
            (
                load(self.0.as_ptr(), offset(&OFFSETS.tcp_write_seq)),
                load(self.0.as_ptr(), offset(&OFFSETS.tcp_copied_seq)),
            )
        };
        if matches!(state, FIN_WAIT1 | FIN_WAIT2 | CLOSING | LAST_ACK | TIME_WAIT) {
            // tcp_send_fin has counted one.
            write_seq = write_seq.wrapping_sub(1);
        }
        if !matches!(state, SYN_SENT | ESTABLISHED) && self.has_fin() && copied_seq == self.received() {
            // tcp_recvmsg has gone over one.
            copied_seq = copied_seq.wrapping_sub(1);
        }
        SeqNumbers { write_seq, copied_seq }
    }

    /// So many bytes have come and were not read.
    #[inline(always)]
    pub fn unread(self, copied_seq: u32) -> u32 {
        self.received().wrapping_sub(u32::from(self.has_fin())).wrapping_sub(copied_seq)
    }

    /// The sequence number after all that has come.
    #[inline(always)]
    fn received(self) -> u32 {
        // SAFETY: rcv_nxt is a u32 of struct tcp_sock.
        unsafe { load(self.0.as_ptr(), offset(&OFFSETS.tcp_received_next)) }
    }

    /// The other end has said its last (`tcp_fin`).
    #[inline(always)]
    fn has_fin(self) -> bool {
        // SAFETY: a tcp_sock begins with a struct sock.
        unsafe { has_flag(self.0.as_ptr(), SOCK_DONE) }
    }
}

/// A flag of a socket (`sock_flag`).
///
/// # Safety
/// `sock` is a struct sock.
#[inline(always)]
unsafe fn has_flag(sock: *const u8, flag: u32) -> bool {
    // SAFETY: the caller's promise; sk_flags is an unsigned long.
    unsafe { load::<u64>(sock, offset(&OFFSETS.sock_flags)) >> flag & 1 != 0 }
}

// enum sock_flags, include/net/sock.h
const SOCK_DEAD: u32 = 0;
const SOCK_DONE: u32 = 1;

// include/net/tcp_states.h
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;
