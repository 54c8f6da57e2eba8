//! Postfix as a sender: the probe of a cached connection, and the verification of addresses.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use smtp_observer_tests::machine;
use smtp_observer_tests::postfix::Postfix;
use smtp_observer_tests::process::Running;
use smtp_observer_tests::scene::server::Serving;
use smtp_observer_tests::watch::Watch;

use crate::conversation::{commands, observed, outcomes, reasons};

/// Sends everything to the server, one mail at a time.
const SENDER: [&str; 5] = [
    "myhostname = client.example",
    "mydestination =",
    "relayhost = [10.77.0.2]:25",
    "initial_destination_concurrency = 1",
    "default_destination_concurrency_limit = 1",
];

/// A backlog for one destination makes it keep the connection. Each smtp(8) ends after one mail: the next one asks by RSET
/// whether the connection that it was handed is still good.
#[test]
fn mails_to_one_destination() -> Result<()> {
    let watch = Watch::start(&["--addresses", "full"])?;
    let hosts = [&watch.client_host, &watch.server_host];
    let parameters = [&SENDER[..], &["smtp_connection_cache_on_demand = yes"]].concat();
    let sender = Postfix::start_with(&watch.client_host, &parameters, &["smtp unix - - n - - smtp -o max_use=1"])?;
    // Nobody listens yet.
    for name in ["alice", "bob", "carol", "dan", "eve"] {
        sender.submit(&watch.client_host, &format!("{name}@client.example"), "one@test.example")?;
    }
    sender.wait_logged(&["status=deferred"], 5)?;
    let _server = Serving::start(watch.server_host.listen("10.77.0.2:25")?, "")?;
    sender.flush(&watch.client_host)?;
    sender.wait_logged(&["status=sent"], 5)?;
    sender.stop()?;
    let delivered = |of: &[String]| of.iter().filter(|outcome| *outcome == "delivered").count();
    let seen = observed(watch.agent, &hosts, |seen| {
        seen.iter().map(|conversation| delivered(&outcomes(&conversation.client))).sum::<usize>() == 5
    })?;

    let mut probes = 0;
    for conversation in &seen {
        let said = commands(&conversation.client);
        assert_eq!(said, commands(&conversation.server));
        let resets = said.iter().filter(|command| *command == "RSET 250").count();
        probes += resets;
        let mails = delivered(&outcomes(&conversation.client));
        assert_eq!(resets, mails - 1, "one before each mail but the first:\n{}", conversation.client);
        assert_eq!(reasons(&conversation.client), vec!["reuse_probe"; resets], "\n{}", conversation.client);
        // Nothing tells the server that another process went on, nor has it been idle for long.
        let rsets = conversation.server.of("smtp.rset");
        for rset in &rsets.0 {
            let possible = rset.text("/reason") == Some("reuse_probe")
                || rset.text("/reason") == Some("ambiguous") && rset.json().contains("reuse_probe");
            ensure!(possible, "{rset}");
        }
        let data = conversation.client.of("smtp.data");
        let pids: BTreeSet<_> = data.0.iter().map(|observed| observed.pid()).collect();
        assert_eq!(pids.len(), mails, "each mail is its own process's:\n{}", conversation.client);
    }
    ensure!(probes >= 2, "a connection was used again {probes} times only");
    Ok(())
}

/// The same on a destination whose connections are always kept: the connection has been idle for a second, which both
/// ends can tell.
#[test]
fn a_mail_after_a_while() -> Result<()> {
    let watch = Watch::start(&["--addresses", "full"])?;
    let hosts = [&watch.client_host, &watch.server_host];
    let rules = ["smtp_connection_cache_destinations = static:all", "smtp_destination_rate_delay = 1s"];
    let sender = Postfix::start_with(&watch.client_host, &[&SENDER[..], &rules].concat(), &[])?;
    let _server = Serving::start(watch.server_host.listen("10.77.0.2:25")?, "")?;
    for _ in 0..2 {
        sender.submit(&watch.client_host, "alice@client.example", "one@test.example")?;
    }
    sender.wait_logged(&["status=sent"], 2)?;
    sender.stop()?;
    let seen = observed(watch.agent, &hosts, |seen| !seen.is_empty())?;
    assert_eq!(seen.len(), 1);
    seen[0].check(
        &[
            "EHLO 250", "MAIL 250", "RCPT 250", "DATA 354", //
            "RSET 250", "MAIL 250", "RCPT 250", "DATA 354",
        ],
        &["reuse_probe"],
        &["delivered", "delivered"],
    );
    Ok(())
}

/// Asked whether an address is good, it asks the server, and takes everything back.
#[test]
fn address_verification() -> Result<()> {
    let watch = Watch::start(&["--addresses", "full"])?;
    let hosts = [&watch.client_host, &watch.server_host];
    let server = Postfix::start(&watch.server_host)?;
    let rules = [
        "relay_domains = test.example",
        "smtpd_relay_restrictions = reject_unauth_destination",
        "smtpd_recipient_restrictions = reject_unverified_recipient, permit",
        "address_verify_poll_delay = 1s",
    ];
    let sender =
        Postfix::start_with(&watch.client_host, &[&SENDER[..], &rules].concat(), &["2525 inet n - n - - smtpd"])?;
    for recipient in ["ok@test.example", "nobody@test.example"] {
        let mut swaks = watch.client_host.command(machine::installed("swaks")?);
        swaks.args(["--server", "127.0.0.1:2525", "--helo", "there.example", "--quit-after", "RCPT"]);
        swaks.args(["--from", "alice@there.example", "--to", recipient]);
        // It may be told to come back later: the address has been asked for all the same.
        Running::start(swaks)?.finish()?;
    }
    let seen = observed(watch.agent, &hosts, |seen| seen.len() == 2)?;
    sender.stop()?;
    server.stop()?;
    seen[0].check(&["EHLO 250", "MAIL 250", "RCPT 250", "RSET 250", "QUIT"], &["address_probe"], &["reset"]);
    seen[1].check(&["EHLO 250", "MAIL 250", "RCPT 550", "RSET 250", "QUIT"], &["address_probe"], &["rejected"]);
    Ok(())
}
