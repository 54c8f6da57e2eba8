//! In which processes a library is probed.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use smtp_observer_tests::breakpoint;
use smtp_observer_tests::conversation::{commands, observed};
use smtp_observer_tests::machine;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::tls::{Server, Stranger, check_whole};
use smtp_observer_tests::watch::Watch;

/// A program that has nothing to do with mail has probes until it is busy, and again when it is not any more. Of a session that
/// goes on meanwhile each command is told, and once.
#[test]
fn who_calls_a_library_often_without_mail_is_spared() -> Result<()> {
    let _alone = crate::alone();
    let watch = Watch::start(&["--addresses", "full", "--tls", "auto"])?;
    let server = Server::start(&watch.server_host, "TLSv1_3")?;
    let stranger = Stranger::start()?;
    stranger.wait(true)?;

    let mut python = watch.client_host.command(machine::installed("python3")?);
    python.args(["-c", include_str!("../../src/tls/mail.py"), "10.77.0.2", "TLSv1_3", "noops"]);
    let client = Running::start(python)?;
    client.output.wait_for("a session", |lines: &[String]| lines.first().cloned())?;
    for busy in [true, false] {
        stranger.turn()?;
        stranger.wait(!busy)?;
        ensure!(breakpoint::is_set(server.pid(), server.do_handshake)?, "the server has no probes");
    }
    client.signal(Signal::SIGUSR1)?;
    let output = process::succeeded("the client", client)?.output;
    let said: usize = output.last().context("the client says how much it said")?.parse()?;

    let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| !seen.is_empty())?;
    for end in [&seen[0].client, &seen[0].server] {
        let commands = commands(end);
        let noops = commands.iter().filter(|command| *command == "NOOP 250").count();
        ensure!(noops == said && commands.len() == said + 4, "{noops} of {said}, in all {}", commands.len());
    }
    check_whole(&seen[0])
}
