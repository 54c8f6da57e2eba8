//! Peers that break the protocol.

use super::check;

#[test]
fn bytes_that_are_not_smtp() {
    check(
        "C: GET / HTTP/1.1\nS: 220 mx.example\nS: 221 Goodbye",
        &["! not_smtp", "! early_talker", "greeting 220 mx.example", "GET / HTTP/1.1 -> 221 Goodbye"],
    );
    check("S: SSH-2.0-OpenSSH_9.2\nC: QUIT", &["! not_smtp", "! early_talker", "QUIT ->"]);
    check("S: 220 mx.example\nC: \\x80\\x2e\\x01", &["greeting 220 mx.example", "! not_smtp", "\u{fffd}.\u{1} ->"]);
}

#[test]
fn an_early_talker_keeps_its_replies() {
    check(
        "C: EHLO client.example\nC: MAIL FROM:<>\nS: 220 mx.example\nS: 250 hi\nS: 250 ok",
        &[
            "! early_talker",
            "! early_talker",
            "greeting 220 mx.example",
            "EHLO client.example -> 250 hi",
            "~MAIL FROM:<> -> 250 ok",
        ],
    );
}
