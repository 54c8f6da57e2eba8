//! Dialogues and what is judged of them.

use super::{Addresses, Judge};
use crate::event::Time;
use crate::observation::Event;
use crate::smtp::Session;
use crate::smtp::transcript::{feed, steps};

const OPENED: Time = Time(500_000_000);

fn at(seconds: u64) -> Time {
    Time(seconds * 1_000_000_000)
}

/// The events of a dialogue, each of its steps a second after the one before, from second 1 on.
fn events(addresses: Addresses, transcript: &str) -> Vec<(Time, Event)> {
    let (mut session, mut judge) = (Session::new(), Judge::new(addresses));
    let (mut items, mut events) = (Vec::new(), Vec::new());
    let mut seconds = 0;
    for step in steps(transcript) {
        seconds += 1;
        feed(&mut session, at(seconds), &step, &mut items);
        items.drain(..).for_each(|item| judge.item(Some(OPENED), item, &mut events));
    }
    session.finish(at(seconds + 1), &mut items);
    items.drain(..).for_each(|item| judge.item(Some(OPENED), item, &mut events));
    judge.finish(at(seconds + 1), &mut events);
    events
}

/// The judgements alone: `rset REASON`, `noop REASON`, `data VERB CODE`, `OUTCOME SENDER ACCEPTED/REJECTED`.
#[track_caller]
fn check(transcript: &str, expected: &[&str]) {
    let lines: Vec<_> = events(Addresses::Domain, transcript)
        .into_iter()
        .filter_map(|(_, event)| match event {
            Event::Rset(rset) => Some(format!("rset {}", rset.reason.as_str())),
            Event::Noop(noop) => Some(format!("noop {}", noop.reason.as_str())),
            Event::Data(data) => Some(format!("data {} {}", data.verb, data.code.unwrap_or_default())),
            Event::Transaction(ended) => Some(format!(
                "{} {} {}/{}",
                ended.outcome.as_str(),
                ended.sender.unwrap_or_default(),
                ended.recipients_accepted,
                ended.recipients_rejected
            )),
            Event::Anomaly(anomaly) => Some(format!("! {}", anomaly.kind.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn the_events_of_a_delivery() {
    let transcript = "S: 220 mx.example ESMTP Postfix
                      C: EHLO client.example
                      S: 250-mx.example
                      S: 250 STARTTLS
                      C: MAIL FROM:<a@client.example>
                      S: 250 2.1.0 Ok
                      C: RCPT TO:<b@mx.example>
                      S: 250 2.1.5 Ok
                      C: DATA
                      S: 354 End data with <CR><LF>.<CR><LF>
                      C: Hi
                      --
                      C: .
                      S: 250 2.0.0 Ok: queued as 1
                      C: QUIT
                      S: 221 2.0.0 Bye";
    let json: Vec<_> = events(Addresses::Domain, transcript)
        .iter()
        .map(|(time, event)| format!("{} {}", time.0 / 1_000_000_000, serde_json::to_string(event).expect("an event")))
        .collect();
    let expected = [
        r#"1 {"event":"smtp.greeting","code":220,"text":"mx.example ESMTP Postfix","software":"Postfix","latency_seconds":0.5}"#,
        r#"3 {"event":"smtp.command","verb":"EHLO","argument":"client.example","code":250,"reply":"mx.example\nSTARTTLS","latency_seconds":1.0,"pipelined":false}"#,
        r#"3 {"event":"smtp.tls","phase":"offered","visible":false}"#,
        r#"5 {"event":"smtp.command","verb":"MAIL","argument":"FROM:<*@client.example>","code":250,"enhanced_code":"2.1.0","reply":"2.1.0 Ok","latency_seconds":1.0,"pipelined":false}"#,
        r#"7 {"event":"smtp.command","verb":"RCPT","argument":"TO:<*@mx.example>","code":250,"enhanced_code":"2.1.5","reply":"2.1.5 Ok","latency_seconds":1.0,"pipelined":false}"#,
        r#"9 {"event":"smtp.command","verb":"DATA","code":354,"reply":"End data with <CR><LF>.<CR><LF>","latency_seconds":1.0,"pipelined":false}"#,
        r#"12 {"event":"smtp.data","verb":"DATA","go_ahead_seconds":1.0,"go_ahead":"End data with <CR><LF>.<CR><LF>","transfer_seconds":2.0,"accept_seconds":1.0,"size_bytes":4,"code":250,"reply":"2.0.0 Ok: queued as 1"}"#,
        r#"12 {"event":"smtp.transaction","outcome":"delivered","sender":"<*@client.example>","recipients_accepted":1,"recipients_rejected":0,"duration_seconds":8.0}"#,
        r#"14 {"event":"smtp.command","verb":"QUIT","code":221,"enhanced_code":"2.0.0","reply":"2.0.0 Bye","latency_seconds":1.0,"pipelined":false}"#,
    ];
    assert_eq!(json, expected);
}

#[test]
fn how_much_of_an_address_is_shown() {
    let transcript = "S: 220 mx.example\nC: MAIL FROM:<bob@client.example>\nS: 550 5.7.1 <bob@client.example>: no";
    for (addresses, expected) in
        [(Addresses::Full, "bob@client.example"), (Addresses::Domain, "*@client.example"), (Addresses::None, "*")]
    {
        let events = events(addresses, transcript);
        let [(_, Event::Greeting(_)), (_, Event::Command(command)), (_, Event::Transaction(ended))] = events.as_slice()
        else {
            panic!("{events:?}")
        };
        assert_eq!(command.argument, Some(format!("FROM:<{expected}>")));
        assert_eq!(command.reply, Some(format!("5.7.1 <{expected}>: no")));
        assert_eq!(ended.sender, Some(format!("<{expected}>")));
    }
}

#[test]
fn no_mailbox_is_shown_in_an_anomaly() {
    let events = events(Addresses::Domain, "S: 220 mx.example\nS: 250 to <bob@mx.example>");
    let Some((_, Event::Anomaly(anomaly))) = events.get(1) else { panic!("{events:?}") };
    assert_eq!(anomaly.detail, "250 to <*@mx.example>");
}

#[test]
fn an_aborted_transaction() {
    // RFC 821, 4.1.1: RSET after a refused recipient.
    check(
        "S: 220 mx.example
         C: HELO client.example
         S: 250 mx.example
         C: MAIL FROM:<a@x.example>
         S: 250 ok
         C: RCPT TO:<b@y.example>
         S: 250 ok
         C: RCPT TO:<c@y.example>
         S: 550 no such user
         C: RSET
         S: 250 ok
         C: QUIT
         S: 221 bye",
        &["rset recipient_rejected", "reset <*@x.example> 1/1"],
    );
}

#[test]
fn refused_senders() {
    check(
        "S: 220 mx.example
         C: MAIL FROM:<a@x.example>
         S: 550 no
         C: RSET
         S: 250 ok
         C: MAIL FROM:<b@x.example>
         S: 550 no
         C: MAIL FROM:<>
         S: 550 no
         C: QUIT
         S: 221 bye",
        &["rset sender_rejected", "rejected <*@x.example> 0/0", "rejected <*@x.example> 0/0", "rejected <> 0/0"],
    );
}

#[test]
fn refused_recipients_in_a_group() {
    check(
        "S: 220 mx.example
         C: EHLO client.example
         S: 250-mx.example
         S: 250 PIPELINING
         C: MAIL FROM:<a@x.example>
         C: RCPT TO:<b@y.example>
         C: RCPT TO:<c@y.example>
         C: DATA
         S: 250 ok
         S: 550 no
         S: 550 no
         S: 554 no valid recipients
         C: RSET
         S: 250 ok",
        &["rset recipients_rejected", "rejected <*@x.example> 0/2"],
    );
}

#[test]
fn refused_data_and_messages() {
    let envelope = "S: 220 mx.example\nC: MAIL FROM:<a@x.example>\nS: 250 ok\nC: RCPT TO:<b@y.example>\nS: 250 ok\n";
    let check = |rest: &str, expected: &[&str]| check(&format!("{envelope}{rest}"), expected);
    check("C: DATA\nS: 451 later\nC: RSET\nS: 250 ok", &["rset data_rejected", "rejected <*@x.example> 1/0"]);
    check(
        "C: DATA\nS: 354 go\nC: .\nS: 550 spam\nC: RSET\nS: 250 ok",
        &["data DATA 550", "rejected <*@x.example> 1/0", "rset message_rejected"],
    );
    check("C: BDAT 1\nC| x\nS: 250 ok\nC: RSET\nS: 250 ok", &["rset chunk_abort", "reset <*@x.example> 1/0"]);
    check("C: BDAT 1\nC| x\nS: 552 full\nC: RSET\nS: 250 ok", &["rset chunk_abort", "rejected <*@x.example> 1/0"]);
    check(
        "C: BDAT 1 LAST\nC| x\nS: 552 full\nC: RSET\nS: 250 ok",
        &["data BDAT 552", "rejected <*@x.example> 1/0", "rset message_rejected"],
    );
    check("C: BDAT 1 LAST\nC| x\nS: 250 ok", &["data BDAT 250", "delivered <*@x.example> 1/0"]);
    check("C: RSET\nS: 250 ok", &["rset ambiguous", "reset <*@x.example> 1/0"]);
    check("C: EHLO client.example\nS: 250 ok", &["reset <*@x.example> 1/0"]);
    check("C: EHLO\nS: 501 no\nC: QUIT", &["! helo_without_hostname", "abandoned <*@x.example> 1/0"]);
    check("C: DATA\nS: 354 go\nC: half", &["data DATA 0", "abandoned <*@x.example> 1/0"]);
    check("C: DATA\nS: 354 go\nC: .", &["data DATA 0", "abandoned <*@x.example> 1/0"]);
    check("C: STARTTLS\nS: 220 go", &["reset <*@x.example> 1/0"]);
}

#[test]
fn sessions_without_a_transaction() {
    check(
        "S: 220 mx.example
         C: RSET
         S: 250 ok
         C: NOOP
         S: 250 ok
         C: EHLO client.example
         S: 250 hi
         C: RSET
         S: 250 ok
         C: AUTH PLAIN AGJvYg==
         S: 535 no
         C: RSET
         S: 250 ok
         C: RSET",
        &["rset session_start", "noop ambiguous", "rset session_start", "rset ambiguous"],
    );
}

#[test]
fn between_messages() {
    let evidence: Vec<_> = events(
        Addresses::Domain,
        "S: 220 mx.example
         C: MAIL FROM:<a@x.example>
         S: 250 ok
         C: RCPT TO:<b@y.example>
         S: 250 ok
         C: DATA
         S: 354 go
         C: .
         C: RSET
         S: 250 taken
         S: 250 ok
         C: RSET
         S: 250 ok",
    )
    .into_iter()
    .filter_map(|(_, event)| match event {
        Event::Rset(rset) => Some((rset.reason.as_str(), rset.evidence)),
        _ => None,
    })
    .collect();
    assert_eq!(
        evidence,
        [
            (
                "ambiguous",
                vec![
                    "the message before was accepted".to_owned(),
                    "sent before the reply to the command before it".to_owned(),
                    "possible: pipelined_between_messages, before_quit".to_owned(),
                ]
            ),
            (
                "ambiguous",
                vec![
                    "no transaction is open".to_owned(),
                    "possible: between_messages, reuse_probe, before_quit".to_owned(),
                ]
            ),
        ]
    );
}

#[test]
fn some_recipients_of_lmtp() {
    check(
        "S: 220 mx.example
         C: LHLO client.example
         S: 250 mx.example
         C: MAIL FROM:<>
         S: 250 ok
         C: RCPT TO:<b@y.example>
         S: 250 ok
         C: RCPT TO:<c@y.example>
         S: 250 ok
         C: DATA
         S: 354 go
         C: .
         S: 250 taken
         S: 452 full",
        &["data DATA 452", "delivered <> 2/0"],
    );
}

#[test]
fn after_a_gap_nothing_is_claimed() {
    check(
        "S: 220 mx.example
         C: MAIL FROM:<a@x.example>
         S: 250 ok
         C: RCPT TO:<b@y.example>
         S: 550 no
         C gap 20
         C: RSET
         S: 250 ok
         C: QUIT
         S: 221 bye",
        // Whether the transaction was still open is not known.
        &["! gap", "! resynchronised", "rset ambiguous"],
    );
}

#[test]
fn every_loss_is_known_of_however_many_there_were() {
    let gaps = "C gap 10\nC: NOOP\nS: 250 ok\n".repeat(40);
    let transcript = format!(
        "S: 220 mx.example\n{gaps}C: MAIL FROM:<a@x.example>\nS: 250 ok\nC: RCPT TO:<b@y.example>\nS: 550 no\nC gap 60\n\
         S: 250 ok\nC: RCPT TO:<c@y.example>\nS: 250 ok\nC: RSET\nS: 250 ok"
    );
    let rset = events(Addresses::Domain, &transcript).into_iter().find_map(|(_, event)| match event {
        Event::Rset(rset) => Some(rset.reason),
        _ => None,
    });
    assert_eq!(rset, Some(crate::observation::RsetReason::Ambiguous));
}
