//! Copies those bytes of a call that are wanted, from where they are.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use smtp_ebpf::event::{HEAD_LENGTH, TAIL_LENGTH, Unseen};

use crate::kernel::{Sock, copy_kernel, copy_user, probe_kernel, probe_user};
use crate::place::{self, Array, Locate, Part, Place};

/// Most parts of a vector (`UIO_MAXIOV`, `include/uapi/linux/uio.h`).
pub const MAX_PARTS: u64 = 1024;

/// Where captured bytes go, in a map value.
#[repr(C)]
pub struct Room {
    /// The head with the tail behind it, and room for a part that begins at the head's last byte.
    bytes: [u8; 2 * HEAD_LENGTH + 2 * TAIL_LENGTH],
    /// See [`Room::clamped`].
    cell: u64,
    walk: Walk,
    /// What was copied.
    pub copied: Copied,
    /// A scan of the bytes: where it starts and ends, what it found, how far it read what it looks for.
    pub start: u64,
    pub end: u64,
    pub found: u64,
    pub number: u64,
    pub state: u32,
}

impl Room {
    /// Its bytes.
    ///
    /// # Safety
    /// `room` is a map value.
    #[inline(always)]
    pub unsafe fn bytes(room: *mut Self) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { (&raw mut (*room).bytes).cast() }
    }

    /// Moves so many of its bytes towards its start.
    ///
    /// # Safety
    /// `room` is a map value.
    #[inline(always)]
    pub unsafe fn shift(room: *mut Self, to: u64, from: u64, length: u64) {
        // SAFETY: the caller's promise; all is clamped to the bytes.
        unsafe {
            let bytes = Self::bytes(room);
            let to = Self::clamped(room, to, HEAD_LENGTH);
            let from = Self::clamped(room, from, HEAD_LENGTH + TAIL_LENGTH);
            let length = Self::clamped(room, length, HEAD_LENGTH);
            if length != 0 {
                // It can be read, for it belongs to a map.
                copy_kernel(bytes.add(to as usize), length as u32, bytes.add(from as usize) as u64);
            }
        }
    }

    /// A value cut to `limit`, in a form that the verifier sees to be cut.
    ///
    /// It goes through memory: else the compiler, which may know the bound already, leaves the check out or makes it
    /// on another register than the one that is used.
    ///
    /// # Safety
    /// `room` is a map value.
    #[inline(always)]
    pub unsafe fn clamped(room: *mut Self, value: u64, limit: usize) -> u64 {
        // SAFETY: the caller's promise.
        let value = unsafe {
            let cell = &raw mut (*room).cell;
            cell.write_volatile(value);
            cell.read_volatile()
        };
        at_most(value, limit as u64)
    }
}

/// What is copied of a call: a window of its bytes, and of that window the head and the tail.
#[repr(C)]
struct Walk {
    place: Place,
    /// Bytes that the call moved.
    length: u64,
    /// Where the window starts, and how long its head may be.
    from: u64,
    most: u64,
    /// How long its head is, where that ends, and where the tail starts.
    head: u64,
    head_end: u64,
    tail_start: u64,
    /// Bytes of the vector that are done.
    done: u64,
    fault: u32,
}

/// What was copied of a window: its bytes are in the room, the tail right behind the head.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Copied {
    pub head: u32,
    pub tail: u32,
    pub unseen: Unseen,
}

/// Finds the bytes of a call that moved so many.
///
/// # Safety
/// `room` is a map value.
#[inline(always)]
pub unsafe fn locate(room: *mut Room, sock: Sock, locate: Locate, length: u32) {
    // SAFETY: the caller's promise. What is written volatile stays in memory: the verifier then sees one way on.
    unsafe {
        let walk = &raw mut (*room).walk;
        place::find(&raw mut (*walk).place, sock, locate, length);
        (&raw mut (*walk).length).write_volatile(u64::from(length));
    }
}

/// The system call's number, where its bytes could not be found.
///
/// # Safety
/// `room` is a map value.
#[inline(always)]
pub unsafe fn syscall(room: *const Room) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { (&raw const (*room).walk.place.syscall).read_volatile() }
}

/// Leaves all of the call's bytes where they are, for this cause.
///
/// # Safety
/// `room` is a map value that was prepared.
#[inline(always)]
pub unsafe fn withhold(room: *mut Room, cause: Unseen) {
    // SAFETY: the caller's promise.
    unsafe { (&raw mut (*room).walk.place.unseen).write_volatile(cause) };
}

/// Sets the window of the call's bytes that is to be copied: from a byte on to the call's end, of that at most so many
/// bytes, and the tail.
///
/// # Safety
/// `room` is a map value, in which the bytes were located; `from` is not beyond the call's length.
#[inline(always)]
pub unsafe fn window(room: *mut Room, from: u64, most: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let walk = &raw mut (*room).walk;
        (&raw mut (*walk).from).write_volatile(from);
        (&raw mut (*walk).most).write_volatile(most);
    }
}

/// Where the window starts.
///
/// # Safety
/// As of [`window`].
#[inline(always)]
pub unsafe fn start(room: *const Room) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { (&raw const (*room).walk.from).read_volatile() }
}

/// Copies the window: its head, and its tail behind it.
///
/// # Safety
/// As of [`window`], which has set it.
#[inline(always)]
pub unsafe fn copy(room: *mut Room) -> Copied {
    // SAFETY: the caller's promise.
    unsafe {
        let walk = &raw mut (*room).walk;
        let unseen = (&raw const (*walk).place.unseen).read_volatile();
        if !matches!(unseen, Unseen::None) {
            return Copied { head: 0, tail: 0, unseen };
        }
        let (from, to) = ((&raw const (*walk).from).read_volatile(), (&raw const (*walk).length).read_volatile());
        let head = at_most(to - from, (&raw const (*walk).most).read_volatile());
        let tail = at_most(to - from - head, TAIL_LENGTH as u64);
        (*walk).head_end = from + head;
        (*walk).tail_start = to - tail;
        (*walk).head = head;
        (&raw mut (*walk).done).write_volatile(0);
        (&raw mut (*walk).fault).write_volatile(0);
        let parts = (&raw const (*walk).place.parts).read_volatile();
        let mut walking = Walking { room };
        bpf_loop(at_most(parts, MAX_PARTS) as u32, walk_part as *mut c_void, (&raw mut walking).cast(), 0);
        if (&raw const (*walk).done).read_volatile() < to {
            return Copied { head: 0, tail: 0, unseen: Unseen::Vector };
        }
        if (&raw const (*walk).fault).read_volatile() != 0 {
            return Copied { head: 0, tail: 0, unseen: Unseen::Fault };
        }
        let unseen = if head + tail < to - from { Unseen::Long } else { Unseen::None };
        Copied { head: head as u32, tail: tail as u32, unseen }
    }
}

/// What a step through a vector is given.
#[repr(C)]
struct Walking {
    room: *mut Room,
}

/// Copies what a vector's part has of the window.
unsafe extern "C" fn walk_part(index: u64, walking: *mut Walking) -> i64 {
    // SAFETY: `copy` passes its room.
    unsafe {
        let room = (*walking).room;
        let walk = &raw mut (*room).walk;
        let done = (&raw const (*walk).done).read_volatile();
        let length = (&raw const (*walk).length).read_volatile();
        if done >= length {
            return 1;
        }
        let place = &raw const (*walk).place;
        let address = (&raw const (*place).address).read_volatile() + index * size_of::<Part>() as u64;
        let part = match (&raw const (*place).array).read_volatile() {
            Array::None => Some(Part { base: address, length }),
            Array::Caller => probe_user::<Part>(address),
            Array::Kernel => probe_kernel::<Part>(address),
        };
        let Some(part) = part else {
            (&raw mut (*walk).fault).write_volatile(1);
            return 1;
        };
        let skip = if index == 0 { (&raw const (*place).skip).read_volatile() } else { 0 };
        let size = at_most(part.length.saturating_sub(skip), length - done);
        copy_part(room, done, size, part.base + skip);
        (&raw mut (*walk).done).write_volatile(done + size);
        0
    }
}

/// Copies what of `size` bytes at `address`, the call's from its byte `done` on, belongs to the window.
///
/// # Safety
/// `room` is a map value.
#[inline(always)]
unsafe fn copy_part(room: *mut Room, done: u64, size: u64, address: u64) {
    // SAFETY: what is copied where is clamped to the room.
    unsafe {
        let walk = &raw mut (*room).walk;
        let bytes = Room::bytes(room);
        let kernels = (&raw const (*walk).place.bytes_in_kernel).read_volatile() != 0;
        let mut fault = false;

        let window = (&raw const (*walk).from).read_volatile();
        let start = at_least(done, window);
        let end = at_most(done + size, (&raw const (*walk).head_end).read_volatile());
        if start < end {
            let to = Room::clamped(room, start - window, HEAD_LENGTH);
            let take = Room::clamped(room, end - start, HEAD_LENGTH);
            fault |= !copy_memory(bytes.add(to as usize), take as u32, address + (start - done), kernels);
        }
        let window = (&raw const (*walk).tail_start).read_volatile();
        let start = at_least(done, window);
        let end = done + size;
        if start < end {
            let head = (&raw const (*walk).head).read_volatile();
            let to = Room::clamped(room, head + (start - window), HEAD_LENGTH + TAIL_LENGTH);
            let take = Room::clamped(room, end - start, TAIL_LENGTH);
            fault |= !copy_memory(bytes.add(to as usize), take as u32, address + (start - done), kernels);
        }
        if fault {
            (&raw mut (*walk).fault).write_volatile(1);
        }
    }
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
