//! Bytes that were not seen: what transcripts cannot show, where a loss is known only with the bytes behind it.

use super::check;
use crate::smtp::Session;
use crate::smtp::transcript::lines;

#[test]
fn a_gap_over_the_end_of_data() {
    check(
        "S: 220 mx.example
         C: DATA
         S: 354 go
         C: head
         C gap 100
         S: 250 taken
         C: QUIT
         S: 221 bye",
        &[
            "greeting 220 mx.example",
            "DATA -> 354 go",
            "message DATA 103 -> 250",
            "! resynchronised",
            "QUIT -> 221 bye",
        ],
    );
    // What follows the gap may be commands or content.
    check(
        "S: 220 mx.example
         C: DATA
         S: 354 go
         C gap 100
         C: QUIT
         S: 250 taken
         S: 221 bye",
        &["greeting 220 mx.example", "DATA -> 354 go", "message DATA 103 -> 250", "! gap"],
    );
}

#[test]
fn a_gap_between_commands() {
    check(
        "S: 220 mx.example
         C: NOOP
         C gap 10
         S: 250 ok
         S: 250 sender
         C: RCPT TO:<b@y.example>
         C: RCPT TO:<c@y.example>
         S: 250 b
         S: 250 c
         C: RSET
         S: 250 reset
         C: NOOP
         S: 250 ok",
        &[
            "greeting 220 mx.example",
            "! gap",
            "NOOP -> 250 ok",
            "! resynchronised",
            "RSET -> 250 reset",
            "NOOP -> 250 ok",
        ],
    );
}

#[test]
fn a_gap_of_the_server() {
    check(
        "S: 220 mx.example
         C: MAIL FROM:<>
         S gap 8
         C: RCPT TO:<b@y.example>
         S gap 8
         C: DATA
         S: 354 go
         C: .
         S: 250 taken",
        &[
            "greeting 220 mx.example",
            "MAIL FROM:<> ->",
            "! gap",
            "! resynchronised",
            "DATA -> 354 go",
            "message DATA 0 -> 250",
        ],
    );
}

#[test]
fn a_gap_behind_data() {
    let gap = |reply: &str| format!("S: 220 mx.example\nC: DATA\nC: x\nC gap 9\nC: .\nS: {reply}\nS: 250 taken");
    check(&gap("354 go"), &["greeting 220 mx.example", "DATA -> 354 go", "message DATA 12 -> 250", "! resynchronised"]);
    check(&gap("554 no"), &["greeting 220 mx.example", "DATA -> 554 no", "! gap", "~x -> 250 taken"]);
}

#[test]
fn too_many_commands_wait() {
    let mut transcript = String::from("S: 220 mx.example\n");
    (0..1002).for_each(|_| transcript.push_str("C: NOOP\n"));
    (0..1002).for_each(|_| transcript.push_str("S: 250 ok\n"));
    transcript.push_str("C: QUIT\nS: 221 bye");
    let lines = lines(Session::new, &transcript);
    assert_eq!(lines.len(), 1 + 1 + 1001 + 2);
    assert_eq!(lines[1..4], ["! gap", "NOOP -> 250 ok", "~NOOP -> 250 ok"]);
    assert_eq!(lines[1002..], ["~NOOP -> 250 ok", "! resynchronised", "QUIT -> 221 bye"]);
}
