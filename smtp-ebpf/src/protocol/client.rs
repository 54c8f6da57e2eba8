//! What the client says.

use super::state::{Dialogue, Line, Mode, reached};
use super::work::{BYTES, Context, HOLD, Work, byte, cut, get, load, repeat, set, stops, store};
use super::{content, line, opening, reply, scan, tls, told, verb};
use crate::event::{Unseen, WITHHELD_BARE_CR, WITHHELD_CR, WITHHELD_CRLF, WITHHELD_LF, WITHHELD_NUL};

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

/// Copies as many bytes as may wait.
#[inline(always)]
pub unsafe fn copy_words(to: *mut u64, from: *const u64) {
    let mut at = 0;
    while at < HOLD / size_of::<u64>() {
        // SAFETY: the caller's promise.
        unsafe { store(to.add(at).cast(), load(from.add(at).cast())) };
        at += 1;
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
            go_on(dialogue, work);
            return 0;
        }
        let mode = get!(dialogue.client.mode);
        if mode == Mode::CONTENT || mode == Mode::ASKED {
            return stops(work, content::read(dialogue, work) == content::DONE);
        }
        if mode == Mode::COMMANDS || mode == Mode::ANSWERS || mode == Mode::UNCERTAIN {
            return stops(work, begin_line(dialogue, work) == WAITS);
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
            told::uncaptured(work, Unseen::Uncertain, end - cursor, 0);
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
            unasked(dialogue, get!(dialogue.client.asked));
            if remaining == taken {
                end_of_chunk(dialogue);
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

/// Content is said that no go-ahead has asked for: if the server refuses the command behind which it stands, it may read
/// it as commands, and repeat it.
#[inline(always)]
pub unsafe fn unasked(dialogue: *mut Dialogue, reply: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let to = get!(dialogue.client.unasked_to);
        if reply != to && reply != to.wrapping_add(1) {
            set!(dialogue.client.unasked_from, reply);
        }
        set!(dialogue.client.unasked_to, reply);
    }
}

/// A chunk is complete, if its size was right: another command, or the next chunk, follows.
#[inline(always)]
unsafe fn end_of_chunk(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        let is_answered = get!(dialogue.client.refused) != 0;
        set!(dialogue.client.mode, Mode::UNCERTAIN);
        set!(dialogue.client.behind_message, 1);
        set!(dialogue.client.candidate, if is_answered { 0 } else { verb::CHUNK as u32 });
        set!(dialogue.client.replies, get!(dialogue.server.replies));
    }
}

/// It is no more certain what the client says.
#[inline(always)]
pub unsafe fn doubt(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        set!(dialogue.client.sure, 0);
        set!(dialogue.client.candidate, 0);
        set!(dialogue.client.behind_message, 0);
    }
}

/// The line was begun; it waits for more of it.
const BEGUN: u64 = 0;
const WAITS: u64 = 1;

/// A line begins, or what stands in its place.
///
/// It is part of its caller: the kernel allows eight functions that call each other, and this is the fourth.
#[inline(always)]
unsafe fn begin_line(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
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
unsafe extern "C" fn go_on(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
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
            told::uncaptured(work, Unseen::Uncertain, to - cursor, u64::from(ends));
        }
        set!(work.cursor, to);
        if ends {
            set!(dialogue.client.line, Line::START);
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
        hide(dialogue);
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

/// The reply to the last line may repeat what was withheld. Should that reply have been given already, the next may.
#[inline(always)]
unsafe fn hide(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        let (asked, answered) = (get!(dialogue.client.asked), get!(dialogue.server.answered));
        set!(dialogue.client.hide_until, if reached(answered, asked) { answered.wrapping_add(1) } else { asked });
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
        let mode = get!(dialogue.client.mode);
        if mode == Mode::UNCERTAIN {
            uncertain_line(dialogue, work, cursor, lf);
        } else {
            asks(dialogue);
            let cross = if mode == Mode::ANSWERS { 0 } else { get!(work.cross) };
            if mode != Mode::ANSWERS && cursor + cross == text_end {
                told::text(work, cursor, lf + 1);
            } else {
                told::text(work, cursor, cursor + cross);
                // Behind BURL's address a word says whether the message is whole (RFC 4468, 3.1).
                let last = line::last_word(work, cursor + cross, text_end);
                let ends = last == text_end;
                withhold(work, cursor + cross, if ends { lf + 1 } else { last }, ends, &raw mut (*dialogue).client.cr);
                told::text(work, last, if ends { last } else { lf + 1 });
                hide(dialogue);
            }
            if mode == Mode::ANSWERS {
                set!(dialogue.client.replies, get!(dialogue.server.replies));
            } else {
                follow(dialogue, work);
            }
        }
        set!(work.cursor, lf + 1);
    }
    0
}

/// A line earns a reply.
#[inline(always)]
pub unsafe fn asks(dialogue: *mut Dialogue) {
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
        let may_follow = match kind {
            verb::BDAT => get!(dialogue.client.behind_message) != 0,
            // What is behind DATA may be content, whatever reply that one gets.
            verb::DATA => get!(dialogue.client.data_done) == 0,
            verb::BLOCK => false,
            _ => true,
        };
        if !is_dot && (get!(work.full) == 0 || !may_follow) {
            told::uncaptured(work, Unseen::Uncertain, lf + 1 - from, 1);
            doubt(dialogue);
            set!(dialogue.client.wary, 1);
            if kind == verb::DATA {
                // It may be one: nothing crosses before it is answered.
                asks(dialogue);
                follow(dialogue, work);
            }
            return;
        }
        told::text(work, from, lf + 1);
        asks(dialogue);
        set!(dialogue.client.candidate, if is_dot { verb::END as u32 } else { kind as u32 });
        set!(dialogue.client.replies, get!(dialogue.server.replies));
        if is_dot {
            set!(dialogue.client.behind_message, 1);
        } else {
            follow(dialogue, work);
        }
    }
}

/// What a command means for what follows it.
#[inline(always)]
unsafe fn follow(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let verb = get!(work.verb);
        let asked = get!(dialogue.client.asked);
        match verb::kind(verb) {
            verb::HELLO => set!(dialogue.client.lmtp, u32::from(verb & verb::LMTP != 0)),
            kind @ (verb::MAIL | verb::RCPT | verb::DATA) => follow_mail(dialogue, kind),
            verb::BDAT => chunk(dialogue, work),
            verb::BLOCK => {
                let has_size = get!(work.full) != 0 && get!(work.number) != 0;
                set!(dialogue.client.block_reply, if has_size { asked } else { 0 });
                set!(dialogue.client.block, get!(work.number));
            }
            verb::AUTH => {
                set!(dialogue.client.mode, Mode::ANSWERS);
                set!(dialogue.client.replies, get!(dialogue.server.replies));
                hide(dialogue);
            }
            verb::TURN => set!(dialogue.client.turn_reply, asked),
            _ => {}
        }
    }
}

/// The same of the commands of a mail.
#[inline(always)]
pub unsafe fn follow_mail(dialogue: *mut Dialogue, kind: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let asked = get!(dialogue.client.asked);
        match kind {
            verb::MAIL => {
                set!(dialogue.client.recipients_from, asked.wrapping_add(1));
                set!(dialogue.client.recipients_to, asked);
                set!(dialogue.client.recipients, get!(dialogue.server.recipients));
            }
            verb::RCPT => set!(dialogue.client.recipients_to, asked),
            verb::DATA => {
                let waits = !reached(get!(dialogue.server.answered), get!(dialogue.client.data_reply));
                let again = get!(dialogue.client.data_done) != 0 && waits;
                set!(dialogue.client.data_again, u32::from(again));
                set!(dialogue.client.mode, Mode::ASKED);
                set!(dialogue.client.data_reply, asked);
                set!(dialogue.client.data_done, 0);
                set!(dialogue.client.disputed, 0);
                set!(dialogue.client.ended, 0);
                content::begin(dialogue);
            }
            _ => {}
        }
    }
}

/// A chunk follows, if its size can be read.
#[inline(always)]
unsafe fn chunk(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let (asked, answered) = (get!(dialogue.client.asked), get!(dialogue.server.answered));
        let before = if reached(answered, asked) { 1 } else { asked.wrapping_sub(answered) };
        set!(dialogue.client.replies, get!(dialogue.server.replies).wrapping_add(before));
        set!(dialogue.client.said, 0);
        set!(dialogue.client.refused, 0);
        if get!(work.full) == 0 {
            set!(dialogue.client.mode, Mode::UNCERTAIN);
            doubt(dialogue);
            set!(dialogue.client.wary, 1);
            return;
        }
        if get!(work.last) != 0 && get!(dialogue.client.lmtp) != 0 {
            // For each recipient, where all of them have been answered.
            let accepted = get!(dialogue.server.recipients).wrapping_sub(get!(dialogue.client.recipients));
            if before == 1 && accepted > 1 {
                set!(dialogue.client.asked, asked.wrapping_add(accepted - 1));
            } else if before != 1 {
                set!(dialogue.client.sure, 0);
                set!(dialogue.client.wary, 1);
            }
        }
        set!(dialogue.client.remaining, get!(work.number));
        set!(dialogue.client.mode, Mode::CHUNK);
        if get!(work.number) == 0 {
            end_of_chunk(dialogue);
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
            told::uncaptured(work, Unseen::Uncertain, HOLD as u64, 0);
            doubt(dialogue);
            set!(dialogue.client.wary, 1);
            set!(dialogue.client.line, Line::UNKNOWN);
            set!(work.cursor, to);
            return 0;
        }
        line::classify(work, cursor, to, u64::from(get!(dialogue.client.first)));
        set!(dialogue.client.first, 0);
        asks(dialogue);
        let (verb, form) = (get!(work.verb), get!(work.form));
        let kind = verb::kind(verb);
        let is_whole = get!(work.cross) == HOLD as u64;
        let has_path = kind == verb::MAIL || kind == verb::RCPT;
        let goes_on = has_path && (is_whole && form == line::Form::WORDS || line::class(form) != 0);
        if mode != Mode::ANSWERS && goes_on {
            set!(dialogue.client.form, form as u32);
            set!(dialogue.client.state, get!(work.state) as u32);
            set!(dialogue.client.line, if byte(work, to - 1) == b'\r' { Line::ENDS } else { Line::CROSSES });
            cross(dialogue, work, to);
            return 0;
        }
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
        hide(dialogue);
        if mode == Mode::ANSWERS {
            set!(dialogue.client.replies, get!(dialogue.server.replies));
        } else {
            set!(work.full, 0);
            follow(dialogue, work);
        }
        set!(work.cursor, to);
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
            told::uncaptured(work, Unseen::Uncertain, end - cursor, lines);
            set!(dialogue.client.mode, Mode::UNCERTAIN);
            set!(dialogue.client.line, if byte(work, end - 1) == b'\n' { Line::START } else { Line::UNKNOWN });
            set!(dialogue.client.asked, get!(dialogue.client.asked).wrapping_add(lines as u32));
            doubt(dialogue);
            hide(dialogue);
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
                unasked(dialogue, get!(dialogue.client.data_reply));
            }
            return;
        }
        let remaining = get!(dialogue.client.remaining);
        if mode == Mode::CHUNK && hole != 0 && hole <= remaining {
            set!(dialogue.client.remaining, remaining - hole);
            set!(dialogue.client.said, 1);
            unasked(dialogue, get!(dialogue.client.asked));
            if hole == remaining {
                end_of_chunk(dialogue);
            }
            return;
        }
        told::uncaptured(work, Unseen::Uncertain, u64::from(get!(dialogue.client.held)), 0);
        set!(dialogue.client.held, 0);
        set!(dialogue.client.mode, Mode::UNCERTAIN);
        set!(dialogue.client.line, Line::UNKNOWN);
        doubt(dialogue);
    }
}

/// Bytes of a call of the client could not be read, behind a hole of so many.
#[inline(always)]
pub unsafe fn miss(dialogue: *mut Dialogue, work: *mut Work, hole: u64, length: u64, cause: Unseen) {
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
