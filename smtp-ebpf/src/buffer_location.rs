//! Where the bytes of a call are.
//!
//! The hooks on functions find them behind the message's iterator, as it stands at the end. The length tracepoints carry no
//! buffer, but the system call's saved registers still point to the caller's: after `sock_sendmsg` and `sock_recvmsg` it
//! holds what was moved.
//!
//! Nothing is noted of a call that another could find: what does not follow from the call itself is not known.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use smtp_ebpf::event::CaptureMiss;
use smtp_ebpf::library_call::RECORD_HEAD;

use crate::buffer::MAX_PARTS;
use crate::kernel::{Call, Iterator, Message, Sock, Task, probe_kernel, probe_user};

/// Where the bytes of a call are.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct BufferLocation {
    /// The address of the buffer, or of an array of `struct iovec`.
    pub address: u64,
    /// The length of that array; 1 where there is none.
    pub parts: u64,
    /// Bytes at the start of the first part that are not the call's.
    pub skip: u64,
    pub array: Array,
    /// The bytes are in the kernel's memory.
    pub bytes_in_kernel: u32,
    /// Why the bytes cannot be found, unless [`CaptureMiss::None`].
    pub unseen: CaptureMiss,
    padding: u32,
}

/// `struct iovec` of a 64-bit program (`include/uapi/linux/uio.h`), and of the kernel.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Part {
    pub base: u64,
    pub length: u64,
}

/// Whose memory an array of `struct iovec` is in.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum Array {
    /// There is none: the address is the buffer's.
    None,
    /// The caller's.
    Caller,
    /// The kernel's.
    Kernel,
}

impl BufferLocation {
    /// Nowhere to be found.
    const fn unknown(unseen: CaptureMiss) -> Self {
        Self { address: 0, parts: 1, skip: 0, array: Array::None, bytes_in_kernel: 0, unseen, padding: 0 }
    }

    /// In one piece, of the caller's memory.
    pub const fn buffer(address: u64) -> Self {
        Self { address, ..Self::unknown(CaptureMiss::None) }
    }

    const fn vector(address: u64, parts: u64) -> Self {
        Self { address, parts, array: Array::Caller, ..Self::unknown(CaptureMiss::None) }
    }

    /// Where the current system call has its bytes, if it is certain to be the one on this socket that moved so many.
    ///
    /// # Safety
    /// As of [`Task::holds_file`].
    #[inline(always)]
    unsafe fn of_caller(task: Task, sock: Sock, sends: bool, file: *mut u64, length: u32) -> Self {
        if task.is_kernels() {
            return Self::unknown(CaptureMiss::Path);
        }
        if task.is_compat() {
            return Self::unknown(CaptureMiss::Compat);
        }
        let registers = task.registers();
        let (address, count) = (registers.argument_2(), registers.argument_3());
        let call = if sends { registers.call() } else { registers.receiving_call() };
        let is_certain = match call {
            Call::Buffer => u64::from(length) <= count,
            // Which of several is the current one stands nowhere. Their number is an unsigned int.
            Call::Messages => count as u32 == 1,
            Call::Vector | Call::Message => true,
            Call::Connect | Call::Other => false,
        };
        // SAFETY: the caller's promise.
        if !is_certain || !registers.is_under_way() || !unsafe { task.holds_file(registers.argument_1(), sock, file) } {
            return Self::unknown(CaptureMiss::Path);
        }
        match call {
            Call::Buffer => Self::buffer(address),
            Call::Vector => Self::vector(address, count),
            // A `struct mmsghdr` begins with its message.
            _ => match probe_user::<UserMessage>(address) {
                Some(message) => Self::vector(message.vector, message.parts),
                None => Self::unknown(CaptureMiss::Fault),
            },
        }
    }

    /// Where the bytes of a message are of which so many were moved. In a vector `skip` is less than zero as long as some of
    /// them are in parts before the first: see [`go_back`].
    #[inline(always)]
    fn of_message(message: Message, length: u32) -> Self {
        let moved = message.has_moved(length);
        let length = u64::from(length);
        match message.iterator() {
            Iterator::Pages => Self::unknown(CaptureMiss::Pages),
            _ if !moved => Self::unknown(CaptureMiss::Path),
            Iterator::Buffer { address } => Self::buffer(address.wrapping_sub(length)),
            Iterator::Vector { address, within, kernels } => Self {
                skip: within.wrapping_sub(length),
                array: Array::Kernel,
                bytes_in_kernel: u32::from(kernels),
                ..Self::vector(address, 1)
            },
        }
    }
}

/// The address of the bytes of the current system call, if it is one with a buffer on this socket, as nearly all are, and an
/// earlier call has shown the socket's file; else zero: then it is to be looked at closer.
///
/// # Safety
/// `file` is where the socket's file is remembered, in a map value of the socket.
#[inline(always)]
pub unsafe fn of_plain_call(task: Task, sends: bool, file: *const u64, length: u32) -> u64 {
    let registers = task.registers();
    let is_plain = if sends { registers.is_plain_send() } else { registers.is_plain_receive() };
    let is_certain = is_plain
        && u64::from(length) <= registers.argument_3()
        && registers.is_under_way()
        && !task.is_kernels()
        && !task.is_compat()
        // SAFETY: the caller's promise.
        && task.file_at(registers.argument_1()) == Some(unsafe { file.read_volatile() });
    if is_certain { registers.argument_2() } else { 0 }
}

/// The address of the first bytes that the current system call sends, by its registers alone: it is the caller that says so.
/// Zero: they are not in one piece, or it is none that sends.
#[inline(always)]
pub fn first_sent(task: Task) -> u64 {
    if task.is_kernels() || task.is_compat() {
        return 0;
    }
    let registers = task.registers();
    if !registers.is_under_way() {
        return 0;
    }
    let vector = match registers.call() {
        Call::Buffer => return registers.argument_2(),
        Call::Vector => registers.argument_2(),
        Call::Message | Call::Messages => match probe_user::<UserMessage>(registers.argument_2()) {
            Some(message) => message.vector,
            None => return 0,
        },
        Call::Connect | Call::Other => return 0,
    };
    match probe_user::<Part>(vector) {
        Some(part) if part.length >= RECORD_HEAD as u64 => part.base,
        _ => 0,
    }
}

/// Goes from the part that an iterator stands at back to the one where the call's bytes begin.
///
/// # Safety
/// `place` belongs to a map value.
#[inline(always)]
unsafe fn go_back(place: *mut BufferLocation) {
    // SAFETY: the caller's promise.
    unsafe {
        let begins_before = || ((&raw const (*place).skip).read_volatile() as i64) < 0;
        if !begins_before() {
            return;
        }
        let mut going = Going { place };
        bpf_loop(MAX_PARTS as u32, part_before as *mut c_void, (&raw mut going).cast(), 0);
        if begins_before() {
            (&raw mut (*place).unseen).write_volatile(CaptureMiss::Vector);
        }
    }
}

/// What a step back is given.
#[repr(C)]
struct Going {
    place: *mut BufferLocation,
}

/// Takes the part before, if bytes of the call are in it.
unsafe extern "C" fn part_before(_index: u64, going: *mut Going) -> i64 {
    // SAFETY: `go_back` passes its place.
    unsafe {
        let place = (*going).place;
        let skip = (&raw const (*place).skip).read_volatile();
        if skip as i64 >= 0 {
            return 1;
        }
        let address = (&raw const (*place).address).read_volatile().wrapping_sub(size_of::<Part>() as u64);
        let Some(part) = probe_kernel::<Part>(address) else { return 1 };
        let parts = (&raw const (*place).parts).read_volatile();
        (&raw mut (*place).address).write_volatile(address);
        (&raw mut (*place).parts).write_volatile(parts + 1);
        (&raw mut (*place).skip).write_volatile(skip.wrapping_add(part.length));
        0
    }
}

/// How a hook finds the bytes of a call.
#[derive(Clone, Copy)]
pub enum BufferSource {
    /// Behind the iterator of the message with which the function that returns was called.
    Message(Message),
    /// Where the current system call has them, one that sends or one that receives.
    /// `file` is where the socket's file is remembered, in a map value of the socket.
    Caller { task: Task, sends: bool, file: *mut u64 },
    /// Not at all, for this cause.
    NotFound(CaptureMiss),
}

/// `struct user_msghdr` of a 64-bit program (`include/linux/socket.h`).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UserMessage {
    pub name: u64,
    name_length: u64,
    vector: u64,
    parts: u64,
    control: u64,
    control_length: u64,
    flags: u64,
}

/// Finds where the bytes of a call are that moved so many.
///
/// # Safety
/// `place` belongs to a map value.
#[inline(always)]
pub unsafe fn find(place: *mut BufferLocation, sock: Sock, locate: BufferSource, length: u32) {
    // SAFETY: the caller's promise. What is written volatile stays in memory: the verifier then sees one way on.
    unsafe {
        match locate {
            BufferSource::Message(message) => {
                place.write_volatile(BufferLocation::of_message(message, length));
                go_back(place);
            }
            BufferSource::Caller { task, sends, file } => {
                place.write_volatile(BufferLocation::of_caller(task, sock, sends, file, length));
            }
            BufferSource::NotFound(cause) => place.write_volatile(BufferLocation::unknown(cause)),
        }
    }
}
