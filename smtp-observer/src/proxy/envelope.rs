//! Transactions by what they name, to find one again on another connection.

use std::collections::VecDeque;

use foldhash::HashMap;

use super::dialogue::Dialogue;
use super::push;
use crate::timestamp::Timestamp;

/// Most envelopes remembered, and most transactions with the same one.
const MOST: usize = 8192;
const MAX_ALIKE: usize = 16;

/// A transaction's sender and first recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    mailboxes: (u64, u64),
    /// When MAIL was sent.
    pub sent: Timestamp,
}

/// The transactions of clients whose connection ends on this host (inner), and of all clients (outer).
#[derive(Default)]
pub struct Envelopes {
    known: HashMap<(u64, u64), Alike>,
    order: VecDeque<(u64, u64)>,
}

/// Transactions with one envelope.
#[derive(Default)]
struct Alike {
    inner: VecDeque<Inner>,
    outer: VecDeque<Outer>,
}

/// A transaction of a client whose connection ends on this host.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    /// The client's cookie.
    pub client: u64,
    /// When MAIL was sent.
    pub sent: Timestamp,
    /// What carried it on last.
    pub carrier: Option<Outer>,
}

/// A transaction that may carry another on: its connection's cookie, and when MAIL was sent.
pub type Outer = (u64, Timestamp);

impl Envelopes {
    /// The envelope of a dialogue whose last step is the first RCPT of its transaction. NOOPs may stand between.
    pub fn envelope(dialogue: &Dialogue) -> Option<Envelope> {
        let mut steps = dialogue.steps.iter().rev();
        let rcpt = steps.next().filter(|step| &*step.verb == "RCPT")?;
        let mail = steps.find(|step| step.verb != "NOOP").filter(|step| step.verb == "MAIL")?;
        Some(Envelope { mailboxes: (mail.mailbox?, rcpt.mailbox?), sent: mail.sent })
    }

    /// Clients that named the same, the first one first.
    pub fn inner(&self, envelope: &Envelope) -> impl Iterator<Item = Inner> {
        self.known.get(&envelope.mailboxes).into_iter().flat_map(|alike| alike.inner.iter().copied())
    }

    /// Connections on which the same was named, the first one first.
    pub fn outer(&self, envelope: &Envelope) -> impl Iterator<Item = Outer> {
        self.known.get(&envelope.mailboxes).into_iter().flat_map(|alike| alike.outer.iter().copied())
    }

    /// A client named it.
    pub fn add_inner(&mut self, envelope: &Envelope, cookie: u64) {
        let inner = Inner { client: cookie, sent: envelope.sent, carrier: None };
        push(&mut self.entry(envelope).inner, inner, MAX_ALIKE);
    }

    /// It was named on this connection.
    pub fn add_outer(&mut self, envelope: &Envelope, cookie: u64) {
        push(&mut self.entry(envelope).outer, (cookie, envelope.sent), MAX_ALIKE);
    }

    /// A client's transaction is carried on by this one.
    pub fn carry(&mut self, envelope: &Envelope, client: u64, sent: Timestamp, carrier: Outer) {
        let alike = self.known.get_mut(&envelope.mailboxes).into_iter().flat_map(|alike| &mut alike.inner);
        let its = alike.filter(|inner| inner.client == client && inner.sent == sent);
        its.for_each(|inner| inner.carrier = Some(carrier));
    }

    fn entry(&mut self, envelope: &Envelope) -> &mut Alike {
        if !self.known.contains_key(&envelope.mailboxes)
            && let Some(oldest) = push(&mut self.order, envelope.mailboxes, MOST)
        {
            self.known.remove(&oldest);
        }
        self.known.entry(envelope.mailboxes).or_default()
    }
}
