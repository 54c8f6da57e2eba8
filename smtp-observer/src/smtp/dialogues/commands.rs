//! Commands and their replies.

use super::{at, check};
use crate::event::{LineEnd, Withheld};
use crate::smtp::transcript::{self, Step, items, steps};
use crate::smtp::{GoAhead, Item, Message, Peer, Repeated, Session};

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
        Message { reply: None, ..(**message).clone() },
        Message {
            requested_at: Some(at(3)),
            go_ahead: Some(GoAhead { time: at(5), text: b"goahead".to_vec(), repeated: Repeated::default() }),
            ended_at: Some(at(7)),
            size: Some(6),
            accepted: 1,
            ..Message::default()
        }
    );
}

#[test]
fn a_greeting_longer_than_what_is_kept_is_one_reply() {
    let lines = format!("S: 220-{}\n", "x".repeat(80)).repeat(60);
    let steps = steps(&format!(
        "{lines}S: 220 end\nC: EHLO client.example\nS: 250 mx.example\nC: MAIL FROM:<a@x.example>\nS: 550 no"
    ));
    let items = items(Session::new(), &steps);
    let [Item::Greeting(greeting), Item::Exchange(hello), Item::Exchange(mail)] = items.as_slice() else {
        panic!("{items:?}")
    };
    assert_eq!((greeting.code, greeting.text.len()), (220, crate::smtp::LONGEST_REPLY));
    assert_eq!((hello.code(), mail.code()), (Some(250), Some(550)));
}

#[test]
fn a_reply_without_its_end_reverses_the_roles() {
    // The client has read it as a whole one: all that it says behind that is a server's.
    let transcript = "S: 220 provider.example
         C: EHLO customer.example
         S: 250 provider.example
         C: ATRN
         S: 250-turn
         C: 220 customer.example
         S: EHLO provider.example
         C: 250 customer.example";
    check(
        transcript,
        &[
            "greeting 220 provider.example",
            "EHLO customer.example -> 250 provider.example",
            "! malformed_reply",
            "ATRN -> 250 turn",
            "! role_reversed",
            "greeting 220 customer.example",
            "EHLO provider.example -> 250 customer.example",
        ],
    );
}

/// What is wrong with a line that stays in the kernel is told beyond the bytes that are kept of it, too.
#[test]
fn flaws_of_a_long_withheld_line() {
    let part = |length, end, nul, bare_cr| Step::Withheld(Peer::Client, Withheld { length, end, nul, bare_cr });
    let told = |line: &[Step]| {
        let dialogue = [&steps("S: 220 mx.example\nC: EHLO a\nS: 250 mx"), line, &steps("S: 500 what")].concat();
        items(Session::new(), &dialogue).iter().map(transcript::line).filter(|line| line.starts_with('!')).collect()
    };
    let whole: Vec<_> = told(&[part(5000, LineEnd::Crlf, true, true)]);
    assert_eq!(whole, ["! line_too_long", "! bare_cr", "! nul_byte"]);
    let cut: Vec<_> = told(&[
        part(3000, LineEnd::None, false, false),
        part(1000, LineEnd::Cr, false, false),
        part(998, LineEnd::None, true, true),
        part(2, LineEnd::Crlf, false, false),
    ]);
    assert_eq!(cut, whole);
    let fine: Vec<_> = told(&[part(4999, LineEnd::Cr, false, false), part(1, LineEnd::Lf, false, false)]);
    assert_eq!(fine, ["! line_too_long"]);
}
