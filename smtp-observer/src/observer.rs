//! Kernel events in, facts out: the only door of the pure core.

mod deadlines;
mod ends;
mod expected;
mod held;
mod recorded;
mod snapshot;
mod tracker;

pub use self::deadlines::GRACE_PERIOD;
use self::tracker::{Tracker, timestamp};
use crate::event::{KernelEvent, StateEvent, Time, TransferEvent};
use crate::fact::Fact;
use crate::observation::{self, Timestamp};
use crate::proxy::Interceptions;
use crate::recorder::{Entry, Recorder};
use crate::redact::RedactionPolicy;

/// Follows every connection on the watched ports, and who is in the middle of them.
pub struct Observer {
    tracker: Tracker,
    interceptions: Interceptions,
}

/// Where facts go: what is told of single connections is seen together on its way to the sink.
struct Out<'a> {
    interceptions: &'a mut Interceptions,
    sink: &'a mut dyn FnMut(&Fact<'_>),
}

impl Out<'_> {
    fn tell(&mut self, fact: &Fact<'_>) {
        self.interceptions.observe(fact, self.sink);
    }
}

impl Observer {
    /// An observer of connections with one of `ports` at either end. In what it says of two connections, texts are redacted
    /// by `policy`.
    pub fn new(ports: &[u16], policy: RedactionPolicy) -> Self {
        Self::with(ports, policy, None)
    }

    fn with(ports: &[u16], policy: RedactionPolicy, recorder: Option<Recorder>) -> Self {
        Self { tracker: Tracker::new(ports, recorder), interceptions: Interceptions::new(policy) }
    }

    /// What the host's clock shows at this time of the events.
    pub fn timestamp(&self, time: Time) -> Timestamp {
        timestamp(&self.tracker.host, time)
    }

    /// Takes one event; what follows from it goes to `sink`.
    pub fn event(&mut self, event: KernelEvent, sink: &mut dyn FnMut(&Fact<'_>)) {
        let Self { tracker, interceptions } = self;
        if let Some(recorder) = &mut tracker.recorder
            && let Some(event) = kept(&event)
        {
            recorder.keep(Entry::Event(event));
        }
        if let KernelEvent::State(StateEvent { time, .. }) | KernelEvent::Transfer(TransferEvent { time, .. }) = event
            && interceptions.is_waiting()
        {
            interceptions.settle(timestamp(&tracker.host, time), sink);
        }
        tracker.take(event, &mut Out { interceptions, sink });
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

/// What a recording has of an event by itself: a transfer is taken with its connection.
fn kept(event: &KernelEvent<'_>) -> Option<KernelEvent<'static>> {
    Some(match event {
        KernelEvent::Host(host) => KernelEvent::Host(host.clone()),
        KernelEvent::Process(process) => KernelEvent::Process(process.clone()),
        KernelEvent::Snapshot(snapshot) => KernelEvent::Snapshot(snapshot.clone()),
        KernelEvent::State(state) => KernelEvent::State(state.clone()),
        KernelEvent::Transfer(_) => return None,
    })
}

#[cfg(test)]
mod tests;
