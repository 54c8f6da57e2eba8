//! Searches in the working memory, in words where they may be long.

use super::classes::{BLANK, CLASSES, MECHANISM, PRINTABLE};
use super::work::{BYTES, Context, Work, byte, cut, get, load, repeat, set};

/// Bytes that a step of a search looks at.
const STRIDE: u64 = 64;
const WORD: u64 = size_of::<u64>() as u64;

/// A byte of each of a word's.
pub const EACH: u64 = 0x01_01_01_01_01_01_01_01;

/// The bit that tells a letter's case.
pub const CASES: u64 = 0x20 * EACH;

/// A word of LFs.
pub const LFS: u64 = b'\n' as u64 * EACH;

/// The highest bit of each byte that is zero.
#[inline(always)]
pub fn zeros(word: u64) -> u64 {
    const LOW: u64 = 0x7f * EACH;
    !(((word & LOW) + LOW) | word | LOW)
}

/// Which byte is the first of those whose highest bit is set; there is one.
#[inline(always)]
pub fn first(highest: u64) -> u64 {
    // The lowest of them, moved to the lowest bit of its byte, moves that byte's number to the top.
    let lowest = (highest & highest.wrapping_neg()) >> 7;
    lowest.wrapping_mul(0x00_01_02_03_04_05_06_07) >> 56
}

#[inline(always)]
unsafe fn context(work: *mut Work) -> Context {
    Context { work, dialogue: core::ptr::null_mut() }
}

/// Where a byte stands first, from one place on and before another; the other where it does not.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "scan_find"))]
pub unsafe extern "C" fn find(work: *mut Work, from: u64, to: u64, byte: u8) -> u64 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        set!(work.from, from);
        set!(work.to, to);
        set!(work.pattern, u64::from(byte) * EACH);
        set!(work.found, to);
        repeat(to.saturating_sub(from).div_ceil(STRIDE), find_step, &mut context(work));
        get!(work.found)
    }
}

unsafe extern "C" fn find_step(index: u64, context: *mut Context) -> i64 {
    // SAFETY: `find` passes its own; there is slack behind the bytes.
    unsafe {
        let work = (*context).work;
        let (at, to) = (get!(work.from) + index * STRIDE, get!(work.to));
        if at >= to {
            return 1;
        }
        let pattern = get!(work.pattern);
        let start = cut(work, at, BYTES as u64);
        let bytes = (&raw const (*work).bytes).cast::<u8>().add(start as usize);
        let mut ahead = 0;
        while ahead < STRIDE {
            let word = load(bytes.add(ahead as usize));
            let hits = zeros(word ^ pattern);
            if hits != 0 {
                let place = at + ahead + first(hits);
                set!(work.found, if place < to { place } else { to });
                return 1;
            }
            ahead += WORD;
        }
        0
    }
}

/// How many lines end from one place on and before another.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "scan_lines"))]
pub unsafe extern "C" fn lines(work: *mut Work, from: u64, to: u64) -> u64 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        set!(work.from, from);
        set!(work.to, to);
        set!(work.number, 0);
        repeat(to.saturating_sub(from).div_ceil(WORD), lines_step, &mut context(work));
        get!(work.number)
    }
}

unsafe extern "C" fn lines_step(index: u64, context: *mut Context) -> i64 {
    // SAFETY: `lines` passes its own.
    unsafe {
        let work = (*context).work;
        let (at, to) = (get!(work.from) + index * WORD, get!(work.to));
        if at >= to {
            return 1;
        }
        let mut hits = zeros(super::work::word(work, at) ^ (u64::from(b'\n') * EACH)) >> 7;
        if to - at < WORD {
            hits &= (1 << (8 * ((to - at) & 7))) - 1;
        }
        set!(work.number, get!(work.number) + (hits.wrapping_mul(EACH) >> 56));
        0
    }
}

/// The first place from one on and before another whose byte is not of these classes.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "scan_span"))]
pub unsafe extern "C" fn span(work: *mut Work, from: u64, to: u64, classes: u8) -> u64 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        set!(work.from, from);
        set!(work.to, to);
        set!(work.pattern, u64::from(classes));
        set!(work.found, to);
        repeat(to.saturating_sub(from).div_ceil(SPAN), span_step, &mut context(work));
        get!(work.found)
    }
}

/// Bytes that a step of a span looks at.
const SPAN: u64 = 8;

unsafe extern "C" fn span_step(index: u64, context: *mut Context) -> i64 {
    // SAFETY: `span` passes its own.
    unsafe {
        let work = (*context).work;
        let (at, to) = (get!(work.from) + index * SPAN, get!(work.to));
        if at >= to {
            return 1;
        }
        let classes = get!(work.pattern) as u8;
        let mut word = super::work::word(work, at);
        let mut ahead = 0;
        while ahead < SPAN {
            if CLASSES[(word & 0xff) as usize] & classes == 0 {
                let place = at + ahead;
                set!(work.found, if place < to { place } else { to });
                return 1;
            }
            word >>= 8;
            ahead += 1;
        }
        0
    }
}

/// States of [`words`]: behind a path, between words, in a keyword, in a value. Keywords need values, or they do not.
pub mod words {
    pub const BEHIND: u64 = 0;
    pub const BETWEEN: u64 = 1;
    pub const KEYWORD: u64 = 2;
    pub const VALUE: u64 = 3;
    pub const NEED_VALUES: u64 = 4;
}

/// Reads words `KEYWORD` or `KEYWORD=VALUE` with blanks between them (RFC 5321, 4.1.2), from a state on: where they end. The
/// state that follows is in `work.state`.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "scan_words"))]
pub unsafe extern "C" fn words(work: *mut Work, from: u64, to: u64, state: u64) -> u64 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        set!(work.from, from);
        set!(work.to, to);
        set!(work.state, state);
        set!(work.found, from);
        repeat(to.saturating_sub(from), words_step, &mut context(work));
        get!(work.found)
    }
}

unsafe extern "C" fn words_step(index: u64, context: *mut Context) -> i64 {
    // SAFETY: `words` passes its own.
    unsafe {
        let work = (*context).work;
        let at = get!(work.from) + index;
        if at >= get!(work.to) {
            return 1;
        }
        let byte = byte(work, at);
        let class = CLASSES[usize::from(byte)];
        let state = get!(work.state);
        let needs = state & words::NEED_VALUES;
        let is = |classes: u8| class & classes != 0;
        let next = match state & 3 {
            words::BEHIND | words::BETWEEN if is(BLANK) => words::BETWEEN,
            words::BETWEEN if is(MECHANISM) => words::KEYWORD,
            words::KEYWORD if is(MECHANISM) => words::KEYWORD,
            words::KEYWORD if byte == b'=' => words::VALUE,
            words::KEYWORD if is(BLANK) && needs == 0 => words::BETWEEN,
            words::VALUE if is(BLANK) => words::BETWEEN,
            words::VALUE if is(PRINTABLE) => words::VALUE,
            _ => return 1,
        };
        set!(work.state, next | needs);
        // A keyword whose value is missing may be anything.
        if next != words::KEYWORD || needs == 0 {
            set!(work.found, at + 1);
        }
        0
    }
}

/// Most digits of a number: it fits into 64 bits.
const MAX_DIGITS: u64 = 19;

/// Reads a decimal number from one place on and before another: where it ends. The number is in `work.number`.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "scan_number"))]
pub unsafe extern "C" fn number(work: *mut Work, from: u64, to: u64) -> u64 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        set!(work.from, from);
        set!(work.to, to);
        set!(work.number, 0);
        set!(work.found, from);
        repeat(MAX_DIGITS, number_step, &mut context(work));
        get!(work.found)
    }
}

unsafe extern "C" fn number_step(index: u64, context: *mut Context) -> i64 {
    // SAFETY: `number` passes its own.
    unsafe {
        let work = (*context).work;
        let at = get!(work.from) + index;
        let digit = byte(work, at);
        if at >= get!(work.to) || !digit.is_ascii_digit() {
            return 1;
        }
        set!(work.number, get!(work.number).wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
        set!(work.found, at + 1);
        0
    }
}

/// A hash of the word from one place on and before another, in which case does not matter (FNV-1a).
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "scan_hash"))]
pub unsafe extern "C" fn hash(work: *mut Work, from: u64, to: u64) -> u64 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        set!(work.from, from);
        set!(work.to, to);
        set!(work.number, FNV_OFFSET);
        repeat(to.saturating_sub(from), hash_step, &mut context(work));
        get!(work.number)
    }
}

unsafe extern "C" fn hash_step(index: u64, context: *mut Context) -> i64 {
    // SAFETY: `hash` passes its own.
    unsafe {
        let work = (*context).work;
        let at = get!(work.from) + index;
        if at >= get!(work.to) {
            return 1;
        }
        set!(work.number, hash_byte(get!(work.number), byte(work, at)));
        0
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

#[inline(always)]
const fn hash_byte(hash: u64, byte: u8) -> u64 {
    let upper = if byte >= b'a' && byte <= b'z' { byte - 0x20 } else { byte };
    (hash ^ upper as u64).wrapping_mul(0x0000_0100_0000_01b3)
}

/// The hash of a word.
pub const fn hash_of(word: &[u8]) -> u64 {
    let mut hash = FNV_OFFSET;
    let mut at = 0;
    while at < word.len() {
        hash = hash_byte(hash, word[at]);
        at += 1;
    }
    hash
}

/// Where a dot stands first, from one place on and before another, that has control bytes on both sides: all forms of an
/// end of data have. The other place where none does. The byte before the first place is looked at, too.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "scan_find_dot"))]
pub unsafe extern "C" fn find_dot(work: *mut Work, from: u64, to: u64) -> u64 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        set!(work.from, from);
        set!(work.to, to);
        set!(work.found, to);
        repeat(to.saturating_sub(from).div_ceil(DOTS), dot_step, &mut context(work));
        get!(work.found)
    }
}

/// A word of dots.
const ALL_DOTS: u64 = b'.' as u64 * EACH;

/// The highest bit of each byte of a word.
const HIGHEST: u64 = 0x80 * EACH;

/// Bytes that a step of a search for dots looks at.
const DOTS: u64 = 256;

unsafe extern "C" fn dot_step(index: u64, context: *mut Context) -> i64 {
    // SAFETY: `find_dot` passes its own; bytes that waited stand before the call's, and there is slack behind them.
    unsafe {
        let work = (*context).work;
        let (at, to) = (get!(work.from) + index * DOTS, get!(work.to));
        if at >= to {
            return 1;
        }
        let start = cut(work, at - 1, BYTES as u64);
        let bytes = (&raw const (*work).bytes).cast::<u8>().add(start as usize);
        let word = |place: u64| load(bytes.add(place as usize));
        let mut ahead = 0;
        while ahead < DOTS {
            let (one, two) = (word(ahead + 1) ^ ALL_DOTS, word(ahead + 1 + WORD) ^ ALL_DOTS);
            // Two words at once: most have none.
            if (one.wrapping_sub(EACH) & !one | two.wrapping_sub(EACH) & !two) & HIGHEST != 0 {
                let mut place = ahead;
                while place < ahead + 2 * WORD {
                    let dots = zeros(word(place + 1) ^ ALL_DOTS);
                    let (before, behind) = (zeros(word(place) & (0xf0 * EACH)), zeros(word(place + 2) & (0xf0 * EACH)));
                    let hits = dots & before & behind;
                    if hits != 0 {
                        let place = at + place + first(hits);
                        set!(work.found, if place < to { place } else { to });
                        return 1;
                    }
                    place += WORD;
                }
            }
            ahead += 2 * WORD;
        }
        0
    }
}
