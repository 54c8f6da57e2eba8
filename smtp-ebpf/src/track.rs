//! What is known of a socket, and which ports have sockets that are tracked although neither of their ports is watched.

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::Array;
use smtp_ebpf::event::SeqNumbers;

use crate::kernel::{Sock, is_watched};
use crate::{atomic, socket};

/// By socket, and gone with it.
#[btf_map]
static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// What is known of a socket. It begins as zeros.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Socket {
    /// A [`Standing`]'s number.
    standing: u32,
    /// Not zero: it was accepted.
    accepted: u32,
    /// Transfers that were told before it was decided whether it is ours.
    pub tentative: u64,
    /// The port at which it is counted; zero: at none.
    counted: u64,
    /// When it was accepted; of a client's, when a process had last connected to a watched port by then.
    pub begun: u64,
    /// The cookie of the client's socket at the other end, where it was accepted from a client on this host.
    pub client: u64,
    /// Where its streams began.
    pub positions: SeqNumbers,
}

/// How a socket without a watched port stands.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is not ours.
    None = 0,
    /// It is decided with its first transfer.
    Undecided = 1,
    /// It is a client's that has heard a greeting; whether it is ours is decided at the other end.
    Tentative = 2,
    /// It is ours.
    Tracked = 3,
}

/// How many sockets are tracked, or undecided, by the port of the server's end. The last place: all of them.
#[map]
static PORTS: Array<u64> = Array::with_max_entries(ANY + 1, 0);

const ANY: u32 = 1 << 16;

impl Socket {
    /// What is known of a socket, if anything is.
    #[inline(always)]
    pub fn of(sock: Sock) -> Option<*mut Self> {
        Self::get(sock, 0)
    }

    #[inline(always)]
    fn of_new(sock: Sock) -> Option<*mut Self> {
        Self::get(sock, BPF_SK_STORAGE_GET_F_CREATE)
    }

    #[inline(always)]
    fn get(sock: Sock, flags: u32) -> Option<*mut Self> {
        let map = (&raw const SOCKETS).cast_mut().cast();
        // SAFETY: the helper takes a map, a socket that the verifier knows, and no first value.
        let socket = unsafe { bpf_sk_storage_get(map, sock.as_ptr(), core::ptr::null_mut(), u64::from(flags)) };
        let socket = socket.cast::<Self>();
        (!socket.is_null()).then_some(socket)
    }

    /// How it stands.
    ///
    /// # Safety
    /// `socket` is from [`Self::of`].
    #[inline(always)]
    pub unsafe fn standing(socket: *const Self) -> Standing {
        // SAFETY: the caller's promise.
        match unsafe { (&raw const (*socket).standing).read_volatile() } {
            1 => Standing::Undecided,
            2 => Standing::Tentative,
            3 => Standing::Tracked,
            _ => Standing::None,
        }
    }

    /// Sets how it stands, where that is not [`Standing::None`].
    ///
    /// # Safety
    /// As of [`Self::standing`].
    #[inline(always)]
    pub unsafe fn set(socket: *mut Self, standing: Standing) {
        // SAFETY: the caller's promise.
        unsafe { (&raw mut (*socket).standing).write_volatile(standing as u32) };
    }

    /// It was accepted.
    ///
    /// # Safety
    /// As of [`Self::standing`].
    #[inline(always)]
    pub unsafe fn is_accepted(socket: *const Self) -> bool {
        // SAFETY: the caller's promise.
        unsafe { (&raw const (*socket).accepted).read_volatile() != 0 }
    }

    /// It is not ours.
    ///
    /// # Safety
    /// As of [`Self::standing`].
    #[inline(always)]
    pub unsafe fn let_go(socket: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe {
            Self::set(socket, Standing::None);
            Self::discount(socket);
        }
    }

    /// It is counted no more. Whoever comes first takes the count away, so that it is taken away once.
    #[inline(always)]
    unsafe fn discount(socket: *mut Self) {
        // SAFETY: the caller's promise.
        let port = unsafe { atomic::swap(&raw mut (*socket).counted, 0) };
        if port != 0 {
            add(port, 1_u64.wrapping_neg());
            add(u64::from(ANY), 1_u64.wrapping_neg());
        }
    }
}

/// From now on this socket, neither of whose ports is watched, is looked at. The server's end has this port.
#[inline(always)]
pub fn begin(sock: Sock, standing: Standing, accepted: bool, server_port: u16) -> Option<*mut Socket> {
    let socket = Socket::of_new(sock)?;
    // SAFETY: the pointer is to the socket's storage.
    unsafe {
        // It may have had another connection.
        Socket::discount(socket);
        (&raw mut (*socket).accepted).write_volatile(u32::from(accepted));
        (&raw mut (*socket).tentative).write_volatile(0);
        (&raw mut (*socket).counted).write_volatile(u64::from(server_port));
        Socket::set(socket, standing);
    }
    if server_port != 0 {
        add(u64::from(server_port), 1);
        add(u64::from(ANY), 1);
    }
    Some(socket)
}

/// A connection is over; whether its socket was tracked. What is left in it can still be read.
#[inline(always)]
pub fn end(sock: Sock, local_port: u16) -> Standing {
    if !is_marked_at(sock, local_port) {
        return Standing::None;
    }
    let Some(socket) = Socket::of(sock) else { return Standing::None };
    // SAFETY: the pointer is to the socket's storage.
    unsafe {
        let standing = Socket::standing(socket);
        if standing == Standing::Undecided {
            Socket::set(socket, Standing::None);
        }
        Socket::discount(socket);
        standing
    }
}

/// A socket connects: whatever connection it had is over.
#[inline(always)]
pub fn forget(sock: Sock) {
    if let Some(socket) = Socket::of(sock) {
        // SAFETY: the pointer is to the socket's storage.
        unsafe { Socket::let_go(socket) };
    }
}

/// How a socket with this local port stands, neither of whose ports is watched. While its ports have no such sockets, that is
/// a look or two.
#[inline(always)]
pub fn standing(sock: Sock, local_port: u16) -> Standing {
    if !is_marked_at(sock, local_port) && !socket::is_closed(sock) {
        return Standing::None;
    }
    match Socket::of(sock) {
        // SAFETY: the pointer is to the socket's storage.
        Some(socket) => unsafe { Socket::standing(socket) },
        None => Standing::None,
    }
}

/// Whether who holds this socket, which is ours, has accepted it.
#[inline(always)]
pub fn is_accepted(sock: Sock, local_port: u16, remote_port: u16) -> bool {
    is_watched(local_port)
        || !is_watched(remote_port)
            // SAFETY: the pointer is to the socket's storage.
            && Socket::of(sock).is_some_and(|socket| unsafe { Socket::is_accepted(socket) })
}

#[inline(always)]
fn is_marked_at(sock: Sock, local_port: u16) -> bool {
    is_marked(ANY) && (is_marked(u32::from(local_port)) || is_marked(u32::from(sock.remote_port())))
}

#[inline(always)]
fn add(place: u64, number: u64) {
    if let Some(count) = PORTS.get_ptr_mut(place as u32) {
        // SAFETY: the pointer is to the map's value.
        unsafe { atomic::add(count, number) };
    }
}

#[inline(always)]
fn is_marked(place: u32) -> bool {
    // SAFETY: the pointer is to the map's value.
    PORTS.get_ptr(place).is_some_and(|count| unsafe { count.read_volatile() } != 0)
}
