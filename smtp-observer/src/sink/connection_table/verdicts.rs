//! The latest verdicts, one a client's connection.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashMap;

use super::interception;
use super::kept::Class;
use crate::observation::{Observation, Verdict};
use crate::sink::retained;

/// Most of them.
pub const MAX_INTERCEPTIONS: usize = 256;

/// Bytes of all of them.
pub const MAX_VERDICT_BYTES: usize = 512 << 10;

/// Verdicts by their turn.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    kept: BTreeMap<u64, Arc<Observation>>,
    /// The turn of a client's connection's.
    turns: HashMap<Arc<str>, u64>,
    kinds: Vec<Kind>,
    next: u64,
    bytes: usize,
}

/// The verdicts of a class and an interceptor's program.
#[derive(Clone, Debug)]
struct Kind {
    class: Class,
    program: Option<Box<str>>,
    turns: BTreeSet<u64>,
}

impl Verdicts {
    /// The latest one last. Each is an interception.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Observation>> {
        self.kept.values()
    }

    /// Bytes of all of them.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps the latest one of a client's connection. Beyond the bounds the oldest are let go of the kind that most are of: how
    /// many.
    pub fn insert(&mut self, verdict: Arc<Observation>) -> u64 {
        let client = &verdict.connection.id;
        self.remove(client);
        let turn = self.next;
        self.next += 1;
        self.bytes += retained::cost(&verdict.event);
        self.turns.insert(Arc::clone(client), turn);
        let (class, program) = kind(&verdict);
        match self.kinds.iter_mut().find(|kind| kind.is(class, program)) {
            Some(kind) => drop(kind.turns.insert(turn)),
            None => self.kinds.push(Kind { class, program: program.map(Into::into), turns: [turn].into() }),
        }
        self.kept.insert(turn, verdict);
        let mut dropped = 0;
        while (self.kept.len() > MAX_INTERCEPTIONS || self.bytes > MAX_VERDICT_BYTES)
            && let Some(turn) = self.oldest_of_most()
        {
            self.let_go(turn);
            dropped += 1;
        }
        dropped
    }

    /// A client's connection has none any more.
    pub fn remove(&mut self, client: &str) {
        if let Some(&turn) = self.turns.get(client) {
            self.let_go(turn);
        }
    }

    fn let_go(&mut self, turn: u64) {
        let Some(gone) = self.kept.remove(&turn) else { return };
        self.bytes -= retained::cost(&gone.event);
        self.turns.remove(&gone.connection.id);
        let (class, program) = kind(&gone);
        self.kinds.retain_mut(|kind| {
            if kind.is(class, program) {
                kind.turns.remove(&turn);
            }
            !kind.turns.is_empty()
        });
    }

    fn oldest_of_most(&self) -> Option<u64> {
        let oldest = |kind: &Kind| kind.turns.first().copied();
        let most = self.kinds.iter().max_by_key(|kind| (kind.turns.len(), Reverse(oldest(kind))));
        most.and_then(oldest)
    }
}

impl Kind {
    fn is(&self, class: Class, program: Option<&str>) -> bool {
        self.class == class && self.program.as_deref() == program
    }
}

fn kind(verdict: &Observation) -> (Class, Option<&str>) {
    let found = interception(verdict);
    let program = found.and_then(|found| found.interceptor.as_ref()).map(|caller| caller.process.program());
    (found.map_or(Class::Ordinary, |found| class(found.verdict)), program)
}

/// How long a connection with a verdict is worth to be kept.
pub fn class(verdict: Verdict) -> Class {
    match verdict {
        Verdict::Direct => Class::Ordinary,
        Verdict::InlineProxy | Verdict::Relay | Verdict::Redirected => Class::Proxied,
        _ => Class::Intercepted,
    }
}
