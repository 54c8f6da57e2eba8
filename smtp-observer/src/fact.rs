//! Facts: what the core tells, typed and borrowed from what it works on. Nobody before a sink makes text of it.

pub mod evidence;
mod interception;
mod reasoned;
#[cfg(test)]
pub(crate) mod samples;
mod short_list;
mod words;

use std::iter::repeat_n;
use std::sync::Arc;
use std::time::Duration;

pub use self::interception::{Evidence, InterceptedClient, Interception, News, Upstream};
pub use self::reasoned::Reasoned;
pub use self::short_list::ShortList;
pub(crate) use self::words::Elapsed;
use crate::identity::{Caller, Connection, Endpoint};
use crate::names::{AnomalyKind, ClosedBy, NoopReason, Outcome, RsetReason};
use crate::smtp::{Exchange, Item, Message, Reply, Tls, Verb};
use crate::timestamp::Timestamp;

/// Something that is known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Fact<'a> {
    /// The time of the socket call that showed it.
    pub time: Timestamp,
    /// The connection that it is about.
    pub connection: &'a Arc<Connection>,
    /// The process that used the connection, where one is known.
    pub process: Option<&'a Caller>,
    /// The conversation goes through a program that its client knows nothing of, as far as is known by then.
    pub intercepted: bool,
    /// What it is.
    pub what: What<'a>,
}

impl Fact<'_> {
    /// The fact by a clock that was set forward by so many nanoseconds, or back.
    pub(crate) fn by_clock(&self, set: i64) -> Self {
        Self { time: self.time.by_clock(set), ..*self }
    }
}

/// What can be known. Nothing in it is redacted yet.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// A connection was made, or was seen for the first time.
    ConnectionOpened {
        /// The address the program asked for, where it is not the one it is connected to.
        requested: Option<Endpoint>,
    },
    /// Another process uses the socket than the one before.
    ConnectionOwnerChanged {
        /// The process before.
        previous: &'a Caller,
    },
    /// The connection is over.
    ConnectionClosed(ConnectionClosed),
    /// The connection is followed no longer, since there are too many; whether it is over is not known.
    ConnectionUnfollowed(ConnectionUnfollowed),
    /// The server's first reply (RFC 5321, 4.3.1).
    Greeting {
        /// 220, 554 or 421.
        reply: &'a Reply,
        /// Since the connection was opened; absent where that was not seen.
        latency: Option<Duration>,
    },
    /// A command and its reply.
    Command(&'a Exchange),
    /// An RSET, and why it was sent.
    Rset(&'a Reasoned<RsetReason>),
    /// A NOOP, and why it was sent.
    Noop(&'a Reasoned<NoopReason>),
    /// A message's content was handed over.
    Data(&'a Message),
    /// A mail transaction ended.
    Transaction(Transaction<'a>),
    /// How far TLS got; its plaintext is not read.
    Tls(&'a Tls),
    /// A peer broke the protocol, or the stream could not be followed.
    Anomaly {
        /// What it is.
        kind: AnomalyKind,
        /// The evidence, bytes escaped.
        detail: &'a str,
    },
    /// Something is in the middle; the connection is the client's.
    Interception(&'a Interception),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionClosed {
    /// Bytes this socket's processes sent.
    pub bytes_sent: u64,
    /// Bytes they received.
    pub bytes_received: u64,
    /// Since it was opened or first seen.
    pub duration: Duration,
    /// Bytes of both directions whose content was not seen. Absent where positions tell nothing (kTLS, MPTCP): what no hook
    /// saw is not known there.
    pub lost_bytes: Option<u64>,
    /// Bytes that came of the greeting, where it did not come in full.
    pub greeting_bytes: Option<u64>,
    /// What ended it.
    pub closed_by: ClosedBy,
    /// What had no reply then; absent where that is not certain.
    pub outstanding: Option<Outstanding>,
}

/// A connection that is let go of.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionUnfollowed {
    /// Bytes this socket's processes had sent by then.
    pub bytes_sent: u64,
    /// Bytes they had received.
    pub bytes_received: u64,
    /// Since it was opened or first seen, until something was seen of it last.
    pub duration: Duration,
}

/// Most commands that are named as outstanding.
pub const MAX_OUTSTANDING: usize = 8;

/// Commands without a reply, and final replies that did not come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    /// How many.
    pub count: u32,
    /// The verbs of the first of them: DATA, BDAT or BURL for the message.
    pub verbs: ShortList<Verb, MAX_OUTSTANDING>,
}

impl Outstanding {
    /// Of what a session yields at its end.
    pub(crate) fn of(items: &[Item]) -> Self {
        let verbs = items.iter().flat_map(|item| match item {
            Item::Exchange(Exchange { command, reply: None }) => repeat_n(command.verb, 1),
            Item::Message(message) => repeat_n(message.transfer.verb(), message.owed as usize),
            _ => repeat_n(Verb::Other, 0),
        });
        let mut outstanding = Self::default();
        for (place, verb) in verbs.enumerate() {
            if place < MAX_OUTSTANDING {
                outstanding.verbs.push(verb);
            }
            outstanding.count += 1;
        }
        outstanding
    }
}

/// A mail transaction: from MAIL to its end (RFC 5321, 3.3).
#[derive(Clone, Copy, Debug)]
pub struct Transaction<'a> {
    /// How it ended.
    pub outcome: Outcome,
    /// The mailbox of the reverse-path; empty where that is the null one, absent where MAIL names none or is not known.
    pub sender: Option<&'a [u8]>,
    /// Recipients that the server accepted, where that is known.
    pub recipients_accepted: Option<u32>,
    /// Recipients that it rejected, where that is known.
    pub recipients_rejected: Option<u32>,
    /// From MAIL to the reply that ended it, where that is known.
    pub duration: Option<Duration>,
}
