//! Postfix as a sender: the probe of a cached connection, and the verification of addresses.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use smtp_observer_tests::machine;
use smtp_observer_tests::postfix::{KEPT, Postfix};
use smtp_observer_tests::process::Running;
use smtp_observer_tests::scene::server::Serving;
use smtp_observer_tests::seen::Seen;
use smtp_observer_tests::watch::Watch;

use smtp_observer_tests::conversation::{Conversation, commands, observed, outcomes, reasons};

/// Sends everything to the server, one mail at a time.
const SENDER: [&str; 5] = [
    "myhostname = client.example",
    "mydestination =",
    "relayhost = [10.77.0.2]:25",
    "initial_destination_concurrency = 1",
    "default_destination_concurrency_limit = 1",
];

/// Five mails to one destination that come to be sent together, so that the connection is kept from the second one on.
/// All their conversations: those of a kept connection have an RSET before each mail but the first.
fn on_demand(services: &[&str]) -> Result<Vec<Conversation>> {
    let watch = Watch::start(&["--addresses", "full"])?;
    let hosts = [&watch.client_host, &watch.server_host];
    let parameters = [&SENDER[..], &KEPT, &["smtp_connection_cache_on_demand = yes"]].concat();
    let sender = Postfix::start_with(&watch.client_host, &parameters, services)?;
    // Nobody listens yet.
    for name in ["alice", "bob", "carol", "dan", "eve"] {
        sender.submit(&watch.client_host, &format!("{name}@client.example"), "one@test.example")?;
    }
    sender.wait_logged(&["status=deferred"], 5)?;
    let _server = Serving::start(watch.server_host.listen("10.77.0.2:25")?, "")?;
    sender.flush(&watch.client_host)?;
    sender.wait_logged(&["status=sent"], 5)?;
    sender.stop()?;
    let seen = observed(watch.agent, &hosts, |seen| seen.iter().map(mails).sum::<usize>() == 5)?;
    for conversation in &seen {
        let said = commands(&conversation.client);
        assert_eq!(said, commands(&conversation.server));
        let probes = said.iter().filter(|command| *command == "RSET 250").count();
        assert_eq!(probes, mails(conversation) - 1, "\n{}", conversation.client);
    }
    let probes = seen.iter().map(mails).sum::<usize>() - seen.len();
    ensure!(probes >= 2, "a connection was used again {probes} times only");
    Ok(seen)
}

fn mails(conversation: &Conversation) -> usize {
    outcomes(&conversation.client).iter().filter(|outcome| *outcome == "delivered").count()
}

/// Nothing but the process tells such an RSET from one that a client sends out of habit, where it is not another one.
fn check_possible(end: &Seen) -> Result<()> {
    for rset in end.of("smtp.rset").0 {
        let named = |text: Option<&str>| text.is_some_and(|text| text.contains("reuse_probe"));
        let candidate = rset.text("/reason") == Some("ambiguous") && named(Some(&rset.json()));
        ensure!(named(rset.text("/reason")) || candidate, "{rset}");
    }
    Ok(())
}

/// Each smtp(8) ends after one mail: the next one asks by RSET whether the connection that it was handed is still good.
#[test]
fn a_connection_for_the_next_process() -> Result<()> {
    for conversation in on_demand(&["smtp unix - - n - - smtp -o max_use=1"])? {
        let (client, mails) = (&conversation.client, mails(&conversation));
        assert_eq!(reasons(client), vec!["reuse_probe"; mails - 1], "\n{client}");
        let data = client.of("smtp.data");
        let pids: BTreeSet<_> = data.0.iter().map(|observed| observed.pid()).collect();
        assert_eq!(pids.len(), mails, "each mail is its own process's:\n{client}");
        check_possible(&conversation.server)?;
    }
    Ok(())
}

/// As Postfix comes, the same smtp(8) gets its connection back from the cache within a millisecond, and asks all the same.
#[test]
fn a_connection_for_the_same_process() -> Result<()> {
    for conversation in on_demand(&[])? {
        check_possible(&conversation.client)?;
        check_possible(&conversation.server)?;
    }
    Ok(())
}

/// A destination whose connections are always kept: it has been idle for a second, which both ends can tell. Postfix counts
/// the seconds that begin, so that two of its are one at least.
#[test]
fn a_mail_after_a_while() -> Result<()> {
    let watch = Watch::start(&["--addresses", "full"])?;
    let hosts = [&watch.client_host, &watch.server_host];
    let rules = ["smtp_connection_cache_destinations = static:all", "smtp_destination_rate_delay = 2s"];
    let sender = Postfix::start_with(&watch.client_host, &[&SENDER[..], &KEPT, &rules].concat(), &[])?;
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
