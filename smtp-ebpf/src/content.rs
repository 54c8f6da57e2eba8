//! Bodies stay in the kernel: of a message's content only those last bytes cross that may begin its end.
//!
//! DATA asks for it, the server's 354 begins it, and CR LF `.` CR LF ends it (RFC 5321, 4.1.1.4); so does whatever else the server says.
//! Where this is wrong, user space sees too much or a gap, and goes on at the next reply.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel, bpf_sk_storage_get};
use aya_ebpf::macros::btf_map;
use smtp_ebpf::event::{HEAD_LENGTH, TAIL_LENGTH, Unseen};

use crate::buffer::{Captured, Room};
use crate::kernel::Sock;

/// Bytes of a reply that are searched for the start of its last line: more than any server's 354 is long.
const REPLY_WINDOW: usize = 256;

/// How far a message is on a socket; gone with it.
#[btf_map]
static CONTENTS: SkStorage<Content> = SkStorage::new();

#[repr(C)]
#[derive(Clone, Copy)]
struct Content {
    /// The client has asked for it: its last command was DATA.
    asked: u16,
    /// The client's next bytes are content.
    open: u16,
    /// How much of the end of data its last bytes so far are: it may come in pieces.
    matched: u32,
}

#[inline(always)]
fn of(sock: Sock) -> Option<*mut Content> {
    let map = (&raw const CONTENTS).cast_mut().cast();
    // SAFETY: the helper takes a map, a socket that the verifier knows, and no first value.
    let content = unsafe {
        bpf_sk_storage_get(map, sock.as_ptr(), core::ptr::null_mut(), u64::from(BPF_SK_STORAGE_GET_F_CREATE))
    };
    let content = content.cast::<Content>();
    (!content.is_null()).then_some(content)
}

/// Takes notice of what the server said.
///
/// # Safety
/// `room` and `captured` are map values, which hold what was captured.
#[inline(always)]
pub unsafe fn server_said(sock: Sock, room: *mut Room, captured: *const Captured) {
    let Some(content) = of(sock) else { return };
    // SAFETY: the caller's promise; the storage is this socket's.
    unsafe {
        (*content).open = 0;
        if (*content).asked == 0 {
            return;
        }
        // The first line may be the end already.
        (*content).matched = 2;
        let first = u32::from_be(Room::bytes(room).cast::<u32>().read_unaligned());
        let end = u64::from((&raw const (*captured).head).read_volatile());
        if end >= 4 && first >> 8 == u32::from_be_bytes(*b"\x00354") {
            // Nothing comes after it: the usual case needs no search.
            (*content).open = 1;
            return;
        }
        let start = end.saturating_sub(REPLY_WINDOW as u64);
        let line = if start == 0 { Line::Start } else { Line::Other };
        Room::search(room, start, end, line as u32);
        each_byte(room, REPLY_WINDOW, read_reply);
        (*content).open = (&raw const (*room).found).read_volatile() as u16;
    }
}

/// Leaves out of what the client said what is content.
///
/// # Safety
/// `room` and `captured` are map values, which hold what was captured.
#[inline(always)]
pub unsafe fn client_said(sock: Sock, room: *mut Room, captured: *mut Captured) {
    let Some(content) = of(sock) else { return };
    // SAFETY: the caller's promise; the storage is this socket's.
    unsafe {
        let head = (&raw const (*captured).head).read_volatile();
        if (*content).open == 0 {
            (*content).asked = u16::from(ends_with_data(room, head));
            return;
        }
        if head == 0 {
            return;
        }
        let tail = (&raw const (*captured).tail).read_volatile();
        let bytes = Room::bytes(room);
        let matched = (*content).matched;
        let first = u32::from_be(bytes.cast::<u32>().read_unaligned());
        if head > TAIL_LENGTH as u32 && ends_at_the_seam(matched, first) {
            // The content ended with the first bytes of this call: all of it is kept.
            (*content).open = 0;
            return;
        }

        // Where what was captured ends: behind the tail, or behind the head.
        let end = u64::from(if tail == 0 { head } else { HEAD_LENGTH as u32 + tail });
        let start = end.saturating_sub(TAIL_LENGTH as u64);
        // A call that is seen whole goes on where the one before ended.
        Room::search(room, start, end, if start == 0 { matched } else { 0 });
        each_byte(room, TAIL_LENGTH, read_content);
        let ended = (&raw const (*room).found).read_volatile();
        (*content).matched = (&raw const (*room).matched).read_volatile();
        let wanted = if ended != 0 {
            (*content).open = 0;
            // From the CR of the end of data on; `found` is the place behind it.
            (end + 5).saturating_sub(ended)
        } else {
            u64::from((*content).matched)
        };
        let there = end - start;
        let kept = Room::clamped(room, if wanted > there { there } else { wanted }, TAIL_LENGTH);
        let from = Room::clamped(room, end.saturating_sub(kept), HEAD_LENGTH + TAIL_LENGTH);
        if kept != 0 {
            // The room is a map value, and what the helper reads from it is in it.
            bpf_probe_read_kernel(bytes.cast(), kept as u32, bytes.add(from as usize).cast());
        }
        (&raw mut (*captured).head).write_volatile(0);
        (&raw mut (*captured).tail).write_volatile(kept as u32);
        (*captured).unseen = Unseen::Content;
    }
}

/// Whether the last command is DATA, which ends a group of pipelined ones (RFC 2920, 3.1).
///
/// # Safety
/// `room` is a map value.
#[inline(always)]
unsafe fn ends_with_data(room: *mut Room, head: u32) -> bool {
    const LENGTH: u64 = 6;
    const LOWER_CASE: u32 = 0x20202020;
    // SAFETY: the place is clamped to the room, which is longer than the head by more than a command.
    unsafe {
        let place = Room::clamped(room, u64::from(head).saturating_sub(LENGTH), HEAD_LENGTH);
        let command = Room::bytes(room).add(place as usize);
        u64::from(head) >= LENGTH
            && u32::from_be(command.cast::<u32>().read_unaligned()) | LOWER_CASE == u32::from_be_bytes(*b"data")
            && u16::from_be(command.add(4).cast::<u16>().read_unaligned()) == u16::from_be_bytes(*b"\r\n")
    }
}

/// Whether the first four bytes of a call complete the end of data, of which the call before had so much.
#[inline(always)]
fn ends_at_the_seam(matched: u32, first: u32) -> bool {
    match matched {
        1 => first == u32::from_be_bytes(*b"\n.\r\n"),
        2 => first >> 8 == u32::from_be_bytes(*b"\0.\r\n"),
        3 => first >> 16 == u32::from_be_bytes(*b"\0\0\r\n"),
        4 => first >> 24 == u32::from(b'\n'),
        _ => false,
    }
}

/// Calls `step` for the bytes of a search in their order, until it answers 1.
///
/// The verifier reads the body of `bpf_loop` (Linux 5.17) once, where it would read that of a loop as many times as
/// there are ways through it.
#[inline(always)]
unsafe fn each_byte(room: *mut Room, most: usize, step: unsafe extern "C" fn(u64, *mut Search) -> i64) {
    let mut search = Search { room };
    // SAFETY: the helper passes the index and the pointer to `step`.
    unsafe { bpf_loop(most as u32, step as *mut c_void, (&raw mut search).cast(), 0) };
}

/// What a step of a search is given.
#[repr(C)]
struct Search {
    room: *mut Room,
}

/// The byte of a search at this step, or `None` behind its end.
#[inline(always)]
unsafe fn next_byte(room: *mut Room, step: u64) -> Option<u8> {
    // SAFETY: the caller passes a map value; the place is clamped to it.
    unsafe {
        let place = (&raw const (*room).start).read_volatile() + step;
        if place >= (&raw const (*room).end).read_volatile() {
            return None;
        }
        let place = Room::clamped(room, place, HEAD_LENGTH + TAIL_LENGTH);
        Some(*Room::bytes(room).add(place as usize))
    }
}

/// How much of a line of the code 354 was read.
#[repr(u32)]
enum Line {
    Start = 0,
    Three = 1,
    ThreeFive = 2,
    Other = 3,
}

/// Reads a reply for the code of its last line: `found` is 1 where it is 354.
unsafe extern "C" fn read_reply(step: u64, search: *mut Search) -> i64 {
    // SAFETY: `each_byte` passes its room.
    unsafe {
        let room = (*search).room;
        let Some(byte) = next_byte(room, step) else { return 1 };
        let found = &raw mut (*room).found;
        let line = &raw mut (*room).matched;
        let read = line.read_volatile();
        let next = if byte == b'\n' {
            Line::Start
        } else if read == Line::Start as u32 {
            // A line begins, so the one before was not the last.
            found.write_volatile(0);
            if byte == b'3' { Line::Three } else { Line::Other }
        } else if read == Line::Three as u32 && byte == b'5' {
            Line::ThreeFive
        } else {
            if read == Line::ThreeFive as u32 && byte == b'4' {
                found.write_volatile(1);
            }
            Line::Other
        };
        line.write_volatile(next as u32);
        0
    }
}

/// Reads content for its end: `found` is the place behind it, or 0.
unsafe extern "C" fn read_content(step: u64, search: *mut Search) -> i64 {
    // SAFETY: `each_byte` passes its room.
    unsafe {
        let room = (*search).room;
        let Some(byte) = next_byte(room, step) else { return 1 };
        let matched = &raw mut (*room).matched;
        let next = match (matched.read_volatile(), byte) {
            (1, b'\n') => 2,
            (2, b'.') => 3,
            (3, b'\r') => 4,
            (4, b'\n') => {
                let place = (&raw const (*room).start).read_volatile() + step + 1;
                (&raw mut (*room).found).write_volatile(place);
                return 1;
            }
            // In the middle of a failed match a new one may begin.
            (_, b'\r') => 1,
            _ => 0,
        };
        matched.write_volatile(next);
        0
    }
}
