//! Everything that is built or generated for a package, in one directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::binary::{Program, Programs};
use super::{Build, notices};
use crate::process::{check, make_empty};

/// The directory, and the program in it.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    /// Where the files are.
    pub(super) directory: PathBuf,
    /// The static program, for the tarball.
    pub(super) fixed: &'a Program,
    /// The program's build id.
    pub(super) build_id: &'a str,
}

/// Fills the directory `name` of the build anew.
pub(super) fn make<'a>(build: &Build, programs: &'a Programs, name: &str) -> Result<Stage<'a>> {
    let directory = build.directory.join(name);
    make_empty(&directory)?;
    copy(&programs.dynamic.stripped, &directory.join("smtp-observer"))?;
    copy(&programs.dynamic.debug, &directory.join("smtp-observer.debug"))?;
    check(Command::new(&programs.manual).arg(&directory), "the manual cannot be written: see above")?;
    let mut pages: Vec<PathBuf> =
        fs::read_dir(directory.join("man"))?.map(|page| Ok(page?.path())).collect::<Result<_>>()?;
    pages.sort();
    // Without name and time, which would differ.
    check(Command::new("gzip").args(["-9", "--no-name"]).args(pages), "the manual cannot be compressed: see above")?;
    notices::write(build, &directory)?;
    Ok(Stage { directory, fixed: &programs.fixed, build_id: &programs.dynamic.build_id })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("{} cannot be copied to {}", from.display(), to.display()))?;
    Ok(())
}
