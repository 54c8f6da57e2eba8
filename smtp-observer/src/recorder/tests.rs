use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::story::{Step, Story, Text, said};
use super::*;
use crate::fact::Fact;
use crate::identity::Role;
use crate::observation::Observation;
use crate::observer::Observer;

/// Whole lines, so that a secret stands where a client puts it.
const CLIENT: &[&str] = &[
    "EHLO client.example\r\n",
    "MAIL FROM:<bobmarker@x.example> AUTH=bobmarker SIZE=5\r\n",
    "MAIL FROM:bobmarker\r\n",
    "RCPT TO:<\"bobmarker smith\"@y.example> ORCPT=rfc822;bobmarker+40y.example\r\n",
    "RCPT TO:<annmarker@y.example>\r\n",
    "RCPT <bobmarker@y.example>\r\n",
    "VRFY bobmarker\r\nEXPN bobmarker smith\r\n",
    "FROB bobmarker\r\n",
    "XCLIENT NAME=a.example LOGIN=bobmarker\r\n",
    "DATA\r\n",
    "DATA\r\nS3CRET bobmarker\r\nquit S3CRET\r\n.\r\n",
    "DATA\nS3CRET bobmarker\r\n",
    ".\r\n",
    "BDAT 7 LAST\r\nS3CRET\n",
    "AUTH PLAIN S3CRET\r\n",
    "AUTH LOGIN\r\nS3CRET\r\nS3CRET\r\n",
    "AUTH LOGIN\r\nS3CRET",
    "AUTHPLAIN S3CRET\r\n",
    "PASS S3CRET\r\n",
    "\r\n",
    "STARTTLS\r\n",
    "ATRN y.example\r\n",
    "DATA\r\nS3CRET\n.\nMAIL FROM:<bobmarker@x.example>\r\nDATA\r\nS3CRET bobmarker\r\n.\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "QUIT\r\n",
];
const SERVER: &[&str] = &[
    "220 mx.example ESMTP\r\n",
    "250 ok\r\n",
    "250-mx.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n",
    "354 go\r\n",
    "334 \r\n",
    "235 in\r\n",
    "421 away\r\n",
    "503 bad\r\n",
    "550 5.1.1 <bobmarker@y.example>: \"bobmarker smith\"@y.example, bobmarker@y.example\r\n",
    "451-<bobmarker>\r\n451 mailto:bobmarker@y.example\r\n",
];

/// What else a dialogue may have in it, and its breakage.
const BROKEN_CLIENT: &[&str] = &[
    "HELO\r\n",
    "LHLO x\r\n",
    "Subject: x\r\n",
    "..\r\n",
    "\r\n.\r\n",
    "\n.\n",
    "\r\n.\r",
    "\r",
    "\n",
    "BDAT 5\r\n",
    "BDAT x\r\n",
    "abcde",
    "AUTH",
    " PLAIN AGI=\r\n",
    "*\r\n",
    "XEXCH50 4 2\r\n",
    "\0",
    "X",
    "XXXX\r\n",
    "\u{16}\u{3}\u{1}",
    "\u{16}",
    "GET /bobmarker HTTP/1.1\r\n",
    "\u{5}\u{2}\0\u{2}\u{1}\u{3}bob\u{6}secret\u{5}\u{1}\0\u{3}\u{1}x\0\u{19}\r\n",
    "220 client.example\r\n",
    "Host: z.example\r\n",
    "\r\n\r\n\0\r\nQUIT\n\u{21}\u{11}\0\u{2}xx",
    "\u{4}\u{1}\0\u{19}\0\0\0\u{1}bob\0y.example\0\r\n",
    "PROXY TCP4 192.0.2.1 192.0.2.2 5 25\r\n",
    "help me\r\n",
];
const BROKEN_SERVER: &[&str] = &[
    "250-a\r\n",
    "353 each\r\n",
    "25",
    "0",
    " ",
    "\r\n",
    "\n",
    "garbage\r\n",
    "\u{17}\u{3}",
    "221 bye\r\n",
    "252 2.0.0 Bob\r\n",
    "221 timeout\r\n",
    "EHLO y.example\r\n",
    "\0Z\0\0\0\0\0\0",
    "\u{5}\0\u{5}\0\0\u{1}\0\0\0\0\0\0",
];

fn step(client: Vec<&'static str>, server: Vec<&'static str>, noise: u32) -> impl Strategy<Value = Step> {
    let of = |from_client, pieces: Vec<&'static str>| {
        vec(prop::sample::select(pieces), 1..4)
            .prop_map(move |pieces| Step::Bytes { from_client, bytes: Text(pieces.concat().into_bytes()) })
    };
    prop_oneof![
        12 => of(true, client),
        12 => of(false, server),
        1 => (any::<bool>(), 1..200_u32).prop_map(|(from_client, length)| Step::Hole { from_client, length }),
        1 => Just(Step::Idle),
        noise => (any::<bool>(), vec(any::<u8>(), 1..40)).prop_map(|(from_client, mut bytes)| {
            if !from_client {
                // Of a long line an anomaly shows the beginning, and half a mailbox at its end is none.
                bytes.extend(b"\r\n");
            }
            Step::Bytes { from_client, bytes: Text(bytes) }
        }),
    ]
}

fn story(step: impl Strategy<Value = Step>) -> impl Strategy<Value = Story> {
    (any::<bool>(), any::<bool>(), vec(step, 0..24), vec(1..60_usize, 1..30), any::<bool>()).prop_map(
        |(client, midstream, steps, cuts, closes)| Story {
            closes,
            role: if client { Role::Client } else { Role::Server },
            midstream,
            steps,
            cuts,
        },
    )
}

fn observer(addresses: Addresses) -> Observer {
    Observer::new(&[25], RedactionPolicy::new(addresses))
}

fn tap<'a>(recorder: &'a mut Option<&mut Recorder>) -> Option<&'a mut dyn Tap> {
    recorder.as_mut().map(|recorder| &mut **recorder as &mut dyn Tap)
}

/// What is observed, a line each.
fn observe(
    observer: &mut Observer,
    entries: &[Entry],
    addresses: Addresses,
    mut recorder: Option<&mut Recorder>,
) -> Vec<String> {
    let mut observed = Vec::new();
    let policy = RedactionPolicy::new(addresses);
    let mut sink = |fact: &Fact<'_>| {
        observed.push(serde_json::to_string(&Observation::of(fact, policy)).expect("JSON"));
    };
    for entry in entries {
        let tap = tap(&mut recorder);
        match entry {
            Entry::Event(event) => observer.event_tapped(event.clone(), &mut sink, tap),
            Entry::Settled(now) => observer.settle_tapped(*now, &mut sink, tap),
        }
    }
    observer.settle_tapped(Time(u64::MAX), &mut sink, tap(&mut recorder));
    observed
}

/// What is observed of these by another observer.
fn replay(addresses: Addresses, entries: &[Entry]) -> Vec<String> {
    observe(&mut observer(addresses), entries, addresses, None)
}

/// What is observed, and what a recording has of it.
fn record(entries: &[Entry], addresses: Addresses) -> (Vec<String>, Vec<Entry>) {
    let (mut observer, mut recorder) = (observer(addresses), Recorder::new(addresses, Key(5)));
    let observed = observe(&mut observer, entries, addresses, Some(&mut recorder));
    observer.finish(&mut recorder);
    let mut kept: Vec<_> = recorder.drain().collect();
    assert_eq!(recorder.complete_up_to(), recorder.next(), "all is given out at the end");
    kept.sort_by_key(|(number, _)| *number);
    assert!(kept.iter().enumerate().all(|(place, (number, _))| place as u64 == *number), "each once");
    (observed, kept.into_iter().map(|(_, entry)| entry).collect())
}

fn but(pieces: Vec<&'static str>, start: &str) -> Vec<&'static str> {
    pieces.into_iter().filter(|piece| !piece.starts_with(start)).collect()
}

/// The first lines that differ. What a malformed line of the server repeats of a command is shown as it is, where the
/// command may be hidden: there the detail of the anomaly may differ, and nothing else.
fn difference(one: &[String], other: &[String]) -> Option<(String, String)> {
    let same = |(one, other): &(&String, &String)| {
        one == other || is_malformed(one) && without_detail(one) == without_detail(other)
    };
    let place = one.iter().zip(other).take_while(same).count();
    let line = |lines: &[String]| lines.get(place).cloned().unwrap_or_default();
    (place < one.len().max(other.len())).then(|| (line(one), line(other)))
}

fn is_malformed(line: &str) -> bool {
    ["malformed_reply", "bare_cr", "bare_lf", "nul_byte"]
        .iter()
        .any(|kind| line.contains(&format!("\"kind\":\"{kind}\"")))
}

fn without_detail(line: &str) -> Option<serde_json::Value> {
    let mut value: serde_json::Value = serde_json::from_str(line).ok()?;
    value.as_object_mut()?.remove("detail");
    Some(value)
}

const ALL: [Addresses; 3] = [Addresses::Full, Addresses::Domain, Addresses::None];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn no_secret_and_no_name_is_kept(story in story(step(CLIENT.to_vec(), SERVER.to_vec(), 0))) {
        for addresses in ALL {
            let (_, kept) = record(&story.entries(), addresses);
            let said = said(&kept);
            prop_assert!(!said.contains("s3cret"), "{:?}: {}", addresses, said);
            if addresses != Addresses::Full {
                prop_assert!(!said.contains("bobmarker") && !said.contains("annmarker"), "{:?}: {}", addresses, said);
            }
        }
    }

    // Not with a path that is none: where an anomaly tells of the reply that repeats it, more of it is shown than in the
    // reply.
    #[test]
    fn what_is_kept_leads_to_the_same_observations(
        story in story(step(but([CLIENT, BROKEN_CLIENT].concat(), "RCPT <"), [SERVER, BROKEN_SERVER].concat(), 1)),
    ) {
        for addresses in ALL {
            let entries = story.entries();
            let (observed, kept) = record(&entries, addresses);
            let plain = replay(addresses, &entries);
            let replayed = replay(addresses, &kept);
            prop_assert_eq!(difference(&plain, &observed), None, "recording changes nothing");
            prop_assert_eq!(difference(&observed, &replayed), None, "{:?}: {}\nkept as {}", addresses, said(&entries), said(&kept));
        }
    }
}

/// A dialogue from its beginning, each text in one call.
fn dialogue(said: &[(bool, &str)]) -> Vec<Entry> {
    let said = said
        .iter()
        .map(|(from_client, text)| Step::Bytes { from_client: *from_client, bytes: Text(text.as_bytes().to_vec()) });
    Story { role: Role::Client, midstream: false, steps: said.collect(), cuts: vec![usize::MAX], closes: true }
        .entries()
}

#[test]
fn a_name_that_the_server_repeats_has_the_same_stand_in() {
    let entries = dialogue(&[
        (false, "220 mx.example\r\n"),
        (true, "RCPT TO:<bobmarker@y.example>\r\n"),
        (false, "550 5.1.1 User bobmarker unknown: <bobmarker@y.example>\r\n"),
    ]);
    for addresses in ALL {
        let (observed, kept) = record(&entries, addresses);
        assert_eq!(replay(addresses, &kept), observed, "{addresses:?}");
        assert_eq!(said(&kept).contains("bobmarker"), addresses == Addresses::Full, "{}", said(&kept));
    }
}

#[test]
fn of_a_name_that_is_cut_no_piece_is_kept() {
    let long = |left: usize, sign: &str| {
        format!("550 5.1.1 {}{sign}bobmarker@y.example no\r\n", "y ".repeat((2038 - left) / 2))
    };
    let cut = (2..24).step_by(2).flat_map(|left| ["", "<"].map(|sign| long(left, sign)));
    for reply in cut.chain(["550 5.1.1 bobm".into(), "550 5.1.1 no <Bobmark".into(), "550 5.1.1 tag ann".into()]) {
        let entries = dialogue(&[
            (false, "220 mx.example\r\n"),
            (true, "RCPT TO:<bobmarker+annmarker@y.example>\r\n"),
            (false, &reply),
        ]);
        let (observed, kept) = record(&entries, Addresses::Domain);
        assert_eq!(replay(Addresses::Domain, &kept), observed, "{reply}");
        let out = (observed.concat() + &said(&kept)).to_ascii_lowercase();
        assert!(!out.contains("bob") && !out.contains("ann"), "{reply}: {out}");
    }
}

#[test]
fn of_a_mailbox_that_is_cut_and_that_no_command_names_no_piece_is_kept() {
    let cut = (2..24).map(|left| {
        let filler = "y ".repeat((2038 - left) / 2);
        format!("550 5.1.1 {filler}<bobmarker.annmarker@y.example> no\r\n")
    });
    let behind = |text: &str| format!("550-{}\r\n", "y ".repeat(35)).repeat(57) + text;
    let of_reply = (20..60).map(|left| {
        let filler = " ".repeat(left);
        behind(&format!("550 5.1.1 {filler}bobmarker.annmarker@y.example\r\n"))
    });
    for reply in cut.chain(of_reply).chain(["550 5.1.1 <bobm".into(), "550 5.1.1 \"ann bobm".into()]) {
        for command in ["RCPT TO:<al@y.example>\r\n", "MAIL FROM:<>\r\n"] {
            let entries = dialogue(&[(false, "220 mx.example\r\n"), (true, command), (false, &reply)]);
            let (observed, kept) = record(&entries, Addresses::Domain);
            assert_eq!(replay(Addresses::Domain, &kept), observed, "{reply}");
            let out = observed.concat() + &said(&kept);
            assert!(!out.contains("bob") && !out.contains("ann "), "{reply}: {out}");
        }
    }
}

#[test]
fn a_name_that_is_introduced_where_none_was_said_is_hidden() {
    let entries = dialogue(&[
        (false, "220 mx.example for user annmarker\r\n"),
        (true, "EHLO client.example\r\n"),
        (false, "250-mx.example ** user \"annmarker\"\r\n250 annmarker ok\r\n"),
        (true, "MAIL FROM:<>\r\n"),
        (false, "550 5.7.1 user annmarker may not send with an empty sender\r\n"),
        (true, "RSET\r\n"),
        (false, "421 4.3.0 User annmarker has too many connections\r\n"),
    ]);
    let (observed, kept) = record(&entries, Addresses::Domain);
    assert_eq!(replay(Addresses::Domain, &kept), observed);
    let out = observed.concat() + &said(&kept);
    assert!(!out.contains("annmarker") && out.contains("421 4.3.0 user ********* has"), "{out}");
}

#[test]
fn behind_the_longest_text_no_name_is_kept() {
    let lines = |text: &str, count: usize| format!("550-{text}\r\n").repeat(count);
    let filler = "y ".repeat(35);
    for reply in [
        lines(&filler, 60) + "550-5.1.1 bobmarker unknown\r\n550 5.1.1 alias annmarker\r\n",
        lines(&filler, 57) + &lines("xx y bobmarker annmarker y", 1).repeat(3) + "550 bobmarker\r\n",
        lines("annmarker, user annmarker", 1) + &lines(&filler, 60) + "550 5.1.1 annmarker\r\n",
    ] {
        let entries = dialogue(&[
            (false, "220 mx.example\r\n"),
            (true, "RCPT TO:<bobmarker@y.example> ORCPT=rfc822;annmarker\r\n"),
            (false, &reply),
        ]);
        let (observed, kept) = record(&entries, Addresses::Domain);
        assert_eq!(replay(Addresses::Domain, &kept), observed, "{reply}");
        let out = observed.concat() + &said(&kept);
        assert!(!out.contains("bobm") && !out.contains("annm"), "{reply}: {out}");
    }
    // One that no command names.
    let reply = lines(&filler, 60) + "550 5.1.1 alias annmarker\r\n";
    let entries = dialogue(&[(false, "220 mx.example\r\n"), (true, "RCPT TO:<bob@y.example>\r\n"), (false, &reply)]);
    let kept = said(&record(&entries, Addresses::Domain).1);
    assert!(!kept.contains("annm") && kept.contains("550 5.1.1 alias *********"), "{kept}");
}

#[test]
fn a_proxy_s_header_keeps_its_name_alone() {
    for (header, name) in [
        ("PROXY TCP4 192.0.2.1 192.0.2.2 5000 25\r\n", "proxy quit\r\n"),
        ("\u{4}\u{1}\0\u{19}\0\0\0\u{1}bob\0y.example\0", "\u{4}\u{1}"),
        ("\u{5}\u{2}\0\u{2}\u{1}\u{3}bob\u{6}S3CRET\u{5}\u{1}\0\u{3}\u{1}y\0\u{19}", "\u{5}"),
    ] {
        let entries = dialogue(&[(true, header), (true, "QUIT\r\n")]);
        let (observed, kept) = record(&entries, Addresses::Full);
        assert_eq!(replay(Addresses::Full, &kept), observed);
        // A SOCKS proxy may read what follows, until the server greets.
        assert_eq!(said(&kept), name.to_owned() + "\n");
    }
}

#[test]
fn with_the_roles_reversed_names_are_hidden_on_both_sides() {
    let entries = dialogue(&[
        (false, "220 mx.example\r\n"),
        (true, "ATRN y.example\r\n"),
        (false, "250 your turn\r\n"),
        (true, "220 y.example\r\n"),
        (false, "MAIL FROM:<bobmarker@x.example>\r\n"),
        (true, "550 5.1.8 bobmarker is nobody\r\n"),
        (false, "AUTH PLAIN S3CRET\r\n"),
        (true, "535 5.7.8 bobmarker@x.example\r\n"),
    ]);
    for addresses in ALL {
        let (observed, kept) = record(&entries, addresses);
        assert_eq!(replay(addresses, &kept), observed, "{addresses:?}");
        assert_eq!(said(&kept).contains("bobmarker"), addresses == Addresses::Full, "{}", said(&kept));
        assert!(!said(&kept).contains("s3cret") && said(&kept).contains("mail from:<"), "{}", said(&kept));
    }
}

#[test]
fn a_transfer_comes_out_when_its_lines_are_whole_and_its_replies_known() {
    let entries = dialogue(&[
        (false, "220 mx.example\r\n"),
        (true, "EHLO client.example\r\n"),
        (false, "250-mx.example, hello\r\n"),
        (false, "250 PIPELINING\r\n"),
    ]);
    let (mut observer, mut recorder) = (observer(Addresses::Domain), Recorder::new(Addresses::Domain, Key(5)));
    let mut numbers = Vec::new();
    for entry in &entries {
        let Entry::Event(event) = entry else { panic!("{entry:?}") };
        observer.event_tapped(event.clone(), &mut |_| {}, Some(&mut recorder));
        numbers.push(recorder.drain().map(|(number, _)| number).collect::<Vec<_>>());
        assert!(recorder.next() - recorder.complete_up_to() <= 1, "no more than a part of the reply is withheld");
    }
    assert_eq!(numbers, [vec![0], vec![1], vec![2], vec![3], vec![4], vec![], vec![5, 6], vec![7]]);
}

#[test]
fn no_more_is_withheld_than_the_bound() {
    let mut said = vec![(false, "220 mx.example\r\n"), (true, "HELP\r\n")];
    let line = format!("214-{}\r\n", "bobmarker@y.example ".repeat(90));
    said.resize(2000, (false, line.as_str()));
    let entries = dialogue(&said);
    let (mut observer, mut recorder) = (observer(Addresses::Domain), Recorder::new(Addresses::Domain, Key(5)));
    // But the connection's end.
    observe(&mut observer, &entries[..entries.len() - 1], Addresses::Domain, Some(&mut recorder));
    let kept: Vec<Entry> = recorder.drain().map(|(_, entry)| entry).collect();
    let withheld = recorder.next() - kept.len() as u64;
    assert!((100..1000).contains(&withheld), "{withheld}");
    assert!(!self::said(&kept).contains("bobmarker"));
}

/// Many connections together have a bound, too, and what has come out makes room.
#[test]
fn no_more_is_withheld_of_all_connections_than_the_bound() {
    let line = format!("RCPT TO:<bobmarker@{}.example>\r\n", "y".repeat(400));
    let entries = dialogue(&[(true, &line)]);
    let transfer = entries.iter().find_map(|entry| match entry {
        Entry::Event(KernelEvent::Transfer(event)) => Some(event),
        _ => None,
    });
    let transfer = transfer.expect("the command");
    let mut recorder = Recorder::new(Addresses::Domain, Key(5));
    let comes_out = |recorder: &mut Recorder, dialogue: u64| {
        recorder.transfer(Some(dialogue), transfer, Peer::Client);
        let out: Vec<Entry> = recorder.drain().map(|(_, entry)| entry).collect();
        assert!(!said(&out).contains("bobmarker"), "{}", said(&out));
        !out.is_empty()
    };
    let first = (0..).find(|&dialogue| comes_out(&mut recorder, dialogue)).expect("a bound");
    let bytes = recorder.bytes;
    assert!((MAX_WITHHELD_IN_ALL - (8 << 10)..=MAX_WITHHELD_IN_ALL).contains(&bytes), "{bytes}");
    assert!(first > 1000 && comes_out(&mut recorder, 0), "there is room for no connection any more");

    recorder.ended(1, &Session::new());
    assert_eq!(recorder.drain().count(), 1);
    assert!(!comes_out(&mut recorder, first + 1), "there is room for one");
    for dialogue in 0..=first + 1 {
        recorder.ended(dialogue, &Session::new());
    }
    assert_eq!((recorder.bytes, recorder.complete_up_to()), (0, recorder.next()));
}
