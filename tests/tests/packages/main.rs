//! The packages: installed, upgraded, removed and purged in trees of Debian and in a root of rpm's, installed from
//! repositories, judged by lintian and rpmlint, and made twice.
//!
//! `cargo xtask package --test` makes what these tests take, and runs them as root.

mod contents;
mod debian;
mod judges;
mod repositories;
mod rpm;
mod tarball;
mod tree;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

/// The version of this source tree's packages.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// That of the packages to upgrade to.
const NEXT_VERSION: &str = "99.0.0";

/// The installed configuration and program.
const CONFIGURATION: &str = "/etc/smtp-observer/smtp-observer.toml";
const PROGRAM: &str = "/usr/bin/smtp-observer";

/// Files that a package brings wherever it is installed, beside those of which each distribution has a place of its own.
const FILES: [&str; 25] = [
    "/etc/logrotate.d/smtp-observer",
    CONFIGURATION,
    PROGRAM,
    "/usr/lib/systemd/system/smtp-observer.service",
    "/usr/lib/systemd/system/smtp-observer.socket",
    "/usr/lib/sysusers.d/smtp-observer.conf",
    "/usr/share/bash-completion/completions/smtp-observer",
    "/usr/share/doc/smtp-observer/README.md",
    "/usr/share/doc/smtp-observer/docs/events.schema.json",
    "/usr/share/doc/smtp-observer/docs/examples/antivirus.recording",
    "/usr/share/doc/smtp-observer/docs/systemd.md",
    "/usr/share/doc/smtp-observer/smtp-ebpf.cdx.json",
    "/usr/share/doc/smtp-observer/smtp-observer.cdx.json",
    "/usr/share/fish/vendor_completions.d/smtp-observer.fish",
    "/usr/share/man/man1/smtp-observer-run.1.gz",
    "/usr/share/man/man1/smtp-observer.1.gz",
    "/usr/share/smtp-observer/clickhouse/smtp-events.sql",
    "/usr/share/smtp-observer/grafana/smtp-observer.json",
    "/usr/share/smtp-observer/otelcol/loki.yaml",
    "/usr/share/smtp-observer/prometheus/fleet-agent.yml",
    "/usr/share/smtp-observer/prometheus/fleet.rules.yml",
    "/usr/share/smtp-observer/prometheus/fleet.yml",
    "/usr/share/smtp-observer/prometheus/smtp-observer.rules.yml",
    "/usr/share/smtp-observer/rsyslog/kafka.conf",
    "/usr/share/smtp-observer/vector/loki.yaml",
];

/// The directory that a variable of `cargo xtask package --test` names.
fn directory(variable: &str) -> Result<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .with_context(|| format!("{variable} is not set: run `cargo xtask package --test`"))
}

/// The packages of this source tree.
fn packages() -> Result<PathBuf> {
    directory("SMTP_OBSERVER_PACKAGES")
}

/// Packages of [`NEXT_VERSION`], with another configuration.
fn next_packages() -> Result<PathBuf> {
    directory("SMTP_OBSERVER_NEXT_PACKAGES")
}

/// The one file in `directory` whose name has this start and this end.
fn one(directory: &Path, start: &str, end: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned();
        if name.starts_with(start) && name.ends_with(end) {
            found.push(path);
        }
    }
    ensure!(found.len() == 1, "of {start}…{end} there are {found:?}");
    Ok(found.remove(0))
}

/// What a program says, on either output; fails with that where the program fails.
fn run(command: &mut Command) -> Result<String> {
    let output = command.env("LC_ALL", "C.UTF-8").output().with_context(|| format!("{command:?} cannot be run"))?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    Ok(said.into_owned())
}

/// The build id of a program, as readelf shows it.
fn build_id(program: &Path) -> Result<String> {
    let notes = run(Command::new("readelf").arg("--notes").arg(program))?;
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: "));
    Ok(id.with_context(|| format!("{} has no build id:\n{notes}", program.display()))?.to_owned())
}
