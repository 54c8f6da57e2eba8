//! Names of the host's users.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use nix::unistd::{Uid, User};

use crate::event::Time;

/// How long a name is taken for granted.
const NAME_LIFETIME: Duration = Duration::from_secs(300);

/// How long it is taken for granted that a user has no name: it may be added.
const ABSENCE_LIFETIME: Duration = Duration::from_secs(60);

/// Most users remembered; a host with more on port 25 has them looked up again.
const MAX_USERS: usize = 1024;

/// Names of users, remembered: the host's user database may be a directory server.
#[derive(Default)]
pub struct Users(HashMap<u32, Known>);

struct Known {
    looked_up: Time,
    name: Option<Arc<str>>,
}

impl Known {
    fn is_fresh(&self, now: Time) -> bool {
        now.since(self.looked_up) < if self.name.is_some() { NAME_LIFETIME } else { ABSENCE_LIFETIME }
    }
}

impl Users {
    /// The name of the user with this uid, where it has one.
    pub fn name(&mut self, uid: u32, now: Time) -> Option<Arc<str>> {
        self.name_by(uid, now, || User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name.into()))
    }

    fn name_by(&mut self, uid: u32, now: Time, look_up: impl FnOnce() -> Option<Arc<str>>) -> Option<Arc<str>> {
        let before = match self.0.get(&uid) {
            Some(known) if known.is_fresh(now) => return known.name.clone(),
            Some(known) => known.name.clone(),
            None => None,
        };
        if self.0.len() >= MAX_USERS {
            self.0.clear();
        }
        // A name that is still the same stays the same allocation: it is compared with each call.
        let name = look_up();
        let name = if name == before { before } else { name };
        self.0.insert(uid, Known { looked_up: now, name: name.clone() });
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_hosts_users() {
        let mut users = Users::default();
        assert_eq!(users.name(0, Time(0)).as_deref(), Some("root"));
        assert_eq!(users.name(4_000_000_001, Time(0)), None);
    }

    #[test]
    fn a_name_is_looked_up_once_and_a_user_may_be_added_or_renamed() {
        let after = |lifetime: Duration| Time(lifetime.as_nanos() as u64);
        let mut users = Users::default();
        assert_eq!(users.name_by(7, Time(0), || None), None);
        assert_eq!(users.name_by(7, Time(1), || panic!("looked up again")), None);
        let name = users.name_by(7, after(ABSENCE_LIFETIME), || Some("alice".into())).expect("added");
        let later = after(ABSENCE_LIFETIME + NAME_LIFETIME);
        assert!(Arc::ptr_eq(&name, &users.name_by(7, later, || Some("alice".into())).expect("still there")));
        let later = after(ABSENCE_LIFETIME + 2 * NAME_LIFETIME);
        assert_eq!(users.name_by(7, later, || Some("bob".into())).as_deref(), Some("bob"));
    }

    #[test]
    fn so_many_users_are_remembered() {
        let mut users = Users::default();
        for uid in 0..3 * MAX_USERS as u32 {
            users.name_by(uid, Time(0), || None);
        }
        assert!(users.0.len() <= MAX_USERS);
    }
}
