//! The working memory of a step, and the loop of both worlds.

use core::ffi::c_void;

#[cfg(not(target_arch = "bpf"))]
use super::Crossing;
#[cfg(not(target_arch = "bpf"))]
use crate::event::{Segment, SegmentKind};
use crate::event::{Transfer, WINDOW_LENGTH};

/// Bytes of an unfinished line that wait for the rest of it.
pub const HOLD: usize = 256;

/// Bytes behind the call's: room for what a search reads, and for a part of a vector that begins at the last byte, as far as
/// the verifier knows.
const SLACK: usize = WINDOW_LENGTH + 256;

/// Segments of one step take at most this; behind it there is room for one more text. It is enough for lines of one byte
/// each that are withheld, each in a segment of its own; with more room a value would be too long for a map of each CPU.
pub const OUT_LIMIT: usize = 17 * 1024;
const OUT_ROOM: usize = OUT_LIMIT + WINDOW_LENGTH + HOLD;

/// Segments of one step are at most so many bytes.
pub const OUT_LENGTH: usize = OUT_ROOM;

/// All bytes that a step looks at.
pub const BYTES: usize = HOLD + WINDOW_LENGTH;

/// Reads a variable that stands in memory. What the verifier knew of it is forgotten: it follows one way on.
macro_rules! get {
    ($base:ident.$($field:ident).+ $([$index:tt])?) => {
        (&raw const (*$base).$($field).+ $([$index])?).read_volatile()
    };
}

/// Writes a variable that stands in memory.
macro_rules! set {
    ($base:ident.$($field:ident).+ $([$index:tt])?, $value:expr) => {{
        let value = $value;
        (&raw mut (*$base).$($field).+ $([$index])?).write_volatile(value)
    }};
}

pub(super) use {get, set};

/// What a step works with.
#[repr(C)]
pub struct Work {
    /// What waited of the calls before ends at [`HOLD`]; there the call's own bytes begin.
    pub bytes: [u8; BYTES + SLACK],
    /// The record that the segments follow.
    pub record: [u64; size_of::<Transfer>() / size_of::<u64>()],
    /// Segments of what crosses, where it is not all of the call.
    pub out: [u8; OUT_ROOM],
    /// Where the next byte to be looked at is, and where they end.
    pub(super) cursor: u64,
    pub(super) end: u64,
    /// The line or content at the cursor: where it ends.
    pub(super) line_end: u64,
    pub(super) text_end: u64,
    /// See [`told`](super::told).
    pub(super) run: Run,
    pub(super) out_length: u64,
    /// When the first of the bytes that waited came; zero: none did.
    pub(super) begun: u64,
    /// A search: from, to, for what; what it found.
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) pattern: u64,
    pub(super) found: u64,
    pub(super) number: u64,
    /// A line as it was classified.
    pub(super) verb: u64,
    pub(super) cross: u64,
    pub(super) full: u64,
    /// How the rest of it crosses, where it is a long one: a [`Form`](super::line::Form).
    pub(super) form: u64,
    /// Where in its parameters it ends: a state of [`words`](super::scan::words).
    pub(super) state: u64,
    /// It is a last chunk.
    pub(super) last: u64,
    pub(super) time: u64,
    pub(super) behind: u64,
    /// Who speaks in the call, the position behind it, and whether that is known: they are kept here for the end of the step.
    pub(super) speaker: u64,
    pub(super) next: u64,
    pub(super) known: u64,
    /// Roles were exchanged in this step.
    pub(super) turned: u64,
    /// An index on its way through memory, so that the verifier sees it cut where it is used.
    pub(super) index: u64,
    pub(super) size: u64,
}

/// What is told next, while it grows.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Run {
    /// A [`SegmentKind`], or zero: nothing.
    pub(super) kind: u64,
    pub(super) flags: u64,
    /// Of text: where it stands. Of others: nothing.
    pub(super) from: u64,
    pub(super) length: u64,
    pub(super) lines: u64,
    /// It waited since then; zero: it did not.
    pub(super) begun: u64,
}

impl Work {
    /// All zero.
    // SAFETY: all of it is numbers.
    pub const EMPTY: Self = unsafe { core::mem::zeroed() };

    /// Puts in the bytes of a call.
    #[cfg(not(target_arch = "bpf"))]
    pub(super) fn load(&mut self, bytes: &[u8]) {
        self.bytes[HOLD..HOLD + bytes.len()].copy_from_slice(bytes);
        // What another call has left behind them tells nothing.
        self.bytes[HOLD + bytes.len()..].fill(0xff);
    }

    /// The segments of what crosses of a call of this length.
    #[cfg(not(target_arch = "bpf"))]
    pub(super) fn segments(&mut self, crossing: Crossing, length: usize) -> &[u8] {
        match crossing {
            Crossing::Segments(size) => &self.out[..size as usize],
            Crossing::Whole => {
                let header =
                    Segment { kind: SegmentKind::Text as u8, flags: 0, count: length as u16, length: length as u32 };
                self.out[..size_of::<Segment>()].copy_from_slice(&header.to_bytes());
                let text = size_of::<Segment>();
                self.out[text..text + length].copy_from_slice(&self.bytes[HOLD..HOLD + length]);
                &self.out[..text + length]
            }
        }
    }
}

/// A byte of the working memory.
///
/// # Safety
/// `work` is valid.
#[inline(always)]
pub(super) unsafe fn byte(work: *mut Work, at: u64) -> u8 {
    // SAFETY: the index is cut; there is slack behind it.
    unsafe { (&raw const (*work).bytes).cast::<u8>().add(cut(work, at, BYTES as u64) as usize).read_volatile() }
}

/// Eight bytes of the working memory, the first as the lowest of the number.
///
/// # Safety
/// `work` is valid.
#[inline(always)]
pub(super) unsafe fn word(work: *mut Work, at: u64) -> u64 {
    // SAFETY: the index is cut; there is slack behind it.
    unsafe {
        let at = cut(work, at, BYTES as u64) as usize;
        load((&raw const (*work).bytes).cast::<u8>().add(at))
    }
}

/// Eight bytes wherever they stand, the first as the lowest of the number.
///
/// For eBPF it is one instruction, where the compiler would put the number together byte by byte: it does not know that the
/// processors allow it, and the verifier with them (`CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS`).
///
/// # Safety
/// They may be read.
#[inline(always)]
pub(super) unsafe fn load(from: *const u8) -> u64 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's promise.
    unsafe {
        let word: u64;
        core::arch::asm!("{word} = *(u64 *)({from} + 0)", word = out(reg) word, from = in(reg) from, options(pure, readonly, nostack));
        u64::from_le(word)
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe {
        u64::from_le(from.cast::<u64>().read_unaligned())
    }
}

/// Writes them, likewise.
///
/// # Safety
/// They may be written.
#[inline(always)]
pub(super) unsafe fn store(to: *mut u8, word: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!("*(u64 *)({to} + 0) = {word}", word = in(reg) word.to_le(), to = in(reg) to, options(nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe {
        to.cast::<u64>().write_unaligned(word.to_le());
    }
}

/// Copies as many bytes as may wait.
#[inline(always)]
pub(super) unsafe fn copy_words(to: *mut u64, from: *const u64) {
    let mut at = 0;
    while at < HOLD / size_of::<u64>() {
        // SAFETY: the caller's promise.
        unsafe { store(to.add(at).cast(), load(from.add(at).cast())) };
        at += 1;
    }
}

/// A number cut to a limit, in a form that the verifier sees to be cut: else the compiler, which may know the bound
/// already, leaves the check out or makes it on another register than the one that is used.
///
/// # Safety
/// `work` is valid.
#[inline(always)]
pub(super) unsafe fn cut(work: *mut Work, value: u64, limit: u64) -> u64 {
    // SAFETY: the caller's promise.
    let value = unsafe {
        set!(work.index, value);
        get!(work.index)
    };
    if value > limit { limit } else { value }
}

/// What a step of a loop answers: 1 ends the loop. It goes through memory, because the verifier wants to see that it is 0 or 1,
/// and the compiler leaves out what it knows already.
///
/// # Safety
/// `work` is valid.
#[inline(always)]
pub(super) unsafe fn stops(work: *mut Work, ends: bool) -> i64 {
    // SAFETY: the caller's promise.
    unsafe {
        set!(work.index, u64::from(ends));
        i64::from(get!(work.index) != 0)
    }
}

/// Calls `step` with 0, 1, 2 … at most `times` times, until it answers 1.
///
/// # Safety
/// `step` may be called with this context.
#[inline(always)]
pub(super) unsafe fn repeat(times: u64, step: unsafe extern "C" fn(u64, *mut Context) -> i64, context: &mut Context) {
    let context: *mut Context = context;
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's promise.
    unsafe {
        aya_ebpf::helpers::generated::bpf_loop(times as u32, step as *mut c_void, context.cast(), 0);
    }
    #[cfg(not(target_arch = "bpf"))]
    for index in 0..times {
        let _: *mut c_void = context.cast();
        // SAFETY: the caller's promise.
        if unsafe { step(index, context) } != 0 {
            break;
        }
    }
}

/// What a step of a loop is given.
#[repr(C)]
pub(super) struct Context {
    pub(super) work: *mut Work,
    pub(super) dialogue: *mut super::Dialogue,
}
