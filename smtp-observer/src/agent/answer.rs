//! Answers to HTTP clients.

use tokio::sync::oneshot;
use tracing::warn;

use super::{Page, Session, record};
use crate::face::board::Row;
use crate::face::http::{Ask, Listing, MOST_LISTED};
use crate::observer::Observer;

impl Session {
    /// Answers an HTTP client, with all that has happened until now.
    pub(super) fn answer(&mut self, question: Ask) {
        self.take_in();
        let observer = &self.observer;
        match (question, &self.faces.page) {
            (Ask::Ready(to), _) => reply(to, ()),
            (Ask::Metrics(to), _) => self.metrics(to),
            (Ask::Connections(to), Some(page)) => reply(to, page.connections(observer)),
            (Ask::Connection(id, to), Some(page)) => reply(to, page.connection(observer, &id)),
            (Ask::Interceptions(to), Some(page)) => reply(to, page.board.interceptions().cloned().collect()),
            (Ask::Observations(seen, to), Some(page)) => reply(to, page.board.since(seen)),
            // Nobody is told anything, and so is told that there is no answer.
            (_, None) => (),
        }
    }

    fn metrics(&self, to: oneshot::Sender<String>) {
        let Some(metrics) = &self.faces.metrics else { return };
        let (kernel, observer) = (&self.kernel, &self.observer);
        metrics.set_kernel(kernel.seen().iter(), kernel.losses().iter(), kernel.misses(), observer.unseen());
        if let Some(lines) = &self.faces.lines {
            metrics.set_dropped(lines.face, lines.output.dropped());
        }
        if let Some(record) = &self.record {
            metrics.set_dropped(record::FACE, record.output.dropped());
        }
        if let Some(page) = &self.faces.page {
            metrics.set_dropped("page", page.viewers.dropped());
        }
        match metrics.text() {
            Ok(text) => reply(to, text),
            Err(error) => warn!("cannot write the metrics: {error}"),
        }
    }
}

impl Page {
    fn connections(&self, observer: &Observer) -> Listing {
        let rows = self.board.heard_last(MOST_LISTED).into_iter();
        Listing {
            rows: rows.map(|row| Row { bytes: bytes(row, observer), ..row.without_transcript() }).collect(),
            total: self.board.rows().len() as u64,
        }
    }

    fn connection(&self, observer: &Observer, id: &str) -> Option<Row> {
        self.board.row(id).map(|row| Row { bytes: bytes(row, observer), ..row.clone() })
    }
}

fn bytes(row: &Row, observer: &Observer) -> Option<(u64, u64)> {
    row.bytes.or_else(|| observer.bytes(&row.connection))
}

/// Whoever asked may be gone by now.
fn reply<T>(to: oneshot::Sender<T>, answer: T) {
    let _ = to.send(answer);
}
