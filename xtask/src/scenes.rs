//! Demo, benchmarks and plots: programs of the `tests` package that play scenes in network namespaces, agent beside them.

use std::path::Path;

use anyhow::Result;

use crate::process::{cargo, cargo_as_root, check, say, target};
use crate::{packages, senders, setup};

/// Plays the demo.
pub(crate) fn demo(root: &Path, args: &[String]) -> Result<()> {
    let tls: &[packages::Package] = if args.iter().any(|arg| arg == "--tls") { &packages::TLS } else { &[] };
    packages::ensure_installed(&[&packages::SCENES, tls])?;
    play(root, "dev", "demo", args)?;
    say(
        "for the mail of this host: `cargo xtask run -- trace`, or `top`, or `run` and a browser at http://127.0.0.1:9725/",
    );
    Ok(())
}

/// Runs the benchmarks: the agent's, and the decoder's; or the part that is named.
pub(crate) fn bench(root: &Path, args: &[String]) -> Result<()> {
    packages::ensure_installed(&[&packages::SCENES, &packages::MAIL, &packages::TLS])?;
    let has = |part: &str| args.iter().any(|arg| arg == part);
    if has("fleet") {
        packages::ensure_installed(&[&packages::SENDERS])?;
        senders::ensure_stores(root)?;
    }
    play(root, "release", "bench", args)?;
    if ["pipeline", "relay", "tls", "fleet"].into_iter().any(has) {
        return Ok(());
    }
    let mut decoder = cargo(root);
    decoder.args(["bench", "--package=smtp-observer", "--bench=decoder", "--bench=metrics"]);
    check(&mut decoder, "the decoder's benchmarks failed: see above")
}

/// Draws the plots.
pub(crate) fn plots(root: &Path, args: &[String]) -> Result<()> {
    packages::ensure_installed(&[&packages::SCENES, &packages::MAIL, &packages::SENDERS])?;
    senders::ensure_unpacked(root)?;
    senders::ensure_plotter(root)?;
    play(root, "dev", "plots", args)
}

/// Plays the demo's scene, and writes its events into a file.
pub(crate) fn events(root: &Path, file: &Path) -> Result<()> {
    packages::ensure_installed(&[&packages::SCENES])?;
    play(root, "dev", "events", &[file.display().to_string()])
}

fn play(root: &Path, profile: &str, program: &str, args: &[String]) -> Result<()> {
    let mut runner = cargo_as_root(root)?;
    setup::ensure(root)?;
    let package = ["--package=smtp-observer-tests", "--profile", profile];
    // Agent and scene in one build: what both need is built once. All programs of the scenes: a scene's client, interceptor
    // and server are programs of their own.
    let build = ["build", "--package=smtp-observer", "--bins"];
    check(cargo(root).args(build).args(package), "the agent and its scenes do not build: see above")?;
    let agent = target(root).join(if profile == "dev" { "debug" } else { profile }).join("smtp-observer");
    runner.args(["run", "--quiet"]).args(package).args(["--bin", program, "--"]).args(args);
    check(runner.env("SMTP_OBSERVER", agent), &format!("{program} failed: see above"))
}
