//! What crosses of BDAT's chunks (RFC 3030), and of XEXCH50's block.

use super::*;

#[test]
fn chunks_and_the_next_mail_in_one_call() {
    check_greeted(
        &[
            c(
                "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 8\r\nhunter\r\nBDAT 6\r\nRSET\r\nBDAT 0\r\nBDAT 5 LAST\r\nhunteMAIL FROM:<e@f>\r\n\
               RCPT TO:<g@h>\r\nBDAT 9 last\r\n\r\n.\r\nRSETRSET\r\nQUIT\r\n",
            ),
            s("250 1\r\n250 2\r\n250 3\r\n250 4\r\n250 5\r\n250 6\r\n250 7\r\n250 8\r\n250 9\r\n250 10\r\n221 bye\r\n"),
        ],
        r"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 8\r\n[8]BDAT 6\r\n[6]BDAT 0\r\nBDAT 5 LAST\r\n[5]MAIL FROM:<e@f>\r\nRCPT TO:<g@h>\r\nBDAT 9 last\r\n[9]RSET\r\nQUIT\r\n",
        r"250 1\r\n250 2\r\n250 3\r\n250 4\r\n250 5\r\n250 6\r\n250 7\r\n250 8\r\n250 9\r\n250 10\r\n221 bye\r\n",
    );
}

#[test]
fn chunks_one_by_one() {
    check_greeted(
        &[
            c("BDAT 6\r\n"),
            c("hunter"),
            s("250 6 octets\r\n"),
            c("BDAT 6 LAST\r\nNOOP\r\n"),
            s("250 queued\r\n"),
            c("NOOP x\r\n"),
        ],
        r"BDAT 6\r\n[6]BDAT 6 LAST\r\n[6]NOOP<4$>",
        r"250 6 octets\r\n250 queued\r\n",
    );
}

/// Behind a chunk only full forms cross, until it is answered.
#[test]
fn a_chunk_with_too_small_a_size() {
    check_greeted(
        &[
            c("BDAT 3 LAST\r\nhunter\r\nNOOP hunter\r\nhelp hunter\r\nRSET\r\nsecret\r\n"),
            s("250 ok\r\n500 ter\r\n250 hunter\r\n214 hunter\r\n250 ok\r\n"),
            s("500 secret\r\n"),
            c("secret\r\n"),
            s("500 secret\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
            c("NOOP x\r\n"),
            s("250 x\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
        ],
        r"BDAT 3 LAST\r\n[3](31)RSET\r\n(16)NOOP\r\nNOOP<4$>NOOP\r\n",
        r"250 <4$>500 <5$>250 <8$>214 <8$>250 <4$>500 <8$>500 <8$>250 <4$>250 <3$>250 ok\r\n",
    );
}

#[test]
fn a_chunk_with_too_large_a_size() {
    check_greeted(
        &[c("BDAT 100 LAST\r\nhunter\r\n"), s("250 ok\r\n"), c("hunter\r\nRSET\r\nhunter\r\n"), s("250 hunter\r\n")],
        // In what line the octets end is not known.
        r"BDAT 100 LAST\r\n[8](8)RSET\r\n(8)",
        r"250 ok\r\n250 <8$>",
    );
    // Its octets never come.
    check_greeted(
        &[c("BDAT 99999999999 LAST\r\n"), s("552 too big\r\n"), c("RSET\r\n"), s("250 ok\r\n"), c("NOOP x\r\n")],
        r"BDAT 99999999999 LAST\r\nRSET\r\nNOOP<4$>",
        r"552 too big\r\n250 ok\r\n",
    );
}

#[test]
fn sizes_that_are_malformed() {
    for (line, shown) in [
        ("BDAT hunter\r\n", "BDAT<9$>"),
        ("BDAT\r\n", r"BDAT\r\n"),
        ("BDAT 6 hunter\r\n", "BDAT<11$>"),
        ("BDAT 6 LASTER\r\n", "BDAT<11$>"),
        ("BDAT 6LAST\r\n", "BDAT<8$>"),
        ("BDAT -6\r\n", "BDAT<5$>"),
        ("BDAT +6\r\n", "BDAT<5$>"),
        ("BDAT 0x6\r\n", "BDAT<6$>"),
        ("BDAT 6.0\r\n", "BDAT<6$>"),
        ("BDAT 99999999999999999999\r\n", "BDAT<23$>"),
        ("BDAT;6\r\n", "<8$>"),
    ] {
        check_greeted(
            &[
                c(format!("{line}hunter\r\nNOOP hunter\r\nhelp hunter\r\nBDAT 3\r\nRSET\r\nhunter\r\n")),
                s("501 no\r\n500 hunter\r\n250 hunter\r\n"),
                c("RSET\r\n"),
            ],
            &format!(r"{shown}(42)RSET\r\n(8)RSET\r\n"),
            "501 <4$>500 <8$>250 <8$>",
        );
    }
}

/// A refused chunk still has its octets, however many come behind the refusal (RFC 3030, 2).
#[test]
fn a_chunk_that_is_refused() {
    check_greeted(
        &[
            c("BDAT 24 LAST\r\nhunter\r\n"),
            s("552 too big\r\n"),
            c("RSET\r\nNOOP\r\n"),
            c("RSETQUIT\r\n"),
            s("221 bye\r\n"),
        ],
        r"BDAT 24 LAST\r\n[24]QUIT\r\n",
        r"552 too big\r\n221 bye\r\n",
    );
    // A server that knows no BDAT reads them as commands, and repeats them.
    check_greeted(
        &[
            c("BDAT 16 LAST\r\nhunter\r\nhunter\r\nRSET\r\n"),
            s("502 what is BDAT\r\n500 hunter\r\n250 hunter\r\n"),
            s("250 ok\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
            c("NOOP x\r\n"),
        ],
        r"BDAT 16 LAST\r\n[16]RSET\r\nNOOP\r\nNOOP<4$>",
        r"502 <14$>500 <8$>250 <8$>250 <4$>250 <4$>",
    );
    // So does one that has left a line unanswered: which reply is the one to BDAT is not known.
    check_greeted(
        &[c("NOOP\r\n"), c("BDAT 8 LAST\r\n"), s("502 no\r\n"), c("hunter\r\n"), s("500 what is hunter\r\n")],
        r"NOOP\r\nBDAT 8 LAST\r\n[8]",
        r"502 no\r\n500 <16$>",
    );
    check_greeted(
        &[
            c("BDAT 1000 LAST\r\nhunter\r\nhunt"),
            s("502 what is BDAT\r\n500 hunter\r\n"),
            c("er\r\nhunter\r\nRSET\r\nhunter\r\n"),
            s("500 hunter\r\n"),
        ],
        r"BDAT 1000 LAST\r\n[12](12)RSET\r\n(8)",
        r"502 <14$>500 <8$>500 <8$>",
    );
}

#[test]
fn a_go_ahead_inside_a_chunk() {
    check_greeted(
        &[
            c("BDAT 20\r\nhunter\r\n"),
            s("354 go\r\n"),
            c("RSET\r\nhunter\r\nRSET\r\n.\r\n"),
            s("250 ok\r\n"),
            c("RSET\r\n"),
        ],
        r"BDAT 20\r\n[26]\r\n.\r\nRSET\r\n",
        r"354 go\r\n250 ok\r\n",
    );
}

/// So many octets behind the 354, and one more reply.
#[test]
fn a_block() {
    check_greeted(
        &[
            c("XEXCH50 12 2\r\n"),
            s("354 send\r\n"),
            c("\0\r\n.\r\nRSET\r\n"),
            c("hunter"),
            s("250 got it\r\n"),
            c("NOOP x\r\n"),
        ],
        r"XEXCH50 12 2\r\n[12](14)",
        r"354 send\r\n250 got it\r\n",
    );
    check_greeted(
        &[
            c("XEXCH50 12 2\r\n"),
            s("354 send\r\n"),
            c("\0\r\n.\r\nRSETxyNOOP\r\n"),
            s("250 got it\r\n250 ok\r\n"),
            c("NOOP x\r\n"),
        ],
        r"XEXCH50 12 2\r\n[12]NOOP\r\nNOOP<4$>",
        r"354 send\r\n250 got it\r\n250 ok\r\n",
    );
    check_greeted(
        &[c("XEXCH50 12 2\r\n"), s("504 no\r\n"), c("NOOP x\r\n")],
        r"XEXCH50 12 2\r\nNOOP<4$>",
        r"504 no\r\n",
    );
    // With more behind it, or with no size, it is content up to a reply.
    for (line, shown) in [
        ("XEXCH50 12 2\r\nNOOP\r\n", r"XEXCH50 12 2\r\nNOOP\r\n"),
        ("XEXCH50 0 2\r\n", r"XEXCH50 0 2\r\n"),
        ("XEXCH50 x\r\n", "XEXCH50<4$>"),
    ] {
        let [client, _] = cross(
            Talk::new,
            &[
                s("220 mx\r\n"),
                c(line),
                s("354 send\r\n"),
                c("hunter\r\nRSET\r\n"),
                s("250 ok\r\n"),
                c("RSET\r\nhunter\r\n"),
                s("250 ok\r\n"),
            ],
        );
        assert_eq!(client, format!(r"{shown}[14]RSET\r\n(8)"));
    }
}

/// LMTP: a last chunk earns a reply for each recipient.
#[test]
fn a_last_chunk_of_lmtp() {
    check_greeted(
        &[
            c("LHLO x\r\n"),
            s("250 mx\r\n"),
            c("MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\n"),
            s("250 ok\r\n250 a\r\n250 c\r\n"),
            c("BDAT 6 LAST\r\nhunter"),
            s("250 a\r\n"),
            c("VRFY secret\r\n"),
            s("250 c\r\n252 secret\r\n"),
            c("NOOP\r\n"),
            s("250 ok\r\n"),
        ],
        r"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 6 LAST\r\n[6]VRFY<9$>NOOP\r\n",
        r"250 mx\r\n250 ok\r\n250 a\r\n250 c\r\n250 a\r\n250 <3$>252 <8$>250 ok\r\n",
    );
    // How many that are is not known where they have not been answered: no reply is shown then.
    check_greeted(
        &[
            c("LHLO x\r\n"),
            s("250 mx\r\n"),
            c("MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 6 LAST\r\nhunter"),
            s("250 ok\r\n250 a\r\n250 c\r\n250 a\r\n250 c\r\n"),
            c("RSET\r\n"),
            s("250 ok\r\n"),
        ],
        r"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 6 LAST\r\n[6]RSET\r\n",
        r"250 mx\r\n250 <4$>250 <3$>250 <3$>250 <3$>250 <3$>250 ok\r\n",
    );
}
