//! A socket changes its state: the life of a connection.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use smtp_ebpf::event::{Kind, SeqNumbers, State};

use crate::buffer_location::UserMessage;
use crate::dialogue::Followed;
use crate::kernel::{Call, Sock, Task, is_watched, probe_user};
use crate::program::Program;
use crate::socket::{self, Stream};
use crate::track::{self, Standing};
use crate::{capture, dialogue, local_pair, owner, plaintext};

// include/net/tcp_states.h
pub const TCP_ESTABLISHED: u32 = 1;
const TCP_SYN_SENT: u32 = 2;
pub const TCP_SYN_RECV: u32 = 3;
pub const TCP_CLOSE: u32 = 7;
pub const TCP_LISTEN: u32 = 10;

/// A record under construction, and the last change that was told.
#[repr(C)]
struct Scratch {
    state: State,
    sock: u64,
    change: u64,
}

#[map]
static STATE: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(2, 0);

/// Most ends of connections that wait for room.
const MAX_ENDS: u32 = 4096;

/// Ends of connections that found no room in the ring, by the sockets' cookies: they are counted as lost, and taken from here
/// later. Nothing else tells that a connection is over.
#[map]
static ENDS: HashMap<u64, State> = HashMap::with_max_entries(MAX_ENDS, ON_DEMAND);

/// `BPF_F_NO_PREALLOC`: nearly always there are none.
const ON_DEMAND: u32 = 1;

/// From one state to another.
#[derive(Clone, Copy)]
struct Change {
    old: u32,
    new: u32,
}

impl Change {
    /// A connection begins, is there, or ends.
    #[inline(always)]
    fn is_of_interest(self) -> bool {
        self.old != TCP_LISTEN && (self.new == TCP_ESTABLISHED || self.new == TCP_SYN_SENT || self.new == TCP_CLOSE)
    }

    /// A number of its own, which is not zero.
    #[inline(always)]
    fn number(self) -> u64 {
        u64::from(self.old) << 32 | u64::from(self.new)
    }
}

/// Tells of a connection that begins, is there, or ends.
#[inline(always)]
pub fn changes<C: EbpfContext>(context: &C, sock: Sock, old: u32, new: u32) {
    let change = Change { old, new };
    if !change.is_of_interest() {
        return;
    }
    let Some(scratch) = STATE.get_ptr_mut(0) else { return };
    // SAFETY: the pointer is to this CPU's map value.
    unsafe {
        tell(context, Program::State, &raw mut (*scratch).state, sock, change);
        (&raw mut (*scratch).sock).write_volatile(sock.as_ptr() as u64);
        (&raw mut (*scratch).change).write_volatile(change.number());
    }
}

/// The same, right behind it, for a change in softirq that came while the processor was in the middle of [`changes`]: the
/// kernel does not run a program inside of itself, but runs this one.
#[inline(always)]
pub fn changes_meanwhile<C: EbpfContext>(context: &C, sock: Sock, old: u32, new: u32) {
    let change = Change { old, new };
    if !change.is_of_interest() {
        return;
    }
    let (Some(first), Some(scratch)) = (STATE.get_ptr_mut(0), STATE.get_ptr_mut(1)) else { return };
    // SAFETY: the pointers are to this CPU's map values.
    unsafe {
        let last = &raw mut (*first).change;
        if (&raw const (*first).sock).read_volatile() == sock.as_ptr() as u64 && last.read_volatile() == change.number()
        {
            last.write_volatile(0);
            return;
        }
        // It was skipped, or another change came between the two.
        if Followed::known(sock).is_none_or(|followed| Followed::state_told(followed) != change.number()) {
            tell(context, Program::StateInside, &raw mut (*scratch).state, sock, change);
        }
    }
}

/// # Safety
/// `state` belongs to a map value that nobody else writes meanwhile.
#[inline(always)]
unsafe fn tell<C: EbpfContext>(context: &C, program: Program, state: *mut State, sock: Sock, change: Change) {
    let Change { old, new } = change;
    let Some(stream) = Stream::of(sock) else { return };
    // `skc_num` may already be given back.
    let watched = stream.has_watched_port();
    let mut ours = watched;
    let mut requested = Requested::NONE;
    let mut peer = 0;
    if new == TCP_SYN_SENT {
        requested = Requested::of_caller(sock);
        if !watched {
            track::forget(sock);
            if requested.is_watched() {
                // Whoever sent the caller elsewhere is of interest.
                let _ = track::begin(sock, Standing::Tracked, false, sock.remote_port());
                ours = true;
            }
        }
    } else if new == TCP_ESTABLISHED && old == TCP_SYN_SENT {
        ours = watched || track::standing(sock, stream.local_port()) == Standing::Tracked;
        if ours || stream.stays_here() {
            local_pair::begins(stream, sock, ours);
        }
    } else if new == TCP_ESTABLISHED && old == TCP_SYN_RECV {
        let beginning = local_pair::beginning(stream.positions());
        peer = beginning.client;
        if watched {
            // No more is to be known.
        } else if beginning.ours != 0 {
            let _ = track::begin(sock, Standing::Tracked, true, stream.local_port());
            ours = true;
        } else if peer != 0 {
            local_pair::accepts(stream, sock, peer);
        }
    } else if !watched {
        ours = match new {
            TCP_CLOSE => track::end(sock, stream.local_port()) == Standing::Tracked,
            _ => track::standing(sock, stream.local_port()) == Standing::Tracked,
        };
    }
    if !ours {
        return;
    }
    if new != TCP_CLOSE && stream.has_upper_layer() {
        // One path of an MPTCP socket, which tells of itself.
        return;
    }
    let followed = if new == TCP_CLOSE { Followed::known(sock) } else { Followed::of(sock) };
    if let Some(followed) = followed {
        // SAFETY: it is the socket's map value.
        unsafe {
            Followed::set_state_told(followed, change.number());
            if new == TCP_CLOSE {
                plaintext::release(followed);
            }
            if new == TCP_SYN_SENT {
                dialogue::connects(followed);
            }
            if new == TCP_ESTABLISHED {
                dialogue::is_established(followed, stream.positions(), old == TCP_SYN_RECV);
            }
        }
    }
    let (time, positions) = (capture::now(), stream.positions());
    let mut task = owner::NOBODY;
    if new == TCP_SYN_SENT {
        task = owner::current();
        owner::describe_once(context, program, &task, time);
        local_pair::connects(task.pid, time);
    }
    // SAFETY: the caller's promise.
    unsafe {
        *state = State {
            header: capture::header(Kind::State, time),
            task,
            socket: stream.describe(),
            positions,
            old,
            new,
            requested: requested.address,
            requested_port: requested.port,
            requested_family: requested.family,
            transparent: u16::from(stream.is_transparent()),
            local_route: u16::from(old == TCP_SYN_SENT && sock.has_local_route()),
            peer,
            error: if new == TCP_CLOSE { sock.error() } else { 0 },
            unread: if new == TCP_CLOSE { stream.unread(positions) } else { 0 },
        };
        const LENGTH: usize = size_of::<State>();
        if !capture::output(context, program as u32, Kind::State, state.cast(), LENGTH, LENGTH) && new == TCP_CLOSE {
            // By reference: the stack has no room for it.
            let end: &State = &*state;
            let _ = ENDS.insert(end.socket.cookie, end, 0);
        }
    }
}

/// What is told of the two ends of a connection on this host.
#[map]
static PAIR: PerCpuArray<State> = PerCpuArray::with_max_entries(Program::COUNT, 0);

/// A socket without a watched port is one of the two ends of a connection on this host that is ours, or may be: told before
/// its first transfer.
#[inline(always)]
pub fn tell_of_pair<C: EbpfContext>(
    context: &C,
    program: Program,
    stream: Stream,
    time: u64,
    positions: SeqNumbers,
    client: u64,
) {
    let Some(state) = PAIR.get_ptr_mut(program as u32) else { return };
    // SAFETY: the pointer is to this CPU's map value. Part by part: the stack has no room for the whole.
    unsafe {
        (&raw mut (*state).header).write_volatile(capture::header(Kind::State, time));
        (&raw mut (*state).task).write_volatile(owner::NOBODY);
        (&raw mut (*state).socket).write_volatile(stream.describe());
        (&raw mut (*state).socket.state).write_volatile(TCP_ESTABLISHED as u16);
        (&raw mut (*state).positions).write_volatile(positions);
        (&raw mut (*state).old).write_volatile(TCP_ESTABLISHED);
        (&raw mut (*state).new).write_volatile(TCP_ESTABLISHED);
        (&raw mut (*state).requested).write_volatile([0; 16]);
        (&raw mut (*state).requested_port).write_volatile(0);
        (&raw mut (*state).requested_family).write_volatile(0);
        (&raw mut (*state).transparent).write_volatile(0);
        (&raw mut (*state).local_route).write_volatile(0);
        (&raw mut (*state).peer).write_volatile(client);
        (&raw mut (*state).error).write_volatile(0);
        (&raw mut (*state).unread).write_volatile(0);
        capture::output(context, program as u32, Kind::State, state.cast(), size_of::<State>(), size_of::<State>());
    }
}

/// The address that the caller of `connect` asked for; a cgroup program may have sent it elsewhere.
struct Requested {
    address: [u8; 16],
    port: u16,
    family: u16,
}

/// `struct sockaddr_in`
#[repr(C)]
#[derive(Clone, Copy)]
struct SockAddrIn {
    family: u16,
    port: u16,
    address: [u8; 4],
}

/// `struct sockaddr_in6`
#[repr(C)]
#[derive(Clone, Copy)]
struct SockAddrIn6 {
    family: u16,
    port: u16,
    flow: u32,
    address: [u8; 16],
}

impl Requested {
    const NONE: Self = Self { address: [0; 16], port: 0, family: 0 };

    #[inline(always)]
    fn is_watched(&self) -> bool {
        self.family != 0 && is_watched(self.port)
    }

    /// What the current system call asks for, if it is one on this socket: `connect`, or a send that connects
    /// (`MSG_FASTOPEN`).
    #[inline(always)]
    fn of_caller(sock: Sock) -> Self {
        let task = Task::current();
        let registers = task.registers();
        if task.is_kernels() || task.is_compat() || !task.holds(registers.argument_1(), sock) {
            return Self::NONE;
        }
        let address = match registers.call() {
            Call::Connect => registers.argument_2(),
            Call::Buffer if registers.is_sendto() => registers.argument_5(),
            Call::Message => match probe_user::<UserMessage>(registers.argument_2()) {
                Some(message) => message.name,
                None => return Self::NONE,
            },
            _ => return Self::NONE,
        };
        let Some(v4) = probe_user::<SockAddrIn>(address) else {
            return Self::NONE;
        };
        let port = u16::from_be(v4.port);
        match v4.family {
            socket::AF_INET => Self { address: socket::mapped(v4.address), port, family: v4.family },
            socket::AF_INET6 => match probe_user::<SockAddrIn6>(address) {
                Some(v6) => Self { address: v6.address, port, family: v6.family },
                None => Self::NONE,
            },
            _ => Self::NONE,
        }
    }
}
