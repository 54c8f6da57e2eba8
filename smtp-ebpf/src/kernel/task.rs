//! Tasks: who runs now, and what is known of it.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use smtp_ebpf::event::COMM_LENGTH;

use super::{
    CgroupNode, HeldSock, OFFSETS, Path, Registers, SYSCALLS, Sock, copy_kernel, injected, load, offset, probe_kernel,
};

/// A `struct task_struct`.
#[derive(Clone, Copy)]
pub struct Task(*const u8);

impl Task {
    /// Whoever runs now. In softirq that is a stranger.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper has no precondition.
        Self(unsafe { bpf_get_current_task_btf() }.cast_const().cast())
    }

    /// The task that an iterator passes.
    #[inline(always)]
    pub fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    #[inline(always)]
    pub fn leader(self) -> Self {
        // SAFETY: group_leader is a struct task_struct *.
        Self(unsafe { load(self.0, offset(&OFFSETS.task_group_leader)) })
    }

    /// The leader of its parent.
    #[inline(always)]
    pub fn parent(self) -> Option<Relative> {
        let leader = self.far(&OFFSETS.task_group_leader)?;
        let parent: u64 = probe_kernel(leader + offset(&OFFSETS.task_real_parent) as u64)?;
        Some(Relative(probe_kernel(parent + offset(&OFFSETS.task_group_leader) as u64)?))
    }

    #[inline(always)]
    pub fn tgid(self) -> u32 {
        // SAFETY: tgid is a pid_t of struct task_struct.
        unsafe { load(self.0, offset(&OFFSETS.task_tgid)) }
    }

    #[inline(always)]
    pub fn pid(self) -> u32 {
        // SAFETY: pid is a pid_t of struct task_struct.
        unsafe { load(self.0, offset(&OFFSETS.task_pid)) }
    }

    #[inline(always)]
    pub fn start_boottime(self) -> u64 {
        // SAFETY: start_boottime is a u64 of struct task_struct.
        unsafe { load(self.0, offset(&OFFSETS.task_start_boottime)) }
    }

    #[inline(always)]
    pub fn exec_id(self) -> u32 {
        // SAFETY: self_exec_id is a u32 of struct task_struct.
        unsafe { load(self.0, offset(&OFFSETS.task_self_exec_id)) }
    }

    #[inline(always)]
    pub fn euid(self) -> u32 {
        // SAFETY: cred is a struct cred *, whose euid is a kuid_t of one u32.
        unsafe { load(load::<*const u8>(self.0, offset(&OFFSETS.task_cred)), offset(&OFFSETS.cred_euid)) }
    }

    #[inline(always)]
    pub fn comm(self) -> [u8; COMM_LENGTH] {
        // SAFETY: both are 16 bytes without padding.
        unsafe { core::mem::transmute(self.comm_words()) }
    }

    /// The same as it stands in memory, as two numbers.
    #[inline(always)]
    pub fn comm_words(self) -> [u64; 2] {
        // SAFETY: comm is a char array of COMM_LENGTH bytes in struct task_struct.
        unsafe {
            [load(self.0, offset(&OFFSETS.task_comm)), load(self.0, offset(&OFFSETS.task_comm) + size_of::<u64>())]
        }
    }

    /// Its memory; a kernel thread has none.
    #[inline(always)]
    pub fn memory(self) -> Option<Memory> {
        self.far(&OFFSETS.task_mm).filter(|mm| *mm != 0).map(Memory)
    }

    /// Its cgroup in the unified hierarchy.
    #[inline(always)]
    pub fn cgroup(self) -> Option<CgroupNode> {
        let set = self.far(&OFFSETS.task_cgroups)?;
        let cgroup: u64 = probe_kernel(set + offset(&OFFSETS.css_set_default_cgroup) as u64)?;
        Some(CgroupNode(probe_kernel(cgroup + offset(&OFFSETS.cgroup_node) as u64)?))
    }

    /// The address in a field of it, of something that is read once a process.
    ///
    /// Not through the type: for each pointer that is loaded from a task, on each way that leads there, the verifier of 6.18
    /// looks through the names of all types of the kernel, up to four times (`btf_nested_type_is_trusted`). That was
    /// two fifths of the agent's start.
    #[inline(always)]
    fn far(self, field: &u32) -> Option<u64> {
        probe_kernel(self.0 as u64 + offset(field) as u64)
    }

    /// It works for the kernel, or for an io_uring: it has not entered the kernel by a system call of its own.
    #[inline(always)]
    pub fn is_kernels(self) -> bool {
        // include/linux/sched.h
        const PF_IO_WORKER: u32 = 0x10;
        const PF_KTHREAD: u32 = 0x0020_0000;
        // SAFETY: flags is an unsigned int of struct task_struct.
        unsafe { load::<u32>(self.0, offset(&OFFSETS.task_flags)) & (PF_IO_WORKER | PF_KTHREAD) != 0 }
    }

    /// It is in a system call of a 32-bit program, whose arguments are elsewhere.
    #[inline(always)]
    pub fn is_compat(self) -> bool {
        // SAFETY: thread_info.status is a u32 of struct task_struct.
        unsafe { load::<u32>(self.0, offset(&OFFSETS.task_mode)) & injected(&SYSCALLS.compat_mode) != 0 }
    }

    /// Whether its descriptor is this socket's.
    #[inline(always)]
    pub fn holds(self, descriptor: u64, sock: Sock) -> bool {
        self.held(descriptor) == Some(sock.0 as u64)
    }

    /// The same where the file of this socket is remembered from call to call: a file is one socket's for as long as both
    /// live, and a look at the descriptor is enough.
    ///
    /// # Safety
    /// `file` is a place of a map value that belongs to the socket.
    #[inline(always)]
    pub unsafe fn holds_file(self, descriptor: u64, sock: Sock, file: *mut u64) -> bool {
        let Some(held) = self.file_at(descriptor) else { return false };
        // SAFETY: the caller's promise; whoever else writes it writes the same.
        unsafe {
            if held == file.read_volatile() {
                return true;
            }
            let is_its = HeldSock::of_file(held).map(HeldSock::address) == Some(sock.0 as u64);
            if is_its {
                file.write_volatile(held);
            }
            is_its
        }
    }

    /// The address of the `struct sock` behind a descriptor, if the descriptor is a socket's.
    #[inline(always)]
    fn held(self, descriptor: u64) -> Option<u64> {
        HeldSock::of_file(self.file_at(descriptor)?).map(HeldSock::address)
    }

    /// The address of the open file with a descriptor. The low half of the register is the int; a descriptor beyond the table
    /// is refused before anything is moved.
    #[inline(always)]
    pub fn file_at(self, descriptor: u64) -> Option<u64> {
        // SAFETY: files is a struct files_struct *, its fdt a struct fdtable *, whose fd is a struct file **.
        let table: u64 = unsafe {
            let files: *const u8 = load(self.0, offset(&OFFSETS.task_files));
            if files.is_null() {
                return None;
            }
            load(load::<*const u8>(files, offset(&OFFSETS.files_table)), offset(&OFFSETS.table_files))
        };
        HeldSock::file_at(table, descriptor & 0xffff_ffff)
    }

    /// The registers with which it entered the kernel.
    #[inline(always)]
    pub fn registers(self) -> Registers {
        // SAFETY: the helper takes a struct task_struct * and answers a struct pt_regs *.
        Registers(unsafe { bpf_task_pt_regs(self.0.cast_mut().cast()) } as *const u8)
    }
}

/// A `struct task_struct` of a process near to one that is known.
#[derive(Clone, Copy)]
pub struct Relative(u64);

impl Relative {
    #[inline(always)]
    pub fn tgid(self) -> Option<u32> {
        probe_kernel(self.0 + offset(&OFFSETS.task_tgid) as u64)
    }

    /// Copies its name; zeros where that cannot be read.
    ///
    /// # Safety
    /// `place` belongs to a map value.
    #[inline(always)]
    pub unsafe fn copy_comm(self, place: *mut [u8; COMM_LENGTH]) {
        // SAFETY: the caller's promise; the helper zeroes the place on a fault.
        unsafe { copy_kernel(place.cast(), COMM_LENGTH as u32, self.0 + offset(&OFFSETS.task_comm) as u64) };
    }
}

/// A `struct mm_struct`.
#[derive(Clone, Copy)]
pub struct Memory(u64);

impl Memory {
    /// Where the arguments start and end.
    #[inline(always)]
    pub fn arguments(self) -> Option<(u64, u64)> {
        Some((self.field(&OFFSETS.mm_arg_start)?, self.field(&OFFSETS.mm_arg_end)?))
    }

    /// Where the environment starts and ends.
    #[inline(always)]
    pub fn environment(self) -> Option<(u64, u64)> {
        Some((self.field(&OFFSETS.mm_env_start)?, self.field(&OFFSETS.mm_env_end)?))
    }

    /// The executable's place in the file system: `exe_file` and its `f_path`.
    #[inline(always)]
    pub fn executable(self) -> Option<Path> {
        let file = self.field(&OFFSETS.mm_exe_file).filter(|file| *file != 0)?;
        Some(Path {
            dentry: probe_kernel(file + offset(&OFFSETS.file_dentry) as u64)?,
            mount: probe_kernel(file + offset(&OFFSETS.file_mount) as u64)?,
        })
    }

    #[inline(always)]
    fn field(self, field: &u32) -> Option<u64> {
        probe_kernel(self.0 + offset(field) as u64)
    }
}
