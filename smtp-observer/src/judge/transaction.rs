//! Mail transactions and how they end (RFC 5321, 3.3).

use crate::event::Time;
use crate::observation::{Event, Outcome, Transaction};
use crate::smtp::{Exchange, Message, Verb};

/// Follows a session's transactions, of which one at a time is open.
///
/// A MAIL that is refused opens one too, so that what was tried and came to nothing is told: it ends, rejected, where
/// the client leaves it, and so does one whose recipients or DATA were refused. Its duration ends at the last refusal.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: Option<Box<Open>>,
}

#[derive(Debug)]
struct Open {
    sender: Option<String>,
    /// The first byte of MAIL.
    started: Time,
    accepted: u32,
    rejected: u32,
    sender_refused: bool,
    data_refused: bool,
    last_refusal: Time,
    /// Something was not seen since: only the reply to a message says how it ended.
    uncertain: bool,
}

impl Transactions {
    /// Takes an exchange into account. `sender` makes MAIL's reverse-path as it is shown.
    pub(super) fn exchange(
        &mut self,
        exchange: &Exchange,
        sender: impl FnOnce() -> Option<String>,
        events: &mut Vec<(Time, Event)>,
    ) {
        let Exchange { command, reply } = exchange;
        let Some(reply) = reply else {
            if command.verb == Verb::Quit {
                self.abandon(command.last_byte, events);
            }
            return;
        };
        let time = reply.last_byte;
        match command.verb {
            verb if verb.opens_transaction() && reply.accepts() => {
                self.end(Outcome::Reset, time, events);
                self.open = Some(Open::new(sender(), command.first_byte));
            }
            verb if verb.opens_transaction()
                && reply.refuses()
                && self.open.as_ref().is_none_or(|open| open.sender_refused) =>
            {
                self.end(Outcome::Rejected, time, events);
                let mut open = Open::new(sender(), command.first_byte);
                open.sender_refused = true;
                open.last_refusal = time;
                self.open = Some(open);
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
                self.end(Outcome::Reset, time, events);
            }
            // Both start the session anew (RFC 3207, 4.2; Postfix's XCLIENT).
            Verb::StartTls | Verb::XAnonymousTls | Verb::XClient if reply.code == 220 => {
                self.end(Outcome::Reset, time, events);
            }
            // A server that refuses it goes on.
            Verb::Quit if reply.accepts() => self.abandon(time, events),
            _ => {}
        }
    }

    /// A message's final reply ends its transaction.
    pub(super) fn message(&mut self, message: &Message, events: &mut Vec<(Time, Event)>) {
        let Some(reply) = &message.reply else { return };
        let Some(open) = self.open.take() else { return };
        let outcome = if message.accepted > 0 { Outcome::Delivered } else { Outcome::Rejected };
        events.push((reply.last_byte, Event::Transaction(open.ended(outcome, reply.last_byte))));
    }

    /// The client left.
    pub(super) fn abandon(&mut self, time: Time, events: &mut Vec<(Time, Event)>) {
        self.end(Outcome::Abandoned, time, events);
    }

    /// Something was not seen.
    pub(super) fn lost(&mut self) {
        if let Some(open) = &mut self.open {
            open.uncertain = true;
        }
    }

    /// Ends the open transaction, if there is one: as rejected where the server had refused it, else with `outcome`. One
    /// that may have ended unseen is forgotten.
    fn end(&mut self, outcome: Outcome, time: Time, events: &mut Vec<(Time, Event)>) {
        let Some(open) = self.open.take() else { return };
        if open.uncertain {
            return;
        }
        let transaction = match open.is_refused() {
            true => {
                let last_refusal = open.last_refusal;
                open.ended(Outcome::Rejected, last_refusal)
            }
            false => open.ended(outcome, time),
        };
        events.push((time, Event::Transaction(transaction)));
    }
}

impl Open {
    fn new(sender: Option<String>, started: Time) -> Box<Self> {
        Box::new(Self {
            sender,
            started,
            accepted: 0,
            rejected: 0,
            sender_refused: false,
            data_refused: false,
            last_refusal: started,
            uncertain: false,
        })
    }

    fn recipient(&mut self, accepted: bool, refused: bool, time: Time) {
        self.accepted = self.accepted.saturating_add(u32::from(accepted));
        if refused {
            self.rejected = self.rejected.saturating_add(1);
            self.last_refusal = time;
        }
    }

    fn is_refused(&self) -> bool {
        self.sender_refused || self.data_refused || self.accepted == 0 && self.rejected > 0
    }

    fn ended(self, outcome: Outcome, time: Time) -> Transaction {
        Transaction {
            outcome,
            sender: self.sender,
            recipients_accepted: self.accepted,
            recipients_rejected: self.rejected,
            duration: time.since(self.started),
        }
    }
}
