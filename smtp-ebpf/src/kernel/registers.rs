//! The registers with which a program has entered the kernel: its system call.

use aya_ebpf::bindings::bpf_user_pt_regs_t;

use super::{OFFSETS, SYSCALLS, injected, load, offset};

/// Where the stack of a thread ended as a probe interrupted it.
///
/// # Safety
/// The registers are a probe's context.
#[inline(always)]
pub unsafe fn stack_pointer(registers: *const bpf_user_pt_regs_t) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(bpf_target_arch = "x86_64")]
        return (&raw const (*registers).rsp).read_volatile();
        #[cfg(bpf_target_arch = "aarch64")]
        return (&raw const (*registers).sp).read_volatile();
    }
}

/// A `struct pt_regs`, as saved when the process entered the kernel.
#[derive(Clone, Copy)]
pub struct Registers(pub(super) *const u8);

impl Registers {
    #[inline(always)]
    pub fn syscall(self) -> u32 {
        // SAFETY: the register is an unsigned long of struct pt_regs.
        unsafe { load::<u64>(self.0, offset(&OFFSETS.regs_syscall)) as u32 }
    }

    /// The system call is being carried out: it has no result yet. When it has one, the kernel may still work for the thread,
    /// on requests of its io_uring, before it returns to the program (`task_work_run`).
    #[inline(always)]
    pub fn is_under_way(self) -> bool {
        // include/uapi/asm-generic/errno.h; written at the entry (arch/x86/entry/entry_64.S).
        const ENOSYS: i64 = 38;
        // SAFETY: the register is an unsigned long of struct pt_regs.
        unsafe { load::<i64>(self.0, offset(&OFFSETS.regs_result)) == -ENOSYS }
    }

    #[inline(always)]
    pub fn argument_1(self) -> u64 {
        // SAFETY: the register is an unsigned long of struct pt_regs.
        unsafe { load(self.0, offset(&OFFSETS.regs_argument_1)) }
    }

    #[inline(always)]
    pub fn argument_2(self) -> u64 {
        // SAFETY: the register is an unsigned long of struct pt_regs.
        unsafe { load(self.0, offset(&OFFSETS.regs_argument_2)) }
    }

    #[inline(always)]
    pub fn argument_3(self) -> u64 {
        // SAFETY: the register is an unsigned long of struct pt_regs.
        unsafe { load(self.0, offset(&OFFSETS.regs_argument_3)) }
    }

    #[inline(always)]
    pub fn argument_5(self) -> u64 {
        // SAFETY: the register is an unsigned long of struct pt_regs.
        unsafe { load(self.0, offset(&OFFSETS.regs_argument_5)) }
    }

    /// The system call is `sendto`.
    #[inline(always)]
    pub fn is_sendto(self) -> bool {
        self.syscall() == injected(&SYSCALLS.sendto)
    }

    /// The system call sends from a buffer.
    #[inline(always)]
    pub fn is_plain_send(self) -> bool {
        let number = self.syscall();
        number == injected(&SYSCALLS.write) || number == injected(&SYSCALLS.sendto)
    }

    /// The system call receives into a buffer.
    #[inline(always)]
    pub fn is_plain_receive(self) -> bool {
        let number = self.syscall();
        number == injected(&SYSCALLS.read) || number == injected(&SYSCALLS.recvfrom)
    }

    /// What the second argument of the system call points to, if it is one that connects or sends.
    #[inline(always)]
    pub fn call(self) -> Call {
        let number = self.syscall();
        if self.is_plain_send() {
            Call::Buffer
        } else if number == injected(&SYSCALLS.sendmsg) {
            Call::Message
        } else if number == injected(&SYSCALLS.sendmmsg) {
            Call::Messages
        } else if number == injected(&SYSCALLS.writev) || number == injected(&SYSCALLS.pwritev2) {
            Call::Vector
        } else if number == injected(&SYSCALLS.connect) {
            Call::Connect
        } else {
            Call::Other
        }
    }

    /// The same, if it is one that receives.
    #[inline(always)]
    pub fn receiving_call(self) -> Call {
        let number = self.syscall();
        if self.is_plain_receive() {
            Call::Buffer
        } else if number == injected(&SYSCALLS.recvmsg) {
            Call::Message
        } else if number == injected(&SYSCALLS.recvmmsg) {
            Call::Messages
        } else if number == injected(&SYSCALLS.readv) || number == injected(&SYSCALLS.preadv2) {
            Call::Vector
        } else {
            Call::Other
        }
    }
}

/// A system call, by what its second argument points to.
#[derive(Clone, Copy)]
pub enum Call {
    /// The bytes.
    Buffer,
    /// An array of `struct iovec`; the third argument is its length.
    Vector,
    /// A `struct user_msghdr`.
    Message,
    /// An array of `struct mmsghdr`; the third argument is its length.
    Messages,
    /// A `struct sockaddr`.
    Connect,
    /// Not known, or it goes the other way.
    Other,
}
