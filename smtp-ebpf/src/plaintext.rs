//! The plaintext of TLS: calls of a library on a session, the socket on which that is spoken, and what is said in it.
//!
//! A library's call on a session moves bytes of a socket by a system call of its own. So the hook on that socket learns
//! which session is spoken there, and from then on the session's calls are told of as transfers of the socket. Where the
//! library only writes to memory, and the program itself sends what is there, the first bytes of a record tell the same. Bytes
//! of a session that no watched socket carries are not looked at.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use smtp_ebpf::event::{Kind, TLS_FROM_START, TLS_PLAINTEXT, Transfer, WINDOW_LENGTH};
use smtp_ebpf::library_call::{LibraryCall, MAX_SESSIONS, MAX_UNWATCHED, Notice, RECORD_HEAD, UNWATCHED_COUNTED};
use smtp_ebpf::protocol::{Dialogue, Speaker};

use crate::dialogue::Followed;
use crate::kernel::{Task, probe_user, reads_tls};
use crate::program::Program;
use crate::state::TCP_ESTABLISHED;
use crate::tell::{Scratch, scratch_of, tell_at_once, tell_windows};
use crate::{atomic, buffer, buffer_location, capture};

/// Most threads that are inside of a library's call at a time.
const MAX_THREADS: u32 = 8192;

/// So many calls on a socket are inside of no library's call, where that does not come of probes that were just attached. It is
/// told again when they are twice as many: who is told may know that the probes came later.
const MISSED_OFTEN: u32 = 8;

/// `BPF_F_NO_PREALLOC`: memory is taken as sessions begin.
const ON_DEMAND: u32 = 1;

/// A call of a library that is under way.
#[repr(C)]
#[derive(Clone, Copy)]
struct Call {
    /// The session's address: it names the session within its process.
    session: u64,
    buffer: u64,
    /// Bytes of the buffer.
    room: u64,
    /// Where the call leaves the number of bytes that it moved; zero: that is what it returns.
    count_at: u64,
    /// As in a [`LibraryCall`].
    direction: u32,
    library: u32,
    /// Where the thread's stack ended as it began: by that its return is known from those of calls that it makes itself.
    stack: u64,
}

/// Calls under way, by thread.
#[map]
static TLS_CALLS: LruHashMap<u64, Call> = LruHashMap::with_max_entries(MAX_THREADS, 0);

/// A session of a process.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SessionKey {
    session: u64,
    pid: u32,
    padding: u32,
}

/// A session that a watched socket carries.
#[repr(C)]
struct Session {
    dialogue: Dialogue,
    /// The socket's.
    cookie: u64,
    /// Bytes of plaintext that the process sent and received.
    sent: u32,
    received: u32,
    /// The socket was accepted.
    serves: u32,
    /// [`TLS_FROM_START`], or zero: it was under way when it was first seen.
    from_start: u32,
    /// Its process has given it up. A child may go on with it; and who gets its address is somebody else.
    has_ended: u32,
    padding: u32,
}

/// Records that a library has handed over, by their first bytes: whose session's they are.
#[map]
static TLS_RECORDS: LruHashMap<[u8; RECORD_HEAD], Speaks> = LruHashMap::with_max_entries(4096, 0);

/// Not zero: there were some.
#[map]
static TLS_HAS_RECORDS: Array<u64> = Array::with_max_entries(1, 0);

/// A session, and the library that encrypts it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Speaks {
    session: u64,
    pid: u32,
    library: u32,
}

#[map]
static TLS_SESSIONS: HashMap<SessionKey, Session> = HashMap::with_max_entries(MAX_SESSIONS, ON_DEMAND);

/// A session of which nothing is known: what a new one is copied from. Nobody writes it.
#[map]
static TLS_UNKNOWN: Array<Session> = Array::with_max_entries(1, 0);

/// A call may interrupt another on the same processor, unlike those of the kernel's own hooks: each takes a place that is
/// free.
#[map]
static TLS_BUSY: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

/// Programs to go on with: none.
#[map]
static TLS_NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Keeps a probe's program on the stack of its thread. Since Linux 6.13 the kernel gives a program one of the processor's,
/// unless it may go on with another program; but it lets one probe preempt another, which then writes over that stack
/// (`bpf_enable_priv_stack`, `check_max_stack_depth` in `kernel/bpf/verifier.c`).
#[inline(always)]
pub fn keep_own_stack<C: EbpfContext>(context: &C) {
    // SAFETY: there is no program to go on with.
    unsafe { TLS_NEXT.tail_call(context, 0) };
}

/// Calls of this processor on sessions that no watched socket carries.
#[repr(C)]
struct Unwatched {
    /// Up to [`UNWATCHED_COUNTED`].
    calls: u64,
    /// When the first of them was counted.
    since: u64,
    /// When it was told last that there are too many.
    told: u64,
}

#[map]
static TLS_UNWATCHED: PerCpuArray<Unwatched> = PerCpuArray::with_max_entries(1, 0);

/// Processes that use watched sockets: their libraries are to be probed. Read by the process that does so.
#[map]
static TLS_PROCESSES: RingBuf = RingBuf::with_byte_size(64 * 1024, 0);

/// A process uses a watched socket; and it was seen at a time, if that is not zero, that no library's call is around that.
#[inline(always)]
pub fn notice(pid: u64, speaks_tls: u64) {
    if reads_tls() {
        let _ = TLS_PROCESSES.output::<Notice>(&Notice { pid, speaks_tls, is_unwatched: 0 }, 0);
    }
}

/// A call of a process was on a session that no watched socket carries. Where there are too many, that is told, at most once a
/// second.
#[inline(always)]
fn count_unwatched(pid: u64) {
    const SECOND: u64 = 1_000_000_000;
    let Some(unwatched) = TLS_UNWATCHED.get_ptr_mut(0) else { return };
    // SAFETY: it is this CPU's map value. Where another probe has interrupted this one, a call is counted once less.
    unsafe {
        (*unwatched).calls += 1;
        if (*unwatched).calls < UNWATCHED_COUNTED {
            return;
        }
        let now = capture::now();
        let took = now - (*unwatched).since;
        (*unwatched).calls = 0;
        (*unwatched).since = now;
        if took < SECOND * UNWATCHED_COUNTED / MAX_UNWATCHED && now - (*unwatched).told >= SECOND {
            (*unwatched).told = now;
            let _ = TLS_PROCESSES.output::<Notice>(&Notice { pid, speaks_tls: 0, is_unwatched: 1 }, 0);
        }
    }
}

/// A library's call hands over bytes that begin with a record.
#[inline(always)]
pub fn record_leaves(address: u64, length: u64) {
    let thread = thread();
    // SAFETY: it is this thread's, which nobody else writes.
    let Some(call) = (unsafe { TLS_CALLS.get(thread) }) else { return };
    let speaks = Speaks { session: call.session, pid: (thread >> 32) as u32, library: call.library };
    // The length is an int.
    if (length as u32 as usize) < RECORD_HEAD || length as i32 <= 0 {
        return;
    }
    let Some(head) = probe_user::<[u8; RECORD_HEAD]>(address) else { return };
    let _ = TLS_RECORDS.insert(head, speaks, 0);
    if let Some(has) = TLS_HAS_RECORDS.get_ptr_mut(0) {
        // SAFETY: it is the map's value.
        unsafe { has.write_volatile(1) };
    }
}

/// The session of which the current system call sends a record, if it begins with one that its process was seen to hand over.
#[inline(always)]
fn sent_record(pid: u32, length: u64) -> Option<Speaks> {
    // SAFETY: it is the map's value.
    let has = TLS_HAS_RECORDS.get_ptr(0).is_some_and(|has| unsafe { has.read_volatile() } != 0);
    if !has || length < RECORD_HEAD as u64 {
        return None;
    }
    let address = buffer_location::first_sent(Task::current());
    if address == 0 {
        return None;
    }
    let head = probe_user::<[u8; RECORD_HEAD]>(address)?;
    // SAFETY: what is found is copied.
    let speaks = *(unsafe { TLS_RECORDS.get(head) })?;
    let _ = TLS_RECORDS.remove(head);
    (speaks.pid == pid).then_some(speaks)
}

/// A library's call begins. It may be told twice, by two probes on its function.
#[inline(always)]
pub fn call_begins(arguments: [u64; 5], stack: u64, cookie: u64) {
    let known = LibraryCall::from_cookie(cookie);
    let [session, buffer, room, fourth, fifth] = arguments;
    let thread = thread();
    if known.direction == LibraryCall::SEND
        // SAFETY: it is this thread's, which nobody else writes.
        && let Some(outer) = unsafe { TLS_CALLS.get(thread) }
        && outer.direction == LibraryCall::FLUSH
        && outer.session == session
        && outer.stack > stack
    {
        return;
    }
    let count_at = match known.count_at {
        4 => fourth,
        5 => fifth,
        _ => 0,
    };
    let LibraryCall { direction, library, .. } = known;
    let call = Call { session, buffer, room, count_at, direction, library, stack };
    let _ = TLS_CALLS.insert(thread, call, 0);
}

/// A library's call ends, and returns this: what it moved is told, where a watched socket carries its session. It may be told
/// twice, by two probes on its function.
#[inline(always)]
pub fn call_ends(returned: i32, stack: u64) {
    let thread = thread();
    // SAFETY: it is this thread's, which nobody else writes.
    let Some(&call) = (unsafe { TLS_CALLS.get(thread) }) else { return };
    // The return address was on the stack, or in a register. A call that it has made itself had its stack below.
    if stack.wrapping_sub(call.stack) > size_of::<u64>() as u64 {
        return;
    }
    let _ = TLS_CALLS.remove(thread);
    if returned <= 0 || !matches!(call.direction, LibraryCall::SEND | LibraryCall::RECEIVE) {
        return;
    }
    let moved = if call.count_at == 0 { Some(returned as u64) } else { probe_user(call.count_at) };
    let moved = moved.filter(|moved| *moved <= u64::from(u32::MAX / 2));
    if moved == Some(0) {
        return;
    }
    let key = SessionKey { session: call.session, pid: (thread >> 32) as u32, padding: 0 };
    let Some(session) = TLS_SESSIONS.get_ptr_mut(key) else { return count_unwatched(thread >> 32) };
    // SAFETY: it is a map value.
    if unsafe { (&raw const (*session).has_ended).read_volatile() } != 0 {
        return;
    }
    let Some(busy) = TLS_BUSY.get_ptr_mut(0) else { return };
    let sends = call.direction == LibraryCall::SEND;
    // SAFETY: the pointers are to map values, one of them this CPU's.
    unsafe {
        let (first, second) = (&raw mut (*busy)[0], &raw mut (*busy)[1]);
        // What it moved may be longer than the buffer: it went on with what an earlier call was given.
        let Some(moved) = moved.filter(|moved| *moved <= call.room) else {
            count(session, sends, moved.unwrap_or(1));
            return;
        };
        if atomic::swap(first, 1) == 0 {
            tell(Program::Tls, session, &call, thread, moved);
            first.write_volatile(0);
        } else if atomic::swap(second, 1) == 0 {
            tell(Program::TlsInside, session, &call, thread, moved);
            second.write_volatile(0);
        } else {
            count(session, sends, moved);
            capture::lose(Program::Tls as u32, if sends { Kind::Send } else { Kind::Receive });
        }
    }
}

/// Goes on to the end of so many bytes of a session, which it gives. Where they are not told of, the next call finds a hole.
///
/// # Safety
/// `session` is a map value.
#[inline(always)]
unsafe fn count(session: *mut Session, sends: bool, moved: u64) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        let counter = if sends { &raw mut (*session).sent } else { &raw mut (*session).received };
        let end = counter.read_volatile().wrapping_add(moved as u32);
        counter.write_volatile(end);
        end
    }
}

/// Tells of a call that moved so many bytes.
///
/// # Safety
/// `session` is a map value, and what the program works with is nobody else's meanwhile.
#[inline(always)]
unsafe fn tell(program: Program, session: *mut Session, call: &Call, thread: u64, moved: u64) {
    let Some(scratch) = scratch_of(program) else { return };
    let sends = call.direction == LibraryCall::SEND;
    // SAFETY: the caller's promise.
    unsafe {
        let end = count(session, sends, moved);
        let serves = (&raw const (*session).serves).read_volatile() != 0;
        let speaker = if serves == sends { Speaker::Server } else { Speaker::Client };
        let time = capture::now();
        (&raw mut (*scratch).length).write_volatile(moved);
        (&raw mut (*scratch).done).write_volatile(0);
        (&raw mut (*scratch).time).write_volatile(time);
        (&raw mut (*scratch).end).write_volatile(end);
        (&raw mut (*scratch).speaker).write_volatile(speaker as u32);
        (&raw mut (*scratch).has_positions).write_volatile(1);
        (&raw mut (*scratch).is_behind).write_volatile(0);
        (&raw mut (*scratch).is_nameless).write_volatile(0);
        (&raw mut (*scratch).program).write_volatile(program as u64);
        let transfer = (&raw mut (*scratch).work.record).cast::<Transfer>();
        let kind = if sends { Kind::Send } else { Kind::Receive };
        (&raw mut (*transfer).kind).write_volatile(kind as u32);
        (&raw mut (*transfer).state).write_volatile(TCP_ESTABLISHED as u8);
        (&raw mut (*transfer).seq_unreliable).write_volatile(0);
        (&raw mut (*transfer).continues).write_volatile(0);
        let from_start = (&raw const (*session).from_start).read_volatile() as u8;
        (&raw mut (*transfer).tls).write_volatile(call.library as u8 | TLS_PLAINTEXT | from_start);
        (&raw mut (*transfer).time).write_volatile(time);
        (&raw mut (*transfer).cookie).write_volatile((&raw const (*session).cookie).read_volatile());
        (&raw mut (*transfer).positions.write_seq).write_volatile((&raw const (*session).sent).read_volatile());
        (&raw mut (*transfer).positions.copied_seq).write_volatile((&raw const (*session).received).read_volatile());
        (&raw mut (*transfer).pid).write_volatile((thread >> 32) as u32);
        (&raw mut (*transfer).tid).write_volatile(thread as u32);
        let dialogue = &raw mut (*session).dialogue;
        if !Dialogue::skips(dialogue, speaker, moved as u32) && tell_at_once(scratch, dialogue, call.buffer) {
            return;
        }
        buffer::locate_plain(&raw mut (*scratch).walk, call.buffer, moved);
        tell_windows(scratch, dialogue, moved.div_ceil(WINDOW_LENGTH as u64));
    }
}

/// A process gives a session up; another may get its address. It is forgotten with its socket.
#[inline(always)]
pub fn session_ends(session: u64) {
    let key = SessionKey { session, pid: (thread() >> 32) as u32, padding: 0 };
    if let Some(session) = TLS_SESSIONS.get_ptr_mut(key) {
        // SAFETY: it is a map value.
        unsafe { (&raw mut (*session).has_ended).write_volatile(1) };
    }
}

/// A call on a watched socket, on which TLS is spoken, is inside of a library's call, or sends a record that one has made: so
/// that call's session is spoken on it, and from its start on if TLS has begun with this very call. Whether that is news.
///
/// # Safety
/// `followed` is the socket's map value, and `scratch` this CPU's, in which the call stands.
#[inline(always)]
pub unsafe fn carries(followed: *mut Followed, scratch: *const Scratch, pid: u32, cookie: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { reads_tls() && !Followed::carries_session_of(followed, pid) && bind(followed, scratch, cookie) != 0 }
}

/// # Safety
/// As of [`carries`].
#[inline(never)]
unsafe fn bind(followed: *mut Followed, scratch: *const Scratch, cookie: u64) -> u64 {
    let thread = thread();
    let pid = (thread >> 32) as u32;
    // SAFETY: the caller's promise; and what the maps hold.
    unsafe {
        let (speaks, begins) = if let Some(call) = TLS_CALLS.get(thread) {
            let begins = (&raw const (*scratch).had_tls).read_volatile() == 0;
            (Speaks { session: call.session, pid, library: call.library }, begins)
        } else {
            match Followed::misses_session(followed) {
                // It may have loaded the library since.
                0 => notice(u64::from(pid), 0),
                // These are more than calls of before the probes: it sends by itself what the library has encrypted.
                often if often >= MISSED_OFTEN && often.is_power_of_two() => notice(u64::from(pid), capture::now()),
                _ => {}
            }
            let sends = (&raw const (*scratch).sends).read_volatile() != 0;
            let length = (&raw const (*scratch).length).read_volatile();
            let Some(speaks) = (if sends { sent_record(pid, length) } else { None }) else { return 0 };
            // What is sent in clear has an end where this begins.
            (speaks, (&raw const (*scratch).was_ciphertext).read_volatile() == 0)
        };
        let Some(unknown) = TLS_UNKNOWN.get(0) else { return 0 };
        let key = SessionKey { session: speaks.session, pid, padding: 0 };
        // A child has its parent's sessions at the same addresses, and goes on with them where they were.
        let (address, parent) = Followed::session(followed);
        let before = SessionKey { session: address, pid: parent, padding: 0 };
        let known = if address == speaks.session { TLS_SESSIONS.get(before) } else { None };
        let known = known.filter(|known| (&raw const known.cookie).read_volatile() == cookie);
        if TLS_SESSIONS.insert(key, known.unwrap_or(unknown), 0).is_err() {
            return 0;
        }
        release(followed);
        let Some(session) = TLS_SESSIONS.get_ptr_mut(key) else { return 0 };
        (&raw mut (*session).cookie).write_volatile(cookie);
        (&raw mut (*session).has_ended).write_volatile(0);
        (&raw mut (*session).serves).write_volatile((&raw const (*scratch).serves).read_volatile());
        if begins {
            (&raw mut (*session).from_start).write_volatile(u32::from(TLS_FROM_START));
            Dialogue::begin_inside(&raw mut (*session).dialogue, &raw mut (*followed).dialogue);
        }
        let from_start = (&raw const (*session).from_start).read_volatile();
        Followed::set_session(followed, speaks.session, pid, speaks.library | from_start);
        1
    }
}

/// A socket carries its session no longer.
///
/// # Safety
/// `followed` is the socket's map value.
#[inline(always)]
pub unsafe fn release(followed: *mut Followed) {
    // SAFETY: the caller's promise.
    unsafe {
        let (session, pid) = Followed::session(followed);
        if session == 0 {
            return;
        }
        Followed::set_session(followed, 0, 0, 0);
        let key = SessionKey { session, pid, padding: 0 };
        let Some(known) = TLS_SESSIONS.get_ptr(key) else { return };
        // The address may be another session's by now.
        if (&raw const (*known).cookie).read_volatile() == Followed::known_cookie(followed) {
            let _ = TLS_SESSIONS.remove(key);
        }
    }
}

/// The current thread, below its process.
#[inline(always)]
fn thread() -> u64 {
    bpf_get_current_pid_tgid()
}
