//! Where in a session a command comes: what the ones before it led to.

use std::fmt;
use std::time::Duration;

use super::envelope::Envelope;
use super::noop;
use super::timing::{Pause, Timing};
use super::words::{Count, Seconds};
use crate::event::Time;
use crate::smtp::{Command, Exchange, Message, Verb};

/// Follows a session from exchange to exchange.
#[derive(Debug, Default)]
pub(super) struct SessionTracker {
    point: SessionState,
    transactions: u32,
    envelope: Envelope,
    /// Bytes of the last message.
    size: Option<u64>,
    noops: Noops,
    timing: Timing,
}

/// What the last thing that matters was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SessionState {
    /// It was not seen.
    #[default]
    Unknown,
    /// Nothing: no MAIL in this session so far.
    Start,
    /// AUTH was accepted, before any MAIL.
    Authenticated,
    /// AUTH was refused, before any MAIL.
    AuthRefused { code: u16 },
    /// No transaction is open, and there was one before, or may have been.
    Idle,
    /// MAIL was refused.
    SenderRefused { code: u16 },
    /// MAIL was accepted, and so many recipients were and were not. `refused_last`: the last of them was not.
    Envelope { accepted: u32, rejected: u32, refused_last: bool },
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

/// The session's NOOPs, the one that is judged included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Noops {
    pub(super) total: u32,
    /// With no other command between them.
    pub(super) row: u32,
    /// Of those, the last that came at a constant period.
    pub(super) steady: u32,
    pub(super) period: Duration,
    last: Time,
}

/// What a judgement of a command builds on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CommandContext {
    pub(super) point: SessionState,
    /// The client had not seen the reply to the command before it.
    pub(super) pipelined: bool,
    pub(super) pause: Pause,
    pub(super) noops: Noops,
    /// What the transaction named, or the last one if none is open.
    pub(super) envelope: Envelope,
    /// Bytes of the message before.
    pub(super) size: Option<u64>,
    is_noop: bool,
    lower_case: bool,
}

impl CommandContext {
    /// What was before in words, and how the command was sent where that says something.
    pub(super) fn evidence(&self) -> Vec<String> {
        let mut evidence = vec![self.point.to_string()];
        evidence.extend(self.noops.evidence(self.is_noop));
        if self.pipelined {
            evidence.push("sent before the reply to the command before it".into());
        }
        if let Some(idle) = self.pause.idle {
            evidence.push(format!("idle for {} before it", Seconds(idle)));
        }
        if self.pause.moved {
            evidence.push("another process took the connection over before it".into());
        }
        if self.lower_case {
            evidence.push("sent in lower case, as by Python's smtplib".into());
        }
        evidence
    }
}

impl Noops {
    /// How many there are, where that says something: of a NOOP among others, or right before another command.
    fn evidence(&self, is_noop: bool) -> Option<String> {
        match (is_noop, self.row) {
            (true, _) if self.total > noop::MOST => Some(format!("{} NOOPs in this session", self.total)),
            (true, _) if noop::is_periodic(self) => {
                Some(format!("{} NOOPs, one every {}", self.steady, Seconds(self.period)))
            }
            (true, 2..) => Some(format!("{} NOOPs in a row", self.row)),
            (false, 1) => Some("1 NOOP right before it".into()),
            (false, 2..) => Some(format!("{} NOOPs right before it", self.row)),
            _ => None,
        }
    }

    /// Another one came.
    fn another(&mut self, time: Time) {
        let passed = time.since(self.last);
        // Constant: less than a tenth away from the period before.
        let constant = self.row >= 2 && passed.abs_diff(self.period) * 10 < self.period;
        (self.steady, self.period) = match (self.row, constant) {
            (0, _) => (1, Duration::ZERO),
            (_, true) => (self.steady.saturating_add(1), self.period),
            (_, false) => (2, passed),
        };
        self.last = time;
        self.row = self.row.saturating_add(1);
        self.total = self.total.saturating_add(1);
    }
}

impl SessionTracker {
    /// The server greeted: the session is seen from its start.
    pub(super) fn greeted(&mut self, time: Time) {
        self.point = SessionState::Start;
        self.timing.reply(time);
    }

    /// Something was not seen.
    pub(super) fn lost(&mut self) {
        self.point = SessionState::Unknown;
        self.size = None;
        self.noops.row = 0;
        self.timing.lost();
    }

    /// Another process goes on with the client's socket.
    pub(super) fn moved(&mut self, time: Time) {
        self.timing.moved(time);
    }

    /// What the judgement of a command builds on.
    pub(super) fn before(&mut self, command: &Command) -> CommandContext {
        let is_noop = command.verb == Verb::Noop;
        if is_noop {
            self.noops.another(command.first_byte);
        }
        let before = CommandContext {
            point: self.point,
            pipelined: command.pipelined,
            pause: self.timing.command(command),
            noops: self.noops,
            envelope: self.envelope,
            size: self.size,
            is_noop,
            lower_case: matches!(command.word(), b"rset" | b"noop"),
        };
        if !is_noop {
            if command.verb == Verb::Rcpt && self.noops.row > 0 {
                self.envelope.tests_addresses();
            }
            self.noops.row = 0;
        }
        before
    }

    /// Takes an exchange into account.
    pub(super) fn exchange(&mut self, exchange: &Exchange) {
        let Exchange { command, reply } = exchange;
        let Some(reply) = reply else {
            self.unanswered(command.verb);
            return;
        };
        self.timing.reply(reply.last_byte);
        let (accepts, refuses, code) = (reply.accepts(), reply.refuses(), reply.code);
        self.point = match (command.verb, self.point) {
            // Both start the session anew (RFC 3207, 4.2; Postfix's XCLIENT).
            (Verb::StartTls | Verb::XAnonymousTls | Verb::XClient, _) if code == 220 => {
                self.transactions = 0;
                SessionState::Start
            }
            (Verb::Ehlo | Verb::Helo | Verb::Lhlo | Verb::Rset, point) if accepts => match (point, self.transactions) {
                (SessionState::Start | SessionState::AuthRefused { .. }, 0) => SessionState::Start,
                (SessionState::Authenticated, 0) => SessionState::Authenticated,
                _ => SessionState::Idle,
            },
            (Verb::Auth | Verb::XExps, point) if point.is_start() && accepts => SessionState::Authenticated,
            (Verb::Auth | Verb::XExps, point) if point.is_start() && refuses => SessionState::AuthRefused { code },
            (verb, point) if verb.opens_transaction() => self.mail(point, command, accepts, refuses, code),
            (Verb::Rcpt, point) => {
                self.envelope.rcpt(command);
                point.with_recipient(accepts, refuses)
            }
            (Verb::Data, SessionState::Envelope { accepted: 1.., .. }) if refuses => SessionState::DataRefused { code },
            (Verb::Bdat, SessionState::Envelope { .. } | SessionState::Chunk) if accepts => SessionState::Chunk,
            // With the last chunk it is the message that is refused.
            (Verb::Bdat, SessionState::Envelope { accepted: 1.., .. } | SessionState::Chunk)
                if refuses && !command.is_last_chunk() =>
            {
                SessionState::ChunkRefused { code }
            }
            (_, point) => point,
        };
    }

    /// What a command without a reply has led to is not known.
    fn unanswered(&mut self, verb: Verb) {
        self.timing.lost();
        match verb {
            Verb::Noop | Verb::Vrfy | Verb::Expn | Verb::Help | Verb::Quit | Verb::Other => {}
            Verb::Ehlo | Verb::Helo | Verb::Lhlo | Verb::Rset if self.point.is_start() => {}
            _ => self.point = SessionState::Unknown,
        }
    }

    /// MAIL has its reply.
    fn mail(
        &mut self,
        point: SessionState,
        command: &Command,
        accepts: bool,
        refuses: bool,
        code: u16,
    ) -> SessionState {
        let nested = match point {
            SessionState::Envelope { .. } | SessionState::Chunk | SessionState::ChunkRefused { .. } => true,
            SessionState::DataRefused { .. } | SessionState::Unknown => code == 503,
            _ => false,
        };
        // A second MAIL in a transaction is refused for its place, not for its sender.
        if !accepts && (nested || !refuses) {
            return point;
        }
        self.transactions = self.transactions.saturating_add(1);
        self.envelope = Envelope::mail(command);
        match accepts {
            true => SessionState::Envelope { accepted: 0, rejected: 0, refused_last: false },
            false => SessionState::SenderRefused { code },
        }
    }

    /// Takes a message's final reply into account.
    pub(super) fn message(&mut self, message: &Message) {
        let Some(reply) = &message.reply else {
            self.point = SessionState::Unknown;
            return;
        };
        self.timing.reply(reply.last_byte);
        self.size = message.size;
        self.point = match (message.accepted, self.point) {
            (1.., _) => SessionState::MessageAccepted,
            // Behind a refused sender, refused recipients or a refused chunk it is refused because of them.
            (
                0,
                point @ (SessionState::SenderRefused { .. }
                | SessionState::ChunkRefused { .. }
                | SessionState::Envelope { accepted: 0, .. }),
            ) => point,
            (0, _) => SessionState::MessageRefused { code: reply.code },
        };
    }
}

impl SessionState {
    /// No MAIL was before in this session.
    pub(super) fn is_start(self) -> bool {
        matches!(self, Self::Start | Self::Authenticated | Self::AuthRefused { .. })
    }

    /// MAIL was sent, and nothing of the message.
    pub(super) fn has_envelope(self) -> bool {
        matches!(self, Self::SenderRefused { .. } | Self::Envelope { .. } | Self::DataRefused { .. })
    }

    /// A transaction is open.
    pub(super) fn is_in_transaction(self) -> bool {
        matches!(self, Self::Envelope { .. } | Self::DataRefused { .. } | Self::Chunk | Self::ChunkRefused { .. })
    }

    fn with_recipient(self, accepts: bool, refuses: bool) -> Self {
        match self {
            Self::Envelope { accepted, rejected, refused_last } => Self::Envelope {
                accepted: accepted.saturating_add(u32::from(accepts)),
                rejected: rejected.saturating_add(u32::from(refuses)),
                refused_last: refuses || refused_last && !accepts,
            },
            point => point,
        }
    }
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unknown => f.write_str("what was before was not seen"),
            Self::Start => f.write_str("no MAIL before it in this session"),
            Self::Authenticated => f.write_str("AUTH was accepted, no MAIL before it in this session"),
            Self::AuthRefused { code } => write!(f, "AUTH was refused with {code}"),
            Self::Idle => f.write_str("no transaction is open"),
            Self::SenderRefused { code } => write!(f, "MAIL was refused with {code}"),
            Self::Envelope { accepted, rejected, .. } => {
                f.write_str("MAIL was accepted")?;
                match (accepted, rejected) {
                    (0, 0) => f.write_str(", no recipient was named"),
                    (0, _) => write!(f, ", {} refused", Count(rejected, "recipient")),
                    (_, 0) => write!(f, ", {} accepted", Count(accepted, "recipient")),
                    _ => write!(f, ", {} accepted, {} refused", Count(accepted, "recipient"), Count(rejected, "")),
                }
            }
            Self::DataRefused { code } => write!(f, "DATA was refused with {code}"),
            Self::Chunk => f.write_str("a chunk was accepted, the last has not come"),
            Self::ChunkRefused { code } => write!(f, "a chunk was refused with {code}"),
            Self::MessageAccepted => f.write_str("the message before was accepted"),
            Self::MessageRefused { code } => write!(f, "the message was refused with {code}"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const POINTS: [SessionState; 17] = [
        SessionState::Unknown,
        SessionState::Start,
        SessionState::Authenticated,
        SessionState::AuthRefused { code: 535 },
        SessionState::Idle,
        SessionState::SenderRefused { code: 550 },
        SessionState::Envelope { accepted: 0, rejected: 0, refused_last: false },
        SessionState::Envelope { accepted: 0, rejected: 1, refused_last: true },
        SessionState::Envelope { accepted: 0, rejected: 2, refused_last: true },
        SessionState::Envelope { accepted: 1, rejected: 0, refused_last: false },
        SessionState::Envelope { accepted: 2, rejected: 1, refused_last: true },
        SessionState::Envelope { accepted: 2, rejected: 1, refused_last: false },
        SessionState::DataRefused { code: 451 },
        SessionState::Chunk,
        SessionState::ChunkRefused { code: 552 },
        SessionState::MessageAccepted,
        SessionState::MessageRefused { code: 554 },
    ];

    /// Each point with all else that differs in a judgement.
    pub(in crate::analysis) fn befores() -> Vec<CommandContext> {
        let mut befores = Vec::new();
        for point in POINTS {
            for pipelined in [false, true] {
                for idle in [None, Some(Duration::from_secs(5))] {
                    for moved in [false, true] {
                        for row in [0, 1, 2] {
                            let pause = Pause { idle, moved };
                            let noops = Noops { row, total: row, ..Noops::default() };
                            befores.push(CommandContext {
                                point,
                                pipelined,
                                pause,
                                noops,
                                ..CommandContext::default()
                            });
                        }
                    }
                }
            }
        }
        befores
    }

    #[test]
    fn recipients_in_words() {
        for (point, expected) in [
            (POINTS[6], "MAIL was accepted, no recipient was named"),
            (POINTS[7], "MAIL was accepted, 1 recipient was refused"),
            (POINTS[9], "MAIL was accepted, 1 recipient was accepted"),
            (POINTS[10], "MAIL was accepted, 2 recipients were accepted, 1 was refused"),
        ] {
            assert_eq!(point.to_string(), expected);
        }
    }

    #[test]
    fn periods() {
        let mut noops = Noops::default();
        for (second, steady) in [(0, 1), (30, 2), (60, 3), (91, 4), (125, 2), (159, 3)] {
            noops.another(Time(second * 1_000_000_000));
            assert_eq!(noops.steady, steady, "at {second} s");
        }
        assert_eq!((noops.row, noops.total, noops.period), (6, 6, Duration::from_secs(34)));
    }
}
