//! What the observer is told, without bodies and credentials: a recording that leads another observer to the same
//! observations.
//!
//! Neither of these leaves the kernel. What is left to replace are the names of mailboxes: in a command's line, and in the
//! reply that repeats one. So a transfer is withheld, in its connection's `pending` transfers, until its lines are whole and its replies
//! known. Entries are numbered as they came in, and may come out in another order.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod hidden;
mod pending;
mod sanitize;
#[cfg(any(test, feature = "fuzzing"))]
mod story;

use std::collections::BTreeSet;

pub(crate) use self::pending::PendingTransfers;
use crate::event::{KernelEvent, Time, TransferEvent};
use crate::redact::{Addresses, Key, RedactionPolicy};
use crate::smtp::Peer;

/// Something that the observer was told.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are events")]
pub enum Entry {
    /// An event.
    Event(KernelEvent<'static>),
    /// What had waited until then was passed on.
    Settled(Time),
}

/// Takes down what an observer is told.
#[derive(Debug)]
pub struct Recorder {
    policy: RedactionPolicy,
    next: u64,
    withheld: BTreeSet<u64>,
    out: Vec<(u64, Entry)>,
}

impl Recorder {
    /// A recorder that keeps as much of mailboxes as `addresses` allows. `key` gives the others their stand-ins.
    pub fn new(addresses: Addresses, key: Key) -> Self {
        Self {
            policy: RedactionPolicy::for_recording(addresses, key),
            next: 0,
            withheld: BTreeSet::new(),
            out: Vec::new(),
        }
    }

    /// How much may be kept.
    pub(crate) fn policy(&self) -> RedactionPolicy {
        self.policy
    }

    /// Keeps what has nothing to hide.
    pub(crate) fn keep(&mut self, entry: Entry) {
        let number = self.number();
        self.out.push((number, entry));
    }

    /// Takes a transfer; it is kept as its connection's reel says, or in its shape.
    pub(crate) fn take(&mut self, event: &TransferEvent, reel: Option<&mut PendingTransfers>, peer: Peer) {
        let number = self.number();
        let kept = match reel {
            Some(reel) => reel.push(number, event, peer),
            None => Some(sanitize::of_event(event)),
        };
        match kept {
            Some(event) => self.out.push((number, Entry::Event(KernelEvent::Transfer(event)))),
            None => {
                self.withheld.insert(number);
            }
        }
    }

    /// Keeps what a reel gives out.
    pub(crate) fn release(&mut self, number: u64, event: TransferEvent<'static>) {
        self.withheld.remove(&number);
        self.out.push((number, Entry::Event(KernelEvent::Transfer(event))));
    }

    /// Hands out what can be kept now, each with its number.
    pub fn drain(&mut self) -> impl Iterator<Item = (u64, Entry)> + '_ {
        self.out.drain(..)
    }

    /// The number of the next entry.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// All with smaller numbers were handed out.
    pub fn complete_up_to(&self) -> u64 {
        self.withheld.first().copied().unwrap_or(self.next)
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }
}

#[cfg(test)]
mod tests;
