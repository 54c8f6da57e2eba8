//! What the machine must have: root, the programs of this package, and the packages that `cargo xtask test` installs.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use procfs::CurrentSI as _;
use smtp_observer::kernel::Hooks;

use crate::process;

/// Where Debian keeps programs; `PATH` of an ordinary shell lacks half of them.
const PLACES: [&str; 5] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"];

/// Fails with one sentence where this is not root: namespaces and eBPF both need it.
pub fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("these tests make network namespaces and load eBPF programs: run them as root (`sudo cargo xtask test`)");
    }
    Ok(())
}

/// What all processors together have worked since the host was started.
pub fn processor_time() -> Result<Duration> {
    let all = procfs::KernelStats::current()?.total;
    let worked = [Some(all.user), Some(all.nice), Some(all.system), all.irq, all.softirq];
    let ticks: u64 = worked.into_iter().flatten().sum();
    Ok(Duration::from_millis(ticks * 1000 / procfs::ticks_per_second()))
}

/// The path of an installed program.
pub fn installed(name: &str) -> Result<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists()).with_context(|| {
        format!("`{name}` is not installed: run `cargo xtask test`, which installs what the tests need")
    })
}

/// The path of one of this package's own programs.
pub fn sibling(name: &str) -> Result<PathBuf> {
    let path = build_directory()?.join(name);
    if !path.exists() {
        bail!("{} is missing: build it with `cargo build -p smtp-observer-tests --bins`", path.display());
    }
    Ok(path)
}

/// The agent's executable: what `SMTP_OBSERVER` names, or what was built last into the target directory.
pub fn agent() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("SMTP_OBSERVER") {
        return Ok(path.into());
    }
    let target = build_directory()?.parent().context("the build directory has no parent")?.to_owned();
    ["release", "debug"]
        .iter()
        .map(|profile| target.join(profile).join("smtp-observer"))
        .filter(|path| path.exists())
        .max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())
        .with_context(|| format!("no smtp-observer under {}: run `cargo xtask build`", target.display()))
}

/// A copy of the agent in a folder, where any user may run it, wherever the build lies.
pub fn agent_for_all(folder: &Path) -> Result<PathBuf> {
    std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    let copy = folder.join("smtp-observer");
    // By another program: what this one writes may still be open in a child that another test is just starting, and then
    // cannot be executed.
    let mut cp = Command::new(installed("cp")?);
    cp.arg(agent()?).arg(&copy);
    process::run(cp)?;
    Ok(copy)
}

/// The hook family that the tests use: the variable `SMTP_OBSERVER_HOOKS`, or the one that the agent takes by itself.
pub fn hooks() -> Result<Hooks> {
    match std::env::var("SMTP_OBSERVER_HOOKS") {
        Ok(name) => Hooks::from_str(&name, false).map_err(|error| anyhow!("SMTP_OBSERVER_HOOKS: {error}")),
        Err(_) => Ok(Hooks::Auto),
    }
}

/// The kernel's version, such as 6 and 12.
pub fn kernel_release() -> Result<[u32; 2]> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let mut next = || numbers.next().context("no number")?.with_context(|| release.clone());
    Ok([next()?, next()?])
}

/// `target/debug` or `target/release`, whichever this program was built into.
fn build_directory() -> Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program's own path")?;
    program
        .ancestors()
        .skip(1)
        .find(|directory| directory.file_name().is_some_and(|name| name != "deps"))
        .map(Path::to_owned)
        .context("this program lies in no directory")
}
