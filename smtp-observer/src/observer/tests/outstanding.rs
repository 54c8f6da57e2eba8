//! What had no reply when the connection closed.

use super::*;

/// What is told of the end of a dialogue: how many commands are outstanding, and which.
fn closed(dialogue: &[(Flow, &str)]) -> (Option<u32>, Vec<&'static str>) {
    let mut story = Story::new();
    story.connect();
    for (flow, text) in dialogue {
        story.transfer(CLIENT, *flow, text);
    }
    end(story)
}

fn end(mut story: Story) -> (Option<u32>, Vec<&'static str>) {
    story.state(TcpState::Established, TcpState::Close, None);
    if story.observer.has_deadlines() {
        story.settle();
    }
    match story.told.pop().map(|told| told.event) {
        Some(Event::ConnectionClosed { outstanding_count, outstanding, .. }) => (outstanding_count, outstanding),
        other => panic!("{other:?}"),
    }
}

use Flow::{Received, Sent};

const GREETING: (Flow, &str) = (Received, "220 mx ESMTP\r\n");

#[test]
fn commands_without_a_reply() {
    assert_eq!(closed(&[]), (Some(0), vec![]), "the greeting is no command's reply");
    assert_eq!(closed(&[GREETING]), (Some(0), vec![]));
    assert_eq!(closed(&[GREETING, (Sent, "QUIT\r\n")]), (Some(1), vec!["QUIT"]));
    assert_eq!(closed(&[GREETING, (Sent, "QUIT\r\n"), (Received, "221 bye\r\n")]), (Some(0), vec![]));
    let early = "NOOP\r\nRSET\r\nsecret\r\nQUIT\r\n";
    assert_eq!(closed(&[GREETING, (Sent, early), (Received, "250 ok\r\n")]), (Some(3), vec!["RSET", "other", "QUIT"]));
    assert_eq!(closed(&[GREETING, (Sent, "QU")]), (Some(0), vec![]), "half a line earns no reply");
}

#[test]
fn many_are_counted_and_eight_are_named() {
    let all = "NOOP\r\n".repeat(9) + "QUIT\r\n";
    assert_eq!(closed(&[GREETING, (Sent, &all)]), (Some(10), vec!["NOOP"; 8]));
}

#[test]
fn messages_without_a_reply() {
    let data = [GREETING, (Sent, "DATA\r\n"), (Received, "354 go\r\n")];
    let with = |last: &[(Flow, &'static str)]| closed(&[&data[..], last].concat());
    assert_eq!(closed(&data[..2]), (Some(1), vec!["DATA"]));
    assert_eq!(with(&[(Sent, "x\r\n.\r\n")]), (Some(1), vec!["DATA"]));
    assert_eq!(with(&[(Sent, "x\r\n.\r\nQUIT\r\n")]), (Some(2), vec!["DATA", "QUIT"]));
    assert_eq!(with(&[(Sent, "x\r\n")]), (Some(0), vec![]), "its end has not come");
    assert_eq!(with(&[(Sent, "x\r\n.\r\n"), (Received, "250 ok\r\n")]), (Some(0), vec![]));
    assert_eq!(closed(&[GREETING, (Sent, "BDAT 3 LAST\r\nx\r\n")]), (Some(1), vec!["BDAT"]));
}

#[test]
fn final_replies_of_recipients() {
    let envelope = [
        GREETING,
        (Sent, "LHLO c.example\r\n"),
        (Received, "250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n"),
        (
            Sent,
            "MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\nRCPT TO:<d@y.example>\r\n",
        ),
        (Received, "250 a\r\n250 b\r\n250 c\r\n250 d\r\n"),
    ];
    let data = [(Sent, "DATA\r\n"), (Received, "354 go\r\n"), (Sent, "x\r\n.\r\n")];
    let with = |last: &[(Flow, &'static str)]| closed(&[&envelope[..], &data[..], last].concat());
    assert_eq!(with(&[]), (Some(3), vec!["DATA"; 3]));
    assert_eq!(with(&[(Received, "250 b\r\n")]), (Some(2), vec!["DATA"; 2]));
    assert_eq!(with(&[(Received, "250 b\r\n421 down\r\n")]), (Some(1), vec!["DATA"]));
    assert_eq!(with(&[(Received, "250 b\r\n"), (Sent, "QUIT\r\n")]), (Some(3), vec!["DATA", "DATA", "QUIT"]));
    assert_eq!(with(&[(Received, "250 b\r\n550 c\r\n250 d\r\n")]), (Some(0), vec![]));
    assert_eq!(with(&[(Received, "353 each\r\n250 b\r\n")]), (Some(3), vec!["DATA"; 3]), "two recipients, and all");
    let chunk =
        |last: &[(Flow, &'static str)]| closed(&[&envelope[..], &[(Sent, "BDAT 3 LAST\r\nx\r\n")], last].concat());
    assert_eq!(chunk(&[]), (Some(3), vec!["BDAT"; 3]));
    assert_eq!(chunk(&[(Received, "250 b\r\n")]), (Some(2), vec!["BDAT"; 2]));
    assert_eq!(chunk(&[(Received, "503 no chunks\r\n")]), (Some(0), vec![]));
}

#[test]
fn what_is_not_certain_is_not_told() {
    // QUIT went by a path without a hook.
    let mut story = Story::new();
    story.connect();
    story.transfer(CLIENT, Received, GREETING.1);
    story.written += 6;
    assert_eq!(end(story), (None, vec![]));
    // Under way when it was first seen.
    let mut story = Story::new();
    story.transfer(CLIENT, Sent, "NOOP\r\n");
    assert_eq!(end(story), (None, vec![]));
}
