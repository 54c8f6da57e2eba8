//! A secret or a mailbox's name, put anywhere in a dialogue, is in no output: not in the lines of events, not in the text of
//! `trace`, not in the rows of the API, not in a recording.

use jiff::tz::TimeZone;

use super::story::{Step, Story, Text, said};
use super::{Entry, Recorder};
use crate::choices::Choices;
use crate::event::Time;
use crate::fact::Fact;
use crate::identity::Role;
use crate::observation::Observation;
use crate::observer::Observer;
use crate::redact::{Addresses, Key, RedactionPolicy};
use crate::sink::retained::Retained;
use crate::sink::trace::Format;

/// What is looked for, in any case. Each stands between signs that are part of no name.
const SECRETS: [&str; 2] = ["s3cret", "czncmv0"];
const NAMES: [&str; 4] = ["bobmarker", "tagmarker", "ann marker", "aliasmarker"];
const DOMAIN: &str = "domainmarker";

/// The mailboxes, as the client writes them.
const MAILBOXES: &[&str] = &[
    "<bobmarker@domainmarker.example>",
    "<BobMarker+tagmarker@domainmarker.example>",
    "<\"bobmarker\"@DomainMarker.example> NOTIFY=NEVER",
    "<\"ann marker\"@domainmarker.example>",
    "bobmarker+tagmarker@domainmarker.example",
    "<bobmarker>",
    "<al@y.example> ORCPT=rfc822;bobmarker+2Btagmarker+40domainmarker.example",
];

/// Them, as servers write them.
const SPELLINGS: &[&str] = &[
    "bobmarker",
    "BOBMARKER",
    "<BobMarker>",
    "\"bobmarker\"",
    "'bobmarker'",
    "user.bobmarker",
    "bobmarker+tagmarker",
    "tagmarker",
    "bobmarker@domainmarker.example",
    "<\"ann marker\"@domainmarker.example>",
    "ann marker@domainmarker.example",
    "<Ann Marker@domainmarker.example>",
    "Ann Marker",
    "\"Ann Marker\"",
    "bobmarker+40domainmarker.example",
    "domainmarker.example",
    "DOMAINMARKER.EXAMPLE",
];

/// Replies to what names a mailbox, to a message, and to nothing: `@` stands for the spelling.
const WORDINGS: &[&str] = &[
    "250 2.1.5 @... Recipient ok\r\n",
    "550 5.1.1 User @ unknown\r\n",
    "550 5.1.1 \t@\tunknown\r\n",
    "550\t5.1.1 @\r\n",
    "250 2.1.5 @ (alias of aliasmarker) ok\r\n",
    "251 2.1.5 @ -> aliasmarker\r\n",
    "250 2.0.0 delivered to AliasMarker, forwarded to \"aliasmarker\"\r\n",
    "550-5.1.1 @:\r\n550 5.1.1 (@), no\r\n",
    "250 2.0.0 delivered to @\n",
    "250 5.1.1 @\r\n",
    "250-2.1.5 ok\r\n251 2.1.5 @ has moved\r\n",
    "250 2.0.0 @ Saved\r\n250 2.0.0 @ Saved\r\n",
    "421 4.4.2 @: timeout\r\n",
    "999 @\r\n",
];

/// Replies to DATA, the go-aheads among them.
const GO_AHEADS: &[&str] = &[
    "354 go\r\n",
    "550 5.7.1 not for @\r\n",
    "354 go ahead, message for @\r\n",
    "354 @\r\n",
    "354-@:\r\n354 (@) end with <CRLF>.<CRLF>\r\n",
    "354 2.0.0 @... Enter mail\n",
    "354\t@\r\n",
    "250 2.0.0 @ go\r\n",
    "354 go\r\n354 @ again\r\n",
];

/// What clients do with secrets: `#` stands for one. Neither an answer nor a command is told from it.
const LOGINS: &[&str] = &[
    "AUTH PLAIN #\r\n",
    "auth #\r\n",
    "AUTH # PLAIN\r\n",
    "AUTH PLAIN=#\r\n",
    "X-EXPS #\r\n",
    "AUTH LOGIN\r\n#\r\n#\r\n",
    "#\r\n",
    "# #\r\n",
    "SSH-#\r\n",
    "NOOP #\r\n",
    "HELP #\r\n",
    "VRFY #\r\n",
    "XFOO #\r\n",
    "AUTH LOGIN\r\n#\n",
    "DATA #\r\n",
    "QUIT #\r\n",
    "#\r\nQUIT\r\n",
    "AUTH PLAIN #\r\nQUIT\r\n",
];
const SECRET_SPELLINGS: &[&str] = &["S3CRET", "s3cret", "czNcmV0=", "\"s3cret\""];
const REFUSALS: &[&str] = &[
    "501 5.5.4 cannot decode AUTH parameter #\r\n",
    "500 5.5.1 Command unrecognized: \"#\"\r\n",
    "504 5.3.0 HELP topic \"#\" unknown\r\n",
    "535-5.7.8 #\r\n535 5.7.8 #\r\n",
    "334 #\r\n501 5.5.2 #\r\n",
    "235 2.7.0 welcome #\r\n",
    "250 ok #\r\n",
    "250 5.5.4 #\r\n",
    "501 5.5.4 #\n",
    "500 no #\r\n500 no #\r\n",
    "354 #\r\n",
    "354-5.7.8 #\r\n354 go on, #\n",
    "500 no #\r\n354 #\r\n",
];

/// A greeting, unless it was before, then mailboxes and secrets, each with its reply; at one of the two sockets, however it is cut into calls.
fn story(choices: &mut Choices<'_>) -> Story {
    let role = choices.of(&[Role::Client, Role::Server]);
    let cuts = (0..1 + choices.below(8)).map(|_| 1 + choices.below(60)).collect();
    let hello = choices.of(&["EHLO", "LHLO"]);
    let mut steps = Vec::new();
    let midstream = choices.tenths(2);
    if !midstream {
        say(&mut steps, false, "220 mx.example\r\n");
        say(&mut steps, true, format!("{hello} client.example\r\n"));
        say(&mut steps, false, "250 mx.example\r\n");
    }
    // What servers repeat was said.
    say(
        &mut steps,
        true,
        "MAIL FROM:<bobmarker+tagmarker@domainmarker.example>\r\nRCPT TO:<\"ann marker\"@domainmarker.example>\r\n",
    );
    say(&mut steps, false, "250 2.1.0 ok\r\n250 2.1.5 ok\r\n");
    for _ in 0..MAX_ACTS {
        if !choices.has_more() {
            break;
        }
        if choices.tenths(1) {
            steps.push(match choices.below(3) {
                0 => Step::Idle,
                peer => Step::Hole { from_client: peer == 1, length: 1 + choices.below(200) as u32 },
            });
            continue;
        }
        match choices.below(10) {
            0..=2 => {
                say(
                    &mut steps,
                    true,
                    format!("{}{}\r\n", choices.of(&["MAIL FROM:", "RCPT TO:", "rcpt to: "]), choices.of(MAILBOXES)),
                );
                match choices.tenths(8) {
                    true => say(&mut steps, false, repeated(choices)),
                    false => {
                        let reply = choices.of(GO_AHEADS).replace('@', choices.of(SPELLINGS));
                        answer(&mut steps, choices, reply);
                    }
                }
            }
            3 => {
                say(&mut steps, true, format!("{} {}\r\n", choices.of(&["VRFY", "EXPN"]), choices.of(SPELLINGS)));
                let spelling = choices.of(SPELLINGS);
                let code = choices.of(&["250", "354"]);
                answer(&mut steps, choices, format!("{code}-2.1.5 {spelling}\r\n{code} {spelling}\r\n"));
            }
            4..=6 => {
                say(&mut steps, true, "DATA\r\n");
                let reply = choices.of(GO_AHEADS).replace('@', choices.of(SPELLINGS));
                say(&mut steps, false, reply);
                say_content(&mut steps, choices);
            }
            _ => {
                let secret = choices.of(SECRET_SPELLINGS);
                say(&mut steps, true, choices.of(LOGINS).replace('#', secret));
                let reply = choices.of(REFUSALS).replace('#', secret);
                answer(&mut steps, choices, reply);
            }
        }
    }
    Story { role, midstream, steps, cuts, closes: true }
}

fn say(steps: &mut Vec<Step>, from_client: bool, text: impl Into<String>) {
    steps.push(Step::Bytes { from_client, bytes: Text(text.into().into_bytes()) });
}

/// A reply; behind a go-ahead, whatever it answers, content follows.
fn answer(steps: &mut Vec<Step>, choices: &mut Choices<'_>, reply: String) {
    let is_go_ahead = reply.lines().any(|line| line.starts_with("354"));
    say(steps, false, reply);
    if is_go_ahead {
        say_content(steps, choices);
    }
}

fn say_content(steps: &mut Vec<Step>, choices: &mut Choices<'_>) {
    say(steps, true, "text\r\n.\r\n");
    say(steps, false, repeated(choices));
}

/// Most acts of a dialogue.
const MAX_ACTS: usize = 16;

/// A reply that repeats a mailbox: in a known wording, or anywhere in a text.
fn repeated(choices: &mut Choices<'_>) -> String {
    let spelling = choices.of(SPELLINGS);
    if choices.tenths(6) {
        return choices.of(WORDINGS).replace('@', spelling);
    }
    let mut text = choices.of(&["250 ", "250 2.0.0 ", "550 5.1.1 ", "251-", "451 4.2.2-", "550\t"]).to_owned();
    for _ in 0..choices.below(4) {
        text += choices.of(WORDS);
    }
    text += choices.of(BEFORE);
    text += spelling;
    if choices.tenths(8) {
        text += choices.of(BEHIND);
        for _ in 0..choices.below(4) {
            text += choices.of(WORDS);
        }
    }
    text + "\r\n"
}

/// Words and signs of replies.
const WORDS: &[&str] = &[
    "ok ",
    "user ",
    "for ",
    "<x@y.example> ",
    "= ",
    "mailbox ",
    "queued as 4F2B ",
    "5.1.1 ",
    "\"",
    "(",
    "x",
    ". ",
    "to=",
    "\t",
    "- ",
    "'",
    "relay=mx.example[192.0.2.1]:25, ",
    "\u{e9} ",
    "a+b ",
    "[",
];

/// Signs that part a name from what stands around it.
const BEFORE: &[&str] = &[
    " ",
    "\t",
    "<",
    " (",
    " [",
    " '",
    " \"",
    ":",
    " =",
    ",",
    ";",
    "mailto:",
    "rfc822;",
    "/",
    "!",
    "|",
    "{",
    "\u{201c}",
    "\u{ab}",
    "\u{a0}",
    "\u{4e0d}",
    "%22",
    "=3C",
    "al@y.example:",
    "mailto:al@y.example?cc=",
];
const BEHIND: &[&str] = &[
    " ",
    "\t",
    ">",
    ") ",
    "] ",
    "' ",
    "\" ",
    ": ",
    "= ",
    ", ",
    "; ",
    ". ",
    "... ",
    "/",
    "!",
    "|",
    "}",
    "\u{201d} ",
    "\u{bb}",
    "\u{2026}",
    "\u{4e0d}",
    "%22",
    "=3E",
    "+2B",
    ":al@y.example ",
];

/// All that is put out of a dialogue.
fn outputs(entries: &[Entry], addresses: Addresses) -> String {
    let policy = RedactionPolicy::new(addresses);
    let (mut observer, mut recorder) = (Observer::new(&[25], policy), Recorder::new(addresses, Key(5)));
    let mut format = Format { colour: false, zone: TimeZone::UTC, day: None };
    let mut out = String::new();
    let mut sink = |fact: &Fact<'_>| {
        let (observation, kept) = (Observation::of(fact, policy), Retained::of(fact, addresses));
        out += &serde_json::to_string(&observation).expect("JSON");
        out.push('\n');
        out += &serde_json::to_string(&kept.shown()).expect("JSON");
        out.push('\n');
        let mut text = Vec::new();
        format.write(&observation, &mut text);
        out += &String::from_utf8_lossy(&text);
    };
    for entry in entries {
        match entry {
            Entry::Event(event) => observer.event_tapped(event.clone(), &mut sink, Some(&mut recorder)),
            Entry::Settled(now) => observer.settle_tapped(*now, &mut sink, Some(&mut recorder)),
        }
    }
    observer.settle_tapped(Time(u64::MAX), &mut sink, Some(&mut recorder));
    observer.finish(&mut recorder);
    let mut kept: Vec<_> = recorder.drain().collect();
    kept.sort_by_key(|(number, _)| *number);
    let kept: Vec<_> = kept.into_iter().map(|(_, entry)| entry).collect();
    (out + &said(&kept)).to_ascii_lowercase()
}

/// The line of an output that has one of these.
fn leak(out: &str, hidden: &[&str]) -> Option<String> {
    out.lines().find(|line| hidden.iter().any(|word| line.contains(word))).map(str::to_owned)
}

/// A dialogue whose secrets and names are in no output.
pub fn check(bytes: &[u8]) {
    let story = story(&mut Choices(bytes));
    let entries = story.entries();
    let hidden = [&SECRETS[..], &NAMES[..], &[DOMAIN]].concat();
    let counts = [SECRETS.len(), SECRETS.len() + NAMES.len(), hidden.len()];
    for (addresses, count) in [Addresses::Full, Addresses::Domain, Addresses::None].into_iter().zip(counts) {
        let leak = leak(&outputs(&entries, addresses), &hidden[..count]);
        assert_eq!(leak, None, "{addresses:?}: {story:#?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    proptest! {
        // The same in every run; the fuzz target of this name looks further.
        #![proptest_config(ProptestConfig {
            cases: 1000,
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(15),
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_secret_and_no_name_is_in_any_output(bytes in vec(any::<u8>(), 12..100)) {
            super::check(&bytes);
        }
    }
}
