//! `smtp-observer compare`: what two agents saw from the two ends. One kernel has one agent, which sees all hosts; its
//! events are parted by host, and the server's get another clock's times.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::machine;
use smtp_observer_tests::process::{Ended, Running};
use smtp_observer_tests::scene::{SERVER, Scene};
use smtp_observer_tests::seen::{Observed, Seen};
use smtp_observer_tests::watch::Watch;

/// How far the server's clock is ahead.
const AHEAD: i64 = 420;

/// A mail, and what a server without extensions says to it.
const MAIL: &str = "
    S: 220 server.example ESMTP
    C: EHLO client.example
    S: 250-server.example
    S: 250-PIPELINING
    S: 250 ENHANCEDSTATUSCODES
    C: MAIL FROM:<alice@client.example>
    S: 250 2.1.0 Sender ok
    C: RCPT TO:<bob@server.example>
    S: 250 2.1.5 Recipient ok
    C: DATA
    S: 354 End data with <CR><LF>.<CR><LF>
    C: Subject: Lunch
    C:
    C: At noon.
    C: .
    S: 250 2.0.0 Ok: queued as 4F1C0A77
    C: NOOP
    S: 250 2.0.0 Still here
    C: QUIT
    S: 221 2.0.0 Bye";

/// The events as an agent writes them whose clock is so many seconds ahead.
fn write(path: &Path, seen: &Seen, ahead: i64) -> Result<()> {
    let line = |observed: &Observed| -> Result<String> {
        let mut value = observed.value().clone();
        let time: jiff::Timestamp = observed.text("/time").context("no time")?.parse()?;
        value["time"] = format!("{:.9}", time + jiff::SignedDuration::from_secs(ahead)).into();
        Ok(format!("{value}\n"))
    };
    let lines = seen.0.iter().map(line).collect::<Result<String>>()?;
    Ok(fs::write(path, lines)?)
}

fn compare(client: &Path, server: &Path, options: &[&str]) -> Result<Ended> {
    let mut command = Command::new(machine::agent()?);
    command.arg("compare").args(options).args([client, server]);
    Running::start(command)?.finish()
}

/// The result as text, and as objects.
fn results(client: &Path, server: &Path) -> Result<(String, Vec<Value>)> {
    let [text, json] = [&[][..], &["--json"]].map(|options| compare(client, server, options));
    let (text, json) = (text?, json?);
    for ended in [&text, &json] {
        ensure!(ended.status.success() && ended.log.is_empty(), "{}: {:?}", ended.status, ended.log);
    }
    let objects = json.output.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    Ok((text.output.join("\n"), objects))
}

fn check_clock(object: &Value) {
    let ahead = object["server_clock_ahead_seconds"].as_f64().unwrap_or_default();
    assert!((ahead - AHEAD as f64).abs() < 0.1, "{ahead} s in place of {AHEAD}");
}

#[test]
fn without_anything_in_between_nothing_differs() -> Result<()> {
    const CONVERSATIONS: usize = 3;
    let watch = Watch::start(&[])?;
    for _ in 0..CONVERSATIONS {
        let mut dialogue = watch.dialogue("10.77.0.2:25")?;
        dialogue.play(MAIL)?;
        dialogue.close()?;
    }
    watch.wait(CONVERSATIONS)?;
    let hosts = [watch.client_host.clone(), watch.server_host.clone()];
    let seen = watch.agent.stop()?.seen;
    let folder = tempfile::tempdir()?;
    let [client, server] = ["client.jsonl", "server.jsonl"].map(|name| folder.path().join(name));
    write(&client, &seen.on(&[&hosts[0]])?, 0)?;
    write(&server, &seen.on(&[&hosts[1]])?, AHEAD)?;

    let (text, objects) = results(&client, &server)?;
    assert_eq!(objects.len(), CONVERSATIONS, "{text}");
    for object in &objects {
        assert_eq!((&object["paired_by"], &object["differs"]), (&"addresses".into(), &false.into()), "{text}");
        let marks: Vec<_> = object["rows"].as_array().context("no rows")?.iter().map(|row| &row["mark"]).collect();
        assert_eq!(marks, ["same"; 7], "{text}");
        check_clock(object);
    }
    for words in ["3 conversations were seen at both ends: nothing differs", "the server's clock is 7 min 0 s ahead"] {
        assert!(text.contains(words), "`{words}` is not in:\n{text}");
    }
    Ok(())
}

#[test]
fn the_scene() -> Result<()> {
    let scene = Scene::new()?;
    let hosts = [scene.client_host.clone(), scene.server_host.clone()];
    let agent = Agent::start(&[])?;
    scene.play()?;
    let is_over = |observed: &Observed| {
        let at_server = |end: &str| observed.end(end).as_deref() == Some(SERVER);
        observed.event() == "connection.closed" && (at_server("local") || at_server("remote"))
    };
    agent.wait_for("the end of the three sockets that are watched", &[&hosts[0], &hosts[1]], |seen| {
        seen.only(is_over).0.len() == 3
    })?;
    let seen = agent.stop()?.seen;
    let folder = tempfile::tempdir()?;
    let file = |name: &str| -> PathBuf { folder.path().join(name) };
    let (client, gateway, server) = (file("client.jsonl"), file("gateway.jsonl"), file("server.jsonl"));
    let on_client = seen.on(&[&hosts[0]])?;
    write(&client, &on_client, 0)?;
    // As if the interceptor were on another host: of it the client's agent knows nothing.
    let of_client = |observed: &Observed| {
        observed.text("/process/executable").is_some_and(|path| path.ends_with("/mail-client"))
            && observed.event() != "interception"
    };
    write(&gateway, &on_client.only(of_client), 0)?;
    write(&server, &seen.on(&[&hosts[1]])?, AHEAD)?;

    let (text, objects) = results(&client, &server)?;
    assert_eq!(objects.len(), 2, "{text}");
    let through = |objects: &[Value], by: &str| {
        objects
            .iter()
            .find(|object| object["paired_by"] == *by)
            .cloned()
            .with_context(|| format!("none by {by}: {text}"))
    };
    // The interceptor's own connection is as it is.
    assert_eq!(through(&objects, "addresses")?["differs"], false, "{text}");
    check_story(&through(&objects, "upstream")?, &text)?;

    let (text, objects) = results(&gateway, &server)?;
    assert_eq!(objects.len(), 1, "{text}");
    check_story(&through(&objects, "envelope")?, &text)?;
    for words in ["1 conversation was seen at both ends: 1 differs", "NOOP  × 5", "Please start mail input.", " later"]
    {
        assert!(text.contains(words), "`{words}` is not in:\n{text}");
    }
    Ok(())
}

/// What the interceptor did, as its source has it.
fn check_story(object: &Value, text: &str) -> Result<()> {
    assert_eq!(object["differs"], true, "{text}");
    check_clock(object);
    let evidence = object["evidence"].as_array().context("no evidence")?;
    let mut kinds: Vec<_> = evidence.iter().filter_map(|evidence| evidence["kind"].as_str()).collect();
    kinds.sort_unstable();
    // The server takes the message so soon after the client has heard of it that the clocks of two hosts cannot tell.
    kinds.retain(|kind| *kind != "success_before_upstream");
    let expected = ["command_injected", "data_held_back", "go_ahead_not_from_upstream", "reply_text_differs"];
    assert_eq!(kinds, expected, "{text}");
    // Five times 300 ms to type the message in.
    let hold = object["data_delay_seconds"].as_f64().unwrap_or_default();
    assert!((1.4..10.0).contains(&hold), "held for {hold} s");
    let mut injected: BTreeMap<String, usize> = BTreeMap::new();
    for row in object["rows"].as_array().context("no rows")?.iter().filter(|row| row["mark"] == "server_only") {
        *injected.entry(row["server"]["verb"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    let expected = [("MAIL", 1), ("NOOP", 5), ("RCPT", 1), ("RSET", 1)].map(|(verb, times)| (verb.to_owned(), times));
    assert_eq!(injected, BTreeMap::from(expected), "{text}");
    Ok(())
}

/// A conversation of one command, as the agent writes it.
fn events(role: &str, argument: &str) -> String {
    let (local, remote) = if role == "client" { (40000, 25) } else { (25, 40000) };
    format!(
        r#"{{"time":"2026-11-23T17:04:05.000000001Z","event":"smtp.command","verb":"MAIL","argument":"{argument}","code":250,
        "reply":"Ok","latency_seconds":0.001,"pipelined":false,"connection":{{"id":"1","role":"{role}","netns":1,
        "local":{{"address":"192.0.2.1","port":{local}}},"remote":{{"address":"192.0.2.1","port":{remote}}}}}}}"#
    )
    .replace('\n', " ")
        + "\n"
}

#[test]
fn files_that_are_of_no_use_are_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Result<PathBuf> {
        let path = folder.path().join(name);
        fs::write(&path, text)?;
        Ok(path)
    };
    let client = file("client.jsonl", &events("client", "FROM:<*@c.example>"))?;
    let server = file("server.jsonl", &events("server", "FROM:<*@c.example>"))?;
    let fails = |client: &Path, server: &Path, status: i32, words: &[&str]| -> Result<()> {
        let ended = compare(client, server, &[])?;
        let log = ended.log.join("\n");
        assert_eq!((ended.status.code(), ended.output.len()), (Some(status), 0), "{log}");
        for word in words {
            assert!(log.contains(word), "`{word}` is not in: {log}");
        }
        Ok(())
    };
    let missing = folder.path().join("missing.jsonl");
    fails(&client, &missing, 2, &["missing.jsonl", "no such file", "--events FILE"])?;
    let mail = file("mail", "From: alice\n")?;
    fails(&mail, &server, 2, &["/mail:1: "])?;
    let event = events("client", "FROM:<*@c.example>");
    let damaged = file("damaged.jsonl", &format!("{event}From: alice\n{event}"))?;
    fails(&damaged, &server, 1, &["damaged.jsonl:2: "])?;
    let full = file("full.jsonl", &events("server", "FROM:<alice@c.example>"))?;
    fails(&client, &full, 2, &["client.jsonl", "--addresses domain", "full.jsonl", "with full"])?;

    let says = |client: &Path, server: &Path, words: &[&str]| -> Result<()> {
        let ended = compare(client, server, &[])?;
        assert_eq!(ended.status.code(), Some(0), "{:?}", ended.log);
        let log = ended.log.join("\n");
        for word in words {
            assert!(log.contains(word), "`{word}` is not in: {log}");
        }
        Ok(())
    };
    let empty = file("empty.jsonl", "")?;
    says(&client, &empty, &["no SMTP conversation of a server is in", "empty.jsonl"])?;
    says(&server, &client, &["of a client is in", "server.jsonl: it may be the other end's", "client.jsonl"])?;
    let mended = file("mended.jsonl", &format!("\n{event}{}\n{event}", &event[..event.len() / 2]))?;
    says(&mended, &server, &["2 lines that are no whole events are left out of", "mended.jsonl"])?;
    let growing = file("growing.jsonl", &(event + "{\"time\":\"2026-"))?;
    says(&growing, &server, &["growing.jsonl ends in the middle of a line"])?;
    Ok(())
}
