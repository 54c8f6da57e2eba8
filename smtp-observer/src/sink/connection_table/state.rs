//! What is shown of one connection.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::interception;
use super::kept::{Account, Class};
use crate::observation::{
    AnomalyKind, Caller, Connection, Event, NoopReason, Observation, Outcome, RsetReason, Timestamp, TlsPhase, Verdict,
};
use crate::sink::retained::{Gist, Retained};

/// Characters kept of a reply.
const LONGEST_TEXT: usize = 160;

/// Bytes of texts that a connection may have beside its transcript.
const MAX_TEXTS: usize = 1024;

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
    /// When it was over, or followed no longer.
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
    /// Bytes of its transcript.
    pub(crate) kept: usize,
    /// How much it is worth to be kept, and on whose account.
    pub(crate) class: Class,
    pub(crate) account: Account,
    /// It is in the order of its account.
    pub(crate) is_listed: bool,
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
    /// Followed no longer: there were too many.
    Unfollowed,
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
            Self::Unfollowed => "unfollowed",
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

    /// A peer has broken the protocol, or a program in the middle has sent what its client has not.
    pub(crate) fn is_serious(self) -> bool {
        match self {
            Self::Anomaly(_)
            | Self::Rset(RsetReason::InterceptorDiscard | RsetReason::InterceptorReplay)
            | Self::Noop(NoopReason::InterceptorKeepalive) => true,
            Self::Rset(_) | Self::Noop(_) | Self::Transaction(_) => false,
        }
    }
}

impl ConnectionState {
    pub(super) fn new(observation: &Retained) -> Self {
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
            kept: 0,
            class: Class::Ordinary,
            account: Account::default(),
            is_listed: false,
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

    /// The program that its bytes are on the account of.
    pub(super) fn program(&self) -> Option<&str> {
        self.owner.as_ref().map(|owner| owner.process.program())
    }

    /// Bytes that it takes without its transcript and its process, about.
    pub(super) fn bytes_alone(&self) -> usize {
        let last = self.last.as_ref().map_or(0, Retained::cost);
        size_of::<Self>() + size_of::<Connection>() + self.connection.id.len() + last
    }

    /// Bytes that it has on its account: those of its transcript, and where it is kept for longer than others all that it may take.
    pub(super) fn weight(&self) -> usize {
        let alone = size_of::<Self>() + size_of::<Connection>() + MAX_TEXTS;
        self.kept + if self.class > Class::Ordinary { alone } else { 0 }
    }

    /// Keeps an observation.
    pub(super) fn keep(&mut self, observation: &Retained) -> usize {
        let cost = observation.cost();
        self.kept += cost;
        self.transcript.push_back(observation.clone());
        cost
    }

    /// The oldest of its observations is kept no longer: its bytes.
    pub(super) fn forget_oldest(&mut self) -> usize {
        let Some(oldest) = self.transcript.pop_front() else { return 0 };
        self.forgotten += 1;
        let cost = oldest.cost();
        self.kept -= cost;
        cost
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

    pub(super) fn observe(&mut self, retained: &Retained) {
        self.heard = self.heard.max(retained.time());
        self.intercepted |= retained.is_intercepted();
        if let Some(process) = retained.process() {
            self.owner = Some(process.clone());
        }
        let event = match retained.gist() {
            Gist::Command(verb, code) => return self.command(verb, code, retained),
            Gist::Data => {
                self.state = State::Ready;
                self.last = Some(retained.clone());
                return;
            }
            Gist::Transaction(outcome) => return self.note(Note::Transaction(outcome)),
            Gist::Other(event) => event,
        };
        match event {
            // It is followed again.
            Event::ConnectionOpened { .. } => {
                (self.closed, self.bytes) = (None, None);
                if self.state == State::Unfollowed {
                    self.state = State::Connected;
                }
            }
            Event::ConnectionOwnerChanged { .. } | Event::Interception(_) => (),
            Event::Command(_) | Event::Data(_) | Event::Transaction(_) => (),
            Event::ConnectionClosed { bytes_sent, bytes_received, .. } => {
                self.closed = Some(retained.time());
                self.state = State::Closed;
                self.bytes = Some((*bytes_sent, *bytes_received));
            }
            Event::ConnectionUnfollowed { bytes_sent, bytes_received, .. } => {
                self.closed = Some(retained.time());
                self.state = State::Unfollowed;
                self.bytes = Some((*bytes_sent, *bytes_received));
            }
            Event::Greeting(_) => {
                self.state = State::Ready;
                self.last = Some(retained.clone());
            }
            Event::Rset(rset) => self.note(Note::Rset(rset.reason)),
            Event::Noop(noop) => self.note(Note::Noop(noop.reason)),
            Event::Anomaly(anomaly) => self.note(Note::Anomaly(anomaly.kind)),
            Event::Tls(tls) => match tls.phase {
                TlsPhase::Started if !tls.visible => self.state = State::Encrypted,
                TlsPhase::Started | TlsPhase::Read => self.state = State::Ready,
                _ => {}
            },
        }
    }

    /// The last note is shown, but for what goes on as if nothing were wrong.
    fn note(&mut self, note: Note) {
        if note.is_serious() || !self.note.is_some_and(Note::is_serious) {
            self.note = Some(note);
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
