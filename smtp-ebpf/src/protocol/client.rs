//! What the client says.

use super::state::{Dialogue, Line, Mode};
use super::work::{BYTES, Context, HOLD, Work, byte, copy_words, cut, get, repeat, set, stops};
use super::{command, command_line, content, reply, scan, tls, told};
use crate::event::CaptureMiss;

/// Most parts of a step: each takes bytes, or tells what the next one takes.
const MAX_PARTS: u64 = 2 * BYTES as u64;

/// Takes the client's bytes.
#[inline(always)]
pub unsafe fn step(dialogue: *mut Dialogue, work: *mut Work, time: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        if get!(work.turned) == 0 {
            reply::catch_up(dialogue, work);
            restore(dialogue, work);
        }
        set!(work.time, time);
        set!(work.line_end, 0);
        repeat(MAX_PARTS, part, &mut Context { work, dialogue });
        finish(dialogue, work);
    }
}

/// Puts what waited before the call's bytes.
#[inline(always)]
unsafe fn restore(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let mode = get!(dialogue.client.mode);
        if mode == Mode::CONTENT || mode == Mode::ASKED {
            set!(dialogue.client.ended, 0);
            content::restore(dialogue, work);
            return;
        }
        let held = u64::from(get!(dialogue.client.held));
        if held != 0 {
            let hold = (&raw const (*dialogue).client.hold).cast::<u64>();
            copy_words((&raw mut (*work).bytes).cast(), hold);
            set!(work.cursor, HOLD as u64 - if held > HOLD as u64 { HOLD as u64 } else { held });
            set!(work.begun, get!(dialogue.client.since));
            set!(dialogue.client.held, 0);
        }
    }
}

/// Reads a part: a line, or content up to something in it.
unsafe extern "C" fn part(_: u64, context: *mut Context) -> i64 {
    // SAFETY: `step` passes its own.
    unsafe {
        let (work, dialogue) = ((*context).work, (*context).dialogue);
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        if cursor >= end || told::is_full(work) {
            return 1;
        }
        let line = get!(dialogue.client.line);
        if line != Line::START {
            // A line of which it is not known what it is is told in parts that do not depend on the cuts.
            if line == Line::UNKNOWN && end - cursor < HOLD as u64 && scan::find(work, cursor, end, b'\n') == end {
                return 1;
            }
            command_line::go_on(dialogue, work);
            return 0;
        }
        let mode = get!(dialogue.client.mode);
        if mode == Mode::CONTENT || mode == Mode::ASKED {
            return stops(work, content::read(dialogue, work) == content::DONE);
        }
        if mode == Mode::COMMANDS || mode == Mode::ANSWERS || mode == Mode::UNCERTAIN {
            return stops(work, command_line::begin_line(dialogue, work) == command_line::WAITS);
        }
        octets(dialogue, work);
        0
    }
}

/// Octets of a chunk or of a header, of TLS, or of another protocol.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "client_octets"))]
unsafe extern "C" fn octets(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let mode = get!(dialogue.client.mode);
        if mode == Mode::HANDSHAKE {
            if tls::go_on(&raw mut (*dialogue).client.record, work, tls::CLIENT_HELLO) {
                set!(dialogue.client.mode, Mode::CIPHERTEXT);
            }
            return 0;
        }
        if mode == Mode::CIPHERTEXT {
            told::ciphertext(work, end - cursor);
            set!(work.cursor, end);
            return 0;
        }
        if mode == Mode::FOREIGN {
            told::uncaptured(work, CaptureMiss::Uncertain, end - cursor, 0);
            set!(work.cursor, end);
            return 0;
        }
        let remaining = get!(dialogue.client.remaining);
        let taken = if remaining < end - cursor { remaining } else { end - cursor };
        set!(work.cursor, cursor + taken);
        set!(dialogue.client.remaining, remaining - taken);
        if mode == Mode::CHUNK {
            told::content(work, taken);
            set!(dialogue.client.said, 1);
            command::unasked(dialogue, get!(dialogue.client.asked));
            if remaining == taken {
                command::end_of_chunk(dialogue);
            }
        } else {
            told::withheld(work, taken, 0);
            if remaining == taken {
                set!(dialogue.client.mode, Mode::COMMANDS);
            }
        }
    }
    0
}

/// What is left at the end of a step waits, or is counted.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "client_finish"))]
unsafe extern "C" fn finish(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let mode = get!(dialogue.client.mode);
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        if mode == Mode::CONTENT || mode == Mode::ASKED {
            if end > cursor && end - cursor > content::MAX_HELD {
                told::content(work, end - cursor);
                content::interrupt(dialogue);
                set!(dialogue.client.ended, 0);
            } else {
                content::keep(dialogue, work);
            }
            return 0;
        }
        if cursor >= end {
            return 0;
        }
        let line = get!(dialogue.client.line);
        if end - cursor > HOLD as u64 || line != Line::START && line != Line::UNKNOWN {
            // More lines than a record has room for.
            let lines = scan::lines(work, cursor, end);
            told::uncaptured(work, CaptureMiss::Uncertain, end - cursor, lines);
            set!(dialogue.client.mode, Mode::UNCERTAIN);
            set!(dialogue.client.line, if byte(work, end - 1) == b'\n' { Line::START } else { Line::UNKNOWN });
            command::doubt(dialogue);
            command::expect(dialogue, lines as u32);
            command::hide(dialogue);
            return 0;
        }
        set!(dialogue.client.held, (end - cursor) as u32);
        let begun = get!(work.begun);
        set!(dialogue.client.since, if begun != 0 { begun } else { get!(work.time) });
        set!(work.begun, 0);
        let from = cut(work, end - HOLD as u64, BYTES as u64) as usize;
        let bytes = (&raw const (*work).bytes).cast::<u8>().add(from).cast::<u64>();
        copy_words((&raw mut (*dialogue).client.hold).cast(), bytes);
    }
    0
}

/// Bytes of the client went unseen: so many, where that is known.
#[inline(always)]
pub unsafe fn lose(dialogue: *mut Dialogue, work: *mut Work, hole: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let mode = get!(dialogue.client.mode);
        set!(dialogue.client.first, 0);
        if mode == Mode::CIPHERTEXT || mode == Mode::FOREIGN {
            return;
        }
        if mode == Mode::HANDSHAKE {
            set!(dialogue.client.mode, Mode::CIPHERTEXT);
            return;
        }
        if mode == Mode::CONTENT || mode == Mode::ASKED {
            told::content(work, u64::from(get!(dialogue.client.held)));
            content::interrupt(dialogue);
            set!(dialogue.client.ended, 0);
            // Of a long line with DATA, the end may have gone, too.
            set!(dialogue.client.line, Line::START);
            if mode == Mode::ASKED {
                command::unasked(dialogue, get!(dialogue.client.data_reply));
            }
            return;
        }
        let remaining = get!(dialogue.client.remaining);
        if mode == Mode::CHUNK && hole != 0 && hole <= remaining {
            set!(dialogue.client.remaining, remaining - hole);
            set!(dialogue.client.said, 1);
            command::unasked(dialogue, get!(dialogue.client.asked));
            if hole == remaining {
                command::end_of_chunk(dialogue);
            }
            return;
        }
        told::uncaptured(work, CaptureMiss::Uncertain, u64::from(get!(dialogue.client.held)), 0);
        set!(dialogue.client.held, 0);
        set!(dialogue.client.mode, Mode::UNCERTAIN);
        set!(dialogue.client.line, Line::UNKNOWN);
        command::doubt(dialogue);
        set!(dialogue.client.counted, 0);
    }
}

/// Bytes of a call of the client could not be read, behind a hole of so many.
#[inline(always)]
pub unsafe fn miss(dialogue: *mut Dialogue, work: *mut Work, hole: u64, length: u64, cause: CaptureMiss) {
    // SAFETY: the caller's promise.
    unsafe {
        reply::catch_up(dialogue, work);
        let mode = get!(dialogue.client.mode);
        let is_chunk = mode == Mode::CHUNK && hole + length <= get!(dialogue.client.remaining);
        lose(dialogue, work, hole + length);
        if mode == Mode::CONTENT || mode == Mode::ASKED || is_chunk {
            told::content(work, length);
        } else if mode == Mode::CIPHERTEXT || mode == Mode::HANDSHAKE {
            told::ciphertext(work, length);
        } else {
            told::uncaptured(work, cause, length, 0);
        }
    }
}
