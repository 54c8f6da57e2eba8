//! What holds for any dialogue.

use proptest::collection::vec;
use proptest::prelude::*;

use super::Analysis;
use crate::event::Time;
use crate::event::crossing::Filter;
use crate::fact::What;
use crate::observation::{Caller, Event};
use crate::redact::{Addresses, RedactionPolicy};
use crate::smtp::{DecoderOutput, Peer, Session};

/// Whole lines, so that a secret stands where a client puts it.
const CLIENT: &[&str] = &[
    "EHLO client.example\r\n",
    "MAIL FROM:<bobmarker@x.example> AUTH=bobmarker SIZE=5\r\n",
    "MAIL FROM:bobmarker\r\n",
    "RCPT TO:<\"bobmarker smith\"@y.example> ORCPT=rfc822;bobmarker+40y.example\r\n",
    "RCPT <bobmarker@y.example>\r\n",
    "VRFY bobmarker\r\nEXPN bobmarker smith\r\n",
    "FROB bobmarker\r\n",
    "DATA\r\n",
    "DATA\r\nS3CRET bobmarker\r\nquit S3CRET\r\n.\r\n",
    "DATA\nS3CRET bobmarker\r\n",
    ".\r\n",
    "BDAT 7 LAST\r\nS3CRET\n",
    "AUTH PLAIN S3CRET\r\n",
    "AUTH LOGIN\r\nS3CRET\r\nS3CRET\r\n",
    "AUTH LOGIN\r\nS3CRET",
    "AUTHPLAIN S3CRET\r\n",
    "\r\n",
    "STARTTLS\r\n",
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

#[derive(Clone, Debug)]
enum Step {
    Bytes(Peer, Vec<u8>),
    Gap(Peer, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let of = |peer, pieces: &'static [&'static str]| {
        vec(prop::sample::select(pieces), 1..4).prop_map(move |pieces| Step::Bytes(peer, pieces.concat().into_bytes()))
    };
    let peer = || prop_oneof![Just(Peer::Client), Just(Peer::Server)];
    prop_oneof![
        12 => of(Peer::Client, CLIENT),
        12 => of(Peer::Server, SERVER),
        1 => (peer(), 1..200_u64).prop_map(|(peer, length)| Step::Gap(peer, length)),
    ]
}

fn events(addresses: Addresses, steps: &[Step]) -> Vec<(Time, Event)> {
    let (mut session, mut judge, mut filter) = (Session::new(), Analysis::default(), Filter::new());
    let (mut items, mut events) = (DecoderOutput::default(), Vec::new());
    let policy = RedactionPolicy::new(addresses);
    let emit = &mut |time, _: Option<&Caller>, what: What<'_>| events.push((time, Event::of(what, policy)));
    for step in steps {
        match step {
            Step::Bytes(peer, bytes) => {
                session.begin_call(*peer);
                for (_, said) in filter.call(*peer, Time(1), bytes) {
                    said.segments().for_each(|segment| session.segment(*peer, Time(1), None, segment, &mut items));
                }
            }
            Step::Gap(peer, length) => {
                filter.hole(*peer, *length);
                session.gap(*peer, Time(1), *length, &mut items);
            }
        }
        items.iter().for_each(|item| judge.item(None, None, item, emit));
        items.clear();
    }
    session.finish(Time(1), &mut items);
    items.iter().for_each(|item| judge.item(None, None, item, emit));
    judge.finish(Some(Time(1)), Time(1), None, emit);
    events
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_secret_and_no_name_is_shown(steps in vec(step(), 0..24)) {
        for addresses in [Addresses::Full, Addresses::Domain, Addresses::None] {
            let json = serde_json::to_string(&events(addresses, &steps).into_iter().map(|(_, event)| event)
                .collect::<Vec<_>>()).expect("events are JSON");
            prop_assert!(!json.contains("S3CRET"), "{:?}: {}", addresses, json);
            if addresses != Addresses::Full {
                prop_assert!(!json.to_ascii_lowercase().contains("bobmarker"), "{:?}: {}", addresses, json);
            }
        }
    }

    #[test]
    fn each_reply_is_judged_once(steps in vec(step(), 0..24)) {
        let events = events(Addresses::Domain, &steps);
        let commands = |verb: &str| events.iter().filter(|(_, event)| {
            matches!(event, Event::Command(command) if command.verb == verb && command.code.is_some())
        }).count();
        prop_assert_eq!(events.iter().filter(|(_, event)| matches!(event, Event::Rset(_))).count(), commands("RSET"));
        prop_assert_eq!(events.iter().filter(|(_, event)| matches!(event, Event::Noop(_))).count(), commands("NOOP"));
        let ended = events.iter().filter(|(_, event)| matches!(event, Event::Transaction(_))).count();
        prop_assert!(ended <= commands("MAIL"));
    }
}
