//! Peers that break the protocol.

use super::check;

#[test]
fn flawed_lines() {
    check(
        "S: 220 mx.example
         C| NOOP\\nNO\\rOP\\r\\nNOOP \\0\\r\\n
         S| 250 a\\n25\\0 b\\r\\n250b\\r\\n250-c\\r\\n250 d\\r\\n",
        &[
            "greeting 220 mx.example",
            "! bare_lf",
            "! bare_cr",
            "! nul_byte",
            "! bare_lf",
            "NOOP -> 250 a",
            "! nul_byte",
            "! malformed_reply",
            "! malformed_reply",
            "~NO\rOP -> 250 b",
            "~NOOP \0 -> 250 c|d",
        ],
    );
}

#[test]
fn a_line_that_is_too_long() {
    let transcript = format!("S: 220 mx.example\nC: NOOP {}\nC: QUIT\nS: 500 long\nS: 221 bye", "x".repeat(5000));
    let kept = format!("NOOP {} -> 500 long", "x".repeat(2048 - 5));
    check(&transcript, &["greeting 220 mx.example", "! line_too_long", &kept, "~QUIT -> 221 bye"]);
    // RFC 4954, 4: up to 12288 octets are usual here.
    let transcript = format!("S: 220 mx.example\nC: AUTH PLAIN {}\nS: 235 ok", "x".repeat(5000));
    check(&transcript, &["greeting 220 mx.example", "AUTH PLAIN -> 235 ok"]);
}

#[test]
fn replies_out_of_turn() {
    check(
        "S: 220 mx.example
         S: 250 what
         C: NOOP
         S: 250 ok
         S: 421 4.4.2 timeout",
        &["greeting 220 mx.example", "! unsolicited_reply", "NOOP -> 250 ok", "! server_shutdown"],
    );
    check(
        "S: 220 mx.example\nC: MAIL FROM:<>\nC: RCPT TO:<b@y.example>\nS: 421 4.3.2 going down",
        &["greeting 220 mx.example", "MAIL FROM:<> -> 421 4.3.2 going down", "~RCPT TO:<b@y.example> ->"],
    );
    check(
        "S: 220 mx.example\nC: DATA\nS: 354 go\nC: half a li\nS: 421 4.4.2 timeout",
        &["greeting 220 mx.example", "DATA -> 354 go", "! server_shutdown", "message DATA 11 ->"],
    );
}
