//! What the client says.

use super::state::{Dialogue, Line, Mode, Speaker, reached};
use super::work::{Context, HOLD, Work, byte, cut, get, repeat, set, word};
use super::{content, line, scan, told, verb};
use crate::event::{Unseen, WITHHELD_BARE_CR, WITHHELD_CR, WITHHELD_CRLF, WITHHELD_LF, WITHHELD_NUL};

/// Most lines and parts of content that a step tells apart; what is more is counted.
const MAX_PARTS: u64 = 200;

/// Takes the client's bytes.
#[inline(always)]
pub unsafe fn step(dialogue: *mut Dialogue, work: *mut Work, time: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        catch_up(dialogue, work);
        restore(dialogue, work);
        set!(work.time, time);
        set!(work.line_end, 0);
        repeat(MAX_PARTS, part, &mut Context { work, dialogue });
        finish(dialogue, work);
    }
}

/// Takes notice of what the server has said.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "client_catch_up"))]
unsafe extern "C" fn catch_up(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let answered = get!(dialogue.server.answered);
        let code = get!(dialogue.server.code);
        if get!(dialogue.server.losses) != get!(dialogue.client.losses) {
            set!(dialogue.client.losses, get!(dialogue.server.losses));
            let mode = get!(dialogue.client.mode);
            if mode == Mode::COMMANDS || mode == Mode::ANSWERS {
                set!(dialogue.client.mode, Mode::UNCERTAIN);
                set!(dialogue.client.candidate, 0);
            }
        }
        if get!(dialogue.server.challenges) != get!(dialogue.client.challenges) {
            set!(dialogue.client.challenges, get!(dialogue.server.challenges));
            let mode = get!(dialogue.client.mode);
            if mode == Mode::COMMANDS || mode == Mode::UNCERTAIN {
                set!(dialogue.client.mode, Mode::ANSWERS);
            }
        }
        if get!(dialogue.server.go_aheads) != get!(dialogue.client.go_aheads) {
            set!(dialogue.client.go_aheads, get!(dialogue.server.go_aheads));
            go_ahead(dialogue, work);
        }
        let mode = get!(dialogue.client.mode);
        if mode == Mode::CONTENT {
            if reached(answered, get!(dialogue.client.answered).wrapping_add(1)) {
                let ended = get!(dialogue.client.ended) != 0;
                leave(dialogue, work, if ended { Mode::COMMANDS } else { Mode::UNCERTAIN });
            }
        } else if mode == Mode::ASKED {
            if reached(answered, get!(dialogue.client.data_reply)) {
                leave(dialogue, work, Mode::UNCERTAIN);
            }
        } else if mode == Mode::CHUNK {
            if reached(answered, get!(dialogue.client.asked)) && answered != get!(dialogue.client.answered) {
                leave(dialogue, work, Mode::UNCERTAIN);
            }
        } else if mode == Mode::ANSWERS {
            if code != 334 && reached(answered, get!(dialogue.client.asked)) {
                set!(dialogue.client.mode, Mode::COMMANDS);
            }
        } else if mode == Mode::UNCERTAIN {
            let agrees = verb::agrees(get!(dialogue.client.candidate), code);
            if agrees && answered != get!(dialogue.client.answered) && get!(dialogue.client.line) == Line::START {
                set!(dialogue.client.mode, Mode::COMMANDS);
                set!(dialogue.client.sure, 1);
            }
        }
    }
    0
}

/// A 354 was said: what the client says next is content, whoever asked for it.
#[inline(always)]
unsafe fn go_ahead(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let mode = get!(dialogue.client.mode);
        let reply = get!(dialogue.server.go_ahead_reply);
        if mode == Mode::CIPHERTEXT {
            return;
        }
        if get!(dialogue.client.data_done) != 0 && reply == get!(dialogue.client.data_reply) {
            // All of this message came before its go-ahead.
            set!(dialogue.client.data_done, 0);
            return;
        }
        set!(dialogue.client.answered, reply);
        if mode == Mode::CONTENT {
            return;
        }
        if mode != Mode::ASKED {
            // What waits is content.
            told::content(work, u64::from(get!(dialogue.client.held)));
            content::begin(dialogue);
            set!(dialogue.client.disputed, 0);
            set!(dialogue.client.ended, 0);
        }
        set!(dialogue.client.line, Line::START);
        set!(dialogue.client.mode, Mode::CONTENT);
    }
}

/// What was content is over.
#[inline(always)]
unsafe fn leave(dialogue: *mut Dialogue, work: *mut Work, mode: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        told::content(work, u64::from(get!(dialogue.client.held)));
        set!(dialogue.client.held, 0);
        set!(dialogue.client.line, Line::START);
        set!(dialogue.client.remaining, 0);
        set!(dialogue.client.behind_message, 0);
        set!(dialogue.client.candidate, 0);
        set!(dialogue.client.mode, mode);
    }
}

/// Puts what waited before the call's bytes.
#[inline(always)]
unsafe fn restore(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let mode = get!(dialogue.client.mode);
        if mode == Mode::CONTENT || mode == Mode::ASKED {
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

/// Copies as many bytes as may wait.
#[inline(always)]
pub unsafe fn copy_words(to: *mut u64, from: *const u64) {
    let mut at = 0;
    while at < HOLD / size_of::<u64>() {
        // SAFETY: the caller's promise.
        unsafe { to.add(at).write_unaligned(from.add(at).read_unaligned()) };
        at += 1;
    }
}

/// Reads a part: a line, or content up to something in it.
unsafe extern "C" fn part(_: u64, context: *mut Context) -> i64 {
    // SAFETY: `step` passes its own.
    unsafe {
        let (work, dialogue) = ((*context).work, (*context).dialogue);
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        if cursor >= end {
            return 1;
        }
        let mode = get!(dialogue.client.mode);
        if mode == Mode::CONTENT || mode == Mode::ASKED {
            content::read(dialogue, work);
            // What waits is not read again.
            return i64::from(get!(work.line_end) >= end && get!(work.cursor) < end);
        }
        if mode == Mode::CHUNK || mode == Mode::PREAMBLE {
            octets(dialogue, work);
            return 0;
        }
        if mode == Mode::CIPHERTEXT {
            told::ciphertext(work, end - cursor);
            set!(work.cursor, end);
            return 1;
        }
        let first = word(work, cursor);
        if get!(dialogue.client.line) == Line::START {
            if is_tls(first) {
                if end - cursor == 1 {
                    return 1;
                }
                if (first >> 8) as u8 == 3 {
                    set!(dialogue.client.mode, Mode::CIPHERTEXT);
                    handshake(work);
                    return 0;
                }
            }
            if get!(dialogue.client.first) != 0 {
                let waits = preamble(dialogue, work);
                if waits != 0 {
                    return i64::from(waits == WAITS);
                }
            }
        }
        let lf = scan::find(work, cursor, end, b'\n');
        set!(work.line_end, lf);
        if get!(dialogue.client.line) != Line::START {
            go_on(dialogue, work);
        } else if get!(work.line_end) < get!(work.end) {
            whole_line(dialogue, work);
        } else if get!(work.end) - get!(work.cursor) <= HOLD as u64 {
            return 1;
        } else {
            long_line(dialogue, work);
        }
        0
    }
}

/// The first byte of a TLS record, if the second is 3 (RFC 8446, 5.1).
#[inline(always)]
pub fn is_tls(first: u64) -> bool {
    matches!(first as u8, 20..=23)
}

/// Of a handshake that begins the head of the first record crosses.
#[inline(always)]
pub unsafe fn handshake(work: *mut Work) {
    const HEAD: u64 = 2;
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let head = if cursor + HEAD > end { end } else { cursor + HEAD };
        told::text(work, cursor, head);
        set!(work.cursor, head);
    }
}

/// Octets of a chunk, or of a header.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "client_octets"))]
unsafe extern "C" fn octets(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let remaining = get!(dialogue.client.remaining);
        let taken = if remaining < end - cursor { remaining } else { end - cursor };
        let is_chunk = get!(dialogue.client.mode) == Mode::CHUNK;
        if is_chunk {
            told::content(work, taken);
        } else {
            told::withheld(work, taken, 0);
        }
        set!(work.cursor, cursor + taken);
        set!(dialogue.client.remaining, remaining - taken);
        if remaining == taken {
            if is_chunk {
                end_of_chunk(dialogue);
            } else {
                set!(dialogue.client.mode, Mode::COMMANDS);
            }
        }
    }
    0
}

/// A chunk is complete, if its size was right: another command, or the next chunk, follows.
#[inline(always)]
unsafe fn end_of_chunk(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        set!(dialogue.client.mode, Mode::UNCERTAIN);
        set!(dialogue.client.behind_message, 1);
        set!(dialogue.client.candidate, verb::CHUNK as u32);
    }
}

/// The header was taken, and more may follow; it waits for more of it.
const TAKEN: u64 = 1;
const WAITS: u64 = 2;

/// The headers that some proxies have before a session. Their first bytes name them; no more of them crosses.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "client_preamble"))]
unsafe extern "C" fn preamble(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    const PROXY: u64 = u64::from_le_bytes(*b"PROXY \0\0");
    const SIGNATURE: u64 = u64::from_le_bytes(*b"\r\n\r\n\0\r\nQ");
    const SIGNATURE_END: u64 = u64::from_le_bytes(*b"UIT\n\0\0\0\0");
    const HEAD: u64 = 16;
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let (start, there) = (word(work, cursor), end - cursor);
        let begins = |text: u64, length: u64| {
            let there = if there < length { there } else { length };
            let mask = if there < 8 { (1 << (8 * there)) - 1 } else { u64::MAX };
            (start ^ text) & mask == 0
        };
        if begins(PROXY, 6) {
            if there < 6 {
                return WAITS;
            }
            // One line (version 1), which earns no reply.
            told::text(work, cursor, cursor + 6);
            set!(work.cursor, cursor + 6);
            set!(dialogue.client.line, Line::WITHHELD);
            set!(dialogue.client.first, 0);
            return TAKEN;
        }
        if begins(SIGNATURE, 8) && (there <= 2 || (start >> 16) as u8 == b'\r') && there != 0 && start as u8 == b'\r' {
            if there < HEAD {
                return WAITS;
            }
            if word(work, cursor + 8) & 0xffff_ffff == SIGNATURE_END {
                let length = u64::from(byte(work, cursor + 14)) << 8 | u64::from(byte(work, cursor + 15));
                told::text(work, cursor, cursor + HEAD);
                set!(work.cursor, cursor + HEAD);
                if length != 0 {
                    set!(dialogue.client.remaining, length);
                    set!(dialogue.client.mode, Mode::PREAMBLE);
                }
                set!(dialogue.client.first, 0);
                return TAKEN;
            }
        }
        let is_socks_5 = start as u8 == 5;
        let is_socks_4 = start as u8 == 4;
        if is_socks_4 && there == 1 {
            return WAITS;
        }
        if is_socks_5 || is_socks_4 && (start >> 8) as u8 == 1 {
            let named = cursor + if is_socks_4 { 2 } else { 1 };
            told::text(work, cursor, named);
            told::uncaptured(work, Unseen::Uncertain, end - named, 0);
            set!(work.cursor, end);
            set!(dialogue.client.mode, Mode::UNCERTAIN);
            set!(dialogue.client.sure, 0);
            set!(dialogue.client.first, 0);
            return TAKEN;
        }
        0
    }
}

/// A line goes on that was too long to wait.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "client_go_on"))]
unsafe extern "C" fn go_on(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end, lf) = (get!(work.cursor), get!(work.end), get!(work.line_end));
        let ends = lf < end;
        let to = if ends { lf + 1 } else { end };
        let line = get!(dialogue.client.line);
        if line == Line::CROSSES {
            cross(dialogue, work, cursor, to);
        } else if line == Line::WITHHELD {
            withhold(work, cursor, to, ends);
        } else {
            told::uncaptured(work, Unseen::Uncertain, to - cursor, u64::from(ends));
        }
        set!(work.cursor, to);
        if ends {
            set!(dialogue.client.line, Line::START);
        }
    }
    0
}

/// A part of a line crosses, as far as lines do.
#[inline(always)]
unsafe fn cross(dialogue: *mut Dialogue, work: *mut Work, from: u64, to: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let crossed = u64::from(get!(dialogue.client.crossed));
        let room = if crossed < line::MAX_LINE { line::MAX_LINE - crossed } else { 0 };
        let take = if to - from > room { room } else { to - from };
        told::text(work, from, from + take);
        set!(dialogue.client.crossed, (crossed + take) as u32);
        if from + take < to {
            let ends = byte(work, to - 1) == b'\n';
            withhold(work, from + take, to, ends);
            hide(dialogue);
        }
    }
}

/// A line, or the rest of one, does not cross: its length does, and how it ends.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "client_withhold"))]
pub unsafe extern "C" fn withhold(work: *mut Work, from: u64, to: u64, ends: bool) -> u64 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let mut flags = 0;
        let mut text = to;
        if ends {
            let crlf = to - from >= 2 && byte(work, to - 2) == b'\r';
            flags |= if crlf { WITHHELD_CRLF } else { WITHHELD_LF };
            text = if crlf { to - 2 } else { to - 1 };
        } else if to > from && byte(work, to - 1) == b'\r' {
            flags |= WITHHELD_CR;
            text = to - 1;
        }
        if scan::find(work, from, text, b'\0') < text {
            flags |= WITHHELD_NUL;
        }
        if scan::find(work, from, text, b'\r') < text {
            flags |= WITHHELD_BARE_CR;
        }
        told::withheld(work, to - from, flags);
        0
    }
}

/// The reply to the last line may repeat what was withheld.
#[inline(always)]
unsafe fn hide(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        set!(dialogue.client.hide_until, get!(dialogue.client.asked));
        set!(dialogue.client.wary, 1);
    }
}

/// A whole line, from the cursor to its LF.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "client_whole_line"))]
unsafe extern "C" fn whole_line(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, lf) = (get!(work.cursor), get!(work.line_end));
        let crlf = lf > cursor && byte(work, lf - 1) == b'\r';
        let text_end = if crlf { lf - 1 } else { lf };
        line::classify(work, cursor, text_end, u64::from(get!(dialogue.client.first)));
        set!(dialogue.client.first, 0);
        set!(dialogue.client.crossed, 0);
        let mode = get!(dialogue.client.mode);
        if mode == Mode::UNCERTAIN {
            uncertain_line(dialogue, work, cursor, lf);
        } else if mode == Mode::ANSWERS {
            asks(dialogue);
            withhold(work, cursor, lf + 1, true);
            hide(dialogue);
        } else {
            asks(dialogue);
            let cross_to = cursor + get!(work.cross);
            if cross_to == text_end {
                cross(dialogue, work, cursor, lf + 1);
            } else {
                cross(dialogue, work, cursor, cross_to);
                withhold(work, cross_to, lf + 1, true);
                hide(dialogue);
            }
            follow(dialogue, work);
        }
        set!(work.cursor, lf + 1);
    }
    0
}

/// A line earns a reply.
#[inline(always)]
unsafe fn asks(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe { set!(dialogue.client.asked, get!(dialogue.client.asked).wrapping_add(1)) }
}

/// A whole line where it is not certain that lines are commands: it crosses in the full form of one.
#[inline(always)]
unsafe fn uncertain_line(dialogue: *mut Dialogue, work: *mut Work, from: u64, lf: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let kind = verb::kind(get!(work.verb));
        let is_dot = lf - from <= 2 && byte(work, from) == b'.' && (lf - from == 1 || byte(work, from + 1) == b'\r');
        let may_be_chunk = kind != verb::BDAT || get!(dialogue.client.behind_message) != 0;
        let crosses = is_dot || get!(work.full) != 0 && may_be_chunk && lf - from < HOLD as u64;
        if !crosses {
            told::uncaptured(work, Unseen::Uncertain, lf + 1 - from, 1);
            set!(dialogue.client.candidate, 0);
            set!(dialogue.client.behind_message, 0);
            set!(dialogue.client.sure, 0);
            return;
        }
        told::text(work, from, lf + 1);
        asks(dialogue);
        set!(dialogue.client.candidate, if is_dot { verb::END as u32 } else { kind as u32 });
        set!(dialogue.client.answered, get!(dialogue.server.answered));
        if !is_dot {
            follow(dialogue, work);
        }
    }
}

/// What a command means for what follows it.
#[inline(always)]
unsafe fn follow(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let kind = verb::kind(get!(work.verb));
        if kind == verb::DATA {
            set!(dialogue.client.mode, Mode::ASKED);
            set!(dialogue.client.data_reply, get!(dialogue.client.asked));
            set!(dialogue.client.data_done, 0);
            set!(dialogue.client.disputed, 0);
            set!(dialogue.client.ended, 0);
            content::begin(dialogue);
        } else if kind == verb::BDAT {
            set!(dialogue.client.answered, get!(dialogue.server.answered));
            if get!(work.full) == 0 {
                set!(dialogue.client.mode, Mode::UNCERTAIN);
                set!(dialogue.client.candidate, 0);
                set!(dialogue.client.behind_message, 0);
            } else if get!(work.number) == 0 {
                end_of_chunk(dialogue);
            } else {
                set!(dialogue.client.remaining, get!(work.number));
                set!(dialogue.client.mode, Mode::CHUNK);
            }
        } else if kind == verb::AUTH {
            set!(dialogue.client.mode, Mode::ANSWERS);
            hide(dialogue);
        } else if kind == verb::TURN {
            set!(dialogue.client.turn_reply, get!(dialogue.client.asked));
        }
    }
}

/// A line that is too long to wait, and has not ended: the form of its beginning decides.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "client_long_line"))]
unsafe extern "C" fn long_line(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let mode = get!(dialogue.client.mode);
        set!(dialogue.client.crossed, 0);
        if mode == Mode::UNCERTAIN {
            told::uncaptured(work, Unseen::Uncertain, end - cursor, 0);
            set!(dialogue.client.line, Line::UNKNOWN);
            set!(dialogue.client.candidate, 0);
            set!(dialogue.client.behind_message, 0);
            set!(dialogue.client.sure, 0);
            set!(work.cursor, end);
            return 0;
        }
        line::classify(work, cursor, end, u64::from(get!(dialogue.client.first)));
        set!(dialogue.client.first, 0);
        asks(dialogue);
        let kind = verb::kind(get!(work.verb));
        let goes_on = mode != Mode::ANSWERS
            && (kind == verb::MAIL || kind == verb::RCPT || kind == verb::ATTRIBUTES)
            && get!(work.cross) == end - cursor;
        if goes_on {
            set!(dialogue.client.line, Line::CROSSES);
            cross(dialogue, work, cursor, end);
        } else {
            // A mechanism is one where another byte follows it.
            let names = kind == verb::AUTH && get!(work.cross) < end - cursor;
            let length = if mode == Mode::ANSWERS {
                0
            } else if names {
                get!(work.cross)
            } else {
                verb::length(get!(work.verb))
            };
            told::text(work, cursor, cursor + length);
            withhold(work, cursor + length, end, false);
            set!(dialogue.client.line, Line::WITHHELD);
            hide(dialogue);
            if mode != Mode::ANSWERS {
                set!(work.full, 0);
                follow(dialogue, work);
            }
        }
        set!(work.cursor, end);
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
                // It has more in it that may be its end than a step looks at.
                told::content(work, end - cursor);
                content::interrupt(dialogue);
            } else {
                content::keep(dialogue, work);
            }
            return 0;
        }
        if cursor >= end {
            return 0;
        }
        if end - cursor > HOLD as u64 || get!(dialogue.client.line) != Line::START {
            // More lines than a step looks at.
            let lines = scan::lines(work, cursor, end);
            told::uncaptured(work, Unseen::Uncertain, end - cursor, lines);
            set!(dialogue.client.mode, Mode::UNCERTAIN);
            set!(dialogue.client.line, if byte(work, end - 1) == b'\n' { Line::START } else { Line::UNKNOWN });
            set!(dialogue.client.asked, get!(dialogue.client.asked).wrapping_add(lines as u32));
            set!(dialogue.client.candidate, 0);
            set!(dialogue.client.behind_message, 0);
            hide(dialogue);
            return 0;
        }
        set!(dialogue.client.held, (end - cursor) as u32);
        let begun = get!(work.begun);
        set!(dialogue.client.since, if begun != 0 { begun } else { get!(work.time) });
        set!(work.begun, 0);
        let from = cut(work, end - HOLD as u64, super::work::BYTES as u64) as usize;
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
        if mode == Mode::CIPHERTEXT {
            return;
        }
        if mode == Mode::CONTENT || mode == Mode::ASKED {
            told::content(work, u64::from(get!(dialogue.client.held)));
            content::interrupt(dialogue);
            set!(dialogue.client.ended, 0);
            return;
        }
        let remaining = get!(dialogue.client.remaining);
        if mode == Mode::CHUNK && hole != 0 && hole <= remaining {
            set!(dialogue.client.remaining, remaining - hole);
            if hole == remaining {
                end_of_chunk(dialogue);
            }
            return;
        }
        told::uncaptured(work, Unseen::Uncertain, u64::from(get!(dialogue.client.held)), 0);
        set!(dialogue.client.held, 0);
        set!(dialogue.client.mode, Mode::UNCERTAIN);
        set!(dialogue.client.line, Line::UNKNOWN);
        set!(dialogue.client.candidate, 0);
        set!(dialogue.client.behind_message, 0);
        set!(dialogue.client.sure, 0);
        set!(dialogue.client.first, 0);
    }
}

/// Bytes of a call of the client could not be read, behind a hole of so many.
#[inline(always)]
pub unsafe fn miss(dialogue: *mut Dialogue, work: *mut Work, hole: u64, length: u64, cause: Unseen) {
    // SAFETY: the caller's promise.
    unsafe {
        catch_up(dialogue, work);
        let mode = get!(dialogue.client.mode);
        let is_content = mode == Mode::CONTENT || mode == Mode::ASKED || mode == Mode::CHUNK;
        lose(dialogue, work, hole + length);
        if is_content {
            told::content(work, length);
        } else if mode == Mode::CIPHERTEXT {
            told::ciphertext(work, length);
        } else {
            told::uncaptured(work, cause, length, 0);
        }
    }
}

/// The role that speaks when roles were exchanged.
#[inline(always)]
pub unsafe fn exchange(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        let reversed = get!(dialogue.reversed) == 0;
        set!(dialogue.reversed, u32::from(reversed));
        set!(dialogue.client.turn_reply, 0);
        set!(dialogue.client.mode, Mode::COMMANDS);
        set!(dialogue.client.line, Line::START);
        set!(dialogue.client.held, 0);
        set!(dialogue.client.hide_until, get!(dialogue.server.answered));
        set!(dialogue.client.asked, get!(dialogue.server.answered).wrapping_add(1));
        set!(dialogue.client.sure, 1);
        let _ = Speaker::Client;
    }
}
