//! Observations: the one vocabulary that every sink speaks. One observation is one JSON object a line (`--json`,
//! `--events`); the metrics, the live table and the page are folds over the same values.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

mod queue_id;
mod shown;

pub use crate::fact::{Evidence, InterceptedClient, Interception, News, Reasoned, Upstream};
pub use crate::identity::{Caller, Connection, Endpoint, Parent, Process, Role};
pub use crate::names::{
    AnomalyKind, ClosedBy, EvidenceKind, Method, NoopReason, Outcome, RsetReason, TlsPhase, TlsUnread, TlsVersion,
    Verdict,
};
pub use crate::timestamp::Timestamp;
use crate::timestamp::{optional_seconds, seconds};

/// Something that was observed, when, on which connection, by which process.
#[derive(Clone, Debug, Serialize)]
pub struct Observation {
    /// The time of the socket call that showed it.
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// The connection it happened on.
    pub connection: Arc<Connection>,
    /// The process that used the connection, where one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Caller>,
    /// The conversation goes through a program that its client knows nothing of, as far as is known by then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub intercepted: bool,
}

/// What can happen. The fields of each variant stand beside `event` in the JSON object.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event")]
pub enum Event {
    /// A connection was made, or was seen for the first time.
    #[serde(rename = "connection.opened")]
    ConnectionOpened {
        /// The address the program asked for, where it is not the one it is connected to.
        #[serde(skip_serializing_if = "Option::is_none")]
        requested: Option<Endpoint>,
    },
    /// Another process uses the socket than the one before.
    #[serde(rename = "connection.owner_changed")]
    ConnectionOwnerChanged {
        /// The process before.
        previous_process: Caller,
    },
    /// The connection is over.
    #[serde(rename = "connection.closed")]
    ConnectionClosed {
        /// Bytes this socket's processes sent.
        bytes_sent: u64,
        /// Bytes they received.
        bytes_received: u64,
        /// Since it was opened or first seen.
        #[serde(rename = "duration_seconds", serialize_with = "seconds")]
        duration: Duration,
        /// Bytes of both directions whose content was not seen. Absent where positions tell nothing (kTLS, MPTCP):
        /// what no hook saw is not known there.
        #[serde(skip_serializing_if = "Option::is_none")]
        lost_bytes: Option<u64>,
        /// Bytes that came of the greeting, where it did not come in full.
        #[serde(skip_serializing_if = "Option::is_none")]
        greeting_bytes: Option<u64>,
        /// What ended it.
        closed_by: ClosedBy,
        /// How many commands had no reply then, and with them a message whose end had none; absent where that is not certain.
        #[serde(skip_serializing_if = "Option::is_none")]
        outstanding_count: Option<u32>,
        /// The verbs of the first eight of them, in upper case; `other` where a verb is not known.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        outstanding: Vec<&'static str>,
    },
    /// The connection is followed no longer, since there are too many; whether it is over is not known.
    #[serde(rename = "connection.unfollowed")]
    ConnectionUnfollowed {
        /// Bytes this socket's processes had sent by then.
        bytes_sent: u64,
        /// Bytes they had received.
        bytes_received: u64,
        /// Since it was opened or first seen, until something was seen of it last.
        #[serde(rename = "duration_seconds", serialize_with = "seconds")]
        duration: Duration,
    },
    /// The server's first reply.
    #[serde(rename = "smtp.greeting")]
    Greeting(Greeting),
    /// A command and its reply.
    #[serde(rename = "smtp.command")]
    Command(Command),
    /// An RSET, and why it was sent.
    #[serde(rename = "smtp.rset")]
    Rset(Box<Reasoned<RsetReason>>),
    /// A NOOP, and why it was sent.
    #[serde(rename = "smtp.noop")]
    Noop(Box<Reasoned<NoopReason>>),
    /// A message's content was handed over.
    #[serde(rename = "smtp.data")]
    Data(Data),
    /// A mail transaction ended.
    #[serde(rename = "smtp.transaction")]
    Transaction(Transaction),
    /// TLS was offered, started, or failed.
    #[serde(rename = "smtp.tls")]
    Tls(Tls),
    /// A peer broke the protocol, or the stream could not be followed.
    #[serde(rename = "smtp.anomaly")]
    Anomaly(Anomaly),
    /// Something is in the middle; the connection is the client's.
    #[serde(rename = "interception")]
    Interception(Box<Interception>),
}

/// The server's first reply (RFC 5321, 4.3.1).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Greeting {
    /// 220, 554 or 421.
    pub code: u16,
    /// Its text, lines joined by a line feed; empty where it stayed in the kernel.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// The server software that greets like this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub software: Option<&'static str>,
    /// Since the connection was opened; absent where that was not seen.
    #[serde(rename = "latency_seconds", serialize_with = "optional_seconds", skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
}

/// A command with its reply. Without a reply there is no `code`: the session was over before one came.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Command {
    /// The verb in upper case; `other` where it is none that is known.
    pub verb: Cow<'static, str>,
    /// Bytes of the line, where its verb is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// What followed the verb, with mailbox names shown as far as `--addresses` allows and credentials never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argument: Option<String>,
    /// The reply's code (RFC 5321, 4.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The reply's enhanced status code (RFC 2034).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enhanced_code: Option<String>,
    /// The reply's text, lines joined by a line feed; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// From the command's last byte to the reply's last byte.
    #[serde(rename = "latency_seconds", serialize_with = "optional_seconds", skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    /// It was sent before the reply to the command before it (RFC 2920).
    pub pipelined: bool,
}

/// How a message's content travelled (RFC 5321, 4.1.1.4; RFC 3030).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Data {
    /// `DATA`, `BDAT` or `BURL`.
    pub verb: &'static str,
    /// From DATA to the 354; absent for BDAT, which waits for none.
    #[serde(rename = "go_ahead_seconds", serialize_with = "optional_seconds", skip_serializing_if = "Option::is_none")]
    pub go_ahead: Option<Duration>,
    /// The text of the 354.
    #[serde(rename = "go_ahead", skip_serializing_if = "Option::is_none")]
    pub go_ahead_text: Option<String>,
    /// From the 354 (BDAT: from the first chunk's command) to the end of data.
    #[serde(rename = "transfer_seconds", serialize_with = "optional_seconds", skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Duration>,
    /// From the end of data to the final reply.
    #[serde(
        rename = "final_reply_seconds",
        serialize_with = "optional_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub accept: Option<Duration>,
    /// Bytes of content as transmitted, without the end of data; absent where its beginning was not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The final reply's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The final reply's text, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// Under which identifier the server keeps the message, where its final reply tells that in known words: the one that its
    /// log has, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_id: Option<String>,
}

/// A mail transaction: from MAIL to its end (RFC 5321, 3.3).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Transaction {
    /// How it ended.
    pub outcome: Outcome,
    /// The reverse-path, shown as far as `--addresses` allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// Recipients that the server accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipients_accepted: Option<u32>,
    /// Recipients that it rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipients_rejected: Option<u32>,
    /// From MAIL to the reply that ended it.
    #[serde(rename = "duration_seconds", serialize_with = "optional_seconds", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
}

/// TLS on a connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tls {
    /// How far it got.
    pub phase: TlsPhase,
    /// The version that the server has chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<TlsVersion>,
    /// The cipher suite that it has chosen, by the name that IANA has for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cipher: Option<Cow<'static, str>>,
    /// The name of the server that the client wants (RFC 6066, 3).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<Box<str>>,
    /// With what the server refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Why there was none: the alert's name, or how the handshake ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// Who sent the alert: `client` or `server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert_by: Option<&'static str>,
    /// The library that speaks it, where its plaintext is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library: Option<String>,
    /// The plaintext is readable.
    pub visible: bool,
}

/// A departure from the protocol.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Anomaly {
    /// What it is.
    pub kind: AnomalyKind,
    /// The evidence, bytes escaped, bounded.
    pub detail: String,
}
