//! Facts as observations: in words, with as much of mailboxes as may be shown.

use std::sync::Arc;

use super::queue_id::queue_id;
use super::{Anomaly, Command, Data, Event, Greeting, Observation, Tls, Transaction};
use crate::analysis;
use crate::event::TlsLibrary;
use crate::fact::{self, ConnectionClosed, ConnectionUnfollowed, Fact, What};
use crate::names::{TlsPhase, TlsUnread};
use crate::redact::{self, RedactionPolicy};
use crate::smtp::{self, Exchange, Message, Peer, Plaintext, TlsSession, Verb};

/// Characters of an anomaly's detail.
const LONGEST_DETAIL: usize = 128;

impl Observation {
    /// The fact in words.
    pub fn of(fact: &Fact<'_>, policy: RedactionPolicy) -> Self {
        Self {
            time: fact.time,
            event: Event::of(fact.what, policy),
            connection: Arc::clone(fact.connection),
            process: fact.process.cloned(),
            intercepted: fact.intercepted,
        }
    }
}

impl Event {
    pub(crate) fn of(what: What<'_>, policy: RedactionPolicy) -> Self {
        match what {
            What::ConnectionOpened { requested } => Self::ConnectionOpened { requested },
            What::ConnectionOwnerChanged { previous } => {
                Self::ConnectionOwnerChanged { previous_process: previous.clone() }
            }
            What::ConnectionClosed(closed) => {
                let ConnectionClosed { bytes_sent, bytes_received, duration, lost_bytes, .. } = closed;
                let ConnectionClosed { greeting_bytes, closed_by, outstanding, .. } = closed;
                Self::ConnectionClosed {
                    bytes_sent,
                    bytes_received,
                    duration,
                    lost_bytes,
                    greeting_bytes,
                    closed_by,
                    outstanding_count: outstanding.map(|outstanding| outstanding.count),
                    outstanding: outstanding
                        .iter()
                        .flat_map(|outstanding| outstanding.verbs.iter())
                        .map(known_verb)
                        .collect(),
                }
            }
            What::ConnectionUnfollowed(ConnectionUnfollowed { bytes_sent, bytes_received, duration }) => {
                Self::ConnectionUnfollowed { bytes_sent, bytes_received, duration }
            }
            What::Greeting { reply, latency } => Self::Greeting(Greeting {
                code: reply.code,
                text: policy.reply(reply).unwrap_or_default(),
                software: analysis::software(reply),
                latency,
            }),
            What::Command(exchange) => Self::Command(Command::of(exchange, policy)),
            What::Rset(reasoned) => Self::Rset(Box::new(*reasoned)),
            What::Noop(reasoned) => Self::Noop(Box::new(*reasoned)),
            What::Data(message) => {
                // What stayed in the kernel is not known to be empty.
                let go_ahead = message.go_ahead.as_ref().filter(|go_ahead| !go_ahead.text.is_empty());
                Self::Data(Data::without_texts(message).with_texts(
                    go_ahead.map(|go_ahead| policy.repeating(&go_ahead.text, &go_ahead.repeated)),
                    message.reply.as_ref().and_then(|reply| policy.reply(reply)),
                ))
            }
            What::Transaction(ended) => Self::Transaction(Transaction {
                sender: ended.sender.map(|mailbox| policy.reverse_path(mailbox)),
                ..Transaction::without_sender(&ended)
            }),
            What::Tls(tls) => Self::Tls(Tls::of(tls)),
            // Cut behind the redaction, which knows a mailbox by its `@`.
            What::Anomaly { kind, detail } => {
                Self::Anomaly(Anomaly { kind, detail: smtp::cut(policy.text(detail.as_bytes()), LONGEST_DETAIL) })
            }
            What::Interception(interception) => Self::Interception(Box::new(interception.clone())),
        }
    }
}

impl Data {
    /// All but what was said.
    pub(crate) fn without_texts(message: &Message) -> Self {
        Self {
            verb: message.transfer.as_str(),
            go_ahead: message.go_ahead_latency(),
            go_ahead_text: None,
            transfer: message.transfer_time(),
            accept: message.final_reply_latency(),
            size_bytes: message.size,
            code: message.reply.as_ref().map(|reply| reply.code),
            reply: None,
            queue_id: None,
        }
    }

    /// With the texts of the 354 and of the final reply, as they are shown.
    pub(crate) fn with_texts(self, go_ahead_text: Option<String>, reply: Option<String>) -> Self {
        let accepted = reply.as_deref().filter(|_| self.code.is_some_and(|code| code / 100 == 2));
        Self { queue_id: accepted.and_then(queue_id).map(str::to_owned), go_ahead_text, reply, ..self }
    }
}

impl Transaction {
    /// All but the mailbox of MAIL.
    pub(crate) fn without_sender(ended: &fact::Transaction<'_>) -> Self {
        Self {
            outcome: ended.outcome,
            sender: None,
            recipients_accepted: ended.recipients_accepted,
            recipients_rejected: ended.recipients_rejected,
            duration: ended.duration,
        }
    }
}

/// The library in which plaintext is read.
fn library(tls: &smtp::Tls) -> Option<TlsLibrary> {
    match tls {
        smtp::Tls::Read(library) => Some(*library),
        smtp::Tls::Started(session) => match session.plaintext {
            Plaintext::Read(library) => Some(library),
            Plaintext::Unread(_) | Plaintext::Unknown => None,
        },
        _ => None,
    }
}

/// Why it is not.
fn unread(tls: &smtp::Tls) -> Option<TlsUnread> {
    match tls {
        smtp::Tls::Started(session) => match session.plaintext {
            Plaintext::Unread(reason) => Some(reason),
            Plaintext::Read(_) | Plaintext::Unknown => None,
        },
        _ => None,
    }
}

impl Tls {
    fn of(tls: &smtp::Tls) -> Self {
        let session = tls.session();
        let failure = match tls {
            smtp::Tls::Failed(_, failure) => Some(failure),
            _ => None,
        };
        Self {
            version: session.and_then(|session| session.version),
            cipher: session.and_then(TlsSession::cipher_name),
            server_name: session.and_then(|session| session.server_name.clone()),
            code: match tls {
                smtp::Tls::Refused(code) => Some(*code),
                _ => None,
            },
            reason: failure.map(|failure| failure.name()).or_else(|| unread(tls).map(|reason| reason.as_str().into())),
            alert_by: failure.and_then(|failure| failure.alert_by()).map(Peer::as_str),
            library: library(tls).map(|library| library.as_str().into()),
            visible: library(tls).is_some(),
            ..Self::new(tls.phase())
        }
    }

    /// Of which nothing else is known; its plaintext is not read.
    pub(crate) fn new(phase: TlsPhase) -> Self {
        Self {
            phase,
            version: None,
            cipher: None,
            server_name: None,
            code: None,
            reason: None,
            alert_by: None,
            library: None,
            visible: false,
        }
    }
}

impl Command {
    pub(crate) fn of(exchange: &Exchange, policy: RedactionPolicy) -> Self {
        let (command, reply) = (&exchange.command, exchange.reply.as_deref());
        Self {
            verb: redact::verb(command),
            length: (command.verb == Verb::Other).then_some(command.length),
            argument: policy.argument_of(command),
            code: exchange.code(),
            enhanced_code: reply.and_then(|reply| reply.enhanced_code).map(|code| code.to_string()),
            reply: reply.and_then(|reply| policy.reply_to(command, reply)),
            latency: exchange.latency(),
            pipelined: command.pipelined,
        }
    }
}

/// A verb, without words that are not known.
fn known_verb(verb: Verb) -> &'static str {
    if verb == Verb::Other { "other" } else { verb.as_str() }
}
