//! Which connections are shown.

use super::why::ProxyProcesses;
use crate::sink::connection_table::{ConnectionState, Note, interception};

/// Most characters of a filter.
const LONGEST: usize = 64;

/// Words, all of which a connection has to match; an empty filter lets everything through.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    text: String,
}

impl Filter {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.trim().is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
    }

    pub(super) fn push(&mut self, character: char) {
        if self.text.chars().count() < LONGEST && !character.is_control() {
            self.text.push(character);
        }
    }

    pub(super) fn pop(&mut self) {
        self.text.pop();
    }

    /// Whether the connection has all the words in its program, user, addresses, pid, role, state, last verb and code,
    /// reason or verdict, whatever their case.
    pub(super) fn admits(&self, row: &ConnectionState, proxies: &ProxyProcesses<'_>) -> bool {
        self.text.split_whitespace().all(|word| matches(row, proxies, word))
    }
}

fn matches(row: &ConnectionState, proxies: &ProxyProcesses<'_>, word: &str) -> bool {
    let has = |text: &str| contains(text, word);
    let process = row.owner.as_ref().map(|owner| &*owner.process);
    let found = row.interception.as_deref().and_then(interception);
    let interceptor = found.and_then(|found| found.interceptor.as_ref()).map(|caller| &*caller.process);
    let last = row.last();
    let last = last.as_ref();
    let names = [
        process.map(|process| process.program()),
        process.map(|process| &*process.name),
        process.and_then(|process| process.user.as_deref()),
        interceptor.map(|process| process.program()),
        found.map(|found| found.verdict.as_str()),
        found.map(|found| found.method.as_str()),
        row.note.map(Note::as_str),
        last.and_then(|last| last.verb.as_deref()),
        Some(row.connection.role.as_str()),
        Some(row.state.as_str()),
        row.intercepted.then_some("intercepted"),
        proxies.owns(row).then_some("interceptor"),
    ];
    // What has to be written out first comes last.
    names.into_iter().flatten().any(has)
        || process.is_some_and(|process| has(&process.pid.to_string()))
        || interceptor.is_some_and(|process| has(&process.pid.to_string()))
        || last.and_then(|last| last.code).is_some_and(|code| has(&code.to_string()))
        || has(&row.connection.remote.to_string())
        || has(&row.connection.local.to_string())
}

fn contains(text: &str, word: &str) -> bool {
    let (text, word) = (text.as_bytes(), word.as_bytes());
    word.is_empty() || text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}
