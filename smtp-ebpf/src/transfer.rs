//! Bytes moved between a process and a socket.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_log_ebpf::debug;
use smtp_ebpf::event::{Kind, Transfer, Unseen};

use crate::buffer::{self, Locate, Room};
use crate::content::{self, Captured};
use crate::kernel::{Message, Sock, Socket};
use crate::socket::{self, Stream};
use crate::{capture, owner};

// include/linux/socket.h
const MSG_PEEK: u32 = 0x2;
const MSG_TRUNC: u32 = 0x20;
const MSG_ERRQUEUE: u32 = 0x2000;
const MSG_FASTOPEN: u32 = 0x2000_0000;

/// A record under construction. One slot a program: one may be interrupted by another, but not by itself.
#[repr(C)]
struct Scratch {
    transfer: Transfer,
    room: Room,
    captured: Captured,
}

/// The program at work.
#[derive(Clone, Copy)]
pub enum Slot {
    /// It sends, by IPv4 or by a system call.
    Send = 0,
    /// It receives, likewise.
    Receive = 1,
    /// It sends by IPv6.
    Send6 = 2,
    /// It receives by IPv6.
    Receive6 = 3,
    /// It sends pages.
    SendPages = 4,
    /// It receives into a pipe.
    Splice = 5,
}

const SLOTS: u32 = 6;

impl Slot {
    #[inline(always)]
    fn kind(self) -> Kind {
        match self {
            Self::Send | Self::Send6 | Self::SendPages => Kind::Send,
            Self::Receive | Self::Receive6 | Self::Splice => Kind::Receive,
        }
    }
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(SLOTS, 0);

/// A function begins that moves a message.
#[inline(always)]
pub fn enters(socket: Socket, message: Message) {
    let Some(sock) = socket.sock() else { return };
    // A send that connects has no port yet (RFC 7413).
    if socket::has_watched_port(sock) || message.flags() & MSG_FASTOPEN != 0 {
        buffer::enter(message);
    }
}

/// A function ends that moved a message, with what it returned: a length, or an error.
#[inline(always)]
pub fn leaves<C: EbpfContext>(context: &C, slot: Slot, socket: Socket, flags: u32, returned: i32) {
    let Some(sock) = socket.sock() else { return };
    if socket::has_watched_port(sock) {
        if moves_stream(flags, returned) {
            record(context, slot, sock, flags, returned as u32, Locate::Entered);
        }
        buffer::leave();
    } else if flags & MSG_FASTOPEN != 0 {
        buffer::leave();
    }
}

/// A function ends that moved bytes which no iterator leads to.
#[inline(always)]
pub fn leaves_unseen<C: EbpfContext>(context: &C, slot: Slot, socket: Socket, cause: Unseen, returned: i64) {
    let Some(sock) = socket.sock() else { return };
    if returned > 0 && socket::has_watched_port(sock) {
        record(context, slot, sock, 0, returned as u32, Locate::Unseen(cause));
    }
}

/// A system call's message was moved, or an error came of it.
#[inline(always)]
pub fn called<C: EbpfContext>(context: &C, slot: Slot, sock: Sock, flags: u32, returned: i32) {
    if !socket::has_watched_port(sock) {
        return;
    }
    if returned <= 0 {
        buffer::moved_nothing();
    } else if moves_stream(flags, returned) {
        record(context, slot, sock, flags, returned as u32, Locate::Caller);
    }
}

/// Whether a call moved bytes of the stream: what was looked at comes again when it is read.
#[inline(always)]
fn moves_stream(flags: u32, returned: i32) -> bool {
    returned > 0 && flags & (MSG_PEEK | MSG_ERRQUEUE) == 0
}

#[inline(always)]
fn record<C: EbpfContext>(context: &C, slot: Slot, sock: Sock, flags: u32, length: u32, locate: Locate) {
    let Some(stream) = Stream::of(sock) else { return };
    let kind = slot.kind();
    let sends = matches!(kind, Kind::Send);
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return };

    let time = capture::now();
    let task = owner::current();
    owner::describe_once(context, &task, time);
    // SAFETY: the pointer is to this CPU's map value; `output` cuts to its size. What a step finds out it leaves there,
    // and the next reads it there: else the verifier follows each way through the one with each way through the other.
    unsafe {
        let transfer = &raw mut (*scratch).transfer;
        let room = &raw mut (*scratch).room;
        let captured = &raw mut (*scratch).captured;
        transfer.write_volatile(Transfer {
            header: capture::header(kind, time),
            task,
            socket: stream.describe(),
            positions: stream.positions(),
            length,
            flags,
            skipped: 0,
            head: 0,
            tail: 0,
            unseen: 0,
            syscall: 0,
            padding: 0,
        });
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
        capture::output(context, kind, scratch.cast(), size, size_of::<Scratch>());
    }
}
