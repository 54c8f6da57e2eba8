//! Dialogues of random pieces: no marked byte crosses, what crosses does not depend on the cuts, lengths add up.

use proptest::collection::vec;
use proptest::prelude::*;

use std::vec;

use super::*;

/// Words that stand for secrets and content. No letter of theirs is in any other piece.
const MARKED: [&str; 8] = [
    "zwjvq",
    "qvwz",
    "wjqzqvw",
    "jz vqw",
    "zzz=",
    "vjqw zjqv wwqq",
    "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq",
    "z",
];

fn is_marked(text: &[u8]) -> bool {
    text.iter().any(|byte| b"zwjvq".contains(byte))
}

fn marked() -> impl Strategy<Value = String> {
    vec(prop::sample::select(&MARKED[..]), 1..4).prop_map(|words| words.join(" "))
}

fn long_marked() -> impl Strategy<Value = String> {
    (marked(), 1..120_usize).prop_map(|(words, times)| words.repeat(times))
}

fn secret() -> impl Strategy<Value = String> {
    prop_oneof![8 => marked(), 1 => long_marked()]
}

fn end() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r\r\n")]
}

/// A line that may show marks only where they are withheld.
fn line_with_a_secret() -> impl Strategy<Value = String> {
    let before = prop::sample::select(
        &[
            "",
            "AUTH PLAIN ",
            "AUTH LOGIN ",
            "auth ",
            "NOOP ",
            "VRFY ",
            "EXPN ",
            "HELP ",
            "XYZZY ",
            "X-EXPS LOGIN ",
            "DATA ",
            "RSET ",
            "BURL ",
        ][..],
    );
    (before, secret(), end()).prop_map(|(before, secret, end)| format!("{before}{secret}{end}"))
}

/// A command with no secret, that content does not follow.
fn command() -> impl Strategy<Value = String> {
    let line = prop::sample::select(
        &[
            "EHLO a.example",
            "LHLO x",
            "MAIL FROM:<a@b> SIZE=1",
            "RCPT TO:<c@d>",
            "RSET",
            "NOOP",
            "HELP",
            "XFORWARD NAME=a",
            "XEXCH50 5 2",
            "TURNE",
            "",
        ][..],
    );
    (line, end()).prop_map(|(line, end)| format!("{line}{end}"))
}

/// Lines of content. Free text has no line that reads as a command.
fn body(quotes: bool) -> impl Strategy<Value = String> {
    let free = (secret(), prop::sample::select(&["\r\n", "\n", "\r", "\r\n.x\r\n", "\r\n..\r\n", "\0\r\n", ""][..]))
        .prop_map(|(text, end)| format!("{text}{end}"));
    let quoted = (
        prop::sample::select(
            &["MAIL FROM:<", "RCPT TO:<", "EHLO ", "NOOP ", "mail from:", "AUTH PLAIN ", "BDAT 5 ", "220 "][..],
        ),
        marked(),
    )
        .prop_map(|(command, text)| {
            let close = if command.ends_with('<') { ">" } else { "" };
            format!("{command}{}{close}\r\n", text.replace([' ', '='], ""))
        });
    let line = if quotes { prop_oneof![free, quoted].boxed() } else { free.boxed() };
    vec(line, 0..6).prop_map(|lines| lines.concat())
}

fn reply() -> impl Strategy<Value = Vec<u8>> {
    let code = prop::sample::select(
        &["220", "221", "250", "252", "334", "354", "421", "451", "500", "535", "554", "25", "999"][..],
    );
    let text = prop_oneof![
        Just(" ok\r\n".to_string()),
        Just("\r\n".to_string()),
        Just("-x\r\n250 y\r\n".to_string()),
        Just("-x\r\n354 y\r\n".to_string()),
        Just(" 2.1.0 a rather long text, longer than a head\n".to_string()),
    ];
    (code, text).prop_map(|(code, text)| format!("{code}{text}").into_bytes())
}

/// What may happen in any order: nothing of it is true to the protocol. Marks are on lines of their own, behind commands that
/// let nothing through, and in bodies of free text.
fn anything() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        4 => command().prop_map(c),
        4 => line_with_a_secret().prop_map(c),
        1 => Just(c("DATA\r\n")),
        1 => Just(c("QUIT\r\n")),
        1 => Just(c("STARTTLS\r\n")),
        1 => Just(c("TURN\r\n")),
        1 => Just(c("BDAT x\r\n")),
        2 => (0..60_u32, any::<bool>()).prop_map(|(size, last)| c(format!("BDAT {size}{}\r\n", if last { " LAST" } else { "" }))),
        4 => body(false).prop_map(c),
        2 => Just(c("\r\n.\r\n")),
        8 => reply().prop_map(s),
        // Of a reply, a part.
        2 => (reply(), 1..8_usize).prop_map(|(reply, length)| s(&reply[..length.min(reply.len())])),
        1 => reply().prop_map(Turn::Behind),
        1 => (prop::sample::select(&[Speaker::Client, Speaker::Server][..]), 1..50_u32).prop_map(|(speaker, length)| Turn::Gap(speaker, length)),
        1 => (prop::sample::select(&[Speaker::Client, Speaker::Server][..]), 1..50_u32).prop_map(|(speaker, length)| Turn::Fault(speaker, length)),
    ];
    vec(turn, 1..24)
}

/// Turns of one speaker that stand together are one call, or several, or cut somewhere: as many cuts as numbers.
fn cut(turns: &[Turn], places: &[usize]) -> Vec<Turn> {
    let mut places = places.iter().copied().cycle();
    let mut cut = Vec::new();
    for turn in turns {
        let mut rest = match turn {
            Turn::C(bytes) | Turn::S(bytes) | Turn::Behind(bytes) => bytes.as_slice(),
            _ => {
                cut.push(turn.clone());
                continue;
            }
        };
        while !rest.is_empty() {
            let (part, more) = rest.split_at(places.next().unwrap_or(1).clamp(1, rest.len()));
            rest = more;
            cut.push(match turn {
                Turn::C(_) => c(part),
                Turn::S(_) => s(part),
                _ => Turn::Behind(part.to_vec()),
            });
        }
    }
    cut
}

fn told(begin: fn() -> Talk, turns: &[Turn]) -> Talk {
    let mut talk = begin();
    talk.turns(turns, Cut::Whole);
    talk
}

fn beginning() -> impl Strategy<Value = fn() -> Talk> {
    prop_oneof![3 => Just(Talk::new as fn() -> Talk), 1 => Just(Talk::under_way as fn() -> Talk)]
}

/// Both speak as one would who follows the protocol: content comes where it is expected, however long the chunks.
#[derive(Clone, Debug)]
enum Act {
    Line(String),
    Refused(String),
    Auth(Vec<String>, &'static str),
    Data(String, bool),
    Chunks(Vec<String>),
    /// All of it in one call, the go-ahead later.
    Ahead(String),
    /// The same, and then a refusal.
    Refusal(String),
    /// DATA is refused, and the body is said all the same.
    Streamed(String),
    /// A chunk is refused before all of it is said.
    Chunk(String, usize),
    /// The message is refused in its middle.
    Interrupted(String, String),
}

/// The server reads content as commands, and repeats it.
fn misread() -> impl Strategy<Value = Act> {
    prop_oneof![
        body(true).prop_map(Act::Refusal),
        body(false).prop_map(Act::Streamed),
        (body(false), 0..40_usize).prop_map(|(body, place)| Act::Chunk(body, place)),
        (body(true), body(false)).prop_map(|(one, two)| Act::Interrupted(one, two)),
    ]
}

/// What the server says to each of these lines.
fn repeated(text: &str) -> String {
    let texts = ["500 zwjvq", "250 2.1.0 zwjvq", "550 5.1.1 zwjvq", "252-zwjvq\r\n252 zwjvq", "502 zwjvq"];
    let lines = text.split_inclusive('\n').zip(texts.iter().cycle());
    // The end is a line like others, and repeats nothing.
    lines.map(|(line, text)| if line == ".\r\n" { "500 no\r\n".into() } else { format!("{text}\r\n") }).collect()
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        command()
            .prop_filter("no octets follow", |line| !line.starts_with("XEXCH50") && !line.starts_with("LHLO"))
            .prop_map(Act::Line),
        ["NOOP ", "VRFY ", "XYZZY ", ""].map(|it| it.to_string()).prop_flat(),
        (vec(marked(), 0..3), prop::sample::select(&["235 2.7.0 ok zwjvq\r\n", "535 5.7.8 zwjvq\r\n"][..]))
            .prop_map(|(answers, reply)| Act::Auth(answers, reply)),
        (body(true), any::<bool>()).prop_map(|(body, accepted)| Act::Data(body, accepted)),
        vec(body(true), 1..4).prop_map(Act::Chunks),
        body(true).prop_map(Act::Ahead),
    ]
}

trait Flat {
    fn prop_flat(self) -> BoxedStrategy<Act>;
}

impl Flat for [String; 4] {
    fn prop_flat(self) -> BoxedStrategy<Act> {
        (prop::sample::select(self.to_vec()), marked())
            .prop_map(|(verb, secret)| Act::Refused(format!("{verb}{secret}\r\n")))
            .boxed()
    }
}

/// A body with its dots stuffed, and its end.
fn stuffed(body: &str) -> String {
    let body = if body.is_empty() || body.ends_with("\r\n") { body.to_string() } else { format!("{body}\r\n") };
    let stuffed = format!("\r\n{body}").replace("\r\n.", "\r\n..");
    format!("{}.\r\n", &stuffed[2..])
}

fn play(acts: &[Act]) -> Vec<Turn> {
    let mut turns = Vec::from([s("220 mx\r\n")]);
    for act in acts {
        match act {
            Act::Line(line) => turns.extend([c(line), s("250 ok\r\n")]),
            Act::Refused(line) => turns.extend([c(line), s("500 5.5.1 no zwjvq\r\n")]),
            Act::Auth(answers, reply) => {
                turns.push(c("AUTH LOGIN\r\n"));
                for answer in answers {
                    turns.extend([s("334 zwjvq\r\n"), c(format!("{answer}\r\n"))]);
                }
                turns.push(s(reply));
            }
            Act::Data(body, accepted) => turns.extend([
                c("DATA\r\n"),
                s("354 go\r\n"),
                c(stuffed(body)),
                s(if *accepted { "250 ok\r\n" } else { "554 no\r\n" }),
            ]),
            Act::Chunks(bodies) => {
                let last = bodies.len() - 1;
                let chunks = bodies.iter().enumerate();
                let text: String = chunks
                    .map(|(at, body)| format!("BDAT {}{}\r\n{body}", body.len(), if at == last { " LAST" } else { "" }))
                    .collect();
                turns.extend([c(text), s("250 ok\r\n".repeat(bodies.len()))]);
            }
            Act::Refusal(body) => {
                let body = stuffed(body);
                turns.extend([c(format!("DATA\r\n{body}")), s(format!("554 no\r\n{}", repeated(&body)))]);
                turns.extend([c("RSET\r\n"), s("250 ok\r\n")]);
            }
            Act::Streamed(body) => {
                let body = stuffed(body);
                turns.extend([c("DATA\r\n"), s("554 no\r\n"), c(&body), s(repeated(&body))]);
                turns.extend([c("RSET\r\n"), s("250 ok\r\n")]);
            }
            Act::Chunk(body, place) => {
                let size = body.len() + 2;
                let (one, two) = body.split_at((*place).min(body.len()));
                turns.extend([c(format!("BDAT {size} LAST\r\n{one}")), s(format!("502 no\r\n{}", repeated(one)))]);
                turns.extend([
                    c(format!("{two}\r\n")),
                    s(repeated(&format!("{two}\r\n"))),
                    c("RSET\r\n"),
                    s("250 ok\r\n"),
                ]);
            }
            Act::Interrupted(one, two) => {
                turns.extend([
                    c("DATA\r\n"),
                    s("354 go\r\n"),
                    c(stuffed(&format!("{one}x")).trim_end_matches(".\r\n")),
                ]);
                turns.extend([s(format!("451 no\r\n{}", repeated(one))), c(stuffed(two)), s(repeated(two))]);
                turns.extend([c("RSET\r\n"), s("250 ok\r\n")]);
            }
            Act::Ahead(body) => turns.extend([c(format!("DATA\r\n{}", stuffed(body))), s("354 go\r\n250 ok\r\n")]),
        }
    }
    turns
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_marked_byte_crosses(begin in beginning(), turns in anything()) {
        let talk = told(begin, &turns);
        prop_assert!(!is_marked(&talk.text()), "{}\n{}", talk.shown(Speaker::Client), talk.shown(Speaker::Server));
    }

    #[test]
    fn no_marked_byte_crosses_where_all_is_certain(acts in vec(act(), 1..8), places in vec(1..40_usize, 1..12)) {
        let turns = play(&acts);
        let talk = told(Talk::new, &cut(&turns, &places));
        prop_assert!(!is_marked(&talk.text()), "{}\n{}", talk.shown(Speaker::Client), talk.shown(Speaker::Server));
        let shown = talk.shown(Speaker::Client) + &talk.shown(Speaker::Server);
        prop_assert!(!shown.contains('('), "certain: {shown}");
    }

    #[test]
    fn no_content_crosses_that_the_server_repeats(
        acts in vec(prop_oneof![2 => act(), 1 => misread()], 1..8),
        places in vec(1..40_usize, 1..12),
    ) {
        let talk = told(Talk::new, &cut(&play(&acts), &places));
        prop_assert!(!is_marked(&talk.text()), "{}\n{}", talk.shown(Speaker::Client), talk.shown(Speaker::Server));
    }

    #[test]
    fn what_crosses_does_not_depend_on_the_cuts(begin in beginning(), turns in anything(), places in vec(1..60_usize, 1..12)) {
        let whole = told(begin, &turns);
        let bytewise = told(begin, &cut(&turns, &[1]));
        let apart = told(begin, &cut(&turns, &places));
        for other in [bytewise, apart] {
            for speaker in [Speaker::Client, Speaker::Server] {
                prop_assert_eq!(other.shown(speaker), whole.shown(speaker));
            }
        }
    }

    #[test]
    fn any_bytes(
        begin in beginning(),
        turns in vec((any::<bool>(), vec(prop_oneof![any::<u8>(), prop::sample::select(&b"\r\n\0. -2345\x16\x03\x01"[..])], 0..300)), 1..20),
        places in vec(1..60_usize, 1..12),
    ) {
        let turns: Vec<Turn> = turns.iter().map(|(client, bytes)| if *client { c(bytes) } else { s(bytes) }).collect();
        let whole = told(begin, &turns);
        let apart = told(begin, &cut(&turns, &places));
        for speaker in [Speaker::Client, Speaker::Server] {
            prop_assert_eq!(apart.shown(speaker), whole.shown(speaker));
        }
    }
}
