//! What a person wants to see of now: the connections, who uses them, what was said last and why, and what is in their
//! middle. The live table and the status page show it.

mod kept;
mod state;
#[cfg(test)]
mod tests;
mod verdicts;

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use self::kept::{Accounts, Class, Owners};
pub use self::state::{ConnectionState, Exchange, Note, State};
use self::verdicts::{Verdicts, class};
use super::retained::{Gist, Retained};
use crate::observation::{Connection, Event, Interception, Observation, RsetReason, Timestamp, Verdict};

/// Most connections that are shown; those that come when there are so many are counted.
pub const MAX_ROWS: usize = 10_000;

/// How long a connection that is over stays.
pub const KEPT: Duration = Duration::from_secs(30);

/// Most connections that are over and stay.
const MAX_OVER: usize = 1000;

/// Most observations kept of all connections together.
pub const MAX_LATEST: usize = 512;

/// Observations kept in all transcripts together, about: the more connections, the fewer of each.
const MAX_KEPT: usize = 32 * 1024;

/// Bytes that all connections and their transcripts have together, about. Beyond it the program that has most forgets the oldest
/// observation of each of its connections in turn.
const MAX_KEPT_BYTES: usize = 8 << 20;

/// Bytes of that for the connections without their transcripts. Beyond it new ones are not listed.
const MAX_ROW_BYTES: usize = 6 << 20;

/// Bytes of the connections that are worth looking at later, about: of those with a verdict or an anomaly.
const MAX_NOTED_BYTES: usize = 2 << 20;

/// Bytes of one connection's transcript, and of one that is worth looking at later.
const MAX_OF_ONE: usize = 64 << 10;
const MAX_NOTED_OF_ONE: usize = 128 << 10;

/// Connections with an account, with those that are there no longer, before these are let go of.
const MAX_ENTRIES: usize = 2 * MAX_ROWS;

/// How many times as many observations are kept of a connection that is worth looking at later.
const NOTED: usize = 4;

/// Observations kept of each connection, however many there are.
const LEAST_KEPT: usize = 1;

/// The connections of now, and what is in the middle of them.
#[derive(Clone, Debug, Default)]
pub struct ConnectionTable {
    rows: HashMap<Arc<str>, ConnectionState>,
    /// Rows of connections that are over, the first first.
    over: VecDeque<(Timestamp, Arc<str>)>,
    verdicts: Verdicts,
    latest: VecDeque<Retained>,
    /// Observations taken since the beginning: the number of the latest one, the first one's being 1.
    taken: u64,
    /// Observations kept of each connection.
    transcript: usize,
    /// Connections that are over for long and worth looking at later.
    past: HashMap<Arc<str>, ConnectionState>,
    /// Whose transcripts are.
    accounts: Accounts,
    /// Bytes of the rows without their transcripts and processes, and these processes.
    row_bytes: usize,
    owners: Owners,
    /// Verdicts, and connections that were worth looking at later, that are kept no longer.
    dropped: u64,
    unlisted: u64,
    /// RSETs by reason, in the order of [`RsetReason::ALL`].
    rsets: [u64; RsetReason::ALL.len()],
    changes: u64,
}

/// What was observed since somebody looked last.
#[derive(Clone, Debug, Default)]
pub struct Since {
    /// What is still there of it, the latest one last.
    pub observations: Vec<Retained>,
    /// The number of the latest one, by which to ask again.
    pub taken: u64,
    /// How many are no longer there.
    pub lost: u64,
}

impl ConnectionTable {
    /// One that keeps this many observations of each connection.
    pub fn with_transcripts(lines: usize) -> Self {
        Self { transcript: lines, ..Self::default() }
    }

    /// Takes something that was observed.
    pub fn take(&mut self, observation: impl Into<Retained>) {
        let observation = observation.into();
        self.changes += 1;
        self.update(&observation);
        match observation.gist() {
            Gist::Other(Event::Interception(interception)) => self.intercept(interception, &observation),
            Gist::Other(Event::Anomaly(_)) => self.note(&observation.connection().id, Class::Anomalous),
            Gist::Other(Event::Rset(rset)) => self.rsets[rset.reason as usize] += 1,
            _ => (),
        }
        self.make_room();
        self.taken += 1;
        let time = observation.time();
        push(&mut self.latest, MAX_LATEST, observation);
        self.forget(time);
    }

    /// Lets go of what is over for long by this time.
    pub fn forget(&mut self, now: Timestamp) {
        let long_ago = now.before(KEPT);
        while self.over.len() > MAX_OVER || self.over.front().is_some_and(|(closed, _)| *closed < long_ago) {
            if let Some((closed, id)) = self.over.pop_front() {
                self.changes += 1;
                // It may be followed again.
                if self.rows.get(&id).is_none_or(|row| row.closed != Some(closed)) {
                    continue;
                }
                let Some(row) = self.rows.remove(&id) else { continue };
                self.row_bytes -= row.bytes_alone();
                match row.class {
                    Class::Ordinary => self.let_go(&row),
                    _ => drop(self.past.insert(id, row)),
                }
            }
        }
    }

    /// The clock was set forward by so many nanoseconds, or back: what is so long ago stays so long ago.
    pub fn set_clock(&mut self, by: i64) {
        for row in self.rows.values_mut().chain(self.past.values_mut()) {
            let closed = row.closed.as_mut();
            for time in [&mut row.opened, &mut row.heard].into_iter().chain(closed) {
                *time = time.by_clock(by);
            }
        }
        for (closed, _) in &mut self.over {
            *closed = closed.by_clock(by);
        }
        self.changes += 1;
    }

    /// The connections, in no order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &ConnectionState> {
        self.rows.values()
    }

    /// A connection, also one that is over for long and was worth looking at later.
    pub fn row(&self, id: &str) -> Option<&ConnectionState> {
        self.rows.get(id).or_else(|| self.past.get(id))
    }

    /// How many there are, with those that are over for long.
    pub fn len(&self) -> usize {
        self.rows.len() + self.past.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Verdicts, and connections with a verdict or an anomaly, that had to make way for others.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What is, or was, in the middle of clients' connections: one each, the latest one last. Each is an
    /// [`Event::Interception`].
    pub fn interceptions(&self) -> impl DoubleEndedIterator<Item = &Arc<Observation>> {
        self.verdicts.iter()
    }

    /// How many were observed since the beginning.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// What was observed after the one of this number; without a number, all that is kept.
    pub fn since(&self, seen: Option<u64>) -> Since {
        let gone = self.taken - self.latest.len() as u64;
        // Nobody can have seen what is still to come.
        let seen = seen.unwrap_or(gone).min(self.taken);
        let known = usize::try_from(seen.saturating_sub(gone)).unwrap_or(usize::MAX);
        Since {
            observations: self.latest.iter().skip(known).cloned().collect(),
            taken: self.taken,
            lost: gone.saturating_sub(seen),
        }
    }

    /// The connections of which something was observed last, at most so many. Half of them may be those that are worth looking
    /// at, whatever came later.
    pub fn heard_last(&self, most: usize) -> Vec<&ConnectionState> {
        let all = self.rows.values().chain(self.past.values());
        let (mut noted, mut ordinary): (Vec<_>, Vec<_>) = all.partition(|row| row.class > Class::Ordinary);
        select(&mut noted, most.div_ceil(2), |row| (row.class, row.heard));
        select(&mut ordinary, most - noted.len(), |row| row.heard);
        noted.extend(ordinary);
        noted
    }

    /// Connections since the start that were not shown, since there were [`MAX_ROWS`] when they were opened.
    pub fn unlisted(&self) -> u64 {
        self.unlisted
    }

    /// RSETs seen so far, by reason; one that both ends of a connection on this host tell of counts twice.
    pub fn rsets(&self) -> impl Iterator<Item = (RsetReason, u64)> {
        RsetReason::ALL.iter().copied().zip(self.rsets)
    }

    /// A number that is another one when there is something else to show.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The table as it is now, with the bytes of connections that are open.
    pub fn still(&self, bytes: &dyn Fn(&Connection) -> Option<(u64, u64)>) -> Self {
        let mut still = self.clone();
        for row in still.rows.values_mut() {
            row.bytes = row.bytes.or_else(|| bytes(&row.connection));
        }
        still
    }

    fn update(&mut self, observation: &Retained) {
        let id = &observation.connection().id;
        let (opens, closes) = match observation.gist() {
            Gist::Other(Event::ConnectionOpened { .. }) => (true, false),
            Gist::Other(Event::ConnectionClosed { .. } | Event::ConnectionUnfollowed { .. }) => (false, true),
            _ => (false, false),
        };
        let Self { rows, past, accounts, owners, row_bytes, .. } = self;
        if opens && let Some(row) = past.remove(id) {
            *row_bytes += row.bytes_alone();
            rows.insert(Arc::clone(id), row);
        }
        let mut listed = rows.len();
        let (row, is_past) = match rows.entry(Arc::clone(id)) {
            Entry::Occupied(row) => (row.into_mut(), false),
            Entry::Vacant(place) => match past.get_mut(id) {
                Some(row) => (row, true),
                // What is told of a connection that is forgotten does not bring it back.
                None if !opens => return,
                None if listed >= MAX_ROWS || *row_bytes + owners.bytes() >= MAX_ROW_BYTES => {
                    self.unlisted += 1;
                    return;
                }
                None => {
                    let mut row = ConnectionState::new(observation);
                    row.account = accounts.of(row.class, row.program());
                    owners.change(None, row.owner.as_ref());
                    *row_bytes += row.bytes_alone();
                    listed += 1;
                    (place.insert(row), false)
                }
            },
        };
        let fair = (MAX_KEPT / listed.max(1)).max(LEAST_KEPT);
        let alone = row.bytes_alone();
        let owner = observation.process().and_then(|process| match &row.owner {
            Some(owner) if Arc::ptr_eq(&owner.process, &process.process) => None,
            owner => Some(owner.clone()),
        });
        row.observe(observation);
        if !is_past {
            *row_bytes = *row_bytes - alone + row.bytes_alone();
        }
        if let Some(before) = owner {
            owners.change(before.as_ref(), row.owner.as_ref());
            if before.is_none() {
                settle(accounts, row, row.class);
            }
        }
        let (most, bytes) = match row.class {
            Class::Ordinary => (self.transcript.min(fair), MAX_OF_ONE),
            _ => (self.transcript * NOTED, MAX_NOTED_OF_ONE),
        };
        if most > 0 {
            while row.transcript.len() >= most || row.kept >= bytes {
                accounts.subtract(row.account, row.forget_oldest());
            }
            accounts.add(row.account, row.keep(observation));
            if row.class == Class::Ordinary && !row.is_listed {
                accounts.push(row.account, id);
                row.is_listed = true;
            }
        }
        if closes && !is_past {
            self.over.push_back((observation.time(), Arc::clone(id)));
        }
    }

    /// A connection is worth looking at later, unless it is more so already.
    fn note(&mut self, id: &str, class: Class) {
        let Self { rows, past, accounts, .. } = self;
        if let Some(row) = rows.get_mut(id).or_else(|| past.get_mut(id)).filter(|row| row.class < class) {
            settle(accounts, row, class);
        }
    }

    /// Gives up the oldest of whoever has most, as far as that is too much.
    fn make_room(&mut self) {
        while self.accounts.noted() > MAX_NOTED_BYTES
            && let Some((account, id)) = self.accounts.pop(true)
        {
            if self.past.get(&id).is_some_and(|row| row.account == account) {
                self.dropped += 1;
                self.drop_past(&id);
            } else if let Some(row) = self.rows.get_mut(&id).filter(|row| row.account == account) {
                self.dropped += 1;
                while !row.transcript.is_empty() {
                    self.accounts.subtract(account, row.forget_oldest());
                }
                settle(&mut self.accounts, row, Class::Ordinary);
            }
        }
        while self.accounts.ordinary() + self.row_bytes + self.owners.bytes() > MAX_KEPT_BYTES
            && let Some((account, id)) = self.accounts.pop(false)
        {
            if let Some(row) = self.rows.get_mut(&id).filter(|row| row.account == account) {
                self.accounts.subtract(account, row.forget_oldest());
                row.is_listed = !row.transcript.is_empty();
                if row.is_listed {
                    self.accounts.push(account, &id);
                }
            }
        }
        // What is there no longer takes little, and is let go of when most of it is such.
        if self.accounts.entries() > MAX_ENTRIES {
            let Self { rows, past, accounts, .. } = self;
            accounts
                .tidy(|account, id| rows.get(id).or_else(|| past.get(id)).is_some_and(|row| row.account == account));
        }
    }

    fn drop_past(&mut self, id: &str) {
        if let Some(row) = self.past.remove(id) {
            self.let_go(&row);
        }
    }

    /// A connection is kept no longer.
    fn let_go(&mut self, row: &ConnectionState) {
        self.accounts.subtract(row.account, row.weight());
        self.owners.change(row.owner.as_ref(), None);
    }

    fn intercept(&mut self, interception: &Interception, retained: &Retained) {
        let observation = Arc::new(retained.shown());
        let client = &observation.connection.id;
        // A verdict that is withdrawn leaves nothing.
        if interception.verdict == Verdict::Direct {
            self.verdicts.remove(client);
            self.drop_past(client);
            if let Some(row) = self.rows.get_mut(client) {
                (row.intercepted, row.interception) = (false, None);
                settle(&mut self.accounts, row, Class::Ordinary);
            }
            return;
        }
        self.dropped += self.verdicts.insert(Arc::clone(&observation));
        let class = class(interception.verdict);
        if self.row(client).is_none() {
            // It was not listed, or is over for long.
            let mut row = ConnectionState::new(retained);
            (row.state, row.account) = (State::Closed, self.accounts.of(class, row.program()));
            row.class = class;
            self.owners.change(None, row.owner.as_ref());
            self.accounts.add(row.account, row.weight());
            self.accounts.push(row.account, client);
            self.past.insert(Arc::clone(client), row);
        }
        if let Some(row) = self.rows.get_mut(client).or_else(|| self.past.get_mut(client)) {
            row.intercepted = interception.verdict.is_hidden();
            row.interception = Some(Arc::clone(&observation));
        }
        self.note(client, class);
        if let Some(upstream) = &interception.upstream {
            self.note(&upstream.connection_id, class);
        }
    }
}

/// A connection is of this class from now on: its bytes are on another account.
fn settle(accounts: &mut Accounts, row: &mut ConnectionState, class: Class) {
    accounts.subtract(row.account, row.weight());
    row.class = class;
    row.account = accounts.of(class, row.program());
    accounts.add(row.account, row.weight());
    row.is_listed = class > Class::Ordinary || !row.transcript.is_empty();
    if row.is_listed {
        accounts.push(row.account, &row.connection.id);
    }
}

/// Leaves those with the greatest keys, so many.
fn select<K: Ord>(rows: &mut Vec<&ConnectionState>, most: usize, key: impl Fn(&ConnectionState) -> K) {
    if rows.len() > most {
        if most > 0 {
            rows.select_nth_unstable_by(most - 1, |a, b| key(b).cmp(&key(a)));
        }
        rows.truncate(most);
    }
}

/// What an observation says to be in the middle.
pub fn interception(observation: &Observation) -> Option<&Interception> {
    match &observation.event {
        Event::Interception(interception) => Some(interception),
        _ => None,
    }
}

fn push<T>(queue: &mut VecDeque<T>, most: usize, item: T) {
    while queue.len() >= most {
        queue.pop_front();
    }
    queue.push_back(item);
}
