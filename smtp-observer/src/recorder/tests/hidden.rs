//! A secret or a mailbox's name, put anywhere in a dialogue, is in no output: not in the lines of events, not in the text of
//! `trace`, not in the rows of the API, not in a recording.

use jiff::tz::TimeZone;

use super::*;
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
    "bobmarker@domainmarker.example",
    "<\"ann marker\"@domainmarker.example>",
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
];

/// A greeting, then mailboxes and secrets, each with its reply.
fn dialogues() -> impl Strategy<Value = Story> {
    let said = |from_client, text: String| Step::Bytes { from_client, bytes: Text(text.into_bytes()) };
    let of = |texts: &'static [&'static str]| prop::sample::select(texts);
    let mailbox = (of(&["MAIL FROM:", "RCPT TO:", "rcpt to: "]), of(MAILBOXES), of(WORDINGS), of(SPELLINGS)).prop_map(
        move |(verb, mailbox, wording, spelling)| {
            vec![said(true, format!("{verb}{mailbox}\r\n")), said(false, wording.replace('@', spelling))]
        },
    );
    let list = (of(&["VRFY ", "EXPN "]), of(SPELLINGS), of(SPELLINGS)).prop_map(move |(verb, asked, spelling)| {
        vec![
            said(true, format!("{verb}{asked}\r\n")),
            said(false, format!("250-2.1.5 {spelling}\r\n250 {spelling}\r\n")),
        ]
    });
    let message = (of(&["354 go\r\n", "550 5.7.1 not for @\r\n"]), of(WORDINGS), of(SPELLINGS)).prop_map(
        move |(go_ahead, wording, spelling)| {
            vec![
                said(true, "DATA\r\n".into()),
                said(false, go_ahead.replace('@', spelling)),
                said(true, "text\r\n.\r\n".into()),
                said(false, wording.replace('@', spelling)),
            ]
        },
    );
    let login = (of(LOGINS), of(REFUSALS), of(SECRET_SPELLINGS)).prop_map(move |(login, refusal, secret)| {
        vec![said(true, login.replace('#', secret)), said(false, refusal.replace('#', secret))]
    });
    let named =
        "MAIL FROM:<bobmarker+tagmarker@domainmarker.example>\r\nRCPT TO:<\"ann marker\"@domainmarker.example>\r\n";
    let begin = move |hello: &str| {
        vec![
            said(false, "220 mx.example\r\n".into()),
            said(true, format!("{hello} client.example\r\n")),
            said(false, "250 mx.example\r\n".into()),
            // What servers repeat was said.
            said(true, named.into()),
            said(false, "250 2.1.0 ok\r\n250 2.1.5 ok\r\n".into()),
        ]
    };
    let acts = vec(prop_oneof![3 => mailbox, 1 => list, 3 => message, 3 => login], 1..8);
    (of(&["EHLO", "LHLO"]), any::<bool>(), acts, vec(1..60_usize, 1..9)).prop_map(move |(hello, client, acts, cuts)| {
        let steps = begin(hello).into_iter().chain(acts.into_iter().flatten()).collect();
        Story { role: if client { Role::Client } else { Role::Server }, midstream: false, steps, cuts, closes: true }
    })
}

/// All that is put out of a dialogue.
fn outputs(entries: &[Entry], addresses: Addresses) -> String {
    let policy = RedactionPolicy::new(addresses);
    let mut observer = Observer::recorded(&[25], addresses, Key(5));
    let format = Format { colour: false, zone: TimeZone::UTC };
    let mut out = String::new();
    let mut sink = |fact: &Fact<'_>| {
        let (observation, kept) = (Observation::of(fact, policy), Retained::of(fact, policy));
        out += &serde_json::to_string(&observation).expect("JSON");
        out.push('\n');
        out += &serde_json::to_string(&kept).expect("JSON");
        out.push('\n');
        let mut text = Vec::new();
        format.write(&observation, &mut text);
        out += &String::from_utf8_lossy(&text);
    };
    for entry in entries {
        match entry {
            Entry::Event(event) => observer.event(event.clone(), &mut sink),
            Entry::Settled(now) => observer.settle(*now, &mut sink),
        }
    }
    observer.settle(Time(u64::MAX), &mut sink);
    observer.finish_recording();
    let recorder = observer.recorder().expect("it has one");
    let mut kept: Vec<_> = recorder.drain().collect();
    kept.sort_by_key(|(number, _)| *number);
    let kept: Vec<_> = kept.into_iter().map(|(_, entry)| entry).collect();
    (out + &said(&kept)).to_ascii_lowercase()
}

/// The line of an output that has one of these.
fn leak(out: &str, hidden: &[&str]) -> Option<String> {
    out.lines().find(|line| hidden.iter().any(|word| line.contains(word))).map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, rng_seed: RngSeed::Fixed(15), ..ProptestConfig::default() })]

    #[test]
    fn no_secret_and_no_name_is_in_any_output(story in dialogues()) {
        let entries = story.entries();
        prop_assert_eq!(leak(&outputs(&entries, Addresses::Full), &SECRETS), None);
        let hidden = [&SECRETS[..], &NAMES[..]].concat();
        prop_assert_eq!(leak(&outputs(&entries, Addresses::Domain), &hidden), None);
        let hidden = [&hidden[..], &[DOMAIN]].concat();
        prop_assert_eq!(leak(&outputs(&entries, Addresses::None), &hidden), None);
    }
}
