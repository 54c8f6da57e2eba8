//! The pinned versions, and the compiler for eBPF that this machine has.
//!
//! A compiler for eBPF is a Rust compiler that comes with the sources of `core`: there is no ready-made `core` for the
//! BPF target. bpf-linker reads the compiler's LLVM bitcode, so both must hold the same LLVM: bpf-linker is therefore
//! linked to the very library that the compiler uses, and only its interface is pinned here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use crate::process::answer;

/// The nightly to get through rustup.
pub(crate) const NIGHTLY: &str = "nightly-2026-05-20";
/// The commit of that nightly: the same compiler may be installed under the name `nightly`.
const NIGHTLY_COMMIT: &str = "e50aa6fba4e63ab34c72bf9acfd2c307c1155d1a";
/// The release of Debian's compiler for web browsers, the one that keeps up with Rust.
pub(crate) const DEBIAN_RELEASE: &str = "1.96";
/// LLVM of these compilers.
pub(crate) const LLVM: u32 = 22;
/// bpf-linker, which has to know that LLVM.
pub(crate) const LINKER: &str = "0.13.0";

/// What a compiler says about itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// Such as `1.96.0` or `1.97.0-nightly`.
    pub(crate) release: String,
    /// The full hash; absent where the compiler was not built from a repository.
    pub(crate) commit: Option<String>,
    /// The major version of its LLVM.
    pub(crate) llvm: u32,
}

impl Version {
    /// Reads the output of `rustc -vV`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Some(Self {
            release: field("release")?.to_owned(),
            commit: field("commit-hash").filter(|&hash| hash != "unknown").map(str::to_owned),
            llvm: field("LLVM version")?.split('.').next()?.parse().ok()?,
        })
    }

    /// Whether this is one of the compilers that the eBPF programs are built with.
    pub(crate) fn is_pinned(&self) -> bool {
        let debian = self.release.strip_prefix(DEBIAN_RELEASE).is_some_and(|rest| rest.starts_with('.'));
        self.llvm == LLVM && (debian || self.commit.as_deref() == Some(NIGHTLY_COMMIT))
    }
}

/// A Rust compiler with the sources of its `core`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// The directory of its `rustc` and `cargo`.
    pub(crate) bin: PathBuf,
}

impl Compiler {
    /// The compiler in `bin`, if it is complete and one of the pinned ones.
    pub(crate) fn at(bin: &Path) -> Option<Self> {
        let complete = bin.join("cargo").exists() && sources(bin).exists();
        (complete && version(bin)?.is_pinned()).then(|| Self { bin: bin.to_owned() })
    }

    /// The pinned nightly, if rustup has installed it.
    pub(crate) fn nightly() -> Option<Self> {
        nightlies().iter().find_map(|bin| Self::at(bin))
    }

    /// Debian's, if it is installed.
    pub(crate) fn debian() -> Option<Self> {
        Self::at(Path::new("/usr/bin"))
    }

    /// The library of LLVM that this compiler uses.
    pub(crate) fn llvm_library(&self) -> Option<PathBuf> {
        let prefix = self.bin.parent()?;
        let multiarch = format!("lib/{}-linux-gnu", env::consts::ARCH);
        let name = format!("libLLVM.so.{LLVM}.");
        ["lib", &multiarch, "lib64"].into_iter().find_map(|directory| {
            fs::read_dir(prefix.join(directory))
                .ok()?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&name)))
        })
    }
}

/// What the `rustc` in `bin` says about itself.
pub(crate) fn version(bin: &Path) -> Option<Version> {
    Version::parse(&answer(Command::new(bin.join("rustc")).arg("-vV"), Duration::from_secs(10))?)
}

/// Where the compiler in `bin` has the sources of `core`.
fn sources(bin: &Path) -> PathBuf {
    bin.join("../lib/rustlib/src/rust/library/core/Cargo.toml")
}

/// Where rustup would have the pinned nightly.
fn nightlies() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")))
        .unwrap_or_default();
    let Ok(toolchains) = fs::read_dir(home.join("toolchains")) else { return Vec::new() };
    let mut bins: Vec<_> = toolchains
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| is_candidate(&name.to_string_lossy())))
        .map(|path| path.join("bin"))
        .collect();
    // The one with the date in its name first: it stays what it is.
    bins.sort();
    bins
}

/// Whether a toolchain of this name may be the pinned nightly.
fn is_candidate(name: &str) -> bool {
    let host = format!("-{}-", env::consts::ARCH);
    name.strip_prefix(NIGHTLY).or_else(|| name.strip_prefix("nightly")).is_some_and(|rest| rest.starts_with(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "\
rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)
binary: rustc
commit-hash: ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96
commit-date: 2026-05-25
host: x86_64-unknown-linux-gnu
release: 1.96.0
LLVM version: 22.1.8
";

    fn pinned(release: &str, commit: &str, llvm: u32) -> bool {
        Version { release: release.into(), commit: Some(commit.into()), llvm }.is_pinned()
    }

    #[test]
    fn a_compiler_introduces_itself() {
        let version = Version::parse(DEBIAN).expect("a version");
        assert_eq!((version.release.as_str(), version.llvm), ("1.96.0", 22));
        assert!(version.is_pinned());
        let unknown = Version::parse(&DEBIAN.replace("ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96", "unknown"));
        assert_eq!(unknown.expect("a version").commit, None);
        assert_eq!(Version::parse("error: no such command"), None);
    }

    #[test]
    fn pins_are_the_exact_nightly_and_debians_release_with_their_llvm() {
        assert!(pinned("1.97.0-nightly", NIGHTLY_COMMIT, LLVM));
        assert!(!pinned("1.97.0-nightly", "1111111111111111111111111111111111111111", LLVM));
        assert!(!pinned("1.97.0-nightly", NIGHTLY_COMMIT, LLVM + 1));
        assert!(pinned("1.96.1", "", LLVM));
        assert!(!pinned("1.960.0", "", LLVM));
        assert!(!pinned("1.95.0", "", LLVM));
        assert!(!pinned("1.96.0", "", LLVM - 1));
    }

    #[test]
    fn only_nightlies_for_this_machine_are_considered() {
        let arch = env::consts::ARCH;
        assert!(is_candidate(&format!("{NIGHTLY}-{arch}-unknown-linux-gnu")));
        assert!(is_candidate(&format!("nightly-{arch}-unknown-linux-gnu")));
        assert!(!is_candidate(&format!("nightly-2020-01-01-{arch}-unknown-linux-gnu")));
        assert!(!is_candidate("nightly-sparc64-unknown-linux-gnu"));
        assert!(!is_candidate(&format!("stable-{arch}-unknown-linux-gnu")));
    }
}
