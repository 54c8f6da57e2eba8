//! What the agent may do: asked first, dropped as soon as the hooks are in.
//!
//! Capabilities belong to a thread. They are dropped on the main thread before any other is started, so that every
//! later thread starts without them.

use std::fmt;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;

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
    #[error("cannot give up capabilities ({set} set): {source}")]
    Capabilities {
        /// Which set.
        set: &'static str,
        /// What the kernel said.
        source: CapsError,
    },
    /// `prctl(PR_SET_NO_NEW_PRIVS)` failed.
    #[error("cannot forbid gaining privileges (no_new_privs): {0}")]
    NoNewPrivileges(Errno),
}

/// What is left after [`relinquish`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The effective user, whose files stay open to the agent.
    pub uid: u32,
    /// Capabilities in force.
    pub capabilities: Vec<Capability>,
    /// The bounding set could not be emptied; without `no_new_privs`, an executed program could use it.
    pub bounding: bool,
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
        f.write_str(if self.bounding { ", no_new_privs, bounding set" } else { ", no_new_privs" })
    }
}

/// Gives up every capability of the calling thread but those in `keep`, and the means to get any back.
///
/// To be called on the main thread, when everything that needs privileges is open and before other threads start.
pub fn relinquish(keep: &[Capability]) -> Result<Kept, DropError> {
    prctl::set_no_new_privs().map_err(DropError::NoNewPrivileges)?;

    // The bounding set first: changing it takes a capability (CAP_SETPCAP), which a user who was granted just what
    // observing needs does not have. With no_new_privs set it is then without effect, and is only reported.
    let bounding = caps::clear(None, CapSet::Bounding).is_err();

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

    let mut capabilities: Vec<_> = kept.into_iter().collect();
    capabilities.sort_unstable_by_key(|capability| capability.index());
    Ok(Kept { uid: nix::unistd::geteuid().as_raw(), capabilities, bounding })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Capabilities and no_new_privs belong to a thread, and libtest gives each test one of its own.

    #[test]
    fn after_the_drop_nothing_is_left() {
        let kept = relinquish(&[]).expect("dropping needs no privilege");
        assert_eq!(kept.capabilities, []);
        for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
            assert_eq!(caps::read(None, set).expect("readable"), CapsHashSet::new(), "{set:?}");
        }
        assert!(prctl::get_no_new_privs().expect("readable"));
        assert_eq!(may_observe(), Err(Missing::Observe));
        assert_eq!(may_read_processes(), Err(Missing::ReadProcesses));
        assert!(kept.to_string().contains("no capability, no_new_privs"), "{kept}");
    }

    #[test]
    fn what_is_to_be_kept_is_kept_where_it_was_held() {
        let held = has(Capability::CAP_BPF);
        let kept = relinquish(&[Capability::CAP_BPF]).expect("dropping needs no privilege");
        assert_eq!(kept.capabilities.contains(&Capability::CAP_BPF), held);
        assert_eq!(has(Capability::CAP_BPF), held);
        assert!(!has(Capability::CAP_SYS_ADMIN));
    }
}
