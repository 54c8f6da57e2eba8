//! Every read of kernel and user memory, as small `Copy` types: the rest of the programs reads like ordinary Rust.
//!
//! A load through a pointer that the verifier knows by its BTF type is checked against that type when the program is
//! loaded, and a fault in it reads as zero. What the verifier cannot follow is read by `bpf_probe_read_*`.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_probe_read_kernel_str,
    bpf_probe_read_user, bpf_seq_write, bpf_skc_to_tcp_sock, bpf_sock_from_file, bpf_task_pt_regs,
};
use smtp_ebpf::config::{Iterators, Offsets, PORT_WORDS, Syscalls};
use smtp_ebpf::event::{COMM_LENGTH, Positions};

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

/// A `struct socket`, what a descriptor stands for.
#[derive(Clone, Copy)]
pub struct Socket(*const u8);

impl Socket {
    /// The socket that a hooked function is called with.
    #[inline(always)]
    pub fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    /// NULL once it is released.
    #[inline(always)]
    pub fn sock(self) -> Option<Sock> {
        // SAFETY: sk is a struct sock * of struct socket.
        let sock: *const u8 = unsafe { load(self.0, offset(&OFFSETS.socket_sock)) };
        (!sock.is_null()).then_some(Sock(sock))
    }
}

/// A `struct sock`.
#[derive(Clone, Copy)]
pub struct Sock(*const u8);

impl Sock {
    /// The socket that a tracepoint passes.
    #[inline(always)]
    pub fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    /// For helpers that take a socket.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut c_void {
        self.0.cast_mut().cast()
    }

    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        u16::from_be(self.remote_network_port())
    }

    #[inline(always)]
    pub fn has_watched_remote_port(self) -> bool {
        is_watched_network(self.remote_network_port())
    }

    #[inline(always)]
    fn remote_network_port(self) -> u16 {
        // SAFETY: skc_dport is a __be16 of struct sock.
        unsafe { load(self.0, offset(&OFFSETS.sock_remote_port)) }
    }

    #[inline(always)]
    pub fn local_port(self) -> u16 {
        // SAFETY: skc_num is a __u16 of struct sock.
        unsafe { load(self.0, offset(&OFFSETS.sock_local_port)) }
    }

    #[inline(always)]
    pub fn family(self) -> u16 {
        // SAFETY: skc_family is an unsigned short of struct sock.
        unsafe { load(self.0, offset(&OFFSETS.sock_family)) }
    }

    #[inline(always)]
    pub fn state(self) -> u8 {
        // SAFETY: skc_state is an unsigned char of struct sock.
        unsafe { load(self.0, offset(&OFFSETS.sock_state)) }
    }

    #[inline(always)]
    pub fn protocol(self) -> u16 {
        // SAFETY: sk_protocol is a u16 of struct sock (since 5.6).
        unsafe { load(self.0, offset(&OFFSETS.sock_protocol)) }
    }

    /// Its network namespace's inode number.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        // SAFETY: skc_net.net is a struct net *, whose ns.inum is an unsigned int.
        unsafe { load(load::<*const u8>(self.0, offset(&OFFSETS.sock_net)), offset(&OFFSETS.net_inode)) }
    }

    #[inline(always)]
    pub fn local_v4(self) -> [u8; 4] {
        // SAFETY: skc_rcv_saddr is a __be32 of struct sock.
        unsafe { load::<u32>(self.0, offset(&OFFSETS.sock_local_v4)) }.to_ne_bytes()
    }

    #[inline(always)]
    pub fn remote_v4(self) -> [u8; 4] {
        // SAFETY: skc_daddr is a __be32 of struct sock.
        unsafe { load::<u32>(self.0, offset(&OFFSETS.sock_remote_v4)) }.to_ne_bytes()
    }

    #[inline(always)]
    pub fn local_v6(self) -> [u64; 2] {
        // SAFETY: skc_v6_rcv_saddr is a struct in6_addr of 16 bytes.
        unsafe { [load(self.0, offset(&OFFSETS.sock_local_v6)), load(self.0, offset(&OFFSETS.sock_local_v6) + 8)] }
    }

    #[inline(always)]
    pub fn remote_v6(self) -> [u64; 2] {
        // SAFETY: skc_v6_daddr is a struct in6_addr of 16 bytes.
        unsafe { [load(self.0, offset(&OFFSETS.sock_remote_v6)), load(self.0, offset(&OFFSETS.sock_remote_v6) + 8)] }
    }

    /// The kernel's name for it, the same for as long as it lives and never used again.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        // SAFETY: the helper takes a struct sock * or NULL.
        unsafe { bpf_get_socket_cookie(self.as_ptr()) }
    }

    /// The socket as one of TCP, if it is one.
    #[inline(always)]
    pub fn tcp(self) -> Option<TcpSock> {
        // SAFETY: the helper takes a struct sock * and answers NULL where it is not a full TCP socket.
        let pointer = unsafe { bpf_skc_to_tcp_sock(self.as_ptr()) };
        NonNull::new(pointer.cast()).map(TcpSock)
    }
}

/// A `struct tcp_sock`. `None` is a null pointer: a value that there is, in the verifier's eyes.
#[derive(Clone, Copy)]
pub struct TcpSock(NonNull<u8>);

impl TcpSock {
    /// The local port, which stays when `skc_num` is given back (`__inet_put_port`).
    #[inline(always)]
    pub fn local_port(self) -> u16 {
        u16::from_be(self.local_network_port())
    }

    #[inline(always)]
    pub fn has_watched_local_port(self) -> bool {
        is_watched_network(self.local_network_port())
    }

    #[inline(always)]
    fn local_network_port(self) -> u16 {
        // SAFETY: inet_sport is a __be16 of the struct inet_sock that a tcp_sock begins with.
        unsafe { load(self.0.as_ptr(), offset(&OFFSETS.tcp_local_port)) }
    }

    /// Something sits between the stream and its user: kTLS, or MPTCP, whose subflow this then is.
    #[inline(always)]
    pub fn has_upper_layer(self) -> bool {
        // SAFETY: icsk_ulp_ops is a pointer of the struct inet_connection_sock that a tcp_sock begins with.
        unsafe { load::<u64>(self.0.as_ptr(), offset(&OFFSETS.tcp_upper_layer)) != 0 }
    }

    /// The stream positions of the socket, which is in this state, without the sequence numbers of FINs.
    #[inline(always)]
    pub fn positions(self, state: u8) -> Positions {
        // SAFETY: write_seq, copied_seq and rcv_nxt are u32 of struct tcp_sock.
        let (mut written, mut read, received): (u32, u32, u32) = unsafe {
            (
                load(self.0.as_ptr(), offset(&OFFSETS.tcp_write_seq)),
                load(self.0.as_ptr(), offset(&OFFSETS.tcp_copied_seq)),
                load(self.0.as_ptr(), offset(&OFFSETS.tcp_received_next)),
            )
        };
        if matches!(state, FIN_WAIT1 | FIN_WAIT2 | CLOSING | LAST_ACK | TIME_WAIT) {
            // tcp_send_fin has counted one.
            written = written.wrapping_sub(1);
        }
        if matches!(state, CLOSE_WAIT | CLOSING | LAST_ACK | TIME_WAIT | CLOSE) && read == received {
            // tcp_recvmsg has gone over one.
            read = read.wrapping_sub(1);
        }
        Positions { written, read }
    }
}

// include/net/tcp_states.h
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

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

    #[inline(always)]
    pub fn parent(self) -> Self {
        // SAFETY: real_parent is a struct task_struct *.
        Self(unsafe { load(self.0, offset(&OFFSETS.task_real_parent)) })
    }

    #[inline(always)]
    pub fn tgid(self) -> u32 {
        // SAFETY: tgid is a pid_t of struct task_struct.
        unsafe { load(self.0, offset(&OFFSETS.task_tgid)) }
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
        // SAFETY: comm is a char array of COMM_LENGTH bytes in struct task_struct.
        let words: [u64; 2] = unsafe {
            [load(self.0, offset(&OFFSETS.task_comm)), load(self.0, offset(&OFFSETS.task_comm) + size_of::<u64>())]
        };
        // SAFETY: both are 16 bytes without padding.
        unsafe { core::mem::transmute(words) }
    }

    /// Where its arguments start and end in its memory.
    #[inline(always)]
    pub fn arguments(self) -> Option<(u64, u64)> {
        let mm = self.mm()?;
        // SAFETY: arg_start and arg_end are unsigned long of struct mm_struct.
        unsafe { Some((load(mm, offset(&OFFSETS.mm_arg_start)), load(mm, offset(&OFFSETS.mm_arg_end)))) }
    }

    /// The executable's place in the file system.
    #[inline(always)]
    pub fn executable(self) -> Option<Path> {
        let mm = self.mm()?;
        // SAFETY: exe_file is a struct file *, whose f_path holds a struct dentry * and a struct vfsmount *.
        unsafe {
            let file: *const u8 = load(mm, offset(&OFFSETS.mm_exe_file));
            if file.is_null() {
                return None;
            }
            let dentry: *const u8 = load(file, offset(&OFFSETS.file_dentry));
            let mount: *const u8 = load(file, offset(&OFFSETS.file_mount));
            Some(Path { dentry: dentry as u64, mount: mount as u64 })
        }
    }

    /// Its cgroup in the unified hierarchy.
    #[inline(always)]
    pub fn cgroup(self) -> CgroupNode {
        // SAFETY: cgroups is a struct css_set *, its dfl_cgrp a struct cgroup *, whose kn is a struct kernfs_node *.
        unsafe {
            let set: *const u8 = load(self.0, offset(&OFFSETS.task_cgroups));
            let cgroup: *const u8 = load(set, offset(&OFFSETS.css_set_default_cgroup));
            let node: *const u8 = load(cgroup, offset(&OFFSETS.cgroup_node));
            CgroupNode(node as u64)
        }
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

    /// The address of the `struct sock` behind a descriptor, if the descriptor is a socket's.
    #[inline(always)]
    fn held(self, descriptor: u64) -> Option<u64> {
        // SAFETY: files is a struct files_struct *, its fdt a struct fdtable *, whose fd is a struct file **.
        let files: u64 = unsafe {
            let files: *const u8 = load(self.0, offset(&OFFSETS.task_files));
            if files.is_null() {
                return None;
            }
            let table: *const u8 = load(files, offset(&OFFSETS.files_table));
            load(table, offset(&OFFSETS.table_files))
        };
        // The low half of the register is the int; a descriptor beyond the table is refused before anything is moved.
        let file: u64 = probe_kernel(files + (descriptor & 0xffff_ffff) * size_of::<u64>() as u64)?;
        let socket: u64 = probe_kernel(file + offset(&OFFSETS.file_private) as u64)?;
        probe_kernel(socket + offset(&OFFSETS.socket_sock) as u64)
    }

    /// The registers with which it entered the kernel.
    #[inline(always)]
    pub fn registers(self) -> Registers {
        // SAFETY: the helper takes a struct task_struct * and answers a struct pt_regs *.
        Registers(unsafe { bpf_task_pt_regs(self.0.cast_mut().cast()) } as *const u8)
    }

    #[inline(always)]
    fn mm(self) -> Option<*const u8> {
        // SAFETY: mm is a struct mm_struct *, NULL for kernel threads.
        let mm: *const u8 = unsafe { load(self.0, offset(&OFFSETS.task_mm)) };
        (!mm.is_null()).then_some(mm)
    }
}

/// A `struct file`.
#[derive(Clone, Copy)]
pub struct File(*const u8);

impl File {
    /// The open file that an iterator passes.
    #[inline(always)]
    pub fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    /// The socket that it is, if it is one with an end in this kernel.
    #[inline(always)]
    pub fn sock(self) -> Option<Sock> {
        // SAFETY: the helper takes a struct file * and answers a struct socket * or NULL.
        let socket = unsafe { bpf_sock_from_file(self.0.cast_mut().cast()) };
        if socket.is_null() { None } else { Socket(socket.cast_const().cast()).sock() }
    }
}

/// A `struct seq_file`, to which an iterator writes.
#[derive(Clone, Copy)]
pub struct Sequence(*const u8);

impl Sequence {
    /// The output of the iterator with this `struct bpf_iter_meta`.
    #[inline(always)]
    pub fn of_iterator(meta: *const u8) -> Self {
        // SAFETY: seq is a struct seq_file * of struct bpf_iter_meta.
        Self(unsafe { load(meta, offset(&OFFSETS.iterator_output)) })
    }

    /// Writes a record. Where there is no room, the kernel makes some and calls the iterator again.
    ///
    /// # Safety
    /// `length` bytes at `record` belong to a map value: the verifier checks it.
    #[inline(always)]
    pub unsafe fn write(self, record: *const c_void, length: u32) {
        // SAFETY: the caller's promise.
        let _ = unsafe { bpf_seq_write(self.0.cast_mut().cast(), record, length) };
    }
}

/// Something whose name has the leaf first: each step gives the address of a name and moves towards the root.
pub trait Ascend: Copy {
    /// The address of this component's name, with where to go on; `None` at the root.
    fn step(&mut self) -> Option<u64>;
}

/// A `struct path`: a dentry in a mount.
#[derive(Clone, Copy)]
pub struct Path {
    dentry: u64,
    mount: u64,
}

impl Ascend for Path {
    #[inline(always)]
    fn step(&mut self) -> Option<u64> {
        let root: u64 = probe_kernel(self.mount + offset(&OFFSETS.vfsmount_root) as u64)?;
        if self.dentry == root {
            // The root of a mount has no name: its name is that of the directory it covers.
            let mount = self.mount - offset(&OFFSETS.mount_vfsmount) as u64;
            let parent: u64 = probe_kernel(mount + offset(&OFFSETS.mount_parent) as u64)?;
            if parent == mount {
                return None;
            }
            self.dentry = probe_kernel(mount + offset(&OFFSETS.mount_mountpoint) as u64)?;
            self.mount = parent + offset(&OFFSETS.mount_vfsmount) as u64;
            let root: u64 = probe_kernel(self.mount + offset(&OFFSETS.vfsmount_root) as u64)?;
            if self.dentry == root {
                // A mount on the root of another mount: nothing to name here, the next step goes on.
                return Some(0);
            }
        }
        let name: u64 = probe_kernel(self.dentry + offset(&OFFSETS.dentry_name) as u64)?;
        self.dentry = probe_kernel(self.dentry + offset(&OFFSETS.dentry_parent) as u64)?;
        Some(name)
    }
}

/// A `struct kernfs_node` of the cgroup hierarchy.
#[derive(Clone, Copy)]
pub struct CgroupNode(u64);

impl Ascend for CgroupNode {
    #[inline(always)]
    fn step(&mut self) -> Option<u64> {
        let parent: u64 = probe_kernel(self.0 + offset(&OFFSETS.kernfs_parent) as u64)?;
        if parent == 0 {
            return None;
        }
        let name = probe_kernel(self.0 + offset(&OFFSETS.kernfs_name) as u64)?;
        self.0 = parent;
        Some(name)
    }
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

/// A `struct pt_regs`, as saved when the process entered the kernel.
#[derive(Clone, Copy)]
pub struct Registers(*const u8);

impl Registers {
    #[inline(always)]
    pub fn syscall(self) -> u32 {
        // SAFETY: the register is an unsigned long of struct pt_regs.
        unsafe { load::<u64>(self.0, offset(&OFFSETS.regs_syscall)) as u32 }
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

    /// What the second argument of the system call points to.
    #[inline(always)]
    pub fn call(self) -> Call {
        let number = self.syscall();
        if number == injected(&SYSCALLS.write)
            || number == injected(&SYSCALLS.read)
            || number == injected(&SYSCALLS.sendto)
            || number == injected(&SYSCALLS.recvfrom)
        {
            Call::Buffer
        } else if number == injected(&SYSCALLS.sendmsg) || number == injected(&SYSCALLS.recvmsg) {
            Call::Message
        } else if number == injected(&SYSCALLS.sendmmsg) || number == injected(&SYSCALLS.recvmmsg) {
            Call::Messages
        } else if number == injected(&SYSCALLS.writev)
            || number == injected(&SYSCALLS.readv)
            || number == injected(&SYSCALLS.pwritev2)
            || number == injected(&SYSCALLS.preadv2)
        {
            Call::Vector
        } else if number == injected(&SYSCALLS.connect) {
            Call::Connect
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
    /// Not known.
    Other,
}

/// A `struct msghdr`, with which the kernel's own functions send and receive.
#[derive(Clone, Copy)]
pub struct Message(*const u8);

impl Message {
    /// The message that a hooked function is called with.
    #[inline(always)]
    pub fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    #[inline(always)]
    pub fn flags(self) -> u32 {
        // SAFETY: msg_flags is an unsigned int of struct msghdr.
        unsafe { load(self.0, offset(&OFFSETS.message_flags)) }
    }

    /// Where its bytes are, or are to go. The iterator moves on while the call works: to be asked at its entry.
    #[inline(always)]
    pub fn iterator(self) -> Iterator {
        // SAFETY: all are members of the struct iov_iter in struct msghdr.
        let (kind, skip, parts) = unsafe {
            (
                u32::from(load::<u8>(self.0, offset(&OFFSETS.message_iterator))),
                load::<u64>(self.0, offset(&OFFSETS.message_offset)),
                load(self.0, offset(&OFFSETS.message_parts)),
            )
        };
        // A number, where a load would be a pointer that the verifier keeps from being added to.
        let address = |field| probe_kernel::<u64>(self.0 as u64 + offset(field) as u64).unwrap_or(0);
        if kind == injected(&ITERATORS.buffer) {
            Iterator::Buffer { address: address(&OFFSETS.message_buffer) + skip }
        } else if kind == injected(&ITERATORS.vector) || kind == injected(&ITERATORS.kernel_vector) {
            let kernels = kind == injected(&ITERATORS.kernel_vector);
            Iterator::Vector { address: address(&OFFSETS.message_vector), parts, skip, kernels }
        } else {
            Iterator::Pages
        }
    }
}

/// A `struct iov_iter`.
#[derive(Clone, Copy)]
pub enum Iterator {
    /// One buffer of the caller.
    Buffer { address: u64 },
    /// An array of `struct iovec`, which stands in the kernel's memory; so do the buffers, or they are the caller's.
    Vector { address: u64, parts: u64, skip: u64, kernels: bool },
    /// Anything else.
    Pages,
}
