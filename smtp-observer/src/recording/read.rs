//! Reading a recording: whatever is in the file, its entries in their order or a sentence.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _};

use super::{Header, Line, NAME, VERSION};
use crate::event::KernelEvent;
use crate::recorder::Entry;

/// Bytes that a line may have: more than a host's list of open sockets.
const LONGEST_LINE: u64 = 256 << 20;

/// Bytes that the first line may have.
const LONGEST_HEADER: u64 = 1 << 20;

/// A recording cannot be read, or not to its end. A sentence that begins with the file's name.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is something else.
    #[error("is no recording: {0}. Make one with smtp-observer run --record FILE.")]
    Foreign(&'static str),
    /// It has a form that is not known here.
    #[error(
        "is of version {version}, made by smtp-observer {agent}, which is newer than this one: replay it with that."
    )]
    Newer {
        /// The form's version.
        version: u32,
        /// The version that wrote it.
        agent: String,
    },
    /// It has a form that is not known any more.
    #[error(
        "is of version {version}, made by smtp-observer {agent}, which is older than this one: replay it with that."
    )]
    Older {
        /// The form's version.
        version: u32,
        /// The version that wrote it.
        agent: String,
    },
    /// A line is not what the agent wrote.
    #[error("is damaged in line {line}: {what}. What was before is as it was recorded.")]
    Damaged {
        /// Which line.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// It cannot be read at all.
    #[error("cannot be read: {0}.")]
    Io(#[from] io::Error),
}

/// What is known of any version's header.
#[derive(serde::Deserialize)]
struct AnyHeader {
    recording: String,
    version: u32,
    agent: String,
}

/// Reads the header.
pub fn open<R: BufRead>(mut from: R) -> Result<(Header, Entries<R>), ReadError> {
    let mut line = Vec::new();
    from.by_ref().take(LONGEST_HEADER).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(ReadError::Foreign("it is empty"));
    }
    let any: AnyHeader = match (line.last(), serde_json::from_slice(&line)) {
        (Some(b'\n'), Ok(any)) => any,
        _ => return Err(ReadError::Foreign("it does not begin like one")),
    };
    if any.recording != NAME {
        return Err(ReadError::Foreign("it does not begin like one"));
    }
    match any.version {
        VERSION => {}
        newer @ VERSION.. => return Err(ReadError::Newer { version: newer, agent: any.agent }),
        version => return Err(ReadError::Older { version, agent: any.agent }),
    }
    let header = serde_json::from_slice(&line).map_err(|error| damaged(1, &error))?;
    Ok((header, Entries { from, lines: 1, next: 0, waiting: BTreeMap::new(), complete: 0, missing: 0, end: None }))
}

/// The entries of a recording, in the order of their numbers.
#[derive(Debug)]
pub struct Entries<R> {
    from: R,
    lines: u64,
    /// The number of the entry that comes next.
    next: u64,
    /// Those that came before their turn.
    waiting: BTreeMap<u64, Entry>,
    /// All with smaller numbers are there, or lost.
    complete: u64,
    missing: u64,
    end: Option<End>,
}

/// How the file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Cut,
}

impl<R: BufRead> Iterator for Entries<R> {
    type Item = Result<Entry, ReadError>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

impl<R: BufRead> Entries<R> {
    fn advance(&mut self) -> Result<Option<Entry>, ReadError> {
        loop {
            if let Some(entry) = self.waiting.remove(&self.next) {
                self.next += 1;
                return Ok(Some(entry));
            }
            match (self.waiting.first_key_value(), self.end) {
                (Some((&first, _)), end) if end.is_some() || first < self.complete => {
                    self.missing = self.missing.saturating_add(first - self.next);
                    self.next = first;
                }
                (_, Some(_)) => {
                    // What was lost last has nothing behind it.
                    self.missing = self.missing.saturating_add(self.complete.saturating_sub(self.next));
                    self.next = self.next.max(self.complete);
                    return Ok(None);
                }
                (_, None) => self.read().inspect_err(|_| self.give_up())?,
            }
        }
    }

    /// Entries so far whose numbers are in no line.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// The file ends within a line.
    pub fn is_cut(&self) -> bool {
        self.end == Some(End::Cut)
    }

    fn give_up(&mut self) {
        self.waiting.clear();
        self.end = Some(End::Whole);
    }

    fn read(&mut self) -> Result<(), ReadError> {
        let mut line = Vec::new();
        self.from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        self.lines += 1;
        match line.last() {
            None => self.end = Some(End::Whole),
            Some(b'\n') => {
                let line = serde_json::from_slice(&line).map_err(|error| damaged(self.lines, &error))?;
                self.take(line)?;
            }
            // The agent did not come to write the rest.
            Some(_) => self.end = Some(End::Cut),
        }
        Ok(())
    }

    fn take(&mut self, line: Line<KernelEvent<'static>>) -> Result<(), ReadError> {
        let (number, entry) = match line {
            Line::Event(number, event) => (number, Entry::Event(event)),
            Line::Settled(number, time) => (number, Entry::Settled(time)),
            Line::Lost { before } => {
                self.complete = self.complete.max(before);
                return Ok(());
            }
        };
        if number < self.next || self.waiting.insert(number, entry).is_some() {
            let what = format!("number {number} is there twice");
            return Err(ReadError::Damaged { line: self.lines, what });
        }
        Ok(())
    }
}

fn damaged(line: u64, error: &serde_json::Error) -> ReadError {
    let text = error.to_string();
    // Each is a line of its own.
    let what = text.split(" at line ").next().unwrap_or_default().to_owned();
    ReadError::Damaged { line, what }
}
