//! Records of TLS (RFC 8446, 5.1). Of a direction's first record the beginning crosses, where it is a hello: it tells the
//! server's name, version and cipher.

use super::state::Record;
use super::told;
use super::work::{Work, byte, get, set, word};

/// Most bytes of a record that cross.
const MAX_RECORD: u32 = 2048;

/// Bytes of a record's head: its type, a version, its length.
const HEAD: u32 = 5;

/// Of the head, those that show that it is one.
pub const KNOWN: u64 = 3;

/// The type of a record that is part of a handshake.
const HANDSHAKE: u8 = 22;

/// Hellos of a handshake (RFC 8446, 4).
pub const CLIENT_HELLO: u8 = 1;
pub const SERVER_HELLO: u8 = 2;

/// No record begins here.
pub const NONE: u64 = 0;
/// Too few bytes are there to tell.
pub const WAITS: u64 = 1;
/// One begins that is part of a handshake.
pub const HELLO: u64 = 2;
/// Another begins.
pub const OTHER: u64 = 3;

/// Whether a record begins at the cursor.
#[inline(always)]
pub unsafe fn begins(work: *mut Work) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let (start, there) = (word(work, cursor), end - cursor);
        if !matches!(start as u8, 20..=23) {
            return NONE;
        }
        if there >= 2 && (start >> 8) as u8 != 3 || there >= KNOWN && (start >> 16) as u8 > 4 {
            return NONE;
        }
        if there < KNOWN {
            WAITS
        } else if start as u8 == HANDSHAKE {
            HELLO
        } else {
            OTHER
        }
    }
}

/// Whether the hello of a client begins at the cursor that wants to be understood by SSL 2.0, too (RFC 5246, E.2).
#[inline(always)]
pub unsafe fn begins_old(work: *mut Work) -> u64 {
    const LENGTH: u64 = 5;
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let (start, there) = (word(work, cursor), end - cursor);
        let is = |at: u64, byte: u8| there <= at || (start >> (8 * at)) as u8 == byte;
        let is_line = there >= 2 && (start >> 8) as u8 == b'\n';
        if (start as u8) < 0x80 || is_line || !is(2, 1) || !is(3, 3) || there >= LENGTH && (start >> 32) as u8 > 4 {
            NONE
        } else if there < LENGTH {
            WAITS
        } else {
            OTHER
        }
    }
}

/// A record begins at the cursor of which the beginning may cross.
#[inline(always)]
pub unsafe fn begin(record: *mut Record, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let cursor = get!(work.cursor);
        told::text(work, cursor, cursor + KNOWN);
        set!(work.cursor, cursor + KNOWN);
        set!(record.stage, KNOWN as u32);
        set!(record.remaining, 0);
    }
}

/// Takes more of the record, of which there is some: whether no more of it crosses.
#[inline(always)]
pub unsafe fn go_on(record: *mut Record, work: *mut Work, hello: u8) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let stage = get!(record.stage);
        let next = byte(work, cursor);
        if stage < HEAD {
            let length = get!(record.remaining) << 8 | u32::from(next);
            let most = MAX_RECORD - HEAD;
            set!(record.remaining, if stage + 1 == HEAD && length > most { most } else { length });
            set!(record.stage, stage + 1);
            told::text(work, cursor, cursor + 1);
            set!(work.cursor, cursor + 1);
            return stage + 1 == HEAD && length == 0;
        }
        if stage == HEAD {
            if next != hello {
                return true;
            }
            set!(record.stage, HEAD + 1);
        }
        let remaining = u64::from(get!(record.remaining));
        let taken = if remaining < end - cursor { remaining } else { end - cursor };
        told::text(work, cursor, cursor + taken);
        set!(work.cursor, cursor + taken);
        set!(record.remaining, (remaining - taken) as u32);
        remaining == taken
    }
}
