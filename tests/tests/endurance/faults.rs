//! Things that go wrong around an agent.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use smtp_observer_tests::agent::{self, Agent};
use smtp_observer_tests::conversation::commands;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::feed::PATIENCE;
use smtp_observer_tests::http::{self, Metrics};
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::Running;

const GREETED: &str = "S: 220 server.example ESMTP\nC: EHLO client.example\nS: 250 server.example";

/// An agent on a port of its own.
fn watching(port: u16) -> Result<(Agent, Host, Host, String)> {
    let agent = Agent::start(&["--port", &port.to_string()])?;
    let (client, server) = Host::pair()?;
    Ok((agent, client, server, format!("10.77.0.2:{port}")))
}

/// It is killed in the middle of a transaction, and another one comes: what was said meanwhile is unknown, and nothing that is
/// told of the rest is wrong.
#[test]
fn killed_in_the_middle_of_a_conversation() -> Result<()> {
    let _alone = crate::alone();
    let (agent, client, server, address) = watching(2650)?;
    let mut dialogue = Dialogue::open(&client, &server, &address)?;
    dialogue.play(GREETED)?;
    dialogue.play("C: MAIL FROM:<alice@client.example>\nS: 250 2.1.0 Ok")?;
    agent.wait_for("MAIL at both ends", &[&client, &server], |seen| seen.of("smtp.command").0.len() == 4)?;
    agent.end_by(Signal::SIGKILL)?;
    dialogue.play("C: RCPT TO:<bob@server.example>\nS: 250 2.1.5 Ok")?;

    let next = Agent::start(&["--port", "2650"])?;
    dialogue.play("C: RSET\nS: 250 2.0.0 Ok\nC: NOOP\nS: 250 2.0.0 Ok\nC: QUIT\nS: 221 2.0.0 Bye")?;
    dialogue.close()?;
    let seen = next.wait_closed(&[&client, &server], 2)?;
    next.stop()?;
    for role in ["client", "server"] {
        let end = seen.side(role)?;
        assert_eq!(commands(&end), ["RSET 250", "NOOP 250", "QUIT"], "\n{end}");
        assert_eq!(end.one("smtp.rset")?.text("/reason"), Some("ambiguous"), "\n{end}");
        assert_eq!(end.count("smtp.anomaly") + end.count("smtp.transaction"), 0, "\n{end}");
        ensure!(end.one("connection.closed")?.count("/lost_bytes") == Some(0), "\n{end}");
    }
    Ok(())
}

/// Both see all, and one that goes away takes nothing from the other.
#[test]
fn two_agents() -> Result<()> {
    let _alone = crate::alone();
    let (first, client, server, address) = watching(2651)?;
    let second = Agent::start(&["--port", "2651"])?;
    let mut dialogue = Dialogue::open(&client, &server, &address)?;
    dialogue.play(GREETED)?;
    let hosts = [&client, &server];
    let greeted = first.wait_for("EHLO at both ends", &hosts, |seen| seen.of("smtp.command").0.len() == 2)?;
    first.stop()?;
    dialogue.play("C: NOOP\nS: 250 2.0.0 Ok\nC: QUIT\nS: 221 2.0.0 Bye")?;
    dialogue.close()?;
    let seen = second.wait_closed(&hosts, 2)?;
    second.stop()?;
    for role in ["client", "server"] {
        assert_eq!(commands(&greeted.side(role)?), ["EHLO 250"]);
        let end = seen.side(role)?;
        assert_eq!(commands(&end), ["EHLO 250", "NOOP 250", "QUIT"], "\n{end}");
        ensure!(end.one("connection.closed")?.count("/lost_bytes") == Some(0), "\n{end}");
    }
    Ok(())
}

/// The programs at both ends are killed, and their hosts are gone with them: the connection is over, and the next is seen.
#[test]
fn hosts_that_are_deleted() -> Result<()> {
    let _alone = crate::alone();
    let agent = Agent::start(&["--port", "2652"])?;
    for round in 1..=3 {
        let (client, server) = Host::pair()?;
        let mut mail_server = server.command(machine::sibling("mail-server")?);
        mail_server.arg("10.77.0.2:2652");
        let mail_server = Running::start(mail_server)?;
        let ready = |lines: &[String]| lines.iter().any(|line| line.starts_with("listening")).then_some(());
        mail_server.output.wait_for("`listening on …`", ready)?;
        // It says nothing by itself: it waits for ever.
        let mut cat = client.command("bash");
        cat.args(["-c", "exec cat </dev/tcp/10.77.0.2/2652"]);
        let cat = Running::start(cat)?;
        // By number alone: a new host may have the inode of one that is gone.
        let told = |event: &str| agent.so_far().of(event).0.len() == 2 * round;
        wait_until("the greeting at both ends", || Ok(told("smtp.greeting")))?;
        drop((client, server));
        for program in [&cat, &mail_server] {
            program.signal(Signal::SIGKILL)?;
        }
        drop((cat, mail_server));
        wait_until("the connection's end", || Ok(told("connection.closed")))?;
    }
    let open = agent.metrics()?.sum("smtp_connections_open", &[]);
    assert_eq!(open, Some(0.0));
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{:?}", stopped.log);
    Ok(())
}

/// Who reads its lines stands still: it goes on, and each line is either read in the end or counted.
#[test]
fn a_reader_that_stalls() -> Result<()> {
    const EXCHANGES: usize = 20_000;
    let _alone = crate::alone();
    machine::require_root()?;
    let http = agent::http_address();
    let mut command = Command::new(machine::agent()?);
    command.args(["run", "--events", "-", "--port", "2653", "--ring-size", "64MiB", "--listen", &http.to_string()]);
    let mut stalled = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = stalled.stdout.take().context("no standard output")?;
    let guard = Ended(stalled);
    let metrics = || -> Result<Metrics> { Ok(Metrics(http::get_as(http, "/metrics", "*/*")?.1)) };
    wait_until("the agent's answer", || Ok(metrics().is_ok()))?;
    let (client, server) = Host::pair()?;
    let mut dialogue = Dialogue::open(&client, &server, "10.77.0.2:2653")?;
    dialogue.play(GREETED)?;
    for _ in 0..EXCHANGES {
        dialogue.client_says(b"NOOP\r\n")?;
        dialogue.server_says(b"250 2.0.0 Ok\r\n")?;
    }
    dialogue.close()?;
    let sum = |metric: &str| -> Result<f64> { Ok(metrics()?.sum(metric, &[]).unwrap_or_default()) };
    wait_until("the end at both ends", || Ok(sum("smtp_connections_open")? == 0.0))?;
    let (lost, commands) = (sum("smtp_observer_kernel_events_lost_total")?, sum("smtp_commands_total")?);
    ensure!(lost == 0.0 && commands == 2.0 * (EXCHANGES + 1) as f64, "{commands} commands, {lost} events lost");
    let dropped = sum("smtp_observer_sink_dropped_total")?;
    ensure!(dropped > 0.0, "a pipe that nobody reads took all of it");
    guard.stop()?;
    let read = BufReader::new(output)
        .lines()
        .map_while(Result::ok)
        .filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
    // Of each end: opened, greeting, closed; a line for each command, and another one for each NOOP.
    let made = 2 * (3 + 1 + 2 * EXCHANGES);
    let read = read.count();
    println!("{made} lines made, {read} read, {dropped} dropped");
    assert_eq!(read as f64 + dropped, made as f64);
    Ok(())
}

/// Ended at the latest when it is dropped.
struct Ended(std::process::Child);

impl Ended {
    fn stop(&self) -> Result<()> {
        Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM)?)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nobody says when.
pub fn wait_until(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{what} did not come within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
