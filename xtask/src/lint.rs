//! Formatting, clippy for both sides, and licences.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::kernels::GUESTS_ALONE;
use crate::process::{answer, cargo, check, say};
use crate::setup;
use crate::tools::CargoTool;

/// What looks at licences, sources and advisories.
const CARGO_DENY: CargoTool = CargoTool { name: "cargo-deny", version: "0.20.2", features: "" };

/// How long the database of advisories may take.
const DATABASE: Duration = Duration::from_secs(60);

/// Runs every check that needs no test.
pub(crate) fn run(root: &Path) -> Result<()> {
    // The agent's build script builds the eBPF programs under clippy as well.
    setup::ensure(root)?;
    let cargo_deny = CARGO_DENY.ensure_installed(root)?;
    check(
        cargo(root).args(["fmt", "--all", "--check"]),
        "the code is not formatted: run `cargo fmt --all` (the component is rustfmt)",
    )?;
    let clippy = |targets: &[String]| {
        let mut command = cargo(root);
        command.args(["clippy", "--workspace", "--features=smtp-observer-tests/packages"]).args(targets);
        check(command.args(["--", "-Dwarnings"]), "clippy objects: see above")
    };
    clippy(&["--all-targets".into()])?;
    clippy(&GUESTS_ALONE.map(|name| format!("--test={name}")))?;
    // The programs, checked as if for this machine, because clippy has no `core` for the BPF target; without `std` they
    // cannot unwind. The last flags are those of the agent's build script, which allows features that are not stable, too.
    check(
        cargo(root)
            .env("RUSTC_BOOTSTRAP", "smtp_ebpf")
            .args(["clippy", "--package=smtp-ebpf", "--features=programs", "--lib", "--bins"])
            .args(["--config=profile.dev.panic='abort'", "--", "-Dwarnings"])
            .args(["--check-cfg=cfg(bpf_target_arch, values(any()))", "--cfg"])
            .arg(format!("bpf_target_arch=\"{}\"", env::consts::ARCH)),
        "clippy objects to the eBPF programs: see above",
    )?;
    let deny = |what: &[&str]| {
        let mut command = Command::new(&cargo_deny);
        command.current_dir(root).arg("--locked").args(what);
        command
    };
    let objects = "cargo-deny objects: see above";
    check(&mut deny(&["check", "bans", "licenses", "sources"]), objects)?;
    if answer(&mut deny(&["fetch", "db"]), DATABASE).is_some() {
        check(&mut deny(&["check", "advisories"]), objects)?;
    } else {
        say("the database of advisories cannot be fetched: known vulnerabilities stay unchecked");
    }
    Ok(())
}
