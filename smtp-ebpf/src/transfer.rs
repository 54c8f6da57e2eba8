//! Bytes moved between a process and a socket.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_log_ebpf::debug;
use smtp_ebpf::event::{DISPUTED_LENGTH, Kind, Transfer, Unseen};

use crate::buffer::{self, Room};
use crate::content::{self, Captured};
use crate::kernel::{Message, Sock, Socket};
use crate::place::{self, Locate};
use crate::program::Program;
use crate::socket::{self, Stream};
use crate::{capture, local_pair, owner};

// include/linux/socket.h
const MSG_PEEK: u32 = 0x2;
const MSG_TRUNC: u32 = 0x20;
const MSG_ERRQUEUE: u32 = 0x2000;
const MSG_FASTOPEN: u32 = 0x2000_0000;

/// A record under construction.
#[repr(C)]
struct Scratch {
    transfer: Transfer,
    room: Room,
    captured: Captured,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(Program::COUNT, 0);

/// A function begins that moves a message.
#[inline(always)]
pub fn enters(socket: Socket, message: Message) {
    let Some(sock) = socket.sock() else { return };
    // A send that connects has no port yet (RFC 7413).
    if socket::is_ours(sock) || message.flags() & MSG_FASTOPEN != 0 {
        place::enter(message);
    }
}

/// A function ends that moved a message, with what it returned: a length, or an error.
#[inline(always)]
pub fn leaves<C: EbpfContext>(context: &C, program: Program, socket: Socket, flags: u32, returned: i32) {
    let Some(sock) = socket.sock() else { return };
    let watched = socket::is_ours(sock);
    if watched && moves_stream(flags, returned) {
        record(context, program, sock, flags, returned as u32, Locate::Entered);
    }
    if watched || flags & MSG_FASTOPEN != 0 {
        place::leave();
    }
}

/// A function ends that moved bytes which no iterator leads to.
#[inline(always)]
pub fn leaves_unseen<C: EbpfContext>(context: &C, program: Program, socket: Socket, cause: Unseen, returned: i64) {
    let Some(sock) = socket.sock() else { return };
    if returned > 0 && socket::is_ours(sock) {
        record(context, program, sock, 0, returned as u32, Locate::Unseen(cause));
    }
}

/// A system call's message was moved, or an error came of it.
#[inline(always)]
pub fn called<C: EbpfContext>(context: &C, program: Program, sock: Sock, flags: u32, returned: i32) {
    if !socket::is_ours(sock) {
        return;
    }
    if returned <= 0 {
        place::moved_nothing();
    } else if moves_stream(flags, returned) {
        record(context, program, sock, flags, returned as u32, Locate::Caller);
    }
}

/// Whether a call moved bytes of the stream: what was looked at comes again when it is read.
#[inline(always)]
fn moves_stream(flags: u32, returned: i32) -> bool {
    returned > 0 && flags & (MSG_PEEK | MSG_ERRQUEUE) == 0
}

#[inline(always)]
fn record<C: EbpfContext>(context: &C, program: Program, sock: Sock, flags: u32, length: u32, locate: Locate) {
    let Some(stream) = Stream::of(sock) else { return };
    let kind = program.kind();
    let sends = matches!(kind, Kind::Send);
    if !stream.has_watched_port() && !local_pair::may_be_ours(sock, sends) {
        return;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(program as u32) else { return };

    let time = capture::now();
    let task = owner::current();
    owner::describe_once(context, program, &task, time);
    // SAFETY: the pointer is to this CPU's map value; `output` cuts to its size. What a step finds out it leaves there,
    // and the next reads it there: else the verifier follows each way through the one with each way through the other.
    unsafe {
        let transfer = &raw mut (*scratch).transfer;
        let room = &raw mut (*scratch).room;
        let captured = &raw mut (*scratch).captured;
        // Part by part: the stack has no room for the whole.
        (&raw mut (*transfer).header).write_volatile(capture::header(kind, time));
        (&raw mut (*transfer).task).write_volatile(task);
        (&raw mut (*transfer).socket).write_volatile(stream.describe());
        (&raw mut (*transfer).positions).write_volatile(stream.positions());
        (&raw mut (*transfer).length).write_volatile(length);
        (&raw mut (*transfer).flags).write_volatile(flags);
        (&raw mut (*transfer).disputed_at).write_volatile(0);
        (&raw mut (*transfer).disputed).write_volatile([0; DISPUTED_LENGTH]);
        buffer::locate(room, sock, locate, length);
        if !sends && flags & MSG_TRUNC != 0 {
            buffer::withhold(room, Unseen::Discarded);
        } else if stream.has_upper_layer() {
            buffer::withhold(room, Unseen::Tls);
        }
        if let Locate::Unseen(unseen) = locate {
            captured.write_volatile(Captured { skipped: 0, head: 0, tail: 0, unseen });
        } else {
            content::capture(sock, room, transfer, sends, captured);
            buffer::finish(room, sends);
        }

        let Captured { skipped, head, tail, unseen } = captured.read_volatile();
        let first = Room::bytes(room).cast::<[u8; 3]>().read_volatile();
        let first = if skipped == 0 && head >= 3 { first } else { [0; 3] };
        if !stream.has_watched_port() && !local_pair::is_ours(context, program, sock, stream, first) {
            return;
        }
        (*transfer).skipped = skipped;
        (*transfer).head = head;
        (*transfer).tail = tail;
        (*transfer).unseen = unseen as u32;
        (*transfer).syscall = buffer::syscall(room);
        if !matches!(unseen, Unseen::None | Unseen::Long | Unseen::Content) {
            let pid = (*transfer).task.pid;
            debug!(context, "{} bytes of pid {} not seen: cause {}", length, pid, unseen as u32);
        }
        let size = size_of::<Transfer>() + head as usize + tail as usize;
        capture::output(context, program as u32, kind, scratch.cast(), size, size_of::<Scratch>());
    }
}
