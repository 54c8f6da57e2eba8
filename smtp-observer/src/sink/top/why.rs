//! What a connection's line says last, and how much it asks to be looked at.

use foldhash::{HashMap, HashSet};
use std::sync::Arc;

use ratatui::style::Style;

use super::Theme;
use crate::observation::{Caller, Interception, NoopReason, Outcome, Verdict};
use crate::sink::connection_table::{ConnectionState, ConnectionTable, Note, interception};
use crate::sink::text::{self, Emphasis};

/// How much a connection asks to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// There is nothing to say.
    Silent,
    /// What happened is as it should be.
    Usual,
    /// Something is in the middle, as the client wants it.
    Known,
    /// What happened is rare.
    Unusual,
    /// A peer broke the protocol, or something may be in the middle.
    Suspicious,
    /// A program that the client knows nothing of is in the middle.
    Intercepted,
}

/// Programs that clients know nothing of, and what goes through them.
#[derive(Debug, Default)]
pub(super) struct ProxyProcesses<'a> {
    programs: HashMap<u32, &'a Caller>,
    upstreams: HashSet<&'a str>,
}

impl<'a> ProxyProcesses<'a> {
    pub(super) fn of(table: &'a ConnectionTable) -> Self {
        let mut proxies = Self::default();
        for found in hidden(table) {
            if let Some(interceptor) = &found.interceptor {
                proxies.programs.insert(interceptor.process.pid, interceptor);
            }
            if let Some(upstream) = &found.upstream {
                proxies.upstreams.insert(&upstream.connection_id);
            }
        }
        proxies
    }

    /// Each program once, by pid.
    pub(super) fn programs(&self) -> Vec<&'a Caller> {
        let mut programs: Vec<_> = self.programs.values().copied().collect();
        programs.sort_unstable_by_key(|program| program.process.pid);
        programs
    }

    /// Whether the connection is one of such a program's own.
    pub(super) fn owns(&self, row: &ConnectionState) -> bool {
        self.upstreams.contains(&*row.connection.id)
            || row.owner.as_ref().is_some_and(|owner| {
                let known = self.programs.get(&owner.process.pid);
                known.is_some_and(|program| {
                    Arc::ptr_eq(&program.process, &owner.process)
                        || program.process.executable == owner.process.executable
                })
            })
    }

    /// How much the connection asks to be looked at.
    pub(super) fn level(&self, row: &ConnectionState) -> Level {
        let verdict = match row.verdict() {
            Some(verdict) if verdict.is_hidden() => Level::Intercepted,
            Some(Verdict::SuspectedMiddlebox) => Level::Suspicious,
            Some(Verdict::InlineProxy | Verdict::Relay | Verdict::Redirected) => Level::Known,
            _ if row.intercepted || self.owns(row) => Level::Intercepted,
            _ => Level::Silent,
        };
        verdict.max(row.note.map_or(Level::Silent, note_level))
    }

    /// What its line says last where there is room for so much, and how it looks.
    pub(super) fn why(&self, row: &ConnectionState, theme: Theme, width: usize) -> (String, Style) {
        let emphasis = match (self.level(row), row.note) {
            (Level::Intercepted, _) | (Level::Suspicious, Some(Note::Anomaly(_))) => Emphasis::Alert,
            (Level::Suspicious | Level::Unusual, _) => Emphasis::Notice,
            (Level::Known, _) => Emphasis::Progress,
            (Level::Usual, Some(Note::Transaction(Outcome::Delivered))) => Emphasis::Good,
            (Level::Usual, Some(Note::Transaction(Outcome::Rejected))) => Emphasis::Warning,
            (Level::Usual | Level::Silent, _) => Emphasis::Plain,
        };
        (self.text(row, width), theme.of(emphasis))
    }

    fn text(&self, row: &ConnectionState, width: usize) -> String {
        let note = row.note.map(Note::as_str);
        if let Some(found) = row.interception.as_deref().and_then(interception) {
            let verdict = found.verdict.as_str();
            let whole = found.interceptor.as_ref().map(|program| format!("{verdict} {}", text::program(program)));
            return whole.filter(|whole| whole.chars().count() <= width).unwrap_or_else(|| verdict.to_owned());
        }
        let mark = match (self.owns(row), row.intercepted) {
            (true, _) => "interceptor",
            (false, true) => "intercepted",
            (false, false) => return note.unwrap_or_default().to_owned(),
        };
        match note {
            // Its name says so.
            Some(note) if note.starts_with("interceptor") => note.to_owned(),
            Some(note) => format!("{mark}, {note}"),
            None => mark.to_owned(),
        }
    }
}

/// What is in the middle without the client's knowledge.
pub(super) fn hidden(table: &ConnectionTable) -> impl Iterator<Item = &Interception> {
    table.interceptions().filter_map(|found| interception(found)).filter(|found| found.verdict.is_hidden())
}

fn note_level(note: Note) -> Level {
    match note {
        Note::Anomaly(_) => Level::Suspicious,
        note if note.is_serious() => Level::Intercepted,
        Note::Rset(reason) if !reason.is_usual() => Level::Unusual,
        Note::Noop(NoopReason::Excessive | NoopReason::Verification | NoopReason::Ambiguous) => Level::Unusual,
        Note::Rset(_) | Note::Noop(_) | Note::Transaction(_) => Level::Usual,
    }
}
