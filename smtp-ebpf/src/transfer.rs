//! Bytes moved between a process and a socket.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use smtp_ebpf::event::{CaptureMiss, Kind, Owner, Transfer, WINDOW_LENGTH};
use smtp_ebpf::protocol::{Dialogue, HOLD, Speaker};

use crate::buffer;
use crate::buffer_location::{self, BufferSource};
use crate::dialogue::Followed;
use crate::kernel::{Message, Sock, Socket, Task};
use crate::program::Program;
use crate::socket::{self, Stream};
use crate::tell::{Scratch, call, scratch_of, speaker, tell_at_once, tell_windows};
use crate::{capture, local_pair, owner, plaintext, state, track};

// include/net/tcp_states.h
const TCP_SYN_RECV: u8 = state::TCP_SYN_RECV as u8;
const TCP_CLOSE: u8 = state::TCP_CLOSE as u8;

// include/linux/socket.h
const MSG_OOB: u32 = 0x1;
const MSG_PEEK: u32 = 0x2;
const MSG_TRUNC: u32 = 0x20;
const MSG_ERRQUEUE: u32 = 0x2000;

/// A function ends that moved a message, with what it returned: a length, or an error.
#[inline(always)]
pub fn on_exit<C: EbpfContext>(
    context: &C,
    program: Program,
    socket: Socket,
    message: Message,
    flags: u32,
    returned: i32,
) {
    let Some(sock) = socket.sock() else { return };
    if moves_stream(program, flags, returned) && socket::is_ours(sock) {
        record(context, program, sock, flags, returned as u32, By::Message(message));
    }
}

/// A function ends that moved bytes which no iterator leads to.
#[inline(always)]
pub fn leaves_unseen<C: EbpfContext>(context: &C, program: Program, socket: Socket, cause: CaptureMiss, returned: i64) {
    let Some(sock) = socket.sock() else { return };
    if returned > 0 && socket::is_ours(sock) {
        record(context, program, sock, 0, returned as u32, By::Nothing(cause));
    }
}

/// A message was moved, or an error came of it.
#[inline(always)]
pub fn on_tracepoint<C: EbpfContext>(context: &C, program: Program, sock: Sock, flags: u32, returned: i32) {
    if moves_stream(program, flags, returned) && socket::is_ours(sock) {
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
    Nothing(CaptureMiss),
}

/// Whether a call moved bytes of the stream: what was looked at comes again when it is read, and an urgent byte is read beside
/// it. These flags mean nothing to a call that sends, but for the urgent byte, which is sent in the stream.
#[inline(always)]
fn moves_stream(program: Program, flags: u32, returned: i32) -> bool {
    let is_beside = matches!(program.kind(), Kind::Receive) && flags & (MSG_OOB | MSG_PEEK | MSG_ERRQUEUE) != 0;
    returned > 0 && !is_beside
}

/// A call that moved bytes of a stream.
#[derive(Clone, Copy)]
struct Moved {
    program: Program,
    sock: Sock,
    task: Task,
    flags: u32,
    length: u32,
}

/// Tells of a call.
///
/// Step by step, each a function of its own: what one needs of the stack is given back before the next, and before 6.13 there are
/// 512 bytes for all functions that call each other. What a step finds out it leaves in the map value.
#[inline(always)]
fn record<C: EbpfContext>(context: &C, program: Program, sock: Sock, flags: u32, length: u32, by: By) {
    let moved = Moved { program, sock, task: Task::current(), flags, length };
    let Some(scratch) = scratch_of(program) else { return };
    let Some(followed) = meet(context, &moved, scratch) else { return };
    // SAFETY: it is the socket's map value.
    let dialogue = unsafe { &raw mut (*followed).dialogue };
    // SAFETY: the pointers are to this CPU's map value and to the socket's.
    if unsafe { Dialogue::skips(dialogue, speaker(scratch), length) } {
        // Ciphertext, or octets of a chunk: they are told of, and not looked at. Nor are they if another processor finds
        // meanwhile that they are something else: where they are was not asked.
        // SAFETY: it is this CPU's map value.
        unsafe { buffer::withhold(&raw mut (*scratch).walk, CaptureMiss::Uncertain) };
        return tell_windows(scratch, dialogue, 1);
    }
    let address = match by {
        By::Call => plain_address(&moved, scratch, followed),
        _ => 0,
    };
    if address == 0 || !tell_at_once(scratch, dialogue, address) {
        look_and_tell(context, &moved, scratch, followed, by);
    }
    // SAFETY: the pointers are to this CPU's map value and to the socket's.
    unsafe {
        if Dialogue::has_tls(dialogue) {
            plaintext::carries(followed, scratch, moved.task.tgid(), Followed::known_cookie(followed));
        }
    }
}

/// Tells of a call whose bytes are to be looked for.
#[inline(always)]
fn look_and_tell<C: EbpfContext>(context: &C, moved: &Moved, scratch: *mut Scratch, followed: *mut Followed, by: By) {
    let Moved { length, .. } = *moved;
    // SAFETY: it is the socket's map value.
    let dialogue = unsafe { &raw mut (*followed).dialogue };
    // What leads to the bytes is known when a program is compiled: each has one of these.
    match by {
        By::Call => locate_of_call(moved, scratch, followed),
        By::Message(message) => locate_of_message(moved, scratch, message),
        By::Nothing(cause) => locate(moved, scratch, BufferSource::NotFound(cause)),
    }
    // SAFETY: the pointers are to this CPU's map value and to the socket's.
    unsafe {
        if (&raw const (*scratch).is_watched).read_volatile() == 0 && !is_confirmed(context, moved, scratch, followed) {
            return;
        }
        // A plain call that was not told at once is its socket's first.
        let is_message = matches!(by, By::Message(_));
        if is_message && tell_at_once(scratch, dialogue, buffer::plain(&raw const (*scratch).walk)) {
            return;
        }
        tell_windows(scratch, dialogue, u64::from(length).div_ceil(WINDOW_LENGTH as u64));
        let cause = buffer::cause(&raw const (*scratch).walk);
        if !matches!(cause, CaptureMiss::None) {
            debug!(context, "{} bytes not seen: cause {}", length, cause as u32);
        }
    }
}

/// Who calls, and all of the call but what was said. The dialogue on the socket, if that is ours or may be; none, too, where
/// the call is ciphertext, of which it was told a moment ago.
#[inline(always)]
fn meet<C: EbpfContext>(context: &C, moved: &Moved, scratch: *mut Scratch) -> Option<*mut Followed> {
    let Moved { program, sock, length, .. } = *moved;
    let sends = matches!(program.kind(), Kind::Send);
    let stream = Stream::of(sock)?;
    let is_watched = stream.has_watched_port();
    if !is_watched && !local_pair::may_be_ours(sock, sends) {
        return None;
    }
    let followed = Followed::of(sock)?;
    let time = capture::now();
    let seq_unreliable = stream.seq_unreliable();
    let state = match stream.state() {
        // SAFETY: it is the socket's map value.
        TCP_CLOSE => unsafe { Followed::last_state(followed) },
        state => state,
    };
    let positions = stream.positions_in(state);
    // Verifiers before 6.6 forget the bounds of a number whose bytes are swapped, and learn them again where it is read.
    // SAFETY: the pointer is to this CPU's map value.
    let (local_port, remote_port) = unsafe {
        let (local, remote) = (&raw mut (*scratch).local_port, &raw mut (*scratch).remote_port);
        local.write_volatile(stream.local_port());
        remote.write_volatile(sock.remote_port());
        (local.read_volatile(), remote.read_volatile())
    };
    // Who accepted the connection speaks for the server.
    let serves = track::is_accepted(sock, local_port, remote_port);
    let (speaker, listener) =
        if serves == sends { (Speaker::Server, Speaker::Client) } else { (Speaker::Client, Speaker::Server) };
    let (end, other) =
        if sends { (positions.write_seq, positions.copied_seq) } else { (positions.copied_seq, positions.write_seq) };
    // SAFETY: the pointers are to this CPU's map value and to the socket's.
    unsafe {
        let dialogue = &raw mut (*followed).dialogue;
        if state == TCP_SYN_RECV {
            // TCP Fast Open (RFC 7413): it was accepted with its first bytes, and its connection is not there yet.
            Dialogue::begin_new(dialogue);
        }
        (&raw mut (*scratch).length).write_volatile(u64::from(length));
        (&raw mut (*scratch).done).write_volatile(0);
        (&raw mut (*scratch).time).write_volatile(time);
        (&raw mut (*scratch).end).write_volatile(end);
        (&raw mut (*scratch).speaker).write_volatile(speaker as u32);
        (&raw mut (*scratch).has_positions).write_volatile(u32::from(seq_unreliable == 0));
        let is_behind = seq_unreliable == 0 && Dialogue::is_behind(dialogue, listener, other);
        (&raw mut (*scratch).is_behind).write_volatile(u32::from(is_behind));
        let had_tls = Dialogue::has_tls(dialogue);
        (&raw mut (*scratch).had_tls).write_volatile(u32::from(had_tls));
        (&raw mut (*scratch).serves).write_volatile(u32::from(serves));
        (&raw mut (*scratch).sends).write_volatile(u32::from(sends));
        let is_ciphertext = Dialogue::is_ciphertext(dialogue, speaker);
        (&raw mut (*scratch).was_ciphertext).write_volatile(u32::from(is_ciphertext));
        if is_ciphertext
            // Who has a session of its own on it is told of.
            && !plaintext::carries(followed, scratch, moved.task.tgid(), Followed::cookie(followed, sock))
            && !Followed::is_told(followed, speaker, time)
        {
            Dialogue::go_on(dialogue, &call(scratch, u64::from(length)));
            return None;
        }
        let owner = &raw mut (*scratch).owner;
        let task = &raw mut (*owner).task;
        owner::write(moved.task, task);
        (&raw mut (*scratch).is_nameless).write_volatile(0);
        if !Followed::is_owner(followed, task, time) {
            (&raw mut (*owner).header).write_volatile(capture::header(Kind::Owner, time));
            let is_told = tell_owner(context, program, sock, owner) != 0;
            (&raw mut (*scratch).is_nameless).write_volatile(u32::from(!is_told));
            Followed::set_owner(followed, task, if is_told { time } else { 0 });
        }
        let transfer = (&raw mut (*scratch).work.record).cast::<Transfer>();
        (&raw mut (*transfer).kind).write_volatile(program.kind() as u32);
        (&raw mut (*transfer).state).write_volatile(stream.state());
        (&raw mut (*transfer).seq_unreliable).write_volatile(seq_unreliable as u8);
        (&raw mut (*transfer).continues).write_volatile(0);
        (&raw mut (*transfer).tls).write_volatile(Followed::library(followed));
        (&raw mut (*transfer).time).write_volatile(time);
        (&raw mut (*transfer).cookie).write_volatile(Followed::cookie(followed, sock));
        (&raw mut (*transfer).positions).write_volatile(positions);
        (&raw mut (*transfer).pid).write_volatile((&raw const (*task).pid).read_volatile());
        (&raw mut (*transfer).tid).write_volatile((&raw const (*task).tid).read_volatile());
        (&raw mut (*scratch).program).write_volatile(program as u64);
        (&raw mut (*scratch).is_watched).write_volatile(u32::from(is_watched));
        (&raw mut (*scratch).is_sealed).write_volatile(u32::from(stream.has_upper_layer()));
    }
    Some(followed)
}

/// Tells who uses a socket, and describes that process; whether there was room.
#[inline(never)]
fn tell_owner<C: EbpfContext>(context: &C, program: Program, sock: Sock, owner: *mut Owner) -> u64 {
    const LENGTH: usize = size_of::<Owner>();
    let Some(stream) = Stream::of(sock) else { return 0 };
    // SAFETY: the pointer is to this CPU's map value.
    unsafe {
        owner::describe_once(context, program, &(*owner).task, (&raw const (*owner).header.time).read_volatile());
        (&raw mut (*owner).socket).write_volatile(stream.describe());
        u64::from(capture::output(context, program as u32, Kind::Owner, owner.cast(), LENGTH, LENGTH))
    }
}

/// The address of the bytes of a system call, where it can be told at a glance; else zero.
#[inline(always)]
fn plain_address(moved: &Moved, scratch: *mut Scratch, followed: *mut Followed) -> u64 {
    let Moved { program, task, flags, length, .. } = *moved;
    let sends = matches!(program.kind(), Kind::Send);
    // SAFETY: the pointers are to this CPU's map value and to the socket's.
    unsafe {
        let is_watched = (&raw const (*scratch).is_watched).read_volatile() != 0;
        let is_sealed = (&raw const (*scratch).is_sealed).read_volatile() != 0;
        if !is_watched || is_sealed || !sends && flags & MSG_TRUNC != 0 {
            return 0;
        }
        buffer_location::of_plain_call(task, sends, &raw const (*followed).file, length)
    }
}

/// Finds the bytes of a system call.
#[inline(never)]
fn locate_of_call(moved: &Moved, scratch: *mut Scratch, followed: *mut Followed) {
    let sends = matches!(moved.program.kind(), Kind::Send);
    // SAFETY: it is a map value.
    let file = unsafe { &raw mut (*followed).file };
    locate(moved, scratch, BufferSource::Caller { task: moved.task, sends, file });
}

/// Finds the bytes of a message.
#[inline(never)]
fn locate_of_message(moved: &Moved, scratch: *mut Scratch, message: Message) {
    locate(moved, scratch, BufferSource::Message(message));
}

#[inline(always)]
fn locate(moved: &Moved, scratch: *mut Scratch, locate: BufferSource) {
    let Moved { program, sock, flags, length, .. } = *moved;
    // SAFETY: the pointer is to this CPU's map value.
    unsafe {
        let walk = &raw mut (*scratch).walk;
        buffer::locate(walk, sock, locate, length);
        if !matches!(program.kind(), Kind::Send) && flags & MSG_TRUNC != 0 {
            buffer::withhold(walk, CaptureMiss::Discarded);
        } else if (&raw const (*scratch).is_sealed).read_volatile() != 0 {
            buffer::withhold(walk, CaptureMiss::Tls);
        }
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
            && matches!(buffer::cause(walk), CaptureMiss::None)
            && matches!(buffer::copy(walk, bytes, 0, 3), CaptureMiss::None);
        if is_there { bytes.cast::<[u8; 3]>().read_volatile() } else { [0; 3] }
    }
}
