//! Postfix passes connections between its processes: one connection, each process named while it uses it.

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::postfix::{KEPT, Postfix};
use smtp_observer_tests::scene::lines::Lines;
use smtp_observer_tests::seen::{Observed, Seen};

const RECIPIENT: &str = "ok@test.example";

/// Who came to use the connection, in order, by name and pid.
fn owners(end: &Seen) -> Result<Vec<(String, u64)>> {
    let owner = |told: &Observed, who: &str| -> Result<(String, u64)> {
        let name = told.text(&format!("{who}/name")).with_context(|| format!("no name in {}", told.json()))?;
        let pid = told.count(&format!("{who}/pid")).with_context(|| format!("no pid in {}", told.json()))?;
        Ok((name.to_owned(), pid))
    };
    let mut owners = vec![owner(&end.one("connection.opened")?, "/process")?];
    for change in end.of("connection.owner_changed").0 {
        assert_eq!(owners.last(), Some(&owner(&change, "/previous_process")?), "{}", change.json());
        owners.push(owner(&change, "/process")?);
    }
    Ok(owners)
}

/// Each smtp(8) ends after one mail, and leaves its connection with scache(8) to the next one.
#[test]
fn a_connection_kept_in_the_cache() -> Result<()> {
    let (client_host, server_host) = Host::pair()?;
    let server = Postfix::start(&server_host)?;
    let sender = [
        "myhostname = client.example",
        "mydestination =",
        "relayhost = [10.77.0.2]:25",
        "smtp_connection_cache_destinations = static:all",
    ];
    let services = ["smtp unix - - n - - smtp -o max_use=1"];
    let client = Postfix::start_with(&client_host, &[&sender[..], &KEPT].concat(), &services)?;
    // Before the agent, so that it finds the connection in the cache's hands.
    client.deliver(&client_host, "alice@client.example", RECIPIENT)?;
    let agent = Agent::start(&[])?;
    let in_cache =
        agent.wait_for("the kept connection", &[&client_host], |seen| seen.count("connection.opened") > 0)?;
    assert_eq!(owners(&in_cache.side("client")?)?[0].0, "scache", "{in_cache}");

    for _ in 0..3 {
        client.deliver(&client_host, "alice@client.example", RECIPIENT)?;
    }
    agent.wait_for("three messages at each end", &[&client_host, &server_host], |seen| seen.count("smtp.data") == 6)?;
    client.stop()?;
    agent.wait_closed(&[&client_host, &server_host], 2)?;
    let seen = agent.stop()?.seen.on(&[&client_host, &server_host])?;
    server.stop()?;

    let end = seen.side("client")?;
    let owners = owners(&end)?;
    let (cache, users) = owners.split_first().context("no owner")?;
    assert_eq!(cache.0, "scache", "{end}");
    ensure!(users.len() >= 3, "the connection went to only {users:?}\n{end}");
    for (name, _) in users {
        assert_eq!(name, "smtp", "{end}");
    }
    let of_messages: Vec<_> = end.of("smtp.data").0.iter().map(Observed::pid).collect();
    let expected: Vec<_> = users.iter().take(3).map(|(_, pid)| Some(*pid)).collect();
    assert_eq!(of_messages, expected, "each message is its own process's:\n{end}");
    for change in end.of("connection.owner_changed").0 {
        ensure!(change.text("/process/executable").is_some_and(|path| path.ends_with("postfix/sbin/smtp")));
    }
    assert_eq!(seen.side("server")?.count("connection.owner_changed"), 0, "{seen}");
    Ok(())
}

/// postscreen(8) says the first line of the greeting itself, waits, and hands the connection to an smtpd(8).
#[test]
fn a_connection_screened_before_it_is_served() -> Result<()> {
    let (client_host, server_host) = Host::pair()?;
    let server = Postfix::start_with(
        &server_host,
        &["postscreen_greet_action = enforce", "postscreen_greet_banner = wait a little", "postscreen_greet_wait = 1s"],
        &["smtp inet n - n - 1 postscreen", "smtpd pass - - n - - smtpd"],
    )?;
    let agent = Agent::start(&[])?;
    let mut client = Lines::new(client_host.connect("10.77.0.2:25")?)?;
    let greeting = client.read_reply()?;
    ensure!(greeting.starts_with("220-wait a little\r\n220 server.example"), "{greeting}");
    for (command, code) in [("EHLO client.example\r\n", "250"), ("NOOP\r\n", "250"), ("QUIT\r\n", "221")] {
        ensure!(client.ask(command)?.starts_with(code), "{command}");
    }
    drop(client);
    agent.wait_closed(&[&client_host, &server_host], 2)?;
    let seen = agent.stop()?.seen.on(&[&client_host, &server_host])?;
    server.stop()?;

    let end = seen.side("server")?;
    let owners = owners(&end)?;
    let names: Vec<&str> = owners.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["postscreen", "smtpd"], "{end}");
    ensure!(owners[0].1 != owners[1].1, "{end}");
    for verb in ["EHLO", "NOOP", "QUIT"] {
        assert_eq!(end.command(verb)?.pid(), Some(owners[1].1), "{end}");
    }
    let greeting = end.one("smtp.greeting")?;
    assert_eq!(greeting.count("/code"), Some(220), "{greeting}");
    assert_eq!(end.one("connection.closed")?.count("/lost_bytes"), Some(0), "{end}");
    Ok(())
}
