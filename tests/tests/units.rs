//! The units for systemd, by its own judgement.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::machine;
use smtp_observer_tests::process::{Running, run};

const SERVICE: &str = "smtp-observer.service";
const SOCKET: &str = "smtp-observer.socket";

/// How far the service may be exposed, in tenths: from 0 for not at all, to 100.
const MAX_EXPOSURE: u32 = 20;

fn deployed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd")
}

fn analyze() -> Result<Command> {
    let mut command = Command::new(machine::installed("systemd-analyze")?);
    command.arg("--no-pager");
    Ok(command)
}

#[test]
fn the_service_is_locked_up() -> Result<()> {
    let is_below = |threshold: u32| -> Result<bool> {
        let mut command = analyze()?;
        command.args(["security", "--offline=true", &format!("--threshold={threshold}")]).arg(deployed().join(SERVICE));
        let ended = Running::start(command)?.finish()?;
        let verdict = ended.output.iter().find(|line| line.contains("Overall exposure level"));
        println!("{}", verdict.with_context(|| ended.log.join("\n"))?);
        Ok(ended.status.success())
    };
    ensure!(is_below(MAX_EXPOSURE)?, "it is exposed by more than {MAX_EXPOSURE} tenths");
    // The scale goes lower: the verdict means something.
    ensure!(!is_below(5)?, "no service that loads eBPF programs is exposed so little");
    Ok(())
}

#[test]
fn the_units_are_understood() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let agent = machine::agent()?;
    let [service, socket] = [SERVICE, SOCKET].map(|name| folder.path().join(name));
    let text = fs::read_to_string(deployed().join(SERVICE))?;
    // Where the agent is, here.
    let text = text.replace("/usr/bin/smtp-observer", agent.to_str().context("the path is no text")?);
    fs::write(&service, &text)?;
    fs::copy(deployed().join(SOCKET), &socket)?;
    let complaints = || -> Result<Vec<String>> {
        let mut command = analyze()?;
        command.args(["verify", "--man=no"]).args([&service, &socket]);
        let ended = Running::start(command)?.finish()?;
        Ok(ended.log.into_iter().filter(|line| line.contains("smtp-observer")).collect())
    };
    assert_eq!(complaints()?, Vec::<String>::new());
    fs::write(&service, text.replace("Type=notify", "Type=notfy"))?;
    ensure!(!complaints()?.is_empty(), "a type that does not exist is not found");
    Ok(())
}

/// Each capability of the service is named with its reason, and no other is in reach.
#[test]
fn each_capability_has_its_reason() -> Result<()> {
    let text = fs::read_to_string(deployed().join(SERVICE))?;
    let of = |setting: &str| -> Vec<&str> { text.lines().filter_map(|line| line.strip_prefix(setting)).collect() };
    let ambient = of("AmbientCapabilities=");
    assert_eq!(ambient, of("CapabilityBoundingSet="));
    assert_eq!(ambient.len(), 6);
    for capability in ambient {
        let reason = text.lines().find(|line| line.starts_with(&format!("# {capability} ")));
        ensure!(reason.is_some_and(|reason| reason.len() > 40), "{capability} has no reason");
    }
    Ok(())
}

#[test]
fn the_service_has_a_user_of_its_own() -> Result<()> {
    let root = tempfile::tempdir()?;
    fs::create_dir(root.path().join("etc"))?;
    let mut command = Command::new(machine::installed("systemd-sysusers")?);
    command.arg("--root").arg(root.path()).arg(deployed().join("smtp-observer.sysusers.conf").canonicalize()?);
    run(command)?;
    let users = fs::read_to_string(root.path().join("etc/passwd"))?;
    let user = users.lines().find(|line| line.starts_with("smtp-observer:")).context("no such user")?;
    ensure!(user.ends_with(":/:/usr/sbin/nologin") && !user.contains(":0:"), "{user}");
    let service = fs::read_to_string(deployed().join(SERVICE))?;
    ensure!(service.lines().any(|line| line == "User=smtp-observer"), "{service}");
    Ok(())
}
