//! The configuration that packages install names every option of `run`, and what it shows is what the agent takes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use smtp_observer::cli::{Cli, Command, Run};
use smtp_observer_manual::command;

/// Options that have no default: what stands in the file is an example.
const EXAMPLES: [&str; 8] =
    ["allowed-host", "duration", "events", "record", "service-address", "user", "verbose", "web-config-file"];

/// What cannot stand in the file.
const OF_THE_COMMAND_LINE: [&str; 2] = ["config", "help"];

fn packaged() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/smtp-observer.toml");
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Each setting that is commented out: its name, and its line without the `#`.
fn settings(text: &str) -> Vec<(&str, &str)> {
    let line = |line| str::strip_prefix(line, '#').filter(|line| !line.starts_with(' ') && line.contains(" = "));
    text.lines().filter_map(line).filter_map(|line| Some((line.split_once(" = ")?.0, line))).collect()
}

/// What `run` does with this configuration.
fn resolved(configuration: &str) -> Result<Run> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("smtp-observer.toml");
    fs::write(&path, configuration)?;
    let path = path.to_str().context("a path in UTF-8")?;
    match Cli::try_parse_from(["smtp-observer", "run", "--config", path])?.command {
        Command::Run(run) => run.resolve().with_context(|| configuration.to_owned()),
        other => bail!("{other:?}"),
    }
}

#[test]
fn every_option_of_run_is_in_the_packaged_configuration() -> Result<()> {
    let text = packaged()?;
    let named: BTreeSet<&str> = settings(&text).into_iter().map(|(name, _)| name).collect();
    let command = command();
    let run = command.find_subcommand("run").context("there is `run`")?;
    let options = run.get_arguments().filter(|option| !option.is_hide_set()).filter_map(clap::Arg::get_long);
    // `--verbose` is an option of the program, before any command.
    let options = options.filter(|option| !OF_THE_COMMAND_LINE.contains(option)).chain(["verbose"]);
    let options: BTreeSet<&str> = options.collect();
    assert_eq!(named, options);
    Ok(())
}

#[test]
fn the_packaged_configuration_changes_nothing_until_it_is_edited() -> Result<()> {
    assert_eq!(resolved(&packaged()?)?, resolved("")?);
    Ok(())
}

#[test]
fn what_the_packaged_configuration_shows_is_the_default_or_an_example() -> Result<()> {
    let (text, default) = (packaged()?, resolved("")?);
    for (name, setting) in settings(&text) {
        let is_default = resolved(setting)? == default;
        ensure!(is_default != EXAMPLES.contains(&name), "`{setting}` is the default: {is_default}");
    }
    Ok(())
}
