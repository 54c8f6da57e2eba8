//! Debian's kernels: found in a suite's package index, downloaded and unpacked, never installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::apt::{self, Apt, field, run};
use crate::process::{make_empty, say};

/// The newest kernel of the flavour for virtual machines, on every suite.
const METAPACKAGE: &str = "linux-image-cloud-amd64";

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// What QEMU boots.
    pub(super) image: PathBuf,
    /// `…/lib/modules/RELEASE`.
    pub(super) modules: PathBuf,
}

/// The newest kernel of a suite, in `directory`: as it is there, or downloaded.
pub(super) fn fetch(directory: &Path, suite: &str) -> Result<Kernel> {
    let apt = Apt::new(&directory.join("apt"), suite)?;
    let packages = kernel_packages(|name| apt.show(name))?;
    // The metapackage only names the others: a mirror may have dropped it already.
    let ((_, version), parts) = packages.split_first().context("no package")?;
    let unpacked = directory.join(version);
    if !unpacked.exists() {
        say(&format!("downloading {suite}'s kernel {version}"));
        let partial = directory.join("partial");
        make_empty(&partial)?;
        let archives = partial.join("archives");
        fs::create_dir_all(&archives)?;
        apt.download(parts, &archives)?;
        unpack(&archives, &partial)?;
        fs::remove_dir_all(&archives)?;
        remove_others(directory, &["apt", "partial"])?;
        fs::rename(&partial, &unpacked)?;
    }
    Kernel::find(&unpacked)
}

impl Kernel {
    fn find(unpacked: &Path) -> Result<Self> {
        let modules = only(&unpacked.join("lib/modules"), |_| true)?;
        // In the modules' directory since Linux 7.
        let beside = modules.join("vmlinuz");
        let image = match beside.exists() {
            true => beside,
            false => only(&unpacked.join("boot"), |name| name.starts_with("vmlinuz-"))?,
        };
        Ok(Self { image, modules })
    }
}

/// The metapackage and all packages of this kernel that it leads to, with their versions: image and modules are in one
/// or in several, from suite to suite.
fn kernel_packages(show: impl Fn(&str) -> Result<String>) -> Result<Vec<(String, String)>> {
    let mut packages: Vec<(String, String)> = Vec::new();
    let mut open = vec![METAPACKAGE.to_owned()];
    while let Some(name) = open.pop() {
        if packages.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let shown = show(&name)?;
        let version = field(&shown, "Version").with_context(|| format!("{name} has no version"))?;
        let needs = field(&shown, "Depends").unwrap_or_default().split([',', '|']);
        let names = needs.filter_map(|need| need.split_whitespace().next());
        open.extend(names.filter(|name| is_of_kernel(name)).map(str::to_owned));
        packages.push((name, version.to_owned()));
    }
    Ok(packages)
}

fn is_of_kernel(package: &str) -> bool {
    package.starts_with("linux-") && package.ends_with("-cloud-amd64")
}

/// Unpacks every package in `archives` into `root`, and lists what each module depends on.
fn unpack(archives: &Path, root: &Path) -> Result<()> {
    apt::extract(archives, root)?;
    // Debian's newer packages have no /lib, and depmod knows no other.
    if !root.join("lib").exists() {
        symlink("usr/lib", root.join("lib"))?;
    }
    let modules = only(&root.join("lib/modules"), |_| true)?;
    let depmod = crate::process::which("depmod").context("depmod is missing")?;
    run(Command::new(depmod).arg("-b").arg(root).arg(modules.file_name().unwrap_or_default())).map(drop)
}

fn remove_others(directory: &Path, kept: &[&str]) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && !kept.iter().any(|kept| entry.file_name() == *kept) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The one entry of a directory that has a fitting name.
fn only(directory: &Path, fits: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("{} cannot be read", directory.display()))?;
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| fits(&name.to_string_lossy())))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        _ => bail!("{} does not hold one kernel: remove .tools/kernels and repeat this command", directory.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_in_several_packages_is_followed() -> Result<()> {
        let show = |name: &str| {
            let depends = match name {
                METAPACKAGE => "linux-base-cloud-amd64 (= 7-1), linux-image-7-cloud-amd64 (= 7-1)",
                "linux-image-7-cloud-amd64" => {
                    "dracut | linux-initramfs-tool, linux-base (>= 4), linux-binary-7-cloud-amd64 (= 7-1), \
                     linux-modules-7-cloud-amd64 (= 7-1)"
                }
                _ => "kmod",
            };
            Ok(format!("Package: {name}\nVersion: 7-1\nDepends: {depends}\nSize: 1\n"))
        };
        let packages = kernel_packages(show)?;
        assert_eq!(packages[0], (METAPACKAGE.to_owned(), "7-1".to_owned()));
        let mut names: Vec<_> = packages.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "linux-base-cloud-amd64",
                "linux-binary-7-cloud-amd64",
                "linux-image-7-cloud-amd64",
                METAPACKAGE,
                "linux-modules-7-cloud-amd64"
            ]
        );
        assert!(kernel_packages(|_| Ok(String::new())).is_err());
        Ok(())
    }
}
