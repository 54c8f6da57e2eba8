//! Bytes moved between a process and a socket.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_log_ebpf::debug;
use smtp_ebpf::event::{Kind, Segment, SegmentKind, Transfer, Unseen, WINDOW_LENGTH};
use smtp_ebpf::protocol::{self, Call, Crossing, Dialogue, HOLD, OUT_LENGTH, Speaker, Work};

use crate::buffer::{self, Walk};
use crate::dialogue::Followed;
use crate::kernel::{Message, Sock, Socket};
use crate::place::Locate;
use crate::program::Program;
use crate::socket::{self, Stream};
use crate::{capture, local_pair, owner, track};

// include/linux/socket.h
const MSG_PEEK: u32 = 0x2;
const MSG_TRUNC: u32 = 0x20;
const MSG_ERRQUEUE: u32 = 0x2000;

/// Most windows of one call that are looked at; what is behind them is a gap.
const MAX_WINDOWS: u64 = 16;

/// A record under construction.
#[repr(C)]
struct Scratch {
    work: Work,
    walk: Walk,
    /// Bytes of the call, and those of them that are done.
    length: u64,
    done: u64,
    time: u64,
    program: u64,
    /// The position behind the call's last byte.
    end: u32,
    speaker: u32,
    has_positions: u32,
    is_behind: u32,
    /// One of the socket's ports is watched.
    is_watched: u32,
    /// What the window takes of the call, whether its bytes are read, and if not why, and whether it is told of.
    taken: u64,
    is_read: u32,
    is_told: u32,
    cause: Unseen,
    /// What crosses: all of it as it is, or segments of this size.
    is_whole: u32,
    size: u32,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(Program::COUNT, 0);

/// A function ends that moved a message, with what it returned: a length, or an error.
#[inline(always)]
pub fn leaves<C: EbpfContext>(
    context: &C,
    program: Program,
    socket: Socket,
    message: Message,
    flags: u32,
    returned: i32,
) {
    let Some(sock) = socket.sock() else { return };
    if moves_stream(flags, returned) && socket::is_ours(sock) {
        record(context, program, sock, flags, returned as u32, By::Message(message));
    }
}

/// A function ends that moved bytes which no iterator leads to.
#[inline(always)]
pub fn leaves_unseen<C: EbpfContext>(context: &C, program: Program, socket: Socket, cause: Unseen, returned: i64) {
    let Some(sock) = socket.sock() else { return };
    if returned > 0 && socket::is_ours(sock) {
        record(context, program, sock, 0, returned as u32, By::Nothing(cause));
    }
}

/// A message was moved, or an error came of it.
#[inline(always)]
pub fn called<C: EbpfContext>(context: &C, program: Program, sock: Sock, flags: u32, returned: i32) {
    if moves_stream(flags, returned) && socket::is_ours(sock) {
        record(context, program, sock, flags, returned as u32, By::Call);
    }
}

/// What leads to the bytes of a call.
#[derive(Clone, Copy)]
enum By {
    /// The system call.
    Call,
    /// The message with which the function that returns was called.
    Message(Message),
    /// Nothing, for this cause.
    Nothing(Unseen),
}

/// Whether a call moved bytes of the stream: what was looked at comes again when it is read.
#[inline(always)]
fn moves_stream(flags: u32, returned: i32) -> bool {
    returned > 0 && flags & (MSG_PEEK | MSG_ERRQUEUE) == 0
}

/// A call that moved bytes of a stream.
#[derive(Clone, Copy)]
struct Moved {
    program: Program,
    sock: Sock,
    flags: u32,
    length: u32,
}

/// Tells of a call.
///
/// Step by step, each a function of its own: what one needs of the stack is given back before the next, and before 6.13 there are
/// 512 bytes for all functions that call each other. What a step finds out it leaves in the map value.
#[inline(always)]
fn record<C: EbpfContext>(context: &C, program: Program, sock: Sock, flags: u32, length: u32, by: By) {
    let moved = Moved { program, sock, flags, length };
    let followed = meet(context, &moved);
    let Some(scratch) = SCRATCH.get_ptr_mut(program as u32) else { return };
    if followed.is_null() {
        return;
    }
    write_down(&moved, scratch, followed);
    // What leads to the bytes is known when a program is compiled: each has one of these.
    match by {
        By::Call => locate_of_call(&moved, scratch, followed),
        By::Message(message) => locate_of_message(&moved, scratch, message),
        By::Nothing(cause) => locate(&moved, scratch, Locate::Unseen(cause)),
    }
    // SAFETY: the pointers are to this CPU's map value and to the socket's.
    unsafe {
        if (&raw const (*scratch).is_watched).read_volatile() == 0 && !is_confirmed(context, &moved, scratch, followed)
        {
            return;
        }
        let windows = u64::from(length).div_ceil(WINDOW_LENGTH as u64);
        let mut telling = Telling { scratch, followed };
        bpf_loop(
            buffer::at_most(windows, MAX_WINDOWS) as u32,
            tell_window as *mut c_void,
            (&raw mut telling).cast(),
            0,
        );
        let cause = buffer::cause(&raw const (*scratch).walk);
        if !matches!(cause, Unseen::None) {
            debug!(context, "{} bytes not seen: cause {}", length, cause as u32);
        }
    }
}

/// Who calls: the dialogue on the socket, if that is ours or may be.
#[inline(never)]
fn meet<C: EbpfContext>(context: &C, moved: &Moved) -> *mut Followed {
    let Moved { program, sock, .. } = *moved;
    let Some(stream) = Stream::of(sock) else { return ptr::null_mut() };
    let is_watched = stream.has_watched_port();
    if !is_watched && !local_pair::may_be_ours(sock, matches!(program.kind(), Kind::Send)) {
        return ptr::null_mut();
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(program as u32) else { return ptr::null_mut() };
    let Some(followed) = Followed::of(sock) else { return ptr::null_mut() };
    let time = capture::now();
    let task = owner::current();
    // SAFETY: the pointers are to this CPU's map value and to the socket's.
    unsafe {
        if Followed::is_another(followed, &task, time) {
            owner::describe_once(context, program, &task, time);
        }
        let transfer = (&raw mut (*scratch).work.record).cast::<Transfer>();
        (&raw mut (*transfer).header).write_volatile(capture::header(program.kind(), time));
        (&raw mut (*transfer).task).write_volatile(task);
        (&raw mut (*scratch).time).write_volatile(time);
        (&raw mut (*scratch).program).write_volatile(program as u64);
        (&raw mut (*scratch).is_watched).write_volatile(u32::from(is_watched));
    }
    followed
}

/// Writes down all of a call but what was said.
#[inline(never)]
fn write_down(moved: &Moved, scratch: *mut Scratch, followed: *mut Followed) {
    let Moved { program, sock, flags, length } = *moved;
    let sends = matches!(program.kind(), Kind::Send);
    let Some(stream) = Stream::of(sock) else { return };
    // SAFETY: the pointers are to this CPU's map value and to the socket's.
    unsafe {
        let transfer = (&raw mut (*scratch).work.record).cast::<Transfer>();
        Followed::describe(followed, stream, &raw mut (*transfer).socket);
        let positions = stream.positions();
        (&raw mut (*transfer).positions).write_volatile(positions);
        (&raw mut (*transfer).flags).write_volatile(flags);
        (&raw mut (*transfer).continues).write_volatile(0);
        (&raw mut (*transfer).padding).write_volatile(0);

        // Who accepted the connection speaks for the server.
        let local_port = (&raw const (*transfer).socket.local_port).read_volatile();
        let remote_port = (&raw const (*transfer).socket.remote_port).read_volatile();
        let serves = track::is_accepted(sock, local_port, remote_port) == sends;
        let (speaker, listener) =
            if serves { (Speaker::Server, Speaker::Client) } else { (Speaker::Client, Speaker::Server) };
        let (end, other) =
            if sends { (positions.written, positions.read) } else { (positions.read, positions.written) };
        let has_positions = (&raw const (*transfer).socket.apart).read_volatile() == 0;
        let is_behind = has_positions && Dialogue::is_behind(&raw mut (*followed).dialogue, listener, other);
        (&raw mut (*scratch).length).write_volatile(u64::from(length));
        (&raw mut (*scratch).done).write_volatile(0);
        (&raw mut (*scratch).end).write_volatile(end);
        (&raw mut (*scratch).speaker).write_volatile(speaker as u32);
        (&raw mut (*scratch).has_positions).write_volatile(u32::from(has_positions));
        (&raw mut (*scratch).is_behind).write_volatile(u32::from(is_behind));
    }
}

/// Finds the bytes of a system call.
#[inline(never)]
fn locate_of_call(moved: &Moved, scratch: *mut Scratch, followed: *mut Followed) {
    let sends = matches!(moved.program.kind(), Kind::Send);
    // SAFETY: it is a map value.
    let file = unsafe { &raw mut (*followed).file };
    locate(moved, scratch, Locate::Caller { sends, file });
}

/// Finds the bytes of a message.
#[inline(never)]
fn locate_of_message(moved: &Moved, scratch: *mut Scratch, message: Message) {
    locate(moved, scratch, Locate::Message(message));
}

#[inline(always)]
fn locate(moved: &Moved, scratch: *mut Scratch, locate: Locate) {
    let Moved { program, sock, flags, length } = *moved;
    let Some(stream) = Stream::of(sock) else { return };
    // SAFETY: the pointer is to this CPU's map value.
    unsafe {
        let walk = &raw mut (*scratch).walk;
        buffer::locate(walk, sock, locate, length);
        if !matches!(program.kind(), Kind::Send) && flags & MSG_TRUNC != 0 {
            buffer::withhold(walk, Unseen::Discarded);
        } else if stream.has_upper_layer() {
            buffer::withhold(walk, Unseen::Tls);
        }
        let transfer = (&raw mut (*scratch).work.record).cast::<Transfer>();
        (&raw mut (*transfer).syscall).write_volatile(buffer::syscall(walk));
    }
}

/// Whether the first thing said on a socket without a watched port shows that it is ours.
#[inline(never)]
fn is_confirmed<C: EbpfContext>(context: &C, moved: &Moved, scratch: *mut Scratch, followed: *mut Followed) -> bool {
    let Moved { program, sock, length, .. } = *moved;
    let Some(stream) = Stream::of(sock) else { return false };
    // SAFETY: the pointers are to this CPU's map value and to the socket's.
    unsafe {
        if !local_pair::is_ours(context, program, sock, stream, first_bytes(scratch, length)) {
            return false;
        }
        Dialogue::begin_new(&raw mut (*followed).dialogue);
        true
    }
}

/// What a step through the windows of a call is given.
#[repr(C)]
struct Telling {
    scratch: *mut Scratch,
    followed: *mut Followed,
}

/// Tells of the call's next window.
unsafe extern "C" fn tell_window(index: u64, telling: *mut Telling) -> i64 {
    // SAFETY: `record` passes its own.
    unsafe {
        let Telling { scratch, followed } = *telling;
        let dialogue = &raw mut (*followed).dialogue;
        let walk = &raw const (*scratch).walk;
        let done = (&raw const (*scratch).done).read_volatile();
        let left = (&raw const (*scratch).length).read_volatile() - done;
        if left == 0 {
            return 1;
        }
        let speaker = match (&raw const (*scratch).speaker).read_volatile() {
            0 => Speaker::Client,
            _ => Speaker::Server,
        };
        // What is taken of the call, whether its bytes are looked at, and whether it is told of.
        let mut taken = buffer::at_most(left, WINDOW_LENGTH as u64);
        let mut is_read = false;
        let mut is_told = true;
        let mut cause = buffer::cause(walk);
        if Dialogue::skips(dialogue, speaker, left as u32) {
            (taken, cause) = (left, Unseen::None);
            let time = (&raw const (*scratch).time).read_volatile();
            is_told = !Dialogue::is_ciphertext(dialogue, speaker) || Followed::is_told(followed, speaker, time);
        } else if !matches!(cause, Unseen::None) {
            taken = left;
        } else if index != 0 && left > taken && Dialogue::is_in_content(dialogue, speaker) {
            // Of long content the beginning and the end are looked at.
            taken = left - taken;
        } else if index + 1 == MAX_WINDOWS && left > taken {
            (taken, cause) = (left, Unseen::Long);
        } else {
            (&raw mut (*scratch).taken).write_volatile(taken);
            copy_window(scratch);
            cause = (&raw const (*scratch).cause).read_volatile();
            is_read = matches!(cause, Unseen::None);
            taken = if is_read { taken } else { left };
        }
        (&raw mut (*scratch).taken).write_volatile(taken);
        (&raw mut (*scratch).is_read).write_volatile(u32::from(is_read));
        (&raw mut (*scratch).is_told).write_volatile(u32::from(is_told));
        (&raw mut (*scratch).cause).write_volatile(cause);
        pass(scratch, dialogue);
        if (&raw const (*scratch).is_told).read_volatile() != 0 {
            tell(scratch);
        }
        (&raw mut (*scratch).done).write_volatile(done + (&raw const (*scratch).taken).read_volatile());
        0
    }
}

/// Copies what is taken of the call.
///
/// # Safety
/// `scratch` is this CPU's map value, in which the call was located.
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn copy_window(scratch: *mut Scratch) -> u64 {
    if scratch.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let bytes = (&raw mut (*scratch).work.bytes).cast::<u8>().add(HOLD);
        let done = (&raw const (*scratch).done).read_volatile();
        let taken = (&raw const (*scratch).taken).read_volatile();
        let cause = buffer::copy(&raw mut (*scratch).walk, bytes, done, done + taken);
        (&raw mut (*scratch).cause).write_volatile(cause);
        0
    }
}

/// The first bytes of a call, or zeros where they are not to be had.
///
/// # Safety
/// `scratch` is this CPU's map value, in which the call was located.
#[inline(always)]
unsafe fn first_bytes(scratch: *mut Scratch, length: u32) -> [u8; 3] {
    // SAFETY: the caller's promise.
    unsafe {
        let walk = &raw mut (*scratch).walk;
        let bytes = (&raw mut (*scratch).work.bytes).cast::<u8>().add(HOLD);
        let is_there = length >= 3
            && matches!(buffer::cause(walk), Unseen::None)
            && matches!(buffer::copy(walk, bytes, 0, 3), Unseen::None);
        if is_there { bytes.cast::<[u8; 3]>().read_volatile() } else { [0; 3] }
    }
}

/// Passes what is taken of the call through the filter.
///
/// # Safety
/// Both are map values.
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn pass(scratch: *mut Scratch, dialogue: *mut Dialogue) -> u64 {
    if scratch.is_null() || dialogue.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let work = &raw mut (*scratch).work;
        let left = (&raw const (*scratch).length).read_volatile() - (&raw const (*scratch).done).read_volatile();
        let call = Call {
            speaker: match (&raw const (*scratch).speaker).read_volatile() {
                0 => Speaker::Client,
                _ => Speaker::Server,
            },
            time: (&raw const (*scratch).time).read_volatile(),
            start: (&raw const (*scratch).end).read_volatile().wrapping_sub(left as u32),
            length: (&raw const (*scratch).taken).read_volatile() as u32,
            positions: (&raw const (*scratch).has_positions).read_volatile() != 0,
            behind: (&raw const (*scratch).is_behind).read_volatile() != 0,
        };
        let crossing = if (&raw const (*scratch).is_read).read_volatile() != 0 {
            protocol::step(dialogue, work, call)
        } else {
            protocol::miss(dialogue, work, call, (&raw const (*scratch).cause).read_volatile())
        };
        let (is_whole, size) = match crossing {
            Crossing::Whole => (1, 0),
            Crossing::Segments(size) => (0, size),
        };
        (&raw mut (*scratch).is_whole).write_volatile(is_whole);
        (&raw mut (*scratch).size).write_volatile(size);
        0
    }
}

/// Hands over a record of what was taken of the call.
///
/// # Safety
/// `scratch` is this CPU's map value.
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn tell(scratch: *mut Scratch) -> u64 {
    if scratch.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let work = &raw mut (*scratch).work;
        let transfer = (&raw mut (*work).record).cast::<Transfer>();
        let taken = (&raw const (*scratch).taken).read_volatile();
        let done = (&raw const (*scratch).done).read_volatile() + taken;
        let end = (&raw const (*scratch).end).read_volatile();
        let end = end.wrapping_sub(((&raw const (*scratch).length).read_volatile() - done) as u32);
        let kind = if (&raw const (*transfer).header.kind).read_volatile() == Kind::Send as u32 {
            (&raw mut (*transfer).positions.written).write_volatile(end);
            Kind::Send
        } else {
            (&raw mut (*transfer).positions.read).write_volatile(end);
            Kind::Receive
        };
        (&raw mut (*transfer).length).write_volatile(taken as u32);
        let program = (&raw const (*scratch).program).read_volatile() as u32;
        const HEAD: usize = size_of::<Transfer>();
        const TEXT: usize = size_of::<Segment>();
        if (&raw const (*scratch).is_whole).read_volatile() == 0 {
            let size = (&raw const (*scratch).size).read_volatile();
            (&raw mut (*transfer).size).write_volatile(size);
            capture::hand_over(program, kind, transfer.cast(), HEAD + size as usize, HEAD + OUT_LENGTH);
        } else {
            // The record stands right before the call's bytes, where nothing waits.
            (&raw mut (*transfer).size).write_volatile(TEXT as u32 + taken as u32);
            let before = (&raw mut (*work).bytes).cast::<u8>().add(HOLD - TEXT - HEAD);
            before.cast::<Transfer>().write(transfer.read());
            let segment =
                Segment { kind: SegmentKind::Text as u8, flags: 0, count: taken as u16, length: taken as u32 };
            before.add(HEAD).cast::<u64>().write(segment.to_word());
            capture::hand_over(program, kind, before, HEAD + TEXT + taken as usize, HEAD + TEXT + WINDOW_LENGTH);
        }
        (&raw mut (*transfer).continues).write_volatile(1);
        0
    }
}
