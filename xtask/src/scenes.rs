//! Demo and benchmarks: programs of the `tests` package that play scenes in network namespaces, agent beside them.

use std::path::Path;

use anyhow::Result;

use crate::process::{cargo_as_root, check};
use crate::{agent, packages};

/// Plays the demo.
pub(crate) fn demo(root: &Path, args: &[String]) -> Result<()> {
    packages::ensure_installed(&[&packages::SCENES])?;
    play(root, &["--bin=demo"], args, "the demo failed: see above")
}

/// Runs the benchmarks.
pub(crate) fn bench(root: &Path, args: &[String]) -> Result<()> {
    packages::ensure_installed(&[&packages::SCENES, &packages::MAIL])?;
    play(root, &["--release", "--bin=bench"], args, "the benchmarks failed: see above")
}

fn play(root: &Path, program: &[&str], args: &[String], meaning: &str) -> Result<()> {
    let mut cargo = cargo_as_root(root)?;
    let agent = agent::build(root, true)?;
    cargo.args(["run", "--quiet", "--package=smtp-observer-tests"]).args(program).arg("--").args(args);
    check(cargo.env("SMTP_OBSERVER", agent), meaning)
}
