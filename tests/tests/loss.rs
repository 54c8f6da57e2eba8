//! An agent that cannot keep up: what it misses is counted to the byte, and nothing wrong stays.

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::http::Metrics;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::seen::Seen;

/// Exchanges that no small ring has room for: each makes four records.
const EXCHANGES: u64 = 500;

/// A command and its reply, of one length, so that bytes tell records and records bytes.
const COMMAND: &[u8] = b"NOOP\r\n";
const REPLY: &[u8] = b"250 \r\n";
const LENGTH: u64 = 6;

/// An agent with a small ring on a port of its own: the hooks see the whole host.
fn agent(port: u16) -> Result<Agent> {
    Agent::start(&["--ring-size", "64KiB", "--port", &port.to_string()])
}

fn talk(dialogue: &mut Dialogue) -> Result<()> {
    for _ in 0..EXCHANGES {
        dialogue.client_says(COMMAND)?;
        dialogue.server_says(REPLY)?;
    }
    Ok(())
}

fn lost(metrics: &Metrics, kind: &str) -> Result<u64> {
    count(metrics, "smtp_observer_kernel_events_lost_total", kind)
}

fn count(metrics: &Metrics, metric: &str, kind: &str) -> Result<u64> {
    let sum = metrics.sum(metric, &[&format!("kind=\"{kind}\"")]);
    Ok(sum.with_context(|| format!("no {metric} of kind {kind}"))? as u64)
}

fn open(agent: &Agent) -> Result<Option<f64>> {
    Ok(agent.metrics()?.sum("smtp_connections_open", &[]))
}

/// The two ends of the connection from this port.
fn ends(seen: &Seen, dialogue_port: u16) -> Result<[Seen; 2]> {
    let port = u64::from(dialogue_port);
    let of = |end: &str| {
        let pointer = format!("/connection/{end}/port");
        seen.only(|observed| observed.count(&pointer) == Some(port))
    };
    Ok([of("local").side("client")?, of("remote").side("server")?])
}

#[test]
fn seen_and_lost_add_up_to_what_was_sent() -> Result<()> {
    const PORT: u16 = 2621;
    let (client, server) = Host::pair()?;
    let address = format!("10.77.0.2:{PORT}");
    let agent = agent(PORT)?;
    let greeting = "S: 220 server.example ESMTP";
    let farewell = "C: NOOP\nS: 250 Ok\nC: QUIT\nS: 221 Bye";
    let mut busy = Dialogue::open(&client, &server, &address)?;
    let mut quiet = Dialogue::open(&client, &server, &address)?;
    let ports = [busy.client.local_addr()?.port(), quiet.client.local_addr()?.port()];
    busy.play(greeting)?;
    quiet.play(greeting)?;
    agent.wait_for("all four ends", &[&client, &server], |seen| seen.count("smtp.greeting") == 4)?;

    agent.stall()?;
    talk(&mut busy)?;
    agent.go_on()?;
    busy.play(farewell)?;
    quiet.play(farewell)?;
    busy.close()?;
    quiet.close()?;
    agent.wait_closed(&[&client, &server], 4)?;
    let metrics = agent.metrics()?;
    let stopped = agent.stop()?;
    let seen = stopped.seen.on(&[&client, &server])?;

    let said = |who: &str| -> u64 {
        let lines = greeting.lines().chain(farewell.lines()).filter(|line| line.starts_with(who));
        lines.map(|line| line.len() as u64 - 1).sum()
    };
    // Each call is in a record that was seen or lost.
    let calls = 2 * EXCHANGES + 2 * (greeting.lines().count() + farewell.lines().count()) as u64;
    for kind in ["send", "receive"] {
        let seen = count(&metrics, "smtp_observer_kernel_events_total", kind)?;
        let lost = lost(&metrics, kind)?;
        ensure!(lost > 0, "no record of kind {kind} was lost: the ring was not small enough");
        assert_eq!(seen + lost, calls, "{seen} and {lost} records of kind {kind}");
    }

    let [mut lost_bytes, mut bytes_seen] = [0; 2];
    for (end, (sent, received)) in ends(&seen, ports[0])?.into_iter().zip([("C:", "S:"), ("S:", "C:")]) {
        let closed = end.one("connection.closed")?;
        let bytes = |pointer: &str| closed.count(pointer).with_context(|| format!("no {pointer} in {closed}"));
        assert_eq!(bytes("/bytes_sent")?, said(sent) + EXCHANGES * LENGTH, "{closed}");
        assert_eq!(bytes("/bytes_received")?, said(received) + EXCHANGES * LENGTH, "{closed}");
        lost_bytes += bytes("/lost_bytes")?;
        bytes_seen += bytes("/bytes_sent")? + bytes("/bytes_received")? - bytes("/lost_bytes")?;

        let gaps = end.of("smtp.anomaly").only(|observed| observed.text("/kind") == Some("gap"));
        ensure!(!gaps.0.is_empty(), "no gap is told:\n{end}");
        // A 250 may answer a command in the gap; a 221 answers nothing but QUIT.
        let found = end.of("smtp.anomaly").only(|observed| observed.text("/kind") == Some("resynchronised"));
        assert_eq!(found.0.len(), 1, "{end}");
        assert_eq!(end.command("QUIT")?.count("/code"), Some(221), "{end}");
    }
    assert_eq!(lost_bytes, LENGTH * (lost(&metrics, "send")? + lost(&metrics, "receive")?));
    assert_eq!(lost_bytes + bytes_seen, 2 * (said("C:") + said("S:") + 2 * EXCHANGES * LENGTH));
    let holes = metrics.sum("smtp_observer_uncaptured_bytes_total", &["cause=\"hole\""]);
    assert_eq!(holes, Some(lost_bytes as f64));

    for end in ends(&seen, ports[1])? {
        assert_eq!(end.one("connection.closed")?.count("/lost_bytes"), Some(0), "{end}");
        assert_eq!(end.count("smtp.anomaly"), 0, "{end}");
        assert_eq!(end.command("NOOP")?.count("/code"), Some(250), "{end}");
    }

    let warnings = stopped.log.iter().filter(|line| line.contains("WARN") && line.contains("found no room")).count();
    assert_eq!(warnings, 1, "{}", stopped.log.join("\n"));
    Ok(())
}

#[test]
fn a_lost_change_of_state_leaves_nothing_wrong() -> Result<()> {
    const PORT: u16 = 2622;
    let (client, server) = Host::pair()?;
    let hosts = [&client, &server];
    let address = format!("10.77.0.2:{PORT}");
    let agent = agent(PORT)?;
    let mut busy = Dialogue::open(&client, &server, &address)?;
    let mut closing = Dialogue::open(&client, &server, &address)?;
    busy.play("S: 220 server.example ESMTP")?;
    closing.play("S: 220 server.example ESMTP")?;
    // In nobody's hands at the server's end.
    let waiting_at = format!("[fd77::2]:{PORT}");
    let listener = server.listen(&waiting_at)?;
    let waiting = client.connect(&waiting_at)?;
    agent.wait_for("five ends", &hosts, |seen| seen.count("connection.opened") == 5)?;
    let closing_port = closing.client.local_addr()?.port();

    agent.stall()?;
    talk(&mut busy)?;
    closing.close()?;
    let mut opened = Dialogue::open(&client, &server, &address)?;
    let opened_port = opened.client.local_addr()?.port();
    agent.go_on()?;
    let lost = lost(&agent.metrics()?, "state")?;
    ensure!(lost >= 4, "only {lost} changes of state were lost: the ring was not small enough");

    let seen = agent.wait_for("one connection gone, one come", &hosts, |seen| {
        seen.count("connection.closed") >= 2 && seen.count("connection.opened") >= 7
    })?;
    for end in ends(&seen, closing_port)? {
        assert_eq!(end.count("connection.closed"), 1, "{end}");
    }
    for end in ends(&seen, opened_port)? {
        let opened = end.one("connection.opened")?;
        assert_eq!(opened.pid(), Some(std::process::id().into()), "{}", opened.json());
    }
    assert_eq!(open(&agent)?, Some(5.0));

    // The one that waited is what it was, from its beginning.
    let (accepted, _) = listener.accept()?;
    (&accepted).write_all(b"220 server.example ESMTP\r\n")?;
    let waiting_port = waiting.local_addr()?.port();
    let late =
        |seen: &Seen| seen.only(|observed| observed.count("/connection/remote/port") == Some(waiting_port.into()));
    let seen = agent.wait_for("the late greeting", &hosts, |seen| late(seen).count("smtp.greeting") > 0)?;
    assert_eq!(late(&seen).brief(), ["connection.opened", "smtp.greeting 220"], "{seen}");

    opened.play("C: NOOP\nS: 250 Ok")?;
    opened.close()?;
    busy.play("C: QUIT\nS: 221 Bye")?;
    busy.close()?;
    drop((waiting, accepted));
    agent.wait_closed(&hosts, 8)?;
    assert_eq!(open(&agent)?, Some(0.0));
    let seen = agent.stop()?.seen.on(&hosts)?;
    assert_eq!((seen.count("connection.opened"), seen.count("connection.closed")), (8, 8), "{seen}");
    Ok(())
}

/// Its process has closed it, and its last bytes do not arrive: until they do it is in nobody's hands, and open.
#[test]
fn a_socket_that_is_left_to_the_kernel_stays_open() -> Result<()> {
    const PORT: u16 = 2623;
    let (client, server) = Host::pair()?;
    let hosts = [&client, &server];
    let address = format!("10.77.0.2:{PORT}");
    let agent = agent(PORT)?;
    let open = || -> Result<Dialogue> {
        let mut dialogue = Dialogue::open(&client, &server, &address)?;
        dialogue.play("S: 220 server.example ESMTP")?;
        Ok(dialogue)
    };
    let (mut busy, closing, left) = (open()?, open()?, open()?);
    let (closing_port, left_port) = (closing.port()?, left.port()?);
    agent.wait_for("six ends", &hosts, |seen| seen.count("smtp.greeting") == 6)?;
    client.nft(&format!(
        "table ip left {{\n chain out {{\n type filter hook output priority 0;\n tcp sport {left_port} drop;\n }}\n}}\n"
    ))?;
    drop(left.client);

    agent.stall()?;
    talk(&mut busy)?;
    closing.close()?;
    agent.go_on()?;
    ensure!(lost(&agent.metrics()?, "state")? >= 2, "no change of state was lost: the ring was not small enough");
    // Only a second look at what is open can tell that.
    let seen = agent.wait_for("a connection that is over", &hosts, |seen| seen.count("connection.closed") >= 2)?;
    for end in ends(&seen, closing_port)? {
        assert_eq!(end.count("connection.closed"), 1, "{end}");
    }
    for end in ends(&seen, left_port)? {
        assert_eq!(end.count("connection.closed"), 0, "{end}");
    }

    client.nft("delete table ip left\n")?;
    let mut rest = Vec::new();
    (&left.server).read_to_end(&mut rest)?;
    drop(left.server);
    busy.close()?;
    agent.wait_closed(&hosts, 6)?;
    let seen = agent.stop()?.seen.on(&hosts)?;
    for (end, closed_by) in ends(&seen, left_port)?.into_iter().zip(["local", "remote"]) {
        assert_eq!(end.one("connection.closed")?.text("/closed_by"), Some(closed_by), "{end}");
    }
    assert_eq!((seen.count("connection.opened"), seen.count("connection.closed")), (6, 6), "{seen}");
    Ok(())
}
