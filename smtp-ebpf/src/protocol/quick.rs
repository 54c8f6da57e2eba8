//! Calls of one whole line, which nearly all are: decided at a glance. What is not is left to the step, which would come
//! to the same.

use super::state::{Dialogue, Line, Mode};
use super::work::{BYTES, HOLD, Work, cut, get, load, set, word};
use super::{Call, Speaker, classes, command, content, reply, scan, server, verb};

/// The longest call that is looked at.
const LONGEST: u64 = 256;

const WORD: u64 = size_of::<u64>() as u64;

/// The shortest line of either side: a verb or a code, and its end.
const SHORTEST: u64 = 5;

/// Takes a call's bytes, which stand in the working memory from [`HOLD`] on, if they are one whole line that crosses as it
/// is; whether they are. If not, nothing is changed.
///
/// # Safety
/// As of [`step`](super::step).
#[inline(always)]
pub unsafe fn pass(dialogue: *mut Dialogue, work: *mut Work, call: &Call) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let length = u64::from(call.length);
        if !(SHORTEST..=LONGEST).contains(&length)
            || get!(dialogue.reversed) != 0
            || !call.positions
            || !Dialogue::is_next(dialogue, call)
        {
            return false;
        }
        let is_taken = match call.speaker {
            Speaker::Client => command(dialogue, work, length) != 0,
            Speaker::Server => {
                set!(work.behind, u64::from(call.behind));
                line_of_reply(dialogue, work, length) != 0
            }
        };
        if is_taken {
            Dialogue::go_on(dialogue, call);
        }
        is_taken
    }
}

/// Whether the bytes are one line.
#[inline(always)]
unsafe fn is_one_line(work: *mut Work, length: u64) -> bool {
    // SAFETY: the caller's promise; the places are within the longest call.
    unsafe {
        let bytes = (&raw const (*work).bytes).cast::<u8>().add(HOLD);
        set!(work.found, length);
        let mut at = 0;
        while at < LONGEST {
            let hits = scan::zeros(load(bytes.add(at as usize)) ^ scan::LFS);
            if hits != 0 {
                set!(work.found, at + scan::first(hits));
                break;
            }
            at += WORD;
            if at >= length {
                break;
            }
        }
        get!(work.found) + 1 == length
    }
}

/// A command without an argument that matters, or with one in the form that everybody writes.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "quick_command"))]
unsafe extern "C" fn command(dialogue: *mut Dialogue, work: *mut Work, length: u64) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let mode = get!(dialogue.client.mode);
        // Behind a message it is certain again what the client says when that was answered.
        let is_settled = mode == Mode::UNCERTAIN && get!(dialogue.client.sure) != 0 && reply::agrees(dialogue);
        let is_certain = (mode == Mode::COMMANDS || is_settled)
            && get!(dialogue.client.line) == Line::START
            && get!(dialogue.client.held) == 0
            && get!(dialogue.client.first) == 0
            && get!(dialogue.client.data_done) == 0
            && get!(dialogue.server.doubts) == get!(dialogue.client.doubts)
            && get!(dialogue.server.losses) == get!(dialogue.client.losses)
            && get!(dialogue.server.challenges) == get!(dialogue.client.challenges)
            && get!(dialogue.server.go_aheads) == get!(dialogue.client.go_aheads);
        if !is_certain || !is_one_line(work, length) {
            return 0;
        }
        let end = HOLD as u64 + length - 1;
        let end = if word(work, end - 1) as u8 == b'\r' { end - 1 } else { end };
        let kind = verb::quick(word(work, HOLD as u64) as u32);
        let has_form = match kind {
            verb::MAIL => has_path(work, *b" from:<\0", 7, end),
            verb::RCPT => has_path(work, *b" to:<\0\0\0", 5, end),
            verb::UNKNOWN => false,
            _ => end == HOLD as u64 + verb::SHORT,
        };
        if !has_form {
            return 0;
        }
        set!(dialogue.client.mode, Mode::COMMANDS);
        set!(dialogue.client.crossed, 0);
        set!(dialogue.client.cr, 0);
        command::asks(dialogue);
        command::follow_mail(dialogue, kind);
        if kind == verb::DATA {
            set!(work.cursor, HOLD as u64 + length);
            set!(work.end, HOLD as u64 + length);
            content::keep(dialogue, work);
        }
    }
    1
}

/// Whether behind the verb stand this keyword, a path that needs no quotes, and parameters, up to the end.
///
/// # Safety
/// As of [`pass`].
#[inline(always)]
unsafe fn has_path(work: *mut Work, keyword: [u8; 8], length: u64, end: u64) -> bool {
    // Case does not matter: the bit that tells it is set where the keyword has a letter, which is above all else it has.
    let keyword = u64::from_le_bytes(keyword);
    let cases = keyword >> 1 & scan::CASES;
    let mask = (1 << (8 * length)) - 1;
    // SAFETY: the caller's promise.
    unsafe {
        let path = HOLD as u64 + verb::SHORT + length;
        let start = word(work, HOLD as u64 + verb::SHORT);
        if (start | cases) & mask != keyword || word(work, path) as u8 == b'"' {
            return false;
        }
        let bytes = (&raw const (*work).bytes).cast::<u8>().add(cut(work, path, BYTES as u64) as usize);
        set!(work.found, 0);
        let mut at = 0;
        while at < LONGEST {
            let others = classes::not_of_path(load(bytes.add(at as usize)));
            if others != 0 {
                set!(work.found, path + at + scan::first(others));
                break;
            }
            at += WORD;
        }
        let close = get!(work.found);
        if close == 0 || close >= end || word(work, close) as u8 != b'>' {
            return false;
        }
        close + 1 == end || scan::words(work, close + 1, end, scan::words::BEHIND) == end
    }
}

/// A reply of one line.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "quick_reply"))]
unsafe extern "C" fn line_of_reply(dialogue: *mut Dialogue, work: *mut Work, length: u64) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let start = word(work, HOLD as u64);
        let code = server::code(start);
        let is_reply = code != 0
            && (start >> 24) as u8 == b' '
            && get!(dialogue.server.line) == Line::START
            && get!(dialogue.server.held) == 0
            && get!(dialogue.server.octets) == 0
            && get!(dialogue.server.ciphertext) == 0
            && get!(dialogue.server.record.count) == 0
            && get!(dialogue.client.mode) != Mode::FOREIGN
            && get!(dialogue.client.turn_reply) == 0;
        if !is_reply || !is_one_line(work, length) || server::is_hidden(dialogue, work, code) {
            return 0;
        }
        server::notice_go_ahead(dialogue, work, code);
        set!(dialogue.server.spoken, 1);
        set!(dialogue.server.cr, 0);
        set!(dialogue.server.line_code, code);
        set!(dialogue.server.line_is_last, 1);
        set!(dialogue.server.crossed, length as u32);
        server::complete(dialogue, work);
    }
    1
}
