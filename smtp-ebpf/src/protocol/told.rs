//! Segments of a step, as they are told. What is alike is joined: a run of known lines is one text.

use super::Crossing;
use super::work::{BYTES, HOLD, OUT_LIMIT, Run, Work, cut, get, set, store};
use crate::event::{CaptureMiss, Segment, SegmentKind};

const NOTHING: Run = Run { kind: 0, flags: 0, from: 0, length: 0, lines: 0, begun: 0 };

/// Begins a step whose call has so many bytes.
#[inline(always)]
pub unsafe fn begin(work: *mut Work, length: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        set!(work.cursor, HOLD as u64);
        set!(work.end, HOLD as u64 + u64::from(length));
        set!(work.run, NOTHING);
        set!(work.out_length, 0);
        set!(work.begun, 0);
        set!(work.turned, 0);
    }
}

/// Ends a step.
#[inline(always)]
pub unsafe fn end(work: *mut Work) -> Crossing {
    // SAFETY: the caller's promise.
    unsafe {
        let whole = get!(work.run.kind) == SegmentKind::Text as u64
            && get!(work.run.from) == HOLD as u64
            && get!(work.run.from) + get!(work.run.length) == get!(work.end)
            && get!(work.run.begun) == 0
            && get!(work.out_length) == 0;
        if whole {
            return Crossing::Whole;
        }
        flush(work);
        Crossing::Segments(get!(work.out_length) as u32)
    }
}

/// There is no room for more, should all bytes that are left cross.
#[inline(always)]
pub unsafe fn is_full(work: *mut Work) -> bool {
    /// What a part of a step tells beside its text.
    const SEGMENTS: u64 = 256;
    // SAFETY: the caller's promise.
    unsafe {
        let text = if get!(work.run.kind) == SegmentKind::Text as u64 { get!(work.run.length) } else { 0 };
        get!(work.out_length) + text + get!(work.end) - get!(work.cursor) + SEGMENTS > OUT_LIMIT as u64
    }
}

/// Bytes from one place to another cross.
#[inline(always)]
pub unsafe fn text(work: *mut Work, from: u64, to: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        if to <= from {
            return;
        }
        let joins = get!(work.run.kind) == SegmentKind::Text as u64
            && get!(work.run.from) + get!(work.run.length) == from
            && get!(work.run.begun) == 0
            && get!(work.begun) == 0;
        if joins {
            set!(work.run.length, to - get!(work.run.from));
        } else {
            start(work, SegmentKind::Text, 0);
            set!(work.run.from, from);
            set!(work.run.length, to - from);
        }
    }
}

/// So many bytes of a line are withheld.
#[inline(always)]
pub unsafe fn withheld(work: *mut Work, length: u64, flags: u8) {
    // SAFETY: the caller's promise.
    unsafe {
        if length != 0 {
            start(work, SegmentKind::Withheld, flags);
            set!(work.run.length, length);
        }
    }
}

/// So many octets of content were said.
#[inline(always)]
pub unsafe fn content(work: *mut Work, length: u64) {
    // SAFETY: the caller's promise.
    unsafe { grow(work, SegmentKind::Content, 0, length, 0) }
}

/// So many bytes of ciphertext were said.
#[inline(always)]
pub unsafe fn ciphertext(work: *mut Work, length: u64) {
    // SAFETY: the caller's promise.
    unsafe { grow(work, SegmentKind::Ciphertext, 0, length, 0) }
}

/// So many bytes are not told for this cause; so many lines end in them.
#[inline(always)]
pub unsafe fn uncaptured(work: *mut Work, cause: CaptureMiss, length: u64, lines: u64) {
    // SAFETY: the caller's promise.
    unsafe { grow(work, SegmentKind::Uncaptured, cause as u8, length, lines) }
}

#[inline(always)]
unsafe fn grow(work: *mut Work, kind: SegmentKind, flags: u8, length: u64, lines: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        if length == 0 {
            return;
        }
        if get!(work.run.kind) != kind as u64 || get!(work.run.flags) != u64::from(flags) {
            start(work, kind, flags);
        }
        set!(work.run.length, get!(work.run.length) + length);
        set!(work.run.lines, get!(work.run.lines) + lines);
    }
}

#[inline(always)]
unsafe fn start(work: *mut Work, kind: SegmentKind, flags: u8) {
    // SAFETY: the caller's promise.
    unsafe {
        flush(work);
        set!(work.run.kind, kind as u64);
        set!(work.run.flags, u64::from(flags));
        set!(work.run.from, 0);
        set!(work.run.length, 0);
        set!(work.run.lines, 0);
        set!(work.run.begun, get!(work.begun));
        set!(work.begun, 0);
    }
}

/// Writes down what has grown.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(export_name = "told_flush"))]
unsafe extern "C" fn flush(work: *mut Work) -> u64 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise; what is copied where is cut to the room, which is longer by the longest text.
    unsafe {
        let kind = get!(work.run.kind);
        if kind == 0 {
            return 0;
        }
        let begun = get!(work.run.begun);
        if begun != 0 {
            append(work, SegmentKind::Begun as u64, 0, size_of::<u64>() as u64, 0);
            let place = cut(work, get!(work.out_length), OUT_LIMIT as u64) as usize;
            store((&raw mut (*work).out).cast::<u8>().add(place), begun.to_le());
            set!(work.out_length, get!(work.out_length) + size_of::<u64>() as u64);
        }
        let length = get!(work.run.length);
        if kind != SegmentKind::Text as u64 {
            append(work, kind, get!(work.run.flags), get!(work.run.lines), length);
            set!(work.run.kind, 0);
            return 0;
        }
        append(work, kind, 0, length, length);
        let from = cut(work, get!(work.run.from), BYTES as u64) as usize;
        let place = cut(work, get!(work.out_length), OUT_LIMIT as u64) as usize;
        set!(work.size, length);
        let size = get!(work.size);
        let size = if size > BYTES as u64 { BYTES as u64 } else { size };
        let to = (&raw mut (*work).out).cast::<u8>().add(place);
        let from = (&raw const (*work).bytes).cast::<u8>().add(from);
        #[cfg(target_arch = "bpf")]
        if size != 0 {
            aya_ebpf::helpers::generated::bpf_probe_read_kernel(to.cast(), size as u32, from.cast());
        }
        #[cfg(not(target_arch = "bpf"))]
        core::ptr::copy_nonoverlapping(from, to, size as usize);
        set!(work.out_length, get!(work.out_length) + length);
        set!(work.run.kind, 0);
    }
    0
}

#[inline(always)]
unsafe fn append(work: *mut Work, kind: u64, flags: u64, count: u64, length: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let place = cut(work, get!(work.out_length), OUT_LIMIT as u64) as usize;
        let segment = Segment { kind: kind as u8, flags: flags as u8, count: count as u16, length: length as u32 };
        store((&raw mut (*work).out).cast::<u8>().add(place), segment.to_word().to_le());
        set!(work.out_length, get!(work.out_length) + size_of::<Segment>() as u64);
    }
}
