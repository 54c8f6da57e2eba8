//! The two ends of one connection on this host, whatever translates the addresses between them; and which of them are ours
//! although neither of their ports is watched.
//!
//! A process may be a proxy that its client asked for by a port of its own. That shows when it connects to a mail server
//! after it has accepted the client, and then says a server's greeting as the first thing on the accepted socket.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap};
use smtp_ebpf::event::{CONNECTIONS_ON_THIS_HOST, DESCRIBED_PROCESSES, SeqNumbers};

use crate::capture;
use crate::kernel::{Relative, Sock, Task};
use crate::program::Program;
use crate::socket::Stream;
use crate::state;
use crate::track::{self, Socket, Standing};

/// Where the streams of a connection began that a client here has made. The initial sequence numbers of both directions
/// name a connection: no translation of addresses changes them.
#[map]
static BEGINNINGS: LruHashMap<SeqNumbers, Beginning> = LruHashMap::with_max_entries(CONNECTIONS_ON_THIS_HOST, 0);

/// A client's connection that has begun.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Beginning {
    /// The cookie of the client's socket; zero: there is none.
    pub client: u64,
    /// Not zero: the client's socket is ours.
    pub ours: u64,
}

/// By process: when it last connected to a watched port.
#[map]
static CONNECTED: LruHashMap<u32, u64> = LruHashMap::with_max_entries(DESCRIBED_PROCESSES, 0);

/// When any process last did.
#[map]
static LAST_CONNECTED: Array<u64> = Array::with_max_entries(1, 0);

/// By the cookie of the client's socket: whether such a connection is ours, as its accepted end has shown.
#[map]
static DECIDED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(CONNECTIONS_ON_THIS_HOST, 0);

const NOT_OURS: u32 = 1;
const OURS: u32 = 2;

/// Most transfers of a client that are told before its other end is decided. The call that sends the greeting may lose the
/// processor before it returns, and the client goes on meanwhile.
const MAX_TENTATIVE: u64 = 8;

/// A client's connection is there.
#[inline(always)]
pub fn begins(stream: Stream, sock: Sock, ours: bool) {
    let beginning = Beginning { client: sock.cookie(), ours: u64::from(ours) };
    let _ = BEGINNINGS.insert(stream.positions(), beginning, 0);
    if !ours && let Some(socket) = track::begin(sock, Standing::Undecided, false, sock.remote_port()) {
        // SAFETY: the pointer is to the socket's storage. A later connect has a later time than the last one so far.
        unsafe { (&raw mut (*socket).begun).write_volatile(last_connected()) };
    }
}

/// The client whose connection was accepted with these positions.
#[inline(always)]
pub fn beginning(positions: SeqNumbers) -> Beginning {
    let SeqNumbers { write_seq, copied_seq } = positions;
    // SAFETY: the value is copied at once; an entry is not written twice.
    let beginning = unsafe { BEGINNINGS.get(SeqNumbers { write_seq: copied_seq, copied_seq: write_seq }) };
    beginning.copied().unwrap_or(Beginning { client: 0, ours: 0 })
}

/// A connection was accepted that may turn out to be ours, from a client on this host.
#[inline(always)]
pub fn accepts(stream: Stream, sock: Sock, client: u64) {
    if let Some(socket) = track::begin(sock, Standing::Undecided, true, stream.local_port()) {
        // SAFETY: the pointer is to the socket's storage.
        unsafe {
            (&raw mut (*socket).client).write_volatile(client);
            (&raw mut (*socket).positions).write_volatile(stream.positions());
            (&raw mut (*socket).begun).write_volatile(capture::now());
        }
    }
}

/// This process connects to a watched port.
#[inline(always)]
pub fn connects(pid: u32, time: u64) {
    let _ = CONNECTED.insert(pid, time, 0);
    if let Some(last) = LAST_CONNECTED.get_ptr_mut(0) {
        // SAFETY: the pointer is to the map's value. Of two at one time either will do.
        unsafe { last.write_volatile(time) };
    }
}

/// When anybody has last connected to a watched port; zero: never.
#[inline(always)]
fn last_connected() -> u64 {
    // SAFETY: the pointer is to the map's value.
    LAST_CONNECTED.get_ptr(0).map_or(0, |last| unsafe { last.read_volatile() })
}

/// Whether the current process has, or its parent, which may have connected before it was forked.
#[inline(always)]
fn caller_has_connected_since(time: u64) -> bool {
    let task = Task::current();
    // SAFETY: the values are copied at once.
    let is_since = |pid: u32| unsafe { CONNECTED.get(pid) }.is_some_and(|last| *last > time);
    is_since(task.tgid()) || task.parent().and_then(Relative::tgid).is_some_and(is_since)
}

/// Bytes move on a socket neither of whose ports is watched; whether they are to be looked at.
#[inline(always)]
pub fn may_be_ours(sock: Sock, sends: bool) -> bool {
    let Some(socket) = Socket::of(sock) else { return false };
    // SAFETY: the pointer is to the socket's storage.
    unsafe {
        let begun = (&raw const (*socket).begun).read_volatile();
        match Socket::standing(socket) {
            Standing::None => false,
            Standing::Tracked => true,
            Standing::Tentative => match decided(sock.cookie()) {
                OURS => {
                    Socket::set(socket, Standing::Tracked);
                    true
                }
                0 if tentative(socket) < MAX_TENTATIVE => true,
                _ => {
                    Socket::let_go(socket);
                    false
                }
            },
            Standing::Undecided => {
                let accepted = Socket::is_accepted(socket);
                // The server speaks first (RFC 5321, 4.3.1).
                let may = accepted == sends && last_connected() > begun;
                if !accepted && may {
                    if decided(sock.cookie()) != NOT_OURS {
                        return true;
                    }
                } else if may && caller_has_connected_since(begun) {
                    return true;
                }
                // Where nobody has connected, its client is let go as well.
                if accepted && may {
                    refuse(socket);
                }
                Socket::let_go(socket);
                false
            }
        }
    }
}

/// Counts a transfer that is told before its socket is decided.
#[inline(always)]
unsafe fn tentative(socket: *mut Socket) -> u64 {
    // SAFETY: the caller's promise. Of two at one time one may not count.
    unsafe {
        let told = (&raw const (*socket).tentative).read_volatile();
        (&raw mut (*socket).tentative).write_volatile(told + 1);
        told
    }
}

#[inline(always)]
fn decided(client: u64) -> u32 {
    // SAFETY: the value is copied at once.
    unsafe { DECIDED.get(client) }.copied().unwrap_or(0)
}

/// The connection of this accepted socket is not ours: its client is to know, which may have heard the same greeting.
#[inline(always)]
unsafe fn refuse(socket: *const Socket) {
    // SAFETY: the caller's promise.
    let client = unsafe { (&raw const (*socket).client).read_volatile() };
    let _ = DECIDED.insert(client, NOT_OURS, 0);
}

/// The first bytes of a transfer that [`may_be_ours`]; whether it is, which may have to be told before it.
#[inline(always)]
pub fn is_ours<C: EbpfContext>(context: &C, program: Program, sock: Sock, stream: Stream, first: [u8; 3]) -> bool {
    let Some(socket) = Socket::of(sock) else { return false };
    // SAFETY: the pointer is to the socket's storage.
    unsafe {
        if Socket::standing(socket) != Standing::Undecided {
            return true;
        }
        let accepted = Socket::is_accepted(socket);
        if !matches!(&first, b"220" | b"421" | b"554") {
            if accepted {
                refuse(socket);
            }
            Socket::let_go(socket);
            return false;
        }
        if accepted {
            Socket::set(socket, Standing::Tracked);
            let client = (&raw const (*socket).client).read_volatile();
            let positions = (&raw const (*socket).positions).read_volatile();
            let begun = (&raw const (*socket).begun).read_volatile();
            state::tell_of_pair(context, program, stream, begun, positions, client);
            let _ = DECIDED.insert(client, OURS, 0);
        } else if decided(sock.cookie()) == OURS {
            Socket::set(socket, Standing::Tracked);
        } else {
            Socket::set(socket, Standing::Tentative);
            state::tell_of_pair(context, program, stream, capture::now(), stream.positions(), 0);
        }
        true
    }
}
