//! What every kernel is expected to allow, and what was found: the table.

use std::time::Duration;

use super::Suite;
use super::console::{Hooks, Outcome, Row, Transcript};
use crate::test::Count;

/// The hook families that a suite's kernel has: whatever else is found there is a failure.
fn expected(suite: Suite) -> &'static [Hooks] {
    match suite {
        // Lacks helpers that both families call.
        Suite::Bullseye => &[],
        // The tracepoints came with Linux 6.3.
        Suite::Bookworm => &[Hooks::Fentry],
        Suite::Trixie | Suite::Sid => &[Hooks::Fentry, Hooks::Tracepoint],
    }
}

/// The exit status of an agent that cannot observe here.
const REFUSES: i32 = 3;

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Table {
    lines: Vec<[String; 6]>,
    /// The sum over all guests.
    pub(super) count: Count,
    /// What is not as it should be.
    pub(super) complaints: Vec<String>,
}

impl Table {
    /// Adds a guest that came to its end.
    pub(super) fn add(&mut self, suite: Suite, transcript: &Transcript) {
        let release = transcript.release.as_deref().unwrap_or("unknown");
        for row in &transcript.rows {
            let name = row.hooks.as_str();
            let found = match &row.outcome {
                Outcome::Tested { count, time, .. } => {
                    self.count.passed += count.passed;
                    self.count.failed += count.failed;
                    [count.passed.to_string(), count.failed.to_string(), seconds(*time)]
                }
                Outcome::Asked { words, .. } => [words.clone(), String::new(), String::new()],
            };
            let [first, second, third] = found;
            self.lines.push([suite.name().into(), release.into(), name.into(), first, second, third]);
            if let Some(complaint) = complaint(suite, row) {
                // A test that failed is counted already.
                self.count.failed +=
                    u64::from(!matches!(&row.outcome, Outcome::Tested { count, .. } if count.failed > 0));
                self.complaints.push(format!("{} with {name} hooks: {complaint}", suite.name()));
            }
        }
    }

    /// Adds a guest that did not come to its end, as one failure.
    pub(super) fn add_broken(&mut self, suite: Suite, problem: &str) {
        self.count.failed += 1;
        self.complaints.push(format!("{}: {problem}", suite.name()));
    }

    /// The table, under its heading.
    pub(super) fn show(&self) -> String {
        let heading = ["suite", "kernel", "hooks", "passed", "failed", "seconds"].map(str::to_owned);
        let lines: Vec<&[String; 6]> = [&heading].into_iter().chain(&self.lines).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2)];
        lines
            .iter()
            .map(|[suite, kernel, hooks, first, second, third]| {
                let [suite_width, kernel_width, hooks_width] = widths;
                let left = format!("{suite:suite_width$}  {kernel:kernel_width$}  {hooks:hooks_width$}");
                // A refusal is a sentence across the columns of numbers.
                let right =
                    if third.is_empty() { first.clone() } else { format!("{first:>6}  {second:>6}  {third:>7}") };
                format!("{left}  {right}\n")
            })
            .collect()
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

/// What is not as it should be, if anything is.
fn complaint(suite: Suite, Row { hooks, outcome }: &Row) -> Option<String> {
    match (outcome, expected(suite).contains(hooks)) {
        (Outcome::Tested { failed, .. }, true) if !failed.is_empty() => Some(format!("{} failed", failed.join(", "))),
        (Outcome::Tested { count: Count { passed: 0, .. }, .. }, true) => Some("no test was run".into()),
        (Outcome::Tested { count: Count { ignored: 1.., .. }, .. }, true) => Some("tests were ignored".into()),
        (Outcome::Tested { .. }, true) => None,
        (Outcome::Tested { .. }, false) => Some("they are there, which was not expected".into()),
        (Outcome::Asked { words, .. }, true) => Some(format!("they should be there: {words}")),
        (Outcome::Asked { status: Some(REFUSES), words }, false) if is_a_sentence(words) => None,
        (Outcome::Asked { status: Some(REFUSES), words }, false) => {
            Some(format!("the refusal is not one sentence: {words}"))
        }
        (Outcome::Asked { status, words }, false) => {
            Some(format!("exit status {REFUSES} was expected, not {status:?}: {words}"))
        }
    }
}

fn is_a_sentence(words: &str) -> bool {
    words.lines().count() == 1 && words.ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tested(passed: u64, failed: u64) -> Outcome {
        let programs = if failed > 0 { vec!["protocol".to_owned()] } else { Vec::new() };
        Outcome::Tested {
            count: Count { passed, failed, ignored: 0 },
            time: Duration::from_millis(1500),
            failed: programs,
        }
    }

    fn asked(status: i32, words: &str) -> Outcome {
        Outcome::Asked { status: Some(status), words: words.into() }
    }

    fn table(suite: Suite, rows: &[(Hooks, Outcome)]) -> Table {
        let rows = rows.iter().map(|(hooks, outcome)| Row { hooks: *hooks, outcome: outcome.clone() });
        let mut transcript = Transcript::default();
        transcript.release = Some("6.1".into());
        transcript.rows = rows.collect();
        let mut table = Table::default();
        table.add(suite, &transcript);
        table
    }

    #[test]
    fn what_was_expected_is_shown_and_counted() {
        let words = "the kernel is too old.";
        let table = table(Suite::Bookworm, &[(Hooks::Fentry, tested(20, 0)), (Hooks::Tracepoint, asked(3, words))]);
        assert!(table.complaints.is_empty(), "{:?}", table.complaints);
        assert_eq!((table.count.passed, table.count.failed), (20, 0));
        let shown = table.show();
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(
            lines,
            [
                "suite     kernel  hooks       passed  failed  seconds",
                "bookworm  6.1     fentry          20       0      1.5",
                "bookworm  6.1     tracepoint  the kernel is too old.",
            ]
        );
    }

    #[test]
    fn failed_tests_are_counted_once() {
        let table = table(Suite::Sid, &[(Hooks::Fentry, tested(18, 2)), (Hooks::Tracepoint, tested(20, 0))]);
        assert_eq!((table.count.passed, table.count.failed), (38, 2));
        assert_eq!(table.complaints, ["sid with fentry hooks: protocol failed"]);
    }

    #[test]
    fn whatever_was_not_expected_is_a_failure() {
        let failures = [
            (Suite::Bookworm, Hooks::Tracepoint, tested(20, 0), "not expected"),
            (Suite::Sid, Hooks::Fentry, asked(3, "no fentry hooks."), "should be there: no fentry hooks."),
            (Suite::Sid, Hooks::Fentry, tested(0, 0), "no test"),
            (Suite::Bullseye, Hooks::Auto, asked(0, ""), "exit status 3"),
            (Suite::Bullseye, Hooks::Auto, asked(3, "cannot observe.\nReally."), "not one sentence"),
        ];
        for (suite, hooks, outcome, words) in failures {
            let table = table(suite, &[(hooks, outcome)]);
            assert_eq!(table.count.failed, 1);
            assert!(table.complaints.iter().all(|complaint| complaint.contains(words)), "{:?}", table.complaints);
            assert_eq!(table.complaints.len(), 1);
        }
    }

    #[test]
    fn a_guest_without_an_end_is_a_failure() {
        let mut table = Table::default();
        table.add_broken(Suite::Sid, "kernel panic");
        assert_eq!(table.count.failed, 1);
        assert_eq!(table.complaints, ["sid: kernel panic"]);
    }
}
