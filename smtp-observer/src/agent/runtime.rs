//! One run of the agent: takes events in, has them observed, and tells the sinks.

use std::future::pending;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::error::{Error, system};
use super::record::{self, Record};
use super::reload::Reload;
use super::service_manager::{self, Watchdog};
use super::signals::Signals;
use super::sinks::Sinks;
use crate::cli::Observe;
use crate::event::{KernelEvent, Time};
use crate::kernel::{self, Kernel};
use crate::loss::Losses;
use crate::observer::{GRACE_PERIOD, Observer};
use crate::redact::RedactionPolicy;
use crate::sink::http::Ask;

/// How long the end waits for an output that does not take its last lines.
const LAST_LINES: Duration = Duration::from_secs(5);

/// How long the end takes in what waits in the kernel: a host that never pauses must not keep it up.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// How long after a look at the open sockets a second one decides what the first left in doubt: a descriptor on its way
/// from one process to another has arrived by then.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// What an agent does that runs as a service: SIGHUP has it open its files and read its configuration again.
pub(super) struct Service {
    pub(super) hangup: Signal,
    pub(super) reload: Reload,
    /// What it observes, for the service manager.
    pub(super) status: String,
}

/// How long after a look at the open sockets the next one finds the connections whose end the kernel has not told.
const NEXT_LOOK: Duration = Duration::from_secs(300);

/// One run of the agent, from attached hooks to its end.
pub(super) struct Runtime {
    pub(super) kernel: Kernel,
    pub(super) observer: Observer,
    pub(super) sinks: Sinks,
    pub(super) record: Option<Record>,
    losses: Losses,
    /// How far the wall clock is ahead of the kernel's, as the sinks know it.
    unix_offset: i64,
    /// When to look again which connections are open.
    pub(super) look: Option<Instant>,
    /// When that was looked for last.
    looked: Option<Instant>,
    /// When to settle what waits for time to pass, if anything does.
    settling: Option<Instant>,
}

impl Runtime {
    pub(super) fn new(kernel: Kernel, observe: &Observe, sinks: Sinks, record: Option<Record>) -> Self {
        let (ports, addresses) = (observe.ports.as_slice(), observe.addresses);
        let mut observer = Observer::new(ports, RedactionPolicy::new(addresses));
        observer.set_service_addresses(observe.service_addresses.clone());
        let host = kernel.host();
        let (losses, unix_offset) = (Losses::default(), host.unix_offset);
        let mut runtime =
            Self { kernel, observer, sinks, record, losses, unix_offset, look: None, looked: None, settling: None };
        runtime.tell(KernelEvent::Host(host));
        runtime
    }

    /// Tells the observer of an event.
    fn tell(&mut self, event: KernelEvent) {
        let Self { observer, sinks, record, .. } = self;
        observer.event_tapped(event, &mut |fact| sinks.observe(fact), record.as_mut().map(Record::tap));
    }

    /// Observes until a signal comes, the time is over or nobody reads the lines any more.
    pub(super) async fn serve(
        mut self,
        mut questions: mpsc::Receiver<Ask>,
        signals: &mut Signals,
        mut service: Option<Service>,
        duration: Option<Duration>,
    ) -> Result<(), Error> {
        let end = if_any(duration.map(tokio::time::sleep));
        tokio::pin!(end);
        let mut unread = false;
        let mut watchdog = Watchdog::new();
        let outcome = loop {
            // Set once, whatever else comes meanwhile: those who ask often put nothing off.
            self.settling =
                (self.observer.has_deadlines()).then(|| self.settling.unwrap_or_else(|| Instant::now() + GRACE_PERIOD));
            self.plan_look();
            tokio::select! {
                ready = self.kernel.ready() => match ready {
                    Ok(()) => self.take_in(),
                    Err(error) => break Err(system("read what the hooks deliver")(error)),
                },
                Some(question) = questions.recv() => self.answer(question),
                () = if_any(self.look.map(sleep_until)) => self.resnapshot(),
                () = if_any(self.settling.map(sleep_until)) => match kernel::now() {
                    Ok(now) => self.settle(now),
                    Err(error) => break Err(system("read the clock")(error)),
                },
                () = if_any(self.sinks.lines.as_ref().map(|lines| lines.output.closed())) => {
                    unread = true;
                    // A user who looks on may have seen enough; a service has lost what it is for.
                    break if service.is_some() { Err(Error::Unread) } else { Ok(()) };
                }
                () = signals.wait() => break Ok(()),
                _ = if_any(service.as_mut().map(|service| service.hangup.recv())) => {
                    if let Some(service) = &mut service {
                        self.reload(service);
                    }
                    // It may have come between the kernel's waking and the taking.
                    self.take_in();
                }
                () = if_any(watchdog.due().map(sleep_until)) => {
                    self.take_in();
                    watchdog.drained();
                }
                () = &mut end => break Ok(()),
            }
        };
        service_manager::stopping();
        let lost = self.finish(unread).await;
        // A service goes on where it can, and counts. Who looks on takes what is there for all.
        if lost > 0 && service.is_none() { outcome.and(Err(Error::Unwritten)) } else { outcome }
    }

    /// Opens files and reads the configuration again.
    fn reload(&mut self, service: &mut Service) {
        service_manager::reloading();
        self.sinks.reopen();
        match service.reload.read(&mut self.observer) {
            Some(news) => service_manager::ready(&format!("{}; {news}", service.status)),
            None => service_manager::ready(&service.status),
        }
    }

    /// Passes all that waits through the observer to the sinks.
    pub(super) fn take_in(&mut self) {
        let Self { kernel, observer, sinks, record, unix_offset, .. } = self;
        kernel.drain(&mut |event| {
            if let KernelEvent::Host(host) = &event {
                sinks.set_clock(host.unix_offset.saturating_sub(std::mem::replace(unix_offset, host.unix_offset)));
            }
            observer.event_tapped(event, &mut |fact| sinks.observe(fact), record.as_mut().map(Record::tap));
            if let Some(record) = record {
                record.write();
            }
        });
        self.flush();
        let now = Instant::now();
        if self.losses.note(self.kernel.losses(), now.into_std()) {
            // The second of two looks decides: what moves has arrived by then, and walks do not follow on each other.
            self.look = Some(self.looked.map_or(now, |looked| now.max(looked + SECOND_LOOK)));
        }
    }

    /// Passes on what the observer has waited with, after all that waits in the kernel.
    pub(super) fn settle(&mut self, now: Time) {
        self.take_in();
        if self.kernel.is_behind() {
            // What it waits for may be in the kernel still.
            self.settling = Some(Instant::now());
            return;
        }
        self.settle_observer(now);
    }

    fn settle_observer(&mut self, now: Time) {
        self.settling = None;
        let Self { observer, sinks, record, .. } = self;
        observer.settle_tapped(now, &mut |fact| sinks.observe(fact), record.as_mut().map(Record::tap));
        self.flush();
    }

    /// Hands over what the outputs have gathered.
    fn flush(&mut self) {
        self.sinks.flush();
        if let Some(record) = &mut self.record {
            record.write();
            record.output.flush();
        }
    }

    /// Looks at the open sockets again after a while, as long as any connection is followed.
    pub(super) fn plan_look(&mut self) {
        if self.observer.follows_any() {
            self.look = self.look.or_else(|| Some(Instant::now() + NEXT_LOOK));
        }
    }

    /// Tells the observer which sockets are open now, after all that waits.
    pub(super) fn resnapshot(&mut self) {
        self.take_in();
        self.look = None;
        if self.kernel.is_behind() {
            // What is known is not from now.
            self.look = Some(Instant::now());
            return;
        }
        self.looked = Some(Instant::now());
        self.take_late_ends();
        self.flush();
        match self.kernel.snapshot() {
            Ok(snapshot) => {
                self.tell(KernelEvent::Snapshot(snapshot));
                self.flush();
                if self.observer.needs_second_snapshot() {
                    self.look = Some(Instant::now() + SECOND_LOOK);
                }
            }
            Err(error) => warn!("what is open now cannot be listed: {error}"),
        }
    }

    /// Passes on the ends of connections that found no room in the ring buffer, after all that did.
    fn take_late_ends(&mut self) {
        let Self { kernel, observer, sinks, record, .. } = self;
        kernel.late_ends(&mut |event| {
            observer.event_tapped(event, &mut |fact| sinks.observe(fact), record.as_mut().map(Record::tap));
        });
    }

    /// Takes in and writes out the rest, and says what was lost: loss is never silent, but for lines that a user who
    /// looked on does not want any more. Returns how many lines and recorded events were.
    pub(super) async fn finish(mut self, unread: bool) -> u64 {
        let latest = Instant::now() + LAST_EVENTS;
        self.take_in();
        while self.kernel.is_behind() && Instant::now() < latest {
            self.take_in();
        }
        match self.kernel.is_behind() {
            true => warn!("the hooks deliver more than the agent takes in: what waits in the ring buffer is not told"),
            false => self.take_late_ends(),
        }
        self.settle_observer(Time(u64::MAX));
        if let Some(record) = &mut self.record {
            self.observer.finish(record.tap());
        }
        self.flush();
        for (kind, count) in self.kernel.losses().iter().filter(|(_, count)| *count > 0) {
            warn!("{count} records of the hooks were lost: {kind}");
        }
        let mut lost = 0;
        if let Some(lines) = self.sinks.lines {
            let left = lines.output.reader_left();
            let dropped = lines.output.finish(LAST_LINES).await;
            let unwanted = (unread || left()) && self.sinks.metrics.is_none();
            if dropped > 0 && !unwanted {
                warn!("{dropped} observations were not written: {}", lines.sink);
                lost = dropped;
            }
        }
        if let Some(record) = self.record {
            let dropped = record.output.finish(LAST_LINES).await;
            if dropped > 0 {
                warn!("{dropped} events were not written: {}", record::FACE);
                lost += dropped;
            }
        }
        lost
    }
}

/// Completes with what is waited for; never, without anything.
pub(super) async fn if_any<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
