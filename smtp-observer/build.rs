//! Builds the eBPF programs and puts the object where the agent embeds it.
//!
//! The compiler and linker for the BPF target are found or installed by `cargo xtask setup`, which leaves them in
//! `.tools`: the directory of `rustc` and `cargo` in the file `ebpf-toolchain`, the linker in `bin`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

fn main() -> Result<()> {
    // Asked for now: a build directory may have been copied from another checkout.
    let manifest = env::var("CARGO_MANIFEST_DIR")?;
    let root = Path::new(&manifest).parent().context("the workspace has no root")?;
    let tools = root.join(".tools");
    let (out, triple) = (env::var("OUT_DIR")?, env::var("TARGET")?);
    // Not the whole of `smtp-ebpf`: tools write their files beside its sources.
    let programs = ["smtp-ebpf/src", "smtp-ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock"];
    let compiler = [".tools/ebpf-toolchain", ".tools/bin/bpf-linker"];
    for input in programs.iter().chain(&compiler) {
        println!("cargo:rerun-if-changed={}", root.join(input).display());
    }

    // For `smtp_observer_build_info`; a source tree without its history has none.
    if let Some(revision) = revision(root) {
        println!("cargo:rustc-env=SMTP_OBSERVER_REVISION={revision}");
        // Where it is missing, cargo would run this at every build.
        let moves = root.join(".git/logs/HEAD");
        if moves.exists() {
            println!("cargo:rerun-if-changed={}", moves.display());
        }
    }

    let toolchain = fs::read_to_string(tools.join("ebpf-toolchain"))
        .context("the compiler for eBPF is not set up: run `cargo xtask setup`")?;
    let bin = Path::new(toolchain.trim());
    let linker = tools.join("bin/bpf-linker");
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"))).unwrap_or_default();
    let sysroot = bin.parent().context("the compiler's directory cannot be told")?;
    let flags = [
        // The object names its source files, for the verifier's log: the same ones wherever it is built.
        format!("--remap-path-prefix={}/=", root.display()),
        format!("--remap-path-prefix={}=/usr/src/crates", cargo.display()),
        format!("--remap-path-prefix={}=/usr/src/rust", sysroot.display()),
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".into(),
        "-Cdebuginfo=2".into(),
        // 32-bit registers and jumps (Linux 5.1): what the verifier learns of a number it learns of the number used.
        "-Ctarget-cpu=v3".into(),
        // The layout of a caller's registers is the host's.
        format!("--cfg=bpf_target_arch=\"{}\"", env::var("CARGO_CFG_TARGET_ARCH")?),
        "--check-cfg=cfg(bpf_target_arch, values(any()))".into(),
    ];
    // Another cargo with a target directory of its own: the outer one holds the lock of ours. It lies beside the
    // directories of the profiles and of the targets, which all embed the same programs.
    let target = Path::new(&out).ancestors().skip(4).find(|directory| !directory.ends_with(&triple));
    let target = target.context("the target directory cannot be told")?.join("ebpf");
    let status = Command::new(bin.join("cargo"))
        .current_dir(root)
        .args(["build", "--package=smtp-ebpf", "--bin=smtp-ebpf", "--features=programs", "--release", "--locked"])
        .args(["--target=bpfel-unknown-none", "-Zbuild-std=core", "--target-dir"])
        .arg(&target)
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env("RUSTC", bin.join("rustc"))
        // A stable compiler builds `core` for this target too, when it is told so.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .status()
        .with_context(|| format!("{} cannot be run: run `cargo xtask setup`", bin.join("cargo").display()))?;
    ensure!(status.success(), "the eBPF programs do not build: see above");
    let object = fs::read(target.join("bpfel-unknown-none/release/smtp-ebpf"))?;
    fs::write(Path::new(&out).join("smtp-ebpf"), without_debug_information(&object)?)?;
    Ok(())
}

/// The object without what only debuggers read, which is most of it. The kernel reads BTF, which stays.
fn without_debug_information(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    // LLVM keeps the names of sections among those of symbols, and the builder does not.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// The commit that is built.
fn revision(root: &Path) -> Option<String> {
    let git = Command::new("git").current_dir(root).args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    git.status.success().then(|| String::from_utf8_lossy(&git.stdout).trim().to_owned())
}
