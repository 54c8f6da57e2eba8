//! The tarball, in an empty root.

use std::env::consts::ARCH;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::{FILES, PROGRAM, VERSION, one, packages, run};

/// The tarball, unpacked.
pub fn unpacked() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let tarball = one(&packages()?, "smtp-observer-", &format!("linux-{ARCH}.tar.xz"))?;
    run(Command::new("tar").arg("-xf").arg(tarball).args(["--strip-components=1", "-C"]).arg(folder.path()))?;
    Ok(folder)
}

/// There is no library and no loader, not even a directory beside what the tarball brings.
#[test]
fn the_program_runs_in_an_empty_root() -> Result<()> {
    let folder = unpacked()?;
    let agent = |arguments: &[&str]| {
        let mut command = Command::new("chroot");
        run(command.arg(folder.path()).arg(PROGRAM).args(arguments))
    };
    assert_eq!(agent(&["--version"])?, format!("smtp-observer {VERSION}\n"));
    ensure!(agent(&["help", "run"])?.contains("--listen"));
    Ok(())
}

#[test]
fn it_has_what_packages_have() -> Result<()> {
    let folder = unpacked()?;
    for file in FILES {
        ensure!(folder.path().join(file.trim_start_matches('/')).exists(), "{file} is missing");
    }
    for file in ["LICENSE-APACHE", "LICENSE-MIT", "usr/share/zsh/site-functions/_smtp-observer"] {
        ensure!(folder.path().join(file).exists(), "{file} is missing");
    }
    for file in ["usr/share/zsh/vendor-completions", "usr/share/doc/smtp-observer/changelog.Debian.gz"] {
        ensure!(!folder.path().join(file).exists(), "{file} is Debian's alone");
    }
    Ok(())
}

/// Unpacked as root, everything belongs to root, and nobody else may write it.
#[test]
fn everything_belongs_to_root() -> Result<()> {
    let folder = unpacked()?;
    let found = run(Command::new("find").arg(folder.path()).args(["-mindepth", "1", "!", "-user", "root"]))?;
    ensure!(found.is_empty(), "{found}");
    let found = run(Command::new("find").arg(folder.path()).args(["-mindepth", "1", "-perm", "/022"]))?;
    ensure!(found.is_empty(), "{found}");
    ensure!(fs::read_dir(Path::new(folder.path()))?.count() > 0, "it is empty");
    Ok(())
}
