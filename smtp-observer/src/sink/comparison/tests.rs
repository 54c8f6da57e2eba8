use serde_json::Value;

use super::*;
use crate::compare::samples::{CLIENT, DATA, Line, MAIL, NOOP, PROXY, Path, QUEUED, RCPT, Socket, WAY, client, server};

fn text(path: &Path) -> String {
    let mut out = Vec::new();
    Format { colour: false }.write(&path.report(), &mut out).expect("writable");
    String::from_utf8(out).expect("UTF-8")
}

fn objects(path: &Path) -> Vec<Value> {
    let mut out = Vec::new();
    json(&path.report(), &mut out).expect("writable");
    let lines = std::str::from_utf8(&out).expect("UTF-8").lines();
    lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A message that is held back for half a second, while the server is kept waiting.
fn held() -> Path {
    let mut path = Path::ahead(0);
    let (from, to) = (client("mail-client", CLIENT), server("mail-server", PROXY));
    path.greet(0, to);
    path.greet(WAY, from);
    path.say(100, from, Line("EHLO c.example", 250, "mx.example\nPIPELINING\nCHUNKING"), 9);
    path.say(104, to, Line("EHLO c.example", 250, "mx.example\nSTARTTLS\nPIPELINING"), 1);
    path.pass(200, from, to, MAIL);
    path.pass(300, from, to, RCPT);
    path.say(400, from, Line("DATA", 354, "Please start mail input."), 1);
    path.say(500, to, NOOP, 1);
    path.say(600, to, NOOP, 1);
    path.message(800, from, 131, "Mail queued.", 1);
    path.say(904, to, DATA, 1);
    path.message(910, to, 140, QUEUED, 1);
    path.close(920, from);
    path.close(920, to);
    path
}

#[test]
fn two_columns() {
    let text = text(&held());
    let expected = "\
198.51.100.4:40001 → 192.0.2.25:25, mail-client (pid 7)
192.0.2.25:25 ← 198.51.100.4:40002, mail-server (pid 7)
  the addresses are not each other's: found by sender, recipient and time
  mailboxes are not shown whole: another mail between the same domains may have been taken for it

  the client's end                   the server's end
  220 mx.example ESMTP               220 mx.example ESMTP
  EHLO c.example                     EHLO c.example
    250 mx.example                     250 mx.example
                                  >    250 STARTTLS
    250 PIPELINING                     250 PIPELINING
    250 CHUNKING                  <
  MAIL FROM:<*@c.example>            MAIL FROM:<*@c.example>
    250 2.1.0 Ok                       250 2.1.0 Ok
  RCPT TO:<*@s.example>              RCPT TO:<*@s.example>
    250 2.1.5 Ok                       250 2.1.5 Ok
                                  >  NOOP  × 2
                                  >    250 Ok
  DATA                               DATA, 504.0 ms later
    354 Please start mail input.  |    354 Go ahead
    … 131 bytes                   |    … 140 bytes
    250 Mail queued.              |    250 2.0.0 Ok: queued as 4F1C0A77
";
    // How late it was is known as well as the clocks are.
    let delay = text.split_once("DATA, ").and_then(|(_, rest)| rest.split_once(" ms later")).expect("a delay").0;
    let delay: f64 = delay.parse().expect("a number");
    assert!((496.0..=512.0).contains(&delay), "{delay}");
    let expected = expected.replace("504.0", &format!("{delay:.1}"));
    assert!(text.starts_with(&expected), "{text}");
    let (_, evidence) = text.split_at(expected.len());
    for words in ["starttls_stripped  ", "capability_added  ", "command_injected  ", "the server got NOOP"] {
        assert!(evidence.contains(words), "{words} is not in {evidence}");
    }
    assert!(evidence.contains("\n1 conversation was seen at both ends: 1 differs\n"), "{evidence}");
    assert!(evidence.contains("\nthe hosts' clocks are alike, within "), "{evidence}");
    let sum = "evidence: reply_text_differs 1, go_ahead_not_from_upstream 1, data_held_back 1, success_before_upstream 1, \
               command_injected 1, capability_added 1, starttls_stripped 1, body_changed 1\n";
    assert!(evidence.ends_with(sum), "{evidence}");
}

#[test]
fn nothing_differs() {
    let mut path = Path::ahead(-150_000);
    path.mail(0, client("c", CLIENT), server("s", CLIENT));
    let unseen = Socket { id: "lost", ..client("lost", PROXY) };
    path.greet(9, unseen);
    let text = text(&path);
    for line in [
        "  each end is at the other's address",
        "  the same was said at both ends",
        "198.51.100.4:40002 → 192.0.2.25:25, lost (pid 7)",
        "  seen at the client's end alone",
        "1 conversation was seen at both ends: nothing differs",
        "1 conversation was seen at the client's end alone",
    ] {
        assert!(text.lines().any(|known| known == line), "{line} is not in {text}");
    }
    assert!(
        text.contains("the server's clock is 2 min ") && text.contains(" s behind the client's, within "),
        "{text}"
    );
}

#[test]
fn nothing_differs_in_what_was_seen() {
    let mut path = Path::ahead(0);
    let ids = "a b c d e f g h i j k l m n o p q r s t u v w".split(' ');
    for (number, id) in (0..).zip(ids) {
        let port = (CLIENT.0, 41_000 + number);
        path.greet(i64::from(number) * 1000, client(id, port));
        path.greet(i64::from(number) * 1000 - WAY, server(id, port));
    }
    let text = text(&path);
    let count = |words: &str| text.lines().filter(|line| *line == words).count();
    assert_eq!(count("  nothing differs in what both ends saw"), 20);
    for line in [
        "and 3 more of which nothing differs in what both ends saw",
        "23 conversations were seen at both ends: nothing differs in what both ends saw",
    ] {
        assert_eq!(count(line), 1, "{line} is not in {text}");
    }
}

#[test]
fn spans_are_rounded_to_their_last_unit() {
    for (nanoseconds, expected) in [
        (999_960, "1.0 ms"),
        (59_949_000_000, "59.9 s"),
        (59_999_600_000, "1 min 0 s"),
        (419_999_600_000, "7 min 0 s"),
        (420_000_400_000, "7 min 0 s"),
        (3_599_400_000_000, "59 min 59 s"),
        (3_599_999_600_000, "1 h 0 min"),
        (10_799_999_600_000, "3 h 0 min"),
    ] {
        assert_eq!(span(Duration::from_nanos(nanoseconds)), expected);
    }
}

#[test]
fn of_many_some_are_named() {
    let mut path = Path::ahead(0);
    let ids = "a b c d e f g h i j k l m n o p q r s t u v w".split(' ');
    let others = "A B C D E F G H I J K L M N O P Q R S T U V W".split(' ');
    for (number, (id, unseen)) in (0..).zip(ids.zip(others)) {
        let port = (CLIENT.0, 41_000 + number);
        path.mail(i64::from(number) * 1000, client(id, port), server(id, port));
        path.greet(i64::from(number) * 1000, client(unseen, (CLIENT.0, 42_000 + number)));
    }
    let text = text(&path);
    let count = |words: &str| text.lines().filter(|line| line.contains(words)).count();
    assert_eq!((count("  the same was said at both ends"), count("  seen at the client's end alone")), (20, 20));
    for line in ["and 3 more of which the same was said at both ends", "and 3 more at the client's end alone"] {
        assert_eq!(count(line), 1, "{line} is not in {text}");
    }
}

#[test]
fn nothing_at_all() {
    assert_eq!(text(&Path::ahead(0)), "0 conversations were seen at both ends\n");
    assert!(objects(&Path::ahead(0)).is_empty());
}

#[test]
fn what_a_peer_says_does_not_steer_the_terminal() {
    let mut path = Path::ahead(0);
    let (from, to) = (client("c", CLIENT), server("s", CLIENT));
    path.greet(0, to);
    path.greet(WAY, from);
    path.say(100, from, Line("NOOP \u{1b}[2J", 250, "\u{1b}]0;title\u{7}"), 9);
    path.say(104, to, Line("NOOP \u{1b}[2J", 250, "\u{9b}31m\u{202e}"), 1);
    let text = text(&path);
    assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
    assert!(!text.contains('\u{202e}'), "{text:?}");
}

#[test]
fn an_object_for_each() {
    let mut path = held();
    path.greet(2_000, client("lost", ("198.51.100.4", 40009)));
    let objects = objects(&path);
    let [pair, lost] = &objects[..] else { panic!("{} objects", objects.len()) };
    assert_eq!((&pair["paired_by"], &pair["differs"]), (&"envelope".into(), &true.into()));
    assert_eq!(
        (&pair["client"]["connection"]["id"], &pair["server"]["process"]["pid"]),
        (&"mail-client".into(), &7.into())
    );
    let rows = pair["rows"].as_array().expect("rows");
    let marks: Vec<_> = rows.iter().map(|row| row["mark"].as_str().expect("a mark")).collect();
    assert_eq!(marks, ["same", "changed", "same", "same", "server_only", "server_only", "changed"]);
    assert_eq!((&rows[0]["client"]["reply"], rows[0]["client"].get("verb")), (&"mx.example ESMTP".into(), None));
    assert_eq!((&rows[2]["server"]["argument"], rows[4].get("client")), (&"FROM:<*@c.example>".into(), None));
    assert_eq!(rows[6]["client"]["content"]["size_bytes"], 131);
    assert_eq!((&rows[6]["server"]["code"], &rows[6]["server"]["content"]["code"]), (&354.into(), &250.into()));
    assert!(pair["evidence"].as_array().expect("evidence").iter().any(|it| it["kind"] == "data_held_back"));
    assert!(pair["data_delay_seconds"].as_f64().is_some_and(|hold| (0.496..=0.512).contains(&hold)), "{pair}");
    assert_eq!(
        (&lost["client"]["connection"]["id"], lost.get("differs"), lost.get("server")),
        (&"lost".into(), None, None)
    );
}
