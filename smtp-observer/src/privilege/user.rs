//! The user that a process becomes which root has started.

use std::ffi::CString;
use std::fmt;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, User, geteuid, getresgid, getresuid, initgroups, setgroups, setresgid, setresuid};

/// The agent's own user, which its package makes.
pub const OWN: &str = "smtp-observer";

/// Who it becomes on a host that has no such user.
const SHARED: &str = "nobody";

/// The number of `nobody` on every distribution, for a container that has no list of users (`include/linux/highuid.h`).
const SHARED_ID: u32 = 65_534;

/// To the kernel, this number of a user or a group means that there is no change (setresuid(2)).
const NO_CHANGE: u32 = u32::MAX;

/// A user without root's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unprivileged {
    name: String,
    uid: Uid,
    gid: Gid,
    /// It is in the host's list of users, and may have further groups.
    is_listed: bool,
}

/// There is no user to become.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Nobody is called so.
    #[error("there is no user `{0}`: make it (`useradd --system {0}`), or give another with --user NAME.")]
    Unknown(String),
    /// It can be neither a name nor a number.
    #[error("`{0}` is neither a user's name nor its number: give another with --user NAME.")]
    Malformed(String),
    /// Root was asked for.
    #[error("`{0}` is root, and the agent does not stay root: give another user with --user NAME.")]
    Root(String),
    /// Nobody has this number, or a group of this number.
    #[error(
        "`{0}` has the number {NO_CHANGE}, which is nobody's: the agent would stay root. Give another user with --user NAME."
    )]
    Nobody(String),
    /// Another user than this one, and this one is not root.
    #[error("only root can become another user: start it as `{0}`, or leave --user out.")]
    NotRoot(String),
    /// The host's list of users cannot be read.
    #[error("the user `{name}` cannot be looked up: {source}.")]
    LookUp {
        /// Whom.
        name: String,
        /// Why not.
        source: Errno,
    },
}

impl Unprivileged {
    /// Whom this process is to become: nobody else, unless it is root's. `asked` is a name or a number; by default it is
    /// [`OWN`], and `nobody` where there is no such user.
    pub fn choose(asked: Option<&str>) -> Result<Option<Self>, Unusable> {
        let own = geteuid();
        match asked {
            None if !own.is_root() => Ok(None),
            None => Ok(Some(match look_up(OWN)? {
                Some(user) => user,
                None => look_up(SHARED)?.unwrap_or_else(|| Self::numbered(SHARED_ID)),
            })),
            Some(name) => {
                let by_number = || name.parse().ok().map(Self::numbered);
                let is_name = name.bytes().any(|byte| !byte.is_ascii_digit());
                let nobody = if is_name { Unusable::Unknown } else { Unusable::Malformed };
                let user = look_up(name)?.or_else(by_number).ok_or_else(|| nobody(name.to_owned()))?;
                match (own.is_root(), user.uid) {
                    (_, uid) if uid.is_root() => Err(Unusable::Root(name.to_owned())),
                    (_, uid) if [uid.as_raw(), user.gid.as_raw()].contains(&NO_CHANGE) => {
                        Err(Unusable::Nobody(name.to_owned()))
                    }
                    (true, _) => Ok(Some(user)),
                    (false, uid) if uid == own => Ok(None),
                    (false, _) => Err(Unusable::NotRoot(name.to_owned())),
                }
            }
        }
    }

    fn numbered(id: u32) -> Self {
        Self { name: id.to_string(), uid: Uid::from_raw(id), gid: Gid::from_raw(id), is_listed: false }
    }

    /// Services share it that have no user of their own.
    pub fn is_shared(&self) -> bool {
        self.name == SHARED || self.uid.as_raw() == SHARED_ID
    }

    /// Its number.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// The number of its group.
    pub fn gid(&self) -> Gid {
        self.gid
    }

    /// Makes this process that user's, with the capabilities that it has permitted. Takes CAP_SETUID and CAP_SETGID.
    pub(super) fn become_it(&self) -> nix::Result<()> {
        prctl::set_keepcaps(true)?;
        match CString::new(self.name.as_str()) {
            Ok(name) if self.is_listed => initgroups(&name, self.gid)?,
            _ => setgroups(&[])?,
        }
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        prctl::set_keepcaps(false)?;
        if self.is_this_process()? { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Whether this process is that user's, with no way back.
    fn is_this_process(&self) -> nix::Result<bool> {
        let (users, groups) = (getresuid()?, getresgid()?);
        Ok([users.real, users.effective, users.saved] == [self.uid; 3]
            && [groups.real, groups.effective, groups.saved] == [self.gid; 3])
    }
}

impl fmt::Display for Unprivileged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (uid {})", self.name, self.uid)
    }
}

fn look_up(name: &str) -> Result<Option<Unprivileged>, Unusable> {
    match User::from_name(name) {
        Ok(found) => Ok(found.map(|User { name, uid, gid, .. }| Unprivileged { name, uid, gid, is_listed: true })),
        // A container may have no list at all.
        Err(Errno::ENOENT) => Ok(None),
        Err(source) => Err(Unusable::LookUp { name: name.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_never_chosen() {
        for name in ["root", "0"] {
            assert_eq!(Unprivileged::choose(Some(name)), Err(Unusable::Root(name.to_owned())));
        }
        let chosen = Unprivileged::choose(None).expect("a list of users");
        assert_eq!(chosen.is_some(), geteuid().is_root());
        assert!(chosen.is_none_or(|user| !user.uid.is_root()));
    }

    #[test]
    fn a_user_that_is_not_there_is_named() {
        for malformed in ["", "99999999999"] {
            assert_eq!(Unprivileged::choose(Some(malformed)), Err(Unusable::Malformed(malformed.to_owned())));
        }
        let error = Unprivileged::choose(Some("no-such-user")).expect_err("nobody is called so");
        assert_eq!(
            error.to_string(),
            "there is no user `no-such-user`: make it (`useradd --system no-such-user`), or give another with --user \
             NAME."
        );
    }

    #[test]
    fn a_number_that_changes_nothing_is_refused() {
        let asked = NO_CHANGE.to_string();
        let error = Unprivileged::choose(Some(&asked)).expect_err("nobody has it");
        assert_eq!(error, Unusable::Nobody(asked));
        assert_eq!(
            error.to_string(),
            "`4294967295` has the number 4294967295, which is nobody's: the agent would stay root. Give another user with \
             --user NAME."
        );
    }

    #[test]
    fn whose_process_this_is() {
        let own = Unprivileged { uid: geteuid(), gid: nix::unistd::getegid(), ..Unprivileged::numbered(1) };
        assert_eq!(own.is_this_process(), Ok(true));
        for other in [
            Unprivileged { uid: Uid::from_raw(4713), ..own.clone() },
            Unprivileged { gid: Gid::from_raw(4713), ..own },
            Unprivileged::numbered(NO_CHANGE),
        ] {
            assert_eq!(other.is_this_process(), Ok(false), "{other}");
        }
    }

    #[test]
    fn names_and_numbers() {
        const NUMBER: u32 = 4_000_000_001;
        if !geteuid().is_root() {
            assert_eq!(Unprivileged::choose(Some(&NUMBER.to_string())), Err(Unusable::NotRoot(NUMBER.to_string())));
            return;
        }
        let numbered = Unprivileged::choose(Some(&NUMBER.to_string())).expect("a number").expect("another user");
        assert_eq!((numbered.uid.as_raw(), numbered.gid.as_raw(), numbered.is_shared()), (NUMBER, NUMBER, false));
        let nobody = Unprivileged::choose(Some(SHARED)).expect("listed").expect("another user");
        assert!(nobody.is_shared() && nobody.is_listed);
        assert_eq!(nobody.to_string(), format!("nobody (uid {SHARED_ID})"));
    }
}
