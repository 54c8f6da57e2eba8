//! `LD_PRELOAD` in a process's environment: of all that is in there, nothing else leaves the kernel.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use smtp_ebpf::event::PRELOAD_LENGTH;

use crate::kernel::{Memory, copy_user};
use crate::program::Program;

/// Bytes of the environment that are searched.
const SEARCHED: usize = 8192;

const NAME: [u8; 16] = *b"LD_PRELOAD=\0\0\0\0\0";
const NAME_LENGTH: u32 = 11;

/// The variable that is being read has another name.
const ANOTHER: u32 = NAME_LENGTH + 1;

/// An environment, and how far it is read.
#[repr(C)]
struct Environment {
    bytes: [u8; SEARCHED],
    /// Bytes of the name that were read, or [`ANOTHER`].
    matched: u32,
    /// Where the value begins and ends; zero while that is not known.
    start: u32,
    end: u32,
    padding: u32,
}

#[map]
static ENVIRONMENT: PerCpuArray<Environment> = PerCpuArray::with_max_entries(Program::COUNT, 0);

/// Copies the value, as much as fits; how many bytes.
///
/// # Safety
/// `PRELOAD_LENGTH` bytes at `destination` belong to a map value.
#[inline(always)]
pub unsafe fn preload(destination: *mut u8, program: u32, memory: Option<Memory>) -> u32 {
    let Some((start, end)) = memory.and_then(Memory::environment) else { return 0 };
    let Some(environment) = ENVIRONMENT.get_ptr_mut(program) else { return 0 };
    let mut length = end.saturating_sub(start);
    if length > SEARCHED as u64 {
        length = SEARCHED as u64;
    }
    // SAFETY: the pointer is to this CPU's map value, the length at most its size; the rest is the caller's promise.
    unsafe {
        if !copy_user((&raw mut (*environment).bytes).cast(), length as u32, start) {
            return 0;
        }
        (&raw mut (*environment).matched).write_volatile(0);
        (&raw mut (*environment).start).write_volatile(0);
        (&raw mut (*environment).end).write_volatile(0);
        let mut context = environment;
        bpf_loop(length as u32, read_byte as *mut c_void, (&raw mut context).cast(), 0);
        let first = (&raw const (*environment).start).read_volatile();
        let last = (&raw const (*environment).end).read_volatile();
        let mut size = last.saturating_sub(first);
        if first == 0 || size == 0 {
            return 0;
        }
        if size > PRELOAD_LENGTH as u32 {
            size = PRELOAD_LENGTH as u32;
        }
        if copy_user(destination, size, start + u64::from(first)) { size } else { 0 }
    }
}

/// Reads a byte; the body of a `bpf_loop`.
unsafe extern "C" fn read_byte(place: u64, environment: *mut *mut Environment) -> i64 {
    // SAFETY: `preload` passes its own; the place is below the size, the matched bytes below the name's room.
    unsafe {
        let environment = *environment;
        let byte = (&raw const (*environment).bytes[place as usize & (SEARCHED - 1)]).read_volatile();
        let start = (&raw const (*environment).start).read_volatile();
        if start != 0 {
            (&raw mut (*environment).end).write_volatile(place as u32);
            return i64::from(byte == 0);
        }
        let matched = (&raw const (*environment).matched).read_volatile();
        let matched = match byte {
            0 => 0,
            _ if matched < NAME_LENGTH && byte == NAME[(matched & 15) as usize] => matched + 1,
            _ => ANOTHER,
        };
        if matched == NAME_LENGTH {
            (&raw mut (*environment).start).write_volatile(place as u32 + 1);
        }
        (&raw mut (*environment).matched).write_volatile(matched);
        0
    }
}
