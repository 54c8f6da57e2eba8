//! What the dialogue means: transactions and their outcomes, why RSET and NOOP were sent, which software greets, and how
//! much of it may be shown.
//!
//! [`Judge`] takes the items of one session in their order. It judges by this one connection alone and claims only what
//! follows from it.

mod envelope;
mod next;
mod noop;
mod pace;
mod pending;
mod phase;
#[cfg(test)]
mod properties;
mod redaction;
mod repeat;
mod rset;
mod software;
#[cfg(test)]
mod tests;
mod transaction;
mod words;

use std::time::Duration;

use self::pending::{Answered, Pending};
use self::phase::Phase;
use self::redaction::Redaction;
pub use self::redaction::{Addresses, Key};
pub(crate) use self::redaction::{Kept, Reveal, View};
use self::transaction::Transactions;
use crate::event::Time;
use crate::observation::{self, Event, Role};
use crate::smtp::{Anomaly, Exchange, Item, Message, Reply, Verb};

/// The fingerprint of the mailbox in the argument of MAIL or RCPT, as [`observation::Command::mailbox`] has it.
pub(crate) fn fingerprint(argument: &[u8]) -> u64 {
    envelope::hash(redaction::mailbox(argument))
}

/// How much is shown of the mailbox in the argument of MAIL or RCPT that was redacted: none in the null path.
pub(crate) fn shown(argument: &[u8]) -> Option<Addresses> {
    match redaction::mailbox(argument)? {
        b"" => None,
        b"*" => Some(Addresses::None),
        [b'*', b'@', ..] => Some(Addresses::Domain),
        _ => Some(Addresses::Full),
    }
}

/// Turns one session's items into events.
#[derive(Debug)]
pub struct Judge {
    redaction: Redaction,
    phase: Phase,
    transactions: Transactions,
    pending: Pending,
}

impl Judge {
    /// The judge of a new session, who shows mailboxes as far as `addresses` allows.
    pub fn new(addresses: Addresses) -> Self {
        Self {
            redaction: Redaction::new(addresses),
            phase: Phase::default(),
            transactions: Transactions::default(),
            pending: Pending::default(),
        }
    }

    /// From now on tells what a recording may keep.
    pub(crate) fn keep(&mut self) {
        self.redaction.keep();
    }

    /// What a recording may keep of what was judged since the last time.
    pub(crate) fn kept(&mut self) -> Vec<Kept> {
        self.redaction.kept()
    }

    /// Judges an item. `opened` is when the connection was made, where that was seen.
    pub fn item(&mut self, opened: Option<Time>, item: &Item, events: &mut Vec<(Time, Event)>) {
        match item {
            Item::Greeting(reply) => {
                self.phase.greeted(reply.last_byte);
                events.push((reply.last_byte, Event::Greeting(self.greeting(opened, reply))));
            }
            Item::Exchange(exchange) => self.exchange(exchange, events),
            Item::Message(message) => self.message(message, events),
            Item::TlsOffered(time) => events.push((*time, tls(observation::TlsPhase::Offered))),
            Item::TlsStarted(time) => events.push((*time, tls(observation::TlsPhase::Started))),
            Item::Reversed => self.redaction.note(|| Kept::Reversed),
            Item::Lost => {
                self.pending.unseen(events);
                self.phase.lost();
                self.transactions.lost();
            }
            Item::Anomaly(Anomaly { time, kind, detail }) => {
                // Cut behind the redaction, which knows a mailbox by its `@`.
                let detail = cut(self.redaction.text(detail.as_bytes()));
                events.push((*time, Event::Anomaly(observation::Anomaly { kind: *kind, detail })));
            }
        }
    }

    /// Another process goes on with the socket, which is the client's or the server's. What the one before it has left
    /// to be judged is told first.
    pub fn owner_changed(&mut self, role: Role, time: Time, events: &mut Vec<(Time, Event)>) {
        self.pending.moved(events);
        if role == Role::Client {
            self.phase.moved(time);
        }
    }

    /// When [`Self::pass`] wants to be called: a client that has said nothing by then says something with it.
    pub fn deadline(&self) -> Option<Time> {
        self.pending.deadline()
    }

    /// Nothing was said on the connection from the last item until now.
    pub fn pass(&mut self, now: Time, events: &mut Vec<(Time, Event)>) {
        self.pending.pass(now, events);
    }

    /// The connection is over; what is still open is abandoned. `ended` is when, where that was seen.
    pub fn finish(&mut self, ended: Option<Time>, time: Time, events: &mut Vec<(Time, Event)>) {
        match ended {
            Some(ended) => self.pending.finish(ended, events),
            None => self.pending.unseen(events),
        }
        self.transactions.abandon(time, events);
    }

    fn greeting(&mut self, opened: Option<Time>, reply: &Reply) -> observation::Greeting {
        observation::Greeting {
            code: reply.code,
            text: self.redaction.reply(reply).unwrap_or_default(),
            software: if reply.withheld { None } else { software::guess(&reply.text) },
            latency: opened.map(|opened| reply.last_byte.since(opened)),
        }
    }

    fn exchange(&mut self, exchange: &Exchange, events: &mut Vec<(Time, Event)>) {
        let Exchange { command, reply } = exchange;
        self.pending.exchange(exchange, events);
        let shown = self.redaction.exchange(exchange);
        let code = reply.as_ref().map(|reply| reply.code);
        let latency = reply.as_ref().map(|reply| reply.last_byte.since(command.last_byte));
        let time = reply.as_ref().map_or(command.last_byte, |reply| reply.last_byte);
        events.push((
            time,
            Event::Command(observation::Command {
                verb: shown.verb,
                length: shown.length,
                argument: shown.argument,
                code,
                enhanced_code: reply.as_ref().and_then(|reply| reply.enhanced_code).map(|code| code.to_string()),
                reply: shown.reply,
                latency,
                pipelined: command.pipelined,
                mailbox: match command.verb {
                    Verb::Mail | Verb::Rcpt => Some(fingerprint(command.argument())),
                    _ => None,
                },
            }),
        ));
        let before = self.phase.before(command);
        if let Some(code) = code {
            let answered = Answered { time, latency, code, before };
            match command.verb {
                Verb::Rset => self.pending.rset(answered, events),
                Verb::Noop => self.pending.noop(answered, events),
                _ => {}
            }
        }
        self.phase.exchange(exchange);
        self.transactions.exchange(exchange, || self.redaction.reverse_path(command), events);
    }

    fn message(&mut self, message: &Message, events: &mut Vec<(Time, Event)>) {
        let reply = message.reply.as_ref();
        let asked = message.go_ahead.as_ref();
        let since = |later: Option<Time>, earlier: Option<Time>| -> Option<Duration> { Some(later?.since(earlier?)) };
        // Content that was sent before its go-ahead is waited for from there on.
        let ended_at = message.ended_at.map(|ended| asked.map_or(ended, |asked| ended.max(asked.time)));
        let began_at = asked.map(|asked| asked.time).or(message.requested_at);
        let data = observation::Data {
            verb: message.transfer.as_str(),
            go_ahead: since(asked.map(|asked| asked.time), message.requested_at),
            go_ahead_text: asked.map(|asked| self.redaction.text(&asked.text)),
            transfer: since(message.ended_at, began_at),
            accept: since(reply.map(|reply| reply.last_byte), ended_at),
            size_bytes: message.size,
            code: reply.map(|reply| reply.code),
            reply: reply.and_then(|reply| self.redaction.reply(reply)),
        };
        let time = reply.map(|reply| reply.last_byte).or(message.ended_at).or(began_at).unwrap_or_default();
        self.pending.message(message, events);
        events.push((time, Event::Data(data)));
        self.phase.message(message);
        self.transactions.message(message, events);
    }
}

/// Characters of an anomaly's detail.
const LONGEST_DETAIL: usize = 128;

fn cut(mut detail: String) -> String {
    if let Some((end, _)) = detail.char_indices().nth(LONGEST_DETAIL) {
        detail.truncate(end);
        detail.push('…');
    }
    detail
}

fn tls(phase: observation::TlsPhase) -> Event {
    Event::Tls(observation::Tls { phase, library: None, visible: false })
}
