//! Which system calls a process may make for the rest of its life (`seccomp(2)`).
//!
//! A call that is not listed fails with EPERM. Nothing is executed any more, no code is loaded, and no process is made: only
//! threads.

use std::collections::BTreeMap;

use libc::{c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Is, SeccompCondition,
    SeccompFilter, SeccompRule,
};

/// The filter could not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It cannot be made for this processor.
    #[error(transparent)]
    Made(#[from] BackendError),
    /// The kernel refuses it.
    #[error(transparent)]
    Installed(#[from] seccompiler::Error),
}

/// Whose calls.
#[derive(Clone, Copy, Debug)]
pub enum Calls<'a> {
    /// The agent's, and the processes that it may end.
    Agent(&'a [u32]),
    /// Those of the process that attaches probes: many by one link, or each by one of its own.
    Prober {
        /// By one link.
        multi: bool,
    },
}

/// Memory, threads, time, and what is open already.
const ALWAYS: &[c_long] = &[
    // Memory. What may be executed is decided below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads and their ends.
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    // Who and where it is.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getcwd,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    // Descriptors.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_pipe2,
    // Names of files, which the user's rights and Landlock bound.
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
];

/// The same by the names that only older machines have.
#[cfg(target_arch = "x86_64")]
const ALWAYS_OF_OLD: &[c_long] = &[
    libc::SYS_time,
    libc::SYS_dup2,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_access,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_OF_OLD: &[c_long] = &[];

/// Calls that open a file by its name, each with the place of its flags. musl makes the older one.
#[cfg(target_arch = "x86_64")]
const OPEN: &[(c_long, u8)] = &[(libc::SYS_openat, 2), (libc::SYS_open, 1)];
#[cfg(not(target_arch = "x86_64"))]
const OPEN: &[(c_long, u8)] = &[(libc::SYS_openat, 2)];

/// Flags with which a file is not opened for reading alone. Not `O_ACCMODE`: musl counts `O_PATH` among it.
const WRITES: c_int = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;

/// HTTP clients, the service manager, the journal, the user database, and the addresses of interfaces: on sockets whose kind is
/// decided below.
const SOCKETS: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    // A message for the journal that is longer than a datagram.
    libc::SYS_memfd_create,
    // The events' file, of which half a line is taken back.
    libc::SYS_ftruncate,
];

/// Commands of `bpf(2)` (`include/uapi/linux/bpf.h`) with which an agent reads its counters, takes the ends of connections from their map and
/// lists open sockets.
const BPF_OF_AGENT: &[c_int] = &[
    BPF_MAP_LOOKUP_ELEM,
    BPF_MAP_DELETE_ELEM,
    BPF_MAP_GET_NEXT_KEY,
    BPF_OBJ_GET_INFO_BY_FD,
    BPF_LINK_CREATE,
    BPF_ITER_CREATE,
];

/// Those with which the agent's programs are found by their numbers and put on functions. For each function aya tries out, with a
/// program of two instructions, whether the kernel knows cookies.
const BPF_OF_PROBER: &[c_int] =
    &[BPF_PROG_LOAD, BPF_PROG_GET_NEXT_ID, BPF_PROG_GET_FD_BY_ID, BPF_OBJ_GET_INFO_BY_FD, BPF_LINK_CREATE];

/// Those with which programs that were handed over are put on functions, many at once.
const BPF_OF_MULTI_PROBER: &[c_int] = &[BPF_OBJ_GET_INFO_BY_FD, BPF_LINK_CREATE];

const BPF_MAP_LOOKUP_ELEM: c_int = 1;
const BPF_MAP_DELETE_ELEM: c_int = 3;
const BPF_MAP_GET_NEXT_KEY: c_int = 4;
const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_GET_NEXT_ID: c_int = 11;
const BPF_PROG_GET_FD_BY_ID: c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: c_int = 15;
const BPF_LINK_CREATE: c_int = 28;
const BPF_ITER_CREATE: c_int = 33;

/// Requests to a terminal, a socket and a pipe; not TIOCSTI, which types for the user.
const REQUESTS: &[libc::Ioctl] = &[
    libc::TCGETS,
    libc::TCSETS,
    libc::TCSETSW,
    libc::TCSETSF,
    libc::TCGETS2,
    libc::TCSETS2,
    libc::TCSETSW2,
    libc::TCSETSF2,
    libc::TIOCGWINSZ,
    libc::FIONREAD,
    libc::FIONBIO,
    libc::FIOCLEX,
];

/// Requests to a probe (`include/uapi/linux/perf_event.h`).
const PERF_EVENT_IOC_ENABLE: u32 = 0x2400;
const PERF_EVENT_IOC_DISABLE: u32 = 0x2401;
const PERF_EVENT_IOC_SET_BPF: u32 = 0x4004_2408;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Puts the filter in force for the calling thread and those that it starts.
pub(super) fn restrict(calls: Calls<'_>) -> Result<(), FilterError> {
    // A call whose parameters lie in memory, where no filter sees them; libraries then make the older one, which is listed.
    install(once(libc::SYS_clone3), SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?;
    install(allowed(calls)?, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
}

fn install(rules: Rules, otherwise: SeccompAction, listed: SeccompAction) -> Result<(), FilterError> {
    let processor = std::env::consts::ARCH.try_into()?;
    let program: BpfProgram = SeccompFilter::new(rules, otherwise, listed, processor)?.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}

fn once(call: c_long) -> Rules {
    Rules::from([(call, Vec::new())])
}

fn allowed(calls: Calls<'_>) -> Result<Rules, BackendError> {
    let mut rules: Rules = [ALWAYS, ALWAYS_OF_OLD].into_iter().flatten().map(|call| (*call, Vec::new())).collect();
    // Answered above.
    rules.extend(once(libc::SYS_clone3));
    let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;
    rules.insert(libc::SYS_clone, vec![has(0, thread, thread)?]);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![has(2, libc::PROT_EXEC as u64, 0)?]);
    }
    // Limits are read, and of the process itself.
    rules.insert(libc::SYS_prlimit64, vec![all([equal(0, 0)?, long(2, 0)?])?]);
    rules.insert(libc::SYS_prctl, one_of(0, [libc::PR_SET_NAME, libc::PR_GET_NAME])?);
    let mut requests = one_of(1, REQUESTS.iter().map(|request| *request as u32))?;
    let own = std::process::id();
    let commands = match calls {
        Calls::Agent(children) => {
            rules.extend(SOCKETS.iter().map(|call| (*call, Vec::new())));
            // Of the sockets with which anything beyond this host can be reached, it has what it was started with.
            let local = all([equal(0, libc::AF_UNIX as u64)?])?;
            let netlink = |family: c_int| all([equal(0, libc::AF_NETLINK as u64)?, equal(2, family as u64)?]);
            // Its addresses, and whose socket an HTTP client has.
            let (addresses, peers) = (netlink(libc::NETLINK_ROUTE)?, netlink(libc::NETLINK_SOCK_DIAG)?);
            rules.insert(libc::SYS_socket, vec![local, addresses, peers]);
            rules.insert(libc::SYS_socketpair, one_of(0, [libc::AF_UNIX])?);
            rules.insert(libc::SYS_kill, one_of(0, children.iter().copied().chain([own]))?);
            // Which files it may write, Landlock and the user's rights say.
            rules.extend(OPEN.iter().map(|(call, _)| (*call, Vec::new())));
            BPF_OF_AGENT
        }
        Calls::Prober { multi } => {
            // Which processes have ended.
            rules.insert(libc::SYS_pidfd_open, Vec::new());
            rules.insert(libc::SYS_kill, one_of(0, [own])?);
            // Files are opened to be read.
            for (call, flags) in OPEN {
                rules.insert(*call, vec![has(*flags, WRITES as u64, 0)?]);
            }
            // To the journal, on the socket that it has.
            rules.extend(once(libc::SYS_sendto));
            if multi {
                BPF_OF_MULTI_PROBER
            } else {
                rules.insert(libc::SYS_perf_event_open, Vec::new());
                requests.extend(one_of(1, [PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_DISABLE, PERF_EVENT_IOC_SET_BPF])?);
                BPF_OF_PROBER
            }
        }
    };
    rules.insert(libc::SYS_bpf, one_of(0, commands.iter().copied())?);
    rules.insert(libc::SYS_ioctl, requests);
    // For the end by a signal of its own, as after a panic.
    rules.insert(libc::SYS_tgkill, one_of(0, [own])?);
    // The same from musl.
    rules.insert(libc::SYS_tkill, one_of(0, [own])?);
    Ok(rules)
}

/// An argument of 32 bits is one of these.
fn one_of<T: TryInto<u64>>(
    argument: u8,
    values: impl IntoIterator<Item = T>,
) -> Result<Vec<SeccompRule>, BackendError> {
    let values = values.into_iter().filter_map(|value| value.try_into().ok());
    values.map(|value| all([equal(argument, value)?])).collect()
}

/// An argument has, of the bits of a mask, these.
fn has(argument: u8, mask: u64, bits: u64) -> Result<SeccompRule, BackendError> {
    all([SeccompCondition::new(argument, Width::Qword, Is::MaskedEq(mask), bits)?])
}

fn equal(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Width::Dword, Is::Eq, value)
}

fn long(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Width::Qword, Is::Eq, value)
}

fn all<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into())
}
