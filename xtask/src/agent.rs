//! Builds and runs the agent.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{as_root, cargo, check, target};
use crate::setup;

/// Sets up, builds the agent and gives the path of its one file.
pub(crate) fn build(root: &Path, release: bool) -> Result<PathBuf> {
    setup::ensure(root)?;
    let mut command = cargo(root);
    command.args(["build", "--package=smtp-observer", "--bin=smtp-observer"]);
    if release {
        command.arg("--release");
    }
    check(&mut command, "the agent does not build: see above")?;
    Ok(target(root).join(if release { "release" } else { "debug" }).join("smtp-observer"))
}

/// Builds the agent and becomes it.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    let agent = build(root, true)?;
    let mut command = if needs_root(args) {
        as_root(&agent).context("observing needs root, and there is no sudo here: run this as root")?
    } else {
        Command::new(&agent)
    };
    Err(command.args(args).exec()).with_context(|| format!("{} cannot be run", agent.display()))
}

/// Whether these arguments make the agent look into the kernel.
fn needs_root(args: &[String]) -> bool {
    let help = args.iter().any(|arg| matches!(arg.as_str(), "--help" | "-h" | "--version" | "-V"));
    let observes = args.first().is_some_and(|arg| matches!(arg.as_str(), "run" | "trace" | "top" | "connections"));
    observes && !help
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_observing_needs_root() {
        let needs = |line: &str| needs_root(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert!(needs("run --port 25"));
        assert!(needs("trace"));
        assert!(!needs("run --help"));
        assert!(!needs("replay recording"));
        assert!(!needs("check"));
        assert!(!needs(""));
    }
}
