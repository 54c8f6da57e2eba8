//! Every read of kernel and user memory, as small `Copy` types: the rest of the programs reads like ordinary Rust.
//!
//! A load through a pointer that the verifier knows by its BTF type is checked against that type when the program is
//! loaded, and a fault in it reads as zero. What the verifier cannot follow is read by `bpf_probe_read_*`.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user};
use smtp_ebpf::config::{Iterators, Offsets, PORT_WORDS, Syscalls};

mod file;
mod message;
mod registers;
mod sock;
mod task;

pub use file::{Ascend, CgroupNode, File, Path, Sequence};
pub use message::{Iterator, Message};
pub use registers::{Call, Registers, stack_pointer};
pub use sock::{HeldSock, Sock, Socket, TcpSock};
pub use task::{Memory, Relative, Task};

/// Where the running kernel keeps its fields; injected at load, frozen, so constants to the verifier.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::POISONED;

/// Numbers of the system calls; injected at load.
#[unsafe(no_mangle)]
static SYSCALLS: Syscalls = Syscalls::UNKNOWN;

/// Numbers of the kinds of `iov_iter`; injected at load.
#[unsafe(no_mangle)]
static ITERATORS: Iterators = Iterators::UNKNOWN;

/// One bit a watched port; injected at load.
#[unsafe(no_mangle)]
static WATCHED_PORTS: [u64; PORT_WORDS] = [0; PORT_WORDS];

/// The same for ports in network byte order. Verifiers before 6.6 forget the bounds of a number whose bytes are swapped.
#[unsafe(no_mangle)]
static WATCHED_NETWORK_PORTS: [u64; PORT_WORDS] = [0; PORT_WORDS];

/// Not zero: plaintext of TLS is read, where a library has it; injected at load.
#[unsafe(no_mangle)]
static READS_TLS: u32 = 0;

/// Whether plaintext of TLS is read.
#[inline(always)]
pub fn reads_tls() -> bool {
    injected(&READS_TLS) != 0
}

/// A number that the loader injects: read at run time, for what the compiler sees in the static is not what stands
/// there then.
#[inline(always)]
fn injected(number: &u32) -> u32 {
    // SAFETY: a reference is readable.
    unsafe { ptr::read_volatile(number) }
}

#[inline(always)]
fn offset(field: &u32) -> usize {
    injected(field) as usize
}

/// Whether connections with this port are watched.
#[inline(always)]
pub fn is_watched(port: u16) -> bool {
    has_bit(&raw const WATCHED_PORTS, port)
}

/// Whether connections with this port, which is in network byte order, are watched.
#[inline(always)]
fn is_watched_network(port: u16) -> bool {
    has_bit(&raw const WATCHED_NETWORK_PORTS, port)
}

#[inline(always)]
fn has_bit(words: *const [u64; PORT_WORDS], port: u16) -> bool {
    // SAFETY: a u16 divided by 64 is below PORT_WORDS.
    let word = unsafe { ptr::read_volatile(words.cast::<u64>().add((port >> 6) as usize)) };
    word >> (port & 63) & 1 != 0
}

/// Loads a field through a pointer whose BTF type the verifier knows.
///
/// # Safety
/// `base` is such a pointer, and `offset` that of a `T` in its type: the verifier refuses the program otherwise.
#[inline(always)]
unsafe fn load<T: Copy>(base: *const u8, offset: usize) -> T {
    // SAFETY: the caller's promise, and the verifier's check.
    unsafe { ptr::read_volatile(base.add(offset).cast::<T>()) }
}

/// Reads kernel memory at an address that the verifier cannot follow.
#[inline(always)]
pub fn probe_kernel<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the destination has the size of T; the helper checks the source and zeroes the destination on a fault.
    let result =
        unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void) };
    // SAFETY: the helper has written all of it.
    (result == 0).then(|| unsafe { value.assume_init() })
}

/// Reads the memory of the current process.
#[inline(always)]
pub fn probe_user<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: as in `probe_kernel`.
    let result =
        unsafe { bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void) };
    // SAFETY: the helper has written all of it.
    (result == 0).then(|| unsafe { value.assume_init() })
}

/// Copies memory of the current process; whether it could be read.
///
/// # Safety
/// `length` bytes at `destination` belong to a map value: the verifier checks it.
#[inline(always)]
pub unsafe fn copy_user(destination: *mut u8, length: u32, address: u64) -> bool {
    // SAFETY: the caller's promise; the helper checks the source.
    unsafe { bpf_probe_read_user(destination.cast(), length, address as *const c_void) == 0 }
}

/// Copies memory of the kernel; whether it could be read.
///
/// # Safety
/// `length` bytes at `destination` belong to a map value: the verifier checks it.
#[inline(always)]
pub unsafe fn copy_kernel(destination: *mut u8, length: u32, address: u64) -> bool {
    // SAFETY: the caller's promise; the helper checks the source.
    unsafe { bpf_probe_read_kernel(destination.cast(), length, address as *const c_void) == 0 }
}

/// Copies a NUL-terminated kernel string; its length with the NUL, or zero where it cannot be read.
///
/// # Safety
/// `room` bytes at `destination` belong to a map value: the verifier checks it.
#[inline(always)]
pub unsafe fn copy_kernel_string(destination: *mut u8, room: u32, address: u64) -> usize {
    // SAFETY: the caller's promise; the helper checks the source.
    let length = unsafe { bpf_probe_read_kernel_str(destination.cast(), room, address as *const c_void) };
    if length > 0 { length as usize } else { 0 }
}
