//! What a person wants to see of now: the connections, who uses them, what was said last and why, and what is in their
//! middle. The live table and the status page show it.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use super::retained::Retained;
use crate::observation::{
    AnomalyKind, Caller, Connection, Event, Interception, NoopReason, Observation, Outcome, RsetReason, Timestamp,
    TlsPhase, Verdict,
};

/// Most connections that are shown; those that come when there are so many are counted.
pub const MAX_ROWS: usize = 10_000;

/// How long a connection that is over stays.
pub const KEPT: Duration = Duration::from_secs(30);

/// Most connections that are over and stay.
const MAX_OVER: usize = 1000;

/// Most conversations of which it is kept what is in their middle.
const MAX_INTERCEPTIONS: usize = 256;

/// Most observations kept of all connections together.
pub const MAX_LATEST: usize = 512;

/// Observations kept in all transcripts together, about: the more connections, the fewer of each.
const MAX_KEPT: usize = 32 * 1024;

/// Bytes that all transcripts together have, about: beyond it the oldest observations are forgotten, whosever they are.
const MAX_KEPT_BYTES: usize = 8 << 20;

/// Observations kept of each connection, however many there are.
const LEAST_KEPT: usize = 1;

/// Characters kept of a reply.
const LONGEST_TEXT: usize = 160;

/// The connections of now, and what is in the middle of them.
#[derive(Clone, Debug, Default)]
pub struct ConnectionTable {
    rows: HashMap<Arc<str>, ConnectionState>,
    /// Rows of connections that are over, the first first.
    over: VecDeque<(Timestamp, Arc<str>)>,
    /// One a client's connection, the latest one last.
    interceptions: VecDeque<Arc<Observation>>,
    latest: VecDeque<Retained>,
    /// Observations taken since the beginning: the number of the latest one, the first one's being 1.
    taken: u64,
    /// Observations kept of each connection.
    transcript: usize,
    /// What is in transcripts, the oldest first: whose it is, and which of its own. Some of it is there no longer.
    kept: VecDeque<(Arc<str>, u64)>,
    kept_bytes: usize,
    unlisted: u64,
    /// RSETs by reason, in the order of [`RsetReason::ALL`].
    rsets: [u64; RsetReason::ALL.len()],
    changes: u64,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct ConnectionState {
    /// Which.
    pub connection: Arc<Connection>,
    /// The process that used it last.
    pub owner: Option<Caller>,
    /// When it was opened, or seen first.
    pub opened: Timestamp,
    /// When something was observed of it last.
    pub heard: Timestamp,
    /// When it was over.
    pub closed: Option<Timestamp>,
    /// How far the session is.
    pub state: State,
    /// What shows the last reply.
    pub(crate) last: Option<Retained>,
    /// The last thing that asks for an explanation, or gives one.
    pub note: Option<Note>,
    /// Bytes sent and received, when it is over; until then the observer knows.
    pub bytes: Option<(u64, u64)>,
    /// What is in its middle, where it is the client's.
    pub interception: Option<Arc<Observation>>,
    /// The conversation goes through a program that its client knows nothing of.
    pub intercepted: bool,
    /// The last things observed of it, the latest one last; empty unless the table keeps them.
    pub transcript: VecDeque<Retained>,
    /// Observations of it that were kept and are forgotten.
    pub(crate) forgotten: u64,
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

/// How far a session is, as its replies tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// No greeting yet.
    Connected,
    /// Between transactions.
    Ready,
    /// In a transaction: sender and recipients.
    Envelope,
    /// A message's content goes over, or waits for its answer.
    Content,
    /// TLS hides what is said.
    Encrypted,
    /// After QUIT.
    Quitting,
    /// Over.
    Closed,
}

impl State {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Ready => "ready",
            Self::Envelope => "envelope",
            Self::Content => "content",
            Self::Encrypted => "encrypted",
            Self::Quitting => "quitting",
            Self::Closed => "closed",
        }
    }
}

/// A reply, and what it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The command's verb; absent for the greeting.
    pub verb: Option<Cow<'static, str>>,
    /// The reply's code; absent where there was none.
    pub code: Option<u16>,
    /// The first line of its text.
    pub text: Box<str>,
    /// From the command to the reply.
    pub latency: Option<Duration>,
}

/// Something to be noted of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Why it saw an RSET.
    Rset(RsetReason),
    /// Why it saw a NOOP.
    Noop(NoopReason),
    /// A departure from the protocol.
    Anomaly(AnomalyKind),
    /// How its last transaction ended.
    Transaction(Outcome),
}

impl Note {
    /// Its name, as events have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rset(reason) => reason.as_str(),
            Self::Noop(reason) => reason.as_str(),
            Self::Anomaly(kind) => kind.as_str(),
            Self::Transaction(outcome) => outcome.as_str(),
        }
    }
}

impl ConnectionState {
    fn new(observation: &Retained) -> Self {
        Self {
            connection: Arc::clone(observation.connection()),
            owner: observation.process().cloned(),
            opened: observation.time(),
            heard: observation.time(),
            closed: None,
            state: State::Connected,
            last: None,
            note: None,
            bytes: None,
            interception: None,
            intercepted: false,
            transcript: VecDeque::new(),
            forgotten: 0,
        }
    }

    /// All but its transcript, for a list of many.
    pub fn without_transcript(&self) -> Self {
        Self {
            connection: Arc::clone(&self.connection),
            owner: self.owner.clone(),
            last: self.last.clone(),
            interception: self.interception.clone(),
            transcript: VecDeque::new(),
            ..*self
        }
    }

    /// What is in its middle.
    pub fn verdict(&self) -> Option<Verdict> {
        self.interception.as_deref().and_then(interception).map(|interception| interception.verdict)
    }

    /// The oldest of its observations, which is kept no longer: its bytes.
    fn forget_oldest(&mut self) -> usize {
        let Some(oldest) = self.transcript.pop_front() else { return 0 };
        self.forgotten += 1;
        oldest.cost()
    }

    /// The last reply, and to what.
    pub fn last(&self) -> Option<Exchange> {
        let observation = self.last.as_ref()?.shown();
        Some(match &observation.event {
            Event::Greeting(greeting) => Exchange::new(None, Some(greeting.code), &greeting.text, greeting.latency),
            Event::Command(command) => {
                let text = command.reply.as_deref().unwrap_or_default();
                Exchange::new(Some(command.verb.clone()), command.code, text, command.latency)
            }
            // The end of data is answered like a command.
            Event::Data(data) => {
                let text = data.reply.as_deref().unwrap_or_default();
                Exchange::new(Some(data.verb.into()), data.code, text, data.accept)
            }
            _ => return None,
        })
    }

    fn observe(&mut self, retained: &Retained) {
        self.heard = self.heard.max(retained.time());
        self.intercepted |= retained.is_intercepted();
        if let Some(process) = retained.process() {
            self.owner = Some(process.clone());
        }
        if let Some((verb, code)) = retained.command() {
            return self.command(verb, code, retained);
        }
        match &retained.shown().event {
            Event::ConnectionOpened { .. } | Event::ConnectionOwnerChanged { .. } | Event::Interception(_) => (),
            Event::ConnectionClosed { bytes_sent, bytes_received, .. } => {
                self.closed = Some(retained.time());
                self.state = State::Closed;
                self.bytes = Some((*bytes_sent, *bytes_received));
            }
            Event::Greeting(_) => {
                self.state = State::Ready;
                self.last = Some(retained.clone());
            }
            Event::Command(command) => self.command(&command.verb, command.code, retained),
            Event::Data(_) => {
                self.state = State::Ready;
                self.last = Some(retained.clone());
            }
            Event::Rset(rset) => self.note = Some(Note::Rset(rset.reason)),
            Event::Noop(noop) => self.note = Some(Note::Noop(noop.reason)),
            Event::Transaction(transaction) => self.note = Some(Note::Transaction(transaction.outcome)),
            Event::Anomaly(anomaly) => self.note = Some(Note::Anomaly(anomaly.kind)),
            Event::Tls(tls) => {
                if tls.phase == TlsPhase::Started && !tls.visible {
                    self.state = State::Encrypted;
                }
            }
        }
    }

    fn command(&mut self, verb: &str, code: Option<u16>, retained: &Retained) {
        let accepted = code.is_some_and(|code| code < 400);
        self.state = match verb {
            "MAIL" if accepted => State::Envelope,
            "DATA" if code == Some(354) => State::Content,
            "RSET" | "EHLO" | "HELO" | "LHLO" if accepted => State::Ready,
            "QUIT" => State::Quitting,
            _ if self.state == State::Connected => State::Ready,
            _ => self.state,
        };
        self.last = Some(retained.clone());
    }
}

impl Exchange {
    fn new(verb: Option<Cow<'static, str>>, code: Option<u16>, text: &str, latency: Option<Duration>) -> Self {
        let first = text.lines().next().unwrap_or_default();
        let end = first.char_indices().nth(LONGEST_TEXT).map_or(first.len(), |(end, _)| end);
        Self { verb, code, text: first[..end].into(), latency }
    }
}

impl ConnectionTable {
    /// One that keeps this many observations of each connection.
    pub fn with_transcripts(lines: usize) -> Self {
        Self { transcript: lines, ..Self::default() }
    }

    /// Takes something that was observed.
    pub fn take(&mut self, observation: impl Into<Retained>) {
        let observation = observation.into();
        if observation.command().is_none() {
            let shown = observation.shown();
            if let Some(interception) = interception(&shown) {
                self.intercept(interception, &shown);
            }
            if let Event::Rset(rset) = &shown.event {
                self.rsets[rset.reason as usize] += 1;
            }
        }
        self.changes += 1;
        self.update(&observation);
        self.bound_transcripts();
        self.taken += 1;
        let time = observation.time();
        push(&mut self.latest, MAX_LATEST, observation);
        self.forget(time);
    }

    /// Lets go of what is over for long by this time.
    pub fn forget(&mut self, now: Timestamp) {
        let long_ago = now.before(KEPT);
        while self.over.len() > MAX_OVER || self.over.front().is_some_and(|(closed, _)| *closed < long_ago) {
            if let Some((_, id)) = self.over.pop_front() {
                let gone = self.rows.remove(&id);
                self.kept_bytes -= gone.map_or(0, |row| row.transcript.iter().map(Retained::cost).sum());
                self.changes += 1;
            }
        }
    }

    /// The connections, in no order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &ConnectionState> {
        self.rows.values()
    }

    /// A connection.
    pub fn row(&self, id: &str) -> Option<&ConnectionState> {
        self.rows.get(id)
    }

    /// What is, or was, in the middle of clients' connections: one each, the latest one last. Each is an
    /// [`Event::Interception`].
    pub fn interceptions(&self) -> impl DoubleEndedIterator<Item = &Arc<Observation>> {
        self.interceptions.iter()
    }

    /// What was observed last, the latest one last.
    pub fn latest(&self) -> impl DoubleEndedIterator<Item = &Retained> {
        self.latest.iter()
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

    /// The connections of which something was observed last, at most so many.
    pub fn heard_last(&self, most: usize) -> Vec<&ConnectionState> {
        let mut rows: Vec<_> = self.rows.values().collect();
        if rows.len() > most {
            rows.select_nth_unstable_by(most, |a, b| b.heard.cmp(&a.heard));
            rows.truncate(most);
        }
        rows
    }

    /// Connections that are not shown, since there were [`MAX_ROWS`] when they were opened.
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
        let (opens, closes) = match observation.command() {
            Some(_) => (false, false),
            None => match observation.shown().event {
                Event::ConnectionOpened { .. } => (true, false),
                Event::ConnectionClosed { .. } => (false, true),
                _ => (false, false),
            },
        };
        if !self.rows.contains_key(id) {
            // What is told of a connection that is forgotten does not bring it back.
            if !opens {
                return;
            }
            if self.rows.len() >= MAX_ROWS {
                self.unlisted += 1;
                return;
            }
            self.rows.insert(Arc::clone(id), ConnectionState::new(observation));
        }
        let most = self.transcript.min((MAX_KEPT / self.rows.len().max(1)).max(LEAST_KEPT));
        let Some(row) = self.rows.get_mut(id) else { return };
        row.observe(observation);
        if most > 0 {
            while row.transcript.len() >= most {
                self.kept_bytes -= row.forget_oldest();
            }
            self.kept_bytes += observation.cost();
            self.kept.push_back((Arc::clone(&row.connection.id), row.forgotten + row.transcript.len() as u64));
            row.transcript.push_back(observation.clone());
        }
        if closes {
            self.over.push_back((observation.time(), Arc::clone(id)));
        }
    }

    /// Forgets the oldest of what transcripts have, as far as that is too much.
    fn bound_transcripts(&mut self) {
        while self.kept_bytes > MAX_KEPT_BYTES
            && let Some((id, number)) = self.kept.pop_front()
        {
            if let Some(row) = self.rows.get_mut(&id).filter(|row| row.forgotten == number) {
                self.kept_bytes -= row.forget_oldest();
            }
        }
        // What is there no longer takes little, and is let go of when most of it is such.
        if self.kept.len() > 2 * MAX_KEPT {
            let Self { rows, kept, .. } = self;
            kept.retain(|(id, number)| rows.get(id).is_some_and(|row| row.forgotten <= *number));
        }
    }

    fn intercept(&mut self, interception: &Interception, observation: &Observation) {
        let observation = Arc::new(observation.clone());
        let client = &observation.connection.id;
        self.interceptions.retain(|known| known.connection.id != *client);
        // A verdict that is withdrawn leaves nothing.
        let stands = interception.verdict != Verdict::Direct;
        if stands {
            push(&mut self.interceptions, MAX_INTERCEPTIONS, Arc::clone(&observation));
        }
        if let Some(row) = self.rows.get_mut(client) {
            row.intercepted = interception.verdict.is_hidden();
            row.interception = stands.then_some(observation);
        }
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
