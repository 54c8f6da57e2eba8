//! What is linked in, for those who have to know: bills of materials, and licences.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{ARCHITECTURE, Build};
use crate::apt::run;
use crate::process::{cargo, check};
use crate::tools::CargoTool;

/// Writes a bill of materials in the format of CycloneDX.
const CARGO_CYCLONEDX: CargoTool = CargoTool { name: "cargo-cyclonedx", version: "0.5.9", features: "" };

/// Collects the licences of crates.
const CARGO_ABOUT: CargoTool = CargoTool { name: "cargo-about", version: "0.9.3", features: "cli" };

/// The packages whose dependencies end up in the program, and the features that they are built with there.
const PARTS: [(&str, &[&str]); 2] = [("smtp-observer", &[]), ("smtp-ebpf", &["--features=programs"])];

/// The name that cargo-cyclonedx is given for its files, which it writes beside the sources and nowhere else.
const BILL: &str = "package-bill";

/// Writes `*.cdx.json` and `copyright` into a directory.
pub(super) fn write(build: &Build, directory: &Path) -> Result<()> {
    let (cyclonedx, about) = (CARGO_CYCLONEDX.ensure_installed(build.root)?, CARGO_ABOUT.ensure_installed(build.root)?);
    // cargo-about reads the crates of every platform, and what it says is to depend on no network.
    check(cargo(build.root).args(["fetch", "--quiet", "--locked"]), "the crates cannot be fetched: see above")?;
    let description = build.root.join("deploy/package");
    let read = |path: PathBuf| fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()));
    let mut copyright = read(description.join("copyright.head"))? + &read(build.root.join("LICENSE-MIT"))? + "\n";
    for (part, features) in PARTS {
        bill(build, &cyclonedx, part, features, &directory.join(format!("{part}.cdx.json")))?;
        let mut command = Command::new(&about);
        command
            .current_dir(build.root)
            .args(["about", "generate", "--fail", "--locked", "--offline"])
            .args(features)
            .arg("--manifest-path")
            .arg(build.root.join(part).join("Cargo.toml"))
            .arg("--config")
            .arg(description.join("about.toml"))
            .arg(description.join("copyright.hbs"));
        copyright += &run(&mut command).context("the licences cannot be collected")?;
    }
    fs::write(directory.join("copyright"), copyright).context("the licences cannot be written")
}

/// Writes the bill of one package.
fn bill(build: &Build, cyclonedx: &Path, part: &str, features: &[&str], to: &Path) -> Result<()> {
    let mut command = Command::new(cyclonedx);
    command
        .current_dir(build.root)
        .args(["cyclonedx", "--quiet", "--format=json", "--spec-version=1.5", "--no-build-deps"])
        .args(features)
        .arg(format!("--target={ARCHITECTURE}-unknown-linux-gnu"))
        .args(["--override-filename", BILL, "--manifest-path"])
        .arg(build.root.join(part).join("Cargo.toml"))
        // Time and number of the file come from this: else each run would have its own.
        .env("SOURCE_DATE_EPOCH", &build.epoch);
    run(&mut command).context("the bill of materials cannot be written")?;
    let written = build.root.join(part).join(format!("{BILL}.json"));
    let text = fs::read_to_string(&written).with_context(|| format!("{} cannot be read", written.display()));
    // It has written one for every member of the workspace.
    for member in fs::read_dir(build.root)? {
        let bill = member?.path().join(format!("{BILL}.json"));
        if bill.exists() {
            fs::remove_file(&bill).with_context(|| format!("{} cannot be removed", bill.display()))?;
        }
    }
    // Where the sources lie is nobody's concern.
    let text = text?.replace(&format!("{}/", build.root.display()), "");
    fs::write(to, text).with_context(|| format!("{} cannot be written", to.display()))
}
