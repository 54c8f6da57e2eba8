//! What stands before a session, other protocols, and roles that are exchanged.

use super::*;

#[test]
fn other_protocols_are_named() {
    for (line, shown) in [
        ("GET /hunter HTTP/1.1\r\n", "GET<19$>"),
        ("POST /hunter HTTP/1.1\r\n", "POST<19$>"),
        ("HEAD /hunter\r\n", "HEAD<10$>"),
        ("PUT /hunter\r\n", "PUT<10$>"),
        ("OPTIONS /hunter\r\n", "OPTIONS<10$>"),
        ("CONNECT hunter:25\r\n", "CONNECT<12$>"),
        ("PRI * HTTP/2.0\r\n", "PRI<13$>"),
        ("SSH-2.0-hunter\r\n", "SSH-<12$>"),
        ("GETTER\r\n", "<8$>"),
    ] {
        check_greeted(
            &[c(line), c("Cookie: secret\r\n\r\nhunter"), s("500 hunter\r\n")],
            &format!(r"{shown}<16$>\r\n"),
            "500 <8$>",
        );
    }
}

#[test]
fn a_proxy_says_whose_connection_it_is() {
    check(
        &[c("PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\nNOOP x\r\n"), s("220 mx\r\n250 ok\r\n")],
        "PROXY <31$>NOOP<4$>",
        r"220 <4$>250 <4$>",
    );
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0chunterhunterNOOP x\r\n";
    check(
        &[c(header), s("220 mx\r\n250 ok\r\n")],
        r"\r\n\r\n\x00\r\nQUIT\n!\x11\x00\x0c<12>NOOP<4$>",
        r"220 <4$>250 <4$>",
    );
    check(
        &[c(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0NOOP\r\n"), s("220 mx\r\n")],
        r"\r\n\r\n\x00\r\nQUIT\n \x00\x00\x00NOOP\r\n",
        r"220 mx\r\n",
    );
    // What only begins like them.
    check(&[c("\r\n\r\nNOOP\r\n"), s("220 mx\r\n")], r"\r\n\r\nNOOP\r\n", r"220 mx\r\n");
    check(&[c("\r\n\r\n\0\r\nQUIT hunter\r\n"), s("220 mx\r\n")], r"\r\n\r\n<3$0>QUIT<9$>", r"220 <4$>");
    check(&[c("PROX hunter\r\n"), s("220 mx\r\n")], "<13$>", r"220 <4$>");
    // A server that greets at once waits for no header: it answers a line.
    check_greeted(&[c("PROXY TCP4 hunter\r\n"), s("502 hunter\r\n")], "PROXY<14$>", "502 <8$>");
    check_greeted(
        &[c("\r\n"), s("500 what\r\n"), c("\r\n\0\r\nQUIT\n\x21\x11\0\x04hunter\r\n")],
        r"\r\n\r\n<3$0>QUIT\n<12$0>",
        r"500 what\r\n",
    );
    check_greeted(&[c("NOOP\r\nPROXY hunter\r\n")], r"NOOP\r\n<14$>", "");
}

#[test]
fn socks() {
    check(
        &[
            c(b"\x04\x01\0\x19\xc0\0\x02\x02hunter\0"),
            s(b"\0\x5a\0\0\0\0\0\n"),
            s("220 mx\r\n"),
            c("HELO x\r\nNOOP y\r\n"),
            s("250 mx\r\n250 y\r\n"),
        ],
        r"\x04\x01(13)HELO x\r\nNOOP<4$>",
        r"<8>220 mx\r\n250 <4$>250 <3$>",
    );
    check(
        &[
            c(b"\x05\x01\x02"),
            s(b"\x05\x02"),
            c(b"\x01\x06hunter\x06secret"),
            s(b"\x01\0"),
            c(b"\x05\x01\0\x03\x0amx.example\0\x19"),
            s(b"\x05\0\0\x03\x03a.b\n\n"),
            s("220 mx\r\n"),
            c("QUIT\r\n"),
            s("221 bye\r\n"),
        ],
        r"\x05(34)QUIT\r\n",
        r"<14>220 mx\r\n221 bye\r\n",
    );
}

#[test]
fn a_banner_of_another_protocol() {
    check(&[s("SSH-2.0-hunter\r\n+OK x\r\n"), c("NOOP\r\n")], r"NOOP\r\n", "SSH-<12$><7$>");
    check(&[s("+OK hunter\r\n"), c("NOOP\r\n")], r"NOOP\r\n", "+OK<9$>");
    check(&[s("* OK hunter\r\n"), c("NOOP\r\n")], r"NOOP\r\n", "* OK<9$>");
}

/// A part of a greeting, and the rest later, which is for those who have spoken early (Postfix, postscreen).
#[test]
fn a_teaser() {
    check(
        &[
            s("220-mx\r\n"),
            c("EHLO x\r\nhunter\r\n"),
            s("220 mx\r\n250 mx\r\n"),
            s("500 hunter\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
        ],
        r"EHLO x\r\n<8$>NOOP\r\n",
        r"220-mx\r\n220 <4$>250 <4$>500 <8$>250 ok\r\n",
    );
}

/// Who connected greets: roles are exchanged from the start.
#[test]
fn the_client_greets() {
    check(
        &[
            c("220 mx\r\n"),
            s("EHLO x\r\nhunter\r\n"),
            c("250-mx\r\n250 SIZE\r\n500 hunter\r\n"),
            s("DATA\r\n"),
            c("354 go\r\n"),
            s("hunter\r\nRSET\r\n.\r\n"),
            c("250 ok\r\n"),
            s("QUIT\r\n"),
            c("221 bye\r\n"),
        ],
        r"220 mx\r\n250-<4$>250 <6$>500 <8$>354 go\r\n250 ok\r\n221 bye\r\n",
        r"EHLO x\r\n<8$>DATA\r\n[12]\r\n.\r\nQUIT\r\n",
    );
    // Not so where the server has spoken, with another code, or in TLS.
    check(&[c(b"\x16\x03\x01\x02\x00\x00"), c("220 hunter\r\n")], r"\x16\x03\x01\x02\x00{13}", "");
    check(&[s("220 mx\r\n"), c("220 hunter\r\n"), s("500 hunter\r\n")], "<12$>", r"220 mx\r\n500 <8$>");
    check(&[s("2"), c("220 hunter\r\n"), s("20 mx\r\n")], "<12$>", "220 <4$>");
    check(&[c("250 hunter\r\n"), s("220 mx\r\n")], "<12$>", "220 <4$>");
    check(&[c("220\r\nhunter\r\n"), s("220 mx\r\n")], "<5$><8$>", "220 <4$>");
}

/// TURN and ATRN are accepted (RFC 821, 3.8; RFC 2645, 6): roles are exchanged.
#[test]
fn roles_are_exchanged() {
    check_greeted(
        &[
            c("TURN\r\n"),
            s("250 ok\r\nHELO mx\r\nhunter\r\n"),
            c("220 x\r\n250 x\r\n500 hunter\r\n"),
            s("DATA\r\nRSET\r\nhunter\r\n"),
            c("354 go\r\n"),
            s(".\r\n"),
            c("250 ok\r\n"),
            s("TURN\r\n"),
            c("250 ok\r\n"),
            s("220 mx\r\n"),
            c("VRFY hunter\r\n"),
            s("252 hunter\r\n"),
        ],
        r"TURN\r\n220 <3$>250 <3$>500 <8$>354 go\r\n250 ok\r\n250 ok\r\nVRFY<9$>",
        r"250 ok\r\nHELO mx\r\n<8$>DATA\r\n[12]\r\n.\r\nTURN\r\n220 mx\r\n252 <8$>",
    );
    check_greeted(
        &[c("ATRN hunter\r\n"), s("250 hunter\r\n"), c("220 x\r\n"), s("VRFY hunter\r\n"), c("252 hunter\r\n")],
        r"ATRN<9$>220 x\r\n252 <8$>",
        "250 <8$>VRFY<9$>",
    );
    check_greeted(
        &[c("TURN\r\n"), s("502 no\r\n"), c("NOOP x\r\n"), s("250 ok\r\n")],
        r"TURN\r\nNOOP<4$>",
        r"502 no\r\n250 <4$>",
    );
}

/// A reply that is a go-ahead, too, exchanges nothing.
#[test]
fn a_go_ahead_that_accepts_turn() {
    check_greeted(
        &[c("TURN\r\n"), s("354-x\r\n250 y\r\n"), c("hunter\r\n"), s("hunter\r\nRSET\r\n")],
        r"TURN\r\n[6]",
        r"354-x\r\n250 y\r\n<8$><6$>",
    );
}

/// Nor does one behind replies that were lost: it may be to something else.
#[test]
fn a_reply_to_turn_behind_a_loss() {
    check_greeted(
        &[c("TURN\r\n"), Turn::Gap(Speaker::Server, 20), s("x\r\n250 hunter\r\nhunter\r\nNOOP x\r\n"), c("hunter\r\n")],
        r"TURN\r\n(8)",
        "(3)250 <8$><8$><8$>",
    );
}

/// More was said behind TURN: whom it was for is not known, and what is content is not, either.
#[test]
fn roles_are_not_exchanged_in_the_middle() {
    check_greeted(
        &[
            c("TURN\r\nDATA\r\nhunter\r\n250 hunter\r\n"),
            s("250 ok\r\nhunter\r\n250 hunter\r\nRSET\r\n"),
            c("250 hunter\r\nhunter\r\n"),
        ],
        r"TURN\r\nDATA\r\n[20](20)",
        r"250 ok\r\n<8$>250 <8$><6$>",
    );
}

/// A socket that connects again has nothing of the connection that it had before: here one that ended inside of TLS.
#[test]
fn a_socket_is_used_again() {
    let mut talk = Talk::new();
    talk.server("220 mx\r\n").client("STARTTLS\r\n").server("220 go\r\n");
    talk.client("\u{16}\u{3}\u{3}\0\u{1}\0").server("\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{28}");
    // SAFETY: it is this talk's own.
    unsafe {
        Dialogue::begin_again(&raw mut *talk.dialogue);
        assert_eq!(*talk.dialogue, Dialogue::beginning());
        Dialogue::start_at(&raw mut *talk.dialogue, 700_000, 900_000);
    }
    talk.positions = [700_000, 900_000];
    talk.told = [Vec::new(), Vec::new()];
    talk.server("220 mx\r\n").client("NOOP x\r\n").server("250 x\r\n").client("NOOP\r\n").server("250 ok\r\n");
    assert_eq!(talk.shown(Speaker::Client), r"NOOP<4$>NOOP\r\n");
    assert_eq!(talk.shown(Speaker::Server), r"220 mx\r\n250 <3$>250 ok\r\n");
}

/// TCP Fast Open (RFC 7413): the accepted socket is read before its connection is there.
#[test]
fn first_bytes_that_are_read_before_the_connection_is_there() {
    let mut talk = Talk::under_way();
    let dialogue = &raw mut *talk.dialogue;
    // SAFETY: it is this talk's own.
    unsafe { Dialogue::begin_new(dialogue) };
    talk.client("EHLO a.example\r\nBDAT 21\r\nhunter\r\n");
    let [client, server] = talk.positions;
    // SAFETY: as above.
    unsafe {
        Dialogue::begin_new(dialogue);
        Dialogue::start_at(dialogue, client, server);
    }
    talk.client("NOOP hunter\r\n").server("220 mx\r\n");
    assert_eq!(talk.shown(Speaker::Client), r"EHLO a.example\r\nBDAT 21\r\n[21]");
    assert_eq!(talk.shown(Speaker::Server), r"220 mx\r\n");
}
