//! Limits that the host sets: few descriptors, little memory.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, setrlimit};
use smtp_observer_tests::agent::{Agent, http_address};
use smtp_observer_tests::cgroup::MemoryLimit;
use smtp_observer_tests::machine;
use smtp_observer_tests::process::Running;

/// A command of the agent, which may have so many descriptors, and may get so many.
fn with_descriptors(soft: u64, hard: u64) -> Result<Command> {
    let mut command = Command::new(machine::agent()?);
    command.arg("run");
    // SAFETY: setrlimit is a bare system call: fit for a forked child.
    unsafe {
        command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?));
    }
    Ok(command)
}

#[test]
fn too_few_descriptors_are_told() -> Result<()> {
    let mut command = with_descriptors(48, 48)?;
    command.args(["--listen", &http_address().to_string()]);
    let ended = Running::start(command)?.finish()?;
    let sentence = "this process may have 48 descriptors, and it needs ";
    assert_eq!(ended.status.code(), Some(3), "{:?}", ended.log);
    assert!(ended.log.last().is_some_and(|line| line.contains(sentence)), "{:?}", ended.log);
    Ok(())
}

#[test]
fn idle_clients_do_not_stop_a_scrape_where_descriptors_are_few() -> Result<()> {
    const DESCRIPTORS: u64 = 128;
    // It takes what it may get.
    let agent = Agent::start_command(with_descriptors(48, DESCRIPTORS)?, &[])?;
    // There is no room for all the connections that it would take otherwise, 64.
    let own = fs::read_dir(format!("/proc/{}/fd", agent.pid()))?.count() as u64;
    ensure!(own + 64 > DESCRIPTORS - 16, "{own} descriptors of its own: the limit is not reached");
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(agent.http)?);
    }
    // The first scrapes find them all there, and some more that come in between.
    for _ in 0..5 {
        let metrics = agent.metrics()?;
        ensure!(metrics.sum("smtp_observer_build_info", &[]) == Some(1.0), "{}", metrics.0);
        let open = metrics.sum("process_open_fds", &[]).context("no process_open_fds")?;
        // One more is the directory in which they are counted.
        ensure!(open <= (DESCRIPTORS - 16 + 1) as f64, "{open} descriptors: too few are left for anything else");
        idle.push(TcpStream::connect(agent.http)?);
    }
    Ok(())
}

/// Starts the agent in a cgroup that is too small, and has it say so.
#[test]
fn a_cgroup_that_is_too_small_is_told_and_nobody_is_killed() -> Result<()> {
    let small = MemoryLimit::new(24 << 20)?;
    let mut command = Command::new(machine::installed("sh")?);
    let listen = http_address().to_string();
    command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(small.path());
    command.arg(machine::agent()?).args(["run", "--listen", &listen]);
    let ended = Running::start(command)?.finish()?;
    let log = ended.log.join("\n");
    assert_eq!(ended.status.code(), Some(3), "{:?}: {log}", ended.status);
    let sentence = "the cgroup of the agent may have 24 MiB of memory, and it needs ";
    assert!(ended.log.last().is_some_and(|line| line.contains(sentence)), "{log}");
    Ok(())
}
