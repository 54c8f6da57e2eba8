//! The integration tests inside other kernels: Debian's, booted in QEMU from an image in memory.
//!
//! - [`debian`]: finds, downloads and unpacks a suite's newest kernel
//! - [`emulator`]: QEMU, installed or unpacked
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
mod emulator;
mod guest;
pub(crate) mod init;
mod initramfs;
mod modules;
mod programs;
mod table;

use std::env::consts::ARCH;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use self::console::{Hooks, Outcome, Transcript};
use self::emulator::Emulator;
use self::initramfs::Base;
pub(crate) use self::programs::GUESTS_ALONE;
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
    packages::ensure_installed(&[&packages::SCENES, &packages::MAIL, &packages::TLS, &packages::KERNELS])?;
    let directory = root.join(".tools/kernels");
    let programs = Programs::collect(root, &agent::build(root, true)?, &directory)?;
    let emulator = Emulator::find(&directory)?;
    let base = Base::new(&directory, &programs)?;

    let suites = if options.suites.is_empty() { Suite::value_variants() } else { &options.suites };
    let mut table = Table::default();
    let mut guests = Vec::new();
    for &suite in suites {
        match prepare(&directory, &base, suite) {
            Ok(kernel) => {
                let families = Hooks::FAMILIES.into_iter().filter(|hooks| options.family.is_none_or(|it| it == *hooks));
                guests.extend(families.map(|hooks| (suite, hooks, kernel.clone())));
            }
            Err(error) => table.add_broken(suite, &format!("{error:#}")),
        }
    }
    let boot = |&(suite, hooks, ref kernel): &(Suite, Hooks, PathBuf)| {
        boot(&directory, &emulator, kernel, suite, hooks, options)
    };
    for ((suite, ..), ran) in side_by_side(&guests, boot) {
        match ran {
            Ok(transcript) => table.add(*suite, &transcript),
            Err(error) => table.add_broken(*suite, &format!("{error:#}")),
        }
    }
    for complaint in &table.complaints {
        say(complaint);
    }
    print!("{}", table.show());
    println!("{} passed, {} failed", table.count.passed, table.count.failed);
    Ok(if table.complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Does each of these jobs, as many at once as this machine has processors; what came of them, in their order.
fn side_by_side<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J) -> R + Sync) -> Vec<(&J, R)> {
    let (open, done) = (Mutex::new(jobs.iter().enumerate()), Mutex::new(Vec::new()));
    let worker = || {
        while let Some((number, job)) = open.lock().ok().and_then(|mut open| open.next()) {
            let result = work(job);
            if let Ok(mut done) = done.lock() {
                done.push((number, job, result));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get).min(jobs.len()) {
            scope.spawn(worker);
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(number, ..)| *number);
    done.into_iter().map(|(_, job, result)| (job, result)).collect()
}

/// Fetches a suite's kernel and makes the image for it; where the kernel is.
fn prepare(tools: &Path, base: &Base, suite: Suite) -> Result<PathBuf> {
    let directory = tools.join(suite.name());
    fs::create_dir_all(&directory)?;
    let kernel = debian::fetch(&directory, suite.name())?;
    base.write(&directory.join("initramfs"), &kernel.modules)?;
    Ok(kernel.image)
}

/// Boots one kernel and runs the tests in it with these hooks.
fn boot(
    tools: &Path,
    emulator: &Emulator,
    kernel: &Path,
    suite: Suite,
    hooks: Hooks,
    options: &Options,
) -> Result<Transcript> {
    let (directory, family) = (tools.join(suite.name()), hooks.as_str());
    let log = directory.join(format!("console-{family}.log"));
    let mut arguments = vec![format!("--family={family}")];
    arguments.extend(options.test.iter().map(|test| format!("--test={test}")));
    let guest = format!("{}'s kernel, {family} hooks", suite.name());
    say(&format!("booting {guest}"));
    let start = Instant::now();
    let transcript = guest::run(emulator, kernel, &directory.join("initramfs"), &log, &arguments)?;
    say(&format!("{guest}: done in {:.1} s", start.elapsed().as_secs_f64()));
    let failed = |outcome: &Outcome| matches!(outcome, Outcome::Tested { failed, .. } if !failed.is_empty());
    if transcript.rows.iter().any(|row| failed(&row.outcome)) {
        let said = fs::read_to_string(&log).with_context(|| format!("{} cannot be read", log.display()))?;
        eprintln!("{said}");
        say(&format!("that was the console of {guest}, kept in {}", log.display()));
    }
    Ok(transcript)
}
