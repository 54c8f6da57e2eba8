//! The first program of a guest: makes a host of a bare kernel, runs the tests with each hook family that the kernel
//! has, reports on the serial console, and ends the guest.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use serde_json::Value;

use super::console::{Hooks, Report};

/// Where the image has the agent.
pub(super) const AGENT: &str = "usr/bin/smtp-observer";
/// Where it has the test programs.
pub(super) const TESTS: &str = "tests/deps/";
/// Where it has the programs that these start.
pub(super) const SIBLINGS: &str = "tests/";

/// The dialogues that tests read.
pub(super) const TRANSCRIPTS: &str = "tests/transcripts/";
/// Where it has the kernel's modules; their names are in the order in which they can be loaded.
pub(super) const MODULES: &str = "modules/";

/// File systems: what, where.
const MOUNTS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// How long the agent observes where it should have refused to.
const OBSERVES: &str = "1s";

/// What the guest is to do.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The hook families to try
    #[arg(long)]
    family: Vec<Hooks>,
    /// Run only tests with this in their name
    #[arg(long)]
    test: Option<String>,
}

/// Does all of it. Returns only where this is not the first program of a guest.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(std::process::id() == 1, "this is for guests: run `cargo xtask kernels`");
    if let Err(error) = work(options) {
        say(&Report::Failed { reason: format!("{error:#}") });
    }
    // QEMU ends instead.
    reboot(RebootMode::RB_AUTOBOOT)?;
    Ok(())
}

fn work(options: &Options) -> Result<()> {
    for (kind, place) in MOUNTS {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&CStr>)
            .with_context(|| format!("{kind} cannot be mounted at {place}"))?;
    }
    say(&Report::Booted { release: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().into() });
    load_modules()?;
    ensure!(
        command("/usr/bin/ip").args(["link", "set", "lo", "up"]).status()?.success(),
        "there is no loopback device"
    );

    let available = available()?;
    for &hooks in &options.family {
        if available.contains(&hooks) { test(hooks, options.test.as_deref())? } else { ask(hooks)? }
    }
    if available.is_empty() {
        ask(Hooks::Auto)?;
    }
    say(&Report::Done);
    Ok(())
}

fn load_modules() -> Result<()> {
    for path in entries(MODULES)? {
        finit_module(&File::open(&path)?, c"", ModuleInitFlags::empty())
            .with_context(|| format!("the kernel does not take its module {}", path.display()))?;
    }
    Ok(())
}

/// The families that the agent finds here.
fn available() -> Result<Vec<Hooks>> {
    let check = command(&format!("/{AGENT}")).args(["check", "--json"]).output()?;
    let check: Value = serde_json::from_slice(&check.stdout)
        .with_context(|| format!("`check` failed: {}", String::from_utf8_lossy(&check.stderr)))?;
    let families = check.get("families").and_then(Value::as_array).context("`check` names no families")?;
    let is = |name: &str| {
        families.iter().any(|family| {
            family.get("family").and_then(Value::as_str) == Some(name)
                && family.get("available").and_then(Value::as_bool) == Some(true)
        })
    };
    Ok(Hooks::FAMILIES.into_iter().filter(|hooks| is(hooks.as_str())).collect())
}

/// Runs every test program.
fn test(hooks: Hooks, filter: Option<&str>) -> Result<()> {
    for path in entries(TESTS)? {
        let program = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        say(&Report::Started { hooks, program });
        let start = Instant::now();
        let status = command(&path.to_string_lossy())
            // Every agent sees the whole guest: with one test at a time it has little to see.
            .arg("--test-threads=1")
            .args(filter)
            .env("SMTP_OBSERVER", format!("/{AGENT}"))
            .env("SMTP_OBSERVER_HOOKS", hooks.as_str())
            .env("SMTP_OBSERVER_TRANSCRIPTS", format!("/{TRANSCRIPTS}"))
            .status()
            .with_context(|| format!("{} cannot be run", path.display()))?;
        say(&Report::Ended { success: status.success(), seconds: start.elapsed().as_secs_f64() });
    }
    Ok(())
}

/// Asks the agent for hooks that it does not offer here.
fn ask(hooks: Hooks) -> Result<()> {
    let output =
        command(&format!("/{AGENT}")).args(["run", "--hooks", hooks.as_str(), "--duration", OBSERVES]).output()?;
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    say(&Report::Asked { hooks, status: output.status.code(), words });
    Ok(())
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin")
        .env("HOME", "/root")
        .env("RUST_BACKTRACE", "1")
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

/// The files in one of the image's directories, by name.
fn entries(directory: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(format!("/{directory}")).with_context(|| format!("the image has no {directory}"))?;
    let mut entries = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

fn say(report: &Report) {
    let mut console = stdout();
    // There is nobody else to tell.
    let _ = writeln!(console, "{report}").and_then(|()| console.flush());
}
