//! Packages: `.deb` and `.rpm` of the agent and of its debug information, and a tarball with a static agent.
//!
//! - [`binary`]: builds the agent against an old glibc and against none, and splits off the debug information
//! - [`notices`]: the bill of materials, and the licences of what is linked in
//! - [`stage`]: everything that is built or generated, in one directory
//! - [`formats`]: the packages, by the descriptions in `deploy/package`
//! - [`checks`]: what packages are tested with
//!
//! An image for containers has its static program and its notices from here.
//!
//! The same commit and compiler give the same bytes: every time in a package is that of the commit, or SOURCE_DATE_EPOCH.

mod binary;
mod checks;
mod formats;
mod notices;
mod stage;

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::process::{answer, target};
use crate::{packages, setup};

/// What packages are for, as Rust, the kernel and RPM call it.
const ARCHITECTURE: &str = "x86_64";

/// The same, as Debian and Go call it.
const DEBIAN_ARCHITECTURE: &str = "amd64";

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
pub(crate) struct Build<'a> {
    root: &'a Path,
    /// `target/package`: all that is made is in here.
    directory: PathBuf,
    /// The time of everything in a package, in seconds since 1970.
    pub(crate) epoch: String,
    maintainer: &'a str,
}

impl<'a> Build<'a> {
    /// Sets up what the agent is built with.
    pub(crate) fn new(root: &'a Path) -> Result<Self> {
        setup::ensure(root)?;
        let directory = target(root).join("package");
        fs::create_dir_all(&directory).context("the target directory cannot be made")?;
        ensure!(ARCH == ARCHITECTURE, "packages are made on {ARCHITECTURE}, and this machine is {ARCH}");
        Ok(Self { root, directory, epoch: epoch(root)?, maintainer: MAINTAINER })
    }

    /// The static agent without debug information.
    pub(crate) fn static_agent(&self) -> Result<PathBuf> {
        Ok(binary::fixed(self)?.stripped)
    }

    /// Writes licences and bills of materials into a directory: what goes with the agent where there is no package.
    pub(crate) fn notices(&self, directory: &Path) -> Result<()> {
        notices::write(self, directory)?;
        self.own_licences(directory)
    }

    /// Copies the licences of the project itself into a directory.
    fn own_licences(&self, directory: &Path) -> Result<()> {
        for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
            fs::copy(self.root.join(licence), directory.join(licence))
                .with_context(|| format!("{licence} cannot be copied to {}", directory.display()))?;
        }
        Ok(())
    }
}

/// Makes the packages; says which.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    packages::ensure_installed(&[&packages::PACKAGES])?;
    let build = Build { maintainer: &options.maintainer, ..Build::new(root)? };
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
