//! Fuzzing: the targets of the package `fuzz`, from the transcripts on.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::process::{cargo, check, make_empty, say};
use crate::setup;
use crate::tools::CargoTool;

/// What builds the targets and runs them.
const CARGO_FUZZ: CargoTool = CargoTool { name: "cargo-fuzz", version: "0.13.2", features: "" };

/// The package's targets.
const TARGETS: [&str; 5] = ["dialogue", "filter", "hidden", "records", "replies"];

/// What to fuzz, and how long.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Which targets; all of them where none is named
    #[arg(value_parser = TARGETS)]
    targets: Vec<String>,
    /// How long each
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// What the inputs are drawn with: 0 is another number each time
    #[arg(long, default_value_t = 0)]
    seed: u32,
}

/// Fuzzes each target; fails at the first finding, which is kept.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    setup::ensure(root)?;
    let tools = root.join(".tools");
    let cargo_fuzz = CARGO_FUZZ.ensure_installed(root)?;
    let directory = tools.join("fuzz");
    let seeds = directory.join("seeds");
    make_empty(&seeds)?;
    let mut writer = cargo(root);
    writer.args(["run", "--quiet", "--release", "--package=smtp-observer-fuzz", "--bin=seeds", "--"]).arg(&seeds);
    check(&mut writer, "the seeds cannot be written: see above")?;

    let chosen: Vec<&str> = options.targets.iter().map(String::as_str).collect();
    for target in if chosen.is_empty() { &TARGETS[..] } else { &chosen } {
        say(&format!("fuzzing {target} for {} s", options.seconds));
        let (corpus, findings) = (directory.join("corpus").join(target), directory.join("findings").join(target));
        for directory in [&corpus, &findings] {
            fs::create_dir_all(directory)?;
        }
        let mut fuzz = Command::new(&cargo_fuzz);
        fuzz.current_dir(root)
            // The core has no `unsafe`: nothing that a sanitizer would find, and none asks for a nightly compiler.
            .args(["fuzz", "run", "--sanitizer=none", "--target-dir"])
            .arg(root.join("target/fuzz"))
            .arg(target)
            .arg(&corpus)
            // A target that makes its cases by itself has none.
            .args(Some(seeds.join(target)).filter(|seeds| seeds.exists()))
            // What was found before is tried again.
            .arg(&findings)
            .arg("--")
            .arg(format!("-max_total_time={}", options.seconds))
            .arg(format!("-seed={}", options.seed))
            .arg(format!("-artifact_prefix={}/", findings.display()))
            .args(["-max_len=4096", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0"]);
        check(&mut fuzz, &format!("{target} has a finding, or did not build: see above"))?;
    }
    println!("no finding");
    Ok(())
}
