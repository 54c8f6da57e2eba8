//! Man pages and shell completions, made from the agent's own command line, so that they say what it takes.
//!
//! A package of its own, and no part of the agent: whoever runs that has no use for them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use smtp_observer::cli::Cli;

/// Shells that are told what can be typed.
pub const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Writes `man/*.1` and `completions/*` into a directory, anew.
pub fn write(directory: &Path) -> Result<()> {
    let (pages, completions) = (directory.join("man"), directory.join("completions"));
    for part in [&pages, &completions] {
        if part.exists() {
            fs::remove_dir_all(part).with_context(|| format!("{} cannot be emptied", part.display()))?;
        }
        fs::create_dir_all(part).with_context(|| format!("{} cannot be made", part.display()))?;
    }
    clap_mangen::generate_to(command(), &pages).with_context(|| format!("{} cannot be written", pages.display()))?;
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command(), "smtp-observer", &completions)
            .with_context(|| format!("{} cannot be written", completions.display()))?;
    }
    Ok(())
}

/// The agent's command line. `help` needs no page: each command has one.
pub fn command() -> Command {
    Cli::command().disable_help_subcommand(true)
}
