//! Clients that are gone before anybody could look them up are named all the same, and those that change as what they are.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Uid, User};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::seen::Observed;

const CLIENTS: usize = 200;

/// How many live at the same time.
const AT_ONCE: usize = 8;

#[test]
fn two_hundred_clients_that_live_for_milliseconds() -> Result<()> {
    let (client_host, server_host) = Host::pair()?;
    let mut server = server_host.command(machine::sibling("mail-server")?);
    server.args(["10.77.0.2:25", "--sessions", &CLIENTS.to_string()]);
    let server = Running::start(server)?;
    let ready = |lines: &[String]| lines.iter().any(|line| line.starts_with("listening")).then_some(());
    server.output.wait_for("`listening on …`", ready)?;
    let agent = Agent::start(&[])?;

    let pids = run_clients(&client_host)?;
    assert_eq!(pids.len(), CLIENTS, "a pid was used twice: the machine's pids are too few for this test");
    agent.wait_closed(&[&client_host, &server_host], 2 * CLIENTS)?;
    let metrics = agent.metrics()?;
    let server_pid = u64::from(server.pid());
    server.finish()?;
    let seen = agent.stop()?.seen;

    let clients = seen.on(&[&client_host])?.sides("client");
    assert_eq!(clients.len(), CLIENTS);
    for client in &clients {
        let pid = client.one("connection.opened")?.pid().context("no owner")?;
        let tag = pids.get(&pid).with_context(|| format!("pid {pid} was no client:\n{client}"))?;
        for observed in client.only(|observed| observed.event() != "connection.closed").0 {
            assert_eq!(observed.pid(), Some(pid), "{}", observed.json());
            ensure!(
                observed.text("/process/executable").is_some_and(|path| path.ends_with("/brief-client")),
                "{}",
                observed.json()
            );
            let arguments = observed.text("/process/command_line").context("no arguments")?;
            ensure!(arguments.ends_with(&format!("/brief-client 10.77.0.2:25 {tag}")), "{}", observed.json());
        }
        ensure!(client.one("smtp.greeting")?.count("/code") == Some(220));
        client.command("QUIT")?;
    }

    let servers = seen.on(&[&server_host])?.sides("server");
    assert_eq!(servers.len(), CLIENTS);
    for side in &servers {
        assert_eq!(side.one("smtp.greeting")?.pid(), Some(server_pid), "{side}");
        assert_eq!(side.command("QUIT")?.pid(), Some(server_pid), "{side}");
    }

    assert_eq!(metrics.sum("smtp_observer_kernel_events_lost_total", &[]), Some(0.0));
    let of_states = ["program=\"inet_sock_set_state\""];
    assert!(metrics.sum("smtp_observer_recursion_misses_total", &of_states).is_some(), "misses are counted");
    let opened = metrics.sum("smtp_connections_total", &["process=\"brief-client\"", "role=\"client\""]);
    assert_eq!(opened, Some(CLIENTS as f64));
    Ok(())
}

/// Runs the clients, a few at once, each with an argument of its own; that argument by pid.
fn run_clients(host: &Host) -> Result<BTreeMap<u64, String>> {
    let program = machine::sibling("brief-client")?;
    let next = AtomicUsize::new(0);
    let runner = || -> Result<Vec<(u64, String)>> {
        let mut ran = Vec::new();
        while let number @ 0..CLIENTS = next.fetch_add(1, Ordering::Relaxed) {
            let tag = format!("--number={number}");
            let mut client = host.command(&program).args(["10.77.0.2:25", &tag]).stdin(Stdio::null()).spawn()?;
            let pid = client.id();
            ensure!(client.wait()?.success(), "client {number} failed");
            ran.push((pid.into(), tag));
        }
        Ok(ran)
    };
    thread::scope(|scope| {
        let runners: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(runner)).collect();
        let mut pids = BTreeMap::new();
        for runner in runners {
            pids.extend(runner.join().ok().context("a thread that runs clients panicked")??);
        }
        Ok(pids)
    })
}

/// A program without a path is called what it is called; one whose file is gone has the path that it had.
#[test]
fn programs_that_are_no_file_any_more() -> Result<()> {
    let program = fs::read(machine::sibling("brief-client")?)?;
    let folder = tempfile::Builder::new().prefix("smtp-observer-deleted-").tempdir()?;
    let path = folder.path().canonicalize()?.join("deleted-client");
    fs::write(&path, &program)?;
    fs::set_permissions(&path, Permissions::from_mode(0o700))?;
    let deleted = File::open(&path)?;
    fs::remove_file(&path)?;
    let mut memory = File::from(memfd_create(c"brief", MFdFlags::MFD_CLOEXEC)?);
    memory.write_all(&program)?;
    // Opened for reading alone: what is open for writing cannot be executed.
    let memory = File::open(format!("/proc/self/fd/{}", memory.as_raw_fd()))?;

    let (client_host, server_host) = Host::pair()?;
    let mut server = server_host.command(machine::sibling("mail-server")?);
    server.args(["10.77.0.2:25", "--sessions", "2"]);
    let server = Running::start(server)?;
    let ready = |lines: &[String]| lines.iter().any(|line| line.starts_with("listening")).then_some(());
    server.output.wait_for("`listening on …`", ready)?;
    let agent = Agent::start(&[])?;
    for file in [&memory, &deleted] {
        let mut client = client_host.command(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        client.arg("10.77.0.2:25");
        process::run(client)?;
    }
    agent.wait_closed(&[&client_host, &server_host], 4)?;
    server.finish()?;
    let clients = agent.stop()?.seen.on(&[&client_host])?.sides("client");
    let executables: Vec<_> =
        clients.iter().map(|client| client.0[0].text("/process/executable").map(str::to_owned)).collect();
    assert_eq!(executables, [Some("memfd:brief".to_owned()), path.to_str().map(str::to_owned)]);
    Ok(())
}

/// Root connects, and goes on as somebody else, as daemons do: each call is shown as that of who it was then.
#[test]
fn a_client_that_becomes_another_user() -> Result<()> {
    const UID: u32 = 65_534;
    const NAME: &str = "changed";
    let (client_host, server_host) = Host::pair()?;
    let mut server = server_host.command(machine::sibling("mail-server")?);
    server.args(["10.77.0.2:25", "--sessions", "1"]);
    let server = Running::start(server)?;
    let ready = |lines: &[String]| lines.iter().any(|line| line.starts_with("listening")).then_some(());
    server.output.wait_for("`listening on …`", ready)?;
    let agent = Agent::start(&[])?;
    let mut client = client_host.command(machine::sibling("changing-client")?);
    client.args(["10.77.0.2:25", &UID.to_string(), NAME]);
    process::run(client)?;
    agent.wait_closed(&[&client_host, &server_host], 2)?;
    server.finish()?;
    let seen = agent.stop()?.seen.on(&[&client_host])?.side("client")?;

    let user_of = |uid| anyhow::Ok(User::from_uid(Uid::from_raw(uid))?.map(|user| user.name));
    let before = (Some(0), user_of(0)?, Some("changing-client".to_owned()));
    let after = (Some(u64::from(UID)), user_of(UID)?, Some(NAME.to_owned()));
    let text = |observed: &Observed, pointer| observed.text(pointer).map(str::to_owned);
    let who = |observed: &Observed| {
        (observed.count("/process/uid"), text(observed, "/process/user"), text(observed, "/process/name"))
    };
    assert_eq!(who(&seen.one("connection.opened")?), before);
    assert_eq!(who(&seen.command("EHLO")?), before);
    assert_eq!(who(&seen.command("NOOP")?), after);
    assert_eq!(who(&seen.one("connection.closed")?), after);
    assert_eq!(seen.count("connection.owner_changed"), 0, "{seen}");
    for observed in &seen.0 {
        ensure!(
            observed.text("/process/executable").is_some_and(|path| path.ends_with("/changing-client")),
            "{}",
            observed.json()
        );
    }
    Ok(())
}
