//! Where log lines go: to the journal with their fields, where standard error leads there; else to standard error, but not
//! into a screen that is being drawn there.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

/// What the names of the agent's own fields begin with in the journal.
const FIELDS: &str = "SMTP_OBSERVER";

/// What the entries there are found by, whatever the executable is called.
const IDENTIFIER: &str = "smtp-observer";

/// The log, once it is started.
static STARTED: OnceLock<Started> = OnceLock::new();

struct Started {
    levels: reload::Handle<Targets, Registry>,
    is_in_journal: bool,
}

/// Starts the log. Only once.
pub fn start(level: LevelFilter, colour: bool) {
    let journal = leads_to_journal().then(tracing_journald::layer).and_then(Result::ok);
    let is_in_journal = journal.is_some();
    let lines = (!is_in_journal).then(|| {
        tracing_subscriber::fmt::layer()
            .with_ansi(colour)
            .with_target(false)
            // Fields are for machines; the sentence says it all.
            .fmt_fields(format::debug_fn(|writer, field, value| match field.name() {
                "message" => write!(writer, "{value:?}"),
                _ => Ok(()),
            }))
            // Standard error may be closed; that is no reason to end.
            .log_internal_errors(false)
            .with_writer(|| Log)
    });
    let journal =
        journal.map(|layer| layer.with_field_prefix(Some(FIELDS.into())).with_syslog_identifier(IDENTIFIER.into()));
    let (filter, levels) = reload::Layer::new(targets(level));
    tracing_subscriber::registry().with(filter).with(journal).with(lines).init();
    let _ = STARTED.set(Started { levels, is_in_journal });
}

/// Changes how much is logged.
pub fn set_level(level: LevelFilter) {
    if let Some(started) = STARTED.get() {
        // It fails only where the log is gone.
        let _ = started.levels.reload(targets(level));
    }
}

/// Whether the log is the journal.
pub fn is_in_journal() -> bool {
    STARTED.get().is_some_and(|started| started.is_in_journal)
}

/// The libraries' own chatter would bury what is asked for.
fn targets(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN.min(level))
        .with_targets(["smtp_observer", "smtp_ebpf"].map(|own| (own, level)))
}

/// Whether standard error is what the service manager has connected with the journal (`systemd.exec(5)`, `$JOURNAL_STREAM`).
fn leads_to_journal() -> bool {
    let own = || File::from(io::stderr().as_fd().try_clone_to_owned().ok()?).metadata().ok();
    let journal = std::env::var("JOURNAL_STREAM");
    journal.is_ok_and(|journal| own().is_some_and(|own| journal == format!("{}:{}", own.dev(), own.ino())))
}

/// Most bytes that are held; what comes then is left out.
const MAX_HELD: usize = 64 * 1024;

/// Lines that wait for the screen's end; none where there is no screen.
static HELD: Mutex<Option<Held>> = Mutex::new(None);

#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    lines: Vec<u8>,
    left_out: u64,
}

impl Held {
    fn push(&mut self, line: &[u8]) {
        if self.lines.len() + line.len() <= MAX_HELD {
            self.lines.extend_from_slice(line);
        } else {
            self.left_out += 1;
        }
    }

    fn write(self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.lines)?;
        if self.left_out > 0 {
            writeln!(out, "{} more lines of the log were left out", self.left_out)?;
        }
        out.flush()
    }
}

/// Standard error, for one line of the log.
#[derive(Debug)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *held() {
            Some(held) => {
                held.push(line);
                Ok(line.len())
            }
            None => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Holds what is logged, where it would be written into the screen.
pub fn hold() {
    if io::stderr().is_terminal() {
        held().get_or_insert_default();
    }
}

/// Writes what was held, and holds no more.
pub fn release() {
    let lines = held().take();
    if let Some(lines) = lines {
        // Nobody is left to be told.
        let _ = lines.write(&mut io::stderr());
    }
}

fn held() -> MutexGuard<'static, Option<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_says_so() {
        let mut held = Held::default();
        let line = [b'x'; 1000];
        for _ in 0..100 {
            held.push(&line);
        }
        let mut out = Vec::new();
        held.write(&mut out).expect("writable");
        let text = String::from_utf8(out).expect("text");
        assert!(text.len() < MAX_HELD + 100);
        assert!(text.ends_with("x35 more lines of the log were left out\n"), "{}", &text[MAX_HELD - 1000..]);
    }
}
