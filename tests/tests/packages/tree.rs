//! A copy of a whole Debian to install into. systemd lies in it and does not run.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{directory, run};

/// Enters the tree. What is mounted there is so for this program and its children alone: it is gone when they are.
const ENTER: &str = r#"
mount --rbind /dev "$0/dev" && mount --bind /proc "$0/proc" && mount --rbind /sys "$0/sys" || exit 1
exec chroot "$0" "$@""#;

/// Where programs are in a tree.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The tree; it is removed when the test is done.
#[derive(Debug)]
pub struct Tree(TempDir);

impl Tree {
    /// A fresh copy.
    pub fn new(suite: &str) -> Result<Self> {
        let original = directory("SMTP_OBSERVER_TREES")?.join(suite);
        ensure!(original.join("usr/bin/dpkg").exists(), "{} is no tree of Debian", original.display());
        let folder = tempfile::Builder::new().prefix("smtp-observer-tree-").tempdir()?;
        run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(original.join(".")).arg(folder.path()))?;
        // What an installation needs, it has.
        fs::write(folder.path().join("etc/apt/sources.list"), "")?;
        Ok(Self(folder))
    }

    /// Where a file of the tree is on this machine.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside.trim_start_matches('/'))
    }

    /// Whether there is such a file or link.
    pub fn has(&self, inside: &str) -> bool {
        self.path(inside).symlink_metadata().is_ok()
    }

    /// The text of a file.
    pub fn read(&self, inside: &str) -> Result<String> {
        fs::read_to_string(self.path(inside)).with_context(|| inside.to_owned())
    }

    /// Writes a file and the directories above it.
    pub fn write(&self, inside: &str, text: &str) -> Result<()> {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
        fs::write(&path, text).with_context(|| inside.to_owned())
    }

    /// Copies a file of this machine's into the tree.
    pub fn take(&self, from: &Path, inside: &str) -> Result<()> {
        fs::copy(from, self.path(inside)).with_context(|| format!("{} to {inside}", from.display()))?;
        Ok(())
    }

    /// A program of the tree, to be run in it.
    pub fn command<I: AsRef<OsStr>>(&self, line: &[I]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", ENTER]).arg(self.0.path()).args(line);
        command.env("PATH", PATH).env("DEBIAN_FRONTEND", "noninteractive").env("HOME", "/root");
        command
    }

    /// Runs a program of the tree; gives what it says.
    pub fn run<I: AsRef<OsStr>>(&self, line: &[I]) -> Result<String> {
        run(&mut self.command(line))
    }

    /// Every path in the tree, without those in which package managers keep their own books.
    pub fn paths(&self) -> Result<BTreeSet<String>> {
        let list = run(Command::new("find").current_dir(self.0.path()).args([".", "-xdev", "-printf", "/%P\n"]))?;
        let books = [
            "/var/lib/dpkg/",
            "/var/lib/apt/",
            "/var/cache/",
            "/var/log/dpkg",
            "/var/log/apt",
            "/var/log/alternatives",
        ];
        Ok(list.lines().filter(|path| !books.iter().any(|book| path.starts_with(book))).map(str::to_owned).collect())
    }

    /// A user's fields in the user database.
    pub fn user(&self, name: &str) -> Result<Option<Vec<String>>> {
        let users = self.read("/etc/passwd")?;
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        Ok(users.lines().map(fields).find(|fields| fields.first().is_some_and(|first| first == name)))
    }
}
