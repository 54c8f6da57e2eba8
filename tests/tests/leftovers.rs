//! An agent that is gone has left nothing behind, however it went. One test alone: it looks at the whole host.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::bpf::Objects;
use smtp_observer_tests::machine;

#[test]
fn nothing_is_left_behind() -> Result<()> {
    machine::require_root()?;
    let before = Host::look()?;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let others = Objects::now()?;
        let agent = Agent::start(&["--port", "2630"])?;
        let objects = Objects::now()?.since(&others);
        ensure!(objects.has_every_kind(), "the agent has {objects:?}");
        agent.end_by(signal)?;
        objects.wait_gone().with_context(|| format!("after {signal}"))?;
    }

    let others = Objects::now()?;
    let mut agent = Command::new(machine::sibling("panicking-agent")?)
        .arg("2630")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(agent.stdout.take().context("no output")?).read_line(&mut line)?;
    assert_eq!(line, "attached\n");
    let objects = Objects::now()?.since(&others);
    ensure!(objects.has_every_kind(), "the agent has {objects:?}");
    drop(agent.stdin.take());
    let ended = agent.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(!ended.status.success() && said.contains("as asked"), "{said}");
    objects.wait_gone().context("after a panic")?;

    let after = Host::look()?;
    assert_eq!(before.mounts, after.mounts);
    assert_eq!(before.pinned, after.pinned);
    for (name, value) in &before.settings {
        assert_eq!(after.settings.get(name), Some(value), "{name}");
    }
    Ok(())
}

/// What an agent could have changed.
struct Host {
    mounts: String,
    settings: BTreeMap<String, String>,
    pinned: Vec<String>,
}

impl Host {
    fn look() -> Result<Self> {
        let mut settings = BTreeMap::new();
        for directory in ["/proc/sys/net", "/proc/sys/kernel"] {
            read_settings(Path::new(directory), &mut settings)?;
        }
        ensure!(settings.len() > 100, "only {} settings could be read", settings.len());
        Ok(Self { mounts: fs::read_to_string("/proc/self/mountinfo")?, settings, pinned: pinned()? })
    }
}

/// Settings whose value the kernel itself changes.
const MOVING: [&str; 6] = ["random", "ns_last_pid", "tainted", "pty", "nf_conntrack_count", "netdev_rss_key"];

fn read_settings(directory: &Path, settings: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if MOVING.contains(&&*name) {
            continue;
        }
        if path.is_dir() {
            read_settings(&path, settings)?;
        } else if let Ok(value) = fs::read_to_string(&path) {
            // Some can only be written.
            settings.insert(path.display().to_string(), value);
        }
    }
    Ok(())
}

/// What is pinned, where there is a file system to pin in.
fn pinned() -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir("/sys/fs/bpf") else { return Ok(Vec::new()) };
    entries.map(|entry| Ok(entry?.path().display().to_string())).collect()
}
