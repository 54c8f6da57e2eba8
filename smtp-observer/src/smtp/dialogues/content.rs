//! Messages and other octets: what transcripts cannot show.

use super::{at, check};
use crate::smtp::transcript::{items, steps};
use crate::smtp::{Item, Session};

#[test]
fn a_long_body_before_its_go_ahead() {
    let text = "x".repeat(998);
    let mut transcript = String::from("S: 220 mx.example\nC: DATA\n");
    (0..40).for_each(|_| transcript.push_str(&format!("C: {text}\n")));
    transcript.push_str("C: .\nC: QUIT\nS: 354 go\nS: 250 taken\nS: 221 bye");
    check(&transcript, &["greeting 220 mx.example", "DATA -> 354 go", "message DATA 40000 -> 250", "~QUIT -> 221 bye"]);
}

#[test]
fn the_time_of_a_chunk() {
    let transcript = "S: 220 mx.example\nC: BDAT 3\nC| abc\nS: 250 a\nC: BDAT 2 LAST\n--\nC| x\n--\nC| y\nS: 250 b";
    let items = items(Session::new(), &steps(transcript));
    let Some(Item::Message(message)) = items.last() else { panic!("{items:?}") };
    assert_eq!((message.requested_at, message.ended_at), (Some(at(2)), Some(at(6))));
    let Some(Item::Exchange(last)) = items.get(2) else { panic!("{items:?}") };
    assert_eq!((last.command.first_byte, last.command.last_byte), (at(4), at(6)));
}

/// The kernel leaves out content whose end it has not seen.
#[test]
fn content_that_was_left_out() {
    check(
        "S: 220 mx.example
         C: DATA
         S: 354 go
         C content 30
         C| \\r\\n.\\r\\n
         S: 250 taken",
        &["greeting 220 mx.example", "DATA -> 354 go", "message DATA 32 -> 250"],
    );
}

#[test]
fn a_line_end_behind_content_is_no_end_of_data() {
    check(
        "S: 220 mx.example
         C: DATA
         S: 354 go
         C content 30
         C:
         S: 451 later
         C: RSET all of it
         C: .
         C: RSET
         S: 250 reset",
        &[
            "greeting 220 mx.example",
            "DATA -> 354 go",
            "! unsolicited_reply",
            "message DATA 48 -> 451",
            "! gap",
            "! resynchronised",
            "RSET -> 250 reset",
        ],
    );
}

#[test]
fn a_message_inside_content_that_was_left_out() {
    // All in one write, and in pieces.
    check(
        "S: 220 mx.example
         C: DATA
         S: 354 go
         C content 80
         C| \\r\\n.\\r\\n
         S: 250 first
         S: 250 sender
         S: 354 go on
         S: 250 second",
        &[
            "greeting 220 mx.example",
            "DATA -> 354 go",
            "message DATA 82 -> 250",
            "! unsolicited_reply",
            "! smuggling_effective",
            "! gap",
        ],
    );
    check(
        "S: 220 mx.example
         C: DATA
         S: 354 go
         C content 80
         S: 250 first
         S: 250 sender
         S: 354 go on",
        &[
            "greeting 220 mx.example",
            "DATA -> 354 go",
            "! unsolicited_reply",
            "! unsolicited_reply",
            "! smuggling_effective",
            "message DATA ? -> 250",
            "! gap",
        ],
    );
}

#[test]
fn many_refused_requests_in_one_write() {
    let mut transcript = String::from("S: 220 mx.example\n");
    (0..500).for_each(|_| transcript.push_str("C: DATA\n"));
    (0..500).for_each(|_| transcript.push_str("S: 503 no\n"));
    let items = items(Session::new(), &steps(&transcript));
    assert_eq!(items.len(), 501);
}
