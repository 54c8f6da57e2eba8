//! What of the host's files a process may reach for the rest of its life (`landlock(7)`).
//!
//! Files that are open already are not concerned, and the rights of the process's user hold besides.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use tracing::debug;

/// The newest version whose restrictions are asked for; an older kernel applies those that it has.
const VERSION: ABI = ABI::V6;

/// What an agent reads as it runs. What is not there is left out.
const READ: [&str; 7] = [
    // Arguments and start times of processes, the agent's own figures, addresses of interfaces.
    "/proc",
    // How many processors there may be: the hooks' counters have a place for each.
    "/sys/devices/system/cpu",
    // The list of users, which is renamed into place when it changes, the time zone, and the configuration.
    "/etc",
    "/usr/share/zoneinfo",
    // Lists of users that other services keep: sssd(8), libnss-extrausers, systemd-userdbd.service(8).
    "/var/lib/sss/mc",
    "/var/lib/extrausers",
    "/run/systemd/userdb",
];

/// The terminal that `top` draws on, whatever it was started from.
const TERMINAL: &str = "/dev/tty";

/// Files that are the user's choice.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Read again while the agent runs, and perhaps renamed into place.
    pub read: Vec<PathBuf>,
    /// Opened again to append to, and made where they are missing.
    pub append: Vec<PathBuf>,
}

/// How far the kernel keeps a process from the files that it does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landlock {
    /// From all of them, as far as this agent knows how to.
    Full,
    /// From most: the kernel knows an older version.
    Partial,
    /// It has no Landlock, or it was booted without.
    None,
}

impl Landlock {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "Landlock",
            Self::Partial => "an older Landlock",
            Self::None => "no Landlock",
        }
    }
}

/// Whether this kernel has Landlock. Nothing is restricted.
pub fn has_landlock() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// What keeps a thread from all files but these, from making connections by TCP or waiting for them, and from abstract sockets
/// of others. Made while the way to the files is still open; [`restrict`] puts it in force.
pub(super) fn rules(files: &Files) -> Result<RulesetCreated, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let append = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
        .scope(Scope::AbstractUnixSocket)?
        .create()?;
    for path in READ {
        rules = allow(rules, Path::new(path), read)?;
    }
    rules = allow(rules, Path::new(TERMINAL), AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev)?;
    for path in files.read.iter().flat_map(|path| places(path)) {
        rules = allow(rules, &path, read)?;
    }
    for path in files.append.iter().flat_map(|path| places(path)) {
        rules = allow(rules, &path, append)?;
    }
    Ok(rules)
}

/// Puts rules in force for the calling thread, and those that it starts.
pub(super) fn restrict(rules: RulesetCreated) -> Result<Landlock, RulesetError> {
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Landlock::Full,
        RulesetStatus::PartiallyEnforced => Landlock::Partial,
        RulesetStatus::NotEnforced => Landlock::None,
    })
}

fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        // Of a file only what can be done to one.
        Ok(opened) if !path.is_dir() => rules.add_rule(PathBeneath::new(opened, access & AccessFs::from_file(VERSION))),
        Ok(opened) => rules.add_rule(PathBeneath::new(opened, access)),
        Err(error) => {
            debug!("{} is out of reach from now on: {error}", path.display());
            Ok(rules)
        }
    }
}

/// Where a file may be found again: in its directory, and in that which a symbolic link leads to. A device or a pipe alone, not
/// its directory.
fn places(path: &Path) -> Vec<PathBuf> {
    let target = path.canonicalize().ok();
    if target.as_deref().is_some_and(|target| !target.is_file()) {
        return target.into_iter().collect();
    }
    let directory = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    [Some(path), target.as_deref()].into_iter().flatten().map(directory).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_in_its_directory_and_behind_a_link() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let [link, there] = ["link", "there"].map(|name| folder.path().join(name));
        std::fs::create_dir(&there).expect("made");
        std::fs::write(there.join("events"), "").expect("written");
        std::os::unix::fs::symlink(there.join("events"), &link).expect("made");
        let there = there.canonicalize().expect("it is there");
        assert_eq!(places(&link), [folder.path().to_owned(), there.clone()]);
        assert_eq!(places(&there.join("missing")), [there]);
        assert_eq!(places(Path::new("missing")), [PathBuf::from(".")]);
    }

    #[test]
    fn a_device_is_reached_alone() {
        assert_eq!(places(Path::new("/dev/null")), [PathBuf::from("/dev/null")]);
    }
}
