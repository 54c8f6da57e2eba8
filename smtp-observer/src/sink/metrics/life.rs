//! When series begin, and when they end.

use std::sync::Arc;
use std::time::Duration;

use super::series::{Subject, UNKNOWN};
use super::{Histograms, Metrics};
use crate::observation::{NoopReason, Outcome, RsetReason, Timestamp};

/// How long nothing is seen of a program before its series end, if it has no connection open.
pub(super) const GONE: Duration = Duration::from_secs(60 * 60);

/// How often programs that are gone are looked for.
pub(super) const LOOK: Duration = Duration::from_secs(60);

/// Commands and their replies that every session has, or is to be asked about: their series begin at zero.
const COMMON: [(&str, [&str; 3]); 7] = [
    ("EHLO", ["2xx", "4xx", "5xx"]),
    ("MAIL", ["2xx", "4xx", "5xx"]),
    ("RCPT", ["2xx", "4xx", "5xx"]),
    ("DATA", ["3xx", "4xx", "5xx"]),
    ("RSET", ["2xx", "4xx", "5xx"]),
    ("NOOP", ["2xx", "4xx", "5xx"]),
    ("QUIT", ["2xx", "4xx", "5xx"]),
];

/// Versions of TLS that are in use, and what stands for one whose handshake was not seen.
const TLS_VERSIONS: [&str; 5] = ["1.0", "1.1", "1.2", "1.3", UNKNOWN];

impl Metrics {
    /// Begins what may be counted of a program at zero: a rate needs something to start from. Not so the kinds of anomalies: most
    /// never happen to a program.
    pub(super) fn begin(&mut self, subject: &Subject) {
        let commands = COMMON.iter().flat_map(|(verb, classes)| classes.map(|class| [*verb, class]));
        self.commands.begin(subject, commands.collect::<Vec<_>>().into_iter());
        self.rset.begin(subject, RsetReason::ALL.iter().map(|reason| [reason.as_str()]));
        self.noop.begin(subject, NoopReason::ALL.iter().map(|reason| [reason.as_str()]));
        self.transactions.begin(subject, Outcome::ALL.iter().map(|outcome| [outcome.as_str()]));
        self.tls_sessions.begin(subject, TLS_VERSIONS.into_iter().map(|version| [version, "false"]));
        self.data_bytes.begin(subject, [[]].into_iter());
        for family in self.durations() {
            family.begin(subject, [[]].into_iter());
        }
    }

    /// The histograms that have no more labels than program and role.
    fn durations(&mut self) -> [&mut Histograms<0>; 5] {
        [
            &mut self.rset_duration,
            &mut self.noop_duration,
            &mut self.data_go_ahead,
            &mut self.data_transfer,
            &mut self.data_accept,
        ]
    }

    /// The clock was set forward by so many nanoseconds, or back: what is so long ago stays so long ago.
    pub fn set_clock(&mut self, by: i64) {
        for time in [&mut self.now, &mut self.looked] {
            *time = time.by_clock(by);
        }
        self.programs.set_clock(by);
        self.interceptions.set_clock(by);
    }

    /// It is now at least so late: lets go of programs that are gone.
    pub(super) fn pass(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        if self.now < self.looked.after(LOOK) {
            return;
        }
        self.looked = self.now;
        let since = self.now.before(GONE);
        let in_use = self.open.values().map(|open| Arc::clone(&open.program)).collect();
        let gone = self.programs.forget(since, &in_use);
        self.interceptions.forget(since, &gone);
        if gone.is_empty() {
            return;
        }
        self.programs.let_go_of_handles();
        self.connections.forget(&gone);
        self.connections_open.forget(&gone);
        self.commands.forget(&gone);
        self.command_duration.forget(&gone);
        self.data_bytes.forget(&gone);
        for family in self.durations() {
            family.forget(&gone);
        }
        for family in [&mut self.rset, &mut self.noop, &mut self.transactions, &mut self.anomalies] {
            family.forget(&gone);
        }
        self.tls_sessions.forget(&gone);
    }
}
