//! Labels and series, each of a bounded number: what comes after counts under `other`.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use prometheus::core::{MetricVec, MetricVecBuilder};

use crate::face::escape::steers;
use crate::observation::{Caller, Role, Timestamp};

/// Programs that have a label of their own.
pub const MAX_PROGRAMS: usize = 200;

/// Most bytes of a program's name in a label.
const PROGRAM_LENGTH: usize = 32;

/// The label of what is past a bound.
const OTHER: &str = "other";

/// The label of a process that is not known yet.
const UNKNOWN: &str = "unknown";

/// Verbs with a label of their own: the RFCs' and the extensions seen in use.
pub(super) const VERBS: &[&str] = &[
    "ATRN",
    "AUTH",
    "BDAT",
    "BURL",
    "DATA",
    "EHLO",
    "ETRN",
    "EXPN",
    "HELO",
    "HELP",
    "LHLO",
    "MAIL",
    "NOOP",
    "QUIT",
    "RCPT",
    "RSET",
    "SAML",
    "SEND",
    "SOML",
    "STARTTLS",
    "TURN",
    "VRFY",
    "X-ANONYMOUSTLS",
    "X-EXPS",
    "XCLIENT",
    "XEXCH50",
    "XFORWARD",
];

/// Whom an observation is about, as labels.
pub(super) struct Subject {
    pub(super) program: Arc<str>,
    pub(super) role: Role,
}

/// A metric with the labels `process` and `role` and `N` more, of a bounded number of series.
#[derive(Debug)]
pub(super) struct Family<V, M, const N: usize> {
    vec: V,
    /// The series in use, found without putting their labels together again.
    series: HashMap<(Arc<str>, Role, [&'static str; N]), M>,
    most: usize,
}

impl<B: MetricVecBuilder, const N: usize> Family<MetricVec<B>, B::M, N>
where
    B::M: Clone,
{
    pub(super) fn new(vec: MetricVec<B>, most: usize) -> Self {
        Self { vec, series: HashMap::default(), most }
    }

    /// The series with these labels, or the one of `other` programs where there are too many. Each of `more` is one of
    /// a fixed set, so `other` is bounded too.
    pub(super) fn at(&mut self, subject: &Subject, more: [&'static str; N]) -> B::M {
        let key = (Arc::clone(&subject.program), subject.role, more);
        if let Some(series) = self.series.get(&key) {
            return series.clone();
        }
        let admitted = &*subject.program != OTHER && self.series.len() < self.most;
        let mut labels = vec![if admitted { &*subject.program } else { OTHER }, subject.role.as_str()];
        labels.extend(more);
        let series = self.vec.with_label_values(&labels);
        if admitted {
            self.series.insert(key, series.clone());
        }
        series
    }

    /// Begins series at zero, so that a rate has something to start from, as far as more than half of the room is left.
    pub(super) fn begin(&mut self, subject: &Subject, more: impl ExactSizeIterator<Item = [&'static str; N]>) {
        if self.series.len() + more.len() <= self.most / 2 {
            more.for_each(|more| drop(self.at(subject, more)));
        }
    }

    /// Ends the series of these programs.
    pub(super) fn forget(&mut self, gone: &HashSet<Arc<str>>) {
        let vec = &self.vec;
        self.series.retain(|(program, role, more), _| {
            let stays = !gone.contains(program);
            if !stays {
                let mut labels = vec![&**program, role.as_str()];
                labels.extend(more);
                // It is there: it was made.
                let _ = vec.remove_label_values(&labels);
            }
            stays
        });
    }
}

/// Sets of labels, each of a bounded number of values: the first that come. What is past the bound is `other` in all.
#[derive(Debug)]
pub(super) struct Labels<K> {
    /// By their text in a row: the library takes sets for the same that do not differ in it.
    known: HashMap<String, K>,
    most: usize,
}

impl<const N: usize> Labels<[String; N]> {
    pub(super) fn new(most: usize) -> Self {
        Self { known: HashMap::default(), most }
    }

    pub(super) fn admit(&mut self, labels: [String; N]) -> [String; N] {
        let text = labels.concat();
        match self.known.get(&text) {
            Some(known) if *known == labels => labels,
            None if self.known.len() < self.most => {
                self.known.insert(text, labels.clone());
                labels
            }
            _ => [const { OTHER }; N].map(str::to_owned),
        }
    }

    /// Lets go of those whose first labels, so many, name a program that is gone, and tells which these are.
    pub(super) fn forget(&mut self, gone: &HashSet<Arc<str>>, programs: usize) -> Vec<[String; N]> {
        let names_gone = |labels: &[String; N]| labels[..programs].iter().any(|label| gone.contains(&**label));
        self.known.extract_if(|_, labels| names_gone(labels)).map(|(_, labels)| labels).collect()
    }
}

/// The programs that have a label of their own, the first that come, each with when it was last seen.
#[derive(Debug, Default)]
pub(super) struct Programs(HashMap<Arc<str>, Cell<Timestamp>>);

impl Programs {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The label of a program that is seen now.
    pub(super) fn label(&mut self, caller: Option<&Caller>, now: Timestamp) -> Arc<str> {
        let Some(caller) = caller else { return UNKNOWN.into() };
        let program = &*label(caller.process.program(), PROGRAM_LENGTH);
        if let Some((known, seen)) = self.0.get_key_value(program) {
            seen.set(now);
            return Arc::clone(known);
        }
        // The series of these two never end, whatever a program calls itself.
        if program.is_empty() || program == UNKNOWN {
            return UNKNOWN.into();
        }
        if program == OTHER {
            return OTHER.into();
        }
        if self.0.len() >= MAX_PROGRAMS {
            return OTHER.into();
        }
        let program = Arc::from(program);
        self.0.insert(Arc::clone(&program), Cell::new(now));
        program
    }

    /// Lets go of those that were not seen since then and are not in use, and tells which these are.
    pub(super) fn forget(&mut self, since: Timestamp, in_use: &HashSet<Arc<str>>) -> HashSet<Arc<str>> {
        let is_gone = |program: &Arc<str>, seen: &mut Cell<Timestamp>| seen.get() < since && !in_use.contains(program);
        self.0.extract_if(is_gone).map(|(program, _)| program).collect()
    }
}

/// What a user has named, as a label: cut to so many bytes, and without what has to be escaped or is not shown as itself.
pub(super) fn label(text: &str, longest: usize) -> Cow<'_, str> {
    let text = &text[..text.floor_char_boundary(longest)];
    let awkward = |character: char| steers(character) || matches!(character, '"' | '\\');
    if text.contains(awkward) { text.replace(awkward, "_").into() } else { text.into() }
}

pub(super) fn known_verb(verb: &str) -> &'static str {
    VERBS.iter().find(|known| **known == verb).copied().unwrap_or(OTHER)
}

pub(super) fn code_class(code: Option<u16>) -> &'static str {
    match code.map(|code| code / 100) {
        None => "none",
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(5) => "5xx",
        Some(_) => OTHER,
    }
}
