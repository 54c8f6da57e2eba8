//! What a TLS session can do while mail goes through it: it is long, resumed, renegotiated, and carries passwords.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::conversation::{Conversation, observed};
use smtp_observer_tests::feed::Feed;
use smtp_observer_tests::machine;
use smtp_observer_tests::tls::{MAIL, Server, VERSIONS, check_whole, smtplib};
use smtp_observer_tests::watch::Watch;

fn of_smtplib(version: &str, action: &str, sessions: usize) -> Result<(Vec<Conversation>, Vec<String>)> {
    let watch = Watch::start(&["--addresses", "full", "--tls", "all"])?;
    let _server = Server::start(&watch.server_host, version)?;
    let output = smtplib(&watch.client_host, version, action)?;
    let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| seen.len() >= sessions)?;
    ensure!(seen.len() == sessions, "{} sessions", seen.len());
    seen.iter().try_for_each(check_whole)?;
    Ok((seen, output))
}

#[test]
fn a_message_of_twenty_megabytes() -> Result<()> {
    for version in VERSIONS {
        let (seen, output) = of_smtplib(version, "big", 1)?;
        seen[0].check(&MAIL, &[], &["delivered"]);
        let size: u64 = output.first().context("no size")?.parse()?;
        for end in [&seen[0].client, &seen[0].server] {
            ensure!(end.one("smtp.data")?.count("/size_bytes") == Some(size), "{size}\n{end}");
        }
    }
    Ok(())
}

#[test]
fn a_resumed_session() -> Result<()> {
    for version in VERSIONS {
        let (seen, _) = of_smtplib(version, "resume", 2)?;
        seen.iter().for_each(|session| session.check(&MAIL, &[], &["delivered"]));
    }
    Ok(())
}

/// A child goes on with its parent's session, which the parent has given up by then.
#[test]
fn a_session_that_a_child_goes_on_with() -> Result<()> {
    for version in VERSIONS {
        let (seen, _) = of_smtplib(version, "fork", 1)?;
        let said = [&MAIL[..6], &["MAIL 250", "RCPT 250", "DATA 354", "QUIT"]].concat();
        seen[0].check(&said, &[], &["delivered", "delivered"]);
    }
    Ok(())
}

#[test]
fn credentials_are_told_nowhere() -> Result<()> {
    let said =
        ["EHLO 250", "STARTTLS 220", "EHLO 250", "AUTH 235", "AUTH 235", "MAIL 250", "RCPT 250", "DATA 354", "QUIT"];
    for version in VERSIONS {
        let (seen, secrets) = of_smtplib(version, "auth", 2)?;
        ensure!(secrets.len() == 5, "{secrets:?}");
        for session in &seen {
            session.check(&said, &[], &["delivered"]);
            for end in [&session.client, &session.server] {
                for observed in &end.0 {
                    let json = observed.json();
                    ensure!(!secrets.iter().any(|secret| json.contains(secret)), "{observed}");
                }
            }
        }
    }
    Ok(())
}

/// s_client(1), told line by line what to say.
struct Typed {
    child: Child,
    input: ChildStdin,
    heard: Feed<String>,
    log: Feed<String>,
}

impl Typed {
    fn start(mut openssl: Command) -> Result<Self> {
        let mut child = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("no input")?;
        let heard = Feed::read(child.stdout.take().context("no output")?, |line| Ok(line.to_owned()));
        let log = Feed::read(child.stderr.take().context("no log")?, |line| Ok(line.to_owned()));
        Ok(Self { child, input, heard, log })
    }

    /// Says a line, and waits until so many lines of the server's have begun with this.
    fn say(&mut self, line: &str, reply: &str, count: usize) -> Result<()> {
        writeln!(self.input, "{line}")?;
        self.wait(reply, count)
    }

    fn wait(&self, reply: &str, count: usize) -> Result<()> {
        let enough =
            |lines: &[String]| (lines.iter().filter(|line| line.starts_with(reply)).count() >= count).then_some(());
        self.heard.wait_for(reply, enough).with_context(|| self.heard.so_far().join("\n"))
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_renegotiated_session() -> Result<()> {
    let watch = Watch::start(&["--addresses", "full", "--tls", "all"])?;
    let _server = Server::start(&watch.server_host, "TLSv1_2")?;
    let mut openssl = watch.client_host.command(machine::installed("openssl")?);
    openssl.args(["s_client", "-starttls", "smtp", "-connect", "10.77.0.2:25", "-tls1_2", "-crlf"]);
    let mut client = Typed::start(openssl)?;
    client.say("EHLO client.example", "250 AUTH", 1)?;
    client.say("NOOP", "250 2.0.0 Still here", 1)?;
    // A line that begins so is not sent: it has the handshake repeated.
    writeln!(client.input, "R")?;
    let begins = |lines: &[String]| lines.iter().any(|line| line == "RENEGOTIATING").then_some(());
    client.log.wait_for("a handshake", begins)?;
    client.say("NOOP", "250 2.0.0 Still here", 2)?;
    client.say("MAIL FROM:<alice@client.example>", "250 2.1.0", 1)?;
    client.say("quit", "221", 1)?;
    // It complains that the server has not said goodbye in TLS, too.
    client.child.wait()?;
    let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| !seen.is_empty())?;
    seen[0].check(
        &["EHLO 250", "STARTTLS 220", "EHLO 250", "NOOP 250", "NOOP 250", "MAIL 250", "QUIT"],
        &["ambiguous", "ambiguous"],
        &["abandoned"],
    );
    check_whole(&seen[0])
}
