//! Peers that mean harm, and an agent that has 64 MB.

use std::process::Command;

use anyhow::{Result, ensure};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::cgroup::MemoryLimit;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;

const PORT: u16 = 2670;

/// What it may have, the maps of its hooks included.
const LIMIT: u64 = 64 << 20;

/// Lines of escapes, replies without an end, commands without replies, names without end, on many connections at once: it
/// stays within its limit, goes on, and sees the next mail.
#[test]
fn sixty_four_megabytes_hold() -> Result<()> {
    const CONNECTIONS: usize = 100;
    let _alone = crate::alone();
    let group = MemoryLimit::new(LIMIT)?;
    let mut command = Command::new("sh");
    let script = format!("echo $$ >{}/cgroup.procs && exec \"$0\" run --port {PORT} \"$@\"", group.path().display());
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
    let peak = group.peak()?;
    println!("at most {} KiB of {}", peak / 1024, LIMIT / 1024);
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{:?}", stopped.log);
    Ok(())
}
