//! Where the bytes of a call are, and copying those of them that are wanted.
//!
//! The hooks on functions find them in the message's iterator, as it stood at the entry. The length tracepoints carry no
//! buffer, but the system call's saved registers still point to the caller's: after `sock_sendmsg` and `sock_recvmsg` it
//! holds what was moved.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use smtp_ebpf::event::{HEAD_LENGTH, TAIL_LENGTH, Unseen};

use crate::kernel::{Call, Iterator, Message, Sock, Task, copy_kernel, copy_user, probe_kernel, probe_user};

/// Most parts of a vector (`UIO_MAXIOV`, `include/uapi/linux/uio.h`).
const MAX_PARTS: u64 = 1024;

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

/// Where the bytes of a call are.
#[repr(C)]
#[derive(Clone, Copy)]
struct Place {
    /// The address of the buffer, or of an array of `struct iovec`.
    address: u64,
    /// The length of that array; 1 where there is none.
    parts: u64,
    /// Bytes at the start of the first part that are not the call's.
    skip: u64,
    array: Array,
    /// The bytes are in the kernel's memory.
    bytes_in_kernel: u32,
    /// Why the bytes cannot be found, unless [`Unseen::None`].
    unseen: Unseen,
    /// The system call's number, where its registers do not say where they are.
    syscall: u32,
    /// The array of `struct mmsghdr` of the system call, and its length; zero in any other call.
    messages: u64,
    count: u64,
}

/// Whose memory an array of `struct iovec` is in.
#[repr(u32)]
#[derive(Clone, Copy)]
enum Array {
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
        Self {
            address: 0,
            parts: 1,
            skip: 0,
            array: Array::None,
            bytes_in_kernel: 0,
            unseen,
            syscall,
            messages: 0,
            count: 0,
        }
    }

    const fn buffer(address: u64) -> Self {
        Self { address, ..Self::unknown(Unseen::None, 0) }
    }

    const fn vector(address: u64, parts: u64) -> Self {
        Self { address, parts, array: Array::Caller, ..Self::unknown(Unseen::None, 0) }
    }

    /// Where the current system call has its bytes, if it is one on this socket.
    ///
    /// A task may work on other sockets before it leaves a system call: on requests of its io_uring.
    #[inline(always)]
    fn of_caller(sock: Sock) -> Self {
        let task = Task::current();
        if task.is_kernels() {
            return Self::unknown(Unseen::Path, 0);
        }
        if task.is_compat() {
            return Self::unknown(Unseen::Compat, 0);
        }
        let registers = task.registers();
        let (address, count) = (registers.argument_2(), registers.argument_3());
        let call = registers.call();
        if matches!(call, Call::Connect | Call::Other) || !task.holds(registers.argument_1(), sock) {
            return Self::unknown(Unseen::Path, registers.syscall());
        }
        match call {
            Call::Buffer => Self::buffer(address),
            Call::Vector => Self::vector(address, count),
            Call::Message => match probe_user::<UserMessage>(address) {
                Some(message) => Self::vector(message.vector, message.parts),
                None => Self::unknown(Unseen::Fault, 0),
            },
            _ => match probe_user::<NumberedMessage>(current_message(address, count)) {
                Some(NumberedMessage { message, .. }) => {
                    Self { messages: address, count, ..Self::vector(message.vector, message.parts) }
                }
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
    /// Where the current system call has them.
    Caller,
    /// Not at all, for this cause.
    Unseen(Unseen),
}

/// Forgets what [`enter`] has noted for the function that returns.
#[inline(always)]
pub fn leave() {
    // There is none where the hook at the entry was attached when the call had begun.
    let _ = ENTERED.remove(bpf_get_current_pid_tgid());
}

/// `struct iovec` of a 64-bit program (`include/uapi/linux/uio.h`), and of the kernel.
#[repr(C)]
#[derive(Clone, Copy)]
struct Part {
    base: u64,
    length: u64,
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

/// `struct mmsghdr` of a 64-bit program.
#[repr(C)]
#[derive(Clone, Copy)]
struct NumberedMessage {
    message: UserMessage,
    length: u64,
}

/// How far a thread is in its `sendmmsg` or `recvmmsg`, which comes by here once a message.
#[map]
static PROGRESS: LruHashMap<u64, Progress> = LruHashMap::with_max_entries(1024, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Progress {
    messages: u64,
    next: u64,
}

/// A call that moved nothing. With it a `sendmmsg` or `recvmmsg` ends: the thread's next one starts anew.
#[inline(always)]
pub fn moved_nothing() {
    if matches!(Task::current().registers().call(), Call::Messages) {
        // There may be none.
        let _ = PROGRESS.remove(bpf_get_current_pid_tgid());
    }
}

/// The address of the message that the current `sendmmsg` or `recvmmsg` is at.
#[inline(always)]
fn current_message(messages: u64, count: u64) -> u64 {
    messages + message_index(messages, count) * size_of::<NumberedMessage>() as u64
}

#[inline(always)]
fn message_index(messages: u64, count: u64) -> u64 {
    // SAFETY: the value is only read, by the thread that writes it.
    match unsafe { PROGRESS.get(bpf_get_current_pid_tgid()) } {
        Some(progress) if progress.messages == messages && progress.next < count => progress.next,
        _ => 0,
    }
}

/// Notes that the current message is done, and whether another comes.
#[inline(always)]
fn advance_message(messages: u64, count: u64, goes_on: bool) {
    let thread = bpf_get_current_pid_tgid();
    let next = message_index(messages, count) + 1;
    if goes_on && next < count {
        // Without room the next message is read as the first: the map forgets only what is oldest.
        let _ = PROGRESS.insert(thread, Progress { messages, next }, 0);
    } else {
        let _ = PROGRESS.remove(thread);
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
    /// All that the vector has room for is done.
    complete: u32,
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
        let place = &raw mut (*walk).place;
        match locate {
            Locate::Entered => match ENTERED.get(bpf_get_current_pid_tgid()) {
                Some(entered) => place.write_volatile(*entered),
                // The hook at the entry was attached when the call had begun.
                None => place.write_volatile(Place::unknown(Unseen::Path, 0)),
            },
            Locate::Caller => place.write_volatile(Place::of_caller(sock)),
            Locate::Unseen(cause) => place.write_volatile(Place::unknown(cause, 0)),
        }
        (&raw mut (*walk).length).write_volatile(u64::from(length));
        (&raw mut (*walk).complete).write_volatile(1);
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

/// Goes on to the next message of a `sendmmsg` or `recvmmsg`; to be called once for each call that moved something.
///
/// # Safety
/// `room` is a map value, in which the whole call was walked through.
#[inline(always)]
pub unsafe fn finish(room: *mut Room, sends: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        let walk = &raw const (*room).walk;
        if (*walk).place.messages != 0 {
            // `__sys_sendmmsg` stops at the first message that it could not send whole.
            let goes_on = !sends || (&raw const (*walk).complete).read_volatile() != 0;
            advance_message((*walk).place.messages, (*walk).place.count, goes_on);
        }
    }
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
        let room_of_part = part.length.saturating_sub(skip);
        let size = at_most(room_of_part, length - done);
        let last = index + 1 == (&raw const (*place).parts).read_volatile();
        (&raw mut (*walk).complete).write_volatile(u32::from(last && size == room_of_part));
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
