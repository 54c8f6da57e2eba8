//! What user space tells the programs at load: the ports to watch, and where the running kernel keeps its fields.

/// `u64` words of a bitmap with one bit a port.
pub const PORT_WORDS: usize = 65536 / 64;

/// An offset that was never injected. The verifier refuses a load there, so a forgotten field fails at load.
pub const POISON: u32 = 0x7fff_ff00;

/// Numbers that are put in at load, and what the programs are compiled with in place of each.
macro_rules! injected {
    ($(#[$doc:meta])* $name:ident;
     $(#[$before_doc:meta])* $before:ident = $value:expr;
     $($(#[$field_doc:meta])* $field:ident,)*) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: u32,)*
        }

        impl $name {
            $(#[$before_doc])*
            pub const $before: Self = Self { $($field: $value,)* };
        }
    };
}

injected! {
    /// Byte offsets of kernel fields on the running kernel, found in its BTF. Each one's doc names its C field.
    Offsets;
    /// What the programs are compiled with.
    POISONED = POISON;

    /// `sock.__sk_common.skc_dport`
    sock_remote_port,
    /// `sock.__sk_common.skc_num`
    sock_local_port,
    /// `sock.__sk_common.skc_family`
    sock_family,
    /// `sock.__sk_common.skc_state`
    sock_state,
    /// `sock.__sk_common.skc_daddr`
    sock_remote_v4,
    /// `sock.__sk_common.skc_rcv_saddr`
    sock_local_v4,
    /// `sock.__sk_common.skc_v6_daddr`
    sock_remote_v6,
    /// `sock.__sk_common.skc_v6_rcv_saddr`
    sock_local_v6,
    /// `sock.__sk_common.skc_net.net`
    sock_net,
    /// `sock.sk_protocol`
    sock_protocol,
    /// `sock.sk_err`
    sock_error,
    /// `sock.__sk_common.skc_flags`
    sock_flags,
    /// `sock.sk_dst_cache`
    sock_route,
    /// `dst_entry.dev`
    route_device,
    /// `net_device.flags`
    device_flags,
    /// `socket.sk`
    socket_sock,
    /// `net.ns.inum`
    net_inode,
    /// `tcp_sock.inet_conn.icsk_inet.inet_sport`: the local port, which outlives `skc_num` at the end of a connection
    tcp_local_port,
    /// `tcp_sock.write_seq`
    tcp_write_seq,
    /// `tcp_sock.copied_seq`
    tcp_copied_seq,
    /// `tcp_sock.rcv_nxt`
    tcp_received_next,
    /// `tcp_sock.inet_conn.icsk_ulp_ops`: what sits between the stream and its user (kTLS, MPTCP)
    tcp_upper_layer,
    /// The byte of `tcp_sock.inet_conn.icsk_inet` with the bit [`Self::transparent_bit`]
    tcp_transparent,
    /// The bit of that byte which says `IP_TRANSPARENT`: `inet_flags` (`INET_FLAGS_TRANSPARENT`), before 6.8 `transparent`
    transparent_bit,
    /// `msghdr.msg_flags`
    message_flags,
    /// `msghdr.msg_iter.iter_type`
    message_iterator,
    /// `msghdr.msg_iter.iov_offset`
    message_offset,
    /// `msghdr.msg_iter.ubuf`, or any member of the same union before 6.0, which has no such iterator
    message_buffer,
    /// `msghdr.msg_iter.__iov`, `iov` before 6.4; `kvec` has the same place
    message_vector,
    /// `msghdr.msg_iter.count`
    message_left,
    /// `task_struct.flags`
    task_flags,
    /// `task_struct.files`
    task_files,
    /// `files_struct.fdt`
    files_table,
    /// `fdtable.fd`
    table_files,
    /// `file.private_data`
    file_private,
    /// `task_struct.group_leader`
    task_group_leader,
    /// `task_struct.real_parent`
    task_real_parent,
    /// `task_struct.pid`
    task_pid,
    /// `task_struct.tgid`
    task_tgid,
    /// `task_struct.start_boottime`
    task_start_boottime,
    /// `task_struct.self_exec_id`
    task_self_exec_id,
    /// `task_struct.comm`
    task_comm,
    /// `task_struct.mm`
    task_mm,
    /// `task_struct.cred`
    task_cred,
    /// `cred.euid`
    cred_euid,
    /// `task_struct.cgroups`
    task_cgroups,
    /// `mm_struct.arg_start`
    mm_arg_start,
    /// `mm_struct.arg_end`
    mm_arg_end,
    /// `mm_struct.env_start`
    mm_env_start,
    /// `mm_struct.env_end`
    mm_env_end,
    /// `mm_struct.exe_file`
    mm_exe_file,
    /// `file.f_path.dentry`
    file_dentry,
    /// `file.f_path.mnt`
    file_mount,
    /// `bpf_iter_meta.seq`
    iterator_output,
    /// `dentry.d_parent`
    dentry_parent,
    /// `dentry.d_name.name`
    dentry_name,
    /// `vfsmount.mnt_root`
    vfsmount_root,
    /// `mount.mnt`, the `vfsmount` inside
    mount_vfsmount,
    /// `mount.mnt_parent`
    mount_parent,
    /// `mount.mnt_mountpoint`
    mount_mountpoint,
    /// `css_set.dfl_cgrp`
    css_set_default_cgroup,
    /// `cgroup.kn`
    cgroup_node,
    /// `kernfs_node.__parent`, `parent` before 6.15
    kernfs_parent,
    /// `kernfs_node.name`
    kernfs_name,
    /// The register of `pt_regs` that holds the system call's number (x86-64: `orig_ax`)
    regs_syscall,
    /// The register that holds the system call's result when it has one, and until then `-ENOSYS` (x86-64: `ax`)
    regs_result,
    /// The register that holds the first argument (x86-64: `di`)
    regs_argument_1,
    /// The register that holds the second argument (x86-64: `si`)
    regs_argument_2,
    /// The register that holds the third argument (x86-64: `dx`)
    regs_argument_3,
    /// The register that holds the fifth argument (x86-64: `r8`)
    regs_argument_5,
    /// The bits of a task that tell a 32-bit system call (x86-64: `task_struct.thread_info.status`)
    task_mode,
}

injected! {
    /// Numbers of the system calls whose buffers are in the caller's registers; they differ between architectures.
    Syscalls;
    /// What the programs are compiled with: numbers that no system call has.
    UNKNOWN = u32::MAX;

    /// `connect(fd, addr, len)`
    connect,
    /// `read(fd, buffer, length)`
    read,
    /// `write(fd, buffer, length)`
    write,
    /// `sendto(fd, buffer, length, …)`
    sendto,
    /// `recvfrom(fd, buffer, length, …)`
    recvfrom,
    /// `readv(fd, vector, parts)`
    readv,
    /// `writev(fd, vector, parts)`
    writev,
    /// `preadv2(fd, vector, parts, …)`
    preadv2,
    /// `pwritev2(fd, vector, parts, …)`
    pwritev2,
    /// `sendmsg(fd, message, flags)`
    sendmsg,
    /// `recvmsg(fd, message, flags)`
    recvmsg,
    /// `sendmmsg(fd, messages, count, flags)`
    sendmmsg,
    /// `recvmmsg(fd, messages, count, flags, timeout)`
    recvmmsg,
    /// The bits of [`Offsets::task_mode`] that are set in a 32-bit system call.
    compat_mode,
}

injected! {
    /// Numbers of the kinds of `iov_iter` whose bytes can be read; they differ between kernels.
    Iterators;
    /// What the programs are compiled with, and what a kind has that a kernel does not know: no number of a kind.
    UNKNOWN = u32::MAX;

    /// `ITER_UBUF`: one buffer of the caller (since 6.0)
    buffer,
    /// `ITER_IOVEC`: a vector of buffers of the caller
    vector,
    /// `ITER_KVEC`: a vector of buffers of the kernel
    kernel_vector,
}
