//! What is judged of a dialogue, with its times; more of them are in `tests/transcripts`.

use super::Analysis;
use crate::event::Time;
use crate::fact::What;
use crate::observation::{Caller, Event};
use crate::redact::{Addresses, RedactionPolicy};
use crate::smtp::transcript::{feed, steps};
use crate::smtp::{DecoderOutput, Session};

const OPENED: Time = Time(500_000_000);

fn at(seconds: u64) -> Time {
    Time(seconds * 1_000_000_000)
}

/// The events of a dialogue, each of its steps a second after the one before, from second 1 on.
fn events(addresses: Addresses, transcript: &str) -> Vec<(Time, Event)> {
    let (mut session, mut judge) = (Session::new(), Analysis::default());
    let policy = RedactionPolicy::new(addresses);
    let (mut items, mut events) = (DecoderOutput::default(), Vec::new());
    let emit = &mut |time, _: Option<&Caller>, what: What<'_>| events.push((time, Event::of(what, policy)));
    let mut seconds = 0;
    for step in steps(transcript) {
        seconds += 1;
        feed(&mut session, at(seconds), &step, &mut items);
        items.iter().for_each(|item| judge.item(Some(OPENED), None, item, emit));
        items.clear();
    }
    session.finish(at(seconds + 1), &mut items);
    items.iter().for_each(|item| judge.item(Some(OPENED), None, item, emit));
    judge.finish(Some(at(seconds + 1)), at(seconds + 1), None, emit);
    events
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
        r#"5 {"event":"smtp.tls","phase":"not_used","visible":false}"#,
        r#"7 {"event":"smtp.command","verb":"RCPT","argument":"TO:<*@mx.example>","code":250,"enhanced_code":"2.1.5","reply":"2.1.5 Ok","latency_seconds":1.0,"pipelined":false}"#,
        r#"9 {"event":"smtp.command","verb":"DATA","code":354,"reply":"End data with <CR><LF>.<CR><LF>","latency_seconds":1.0,"pipelined":false}"#,
        r#"12 {"event":"smtp.data","verb":"DATA","go_ahead_seconds":1.0,"go_ahead":"End data with <CR><LF>.<CR><LF>","transfer_seconds":2.0,"final_reply_seconds":1.0,"size_bytes":4,"code":250,"reply":"2.0.0 Ok: queued as 1"}"#,
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
    assert_eq!(rset, Some(crate::names::RsetReason::Ambiguous));
}
