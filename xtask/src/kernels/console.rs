//! What a guest says on its serial console: reports of [`init`](super::init), among the output of the tests and the
//! kernel's own messages.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::test::Count;

/// Stands before every report.
const MARK: &str = "@guest ";

/// What the agent is told with `--hooks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Hooks {
    /// Entry and exit of kernel functions.
    Fentry,
    /// Tracepoints of the socket layer.
    Tracepoint,
    /// Whatever the kernel has: asked for only where it has nothing.
    #[value(skip)]
    Auto,
}

impl Hooks {
    /// The families.
    pub(crate) const FAMILIES: [Self; 2] = [Self::Fentry, Self::Tracepoint];

    /// The agent's own name for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Tracepoint => "tracepoint",
            Self::Auto => "auto",
        }
    }
}

/// One report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// The guest is up.
    Booted {
        /// The kernel's release.
        release: String,
    },
    /// A test program starts.
    Started {
        /// The hooks it is to use.
        hooks: Hooks,
        /// Its name.
        program: String,
    },
    /// It has ended.
    Ended {
        /// It succeeded.
        success: bool,
        /// How long it took.
        seconds: f64,
    },
    /// The agent was asked for hooks that its `check` does not offer.
    Asked {
        /// Which.
        hooks: Hooks,
        /// How the agent ended; `None` for a signal.
        status: Option<i32>,
        /// What it said.
        words: String,
    },
    /// The guest itself could not do its work.
    Failed {
        /// Why.
        reason: String,
    },
    /// All is said.
    Done,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A line of its own, whatever was said before.
        write!(f, "\n{MARK}{}", serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Report {
    /// The report in a line of the console, if it holds one.
    fn find(line: &str) -> Option<Result<Self>> {
        let (_, json) = line.split_once(MARK)?;
        Some(serde_json::from_str(json.trim_end()).with_context(|| format!("a report of the guest is garbled: {line}")))
    }
}

/// What became of one choice of hooks on one kernel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// The choice.
    pub(super) hooks: Hooks,
    /// What became of it.
    pub(super) outcome: Outcome,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// The tests were run.
    Tested {
        /// Their results.
        count: Count,
        /// How long they took.
        time: Duration,
        /// The programs that failed.
        failed: Vec<String>,
    },
    /// The agent was asked for them although its `check` does not offer them.
    Asked {
        /// How the agent ended.
        status: Option<i32>,
        /// What it said.
        words: String,
    },
}

/// All that a guest has said.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Transcript {
    /// The kernel's release.
    pub(super) release: Option<String>,
    /// What became of each choice of hooks.
    pub(super) rows: Vec<Row>,
    /// The test program that is running.
    pub(super) running: Option<String>,
    /// The guest came to its end.
    pub(super) done: bool,
    /// What the test program that is running has said of its results.
    said: Count,
}

impl Transcript {
    /// Takes the next line; fails where the guest says that it cannot go on, or cannot be understood.
    pub(super) fn add(&mut self, line: &str) -> Result<()> {
        let Some(report) = Report::find(line) else {
            self.said.add(line);
            return Ok(());
        };
        match report? {
            Report::Booted { release } => self.release = Some(release),
            Report::Started { hooks, program } => {
                if self.rows.last().is_none_or(|row| row.hooks != hooks) {
                    let outcome = Outcome::Tested { count: Count::default(), time: Duration::ZERO, failed: Vec::new() };
                    self.rows.push(Row { hooks, outcome });
                }
                self.running = Some(program);
                self.said = Count::default();
            }
            Report::Ended { success, seconds } => {
                let program = self.running.take().context("a test program ended that never started")?;
                self.end(program, success, Duration::try_from_secs_f64(seconds)?);
            }
            Report::Asked { hooks, status, words } => {
                self.rows.push(Row { hooks, outcome: Outcome::Asked { status, words } });
            }
            Report::Failed { reason } => anyhow::bail!("{reason}"),
            Report::Done => self.done = true,
        }
        Ok(())
    }

    fn end(&mut self, program: String, success: bool, took: Duration) {
        let said = std::mem::take(&mut self.said);
        let Some(Row { outcome: Outcome::Tested { count, time, failed }, .. }) = self.rows.last_mut() else { return };
        count.passed += said.passed;
        count.failed += said.failed;
        count.ignored += said.ignored;
        *time += took;
        if !success {
            // A program that broke off says nothing of its results.
            count.failed += u64::from(said.failed == 0);
            failed.push(program);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(reports: &[&str]) -> Result<Transcript> {
        let mut transcript = Transcript::default();
        reports.iter().flat_map(|report| report.lines()).try_for_each(|line| transcript.add(line))?;
        Ok(transcript)
    }

    fn started(hooks: Hooks, program: &str) -> String {
        Report::Started { hooks, program: program.into() }.to_string()
    }

    fn ended(success: bool, seconds: f64) -> String {
        Report::Ended { success, seconds }.to_string()
    }

    const FINE: &str = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s";
    const BAD: &str = "test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1s";

    #[test]
    fn results_are_summed_by_hooks() -> Result<()> {
        let transcript = transcript(&[
            "[    0.1] Linux version",
            &Report::Booted { release: "6.12.1".into() }.to_string(),
            &started(Hooks::Fentry, "content"),
            "running 3 tests\r",
            &format!("{FINE}\r"),
            &ended(true, 1.5),
            &started(Hooks::Fentry, "protocol"),
            BAD,
            &ended(false, 2.0),
            &started(Hooks::Tracepoint, "content"),
            FINE,
            &ended(true, 1.0),
            &Report::Done.to_string(),
        ])?;
        assert_eq!(transcript.release.as_deref(), Some("6.12.1"));
        assert!(transcript.done);
        let tested = |passed, failed, ignored, time, programs: &[&str]| Outcome::Tested {
            count: Count { passed, failed, ignored },
            time: Duration::from_secs_f64(time),
            failed: programs.iter().map(|&program| program.into()).collect(),
        };
        let rows = [
            Row { hooks: Hooks::Fentry, outcome: tested(4, 2, 1, 3.5, &["protocol"]) },
            Row { hooks: Hooks::Tracepoint, outcome: tested(3, 0, 0, 1.0, &[]) },
        ];
        assert_eq!(transcript.rows, rows);
        Ok(())
    }

    #[test]
    fn a_program_that_breaks_off_has_failed_once() -> Result<()> {
        let transcript = transcript(&[&started(Hooks::Fentry, "content"), "running 3 tests", &ended(false, 0.5)])?;
        let [Row { outcome: Outcome::Tested { count, failed, .. }, .. }] = &transcript.rows[..] else {
            panic!("{transcript:?}")
        };
        assert_eq!((count.passed, count.failed), (0, 1));
        assert_eq!(failed, &["content"]);
        assert!(!transcript.done);
        Ok(())
    }

    #[test]
    fn a_guest_that_hangs_names_its_test_program() -> Result<()> {
        assert_eq!(transcript(&[&started(Hooks::Fentry, "content"), FINE])?.running.as_deref(), Some("content"));
        Ok(())
    }

    #[test]
    fn a_refusal_keeps_its_sentence() -> Result<()> {
        let words = "this kernel is \"too old\":\nuse another".to_owned();
        let asked = Report::Asked { hooks: Hooks::Auto, status: Some(3), words: words.clone() }.to_string();
        assert_eq!(asked.lines().count(), 2, "one empty line, one report");
        let row = Row { hooks: Hooks::Auto, outcome: Outcome::Asked { status: Some(3), words } };
        assert_eq!(transcript(&[&asked])?.rows, [row]);
        Ok(())
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        assert!(transcript(&["@guest {\"end"]).is_err_and(|error| error.to_string().contains("garbled")));
        assert!(transcript(&[&ended(true, 1.0)]).is_err());
        let reason = "no /proc".to_owned();
        assert!(
            transcript(&[&Report::Failed { reason }.to_string()]).is_err_and(|error| error.to_string() == "no /proc")
        );
    }
}
