//! Commands and their replies.

use super::{at, check};
use crate::smtp::transcript::{items, steps};
use crate::smtp::{Exchange, GoAhead, Item, Message, Session, Transfer, Verb};

#[test]
fn a_delivery() {
    check(
        "S: 220 mx.example ESMTP
         C: EHLO client.example
         S: 250-mx.example
         S: 250-SIZE 10240000
         S: 250 8BITMIME
         C: MAIL FROM:<a@client.example> SIZE=20
         S: 250 2.1.0 Ok
         C: RCPT TO:<b@mx.example>
         S: 250 2.1.5 Ok
         C: DATA
         S: 354 End data with <CR><LF>.<CR><LF>
         C: Subject: x
         C:
         C: ..dots
         C: .
         S: 250 2.0.0 Ok: queued as 1
         C: QUIT
         S: 221 2.0.0 Bye",
        &[
            "greeting 220 mx.example ESMTP",
            "EHLO client.example -> 250 mx.example|SIZE 10240000|8BITMIME",
            "MAIL FROM:<a@client.example> SIZE=20 -> 250 2.1.0 Ok",
            "RCPT TO:<b@mx.example> -> 250 2.1.5 Ok",
            "DATA -> 354 End data with <CR><LF>.<CR><LF>",
            // "Subject: x" CR LF, CR LF, "..dots" CR LF
            "message DATA 22 -> 250",
            "QUIT -> 221 2.0.0 Bye",
        ],
    );
}

#[test]
fn times() {
    let steps = steps(
        "S: 220 mx.example
         C| DA
         --
         C| TA\\r\\n
         S| 354 go
         --
         S| ahead\\r\\n
         C: line
         --
         C: .
         S: 250 done",
    );
    let items = items(Session::new(), &steps);
    let [Item::Greeting(greeting), Item::Exchange(data), Item::Message(message)] = items.as_slice() else {
        panic!("{items:?}")
    };
    assert_eq!((greeting.first_byte, greeting.last_byte), (at(1), at(1)));
    assert_eq!((data.command.first_byte, data.command.last_byte), (at(2), at(3)));
    let reply = data.reply.as_ref().expect("a reply");
    assert_eq!((reply.first_byte, reply.last_byte), (at(4), at(5)));
    let accepted = message.reply.as_ref().expect("a reply");
    assert_eq!((accepted.first_byte, accepted.last_byte), (at(8), at(8)));
    assert_eq!(
        Message { reply: None, ..message.clone() },
        Message {
            transfer: Transfer::Data,
            requested_at: Some(at(3)),
            go_ahead: Some(GoAhead { time: at(5), text: b"goahead".to_vec() }),
            ended_at: Some(at(7)),
            size: Some(6),
            reply: None,
            accepted: 1,
        }
    );
}

#[test]
fn pipelining_pairs_in_order() {
    let transcript = "S: 220 mx.example
         C: EHLO client.example
         S: 250-mx.example
         S: 250 PIPELINING
         C: MAIL FROM:<a@x.example>
         C: RCPT TO:<b@y.example>
         C: RCPT TO:<c@y.example>
         C: DATA
         S: 250 sender
         S: 550-5.1.1 no
         S: 550 5.1.1 such user
         --
         S: 250 recipient
         S: 354 go
         C: .
         C: RSET
         C: QUIT
         S: 250 taken
         S: 250 reset
         S: 221 bye";
    check(
        transcript,
        &[
            "greeting 220 mx.example",
            "EHLO client.example -> 250 mx.example|PIPELINING",
            "MAIL FROM:<a@x.example> -> 250 sender",
            "~RCPT TO:<b@y.example> -> 550 5.1.1 no|5.1.1 such user",
            "~RCPT TO:<c@y.example> -> 250 recipient",
            "~DATA -> 354 go",
            "message DATA 0 -> 250",
            "~RSET -> 250 reset",
            "~QUIT -> 221 bye",
        ],
    );
    let same_write: Vec<_> = items(Session::new(), &steps(transcript))
        .into_iter()
        .filter_map(|item| match item {
            Item::Exchange(Exchange { command, .. }) => Some((command.verb, command.same_write)),
            _ => None,
        })
        .collect();
    assert_eq!(
        same_write,
        [
            (Verb::Ehlo, false),
            (Verb::Mail, false),
            (Verb::Rcpt, true),
            (Verb::Rcpt, true),
            (Verb::Data, true),
            (Verb::Rset, true),
            (Verb::Quit, true),
        ]
    );
}

#[test]
fn lmtp_has_a_reply_for_each_recipient() {
    check(
        "S: 220 mx.example LMTP
         C: LHLO client.example
         S: 250-mx.example
         S: 250 PIPELINING
         C: MAIL FROM:<a@x.example>
         C: RCPT TO:<b@y.example>
         C: RCPT TO:<c@y.example>
         C: RCPT TO:<d@y.example>
         C: DATA
         S: 250 a
         S: 250 b
         S: 550 c
         S: 250 d
         S: 354 go
         C: .
         C: QUIT
         S: 250 for b
         S: 452 for d
         S: 221 bye",
        &[
            "greeting 220 mx.example LMTP",
            "LHLO client.example -> 250 mx.example|PIPELINING",
            "MAIL FROM:<a@x.example> -> 250 a",
            "~RCPT TO:<b@y.example> -> 250 b",
            "~RCPT TO:<c@y.example> -> 550 c",
            "~RCPT TO:<d@y.example> -> 250 d",
            "~DATA -> 354 go",
            "message DATA 0 -> 452",
            "~QUIT -> 221 bye",
        ],
    );
}

#[test]
fn a_reply_for_each_recipient_and_one_for_all() {
    // Per-recipient data responses, as Exim sends them.
    check(
        "S: 220 mx.example
         C: RCPT TO:<b@y.example>
         S: 250 b
         C: DATA
         S: 354 go
         C: .
         S: 353 one each
         S: 250 b
         S: 250 all",
        &["greeting 220 mx.example", "RCPT TO:<b@y.example> -> 250 b", "DATA -> 354 go", "message DATA 0 -> 250"],
    );
}

#[test]
fn what_has_no_reply_at_the_end() {
    check("S: 220 mx.example\nC: QUIT\nC| QU", &["greeting 220 mx.example", "QUIT ->"]);
    check(
        "S: 220 mx.example\nC: DATA\nS: 354 go\nC: x\nC: .\nC: QUIT",
        &["greeting 220 mx.example", "DATA -> 354 go", "message DATA 3 ->", "~QUIT ->"],
    );
    check("", &[]);
}
