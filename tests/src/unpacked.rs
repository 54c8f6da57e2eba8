//! Senders that lie unpacked in `.tools/senders`, each run in a root of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::unistd::{Uid, chown};
use tempfile::TempDir;

use crate::machine;
use crate::netns::Host;

/// The first user that is not root.
const FIRST_USER: u32 = 900;

/// Enters the root. What is mounted there is so for this program and its children alone: it is gone when they are.
const ENTER: &str = r#"
mount --bind "$1" "$0/usr" && mount --bind /dev "$0/dev" && mount --bind /proc "$0/proc" || exit 1
cd "$0" && shift && exec chroot . "$@" < input"#;

/// A directory that is `/` for an unpacked sender: its own programs, and the files that a test writes.
#[derive(Debug)]
pub struct Root {
    folder: TempDir,
    programs: PathBuf,
}

impl Root {
    /// A root for a sender, with these users beside root.
    pub fn new(sender: &str, users: &[&str]) -> Result<Self> {
        let senders = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/senders");
        let programs = senders.join(sender).join("usr");
        ensure!(programs.exists(), "{sender} is not in .tools/senders: run `cargo xtask test`, which unpacks it there");
        let folder = tempfile::Builder::new().prefix("smtp-observer-root-").tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        for directory in ["usr", "dev", "proc", "etc", "run", "var", "tmp"] {
            fs::create_dir(folder.path().join(directory))?;
        }
        for (link, to) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("var/run", "../run")] {
            symlink(to, folder.path().join(link))?;
        }
        let root = Self { folder, programs };
        let (mut passwd, mut group) = ("root:x:0:0::/:/bin/sh\n".to_owned(), "root:x:0:\n".to_owned());
        for (id, user) in (FIRST_USER..).zip(users) {
            passwd.push_str(&format!("{user}:x:{id}:{id}::/:/bin/false\n"));
            group.push_str(&format!("{user}:x:{id}:\n"));
        }
        root.write("etc/passwd", &passwd)?;
        root.write("etc/group", &group)?;
        root.write("input", "")?;
        Ok(root)
    }

    /// Makes a directory and those above it. It belongs to root, and others may pass through it: so OpenSMTPD demands.
    pub fn directory(&self, path: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(path);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
        Ok(path)
    }

    /// Makes a directory that belongs to the first user.
    pub fn directory_of_first_user(&self, path: &str) -> Result<()> {
        Ok(chown(&self.directory(path)?, Some(Uid::from_raw(FIRST_USER)), None)?)
    }

    /// Whose a program of this sender is, and so whom it becomes if it asks for that.
    pub fn owner(&self, program: &str) -> Result<Uid> {
        let program = self.programs.join(program);
        Ok(Uid::from_raw(fs::metadata(&program).with_context(|| program.display().to_string())?.uid()))
    }

    /// Writes a file; `input` is the standard input of what is run.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.folder.path().join(path);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// Writes a file that only root may read.
    pub fn write_secret(&self, path: &str, text: &str) -> Result<()> {
        self.write(path, text)?;
        fs::set_permissions(self.folder.path().join(path), fs::Permissions::from_mode(0o600)).context("hiding a file")
    }

    /// Reads a file that was written there.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.folder.path().join(path);
        fs::read(&path).with_context(|| path.display().to_string())
    }

    /// A program of this sender that will run in this root, on a host.
    pub fn command(&self, host: &Host, program: &str) -> Result<Command> {
        Ok(self.entered(host.command(machine::installed("unshare")?), program))
    }

    /// A program that will run in this root, and otherwise where this process runs.
    pub fn command_here(&self, program: &str) -> Result<Command> {
        Ok(self.entered(Command::new(machine::installed("unshare")?), program))
    }

    fn entered(&self, mut command: Command, program: &str) -> Command {
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.args(["--mount", "sh", "-c", ENTER]).arg(self.folder.path()).arg(&self.programs).arg(program);
        command
    }
}
