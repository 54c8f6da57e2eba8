//! What crosses of commands, and of an authentication.

use super::*;

#[test]
fn arguments_in_their_form() {
    let line = "EHLO [IPv6:2001:db8::1]\r\nHELO a_b.example\r\nlhlo x\r\nETRN @a.example\r\nETRN #queue\r\n\
                mail from:<> BODY=8BITMIME AUTH=<> SMTPUTF8\r\nMAIL FROM : <\"a b\"@c>\r\nRCPT TO:<@a,@b:c@d> NOTIFY=NEVER\r\n\
                RCPT TO: bare@example ORCPT=rfc822;a@b\r\n\
                XCLIENT NAME=a.example ADDR=192.0.2.1 LOGIN=[UNAVAILABLE]\r\nXFORWARD SOURCE=LOCAL\r\nXEXCH50 7 2\r\n\
                SEND FROM:<a@b>\r\nSTARTTLS\r\nX-ANONYMOUSTLS\r\nRSET\r\nNOOP\r\nHELP\r\nXXXXXXXX\r\nQUIT\r\n\r\n\n";
    check_greeted(&[c(line)], &shown(line), "");
}

#[test]
fn arguments_in_another_form() {
    for (line, shown) in [
        ("NOOP hunter\r\n", "NOOP<9$>"),
        ("VRFY hunter\r\n", "VRFY<9$>"),
        ("EXPN hunter\n", "EXPN<8~>"),
        ("HELP hunter\r\n", "HELP<9$>"),
        ("RSET hunter\r\n", "RSET<9$>"),
        ("QUIT hunter\r\n", "QUIT<9$>"),
        ("STARTTLS hunter\r\n", "STARTTLS<9$>"),
        ("BURL imap://hunter\r\n", "BURL<16$>"),
        ("burl imap://hunter last\r\n", r"burl<14> last\r\n"),
        ("BURL LAST\r\n", "BURL<7$>"),
        ("TURN hunter\r\n", "TURN<9$>"),
        ("EHLO hunter secret\r\n", "EHLO<16$>"),
        ("HELO hun\"ter\r\n", "HELO<10$>"),
        ("MAIL hunter\r\n", "MAIL<9$>"),
        ("MAIL FROM hunter\r\n", "MAIL<14$>"),
        ("MAIL FROM:<my hunter secret>\r\n", "MAIL<26$>"),
        ("MAIL FROM:<a@b> hun\"ter\r\n", "MAIL FROM:<a@b> hun<6$>"),
        ("MAIL FROM:<a@b>hunter\r\n", "MAIL FROM:<a@b><8$>"),
        ("MAIL FROM:<hunter\r\n", "MAIL<15$>"),
        ("MAIL FROM:<\"hun>ter\"@a>\r\n", "MAIL<21$>"),
        ("XXXX hunter\r\n", "XXXX<9$>"),
        ("XXXXX hunter\r\n", "<14$>"),
        ("RCPT FROM:<hunter>\r\n", "RCPT<16$>"),
        ("RCPT TO:<a@b> hunter! secret\r\n", "RCPT TO:<a@b> hunter<10$>"),
        ("XCLIENT hunter\r\n", "XCLIENT <8$>"),
        ("XCLIENT NAME=a hunter\r\n", "XCLIENT NAME=a <8$>"),
        ("XFORWARD hunter NAME=a\r\n", "XFORWARD <15$>"),
        ("XEXCH50 hunter\r\n", "XEXCH50<9$>"),
        ("XEXCH50 7 2 hunter\r\n", "XEXCH50<13$>"),
        ("ETRN a hunter\r\n", "ETRN<11$>"),
        ("hunter\r\n", "<8$>"),
        ("hunter secret\n", "<14~>"),
        ("hun\0ter\r\n", "<9$0>"),
        ("hun\rter\r\n", "<9$^>"),
        ("hun\r\0ter\r\r\n", "<11$0^>"),
        ("NOOPhunter\r\n", "<12$>"),
        ("NOOP;hunter\r\n", "<13$>"),
        ("HELP\0\r\n", "<7$0>"),
        ("MAILFROM:<hunter>\r\n", "<19$>"),
        ("GET / HTTP/1.1\r\n", "<16$>"),
    ] {
        let shown = format!(r"RSET\r\n{shown}");
        check_greeted(&[c("RSET\r\n"), c(line)], &shown, "");
    }
}

#[test]
fn blanks_and_crs_that_servers_forgive() {
    let lines = " NOOP\r\n\t MAIL FROM:<a@b> \r\nRSET \t\r\nRSET\r\r\nMAIL FROM:<a@b>\r\r\n";
    check_greeted(&[c(lines)], &shown(lines), "");
}

#[test]
fn an_authentication() {
    check_greeted(
        &[
            c("AUTH LOGIN\r\n"),
            s("334 VXNlcm5hbWU6\r\n"),
            c("hunter\r\n"),
            s("334 x\r\n"),
            c("secret\r\n"),
            s("535 5.7.8 no hunter\r\n"),
            c("AUTH PLAIN abc\r\n"),
            s("501 5.5.4 cannot decode abc\r\n"),
            c("hunter\r\n"),
            s("500 what is hunter?\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
            c("auth hunter\r\n"),
            s("504 5.5.4 hunter\r\n"),
        ],
        r"AUTH LOGIN\r\n<8$><8$>AUTH PLAIN<6$><8$>NOOP\r\nauth<9$>",
        r"334 <14$>334 <3$>535 5.7.8 <11$>501 5.5.4 <19$>500 <17$>250 ok\r\n504 5.5.4 <8$>",
    );
}

#[test]
fn an_authentication_that_is_accepted() {
    check_greeted(
        &[
            c("AUTH GSSAPI\r\n"),
            s("334 \r\n"),
            c("hunter\r\n"),
            s("334 secret\r\n"),
            c("\r\n"),
            s("235 2.7.0 welcome hunter\r\n"),
            c("MAIL FROM:<a@b>\r\n"),
            s("250 ok\r\n"),
        ],
        r"AUTH GSSAPI\r\n<8$><2$>MAIL FROM:<a@b>\r\n",
        r"334 \r\n334 <8$>235 2.7.0 <16$>250 ok\r\n",
    );
}

#[test]
fn mechanisms_are_of_a_table() {
    for (line, shown) in [
        ("AUTH XOAUTH2 hunter\r\n", "AUTH XOAUTH2<9$>"),
        ("X-EXPS GSSAPI hunter\r\n", "X-EXPS GSSAPI<9$>"),
        ("AUTH PLAIN\thunter\r\n", "AUTH PLAIN<9$>"),
        ("AUTH PLAIN\r\r\n", r"AUTH PLAIN\r\r\n"),
        ("AUTH PLAINhunter\r\n", "AUTH<14$>"),
        ("AUTH PLAIN=hunter\r\n", "AUTH<15$>"),
        ("AUTH hunter\r\n", "AUTH<9$>"),
        ("AUTH=hunter\r\n", "<13$>"),
        ("AUTH\0LOGIN hunter\r\n", "<19$0>"),
        ("AUTH  CRAM-MD5\r\n", r"AUTH  CRAM-MD5\r\n"),
    ] {
        // All of them are commands that an answer may follow.
        check_greeted(
            &[c(line), s("334 hunter\r\n"), c("RSET\r\n"), s("235 hunter\r\n")],
            &format!("{shown}<6$>"),
            "334 <8$>235 <8$>",
        );
    }
}

#[test]
fn commands_sent_ahead_of_an_answer_are_answers() {
    check_greeted(
        &[
            c("AUTH PLAIN hunter\r\nMAIL FROM:<secret@x>\r\nRSET\r\n"),
            s("235 hunter\r\n250 secret\r\n"),
            s("250 hunter\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
        ],
        r"AUTH PLAIN<9$><22$><6$>NOOP\r\n",
        r"235 <8$>250 <8$>250 <8$>250 ok\r\n",
    );
}

/// An answer of letters only that reads as a command.
#[test]
fn answers_that_read_as_commands() {
    check_greeted(
        &[
            c("AUTH LOGIN\r\n"),
            s("334 a\r\n"),
            c("DATA\r\n"),
            s("334 b\r\n"),
            c("NOOP hunter\r\n"),
            s("235 ok\r\n"),
            c("NOOP\r\n"),
        ],
        r"AUTH LOGIN\r\n<6$><13$>NOOP\r\n",
        r"334 <3$>334 <3$>235 <4$>",
    );
}

/// What waits when the last reply comes is no line of its own: a chunk was said with AUTH.
#[test]
fn a_chunk_that_is_said_with_auth() {
    check_greeted(
        &[
            c("AUTH PLAIN hunter\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 22\r\nMail from: hunter secr"),
            s("235 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n"),
            c("BDAT 0 LAST\r\n"),
        ],
        r"AUTH PLAIN<9$><17$><15$><9$><35$>",
        r"235 <4$>250 <4$>250 <4$>250 <4$>",
    );
}

/// A command that is begun when the last reply comes is not read to its end, so it is not certain what stands behind it.
#[test]
fn a_chunk_that_is_begun_before_the_last_reply_to_auth() {
    check_greeted(
        &[
            c("AUTH PLAIN hunter\r\nBDAT 1"),
            s("235 ok\r\n"),
            c("4 LAST\r\nVRFY hunter\r\nRSET\r\nNOOP x\r\n"),
            s("250 hunter\r\n"),
        ],
        r"AUTH PLAIN<9$><14$>(13)RSET\r\n(8)",
        "235 <4$>250 <8$>",
    );
}

/// A sentence that begins like a command: of what is no path in brackets, one word crosses.
#[test]
fn a_sentence_that_begins_like_a_command() {
    check_greeted(
        &[c("Mail from: dear hunter how are you\r\n"), s("501 no\r\n"), c("RCPT TO:a@b NOTIFY=NEVER\r\n")],
        r"Mail from: dear <20$>RCPT TO:a@b NOTIFY=NEVER\r\n",
        "501 <4$>",
    );
}

/// A reply that is there before AUTH is complete ends no authentication.
#[test]
fn a_reply_before_auth() {
    check_greeted(
        &[c("AUTH PLAIN hunter"), s("235 ok\r\n"), c("\r\nhunter\r\nRSET\r\n")],
        "AUTH PLAIN<9$><8$><6$>",
        r"235 ok\r\n",
    );
}

#[test]
fn a_challenge_that_nobody_asked_for() {
    check_greeted(
        &[
            c("FOO\r\n"),
            s("334 VXNlcm5hbWU6\r\n"),
            c("hunter\r\n"),
            s("235 hunter\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
        ],
        r"<5$><8$>NOOP\r\n",
        r"334 <14$>235 <8$>250 ok\r\n",
    );
}

#[test]
fn a_line_that_is_too_long_to_wait() {
    let long = "x".repeat(300);
    for (line, shown) in [
        (format!("MAIL FROM:<a@b> SIZE={long}\r\n"), format!(r"MAIL FROM:<a@b> SIZE={long}\r\n")),
        (format!("MAIL FROM:<a@b> SIZE={long}\n"), format!(r"MAIL FROM:<a@b> SIZE={long}\n")),
        (format!("RCPT TO:<{long}> A=B C\r\r\n"), format!(r"RCPT TO:<{long}> A=B C\r\r\n")),
        (format!("RCPT TO:<\"{long} y\"@z>\r\n"), format!("RCPT TO:<\\\"{long} y\\\"@z>\\r\\n")),
        (format!("RCPT TO:<{long} y@z>\r\n"), format!("RCPT TO:<{long}<7$>")),
        (format!("RCPT TO:<{long}\r\n"), format!("RCPT TO:<{long}<2$>")),
        (format!("RCPT TO:<{long}> A \"hunter\"\r\n"), format!("RCPT TO:<{long}> A <10$>")),
        (format!("RCPT TO:<{long}> A\rhunter\r\n"), format!(r"RCPT TO:<{long}> A\r<8$>")),
        (format!("NOOP {long}\r\n"), "NOOP<303$>".into()),
        (format!("EHLO {long}\r\n"), "EHLO<303$>".into()),
        (format!("AUTH PLAIN {long}\r\n"), "AUTH PLAIN<303$>".into()),
        (format!("{long}\r\n"), "<302$>".into()),
        (format!("{long}\0{long}\r{long}\r\r\n"), "<905$0^>".into()),
        (format!("{long}\n"), "<301~>".into()),
    ] {
        check_greeted(&[c(line)], &shown, "");
    }
}

/// 256 bytes may wait: lines about that length have the form that their bytes have.
#[test]
fn lines_about_the_length_that_may_wait() {
    for length in 238..244 {
        let name = "n".repeat(length);
        let line = format!("RCPT TO:<{name}@b> C=D\r\n");
        check_greeted(&[c(&line)], &shown(&line), "");
        let line = format!("{}hunter{name}\r\n", "y".repeat(6));
        check_greeted(&[c(&line)], &format!("<{}$>", line.len()), "");
    }
}

#[test]
fn a_line_that_is_longer_than_any_may_be() {
    let line = format!("MAIL FROM:<a@b> SIZE={}\r\n", "x".repeat(3000));
    let shown = format!("MAIL FROM:<a@b> SIZE={}<975$>", "x".repeat(2048 - 21));
    check_greeted(&[c(line), s("500 xxx\r\n")], &shown, "500 <5$>");
}

#[test]
fn many_lines_in_one_call() {
    let lines = "NOOP\r\n".repeat(680);
    check_greeted(&[c(&lines)], &shown(&lines), "");
    check_greeted(&[c("x\n".repeat(2048))], &"<2~>".repeat(2048), "");
    check_greeted(&[c("\n".repeat(4096))], &r"\n".repeat(4096), "");
    let hidden = "200 x\n".repeat(600);
    check_greeted(&[c("hunter\r\n".repeat(600)), s(&hidden)], &"<8$>".repeat(600), &"200 <2~>".repeat(600));
}
