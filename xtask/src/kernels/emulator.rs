//! QEMU: this machine's own, or Debian's, unpacked beside the kernels.
//!
//! It is not installed where it is missing: its packages get in the way of a newer `qemu-utils`, and it needs nothing of
//! this machine. Unpacked with all of its libraries, down to the loader, it runs from where it lies.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::Suite;
use crate::apt::Apt;
use crate::process::{say, which};

const PROGRAM: &str = "qemu-system-x86_64";

/// Whose QEMU is unpacked.
const SUITE: Suite = Suite::Trixie;

/// Where it can be run.
#[derive(Debug)]
pub(super) enum Emulator {
    /// It is installed.
    Installed(PathBuf),
    /// It lies under this root.
    Unpacked(PathBuf),
}

impl Emulator {
    /// The installed one, or the one that is unpacked in `directory`, after fetching it where it is not there.
    pub(super) fn find(directory: &Path) -> Result<Self> {
        if let Some(program) = which(PROGRAM) {
            return Ok(Self::Installed(program));
        }
        let root = directory.join("qemu");
        if !root.exists() {
            let suite = SUITE.name();
            let apt = Apt::new(&directory.join(suite).join("apt"), suite)?;
            say("downloading QEMU, which is not installed here, and will not be");
            apt.unpack_whole(&["qemu-system-x86"], &root)?;
        }
        Ok(Self::Unpacked(root))
    }

    /// Runs it; what it is to do is still to be said.
    pub(super) fn command(&self) -> Command {
        match self {
            Self::Installed(program) => Command::new(program),
            Self::Unpacked(root) => {
                let libraries = root.join("usr/lib/x86_64-linux-gnu");
                let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
                command.arg("--library-path").arg(&libraries).arg(root.join("usr/bin").join(PROGRAM));
                // Its firmware.
                for share in ["usr/share/seabios", "usr/share/qemu"] {
                    command.arg("-L").arg(root.join(share));
                }
                command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
                command
            }
        }
    }
}
