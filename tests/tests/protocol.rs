//! What is said between two ends, said on purpose and to the byte: addresses, system calls, and the protocol's corners.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::seen::{Observed, Seen};
use smtp_observer_tests::syscalls::ALL;
use smtp_observer_tests::watch::{SHORT, SHORT_EVENTS, Watch, check_closed};

/// Plays one dialogue, and compares what is seen at each end with the events there must be, and no others.
fn both_ends(transcript: &str, events: &[&str]) -> Result<[Seen; 2]> {
    let watch = Watch::start(&["--addresses", "full"])?;
    let mut dialogue = watch.dialogue("10.77.0.2:25")?;
    dialogue.play(transcript)?;
    dialogue.close()?;
    watch.wait(1)?;
    let ends = watch.stop()?;
    let ([client], [server]) = (
        <[Seen; 1]>::try_from(ends.0).ok().context("the client's end was not seen once")?,
        <[Seen; 1]>::try_from(ends.1).ok().context("the server's end was not seen once")?,
    );
    for side in [&client, &server] {
        assert_eq!(side.brief(), events, "\n{side}");
        check_closed(side)?;
    }
    Ok([client, server])
}

#[test]
fn every_kind_of_address() -> Result<()> {
    let watch = Watch::start(&[])?;
    // Where the server listens, what the client asks for, and how that is to be shown.
    let ways = [
        ("10.77.0.2:25", "10.77.0.2:25", "10.77.0.2:25"),
        ("[fd77::2]:25", "[fd77::2]:25", "[fd77::2]:25"),
        ("[::]:25", "10.77.0.2:25", "10.77.0.2:25"),
        ("10.77.0.2:25", "[::ffff:10.77.0.2]:25", "10.77.0.2:25"),
    ];
    for (listen, connect, _) in ways {
        let mut dialogue = Dialogue::open_from(&watch.client_host, &watch.server_host, listen, connect)?;
        dialogue.play(SHORT)?;
        dialogue.close()?;
    }
    watch.wait(ways.len())?;
    let (clients, servers) = watch.stop()?;
    assert_eq!((clients.len(), servers.len()), (ways.len(), ways.len()));
    for (((_, _, shown), client), server) in ways.iter().zip(&clients).zip(&servers) {
        for side in [client, server] {
            assert_eq!(side.brief(), SHORT_EVENTS, "\n{side}");
            check_closed(side)?;
        }
        let (client, server) = (client.one("connection.closed")?, server.one("connection.closed")?);
        assert_eq!(client.end("remote").as_deref(), Some(*shown), "{client}");
        assert_eq!(server.end("local").as_deref(), Some(*shown), "{server}");
        assert_eq!(client.end("local"), server.end("remote"), "{client}\n{server}");
    }
    Ok(())
}

#[test]
fn every_system_call() -> Result<()> {
    let watch = Watch::start(&[])?;
    for calls in ALL {
        let mut dialogue = watch.dialogue("10.77.0.2:25")?.with(calls);
        dialogue.play(SHORT)?;
        dialogue.close()?;
    }
    watch.wait(ALL.len())?;
    let (clients, servers) = watch.stop()?;
    assert_eq!((clients.len(), servers.len()), (ALL.len(), ALL.len()));
    for (calls, sides) in ALL.iter().zip(clients.iter().zip(&servers)) {
        for side in [sides.0, sides.1] {
            assert_eq!(side.brief(), SHORT_EVENTS, "with {calls:?}\n{side}");
            check_closed(side)?;
        }
    }
    Ok(())
}

#[test]
fn ports_are_what_the_options_say() -> Result<()> {
    let watch = Watch::start(&["--port", "25,2525"])?;
    for port in [587, 2525, 25] {
        let mut dialogue = watch.dialogue(&format!("10.77.0.2:{port}"))?;
        dialogue.play(SHORT)?;
        dialogue.close()?;
    }
    watch.wait(2)?;
    let (clients, servers) = watch.stop()?;
    let ports =
        |sides: &[Seen], end: &str| -> Vec<Option<String>> { sides.iter().map(|side| side.0[0].end(end)).collect() };
    let watched = [Some("10.77.0.2:2525".to_owned()), Some("10.77.0.2:25".to_owned())];
    assert_eq!(ports(&clients, "remote"), watched);
    assert_eq!(ports(&servers, "local"), watched);
    Ok(())
}

/// No longer than the part of the dialogue took that it is in, as long as a slow machine may make that.
#[test]
fn latencies_are_those_of_the_replies() -> Result<()> {
    const THOUGHT: Duration = Duration::from_millis(250);
    let watch = Watch::start(&[])?;
    let mut dialogue = watch.dialogue("10.77.0.2:25")?;
    let timed = |part: &mut dyn FnMut() -> Result<()>| -> Result<f64> {
        let begin = Instant::now();
        part()?;
        Ok(begin.elapsed().as_secs_f64())
    };
    let helo =
        timed(&mut || dialogue.play("S: 220 server.example ESMTP\nC: HELO client.example\nS: 250 server.example"))?;
    let rset = timed(&mut || {
        dialogue.play("C: RSET")?;
        dialogue.pause(THOUGHT);
        dialogue.play("S: 250 Ok")
    })?;
    let quit = timed(&mut || dialogue.play("C: QUIT\nS: 221 Bye"))?;
    dialogue.close()?;
    watch.wait(1)?;
    let (clients, servers) = watch.stop()?;
    for side in clients.iter().chain(&servers) {
        let [at_helo, at_rset, at_quit] = ["HELO", "RSET", "QUIT"].map(|verb| side.command(verb));
        for (observed, least, most) in [
            (at_helo?, 0.0, helo),
            (at_rset?, THOUGHT.as_secs_f64(), rset),
            (side.one("smtp.rset")?, THOUGHT.as_secs_f64(), rset),
            (at_quit?, 0.0, quit),
        ] {
            let latency = observed.number("/latency_seconds").context("no latency")?;
            ensure!(latency > least && latency < most, "between {least} and {most}: {observed}");
        }
    }
    assert_eq!((clients.len(), servers.len()), (1, 1));
    Ok(())
}

#[test]
fn a_pipelined_session() -> Result<()> {
    let sides = both_ends(
        "
        S: 220 server.example ESMTP
        C: EHLO client.example
        S: 250-server.example
        S: 250-PIPELINING
        S: 250 ENHANCEDSTATUSCODES
        C: MAIL FROM:<alice@client.example>
        C: RCPT TO:<bob@server.example>
        C: RCPT TO:<nobody@server.example>
        C: DATA
        S: 250 2.1.0 Ok
        S: 250 2.1.5 Ok
        S: 550 5.1.1 No such user
        S: 354 Go ahead
        C: Subject: three commands and their likes
        C:
        C: RSET
        C: NOOP
        C: ..
        C: .
        C: QUIT
        S: 250 2.0.0 Ok
        S: 221 2.0.0 Bye",
        &[
            "DATA 354",
            "EHLO 250",
            "MAIL 250 2.1.0",
            "QUIT 221 2.0.0",
            "RCPT 250 2.1.5",
            "RCPT 550 5.1.1",
            "connection.closed",
            "connection.opened",
            "smtp.data DATA 250",
            "smtp.greeting 220",
            "smtp.transaction delivered",
        ],
    )?;
    let content = "Subject: three commands and their likes\r\n\r\nRSET\r\nNOOP\r\n..\r\n".len();
    for side in &sides {
        let data = side.one("smtp.data")?;
        assert_eq!(data.count("/size_bytes"), Some(content as u64), "{data}");
        let pipelined = side.of("smtp.command").only(|command| command.flag("/pipelined") == Some(true));
        // QUIT went out with the end of data, before the reply to that.
        let expected = ["DATA 354", "QUIT 221 2.0.0", "RCPT 250 2.1.5", "RCPT 550 5.1.1"];
        assert_eq!(pipelined.brief(), expected, "\n{side}");
        let transaction = side.one("smtp.transaction")?;
        assert_eq!(transaction.count("/recipients_accepted"), Some(1), "{transaction}");
        assert_eq!(transaction.count("/recipients_rejected"), Some(1), "{transaction}");
    }
    Ok(())
}

#[test]
fn chunks() -> Result<()> {
    let sides = both_ends(
        "
        S: 220 server.example ESMTP
        C: EHLO client.example
        S: 250-server.example
        S: 250 CHUNKING
        C: MAIL FROM:<alice@client.example>
        S: 250 Ok
        C: RCPT TO:<bob@server.example>
        S: 250 Ok
        C: BDAT 14
        C: Subject: abc
        S: 250 Ok
        C: BDAT 6 LAST
        C: QUIT
        S: 250 Queued
        C: QUIT
        S: 221 Bye",
        &[
            "BDAT 250",
            "BDAT 250",
            "EHLO 250",
            "MAIL 250",
            "QUIT 221",
            "RCPT 250",
            "connection.closed",
            "connection.opened",
            "smtp.data BDAT 250",
            "smtp.greeting 220",
            "smtp.transaction delivered",
        ],
    )?;
    for side in &sides {
        let data = side.one("smtp.data")?;
        assert_eq!(data.count("/size_bytes"), Some(20), "{data}");
        assert_eq!(data.text("/go_ahead"), None, "{data}");
    }
    Ok(())
}

#[test]
fn an_unanswered_command() -> Result<()> {
    both_ends(
        "
        S: 220 server.example ESMTP
        C: HELO client.example
        S: 250 server.example
        C: MAIL FROM:<alice@client.example>
        S: 250 Ok
        C: RCPT TO:<bob@server.example>",
        &[
            "HELO 250",
            "MAIL 250",
            "RCPT",
            "connection.closed",
            "connection.opened",
            "smtp.greeting 220",
            "smtp.transaction abandoned",
        ],
    )?;
    Ok(())
}

#[test]
fn helo_without_a_hostname() -> Result<()> {
    both_ends(
        "
        S: 220 server.example ESMTP
        C: HELO
        S: 501 5.5.4 Hostname, please
        C: QUIT
        S: 221 2.0.0 Bye",
        &[
            "HELO 501 5.5.4",
            "QUIT 221 2.0.0",
            "connection.closed",
            "connection.opened",
            "smtp.anomaly helo_without_hostname",
            "smtp.greeting 220",
        ],
    )?;
    Ok(())
}

#[test]
fn what_follows_starttls_is_not_read() -> Result<()> {
    let watch = Watch::start(&[])?;
    let mut dialogue = watch.dialogue("10.77.0.2:25")?;
    dialogue.play(
        "
        S: 220 server.example ESMTP
        C: EHLO client.example
        S: 250-server.example
        S: 250 STARTTLS
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS",
    )?;
    // Records of a handshake and of data, whose content happens to look like commands and replies.
    for record in [&b"\x16\x03\x01\x00\x0cRSET\r\nNOOP\r\n"[..], b"\x17\x03\x03\x00\x0cMAIL FROM:\r\n"] {
        dialogue.client_says(record)?;
        dialogue.server_says(b"\x17\x03\x03\x00\x08250 Ok\r\n")?;
    }
    dialogue.close()?;
    watch.wait(1)?;
    let (clients, servers) = watch.stop()?;
    assert_eq!((clients.len(), servers.len()), (1, 1));
    for side in clients.iter().chain(&servers) {
        let events = [
            "EHLO 250",
            "STARTTLS 220 2.0.0",
            "connection.closed",
            "connection.opened",
            "smtp.greeting 220",
            "smtp.tls offered",
            "smtp.tls requested",
            "smtp.tls started",
        ];
        assert_eq!(side.brief(), events, "\n{side}");
        // What is not read because it is not to be read is not lost.
        check_closed(side)?;
    }
    Ok(())
}

#[test]
fn credentials_are_never_shown() -> Result<()> {
    // `alice` and `correct horse`, by themselves and as PLAIN wants them.
    const SECRETS: [&str; 4] = ["YWxpY2U=", "Y29ycmVjdCBob3JzZQ==", "AGFsaWNlAGNvcnJlY3QgaG9yc2U=", "correct horse"];
    let watch = Watch::start(&["--addresses", "full"])?;
    let mut dialogue = watch.dialogue("10.77.0.2:25")?;
    dialogue.play(
        "
        S: 220 server.example ESMTP
        C: EHLO client.example
        S: 250-server.example
        S: 250 AUTH PLAIN LOGIN
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: YWxpY2U=
        S: 334 UGFzc3dvcmQ6
        C: Y29ycmVjdCBob3JzZQ==
        S: 535 5.7.8 No
        C: AUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U=
        S: 235 2.7.0 Welcome
        C: QUIT
        S: 221 2.0.0 Bye",
    )?;
    dialogue.close()?;
    watch.wait(1)?;
    let metrics = watch.agent.metrics()?.0;
    let all: String = watch.agent.so_far().0.iter().map(Observed::json).collect();
    let (clients, servers) = watch.stop()?;
    assert_eq!((clients.len(), servers.len()), (1, 1));
    for side in clients.iter().chain(&servers) {
        let events = [
            "AUTH 235 2.7.0",
            "AUTH 535 5.7.8",
            "EHLO 250",
            "QUIT 221 2.0.0",
            "connection.closed",
            "connection.opened",
            "smtp.greeting 220",
        ];
        assert_eq!(side.brief(), events, "\n{side}");
    }
    for secret in SECRETS {
        ensure!(!all.contains(secret), "`{secret}` is in the observations:\n{all}");
        ensure!(!metrics.contains(secret), "`{secret}` is in the metrics:\n{metrics}");
    }
    Ok(())
}

#[test]
fn peers_that_do_not_speak_smtp() -> Result<()> {
    let watch = Watch::start(&[])?;

    let mut browser = watch.dialogue("10.77.0.2:25")?;
    browser.play(
        "
        S: 220 server.example ESMTP
        C: GET / HTTP/1.1
        C: Host: server.example
        C:
        S: 221 2.7.0 I can break rules, too. Goodbye.",
    )?;
    browser.close()?;
    let mut noise = watch.dialogue("10.77.0.2:25")?;
    for seed in 1..=16 {
        noise.client_says(&garbage(seed))?;
        noise.server_says(&garbage(seed + 100))?;
    }
    noise.close()?;
    // Whatever the agent makes of that, it is there for the next.
    let mut orderly = watch.dialogue("10.77.0.2:25")?;
    orderly.play(SHORT)?;
    orderly.close()?;

    watch.wait(3)?;
    let metrics = watch.agent.metrics()?;
    let (clients, servers) = watch.stop()?;
    assert_eq!((clients.len(), servers.len()), (3, 3));
    for sides in [&clients, &servers] {
        ensure!(sides[0].brief().contains(&"smtp.anomaly not_smtp".to_owned()), "{}", sides[0]);
        // Each kind is reported sixteen times a session at the most.
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for anomaly in &sides[1].of("smtp.anomaly").0 {
            *kinds.entry(anomaly.brief()).or_default() += 1;
        }
        ensure!(!kinds.is_empty() && kinds.values().all(|&count| count <= 16), "{kinds:?} in 16 KiB of noise");
        assert_eq!(sides[2].brief(), SHORT_EVENTS, "\n{}", sides[2]);
    }
    ensure!(metrics.sum("smtp_anomalies_total", &["kind=\"not_smtp\""]).is_some_and(|count| count >= 2.0));
    Ok(())
}

/// Bytes that mean nothing, the same in every run.
fn garbage(seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_769);
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..512).map(|_| byte()).collect()
}

#[test]
fn lines_that_never_end() -> Result<()> {
    const PEERS: usize = 4;
    const PIECE: [u8; 4096] = [b'x'; 4096];
    const PIECES: usize = 256;
    // So many pieces at a time leave room for others in a queue of a few megabytes.
    const TOGETHER: usize = 32;
    let watch = Watch::start(&[])?;
    let before = watch.agent.memory("RssAnon")?;
    let mut dialogues = (0..PEERS).map(|_| watch.dialogue("10.77.0.2:25")).collect::<Result<Vec<_>>>()?;
    for dialogue in &mut dialogues {
        dialogue.play("S: 220 server.example ESMTP")?;
    }
    let hosts = [&watch.client_host, &watch.server_host];
    let mut pacemaker = watch.dialogue("10.77.0.2:25")?;
    pacemaker.play("S: 220 server.example ESMTP")?;
    for round in 1..=PIECES {
        for dialogue in &mut dialogues {
            dialogue.client_says(&PIECE)?;
        }
        if round % TOGETHER == 0 {
            // What the agent sees, it sees in order: with this NOOP it has seen all before it.
            pacemaker.play("C: NOOP\nS: 250 Ok")?;
            watch.agent.wait_for("a NOOP", &hosts, |seen| seen.count("smtp.command") >= 2 * round / TOGETHER)?;
        }
    }
    pacemaker.close()?;
    watch.agent.wait_for("an anomaly at each end", &hosts, |seen| seen.count("smtp.anomaly") >= 2 * PEERS)?;
    // All lines are still open, so all that is kept of them is kept now.
    let grown = watch.agent.memory("RssAnon")?.saturating_sub(before);
    ensure!(
        grown < 2 << 20,
        "the agent has grown by {grown} bytes for lines of {} bytes",
        PEERS * PIECES * PIECE.len()
    );
    for mut dialogue in dialogues {
        dialogue.play("C: .\nS: 500 5.5.2 Line too long\nC: QUIT\nS: 221 2.0.0 Bye")?;
        dialogue.close()?;
    }
    watch.wait(PEERS + 1)?;
    let (clients, servers) = watch.stop()?;
    assert_eq!((clients.len(), servers.len()), (PEERS + 1, PEERS + 1));
    for side in clients[..PEERS].iter().chain(&servers[..PEERS]) {
        let anomaly = side.one("smtp.anomaly")?;
        assert_eq!(anomaly.text("/kind"), Some("line_too_long"), "{anomaly}");
        ensure!(anomaly.json().len() < 8192, "{} bytes are too many for one anomaly", anomaly.json().len());
        assert_eq!(side.command("QUIT")?.count("/code"), Some(221), "{side}");
        check_closed(side)?;
    }
    Ok(())
}
