//! RSETs and NOOPs on a connection that carries another on, at either end: they are kept back until the client's side is known.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use super::{Interceptions, PATIENCE, reasons};
use crate::fact::Reasoned;
use crate::fact::{Fact, What};
use crate::identity::{Caller, Connection, Role};
use crate::names::{NoopReason, RsetReason};
use crate::smtp::Verb;
use crate::timestamp::Timestamp;

/// Most RSETs and NOOPs that wait for the other side, of one conversation and of all.
const MAX_OF_ONE: usize = 64;
const MAX_OF_ALL: usize = 1024;

/// Those that wait are looked at until so many go on waiting.
const MAX_LOOKED_AT: usize = 16;

/// The RSETs and NOOPs that wait, by the client of the conversation.
#[derive(Default)]
pub(super) struct HeldCommands {
    of: HashMap<u64, VecDeque<Held>>,
    /// The clients of whom there are or were such, and since when the first of them may wait.
    since: BTreeSet<(Timestamp, u64)>,
    count: usize,
}

/// An RSET or a NOOP that waits for the other side.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) time: Timestamp,
    pub(super) connection: Arc<Connection>,
    process: Option<Caller>,
    pub(super) command: Command,
}

#[derive(Clone)]
pub(super) enum Command {
    Rset(Reasoned<RsetReason>),
    Noop(Reasoned<NoopReason>),
}

impl Held {
    fn of(fact: &Fact<'_>) -> Option<Self> {
        let command = match fact.what {
            What::Rset(rset) => Command::Rset(*rset),
            What::Noop(noop) => Command::Noop(*noop),
            _ => return None,
        };
        let (connection, process) = (Arc::clone(fact.connection), fact.process.cloned());
        Some(Self { time: fact.time, connection, process, command })
    }

    fn fact(&self, intercepted: bool) -> Fact<'_> {
        Fact {
            time: self.time,
            connection: &self.connection,
            process: self.process.as_ref(),
            intercepted,
            what: match &self.command {
                Command::Rset(rset) => What::Rset(rset),
                Command::Noop(noop) => What::Noop(noop),
            },
        }
    }
}

impl Command {
    pub(super) fn verb(&self) -> Verb {
        match self {
            Self::Rset(_) => Verb::Rset,
            Self::Noop(_) => Verb::Noop,
        }
    }
}

impl Interceptions {
    /// The client whose conversation is carried on by this connection.
    fn served(&self, connection: &Connection) -> Option<u64> {
        self.legs.get(&self.near_end(connection))?.serves
    }

    /// The cookie of the end that connected: the server's end of a connection on this host has the same dialogue.
    pub(super) fn near_end(&self, connection: &Connection) -> u64 {
        match connection.role {
            Role::Client => connection.cookie,
            Role::Server => self.accepted.get(&connection.cookie).copied().unwrap_or(connection.cookie),
        }
    }

    /// Takes an RSET or a NOOP on a connection that carries another on, and keeps it back unless the client's side is known.
    /// Whether it was one.
    pub(super) fn hold(&mut self, fact: &Fact<'_>, sink: &mut dyn FnMut(&Fact<'_>)) -> bool {
        if !matches!(fact.what, What::Rset(_) | What::Noop(_)) {
            return false;
        }
        let Some(client) = self.served(fact.connection) else { return false };
        let Some(held) = Held::of(fact) else { return false };
        match self.resolve(&held, held.time.before(PATIENCE), false) {
            Some(resolved) => self.let_go(&resolved, sink),
            None => {
                if let Some(oldest) = self.held.make_room(client) {
                    self.give_up(oldest, sink);
                }
                self.held.push(client, held);
            }
        }
        true
    }

    /// Passes on what the client's side has made clear.
    pub(super) fn release(&mut self, client: u64, now: Timestamp, sink: &mut dyn FnMut(&Fact<'_>)) {
        if !self.held.is_waiting() {
            return;
        }
        let mut place = 0;
        while place < MAX_LOOKED_AT
            && let Some(held) = self.held.get(client, place)
        {
            match self.resolve(held, now.before(PATIENCE), false) {
                Some(resolved) => {
                    self.held.remove(client, place);
                    self.let_go(&resolved, sink);
                }
                None => place += 1,
            }
        }
    }

    /// Passes on what is held of this connection, which is over.
    pub(super) fn release_of(&mut self, over: &Connection, sink: &mut dyn FnMut(&Fact<'_>)) {
        if !self.held.is_waiting() {
            return;
        }
        let Some(client) = self.served(over) else { return };
        let mut place = 0;
        while let Some(held) = self.held.get(client, place) {
            if held.connection.cookie != over.cookie {
                place += 1;
                continue;
            }
            let resolved = self.resolve(held, Timestamp(i64::MAX), true).unwrap_or_else(|| held.clone());
            self.held.remove(client, place);
            self.let_go(&resolved, sink);
        }
    }

    /// Passes on what has waited long enough.
    pub(super) fn release_overdue(&mut self, now: Timestamp, sink: &mut dyn FnMut(&Fact<'_>)) {
        let overdue = now.before(PATIENCE);
        while let Some(client) = self.held.overdue(overdue) {
            while let Some(held) = self.held.get(client, 0).filter(|held| held.time <= overdue) {
                let resolved = self.resolve(held, Timestamp(i64::MAX), false).unwrap_or_else(|| held.clone());
                self.held.remove(client, 0);
                self.let_go(&resolved, sink);
            }
        }
    }

    fn let_go(&self, resolved: &Held, sink: &mut dyn FnMut(&Fact<'_>)) {
        sink(&resolved.fact(self.is_intercepted(&resolved.connection)));
    }

    /// Passes on what waits no longer, since others take its room.
    fn give_up(&self, mut held: Held, sink: &mut dyn FnMut(&Fact<'_>)) {
        reasons::forgotten(&mut held.command);
        self.let_go(&held, sink);
    }
}

impl HeldCommands {
    /// There are such.
    pub(super) fn is_waiting(&self) -> bool {
        self.count > 0
    }

    fn get(&self, client: u64, place: usize) -> Option<&Held> {
        self.of.get(&client)?.get(place)
    }

    fn push(&mut self, client: u64, held: Held) {
        let queue = self.of.entry(client).or_insert_with(|| {
            self.since.insert((held.time, client));
            VecDeque::new()
        });
        queue.push_back(held);
        self.count += 1;
    }

    fn remove(&mut self, client: u64, place: usize) -> Option<Held> {
        let held = self.of.get_mut(&client)?.remove(place)?;
        self.count -= 1;
        if self.count == 0 {
            self.of.clear();
            self.since.clear();
        }
        Some(held)
    }

    /// A client of whom something may wait since before this moment: the first one, and each once.
    fn overdue(&mut self, moment: Timestamp) -> Option<u64> {
        while let Some((_, client)) = self.since.first().copied().filter(|(since, _)| *since <= moment) {
            self.since.pop_first();
            let first = self.of.get(&client).and_then(VecDeque::front).map(|held| held.time);
            match first {
                None => drop(self.of.remove(&client)),
                Some(time) => {
                    self.since.insert((time.max(moment.after(Duration::from_nanos(1))), client));
                    if time <= moment {
                        return Some(client);
                    }
                }
            }
        }
        None
    }

    /// Takes the oldest one out, where there is no room for another one of this client.
    fn make_room(&mut self, client: u64) -> Option<Held> {
        if self.of.get(&client).is_some_and(|held| held.len() >= MAX_OF_ONE) {
            return self.remove(client, 0);
        }
        if self.count < MAX_OF_ALL {
            return None;
        }
        let oldest = self.since.iter().find(|(_, client)| self.of.get(client).is_some_and(|held| !held.is_empty()));
        let client = oldest.map(|(_, client)| *client)?;
        self.remove(client, 0)
    }
}
