//! A process in a container and one in a systemd unit, as the host sees them.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::cgroup::Cgroup;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::{Host, accept};
use smtp_observer_tests::seen::Observed;

/// What is seen of a client that joins a cgroup and a pid namespace of its own and then connects: its opening, and its
/// lines of `/proc/PID/status` and `/proc/PID/cgroup`, while it lives.
fn seen_in(cgroup: &Cgroup) -> Result<(Observed, String, String)> {
    let (client, server) = Host::pair()?;
    let listener = server.listen("10.77.0.2:25")?;
    let agent = Agent::start(&[])?;
    let script = format!(
        "echo 0 > {}/cgroup.procs || exit 1; exec unshare --pid --fork bash -c \
         'exec 3<>/dev/tcp/10.77.0.2/25; while read -r line <&3; do :; done; true'",
        cgroup.path().display()
    );
    let mut child = client.command(machine::installed("bash")?).args(["-c", &script]).stdin(Stdio::null()).spawn()?;
    let look = || -> Result<(Observed, String, String)> {
        let mut stream = accept(&listener)?;
        stream.write_all(b"220 server.example ESMTP\r\n")?;
        let seen = agent.wait_for("the greeting", &[&client], |seen| seen.count("smtp.greeting") > 0)?;
        let opened = seen.one("connection.opened")?;
        let pid = opened.pid().context("no pid")?;
        let [status, cgroup] = ["status", "cgroup"].map(|file| fs::read_to_string(format!("/proc/{pid}/{file}")));
        Ok((opened, status?, cgroup?))
    };
    // The client ends when its connection does, and before its cgroup is removed.
    let found = look();
    let ended = child.wait()?;
    let (opened, status, cgroup) = found?;
    ensure!(ended.success(), "the client ended with {ended}");
    agent.wait_closed(&[&client, &server], 2)?;
    agent.stop()?;
    let parent = format!("PPid:\t{}\n", child.id());
    ensure!(status.contains(&parent), "the pid is not that of the client: no {parent} in\n{status}");
    Ok((opened, status, cgroup))
}

#[test]
fn a_process_in_a_container() -> Result<()> {
    let id = format!("{:064x}", std::process::id());
    let cgroup = Cgroup::new(&format!("observed{id}.slice/docker-{id}.scope"))?;
    let (opened, status, path) = seen_in(&cgroup)?;
    let pid = opened.pid().context("no pid")?;
    ensure!(status.contains(&format!("NSpid:\t{pid}\t1\n")), "not the first of its namespace:\n{status}");
    let path = path.lines().find_map(|line| line.strip_prefix("0::")).context("no unified cgroup")?;
    ensure!(path.ends_with(&format!("/observed{id}.slice/docker-{id}.scope")), "{path}");
    assert_eq!(opened.text("/process/cgroup"), Some(path), "{}", opened.json());
    assert_eq!(opened.text("/process/container_id"), Some(&*id), "{}", opened.json());
    Ok(())
}

#[test]
fn a_process_in_a_systemd_unit() -> Result<()> {
    let unit = format!("smtp-observer-test-{}.service", std::process::id());
    let cgroup = Cgroup::new(&format!("{unit}.slice/{unit}"))?;
    let (opened, _, _) = seen_in(&cgroup)?;
    assert_eq!(opened.text("/process/systemd_unit"), Some(&*unit), "{}", opened.json());
    assert_eq!(opened.text("/process/container_id"), None, "{}", opened.json());
    Ok(())
}
