//! Packages: `.deb` and `.rpm` of the agent and of its debug information, and a tarball with a static agent.
//!
//! - [`binary`]: builds the agent against an old glibc and against none, and splits off the debug information
//! - [`notices`]: the bill of materials, and the licences of what is linked in
//! - [`stage`]: everything that is built or generated, in one directory
//! - [`formats`]: the packages, by the descriptions in `deploy/package`
//! - [`checks`]: what packages are tested with
//!
//! The same commit and compiler give the same bytes: every time in a package is that of the commit, or SOURCE_DATE_EPOCH.

mod binary;
mod checks;
mod formats;
mod notices;
mod stage;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::process::answer;
use crate::{packages, setup};

/// Who is to be written to about a package, unless another is given.
const MAINTAINER: &str = "The smtp-observer contributors <smtp-observer@example.org>";

/// What to make.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Who is to be written to about the packages
    #[arg(long, value_name = "NAME <ADDRESS>", default_value = MAINTAINER)]
    maintainer: String,
    /// Check the packages too: install, upgrade, remove and purge them in trees of Debian, which takes root
    #[arg(long)]
    test: bool,
    /// Passed on to the tests, such as a part of a test's name
    #[arg(last = true, requires = "test")]
    args: Vec<String>,
}

/// What is the same for everything that is made.
struct Build<'a> {
    root: &'a Path,
    /// `target/package`: all that is made is in here.
    directory: PathBuf,
    architecture: Architecture,
    /// The time of everything in a package, in seconds since 1970.
    epoch: String,
    maintainer: &'a str,
}

/// One architecture under the names of those who have to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Architecture {
    /// Rust's, the kernel's and RPM's.
    rust: &'static str,
    /// Debian's and Go's.
    debian: &'static str,
}

impl Architecture {
    /// This machine's.
    fn of_this_machine() -> Result<Self> {
        match env::consts::ARCH {
            "x86_64" => Ok(Self { rust: "x86_64", debian: "amd64" }),
            other => bail!("packages are made on x86_64, and this machine is {other}"),
        }
    }
}

/// Makes the packages; says which.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    setup::ensure(root)?;
    packages::ensure_installed(&[&packages::PACKAGES])?;
    let target = root.join(env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from));
    let build = Build {
        root,
        directory: target.join("package"),
        architecture: Architecture::of_this_machine()?,
        epoch: epoch(root)?,
        maintainer: &options.maintainer,
    };
    fs::create_dir_all(&build.directory).context("the target directory cannot be made")?;
    let programs = binary::Programs::build(&build)?;
    let stage = stage::make(&build, &programs, "stage")?;
    let out = formats::write(&build, &stage, &formats::Edition::this(), "out")?;
    for package in formats::list(&out)? {
        println!("{}", package.display());
    }
    if options.test {
        checks::run(&build, &programs, &stage, &out, &options.args)?;
    }
    Ok(())
}

/// The time that stands for the build's: what SOURCE_DATE_EPOCH says, or the commit's.
fn epoch(root: &Path) -> Result<String> {
    if let Ok(epoch) = env::var("SOURCE_DATE_EPOCH") {
        epoch.parse::<u64>().context("SOURCE_DATE_EPOCH is no number of seconds")?;
        return Ok(epoch);
    }
    let time =
        answer(Command::new("git").current_dir(root).args(["log", "-1", "--format=%ct"]), Duration::from_secs(10));
    let time = time.context("git does not tell the time of the last commit: set SOURCE_DATE_EPOCH")?;
    Ok(time.trim().to_owned())
}
