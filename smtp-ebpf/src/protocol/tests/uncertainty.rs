//! What crosses where it is not certain what bytes are: the filter has come in the middle, or has lost some.

use super::Speaker::{Client, Server};
use super::*;

#[test]
fn in_the_middle_of_a_body() {
    check_under_way(
        &[
            c("hunter\r\nsecret\r\nnoop me\r\nhelp\r\nmail me\r\nehlo my friend\r\nrcpt to: hunter\r\n"),
            c("MAIL FROM:hunter\r\nBDAT 3\r\nAUTH PLAIN\r\nVRFY hunter\r\n RSET\r\n"),
            c("hunter\r\n.\r\n"),
            s("250 hunter\r\n"),
            c("NOOP x\r\n"),
            s("250 x\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
        ],
        r"(139).\r\nNOOP<4$>NOOP\r\n",
        r"250 <8$>250 <3$>250 ok\r\n",
    );
}

#[test]
fn full_forms() {
    for line in [
        "MAIL FROM:<a@b> SIZE=1\r\n",
        "rcpt to:<a@b>\r\n",
        "EHLO a.example\r\n",
        "HELO x\n",
        "LHLO x\r\n",
        "RSET\r\n",
        "NOOP\r\n",
        "QUIT \r\n",
        "STARTTLS\r\n",
    ] {
        check_under_way(&[c("hunter\r\n"), c(line), c("hunter\r\n")], &format!("(8){}(8)", shown(line)), "");
    }
}

#[test]
fn one_reply_in_agreement() {
    for (line, reply) in [
        ("MAIL FROM:<a@b>\r\n", "250 ok\r\n"),
        ("RCPT TO:<a@b>\r\n", "251 ok\r\n"),
        ("EHLO x\r\n", "250-mx\r\n250-SIZE\r\n250 HELP\r\n"),
        ("RSET\r\n", "250 ok\r\n"),
        ("NOOP\r\n", "250 ok\r\n"),
        ("QUIT\r\n", "221 bye\r\n"),
        ("STARTTLS\r\n", "220 go\r\n"),
    ] {
        check_under_way(
            &[c(line), s(reply), c("VRFY hunter\r\n"), s("252 hunter\r\n"), c("NOOP\r\n"), s("250 ok\r\n")],
            &format!(r"{}VRFY<9$>NOOP\r\n", shown(line)),
            &format!(r"{}252 <8$>250 ok\r\n", shown(reply)),
        );
    }
}

#[test]
fn replies_that_do_not_agree() {
    for (line, reply, code) in [
        ("RSET\r\n", "500 hunter\r\n", "500 <8$>"),
        ("EHLO x\r\n", "220 hunter\r\n", "220 <8$>"),
        ("QUIT\r\n", "250 hunter\r\n", "250 <8$>"),
        ("MAIL FROM:<a@b>\r\n", "550 hunter\r\n", "550 <8$>"),
        ("hunter\r\n", "250 hunter\r\n", "250 <8$>"),
    ] {
        check_under_way(
            &[c(line), s(reply), c("VRFY hunter\r\n"), s("252 hunter\r\n")],
            &if line == "hunter\r\n" { "(21)".into() } else { format!("{}(13)", shown(line)) },
            &format!("{code}252 <8$>"),
        );
    }
}

/// The line that is being said is not the one that a reply agrees with.
#[test]
fn a_reply_in_the_middle_of_a_line() {
    check_under_way(&[c("RSET\r\nhelp hun"), s("250 ok\r\n"), c("ter\r\nhunter\r\n")], r"RSET\r\n(21)", r"250 ok\r\n");
}

/// A reply to a line that was said before agrees with nothing while others are due.
#[test]
fn a_reply_to_an_earlier_line_shows_nothing() {
    // Behind a message.
    check_greeted(
        &[
            c("DATA\r\n"),
            s("354 go\r\n"),
            c("text\r\n.\r\nVRFY hunter\r\nRSET\r\n"),
            s("250 queued\r\n"),
            c("MAIL FROM:<a@b>\r\n"),
            s("252 hunter\r\n250 reset\r\n"),
            c("NOOP x\r\n"),
            s("250 ok\r\n250 x\r\n"),
            c("RSET\r\n"),
            s("250 ok\r\n"),
            c("NOOP x\r\n"),
        ],
        r"DATA\r\n[4]\r\n.\r\n(13)RSET\r\nMAIL FROM:<a@b>\r\n(8)RSET\r\nNOOP<4$>",
        r"354 go\r\n250 <8$>252 <8$>250 <7$>250 <4$>250 <3$>250 <4$>",
    );
    // Behind a DATA that was refused.
    check_greeted(
        &[
            c("DATA\r\n"),
            s("503 no\r\n"),
            c("RSET\r\nAUTH PLAIN hunter\r\nNOOP\r\n"),
            s("250 reset\r\n"),
            c("NOOP\r\n"),
            s("454 4.7.0 hunter\r\n250 ok\r\n250 ok\r\n"),
            c("NOOP x\r\n"),
        ],
        r"DATA\r\nRSET\r\n(19)NOOP\r\nNOOP\r\nNOOP<4$>",
        r"503 no\r\n250 <7$>454 4.7.0 <8$>250 <4$>250 <4$>",
    );
}

/// A line that stayed is answered before DATA is: content that is said then is none that was asked for, and no commands.
#[test]
fn a_reply_to_an_earlier_line_is_not_the_one_to_data() {
    check_greeted(
        &[
            c("DATA\r\n"),
            s("503 no\r\n"),
            c("NOOP x\r\nNOOP y\r\nDATA\r\n"),
            s("250 x\r\n250 y\r\n"),
            c("RCPT TO:<hunter@x>\r\n.\r\n"),
            s("354 go\r\n250 queued\r\n"),
        ],
        r"DATA\r\n(16)DATA\r\n[18]\r\n.\r\n",
        r"503 no\r\n250 <3$>250 <3$>354 <4$>250 <8$>",
    );
}

/// Whoever waits for all replies is understood again.
#[test]
fn all_that_was_said_is_answered() {
    check_greeted(
        &[
            c("DATA\r\n"),
            s("503 no\r\n"),
            c("VRFY hunter\r\nhunter\r\nRSET\r\n"),
            s("252 hunter\r\n500 hunter\r\n250 ok\r\n"),
            c("NOOP x\r\n"),
            s("250 x\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
        ],
        r"DATA\r\n(21)RSET\r\nNOOP<4$>NOOP\r\n",
        r"503 no\r\n252 <8$>500 <8$>250 <4$>250 <3$>250 ok\r\n",
    );
    // What was said before a go-ahead has been answered, and content earns no replies.
    check_under_way(
        &[c("hunter\r\nhunter\r\n"), s("354 go\r\n"), c("hunter\r\n.\r\n"), s("250 ok\r\n"), c("NOOP x\r\n")],
        r"(16)[6]\r\n.\r\nNOOP<4$>",
        "354 <4$>250 <4$>",
    );
}

/// A body that quotes commands may be answered in its middle by chance: replies do not show it.
#[test]
fn data_in_the_middle_of_a_body() {
    check_under_way(
        &[c("data\r\nRSET\r\nhunter\r\n.\r\n"), s("250 hunter\r\n"), c("RSET\r\nNOOP x\r\n"), s("250 ok\r\n250 x\r\n")],
        r"data\r\n[12]\r\n.\r\nRSET\r\n(8)",
        "250 <8$>250 <4$>250 <3$>",
    );
    check_under_way(
        &[
            c("Data on hunter\r\nRSET\r\nhunter\r\n"),
            s("250 hunter\r\n"),
            c("RSET\r\n"),
            s("250 ok\r\n"),
            c("NOOP x\r\n"),
        ],
        r"(16)[14]RSET\r\nNOOP<4$>",
        "250 <8$>250 <4$>",
    );
}

#[test]
fn go_aheads_and_challenges_in_the_middle() {
    check_under_way(
        &[
            c("hunter\r\n"),
            s("354 go\r\n"),
            c("RSET\r\nhunter\r\n.\r\n"),
            s("250 ok\r\n"),
            c("RSET\r\n"),
            s("250 ok\r\n"),
        ],
        r"(8)[12]\r\n.\r\nRSET\r\n",
        r"354 <4$>250 <4$>250 ok\r\n",
    );
    check_under_way(
        &[
            s("334 hunter\r\n"),
            c("RSET\r\n"),
            s("334 hunter\r\n"),
            c("quit\r\n"),
            s("235 hunter\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
        ],
        r"<6$><6$>NOOP\r\n",
        r"334 <8$>334 <8$>235 <8$>250 ok\r\n",
    );
    check_under_way(
        &[s("334 hunter\r\n"), c("RSET\r\n"), s("535 hunter\r\n"), c("NOOP x\r\nhunter\r\n")],
        "<6$>(16)",
        "334 <8$>535 <8$>",
    );
}

#[test]
fn bytes_of_the_client_are_lost() {
    for lost in [Turn::Gap(Client, 20), Turn::Fault(Client, 20)] {
        let gap = if matches!(lost, Turn::Gap(..)) { 0 } else { 20 };
        let uncaptured = |more: u32| format!("({})", gap + more);
        // The rest of a line is not known to be one.
        check_greeted(
            &[
                c("NOOP\r\nRS"),
                lost.clone(),
                c("RSET\r\nhunter\r\nNOOP x\r\n"),
                s("250 ok\r\n500 hunter\r\n500 hunter\r\n250 ok\r\n"),
                c("RSET\r\n"),
                s("250 ok\r\n"),
                c("NOOP x\r\n"),
            ],
            &format!(r"NOOP\r\n{}RSET\r\nNOOP<4$>", uncaptured(24)),
            "250 <4$>500 <8$>500 <8$>250 <4$>250 <4$>",
        );
        // In content, more content is lost, and perhaps its end.
        let content = |more: u32| format!("[{}]", gap + more);
        check_greeted(
            &[
                c("DATA\r\n"),
                s("354 go\r\n"),
                c("hunter\r\n"),
                lost.clone(),
                c(".\r\nRSET\r\nhunter\r\n.\r\n"),
                s("250 ok\r\n"),
                c("RSET\r\n"),
            ],
            &format!(r"DATA\r\n{}\r\n.\r\nRSET\r\n", content(8 + 15)),
            r"354 go\r\n250 ok\r\n",
        );
        check_greeted(
            &[
                c("DATA\r\n"),
                s("354 go\r\n"),
                c("hunter\r\n.\r"),
                lost.clone(),
                s("250 ok\r\n"),
                c("RSET\r\nhunter\r\nRSET\r\nhelp me\r\n"),
            ],
            &format!(r"DATA\r\n{}(14)RSET\r\n(9)", content(10)),
            r"354 go\r\n250 ok\r\n",
        );
        // In a chunk, its octets.
        check_greeted(
            &[c("BDAT 30\r\nhunter\r\n"), lost.clone(), c("xyNOOP\r\n"), s("250 ok\r\n250 ok\r\n"), c("NOOP x\r\n")],
            &format!(r"BDAT 30\r\n{}NOOP\r\nNOOP<4$>", content(10)),
            r"250 ok\r\n250 ok\r\n",
        );
        check_greeted(
            &[c("BDAT 20\r\nhunter\r\n"), lost.clone(), c("RSET\r\nRSET\r\nhunter\r\n")],
            &format!(r"BDAT 20\r\n[8]{}RSET\r\n(8)", uncaptured(6)),
            "",
        );
        // In an authentication.
        check_greeted(
            &[
                c("AUTH LOGIN\r\n"),
                s("334 x\r\n"),
                c("hun"),
                lost.clone(),
                c("ter\r\nhunter\r\n"),
                s("535 hunter\r\n"),
                c("hunter\r\n"),
            ],
            &format!(r"AUTH LOGIN\r\n{}", uncaptured(3 + 13 + 8)),
            "334 <3$>535 <8$>",
        );
    }
}

#[test]
fn bytes_of_the_server_are_lost() {
    for lost in [Turn::Gap(Server, 20), Turn::Fault(Server, 20)] {
        let gap = if matches!(lost, Turn::Gap(..)) { 0 } else { 20 };
        // Perhaps a challenge was among them.
        check_greeted(
            &[
                c("AUTH LOGIN\r\n"),
                s("334 x\r\n33"),
                lost.clone(),
                s("x\r\n"),
                c("hunter\r\nsecret\r\n"),
                s("535 hunter\r\n"),
                c("RSET\r\n"),
                s("250 ok\r\n"),
                c("NOOP x\r\n"),
            ],
            r"AUTH LOGIN\r\n<8$><8$>RSET\r\nNOOP<4$>",
            &format!("334 <3$>({})535 <8$>250 <4$>", gap + 5),
        );
        // Perhaps a go-ahead was.
        check_greeted(
            &[
                c("NOOP\r\n"),
                lost.clone(),
                s("\r\n"),
                c("hunter\r\nNOOP hunter\r\nhelp me\r\n.\r\n"),
                s("250 hunter\r\n"),
                c("NOOP x\r\n"),
            ],
            r"NOOP\r\n(30).\r\nNOOP<4$>",
            &format!("({})250 <8$>", gap + 2),
        );
        // The one to DATA was.
        check_greeted(
            &[
                c("DATA\r\n"),
                lost.clone(),
                s("\r\n"),
                c("hunter\r\nRSET\r\n.\r\n"),
                s("250 hunter\r\n"),
                c("RSET\r\n"),
                s("250 ok\r\n"),
                c("NOOP x\r\n"),
            ],
            r"DATA\r\n[12]\r\n.\r\nRSET\r\nNOOP<4$>",
            &format!("({})250 <8$>250 <4$>", gap + 2),
        );
    }
}

/// A loss behind which nothing is said yet.
#[test]
fn a_reply_behind_a_loss() {
    check_greeted(
        &[
            c("hunter\r\nNOOP\r\n"),
            Turn::Gap(Server, 20),
            s("x\r\n250 hunter\r\n500 hunter\r\n"),
            c("RSET\r\n"),
            s("250 ok\r\n"),
        ],
        r"<8$>NOOP\r\nRSET\r\n",
        "(3)250 <8$>500 <8$>250 <4$>",
    );
}

/// Replies are counted anew where it is certain again: the one to TURN, which was lost, is none of them.
#[test]
fn a_lost_reply_to_turn() {
    check_greeted(
        &[
            c("XEXCH50 5 2\r\nTURN\r\n"),
            Turn::Gap(Server, 20),
            s("x\r\n"),
            c("RSET\r\n"),
            s("250 ok\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
            c("DATA\r\n"),
            s("354 go\r\n"),
            c("220 hunter\r\n250 hunter\r\n.\r\n"),
            s("250 ok\r\n"),
            c("NOOP x\r\n"),
        ],
        r"XEXCH50 5 2\r\nTURN\r\nRSET\r\nNOOP\r\nDATA\r\n[22]\r\n.\r\nNOOP<4$>",
        // The one to RSET shows what is certain again, and is shown itself.
        r"(3)250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n",
    );
}

/// Positions go back: calls of two threads were told of in another order.
#[test]
fn calls_in_another_order() {
    let mut talk = Talk::new();
    talk.server("220 mx\r\n").client("NOOP\r\n");
    talk.positions[0] -= 3;
    talk.client("hunter\r\nNOOP hunter\r\nRSET\r\n");
    assert_eq!(talk.shown(Client), r"NOOP\r\n(21)RSET\r\n");
}

/// More lines than a record has room for: what is more is counted.
#[test]
fn more_lines_than_are_told() {
    let mut talk = Talk::new();
    talk.server("220 mx\r\n").turns(&[c("\nhunter\n\n".repeat(400)), c("x\n\n".repeat(1365))], Cut::Whole);
    assert!(!talk.text().windows(6).any(|text| text == b"hunter"));
    talk.turns(&[c("hunter\r\nRSET\r\n")], Cut::Whole);
    assert!(talk.shown(Client).ends_with(r")RSET\r\n"), "{}", talk.shown(Client));
}

/// TCP Fast Open (RFC 7413): the connection is there, its first bytes counted, before the call that brought them returns.
/// The server never answers one line. The reply that ends the authentication is certain, whichever was meant to come before.
#[test]
fn an_authentication_behind_a_reply_that_never_came() {
    check(
        &[
            s("220 mx\r\n"),
            c("EHLO x\r\n"),
            s("250 mx\r\n"),
            c("\r\n"),
            c("AUTH PLAIN\r\n"),
            s("334 \r\n"),
            c("hunter2\r\n"),
            s("235 ok\r\n"),
            c("hunter2\r\n"),
            s("500 hunter2\r\n"),
            c("MAIL FROM:<a@x.example>\r\n"),
            s("250 ok\r\n"),
            c("XYZZY\r\n"),
        ],
        r"EHLO x\r\n\r\nAUTH PLAIN\r\n<9$>(9)MAIL FROM:<a@x.example>\r\n<7$>",
        r"220 mx\r\n250 mx\r\n334 \r\n235 <4$>500 <9$>250 <4$>",
    );
}

#[test]
fn first_bytes_that_were_counted_before_they_are_told() {
    let mut talk = Talk::new();
    let hello = b"EHLO a.example\r\n";
    let [client, server] = talk.positions;
    // SAFETY: it is this talk's own.
    unsafe { Dialogue::start_at(&raw mut *talk.dialogue, client + hello.len() as u32, server) };
    talk.says(Client, hello, false);
    talk.client("NOOP\r\n");
    assert_eq!(talk.shown(Client), r"EHLO a.example\r\nNOOP\r\n");
}

/// Bytes behind DATA are lost, and DATA is refused: the rest of a line may be a secret, and its reply may repeat it.
#[test]
fn a_line_is_lost_in_part_behind_a_data_that_is_refused() {
    for reply in ["354 hunter\r\n", "250 hunter\r\n", "550 hunter\r\n"] {
        check_greeted(
            &[c("DATA\r\n"), s("501 5.5.4 no\r\n"), Turn::Gap(Client, 1), c("hunter\r\nQUIT\r\n"), s(reply)],
            r"DATA\r\n(8)QUIT\r\n",
            &format!("501 5.5.4 no\\r\\n{} <8$>", &reply[..3]),
        );
    }
}
