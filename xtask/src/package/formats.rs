//! The packages themselves, by the descriptions in `deploy/package`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::stage::Stage;
use super::{ARCHITECTURE, Build, DEBIAN_ARCHITECTURE};
use crate::apt::run;
use crate::process::make_empty;

/// What one edition of the packages differs in from another.
#[derive(Clone, Debug)]
pub(super) struct Edition {
    /// The version.
    pub(super) version: String,
    /// The configuration, from `deploy` on.
    pub(super) configuration: PathBuf,
}

impl Edition {
    /// That of this source tree.
    pub(super) fn this() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), configuration: "systemd/smtp-observer.toml".into() }
    }
}

/// Writes all packages into the directory `name` of the build, emptied before; gives that directory.
pub(super) fn write(build: &Build, stage: &Stage, edition: &Edition, name: &str) -> Result<PathBuf> {
    let out = build.directory.join(name);
    make_empty(&out)?;
    for packager in ["deb", "rpm"] {
        for description in ["nfpm.yaml", "debug.yaml"] {
            nfpm(build, stage, edition, &out, packager, description)?;
        }
    }
    tarball(build, stage, edition, &out)?;
    let names = list(&out)?;
    let names = names.iter().filter_map(|path| path.file_name());
    let sums = run(Command::new("sha256sum").current_dir(&out).args(names))?;
    fs::write(out.join("SHA256SUMS"), sums).context("the check sums cannot be written")?;
    Ok(out)
}

/// The files in a directory, in the order of their names.
pub(super) fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

fn nfpm(build: &Build, stage: &Stage, edition: &Edition, out: &Path, packager: &str, description: &str) -> Result<()> {
    let Some((first, rest)) = stage.build_id.split_at_checked(2) else { bail!("the build id is too short") };
    // What the debug package is called, and what it belongs to: the very same version of the other one.
    let (debug, of) = match packager {
        "deb" => ("smtp-observer-dbgsym", format!("smtp-observer (= {}-1)", edition.version)),
        _ => ("smtp-observer-debuginfo", format!("smtp-observer = {}-1", edition.version)),
    };
    let mut command = Command::new(build.root.join(".tools/python/bin/nfpm"));
    command
        .current_dir(build.root.join("deploy"))
        .args(["package", "--packager", packager, "--config"])
        .arg(Path::new("package").join(description))
        .arg("--target")
        .arg(out)
        .env("SOURCE_DATE_EPOCH", &build.epoch)
        .env("STAGE", &stage.directory)
        .env("PACKAGE_ARCH", DEBIAN_ARCHITECTURE)
        .env("PACKAGE_VERSION", &edition.version)
        .env("PACKAGE_MAINTAINER", build.maintainer)
        .env("PACKAGE_CONFIGURATION", &edition.configuration)
        .env("DEBUG_NAME", debug)
        .env("DEBUG_OF", of)
        .env("BUILD_ID", stage.build_id)
        .env("BUILD_ID_FILE", format!("{first}/{rest}.debug"));
    run(&mut command).map(drop)
}

/// The files of the `.deb` under one directory, with the static program, and what only Debian has left out.
fn tarball(build: &Build, stage: &Stage, edition: &Edition, out: &Path) -> Result<()> {
    let name = format!("smtp-observer-{}-linux-{ARCHITECTURE}", edition.version);
    let deb = out.join(format!("smtp-observer_{}-1_{DEBIAN_ARCHITECTURE}.deb", edition.version));
    let work = build.directory.join("tarball");
    make_empty(&work)?;
    let tree = work.join(&name);
    fs::create_dir_all(&tree)?;
    run(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&tree))?;
    fs::remove_file(tree.join("usr/share/doc/smtp-observer/changelog.Debian.gz"))?;
    fs::remove_dir_all(tree.join("usr/share/zsh/vendor-completions"))?;
    let functions = tree.join("usr/share/zsh/site-functions");
    fs::create_dir_all(&functions)?;
    fs::copy(stage.directory.join("completions/_smtp-observer"), functions.join("_smtp-observer"))?;
    fs::copy(&stage.fixed.stripped, tree.join("usr/bin/smtp-observer"))?;
    build.own_licences(&tree)?;
    archive(build, &work, &name, &out.join(format!("{name}.tar.xz")))?;

    let debug = format!("{name}-debug");
    fs::create_dir_all(work.join(&debug))?;
    fs::copy(&stage.fixed.debug, work.join(&debug).join(format!("{}.debug", stage.fixed.build_id)))?;
    archive(build, &work, &debug, &out.join(format!("{debug}.tar.xz")))
}

/// A tarball of the directory `name` in `work` that says nothing of this machine.
fn archive(build: &Build, work: &Path, name: &str, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.current_dir(work)
        .args(["--create", "--xz", "--sort=name", "--format=posix", "--owner=root:0", "--group=root:0"])
        .args(["--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", "--numeric-owner"])
        .args(["--mode=u+rwX,go=rX", &format!("--mtime=@{}", build.epoch), "--file"])
        .arg(to)
        .arg(name);
    run(&mut tar).map(drop)
}
