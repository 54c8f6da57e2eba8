//! The same client, in clear and inside of TLS: what it says is told the same, at both ends.

use std::process::Command;

use anyhow::{Result, ensure};
use smtp_observer_tests::conversation::{Conversation, commands, observed, outcomes, reasons};
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::seen::Seen;
use smtp_observer_tests::tls::{Server, VERSIONS};
use smtp_observer_tests::unpacked::Root;
use smtp_observer_tests::watch::Watch;

const SERVER: &str = "10.77.0.2";

/// Has clients speak to a server once in clear and once inside of TLS, each so many sessions.
fn compared(version: &str, sessions: usize, clients: impl Fn(&Host, bool) -> Result<()>) -> Result<()> {
    let watch = Watch::start(&["--addresses", "full", "--tls", "all"])?;
    let _server = Server::start(&watch.server_host, version)?;
    for tls in [false, true] {
        clients(&watch.client_host, tls)?;
    }
    let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| seen.len() >= 2 * sessions)?;
    ensure!(seen.len() == 2 * sessions, "{} sessions", seen.len());
    let (clear, inside) = seen.split_at(sessions);
    for (clear, inside) in clear.iter().zip(inside) {
        check_same(clear, inside);
    }
    Ok(())
}

fn check_same(clear: &Conversation, inside: &Conversation) {
    for (clear, inside) in [(&clear.client, &inside.client), (&clear.server, &inside.server)] {
        let said = [vec!["EHLO 250".into(), "STARTTLS 220".into()], commands(clear)].concat();
        assert!(said.len() > 3, "\n{clear}");
        assert_eq!(commands(inside), said, "\n{clear}\n{inside}");
        assert_eq!((reasons(inside), outcomes(inside)), (reasons(clear), outcomes(clear)), "\n{clear}\n{inside}");
        assert_eq!(told(inside, 2), told(clear, 0), "\n{clear}\n{inside}");
        assert_eq!(sizes(inside), sizes(clear), "\n{clear}\n{inside}");
        assert_eq!(inside.count("smtp.anomaly"), clear.count("smtp.anomaly"), "\n{clear}\n{inside}");
    }
}

/// Arguments and replies of the commands behind the first ones, but for what a server offers in clear and inside of TLS only.
fn told(end: &Seen, first: usize) -> Vec<(Option<String>, Option<String>)> {
    let commands = end.of("smtp.command").0;
    let text = |command: &smtp_observer_tests::seen::Observed, pointer: &str| command.text(pointer).map(str::to_owned);
    commands[first..].iter().skip(1).map(|command| (text(command, "/argument"), text(command, "/reply"))).collect()
}

fn sizes(end: &Seen) -> Vec<Option<u64>> {
    end.of("smtp.data").0.iter().map(|data| data.count("/size_bytes")).collect()
}

/// Runs a client to its end, whatever it makes of the refusals.
fn run(command: Command) -> Result<()> {
    Running::start(command)?.finish().map(drop)
}

#[test]
fn smtplib() -> Result<()> {
    for version in VERSIONS {
        compared(version, 1, |host, tls| {
            let mut python = host.command(machine::installed("python3")?);
            python.args(["-c", include_str!("../senders/smtplib.py"), SERVER]).args(tls.then_some("tls"));
            process::run(python).map(drop)
        })?;
    }
    Ok(())
}

/// It is linked with GnuTLS.
#[test]
fn msmtp() -> Result<()> {
    for version in VERSIONS {
        compared(version, 3, |host, tls| {
            for recipient in ["one", "no-data", "no-message"] {
                let mut msmtp = host.command(machine::installed("msmtp")?);
                msmtp.args([&format!("--host={SERVER}"), "--domain=client.example", "--from=alice@client.example"]);
                if tls {
                    msmtp.args(["--tls=on", "--tls-certcheck=off"]);
                }
                run({
                    msmtp.arg(format!("{recipient}@test.example"));
                    msmtp
                })?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Perl's `Net::SSLeay`, with the library of a file system of its own.
#[test]
fn swaks() -> Result<()> {
    let steps = [
        ("one", "--quit-after=RCPT"),
        ("one", "--drop-after=RCPT"),
        ("no-rcpt", "--silent"),
        ("no-data", "--silent"),
        ("no-message", "--pipeline"),
        ("one", "--pipeline"),
    ];
    let root = Root::new("swaks", &[])?;
    // Somebody has the library before the agent comes, which then knows it.
    let mut perl = root.command_here("/usr/bin/perl")?;
    perl.args(["-MNet::SSLeay", "-e", "$| = 1; print qq(there\\n); sleep 3600"]);
    let perl = Running::start(perl)?;
    perl.output.wait_for("Perl", |lines: &[String]| lines.first().map(drop))?;
    for version in VERSIONS {
        compared(version, steps.len(), |host, tls| {
            for (recipient, option) in steps {
                let mut swaks = root.command(host, "/usr/bin/swaks")?;
                swaks.args(["--server", SERVER, "--helo", "client.example", "--from", "alice@client.example", option]);
                swaks.arg("--to").arg(format!("{recipient}@test.example")).args(tls.then_some("--tls"));
                run(swaks)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}
