//! Postfix: smtpd and smtp, which speak TLS themselves, and tlsproxy, which does so for postscreen and for connections that are
//! used again.

use anyhow::{Result, ensure};
use smtp_observer_tests::certificate::Certificate;
use smtp_observer_tests::conversation::{Conversation, commands, observed, outcomes};
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::postfix::{KEPT, Postfix};
use smtp_observer_tests::tls::{MAIL, VERSIONS, check_whole, smtplib};
use smtp_observer_tests::watch::Watch;

const TLSPROXY: &str = "tlsproxy unix - - n - 0 tlsproxy";

/// Sends everything to the server, inside of TLS, one mail at a time.
const SENDER: [&str; 6] = [
    "myhostname = client.example",
    "mydestination =",
    "relayhost = [10.77.0.2]:25",
    "smtp_tls_security_level = encrypt",
    "initial_destination_concurrency = 1",
    "default_destination_concurrency_limit = 1",
];

fn server(host: &Host, certificate: &Certificate, parameters: &[&str], services: &[&str]) -> Result<Postfix> {
    let chain = format!("smtpd_tls_chain_files = {}", certificate.both().display());
    Postfix::start_with(host, &[&["smtpd_tls_security_level = may", &chain], parameters].concat(), services)
}

#[test]
fn from_one_to_another() -> Result<()> {
    let certificate = Certificate::new()?;
    for version in ["TLSv1.2", "TLSv1.3"] {
        let watch = Watch::start(&["--addresses", "full", "--tls", "all"])?;
        let server = server(&watch.server_host, &certificate, &[], &[])?;
        let only = format!("smtp_tls_mandatory_protocols = >={version}, <={version}");
        let sender = Postfix::start_with(&watch.client_host, &[&SENDER[..], &[&only]].concat(), &[])?;
        for name in ["alice", "bob"] {
            sender.deliver(&watch.client_host, &format!("{name}@client.example"), "ok@test.example")?;
        }
        sender.stop()?;
        server.stop()?;
        let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| seen.len() == 2)?;
        for conversation in &seen {
            conversation.check(&MAIL, &[], &["delivered"]);
            check_whole(conversation)?;
        }
    }
    Ok(())
}

/// postscreen tests a client that it does not know yet, and tlsproxy speaks TLS for it; what they say to each other goes by.
#[test]
fn postscreen() -> Result<()> {
    let certificate = Certificate::new()?;
    for version in VERSIONS {
        let watch = Watch::start(&["--addresses", "full", "--tls", "all"])?;
        let parameters = ["postscreen_greet_wait = 1s", "postscreen_pipelining_enable = yes"];
        let services = ["smtp inet n - n - 1 postscreen", "smtpd pass - - n - - smtpd", TLSPROXY];
        let server = server(&watch.server_host, &certificate, &parameters, &services)?;
        smtplib(&watch.client_host, version, "refused")?;
        server.stop()?;
        let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| !seen.is_empty())?;
        seen[0].check(
            &["EHLO 250", "STARTTLS 220", "EHLO 250", "MAIL 250", "RCPT 450", "RSET 250", "QUIT"],
            &["recipients_rejected"],
            &["rejected"],
        );
        check_whole(&seen[0])?;
        let user = |command: &str| -> Result<Option<String>> {
            let command = seen[0].server.command(command)?;
            Ok(command.text("/process/name").map(str::to_owned))
        };
        assert_eq!(user("STARTTLS")?.as_deref(), Some("postscreen"));
        assert_eq!(user("RCPT")?.as_deref(), Some("tlsproxy"));
    }
    Ok(())
}

/// With `smtp_tls_connection_reuse`, smtp hands its connection to tlsproxy, and the next mails go through the same session.
#[test]
fn connection_reuse() -> Result<()> {
    let certificate = Certificate::new()?;
    for version in ["TLSv1.2", "TLSv1.3"] {
        let watch = Watch::start(&["--addresses", "full", "--tls", "all"])?;
        let server = server(&watch.server_host, &certificate, &[], &[])?;
        let only = format!("smtp_tls_mandatory_protocols = >={version}, <={version}");
        let cached = "smtp_connection_cache_destinations = static:all";
        let parameters = [&SENDER[..], &KEPT, &[&only, cached, "smtp_tls_connection_reuse = yes"]].concat();
        let sender = Postfix::start_with(&watch.client_host, &parameters, &[TLSPROXY])?;
        for name in ["alice", "bob", "carol"] {
            sender.deliver(&watch.client_host, &format!("{name}@client.example"), "ok@test.example")?;
        }
        sender.stop()?;
        server.stop()?;
        let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| {
            seen.iter().map(mails).sum::<usize>() == 3
        })?;
        ensure!(seen.len() == 1, "{} connections", seen.len());
        let said = [
            "EHLO 250",
            "STARTTLS 220",
            "EHLO 250",
            "MAIL 250",
            "RCPT 250",
            "DATA 354", //
            "RSET 250",
            "MAIL 250",
            "RCPT 250",
            "DATA 354", //
            "RSET 250",
            "MAIL 250",
            "RCPT 250",
            "DATA 354",
        ];
        for end in [&seen[0].client, &seen[0].server] {
            let mut commands = commands(end);
            commands.retain(|command| command != "QUIT");
            assert_eq!(commands, said, "\n{end}");
            assert_eq!(outcomes(end), ["delivered"; 3], "\n{end}");
        }
        check_whole(&seen[0])?;
    }
    Ok(())
}

fn mails(conversation: &Conversation) -> usize {
    outcomes(&conversation.client).iter().filter(|outcome| *outcome == "delivered").count()
}
