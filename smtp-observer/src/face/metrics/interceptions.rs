//! Programs in the middle.

use std::collections::VecDeque;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use super::series::{Labels, Programs};
use crate::observation::Interception;

/// Most interceptors that are described at once; the one that was found first makes way.
const MOST_DESCRIBED: usize = 64;

/// Bytes of an executable's path in a label.
const LONGEST_PATH: usize = 128;

/// The metrics of interceptions.
#[derive(Debug)]
pub(super) struct Interceptions {
    connections: IntCounterVec,
    hold: HistogramVec,
    info: IntGaugeVec,
    pairs: Labels<[String; 3]>,
    holders: Labels<[String; 1]>,
    described: VecDeque<[String; 5]>,
}

impl Interceptions {
    pub(super) fn new(connections: IntCounterVec, hold: HistogramVec, info: IntGaugeVec) -> Self {
        Self {
            connections,
            hold,
            info,
            pairs: Labels::new(super::MAX_SERIES),
            holders: Labels::new(super::MAX_HISTOGRAMS),
            described: VecDeque::new(),
        }
    }

    pub(super) fn observe(&mut self, interception: &Interception, programs: &mut Programs) {
        let interceptor = programs.label(interception.interceptor.as_ref()).to_string();
        let method = interception.method.as_str().to_owned();
        if interception.news.hidden {
            let client = programs.label(interception.client.process.as_ref()).to_string();
            let labels = self.pairs.admit([interceptor.clone(), client, method.clone()]);
            self.connections.with_label_values(&labels).inc();
            self.describe(interception, &interceptor, method);
        }
        if let Some(hold) = interception.hold.filter(|_| interception.news.hold) {
            let labels = self.holders.admit([interceptor]);
            self.hold.with_label_values(&labels).observe(hold.as_secs_f64());
        }
    }

    fn describe(&mut self, interception: &Interception, interceptor: &str, method: String) {
        let Some(process) = interception.interceptor.as_ref().map(|caller| &caller.process) else { return };
        let path = process.executable.as_deref().unwrap_or_default();
        let path = path[..path.floor_char_boundary(LONGEST_PATH)].to_owned();
        let labels = [interceptor.to_owned(), process.pid.to_string(), path, process.uid.to_string(), method];
        if self.described.contains(&labels) {
            return;
        }
        self.info.with_label_values(&labels).set(1);
        self.described.push_back(labels);
        if self.described.len() > MOST_DESCRIBED
            && let Some(first) = self.described.pop_front()
        {
            // It is there: it was set.
            let _ = self.info.remove_label_values(&first);
        }
    }
}
