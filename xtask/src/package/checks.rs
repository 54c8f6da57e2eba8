//! What packages are tested with: packages made once more, packages of a version to upgrade to, and trees of Debian; and the
//! static agent at work.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Build;
use super::binary::Programs;
use super::formats::{self, Edition};
use super::stage::{self, Stage};
use crate::apt::mirror;
use crate::packages;
use crate::process::{as_root, cargo_as_root, check, say};

/// The suites of Debian that packages are installed in.
const SUITES: [&str; 2] = ["bookworm", "trixie"];

/// The version to upgrade to: later than every other.
const NEXT_VERSION: &str = "99.0.0";

/// Runs tests of the package `tests`; `args` is passed on to their harness.
pub(super) fn run(build: &Build, programs: &Programs, stage: &Stage, out: &Path, args: &[String]) -> Result<()> {
    packages::ensure_installed(&[&packages::PACKAGE_TESTS, &packages::SCENES, &packages::TLS])?;
    let mut cargo = cargo_as_root(build.root)?;
    let trees = trees(build.root)?;
    say("making the packages a second time, and those of a version to upgrade to");
    let again = formats::write(build, &stage::make(build, programs, "stage-again")?, &Edition::this(), "out-again")?;
    let next = formats::write(build, stage, &next(build)?, "out-next")?;
    cargo
        .args(["test", "--package=smtp-observer-tests", "--features=packages", "--test=packages", "--"])
        .args(args)
        .env("SMTP_OBSERVER_PACKAGES", out)
        .env("SMTP_OBSERVER_PACKAGES_AGAIN", again)
        .env("SMTP_OBSERVER_NEXT_PACKAGES", next)
        .env("SMTP_OBSERVER_TREES", trees);
    check(&mut cargo, "the packages fail their tests: see above")?;
    // musl makes other system calls than the library that the agent is tested with else: it is seen at work, too.
    let mut cargo = cargo_as_root(build.root)?;
    cargo
        .args(["test", "--package=smtp-observer-tests", "--test=confinement", "--test=implicit_tls", "--"])
        .args(args)
        .env("SMTP_OBSERVER", &programs.fixed.stripped);
    check(&mut cargo, "the static agent fails its tests: see above")
}

/// An edition to upgrade to, with another configuration.
fn next(build: &Build) -> Result<Edition> {
    let configuration = build.directory.join("next.toml");
    let text = fs::read_to_string(build.root.join("deploy").join(Edition::this().configuration))?;
    fs::write(&configuration, format!("# That of the next version.\n{text}"))
        .with_context(|| format!("{} cannot be written", configuration.display()))?;
    Ok(Edition { version: NEXT_VERSION.into(), configuration })
}

/// Trees of Debian as debootstrap makes them, with what the packages depend on; gives their directory.
fn trees(root: &Path) -> Result<PathBuf> {
    let trees = root.join(".tools/trees");
    fs::create_dir_all(&trees).context(".tools cannot be written")?;
    for suite in SUITES {
        let (tree, partial) = (trees.join(suite), trees.join(format!("{suite}.partial")));
        if tree.exists() {
            continue;
        }
        say(&format!("making a tree of Debian's {suite}, into {} (minutes)", tree.display()));
        let needs = "a tree of Debian takes root: run this as root";
        // What an interrupted command has left.
        check(as_root("rm").context(needs)?.arg("-rf").arg(&partial), "a half-made tree cannot be removed")?;
        let mut debootstrap = as_root("debootstrap").context(needs)?;
        debootstrap.args(["--variant=minbase", "--include=systemd,procps", suite]).arg(&partial).arg(mirror()?);
        check(&mut debootstrap, "debootstrap failed: see above")?;
        check(as_root("mv").context(needs)?.arg(&partial).arg(&tree), "the tree cannot be moved to its place")?;
    }
    Ok(trees)
}
