//! Lines of the client, by their form.

use super::classes::{BLANK, CR, DOMAIN, MECHANISM, PATH, PRINTABLE, SIGN};
use super::scan::words;
use super::work::{Work, byte, get, set, word};
use super::{mechanisms, scan, verb};

/// Most bytes of a line that cross. RFC 5321 (4.5.3.1.4) wants 512, its extensions ask for more, and servers take 2,048.
pub const MAX_LINE: u64 = 2048;

/// How a line goes on whose first bytes cross: `work.form`.
pub struct Form;

impl Form {
    /// It does not.
    pub const NONE: u64 = 0;
    /// In a path, up to its `>`.
    pub const PATH: u64 = 1;
    /// In a path that begins with a quoted string.
    pub const QUOTED: u64 = 2;
    /// In parameters.
    pub const WORDS: u64 = 3;
}

/// The class of the bytes in a path of this form; zero where it is no path's.
#[inline(always)]
pub fn class(form: u64) -> u8 {
    match form {
        Form::PATH => PATH,
        Form::QUOTED => PRINTABLE,
        _ => 0,
    }
}

/// Where ` LAST` begins at the end of the argument of BURL; the end where it does not.
#[inline(always)]
pub unsafe fn last_word(work: *mut Work, from: u64, to: u64) -> u64 {
    const LAST: u64 = u64::from_le_bytes(*b" last\0\0\0");
    const CASES: u64 = u64::from_le_bytes(*b"\0    \0\0\0");
    const LENGTH: u64 = 5;
    const BYTES: u64 = 0xff_ffff_ffff;
    // SAFETY: the caller's promise.
    unsafe {
        let is_last = verb::kind(get!(work.verb)) == verb::BURL
            && to - from > LENGTH
            && (word(work, to - LENGTH) | CASES) & BYTES == LAST;
        if is_last { to - LENGTH } else { to }
    }
}

/// Classifies the line of text from one place on and before another. Leaves in the working memory its verb, how many of
/// its bytes may cross, and whether it is whole and has the full form of its command.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "line_classify"))]
pub unsafe extern "C" fn classify(work: *mut Work, from: u64, to: u64, first: u64) -> u64 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        set!(work.cross, 0);
        set!(work.full, 0);
        set!(work.form, Form::NONE);
        set!(work.last, 0);
        if to == from {
            set!(work.verb, verb::EMPTY);
            return 0;
        }
        // Servers forgive blanks before a verb (Postfix).
        let is_indented = matches!(byte(work, from), b' ' | b'\t');
        let start = if is_indented { scan::span(work, from, to, BLANK) } else { from };
        set!(work.verb, verb::of_line(work, start, to, first != 0));
        let verb = get!(work.verb);
        if verb & verb::GLUED != 0 {
            return 0;
        }
        let rest = start + verb::length(verb);
        let ends = match verb::kind(verb) {
            verb::UNKNOWN => return 0,
            verb::MAIL => path(work, rest, to, u64::from_le_bytes(*b"from\0\0\0\0"), 4),
            verb::RCPT => path(work, rest, to, u64::from_le_bytes(*b"to\0\0\0\0\0\0"), 2),
            verb::HELLO => {
                let name = scan::span(work, rest, to, BLANK);
                scan::span(work, name, to, DOMAIN)
            }
            verb::DOMAIN => {
                let name = scan::span(work, rest, to, BLANK);
                scan::span(work, name, to, DOMAIN | SIGN)
            }
            verb::ATTRIBUTES => words(work, rest, to, words::BEHIND | words::NEED_VALUES),
            verb::BDAT => chunk(work, rest, to),
            verb::BLOCK => numbers(work, rest, to),
            verb::AUTH => {
                let name = scan::span(work, rest, to, BLANK);
                let end = scan::span(work, name, to, MECHANISM);
                let hash = scan::hash(work, name, end);
                let is_apart = end == to || matches!(byte(work, end), b' ' | b'\t' | b'\r');
                if mechanisms::is_one(hash) && is_apart { end } else { rest }
            }
            _ => rest,
        };
        // Blanks and CRs at the end tell nothing.
        let whole = scan::span(work, ends, to, BLANK | CR) == to;
        let kind = verb::kind(get!(work.verb));
        let partial = matches!(kind, verb::AUTH | verb::MAIL | verb::RCPT | verb::ATTRIBUTES);
        set!(
            work.cross,
            if whole {
                to - from
            } else if partial {
                ends - from
            } else {
                rest - from
            }
        );
        set!(work.full, u64::from(whole && !is_indented && is_full(work, kind, rest, ends)));
        0
    }
}

/// Whether a command that needs an argument has it, and one that takes none has none.
#[inline(always)]
unsafe fn is_full(work: *mut Work, kind: u64, rest: u64, ends: u64) -> bool {
    // SAFETY: the caller's promise.
    let is_bracketed = || unsafe { get!(work.form) == Form::WORDS };
    match kind {
        verb::MAIL | verb::RCPT => is_bracketed(),
        verb::HELLO | verb::BDAT | verb::BLOCK => ends != rest,
        verb::DATA | verb::RSET | verb::QUIT | verb::NOOP | verb::START_TLS => true,
        _ => false,
    }
}

/// Where `FROM:` or `TO:` with a path and parameters ends; the start where it is not that. Servers forgive blanks, and want
/// no angle brackets: then the path is one word, and each parameter has a value.
#[inline(always)]
unsafe fn path(work: *mut Work, rest: u64, to: u64, keyword: u64, length: u64) -> u64 {
    const CASES: u64 = 0x20_20_20_20;
    // SAFETY: the caller's promise.
    unsafe {
        let start = scan::span(work, rest, to, BLANK);
        let mask = (1 << (8 * length)) - 1;
        if (word(work, start) | CASES) & mask != keyword {
            return rest;
        }
        let colon = scan::span(work, start + length, to, BLANK);
        if colon >= to || byte(work, colon) != b':' {
            return rest;
        }
        let open = scan::span(work, colon + 1, to, BLANK);
        if open >= to {
            return open;
        }
        if byte(work, open) != b'<' {
            let end = scan::span(work, open, to, PATH);
            // Else it may be a sentence.
            return words(work, end, to, words::BEHIND | words::NEED_VALUES);
        }
        let is_quoted = byte(work, open + 1) == b'"';
        let close = scan::find(work, open, to, b'>');
        if is_quoted && close < to && scan::find(work, open + 2, close, b'"') == close {
            // It is in the quotes.
            return rest;
        }
        if scan::span(work, open + 1, close, class(if is_quoted { Form::QUOTED } else { Form::PATH })) < close {
            return rest;
        }
        if close >= to {
            set!(work.form, if is_quoted { Form::QUOTED } else { Form::PATH });
            return rest;
        }
        set!(work.form, Form::WORDS);
        words(work, close + 1, to, words::BEHIND)
    }
}

/// Where a chunk's size with its LAST ends (RFC 3030, 2); the start where it is not that. The size is in `work.number`.
#[inline(always)]
unsafe fn chunk(work: *mut Work, rest: u64, to: u64) -> u64 {
    const LAST: u64 = u64::from_le_bytes(*b"last\0\0\0\0");
    const CASES: u64 = 0x20_20_20_20;
    // SAFETY: the caller's promise.
    unsafe {
        let start = scan::span(work, rest, to, BLANK);
        let end = scan::number(work, start, to);
        if end == start {
            return rest;
        }
        let size = get!(work.number);
        let last = scan::span(work, end, to, BLANK);
        set!(work.number, size);
        let is_last = last != end && to - last >= 4 && (word(work, last) | CASES) & 0xffff_ffff == LAST;
        set!(work.last, u64::from(is_last));
        if is_last { last + 4 } else { end }
    }
}

/// Where numbers with blanks between them end; the start where there are none. The first is in `work.number`.
#[inline(always)]
unsafe fn numbers(work: *mut Work, rest: u64, to: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let first = scan::span(work, rest, to, BLANK);
        let end = scan::number(work, first, to);
        if end == first {
            return rest;
        }
        let size = get!(work.number);
        let second = scan::span(work, end, to, BLANK);
        let end = scan::number(work, second, to);
        set!(work.number, size);
        end
    }
}
