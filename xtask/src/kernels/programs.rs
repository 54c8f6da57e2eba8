//! What a guest runs: the agent, the test programs, and what these start.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::process::{cargo, which};

/// The test programs that are not run in guests, each with the reason. All others of the package `tests` are.
const LEFT_OUT: &[(&str, &str)] = &[
    ("check", "what the agent says of namespaces and rights, whatever the kernel"),
    ("cli", "what the agent answers, whatever the kernel"),
    ("compare", "what is made of two files of events, whatever the kernel"),
    ("confinement", "needs a host's users and files"),
    ("handshakes", "needs Python and its ssl"),
    ("interception", "needs proxies and whole mail servers"),
    ("kubernetes", "needs Helm, Python and runc"),
    ("output", "what becomes of lines, whatever the kernel"),
    // Seen on 7.2: one QUIT of two hundred went by as a gap.
    ("owners", "two hundred processes on an emulated processor interrupt hooks, which the kernel then skips"),
    ("page", "needs a browser, whatever the kernel"),
    ("pipelines", "what is in the repository, whatever the kernel"),
    ("postfix_owners", "needs a whole Postfix"),
    ("probes", "needs Python, and libraries of TLS"),
    ("prometheus", "needs Prometheus and a whole Postfix"),
    ("recording", "what becomes of the kernel's events, whatever the kernel"),
    ("senders", "needs whole mail servers, Python and Node.js"),
    ("shippers", "needs rsyslog, whatever the kernel"),
    ("service", "what the service manager and the journal are told, whatever the kernel"),
    ("tls", "needs whole mail servers, Python and libraries of TLS"),
    ("top", "what is drawn on a terminal, whatever the kernel"),
    ("postfix_swaks", "needs a whole Postfix, and swaks with Perl"),
    ("units", "what is in the repository, whatever the kernel"),
    ("trace", "what is shown of observations, whatever the kernel"),
];

/// The test programs that change the whole machine, as by its clock: nothing but a guest runs them.
pub(crate) const GUESTS_ALONE: [&str; 1] = ["clock"];

/// Programs of that package that none of these tests starts.
const NOT_STARTED: [&str; 5] = ["bench", "demo", "events", "plots", "ring"];

/// Programs of this machine that tests start.
const INSTALLED: [&str; 10] =
    ["bash", "cp", "ip", "nft", "openssl", "perl", "sleep", "smtp-sink", "smtp-source", "unshare"];

/// The dialogues that tests read.
const TRANSCRIPTS: &str = "tests/transcripts";

/// Files on this machine, each with its place in the guest.
#[derive(Debug, Default)]
pub(super) struct Programs {
    /// What this project builds.
    pub(super) built: Vec<(PathBuf, String)>,
    /// What this machine has: programs and shared libraries.
    pub(super) installed: Vec<(PathBuf, String)>,
}

impl Programs {
    /// Builds the tests, and collects what they need. `agent` is the agent's executable; a copy of this very program is
    /// left in `directory`.
    pub(super) fn collect(root: &Path, agent: &Path, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let init = directory.join("init");
        // cargo replaces the file that this program was started from when it builds it anew.
        fs::copy("/proc/self/exe", &init).with_context(|| format!("{} cannot be written", init.display()))?;
        let mut programs = Self { built: build(root)?, ..Self::default() };
        ensure!(programs.built.iter().any(|(_, place)| is_test(place)), "there is no test to run");
        programs.built.push((agent.to_owned(), super::init::AGENT.into()));
        programs.built.push((init, "init".into()));
        for name in INSTALLED {
            let program = which(name).with_context(|| format!("there is no {name}"))?;
            programs.installed.push((program, format!("usr/bin/{name}")));
        }
        let mut libraries = Vec::new();
        for (program, _) in programs.built.iter().chain(&programs.installed) {
            libraries.extend(shared_libraries(program)?);
        }
        libraries.sort_unstable();
        libraries.dedup();
        let place = |library: PathBuf| {
            let place = library.to_string_lossy().trim_start_matches('/').to_owned();
            (library, place)
        };
        programs.installed.extend(libraries.into_iter().map(place));
        for entry in fs::read_dir(root.join(TRANSCRIPTS)).with_context(|| format!("{TRANSCRIPTS} cannot be read"))? {
            let entry = entry?;
            let place = format!("{}{}", super::init::TRANSCRIPTS, entry.file_name().to_string_lossy());
            programs.installed.push((entry.path(), place));
        }
        Ok(programs)
    }
}

fn is_test(place: &str) -> bool {
    place.starts_with(super::init::TESTS)
}

/// Builds what `cargo xtask test` builds, so that nothing is built twice, and the tests for guests alone.
fn build(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let alone: Vec<_> = GUESTS_ALONE.iter().map(|name| format!("--test={name}")).collect();
    let mut built = [executables(root, &[])?, executables(root, &alone)?].concat();
    built.sort_unstable();
    built.dedup();
    Ok(built)
}

/// What cargo builds for these tests, of all packages: a dependency has other features where a part of them is built.
fn executables(root: &Path, tests: &[String]) -> Result<Vec<(PathBuf, String)>> {
    let output = cargo(root)
        .args(["test", "--workspace", "--no-run", "--quiet", "--message-format=json-render-diagnostics"])
        .args(tests)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be run")?;
    ensure!(output.status.success(), "the tests do not build: see above");
    Ok(String::from_utf8(output.stdout)?.lines().filter_map(executable).collect())
}

/// The executable that a message of cargo's speaks of and its place in the guest, if the guest needs it.
fn executable(message: &str) -> Option<(PathBuf, String)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path: PathBuf = message.get("executable")?.as_str()?.into();
    if !message.get("manifest_path")?.as_str()?.ends_with("tests/Cargo.toml") {
        return None;
    }
    let target = message.get("target")?;
    let name = target.get("name")?.as_str()?;
    let kind = target.get("kind")?.get(0)?.as_str()?;
    let is_harness = message.get("profile")?.get("test")?.as_bool()?;
    match kind {
        "test" if !LEFT_OUT.iter().any(|(left_out, _)| *left_out == name) => {
            Some((path, format!("{}{name}", super::init::TESTS)))
        }
        // Where the tests look for them: beside the directory of the tests.
        "bin" if !is_harness && !NOT_STARTED.contains(&name) => {
            Some((path, format!("{}{name}", super::init::SIBLINGS)))
        }
        _ => None,
    }
}

/// The shared libraries of a program, its loader among them.
fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "ldd {}: {text}", program.display());
    libraries(&text).with_context(|| format!("{} lacks a library:\n{text}", program.display()))
}

/// Reads the output of ldd; `None` where a library is missing.
fn libraries(text: &str) -> Option<Vec<PathBuf>> {
    let path = |line: &str| match line.split_once(" => ") {
        Some((_, "not found")) => Some(None),
        Some((_, path)) => Some(Some(PathBuf::from(path.split(' ').next()?))),
        None => line.starts_with('/').then(|| Some(PathBuf::from(line.split(' ').next().unwrap_or(line)))),
    };
    text.lines().filter_map(|line| path(line.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let text = "\tlinux-vdso.so.1 (0x00007f96)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f99)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f99)\n";
        let expected: [PathBuf; 2] = ["/lib/x86_64-linux-gnu/libc.so.6".into(), "/lib64/ld-linux-x86-64.so.2".into()];
        assert_eq!(libraries(text).as_deref(), Some(&expected[..]));
        assert_eq!(libraries("\tlibedit.so.2 => not found\n"), None);
        assert_eq!(libraries("\tstatically linked\n"), Some(Vec::new()));
    }

    fn message(package: &str, kind: &str, name: &str, harness: bool) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","manifest_path":"/src/{package}/Cargo.toml","target":{{"kind":["{kind}"],"name":"{name}"}},"profile":{{"test":{harness}}},"executable":"/target/debug/{name}"}}"#
        )
    }

    #[test]
    fn tests_that_speak_of_the_kernel_and_what_they_start_are_taken() {
        let place =
            |package, kind, name, harness| executable(&message(package, kind, name, harness)).map(|(_, place)| place);
        assert_eq!(place("tests", "test", "content", true).as_deref(), Some("tests/deps/content"));
        assert_eq!(place("tests", "bin", "mail-client", false).as_deref(), Some("tests/mail-client"));
        assert_eq!(place("tests", "bin", "mail-client", true), None, "its unit tests");
        assert_eq!(place("tests", "test", "postfix_swaks", true), None);
        assert_eq!(place("xtask", "bin", "xtask", false), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable("not JSON"), None);
    }
}
