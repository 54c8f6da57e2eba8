//! Messages: where the kernel's own functions have the bytes that they move.

use super::{ITERATORS, OFFSETS, injected, load, offset, probe_kernel};

/// A `struct msghdr`, with which the kernel's own functions send and receive.
#[derive(Clone, Copy)]
pub struct Message {
    pointer: *const u8,
    size: u64,
}

impl Message {
    /// The message that a hooked function was called with, and how many bytes it then had, or had room for.
    #[inline(always)]
    pub fn new(pointer: *const u8, size: u64) -> Self {
        Self { pointer, size }
    }

    #[inline(always)]
    pub fn flags(self) -> u32 {
        // SAFETY: msg_flags is an unsigned int of struct msghdr.
        unsafe { load(self.pointer, offset(&OFFSETS.message_flags)) }
    }

    /// Whether its iterator has moved on by so many bytes since the function was called: what is behind it is the call's.
    #[inline(always)]
    pub fn has_moved(self, length: u32) -> bool {
        // SAFETY: count is an unsigned long of the struct iov_iter in struct msghdr.
        let left: u64 = unsafe { load(self.pointer, offset(&OFFSETS.message_left)) };
        left + u64::from(length) == self.size
    }

    /// Where its iterator stands.
    #[inline(always)]
    pub fn iterator(self) -> Iterator {
        // SAFETY: both are members of the struct iov_iter in struct msghdr.
        let (kind, within) = unsafe {
            (
                u32::from(load::<u8>(self.pointer, offset(&OFFSETS.message_iterator))),
                load::<u64>(self.pointer, offset(&OFFSETS.message_offset)),
            )
        };
        // A number, where a load would be a pointer that the verifier keeps from being added to.
        let address = |field| probe_kernel::<u64>(self.pointer as u64 + offset(field) as u64).unwrap_or(0);
        if kind == injected(&ITERATORS.buffer) {
            Iterator::Buffer { address: address(&OFFSETS.message_buffer) + within }
        } else if kind == injected(&ITERATORS.vector) || kind == injected(&ITERATORS.kernel_vector) {
            let kernels = kind == injected(&ITERATORS.kernel_vector);
            Iterator::Vector { address: address(&OFFSETS.message_vector), within, kernels }
        } else {
            Iterator::Pages
        }
    }
}

/// Where a `struct iov_iter` stands: what was moved is behind it.
#[derive(Clone, Copy)]
pub enum Iterator {
    /// At an address of the caller's one buffer.
    Buffer { address: u64 },
    /// So far within a part, whose `struct iovec` is at an address of the kernel's memory, behind those of the parts that
    /// are done; or at the start of none, behind the last. The buffers are the kernel's too, or the caller's.
    Vector { address: u64, within: u64, kernels: bool },
    /// Anything else.
    Pages,
}
