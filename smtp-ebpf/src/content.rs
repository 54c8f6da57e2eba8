//! Bodies stay in the kernel: of a message's content only those last bytes cross that may begin its end, and the CR, LF,
//! NUL and dot of what some servers take for its end.
//!
//! DATA asks for content, the server's 354 begins it, and CR LF `.` CR LF ends it (RFC 5321, 4.1.1.4); so does whatever
//! else the server says. BDAT begins it at once, and says how long it is (RFC 3030, 2). Where this is wrong, user space
//! sees too much or a gap, and goes on at the next reply.

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;
use smtp_ebpf::event::{DISPUTED_LENGTH, HEAD_LENGTH, TAIL_LENGTH, Transfer, Unseen};

use crate::buffer::{self, Copied, Room, at_most};
use crate::kernel::Sock;
use crate::scan::{self, State};
use crate::track;

/// Bytes of a reply that are searched for the start of its last line: more than any server's 354 is long.
const REPLY_WINDOW: usize = 256;

/// Longest line of BDAT that is read: its number, LAST, and some blanks.
const LINE_WINDOW: usize = 64;

/// How far a message is on a socket; gone with it.
#[btf_map]
static CONTENTS: SkStorage<Content> = SkStorage::new();

/// How far a message is.
#[repr(C)]
#[derive(Clone, Copy)]
struct Content {
    /// The client has asked for it: its last command was DATA.
    asked: u16,
    /// The client's next bytes are content, up to CR LF `.` CR LF.
    open: u16,
    /// How far the end of data is read in its last bytes: it may come in pieces.
    ending: u32,
    /// The client's stream position behind those.
    next: u32,
    /// A chunk goes on to the stream position `chunk_end`: not zero, and more the more the server has said meanwhile.
    in_chunk: u32,
    chunk_end: u32,
    /// How far the last line was read, which may have been cut.
    line: u32,
    /// The number in it, so far.
    number: u64,
}

impl Content {
    #[inline(always)]
    fn of(sock: Sock) -> Option<*mut Self> {
        let map = (&raw const CONTENTS).cast_mut().cast();
        // SAFETY: the helper takes a map, a socket that the verifier knows, and no first value.
        let content = unsafe {
            bpf_sk_storage_get(map, sock.as_ptr(), core::ptr::null_mut(), u64::from(BPF_SK_STORAGE_GET_F_CREATE))
        };
        let content = content.cast::<Self>();
        (!content.is_null()).then_some(content)
    }
}

/// What crosses of a call, in its order: `skipped` bytes are left out, the head crosses, others are missing, the tail
/// crosses. In the room the tail is right behind the head.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Captured {
    pub skipped: u32,
    pub head: u32,
    pub tail: u32,
    pub unseen: Unseen,
}

/// Copies what crosses of a call whose bytes were located in the room.
///
/// # Safety
/// `room`, `transfer` and `captured` are map values; the transfer's socket is this one.
#[inline(always)]
pub unsafe fn capture(sock: Sock, room: *mut Room, transfer: *mut Transfer, sends: bool, captured: *mut Captured) {
    // SAFETY: the caller's promise.
    unsafe {
        let length = u64::from((&raw const (*transfer).length).read_volatile());
        let Some(content) = Content::of(sock) else {
            return captured.write_volatile(Captured { skipped: 0, head: 0, tail: 0, unseen: Unseen::Path });
        };
        // Who accepted the connection speaks for the server.
        let socket = &raw const (*transfer).socket;
        let accepted = track::is_accepted(
            sock,
            (&raw const (*socket).local_port).read_volatile(),
            (&raw const (*socket).remote_port).read_volatile(),
        );
        let server_speaks = accepted == sends;
        let positions = &raw const (*transfer).positions;
        let client = if accepted { &raw const (*positions).read } else { &raw const (*positions).written };
        let end = client.read_volatile();
        let sure = (&raw const (*transfer).socket.apart).read_volatile() == 0;

        buffer::window(room, 0, HEAD_LENGTH as u64);
        if !server_speaks {
            leave_content_out(content, room, length, end, sure);
        }
        let copied = &raw mut (*room).copied;
        copied.write_volatile(buffer::copy(room));
        captured.write_volatile(if server_speaks {
            server_said(content, room, end)
        } else if (&raw const (*content).open).read_volatile() != 0 {
            data_said(content, room, transfer, length)
        } else {
            commands_said(content, room, length, end)
        });
    }
}

/// Makes the window that is copied of the client's call as small as can be. The client's stream position is `end` behind
/// it; `sure` where positions can be relied on.
#[inline(always)]
unsafe fn leave_content_out(content: *mut Content, room: *mut Room, length: u64, end: u32, sure: bool) {
    // SAFETY: the caller passes the socket's content, and a map value.
    unsafe {
        let start = end.wrapping_sub(length as u32);
        if (&raw const (*content).open).read_volatile() != 0 {
            if sure && (*content).next != start {
                // Bytes went unseen.
                (&raw mut (*content).ending).write_volatile(State::CONTENT.0);
            }
            (*content).next = end;
        } else if sure && (*content).in_chunk != 0 {
            // Bytes that went unseen have moved the position all the same.
            let left = i64::from((*content).chunk_end.wrapping_sub(start) as i32);
            let left = if left > 0 { left as u64 } else { 0 };
            buffer::window(room, at_most(left, length), HEAD_LENGTH as u64);
            if left <= length {
                (*content).in_chunk = 0;
            }
        }
    }
}

/// Replies in the middle of a chunk that pipelined commands before it explain.
const MOST_MEANWHILE: u32 = 8;

/// The server speaks in the middle of a chunk. One that has refused something, and says more, or that says ever more,
/// reads commands: what was announced does not come.
#[inline(always)]
fn doubt_chunk(in_chunk: u32, first: u8) -> u32 {
    match in_chunk {
        0 => 0,
        said if said > MOST_MEANWHILE => 0,
        _ if matches!(first, b'4' | b'5') => MOST_MEANWHILE + 1,
        said => said + 1,
    }
}

/// Takes notice of what the server said; all of it crosses. The client's stream position is `client`.
#[inline(always)]
unsafe fn server_said(content: *mut Content, room: *mut Room, client: u32) -> Captured {
    // SAFETY: the caller passes the socket's content, and a map value.
    unsafe {
        let Copied { head, tail, unseen } = (&raw const (*room).copied).read_volatile();
        (*content).open = 0;
        (*content).in_chunk = doubt_chunk((*content).in_chunk, *Room::bytes(room));
        if (*content).asked != 0 {
            // The content's first line may be its end already.
            (*content).ending = State::CR_LF.0;
            (*content).next = client;
            let end = u64::from(head);
            let start = end.saturating_sub(REPLY_WINDOW as u64);
            let state = if start == 0 { State::REPLY } else { State::OTHER_REPLY };
            scan::scan(room, start, end, REPLY_WINDOW, state, 0);
            let state = State((&raw const (*room).state).read_volatile());
            (*content).open = u16::from(state == State::GO_AHEAD || state == State::BEHIND_GO_AHEAD);
        }
        Captured { skipped: 0, head, tail, unseen }
    }
}

/// What the client said is content of DATA, perhaps its end, and what follows that.
#[inline(always)]
unsafe fn data_said(content: *mut Content, room: *mut Room, transfer: *mut Transfer, length: u64) -> Captured {
    // SAFETY: the caller passes the socket's content, and a map value.
    unsafe {
        let Copied { head, tail, unseen } = (&raw const (*room).copied).read_volatile();
        if head == 0 {
            (*content).ending = State::CONTENT.0;
            return Captured { skipped: 0, head, tail, unseen };
        }
        tell_of_dispute(room, transfer, head);

        let ending = (*content).ending;
        let first = u32::from_be(Room::bytes(room).cast::<u32>().read_unaligned());
        let copied = u64::from(head + tail);
        let is_long = copied > TAIL_LENGTH as u64;
        if is_long && ends_at_the_seam(State(ending), first) {
            (*content).open = 0;
            return Captured { skipped: 0, head, tail, unseen };
        }
        // The end of the call, or all of it, which goes on where the one before ended.
        let from = copied.saturating_sub(TAIL_LENGTH as u64);
        let there = copied - from;
        let state = if is_long { State::CONTENT } else { State(ending) };
        scan::scan(room, from, copied, TAIL_LENGTH, state, 0);
        let found = (&raw const (*room).found).read_volatile();
        let state = (&raw const (*room).state).read_volatile();
        (*content).ending = state;
        let wanted = if found != 0 {
            (*content).open = 0;
            // From the CR of the end of data on.
            (copied + 5).saturating_sub(found)
        } else {
            u64::from(state - State::CONTENT.0)
        };
        let kept = Room::clamped(room, at_most(wanted, there), TAIL_LENGTH);
        Room::shift(room, 0, copied - kept, kept);
        if found != 0 {
            (*content).asked = u16::from(ends_with_data(room, kept));
        }
        let unseen = if kept < length { Unseen::Content } else { Unseen::None };
        Captured { skipped: (length - kept) as u32, head: kept as u32, tail: 0, unseen }
    }
}

/// Lets the first disputed end of the content cross, if there is one in the head; what is not of it is made unreadable.
#[inline(always)]
unsafe fn tell_of_dispute(room: *mut Room, transfer: *mut Transfer, head: u32) {
    // SAFETY: the caller passes map values; the place is clamped to the room, which is longer by more than the form.
    unsafe {
        let found = scan::find_dispute(room, 0, head.into());
        if found == 0 {
            return;
        }
        let place = Room::clamped(room, found - 1, HEAD_LENGTH);
        let bytes = Room::bytes(room).add(place as usize);
        let is_end = u32::from_be(bytes.cast::<u32>().read_unaligned()) == u32::from_be_bytes(*b"\r\n.\r");
        // The end itself, or what the next call may make the end.
        if is_end && (*bytes.add(4) == b'\n' || place + 4 >= u64::from(head)) {
            return;
        }
        (*transfer).disputed_at = place as u32;
        for at in 0..DISPUTED_LENGTH {
            let byte = *bytes.add(at);
            let is_of_form = matches!(byte, b'\r' | b'\n' | b'\0' | b'.');
            (*transfer).disputed[at] = if is_of_form { byte } else { b'x' };
        }
    }
}

/// What the client said, behind the end of a chunk where one was going on, is commands, the last of which may begin
/// content.
#[inline(always)]
unsafe fn commands_said(content: *mut Content, room: *mut Room, length: u64, end: u32) -> Captured {
    // SAFETY: the caller passes the socket's content, and a map value.
    unsafe {
        let Copied { head, tail, unseen } = (&raw const (*room).copied).read_volatile();
        let skipped = buffer::start(room);
        let mut captured = Captured { skipped: skipped as u32, head, tail, unseen };
        (*content).asked = 0;
        if head == 0 {
            // A chunk is followed by a new command.
            let whole = skipped == length;
            (*content).line = if whole { State::LINE.0 } else { State::OTHER.0 };
            if whole {
                captured.unseen = Unseen::Content;
            }
            return captured;
        }
        let copied = u64::from(head + tail);
        if ends_with_data(room, copied) {
            (*content).asked = 1;
            (*content).line = State::LINE.0;
            return captured;
        }

        // Where a line of BDAT may begin.
        let line = State((*content).line);
        let mut place = 0;
        if line == State::LINE && !scan::is_chunk(room, 0) || line == State::OTHER {
            place = scan::find_chunk(room, 0, head.into());
        }
        let goes_on = line != State::LINE && line != State::OTHER;
        let last = Room::clamped(room, copied.saturating_sub(1), HEAD_LENGTH + TAIL_LENGTH);
        let whole = *Room::bytes(room).add(last as usize) == b'\n';
        let begins = place != 0 || goes_on || line == State::LINE && scan::is_chunk(room, 0);
        (*content).line = State::LINE.0;
        if !begins && whole {
            return captured;
        }
        if !begins && copied > LINE_WINDOW as u64 {
            place = copied - LINE_WINDOW as u64;
        }
        let state = match begins {
            true if goes_on => line,
            false if place != 0 => State::OTHER,
            _ => State::LINE,
        };
        scan::scan(room, place, copied, LINE_WINDOW, state, (*content).number);
        let begins = (&raw const (*room).found).read_volatile();
        let number = (&raw const (*room).number).read_volatile();
        if begins == 0 {
            let state = (&raw const (*room).state).read_volatile();
            (*content).asked = u16::from(State(state) == State::BEHIND_DATA);
            if !whole {
                (*content).line = state;
                (*content).number = number;
            }
            return captured;
        }

        captured.head = begins as u32;
        captured.tail = 0;
        captured.unseen = Unseen::Content;
        let rest = length - skipped - begins;
        if number >= rest {
            (*content).in_chunk = u32::from(number > rest);
            // Positions tell no more than two gigabytes apart.
            let left = at_most(number - rest, i32::MAX as u64);
            (*content).chunk_end = end.wrapping_add(left as u32);
            return captured;
        }
        // Commands behind the chunk cross, unless they were not copied, or another chunk is among them: then the next
        // reply shows what they were.
        let behind = begins + number;
        if tail != 0 {
            return captured;
        }
        let chunk = if scan::is_chunk(room, behind) { behind } else { scan::find_chunk(room, behind, copied) };
        let mut found = 0;
        if chunk != 0 || !whole {
            let long = copied - behind > LINE_WINDOW as u64;
            let (from, state) = match chunk {
                0 if long => (copied - LINE_WINDOW as u64, State::OTHER),
                0 => (behind, State::LINE),
                chunk => (chunk, State::LINE),
            };
            scan::scan(room, from, copied, LINE_WINDOW, state, 0);
            found = (&raw const (*room).found).read_volatile();
            let number = (&raw const (*room).number).read_volatile();
            if found != 0 {
                let left = at_most(number.saturating_sub(copied - found), i32::MAX as u64);
                (*content).in_chunk = u32::from(left != 0);
                (*content).chunk_end = end.wrapping_add(left as u32);
            } else if !whole {
                (*content).line = (&raw const (*room).state).read_volatile();
                (*content).number = number;
            }
        }
        if found == 0 {
            Room::shift(room, begins, behind, rest - (behind - begins));
            captured.tail = (rest - (behind - begins)) as u32;
        }
        captured
    }
}

/// Whether the last command is DATA, which ends a group of pipelined ones (RFC 2920, 3.1).
///
/// # Safety
/// `room` is a map value.
#[inline(always)]
unsafe fn ends_with_data(room: *mut Room, end: u64) -> bool {
    const LENGTH: u64 = 6;
    const LOWER_CASE: u32 = 0x20202020;
    // SAFETY: the place is clamped to the room, which is longer than that by more than a command.
    unsafe {
        let place = Room::clamped(room, end.saturating_sub(LENGTH), HEAD_LENGTH + TAIL_LENGTH);
        let command = Room::bytes(room).add(place as usize);
        end >= LENGTH
            && u32::from_be(command.cast::<u32>().read_unaligned()) | LOWER_CASE == u32::from_be_bytes(*b"data")
            && u16::from_be(command.add(4).cast::<u16>().read_unaligned()) == u16::from_be_bytes(*b"\r\n")
    }
}

/// Whether the first four bytes of a call complete the end of data, which was read so far in the call before.
#[inline(always)]
fn ends_at_the_seam(ending: State, first: u32) -> bool {
    match ending.0 - State::CONTENT.0 {
        1 => first == u32::from_be_bytes(*b"\n.\r\n"),
        2 => first >> 8 == u32::from_be_bytes(*b"\0.\r\n"),
        3 => first >> 16 == u32::from_be_bytes(*b"\0\0\r\n"),
        4 => first >> 24 == u32::from(b'\n'),
        _ => false,
    }
}
