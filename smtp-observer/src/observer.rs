//! Kernel events in, facts out: the only door of the pure core.

mod deadlines;
mod ending;
mod ends;
mod expected;
mod held;
mod libraries;
mod plaintext;
mod snapshot;
mod tap;
mod tracker;
mod users;

use ipnet::IpNet;

pub use self::deadlines::GRACE_PERIOD;
pub use self::tap::Tap;
use self::tracker::{Tracker, timestamp};
use crate::event::{KernelEvent, StateEvent, Time, TransferEvent};
use crate::fact::Fact;
use crate::observation::{self, Timestamp};
use crate::proxy::Interceptions;
use crate::redact::RedactionPolicy;
use crate::smtp::DecoderOutput;

/// Follows every connection on the watched ports, and who is in the middle of them.
pub struct Observer {
    tracker: Tracker,
    interceptions: Interceptions,
    /// The first offset of the wall clock: the core compares times, which must not jump when the clock is set.
    first_offset: Option<i64>,
    /// How far the wall clock was set since, in nanoseconds; facts are told by it.
    clock_set: i64,
}

/// Where facts go: what is told of single connections is seen together on its way to the sink.
struct Out<'a> {
    interceptions: &'a mut Interceptions,
    sink: &'a mut dyn FnMut(&Fact<'_>),
    tap: Option<&'a mut dyn Tap>,
}

impl Out<'_> {
    fn tell(&mut self, fact: &Fact<'_>) {
        self.interceptions.observe(fact, self.sink);
    }

    /// Shows the tap something, where there is one.
    fn show(&mut self, show: impl FnOnce(&mut dyn Tap)) {
        if let Some(tap) = &mut self.tap {
            show(*tap);
        }
    }
}

impl Observer {
    /// An observer of connections with one of `ports` at either end. In what it says of two connections, texts are redacted
    /// by `policy`.
    pub fn new(ports: &[u16], policy: RedactionPolicy) -> Self {
        Self {
            tracker: Tracker::new(ports, policy),
            interceptions: Interceptions::new(policy),
            first_offset: None,
            clock_set: 0,
        }
    }

    /// These addresses lead to servers of one's own on this host: who asks for one of them is not led elsewhere.
    pub fn set_service_addresses(&mut self, addresses: Vec<IpNet>) {
        self.interceptions.service_addresses = addresses;
    }

    /// What the host's clock shows at this time of the events.
    pub fn timestamp(&self, time: Time) -> Timestamp {
        timestamp(&self.tracker.host, time).by_clock(self.clock_set)
    }

    /// Takes one event; what follows from it goes to `sink`.
    pub fn event(&mut self, event: KernelEvent, sink: &mut dyn FnMut(&Fact<'_>)) {
        self.event_tapped(event, sink, None);
    }

    /// The same, and shows it to a tap, with what is read in it.
    pub fn event_tapped(
        &mut self,
        mut event: KernelEvent,
        sink: &mut dyn FnMut(&Fact<'_>),
        mut tap: Option<&mut dyn Tap>,
    ) {
        let Self { tracker, interceptions, first_offset, clock_set } = self;
        if let Some(tap) = &mut tap
            && !matches!(event, KernelEvent::Transfer(_))
        {
            tap.event(&event);
        }
        if let KernelEvent::Host(host) = &mut event {
            let first = *first_offset.get_or_insert(host.unix_offset);
            *clock_set = host.unix_offset.saturating_sub(first);
            host.unix_offset = first;
        }
        let sink = &mut |fact: &Fact<'_>| sink(&fact.by_clock(*clock_set));
        if let KernelEvent::State(StateEvent { time, .. }) | KernelEvent::Transfer(TransferEvent { time, .. }) = event
            && interceptions.is_waiting()
        {
            interceptions.settle(timestamp(&tracker.host, time), sink);
        }
        let tap = tap.map(|tap| tap as &mut dyn Tap);
        tracker.take(event, &mut Out { interceptions, sink, tap });
    }

    /// Passes on what has waited long enough by now.
    pub fn settle(&mut self, now: Time, sink: &mut dyn FnMut(&Fact<'_>)) {
        self.settle_tapped(now, sink, None);
    }

    /// The same, and tells a tap.
    pub fn settle_tapped(&mut self, now: Time, sink: &mut dyn FnMut(&Fact<'_>), mut tap: Option<&mut dyn Tap>) {
        let has_deadlines = self.has_deadlines();
        let Self { tracker, interceptions, clock_set, .. } = self;
        let sink = &mut |fact: &Fact<'_>| sink(&fact.by_clock(*clock_set));
        if let Some(tap) = &mut tap
            && has_deadlines
        {
            tap.settled(now);
        }
        let tap = tap.map(|tap| tap as &mut dyn Tap);
        tracker.pass_deadlines(now, &mut Out { interceptions, sink, tap });
        interceptions.settle(timestamp(&tracker.host, now), sink);
    }

    /// Shows a tap what is left in the dialogues, as if all ended now. No more is to be told to this observer.
    pub fn finish(&mut self, tap: &mut dyn Tap) {
        let mut items = DecoderOutput::default();
        for (cookie, conversation) in &mut self.tracker.conversations {
            conversation.session.finish(conversation.connection.last_seen, &mut items);
            items.iter().for_each(|item| tap.item(*cookie, item));
            items.clear();
            tap.ended(*cookie, &conversation.session);
        }
    }

    /// Bytes whose content was not seen, by cause.
    pub fn unseen(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.tracker.unseen()
    }

    /// Bytes sent and received so far on a connection that is not over.
    pub fn bytes(&self, connection: &observation::Connection) -> Option<(u64, u64)> {
        self.tracker.bytes(connection)
    }

    /// Whether a second snapshot is wanted, to tell whether connections are closed.
    pub fn needs_second_snapshot(&self) -> bool {
        self.tracker.needs_second_snapshot
    }
}

#[cfg(test)]
mod tests;
