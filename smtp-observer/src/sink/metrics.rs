//! Facts as Prometheus metrics.
//!
//! No label takes its values from the wire or from a user without a bound: programs are told apart up to
//! [`MAX_PROGRAMS`](series::MAX_PROGRAMS), verbs are those of the RFCs, and every metric has at most its stated number of
//! series; what comes after counts under `other`. A part is kept for programs that are there for long, and a part for the
//! system's own: whatever a user runs, these have their labels. A scrape of a hostile load stays under a megabyte. A program that was not
//! seen for [`GONE`](life::GONE) and has no connection open makes room: its series end, and begin at zero if it comes back.

mod format;
mod interceptions;
mod life;
mod openmetrics;
mod processor;
mod series;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use foldhash::HashMap;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use self::format::Format;
use self::interceptions::Interceptions;
use self::series::{CLASSES, Family, Programs, Subject, UNKNOWN, code_class, verb_label};
use crate::fact::{Fact, Transaction, What};
use crate::observation::{Connection, Reasoned, Timestamp};
use crate::smtp::{Plaintext, Tls};

/// Most series of a counter or gauge, beside those of `other`.
const MAX_SERIES: usize = 300;

/// Most histograms by verb, beside those of `other`: each is as many lines as there are buckets, and more.
const MAX_VERB_HISTOGRAMS: usize = 64;

/// Most histograms of other kinds, each.
const MAX_HISTOGRAMS: usize = 24;

/// Upper bounds of every histogram's buckets, in seconds: from a reply on loopback to the ten minutes that clients
/// are told to wait for the end of DATA (RFC 5321, 4.5.3.2.6).
const BUCKETS: &[f64] = &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 600.0];

type Counters<const N: usize> = Family<IntCounterVec, IntCounter, N>;
type Histograms<const N: usize> = Family<HistogramVec, Histogram, N>;

/// Every metric of the agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    programs: Programs,
    /// By the cookies of their sockets.
    open: HashMap<u64, Open>,
    /// The latest time that is known.
    now: Timestamp,
    /// When programs that are gone were looked for.
    looked: Timestamp,

    connections: Counters<0>,
    connections_open: Family<IntGaugeVec, IntGauge, 0>,
    commands: Counters<2>,
    command_duration: Histograms<1>,
    rset: Counters<1>,
    rset_duration: Histograms<0>,
    noop: Counters<1>,
    noop_duration: Histograms<0>,
    data_go_ahead: Histograms<0>,
    data_transfer: Histograms<0>,
    data_accept: Histograms<0>,
    data_bytes: Counters<0>,
    transactions: Counters<1>,
    anomalies: Counters<1>,
    tls_sessions: Counters<2>,
    interceptions: Interceptions,

    kernel_events: IntCounterVec,
    kernel_events_lost: IntCounterVec,
    recursion_misses: IntCounterVec,
    bytes_unseen: IntCounterVec,
    face_dropped: IntCounterVec,
    history_dropped: IntCounter,
    connections_unfollowed: IntCounter,
    tls_prober_up: IntGaugeVec,
}

/// A connection that counts as open.
#[derive(Debug)]
struct Open {
    program: Arc<str>,
    gauge: IntGauge,
    /// It is in `smtp_connections_total`: from when its process is known, or at its end.
    counted: bool,
}

impl Metrics {
    /// All at zero; `family` is the hooks' in use.
    pub fn new(family: &str) -> Result<Self, prometheus::Error> {
        let define = Definitions(Registry::new());
        define.0.register(Box::new(ProcessCollector::for_self()))?;

        let information = |name, help, labels: &[(&str, &str)]| -> Result<(), prometheus::Error> {
            let (names, values): (Vec<_>, Vec<_>) = labels.iter().copied().unzip();
            define.gauge(name, help, &names)?.with_label_values(&values).set(1);
            Ok(())
        };
        information(
            "smtp_observer_build_info",
            "Version and source revision of this agent; always 1.",
            &[
                ("version", env!("CARGO_PKG_VERSION")),
                ("revision", option_env!("SMTP_OBSERVER_REVISION").unwrap_or("unknown")),
            ],
        )?;
        information(
            "smtp_observer_hooks_info",
            "Family of kernel hooks that this agent uses; always 1.",
            &[("family", family)],
        )?;

        Ok(Self {
            connections: define.counters(
                "smtp_connections_total",
                "SMTP connections seen, by the program that first used them.",
                [],
            )?,
            connections_open: Family::new(
                define.gauge(
                    "smtp_connections_open",
                    "SMTP connections open now, by the program that last used them.",
                    &WHO,
                )?,
                MAX_SERIES,
            ),
            commands: define.counters(
                "smtp_commands_total",
                "SMTP commands, by verb and by the class of their reply; none where no reply came.",
                ["verb", "code_class"],
            )?,
            command_duration: define.histograms(
                "smtp_command_duration_seconds",
                "Seconds from a command's last byte to its reply's last byte.",
                ["verb"],
            )?,
            rset: define.counters("smtp_rset_total", "RSET commands, by why they were sent.", ["reason"])?,
            rset_duration: define.histograms("smtp_rset_duration_seconds", "Seconds from an RSET to its reply.", [])?,
            noop: define.counters("smtp_noop_total", "NOOP commands, by why they were sent.", ["reason"])?,
            noop_duration: define.histograms("smtp_noop_duration_seconds", "Seconds from a NOOP to its reply.", [])?,
            data_go_ahead: define.histograms(
                "smtp_data_go_ahead_seconds",
                "Seconds from DATA to the reply that lets it begin (354).",
                [],
            )?,
            data_transfer: define.histograms(
                "smtp_data_transfer_seconds",
                "Seconds from the go-ahead (BDAT: from the first chunk) to the end of the message's content.",
                [],
            )?,
            data_accept: define.histograms(
                "smtp_data_final_reply_seconds",
                "Seconds from the end of a message's content to the final reply.",
                [],
            )?,
            data_bytes: define.counters("smtp_data_bytes_total", "Bytes of messages' content, as transmitted.", [])?,
            transactions: define.counters(
                "smtp_transactions_total",
                "Mail transactions that ended, by how they ended.",
                ["outcome"],
            )?,
            anomalies: define.counters(
                "smtp_anomalies_total",
                "Departures from the protocol, and places where a stream could not be followed, by kind.",
                ["kind"],
            )?,
            tls_sessions: define.counters(
                "smtp_tls_sessions_total",
                "TLS sessions started on SMTP connections, by version and by whether their plaintext is read.",
                ["version", "visible"],
            )?,

            interceptions: Interceptions::new(
                define.counter(
                    "smtp_intercepted_connections_total",
                    "SMTP connections of clients that end in a program they know nothing of.",
                    &["interceptor", "client", "method"],
                )?,
                define.counter(
                    "smtp_redirected_connections_total",
                    "SMTP connections of clients that were led to another server than they asked for.",
                    &["server", "client", "method"],
                )?,
                define.histogram(
                    "smtp_interception_data_delay_seconds",
                    "Seconds from a client's DATA to the DATA that the server got from the program in the middle.",
                    &["interceptor"],
                )?,
                define.gauge(
                    "smtp_interceptor_info",
                    "Programs in the middle of SMTP connections; always 1.",
                    &["interceptor", "pid", "executable", "uid", "method"],
                )?,
            ),

            kernel_events: define.counter(
                "smtp_observer_kernel_events_total",
                "Records that the hooks delivered, by kind.",
                &["kind"],
            )?,
            kernel_events_lost: define.counter(
                "smtp_observer_kernel_events_lost_total",
                "Records that the hooks could not deliver, by kind.",
                &["kind"],
            )?,
            recursion_misses: define.counter(
                "smtp_observer_recursion_misses_total",
                "Calls for which the kernel skipped a hook's program, in the middle of which the processor was, by \
                 program.",
                &["program"],
            )?,
            bytes_unseen: define.counter(
                "smtp_observer_uncaptured_bytes_total",
                "Bytes of SMTP connections that passed without their content being seen, by cause.",
                &["cause"],
            )?,
            face_dropped: define.counter(
                "smtp_observer_sink_dropped_total",
                "Observations that an output was too slow for or failed to write, by output.",
                &["sink"],
            )?,
            history_dropped: define.register(IntCounter::new(
                "smtp_observer_history_dropped_total",
                "Verdicts, and connections with a verdict or an anomaly, that the status page keeps no longer.",
            )?)?,

            connections_unfollowed: define.register(IntCounter::new(
                "smtp_observer_connections_unfollowed_total",
                "Connections that are followed no longer because there are too many at once, those idle longest \
                 first.",
            )?)?,

            // Without labels it has one series, which is there once it is set.
            tls_prober_up: define.gauge(
                "smtp_observer_tls_prober_up",
                "Whether the process that attaches probes to TLS libraries is there: 0 once it has ended.",
                &[],
            )?,

            registry: define.0,
            programs: Programs::default(),
            open: HashMap::default(),
            now: Timestamp(0),
            looked: Timestamp(0),
        })
    }

    /// Counts one fact.
    pub fn observe(&mut self, fact: &Fact<'_>) {
        self.pass(fact.time);
        if let Some(caller) = fact.process {
            self.interceptions.saw(caller, self.now);
        }
        let program = self.programs.at(fact.process, self.now);
        let standing = program.standing;
        let subject = Subject { program: Arc::clone(&program.label), role: fact.connection.role, standing };
        let handles = program.handles(subject.role);
        match fact.what {
            What::ConnectionOpened { .. } => {
                let gauge = self.connections_open.at(&subject, []);
                gauge.inc();
                let open = Open { program: Arc::clone(&subject.program), gauge, counted: false };
                if let Some(before) = self.open.insert(fact.connection.cookie, open) {
                    before.gauge.dec();
                }
            }
            What::ConnectionOwnerChanged { .. } => self.moved(fact.connection, &subject),
            What::ConnectionClosed(_) => {
                self.over(fact.connection, &subject);
                return;
            }
            What::ConnectionUnfollowed(_) => {
                self.connections_unfollowed.inc();
                self.over(fact.connection, &subject);
                return;
            }
            What::Greeting { .. } => (),
            What::Command(exchange) => {
                let (verb, class) = (exchange.command.verb, code_class(exchange.code()));
                let labels = [verb_label(verb), CLASSES[class]];
                let counter = handles.commands.at(verb, class);
                counter.get_or_insert_with(|| self.commands.at(&subject, labels)).inc();
                if let Some(latency) = exchange.latency() {
                    let histogram = handles.command_duration.at(verb, 0);
                    let histogram = histogram.get_or_insert_with(|| self.command_duration.at(&subject, [labels[0]]));
                    histogram.observe(latency.as_secs_f64());
                }
            }
            What::Rset(Reasoned { reason, latency, .. }) => {
                self.rset.at(&subject, [reason.as_str()]).inc();
                if let Some(latency) = latency {
                    self.rset_duration.at(&subject, []).observe(latency.as_secs_f64());
                }
            }
            What::Noop(Reasoned { reason, latency, .. }) => {
                self.noop.at(&subject, [reason.as_str()]).inc();
                if let Some(latency) = latency {
                    self.noop_duration.at(&subject, []).observe(latency.as_secs_f64());
                }
            }
            What::Data(message) => {
                for (family, handle, duration) in [
                    (&mut self.data_go_ahead, &mut handles.data_go_ahead, message.go_ahead_latency()),
                    (&mut self.data_transfer, &mut handles.data_transfer, message.transfer_time()),
                    (&mut self.data_accept, &mut handles.data_accept, message.final_reply_latency()),
                ] {
                    if let Some(duration) = duration {
                        handle.get_or_insert_with(|| family.at(&subject, [])).observe(duration.as_secs_f64());
                    }
                }
                let bytes = handles.data_bytes.get_or_insert_with(|| self.data_bytes.at(&subject, []));
                bytes.inc_by(message.size.unwrap_or_default());
            }
            What::Transaction(Transaction { outcome, .. }) => {
                let counter = &mut handles.transactions[outcome as usize];
                counter.get_or_insert_with(|| self.transactions.at(&subject, [outcome.as_str()])).inc();
            }
            What::Tls(Tls::Started(session)) => {
                let version = session.version.map_or(UNKNOWN, |version| version.as_str());
                let visible = if matches!(session.plaintext, Plaintext::Read(_)) { "true" } else { "false" };
                self.tls_sessions.at(&subject, [version, visible]).inc();
            }
            What::Tls(_) => (),
            What::Anomaly { kind, .. } => self.anomalies.at(&subject, [kind.as_str()]).inc(),
            What::Interception(interception) => {
                self.interceptions.observe(interception, &mut self.programs, self.now);
                return;
            }
        }
        if fact.process.is_some() {
            self.named(fact.connection, &subject);
        }
    }

    /// A connection counts as its first user's as soon as one is known: an accepted one has none until it is used.
    fn named(&mut self, connection: &Connection, subject: &Subject) {
        let Some(open) = self.open.get_mut(&connection.cookie) else { return };
        if open.counted {
            return;
        }
        open.counted = true;
        let connections = self.connections.at(subject, []);
        if connections.get() == 0 {
            self.begin(subject);
        }
        connections.inc();
        self.moved(connection, subject);
    }

    /// A connection counts as open no longer.
    fn over(&mut self, connection: &Connection, subject: &Subject) {
        let Some(open) = self.open.remove(&connection.cookie) else { return };
        open.gauge.dec();
        if !open.counted {
            self.connections.at(subject, []).inc();
        }
    }

    fn moved(&mut self, connection: &Connection, subject: &Subject) {
        let Some(open) = self.open.get_mut(&connection.cookie) else { return };
        if open.program != subject.program {
            open.gauge.dec();
            open.gauge = self.connections_open.at(subject, []);
            open.gauge.inc();
            open.program = Arc::clone(&subject.program);
        }
    }

    /// Sets the kernel side's own counts, each cumulative: records delivered and lost by kind, calls missed by program,
    /// bytes unseen by cause.
    pub fn set_kernel(
        &self,
        delivered: impl IntoIterator<Item = (&'static str, u64)>,
        lost: impl IntoIterator<Item = (&'static str, u64)>,
        misses: impl IntoIterator<Item = (&'static str, u64)>,
        unseen: impl IntoIterator<Item = (&'static str, u64)>,
    ) {
        set_totals(&self.kernel_events, delivered);
        set_totals(&self.kernel_events_lost, lost);
        set_totals(&self.recursion_misses, misses);
        set_totals(&self.bytes_unseen, unseen);
    }

    /// Sets whether the process that attaches probes is there. Where nobody asked for one, this is not called.
    pub fn set_tls_prober(&self, is_up: bool) {
        self.tls_prober_up.with_label_values::<&str>(&[]).set(i64::from(is_up));
    }

    /// Sets how many observations an output has dropped.
    pub fn set_dropped(&self, sink: &'static str, dropped: u64) {
        set_totals(&self.face_dropped, [(sink, dropped)]);
    }

    /// Sets how many verdicts and connections that were worth looking at later had to make way for others.
    pub fn set_history_dropped(&self, dropped: u64) {
        self.history_dropped.inc_by(dropped.saturating_sub(self.history_dropped.get()));
    }

    /// The metrics as they are now, in one of their formats.
    pub fn text(&mut self, format: Format, now: Timestamp) -> Result<String, prometheus::Error> {
        self.pass(now);
        let mut families = self.registry.gather();
        processor::refine(&mut families);
        match format {
            Format::Text => TextEncoder::new().encode_to_string(&families),
            Format::OpenMetrics => Ok(openmetrics::encode(&families)),
        }
    }
}

/// Labels that most metrics have.
const WHO: [&str; 2] = ["process", "role"];

/// Makes metrics, and registers them.
struct Definitions(Registry);

impl Definitions {
    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn histogram(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()), labels)?)
    }

    /// By program, by role and by more.
    fn counters<const N: usize>(
        &self,
        name: &str,
        help: &str,
        more: [&str; N],
    ) -> Result<Counters<N>, prometheus::Error> {
        Ok(Family::new(self.counter(name, help, &[&WHO[..], &more].concat())?, MAX_SERIES))
    }

    /// Likewise; what is more is a verb.
    fn histograms<const N: usize>(
        &self,
        name: &str,
        help: &str,
        more: [&str; N],
    ) -> Result<Histograms<N>, prometheus::Error> {
        let most = if N == 0 { MAX_HISTOGRAMS } else { MAX_VERB_HISTOGRAMS };
        Ok(Family::new(self.histogram(name, help, &[&WHO[..], &more].concat())?, most))
    }
}

fn set_totals(counters: &IntCounterVec, totals: impl IntoIterator<Item = (&'static str, u64)>) {
    for (label, total) in totals {
        let counter = counters.with_label_values(&[label]);
        counter.inc_by(total.saturating_sub(counter.get()));
    }
}
