//! Mail transactions and how they end (RFC 5321, 3.3).

use super::Emit;
use crate::event::Time;
use crate::fact::{Transaction, What};
use crate::identity::Caller;
use crate::names::Outcome;
use crate::redact;
use crate::smtp::{Command, Exchange, Lost, Message, Verb};

/// Follows a session's transactions, of which one at a time is open.
///
/// A refused MAIL opens one, too, so that a mail that came to nothing is counted: it ends, rejected, where
/// the client leaves it, and so does one whose recipients or DATA were refused. Its duration ends at the last refusal.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: Option<Box<Open>>,
    /// The one before, for its room.
    before: Option<Box<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    /// The mailbox of the reverse-path.
    sender: Vec<u8>,
    /// MAIL named one, or the null path.
    has_sender: bool,
    /// The first byte of MAIL.
    started: Time,
    accepted: u32,
    rejected: u32,
    sender_refused: bool,
    data_refused: bool,
    last_refusal: Time,
    /// The reply to its message did not come: it may have been delivered.
    unanswered: bool,
    /// Something was not seen since: only the reply to a message says how it ended.
    uncertain: bool,
    /// It may have ended since, and another one begun: there were bytes that were not seen, or a command has no reply.
    doubtful: bool,
    /// Recipients have no reply; which have one is not known.
    unanswered_recipients: bool,
    uncounted: bool,
    /// The server waits for its message: the next reply is about that.
    awaits_message: bool,
}

impl Transactions {
    /// Takes an exchange into account.
    pub(super) fn exchange(&mut self, process: Option<&Caller>, exchange: &Exchange, emit: &mut Emit<'_>) {
        let Exchange { command, reply } = exchange;
        let Some(reply) = reply else {
            match (command.verb, &mut self.open) {
                (Verb::Quit, _) => self.abandon(command.last_byte, process, emit),
                (Verb::Rcpt, Some(open)) => open.unanswered_recipients = true,
                (Verb::Rset | Verb::Ehlo | Verb::Helo | Verb::Lhlo, Some(open)) => open.doubtful = true,
                (verb, Some(open)) => open.doubtful |= verb.opens_transaction(),
                (_, None) => {}
            }
            return;
        };
        let time = reply.last_byte;
        if let Some(open) = &mut self.open {
            open.awaits_message = command.verb == Verb::Data && reply.code == 354;
        }
        match command.verb {
            verb if verb.opens_transaction() && reply.accepts() => {
                self.end(Outcome::Reset, time, process, emit);
                self.begin(command);
            }
            verb if verb.opens_transaction()
                && reply.refuses()
                && self.open.as_ref().is_none_or(|open| open.sender_refused) =>
            {
                self.end(Outcome::Rejected, time, process, emit);
                let open = self.begin(command);
                open.sender_refused = true;
                open.last_refusal = time;
            }
            Verb::Rcpt => {
                if let Some(open) = &mut self.open {
                    open.recipient(reply.accepts(), reply.refuses(), time);
                }
            }
            Verb::Data | Verb::Bdat if reply.refuses() => {
                if let Some(open) = &mut self.open {
                    open.data_refused = true;
                    open.last_refusal = time;
                }
            }
            Verb::Rset | Verb::Ehlo | Verb::Helo | Verb::Lhlo if reply.accepts() => {
                self.end(Outcome::Reset, time, process, emit);
            }
            // Both start the session anew (RFC 3207, 4.2; Postfix's XCLIENT).
            Verb::StartTls | Verb::XAnonymousTls | Verb::XClient if reply.code == 220 => {
                self.end(Outcome::Reset, time, process, emit);
            }
            // A server that refuses it goes on.
            Verb::Quit if reply.accepts() => self.abandon(time, process, emit),
            _ => {}
        }
    }

    /// A message's final reply ends its transaction. With one reply a recipient, these say who has got the message.
    pub(super) fn message(&mut self, process: Option<&Caller>, message: &Message, emit: &mut Emit<'_>) {
        let Some(mut open) = self.open.take() else { return };
        open.accepted = open.accepted.saturating_sub(message.refused);
        open.rejected = open.rejected.saturating_add(message.refused);
        let Some(is_taken) = message.is_taken() else {
            open.unanswered = true;
            self.open = Some(open);
            return;
        };
        open.accepted = open.accepted.saturating_sub(message.owed);
        let (outcome, time) = (if is_taken { Outcome::Delivered } else { Outcome::Rejected }, message.time());
        emit(time, process, What::Transaction(open.ended(outcome, time, !open.doubtful)));
        self.before = Some(open);
    }

    /// The client left.
    pub(super) fn abandon(&mut self, time: Time, process: Option<&Caller>, emit: &mut Emit<'_>) {
        self.end(Outcome::Abandoned, time, process, emit);
    }

    /// Something was not seen.
    pub(super) fn lost(&mut self, lost: Lost) {
        if let Some(open) = &mut self.open {
            open.uncertain = true;
            open.doubtful |= lost == Lost::Bytes && !open.awaits_message;
            open.uncounted |= open.unanswered_recipients;
        }
    }

    /// Ends the open transaction, if there is one: as rejected where the server had refused it, else with `outcome`. One
    /// that may have ended unseen is forgotten.
    fn end(&mut self, outcome: Outcome, time: Time, process: Option<&Caller>, emit: &mut Emit<'_>) {
        let Some(open) = self.open.take() else { return };
        if open.uncertain || open.unanswered && outcome == Outcome::Reset {
            return;
        }
        let transaction = match open.is_refused() {
            true => open.ended(Outcome::Rejected, open.last_refusal, true),
            false => open.ended(outcome, time, true),
        };
        emit(time, process, What::Transaction(transaction));
        self.before = Some(open);
    }

    fn begin(&mut self, command: &Command) -> &mut Open {
        let mut room = self.before.take().unwrap_or_default();
        let mut sender = std::mem::take(&mut room.sender);
        let named = redact::mailbox(command.argument());
        sender.clear();
        sender.extend_from_slice(named.unwrap_or_default());
        *room = Open {
            sender,
            has_sender: named.is_some(),
            started: command.first_byte,
            last_refusal: command.first_byte,
            ..Open::default()
        };
        self.open.insert(room)
    }
}

impl Open {
    fn recipient(&mut self, accepted: bool, refused: bool, time: Time) {
        // If DATA was refused before a recipient was accepted, it came too early.
        self.data_refused &= !accepted || self.accepted > 0;
        self.accepted = self.accepted.saturating_add(u32::from(accepted));
        if refused {
            self.rejected = self.rejected.saturating_add(1);
            self.last_refusal = time;
        }
    }

    fn is_refused(&self) -> bool {
        self.sender_refused || self.data_refused || self.accepted == 0 && self.rejected > 0
    }

    /// How it ended; and if it `is_known`, which one it was.
    fn ended(&self, outcome: Outcome, time: Time, is_known: bool) -> Transaction<'_> {
        let is_counted = is_known && !self.uncounted;
        Transaction {
            outcome,
            sender: (is_known && self.has_sender).then_some(&self.sender),
            recipients_accepted: is_counted.then_some(self.accepted),
            recipients_rejected: is_counted.then_some(self.rejected),
            duration: is_known.then(|| time.since(self.started)),
        }
    }
}
