//! Where the running kernel keeps its fields: BTF in, the offset table of the eBPF programs out.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use btf_rs::{Backend, Btf, BtfType, Struct, Type};
use smtp_ebpf::config::{Iterators, Offsets, Syscalls};

/// Where the kernel shows its own types (`CONFIG_DEBUG_INFO_BTF`).
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why a field's place is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no BTF, or it cannot be parsed.
    #[error("the kernel's type information cannot be read: {0}")]
    Btf(#[from] btf_rs::Error),
    /// No structure has this name.
    #[error("the kernel's type information has no struct {0}")]
    NoStruct(&'static str),
    /// Several structures of this name differ in the field's place.
    #[error("the kernel's type information has several struct {0} that differ in {1}")]
    Ambiguous(&'static str, &'static str),
    /// The structure has no such field.
    #[error("the kernel's struct {0} has no field {1}")]
    NoField(&'static str, &'static str),
    /// Registers and system calls of this processor are not known to this program.
    #[error("this program does not know the registers of {0}")]
    Architecture(&'static str),
}

/// The kernel's types.
pub struct Layout {
    btf: Btf,
    /// The structures of each name asked for: finding a name means reading them all.
    structures: RefCell<HashMap<&'static str, Vec<Struct>>>,
}

impl Layout {
    /// The types of the running kernel.
    pub fn of_kernel() -> Result<Self, Error> {
        let path = Path::new(VMLINUX);
        // Mapping the file costs no memory, but the kernel allows it only since 6.16.
        let btf = Btf::from_file_with_backend(path, Backend::Mmap).or_else(|_| Btf::from_file(path))?;
        Ok(Self { btf, structures: RefCell::default() })
    }

    /// The offset table for the eBPF programs.
    pub fn offsets(&self) -> Result<Offsets, Error> {
        let registers = registers()?;
        let at = |name, field| self.offset(name, field);
        let transparent = self.transparent()?;
        Ok(Offsets {
            sock_remote_port: at("sock", "__sk_common.skc_dport")?,
            sock_local_port: at("sock", "__sk_common.skc_num")?,
            sock_family: at("sock", "__sk_common.skc_family")?,
            sock_state: at("sock", "__sk_common.skc_state")?,
            sock_remote_v4: at("sock", "__sk_common.skc_daddr")?,
            sock_local_v4: at("sock", "__sk_common.skc_rcv_saddr")?,
            sock_remote_v6: at("sock", "__sk_common.skc_v6_daddr")?,
            sock_local_v6: at("sock", "__sk_common.skc_v6_rcv_saddr")?,
            sock_net: at("sock", "__sk_common.skc_net.net")?,
            sock_protocol: at("sock", "sk_protocol")?,
            sock_error: at("sock", "sk_err")?,
            sock_flags: at("sock", "__sk_common.skc_flags")?,
            sock_route: at("sock", "sk_dst_cache")?,
            route_device: at("dst_entry", "dev")?,
            device_flags: at("net_device", "flags")?,
            socket_sock: at("socket", "sk")?,
            net_inode: at("net", "ns.inum")?,
            tcp_local_port: at("tcp_sock", "inet_conn.icsk_inet.inet_sport")?,
            tcp_write_seq: at("tcp_sock", "write_seq")?,
            tcp_copied_seq: at("tcp_sock", "copied_seq")?,
            tcp_received_next: at("tcp_sock", "rcv_nxt")?,
            tcp_upper_layer: at("tcp_sock", "inet_conn.icsk_ulp_ops")?,
            tcp_transparent: transparent / 8,
            transparent_bit: transparent % 8,
            message_flags: at("msghdr", "msg_flags")?,
            message_iterator: at("msghdr", "msg_iter.iter_type")?,
            message_offset: at("msghdr", "msg_iter.iov_offset")?,
            message_buffer: at("msghdr", "msg_iter.ubuf").or_else(|_| at("msghdr", "msg_iter.kvec"))?,
            message_vector: at("msghdr", "msg_iter.kvec")?,
            message_left: at("msghdr", "msg_iter.count")?,
            task_flags: at("task_struct", "flags")?,
            task_files: at("task_struct", "files")?,
            files_table: at("files_struct", "fdt")?,
            table_files: at("fdtable", "fd")?,
            file_private: at("file", "private_data")?,
            task_group_leader: at("task_struct", "group_leader")?,
            task_real_parent: at("task_struct", "real_parent")?,
            task_pid: at("task_struct", "pid")?,
            task_tgid: at("task_struct", "tgid")?,
            task_start_boottime: at("task_struct", "start_boottime")?,
            task_self_exec_id: at("task_struct", "self_exec_id")?,
            task_comm: at("task_struct", "comm")?,
            task_mm: at("task_struct", "mm")?,
            task_cred: at("task_struct", "cred")?,
            cred_euid: at("cred", "euid.val")?,
            task_cgroups: at("task_struct", "cgroups")?,
            mm_arg_start: at("mm_struct", "arg_start")?,
            mm_arg_end: at("mm_struct", "arg_end")?,
            mm_env_start: at("mm_struct", "env_start")?,
            mm_env_end: at("mm_struct", "env_end")?,
            mm_exe_file: at("mm_struct", "exe_file")?,
            file_dentry: at("file", "f_path.dentry")?,
            file_mount: at("file", "f_path.mnt")?,
            iterator_output: at("bpf_iter_meta", "seq")?,
            dentry_parent: at("dentry", "d_parent")?,
            dentry_name: at("dentry", "d_name.name")?,
            vfsmount_root: at("vfsmount", "mnt_root")?,
            mount_vfsmount: at("mount", "mnt")?,
            mount_parent: at("mount", "mnt_parent")?,
            mount_mountpoint: at("mount", "mnt_mountpoint")?,
            css_set_default_cgroup: at("css_set", "dfl_cgrp")?,
            cgroup_node: at("cgroup", "kn")?,
            kernfs_parent: at("kernfs_node", "__parent").or_else(|_| at("kernfs_node", "parent"))?,
            kernfs_name: at("kernfs_node", "name")?,
            regs_syscall: at("pt_regs", registers.syscall)?,
            regs_result: at("pt_regs", registers.result)?,
            regs_argument_1: at("pt_regs", registers.argument_1)?,
            regs_argument_2: at("pt_regs", registers.argument_2)?,
            regs_argument_3: at("pt_regs", registers.argument_3)?,
            regs_argument_5: at("pt_regs", registers.argument_5)?,
            task_mode: at("task_struct", registers.mode)?,
        })
    }

    /// Where the flag of `IP_TRANSPARENT` is, in bits from the start of a `tcp_sock`.
    fn transparent(&self) -> Result<u32, Error> {
        const FLAGS: &str = "inet_conn.icsk_inet.inet_flags";
        match self.bit_offset("tcp_sock", FLAGS) {
            Ok(flags) => {
                let number = self.enumerator("", "INET_FLAGS_TRANSPARENT")?;
                Ok(flags + number.ok_or(Error::NoField("inet_sock", "inet_flags' INET_FLAGS_TRANSPARENT"))?)
            }
            Err(_) => self.bit_offset("tcp_sock", "inet_conn.icsk_inet.transparent"),
        }
    }

    /// The numbers of the kinds of `iov_iter`.
    pub fn iterators(&self) -> Result<Iterators, Error> {
        let number = |name| Ok::<_, Error>(self.enumerator("iter_type", name)?.unwrap_or(u32::MAX));
        Ok(Iterators {
            buffer: number("ITER_UBUF")?,
            vector: number("ITER_IOVEC")?,
            kernel_vector: number("ITER_KVEC")?,
        })
    }

    /// Whether the kernel has a function of this name with so many parameters.
    pub fn has_function(&self, name: &str, parameters: usize) -> bool {
        let is_such = |found: &Type| match found {
            Type::Func(function) => self.btf.resolve_chained_type(function).is_ok_and(
                |prototype| matches!(prototype, Type::FuncProto(prototype) if prototype.parameters.len() == parameters),
            ),
            _ => false,
        };
        self.btf.resolve_types_by_name(name).is_ok_and(|types| types.iter().any(is_such))
    }

    /// The number of an enumerator, if the enumeration has it; of enumerations without a name any may.
    fn enumerator(&self, enumeration: &str, name: &str) -> Result<Option<u32>, Error> {
        for found in self.btf.resolve_types_by_name(enumeration)? {
            let Type::Enum(enumeration) = found else { continue };
            for member in &enumeration.members {
                if self.btf.resolve_name(member)? == name {
                    return Ok(Some(member.val()));
                }
            }
        }
        Ok(None)
    }

    /// Whether the kernel has a BTF tracepoint of this name.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.btf.resolve_ids_by_name(&format!("btf_trace_{name}")).is_ok_and(|ids| !ids.is_empty())
    }

    /// The byte offset of `field`, a path of member names joined by dots, in the structure `name`.
    fn offset(&self, name: &'static str, field: &'static str) -> Result<u32, Error> {
        Ok(self.bit_offset(name, field)? / 8)
    }

    fn bit_offset(&self, name: &'static str, field: &'static str) -> Result<u32, Error> {
        let mut cache = self.structures.borrow_mut();
        let structures = match cache.entry(name) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(self.structures(name)?),
        };
        if structures.is_empty() {
            return Err(Error::NoStruct(name));
        }
        let mut found = None;
        for structure in structures {
            match (self.bits(structure, field)?, found) {
                (Some(bits), Some(other)) if bits != other => return Err(Error::Ambiguous(name, field)),
                (Some(bits), _) => found = Some(bits),
                (None, _) => {}
            }
        }
        found.ok_or(Error::NoField(name, field))
    }

    fn structures(&self, name: &str) -> Result<Vec<Struct>, Error> {
        let types = self.btf.resolve_types_by_name(name)?;
        Ok(types
            .into_iter()
            .filter_map(|found| if let Type::Struct(structure) = found { Some(structure) } else { None })
            .collect())
    }

    /// Descends by the first name of `path`, through anonymous members too.
    fn bits(&self, structure: &Struct, path: &str) -> Result<Option<u32>, Error> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        for member in &structure.members {
            let name = self.btf.resolve_name(member)?;
            let inside = if name == first {
                match rest {
                    None => return Ok(Some(member.bit_offset())),
                    Some(rest) => rest,
                }
            } else if name.is_empty() {
                path
            } else {
                continue;
            };
            if let Some(Type::Struct(inner) | Type::Union(inner)) = self.target(member)?
                && let Some(bits) = self.bits(&inner, inside)?
            {
                return Ok(Some(member.bit_offset() + bits));
            }
        }
        Ok(None)
    }

    /// The type a member has, behind typedefs and qualifiers.
    fn target(&self, member: &dyn BtfType) -> Result<Option<Type>, Error> {
        let mut id = member.get_type_id();
        while let Some(next) = id {
            match self.btf.resolve_type_by_id(next)? {
                Type::Typedef(inner) => id = inner.get_type_id(),
                Type::Const(inner) | Type::Volatile(inner) => id = inner.get_type_id(),
                other => return Ok(Some(other)),
            }
        }
        Ok(None)
    }
}

/// The registers of `pt_regs` that hold a system call and its arguments, and what tells how they are to be read.
struct Registers {
    syscall: &'static str,
    result: &'static str,
    argument_1: &'static str,
    argument_2: &'static str,
    argument_3: &'static str,
    argument_5: &'static str,
    /// A field of `task_struct`.
    mode: &'static str,
}

#[cfg(target_arch = "x86_64")]
fn registers() -> Result<Registers, Error> {
    Ok(Registers {
        syscall: "orig_ax",
        result: "ax",
        argument_1: "di",
        argument_2: "si",
        argument_3: "dx",
        argument_5: "r8",
        mode: "thread_info.status",
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn registers() -> Result<Registers, Error> {
    Err(Error::Architecture(std::env::consts::ARCH))
}

/// A task is in a 32-bit system call (`TS_COMPAT`, `arch/x86/include/asm/thread_info.h`).
const TS_COMPAT: u32 = 0x2;

/// The numbers of the system calls on this architecture.
pub fn syscalls() -> Syscalls {
    Syscalls {
        connect: libc::SYS_connect as u32,
        read: libc::SYS_read as u32,
        write: libc::SYS_write as u32,
        sendto: libc::SYS_sendto as u32,
        recvfrom: libc::SYS_recvfrom as u32,
        readv: libc::SYS_readv as u32,
        writev: libc::SYS_writev as u32,
        preadv2: libc::SYS_preadv2 as u32,
        pwritev2: libc::SYS_pwritev2 as u32,
        sendmsg: libc::SYS_sendmsg as u32,
        recvmsg: libc::SYS_recvmsg as u32,
        sendmmsg: libc::SYS_sendmmsg as u32,
        recvmmsg: libc::SYS_recvmmsg as u32,
        compat_mode: TS_COMPAT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_is_found_in_the_running_kernel() {
        let offsets = Layout::of_kernel().and_then(|layout| layout.offsets()).expect("this kernel has BTF");
        // The padding of sock_common is documented: the port pair follows the address pair (include/net/sock.h).
        assert_eq!(offsets.sock_remote_v4, 0);
        assert_eq!(offsets.sock_local_v4, 4);
        assert_eq!(offsets.sock_local_port, offsets.sock_remote_port + 2);
        assert_ne!(offsets.dentry_name, offsets.dentry_parent);
    }

    #[test]
    fn functions_and_enumerators_are_found_in_the_running_kernel() {
        let layout = Layout::of_kernel().expect("this kernel has BTF");
        assert!(layout.has_function("inet_sendmsg", 3));
        assert!(!layout.has_function("inet_sendmsg", 4));
        assert!(!layout.has_function("no_such_function", 0));
        let iterators = layout.iterators().expect("readable");
        assert_ne!(iterators.vector, u32::MAX);
        assert_ne!(iterators.kernel_vector, iterators.vector);
    }

    #[test]
    fn the_transparent_flag_is_found_in_the_running_kernel() {
        let layout = Layout::of_kernel().expect("this kernel has BTF");
        let flag = layout.transparent().expect("inet_sock has the flag");
        let flags = layout.bit_offset("tcp_sock", "inet_conn.icsk_inet").expect("an inet_sock is inside");
        let behind = layout.bit_offset("tcp_sock", "inet_conn.icsk_accept_queue").expect("it follows the inet_sock");
        assert!((flags..behind).contains(&flag), "{flag} is not in {flags}..{behind}");
    }

    #[test]
    fn a_missing_field_is_named() {
        let layout = Layout::of_kernel().expect("this kernel has BTF");
        let error = layout.offset("sock", "no_such_field").expect_err("there is no such field");
        assert_eq!(error.to_string(), "the kernel's struct sock has no field no_such_field");
        let error = layout.offset("no_such_struct", "field").expect_err("there is no such struct");
        assert_eq!(error.to_string(), "the kernel's type information has no struct no_such_struct");
    }
}
