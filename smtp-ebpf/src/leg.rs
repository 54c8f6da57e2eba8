//! Which sockets are the two ends of one connection on this host, whatever translates the addresses between them; and
//! sockets without a watched port that are ours because of it.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap, PerCpuArray};
use smtp_ebpf::event::{CONNECTIONS_ON_THIS_HOST, Positions, Socket};

use crate::kernel::{HeldSock, Sock, Task, is_watched};
use crate::program::Program;
use crate::socket::Stream;
use crate::state::TCP_ESTABLISHED;

/// Where the streams of a connection began that a client here has made. The initial sequence numbers of both directions
/// name a connection: no translation of addresses changes them.
#[map]
static BEGINNINGS: LruHashMap<Positions, Beginning> = LruHashMap::with_max_entries(CONNECTIONS_ON_THIS_HOST, 0);

/// A client's connection that has begun.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Beginning {
    /// The cookie of the client's socket; zero: there is none.
    pub client: u64,
    /// Not zero: the client's socket is ours.
    pub ours: u64,
}

/// By cookie: accepted sockets of clients on this host that are not ours. The process that holds one may turn out to be a
/// proxy before anything is said on it.
#[map]
static ACCEPTED: LruHashMap<u64, Accepted> = LruHashMap::with_max_entries(CONNECTIONS_ON_THIS_HOST, 0);

/// An accepted socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Accepted {
    /// The cookie of the client's socket.
    pub client: u64,
    /// The socket, and where its streams began.
    pub socket: Socket,
    pub positions: Positions,
}

/// By cookie: sockets without a watched port that are ours, and how sure that is.
#[map]
static LEGS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(CONNECTIONS_ON_THIS_HOST, 0);

/// The first thing said is to be a greeting (RFC 5321, 4.3.1): else it is not ours.
const EXPECTED: u32 = 1;
const CERTAIN: u32 = 2;

/// Not zero: a server's port that such a socket has had. The last place: there are any.
#[map]
static LEG_PORTS: Array<u8> = Array::with_max_entries(ANY + 1, 0);

const ANY: u32 = 1 << 16;

/// A client's connection is there, which has these positions.
#[inline(always)]
pub fn begins(positions: Positions, cookie: u64, ours: bool) {
    let _ = BEGINNINGS.insert(positions, Beginning { client: cookie, ours: u64::from(ours) }, 0);
}

/// The client whose connection was accepted with these positions.
#[inline(always)]
pub fn beginning(positions: Positions) -> Beginning {
    let Positions { written, read } = positions;
    // SAFETY: the value is copied at once; an entry is not written twice.
    let beginning = unsafe { BEGINNINGS.get(Positions { written: read, read: written }) };
    beginning.copied().unwrap_or(Beginning { client: 0, ours: 0 })
}

/// A connection was accepted that is not ours, from a client on this host.
#[inline(always)]
pub fn accepts(program: Program, client: u64, stream: Stream) {
    let Some(search) = SEARCH.get_ptr_mut(program as u32) else { return };
    // SAFETY: the pointer is to this CPU's map value: the stack has no room for what is inserted.
    unsafe {
        let accepted = &raw mut (*search).accepted;
        (&raw mut (*accepted).client).write_volatile(client);
        (&raw mut (*accepted).socket).write_volatile(stream.describe());
        (&raw mut (*accepted).socket.state).write_volatile(TCP_ESTABLISHED as u16);
        (&raw mut (*accepted).positions).write_volatile(stream.positions());
        let cookie = (&raw const (*accepted).socket.cookie).read_volatile();
        let accepted = &*accepted;
        let _ = ACCEPTED.insert(cookie, accepted, 0);
    }
}

/// From now on this socket is ours, whose server's end has this port.
#[inline(always)]
pub fn watch(cookie: u64, port: u16) {
    follow(cookie, port, CERTAIN);
}

#[inline(always)]
fn follow(cookie: u64, port: u16, standing: u32) {
    let _ = LEGS.insert(cookie, standing, 0);
    mark(u32::from(port));
    mark(ANY);
}

/// Whether a socket with this local port, which is not watched, is ours. While there are no such sockets, that is one look.
#[inline(always)]
pub fn is_one(sock: Sock, local_port: u16) -> bool {
    is_marked(ANY)
        && (is_marked(u32::from(local_port)) || is_marked(u32::from(sock.remote_port())))
        && standing(sock.cookie()) != 0
}

/// Whether who holds this socket, which is ours, has accepted it.
#[inline(always)]
pub fn is_accepted(local_port: u16, remote_port: u16) -> bool {
    is_watched(local_port) || !is_watched(remote_port) && is_marked(u32::from(local_port))
}

/// The first bytes said on a socket that may be ours; whether it is. `serves`: the server says them.
#[inline(always)]
pub fn is_confirmed(cookie: u64, serves: bool, first: [u8; 3]) -> bool {
    if standing(cookie) != EXPECTED {
        return true;
    }
    if serves && matches!(&first, b"220" | b"421" | b"554") {
        let _ = LEGS.insert(cookie, CERTAIN, 0);
        return true;
    }
    let _ = LEGS.remove(cookie);
    false
}

#[inline(always)]
fn standing(cookie: u64) -> u32 {
    // SAFETY: the value is copied at once.
    unsafe { LEGS.get(cookie) }.copied().unwrap_or(0)
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

/// Most descriptors of a process that are looked at.
const MOST_DESCRIPTORS: u32 = 1024;

/// Most sockets found in one look.
pub const MOST_FOUND: usize = 4;

/// Accepted sockets that a process holds, on which nothing was said yet; and room for one.
#[repr(C)]
pub struct Search {
    found: [u64; MOST_FOUND],
    count: u64,
    accepted: Accepted,
}

#[map]
static SEARCH: PerCpuArray<Search> = PerCpuArray::with_max_entries(Program::COUNT, 0);

/// The callback's own.
#[repr(C)]
struct Walk {
    table: u64,
    search: *mut Search,
}

/// The current process connects to a server: of its accepted sockets of clients on this host those on which nothing was
/// said yet may be what it connects for. They are expected to be ours; so are the clients' own.
#[inline(always)]
pub fn expect(program: Program, found: impl Fn(&Accepted)) {
    let Some(search) = SEARCH.get_ptr_mut(program as u32) else { return };
    let Some((table, size)) = Task::current().descriptors() else { return };
    let mut walk = Walk { table, search };
    // SAFETY: the pointer is to this CPU's map value; the helper passes the index and the pointer to the function.
    unsafe {
        (&raw mut (*search).count).write_volatile(0);
        bpf_loop(
            if size < MOST_DESCRIPTORS { size } else { MOST_DESCRIPTORS },
            look as *mut c_void,
            (&raw mut walk).cast(),
            0,
        );
        let count = (&raw const (*search).count).read_volatile();
        for place in 0..MOST_FOUND {
            if place as u64 >= count {
                break;
            }
            let cookie = (&raw const (*search).found[place]).read_volatile();
            let Some(accepted) = ACCEPTED.get(cookie) else { continue };
            follow(cookie, accepted.socket.local_port, EXPECTED);
            follow(accepted.client, accepted.socket.local_port, EXPECTED);
            found(accepted);
        }
    }
}

/// Looks at a descriptor; the body of a `bpf_loop`.
unsafe extern "C" fn look(descriptor: u64, walk: *mut Walk) -> i64 {
    // SAFETY: `expect` passes its own.
    let Walk { table, search } = unsafe { &*walk };
    let Some(sock) = HeldSock::at(*table, descriptor) else { return 0 };
    let Some(cookie) = sock.cookie() else { return 0 };
    // SAFETY: the value is read at once.
    let Some(accepted) = (unsafe { ACCEPTED.get(cookie) }) else { return 0 };
    if sock.positions() != Some(accepted.positions) {
        return 0;
    }
    // SAFETY: the pointer is to this CPU's map value, and the place is below its size.
    unsafe {
        let count = (&raw const (**search).count).read_volatile();
        if count >= MOST_FOUND as u64 {
            return 1;
        }
        (&raw mut (**search).found[(count & (MOST_FOUND as u64 - 1)) as usize]).write_volatile(cookie);
        (&raw mut (**search).count).write_volatile(count + 1);
    }
    0
}
