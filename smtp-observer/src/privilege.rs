//! What the agent may do: asked first, dropped as soon as the hooks are in.
//!
//! Capabilities, files ([`files`]) and system calls ([`calls`]) belong to a thread. They are given up on the main thread before
//! any other is started, so that every later thread starts without them.

mod calls;
mod files;
mod user;

use std::fmt;

pub use caps::Capability;
use caps::errors::CapsError;
use caps::{CapSet, CapsHashSet};
use landlock::RulesetError;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Uid, User, geteuid};

pub use self::calls::{Calls, FilterError};
pub use self::files::{Files, Landlock, has_landlock};
pub use self::user::{OWN as OWN_USER, Unprivileged, Unusable as UnusableUser};

/// This process may not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Loading and attaching eBPF programs.
    #[error("observing needs root, or CAP_BPF and CAP_PERFMON: run it with sudo.")]
    Observe,
    /// Reading which sockets other users' processes hold.
    #[error(
        "naming the owners of connections needs root, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: run it with sudo."
    )]
    ReadProcesses,
}

/// Whether eBPF programs may be loaded; asked before anything else, so that what fails for want of it says so.
pub fn may_observe() -> Result<(), Missing> {
    // Before Linux 5.8, CAP_SYS_ADMIN stood for both.
    let may = has(Capability::CAP_SYS_ADMIN) || has(Capability::CAP_BPF) && has(Capability::CAP_PERFMON);
    if may { Ok(()) } else { Err(Missing::Observe) }
}

/// Whether every process's descriptors may be read (`ptrace(2)`, "Ptrace access mode checking").
pub fn may_read_processes() -> Result<(), Missing> {
    let may_enter = has(Capability::CAP_DAC_READ_SEARCH) || has(Capability::CAP_DAC_OVERRIDE);
    if has(Capability::CAP_SYS_PTRACE) && may_enter { Ok(()) } else { Err(Missing::ReadProcesses) }
}

/// Whether functions of other processes may be probed: since Linux 6.16, and in the kernels that have its mend of
/// CVE-2025-38466, that takes CAP_SYS_ADMIN.
pub fn may_probe() -> bool {
    has(Capability::CAP_SYS_ADMIN)
}

/// Whether root may become another user.
pub fn may_become_another() -> bool {
    has(Capability::CAP_SETUID) && has(Capability::CAP_SETGID)
}

fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// What has to be kept to read the hooks' counters and to list the open sockets again: nothing, since Linux 5.19.
/// Before, a host that forbids unprivileged users `bpf(2)` forbids them what they hold, too.
pub fn to_read_counters() -> Vec<Capability> {
    let release = procfs::KernelVersion::current().ok();
    if release.is_some_and(|release| release >= procfs::KernelVersion::new(5, 19, 0)) {
        Vec::new()
    } else {
        vec![Capability::CAP_BPF]
    }
}

/// Privileges could not be dropped.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// A set of capabilities could not be changed.
    #[error("cannot give up capabilities ({set} set): {source}.")]
    Capabilities {
        /// Which set.
        set: &'static str,
        /// What the kernel said.
        source: CapsError,
    },
    /// Root could not become another user.
    #[error(
        "cannot become the user {user}: {source}. The agent does not stay root: give it CAP_SETUID and CAP_SETGID, or start \
         it as another user."
    )]
    User {
        /// Whom.
        user: Unprivileged,
        /// What the kernel said.
        source: Errno,
    },
    /// `prctl(2)` failed.
    #[error("cannot forbid gaining privileges (no_new_privs) and reading its memory (dumpable): {0}.")]
    NoNewPrivileges(Errno),
    /// Landlock is there, and refuses.
    #[error("cannot give up files (Landlock): {0}.")]
    Files(#[from] RulesetError),
    /// The kernel takes no filter of system calls.
    #[error("cannot give up system calls (seccomp): {0}.")]
    Calls(#[from] FilterError),
}

/// What is left after [`confine`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The effective user.
    pub uid: u32,
    /// Capabilities in force.
    pub capabilities: Vec<Capability>,
    /// The bounding set could not be emptied; without `no_new_privs`, an executed program could use it.
    pub bounding: bool,
    /// What keeps it from the host's files besides its user.
    pub files: Landlock,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}, ", self.uid)?;
        if self.capabilities.is_empty() {
            f.write_str("no capability")?;
        }
        for (index, capability) in self.capabilities.iter().enumerate() {
            write!(f, "{}{capability}", if index == 0 { "" } else { " " })?;
        }
        write!(f, ", no_new_privs, seccomp, {}", self.files.as_str())?;
        f.write_str(if self.bounding { ", bounding set" } else { "" })
    }
}

/// What a process keeps for the rest of its life.
#[derive(Clone, Debug)]
pub struct Confinement<'a> {
    /// The user that it becomes; the one that it is, without one.
    pub user: Option<&'a Unprivileged>,
    /// Capabilities.
    pub capabilities: &'a [Capability],
    /// Files besides those that every agent reads; all, without them.
    pub files: Option<&'a Files>,
    /// System calls.
    pub calls: Calls<'a>,
}

/// Gives up all but this, and the means to get anything back.
///
/// To be called on the main thread, when everything that needs privileges is open and before other threads start.
pub fn confine(confinement: &Confinement<'_>) -> Result<Kept, DropError> {
    let Confinement { user, capabilities, files, calls } = confinement;
    // What looks users up is loaded once: no code can be later.
    let _ = User::from_uid(Uid::from_raw(u32::MAX - 1));
    let rules = files.map(files::rules).transpose()?;
    let (capabilities, bounding) = relinquish(*user, capabilities)?;
    let files = rules.map(files::restrict).transpose()?.unwrap_or(Landlock::None);
    calls::restrict(*calls)?;
    Ok(Kept { uid: geteuid().as_raw(), capabilities, bounding, files })
}

/// Gives up root and every capability but those in `keep`; those that are left, and whether the bounding set is.
fn relinquish(user: Option<&Unprivileged>, keep: &[Capability]) -> Result<(Vec<Capability>, bool), DropError> {
    prctl::set_no_new_privs().map_err(DropError::NoNewPrivileges)?;

    // The bounding set first: changing it takes a capability (CAP_SETPCAP), which a user who was granted just what
    // observing needs does not have. With no_new_privs set it is then without effect, and is only reported.
    let bounding = caps::clear(None, CapSet::Bounding).is_err();

    // The kernel forgets it with the old user.
    let with_parent = prctl::get_pdeathsig().map_err(DropError::NoNewPrivileges)?;
    if let Some(user) = user {
        user.become_it().map_err(|source| DropError::User { user: user.clone(), source })?;
    }
    let permitted =
        caps::read(None, CapSet::Permitted).map_err(|source| DropError::Capabilities { set: "permitted", source })?;
    let kept: CapsHashSet = keep.iter().copied().filter(|capability| permitted.contains(capability)).collect();
    // Kernels before 4.3 have no ambient set, and every one that runs this agent's programs is newer.
    for (name, set, value) in [
        ("ambient", CapSet::Ambient, &CapsHashSet::new()),
        ("inheritable", CapSet::Inheritable, &CapsHashSet::new()),
        ("effective", CapSet::Effective, &kept),
        ("permitted", CapSet::Permitted, &kept),
    ] {
        let result = match set {
            CapSet::Ambient => caps::clear(None, set),
            _ => caps::set(None, set, value),
        };
        result.map_err(|source| DropError::Capabilities { set: name, source })?;
    }
    prctl::set_pdeathsig(with_parent).map_err(DropError::NoNewPrivileges)?;
    // Other processes of its user, and files with its memory, are to show nothing of the mail.
    prctl::set_dumpable(false).map_err(DropError::NoNewPrivileges)?;

    let mut capabilities: Vec<_> = kept.into_iter().collect();
    capabilities.sort_unstable_by_key(|capability| capability.index());
    Ok((capabilities, bounding))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Capabilities and no_new_privs belong to a thread, and libtest gives each test one of its own. What belongs to a process
    // is tried in a process of its own: tests/tests/confinement.rs.

    #[test]
    fn after_the_drop_nothing_is_left() {
        let (kept, bounding) = relinquish(None, &[]).expect("dropping needs no privilege");
        assert_eq!(kept, []);
        for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
            assert_eq!(caps::read(None, set).expect("readable"), CapsHashSet::new(), "{set:?}");
        }
        assert!(prctl::get_no_new_privs().expect("readable"));
        assert_eq!(may_observe(), Err(Missing::Observe));
        assert_eq!(may_read_processes(), Err(Missing::ReadProcesses));
        let kept = Kept { uid: 8, capabilities: kept, bounding, files: Landlock::None };
        let said = kept.to_string();
        assert!(said.starts_with("uid 8, no capability, no_new_privs, seccomp, no Landlock"), "{said}");
    }

    #[test]
    fn every_failure_is_told_in_whole_sentences() {
        let user = Unprivileged::choose(None).expect("users are listed");
        let errors = [
            Some(DropError::Capabilities { set: "ambient", source: "no".into() }),
            user.map(|user| DropError::User { user, source: Errno::EPERM }),
            Some(DropError::NoNewPrivileges(Errno::EINVAL)),
        ];
        for error in errors.into_iter().flatten() {
            let text = error.to_string();
            assert!(text.starts_with("cannot ") && text.ends_with('.') && !text.ends_with(".."), "{text}");
            assert_eq!(crate::kernel::ProbeFailure::from(error).to_string(), text);
        }
    }

    #[test]
    fn what_is_to_be_kept_is_kept_where_it_was_held() {
        let held = has(Capability::CAP_BPF);
        let (kept, _) = relinquish(None, &[Capability::CAP_BPF]).expect("dropping needs no privilege");
        assert_eq!(kept.contains(&Capability::CAP_BPF), held);
        assert_eq!(has(Capability::CAP_BPF), held);
        assert!(!has(Capability::CAP_SYS_ADMIN));
    }
}
