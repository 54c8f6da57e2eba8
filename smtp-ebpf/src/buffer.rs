//! Copies bytes of a call, from where they are.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use smtp_ebpf::event::{CaptureMiss, WINDOW_LENGTH};

use crate::buffer_location::{self, Array, BufferLocation, BufferSource, Part};
use crate::kernel::{Sock, copy_kernel, copy_user, probe_kernel, probe_user};

/// Most parts of a vector (`UIO_MAXIOV`, `include/uapi/linux/uio.h`).
pub const MAX_PARTS: u64 = 1024;

/// The bytes of a call, and the window of them that is copied; in a map value.
#[repr(C)]
pub struct Walk {
    place: BufferLocation,
    /// Bytes that the call moved.
    length: u64,
    /// The window: from this byte of the call on, before this one.
    from: u64,
    to: u64,
    /// Bytes of the vector that are done.
    done: u64,
    fault: u32,
    /// See [`clamped`].
    cell: u64,
}

/// Finds the bytes of a call that moved so many.
///
/// # Safety
/// `walk` is a map value.
#[inline(always)]
pub unsafe fn locate(walk: *mut Walk, sock: Sock, locate: BufferSource, length: u32) {
    // SAFETY: the caller's promise. What is written volatile stays in memory: the verifier then sees one way on.
    unsafe {
        buffer_location::find(&raw mut (*walk).place, sock, locate, length);
        (&raw mut (*walk).length).write_volatile(u64::from(length));
    }
}

/// The bytes of a call that moved so many are in the caller's memory, in one piece.
///
/// # Safety
/// `walk` is a map value.
#[inline(always)]
pub unsafe fn locate_plain(walk: *mut Walk, address: u64, length: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        (&raw mut (*walk).place).write_volatile(BufferLocation::buffer(address));
        (&raw mut (*walk).length).write_volatile(length);
    }
}

/// Leaves all of the call's bytes where they are, for this cause.
///
/// # Safety
/// `walk` is a map value.
#[inline(always)]
pub unsafe fn withhold(walk: *mut Walk, cause: CaptureMiss) {
    // SAFETY: the caller's promise.
    unsafe { (&raw mut (*walk).place.unseen).write_volatile(cause) };
}

/// Why the call's bytes cannot be copied, unless [`CaptureMiss::None`].
///
/// # Safety
/// `walk` is a map value in which a call was located.
#[inline(always)]
pub unsafe fn cause(walk: *const Walk) -> CaptureMiss {
    // SAFETY: the caller's promise.
    unsafe { (&raw const (*walk).place.unseen).read_volatile() }
}

/// The call's bytes are in one piece of the caller's memory: where. Zero: they are not, or cannot be copied.
///
/// # Safety
/// `walk` is a map value in which a call was located.
#[inline(always)]
pub unsafe fn plain(walk: *const Walk) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let is_plain = matches!((&raw const (*walk).place.array).read_volatile(), Array::None)
            && matches!((&raw const (*walk).place.unseen).read_volatile(), CaptureMiss::None)
            && (&raw const (*walk).place.bytes_in_kernel).read_volatile() == 0;
        if is_plain {
            (&raw const (*walk).place.address).read_volatile() + (&raw const (*walk).place.skip).read_volatile()
        } else {
            0
        }
    }
}

/// Copies bytes of the call from one on and before another; why not, where they could not be copied.
///
/// # Safety
/// `walk` is a map value in which a call was located. `destination` is of a map value, too, and has room for
/// twice [`WINDOW_LENGTH`] bytes: the verifier adds the longest part to the last place.
#[inline(always)]
pub unsafe fn copy(walk: *mut Walk, destination: *mut u8, from: u64, to: u64) -> CaptureMiss {
    // SAFETY: the caller's promise.
    unsafe {
        let array = (&raw const (*walk).place.array).read_volatile();
        if let Array::None = array {
            let address = (&raw const (*walk).place.address).read_volatile();
            let kernels = (&raw const (*walk).place.bytes_in_kernel).read_volatile() != 0;
            let length = clamped(walk, to - from, WINDOW_LENGTH as u64);
            let start = address + (&raw const (*walk).place.skip).read_volatile() + from;
            return if copy_memory(destination, length as u32, start, kernels) {
                CaptureMiss::None
            } else {
                CaptureMiss::Fault
            };
        }
        (&raw mut (*walk).from).write_volatile(from);
        (&raw mut (*walk).to).write_volatile(to);
        (&raw mut (*walk).done).write_volatile(0);
        (&raw mut (*walk).fault).write_volatile(0);
        let parts = (&raw const (*walk).place.parts).read_volatile();
        let mut walking = Walking { walk, destination };
        bpf_loop(at_most(parts, MAX_PARTS) as u32, walk_part as *mut c_void, (&raw mut walking).cast(), 0);
        if (&raw const (*walk).done).read_volatile() < to {
            return CaptureMiss::Vector;
        }
        if (&raw const (*walk).fault).read_volatile() != 0 { CaptureMiss::Fault } else { CaptureMiss::None }
    }
}

/// What a step through a vector is given.
#[repr(C)]
struct Walking {
    walk: *mut Walk,
    destination: *mut u8,
}

/// Copies what a vector's part has of the window.
unsafe extern "C" fn walk_part(index: u64, walking: *mut Walking) -> i64 {
    // SAFETY: `copy` passes its own; what is copied where is clamped to the window's room.
    unsafe {
        let Walking { walk, destination } = *walking;
        let done = (&raw const (*walk).done).read_volatile();
        let length = (&raw const (*walk).length).read_volatile();
        if done >= length {
            return 1;
        }
        let place = &raw const (*walk).place;
        let address = (&raw const (*place).address).read_volatile() + index * size_of::<Part>() as u64;
        let part = match (&raw const (*place).array).read_volatile() {
            Array::Kernel => probe_kernel::<Part>(address),
            _ => probe_user::<Part>(address),
        };
        let Some(part) = part else {
            (&raw mut (*walk).fault).write_volatile(1);
            return 1;
        };
        let skip = if index == 0 { (&raw const (*place).skip).read_volatile() } else { 0 };
        let size = at_most(part.length.saturating_sub(skip), length - done);

        let kernels = (&raw const (*place).bytes_in_kernel).read_volatile() != 0;
        let (from, to) = ((&raw const (*walk).from).read_volatile(), (&raw const (*walk).to).read_volatile());
        let start = at_least(done, from);
        let end = at_most(done + size, to);
        if start < end {
            let at = clamped(walk, start - from, WINDOW_LENGTH as u64);
            let take = clamped(walk, end - start, WINDOW_LENGTH as u64);
            let source = part.base + skip + (start - done);
            if !copy_memory(destination.add(at as usize), take as u32, source, kernels) {
                (&raw mut (*walk).fault).write_volatile(1);
            }
        }
        (&raw mut (*walk).done).write_volatile(done + size);
        0
    }
}

/// A value cut to `limit`, in a form that the verifier sees to be cut.
///
/// It goes through memory: else the compiler, which may know the bound already, leaves the check out or makes it
/// on another register than the one that is used.
///
/// # Safety
/// `walk` is a map value.
#[inline(always)]
unsafe fn clamped(walk: *mut Walk, value: u64, limit: u64) -> u64 {
    // SAFETY: the caller's promise.
    let value = unsafe {
        let cell = &raw mut (*walk).cell;
        cell.write_volatile(value);
        cell.read_volatile()
    };
    at_most(value, limit)
}

/// Copies memory; whether it could be read.
///
/// # Safety
/// `length` bytes at `destination` belong to a map value: the verifier checks it.
#[inline(always)]
unsafe fn copy_memory(destination: *mut u8, length: u32, address: u64, kernels: bool) -> bool {
    // SAFETY: the caller's promise.
    unsafe { if kernels { copy_kernel(destination, length, address) } else { copy_user(destination, length, address) } }
}

#[inline(always)]
pub fn at_most(value: u64, limit: u64) -> u64 {
    if value > limit { limit } else { value }
}

#[inline(always)]
fn at_least(value: u64, limit: u64) -> u64 {
    if value < limit { limit } else { value }
}
