//! Follows the state of a session, and gives the context of each command.

use std::time::Duration;

use super::envelope::Envelope;
use super::noop;
use super::timing::{Moment, Pause, Timing, moment};
use crate::event::Time;
use crate::fact::evidence::{EvidenceList, ReasonEvidence, SessionState};
use crate::smtp::{Command, Exchange, Message, Reply, Verb};

/// Follows a session from exchange to exchange.
#[derive(Debug, Default)]
pub(super) struct SessionTracker {
    state: SessionState,
    since: Since,
    transactions: u32,
    envelope: Envelope,
    /// Bytes of the last message.
    size: Option<u64>,
    noops: Noops,
    timing: Timing,
    /// When the server first refused something of the transaction.
    refused: Moment,
}

/// What was answered since the state began, and has not changed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Since {
    /// Nothing, or commands of the same transaction.
    #[default]
    Nothing,
    /// Other commands.
    Other,
    /// AUTH among them, the last of which was refused with this code; MAIL was before it.
    AuthRefused(u16),
    /// A second MAIL in a transaction in which nothing else was refused, with this code, and perhaps other commands.
    MailRefused(u16),
}

/// The NOOPs of the session, the current command included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Noops {
    pub(super) total: u32,
    /// NOOPs in a row, with no other command between them.
    pub(super) in_a_row: u32,
    /// The latest NOOPs in a row that came at a constant period.
    pub(super) steady: u32,
    /// In nanoseconds: each idle connection has one, and a [`Duration`] takes twice the room.
    period: u64,
    /// Some came at a constant period before, or do.
    pub(super) keep_alive: bool,
    last: Time,
}

/// What the reason of a command is derived from, without the reply and what follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CommandContext {
    pub(super) state: SessionState,
    pub(super) since: Since,
    /// The client had not seen the reply to the command before it.
    pub(super) pipelined: bool,
    /// It had seen a refusal in the transaction.
    pub(super) refusal_read: bool,
    pub(super) pause: Pause,
    pub(super) noops: Noops,
    /// What the transaction named, or the last one if none is open.
    pub(super) envelope: Envelope,
    /// Bytes of the message before.
    pub(super) size: Option<u64>,
    /// From its reply to the next command, where that came.
    pub(super) followed: Option<Duration>,
    is_noop: bool,
    lower_case: bool,
}

impl CommandContext {
    /// The client came back to the connection, and went on at once.
    pub(super) fn is_resumed(&self) -> bool {
        // A pace that is even is no pause.
        let is_pause = |idle: Duration| self.followed.is_none_or(|followed| followed * 10 <= idle);
        self.pause.owner_changed || self.pause.idle.is_some_and(is_pause)
    }

    /// AUTH was refused after a MAIL, and nothing came of either since.
    pub(super) fn is_auth_refused(&self) -> bool {
        matches!(self.since, Since::AuthRefused(_))
    }

    /// A second MAIL was refused, and the transaction did not go on behind it.
    pub(super) fn is_mail_refused(&self) -> bool {
        matches!(self.since, Since::MailRefused(_)) && matches!(self.state, SessionState::Envelope { .. })
    }

    /// The state before the command, and how the command was sent where that says something.
    pub(super) fn evidence(&self) -> EvidenceList {
        let mut evidence = EvidenceList::from([ReasonEvidence::State(self.state)]);
        match self.since {
            Since::AuthRefused(code) => evidence.push(ReasonEvidence::State(SessionState::AuthRefused { code })),
            Since::MailRefused(code) if self.is_mail_refused() => {
                evidence.push(ReasonEvidence::State(SessionState::SenderRefused { code }))
            }
            Since::Nothing | Since::Other | Since::MailRefused(_) => {}
        }
        evidence.extend(self.noops.evidence(self.is_noop));
        if self.pipelined {
            evidence.push(self.pause.waited.map_or(ReasonEvidence::Pipelined, ReasonEvidence::StoppedWaiting));
        }
        evidence.extend(self.pause.idle.map(ReasonEvidence::Idle));
        if self.pause.owner_changed {
            evidence.push(ReasonEvidence::OwnerChanged);
        }
        if self.lower_case {
            evidence.push(ReasonEvidence::LowerCase);
        }
        evidence
    }
}

impl Noops {
    /// How many there are, where that says something: of a NOOP among others, or right before another command.
    fn evidence(&self, is_noop: bool) -> Option<ReasonEvidence> {
        match (is_noop, self.in_a_row) {
            (true, _) if self.total > noop::MAX_EXPLAINED => Some(ReasonEvidence::NoopsInSession(self.total)),
            (true, _) if noop::is_periodic(self) => {
                Some(ReasonEvidence::PeriodicNoops { count: self.steady, period: self.period() })
            }
            (true, count @ 2..) => Some(ReasonEvidence::NoopsInARow(count)),
            (false, count @ 1..) => Some(ReasonEvidence::NoopsBefore(count)),
            _ => None,
        }
    }

    /// Time between the latest NOOPs that came at a constant period, or between the last two.
    pub(super) fn period(&self) -> Duration {
        Duration::from_nanos(self.period)
    }

    /// A NOOP came.
    fn add(&mut self, time: Time) {
        let passed = time.0.saturating_sub(self.last.0);
        // Constant: less than a tenth away from the period before.
        let constant = self.in_a_row >= 2 && passed.abs_diff(self.period) < self.period.div_ceil(10);
        (self.steady, self.period) = match (self.in_a_row, constant) {
            (0, _) => (1, 0),
            (_, true) => (self.steady.saturating_add(1), self.period),
            (_, false) => (2, passed),
        };
        self.keep_alive |= noop::is_periodic(self);
        self.last = time;
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.total = self.total.saturating_add(1);
    }
}

impl SessionTracker {
    /// The server greeted: the session is seen from its start.
    pub(super) fn greeted(&mut self, time: Time) {
        self.state = SessionState::Start;
        self.timing.reply(time);
    }

    /// Something was not seen.
    pub(super) fn lost(&mut self) {
        self.state = SessionState::Unknown;
        self.size = None;
        self.noops.in_a_row = 0;
        self.timing.lost();
    }

    /// Another process goes on with the client's socket.
    pub(super) fn owner_changed(&mut self, time: Time) {
        self.timing.owner_changed(time);
    }

    /// The context of a command.
    pub(super) fn context(&mut self, command: &Command) -> CommandContext {
        let is_noop = command.verb == Verb::Noop;
        if is_noop {
            self.noops.add(command.first_byte);
        }
        let context = CommandContext {
            state: self.state,
            since: self.since,
            pipelined: command.pipelined,
            refusal_read: self.refused.is_some_and(|refused| refused.get() < command.first_byte.0),
            pause: self.timing.command(command),
            noops: self.noops,
            envelope: self.envelope,
            size: self.size,
            followed: None,
            is_noop,
            lower_case: matches!(command.word(), b"rset" | b"noop"),
        };
        if !is_noop {
            if command.verb == Verb::Rcpt && self.noops.in_a_row > 0 {
                self.envelope.note_noop();
            }
            self.noops.in_a_row = 0;
        }
        context
    }

    /// Takes an exchange into account.
    pub(super) fn exchange(&mut self, exchange: &Exchange) {
        let Exchange { command, reply } = exchange;
        let Some(reply) = reply.as_ref().filter(|reply| tells(command.verb, reply)) else {
            self.unanswered(command.verb);
            return;
        };
        self.timing.reply(reply.last_byte);
        let (accepts, refuses, code) = (reply.accepts(), reply.refuses(), reply.code);
        self.since = self.since(command.verb, accepts, refuses, code);
        self.state = match (command.verb, self.state) {
            // Both start the session anew (RFC 3207, 4.2; Postfix's XCLIENT).
            (Verb::StartTls | Verb::XAnonymousTls | Verb::XClient, _) if code == 220 => {
                self.transactions = 0;
                SessionState::Start
            }
            (Verb::Ehlo | Verb::Helo | Verb::Lhlo | Verb::Rset, state) if accepts => match (state, self.transactions) {
                (SessionState::Start | SessionState::AuthRefused { .. }, 0) => SessionState::Start,
                (SessionState::Authenticated, 0) => SessionState::Authenticated,
                // What was refused may be why the RSET comes that follows.
                (state, _) if state.is_refused() && command.verb != Verb::Rset => state,
                _ => SessionState::Idle,
            },
            (Verb::Auth | Verb::XExps, state) if state.is_start() && accepts => SessionState::Authenticated,
            (Verb::Auth | Verb::XExps, state) if state.is_start() && refuses => SessionState::AuthRefused { code },
            // It is not after the message that the next RSET comes.
            (Verb::Auth | Verb::XExps, SessionState::MessageAccepted) if accepts => SessionState::Idle,
            (verb, state) if verb.opens_transaction() => self.mail(state, command, accepts, refuses, code),
            (Verb::Rcpt, state) => {
                self.envelope.rcpt(command);
                match state {
                    // DATA came too early, and the transaction goes on.
                    SessionState::DataRefused { .. } if self.envelope.named() == 1 && code != 503 => {
                        SessionState::OPENED
                    }
                    state => state,
                }
                .with_recipient(accepts, refuses)
            }
            (Verb::Data, state) if refuses && state.takes_content() => SessionState::DataRefused { code },
            (Verb::Bdat, SessionState::Envelope { .. } | SessionState::Chunk) if accepts => SessionState::Chunk,
            // With the last chunk it is the message that is refused.
            (Verb::Bdat, state)
                if refuses && !command.is_last_chunk() && (state.takes_content() || state == SessionState::Chunk) =>
            {
                SessionState::ChunkRefused { code }
            }
            (_, state) => state,
        };
        if refuses && (command.verb.opens_transaction() || matches!(command.verb, Verb::Rcpt | Verb::Data)) {
            self.refused = self.refused.or(moment(reply.last_byte));
        }
    }

    /// What is answered since the state began, with a reply to this verb; what begins a state begins it anew.
    fn since(&self, verb: Verb, accepts: bool, refuses: bool, code: u16) -> Since {
        let knows_mail = !self.state.is_start() && self.state != SessionState::Unknown;
        match verb {
            Verb::StartTls | Verb::XAnonymousTls | Verb::XClient if code == 220 => Since::Nothing,
            Verb::Ehlo | Verb::Helo | Verb::Lhlo if accepts && self.state.is_refused() => Since::Other,
            Verb::Ehlo | Verb::Helo | Verb::Lhlo | Verb::Rset if accepts => Since::Nothing,
            Verb::Auth | Verb::XExps if refuses && knows_mail => Since::AuthRefused(code),
            Verb::Auth | Verb::XExps if accepts => Since::Other,
            Verb::Rcpt | Verb::Data | Verb::Bdat | Verb::Burl => match self.since {
                Since::MailRefused(_) => Since::Nothing,
                // No transaction is open: it is out of place.
                Since::Nothing if matches!(self.state, SessionState::MessageRefused { .. }) => Since::Other,
                since => since,
            },
            verb if verb.opens_transaction() => self.since,
            _ if self.since == Since::Nothing => Since::Other,
            _ => self.since,
        }
    }

    /// What a command without a reply has led to is not known.
    fn unanswered(&mut self, verb: Verb) {
        self.timing.lost();
        self.since = self.since(verb, false, false, 0);
        match verb {
            Verb::Noop | Verb::Vrfy | Verb::Expn | Verb::Help | Verb::Quit | Verb::Other => {}
            Verb::Ehlo | Verb::Helo | Verb::Lhlo | Verb::Rset if self.state.is_start() => {}
            _ => self.state = SessionState::Unknown,
        }
    }

    /// MAIL has its reply.
    fn mail(
        &mut self,
        state: SessionState,
        command: &Command,
        accepts: bool,
        refuses: bool,
        code: u16,
    ) -> SessionState {
        let nested = match state {
            SessionState::Envelope { .. } | SessionState::Chunk | SessionState::ChunkRefused { .. } => true,
            SessionState::DataRefused { .. } | SessionState::Unknown => code == 503,
            _ => false,
        };
        // A second MAIL in a transaction is refused for its place, not for its sender.
        if !accepts && (nested || !refuses) {
            if refuses && matches!(state, SessionState::Envelope { rejected: 0, .. }) {
                self.since = Since::MailRefused(code);
            }
            return state;
        }
        self.transactions = self.transactions.saturating_add(1);
        self.since = Since::Nothing;
        self.refused = None;
        self.envelope = Envelope::mail(command);
        match accepts {
            true => SessionState::OPENED,
            false => SessionState::SenderRefused { code },
        }
    }

    /// Takes a message's final reply into account.
    pub(super) fn message(&mut self, message: &Message) {
        self.timing.sent(message.ended_at);
        let (Some(reply), Some(is_taken)) = (&message.reply, message.is_taken()) else {
            self.state = SessionState::Unknown;
            return;
        };
        self.timing.reply(reply.last_byte);
        self.size = message.size;
        self.since = Since::Nothing;
        self.state = match (is_taken, self.state) {
            (true, _) => SessionState::MessageAccepted,
            // After a refused sender, recipients that were all refused, or a refused chunk, they are why the message is.
            (
                false,
                state @ (SessionState::SenderRefused { .. }
                | SessionState::ChunkRefused { .. }
                | SessionState::Envelope { accepted: 0, rejected: 1.., .. }),
            ) => state,
            (false, _) => SessionState::MessageRefused { code: reply.code },
        };
    }
}

/// The reply says what became of a command with this verb: RFC 5321, 4.2.1 has no other classes.
fn tells(verb: Verb, reply: &Reply) -> bool {
    reply.accepts() || reply.refuses() || reply.code / 100 == 3 && verb.decides_what_follows()
}

impl SessionState {
    /// MAIL was accepted, and nothing came behind it.
    const OPENED: Self = Self::Envelope { accepted: 0, rejected: 0, refused_last: false };

    /// No MAIL was sent in this session.
    pub(super) fn is_start(self) -> bool {
        matches!(self, Self::Start | Self::Authenticated | Self::AuthRefused { .. })
    }

    /// MAIL or the message was refused.
    fn is_refused(self) -> bool {
        matches!(self, Self::SenderRefused { .. } | Self::MessageRefused { .. })
    }

    /// MAIL was sent, and nothing of the message.
    pub(super) fn has_envelope(self) -> bool {
        matches!(self, Self::SenderRefused { .. } | Self::Envelope { .. } | Self::DataRefused { .. })
    }

    /// A transaction is open.
    pub(super) fn is_in_transaction(self) -> bool {
        matches!(self, Self::Envelope { .. } | Self::DataRefused { .. } | Self::Chunk | Self::ChunkRefused { .. })
    }

    /// The recipients are no reason to refuse the content: one was accepted, or none was named.
    fn takes_content(self) -> bool {
        matches!(self, Self::Envelope { accepted: 1.., .. } | Self::Envelope { rejected: 0, .. })
    }

    fn with_recipient(self, accepts: bool, refuses: bool) -> Self {
        match self {
            Self::Envelope { accepted, rejected, refused_last } => Self::Envelope {
                accepted: accepted.saturating_add(u32::from(accepts)),
                rejected: rejected.saturating_add(u32::from(refuses)),
                refused_last: refuses || refused_last && !accepts,
            },
            state => state,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const STATES: [SessionState; 17] = [
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

    /// Each state with all else that the reasons depend on.
    pub(in crate::analysis) fn contexts() -> Vec<CommandContext> {
        let mut contexts = Vec::new();
        for state in STATES {
            for (pipelined, waited) in [(false, None), (true, None), (true, Some(Duration::from_secs(2)))] {
                for idle in [None, Some(Duration::from_secs(5))] {
                    for owner_changed in [false, true] {
                        for in_a_row in [0, 1, 2] {
                            let pause = Pause { idle, owner_changed, waited };
                            let noops = Noops { in_a_row, total: in_a_row, ..Noops::default() };
                            for since in
                                [Since::Nothing, Since::Other, Since::AuthRefused(535), Since::MailRefused(503)]
                            {
                                contexts.push(CommandContext {
                                    state,
                                    since,
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
        }
        contexts
    }

    #[test]
    fn periods() {
        let mut noops = Noops::default();
        for (second, steady) in [(0, 1), (30, 2), (60, 3), (91, 4), (125, 2), (159, 3)] {
            noops.add(Time(second * 1_000_000_000));
            assert_eq!(noops.steady, steady, "at {second} s");
        }
        assert_eq!((noops.in_a_row, noops.total, noops.period()), (6, 6, Duration::from_secs(34)));
    }
}
