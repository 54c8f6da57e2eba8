//! Which sockets are the two ends of one connection on this host, whatever translates the addresses between them; and
//! sockets without a watched port that are ours because of it.

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, LruHashMap};
use smtp_ebpf::event::{BEGINNINGS as MOST_BEGINNINGS, Positions};

use crate::kernel::Sock;

/// Where the streams of a connection began that a watched client has made, and the client's cookie. The initial sequence
/// numbers of both directions name a connection: no translation of addresses changes them.
#[map]
static BEGINNINGS: LruHashMap<Positions, u64> = LruHashMap::with_max_entries(MOST_BEGINNINGS, 0);

/// On a socket without a watched port that is ours: an end of a connection whose other end, or whose asked address, is
/// on a watched port. Gone with the socket.
#[btf_map]
static LEGS: SkStorage<u64> = SkStorage::new();

/// Not zero: a server's port that such a socket has had. The last place: there are any.
#[map]
static LEG_PORTS: Array<u8> = Array::with_max_entries(ANY + 1, 0);

const ANY: u32 = 1 << 16;

/// A watched client's connection is there; these are its positions.
#[inline(always)]
pub fn begins(positions: Positions, cookie: u64) {
    let _ = BEGINNINGS.insert(&positions, &cookie, 0);
}

/// The cookie of the watched client whose connection was accepted with these positions; zero if there is none.
#[inline(always)]
pub fn client(positions: Positions) -> u64 {
    let Positions { written, read } = positions;
    // SAFETY: the value is copied at once; an entry is not written twice.
    unsafe { BEGINNINGS.get(&Positions { written: read, read: written }) }.copied().unwrap_or(0)
}

/// From now on this socket is ours, whose server's end has this port.
#[inline(always)]
pub fn watch(sock: Sock, port: u16) {
    if get(sock, BPF_SK_STORAGE_GET_F_CREATE.into()) {
        mark(u32::from(port));
        mark(ANY);
    }
}

/// Whether a socket without a watched port is ours. While there are no such sockets, that is one look.
#[inline(always)]
pub fn is_one(sock: Sock) -> bool {
    is_marked(ANY)
        && (is_marked(u32::from(sock.local_port())) || is_marked(u32::from(sock.remote_port())))
        && get(sock, 0)
}

#[inline(always)]
fn get(sock: Sock, flags: u64) -> bool {
    let map = (&raw const LEGS).cast_mut().cast();
    // SAFETY: the helper takes a map, a socket that the verifier knows, and no first value.
    let leg = unsafe { bpf_sk_storage_get(map, sock.as_ptr(), core::ptr::null_mut(), flags) };
    !leg.is_null()
}

#[inline(always)]
fn mark(place: u32) {
    if let Some(marked) = LEG_PORTS.get_ptr_mut(place) {
        // SAFETY: the pointer is to the map's value; whoever else writes it writes the same.
        unsafe { marked.write_volatile(1) };
    }
}

#[inline(always)]
fn is_marked(place: u32) -> bool {
    // SAFETY: the pointer is to the map's value.
    LEG_PORTS.get_ptr(place).is_some_and(|marked| unsafe { marked.read_volatile() } != 0)
}
