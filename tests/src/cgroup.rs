//! Cgroups that a test makes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::machine;

/// A cgroup of the unified hierarchy, removed when it is dropped.
#[derive(Debug)]
pub struct Cgroup {
    /// Those that were made, the outermost first.
    made: Vec<PathBuf>,
    path: PathBuf,
}

impl Cgroup {
    /// Makes it, and those above it that are not there.
    pub fn new(path: &str) -> Result<Self> {
        machine::require_root()?;
        let mounts = fs::read_to_string("/proc/mounts")?;
        let mount = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let place = words.next()?;
            (words.next()? == "cgroup2").then_some(place)
        });
        let mount = Path::new(mount.context("cgroup2 is not mounted")?);
        let mut cgroup = Self { made: Vec::new(), path: mount.join(path) };
        let mut ancestors: Vec<_> = Path::new(path).ancestors().filter(|path| *path != Path::new("")).collect();
        ancestors.reverse();
        for part in ancestors {
            let directory = mount.join(part);
            if !directory.exists() {
                fs::create_dir(&directory)?;
                cgroup.made.push(directory);
            }
        }
        Ok(cgroup)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for directory in self.made.iter().rev() {
            if let Err(error) = fs::remove_dir(directory) {
                eprintln!("{} is left behind: {error}", directory.display());
            }
        }
    }
}
