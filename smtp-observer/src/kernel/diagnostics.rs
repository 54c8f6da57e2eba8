//! What of the host around the agent keeps it from seeing, or from seeing all: namespaces, lockdown, seccomp, /proc and
//! memory.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use procfs::process::{MountInfo, Process};
use serde::Serialize;
use tracing::debug;

use super::Error;
use crate::privilege::{self, OWN_USER, Unprivileged, UnusableUser};

/// Inodes of the namespaces that the host began with (`include/linux/proc_ns.h`).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

const USER_NAMESPACE: &str = "/proc/self/ns/user";
const PID_NAMESPACE: &str = "/proc/self/ns/pid";

/// Where the kernel says how far it is locked down.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Where cgroups are mounted, of either version.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What the agent takes as it starts, with the ring buffer that it has by default.
const MEMORY: u64 = LEAST_MEMORY + (4 << 20);

/// The same without the ring buffer: with less it is killed, most likely while the kernel verifies the programs. Measured.
const LEAST_MEMORY: u64 = 48 << 20;

/// Descriptors that it takes as it starts: of each program, link and map one, and some for HTTP.
const DESCRIPTORS: u64 = 128;

/// What a limit of memory is from which on it is none.
const NO_LIMIT: u64 = 1 << 60;

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// What it is.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do about it, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

/// How a [`Diagnostic`] bears on what can be observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not at all.
    Yes,
    /// Something is not seen, or may not be; or the agent is less confined than it could be.
    Partly,
    /// Nothing can be observed.
    No,
}

impl State {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Partly => "partly",
            Self::No => "no",
        }
    }
}

impl Diagnostic {
    /// It is as it should be.
    pub fn fine(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: State::Yes, detail: detail.into(), remedy: None }
    }

    /// It is not.
    pub fn wrong(name: &'static str, state: State, detail: impl Into<String>, remedy: &'static str) -> Self {
        Self { name, state, detail: detail.into(), remedy: Some(remedy) }
    }
}

/// All of it.
pub(super) fn look() -> Vec<Diagnostic> {
    vec![
        user_namespace(inode(USER_NAMESPACE)),
        pid_namespace(inode(PID_NAMESPACE)),
        proc(Process::myself().and_then(|process| process.mountinfo()).map(|mounts| mounts.0).as_deref().ok()),
        owners(privilege::may_read_processes().is_ok() && is_hosts_user()),
        lockdown(fs::read_to_string(LOCKDOWN).ok().as_deref()),
        user(Unprivileged::choose(None), privilege::may_become_another()),
        landlock(privilege::has_landlock()),
        seccomp(Process::myself().and_then(|process| process.status()).ok().and_then(|status| status.seccomp)),
        memory(own_limit()),
    ]
}

/// Why the owners of some sockets are not visible from here, and what to do; nothing where those of all are.
pub fn hidden_owners() -> Option<String> {
    let namespaces = [user_namespace(inode(USER_NAMESPACE)), pid_namespace(inode(PID_NAMESPACE))];
    let foreign = namespaces.into_iter().find(|namespace| namespace.state != State::Yes)?;
    let remedy = foreign.remedy.unwrap_or_default();
    Some(format!("the owners of sockets outside of this container's {} are not visible. {remedy}", foreign.name))
}

/// Why not all open sockets can be listed from here, and what to do; nothing where they can.
pub(super) fn hidden_processes() -> Option<String> {
    let foreign = pid_namespace(inode(PID_NAMESPACE));
    let remedy = foreign.remedy.filter(|_| foreign.state != State::Yes)?;
    Some(format!(
        "Only processes of this container's {} are looked at: connections that are open already are followed from their next \
         bytes on. {remedy}",
        foreign.name
    ))
}

/// Whether capabilities are those of the host.
pub(super) fn is_hosts_user() -> bool {
    user_namespace(inode(USER_NAMESPACE)).state == State::Yes
}

fn inode(namespace: &str) -> Option<u64> {
    fs::metadata(namespace).ok().map(|metadata| metadata.ino())
}

fn user_namespace(inode: Option<u64>) -> Diagnostic {
    const NAME: &str = "user namespace";
    match inode {
        Some(FIRST_USER_NAMESPACE) => Diagnostic::fine(NAME, "the host's"),
        Some(_) => Diagnostic::wrong(
            NAME,
            State::No,
            "it is a container's own, whose root may not load eBPF programs",
            "Run it as the host's root: not in a rootless container, nor behind `unshare --user`.",
        ),
        None => Diagnostic::fine(NAME, "not shown"),
    }
}

fn pid_namespace(inode: Option<u64>) -> Diagnostic {
    const NAME: &str = "pid namespace";
    match inode {
        Some(FIRST_PID_NAMESPACE) => Diagnostic::fine(NAME, "the host's"),
        Some(_) => Diagnostic::wrong(
            NAME,
            State::Partly,
            "it is a container's own: `run` and `trace` name the host's processes all the same, but not the arguments of \
             those that were there before; they do not list what was open before, and do not find ends that the kernel does \
             not tell; `connections` lists the container's alone",
            "Give it the host's: `--pid=host` for Docker and Podman, `hostPID: true` for Kubernetes.",
        ),
        None => Diagnostic::fine(NAME, "not shown"),
    }
}

fn proc(mounts: Option<&[MountInfo]>) -> Diagnostic {
    const NAME: &str = "/proc";
    let Some(mounts) = mounts else {
        return Diagnostic::wrong(
            NAME,
            State::No,
            "it cannot be read: no command finds what it needs to start",
            "Mount it: `mount -t proc proc /proc`.",
        );
    };
    // What is mounted last lies on top.
    let options =
        mounts.iter().rev().find(|mount| mount.mount_point == Path::new("/proc")).map(|mount| &mount.super_options);
    match options.and_then(|options| options.get("hidepid")).and_then(Option::as_deref) {
        None | Some("0" | "off") => Diagnostic::fine(NAME, "shows every process"),
        Some(value) => Diagnostic::wrong(
            NAME,
            State::Partly,
            format!(
                "hidepid={value}: of other users' processes that are there before, the agent reads the arguments at its start, \
                 and not once it has given up its privileges"
            ),
            "Run `mount -o remount,hidepid=0 /proc`, or start the agent in the group that gid= names.",
        ),
    }
}

fn owners(may: bool) -> Diagnostic {
    const NAME: &str = "may read owners";
    match may {
        true => Diagnostic::fine(NAME, "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, for `connections`"),
        false => Diagnostic::wrong(
            NAME,
            State::Partly,
            "`connections` needs the host's CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
            "Run `connections` as the host's root.",
        ),
    }
}

/// The kernel's words put the mode in force in brackets: `none [integrity] confidentiality`.
fn lockdown(text: Option<&str>) -> Diagnostic {
    const NAME: &str = "lockdown";
    let mode = text.and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0));
    match mode {
        None => Diagnostic::fine(NAME, "the kernel has none, or does not show it"),
        Some("confidentiality") => Diagnostic::wrong(
            NAME,
            State::Partly,
            "confidentiality: programs may not read the kernel's memory",
            "Boot with `lockdown=integrity`, or without: what is said of the hooks below decides.",
        ),
        Some(mode) => Diagnostic::fine(NAME, mode),
    }
}

fn user(chosen: Result<Option<Unprivileged>, UnusableUser>, may_become: bool) -> Diagnostic {
    const NAME: &str = "user";
    match chosen {
        Ok(None) => Diagnostic::fine(NAME, "not root, and stays so"),
        Ok(Some(user)) if !may_become => Diagnostic::wrong(
            NAME,
            State::No,
            format!("root's agent is to become {user} once its hooks are in, and cannot"),
            "Give it CAP_SETUID and CAP_SETGID, or start it as another user with the capabilities that it needs.",
        ),
        Ok(Some(user)) if user.is_shared() => Diagnostic::wrong(
            NAME,
            State::Partly,
            format!(
                "there is no user {OWN_USER}: once its hooks are in, root's agent becomes {user}, as other services do"
            ),
            "Run `useradd --system smtp-observer`, or give another user with --user NAME.",
        ),
        Ok(Some(user)) => Diagnostic::fine(NAME, format!("once its hooks are in, root's agent becomes {user}")),
        // No command that observes starts then.
        Err(error) => Diagnostic::wrong(
            NAME,
            State::No,
            error.to_string().trim_end_matches('.'),
            "Mend the host's list of users, or give the number of one with --user NUMBER.",
        ),
    }
}

fn landlock(has: bool) -> Diagnostic {
    const NAME: &str = "Landlock";
    if has {
        return Diagnostic::fine(NAME, "once its hooks are in, the agent reaches only the files that it needs");
    }
    Diagnostic::wrong(
        NAME,
        State::Partly,
        "the kernel has none, or was booted without: the rights of its user alone keep the agent from files",
        "Where the kernel has it (CONFIG_SECURITY_LANDLOCK), boot with `landlock` in the list `lsm=`.",
    )
}

/// 2 is a filter (`seccomp(2)`). What it forbids is known only to those who try.
fn seccomp(mode: Option<u32>) -> Diagnostic {
    const NAME: &str = "seccomp";
    match mode {
        Some(2) => Diagnostic::wrong(
            NAME,
            State::Partly,
            "a filter is in force, which may forbid bpf(2)",
            "Where the hooks below are refused, allow it: `--security-opt seccomp=unconfined` for Docker and Podman, \
             `seccompProfile: {type: Unconfined}` for Kubernetes.",
        ),
        _ => Diagnostic::fine(NAME, "no filter"),
    }
}

/// Fails where this process's cgroup may have less memory than it takes to start with a ring buffer of this size.
pub(super) fn require_memory(ring_bytes: u32) -> Result<(), Error> {
    suffices(own_limit(), LEAST_MEMORY + u64::from(ring_bytes))
}

fn suffices(limit: Option<u64>, needed: u64) -> Result<(), Error> {
    match limit {
        Some(limit) if limit < needed => Err(Error::Memory { most: limit >> 20, needed: needed.div_ceil(1 << 20) }),
        _ => Ok(()),
    }
}

/// Has this process have as many descriptors as it may get, and fails where these are too few.
pub(super) fn require_descriptors() -> Result<(), Error> {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        debug!("the limit of descriptors stays at {soft}: {error}");
    }
    match hard < DESCRIPTORS {
        true => Err(Error::Descriptors { most: hard, needed: DESCRIPTORS }),
        false => Ok(()),
    }
}

fn own_limit() -> Option<u64> {
    limit(Path::new(CGROUPS), &fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
}

fn memory(limit: Option<u64>) -> Diagnostic {
    const NAME: &str = "memory";
    match limit {
        Some(limit) if limit < MEMORY => Diagnostic::wrong(
            NAME,
            State::Partly,
            format!("its cgroup may have {} MiB, and {} MiB are needed as it starts", limit >> 20, MEMORY >> 20),
            "Allow more (`MemoryMax=` of a unit, `--memory` of a container), and the size of --ring-size on top.",
        ),
        Some(limit) => Diagnostic::fine(NAME, format!("its cgroup may have {} MiB", limit >> 20)),
        // `ulimit -l` does not count: eBPF's memory is the cgroup's since Linux 5.11.
        None => Diagnostic::fine(NAME, "no limit"),
    }
}

/// The least that a process's cgroups, and those around them, allow it, by its `/proc/PID/cgroup`.
fn limit(root: &Path, cgroups: &str) -> Option<u64> {
    let limits = cgroups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            controllers if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let own = root.join(path);
        let around = own.ancestors().take_while(|directory| directory.starts_with(&root));
        around.filter_map(|directory| fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()).min()
    });
    limits.min().filter(|limit| *limit < NO_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(lines: &[&str]) -> Vec<MountInfo> {
        lines.iter().map(|line| MountInfo::from_line(line).expect("a line of mountinfo")).collect()
    }

    /// Whatever is not as it should be comes with what to do.
    fn state(finding: &Diagnostic) -> State {
        assert_eq!(finding.remedy.is_none(), finding.state == State::Yes, "{finding:?}");
        assert!(finding.remedy.is_none_or(|remedy| remedy.ends_with('.')), "{finding:?}");
        finding.state
    }

    #[test]
    fn namespaces() {
        assert_eq!(state(&user_namespace(Some(4_026_531_837))), State::Yes);
        assert_eq!(state(&user_namespace(Some(4_026_532_211))), State::No);
        assert_eq!(state(&user_namespace(None)), State::Yes);
        assert_eq!(state(&pid_namespace(Some(4_026_531_836))), State::Yes);
        assert_eq!(state(&pid_namespace(Some(4_026_531_837))), State::Partly);
    }

    #[test]
    fn hidden_processes() {
        let plain = "22 27 0:21 / /proc rw,relatime - proc proc rw";
        let hidden = "22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw,hidepid=2,gid=4";
        let named = "22 27 0:21 / /proc rw,relatime - proc proc rw,hidepid=invisible";
        let off = "22 27 0:21 / /proc rw,relatime - proc proc rw,hidepid=off";
        let elsewhere = "23 27 0:22 / /srv/proc rw - proc proc rw,hidepid=2";
        assert_eq!(state(&proc(Some(&mounts(&[plain, elsewhere])))), State::Yes);
        assert_eq!(state(&proc(Some(&mounts(&[off])))), State::Yes);
        assert!(proc(Some(&mounts(&[plain, hidden]))).detail.starts_with("hidepid=2:"));
        assert_eq!(state(&proc(Some(&mounts(&[named])))), State::Partly);
        assert_eq!(state(&proc(Some(&mounts(&[hidden, plain])))), State::Yes, "the upper one counts");
        assert_eq!(state(&proc(None)), State::No);
    }

    #[test]
    fn modes_of_lockdown() {
        assert_eq!(state(&lockdown(Some("[none] integrity confidentiality\n"))), State::Yes);
        assert_eq!(lockdown(Some("none [integrity] confidentiality\n")), Diagnostic::fine("lockdown", "integrity"));
        assert_eq!(state(&lockdown(Some("none integrity [confidentiality]\n"))), State::Partly);
        assert_eq!(state(&lockdown(None)), State::Yes);
    }

    #[test]
    fn filters_of_system_calls() {
        assert_eq!(state(&seccomp(Some(0))), State::Yes);
        assert_eq!(state(&seccomp(None)), State::Yes);
        assert_eq!(state(&seccomp(Some(2))), State::Partly);
    }

    #[test]
    fn users_and_files() {
        assert_eq!(state(&user(Ok(None), false)), State::Yes);
        let error = UnusableUser::LookUp { name: "smtp-observer".into(), source: nix::errno::Errno::EIO };
        assert_eq!(state(&user(Err(error), true)), State::No);
        let nobody = Unprivileged::choose(Some("65534"));
        if nix::unistd::geteuid().is_root() {
            assert_ne!(state(&user(nobody.clone(), true)), State::No);
            assert_eq!(state(&user(nobody, false)), State::No);
        }
        assert_eq!(state(&landlock(true)), State::Yes);
        assert_eq!(state(&landlock(false)), State::Partly);
    }

    #[test]
    fn owners_of_sockets() {
        assert_eq!(state(&owners(true)), State::Yes);
        assert_eq!(state(&owners(false)), State::Partly);
    }

    #[test]
    fn the_least_of_all_limits_counts() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("system.slice/agent.service/memory.max", "max\n");
        write("system.slice/memory.max", "33554432\n");
        write("memory/docker/4f/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/docker/memory.limit_in_bytes", "67108864\n");
        let least = |cgroups: &str| limit(root.path(), cgroups);
        assert_eq!(least("0::/system.slice/agent.service\n"), Some(32 << 20));
        assert_eq!(least("5:cpu:/\n4:memory,hugetlb:/docker/4f\n0::/\n"), Some(64 << 20));
        assert_eq!(least("4:memory:/docker/4f\n0::/system.slice/agent.service\n"), Some(32 << 20));
        assert_eq!(least("0::/user.slice\n"), None);
        assert_eq!(least(""), None);
        write("memory/docker/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(least("4:memory:/docker/4f\n"), None);

        assert_eq!(state(&memory(Some(32 << 20))), State::Partly);
        assert!(memory(Some(32 << 20)).detail.contains("32 MiB"));
        assert_eq!(state(&memory(Some(64 << 20))), State::Yes);
        assert_eq!(state(&memory(None)), State::Yes);
        let refusal = suffices(Some(16 << 20), 36 << 20).expect_err("too little");
        assert!(refusal.to_string().contains("may have 16 MiB of memory, and it needs 36 MiB"), "{refusal}");
        assert!(suffices(Some(36 << 20), 36 << 20).is_ok() && suffices(None, u64::MAX).is_ok());
    }
}
