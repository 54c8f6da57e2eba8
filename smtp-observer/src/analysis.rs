//! What a dialogue means: transactions and their outcomes, why RSET and NOOP were sent, which software greets.
//!
//! [`Analysis`] takes the items of one session in their order. It uses this one connection alone, and states only what follows
//! from it.

mod comparison;
mod envelope;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod missing_replies;
mod next_action;
mod noop;
mod pending;
#[cfg(test)]
mod properties;
mod rset;
mod session_tracker;
mod software;
#[cfg(test)]
mod tests;
mod timing;
mod transaction;

use self::pending::{Answered, Pending};
use self::session_tracker::SessionTracker;
use self::transaction::Transactions;
use crate::event::Time;
use crate::fact::What;
use crate::identity::Caller;
use crate::redact;
use crate::smtp::{Anomaly, Exchange, Item, Message, Reply, Verb};

/// Takes a fact, with its time and the process that it is about, where one is known.
pub(crate) type Emit<'a> = dyn FnMut(Time, Option<&Caller>, What<'_>) + 'a;

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
    /// Takes the next item, which is about this process: a command is about its sender. `opened` is when the connection was
    /// made, if that was seen.
    pub(crate) fn item(&mut self, opened: Option<Time>, process: Option<&Caller>, item: &Item, emit: &mut Emit<'_>) {
        match item {
            Item::Greeting(reply) => {
                self.session.greeted(reply.last_byte);
                let latency = opened.map(|opened| reply.last_byte.since(opened));
                emit(reply.last_byte, process, What::Greeting { reply, latency });
            }
            Item::Exchange(exchange) => self.exchange(process, exchange, emit),
            Item::Message(message) => self.message(process, message, emit),
            Item::Tls(time, tls) => emit(*time, process, What::Tls(tls)),
            Item::Reversed => {}
            Item::Lost(lost) => {
                self.pending.unseen(emit);
                self.session.lost();
                self.transactions.lost(*lost);
            }
            Item::Anomaly(Anomaly { time, kind, detail }) => {
                emit(*time, process, What::Anomaly { kind: *kind, detail });
            }
        }
    }

    /// Another process goes on with the client's socket from then on. Pending commands of the process before it are settled.
    pub(crate) fn owner_changed(&mut self, time: Time, emit: &mut Emit<'_>) {
        self.pending.owner_changed(emit);
        self.session.owner_changed(time);
    }

    /// When [`Self::pass`] is to be called: the silence of a client until then is evidence.
    pub fn deadline(&self) -> Option<Time> {
        self.pending.deadline()
    }

    /// Nothing was said on the connection from the last item until now.
    pub(crate) fn pass(&mut self, now: Time, emit: &mut Emit<'_>) {
        self.pending.pass(now, emit);
    }

    /// The connection of this process is over; an open transaction is abandoned. `ended` is when, if that was seen.
    pub(crate) fn finish(&mut self, ended: Option<Time>, time: Time, process: Option<&Caller>, emit: &mut Emit<'_>) {
        match ended {
            Some(ended) => self.pending.finish(ended, emit),
            None => self.pending.unseen(emit),
        }
        self.transactions.abandon(time, process, emit);
    }

    fn exchange(&mut self, process: Option<&Caller>, exchange: &Exchange, emit: &mut Emit<'_>) {
        let context = self.session.context(&exchange.command);
        self.pending.exchange(exchange, context.pause.waited.is_some(), emit);
        emit(exchange.time(), process, What::Command(exchange));
        if let Some(code) = exchange.code() {
            let (time, latency) = (exchange.time(), exchange.latency());
            let answered = || Answered { time, latency, code, context, process: process.cloned() };
            match exchange.command.verb {
                Verb::Rset => self.pending.rset(answered(), emit),
                Verb::Noop => self.pending.noop(answered(), emit),
                _ => {}
            }
        }
        self.session.exchange(exchange);
        self.transactions.exchange(process, exchange, emit);
    }

    fn message(&mut self, process: Option<&Caller>, message: &Message, emit: &mut Emit<'_>) {
        self.pending.message(message, emit);
        emit(message.time(), process, What::Data(message));
        self.session.message(message);
        self.transactions.message(process, message, emit);
    }
}
