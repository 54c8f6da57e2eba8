//! What crosses of a message behind DATA.

use super::*;

#[test]
fn an_empty_message() {
    check_greeted(
        &[c("DATA\r\n"), s("354 go\r\n"), c(".\r\n"), s("250 ok\r\n"), c("QUIT\r\n")],
        r"DATA\r\n.\r\nQUIT\r\n",
        r"354 go\r\n250 ok\r\n",
    );
}

/// A client that reads a reply a byte a call, and each turn cut in two: `check` does both.
#[test]
fn letters_only_and_commands_inside() {
    for (body, length) in
        [("hunter\r\nsecret\r\n", 14), ("RSET\r\nNOOP secret\r\nMAIL FROM:<a@b>\r\n", 34), ("..\r\n.x\r\n", 6)]
    {
        check_greeted(
            &[c("DATA\r\n"), s("354 go\r\n"), c(body), c(".\r\n"), s("250 ok\r\n"), c("NOOP\r\n"), s("250 ok\r\n")],
            &format!(r"DATA\r\n[{length}]\r\n.\r\nNOOP\r\n"),
            r"354 go\r\n250 ok\r\n250 ok\r\n",
        );
    }
}

#[test]
fn a_go_ahead_in_two_writes() {
    for place in 1..12 {
        let (one, two) = b"354 go on\r\n".split_at(place.min(11));
        check_greeted(
            &[c("DATEN\r\n"), s(one), s(two), c("hunter\r\nRSET\r\n.\r\n"), s("250 ok\r\n"), c("RSET\r\n")],
            r"<7$>[12]\r\n.\r\nRSET\r\n",
            r"354 <7$>250 ok\r\n",
        );
    }
}

/// The code is all that a client needs to go on.
#[test]
fn content_behind_a_part_of_a_go_ahead() {
    for head in ["354", "354 ", "354 go", "354-"] {
        check_greeted(
            &[c("DATEN\r\n"), s(head), c("hunter\r\nRSET\r\n"), s("x\r\n354 y\r\n"), c("RSET\r\n.\r\n")],
            r"<7$>[18]\r\n.\r\n",
            &match head {
                "354" => "<6$>354 <3$>".into(),
                "354 " | "354 go" => format!("354 <{}$>354 <3$>", head.len() - 1),
                _ => "354-<3$>354 <3$>".to_string(),
            },
        );
    }
}

#[test]
fn any_go_ahead_closes_the_gate() {
    for (line, shown) in [
        ("DATA\r\n", r"DATA\r\n"),
        ("DATA x\r\n", "DATA<4$>"),
        ("DATA\0\r\n", "<7$0>"),
        ("\tDATA\r\n", r"\tDATA\r\n"),
        ("DATA\r\r\n", r"DATA\r\r\n"),
        ("DATEN\r\n", "<7$>"),
        ("HELP\r\n", r"HELP\r\n"),
        ("RSET\r\n", r"RSET\r\n"),
        ("", ""),
    ] {
        let [client, _] = cross(
            Talk::new,
            &[
                s("220 mx\r\n"),
                c(line),
                s("354 go\r\n"),
                c("hunter\r\nRSET\r\nNOOP\r\n.\r\n"),
                s("250 ok\r\n"),
                c("RSET\r\n"),
            ],
        );
        assert_eq!(client, format!(r"{shown}[18]\r\n.\r\nRSET\r\n"));
    }
}

/// What was begun before the go-ahead is content, too.
#[test]
fn a_line_that_was_begun_before_the_go_ahead() {
    check_greeted(
        &[c("DATEN\r\nRSE"), s("354 go\r\n"), c("T\r\n.\r\n"), s("250 ok\r\n"), c("RSET\r\n")],
        r"<7$>[4]\r\n.\r\nRSET\r\n",
        r"354 <4$>250 ok\r\n",
    );
    let long = "x".repeat(300);
    check_greeted(
        &[c(format!("DATA {long}")), s("354 go\r\n"), c("\r\nRSET\r\n.\r\n"), s("250 ok\r\n"), c("RSET\r\n")],
        r"DATA<301>[6]\r\n.\r\nRSET\r\n",
        r"354 <4$>250 ok\r\n",
    );
}

/// After DATA and before any reply nothing crosses but what content shows.
#[test]
fn content_before_its_go_ahead() {
    for data in ["DATA\r\n", "DATA x\r\n", "data;\r\n", " DATA\r\n"] {
        let shown = match data {
            "DATA x\r\n" => "DATA<4$>",
            "data;\r\n" => "<7$>",
            " DATA\r\n" => r" DATA\r\n",
            _ => r"DATA\r\n",
        };
        let [client, _] = cross(
            Talk::new,
            &[
                s("220 mx\r\n"),
                c(format!("{data}hunter\r\nRSET\r\nMAIL FROM:<hunter>\r\nAUTH PLAIN\r\n")),
                c("QUIT\r\nBDAT 3\r\nDATA\r\nhunter\r\n.\r\n"),
                s("354 go\r\n250 ok\r\n"),
                c("RSET\r\n"),
                s("250 ok\r\n"),
                c("NOOP x\r\n"),
            ],
        );
        assert_eq!(client, format!(r"{shown}[72]\r\n.\r\nRSET\r\nNOOP<4$>"));
    }
}

/// A message, and QUIT behind it, before the go-ahead: only full forms cross behind the end.
#[test]
fn commands_behind_content_before_its_go_ahead() {
    check_greeted(
        &[c("DATA\r\nRSET\r\n.\r\nNOOP hunter\r\nQUIT\r\n"), s("354 go\r\n250 ok\r\n500 hunter\r\n221 bye\r\n")],
        r"DATA\r\n[4]\r\n.\r\n(13)QUIT\r\n",
        r"354 <4$>250 <4$>500 <8$>221 <5$>",
    );
    // Behind DATA there may be content, whatever becomes of the message before.
    check_greeted(
        &[
            c("DATA\r\nx\r\n.\r\nMAIL FROM:<a@b>\r\nDATA\r\nRSET\r\nhunter\r\n"),
            s("354 go\r\n"),
            c("RSET\r\nhunter\r\n.\r\n"),
        ],
        r"DATA\r\n[1]\r\n.\r\nMAIL FROM:<a@b>\r\n(6)[26]\r\n.\r\n",
        "354 <4$>",
    );
}

/// Content before the reply, and then DATA is refused: the server reads it as commands, and repeats it.
#[test]
fn content_before_a_refusal() {
    check_greeted(
        &[
            c("DATA\r\nhunter\r\nsecret\r\nRSET\r\n.\r\n"),
            s("503 no recipients\r\n500 what is hunter\r\n250 hunter\r\n"),
            s("554 hunter\r\n"),
            c("hunter\r\n"),
            s("500 hunter\r\n"),
            c("RSET\r\n"),
            s("250 hunter\r\n"),
            c("NOOP x\r\n"),
            s("250 x\r\n"),
        ],
        r"DATA\r\n[20]\r\n.\r\n(8)RSET\r\nNOOP<4$>",
        r"503 <15$>500 <16$>250 <8$>554 <8$>500 <8$>250 <8$>250 <3$>",
    );
}

/// The same where a reply was left out before: which reply is the one to DATA is not known.
#[test]
fn content_before_a_refusal_behind_a_line_that_was_not_answered() {
    for echo in ["500 hunter\r\n", "250 hunter\r\n"] {
        let [_, server] = cross(
            Talk::new,
            &[s("220 mx\r\n"), c("NOOP\r\n"), c("DATA\r\nhunter\r\n"), s("554 no\r\n"), s(echo), s(echo), s(echo)],
        );
        assert_eq!(server, format!(r"220 mx\r\n554 <4$>{0}{0}{0}", shown(echo).replace(r"hunter\r\n", "<8$>")));
    }
}

/// And where the refusal came before the content.
#[test]
fn content_behind_a_refusal_behind_a_line_that_was_not_answered() {
    for echo in ["450 what is hunter\r\n", "550 what is hunter\r\n"] {
        let [_, server] = cross(
            Talk::new,
            &[s("220 mx\r\n"), c("NOOP\r\n"), c("DATA\r\n"), s("554 no\r\n"), c("hunter\r\n"), s(echo), s(echo)],
        );
        assert_eq!(server, format!(r"220 mx\r\n554 no\r\n{0}{0}", shown(echo).replace(r"what is hunter\r\n", "<16$>")));
    }
}

/// DATA is refused, or taken in an odd way, and the body is streamed on.
#[test]
fn content_behind_another_reply() {
    for reply in ["554 5.5.1 no\r\n", "250 ok\r\n", "451 later\r\n", "220 x\r\n"] {
        check_greeted(
            &[
                c("DATA\r\n"),
                s(reply),
                c("hunter\r\nNOOP secret\r\nhelp me\r\n"),
                s("500 hunter\r\n502 secret\r\n214 me\r\n"),
                c("secret\r\n.\r\n"),
                s("500 secret\r\n250 queued\r\n"),
                c("RSET\r\n"),
            ],
            r"DATA\r\n(38).\r\nRSET\r\n",
            &format!("{}500 <8$>502 <8$>214 <4$>500 <8$>250 <8$>", shown(reply)),
        );
    }
}

/// The message is over for the server, which reads what is left of it as commands and repeats it. What it says without
/// reading anything, as it leaves, is shown.
#[test]
fn replies_that_repeat_content() {
    for form in ["\n.\n", "\r.\r\n", "\r\n.\n", "\n.\r\n"] {
        check_greeted(
            &[
                c("DATA\r\n"),
                s("354 go\r\n"),
                c(format!("text{form}hunter\r\n.\r\n")),
                s("250 ok\r\n"),
                s("500 5.5.1 hunter: what\r\n250 2.1.0 hunter\r\n554-hunter\r\n554 hunter\r\n"),
                s("421 4.4.2 timeout\r\n"),
            ],
            &format!(r"DATA\r\n[4]{}[6]\r\n.\r\n", shown(form)),
            r"354 go\r\n250 ok\r\n500 5.5.1 <14$>250 2.1.0 <8$>554-<8$>554 <8$>421 4.4.2 timeout\r\n",
        );
    }
    // A message later, too.
    check_greeted(
        &[
            c("DATA\r\n"),
            s("354 go\r\n"),
            c("hunter\r\n.\r\n"),
            s("250 ok\r\n"),
            c("RSET\r\n"),
            s("250 ok\r\n502 hunter\r\n"),
            c("QUIT\r\n"),
            s("221 bye\r\n"),
        ],
        r"DATA\r\n[6]\r\n.\r\nRSET\r\nQUIT\r\n",
        r"354 go\r\n250 ok\r\n250 ok\r\n502 <8$>221 bye\r\n",
    );
}

/// A farewell may repeat what stayed, too.
#[test]
fn a_farewell_behind_what_was_withheld() {
    for (lines, shown) in [
        ("AUTH PLAIN hunter\r\nQUIT\r\n", r"AUTH PLAIN<9$><6$>"),
        ("QUIT hunter\r\n", r"QUIT<9$>"),
        ("hunter\r\nQUIT\r\n", r"<8$>QUIT\r\n"),
    ] {
        check_greeted(&[c(lines), s("221 2.0.0 closing hunter\r\n")], shown, r"221 2.0.0 <16$>");
    }
}

#[test]
fn a_reply_in_the_middle_of_content() {
    check_greeted(
        &[
            c("DATA\r\n"),
            s("354 go\r\n"),
            c("hunter\r\nRSET\r\nsec"),
            s("451 4.3.0 no\r\n500 hunter\r\n"),
            c("ret\r\nhelp hunter\r\n.\r\n"),
            s("500 secret\r\n250 hunter\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
            c("NOOP x\r\n"),
        ],
        // What a line was in whose middle a reply came is not known.
        r"DATA\r\n[17](18).\r\nNOOP\r\nNOOP<4$>",
        r"354 go\r\n451 4.3.0 no\r\n500 <8$>500 <8$>250 <8$>250 ok\r\n",
    );
    // The rest of a line that is letters only, and reads as a command.
    check_greeted(
        &[c("DATA\r\n"), s("354 go\r\n"), c("hunter"), s("451 no\r\n"), c("RSET\r\nhunter\r\n")],
        r"DATA\r\n[6](14)",
        r"354 go\r\n451 no\r\n",
    );
}

#[test]
fn forms_that_some_servers_take_for_the_end() {
    for (form, shown, before) in [
        ("\n.\n", r"\n.\n", 1),
        ("\n.\r\n", r"\n.\r\n", 1),
        ("\r.\r\n", r"\r.\r\n", 1),
        ("\r.\n", r"\r.\n", 1),
        ("\r\n.\n", r"\r\n.\n", 1),
        ("\r\n.\r\r\n", r"\r\n.\r\r\n", 1),
        ("\r\r\n.\n", r"\r\n.\n", 2),
        ("\n\0.\r\n", r"\n\x00.\r\n", 1),
        ("\r\n\0.\r\n", r"\n\x00.\r\n", 2),
        ("\n.\ry", r"\n.\rx", 1),
        ("\r.\ry", r"\r.\rx", 1),
        ("\r\n.\ry", r"\r\n.\rx", 1),
        ("\r\n.\r\ry", r"\r\n.\r\rx", 1),
    ] {
        check_greeted(
            &[
                c("DATA\r\n"),
                s("354 go\r\n"),
                c(format!("a{form}RSET\r\nhunter\n.\nhunter\r\n.\r\n")),
                s("250 ok\r\n"),
                c("NOOP x\r\n"),
            ],
            &format!(r"DATA\r\n[{before}]{shown}[21]\r\n.\r\nNOOP<4$>"),
            r"354 go\r\n250 ok\r\n",
        );
    }
}

#[test]
fn dots_that_are_text() {
    for body in
        ["a.b\r\n", "a\r\n..\r\n", "a\r\n.a\r\n", "a.\r\n", "a\0.\r\n", "\x01.\x02\r\n.\0\r\n", "a\r\n.\0\n\r\n"]
    {
        check_greeted(
            &[c("DATA\r\n"), s("354 go\r\n"), c(body), c(".\r\n"), s("250 ok\r\n")],
            &format!(r"DATA\r\n[{}]\r\n.\r\n", body.len() - 2),
            r"354 go\r\n250 ok\r\n",
        );
    }
}

/// A message ends with a form that this server takes for its end, and answers.
#[test]
fn a_disputed_end_that_is_answered() {
    for (form, shown) in [("\n.\n", r"\n.\n"), ("\r\n.\r\r\n", r"\r\n.\r\r\n"), ("\r.\r\n", r"\r.\r\n")] {
        check_greeted(
            &[
                c("DATA\r\n"),
                s("354 go\r\n"),
                c(format!("hunter{form}")),
                s("250 queued\r\n"),
                c("NOOP x\r\n"),
                s("250 x\r\n"),
                c("NOOP\r\n"),
                s("250 ok\r\n"),
            ],
            &format!(r"DATA\r\n[6]{shown}NOOP<4$>NOOP\r\n"),
            r"354 go\r\n250 queued\r\n250 <3$>250 ok\r\n",
        );
    }
    // Behind one that was told before.
    check_greeted(
        &[c("DATA\r\n"), s("354 go\r\n"), c("a\n.\nb\r\n.\n"), s("250 ok\r\n"), c("NOOP x\r\n")],
        r"DATA\r\n[1]\n.\n[5]NOOP<4$>",
        r"354 go\r\n250 ok\r\n",
    );
    // The same in one call, with a control byte in between.
    check_greeted(
        &[c("DATA\r\n"), s("354 go\r\n"), c("a\n.\n\r8\n.\r\n"), s("250 ok\r\n"), c("NOOP x\r\n")],
        r"DATA\r\n[1]\n.\n[6]NOOP<4$>",
        r"354 go\r\n250 ok\r\n",
    );
    // Both forms share a line's end.
    check_greeted(
        &[c("DATA\r\n"), s("354 go\r\n"), c("a\n.\nb\n.\r\n.\r\n"), s("250 ok\r\n"), c("NOOP x\r\n")],
        r"DATA\r\n[1]\n.\n[3]\r\n.\r\nNOOP<4$>",
        r"354 go\r\n250 ok\r\n",
    );
}

/// Content goes on behind such a form, and the server answers: it reads commands there, or refuses the message.
#[test]
fn a_disputed_end_in_the_middle_that_is_answered() {
    check_greeted(
        &[
            c("DATA\r\n"),
            s("354 go\r\n"),
            c("a\n.\nMAIL FROM:<hunter>\r\nhunter\r\n"),
            s("250 ok\r\n250 hunter\r\n"),
            c("hunter\r\nRSET\r\nhunter\r\n"),
        ],
        r"DATA\r\n[1]\n.\n[28](8)RSET\r\n(8)",
        r"354 go\r\n250 ok\r\n250 <8$>",
    );
}

#[test]
fn a_second_message_in_one_call() {
    check_greeted(
        &[
            c("DATA\r\n"),
            s("354 go\r\n"),
            c("hunter\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nRSET\r\nhunter\r\n"),
            s("250 one\r\n250 two\r\n250 three\r\n"),
            c("RSET\r\nhunter"),
            s("354 go\r\n"),
            c("\r\n.\r\n"),
            s("250 ok\r\n"),
            c("QUIT\r\n"),
        ],
        r"DATA\r\n[6]\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n[26]\r\n.\r\nQUIT\r\n",
        r"354 go\r\n250 one\r\n250 two\r\n250 three\r\n354 go\r\n250 ok\r\n",
    );
}

#[test]
fn a_go_ahead_inside_content_changes_nothing() {
    check_greeted(
        &[
            c("DATA\r\n"),
            s("354 go\r\n"),
            c("hunter\r\n"),
            s("354 go\r\n"),
            c("RSET\r\n.\r\n"),
            s("250 ok\r\n"),
            c("RSET\r\n"),
        ],
        r"DATA\r\n[12]\r\n.\r\nRSET\r\n",
        r"354 go\r\n354 go\r\n250 ok\r\n",
    );
}

#[test]
fn long_content() {
    let body = "hunter\r\n".repeat(2000);
    check_greeted(
        &[c("DATA\r\n"), s("354 go\r\n"), c(body), c(".\r\n"), s("250 ok\r\n")],
        r"DATA\r\n[15998]\r\n.\r\n",
        r"354 go\r\n250 ok\r\n",
    );
    // As many dots as can be.
    let body = "\x01.".repeat(2000);
    check_greeted(
        &[c("DATA\r\n"), s("354 go\r\n"), c(body), c("\r\n.\r\n"), s("250 ok\r\n")],
        r"DATA\r\n[4000]\r\n.\r\n",
        r"354 go\r\n250 ok\r\n",
    );
}
