//! A container's image of the agent, made without a daemon: an OCI image layout, and the same as one file.
//!
//! The image has the static agent of [`crate::package`], its licences and bills of materials, and nothing else: no shell, no
//! library, no package. The same commit and compiler give the same bytes, so an image can be built again and compared by its
//! digest: every time in it is that of the commit, or SOURCE_DATE_EPOCH.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::package::Build;
use crate::packages;
use crate::process::{answer, check, make_empty, target};

/// Where the agent is in the image.
const AGENT: &str = "usr/bin/smtp-observer";

/// Where its licences are.
const LICENCES: &str = "usr/share/doc/smtp-observer";

/// What to make the image of.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// A static agent that is there already; one is built otherwise
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

/// Makes the image; says where it is and what its digest is.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    packages::ensure_installed(&[&packages::IMAGE])?;
    let build = Build::new(root)?;
    let agent = match &options.agent {
        Some(agent) => agent.clone(),
        None => build.static_agent()?,
    };
    ensure_static(&agent)?;
    let commit = Commit::of(root, &build)?;
    let directory = target(root).join("image");
    make_empty(&directory)?;
    let layer = layer(&build, &agent, &directory)?;
    let layout = directory.join("layout");
    assemble(&layout, &layer, &commit)?;
    let archive = directory.join(format!("smtp-observer-{VERSION}.oci.tar"));
    tar(&layout, &archive, &commit.epoch)?;
    println!("{}\n{}\n{}", layout.display(), archive.display(), digest(&layout)?);
    Ok(())
}

/// The version of the workspace, which is the image's tag.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the image says that it is.
const DESCRIPTION: &str =
    "Names the process behind every SMTP connection of a Linux host, and the program in the middle";

/// Fails where a program needs a loader, which the image has not.
fn ensure_static(agent: &Path) -> Result<()> {
    let headers =
        answer(Command::new("readelf").args(["--program-headers", "--wide"]).arg(agent), Duration::from_secs(10));
    let headers = headers.with_context(|| format!("{} is no program that can be read", agent.display()))?;
    ensure!(
        !headers.contains("INTERP"),
        "{} needs a loader and libraries, and the image has none: give one that is linked statically",
        agent.display()
    );
    Ok(())
}

/// What the image is made of.
struct Commit {
    /// Its hash.
    revision: String,
    /// Its time, or SOURCE_DATE_EPOCH, in seconds since 1970.
    epoch: String,
}

impl Commit {
    fn of(root: &Path, build: &Build) -> Result<Self> {
        let told = answer(Command::new("git").current_dir(root).args(["rev-parse", "HEAD"]), Duration::from_secs(10));
        let revision = told.context("git does not tell of the last commit: build in a clone")?;
        Ok(Self { revision: revision.trim().to_owned(), epoch: build.epoch.clone() })
    }

    /// Its time as OCI has it.
    fn created(&self) -> Result<String> {
        let date = format!("--date=@{}", self.epoch);
        let told = answer(Command::new("date").args(["--utc", &date, "+%Y-%m-%dT%H:%M:%SZ"]), Duration::from_secs(10));
        told.map(|told| told.trim().to_owned()).context("date cannot tell the commit's time")
    }
}

/// The image's files, as an archive.
fn layer(build: &Build, agent: &Path, directory: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;

    let files = directory.join("files");
    let licences = files.join(LICENCES);
    fs::create_dir_all(&licences)?;
    build.notices(&licences)?;
    let program = files.join(AGENT);
    fs::create_dir_all(program.parent().context("the agent is in no directory")?)?;
    fs::copy(agent, &program).with_context(|| format!("{} cannot be copied", agent.display()))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let layer = directory.join("layer.tar");
    tar(&files, &layer, &build.epoch)?;
    fs::remove_dir_all(files)?;
    Ok(layer)
}

/// Everything in `directory`, as an archive that is the same whoever makes it, and when.
fn tar(directory: &Path, archive: &Path, epoch: &str) -> Result<()> {
    let mut entries = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    entries.sort();
    check(
        Command::new("tar")
            .args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"])
            .args(["--mode=u=rwX,go=rX", &format!("--mtime=@{epoch}"), "--file"])
            .arg(archive)
            .arg("--directory")
            .arg(directory)
            .args(entries),
        "the image's archive cannot be written: see above",
    )
}

/// Makes the image of its one layer.
fn assemble(layout: &Path, layer: &Path, commit: &Commit) -> Result<()> {
    let created = commit.created()?;
    let image = format!("{}:{VERSION}", layout.display());
    let umoci = |arguments: &[&str]| check(Command::new("umoci").args(arguments), "umoci makes no image: see above");
    let layout = layout.to_str().context("the target directory is no text")?;
    umoci(&["init", "--layout", layout])?;
    umoci(&["new", "--image", &image])?;
    let history = ["--history.created", &created, "--history.created_by", "cargo xtask image"];
    let file = layer.to_str().context("the target directory is no text")?;
    umoci(&[&["raw", "add-layer", "--image", &image], &history[..], &[file]].concat())?;
    let labels = labels(&created, &commit.revision);
    let mut arguments = vec!["config", "--image", &image, "--no-history", "--created", &created];
    arguments.extend(["--os", "linux", "--architecture", "amd64", "--config.user", "0:0"]);
    arguments.extend(["--config.env", "PATH=/usr/bin", "--config.workingdir", "/"]);
    arguments.extend(["--config.entrypoint", "/usr/bin/smtp-observer", "--config.cmd", "run"]);
    arguments.extend(["--config.exposedports", "9725/tcp", "--config.stopsignal", "SIGTERM"]);
    for label in &labels {
        arguments.extend(["--config.label", label, "--manifest.annotation", label]);
    }
    umoci(&arguments)?;
    // What each step left behind.
    umoci(&["gc", "--layout", layout])?;
    Ok(fs::remove_file(layer)?)
}

/// What the image says of itself, under the names of the OCI image specification.
fn labels(created: &str, revision: &str) -> Vec<String> {
    let says = [
        ("title", "smtp-observer"),
        ("description", DESCRIPTION),
        ("version", VERSION),
        ("revision", revision),
        ("created", created),
        ("licenses", env!("CARGO_PKG_LICENSE")),
    ];
    says.iter().map(|(name, value)| format!("org.opencontainers.image.{name}={value}")).collect()
}

/// The digest of the image in a layout.
fn digest(layout: &Path) -> Result<String> {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let [manifest] = index["manifests"].as_array().map_or(&[][..], Vec::as_slice) else {
        bail!("{} has not one image", layout.display())
    };
    Ok(manifest["digest"].as_str().context("the image has no digest")?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn an_archive_is_the_same_whoever_makes_it_and_when() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = env::temp_dir().join(format!("smtp-observer-image-{}", std::process::id()));
        let made = |name: &str, files: [&str; 2], mode: u32| {
            let directory = folder.join(name);
            for file in files {
                let path = directory.join(file);
                fs::create_dir_all(path.parent().expect("a directory")).expect("made");
                fs::write(&path, "x").expect("written");
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
            }
            let archive = folder.join(format!("{name}.tar"));
            tar(&directory, &archive, "1700000000").expect("an archive");
            fs::read(archive).expect("readable")
        };
        let first = made("first", ["b/c", "a"], 0o600);
        let second = made("second", ["a", "b/c"], 0o644);
        fs::remove_dir_all(&folder).expect("removed");
        assert!(first == second, "the archives differ");
        let names: Vec<_> = first.chunks(512).filter_map(|block| block.strip_prefix(b"a\0")).collect();
        assert_eq!(names.len(), 1, "a file lies at the archive's own root");
    }

    #[test]
    fn a_program_that_needs_libraries_is_refused() {
        let own = env::current_exe().expect("a test is a file");
        let refusal = ensure_static(&own).expect_err("tests are linked to the C library");
        assert!(refusal.to_string().contains("needs a loader"), "{refusal}");
        assert!(ensure_static(Path::new("/dev/null")).is_err(), "no program at all");
    }

    #[test]
    fn labels_have_the_names_of_the_specification() {
        let commit = Commit { revision: "0a1b".into(), epoch: "1700000000".into() };
        let created = commit.created().expect("a time");
        assert_eq!(created, "2023-11-14T22:13:20Z");
        let labels = labels(&created, &commit.revision);
        assert!(labels.contains(&"org.opencontainers.image.created=2023-11-14T22:13:20Z".into()), "{labels:?}");
        assert!(labels.contains(&"org.opencontainers.image.revision=0a1b".into()), "{labels:?}");
        assert!(labels.contains(&"org.opencontainers.image.licenses=MIT OR Apache-2.0".into()), "{labels:?}");
    }
}
