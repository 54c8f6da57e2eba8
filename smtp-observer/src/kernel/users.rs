//! Names of the host's users.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;
use std::{mem, thread};

use foldhash::{HashMap, HashSet};
use nix::unistd::{Uid, User};
use tracing::warn;

use crate::event::Time;

/// How long a name is taken for granted.
const NAME_LIFETIME: Duration = Duration::from_secs(300);

/// How long it is taken for granted that a user has no name: it may be added.
const ABSENCE_LIFETIME: Duration = Duration::from_secs(60);

/// Most users remembered; a host with more on port 25 has them looked up again.
const MAX_USERS: usize = 1024;

/// How long a look-up is waited for, if no other is under way. A database in files answers within it, on a busy machine too. Until a directory server
/// answers, which may take as long as it likes, users have the names of before, or none: the ring buffer does not wait.
const PATIENCE: Duration = Duration::from_millis(200);

/// Names of users, remembered: the host's user database may be a directory server.
pub struct Users {
    known: HashMap<u32, Known>,
    /// Those that are looked up.
    asked: HashSet<u32>,
    /// None: nobody is looked up.
    look_up: Option<fn(u32) -> Option<String>>,
    /// Who looks them up: started with the first, and so with no more privileges than the agent has by then.
    resolver: Option<Resolver>,
}

struct Known {
    looked_up: Time,
    name: Option<Arc<str>>,
}

impl Known {
    fn is_fresh(&self, now: Time) -> bool {
        now.since(self.looked_up) < if self.name.is_some() { NAME_LIFETIME } else { ABSENCE_LIFETIME }
    }
}

impl Default for Users {
    fn default() -> Self {
        Self::by(look_up)
    }
}

impl Users {
    /// Where names do not matter: no thread is started.
    pub fn without_names() -> Self {
        Self { known: HashMap::default(), asked: HashSet::default(), look_up: None, resolver: None }
    }

    fn by(look_up: fn(u32) -> Option<String>) -> Self {
        Self { look_up: Some(look_up), ..Self::without_names() }
    }

    /// The name of the user with this uid, where it has one and it is known by now.
    pub fn name(&mut self, uid: u32, now: Time) -> Option<Arc<str>> {
        self.learn(Duration::ZERO, now);
        if !self.known.get(&uid).is_some_and(|known| known.is_fresh(now)) && self.ask(uid) && self.asked.len() == 1 {
            self.learn(PATIENCE, now);
        }
        self.known.get(&uid)?.name.clone()
    }

    /// Has a user looked up; whether it was not already.
    fn ask(&mut self, uid: u32) -> bool {
        let Some(look_up) = self.look_up else { return false };
        let resolver = self.resolver.get_or_insert_with(|| Resolver::start(look_up));
        self.asked.len() < MAX_USERS && self.asked.insert(uid) && resolver.asks.send(uid).is_ok()
    }

    /// Takes the answers that have come, and waits so long for one.
    fn learn(&mut self, mut patience: Duration, now: Time) {
        while !self.asked.is_empty()
            && let Some(resolver) = &self.resolver
            && let Ok((uid, name)) = resolver.answers.recv_timeout(mem::take(&mut patience))
        {
            self.asked.remove(&uid);
            if self.known.len() >= MAX_USERS {
                self.known.clear();
            }
            // A name that is still the same stays the same allocation: it is compared with each call.
            let before = self.known.remove(&uid).and_then(|known| known.name);
            let name = if name.as_deref() == before.as_deref() { before } else { name.map(Arc::from) };
            self.known.insert(uid, Known { looked_up: now, name });
        }
    }
}

/// The name of the user with this uid, where it has one, however long it takes to find that out.
pub fn look_up(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}

/// A thread that looks users up, one after the other. It ends with its asker.
struct Resolver {
    asks: Sender<u32>,
    answers: Receiver<(u32, Option<String>)>,
}

impl Resolver {
    fn start(look_up: fn(u32) -> Option<String>) -> Self {
        let (asks, asked) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let resolve = move || {
            for uid in asked {
                if answer.send((uid, look_up(uid))).is_err() {
                    return;
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("users".into()).spawn(resolve) {
            warn!("users have no names: a thread to look them up cannot be started: {error}");
        }
        Self { asks, answers }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn names_of_this_hosts_users() {
        let mut users = Users::default();
        assert_eq!(name(&mut users, 0, Time(0)).as_deref(), Some("root"));
        assert_eq!(name(&mut users, 4_000_000_001, Time(0)), None);
    }

    /// The name, once it has been looked up, however long that takes.
    fn name(users: &mut Users, uid: u32, now: Time) -> Option<Arc<str>> {
        let name = users.name(uid, now);
        if users.asked.is_empty() {
            return name;
        }
        users.learn(Duration::MAX, now);
        users.name(uid, now)
    }

    #[test]
    fn a_name_is_looked_up_once_and_a_user_may_be_added_or_renamed() {
        static LOOKED_UP: AtomicUsize = AtomicUsize::new(0);
        let after = |lifetime: Duration| Time(lifetime.as_nanos() as u64);
        let mut users = Users::by(|_| match LOOKED_UP.fetch_add(1, Ordering::Relaxed) {
            0 => None,
            1 | 2 => Some("alice".into()),
            _ => Some("bob".into()),
        });
        assert_eq!(name(&mut users, 7, Time(0)), None);
        assert_eq!(name(&mut users, 7, Time(1)), None);
        assert_eq!(LOOKED_UP.load(Ordering::Relaxed), 1);
        let added = name(&mut users, 7, after(ABSENCE_LIFETIME)).expect("added");
        assert_eq!(&*added, "alice");
        let later = after(ABSENCE_LIFETIME + NAME_LIFETIME);
        assert!(Arc::ptr_eq(&added, &name(&mut users, 7, later).expect("still there")));
        let later = after(ABSENCE_LIFETIME + 2 * NAME_LIFETIME);
        assert_eq!(name(&mut users, 7, later).as_deref(), Some("bob"));
    }

    /// A directory server that does not answer: nobody waits for it more than once, and names of before stay.
    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        static ANSWERS: Mutex<bool> = Mutex::new(true);
        let mut users = Users::by(|uid| ANSWERS.lock().is_ok().then(|| format!("user{uid}")));
        assert_eq!(name(&mut users, 1, Time(0)).as_deref(), Some("user1"));
        let silent = ANSWERS.lock().expect("nobody panics");
        let later = Time(NAME_LIFETIME.as_nanos() as u64);
        for _ in 0..1000 {
            assert_eq!(users.name(1, later).as_deref(), Some("user1"));
            assert_eq!(users.name(2, later), None);
        }
        drop(silent);
        while !users.asked.is_empty() {
            users.learn(Duration::MAX, later);
        }
        assert_eq!(users.name(2, later).as_deref(), Some("user2"));
    }

    #[test]
    fn so_many_users_are_remembered() {
        let mut users = Users::by(|_| None);
        for uid in 0..3 * MAX_USERS as u32 {
            name(&mut users, uid, Time(0));
        }
        assert!(users.known.len() <= MAX_USERS);
    }
}
