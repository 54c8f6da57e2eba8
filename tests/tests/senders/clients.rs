//! Clients that programs and people use: smtplib, nodemailer, msmtp, swaks.

use std::process::Command;

use anyhow::Result;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::scene::server::Serving;
use smtp_observer_tests::unpacked::Root;
use smtp_observer_tests::watch::Watch;

use smtp_observer_tests::conversation::{Conversation, commands, observed, outcomes, reasons};

const SERVER: &str = "10.77.0.2";

/// What was said to a server that refuses what it is asked to refuse.
fn served(sessions: usize, clients: impl FnOnce(&Host) -> Result<()>) -> Result<Vec<Conversation>> {
    let watch = Watch::start(&["--addresses", "full"])?;
    let _server = Serving::start(watch.server_host.listen(&format!("{SERVER}:25"))?, "")?;
    clients(&watch.client_host)?;
    observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| seen.len() >= sessions)
}

/// Runs a client to its end, whatever it makes of the refusals.
fn run(command: Command) -> Result<()> {
    Running::start(command)?.finish().map(drop)
}

/// It resets after a refused sender, after refused recipients and after a refused message. After refused DATA it does so
/// only when the next MAIL has failed, because the transaction is still open.
#[test]
fn smtplib() -> Result<()> {
    let seen = served(1, |host| {
        let mut python = host.command(machine::installed("python3")?);
        python.args(["-c", include_str!("smtplib.py"), SERVER]);
        process::run(python).map(drop)
    })?;
    seen[0].check(
        &[
            "EHLO 250", "MAIL 550", "RSET 250", //
            "MAIL 250", "RCPT 550", "RSET 250", //
            "MAIL 250", "RCPT 250", "RCPT 550", "DATA 354", //
            "NOOP 250", //
            "MAIL 250", "RCPT 250", "DATA 354", "RSET 250", //
            "MAIL 250", "RCPT 250", "DATA 554", //
            "MAIL 503", "RSET 250", //
            "RSET 250", "QUIT",
        ],
        &[
            "sender_rejected",
            "recipients_rejected",
            "lease_check",
            "message_rejected",
            // MAIL was out of place, because there was no RSET behind the refused DATA.
            "data_rejected",
            "before_quit",
        ],
        &["rejected", "rejected", "delivered", "rejected", "rejected"],
    );
    Ok(())
}

fn nodemailer(modules: &'static str) -> Result<Vec<Conversation>> {
    served(1, |host| {
        let root = Root::new("nodemailer", &[])?;
        root.write("pool.js", include_str!("pool.js"))?;
        let mut node = root.command(host, "/usr/bin/node")?;
        node.env("NODE_PATH", modules).args(["/pool.js", SERVER]);
        process::run(node).map(drop)
    })
}

/// nodemailer 10 pipelines each envelope with DATA, and resets after each refusal to use the connection again.
#[test]
fn nodemailers_pool() -> Result<()> {
    let seen = nodemailer("/usr/local/lib/node_modules")?;
    seen[0].check(
        &[
            "EHLO 250", "MAIL 250", "RCPT 250", "DATA 354", //
            "MAIL 550", "RCPT 503", "DATA 503", "RSET 250", //
            "MAIL 250", "RCPT 550", "DATA 503", "RSET 250", //
            "MAIL 250", "RCPT 250", "RCPT 550", "DATA 354", //
            "MAIL 250", "RCPT 250", "DATA 554", "RSET 250", //
            "MAIL 250", "RCPT 250", "DATA 354", "RSET 250", //
            "MAIL 250", "RCPT 250", "DATA 354",
        ],
        &["sender_rejected", "recipients_rejected", "data_rejected", "message_rejected"],
        &["delivered", "rejected", "rejected", "delivered", "rejected", "rejected", "delivered"],
    );
    Ok(())
}

/// nodemailer 6 closes after each refusal, and never resets.
#[test]
fn the_pool_of_an_older_nodemailer() -> Result<()> {
    let seen = nodemailer("/usr/share/nodejs")?;
    let said: [&[&str]; 5] = [
        &["EHLO 250", "MAIL 250", "RCPT 250", "DATA 354", "MAIL 550"],
        &["EHLO 250", "MAIL 250", "RCPT 550"],
        &["EHLO 250", "MAIL 250", "RCPT 250", "RCPT 550", "DATA 354", "MAIL 250", "RCPT 250", "DATA 554"],
        &["EHLO 250", "MAIL 250", "RCPT 250", "DATA 354"],
        &["EHLO 250", "MAIL 250", "RCPT 250", "DATA 354"],
    ];
    let outcomes: [&[&str]; 5] =
        [&["delivered", "rejected"], &["rejected"], &["delivered", "rejected"], &["rejected"], &["delivered"]];
    assert_eq!(seen.len(), said.len());
    for ((conversation, said), outcomes) in seen.iter().zip(said).zip(outcomes) {
        conversation.check(said, &[], outcomes);
    }
    Ok(())
}

/// It never resets: what is refused ends the session.
#[test]
fn msmtp() -> Result<()> {
    let seen = served(4, |host| {
        for recipients in ["one", "one no-rcpt", "no-data", "no-message"] {
            let recipients = recipients.split(' ').map(|name| format!("{name}@test.example"));
            let mut msmtp = host.command(machine::installed("msmtp")?);
            let server = format!("--host={SERVER}");
            msmtp.args([&server, "--domain=client.example", "--from=alice@client.example"]).args(recipients);
            run(msmtp)?;
        }
        Ok(())
    })?;
    assert_eq!(seen.len(), 4);
    seen[0].check(&["EHLO 250", "MAIL 250", "RCPT 250", "DATA 354", "QUIT"], &[], &["delivered"]);
    // It closes after the refused recipient, and may not even read the answer to the DATA that it has sent behind it.
    for end in [&seen[1].client, &seen[1].server] {
        assert_eq!(commands(end)[..4], ["EHLO 250", "MAIL 250", "RCPT 250", "RCPT 550"], "\n{end}");
        assert_eq!((reasons(end), outcomes(end)), (vec![], vec!["abandoned".into()]), "\n{end}");
    }
    seen[2].check(&["EHLO 250", "MAIL 250", "RCPT 250", "DATA 554"], &[], &["rejected"]);
    seen[3].check(&["EHLO 250", "MAIL 250", "RCPT 250", "DATA 354"], &[], &["rejected"]);
    Ok(())
}

/// It says what it is told to say, and has no word for RSET.
#[test]
fn swaks() -> Result<()> {
    let steps: [(&str, &str, &[&str], &[&str]); 5] = [
        ("one", "--quit-after=EHLO", &["EHLO 250", "QUIT"], &[]),
        ("one", "--quit-after=RCPT", &["EHLO 250", "MAIL 250", "RCPT 250", "QUIT"], &["abandoned"]),
        ("one", "--drop-after=RCPT", &["EHLO 250", "MAIL 250", "RCPT 250"], &["abandoned"]),
        ("no-data", "--silent", &["EHLO 250", "MAIL 250", "RCPT 250", "DATA 554", "QUIT"], &["rejected"]),
        ("no-message", "--pipeline", &["EHLO 250", "MAIL 250", "RCPT 250", "DATA 354", "QUIT"], &["rejected"]),
    ];
    let seen = served(steps.len(), |host| {
        for (recipient, option, ..) in steps {
            let mut swaks = host.command(machine::installed("swaks")?);
            swaks.args(["--server", SERVER, "--helo", "client.example", "--from", "alice@client.example", option]);
            run(swaks_to(swaks, recipient))?;
        }
        Ok(())
    })?;
    assert_eq!(seen.len(), steps.len());
    for (conversation, (_, _, said, outcomes)) in seen.iter().zip(steps) {
        conversation.check(said, &[], outcomes);
    }
    Ok(())
}

fn swaks_to(mut swaks: Command, recipient: &str) -> Command {
    swaks.arg("--to").arg(format!("{recipient}@test.example"));
    swaks
}
