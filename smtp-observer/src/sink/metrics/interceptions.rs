//! Programs in the middle.

use std::borrow::Cow;
use std::sync::Arc;

use foldhash::HashSet;
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use super::series::{Labels, Programs, label};
use crate::observation::{Caller, Interception, Process, Timestamp};

/// Most interceptors that are described at once; the one that was not seen for the longest time makes way.
const MAX_DESCRIBED: usize = 64;

/// Bytes of an executable's path in a label.
const LONGEST_PATH: usize = 128;

/// The metrics of interceptions.
#[derive(Debug)]
pub(super) struct Interceptions {
    connections: Labels<IntCounterVec, 3>,
    redirected: Labels<IntCounterVec, 3>,
    hold: Labels<HistogramVec, 1>,
    info: IntGaugeVec,
    described: Vec<Described>,
}

/// A process in the middle, as it is in `smtp_interceptor_info`.
#[derive(Debug)]
struct Described {
    labels: [String; 5],
    pid: u32,
    /// Conversations that it is told to be in the middle of.
    conversations: u64,
    seen: Timestamp,
}

impl Described {
    /// The process, or one of the same program that has got its number.
    fn is_of(&self, process: &Process) -> bool {
        self.pid == process.pid && self.labels[2] == path(process)
    }
}

/// The labels of a process in the middle.
fn labels(process: &Process, interceptor: &str, method: String) -> [String; 5] {
    [interceptor.to_owned(), process.pid.to_string(), path(process).into_owned(), process.uid.to_string(), method]
}

/// The executable of a process, as a label.
fn path(process: &Process) -> Cow<'_, str> {
    label(process.executable.as_deref().unwrap_or_default(), LONGEST_PATH)
}

impl Interceptions {
    pub(super) fn new(
        connections: IntCounterVec,
        redirected: IntCounterVec,
        hold: HistogramVec,
        info: IntGaugeVec,
    ) -> Self {
        Self {
            connections: Labels::new(connections, super::MAX_SERIES),
            redirected: Labels::new(redirected, super::MAX_SERIES),
            hold: Labels::new(hold, super::MAX_HISTOGRAMS),
            info,
            described: Vec::new(),
        }
    }

    pub(super) fn observe(&mut self, interception: &Interception, programs: &mut Programs, now: Timestamp) {
        let interceptor = programs.label(interception.interceptor.as_ref(), now).to_string();
        let method = interception.method.as_str().to_owned();
        if interception.news.redirected {
            let client = programs.label(interception.client.process.as_ref(), now).to_string();
            self.redirected.at([interceptor.clone(), client, method.clone()]).inc();
        }
        if interception.news.hidden {
            let client = programs.label(interception.client.process.as_ref(), now).to_string();
            self.connections.at([interceptor.clone(), client, method.clone()]).inc();
        }
        // A relay's every mail is a verdict, and no news of this.
        let is_news = interception.news.appears || interception.news.withdrawn;
        if let Some(caller) = interception.interceptor.as_ref().filter(|_| is_news) {
            let labels = labels(&caller.process, &interceptor, method);
            match interception.news.appears {
                true => self.describe(&caller.process, labels, now),
                false => self.withdraw(&caller.process, &labels),
            }
        }
        if let Some(hold) = interception.hold.filter(|_| interception.news.hold) {
            self.hold.at([interceptor]).observe(hold.as_secs_f64());
        }
    }

    fn describe(&mut self, process: &Process, labels: [String; 5], now: Timestamp) {
        if let Some(described) = self.described.iter_mut().find(|described| described.labels == labels) {
            described.conversations += 1;
            described.seen = now;
            return;
        }
        if self.described.len() >= MAX_DESCRIBED
            && let Some(oldest) = self.described.iter().map(|described| described.seen).min()
        {
            self.keep(|described| described.seen > oldest);
        }
        self.info.with_label_values(&labels).set(1);
        self.described.push(Described { labels, pid: process.pid, conversations: 1, seen: now });
    }

    /// In one of its conversations the process is not in the middle after all.
    fn withdraw(&mut self, process: &Process, labels: &[String; 5]) {
        // It may have become another user since, or its method be known better.
        let place = self.described.iter().position(|described| described.labels == *labels);
        let place = place.or_else(|| self.described.iter().position(|described| described.is_of(process)));
        if let Some(described) = place.and_then(|place| self.described.get_mut(place)) {
            described.conversations = described.conversations.saturating_sub(1);
            self.keep(|described| described.conversations > 0);
        }
    }

    /// A process did something: it is there.
    pub(super) fn saw(&mut self, caller: &Caller, now: Timestamp) {
        for described in self.described.iter_mut().filter(|described| described.is_of(&caller.process)) {
            described.seen = now;
        }
    }

    /// The clock was set.
    pub(super) fn set_clock(&mut self, by: i64) {
        for described in &mut self.described {
            described.seen = described.seen.by_clock(by);
        }
    }

    /// Ends the series of these programs, and the descriptions of processes that were not seen since then.
    pub(super) fn forget(&mut self, since: Timestamp, gone: &HashSet<Arc<str>>) {
        self.connections.forget(gone, 2);
        self.redirected.forget(gone, 2);
        self.hold.forget(gone, 1);
        self.keep(|described| described.seen >= since);
    }

    fn keep(&mut self, is_kept: impl Fn(&Described) -> bool) {
        for described in self.described.extract_if(.., |described| !is_kept(described)) {
            let _ = self.info.remove_label_values(&described.labels);
        }
    }
}
