//! Those to whom observations are told.

use crate::fact::Fact;
use crate::observation::Observation;
use crate::redact::{Addresses, RedactionPolicy};
use crate::sink::connection_table::ConnectionTable;
use crate::sink::filter::Filter;
use crate::sink::http::Viewers;
use crate::sink::metrics::Metrics;
use crate::sink::output::Output;
use crate::sink::retained::Retained;
use crate::sink::{events, trace};

/// What a line is made of.
pub(super) enum Format {
    Json,
    Text(trace::Format),
}

/// A sink that writes lines.
pub(super) struct Lines {
    pub(super) output: Output,
    pub(super) format: Format,
    pub(super) filter: Filter,
    pub(super) sink: &'static str,
}

impl Format {
    pub(super) fn write(&mut self, observation: &Observation, out: &mut Vec<u8>) {
        match self {
            Self::Json => events::write(observation, out),
            Self::Text(format) => format.write(observation, out),
        }
    }
}

impl Lines {
    fn observe(&mut self, observation: &Observation) {
        if self.filter.passes(observation) {
            self.output.line(|out| self.format.write(observation, out));
        }
    }
}

/// Those to whom everything is told.
pub(super) struct Sinks {
    /// How much is shown.
    pub(super) addresses: Addresses,
    pub(super) metrics: Option<Metrics>,
    pub(super) lines: Option<Lines>,
    pub(super) table: Option<ConnectionTable>,
    /// Those who follow the table by the status page.
    pub(super) viewers: Option<Viewers>,
}

impl Sinks {
    pub(super) fn observe(&mut self, fact: &Fact<'_>) {
        if let Some(metrics) = &mut self.metrics {
            metrics.observe(fact);
        }
        if let Some(lines) = &mut self.lines {
            lines.observe(&Observation::of(fact, RedactionPolicy::new(self.addresses)));
        }
        if let Some(table) = &mut self.table {
            table.take(Retained::of(fact, self.addresses));
        }
    }

    /// The wall clock was set forward by so many nanoseconds, or back.
    pub(super) fn set_clock(&mut self, by: i64) {
        if let Some(metrics) = &mut self.metrics {
            metrics.set_clock(by);
        }
        if let Some(table) = &mut self.table {
            table.set_clock(by);
        }
    }

    pub(super) fn flush(&mut self) {
        if let Some(lines) = &mut self.lines {
            lines.output.flush();
        }
        if let (Some(table), Some(viewers)) = (&self.table, &self.viewers) {
            viewers.tell(table.taken());
        }
    }

    /// Has files opened again by their names.
    pub(super) fn reopen(&mut self) {
        if let Some(lines) = &mut self.lines {
            lines.output.reopen();
        }
    }
}
