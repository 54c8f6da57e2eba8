//! Answers to HTTP clients.

use tokio::sync::oneshot;
use tracing::warn;

use super::{Runtime, record};
use crate::kernel;
use crate::observer::Observer;
use crate::sink::connection_table::{ConnectionState, ConnectionTable};
use crate::sink::http::{Ask, Listing, MAX_LISTED, Verdicts};
use crate::sink::metrics::Format;

impl Runtime {
    /// Answers an HTTP client, with all that has happened until now.
    pub(super) fn answer(&mut self, question: Ask) {
        self.take_in();
        let observer = &self.observer;
        match (question, &self.sinks.table) {
            (Ask::Ready(to), _) => reply(to, ()),
            (Ask::Metrics(format, to), _) => self.metrics(format, to),
            (Ask::Connections(to), Some(table)) => reply(to, connections(table, observer)),
            (Ask::Connection(id, to), Some(table)) => reply(to, connection(table, observer, &id)),
            (Ask::Interceptions(to), Some(table)) => reply(to, Verdicts::of(table)),
            (Ask::Observations(seen, to), Some(table)) => reply(to, table.since(seen)),
            // Nobody is told anything, and so is told that there is no answer.
            (_, None) => (),
        }
    }

    fn metrics(&mut self, format: Format, to: oneshot::Sender<String>) {
        let Some(metrics) = &mut self.sinks.metrics else { return };
        let (kernel, observer) = (&self.kernel, &self.observer);
        metrics.set_kernel(kernel.seen().iter(), kernel.losses().iter(), kernel.misses(), observer.unseen());
        if let Some(is_up) = kernel.reads_tls() {
            metrics.set_tls_prober(is_up);
        }
        if let Some(lines) = &self.sinks.lines {
            metrics.set_dropped(lines.sink, lines.output.dropped());
        }
        if let Some(record) = &self.record {
            metrics.set_dropped(record::FACE, record.output.dropped());
        }
        if let Some(viewers) = &self.sinks.viewers {
            metrics.set_dropped("page", viewers.dropped());
        }
        if let Some(table) = &self.sinks.table {
            metrics.set_history_dropped(table.dropped());
        }
        let now = kernel::now().map_err(anyhow::Error::from);
        match now.and_then(|now| Ok(metrics.text(format, observer.timestamp(now))?)) {
            Ok(text) => reply(to, text),
            Err(error) => warn!("cannot write the metrics: {error}"),
        }
    }
}

fn connections(table: &ConnectionTable, observer: &Observer) -> Listing {
    let rows = table.heard_last(MAX_LISTED).into_iter();
    Listing {
        rows: rows.map(|row| ConnectionState { bytes: bytes(row, observer), ..row.without_transcript() }).collect(),
        total: table.len() as u64,
    }
}

fn connection(table: &ConnectionTable, observer: &Observer, id: &str) -> Option<ConnectionState> {
    table.row(id).map(|row| ConnectionState { bytes: bytes(row, observer), ..row.clone() })
}

fn bytes(row: &ConnectionState, observer: &Observer) -> Option<(u64, u64)> {
    row.bytes.or_else(|| observer.bytes(&row.connection))
}

/// Whoever asked may be gone by now.
fn reply<T>(to: oneshot::Sender<T>, answer: T) {
    let _ = to.send(answer);
}
