//! The clients' connections while there are cases.

use std::sync::Arc;

use foldhash::HashMap;

use super::Opened;
use super::dialogue::Dialogue;
use crate::fact::{Fact, InterceptedClient, Interception, What};
use crate::identity;
use crate::identity::{Caller, Endpoint};
use crate::timestamp::Timestamp;

/// Bytes that all dialogues together have, about.
pub(super) const MAX_BYTES: usize = 4 << 20;

/// The clients' connections, by cookie.
#[derive(Default)]
pub(super) struct Legs {
    of: HashMap<u64, Leg>,
    /// Bytes that their dialogues have.
    bytes: usize,
}

/// A client's connection while there are cases: it has one, or may carry one on.
pub(super) struct Leg {
    pub(super) connection: Arc<identity::Connection>,
    pub(super) process: Option<Caller>,
    pub(super) asked: Endpoint,
    pub(super) opened: Timestamp,
    pub(super) dialogue: Dialogue,
    /// The cookie of the client that it carries on.
    pub(super) serves: Option<u64>,
    /// Another connection carries it on, or did.
    pub(super) is_carried: bool,
}

impl Leg {
    pub(super) fn new(Opened { connection, process, requested, time, .. }: Opened) -> Self {
        let asked = requested.filter(|asked| !asked.address.is_unspecified()).unwrap_or(connection.remote);
        let dialogue = Dialogue::default();
        Self { connection, process, asked, opened: time, dialogue, serves: None, is_carried: false }
    }

    pub(super) fn tells<'a>(&'a self, time: Timestamp, interception: &'a Interception) -> Fact<'a> {
        Fact {
            time,
            connection: &self.connection,
            process: self.process.as_ref(),
            intercepted: false,
            what: What::Interception(interception),
        }
    }

    pub(super) fn intercepted(&self) -> InterceptedClient {
        InterceptedClient {
            process: self.process.clone(),
            connection_id: Arc::clone(&self.connection.id),
            requested: self.asked,
        }
    }
}

impl Legs {
    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// Bytes that their dialogues have, about.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, cookie: &u64) -> Option<&Leg> {
        self.of.get(cookie)
    }

    pub(super) fn contains_key(&self, cookie: &u64) -> bool {
        self.of.contains_key(cookie)
    }

    /// Adds one, in place of another of this cookie.
    pub(super) fn insert(&mut self, cookie: u64, leg: Leg) {
        self.bytes += leg.dialogue.bytes();
        let before = self.of.insert(cookie, leg);
        self.bytes -= before.map_or(0, |before| before.dialogue.bytes());
    }

    pub(super) fn remove(&mut self, cookie: &u64) -> Option<Leg> {
        let gone = self.of.remove(cookie)?;
        self.bytes -= gone.dialogue.bytes();
        Some(gone)
    }

    /// Changes one, which is made if it is not known.
    pub(super) fn change<R>(
        &mut self,
        cookie: u64,
        new: impl FnOnce() -> Leg,
        change: impl FnOnce(&mut Leg) -> R,
    ) -> R {
        let Self { of, bytes } = self;
        let leg = of.entry(cookie).or_insert_with(|| {
            let leg = new();
            *bytes += leg.dialogue.bytes();
            leg
        });
        *bytes -= leg.dialogue.bytes();
        let changed = change(leg);
        *bytes += leg.dialogue.bytes();
        changed
    }

    /// From now on the connection carries this client's conversation on. Its process.
    pub(super) fn serves(&mut self, cookie: u64, client: u64) -> Option<&Caller> {
        if let Some(carried) = self.of.get_mut(&client) {
            carried.is_carried = true;
        }
        let leg = self.of.get_mut(&cookie)?;
        leg.serves = Some(client);
        leg.process.as_ref()
    }

    /// Lets go of the steps before this number.
    pub(super) fn release(&mut self, cookie: u64, number: u64) {
        if let Some(leg) = self.of.get_mut(&cookie) {
            self.bytes -= leg.dialogue.bytes();
            leg.dialogue.release(number);
            self.bytes += leg.dialogue.bytes();
        }
    }

    /// Forgets what was said on connections that are in no comparison, where all dialogues have too much; and on the others,
    /// where these have more than half of that.
    pub(super) fn make_room(&mut self, is_case: impl Fn(u64) -> bool) {
        if self.bytes <= MAX_BYTES {
            return;
        }
        self.forget(|cookie, leg| leg.serves.is_none() && !is_case(cookie));
        if self.bytes > MAX_BYTES / 2 {
            self.forget(|_, _| true);
        }
    }

    fn forget(&mut self, is_meant: impl Fn(u64, &Leg) -> bool) {
        for (_, leg) in self.of.iter_mut().filter(|(cookie, leg)| is_meant(**cookie, leg)) {
            self.bytes -= leg.dialogue.bytes();
            leg.dialogue.forget();
            self.bytes += leg.dialogue.bytes();
        }
    }
}
