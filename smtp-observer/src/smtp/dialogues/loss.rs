//! Bytes that were not seen.

use super::check;
use crate::smtp::Session;
use crate::smtp::transcript::lines;

#[test]
fn a_gap_inside_a_message_is_content() {
    check(
        "S: 220 mx.example
         C: DATA
         S: 354 go
         C: head
         C gap 100000
         C| tail\\r\\n.\\r\\n
         S: 250 taken
         C: QUIT
         S: 221 bye",
        &["greeting 220 mx.example", "DATA -> 354 go", "message DATA 100012 -> 250", "QUIT -> 221 bye"],
    );
}

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
fn a_gap_inside_a_chunk() {
    check(
        "S: 220 mx.example
         C: BDAT 100 LAST
         C gap 99
         C| xNOOP\\r\\n
         S: 250 taken
         S: 250 ok",
        &["greeting 220 mx.example", "BDAT 100 LAST -> 250 taken", "message BDAT 100 -> 250", "~NOOP -> 250 ok"],
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

#[track_caller]
fn check_midstream(transcript: &str, expected: &[&str]) {
    assert_eq!(lines(Session::midstream, transcript), expected);
}

#[test]
fn first_seen_between_messages() {
    check_midstream(
        "C: RSET\nS: 250 reset\nC: MAIL FROM:<>\nS: 250 sender",
        &["RSET -> 250 reset", "MAIL FROM:<> -> 250 sender"],
    );
}

#[test]
fn first_seen_before_the_greeting() {
    check_midstream(
        "S: 220-mx.example\nS: 220 hello\nC: HELO a.example\nS: 250 hi",
        &["greeting 220 mx.example|hello", "HELO a.example -> 250 hi"],
    );
}

#[test]
fn first_seen_inside_a_message() {
    check_midstream("C: Help me\nC: RSET\nC: .\nS: 250 taken\nC: QUIT\nS: 221 bye", &["QUIT -> 221 bye"]);
    check_midstream(
        "C: text\n--\nC: .\nS: 250 taken\n--\nS: 250 more\nC: .\nS: 250 taken\nC: NOOP\nS: 250 ok",
        &["NOOP -> 250 ok"],
    );
}

#[test]
fn first_seen_behind_data() {
    check_midstream("S: 354 go\nC: Hello\nC: .\nS: 250 taken", &["message DATA 7 -> 250"]);
    check_midstream(
        "C: Hello\nC: world\nS: 354 go\nC: .\nS: 250 taken",
        &["message DATA 0 -> 250", "! resynchronised"],
    );
}

#[test]
fn first_seen_in_tls() {
    check_midstream("C| \\x17\\x03\\x03\\0\\x10RSET\\r\\n\nS| 250 x\\r\\n", &["tls started"]);
    check_midstream("S| \\x17\\x03\\x03\\0\\x10250 x\\r\\n\nC: RSET", &["tls started"]);
}

#[test]
fn first_seen_at_authentication() {
    check_midstream(
        "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: Ym9i\nS: 535 no\nC: QUIT\nS: 221 bye",
        &["AUTH LOGIN -> 535 no", "QUIT -> 221 bye"],
    );
    check_midstream("C: Ym9i\nS: 535 no\nC: QUIT\nS: 221 bye", &["QUIT -> 221 bye"]);
}
