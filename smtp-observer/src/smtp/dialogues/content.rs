//! Messages and other octets.

use super::{at, check};
use crate::smtp::transcript::{items, steps};
use crate::smtp::{Item, Session};

#[test]
fn a_body_before_its_go_ahead() {
    check(
        "S: 220 mx.example
         C: DATA
         C: MAIL FROM:<inside@the.message>
         C: .
         C: QUIT
         S: 354 go
         S: 250 taken
         S: 221 bye",
        &["greeting 220 mx.example", "DATA -> 354 go", "message DATA 32 -> 250", "~QUIT -> 221 bye"],
    );
}

#[test]
fn a_body_behind_a_refusal_is_commands() {
    check(
        "S: 220 mx.example
         C: DATA
         C: Hello
         C: .
         C: QUIT
         S: 503 no recipients
         S: 500 what
         S: 500 what
         S: 221 bye",
        &[
            "greeting 220 mx.example",
            "DATA -> 503 no recipients",
            "~Hello -> 500 what",
            "~. -> 500 what",
            "~QUIT -> 221 bye",
        ],
    );
}

#[test]
fn a_long_body_before_its_go_ahead() {
    let text = "x".repeat(998);
    let mut transcript = String::from("S: 220 mx.example\nC: DATA\n");
    (0..40).for_each(|_| transcript.push_str(&format!("C: {text}\n")));
    transcript.push_str("C: .\nC: QUIT\nS: 354 go\nS: 250 taken\nS: 221 bye");
    check(&transcript, &["greeting 220 mx.example", "DATA -> 354 go", "message DATA 40000 -> 250", "~QUIT -> 221 bye"]);
}

#[test]
fn two_hundred_to_data_and_content() {
    check(
        "S: 220 mx.example
         C: DATA
         S: 250 go
         C: Subject: x
         C: .
         S: 250 taken",
        &["greeting 220 mx.example", "DATA -> 250 go", "message DATA 12 -> 250"],
    );
}

#[test]
fn two_hundred_to_data_and_a_command() {
    check(
        "S: 220 mx.example
         C: DATA
         S: 250 odd
         C: RSET
         S: 250 reset",
        &["greeting 220 mx.example", "DATA -> 250 odd", "RSET -> 250 reset"],
    );
}

#[test]
fn chunks() {
    check(
        "S: 220 mx.example
         C: EHLO client.example
         S: 250-mx.example
         S: 250-PIPELINING
         S: 250 CHUNKING
         C: BDAT 10
         C| QUIT\\r\\n.\\r\\n\\0BDAT 3\\r\\nabcBDAT 0 LAST\\r\\nRSET\\r\\n
         S: 250 10 octets
         S: 250 3 octets
         S: 250 taken
         S: 250 reset",
        &[
            "greeting 220 mx.example",
            "EHLO client.example -> 250 mx.example|PIPELINING|CHUNKING",
            "BDAT 10 -> 250 10 octets",
            "~BDAT 3 -> 250 3 octets",
            "~BDAT 0 LAST -> 250 taken",
            "message BDAT 13 -> 250",
            "~RSET -> 250 reset",
        ],
    );
}

#[test]
fn a_refused_chunk_still_has_its_octets() {
    check(
        "S: 220 mx.example
         C: BDAT 6 LAST
         C| RSET\\r\\nQUIT\\r\\n
         S: 503 no recipients
         S: 221 bye",
        &["greeting 220 mx.example", "BDAT 6 LAST -> 503 no recipients", "message BDAT 6 -> 503", "~QUIT -> 221 bye"],
    );
}

#[test]
fn a_malformed_chunk_has_no_octets() {
    check(
        "S: 220 mx.example
         C: BDAT six
         S: 501 what
         C: NOOP
         S: 250 ok",
        &["greeting 220 mx.example", "BDAT six -> 501 what", "NOOP -> 250 ok"],
    );
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

#[test]
fn a_counted_block_of_octets() {
    check(
        "S: 220 mx.example
         C: XEXCH50 7 2
         S: 354 send
         C| \\0\\r\\nQUITRSET\\r\\n
         S: 250 got it
         S: 250 reset",
        &["greeting 220 mx.example", "XEXCH50 7 2 -> 354 send", "~RSET -> 250 reset"],
    );
}

#[test]
fn a_smuggled_message() {
    let transcript = "S: 220 mx.example\nC: DATA\nS: 354 go\nC| a\\n.\\nMAIL FROM:<>\\r\\n.\\r\\n\nS: 250 taken";
    check(transcript, &["greeting 220 mx.example", "DATA -> 354 go", "! smuggling_attempt", "message DATA 18 -> 250"]);
    let transcript =
        "S: 220 mx.example\nC: DATA\nS: 354 go\nC| a\\n.\\nMAIL FROM:<>\\r\\n\nS: 250 taken\nS: 250 sender";
    check(
        transcript,
        &[
            "greeting 220 mx.example",
            "DATA -> 354 go",
            "! smuggling_attempt",
            "! smuggling_effective",
            "message DATA 3 -> 250",
            "! gap",
        ],
    );
}
