//! Content of a message behind DATA: its end, and forms that some servers take for it.
//!
//! Every form has a dot between control bytes: CR, LF or NUL before it, CR or LF behind it. Bytes at the end of a call that
//! may begin a form wait for the next call, so a form is always seen whole.

use super::state::{Dialogue, Mode};
use super::work::{HOLD, Work, byte, get, load, set, store};
use super::{command, scan, told, verb};

/// Most bytes of content that wait: two before a dot, the dot, two CRs behind it.
pub const MAX_HELD: u64 = 5;

/// Bytes of content that are kept: those that wait, and two before them.
pub const KEPT: usize = 8;

/// What a dot is, by the bytes around it.
const TEXT: u64 = 0;
const END: u64 = 1;
const FORM: u64 = 2;
const UNDECIDED: u64 = 3;

/// What is left waits.
pub const DONE: u64 = 1;

/// Reads content from the cursor on: up to its end, to a disputed form, or to the end of the bytes.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "content_read"))]
pub unsafe extern "C" fn read(dialogue: *mut Dialogue, work: *mut Work) -> u64 {
    if dialogue.is_null() || work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let (start, end) = (get!(work.cursor), get!(work.end));
        if get!(dialogue.client.mode) == Mode::ASKED {
            command::unasked(dialogue, get!(dialogue.client.data_reply));
        }
        // The search goes on from `line_end`: dots before it are decided.
        let from = if get!(work.line_end) > start { get!(work.line_end) } else { start };
        let dot = scan::find_dot(work, from, if end > from { end - 1 } else { from });
        if dot + 1 >= end {
            let waits = suffix(work, start, end);
            told::content(work, end - waits - start);
            set!(work.cursor, end - waits);
            return DONE;
        }
        let what = decide(work, dot, end);
        if what == TEXT {
            set!(work.line_end, dot + 1);
            return 0;
        }
        let before = dot - before_length(work, dot);
        let before = if before > start { before } else { start };
        if what == UNDECIDED {
            told::content(work, before - start);
            set!(work.cursor, before);
            return DONE;
        }
        let behind = get!(work.text_end);
        if what == END {
            told::content(work, before - start);
            told::text(work, before, behind);
            set!(work.cursor, behind);
            finish(dialogue);
            return 0;
        }
        if get!(dialogue.client.disputed) == 0 {
            set!(dialogue.client.disputed, 1);
            told::content(work, before - start);
            told::text(work, before, behind);
            set!(work.cursor, behind);
        }
        // A byte that only tells where the form ends may begin another.
        set!(work.line_end, get!(work.found));
        if behind == end && byte(work, behind - 1) == b'\n' {
            set!(dialogue.client.ended, 1);
        }
    }
    0
}

/// The end of data was said: commands may follow, and the server answers.
#[inline(always)]
unsafe fn finish(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe {
        let is_answered = get!(dialogue.client.mode) == Mode::CONTENT;
        set!(dialogue.client.data_done, u32::from(!is_answered));
        // For each recipient, where this is LMTP.
        let accepted = get!(dialogue.server.recipients).wrapping_sub(get!(dialogue.client.recipients));
        let replies = if is_answered && get!(dialogue.client.lmtp) != 0 && accepted > 1 { accepted } else { 1 };
        command::expect(dialogue, replies);
        set!(dialogue.client.mode, Mode::UNCERTAIN);
        set!(dialogue.client.line, super::state::Line::START);
        set!(dialogue.client.behind_message, 1);
        set!(dialogue.client.candidate, verb::END as u32);
        set!(dialogue.client.replies, get!(dialogue.server.replies));
    }
}

/// How many control bytes before a dot belong to its form.
#[inline(always)]
unsafe fn before_length(work: *mut Work, dot: u64) -> u64 {
    // SAFETY: the caller's promise.
    let two = unsafe { (byte(work, dot - 2), byte(work, dot - 1)) };
    match two {
        (b'\r', b'\n') | (b'\n', b'\0') => 2,
        _ => 1,
    }
}

/// What a dot is whose neighbours are control bytes. A form ends before `work.text_end`; the next dot is looked for from
/// `work.found` on.
#[inline(always)]
unsafe fn decide(work: *mut Work, dot: u64, end: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let before = byte(work, dot - 1);
        let is_crlf = before == b'\n' && byte(work, dot - 2) == b'\r';
        let is_nul = before == b'\0' && byte(work, dot - 2) == b'\n';
        if !(is_nul || before == b'\n' || before == b'\r') {
            return TEXT;
        }
        let one = byte(work, dot + 1);
        if one == b'\n' {
            return if is_nul { TEXT } else { form(work, dot + 2, dot + 2) };
        }
        if one != b'\r' {
            return TEXT;
        }
        if dot + 2 >= end {
            return UNDECIDED;
        }
        let two = byte(work, dot + 2);
        if two == b'\n' {
            form(work, dot + 3, dot + 3);
            return if is_crlf { END } else { FORM };
        }
        if is_nul {
            return TEXT;
        }
        if two != b'\r' {
            stand_in(work, dot + 2);
            return form(work, dot + 3, dot + 2);
        }
        if dot + 3 >= end {
            return UNDECIDED;
        }
        if byte(work, dot + 3) != b'\n' {
            stand_in(work, dot + 3);
            return form(work, dot + 4, dot + 2);
        }
        form(work, dot + 4, dot + 4)
    }
}

#[inline(always)]
unsafe fn form(work: *mut Work, ends: u64, next: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        set!(work.text_end, ends);
        set!(work.found, next);
    }
    FORM
}

/// A byte that is not part of a form and shows where it ends does not cross.
#[inline(always)]
unsafe fn stand_in(work: *mut Work, at: u64) {
    // SAFETY: the caller's promise; the index is cut, and there is slack behind it.
    unsafe {
        let byte = byte(work, at);
        let at = super::work::cut(work, at, super::work::BYTES as u64) as usize;
        if !matches!(byte, b'\r' | b'\n' | b'\0' | b'.') {
            (&raw mut (*work).bytes).cast::<u8>().add(at).write(b'x');
        }
    }
}

/// How many bytes at the end may begin a form.
#[inline(always)]
unsafe fn suffix(work: *mut Work, start: u64, end: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let at = |back: u64| byte(work, end - back);
        let is_end = |byte: u8| matches!(byte, b'\r' | b'\n' | b'\0');
        // The dot, and CRs behind it.
        let dot = match (at(1), at(2), at(3)) {
            (b'.', ..) => 1,
            (b'\r', b'.', _) => 2,
            (b'\r', b'\r', b'.') => 3,
            _ => 0,
        };
        // Without a control byte before it, a dot is text.
        let dot = if dot != 0 && is_end(at(dot + 1)) { dot } else { 0 };
        let waits = match (is_end(at(dot + 1)), is_end(at(dot + 2))) {
            (true, true) => dot + 2,
            (true, false) => dot + 1,
            _ => 0,
        };
        if waits > end - start { end - start } else { waits }
    }
}

/// Keeps what waits at the end of a call, and the bytes before it.
#[inline(always)]
pub unsafe fn keep(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let (cursor, end) = (get!(work.cursor), get!(work.end));
        let held = end.saturating_sub(cursor);
        set!(dialogue.client.held, if held > MAX_HELD { MAX_HELD as u32 } else { held as u32 });
        let kept = super::work::word(work, end - KEPT as u64);
        let hold = (&raw mut (*dialogue).client.hold).cast::<u8>().add(HOLD - KEPT);
        store(hold, kept);
    }
}

/// Puts the bytes that were kept before those of the call.
#[inline(always)]
pub unsafe fn restore(dialogue: *mut Dialogue, work: *mut Work) {
    // SAFETY: the caller's promise.
    unsafe {
        let hold = (&raw const (*dialogue).client.hold).cast::<u8>().add(HOLD - KEPT);
        let kept = load(hold);
        store((&raw mut (*work).bytes).cast::<u8>().add(HOLD - KEPT), kept);
        set!(work.cursor, HOLD as u64 - u64::from(get!(dialogue.client.held)));
        set!(dialogue.client.held, 0);
    }
}

/// Content begins, behind CR LF: a message can be empty.
#[inline(always)]
pub unsafe fn begin(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe { forget(dialogue, u64::from_le_bytes(*b"xxxxxx\r\n")) }
}

/// It is not known what was before the next byte.
#[inline(always)]
pub unsafe fn interrupt(dialogue: *mut Dialogue) {
    // SAFETY: the caller's promise.
    unsafe { forget(dialogue, u64::from_le_bytes(*b"xxxxxxxx")) }
}

#[inline(always)]
unsafe fn forget(dialogue: *mut Dialogue, before: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        set!(dialogue.client.held, 0);
        let hold = (&raw mut (*dialogue).client.hold).cast::<u8>().add(HOLD - KEPT);
        store(hold, before);
    }
}
