//! Facts made by hand. What they borrow is never given back: it is little, and only tests make it.

use std::time::Duration;

use super::{ConnectionClosed, Transaction, What};
use crate::event::Time;
use crate::fact::evidence::EvidenceList;
use crate::fact::{Interception, Reasoned};
use crate::names::{AnomalyKind, ClosedBy, NoopReason, Outcome, RsetReason};
use crate::smtp::{Command, Exchange, GoAhead, Message, Repeated, Reply};

/// When a command was sent that is answered.
const SENT: Time = Time(1_000_000_000);

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn reply(code: u16, text: &str, time: Time) -> Reply {
    Reply { code, text: text.into(), first_byte: time, last_byte: time, ..Reply::default() }
}

pub(crate) fn opened() -> What<'static> {
    What::ConnectionOpened { requested: None }
}

pub(crate) fn closed() -> What<'static> {
    What::ConnectionClosed(ConnectionClosed {
        bytes_sent: 311,
        bytes_received: 2290,
        duration: Duration::from_millis(5500),
        lost_bytes: Some(0),
        greeting_bytes: None,
        closed_by: ClosedBy::Local,
        outstanding: None,
    })
}

/// 220 with this text.
pub(crate) fn greeting(text: &str) -> What<'static> {
    What::Greeting { reply: leak(reply(220, text, SENT)), latency: Some(Duration::from_millis(20)) }
}

/// A command that was answered after two milliseconds.
pub(crate) fn command(line: &str, code: u16, text: &str) -> What<'static> {
    command_after(line, code, text, Duration::from_millis(2))
}

/// The same after so long.
pub(crate) fn command_after(line: &str, code: u16, text: &str, latency: Duration) -> What<'static> {
    let command = Box::new(Command::new(line.as_bytes(), SENT, SENT));
    let answered = Time(SENT.0 + latency.as_nanos() as u64);
    What::Command(leak(Exchange { command, reply: Some(reply(code, text, answered).into()) }))
}

pub(crate) fn unanswered(line: &str) -> What<'static> {
    let command = Box::new(Command::new(line.as_bytes(), SENT, SENT));
    What::Command(leak(Exchange { command, reply: None }))
}

pub(crate) fn rset(reason: RsetReason) -> What<'static> {
    let latency = Some(Duration::from_millis(2));
    What::Rset(leak(Reasoned { reason, evidence: EvidenceList::default(), latency, code: Some(250) }))
}

pub(crate) fn noop(reason: NoopReason) -> What<'static> {
    let latency = Some(Duration::from_millis(1));
    What::Noop(leak(Reasoned { reason, evidence: EvidenceList::default(), latency, code: Some(250) }))
}

/// A message of this size: its go-ahead came after 250 ms, its content took four seconds, and its final reply `latency`.
pub(crate) fn message(size: u64, code: u16, text: &str, latency: Duration) -> What<'static> {
    let after = |time: Time, later: Duration| Time(time.0 + later.as_nanos() as u64);
    let asked = after(SENT, Duration::from_millis(250));
    let ended = after(asked, Duration::from_secs(4));
    What::Data(leak(Message {
        requested_at: Some(SENT),
        go_ahead: Some(GoAhead {
            time: asked,
            text: b"End data with <CR><LF>.<CR><LF>".to_vec(),
            repeated: Repeated::default(),
        }),
        ended_at: Some(ended),
        size: Some(size),
        reply: Some(reply(code, text, after(ended, latency)).into()),
        accepted: u32::from(code / 100 == 2),
        ..Message::default()
    }))
}

pub(crate) fn transaction(outcome: Outcome) -> What<'static> {
    What::Transaction(Transaction {
        outcome,
        sender: Some(b"alice@client.example"),
        recipients_accepted: Some(1),
        recipients_rejected: Some(0),
        duration: Some(Duration::from_secs(5)),
    })
}

pub(crate) fn anomaly(kind: AnomalyKind) -> What<'static> {
    What::Anomaly { kind, detail: "\\n" }
}

pub(crate) fn interception(interception: Interception) -> What<'static> {
    What::Interception(leak(interception))
}
