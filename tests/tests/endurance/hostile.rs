//! Peers that mean harm, and an agent that has 64 MB.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;

const PORT: u16 = 2670;

/// What it may have, the maps of its hooks included.
const LIMIT: u64 = 64 << 20;

/// A control group that limits memory, of whichever hierarchy has that controller. It is removed when it is dropped.
struct Limited(PathBuf);

impl Limited {
    fn new() -> Result<Self> {
        machine::require_root()?;
        let name = format!("smtp-observer-test-{}", std::process::id());
        let mounts = fs::read_to_string("/proc/mounts")?;
        let of_kind = |wanted: fn(&str, &str) -> bool| {
            mounts.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                wanted(fields[2], fields[3]).then(|| PathBuf::from(fields[1]))
            })
        };
        let first = of_kind(|kind, options| kind == "cgroup" && options.split(',').any(|option| option == "memory"));
        let (group, file) = match first {
            Some(mount) => (mount.join(name), "memory.limit_in_bytes"),
            None => (of_kind(|kind, _| kind == "cgroup2").context("no memory controller")?.join(name), "memory.max"),
        };
        fs::create_dir(&group)?;
        let group = Self(group);
        fs::write(group.0.join(file), LIMIT.to_string()).context("the memory controller is not enabled")?;
        Ok(group)
    }

    /// A number of its files, whichever of the two names it has.
    fn number(&self, names: [&str; 2]) -> Result<u64> {
        let text = names.iter().find_map(|name| fs::read_to_string(self.0.join(name)).ok());
        Ok(text.context("the control group has no such file")?.trim().parse()?)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}

/// Lines of escapes, replies without an end, commands without replies, names without end, on many connections at once: it
/// stays within its limit, goes on, and sees the next mail.
#[test]
fn sixty_four_megabytes_hold() -> Result<()> {
    const CONNECTIONS: usize = 100;
    let _alone = crate::alone();
    let group = Limited::new()?;
    let mut command = Command::new("sh");
    let script = format!("echo $$ >{}/cgroup.procs && exec \"$0\" run --port {PORT} \"$@\"", group.0.display());
    command.args(["-c", &script]).arg(machine::agent()?);
    let agent = Agent::start_command(command, &[])?;
    let host = Host::new()?;
    let address = format!("127.0.0.1:{PORT}");
    let mut peers = (0..CONNECTIONS).map(|_| Dialogue::open(&host, &host, &address)).collect::<Result<Vec<_>>>()?;
    let escapes = [&b"\x1b\x01\x7f\x00\"\\".repeat(150)[..], b"\r\n"].concat();
    let endless = [b"250-", &escapes[..]].concat();
    for round in 0..40 {
        for (number, peer) in peers.iter_mut().enumerate() {
            match (number + round) % 5 {
                0 => peer.client_says(&escapes)?,
                1 => peer.server_says(&endless)?,
                2 => peer.client_says(&b"NOOP\r\n".repeat(1_000))?,
                3 => peer.client_says(format!("MAIL FROM:<{round}{}@{number}>\r\n", "x".repeat(400)).as_bytes())?,
                _ => peer.server_says(&b"550 5.1.1 no\r\n".repeat(500))?,
            }
        }
    }
    let mut mail = Dialogue::open(&host, &host, &address)?;
    mail.play("S: 220 server.example ESMTP\nC: EHLO client.example\nS: 250 server.example\nC: QUIT\nS: 221 Bye")?;
    mail.close()?;
    let quits =
        || -> Result<f64> { Ok(agent.metrics()?.sum("smtp_commands_total", &["verb=\"QUIT\""]).unwrap_or_default()) };
    crate::faults::wait_until("the last mail's QUIT at both ends", || Ok(quits()? == 2.0))?;
    drop(peers);
    let peak = group.number(["memory.max_usage_in_bytes", "memory.peak"])?;
    println!("at most {} KiB of {}", peak / 1024, LIMIT / 1024);
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{:?}", stopped.log);
    Ok(())
}
