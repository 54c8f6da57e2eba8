//! Writes man pages and shell completions into the directory that is given.

use std::path::PathBuf;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from).context("give the directory to write to")?;
    smtp_observer_manual::write(&directory)
}
