//! Man pages and shell completions, for packages to install.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process::{self, cargo, check};
use crate::setup;

/// Writes `man/*.1` and `completions/*` under the target directory; gives that directory.
///
/// Apart from the agent's build, which most builders want without them. The package that makes them has the agent's command
/// line linked in, which this program cannot have: it builds what the agent's build needs.
pub(crate) fn write(root: &Path) -> Result<PathBuf> {
    setup::ensure(root)?;
    let target = process::target(root);
    fs::create_dir_all(&target).context("the target directory cannot be made")?;
    let mut command = cargo(root);
    command.args(["run", "--release", "--quiet", "--package=smtp-observer-manual", "--"]).arg(&target);
    check(&mut command, "the manual cannot be written: see above")?;
    Ok(target)
}
