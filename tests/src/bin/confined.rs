//! Tries what a confined process may not do, and what it must be able to: `confined MODE FOLDER`. Each attempt is a line, its
//! name and `ok` or the error's name.
//!
//! MODE is `agent`, `prober`, or `single-prober` where each probe is a link of its own, confined as these are; or `free`, which shows that the attempts are not refused anyway.
//! FOLDER has a file `readable`, a directory `mine` of the agent's user, and one `open` that everybody may write.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::Path;
use std::ptr::NonNull;
use std::{env, fs, io, thread};

use anyhow::{Context, Result, bail};
use libc::{c_int, c_long, c_void};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::ifaddrs::getifaddrs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::kill;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Uid, User, fork, getpid, getppid, setuid};
use smtp_observer::privilege::{self, Calls, Confinement, Files, Unprivileged};
use smtp_observer_tests::confined::{KEPT, NAME, USER};

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let (mode, folder) = (arguments.next().context("no mode")?, arguments.next().context("no folder")?);
    let folder = Path::new(&folder);
    // What is open already stays open.
    let before = Before {
        bound: inet()?,
        connecting: inet()?,
        listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        page: page(libc::PROT_READ | libc::PROT_WRITE)?,
    };
    let user = Unprivileged::choose(Some(USER))?;
    let files = Files { read: Vec::new(), append: vec![folder.join("mine/events.jsonl")] };
    let agent = Confinement { user: user.as_ref(), capabilities: &[], files: Some(&files), calls: Calls::Agent(&[]) };
    let confinement = match mode.as_str() {
        "free" => None,
        "agent" => Some(agent),
        "prober" => Some(Confinement { files: None, calls: Calls::Prober { multi: true }, ..agent }),
        "single-prober" => {
            Some(Confinement { capabilities: &KEPT, files: None, calls: Calls::Prober { multi: false }, ..agent })
        }
        _ => bail!("no such mode: {mode}"),
    };
    if let Some(confinement) = confinement {
        privilege::confine(&confinement)?;
    }
    for (name, outcome) in attempts(folder, &before) {
        let outcome = outcome.map_or_else(|errno| format!("{errno:?}"), |()| "ok".to_owned());
        println!("{name} {outcome}");
    }
    Ok(())
}

/// What was opened before.
struct Before {
    bound: OwnedFd,
    connecting: OwnedFd,
    listener: TcpListener,
    page: NonNull<c_void>,
}

type Outcome = Result<(), Errno>;

fn attempts(folder: &Path, before: &Before) -> BTreeMap<&'static str, Outcome> {
    let path = |name: &str| folder.join(name);
    let read = |path: &Path| fs::read(path).map(drop).map_err(errno);
    let append = |path: &Path| fs::OpenOptions::new().append(true).create(true).open(path).map(drop).map_err(errno);
    let new_socket = |family, kind| socket(family, kind, SockFlag::SOCK_CLOEXEC, None).map(drop);
    let address = |port| SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    let port = before.listener.local_addr().map_or(0, |address| address.port());
    let missing = c"/nonexistent".as_ptr() as usize;
    let own = getpid().as_raw() as usize;
    BTreeMap::from([
        // Files: the user's rights, and Landlock.
        ("read what root alone may read", read(Path::new("/etc/shadow"))),
        ("read what everybody may read", read(&path("readable"))),
        ("write where everybody may", append(&path("open/file"))),
        ("list a directory that is not needed", fs::read_dir("/usr").map(drop).map_err(errno)),
        ("append to the events", append(&path("mine/events.jsonl"))),
        (
            "make a file in its own directory",
            open(&path("mine/other"), OFlag::O_WRONLY | OFlag::O_CREAT, Mode::S_IRUSR).map(drop),
        ),
        ("read as musl does", open_as_musl(&path("readable"), libc::O_RDONLY)),
        ("append as musl does", open_as_musl(&path("mine/events.jsonl"), libc::O_WRONLY | libc::O_APPEND)),
        ("read other processes' arguments", read(Path::new("/proc/1/cmdline"))),
        ("look a user up", User::from_uid(Uid::from_raw(0)).map(drop)),
        // Sockets.
        ("make a TCP socket", new_socket(AddressFamily::Inet, SockType::Stream)),
        ("make a UDP socket of IPv6", new_socket(AddressFamily::Inet6, SockType::Datagram)),
        ("make a raw socket", new_socket(AddressFamily::Packet, SockType::Raw)),
        (
            "make a socket to another subsystem",
            call(libc::SYS_socket, [libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER].map(|it| it as usize)),
        ),
        ("wait for connections", bind(before.bound.as_raw_fd(), &address(0))),
        ("make a connection", connect(before.connecting.as_raw_fd(), &address(port))),
        ("reach an abstract socket", abstract_socket()),
        ("make a local socket", UnixDatagram::unbound().map(drop).map_err(errno)),
        ("list addresses", getifaddrs().map(drop)),
        // Code and processes.
        ("run a program", call(libc::SYS_execve, [missing, 0, 0])),
        ("make a process", child()),
        ("start a thread", thread::Builder::new().spawn(|| ()).map(|thread| drop(thread.join())).map_err(errno)),
        ("make a thread with flags in memory", call(libc::SYS_clone3, [0, 0, 0])),
        ("map code", page(libc::PROT_READ | libc::PROT_EXEC).map(drop)),
        ("turn data into code", turn_into_code(before.page)),
        ("trace a process", call(libc::SYS_ptrace, [libc::PTRACE_PEEKDATA as usize, 0, 0])),
        ("read a process's memory", call(libc::SYS_process_vm_readv, [own, 0, 0])),
        ("signal another process", kill(getppid(), None)),
        ("signal itself", kill(getpid(), None)),
        ("become root", setuid(Uid::from_raw(0))),
        (
            "set a limit",
            getrlimit(Resource::RLIMIT_CORE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_CORE, hard, hard)),
        ),
        // The kernel.
        ("load an eBPF program", call(libc::SYS_bpf, [5, 0, 0])),
        ("make an eBPF map", call(libc::SYS_bpf, [0, 0, 0])),
        ("open a performance counter", call(libc::SYS_perf_event_open, [0, 0, 0])),
        ("make an io_uring", call(libc::SYS_io_uring_setup, [0, 0, 0])),
        ("mount", call(libc::SYS_mount, [0, 0, 0])),
        ("leave a namespace", call(libc::SYS_unshare, [1, 0, 0])),
        ("enter a namespace", call(libc::SYS_setns, [usize::MAX, 0, 0])),
        ("use a key", call(libc::SYS_keyctl, [usize::MAX, 0, 0])),
        ("handle page faults", call(libc::SYS_userfaultfd, [usize::MAX, 0, 0])),
        ("load a module", call(libc::SYS_init_module, [0, 0, 0])),
        ("change a mode", call(libc::SYS_fchmodat, [HERE, 0, 0])),
        ("change an owner", call(libc::SYS_fchownat, [HERE, 0, 0])),
        ("remove a file", call(libc::SYS_unlinkat, [HERE, 0, 0])),
        ("rename a file", call(libc::SYS_renameat2, [HERE, 0, HERE])),
        ("make a directory", call(libc::SYS_mkdirat, [HERE, 0, 0])),
        ("make a link", call(libc::SYS_symlinkat, [0, HERE, 0])),
        ("type into a terminal", call(libc::SYS_ioctl, [usize::MAX, libc::TIOCSTI as usize, 0])),
    ])
}

const PAGE: usize = 4096;
const HERE: usize = libc::AT_FDCWD as usize;

/// A system call that does nothing even where it is allowed, for what it is told makes no sense.
fn call(number: c_long, [a, b, c]: [usize; 3]) -> Outcome {
    // SAFETY: no address is passed that the kernel could write to.
    Errno::result(unsafe { libc::syscall(number, a, b, c, 0, 0) }).map(drop)
}

/// Opens a file by the call that musl makes on x86-64, and glibc not any more.
fn open_as_musl(path: &Path, flags: c_int) -> Outcome {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let (path, flags) = (path.as_ptr() as usize, flags as usize);
    #[cfg(target_arch = "x86_64")]
    let (number, arguments) = (libc::SYS_open, [path, flags, 0]);
    #[cfg(not(target_arch = "x86_64"))]
    let (number, arguments) = (libc::SYS_openat, [HERE, path, flags]);
    call(number, arguments)
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

fn inet() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
}

/// A page of memory.
fn page(protection: c_int) -> nix::Result<NonNull<c_void>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the kernel chooses where.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED { Err(Errno::last()) } else { NonNull::new(page).ok_or(Errno::ENOMEM) }
}

fn turn_into_code(page: NonNull<c_void>) -> Outcome {
    // SAFETY: the page is this program's, and nothing refers to it.
    Errno::result(unsafe { libc::mprotect(page.as_ptr(), PAGE, libc::PROT_READ | libc::PROT_EXEC) }).map(drop)
}

/// The test that has started this program waits there.
fn abstract_socket() -> Outcome {
    let address = SocketAddr::from_abstract_name(format!("{NAME}-{}", getppid()));
    address.and_then(|address| UnixStream::connect_addr(&address)).map(drop).map_err(errno)
}

fn child() -> Outcome {
    // SAFETY: the child ends at once, and calls nothing before.
    match unsafe { fork()? } {
        // SAFETY: it ends the process.
        ForkResult::Child => unsafe { libc::_exit(0) },
        ForkResult::Parent { child } => waitpid(child, None).map(drop),
    }
}
