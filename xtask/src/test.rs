//! Runs every test and sums what the test programs say.

use std::io::{BufRead as _, BufReader, Write as _, stdout};
use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::process::{cargo_as_root, say};
use crate::{agent, kubernetes, packages, senders};

/// Runs every test against a release build of the agent; the last line on standard output is the count.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<ExitCode> {
    use packages::{BROWSER, HTTP, MAIL, MANUAL, SCENES, SENDERS, TERMINAL, TLS, UNITS};
    packages::ensure_installed(&[&SCENES, &MAIL, &TLS, &SENDERS, &MANUAL, &TERMINAL, &BROWSER, &HTTP, &UNITS])?;
    if let Err(error) = senders::ensure_unpacked(root) {
        say(&format!("{error:#}: the tests of these senders will fail"));
    }
    if let Err(error) = kubernetes::ensure_unpacked(root) {
        say(&format!("{error:#}: the tests of the chart will fail"));
    }
    let mut cargo = cargo_as_root(root)?;
    let agent = agent::build(root, true)?;
    let mut child = cargo
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(args)
        .env("SMTP_OBSERVER", agent)
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo cannot be run")?;

    let mut count = Count::default();
    let mut output = BufReader::new(child.stdout.take().context("no pipe from cargo")?);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        count.add(&String::from_utf8_lossy(&line));
        stdout().write_all(&line)?;
        line.clear();
    }
    let success = child.wait()?.success();

    if count.ignored > 0 {
        say(&format!("{} tests were ignored", count.ignored));
    }
    let complaint = count.complaint(success);
    if let Some(complaint) = complaint {
        say(complaint);
    }
    println!("{} passed, {} failed", count.passed, count.failures(success));
    Ok(if complaint.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The sum over all test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Tests that held.
    pub(crate) passed: u64,
    /// Tests that did not.
    pub(crate) failed: u64,
    /// Tests that were not run.
    pub(crate) ignored: u64,
}

impl Count {
    /// Adds what a test program says in its line of results; other lines say nothing.
    pub(crate) fn add(&mut self, line: &str) {
        let Some((_, results)) = line.split_once("test result: ") else { return };
        for result in results.split([';', '.']) {
            let Some((number, what)) = result.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Tests that failed; a program that broke off counts none of its own, and is one.
    fn failures(&self, success: bool) -> u64 {
        self.failed.max(u64::from(!success))
    }

    /// What is wrong, if anything is.
    fn complaint(&self, success: bool) -> Option<&'static str> {
        match self {
            Self { failed: 1.., .. } => Some("some tests failed: see above"),
            _ if !success => Some("the tests did not build, or one of their programs broke off: see above"),
            Self { passed: 0, .. } => Some("no test was run"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str =
        "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.05s\n";
    const BAD: &str =
        "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.25s\n";

    fn sum(lines: &[&str]) -> Count {
        let mut count = Count::default();
        lines.iter().for_each(|line| count.add(line));
        count
    }

    #[test]
    fn results_of_all_programs_are_summed() {
        let count = sum(&["running 12 tests\n", FINE, "test a::b ... ok\n", BAD, ""]);
        assert_eq!(count, Count { passed: 14, failed: 1, ignored: 1 });
    }

    #[test]
    fn a_program_that_broke_off_is_a_failure() {
        assert_eq!([true, false].map(|success| sum(&[FINE]).failures(success)), [0, 1]);
        assert_eq!(sum(&[BAD, BAD]).failures(false), 2);
    }

    #[test]
    fn a_run_is_good_when_something_passed_and_nothing_failed() {
        assert_eq!(sum(&[FINE]).complaint(true), None);
        assert!(sum(&[BAD]).complaint(false).is_some_and(|complaint| complaint.starts_with("some tests failed")));
        assert!(sum(&[FINE]).complaint(false).is_some_and(|complaint| complaint.contains("broke off")));
        assert_eq!(sum(&[]).complaint(true), Some("no test was run"));
    }
}
