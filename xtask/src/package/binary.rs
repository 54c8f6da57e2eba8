//! The agent as packages have it: once for the C library of the distributions, once with a C library in it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs, iter};

use anyhow::{Context as _, Result, bail, ensure};
use object::Object as _;

use super::{ARCHITECTURE, Build};
use crate::process::{answer, check, say, which};
use crate::tools::{self, CargoTool};

/// The oldest glibc that the packages run on: that of RHEL 9 and its kin. Debian 12 has 2.36.
const GLIBC: &str = "2.34";

/// The target that has its C library in it.
const MUSL: &str = "x86_64-unknown-linux-musl";

/// Writes the list of what is linked into a program into the program.
const CARGO_AUDITABLE: CargoTool = CargoTool { name: "cargo-auditable", version: "0.7.7", features: "" };

/// The paths of a build, as they stand in the program: no two machines have the same.
const SOURCES: &str = "/usr/src/smtp-observer";
const CRATES: &str = "/usr/src/crates";

/// What is built of the workspace.
const AGENT: [&str; 2] = ["--package=smtp-observer", "--bin=smtp-observer"];

/// A program and its debug information.
#[derive(Debug)]
pub(super) struct Program {
    /// The program without debug information.
    pub(super) stripped: PathBuf,
    /// The debug information alone.
    pub(super) debug: PathBuf,
    /// What binds the two together, in hexadecimal.
    pub(super) build_id: String,
}

/// What packages have in them.
#[derive(Debug)]
pub(super) struct Programs {
    /// Linked to glibc, whose modules may ask a directory server for users' names: for `.deb` and `.rpm`.
    pub(super) dynamic: Program,
    /// With musl in it: for the tarball.
    pub(super) fixed: Program,
    /// Writes man pages and completions.
    pub(super) manual: PathBuf,
}

impl Programs {
    /// Builds and splits them, quick where nothing has changed.
    pub(super) fn build(build: &Build) -> Result<Self> {
        let dynamic = dynamic(build)?;
        let fixed = fixed(build)?;
        check(
            cargo(build, "build", MUSL)?.arg("--package=smtp-observer-manual"),
            "what writes the manual does not build: see above",
        )?;
        Ok(Self { dynamic, fixed, manual: built(build, MUSL, "smtp-observer-manual") })
    }
}

/// Builds the agent for the glibc of old distributions.
fn dynamic(build: &Build) -> Result<Program> {
    let requirements = build.root.join("deploy/package/requirements.txt");
    let python = tools::ensure_python(&build.root.join(".tools/python"), &requirements)?;
    let target = format!("{ARCHITECTURE}-unknown-linux-gnu");
    say("building the agent for glibc (minutes, the first time)");
    check(
        cargo(build, "zigbuild", &format!("{target}.{GLIBC}"))?.args(AGENT).env("PATH", search_path(&python)),
        "the agent does not build for glibc: see above",
    )?;
    split(&built(build, &target, "smtp-observer"))
}

/// Builds the agent with musl in it.
pub(super) fn fixed(build: &Build) -> Result<Program> {
    ensure_target(MUSL)?;
    say("building the agent with musl in it (minutes, the first time)");
    check(cargo(build, "build", MUSL)?.args(AGENT), "the agent does not build with musl: see above")?;
    split(&built(build, MUSL, "smtp-observer"))
}

/// A cargo that builds for `target` as packages have it.
fn cargo(build: &Build, subcommand: &str, target: &str) -> Result<Command> {
    let mut command = Command::new(CARGO_AUDITABLE.ensure_installed(build.root)?);
    command
        .current_dir(build.root)
        .args(["auditable", subcommand, "--release", "--locked", "--target", target, "--target-dir"])
        .arg(build.directory.join("build"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags(build.root).join("\x1f"))
        // Some crates ask it while they are built.
        .env("SOURCE_DATE_EPOCH", &build.epoch);
    Ok(command)
}

/// Where that cargo puts the program `name`.
fn built(build: &Build, target: &str, name: &str) -> PathBuf {
    build.directory.join("build").join(target).join("release").join(name)
}

/// Flags for every crate of the agent.
fn flags(root: &Path) -> [String; 3] {
    let cargo = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
        .unwrap_or_default();
    [
        format!("--remap-path-prefix={}={SOURCES}", root.display()),
        format!("--remap-path-prefix={}={CRATES}", cargo.display()),
        "-Clink-arg=-Wl,--build-id=sha1".into(),
    ]
}

/// Where cargo finds cargo-zigbuild, and that finds zig.
fn search_path(python: &Path) -> OsString {
    let before = env::var_os("PATH").unwrap_or_default();
    env::join_paths(iter::once(python.to_owned()).chain(env::split_paths(&before))).unwrap_or(before)
}

/// Has rustup install the standard library for `target`, unless it is there.
fn ensure_target(target: &str) -> Result<()> {
    if sysroot()?.join("lib/rustlib").join(target).exists() {
        return Ok(());
    }
    let remedy = format!("the compiler has no standard library for {target}: run `rustup target add {target}`");
    if which("rustup").is_none() {
        bail!("{remedy} (packages are made with a compiler from rustup)");
    }
    say(&format!("installing Rust's standard library for {target} with rustup"));
    check(Command::new("rustup").args(["target", "add", target]), &remedy)
}

/// Where the compiler has its parts.
fn sysroot() -> Result<PathBuf> {
    let sysroot = answer(Command::new("rustc").args(["--print", "sysroot"]), Duration::from_secs(10));
    Ok(PathBuf::from(sysroot.context("rustc cannot be asked for its directory")?.trim()))
}

/// Writes the program without its debug information, and that, beside the program.
fn split(program: &Path) -> Result<Program> {
    let (host, sysroot) = (format!("{}-unknown-linux-gnu", env::consts::ARCH), sysroot()?);
    // The compiler's own: it knows programs of every architecture.
    let objcopy = sysroot.join("lib/rustlib").join(host).join("bin/rust-objcopy");
    ensure!(objcopy.exists(), "the compiler comes without rust-objcopy: packages are made with one from rustup");
    let (stripped, debug) = (program.with_extension("stripped"), program.with_extension("debug"));
    // cargo-auditable's list is none of the sections that a program needs to run, and stays.
    let options = [(&["--strip-all", "--keep-section=.dep-v0"][..], &stripped), (&["--only-keep-debug"], &debug)];
    for (options, to) in options {
        check(
            // It does not find the compiler's LLVM by itself.
            Command::new(&objcopy).env("LD_LIBRARY_PATH", sysroot.join("lib")).args(options).arg(program).arg(to),
            "debug information cannot be split off: see above",
        )?;
    }
    let data = fs::read(program).with_context(|| format!("{} cannot be read", program.display()))?;
    let build_id = object::File::parse(&*data)?.build_id()?.context("the program has no build id")?;
    let build_id = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Program { stripped, debug, build_id })
}
