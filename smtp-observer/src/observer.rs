//! Kernel events in, facts out: the only door of the pure core.

mod deadlines;
mod ending;
mod ends;
mod expected;
mod held;
mod libraries;
mod plaintext;
mod recorded;
mod snapshot;
mod tracker;
mod users;

use ipnet::IpNet;

pub use self::deadlines::GRACE_PERIOD;
use self::tracker::{Tracker, timestamp};
use crate::event::{KernelEvent, ProcessEvent, Snapshot, StateEvent, Time, TransferEvent};
use crate::fact::Fact;
use crate::observation::{self, Timestamp};
use crate::proxy::Interceptions;
use crate::recorder::{Entry, Recorder};
use crate::redact::RedactionPolicy;

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
        Self {
            tracker: Tracker::new(ports, policy, recorder),
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
    pub fn event(&mut self, mut event: KernelEvent, sink: &mut dyn FnMut(&Fact<'_>)) {
        let Self { tracker, interceptions, first_offset, clock_set } = self;
        if let Some(recorder) = &mut tracker.recorder
            && let Some(event) = kept(&event, recorder.policy())
        {
            recorder.keep(Entry::Event(event));
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
fn kept(event: &KernelEvent<'_>, policy: RedactionPolicy) -> Option<KernelEvent<'static>> {
    let redacted = |process: &ProcessEvent| {
        let arguments = policy.arguments(&process.arguments);
        ProcessEvent { arguments, ..process.clone() }
    };
    Some(match event {
        KernelEvent::Host(host) => KernelEvent::Host(host.clone()),
        KernelEvent::Process(process) => KernelEvent::Process(redacted(process)),
        KernelEvent::Snapshot(Snapshot { time, processes, sockets }) => KernelEvent::Snapshot(Snapshot {
            time: *time,
            processes: processes.iter().map(redacted).collect(),
            sockets: sockets.clone(),
        }),
        KernelEvent::State(state) => KernelEvent::State(state.clone()),
        KernelEvent::ReadsTls(reads) => KernelEvent::ReadsTls(*reads),
        KernelEvent::TlsLibraries(libraries) => KernelEvent::TlsLibraries(libraries.clone()),
        KernelEvent::Transfer(_) => return None,
    })
}

#[cfg(test)]
mod tests;
