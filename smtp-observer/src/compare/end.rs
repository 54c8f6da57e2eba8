//! The conversations that one host's events tell of.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use serde::Deserialize;

use crate::analysis;
use crate::observation::{self, Connection, Process, Role, Timestamp, TlsPhase};
use crate::proxy::dialogue::{Content, Dialogue, Said};
use crate::redact::Addresses;
use crate::smtp::Verb;

/// One host's events, as far as they are about the connections of one role.
#[derive(Debug)]
pub struct End {
    role: Role,
    conversations: Vec<Conversation>,
    by_id: HashMap<Arc<str>, usize>,
    others: bool,
    addresses: Option<Addresses>,
}

/// What was seen of one connection.
#[derive(Debug)]
pub struct Conversation {
    /// The connection.
    pub connection: Connection,
    /// The process that used it first.
    pub process: Option<Process>,
    /// What was said.
    pub dialogue: Dialogue,
    /// The argument of each of its commands, as far as it was shown.
    pub arguments: Vec<Option<Box<str>>>,
    /// The time of the first event.
    pub opened: Timestamp,
    /// What was said after that was not all seen, or lines about it were lost.
    pub seen_until: Option<Timestamp>,
    /// The id of the connection that carries it on, where this host's agent has found one.
    pub upstream: Option<Arc<str>>,
}

/// A line of events, as far as it is of use here.
#[derive(Deserialize)]
#[serde(expecting = "an event")]
struct Line {
    time: Timestamp,
    connection: Connection,
    process: Option<Process>,
    #[serde(default)]
    lines_lost: u64,
    #[serde(flatten)]
    event: Told,
}

#[derive(Deserialize)]
#[serde(tag = "event")]
enum Told {
    #[serde(rename = "connection.closed")]
    Closed,
    #[serde(rename = "connection.unfollowed")]
    Unfollowed,
    #[serde(rename = "smtp.greeting")]
    Greeting {
        code: u16,
        #[serde(default)]
        text: String,
    },
    #[serde(rename = "smtp.command")]
    Command {
        verb: String,
        argument: Option<String>,
        code: Option<u16>,
        reply: Option<String>,
        latency_seconds: Option<f64>,
    },
    #[serde(rename = "smtp.data")]
    Data {
        verb: String,
        #[serde(alias = "accept_seconds")]
        final_reply_seconds: Option<f64>,
        size_bytes: Option<u64>,
        code: Option<u16>,
        reply: Option<String>,
    },
    #[serde(rename = "smtp.tls")]
    Tls {
        phase: String,
        #[serde(default)]
        visible: bool,
    },
    #[serde(rename = "smtp.anomaly")]
    Anomaly { kind: String },
    #[serde(rename = "interception")]
    Interception { verdict: String, upstream: Option<Upstream> },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Upstream {
    connection_id: Arc<str>,
}

impl End {
    /// The end at which sockets have this role; of it nothing is known yet.
    pub fn new(role: Role) -> Self {
        Self { role, conversations: Vec::new(), by_id: HashMap::default(), others: false, addresses: None }
    }

    /// Takes a line of the events. What is wrong with it is said in a few words.
    pub fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let line = serde_json::from_slice(line).map_err(|error| wrong(&error))?;
        let Line { time, connection, process, lines_lost, event } = line;
        if lines_lost > 0 {
            self.lines_lost();
        }
        if connection.role != self.role {
            self.others |= matches!(event, Told::Greeting { .. } | Told::Command { .. });
            return Ok(());
        }
        let place = *self.by_id.entry(Arc::clone(&connection.id)).or_insert_with(|| {
            self.conversations.push(Conversation::new(connection, time));
            self.conversations.len() - 1
        });
        let Some(conversation) = self.conversations.get_mut(place) else { return Ok(()) };
        if conversation.process.is_none() {
            conversation.process = process;
        }
        match event {
            Told::Unfollowed => conversation.lose(),
            Told::Anomaly { kind } if kind == observation::AnomalyKind::Gap.as_str() => conversation.lose(),
            Told::Interception { verdict, upstream } => {
                let direct = verdict == observation::Verdict::Direct.as_str();
                conversation.upstream = upstream.filter(|_| !direct).map(|upstream| upstream.connection_id);
            }
            // That which shows more.
            said => self.addresses = [self.addresses, conversation.say(time, said)?].into_iter().flatten().min(),
        }
        Ok(())
    }

    /// Lines are missing before the next one. They may be of every conversation that is not known to be over.
    pub fn lines_lost(&mut self) {
        self.conversations.iter_mut().filter(|it| it.dialogue.closed.is_none()).for_each(Conversation::lose);
    }

    /// The conversations in which SMTP was spoken, the first one first.
    pub fn conversations(&self) -> impl Iterator<Item = &Conversation> {
        self.conversations.iter().filter(|conversation| conversation.speaks())
    }

    /// There are conversations, and all have the other role: it may be the other end.
    pub fn is_the_other(&self) -> bool {
        self.others && self.conversations().next().is_none()
    }

    /// How much of mailboxes is shown, where there are any.
    pub fn addresses(&self) -> Option<Addresses> {
        self.addresses
    }
}

impl Conversation {
    fn new(connection: Connection, opened: Timestamp) -> Self {
        Self {
            connection,
            process: None,
            dialogue: Dialogue::whole(),
            arguments: Vec::new(),
            opened,
            seen_until: None,
            upstream: None,
        }
    }

    /// Takes what was said; how much of a mailbox is shown in it.
    fn say(&mut self, time: Timestamp, said: Told) -> Result<Option<Addresses>, String> {
        let reply =
            |code: Option<u16>, text: Option<String>| code.map(|code| Said::new(time, code, text.unwrap_or_default()));
        match said {
            Told::Closed => self.dialogue.closed = Some(time),
            Told::Greeting { code, text } => self.dialogue.greeted(Said::new(time, code, text)),
            Told::Command { verb, argument, code, reply: text, latency_seconds } => {
                let argument = argument.as_deref();
                let path = argument.filter(|_| matches!(&*verb, "MAIL" | "RCPT"));
                let named = matches!(&*verb, "MAIL" | "RCPT").then(|| path.unwrap_or_default().as_bytes());
                let sent = time.before(duration("latency_seconds", latency_seconds)?.unwrap_or_default());
                self.dialogue.command(known(verb), argument, named.map(analysis::fingerprint), sent, reply(code, text));
                self.arguments.push(argument.map(Into::into));
                return Ok(path.and_then(|path| Addresses::shown_in(path.as_bytes())));
            }
            Told::Data { verb, final_reply_seconds, size_bytes, code, reply: text } => {
                let latency = duration("final_reply_seconds", final_reply_seconds)?;
                let ended = latency.map(|latency| time.before(latency));
                let is_taken = code.is_some_and(|code| code / 100 == 2);
                let content = Content { ended, size: size_bytes, reply: reply(code, text), is_taken };
                self.dialogue.content(if verb == "BDAT" { "BDAT" } else { "DATA" }, content);
            }
            Told::Tls { phase, visible } if phase == TlsPhase::Started.as_str() => {
                (self.dialogue.encrypted, self.dialogue.is_read) = (Some(time), visible);
            }
            Told::Unfollowed | Told::Tls { .. } | Told::Anomaly { .. } | Told::Interception { .. } | Told::Other => {}
        }
        Ok(None)
    }

    /// Something of it was not seen.
    pub fn has_gaps(&self) -> bool {
        self.seen_until.is_some()
    }

    /// Something of it was not seen since it was last heard of.
    fn lose(&mut self) {
        self.seen_until.get_or_insert(self.time().1);
    }

    /// From when until when something was heard of it.
    pub fn time(&self) -> (Timestamp, Timestamp) {
        (self.opened, self.dialogue.last().unwrap_or(self.opened))
    }

    /// Something was said.
    fn speaks(&self) -> bool {
        self.dialogue.greeting.is_some() || !self.dialogue.steps.is_empty()
    }
}

/// The verb, without room of its own where it is one that is known.
fn known(verb: String) -> Cow<'static, str> {
    match Verb::parse(verb.as_bytes()) {
        known if known.as_str() == verb => known.as_str().into(),
        _ => verb.into(),
    }
}

fn duration(name: &str, seconds: Option<f64>) -> Result<Option<Duration>, String> {
    let duration = seconds.map(Duration::try_from_secs_f64).transpose();
    duration.map_err(|_| format!("`{name}` is no duration"))
}

/// Where in the line, without the number that serde_json gives the line itself.
fn wrong(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((what, _)) if error.column() > 0 => format!("{what}, at column {}", error.column()),
        Some((what, _)) => what.to_owned(),
        None => text,
    }
}
