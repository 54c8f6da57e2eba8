//! Commands and their replies.

use super::{at, check};
use crate::smtp::transcript::{items, steps};
use crate::smtp::{Exchange, GoAhead, Item, Message, Session, Transfer, Verb};

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
fn commands_of_one_write() {
    let transcript = "S: 220 mx.example
         C: EHLO client.example
         S: 250 PIPELINING
         C: MAIL FROM:<a@x.example>
         C: RCPT TO:<b@y.example>
         C: DATA
         S: 250 sender
         S: 250 recipient
         S: 354 go
         C: .
         C: RSET
         C: QUIT
         S: 250 taken
         S: 250 reset
         S: 221 bye";
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
            (Verb::Data, true),
            (Verb::Rset, true),
            (Verb::Quit, true),
        ]
    );
}

#[test]
fn pipelining_without_leave() {
    check(
        "S: 220 mx.example
         C: HELO client.example
         S: 250 mx.example
         C: MAIL FROM:<>
         C: RCPT TO:<b@y.example>
         S: 250 a
         S: 250 b",
        &[
            "greeting 220 mx.example",
            "HELO client.example -> 250 mx.example",
            "! pipelining_not_offered",
            "MAIL FROM:<> -> 250 a",
            "~RCPT TO:<b@y.example> -> 250 b",
        ],
    );
}

#[test]
fn xclient_is_answered_with_220() {
    check(
        "S: 220 mx.example
         C: XCLIENT NAME=client.example
         S: 220 mx.example
         C: EHLO client.example
         S: 250 mx.example",
        &[
            "greeting 220 mx.example",
            "XCLIENT NAME=client.example -> 220 mx.example",
            "EHLO client.example -> 250 mx.example",
        ],
    );
}

#[test]
fn every_line_earns_a_reply() {
    check(
        "S: 220 mx.example
         C:
         C:   helo
         C: foo BAR
         C: XXXX
         S: 500 1
         S: 501 2
         S: 500 3
         S: 500 4",
        &[
            "greeting 220 mx.example",
            "! helo_without_hostname",
            "! masked_command",
            " -> 500 1",
            "~  helo -> 501 2",
            "~foo BAR -> 500 3",
            "~XXXX -> 500 4",
        ],
    );
}

#[test]
fn a_proxy_header_is_no_command() {
    check(
        "C: PROXY TCP4 192.0.2.1 192.0.2.2 5000 25\nS: 220 mx.example\nC: QUIT\nS: 221 bye",
        &["greeting 220 mx.example", "QUIT -> 221 bye"],
    );
}
