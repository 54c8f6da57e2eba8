//! Scans of the bytes of a call, byte by byte, for what begins and ends content.
//!
//! What is looked for is kept in tables: to the verifier they are numbers, where branches would be ways to follow. The
//! body of `bpf_loop` (Linux 5.17) it reads once, where it would read that of a loop as often as there are ways through.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use smtp_ebpf::event::{HEAD_LENGTH, TAIL_LENGTH};

use crate::buffer::Room;

/// How far what is looked for has been read: a row of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State(pub u32);

// A command's line: BDAT with its number (RFC 3030, 2), or DATA.
impl State {
    /// A line begins. The first row: what a socket begins with.
    pub const LINE: Self = Self(0);
    const B: Self = Self(1);
    const BD: Self = Self(2);
    const BDA: Self = Self(3);
    const BDAT: Self = Self(4);
    const BLANK: Self = Self(5);
    const NUMBER: Self = Self(6);
    const BEHIND_NUMBER: Self = Self(7);
    const D: Self = Self(8);
    const DA: Self = Self(9);
    const DAT: Self = Self(10);
    const DATA: Self = Self(11);
    /// A line of DATA has ended.
    pub const BEHIND_DATA: Self = Self(12);
    /// A line of anything else.
    pub const OTHER: Self = Self(13);
}

// Content: the end of data, CR LF `.` CR LF.
impl State {
    /// Nothing of it was read; the next four: its first bytes were.
    pub const CONTENT: Self = Self(16);
    const CR: Self = Self(17);
    /// CR LF, which may be that of the line before the content.
    pub const CR_LF: Self = Self(18);
    const DOT: Self = Self(19);
    const DOT_CR: Self = Self(20);
}

// A reply, whose last line's code is 354 or is not.
impl State {
    /// A line begins.
    pub const REPLY: Self = Self(21);
    const THREE: Self = Self(22);
    const THREE_FIVE: Self = Self(23);
    /// A line with the code 354.
    pub const GO_AHEAD: Self = Self(24);
    /// Behind such a line.
    pub const BEHIND_GO_AHEAD: Self = Self(25);
    /// A line with another code.
    pub const OTHER_REPLY: Self = Self(26);
}

const STATES: usize = 32;

/// Classes of bytes: a column of the table.
const CLASSES: usize = 16;
const ANY: u8 = 0;
const CR: u8 = 1;
const LF: u8 = 2;
const DOT: u8 = 3;
const BLANK: u8 = 4;
const B: u8 = 5;
const D: u8 = 6;
const A: u8 = 7;
const T: u8 = 8;
const DIGIT: u8 = 9;
const THREE: u8 = 10;
const FOUR: u8 = 11;
const FIVE: u8 = 12;

/// What is looked for ends with this byte.
const FOUND: u8 = 0x80;

static CLASS: [u8; 256] = {
    let mut table = [ANY; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'\r' => CR,
            b'\n' => LF,
            b'.' => DOT,
            b' ' | b'\t' => BLANK,
            b'b' | b'B' => B,
            b'd' | b'D' => D,
            b'a' | b'A' => A,
            b't' | b'T' => T,
            b'3' => THREE,
            b'4' => FOUR,
            b'5' => FIVE,
            b'0'..=b'9' => DIGIT,
            _ => ANY,
        };
        byte += 1;
    }
    table
};

static NEXT: [u8; STATES * CLASSES] = {
    let mut table = [0; STATES * CLASSES];
    let mut state = 0;
    while state < STATES {
        let mut class = 0;
        while class < CLASSES {
            table[state * CLASSES + class] = next(State(state as u32), class as u8);
            class += 1;
        }
        state += 1;
    }
    table
};

/// The state after a byte of this class.
const fn next(state: State, class: u8) -> u8 {
    let digit = class >= DIGIT;
    let next = match (state, class) {
        (State::NUMBER | State::BEHIND_NUMBER, LF) => return FOUND | State::LINE.0 as u8,
        (State::DATA, LF) => State::BEHIND_DATA,
        (State(..=13), LF) => State::LINE,
        (State::LINE | State::BEHIND_DATA, B) => State::B,
        (State::LINE | State::BEHIND_DATA, D) => State::D,
        (State::B, D) => State::BD,
        (State::BD, A) => State::BDA,
        (State::BDA, T) => State::BDAT,
        (State::BDAT | State::BLANK, BLANK) => State::BLANK,
        (State::BLANK | State::NUMBER, _) if digit => State::NUMBER,
        (State::NUMBER, CR | BLANK) | (State::BEHIND_NUMBER, _) => State::BEHIND_NUMBER,
        (State::D, A) => State::DA,
        (State::DA, T) => State::DAT,
        (State::DAT, A) | (State::DATA, CR | BLANK) => State::DATA,
        (State(..=13), _) => State::OTHER,

        (State::DOT_CR, LF) => return FOUND | State::CONTENT.0 as u8,
        (State::CR, LF) => State::CR_LF,
        (State::CR_LF, DOT) => State::DOT,
        (State::DOT, CR) => State::DOT_CR,
        // In the middle of a failed match a new one may begin.
        (State(16..=20), CR) => State::CR,
        (State(16..=20), _) => State::CONTENT,

        (State::GO_AHEAD, LF) => State::BEHIND_GO_AHEAD,
        (State::GO_AHEAD, _) => State::GO_AHEAD,
        (State(21..=26), LF) => State::REPLY,
        (State::REPLY | State::BEHIND_GO_AHEAD, THREE) => State::THREE,
        (State::THREE, FIVE) => State::THREE_FIVE,
        (State::THREE_FIVE, FOUR) => State::GO_AHEAD,
        (State(21..=26), _) => State::OTHER_REPLY,

        (State(_), _) => State::OTHER,
    };
    next.0 as u8
}

/// Scans at most so many of the room's bytes between two places: its `found` is then the place behind what was looked
/// for, or 0, `state` how far the last bytes are part of it, `number` the number read.
///
/// # Safety
/// `room` is a map value.
#[inline(always)]
pub unsafe fn scan(room: *mut Room, from: u64, to: u64, most: usize, state: State, number: u64) {
    let mut scan = Scan { room };
    // SAFETY: the caller's promise; the helper passes the index and the pointer to the function.
    unsafe {
        begin(room, from, to);
        (&raw mut (*room).state).write_volatile(state.0);
        (&raw mut (*room).number).write_volatile(number);
        bpf_loop(most as u32, read_byte as *mut c_void, (&raw mut scan).cast(), 0);
    }
}

/// The place of the first BDAT that begins a line behind another between two places, or 0.
///
/// # Safety
/// `room` is a map value.
#[inline(always)]
pub unsafe fn find_chunk(room: *mut Room, from: u64, to: u64) -> u64 {
    let mut scan = Scan { room };
    // SAFETY: as of `scan`.
    unsafe {
        begin(room, from, to);
        bpf_loop((HEAD_LENGTH / STRIDE) as u32, try_places as *mut c_void, (&raw mut scan).cast(), 0);
        (&raw const (*room).found).read_volatile()
    }
}

/// The place of the first dot between two places with CR, LF or NUL before and behind it, or what looks like them; more
/// exactly, one more than that of the byte before these. Or 0.
///
/// # Safety
/// `room` is a map value.
#[inline(always)]
pub unsafe fn find_dispute(room: *mut Room, from: u64, to: u64) -> u64 {
    let mut scan = Scan { room };
    // SAFETY: as of `scan`; the place is clamped to the room, which is longer by more than two words.
    unsafe {
        begin(room, from + 1, to);
        bpf_loop((HEAD_LENGTH / WORDS + 1) as u32, try_words as *mut c_void, (&raw mut scan).cast(), 0);
        let found = (&raw const (*room).found).read_volatile();
        if found == 0 {
            return 0;
        }
        let place = Room::clamped(room, found - 1, HEAD_LENGTH);
        let bytes = Room::bytes(room).add(place as usize);
        for ahead in 0..size_of::<u64>() {
            let word = u32::from_le(bytes.add(ahead).cast::<u32>().read_unaligned());
            let place = place + ahead as u64;
            if word & LONE_DOT_MASK == LONE_DOT && place + size_of::<u32>() as u64 <= to {
                return place + 1;
            }
        }
        0
    }
}

/// Whether BDAT stands at a place.
///
/// # Safety
/// `room` is a map value.
#[inline(always)]
pub unsafe fn is_chunk(room: *mut Room, place: u64) -> bool {
    // SAFETY: the caller's promise; the place is clamped to the room.
    unsafe {
        let place = Room::clamped(room, place, HEAD_LENGTH);
        let verb = Room::bytes(room).add(place as usize).cast::<u32>().read_unaligned();
        u32::from_le(verb) | 0x2020_2020 == u32::from_le_bytes(*b"bdat")
    }
}

/// What a step is given.
#[repr(C)]
struct Scan {
    room: *mut Room,
}

#[inline(always)]
unsafe fn begin(room: *mut Room, from: u64, to: u64) {
    // SAFETY: the caller passes a map value.
    unsafe {
        (&raw mut (*room).start).write_volatile(from);
        (&raw mut (*room).end).write_volatile(to);
        (&raw mut (*room).found).write_volatile(0);
    }
}

unsafe extern "C" fn read_byte(step: u64, scan: *mut Scan) -> i64 {
    // SAFETY: `scan` passes its room; every index is cut to its table.
    unsafe {
        let room = (*scan).room;
        let place = (&raw const (*room).start).read_volatile() + step;
        if place >= (&raw const (*room).end).read_volatile() {
            return 1;
        }
        let byte = *Room::bytes(room).add(Room::clamped(room, place, HEAD_LENGTH + TAIL_LENGTH) as usize);
        let class = *(&raw const CLASS).cast::<u8>().add(byte as usize);
        let state = u64::from((&raw const (*room).state).read_volatile());
        let row = Room::clamped(room, state * CLASSES as u64 + u64::from(class), STATES * CLASSES - 1);
        let next = *(&raw const NEXT).cast::<u8>().add(row as usize);
        (&raw mut (*room).state).write_volatile(u32::from(next & !FOUND));
        if next == State::NUMBER.0 as u8 {
            let number = &raw mut (*room).number;
            let before = if state == u64::from(State::NUMBER.0) { number.read_volatile() } else { 0 };
            // More digits than that are no number of octets.
            let before = Room::clamped(room, before, 1 << 40);
            number.write_volatile(before * 10 + u64::from(byte - b'0'));
        }
        if next & FOUND != 0 {
            (&raw mut (*room).found).write_volatile(place + 1);
            return 1;
        }
        0
    }
}

/// Places that a step of the search for a verb tries.
const STRIDE: usize = 16;

/// LF and BDAT, in either case of its letters, as the first five bytes of a little-endian word.
const VERB: u64 = u64::from_le_bytes(*b"\nbdat\0\0\0");
const VERB_BYTES: u64 = 0x00_00_00_ff_ff_ff_ff_ff;
const LOWER_CASE: u64 = 0x00_00_00_20_20_20_20_00;

unsafe extern "C" fn try_places(step: u64, scan: *mut Scan) -> i64 {
    // SAFETY: `find_chunk` passes its room, which is longer than the place is clamped to by more than a stride.
    unsafe {
        let room = (*scan).room;
        let start = (&raw const (*room).start).read_volatile() + step * STRIDE as u64;
        let end = (&raw const (*room).end).read_volatile();
        if start >= end {
            return 1;
        }
        let start = Room::clamped(room, start, HEAD_LENGTH);
        let bytes = Room::bytes(room).add(start as usize);
        for ahead in 0..STRIDE {
            let word = u64::from_le(bytes.add(ahead).cast::<u64>().read_unaligned());
            if (word | LOWER_CASE) & VERB_BYTES == VERB {
                let place = start + ahead as u64 + 1;
                // Behind the end stands what another call has left.
                (&raw mut (*room).found).write_volatile(if place < end { place } else { 0 });
                return 1;
            }
        }
        0
    }
}

/// Bytes that a step of the search for a dot tries, a word at a time.
const WORDS: usize = 128;

/// A byte of each word.
const EACH: u64 = 0x01_01_01_01_01_01_01_01;

/// Any byte, one of the first sixteen, a dot, another of the first sixteen.
const LONE_DOT: u32 = u32::from_le_bytes(*b"\0\0.\0");
const LONE_DOT_MASK: u32 = 0xf0_ff_f0_00;

/// The highest bit of each byte that is zero.
#[inline(always)]
fn zeros(word: u64) -> u64 {
    const LOW: u64 = 0x7f * EACH;
    !(((word & LOW) + LOW) | word | LOW)
}

unsafe extern "C" fn try_words(step: u64, scan: *mut Scan) -> i64 {
    // SAFETY: `find_dispute` passes its room, which is longer than the place is clamped to by more than the words.
    unsafe {
        let room = (*scan).room;
        let start = (&raw const (*room).start).read_volatile() + step * WORDS as u64;
        if start >= (&raw const (*room).end).read_volatile() {
            return 1;
        }
        let start = Room::clamped(room, start, HEAD_LENGTH);
        let bytes = Room::bytes(room).add(start as usize);
        let word = |at: usize| bytes.add(at).cast::<u64>().read_unaligned();
        for ahead in (0..WORDS).step_by(size_of::<u64>()) {
            let dots = zeros(word(ahead + 1) ^ (u64::from(b'.') * EACH));
            if dots == 0 {
                continue;
            }
            let (before, behind) = (zeros(word(ahead) & (0xf0 * EACH)), zeros(word(ahead + 2) & (0xf0 * EACH)));
            if dots & before & behind != 0 {
                // The byte before these is in its place one more than where it is.
                (&raw mut (*room).found).write_volatile(start + ahead as u64);
                return 1;
            }
        }
        0
    }
}
