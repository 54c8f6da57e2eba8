//! What the server says.

use super::state::{Dialogue, Line, Mode, reached};
use super::work::{Context, HOLD, Work, byte, cut, get, repeat, set, word};
use super::{client, line, scan, told, verb};
use crate::event::Unseen;

/// Most lines that a step tells apart.
const MAX_LINES: u64 = 200;

/// The longest beginning of a reply's line that decides how it crosses: code, enhanced code (RFC 3463) and what is behind.
const MAX_HEAD: u64 = 16;

/// Takes the server's bytes. `behind`: the client has sent more than the filter was told of.
#[inline(always)]
pub unsafe fn step(dialogue: *mut Dialogue, work: *mut Work, time: u64, behind: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        let held = u64::from(get!(dialogue.server.held));
        if held != 0 {
            let hold = (&raw const (*dialogue).server.hold).cast::<u64>();
            client::copy_words((&raw mut (*work).bytes).cast(), hold);
            set!(work.cursor, HOLD as u64 - if held > HOLD as u64 { HOLD as u64 } else { held });
            set!(work.begun, get!(dialogue.server.since));
            set!(dialogue.server.held, 0);
        }
        set!(work.time, time);
        set!(work.behind, u64::from(behind));
        repeat(MAX_LINES, part, &mut Context { work, dialogue });
        finish(dialogue, work);
    }
}

/// Reads a line, or a part of one.
unsafe extern "C" fn part(_: u64, context: *mut Context) -> i64 {
    // SAFETY: `step` passes its own.
    unsafe {
        let (work, dialogue) = ((*context).work, (*context).dialogue);
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        if cursor >= end {
            return 1;
        }
        if get!(dialogue.server.ciphertext) != 0 {
            told::ciphertext(work, end - cursor);
            set!(work.cursor, end);
            return 1;
        }
        if get!(dialogue.server.line) == Line::START {
            let first = word(work, cursor);
            if client::is_tls(first) {
                if end - cursor == 1 {
                    return 1;
                }
                if (first >> 8) as u8 == 3 {
                    set!(dialogue.server.ciphertext, 1);
                    client::handshake(work);
                    return 0;
                }
            }
        }
        let lf = scan::find(work, cursor, end, b'\n');
        set!(work.line_end, lf);
        if get!(dialogue.server.line) == Line::START {
            if get!(work.line_end) >= get!(work.end) && get!(work.end) - get!(work.cursor) < MAX_HEAD {
                return 1;
            }
            begin_line(dialogue, work);
        }
        rest_of_line(dialogue, work);
        0
    }
}

/// The beginning of a line, which decides how the line crosses.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "server_begin_line"))]
unsafe extern "C" fn begin_line(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, lf) = (get!(work.cursor), get!(work.line_end));
        let start = word(work, cursor);
        set!(dialogue.server.crossed, 0);
        set!(dialogue.server.line_is_last, 0);
        set!(dialogue.server.line_code, 0);
        let code = code(start);
        let separator = (start >> 24) as u8;
        let is_reply = code != 0 && lf - cursor >= 3 && matches!(separator, b' ' | b'-' | b'\r' | b'\n' | b'\t');
        let is_first = get!(dialogue.server.spoken) == 0;
        set!(dialogue.server.spoken, 1);
        if !is_reply {
            let banner = if is_first { banner(start) } else { 0 };
            told::text(work, cursor, cursor + banner);
            set!(work.cursor, cursor + banner);
            set!(dialogue.server.line, Line::WITHHELD);
            return 0;
        }
        set!(dialogue.server.line_code, code);
        let is_last = separator != b'-';
        set!(dialogue.server.line_is_last, u32::from(is_last));
        if code == 354 && is_last {
            // The client may go on as soon as it has read so far.
            go_ahead(dialogue);
        }
        if !is_hidden(dialogue, work, code) {
            set!(dialogue.server.line, Line::CROSSES);
            return 0;
        }
        // The code, what parts it from the text, and the enhanced code.
        let text = cursor + if lf - cursor > 3 && matches!(separator, b' ' | b'-' | b'\t') { 4 } else { 3 };
        let head = text + enhanced(work, text, lf);
        told::text(work, cursor, head);
        set!(work.cursor, head);
        set!(dialogue.server.line, Line::WITHHELD);
    }
    0
}

/// The number that three digits are; zero where they are none.
#[inline(always)]
fn code(start: u64) -> u32 {
    let digit = |at: u32| ((start >> (8 * at)) as u8).wrapping_sub(b'0');
    let (hundreds, tens, ones) = (digit(0), digit(1), digit(2));
    if hundreds > 9 || tens > 9 || ones > 9 {
        return 0;
    }
    u32::from(hundreds) * 100 + u32::from(tens) * 10 + u32::from(ones)
}

/// The length of the first word of another protocol's banner.
#[inline(always)]
fn banner(start: u64) -> u64 {
    let is = |text: &[u8; 4]| start as u32 == u32::from_le_bytes(*text);
    if is(b"SSH-") || is(b"* OK") {
        4
    } else if is(b"+OK ") {
        3
    } else {
        0
    }
}

/// The text of a reply stays where it may repeat what the client's withheld lines say.
#[inline(always)]
unsafe fn is_hidden(dialogue: *mut Dialogue, work: *mut Work, code: u32) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let answered = get!(dialogue.server.answered);
        let is_awaited = !reached(answered, get!(dialogue.client.hide_until));
        let is_refusal = matches!(code, 500..=509 | 530..=539);
        let repeats = is_refusal && get!(dialogue.client.wary) != 0;
        let agrees = verb::agrees(get!(dialogue.client.candidate), code);
        let unknown = get!(dialogue.client.sure) == 0 && !agrees;
        is_awaited || repeats || unknown || code == 334 || get!(work.behind) != 0
    }
}

/// The length of an enhanced code, and of the blank behind it, if one stands there: class, subject and detail.
#[inline(always)]
unsafe fn enhanced(work: *mut Work, from: u64, to: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let digits = |at: u64| {
            let digit = |at: u64| byte(work, at).is_ascii_digit();
            match (digit(at), digit(at + 1), digit(at + 2)) {
                (true, true, true) => 3,
                (true, true, _) => 2,
                (true, ..) => 1,
                _ => 0,
            }
        };
        let class = matches!(byte(work, from), b'2' | b'4' | b'5') && byte(work, from + 1) == b'.';
        let subject = digits(from + 2);
        let detail = from + 2 + subject + 1;
        let length = digits(detail);
        let end = detail + length;
        let is_one = class && subject != 0 && byte(work, detail - 1) == b'.' && length != 0 && end <= to;
        match byte(work, end) {
            b' ' if is_one && end < to => end + 1 - from,
            b'\r' | b'\n' if is_one => end - from,
            _ => 0,
        }
    }
}

/// The rest of a line, as far as it is there.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "server_rest_of_line"))]
unsafe extern "C" fn rest_of_line(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end, lf) = (get!(work.cursor), get!(work.end), get!(work.line_end));
        let ends = lf < end;
        let to = if ends { lf + 1 } else { end };
        let line = get!(dialogue.server.line);
        if line == Line::CROSSES {
            let crossed = u64::from(get!(dialogue.server.crossed));
            let room = if crossed < line::MAX_LINE { line::MAX_LINE - crossed } else { 0 };
            let take = if to - cursor > room { room } else { to - cursor };
            told::text(work, cursor, cursor + take);
            set!(dialogue.server.crossed, (crossed + take) as u32);
            if cursor + take < to {
                client::withhold(work, cursor + take, to, ends);
            }
        } else if line == Line::WITHHELD {
            if to > cursor {
                client::withhold(work, cursor, to, ends);
            }
        } else {
            told::uncaptured(work, Unseen::Uncertain, to - cursor, u64::from(ends));
        }
        set!(work.cursor, to);
        if ends {
            set!(dialogue.server.line, Line::START);
            if line != Line::UNKNOWN && get!(dialogue.server.line_is_last) != 0 {
                complete(dialogue, work);
            }
        }
    }
    0
}

/// A go-ahead was said: it answers DATA, where that was asked.
#[inline(always)]
unsafe fn go_ahead(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        let asked = get!(dialogue.client.mode) == Mode::ASKED || get!(dialogue.client.data_done) != 0;
        let reply =
            if asked { get!(dialogue.client.data_reply) } else { get!(dialogue.server.answered).wrapping_add(1) };
        set!(dialogue.server.go_ahead_reply, reply);
        set!(dialogue.server.go_aheads, get!(dialogue.server.go_aheads).wrapping_add(1));
    }
}

/// A reply is complete.
#[inline(always)]
unsafe fn complete(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let code = get!(dialogue.server.line_code);
        let (answered, asked) = (get!(dialogue.server.answered), get!(dialogue.client.asked));
        let next = answered.wrapping_add(1);
        // What nobody asked for answers nothing, unless the question is not known yet.
        let counts = get!(work.behind) != 0 || reached(asked, next);
        let reply = if code == 354 {
            get!(dialogue.server.go_ahead_reply)
        } else if counts {
            next
        } else {
            answered
        };
        set!(dialogue.server.code, code);
        if code == 334 {
            set!(dialogue.server.challenges, get!(dialogue.server.challenges).wrapping_add(1));
        }
        set!(dialogue.server.answered, reply);
        if code == 250 && reply == get!(dialogue.client.turn_reply) && reply != 0 {
            client::exchange(dialogue);
        }
    }
}

/// What is left at the end of a step waits, or is counted.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "server_finish"))]
unsafe extern "C" fn finish(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        if cursor >= end {
            return 0;
        }
        if end - cursor > HOLD as u64 {
            // More lines than a step looks at.
            told::uncaptured(work, Unseen::Uncertain, end - cursor, scan::lines(work, cursor, end));
            set!(dialogue.server.losses, get!(dialogue.server.losses).wrapping_add(1));
            set!(dialogue.server.line, if byte(work, end - 1) == b'\n' { Line::START } else { Line::UNKNOWN });
            return 0;
        }
        set!(dialogue.server.held, (end - cursor) as u32);
        let begun = get!(work.begun);
        set!(dialogue.server.since, if begun != 0 { begun } else { get!(work.time) });
        set!(work.begun, 0);
        let from = cut(work, end - HOLD as u64, super::work::BYTES as u64) as usize;
        let bytes = (&raw const (*work).bytes).cast::<u8>().add(from).cast::<u64>();
        client::copy_words((&raw mut (*dialogue).server.hold).cast(), bytes);
    }
    0
}

/// Bytes of the server went unseen.
#[inline(always)]
pub unsafe fn lose(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        if get!(dialogue.server.ciphertext) != 0 {
            return;
        }
        told::uncaptured(work, Unseen::Uncertain, u64::from(get!(dialogue.server.held)), 0);
        set!(dialogue.server.held, 0);
        set!(dialogue.server.line, Line::UNKNOWN);
        set!(dialogue.server.losses, get!(dialogue.server.losses).wrapping_add(1));
    }
}

/// Bytes of a call of the server could not be read.
#[inline(always)]
pub unsafe fn miss(dialogue: *mut Dialogue, work: *mut Work, length: u64, cause: Unseen) {
    // SAFETY: the caller's promise.
    unsafe {
        lose(dialogue, work);
        if get!(dialogue.server.ciphertext) != 0 {
            told::ciphertext(work, length);
        } else {
            told::uncaptured(work, cause, length, 0);
        }
    }
}
