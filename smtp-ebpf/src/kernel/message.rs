//! Messages: where the kernel's own functions have the bytes that they move.

use super::{ITERATORS, OFFSETS, injected, load, offset, probe_kernel};

/// A `struct msghdr`, with which the kernel's own functions send and receive.
#[derive(Clone, Copy)]
pub struct Message(*const u8);

impl Message {
    /// The message that a hooked function is called with.
    #[inline(always)]
    pub fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    #[inline(always)]
    pub fn flags(self) -> u32 {
        // SAFETY: msg_flags is an unsigned int of struct msghdr.
        unsafe { load(self.0, offset(&OFFSETS.message_flags)) }
    }

    /// Where its bytes are, or are to go. The iterator moves on while the call works: to be asked at its entry.
    #[inline(always)]
    pub fn iterator(self) -> Iterator {
        // SAFETY: all are members of the struct iov_iter in struct msghdr.
        let (kind, skip, parts) = unsafe {
            (
                u32::from(load::<u8>(self.0, offset(&OFFSETS.message_iterator))),
                load::<u64>(self.0, offset(&OFFSETS.message_offset)),
                load(self.0, offset(&OFFSETS.message_parts)),
            )
        };
        // A number, where a load would be a pointer that the verifier keeps from being added to.
        let address = |field| probe_kernel::<u64>(self.0 as u64 + offset(field) as u64).unwrap_or(0);
        if kind == injected(&ITERATORS.buffer) {
            Iterator::Buffer { address: address(&OFFSETS.message_buffer) + skip }
        } else if kind == injected(&ITERATORS.vector) || kind == injected(&ITERATORS.kernel_vector) {
            let kernels = kind == injected(&ITERATORS.kernel_vector);
            Iterator::Vector { address: address(&OFFSETS.message_vector), parts, skip, kernels }
        } else {
            Iterator::Pages
        }
    }
}

/// A `struct iov_iter`.
#[derive(Clone, Copy)]
pub enum Iterator {
    /// One buffer of the caller.
    Buffer { address: u64 },
    /// An array of `struct iovec`, which stands in the kernel's memory; so do the buffers, or they are the caller's.
    Vector { address: u64, parts: u64, skip: u64, kernels: bool },
    /// Anything else.
    Pages,
}
