//! Lines of the client: what of one crosses.

use super::state::{Dialogue, Line, Mode};
use super::work::{HOLD, Work, byte, get, set};
use super::{command, line, opening, scan, tls, told, verb};
use crate::event::{CaptureMiss, WITHHELD_BARE_CR, WITHHELD_CR, WITHHELD_CRLF, WITHHELD_LF, WITHHELD_NUL};

/// The line was begun; it waits for more of it.
pub const BEGUN: u64 = 0;
pub const WAITS: u64 = 1;

/// A line begins, or what stands in its place.
///
/// It is part of its caller: the kernel allows eight functions that call each other, and this is the fourth.
#[inline(always)]
pub unsafe fn begin_line(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let is_certain = get!(dialogue.client.mode) == Mode::COMMANDS;
        let record = tls::begins(work);
        let record = if record == tls::NONE && is_certain { tls::begins_old(work) } else { record };
        if record == tls::WAITS {
            return WAITS;
        }
        if record != tls::NONE {
            set!(dialogue.client.first, 0);
            if record == tls::HELLO && is_certain && get!(dialogue.client.sure) != 0 {
                set!(dialogue.client.mode, Mode::HANDSHAKE);
                tls::begin(&raw mut (*dialogue).client.record, work);
            } else {
                set!(dialogue.client.mode, Mode::CIPHERTEXT);
            }
            return BEGUN;
        }
        if get!(dialogue.client.first) != 0 {
            let preamble = opening::preamble(dialogue, work);
            if preamble != opening::NONE {
                return if preamble == opening::WAITS { WAITS } else { BEGUN };
            }
        }
        // What form a line has is decided by as many of its bytes as may wait, however they come.
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let decides = if end - cursor > HOLD as u64 { cursor + HOLD as u64 } else { end };
        let lf = scan::find(work, cursor, decides, b'\n');
        set!(work.line_end, lf);
        set!(dialogue.client.crossed, 0);
        set!(dialogue.client.cr, 0);
        if lf < decides {
            whole_line(dialogue, work);
        } else if end - cursor < HOLD as u64 {
            return WAITS;
        } else {
            long_line(dialogue, work);
        }
    }
    BEGUN
}

/// A line goes on that was too long to wait.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "client_go_on"))]
pub unsafe extern "C" fn go_on(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let line = get!(dialogue.client.line);
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let is_long = line == Line::UNKNOWN && end - cursor > HOLD as u64;
        let end = if is_long { cursor + HOLD as u64 } else { end };
        let lf = scan::find(work, cursor, end, b'\n');
        set!(work.line_end, lf);
        let ends = lf < end;
        let to = if ends { lf + 1 } else { end };
        if line == Line::CROSSES {
            follow_form(dialogue, work, lf);
            return 0;
        }
        if line == Line::ENDS {
            let other = scan::span(work, cursor, lf, super::classes::CR);
            if other == lf {
                cross(dialogue, work, to);
            } else {
                cross(dialogue, work, other);
                stop(dialogue);
            }
            return 0;
        }
        if line == Line::WITHHELD {
            withhold(work, cursor, to, ends, &raw mut (*dialogue).client.cr);
        } else {
            told::uncaptured(work, CaptureMiss::Uncertain, to - cursor, u64::from(ends));
        }
        set!(work.cursor, to);
        if ends {
            set!(dialogue.client.line, Line::START);
            if line == Line::UNKNOWN {
                command::are_due(dialogue, 1);
            }
        }
    }
    0
}

/// A path or parameters go on, whose line ends at a place: they cross as far as they have the form.
#[inline(always)]
unsafe fn follow_form(dialogue: *mut Dialogue, work: *mut Work, lf: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let form = u64::from(get!(dialogue.client.form));
        if form == line::Form::WORDS {
            let stops = scan::words(work, cursor, lf, u64::from(get!(dialogue.client.state)));
            set!(dialogue.client.state, get!(work.state) as u32);
            if stops == lf {
                cross(dialogue, work, if lf < end { lf + 1 } else { end });
                return;
            }
            let is_end = byte(work, stops) == b'\r';
            cross(dialogue, work, stops);
            if !is_end {
                stop(dialogue);
            } else if get!(dialogue.client.line) == Line::CROSSES {
                set!(dialogue.client.line, Line::ENDS);
            }
            return;
        }
        let close = scan::find(work, cursor, lf, b'>');
        let inside = scan::span(work, cursor, close, line::class(form));
        if inside == close && close < lf {
            set!(dialogue.client.form, line::Form::WORDS as u32);
            set!(dialogue.client.state, scan::words::BEHIND as u32);
            cross(dialogue, work, close + 1);
            return;
        }
        cross(dialogue, work, inside);
        if inside < close || lf < end {
            stop(dialogue);
        }
    }
}

/// A line crosses from the cursor on, as far as lines do.
#[inline(always)]
unsafe fn cross(dialogue: *mut Dialogue, work: *mut Work, to: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let from = get!(work.cursor);
        let crossed = u64::from(get!(dialogue.client.crossed));
        let room = line::MAX_LINE.saturating_sub(crossed);
        let is_long = to - from > room;
        let to = if is_long { from + room } else { to };
        told::text(work, from, to);
        set!(dialogue.client.crossed, (crossed + to - from) as u32);
        set!(work.cursor, to);
        if is_long {
            stop(dialogue);
        } else if to > from && byte(work, to - 1) == b'\n' {
            set!(dialogue.client.line, Line::START);
        }
    }
}

/// The rest of a line does not cross.
#[inline(always)]
unsafe fn stop(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        set!(dialogue.client.line, Line::WITHHELD);
        set!(dialogue.client.cr, 0);
        command::hide(dialogue);
    }
}

/// A line, or the rest of one, does not cross: its length does, and how it ends. `cr`: what was withheld of it before ends
/// with CR, which is part of its end if LF follows.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "client_withhold"))]
pub unsafe extern "C" fn withhold(work: *mut Work, from: u64, to: u64, ends: bool, cr: *mut u32) -> u64 {
    if work.is_null() || cr.is_null() || to <= from {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let mut flags = 0;
        let text = if ends { to - 1 } else { to };
        let is_cr = if text > from { byte(work, text - 1) == b'\r' } else { cr.read_volatile() != 0 };
        let other = if text > from && is_cr { text - 1 } else { text };
        if ends {
            flags |= if is_cr && text > from { WITHHELD_CRLF } else { WITHHELD_LF };
        } else if is_cr && text > from {
            flags |= WITHHELD_CR;
        }
        if scan::find(work, from, other, b'\0') < other {
            flags |= WITHHELD_NUL;
        }
        if scan::find(work, from, other, b'\r') < other || cr.read_volatile() != 0 && text > from {
            flags |= WITHHELD_BARE_CR;
        }
        cr.write_volatile(u32::from(is_cr && !ends));
        told::withheld(work, to - from, flags);
    }
    0
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
        let mode = get!(dialogue.client.mode);
        if mode == Mode::UNCERTAIN {
            uncertain_line(dialogue, work, cursor, lf);
        } else {
            let cross = if mode == Mode::ANSWERS { 0 } else { get!(work.cross) };
            if mode != Mode::ANSWERS && cursor + cross == text_end {
                command::asks(dialogue);
                told::text(work, cursor, lf + 1);
            } else {
                command::asks_hidden(dialogue);
                told::text(work, cursor, cursor + cross);
                // Behind BURL's address a word says whether the message is whole (RFC 4468, 3.1).
                let last = line::last_word(work, cursor + cross, text_end);
                let ends = last == text_end;
                withhold(work, cursor + cross, if ends { lf + 1 } else { last }, ends, &raw mut (*dialogue).client.cr);
                told::text(work, last, if ends { last } else { lf + 1 });
            }
            if mode == Mode::ANSWERS {
                set!(dialogue.client.replies, get!(dialogue.server.replies));
            } else {
                command::follow(dialogue, work);
            }
        }
        set!(work.cursor, lf + 1);
    }
    0
}

/// A whole line where it is not certain that lines are commands: it crosses in the full form of one.
#[inline(always)]
unsafe fn uncertain_line(dialogue: *mut Dialogue, work: *mut Work, from: u64, lf: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let kind = verb::kind(get!(work.verb));
        let is_dot = lf - from <= 2 && byte(work, from) == b'.' && (lf - from == 1 || byte(work, from + 1) == b'\r');
        let may_follow = match kind {
            verb::BDAT => get!(dialogue.client.behind_message) != 0,
            // What is behind DATA may be content, whatever reply that one gets.
            verb::DATA => get!(dialogue.client.data_done) == 0,
            verb::BLOCK => false,
            _ => true,
        };
        if !is_dot && (get!(work.full) == 0 || !may_follow) {
            told::uncaptured(work, CaptureMiss::Uncertain, lf + 1 - from, 1);
            command::doubt(dialogue);
            set!(dialogue.client.wary, 1);
            if kind == verb::DATA {
                // It may be one: nothing crosses before it is answered.
                command::asks(dialogue);
                command::follow(dialogue, work);
            } else {
                command::are_due(dialogue, 1);
            }
            return;
        }
        told::text(work, from, lf + 1);
        command::asks(dialogue);
        if is_dot && get!(dialogue.client.counted) == 0 {
            // What stood before it was content, which earns no replies. Nor does this, if that was refused before its end.
            set!(dialogue.client.due, get!(dialogue.server.replies));
        }
        set!(dialogue.client.candidate, if is_dot { verb::END as u32 } else { kind as u32 });
        set!(dialogue.client.replies, get!(dialogue.server.replies));
        if is_dot {
            set!(dialogue.client.behind_message, 1);
        } else {
            command::follow(dialogue, work);
        }
    }
}

/// A line that is too long to wait: the form of its beginning decides.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "client_long_line"))]
unsafe extern "C" fn long_line(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let cursor = get!(work.cursor);
        let to = cursor + HOLD as u64;
        let mode = get!(dialogue.client.mode);
        if mode == Mode::UNCERTAIN {
            told::uncaptured(work, CaptureMiss::Uncertain, HOLD as u64, 0);
            command::doubt(dialogue);
            set!(dialogue.client.wary, 1);
            set!(dialogue.client.line, Line::UNKNOWN);
            set!(work.cursor, to);
            return 0;
        }
        line::classify(work, cursor, to, u64::from(get!(dialogue.client.first)));
        set!(dialogue.client.first, 0);
        let (verb, form) = (get!(work.verb), get!(work.form));
        let kind = verb::kind(verb);
        let is_whole = get!(work.cross) == HOLD as u64;
        let has_path = kind == verb::MAIL || kind == verb::RCPT;
        let goes_on = has_path && (is_whole && form == line::Form::WORDS || line::class(form) != 0);
        if mode != Mode::ANSWERS && goes_on {
            command::asks(dialogue);
            set!(dialogue.client.form, form as u32);
            set!(dialogue.client.state, get!(work.state) as u32);
            set!(dialogue.client.line, if byte(work, to - 1) == b'\r' { Line::ENDS } else { Line::CROSSES });
            cross(dialogue, work, to);
            return 0;
        }
        command::asks_hidden(dialogue);
        // Of a command whose end is not seen, no argument crosses that may go on.
        let is_partial = has_path || kind == verb::AUTH || kind == verb::ATTRIBUTES;
        let length = if mode == Mode::ANSWERS || verb & verb::GLUED != 0 {
            0
        } else if is_partial {
            get!(work.cross)
        } else if matches!(byte(work, cursor), b' ' | b'\t') {
            0
        } else {
            verb::length(verb)
        };
        told::text(work, cursor, cursor + length);
        withhold(work, cursor + length, to, false, &raw mut (*dialogue).client.cr);
        set!(dialogue.client.line, Line::WITHHELD);
        if mode == Mode::ANSWERS {
            set!(dialogue.client.replies, get!(dialogue.server.replies));
        } else {
            set!(work.full, 0);
            command::follow(dialogue, work);
        }
        set!(work.cursor, to);
    }
    0
}
