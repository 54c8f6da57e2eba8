//! What crosses of replies.

use super::work::get;
use super::*;

#[test]
fn the_reply_that_repeats_a_secret() {
    for (secret, length) in [("hunter\r\n", "<8$>"), ("hunter", "<8$>"), ("VRFY hunter\r\n", "VRFY<9$>")] {
        let line = format!("{}\r\n", secret.trim_end());
        check_greeted(
            &[c(line), s("252-2.1.5 hunter is\r\n252 2.1.5 hunter\r\n"), c("NOOP\r\n"), s("250 2.0.0 ok\r\n")],
            &format!(r"{length}NOOP\r\n"),
            r"252-2.1.5 <11$>252 2.1.5 <8$>250 2.0.0 ok\r\n",
        );
    }
}

#[test]
fn codes_and_enhanced_codes() {
    for (reply, shown) in [
        ("500 hunter\r\n", "500 <8$>"),
        ("500-hunter\r\n500 x\r\n", "500-<8$>500 <3$>"),
        ("500\r\n", r"500\r\n"),
        ("500 \r\n", r"500 \r\n"),
        ("500\thunter\n", r"500\t<7~>"),
        ("500 5.1.1 hunter\r\n", "500 5.1.1 <8$>"),
        ("500 5.123.123\r\n", r"500 5.123.123\r\n"),
        ("500 5.123.123 \r\n", r"500 5.123.123 \r\n"),
        ("500 5.123.1234 hunter\r\n", "500 <19$>"),
        ("500 3.1.1 hunter\r\n", "500 <14$>"),
        ("500 5.1.1hunter\r\n", "500 <13$>"),
        ("500 5..1 hunter\r\n", "500 <13$>"),
        ("500 12.34.56 hunter\r\n", "500 <17$>"),
        ("500hunter\r\n", "<11$>"),
        ("hunter\r\n", "<8$>"),
        ("5000 hunter\r\n", "<13$>"),
        ("hunter\0\r\r\n", "<10$0^>"),
    ] {
        check_greeted(&[c("secret\r\n"), s(reply)], "<8$>", shown);
    }
}

#[test]
fn a_reply_answers_one_line() {
    check_greeted(
        &[
            c("NOOP\r\nhunter\r\nNOOP\r\n"),
            s("250 one\r\n250 hunter\r\n"),
            s("250 three\r\n"),
            c("hunter\r\n"),
            s("250-hunter\r\n250-hunter\r\n"),
            s("250 hunter\r\n"),
        ],
        r"NOOP\r\n<8$>NOOP\r\n<8$>",
        // Everything up to the reply to what was withheld, and to what was said behind it before that was answered.
        r"250 <5$>250 <8$>250 <7$>250-<8$>250-<8$>250 <8$>",
    );
}

/// A server that gives one reply more than it was asked for answers later than it seems to.
#[test]
fn a_reply_too_many_before_what_was_withheld() {
    check_greeted(
        &[
            c("NOOP\r\nPASS hunter\r\nRSET\r\nNOOP\r\n"),
            s("250 ok\r\n250 ok\r\n550 5.5.2 what is PASS hunter\r\n250 ok\r\n250 ok\r\n"),
            c("RSET\r\n"),
            s("250 ok\r\n"),
        ],
        r"NOOP\r\n<13$>RSET\r\nNOOP\r\nRSET\r\n",
        r"250 <4$>250 <4$>550 5.5.2 <21$>250 <4$>250 <4$>250 ok\r\n",
    );
}

/// Replies that nobody asked for answer nothing, and may repeat what was withheld.
#[test]
fn replies_beyond_what_was_asked() {
    check_greeted(
        &[
            c("hunter\r\n"),
            s("250 a\r\n250 hunter\r\n451 hunter\r\n"),
            c("hunter\r\n"),
            s("250 hunter\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
        ],
        r"<8$><8$>NOOP\r\n",
        r"250 <3$>250 <8$>451 <8$>250 <8$>250 ok\r\n",
    );
    // A go-ahead is no exception, unless DATA asks for it.
    check_greeted(&[c("hunter\r\n"), s("500 no\r\n354-hunter\r\n354 hunter\r\n")], "<8$>", "500 <4$>354-<8$>354 <8$>");
    check_greeted(
        &[c("hunter\r\n"), s("500 no\r\n"), c("DATA\r\n"), s("354 go\r\n")],
        r"<8$>DATA\r\n",
        r"500 <4$>354 go\r\n",
    );
    check_greeted(&[s("421 4.3.2 bye\r\n")], "", r"421 4.3.2 bye\r\n");
}

#[test]
fn lines_that_are_no_replies() {
    check_greeted(
        &[c("NOOP\r\n"), s("hunter\r\n25\r\n\r\n\n250 ok\r\n25x y\r\n000 z\r\n")],
        r"NOOP\r\n",
        r"<8$><4$><2$><1~>250 ok\r\n<7$><7$>",
    );
}

#[test]
fn long_lines_of_the_server() {
    let long = "x".repeat(3000);
    check_greeted(
        &[c("NOOP\r\n"), s(format!("250-{long}\r\n250 ok\r\n")), c("y\r\n"), s(format!("250 {long}\r{long}\r\n"))],
        r"NOOP\r\n<3$>",
        &format!(r"250-{}<958$>250 ok\r\n250 <6003$^>", "x".repeat(2044)),
    );
}

/// More than 256 bytes of replies end in 354.
#[test]
fn a_go_ahead_behind_many_replies() {
    let replies = "250 2.1.5 Recipient is accepted\r\n".repeat(20);
    let recipients = "RCPT TO:<a@b>\r\n".repeat(20);
    check_greeted(
        &[
            c(format!("{recipients}DATA\r\n")),
            s(format!("{replies}354 go\r\n")),
            c("hunter\r\nRSET\r\n.\r\n"),
            s("250 ok\r\n"),
            c("QUIT\r\n"),
        ],
        &format!(r"{}DATA\r\n[12]\r\n.\r\nQUIT\r\n", shown(&recipients)),
        &format!(r"{}354 go\r\n250 ok\r\n", shown(&replies)),
    );
    let lines = "354-and more of it\r\n".repeat(20);
    check_greeted(
        &[c("DATEN\r\n"), s(format!("{lines}354 go\r\n")), c("hunter\r\nRSET\r\n.\r\n"), s("250 ok\r\n")],
        r"<7$>[12]\r\n.\r\n",
        &format!(r"{}354 <4$>250 ok\r\n", "354-<16$>".repeat(20)),
    );
}

/// The client has sent more than the filter was told of: the reply may answer that.
#[test]
fn a_reply_that_comes_before_its_question() {
    check_greeted(
        &[
            Turn::Behind(b"250 hunter\r\n".to_vec()),
            c("hunter\r\n"),
            s("250 hunter\r\n"),
            c("NOOP\r\n"),
            s("250 hunter\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
        ],
        r"<8$>NOOP\r\nNOOP\r\n",
        // Whether the first answered the secret is not known, so one more is hidden.
        r"250 <8$>250 <8$>250 <8$>250 ok\r\n",
    );
    check_greeted(
        &[Turn::Behind(b"354 go\r\n".to_vec()), c("hunter\r\nRSET\r\n.\r\n"), s("250 ok\r\n"), c("RSET\r\n")],
        r"[12]\r\n.\r\nRSET\r\n",
        // Nor is it known that the last one was asked for: it may be that of a server which reads content as commands.
        r"354 <4$>250 <4$>",
    );
}

/// Who reads the reply on another processor finds that it may repeat the line, as soon as the line's position is there, or
/// that it is asked for.
#[test]
fn what_was_withheld_is_known_before_its_reply_is_read() {
    let long = format!("hunter {}\r\n", "x".repeat(600));
    for line in ["hunter\r\n", "AUTH PLAIN hunter\r\n", &long].repeat(500) {
        let mut talk = Talk::new();
        talk.server("220 mx\r\n").client("NOOP\r\n").server("250 ok\r\n");
        let end = talk.positions[0] + line.len() as u32;
        let dialogue = &raw mut *talk.dialogue as usize;
        let (read, reader) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let dialogue = dialogue as *mut Dialogue;
                let mut work = Box::new(Work::EMPTY);
                read.send(()).expect("it is waited for");
                // SAFETY: the dialogue outlives the scope, and is read through volatile loads alone.
                unsafe {
                    while Dialogue::is_behind(dialogue, Speaker::Client, end) && get!(dialogue.client.asked) == 2 {}
                    assert!(server::is_hidden(dialogue, &raw mut *work, 252), "{}", shown(line));
                }
            });
            reader.recv().expect("it is sent");
            talk.client(line);
        });
    }
}

/// LMTP: each recipient earns a reply (RFC 2033, 4.2), and none of these answers what was withheld behind the message.
#[test]
fn replies_of_lmtp() {
    check_greeted(
        &[
            c("LHLO x\r\n"),
            s("250 mx\r\n"),
            c("MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n"),
            s("250 ok\r\n250 a\r\n550 c\r\n250 e\r\n354 go\r\n"),
            c("hunter\r\n.\r\nRSET\r\n"),
            s("250 for a\r\n"),
            c("VRFY secret\r\n"),
            s("452 for e\r\n250 ok\r\n252 secret\r\n"),
            c("QUIT\r\n"),
            s("221 bye\r\n"),
        ],
        r"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n[6]\r\n.\r\nRSET\r\nVRFY<9$>QUIT\r\n",
        r"250 mx\r\n250 ok\r\n250 a\r\n550 c\r\n250 e\r\n354 go\r\n250 for a\r\n452 <7$>250 <4$>252 <8$>221 bye\r\n",
    );
}
