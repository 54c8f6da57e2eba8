//! Lines of the client, by their form.

use super::classes::{BLANK, DOMAIN, MECHANISM, PATH, PRINTABLE, SIGN};
use super::work::{Work, byte, get, set, word};
use super::{mechanisms, scan, verb};

/// Most bytes of a line that cross. RFC 5321 (4.5.3.1.4) wants 512, its extensions ask for more, and servers take 2,048.
pub const MAX_LINE: u64 = 2048;

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
        let verb = verb::of_line(work, from, to, first != 0);
        set!(work.verb, verb);
        set!(work.cross, 0);
        set!(work.full, 0);
        if to == from {
            set!(work.verb, verb::EMPTY);
            return 0;
        }
        let verb = get!(work.verb);
        let rest = from + verb::length(verb);
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
            verb::ATTRIBUTES => {
                let equals = scan::find(work, rest, to, b'=');
                if equals < to { scan::span(work, rest, to, PRINTABLE) } else { rest }
            }
            verb::BDAT => chunk(work, rest, to),
            verb::BLOCK => numbers(work, rest, to),
            verb::AUTH => {
                let name = scan::span(work, rest, to, BLANK);
                let end = scan::span(work, name, to, MECHANISM);
                let hash = scan::hash(work, name, end);
                if mechanisms::is_one(hash) && (end == to || byte(work, end) == b' ') { end } else { rest }
            }
            _ => rest,
        };
        // Blanks at the end tell nothing.
        let blank = scan::span(work, ends, to, BLANK);
        let whole = blank == to;
        let kind = verb::kind(get!(work.verb));
        let partial = kind == verb::AUTH || kind == verb::MAIL || kind == verb::RCPT;
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
        set!(work.full, u64::from(whole && has_argument(kind, ends - rest)));
        0
    }
}

/// Whether a command that needs an argument has it, and one that takes none has none.
#[inline(always)]
fn has_argument(kind: u64, length: u64) -> bool {
    match kind {
        verb::MAIL | verb::RCPT | verb::HELLO | verb::BDAT => length != 0,
        verb::DATA | verb::RSET | verb::QUIT | verb::NOOP | verb::START_TLS => true,
        _ => false,
    }
}

/// Where `FROM:` or `TO:` with a path and parameters ends; the start where it is not that. Servers forgive blanks, and want no angle
/// brackets: then the argument is one word.
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
        let is_bracketed = byte(work, open) == b'<';
        let close = if is_bracketed { scan::find(work, open, to, b'>') } else { scan::span(work, open, to, PATH) };
        if is_bracketed && close >= to {
            return rest;
        }
        let end = if is_bracketed { close + 1 } else { close };
        let inside = scan::span(work, open, close, PRINTABLE);
        if inside < close {
            return rest;
        }
        // Parameters (RFC 5321, 4.1.2) are words behind a blank.
        if end < to && byte(work, end) == b' ' { scan::span(work, end, to, PATH | BLANK) } else { end }
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
        if is_last { last + 4 } else { end }
    }
}

/// Where numbers with blanks between them end.
#[inline(always)]
unsafe fn numbers(work: *mut Work, rest: u64, to: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let first = scan::span(work, rest, to, BLANK);
        let end = scan::number(work, first, to);
        let second = scan::span(work, end, to, BLANK);
        let end = scan::number(work, second, to);
        if end == to { end } else { rest }
    }
}
