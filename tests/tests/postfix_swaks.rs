//! Debian's Postfix as server, swaks and a client by hand against it: both ends must tell the same true story.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::postfix::Postfix;
use smtp_observer_tests::process;
use smtp_observer_tests::scene::lines::Lines;
use smtp_observer_tests::seen::{Observed, Seen};

/// How much longer than the client the server may seem to wait, because calls are timed when they return, and on a busy
/// machine a return may wait for a processor.
const SCHEDULING: f64 = 0.1;

#[test]
fn a_delivered_mail() -> Result<()> {
    let session = Session::observe(|host| swaks(host, "ok@test.example", 0))?;
    session.check(&[
        "DATA 354",
        "EHLO 250",
        "MAIL 250 2.1.0",
        "QUIT 221 2.0.0",
        "RCPT 250 2.1.5",
        "connection.closed",
        "connection.opened",
        "smtp.data DATA 250",
        "smtp.greeting 220",
        "smtp.transaction delivered",
    ])?;
    session.check_swaks("ok@test.example")?;

    let (client, server) = (session.client.one("smtp.data")?, session.server.one("smtp.data")?);
    for data in [&client, &server] {
        assert_eq!(data.text("/go_ahead"), Some("End data with <CR><LF>.<CR><LF>"), "{data}");
        ensure!(data.text("/reply").is_some_and(|reply| reply.contains("queued as")), "{data}");
        let logged = format!("{}: client=", data.text("/queue_id").context("no queue_id")?);
        ensure!(session.log.iter().any(|line| line.contains(&logged)), "no {logged} in\n{}", session.log.join("\n"));
        for duration in ["/go_ahead_seconds", "/transfer_seconds", "/final_reply_seconds"] {
            ensure!(data.number(duration).is_some_and(|seconds| seconds > 0.0), "`{duration}` of {data}");
        }
    }
    let size = client.count("/size_bytes").context("no size")?;
    ensure!(size > 200, "swaks' header alone is longer than {size} bytes");
    assert_eq!(Some(size), server.count("/size_bytes"));

    for transaction in [session.client.one("smtp.transaction")?, session.server.one("smtp.transaction")?] {
        assert_eq!(transaction.count("/recipients_accepted"), Some(1), "{transaction}");
        assert_eq!(transaction.count("/recipients_rejected"), Some(0), "{transaction}");
    }
    Ok(())
}

#[test]
fn a_rejected_recipient() -> Result<()> {
    // 24 is what swaks ends with where no recipient was accepted.
    let session = Session::observe(|host| swaks(host, "nobody@test.example", 24))?;
    session.check(&[
        "EHLO 250",
        "MAIL 250 2.1.0",
        "QUIT 221 2.0.0",
        "RCPT 550 5.1.1",
        "connection.closed",
        "connection.opened",
        "smtp.greeting 220",
        "smtp.transaction rejected",
    ])?;
    session.check_swaks("nobody@test.example")?;
    for side in [&session.client, &session.server] {
        let rejected = side.command("RCPT")?;
        let reply = rejected.text("/reply").context("no reply")?;
        ensure!(reply.contains("Recipient address rejected"), "{rejected}");
        let transaction = side.one("smtp.transaction")?;
        assert_eq!(transaction.count("/recipients_accepted"), Some(0), "{transaction}");
        assert_eq!(transaction.count("/recipients_rejected"), Some(1), "{transaction}");
    }
    Ok(())
}

#[test]
fn a_session_with_noop_and_rset() -> Result<()> {
    let session = Session::observe(|host| {
        let mut server = Lines::new(host.connect("10.77.0.2:25")?)?;
        ensure!(server.read_reply()?.starts_with("220 "));
        for (command, code) in [
            ("EHLO client.example\r\n", "250"),
            ("MAIL FROM:<alice@client.example>\r\n", "250"),
            ("RCPT TO:<ok@test.example>\r\n", "250"),
            ("NOOP\r\n", "250"),
            ("RSET\r\n", "250"),
            ("QUIT\r\n", "221"),
        ] {
            let reply = server.ask(command)?;
            ensure!(reply.starts_with(code), "{command:?} was answered {reply:?}");
        }
        Ok(())
    })?;
    session.check(&[
        "EHLO 250",
        "MAIL 250 2.1.0",
        "NOOP 250 2.0.0",
        "QUIT 221 2.0.0",
        "RCPT 250 2.1.5",
        "RSET 250 2.0.0",
        "connection.closed",
        "connection.opened",
        "smtp.greeting 220",
        "smtp.noop 250",
        "smtp.rset 250",
        "smtp.transaction reset",
    ])?;
    for side in [&session.client, &session.server] {
        for event in ["smtp.noop", "smtp.rset"] {
            let reasoned = side.one(event)?;
            ensure!(reasoned.text("/reason").is_some_and(|reason| !reason.starts_with("interceptor")), "{reasoned}");
            ensure!(reasoned.number("/latency_seconds").is_some_and(|seconds| seconds > 0.0), "{reasoned}");
        }
    }
    Ok(())
}

/// One session with Postfix, as the agent saw its two ends.
struct Session {
    client: Seen,
    server: Seen,
    /// Postfix's master.
    master: u32,
    /// What Postfix has logged.
    log: Vec<String>,
}

impl Session {
    /// Starts everything, lets a client do what it does on its host, and waits until both ends are closed.
    fn observe(client: impl FnOnce(&Host) -> Result<()>) -> Result<Self> {
        let (client_host, server_host) = Host::pair()?;
        let postfix = Postfix::start(&server_host)?;
        let agent = Agent::start(&["--addresses", "full"])?;
        client(&client_host)?;
        agent.wait_closed(&[&client_host, &server_host], 2)?;
        let master = postfix.pid();
        let log = postfix.stop()?;
        // Everything up to the agent's end counts: what it invents may come late.
        let seen = agent.stop()?.seen;
        Ok(Self {
            client: seen.on(&[&client_host])?.side("client")?,
            server: seen.on(&[&server_host])?.side("server")?,
            master,
            log,
        })
    }

    /// What is true of every session: the events, the owners, and that the two ends agree.
    fn check(&self, events: &[&str]) -> Result<()> {
        assert_eq!(self.client.brief(), events, "the client's end:\n{}", self.client);
        assert_eq!(self.server.brief(), events, "the server's end:\n{}", self.server);
        self.check_owners()?;
        self.check_bytes()?;
        self.check_latencies()
    }

    fn check_owners(&self) -> Result<()> {
        for side in [&self.client, &self.server] {
            let smtp = side.only(|observed| observed.event().starts_with("smtp."));
            let owner = smtp.0.first().and_then(|observed| observed.pid()).context("the first event has no owner")?;
            for observed in &smtp.0 {
                assert_eq!(observed.pid(), Some(owner), "{}", observed.json());
            }
        }
        for observed in self.server.of("smtp.command").0 {
            let executable = Path::new(observed.text("/process/executable").context("no executable")?);
            ensure!(executable.ends_with("postfix/sbin/smtpd"), "{}", observed.json());
            assert_eq!(observed.text("/process/name"), Some("smtpd"), "{}", observed.json());
            ensure!(
                observed.text("/process/command_line").is_some_and(|line| line.starts_with("smtpd ")),
                "{}",
                observed.json()
            );
            assert_eq!(observed.text("/process/user"), Some("postfix"), "{}", observed.json());
            assert_eq!(observed.count("/process/parent/pid"), Some(self.master.into()), "{}", observed.json());
            assert_eq!(observed.text("/process/parent/name"), Some("master"), "{}", observed.json());
        }
        Ok(())
    }

    fn check_swaks(&self, recipient: &str) -> Result<()> {
        for observed in self.client.of("smtp.command").0 {
            let executable = Path::new(observed.text("/process/executable").context("no executable")?);
            ensure!(executable.starts_with("/usr/bin") && executable.ends_with("perl"), "{}", observed.json());
            let arguments = observed.text("/process/command_line").context("no arguments")?;
            ensure!(arguments.contains("/usr/bin/swaks --server 10.77.0.2"), "{}", observed.json());
            ensure!(arguments.contains(&format!("--to {recipient}")), "{}", observed.json());
            assert_eq!(observed.count("/process/uid"), Some(0), "{}", observed.json());
        }
        Ok(())
    }

    fn check_bytes(&self) -> Result<()> {
        let (client, server) = (self.client.one("connection.closed")?, self.server.one("connection.closed")?);
        assert_eq!(client.end("local"), server.end("remote"));
        assert_eq!(client.end("remote"), server.end("local"));
        assert_eq!(client.end("remote").as_deref(), Some("10.77.0.2:25"));
        for (sent, received) in [(&client, &server), (&server, &client)] {
            ensure!(sent.count("/bytes_sent").is_some_and(|bytes| bytes > 0), "{sent}");
            assert_eq!(sent.count("/bytes_sent"), received.count("/bytes_received"), "{sent}\n{received}");
        }
        for closed in [&client, &server] {
            assert_eq!(closed.count("/lost_bytes"), Some(0), "{closed}");
            ensure!(closed.number("/duration_seconds").is_some_and(|seconds| seconds > 0.0), "{closed}");
        }
        Ok(())
    }

    fn check_latencies(&self) -> Result<()> {
        for at_client in self.client.of("smtp.command").0 {
            let at_server = self.server.command(at_client.text("/verb").context("no verb")?)?;
            let latency = |observed: &Observed| {
                observed
                    .number("/latency_seconds")
                    .filter(|seconds| *seconds > 0.0)
                    .with_context(|| format!("no latency in {}", observed.json()))
            };
            let (client, server) = (latency(&at_client)?, latency(&at_server)?);
            ensure!(
                client + SCHEDULING >= server,
                "the server took longer than the client waited:\n{at_client}\n{at_server}"
            );
            ensure!(client < 20.0, "{at_client}");
        }
        Ok(())
    }
}

fn swaks(host: &Host, recipient: &str, status: i32) -> Result<()> {
    let mut swaks = host.command(machine::installed("swaks")?);
    swaks.args([
        "--server",
        "10.77.0.2",
        "--helo",
        "client.example",
        "--from",
        "alice@client.example",
        "--to",
        recipient,
    ]);
    let ended = process::Running::start(swaks)?.finish()?;
    ensure!(ended.status.code() == Some(status), "swaks ended with {}\n{}", ended.status, ended.output.join("\n"));
    Ok(())
}
