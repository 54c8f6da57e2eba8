//! AUTH and STARTTLS.

use super::check;
use crate::smtp::transcript::{items, steps};
use crate::smtp::{Item, Session};

#[test]
fn authentication() {
    check(
        "S: 220 mx.example
         C: AUTH LOGIN
         S: 334 VXNlcm5hbWU6
         C: Ym9i
         S: 334 UGFzc3dvcmQ6
         C: QUIT
         S: 235 2.7.0 welcome
         C: NOOP
         S: 250 ok",
        // "QUIT" is also base64 of some password.
        &["greeting 220 mx.example", "AUTH LOGIN -> 235 2.7.0 welcome", "NOOP -> 250 ok"],
    );
}

#[test]
fn challenges_are_counted() {
    let transcript = "S: 220 mx.example\nC: AUTH LOGIN\nS: 334\nC: Ym9i\nS: 334\nC: c2VjcmV0\nS: 235 in";
    let items = items(Session::new(), &steps(transcript));
    let Some(Item::Exchange(exchange)) = items.last() else { panic!("{items:?}") };
    assert_eq!(exchange.command.challenges, 2);
    assert_eq!(exchange.command.line, b"AUTH LOGIN");
}

#[test]
fn authentication_cancelled_and_answered_empty() {
    check(
        "S: 220 mx.example
         C: AUTH GSSAPI
         S: 334
         C: *
         S: 501 cancelled
         C: AUTH XOAUTH2 dXNlcj0=
         S: 334 eyJzdGF0dXMi
         C:
         S: 535 5.7.8 no
         C: QUIT
         S: 221 bye",
        &["greeting 220 mx.example", "AUTH GSSAPI -> 501 cancelled", "AUTH XOAUTH2 -> 535 5.7.8 no", "QUIT -> 221 bye"],
    );
}

#[test]
fn authentication_answered_before_it_is_asked() {
    check(
        "S: 220 mx.example
         C: AUTH LOGIN
         C: Ym9i
         C: c2VjcmV0
         C: QUIT
         S: 334 VXNlcm5hbWU6
         S: 334 UGFzc3dvcmQ6
         S: 235 welcome
         S: 221 bye",
        &["greeting 220 mx.example", "AUTH LOGIN -> 235 welcome", "~QUIT -> 221 bye"],
    );
}

#[test]
fn an_answer_that_is_too_late() {
    check(
        "S: 220 mx.example
         C: AUTH PLAIN
         S: 334
         C| AGJvYgBz
         S: 454 timed out
         C: ZWNyZXQ=
         C: QUIT
         S: 221 bye",
        &["greeting 220 mx.example", "AUTH PLAIN -> 454 timed out", "QUIT -> 221 bye"],
    );
}

#[test]
fn starttls() {
    check(
        "S: 220 mx.example
         C: EHLO client.example
         S: 250-mx.example
         S: 250 starttls
         C: STARTTLS
         S: 220 2.0.0 Ready
         C| \\x16\\x03\\x01\\0\\x05QUIT\\r\\n
         S| \\x16\\x03\\x03500 no\\r\\n",
        &[
            "greeting 220 mx.example",
            "EHLO client.example -> 250 mx.example|starttls",
            "tls offered",
            "STARTTLS -> 220 2.0.0 Ready",
            "tls started",
        ],
    );
}

#[test]
fn starttls_refused() {
    check(
        "S: 220 mx.example
         C: STARTTLS
         S: 454 not now
         C: QUIT
         S: 221 bye",
        &["greeting 220 mx.example", "STARTTLS -> 454 not now", "QUIT -> 221 bye"],
    );
}

#[test]
fn starttls_with_bytes_behind_it() {
    check(
        "S: 220 mx.example
         C: STARTTLS
         C: RSET
         S: 220 ready
         C| \\x16\\x03",
        &["greeting 220 mx.example", "STARTTLS -> 220 ready", "! starttls_injection", "tls started"],
    );
    check(
        "S: 220 mx.example
         C: STARTTLS
         S: 220 ready
         S: 250 injected
         C| \\x16\\x03",
        &["greeting 220 mx.example", "STARTTLS -> 220 ready", "tls started", "! starttls_injection"],
    );
}

#[test]
fn tls_from_the_first_byte() {
    check("C| \\x16\\x03\\x01\\x02\\0\\n\nS| 220 not for us\\r\\n", &["tls started"]);
}
