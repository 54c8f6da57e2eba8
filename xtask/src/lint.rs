//! Formatting, clippy for both sides, and licences.

use std::env;
use std::path::Path;

use anyhow::Result;

use crate::process::{cargo, check, say, which};
use crate::setup;

/// Runs every check that needs no test.
pub(crate) fn run(root: &Path) -> Result<()> {
    // The agent's build script builds the eBPF programs under clippy as well.
    setup::ensure(root)?;
    check(
        cargo(root).args(["fmt", "--all", "--check"]),
        "the code is not formatted: run `cargo fmt --all` (the component is rustfmt)",
    )?;
    check(
        cargo(root).args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--features=smtp-observer-tests/packages,smtp-observer-tests/guests",
            "--",
            "-Dwarnings",
        ]),
        "clippy objects: see above",
    )?;
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
    if which("cargo-deny").is_some() {
        check(cargo(root).args(["deny", "check"]), "cargo-deny objects: see above")?;
    } else {
        say("cargo-deny is not installed: licences and advisories stay unchecked");
    }
    Ok(())
}
