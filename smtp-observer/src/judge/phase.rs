//! Where in a session a command comes: what the ones before it led to.

use crate::smtp::{Command, Exchange, Message, Verb};

/// Follows a session from exchange to exchange.
#[derive(Debug, Default)]
pub(super) struct Phase {
    point: Point,
    transactions: u32,
    noops: u32,
}

/// What the last thing that matters was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Point {
    /// It was not seen.
    #[default]
    Unknown,
    /// Nothing: no MAIL in this session so far.
    Start,
    /// AUTH was refused, before any MAIL.
    AuthRefused { code: u16 },
    /// No transaction is open, and there was one before, or may have been.
    Idle,
    /// MAIL was refused.
    SenderRefused { code: u16 },
    /// MAIL was accepted, and so many recipients were and were not.
    Envelope { accepted: u32, rejected: u32 },
    /// DATA was refused though a recipient was accepted.
    DataRefused { code: u16 },
    /// A chunk of a message was accepted, the last is to come.
    Chunk,
    /// A chunk that is not the last was refused.
    ChunkRefused { code: u16 },
    /// The message was accepted.
    MessageAccepted,
    /// The message was refused.
    MessageRefused { code: u16 },
}

/// What a judgement of a command builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) point: Point,
    /// The client had not seen the reply to the command before.
    pub(super) pipelined: bool,
    /// NOOPs of the session so far, this one included.
    pub(super) noops: u32,
}

impl Before {
    /// The point in words, and that the client could not know of it where that is so.
    pub(super) fn evidence(&self) -> Vec<String> {
        let mut evidence = vec![self.point.to_string()];
        if self.pipelined {
            evidence.push("sent before the reply to the command before it".into());
        }
        evidence
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("what was before was not seen"),
            Self::Start => f.write_str("no MAIL before it in this session"),
            Self::AuthRefused { code } => write!(f, "AUTH was refused with {code}"),
            Self::Idle => f.write_str("no transaction is open"),
            Self::SenderRefused { code } => write!(f, "MAIL was refused with {code}"),
            Self::Envelope { accepted, rejected } => {
                write!(f, "MAIL was accepted, {accepted} recipients were accepted, {rejected} were refused")
            }
            Self::DataRefused { code } => write!(f, "DATA was refused with {code}"),
            Self::Chunk => f.write_str("a chunk was accepted, the last has not come"),
            Self::ChunkRefused { code } => write!(f, "a chunk was refused with {code}"),
            Self::MessageAccepted => f.write_str("the message before was accepted"),
            Self::MessageRefused { code } => write!(f, "the message was refused with {code}"),
        }
    }
}

impl Phase {
    /// The server greeted: the session is seen from its start.
    pub(super) fn greeted(&mut self) {
        self.point = Point::Start;
    }

    /// Something was not seen.
    pub(super) fn lost(&mut self) {
        self.point = Point::Unknown;
    }

    /// What the judgement of a command builds on.
    pub(super) fn before(&mut self, command: &Command) -> Before {
        self.noops = self.noops.saturating_add(u32::from(command.verb == Verb::Noop));
        Before { point: self.point, pipelined: command.pipelined, noops: self.noops }
    }

    /// Takes an exchange into account.
    pub(super) fn exchange(&mut self, exchange: &Exchange) {
        let Some(reply) = &exchange.reply else { return };
        let (accepts, refuses, code) = (reply.accepts(), reply.refuses(), reply.code);
        self.point = match (exchange.command.verb, self.point) {
            (Verb::Ehlo | Verb::Helo | Verb::Lhlo | Verb::Rset, point) if accepts => match (point, self.transactions) {
                (Point::Start | Point::AuthRefused { .. }, 0) => Point::Start,
                _ => Point::Idle,
            },
            (Verb::Auth | Verb::XExps, Point::Start | Point::AuthRefused { .. }) if accepts => Point::Start,
            (Verb::Auth | Verb::XExps, Point::Start | Point::AuthRefused { .. }) if refuses => {
                Point::AuthRefused { code }
            }
            (Verb::Mail, _) if accepts => {
                self.transactions = self.transactions.saturating_add(1);
                Point::Envelope { accepted: 0, rejected: 0 }
            }
            // A second MAIL in a transaction is refused for its place, not for its sender.
            (Verb::Mail, point @ Point::Envelope { .. }) => point,
            (Verb::Mail, _) if refuses => {
                self.transactions = self.transactions.saturating_add(1);
                Point::SenderRefused { code }
            }
            (Verb::Rcpt, Point::Envelope { accepted, rejected }) => Point::Envelope {
                accepted: accepted.saturating_add(u32::from(accepts)),
                rejected: rejected.saturating_add(u32::from(refuses)),
            },
            (Verb::Data, Point::Envelope { accepted: 1.., .. }) if refuses => Point::DataRefused { code },
            (Verb::Bdat, Point::Envelope { .. } | Point::Chunk) if accepts => Point::Chunk,
            (Verb::Bdat, Point::Envelope { accepted: 1.., .. } | Point::Chunk) if refuses => {
                Point::ChunkRefused { code }
            }
            (_, point) => point,
        };
    }

    /// Takes a message's final reply into account.
    pub(super) fn message(&mut self, message: &Message) {
        let Some(reply) = &message.reply else { return };
        self.point = match (message.accepted, self.point) {
            (1.., _) => Point::MessageAccepted,
            // Behind a refused sender or refused recipients the chunk is refused because of them.
            (0, point @ (Point::SenderRefused { .. } | Point::Envelope { accepted: 0, .. })) => point,
            (0, _) => Point::MessageRefused { code: reply.code },
        };
    }
}
