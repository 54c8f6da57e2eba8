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

use foldhash::HashMap;

use self::pending::{MAX_WITHHELD_IN_ALL, PendingTransfers};
use crate::event::{KernelEvent, ProcessEvent, Snapshot, Time, TransferEvent};
use crate::observer::Tap;
use crate::redact::{Addresses, Key, RedactionPolicy};
use crate::smtp::{Item, Peer, Session};

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
    /// What waits of each dialogue.
    pending: HashMap<u64, PendingTransfers>,
    /// Bytes of all that waits.
    bytes: usize,
    out: Vec<(u64, Entry)>,
}

impl Recorder {
    /// A recorder that keeps as much of mailboxes as `addresses` allows. `key` gives the others their stand-ins.
    pub fn new(addresses: Addresses, key: Key) -> Self {
        Self {
            policy: RedactionPolicy::for_recording(addresses, key),
            next: 0,
            withheld: BTreeSet::new(),
            pending: HashMap::default(),
            bytes: 0,
            out: Vec::new(),
        }
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

    fn keep(&mut self, entry: Entry) {
        let number = self.number();
        self.out.push((number, entry));
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }
}

impl Tap for Recorder {
    fn event(&mut self, event: &KernelEvent<'_>) {
        if let Some(event) = kept(event, self.policy) {
            self.keep(Entry::Event(event));
        }
    }

    fn settled(&mut self, now: Time) {
        self.keep(Entry::Settled(now));
    }

    /// Keeps it as its dialogue's pending transfers say; outside of one, in its shape.
    fn transfer(&mut self, dialogue: Option<u64>, event: &TransferEvent<'_>, peer: Peer) {
        let number = self.number();
        let kept = match dialogue {
            Some(dialogue) => {
                let new = || PendingTransfers::new(self.policy);
                let pending = self.pending.entry(dialogue).or_insert_with(new);
                let before = pending.withheld();
                let kept = pending.push(number, event, peer, MAX_WITHHELD_IN_ALL - self.bytes);
                self.bytes += pending.withheld() - before;
                kept
            }
            None => Some(sanitize::of_event(event)),
        };
        match kept {
            Some(event) => self.out.push((number, Entry::Event(KernelEvent::Transfer(event)))),
            None => {
                self.withheld.insert(number);
            }
        }
    }

    fn item(&mut self, dialogue: u64, item: &Item) {
        if let Some(pending) = self.pending.get_mut(&dialogue) {
            pending.item(item);
        }
    }

    fn read(&mut self, dialogue: u64, session: &Session) {
        let Self { pending, withheld, out, bytes, .. } = self;
        if let Some(pending) = pending.get_mut(&dialogue) {
            let before = pending.withheld();
            pending.conclude(session, &mut |number, event| release(withheld, out, number, event));
            *bytes -= before - pending.withheld();
        }
    }

    fn ended(&mut self, dialogue: u64, session: &Session) {
        let Self { pending, withheld, out, bytes, .. } = self;
        if let Some(mut pending) = pending.remove(&dialogue) {
            *bytes -= pending.withheld();
            pending.finish(session, &mut |number, event| release(withheld, out, number, event));
        }
    }
}

/// Keeps a transfer that waits no longer.
fn release(withheld: &mut BTreeSet<u64>, out: &mut Vec<(u64, Entry)>, number: u64, event: TransferEvent<'static>) {
    withheld.remove(&number);
    out.push((number, Entry::Event(KernelEvent::Transfer(event))));
}

/// What a recording has of an event by itself: a transfer is taken with its connection.
fn kept(event: &KernelEvent<'_>, policy: RedactionPolicy) -> Option<KernelEvent<'static>> {
    let redacted = |process: &ProcessEvent| policy.process(process);
    Some(match event {
        KernelEvent::Host(host) => KernelEvent::Host(host.clone()),
        KernelEvent::Process(process) => KernelEvent::Process(redacted(process)),
        KernelEvent::Snapshot(Snapshot { time, processes, sockets, partial }) => KernelEvent::Snapshot(Snapshot {
            time: *time,
            processes: processes.iter().map(redacted).collect(),
            sockets: sockets.clone(),
            partial: *partial,
        }),
        KernelEvent::State(state) => KernelEvent::State(state.clone()),
        KernelEvent::ReadsTls(reads) => KernelEvent::ReadsTls(*reads),
        KernelEvent::TlsLibraries(libraries) => KernelEvent::TlsLibraries(libraries.clone()),
        KernelEvent::Transfer(_) => return None,
    })
}

#[cfg(test)]
mod tests;
