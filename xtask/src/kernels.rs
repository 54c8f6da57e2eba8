//! The integration tests inside other kernels: Debian's, booted in QEMU from an image in memory.
//!
//! - [`debian`]: finds, downloads and unpacks a suite's newest kernel
//! - [`modules`]: the modules of it that the tests need, in the order of loading
//! - [`programs`]: the agent, the tests, and what they start
//! - [`initramfs`]: the image, made of these
//! - [`guest`]: runs QEMU and listens to its serial console
//! - [`init`]: the other end of that console, the first program of the guest
//! - [`console`]: what the one says and the other reads
//! - [`table`]: what every kernel should allow, and what it does
//!
//! All files are in `.tools/kernels`, a directory for each suite.

mod console;
mod debian;
mod guest;
pub(crate) mod init;
mod initramfs;
mod modules;
mod programs;
mod table;

use std::env::consts::ARCH;
use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use self::console::{Hooks, Outcome, Transcript};
use self::initramfs::Base;
use self::programs::Programs;
use self::table::Table;
use crate::process::say;
use crate::{agent, packages};

/// What to run, and where.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Whose kernels; all of them where none is named
    suites: Vec<Suite>,
    /// Only with these hooks
    #[arg(long)]
    family: Option<Hooks>,
    /// Only tests with this in their name
    #[arg(long, value_name = "NAME")]
    test: Option<String>,
}

/// A suite of Debian's. Each has the newest version of its own kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// Linux 5.10
    Bullseye,
    /// Linux 6.1
    Bookworm,
    /// Linux 6.12
    Trixie,
    /// The newest
    Sid,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }
}

/// Boots every kernel and prints the table; the last line on standard output is the count.
pub(crate) fn run(root: &Path, options: &Options) -> Result<ExitCode> {
    ensure!(ARCH == "x86_64", "these kernels are for x86-64, and this machine is {ARCH}");
    packages::ensure_installed(&[&packages::SCENES, &packages::MAIL, &packages::KERNELS])?;
    let directory = root.join(".tools/kernels");
    let programs = Programs::collect(root, &agent::build(root, true)?, &directory)?;
    let base = Base::new(&directory, &programs)?;

    let suites = if options.suites.is_empty() { Suite::value_variants() } else { &options.suites };
    let mut table = Table::default();
    for (suite, ran) in side_by_side(suites, |suite| boot(&directory, &base, suite, options)) {
        match ran {
            Ok(transcript) => table.add(suite, &transcript),
            Err(error) => table.add_broken(suite, &format!("{error:#}")),
        }
    }
    for complaint in &table.complaints {
        say(complaint);
    }
    print!("{}", table.show());
    println!("{} passed, {} failed", table.count.passed, table.count.failed);
    Ok(if table.complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the guests of these suites, as many at once as this machine has processors.
fn side_by_side(
    suites: &[Suite],
    boot: impl Fn(Suite) -> Result<Transcript> + Sync,
) -> Vec<(Suite, Result<Transcript>)> {
    let (open, ran) = (Mutex::new(suites.iter()), Mutex::new(Vec::new()));
    let worker = || {
        while let Some(&suite) = open.lock().ok().and_then(|mut open| open.next()) {
            let result = boot(suite);
            if let Ok(mut ran) = ran.lock() {
                ran.push((suite, result));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get).min(suites.len()) {
            scope.spawn(worker);
        }
    });
    let mut ran = ran.into_inner().unwrap_or_default();
    ran.sort_by_key(|(suite, _)| suites.iter().position(|other| other == suite));
    ran
}

/// Boots one kernel and runs the tests in it.
fn boot(tools: &Path, base: &Base, suite: Suite, options: &Options) -> Result<Transcript> {
    let directory = tools.join(suite.name());
    let (image, log) = (directory.join("initramfs"), directory.join("console.log"));
    fs::create_dir_all(&directory)?;
    let kernel = debian::fetch(&directory, suite.name())?;
    base.write(&image, &kernel.modules)?;

    let mut arguments = Vec::new();
    for hooks in Hooks::FAMILIES {
        if options.family.is_none_or(|family| family == hooks) {
            arguments.push(format!("--family={}", hooks.as_str()));
        }
    }
    arguments.extend(options.test.iter().map(|test| format!("--test={test}")));
    say(&format!("booting {}'s kernel", suite.name()));
    let start = Instant::now();
    let transcript = guest::run(&kernel.image, &image, &log, &arguments)?;
    say(&format!("{}'s kernel ran for {:.1} s", suite.name(), start.elapsed().as_secs_f64()));
    let failed = |outcome: &Outcome| matches!(outcome, Outcome::Tested { failed, .. } if !failed.is_empty());
    if transcript.rows.iter().any(|row| failed(&row.outcome)) {
        let said = fs::read_to_string(&log).with_context(|| format!("{} cannot be read", log.display()))?;
        eprintln!("{said}");
        say(&format!("that was the console of {}'s kernel, kept in {}", suite.name(), log.display()));
    }
    Ok(transcript)
}
