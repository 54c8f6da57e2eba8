//! Set-up: brings the compiler and linker for eBPF into `.tools`, where the agent's build script looks for them.
//!
//! | in `.tools` | is |
//! | --- | --- |
//! | `ebpf-toolchain` | the directory of the compiler's `rustc` and `cargo` |
//! | `bin/bpf-linker` | the linker, linked to that compiler's LLVM |
//! | `llvm/lib` | names of that LLVM for the build of the linker |

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::packages;
use crate::process::{answer, cargo, check, say, which};
use crate::toolchain::{Compiler, DEBIAN_RELEASE, LINKER, LLVM, NIGHTLY, version};

/// How long rustup's server may take to answer at all: some networks swallow the request.
const FIRST_ANSWER: Duration = Duration::from_secs(15);
/// How long the whole download may take, about 115 MB.
const DOWNLOAD: Duration = Duration::from_secs(600);

/// Makes sure that `.tools` has a pinned compiler and a linker that fits; quick when it has.
pub(crate) fn ensure(root: &Path) -> Result<()> {
    let tools = root.join(".tools");
    if is_complete(&tools) {
        return Ok(());
    }
    fs::create_dir_all(tools.join("llvm/lib")).context(".tools cannot be made")?;
    let lock = File::create(tools.join("lock")).context(".tools cannot be written")?;
    lock.lock().context("another set-up cannot be waited for")?;
    // Another set-up may have done the work meanwhile.
    if is_complete(&tools) {
        return Ok(());
    }

    let compiler = compiler()?;
    say(&format!("the eBPF programs are compiled by {}", compiler.bin.join("rustc").display()));
    link(root, &tools, &compiler)?;
    // Only when it differs: the eBPF programs are built anew when this file changes.
    let (file, text) = (tools.join("ebpf-toolchain"), format!("{}\n", compiler.bin.display()));
    if fs::read_to_string(&file).ok().as_ref() != Some(&text) {
        fs::write(&file, text).context(".tools cannot be written")?;
    }
    ensure!(is_complete(&tools), "set-up ended, but bpf-linker does not run: remove .tools and repeat this command");
    Ok(())
}

/// Whether `.tools` has all that the build script needs, of the pinned versions.
fn is_complete(tools: &Path) -> bool {
    let compiler = fs::read_to_string(tools.join("ebpf-toolchain"))
        .is_ok_and(|directory| Compiler::at(Path::new(directory.trim())).is_some());
    compiler && has_linker(tools)
}

/// Whether `.tools` has the pinned linker, for the pinned LLVM, and it finds its libraries.
fn has_linker(tools: &Path) -> bool {
    let version = answer(Command::new(tools.join("bin/bpf-linker")).arg("--version"), Duration::from_secs(10));
    version.is_some_and(|version| version.trim() == format!("bpf-linker {LINKER}"))
        && fs::read_to_string(tools.join(".crates2.json"))
            .is_ok_and(|record| record.contains(&format!("\"llvm-{LLVM}\"")))
}

/// A pinned compiler: what is installed before what has to be fetched, rustup before packages that need root.
fn compiler() -> Result<Compiler> {
    if let Some(compiler) = Compiler::nightly().or_else(Compiler::debian) {
        return Ok(compiler);
    }
    if let Some(rustup) = which("rustup") {
        if let Err(error) = install_nightly(&rustup) {
            say(&format!("{error:#}"));
        }
        if let Some(compiler) = Compiler::nightly() {
            return Ok(compiler);
        }
    }
    ensure!(
        which("apt-get").is_some(),
        "no compiler for the eBPF programs can be had here: install rustup (https://rustup.rs), run `rustup toolchain \
         install {NIGHTLY} --component rust-src`, then repeat this command"
    );
    packages::install(&packages::COMPILER)?;
    Compiler::debian().with_context(|| {
        let has = version(Path::new("/usr/bin"))
            .map_or("no compiler".into(), |has| format!("Rust {} with LLVM {}", has.release, has.llvm));
        format!(
            "this system's packages bring {has}, and the eBPF programs are built with Rust {DEBIAN_RELEASE} and LLVM \
             {LLVM}: change the pins in xtask/src/toolchain.rs together"
        )
    })
}

/// Has rustup install the pinned nightly with the sources of `core`, within bounds.
fn install_nightly(rustup: &Path) -> Result<()> {
    say(&format!("installing {NIGHTLY} with its sources through rustup (about 115 MB)"));
    let mut child = Command::new(rustup)
        .args(["toolchain", "install", NIGHTLY, "--profile=minimal", "--component=rust-src", "--no-self-update"])
        // How long a download that has begun may stand still, in seconds.
        .env("RUSTUP_DOWNLOAD_TIMEOUT", "20")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("rustup cannot be run")?;
    let stderr = BufReader::new(child.stderr.take().context("no pipe from rustup")?);
    let (sender, lines) = mpsc::channel();
    // Ends with rustup, which closes the pipe.
    thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));

    let start = Instant::now();
    let mut limit = FIRST_ANSWER;
    let mut last = String::new();
    loop {
        match lines.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(line) => {
                if is_answer(&line) {
                    limit = DOWNLOAD;
                }
                if !line.trim().is_empty() {
                    last = line;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                child.kill().context("rustup cannot be stopped")?;
                child.wait()?;
                discard_nightly(rustup);
                bail!("rustup had no {NIGHTLY} after {} s: going on without it", limit.as_secs());
            }
        }
    }
    ensure!(child.wait()?.success(), "rustup cannot install {NIGHTLY} ({last}): going on without it");
    Ok(())
}

/// Whether this line of rustup's shows that its server has answered.
fn is_answer(line: &str) -> bool {
    ["info: latest update on", "info: downloading"].iter().any(|start| line.starts_with(start))
}

/// Takes back what an interrupted rustup left of the pinned nightly: half a toolchain.
fn discard_nightly(rustup: &Path) {
    // It may have left nothing: then there is nothing to take back, and rustup says so.
    let _ = answer(Command::new(rustup).args(["toolchain", "uninstall", NIGHTLY]), Duration::from_secs(10));
}

/// Builds bpf-linker into `.tools`, linked to the compiler's own LLVM.
fn link(root: &Path, tools: &Path, compiler: &Compiler) -> Result<()> {
    let library = compiler.llvm_library().with_context(|| {
        format!("the compiler in {} comes without its library of LLVM {LLVM}", compiler.bin.display())
    })?;
    let directory = tools.join("llvm/lib");
    let name = library.file_name().context("a library has a name")?;
    // The linker's build looks for the first, the built program for the second.
    for link in [directory.join("libLLVM.so"), directory.join(name)] {
        replace_link(&library, &link)?;
    }
    say(&format!("building bpf-linker {LINKER} with LLVM {LLVM} (one to two minutes)"));
    let rpath = library.parent().context("a library is in a directory")?;
    check(
        cargo(root)
            .args(["install", "--quiet", "--locked", "--force", &format!("bpf-linker@{LINKER}")])
            .args(["--no-default-features", &format!("--features=llvm-{LLVM}"), "--root"])
            .arg(tools)
            .env("LLVM_PREFIX", tools.join("llvm"))
            // Found where it is, too, when the project has moved.
            .env("CARGO_ENCODED_RUSTFLAGS", format!("-Clink-arg=-Wl,-rpath,{}", rpath.display()))
            // Its own work is small, LLVM does the rest: a quick build is worth more than a quick linker.
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
        "bpf-linker does not build: see above (it needs a C compiler, and the crates' registry)",
    )
}

fn replace_link(target: &Path, link: &PathBuf) -> Result<()> {
    if link.is_symlink() {
        fs::remove_file(link).with_context(|| format!("{} cannot be replaced", link.display()))?;
    }
    symlink(target, link).with_context(|| format!("{} cannot be made", link.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_first_answer_is_told_from_rustups_own_words() {
        assert!(!is_answer("info: syncing channel updates for nightly-2026-05-20-x86_64-unknown-linux-gnu"));
        assert!(is_answer("info: latest update on 2026-05-20 for version 1.97.0-nightly (e50aa6fba 2026-05-19)"));
        assert!(is_answer("info: downloading 4 components"));
        assert!(!is_answer(""));
    }

    #[test]
    fn tools_without_a_compiler_are_incomplete() {
        assert!(!is_complete(Path::new("/does/not/exist")));
    }
}
