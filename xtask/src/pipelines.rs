//! The examples for log shippers that the tests do not run, because what runs them is large: Vector's language, and
//! ClickHouse's engine.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::apt::run as ask;
use crate::process::{cargo, check, say};
use crate::{packages, scenes};

/// ClickHouse as a library for Python; what else its package would bring is not used.
const CLICKHOUSE: &str = "chdb-core==26.9.0";

/// Whose events.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// A file that `run --events` wrote; without it, the demo's scene is played and observed
    events: Option<PathBuf>,
}

/// Runs them on real events.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let events = match &options.events {
        Some(events) => fs::canonicalize(events).with_context(|| format!("{} cannot be read", events.display()))?,
        None => {
            let events = root.join("target/events.jsonl");
            scenes::events(root, &events)?;
            events
        }
    };
    run_vector(root, &events)?;
    run_clickhouse(root, &events)
}

/// By a workspace of its own, so that no other command builds it.
fn run_vector(root: &Path, events: &Path) -> Result<()> {
    say("building Vector's language (minutes, the first time)");
    let mut command = cargo(root);
    command.args(["run", "--quiet", "--locked", "--manifest-path", "pipelines/Cargo.toml", "--target-dir"]);
    command.args(["target/pipelines", "--"]).arg(events);
    let mut examples = fs::read_dir(root.join("deploy/vector"))?
        .map(|entry| Ok(PathBuf::from("deploy/vector").join(entry?.file_name())))
        .collect::<Result<Vec<_>>>()?;
    examples.sort();
    check(command.args(examples), "an example for Vector does not hold: see above")
}

fn run_clickhouse(root: &Path, events: &Path) -> Result<()> {
    let environment = root.join(".tools/clickhouse");
    let (pip, record) = (environment.join("bin/pip"), environment.join("installed"));
    if !fs::read_to_string(&record).is_ok_and(|installed| installed == CLICKHOUSE) {
        packages::ensure_installed(&[&packages::TLS])?;
        say(&format!("installing {CLICKHOUSE} into {}", environment.display()));
        ask(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        ensure!(pip.exists(), "Python made an environment without pip: install python3-venv");
        ask(Command::new(&pip).args(["install", "--quiet", "--no-deps", "--only-binary=:all:", CLICKHOUSE]))?;
        fs::write(&record, CLICKHOUSE)?;
    }
    let [script, tables, document] = ["pipelines/clickhouse.py", "deploy/clickhouse/smtp-events.sql", "docs/fleet.md"];
    let arguments: [OsString; 4] = [script.into(), tables.into(), events.into(), document.into()];
    let mut python = Command::new(environment.join("bin/python"));
    check(python.current_dir(root).args(arguments), "the tables for ClickHouse do not hold: see above")
}
