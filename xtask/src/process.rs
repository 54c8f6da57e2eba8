//! Other programs: found, run with a bound, run as root.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, Result, ensure};

/// Says what is being done, on standard error: standard output is for results.
pub(crate) fn say(message: &str) {
    eprintln!("xtask: {message}");
}

/// The cargo that runs this program, in the workspace.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Where cargo puts what it builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    root.join(env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from))
}

/// Makes a directory, or has it empty where there is one.
pub(crate) fn make_empty(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("{} cannot be emptied", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))
}

/// Runs `command` to its end and fails with `meaning` if it does not succeed.
pub(crate) fn check(command: &mut Command, meaning: &str) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = command.status().with_context(|| format!("{} cannot be run", program.display()))?;
    ensure!(status.success(), "{meaning}");
    Ok(())
}

/// What `command` writes to standard output, if it succeeds within `limit`; it is killed when it does not.
///
/// For short answers only: the output has to fit into a pipe.
pub(crate) fn answer(command: &mut Command, limit: Duration) -> Option<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let deadline = Instant::now() + limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            _ => {
                // It may have ended by itself in between: nothing is left to do then.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    status.success().then_some(text)
}

/// Where `program` is: on the search path, or among the administrator's programs, which a user's path often lacks.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    find_in(program, env::var_os("PATH").unwrap_or_default())
        .or_else(|| find_in(program, "/usr/local/sbin:/usr/sbin:/sbin".into()))
}

fn find_in(program: &str, directories: OsString) -> Option<PathBuf> {
    env::split_paths(&directories)
        .map(|directory| directory.join(program))
        .find(|path| fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0))
}

/// Whether this program runs as root: its own entry in /proc belongs to its effective user.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

/// `program`, run as root: directly, or through sudo.
///
/// `None` where there is neither.
pub(crate) fn as_root(program: impl Into<OsString>) -> Option<Command> {
    if is_root() {
        return Some(Command::new(program.into()));
    }
    let mut command = Command::new(which("sudo")?);
    command.arg("-E").arg(program.into());
    Some(command)
}

/// The cargo that builds as this user and runs what it has built as root.
pub(crate) fn cargo_as_root(root: &Path) -> Result<Command> {
    let mut command = cargo(root);
    if !is_root() {
        ensure!(
            which("sudo").is_some(),
            "network namespaces and eBPF programs need root, and there is no sudo here: run this as root"
        );
        command.args(["--config", "target.'cfg(unix)'.runner = 'sudo -E'"]);
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_bounded_and_only_successes_count() {
        let second = Duration::from_secs(1);
        assert_eq!(answer(Command::new("echo").arg("yes"), second).as_deref(), Some("yes\n"));
        assert_eq!(answer(&mut Command::new("false"), second), None);
        assert_eq!(answer(&mut Command::new("/does/not/exist"), second), None);
        let start = Instant::now();
        assert_eq!(answer(Command::new("sleep").arg("30"), Duration::from_millis(50)), None);
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn programs_are_found_by_name() {
        assert!(which("sh").is_some());
        assert_eq!(which("no-such-program-anywhere"), None);
    }
}
