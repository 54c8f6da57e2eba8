//! Words that several processors change at a time. `core`'s atomic types have no such operations on this target, which can
//! do no more than these (Linux 5.12).

use core::intrinsics::{AtomicOrdering, atomic_xadd, atomic_xchg};

/// Adds to a word, wrapping around.
///
/// # Safety
/// The word belongs to a map value.
#[inline(always)]
pub unsafe fn add(word: *mut u64, number: u64) {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(word, number) };
}

/// Sets a word; what it was.
///
/// # Safety
/// As of [`add`].
#[inline(always)]
pub unsafe fn swap(word: *mut u64, number: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::Relaxed }>(word, number) }
}
