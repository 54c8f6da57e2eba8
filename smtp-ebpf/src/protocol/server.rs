//! What the server says.

use super::state::{Dialogue, Line, Mode, reached};
use super::work::{BYTES, Context, HOLD, Work, byte, copy_words, cut, get, repeat, set, stops, word};
use super::{command_line, line, opening, reply, scan, tls, told, verb};
use crate::event::CaptureMiss;

/// Most parts of a step: each takes bytes, or tells what the next one takes.
const MAX_PARTS: u64 = 2 * BYTES as u64;

/// The longest beginning of a reply's line that decides how it crosses: code, enhanced code (RFC 3463) and what is behind.
const MAX_HEAD: u64 = 16;

/// The code that asks for content.
const GO_AHEAD: u32 = 354;

/// Takes the server's bytes, or those up to an exchange of roles. `behind`: the client has sent more than the filter was
/// told of.
#[inline(always)]
pub unsafe fn step(dialogue: *mut Dialogue, work: *mut Work, time: u64, behind: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        let held = u64::from(get!(dialogue.server.held));
        if held != 0 {
            let hold = (&raw const (*dialogue).server.hold).cast::<u64>();
            copy_words((&raw mut (*work).bytes).cast(), hold);
            set!(work.cursor, HOLD as u64 - if held > HOLD as u64 { HOLD as u64 } else { held });
            set!(work.begun, get!(dialogue.server.since));
            set!(dialogue.server.held, 0);
        }
        set!(work.time, time);
        set!(work.behind, u64::from(behind));
        repeat(MAX_PARTS, part, &mut Context { work, dialogue });
        if get!(work.turned) == 0 {
            finish(dialogue, work);
        }
    }
}

/// Reads a line, or a part of one.
unsafe extern "C" fn part(_: u64, context: *mut Context) -> i64 {
    // SAFETY: `step` passes its own.
    unsafe {
        let (work, dialogue) = ((*context).work, (*context).dialogue);
        if get!(work.cursor) >= get!(work.end) || get!(work.turned) != 0 || told::is_full(work) {
            return 1;
        }
        if get!(dialogue.server.line) == Line::START {
            let opens = open(dialogue, work);
            if opens != LINE {
                return stops(work, opens == WAITS);
            }
        }
        let lf = scan::find(work, get!(work.cursor), get!(work.end), b'\n');
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

/// A line is there; it waits for more of it; something else was taken.
const LINE: u64 = 0;
const WAITS: u64 = 1;
const TAKEN: u64 = 2;

/// What is no line: TLS, or the answers of a proxy. And a go-ahead, of which notice is given as soon as its code is there.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "server_open"))]
unsafe extern "C" fn open(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        if get!(dialogue.server.ciphertext) != 0 {
            told::ciphertext(work, end - cursor);
            set!(work.cursor, end);
            return TAKEN;
        }
        if get!(dialogue.server.record.count) != 0 {
            let ends = tls::go_on(&raw mut (*dialogue).server.record, work, tls::SERVER_HELLO);
            set!(dialogue.server.ciphertext, u32::from(ends));
            return TAKEN;
        }
        if get!(dialogue.client.mode) == Mode::FOREIGN && get!(dialogue.server.octets) == 0 {
            let octets = opening::socks_answer(dialogue, work);
            if octets == u64::MAX {
                return WAITS;
            }
            set!(dialogue.server.octets, octets as u32);
            set!(dialogue.server.socks, 1);
        }
        let octets = u64::from(get!(dialogue.server.octets));
        if octets != 0 {
            let taken = if octets < end - cursor { octets } else { end - cursor };
            told::withheld(work, taken, 0);
            set!(work.cursor, cursor + taken);
            set!(dialogue.server.octets, (octets - taken) as u32);
            return TAKEN;
        }
        let record = tls::begins(work);
        if record == tls::WAITS {
            return WAITS;
        }
        if record != tls::NONE {
            let speaks_tls = matches!(get!(dialogue.client.mode), Mode::HANDSHAKE | Mode::CIPHERTEXT);
            let is_handshake = record == tls::HELLO || record == tls::ALERT && speaks_tls;
            if is_handshake && get!(dialogue.client.sure) != 0 {
                tls::begin(&raw mut (*dialogue).server.record, work);
            } else {
                set!(dialogue.server.ciphertext, 1);
            }
            return TAKEN;
        }
        if end - cursor >= 3 {
            notice_go_ahead(dialogue, work, code(word(work, cursor)));
        }
    }
    LINE
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
        set!(dialogue.server.cr, 0);
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
        set!(dialogue.server.line_is_last, u32::from(separator != b'-'));
        // The code, what parts it from the text, and the enhanced code.
        let text = cursor + if lf - cursor > 3 && matches!(separator, b' ' | b'-' | b'\t') { 4 } else { 3 };
        let head = text + enhanced(work, text, lf);
        let has_no_text = lf < get!(work.end) && (lf == head || lf == head + 1 && byte(work, head) == b'\r');
        if has_no_text || !is_hidden(dialogue, work, code) {
            set!(dialogue.server.line, Line::CROSSES);
            return 0;
        }
        told::text(work, cursor, head);
        set!(work.cursor, head);
        set!(dialogue.server.line, Line::WITHHELD);
    }
    0
}

/// The number that three digits are; zero where they are none.
#[inline(always)]
pub fn code(start: u64) -> u32 {
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

/// Whether the next reply is one that was asked for. What nobody asked for answers nothing, unless the question is not known
/// yet.
#[inline(always)]
unsafe fn is_asked_for(dialogue: *mut Dialogue, work: *mut Work) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let next = get!(dialogue.server.answered).wrapping_add(1);
        // A form that some servers take for the end of data asks for a reply if it gets one.
        let ended = get!(dialogue.client.mode) == Mode::CONTENT && get!(dialogue.client.ended) != 0;
        let asked = get!(dialogue.client.asked).wrapping_add(u32::from(ended));
        get!(work.behind) != 0 || reached(asked, next)
    }
}

/// The text of a reply stays where it may repeat what was withheld of the client's.
#[inline(always)]
pub unsafe fn is_hidden(dialogue: *mut Dialogue, work: *mut Work, code: u32) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let answered = get!(dialogue.server.answered);
        let is_awaited = !reached(answered, get!(dialogue.client.hide_until));
        let is_extra = !is_asked_for(dialogue, work);
        let is_refusal = reply::may_refuse(code);
        let is_wary = get!(dialogue.client.wary) != 0;
        let is_sure = get!(dialogue.client.sure) != 0
            && get!(dialogue.server.doubts) == get!(dialogue.client.doubts)
            && get!(dialogue.server.losses) == get!(dialogue.client.losses);
        // It answers the one thing that is known to have been said last.
        let agrees = verb::agrees(get!(dialogue.client.candidate), code);
        let is_farewell = agrees && code == 221;
        let is_clear = agrees
            && !is_extra
            && !is_wary
            && get!(dialogue.client.data_done) == 0
            && reply::is_all_answered(dialogue, get!(dialogue.server.replies).wrapping_add(1));
        let agrees = is_farewell || is_clear;
        let repeats = is_wary && (is_refusal || is_extra) && !is_farewell;
        is_awaited
            || repeats
            || is_extra && quotes_content(dialogue, code)
            || quotes(dialogue, code)
            || !is_sure && !agrees
            || code == 334
            || get!(work.behind) != 0
    }
}

/// A reply that nobody asked for may quote content: the server reads as commands what it had let come. A server that only
/// leaves says so by 421, and one that refuses content before its end has read no command.
#[inline(always)]
unsafe fn quotes_content(dialogue: *mut Dialogue, code: u32) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let had_content = get!(dialogue.client.data_reply) != 0 || get!(dialogue.client.go_aheads) != 0;
        let goes_on = get!(dialogue.client.mode) == Mode::CONTENT && get!(dialogue.client.ended) == 0;
        had_content && code != 421 && (reply::may_refuse(code) || !goes_on)
    }
}

/// The next reply may quote content that no go-ahead has asked for, from a server that reads it as commands: it refuses
/// something, and is due by the end of that content. A chunk is content all the same where it is refused for another reason.
#[inline(always)]
unsafe fn quotes(dialogue: *mut Dialogue, code: u32) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let (next, to) = (get!(dialogue.server.answered).wrapping_add(1), get!(dialogue.client.unasked_to));
        let is_data = to == get!(dialogue.client.data_reply) && code >= 400;
        to != 0 && reached(to, next) && (is_data || reply::may_refuse(code))
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
        let cr = &raw mut (*dialogue).server.cr;
        if line == Line::CROSSES {
            let crossed = u64::from(get!(dialogue.server.crossed));
            let room = line::MAX_LINE.saturating_sub(crossed);
            let take = if to - cursor > room { room } else { to - cursor };
            told::text(work, cursor, cursor + take);
            set!(dialogue.server.crossed, (crossed + take) as u32);
            if cursor + take < to {
                set!(dialogue.server.line, Line::WITHHELD);
                command_line::withhold(work, cursor + take, to, ends, cr);
            }
        } else if line == Line::WITHHELD {
            command_line::withhold(work, cursor, to, ends, cr);
        } else {
            told::uncaptured(work, CaptureMiss::Uncertain, to - cursor, u64::from(ends));
        }
        set!(work.cursor, to);
        if ends {
            set!(dialogue.server.line, Line::START);
            if line == Line::UNKNOWN || get!(dialogue.server.line_code) == 0 {
                set!(dialogue.server.is_go_ahead, 0);
            } else if get!(dialogue.server.line_is_last) != 0 {
                complete(dialogue, work);
            }
        }
    }
    0
}

/// Notice is given of a go-ahead, once.
#[inline(always)]
pub unsafe fn notice_go_ahead(dialogue: *mut Dialogue, work: *mut Work, code: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        if code == GO_AHEAD && get!(dialogue.server.is_go_ahead) == 0 {
            set!(dialogue.server.is_go_ahead, 1);
            go_ahead(dialogue, work);
        }
    }
}

/// A go-ahead is said: it answers DATA, where that was asked.
#[inline(always)]
unsafe fn go_ahead(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let is_due = get!(dialogue.client.mode) == Mode::ASKED || get!(dialogue.client.data_done) != 0;
        let answered = get!(dialogue.server.answered);
        let reply = if is_due && get!(dialogue.client.data_again) == 0 {
            get!(dialogue.client.data_reply)
        } else {
            answered.wrapping_add(u32::from(is_asked_for(dialogue, work)))
        };
        set!(dialogue.server.go_ahead_reply, reply);
        set!(dialogue.server.go_ahead_replies, get!(dialogue.server.replies).wrapping_add(1));
        set!(dialogue.server.go_aheads, get!(dialogue.server.go_aheads).wrapping_add(1));
    }
}

/// A reply is complete.
#[inline(always)]
pub unsafe fn complete(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let code = get!(dialogue.server.line_code);
        let answered = get!(dialogue.server.answered);
        let counts = is_asked_for(dialogue, work);
        let reply = if code == GO_AHEAD {
            get!(dialogue.server.go_ahead_reply)
        } else {
            answered.wrapping_add(u32::from(counts))
        };
        let replies = get!(dialogue.server.replies).wrapping_add(1);
        set!(dialogue.server.is_go_ahead, 0);
        set!(dialogue.server.code, code);
        if code == 334 {
            set!(dialogue.server.challenges, get!(dialogue.server.challenges).wrapping_add(1));
        }
        if code != GO_AHEAD && contradicts(dialogue, code, reply, replies) {
            set!(dialogue.server.doubts, get!(dialogue.server.doubts).wrapping_add(1));
        }
        let is_recipients = reached(reply, get!(dialogue.client.recipients_from))
            && reached(get!(dialogue.client.recipients_to), reply);
        if counts && is_recipients && matches!(code, 200..=299) {
            set!(dialogue.server.recipients, get!(dialogue.server.recipients).wrapping_add(1));
        }
        set!(dialogue.server.answered, reply);
        set!(dialogue.server.replies, replies);
        if code == 250 && counts && reply == get!(dialogue.client.turn_reply) && reply != 0 {
            opening::turn(dialogue, work);
        }
    }
}

/// Whether a reply, this one of those that were asked for and of all, shows that the server reads as commands what was
/// taken for content.
#[inline(always)]
unsafe fn contradicts(dialogue: *mut Dialogue, code: u32, reply: u32, replies: u32) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let mode = get!(dialogue.client.mode);
        let in_content = mode == Mode::CONTENT && get!(dialogue.client.ended) == 0;
        let in_chunk =
            mode == Mode::CHUNK && get!(dialogue.client.said) != 0 && reached(replies, get!(dialogue.client.replies));
        let is_refusal = code >= 300 || reply == get!(dialogue.client.data_reply);
        // Where a reply was left out before, this one may be that of the command behind which the content stands.
        let may_be_later = reply::may_refuse(code) || code == 554;
        let to = get!(dialogue.client.unasked_to);
        let is_theirs = reached(reply, get!(dialogue.client.unasked_from)) || may_be_later;
        let unasked = to != 0 && is_theirs && reached(to, reply);
        in_content || in_chunk || is_refusal && unasked
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
        if end - cursor > HOLD as u64 || get!(dialogue.server.line) != Line::START {
            // More lines than a record has room for.
            told::uncaptured(work, CaptureMiss::Uncertain, end - cursor, scan::lines(work, cursor, end));
            set!(dialogue.server.is_go_ahead, 0);
            set!(dialogue.server.losses, get!(dialogue.server.losses).wrapping_add(1));
            set!(dialogue.server.line, if byte(work, end - 1) == b'\n' { Line::START } else { Line::UNKNOWN });
            return 0;
        }
        set!(dialogue.server.held, (end - cursor) as u32);
        let begun = get!(work.begun);
        set!(dialogue.server.since, if begun != 0 { begun } else { get!(work.time) });
        set!(work.begun, 0);
        let from = cut(work, end - HOLD as u64, BYTES as u64) as usize;
        let bytes = (&raw const (*work).bytes).cast::<u8>().add(from).cast::<u64>();
        copy_words((&raw mut (*dialogue).server.hold).cast(), bytes);
    }
    0
}

/// Bytes of the server went unseen.
#[inline(always)]
pub unsafe fn lose(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        if get!(dialogue.server.record.count) != 0 {
            set!(dialogue.server.ciphertext, 1);
        }
        if get!(dialogue.server.ciphertext) != 0 {
            return;
        }
        set!(dialogue.server.octets, 0);
        set!(dialogue.server.is_go_ahead, 0);
        told::uncaptured(work, CaptureMiss::Uncertain, u64::from(get!(dialogue.server.held)), 0);
        set!(dialogue.server.held, 0);
        set!(dialogue.server.line, Line::UNKNOWN);
        set!(dialogue.server.losses, get!(dialogue.server.losses).wrapping_add(1));
    }
}

/// Bytes of a call of the server could not be read.
#[inline(always)]
pub unsafe fn miss(dialogue: *mut Dialogue, work: *mut Work, length: u64, cause: CaptureMiss) {
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
