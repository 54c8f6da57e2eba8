//! Records of TLS (RFC 8446, 5.1). The beginning of a direction's hello crosses: it tells the server's name, version and
//! cipher. So do, until the direction's handshake is over, the heads of its records, and what an alert in clear says.

use super::state::{Progress, Record};
use super::told;
use super::work::{Work, byte, get, set, word};

/// Most bytes of a hello's record that cross.
const MAX_RECORD: u32 = 2048;

/// Most records of a direction's handshake.
const MAX_RECORDS: u32 = 16;

/// Bytes of a record's head: its type, a version, its length.
const HEAD: u32 = 5;

/// Of the head, those that show that it is one.
pub const KNOWN: u64 = 3;

/// Types of records (RFC 8446, 5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT_RECORD: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Bytes of an alert in clear (RFC 8446, 6): its level and what it is. An encrypted one is longer.
const ALERT_LENGTH: u32 = 2;

/// The shortest record that has room for the message Finished, encrypted as TLS 1.3 does (RFC 8446, 4.4.4 and 5.2): its
/// head, a hash, a type, and the shortest tag. Shorter ones hold an alert, or EncryptedExtensions alone.
const FINISHED_LENGTH: u32 = 4 + 32 + 1 + 8;

/// Hellos of a handshake (RFC 8446, 4).
pub const CLIENT_HELLO: u8 = 1;
pub const SERVER_HELLO: u8 = 2;

/// No record begins here.
pub const NONE: u64 = 0;
/// Too few bytes are there to tell.
pub const WAITS: u64 = 1;
/// One begins that is part of a handshake.
pub const HELLO: u64 = 2;
/// An alert.
pub const ALERT: u64 = 3;
/// Another begins.
pub const OTHER: u64 = 4;

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
        } else {
            match start as u8 {
                HANDSHAKE => HELLO,
                ALERT_RECORD => ALERT,
                _ => OTHER,
            }
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

/// A direction's handshake begins with the record at the cursor.
#[inline(always)]
pub unsafe fn begin(record: *mut Record, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let cursor = get!(work.cursor);
        told::text(work, cursor, cursor + KNOWN);
        set!(work.cursor, cursor + KNOWN);
        set!(record.kind, u32::from(byte(work, cursor)));
        set!(record.stage, KNOWN as u32);
        set!(record.remaining, 0);
        set!(record.count, 1);
    }
}

/// Takes more of a direction's handshake, of which there is some: whether nothing else of the direction crosses.
#[inline(always)]
pub unsafe fn go_on(record: *mut Record, work: *mut Work, hello: u8) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let stage = get!(record.stage);
        let next = byte(work, cursor);
        if stage < HEAD {
            let is_head = match stage {
                0 => matches!(next, CHANGE_CIPHER_SPEC..=APPLICATION_DATA) && get!(record.count) < MAX_RECORDS,
                1 => next == 3,
                2 => next <= 4,
                _ => true,
            };
            if !is_head {
                return true;
            }
            if stage == 0 {
                set!(record.kind, u32::from(next));
                set!(record.count, get!(record.count) + 1);
            }
            set!(record.remaining, (get!(record.remaining) << 8 | u32::from(next)) & 0xffff);
            set!(record.stage, stage + 1);
            told::text(work, cursor, cursor + 1);
            set!(work.cursor, cursor + 1);
            return stage + 1 == HEAD && begin_body(record);
        }
        if stage == HEAD {
            set!(record.stage, HEAD + 1);
            if get!(record.crossing) > ALERT_LENGTH && next != hello {
                return true;
            }
        }
        let (remaining, crossing) = (u64::from(get!(record.remaining)), u64::from(get!(record.crossing)));
        let most = if crossing != 0 && crossing < remaining { crossing } else { remaining };
        let taken = if most < end - cursor { most } else { end - cursor };
        if crossing != 0 {
            told::text(work, cursor, cursor + taken);
            set!(record.crossing, (crossing - taken) as u32);
        } else {
            told::ciphertext(work, taken);
        }
        set!(work.cursor, cursor + taken);
        set!(record.remaining, (remaining - taken) as u32);
        if remaining == taken {
            set!(record.stage, 0);
        }
        false
    }
}

/// A record's head is complete: whether it is the last that crosses.
#[inline(always)]
unsafe fn begin_body(record: *mut Record) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let (kind, length, progress) = (get!(record.kind) as u8, get!(record.remaining), get!(record.progress));
        set!(record.crossing, 0);
        if length == 0 {
            set!(record.stage, 0);
            return kind != APPLICATION_DATA;
        }
        match kind {
            HANDSHAKE if progress == Progress::NOTHING => {
                set!(record.progress, Progress::HELLO);
                set!(record.crossing, MAX_RECORD - HEAD);
            }
            // Behind ChangeCipherSpec stands the message Finished, or another hello (RFC 8446, D.4).
            HANDSHAKE if progress == Progress::CHANGE_CIPHER_SPEC => set!(record.progress, Progress::BEHIND),
            CHANGE_CIPHER_SPEC if progress != Progress::BEHIND => {
                set!(record.progress, Progress::CHANGE_CIPHER_SPEC);
            }
            ALERT_RECORD if length != ALERT_LENGTH => return true,
            ALERT_RECORD => set!(record.crossing, ALERT_LENGTH),
            APPLICATION_DATA => return progress == Progress::BEHIND || length >= FINISHED_LENGTH,
            _ => {}
        }
        false
    }
}
