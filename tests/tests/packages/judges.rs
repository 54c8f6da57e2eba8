//! What the distributions' own judges of packages say.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{VERSION, one, packages, rpm, run};

#[test]
fn lintian_has_no_error() -> Result<()> {
    for name in ["smtp-observer_", "smtp-observer-dbgsym_"] {
        let package = one(&packages()?, name, ".deb")?;
        run(Command::new("lintian").args(["--allow-root", "--fail-on=error", "--profile=debian"]).arg(package))?;
    }
    Ok(())
}

#[test]
fn rpmlint_has_no_error() -> Result<()> {
    let configuration = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/package/rpmlint.toml");
    for package in [rpm::package(&packages()?, VERSION), one(&packages()?, "smtp-observer-debuginfo-", ".rpm")?] {
        run(Command::new("rpmlint").arg("--config").arg(&configuration).arg(package))?;
    }
    Ok(())
}
