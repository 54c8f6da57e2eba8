//! Observations: the one vocabulary that every sink speaks. One observation is one JSON object a line (`--json`,
//! `--events`); the metrics, the live table and the page are folds over the same values.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::fact::evidence::EvidenceList;

mod names;
mod shown;
mod words;

pub(crate) use self::words::Elapsed;
pub use names::{AnomalyKind, ClosedBy, EvidenceKind, Method, NoopReason, Outcome, RsetReason, TlsPhase, Verdict};

/// Nanoseconds since the Unix epoch; shown as RFC 3339 in UTC with nine digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment that is so much later; the last one there is, where that is beyond it.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }

    /// The moment that is so much earlier; the first one there is, where that is beyond it.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(duration)))
    }

    /// The moment by a clock that was set forward by so many nanoseconds, or back.
    pub(crate) fn by_clock(self, set: i64) -> Self {
        Self(self.0.saturating_add(set))
    }

    /// How much later it is than an earlier moment; nothing, where that is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0).try_into().unwrap_or_default())
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(timestamp) => write!(f, "{timestamp:.9}"),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(|_| de::Error::custom(format!("`{text}` is not a time")))?;
        i64::try_from(time.as_nanosecond()).map(Self).map_err(de::Error::custom)
    }
}

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
    #[serde(skip_serializing_if = "is_false")]
    pub intercepted: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// What the socket did to get its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It connected.
    Client,
    /// It was accepted.
    Server,
}

impl Role {
    /// The name used in events and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Endpoint {
    /// IPv4 or IPv6 address.
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// A TCP connection, as one of its sockets sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Connection {
    /// Stable, and unique per connection on this host.
    pub id: Arc<str>,
    /// What this socket is.
    pub role: Role,
    /// This socket's end.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The socket's cookie, which [`Self::id`] is made of.
    #[serde(skip)]
    pub cookie: u64,
}

/// A process's parent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Parent {
    /// Its pid.
    pub pid: u32,
    /// Its `comm`.
    pub name: Arc<str>,
}

/// A process, with what could be learned of it; what is not known is absent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Process {
    /// The thread group's id in the host's pid namespace.
    pub pid: u32,
    /// Its `comm`, at most 15 bytes.
    pub name: Arc<str>,
    /// Path of its executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<Arc<str>>,
    /// The script, module, jar or class that it runs, where its executable is an interpreter and its arguments show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Arc<str>>,
    /// Its arguments, joined by blanks, without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_line: Option<Arc<str>>,
    /// The effective user.
    pub uid: u32,
    /// That user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    /// Its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Libraries that are loaded before its own (`LD_PRELOAD`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preload: Option<Arc<str>>,
    /// Its cgroup in the unified hierarchy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Arc<str>>,
    /// The container it runs in, read from the cgroup's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<Arc<str>>,
    /// The systemd unit it belongs to, read from the cgroup's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd_unit: Option<Arc<str>>,
}

impl Process {
    /// Bytes of memory that its description takes, about.
    pub fn bytes(&self) -> usize {
        let texts = [&self.executable, &self.script, &self.command_line, &self.user, &self.preload, &self.cgroup];
        let more = [&self.container_id, &self.systemd_unit];
        let parent = self.parent.as_ref().map_or(0, |parent| parent.name.len());
        let texts = texts.into_iter().chain(more).flatten().map(|text| text.len());
        size_of::<Self>() + self.name.len() + parent + texts.sum::<usize>()
    }

    /// The name that metrics and tables use: the base name of the script that it runs, or else of its executable; `comm`
    /// where neither is known.
    pub fn program(&self) -> &str {
        match self.script.as_ref().or(self.executable.as_ref()) {
            Some(path) => path.rsplit('/').next().unwrap_or(path),
            None => &self.name,
        }
    }
}

/// A thread of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The process.
    pub process: Arc<Process>,
    /// The thread that called.
    pub tid: u32,
}

impl Serialize for Caller {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct View<'a> {
            #[serde(flatten)]
            process: &'a Process,
            tid: u32,
        }
        View { process: &self.process, tid: self.tid }.serialize(serializer)
    }
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
    /// TLS was offered or started.
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
    /// The reply's text, lines joined by a line feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// From the command's last byte to the reply's last byte.
    #[serde(rename = "latency_seconds", serialize_with = "optional_seconds", skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    /// It was sent before the reply to the command before it (RFC 2920).
    pub pipelined: bool,
}

/// A command that needs explaining, with the explanation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reasoned<R> {
    /// Why it was sent.
    pub reason: R,
    /// What leads to that reason; in JSON each piece is a short text.
    #[serde(serialize_with = "words::serialize")]
    pub evidence: EvidenceList,
    /// From the command's last byte to the reply's last byte.
    #[serde(rename = "latency_seconds", serialize_with = "optional_seconds", skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    /// The reply's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
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
    /// The final reply's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
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
    pub recipients_accepted: u32,
    /// Recipients that it rejected.
    pub recipients_rejected: u32,
    /// From MAIL to the reply that ended it.
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub duration: Duration,
}

/// TLS on a connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tls {
    /// How far it got.
    pub phase: TlsPhase,
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

/// What is in the middle of a client's conversation, and how that is known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interception {
    /// What it is.
    pub verdict: Verdict,
    /// How the client's connection came to it.
    pub method: Method,
    /// The process in the middle; absent where it is on another host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interceptor: Option<Caller>,
    /// A product that is known to speak as the program in the middle does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<&'static str>,
    /// The client.
    pub client: InterceptedClient,
    /// The connection that it goes on with; absent where that was not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// How sure the verdict is, from 0 to 1.
    pub confidence: f64,
    /// What leads to it.
    pub evidence: Vec<Evidence>,
    /// From the client's DATA to the DATA that the server got.
    #[serde(
        rename = "data_delay_seconds",
        serialize_with = "optional_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub hold: Option<Duration>,
    /// What was not told before of this conversation.
    #[serde(skip)]
    pub news: News,
}

/// What an [`Interception`] tells for the first time of its conversation, so that it is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// That the client does not know of what is in the middle.
    pub hidden: bool,
    /// That the client is led to another server than it asked for.
    pub redirected: bool,
    /// How long DATA was held back.
    pub hold: bool,
}

impl News {
    /// What is news beside what was told before.
    pub(crate) fn since(self, told: Self) -> Self {
        Self {
            hidden: self.hidden && !told.hidden,
            redirected: self.redirected && !told.redirected,
            hold: self.hold && !told.hold,
        }
    }

    /// What was told in the one or the other.
    pub(crate) fn and(self, told: Self) -> Self {
        Self {
            hidden: self.hidden || told.hidden,
            redirected: self.redirected || told.redirected,
            hold: self.hold || told.hold,
        }
    }
}

/// The client of an intercepted conversation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterceptedClient {
    /// Its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Caller>,
    /// Its connection.
    pub connection_id: Arc<str>,
    /// The server that it asked for.
    pub requested: Endpoint,
}

/// The other connection of a process in the middle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Upstream {
    /// Its identifier.
    pub connection_id: Arc<str>,
    /// Where it leads.
    pub remote: Endpoint,
    /// The server sees the client's own address.
    pub source_preserved: bool,
}

/// A piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// What it is.
    pub kind: EvidenceKind,
    /// What was seen.
    pub detail: String,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn optional_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => seconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}
