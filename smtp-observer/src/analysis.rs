//! What the dialogue means: transactions and their outcomes, why RSET and NOOP were sent, which software greets, and how
//! much of it may be shown.
//!
//! [`Analysis`] takes the items of one session in their order. It judges by this one connection alone and claims only what
//! follows from it.

mod envelope;
#[cfg(test)]
mod missing_replies;
mod next;
mod noop;
mod pending;
#[cfg(test)]
mod properties;
mod repeat;
mod rset;
mod session_tracker;
mod software;
#[cfg(test)]
mod tests;
mod timing;
mod transaction;
mod words;

use self::pending::{Answered, Pending};
use self::session_tracker::SessionTracker;
use self::transaction::Transactions;
use crate::event::Time;
use crate::fact::What;
use crate::observation::{Role, TlsPhase};
use crate::redact;
use crate::smtp::{Anomaly, Exchange, Item, Message, Reply, Verb};

/// Takes what is known, with its time.
pub(crate) type Told<'a> = dyn FnMut(Time, What<'_>) + 'a;

/// The fingerprint of the mailbox in the argument of MAIL or RCPT, by which two connections are compared: the same in every
/// run.
pub(crate) fn fingerprint(argument: &[u8]) -> u64 {
    envelope::hash(redact::mailbox(argument))
}

/// The software behind a greeting, where its wording tells.
pub(crate) fn software(greeting: &Reply) -> Option<&'static str> {
    if greeting.withheld { None } else { software::guess(&greeting.text) }
}

/// Turns one session's items into facts.
#[derive(Debug, Default)]
pub struct Analysis {
    session: SessionTracker,
    transactions: Transactions,
    pending: Pending,
}

impl Analysis {
    /// Judges an item. `opened` is when the connection was made, where that was seen.
    pub(crate) fn item(&mut self, opened: Option<Time>, item: &Item, told: &mut Told<'_>) {
        match item {
            Item::Greeting(reply) => {
                self.session.greeted(reply.last_byte);
                let latency = opened.map(|opened| reply.last_byte.since(opened));
                told(reply.last_byte, What::Greeting { reply, latency });
            }
            Item::Exchange(exchange) => self.exchange(exchange, told),
            Item::Message(message) => self.message(message, told),
            Item::TlsOffered(time) => told(*time, What::Tls(TlsPhase::Offered)),
            Item::TlsStarted(time) => told(*time, What::Tls(TlsPhase::Started)),
            Item::Reversed => {}
            Item::Lost => {
                self.pending.unseen(told);
                self.session.lost();
                self.transactions.lost();
            }
            Item::Anomaly(Anomaly { time, kind, detail }) => told(*time, What::Anomaly { kind: *kind, detail }),
        }
    }

    /// Another process goes on with the socket, which is the client's or the server's. What the one before it has left
    /// to be judged is told first.
    pub(crate) fn owner_changed(&mut self, role: Role, time: Time, told: &mut Told<'_>) {
        self.pending.moved(told);
        if role == Role::Client {
            self.session.moved(time);
        }
    }

    /// When [`Self::pass`] wants to be called: a client that has said nothing by then says something with it.
    pub fn deadline(&self) -> Option<Time> {
        self.pending.deadline()
    }

    /// Nothing was said on the connection from the last item until now.
    pub(crate) fn pass(&mut self, now: Time, told: &mut Told<'_>) {
        self.pending.pass(now, told);
    }

    /// The connection is over; what is still open is abandoned. `ended` is when, where that was seen.
    pub(crate) fn finish(&mut self, ended: Option<Time>, time: Time, told: &mut Told<'_>) {
        match ended {
            Some(ended) => self.pending.finish(ended, told),
            None => self.pending.unseen(told),
        }
        self.transactions.abandon(time, told);
    }

    fn exchange(&mut self, exchange: &Exchange, told: &mut Told<'_>) {
        self.pending.exchange(exchange, told);
        told(exchange.time(), What::Command(exchange));
        let before = self.session.before(&exchange.command);
        if let Some(code) = exchange.code() {
            let answered = || Answered { time: exchange.time(), latency: exchange.latency(), code, before };
            match exchange.command.verb {
                Verb::Rset => self.pending.rset(answered(), told),
                Verb::Noop => self.pending.noop(answered(), told),
                _ => {}
            }
        }
        self.session.exchange(exchange);
        self.transactions.exchange(exchange, told);
    }

    fn message(&mut self, message: &Message, told: &mut Told<'_>) {
        self.pending.message(message, told);
        told(message.time(), What::Data(message));
        self.session.message(message);
        self.transactions.message(message, told);
    }
}
