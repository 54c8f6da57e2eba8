//! Open files, and names in file systems.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_seq_write, bpf_sock_from_file};

use super::{OFFSETS, Sock, Socket, load, offset, probe_kernel};

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
        if socket.is_null() { None } else { Socket::new(socket.cast_const().cast()).sock() }
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
    pub(super) dentry: u64,
    pub(super) mount: u64,
}

/// A file that is in no directory has no mount to ascend from either.
const NO_MOUNT: u64 = 0;

impl Path {
    /// Its ascent has ended in no directory: the file has a name and no path (`memfd_create`).
    #[inline(always)]
    pub fn is_detached(self) -> bool {
        self.mount == NO_MOUNT
    }
}

impl Ascend for Path {
    #[inline(always)]
    fn step(&mut self) -> Option<u64> {
        if self.is_detached() {
            return None;
        }
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
        let parent: u64 = probe_kernel(self.dentry + offset(&OFFSETS.dentry_parent) as u64)?;
        if parent == self.dentry {
            // It is the root of a tree of its own, and not that of its mount (`d_alloc_pseudo`).
            self.mount = NO_MOUNT;
        }
        self.dentry = parent;
        Some(name)
    }
}

/// A `struct kernfs_node` of the cgroup hierarchy.
#[derive(Clone, Copy)]
pub struct CgroupNode(pub(super) u64);

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
