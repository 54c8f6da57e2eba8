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

/// A cgroup that limits memory, of whichever hierarchy has that controller. It is removed when it is dropped.
#[derive(Debug)]
pub struct MemoryLimit(PathBuf);

impl MemoryLimit {
    /// Makes one for so many bytes. A process makes one at a time.
    pub fn new(bytes: u64) -> Result<Self> {
        machine::require_root()?;
        let mounts = fs::read_to_string("/proc/mounts")?;
        let find = |kind: &str, option: &str| {
            mounts.lines().find_map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                (words[2] == kind && words[3].split(',').any(|word| word == option)).then(|| PathBuf::from(words[1]))
            })
        };
        let name = format!("smtp-observer-test-{}", std::process::id());
        let (directory, file) = match find("cgroup", "memory") {
            Some(mount) => (mount.join(name), "memory.limit_in_bytes"),
            None => {
                let mount = find("cgroup2", "rw").context("there are no cgroups")?;
                fs::write(mount.join("cgroup.subtree_control"), "+memory")?;
                (mount.join(name), "memory.max")
            }
        };
        fs::create_dir(&directory)?;
        let group = Self(directory);
        fs::write(group.0.join(file), bytes.to_string())?;
        Ok(group)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The most that was used so far, in bytes.
    pub fn peak(&self) -> Result<u64> {
        let names = ["memory.max_usage_in_bytes", "memory.peak"];
        let text = names.iter().find_map(|name| fs::read_to_string(self.0.join(name)).ok());
        Ok(text.context("the cgroup does not say what was used")?.trim().parse()?)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}
