//! Where the bytes of a call are.
//!
//! The hooks on functions find them in the message's iterator, as it stood at the entry. The length tracepoints carry no
//! buffer, but the system call's saved registers still point to the caller's: after `sock_sendmsg` and `sock_recvmsg` it
//! holds what was moved.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use smtp_ebpf::event::Unseen;

use crate::kernel::{Call, Iterator, Message, Sock, Task, probe_user};

/// Where the bytes of a call are.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Place {
    /// The address of the buffer, or of an array of `struct iovec`.
    pub address: u64,
    /// The length of that array; 1 where there is none.
    pub parts: u64,
    /// Bytes at the start of the first part that are not the call's.
    pub skip: u64,
    pub array: Array,
    /// The bytes are in the kernel's memory.
    pub bytes_in_kernel: u32,
    /// Why the bytes cannot be found, unless [`Unseen::None`].
    pub unseen: Unseen,
    /// The system call's number, where its registers do not say where they are.
    pub syscall: u32,
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

impl Place {
    /// Nowhere to be found.
    const fn unknown(unseen: Unseen, syscall: u32) -> Self {
        Self { address: 0, parts: 1, skip: 0, array: Array::None, bytes_in_kernel: 0, unseen, syscall }
    }

    const fn buffer(address: u64) -> Self {
        Self { address, ..Self::unknown(Unseen::None, 0) }
    }

    const fn vector(address: u64, parts: u64) -> Self {
        Self { address, parts, array: Array::Caller, ..Self::unknown(Unseen::None, 0) }
    }

    /// Where the current system call has its bytes, if it is certain to be the one on this socket that moved so many.
    #[inline(always)]
    fn of_caller(sock: Sock, sends: bool, length: u32) -> Self {
        let task = Task::current();
        if task.is_kernels() {
            return Self::unknown(Unseen::Path, 0);
        }
        if task.is_compat() {
            return Self::unknown(Unseen::Compat, 0);
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
        if !is_certain || task.has_ring() || !task.holds(registers.argument_1(), sock) {
            return Self::unknown(Unseen::Path, registers.syscall());
        }
        match call {
            Call::Buffer => Self::buffer(address),
            Call::Vector => Self::vector(address, count),
            // A `struct mmsghdr` begins with its message.
            _ => match probe_user::<UserMessage>(address) {
                Some(message) => Self::vector(message.vector, message.parts),
                None => Self::unknown(Unseen::Fault, 0),
            },
        }
    }

    #[inline(always)]
    fn of_message(message: Message) -> Self {
        match message.iterator() {
            Iterator::Buffer { address } => Self::buffer(address),
            Iterator::Vector { address, parts, skip, kernels } => {
                Self { skip, array: Array::Kernel, bytes_in_kernel: u32::from(kernels), ..Self::vector(address, parts) }
            }
            Iterator::Pages => Self::unknown(Unseen::Pages, 0),
        }
    }
}

/// Where the bytes of calls are that have not returned yet, by thread.
#[map]
static ENTERED: LruHashMap<u64, Place> = LruHashMap::with_max_entries(16_384, 0);

/// Notes at the entry of a function where the bytes of its message are: at its end the iterator is behind them.
#[inline(always)]
pub fn enter(message: Message) {
    // Without room the bytes are not found: the map forgets only what is oldest.
    let _ = ENTERED.insert(bpf_get_current_pid_tgid(), Place::of_message(message), 0);
}

/// How a hook finds the bytes of a call.
#[derive(Clone, Copy)]
pub enum Locate {
    /// Where [`enter`] has noted them, at the entry of the function that returns.
    Entered,
    /// Where the current system call has them, one that sends or one that receives.
    Caller { sends: bool },
    /// Not at all, for this cause.
    Unseen(Unseen),
}

/// Forgets what [`enter`] has noted for the function that returns.
#[inline(always)]
pub fn leave() {
    // There is none where the hook at the entry was attached when the call had begun.
    let _ = ENTERED.remove(bpf_get_current_pid_tgid());
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
pub unsafe fn find(place: *mut Place, sock: Sock, locate: Locate, length: u32) {
    // SAFETY: the caller's promise. What is written volatile stays in memory: the verifier then sees one way on.
    unsafe {
        match locate {
            Locate::Entered => match ENTERED.get(bpf_get_current_pid_tgid()) {
                Some(entered) => place.write_volatile(*entered),
                // The hook at the entry was attached when the call had begun.
                None => place.write_volatile(Place::unknown(Unseen::Path, 0)),
            },
            Locate::Caller { sends } => place.write_volatile(Place::of_caller(sock, sends, length)),
            Locate::Unseen(cause) => place.write_volatile(Place::unknown(cause, 0)),
        }
    }
}
