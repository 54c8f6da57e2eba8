//! Where the bytes are. The length tracepoints carry no buffer, but the system call's saved registers still point to
//! the caller's: after `sock_sendmsg` and `sock_recvmsg` it holds what was moved.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use smtp_ebpf::event::{HEAD_LENGTH, Kind, TAIL_LENGTH, Unseen};

use crate::kernel::{Call, Task, copy_user, probe_user};

/// Most parts of a vector that are walked.
const MAX_PARTS: u64 = 32;

/// Where captured bytes go, in a map value.
#[repr(C)]
pub struct Room {
    /// The head with the tail behind it, and room for a part that begins at the head's last byte.
    bytes: [u8; 2 * HEAD_LENGTH + 2 * TAIL_LENGTH],
    /// Bytes of a vector that are done. It lives here so that the verifier does not follow its every value.
    done: u64,
    /// See [`Room::clamped`].
    cell: u64,
    /// A search in the bytes: where it starts and ends, how much of what is sought has matched, what was found.
    pub start: u64,
    pub end: u64,
    pub found: u64,
    pub matched: u32,
}

impl Room {
    /// Its bytes.
    ///
    /// # Safety
    /// `room` is a map value.
    #[inline(always)]
    pub unsafe fn bytes(room: *mut Self) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { (&raw mut (*room).bytes).cast() }
    }

    /// Begins a search in the bytes.
    ///
    /// # Safety
    /// `room` is a map value.
    #[inline(always)]
    pub unsafe fn search(room: *mut Self, start: u64, end: u64, matched: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            (&raw mut (*room).start).write_volatile(start);
            (&raw mut (*room).end).write_volatile(end);
            (&raw mut (*room).found).write_volatile(0);
            (&raw mut (*room).matched).write_volatile(matched);
        }
    }

    /// A value cut to `limit`, in a form that the verifier sees to be cut.
    ///
    /// It goes through memory: else the compiler, which may know the bound already, leaves the check out or makes it
    /// on another register than the one that is used.
    ///
    /// # Safety
    /// `room` is a map value.
    #[inline(always)]
    pub unsafe fn clamped(room: *mut Self, value: u64, limit: usize) -> u64 {
        // SAFETY: the caller's promise.
        let value = unsafe {
            let cell = &raw mut (*room).cell;
            cell.write_volatile(value);
            cell.read_volatile()
        };
        at_most(value, limit as u64)
    }
}

/// What was captured of a call.
#[derive(Clone, Copy)]
pub struct Captured {
    pub head: u32,
    pub tail: u32,
    pub unseen: Unseen,
    pub syscall: u32,
    /// The call moved all that the caller's buffer has room for.
    complete: bool,
}

impl Captured {
    const fn nothing(unseen: Unseen, syscall: u32) -> Self {
        Self { head: 0, tail: 0, unseen, syscall, complete: false }
    }
}

/// `struct iovec` of a 64-bit program (`include/uapi/linux/uio.h`).
#[repr(C)]
#[derive(Clone, Copy)]
struct Part {
    base: u64,
    length: u64,
}

/// `struct user_msghdr` of a 64-bit program (`include/linux/socket.h`).
#[repr(C)]
#[derive(Clone, Copy)]
struct UserMessage {
    name: u64,
    name_length: u64,
    vector: u64,
    parts: u64,
    control: u64,
    control_length: u64,
    flags: u64,
}

/// `struct mmsghdr` of a 64-bit program.
#[repr(C)]
#[derive(Clone, Copy)]
struct NumberedMessage {
    message: UserMessage,
    length: u64,
}

/// How far a thread is in its `sendmmsg` or `recvmmsg`, which comes by here once a message.
#[map]
static PROGRESS: LruHashMap<u64, Progress> = LruHashMap::with_max_entries(1024, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Progress {
    messages: u64,
    next: u64,
}

/// A call that moved nothing. With it a `sendmmsg` or `recvmmsg` ends: the thread's next one starts anew.
#[inline(always)]
pub fn moved_nothing() {
    let registers = Task::current().registers();
    if registers.is_native() && matches!(registers.call(), Call::Messages) {
        // There may be none.
        let _ = PROGRESS.remove(bpf_get_current_pid_tgid());
    }
}

/// Copies the bytes that the current system call moved: the head, and the tail behind it.
///
/// # Safety
/// `room` is a map value; `length` is not zero.
#[inline(always)]
pub unsafe fn capture(room: *mut Room, kind: Kind, length: u32) -> Captured {
    let registers = Task::current().registers();
    if !registers.is_native() {
        return Captured::nothing(Unseen::Compat, 0);
    }
    let address = registers.argument_2();
    let (vector, parts) = match registers.call() {
        // SAFETY: the caller's promise.
        Call::Buffer => return unsafe { from_buffer(room, address, length) },
        Call::Vector => (address, registers.argument_3()),
        Call::Message => match probe_user::<UserMessage>(address) {
            Some(message) => (message.vector, message.parts),
            None => return Captured::nothing(Unseen::Fault, 0),
        },
        Call::Messages => match probe_user::<NumberedMessage>(current_message(address, registers.argument_3())) {
            Some(NumberedMessage { message, .. }) => (message.vector, message.parts),
            None => return Captured::nothing(Unseen::Fault, 0),
        },
        Call::Connect => return Captured::nothing(Unseen::Path, registers.syscall()),
        Call::Other(number) => return Captured::nothing(Unseen::Path, number),
    };
    // SAFETY: the caller's promise.
    let captured = unsafe { from_vector(room, vector, parts, length) };
    if matches!(registers.call(), Call::Messages) {
        // `__sys_sendmmsg` stops at the first message that it could not send whole.
        let goes_on = captured.complete || matches!(kind, Kind::Receive);
        advance_message(address, registers.argument_3(), goes_on);
    }
    captured
}

#[inline(always)]
unsafe fn from_buffer(room: *mut Room, address: u64, length: u32) -> Captured {
    // SAFETY: the caller's promise; head and tail are within the room.
    unsafe {
        let bytes = Room::bytes(room);
        let length = u64::from(length);
        let head = Room::clamped(room, length, HEAD_LENGTH);
        if !copy_user(bytes, head as u32, address) {
            return Captured::nothing(Unseen::Fault, 0);
        }
        let tail = Room::clamped(room, length.saturating_sub(HEAD_LENGTH as u64), TAIL_LENGTH);
        if tail != 0 && !copy_user(bytes.add(HEAD_LENGTH), tail as u32, address + (length - tail)) {
            return Captured::nothing(Unseen::Fault, 0);
        }
        seen(length)
    }
}

/// The address of the message that the current `sendmmsg` or `recvmmsg` is at.
#[inline(always)]
fn current_message(messages: u64, count: u64) -> u64 {
    messages + message_index(messages, count) * size_of::<NumberedMessage>() as u64
}

#[inline(always)]
fn message_index(messages: u64, count: u64) -> u64 {
    // SAFETY: the value is only read, by the thread that writes it.
    match unsafe { PROGRESS.get(bpf_get_current_pid_tgid()) } {
        Some(progress) if progress.messages == messages && progress.next < count => progress.next,
        _ => 0,
    }
}

/// Notes that the current message is done, and whether another comes.
#[inline(always)]
fn advance_message(messages: u64, count: u64, goes_on: bool) {
    let thread = bpf_get_current_pid_tgid();
    let next = message_index(messages, count) + 1;
    if goes_on && next < count {
        // Without room the next message is read as the first: the map forgets only what is oldest.
        let _ = PROGRESS.insert(thread, Progress { messages, next }, 0);
    } else {
        let _ = PROGRESS.remove(thread);
    }
}

#[inline(always)]
unsafe fn from_vector(room: *mut Room, vector: u64, parts: u64, length: u32) -> Captured {
    // SAFETY: the caller's promise; what is copied where is within the room.
    unsafe {
        let bytes = Room::bytes(room);
        let progress = &raw mut (*room).done;
        let length = u64::from(length);
        let tail = at_most(length.saturating_sub(HEAD_LENGTH as u64), TAIL_LENGTH as u64);
        let tail_start = length - tail;
        progress.write_volatile(0);
        let mut complete = false;
        for index in 0..MAX_PARTS {
            let done = progress.read_volatile();
            if done >= length || index >= parts {
                break;
            }
            let Some(part) = probe_user::<Part>(vector + index * size_of::<Part>() as u64) else {
                return Captured::nothing(Unseen::Fault, 0);
            };
            let size = at_most(part.length, length - done);
            complete = index + 1 == parts && size == part.length;
            if size == 0 {
                continue;
            }
            if done < HEAD_LENGTH as u64 {
                // What lies beyond the head is written over, or not part of the record.
                let take = Room::clamped(room, size, HEAD_LENGTH);
                let start = Room::clamped(room, done, HEAD_LENGTH);
                if !copy_user(bytes.add(start as usize), take as u32, part.base) {
                    return Captured::nothing(Unseen::Fault, 0);
                }
            }
            let end = done + size;
            if tail != 0 && end > tail_start {
                // The part's share of the tail: it ends where the part ends.
                let share = Room::clamped(room, at_most(end - tail_start, size), TAIL_LENGTH);
                let start = Room::clamped(room, (end - share).saturating_sub(tail_start), TAIL_LENGTH);
                let destination = bytes.add(HEAD_LENGTH + start as usize);
                if !copy_user(destination, share as u32, part.base + (size - share)) {
                    return Captured::nothing(Unseen::Fault, 0);
                }
            }
            progress.write_volatile(end);
        }
        if progress.read_volatile() < length {
            return Captured::nothing(Unseen::Vector, 0);
        }
        Captured { complete, ..seen(length) }
    }
}

/// All that is captured of a call of this length.
#[inline(always)]
fn seen(length: u64) -> Captured {
    let head = at_most(length, HEAD_LENGTH as u64);
    let tail = at_most(length - head, TAIL_LENGTH as u64);
    let unseen = if head + tail < length { Unseen::Long } else { Unseen::None };
    Captured { head: head as u32, tail: tail as u32, unseen, syscall: 0, complete: false }
}

#[inline(always)]
fn at_most(value: u64, limit: u64) -> u64 {
    if value > limit { limit } else { value }
}
