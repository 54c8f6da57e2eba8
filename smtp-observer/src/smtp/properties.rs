//! What holds for any bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::transcript::{Step, feed, items_in_pieces, line, steps};
use super::{DecoderOutput, MAX_HELD, MAX_WAITING, MAX_WAITING_BYTES, Peer, Session};
use crate::event::Time;

/// Pieces that dialogues are made of, and their breakage.
const CLIENT: &[&[u8]] = &[
    b"EHLO client.example\r\n",
    b"HELO\r\n",
    b"LHLO x\r\n",
    b"MAIL FROM:<a@x.example>\r\n",
    b"RCPT TO:<b@y.example>\r\n",
    b"DATA\r\n",
    b"Subject: x\r\n",
    b".\r\n",
    b"..\r\n",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\r\n.\r",
    b"\n.\nMAIL FROM:<>\r\nDATA\r\nevil\r\n.\r\n",
    b"\0.\r\n",
    b"DATA\0\r\n",
    b"BURL imap://x LAST\r\n",
    b"\r",
    b"\n",
    b"BDAT 5\r\n",
    b"BDAT 3 LAST\r\n",
    b"BDAT x\r\n",
    b"abcde",
    b"AUTH LOGIN\r\n",
    b"AUTH PLAIN AGI=\r\n",
    b"*\r\n",
    b"YWJj\r\n",
    b"STARTTLS\r\n",
    b"\x16\x03\x01",
    b"\x16",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"QUIT\r\n",
    b"XEXCH50 4 2\r\n",
    b"ATRN\r\n",
    b"XCLIENT NAME=x\r\n",
    b"PROXY TCP4 ",
    b"\r\n\r\n\0\r\nQUIT\n",
    b"\x04\x01",
    b"\x05\x01",
    b"220 x\r\n",
    b"GET / HTTP/1.1\r\n",
    b"\0\xff",
    b"X",
];
const SERVER: &[&[u8]] = &[
    b"220 mx.example ESMTP\r\n",
    b"250 ok\r\n",
    b"250-a\r\n",
    b"250-PIPELINING\r\n250-STARTTLS\r\n250 CHUNKING\r\n",
    b"354 go\r\n",
    b"334 YWJj\r\n",
    b"334 \r\n",
    b"235 in\r\n",
    b"353 each\r\n",
    b"421 away\r\n",
    b"421 4.4.2 timeout\r\n",
    b"250 5.0.0 odd\r\n",
    b"450 4.1.1 no\r\n",
    b"550 5.1.1 no\r\n",
    b"503 bad\r\n",
    b"221 bye\r\n",
    b"25",
    b"0",
    b" ",
    b"\r\n",
    b"\n",
    b"garbage\r\n",
    b"\x17\x03",
    b"\0\x5a\0\0\0\0\0\0",
    b"\x05\0",
];

fn step() -> impl Strategy<Value = Step> {
    let of = |peer, pieces: &'static [&'static [u8]]| {
        vec(prop::sample::select(pieces), 1..5).prop_map(move |pieces| Step::Bytes(peer, pieces.concat()))
    };
    let peer = || prop_oneof![Just(Peer::Client), Just(Peer::Server)];
    prop_oneof![
        12 => of(Peer::Client, CLIENT),
        12 => of(Peer::Server, SERVER),
        2 => (peer(), vec(any::<u8>(), 0..64)).prop_map(|(peer, bytes)| Step::Bytes(peer, bytes)),
        1 => (peer(), 0..200_u64).prop_map(|(peer, length)| Step::Gap(peer, length)),
        1 => (1..200_u64).prop_map(|length| Step::Content(Peer::Client, length)),
    ]
}

fn session(midstream: bool) -> Session {
    if midstream { Session::midstream() } else { Session::new() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_segmentation_has_the_same_items(
        steps in vec(step(), 0..24),
        midstream: bool,
        size in 1..12_usize,
        cuts in vec(1..9_usize, 1..40),
    ) {
        let whole = items_in_pieces(session(midstream), &steps, usize::MAX);
        prop_assert_eq!(&items_in_pieces(session(midstream), &steps, size), &whole);

        let mut items = DecoderOutput::default();
        let mut random = session(midstream);
        let mut cuts = cuts.iter().cycle();
        for step in &steps {
            let Step::Bytes(peer, bytes) = step else {
                feed(&mut random, Time(1), step, &mut items);
                continue;
            };
            let mut rest = bytes.as_slice();
            while let Some(&cut) = cuts.next() && !rest.is_empty() {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                random.receive(*peer, Time(1), piece, &mut items);
                rest = tail;
            }
        }
        random.finish(Time(1), &mut items);
        prop_assert_eq!(items.to_vec(), whole);
    }

    #[test]
    fn every_loss_is_recovered_from(steps in vec(step(), 0..24), midstream: bool) {
        let mut session = session(midstream);
        let mut items = DecoderOutput::default();
        steps.iter().for_each(|step| feed(&mut session, Time(1), step, &mut items));
        // A loss in either direction, then the end of any message, and commands that are sent one by one.
        session.gap(Peer::Client, Time(1), u64::MAX, &mut items);
        session.gap(Peer::Server, Time(1), 1, &mut items);
        if session.is_changed() {
            return Ok(());
        }
        for (peer, text) in [
            (Peer::Client, "\r\n.\r\n"), (Peer::Server, "\r\n250 taken\r\n"),
            (Peer::Client, "RSET\r\n"), (Peer::Server, "250 reset\r\n"),
            (Peer::Client, "RSET\r\n"), (Peer::Server, "250 reset\r\n"),
            (Peer::Client, "RSET\r\n"), (Peer::Server, "250 reset\r\n"),
        ] {
            session.receive(peer, Time(1), text.as_bytes(), &mut items);
        }
        items.clear();
        session.receive(Peer::Client, Time(1), b"NOOP last\r\n", &mut items);
        session.receive(Peer::Server, Time(1), b"250 ok\r\n", &mut items);
        let lines: Vec<_> = items.iter().map(line).collect();
        prop_assert!(lines.iter().any(|line| line == "NOOP last -> 250 ok"), "{:?}", lines);
    }
}

/// Feeds a pattern for `calls` calls and tells the most memory a session had.
fn most_memory(peer: Peer, start: &[(Peer, &[u8])], piece: &[u8], calls: usize) -> usize {
    let mut session = Session::new();
    let mut items = DecoderOutput::default();
    let mut most = 0;
    for (peer, bytes) in start {
        session.receive(*peer, Time(0), bytes, &mut items);
    }
    let mut seen = 0;
    for call in 0..calls {
        session.receive(peer, Time(call as u64), piece, &mut items);
        most = most.max(session.memory());
        seen += items.len();
        items.clear();
    }
    assert!(seen <= calls * (piece.len() / 2 + 1) + 200, "{seen} items");
    most
}

#[test]
fn memory_is_bounded() {
    let bound = 2 * MAX_WAITING_BYTES + 4 * MAX_HELD + MAX_WAITING * 512;
    let greeted: &[(Peer, &[u8])] = &[(Peer::Server, b"220 mx.example\r\n")];
    let data: &[(Peer, &[u8])] = &[(Peer::Server, b"220 mx.example\r\n"), (Peer::Client, b"DATA\r\n")];
    let long = [b'a'; 8192];
    let line = [&[b'a'; 2000][..], b"\r\n"].concat();
    for (peer, start, piece) in [
        (Peer::Client, greeted, &b"NOOP\r\n"[..]),
        (Peer::Client, greeted, &line),
        (Peer::Client, greeted, &long),
        (Peer::Client, data, &long),
        (Peer::Client, data, b"x"),
        (Peer::Server, greeted, &long),
        (Peer::Server, greeted, b"250-more and more\r\n"),
        (Peer::Server, greeted, b"250 unasked\r\n"),
    ] {
        let most = most_memory(peer, start, piece, 5000);
        assert!(most < bound, "{most} bytes for {:?}", String::from_utf8_lossy(&piece[..piece.len().min(20)]));
    }
}

#[test]
fn an_idle_session_is_small() {
    let mut session = Session::new();
    let mut items = DecoderOutput::default();
    session.receive(Peer::Server, Time(1), b"220 mx.example\r\n", &mut items);
    session.receive(Peer::Client, Time(1), b"EHLO client.example\r\n", &mut items);
    session.receive(Peer::Server, Time(1), b"250 mx.example\r\n", &mut items);
    assert!(session.memory() < 2048, "{} bytes", session.memory());
}

#[test]
fn one_cut_anywhere_changes_nothing() {
    let steps = steps(
        "S: 220-mx.example
         S: 220 ESMTP
         C: EHLO client.example
         S: 250-mx.example
         S: 250-PIPELINING
         S: 250 CHUNKING
         C: AUTH LOGIN
         S: 334 VXNlcm5hbWU6
         C: Ym9i
         S: 535 5.7.8 no
         C: MAIL FROM:<a@x.example>
         C: RCPT TO:<b@y.example>
         C: DATA
         S: 250 2.1.0 Ok
         S: 250 2.1.5 Ok
         S: 354 go
         C: .dots
         C| \\r\\n.\\n\\r\\n..\\r\\n.\\r\\nRSET\\r\\nBDAT 4\\r\\n\\r\\n.\\nBDAT 0 LAST\\r\\nNOOP\\n
         S: 250 taken
         S: 250-reset
         S: 250 now
         S: 250 4 octets
         S: 452 4.2.2 full
         S: 250 ok
         C: STARTTLS
         S: 220 go
         C| \\x16\\x03\\x01",
    );
    let whole = items_in_pieces(Session::new(), &steps, usize::MAX);
    let mut cuts = 0;
    for (at, step) in steps.iter().enumerate() {
        let Step::Bytes(peer, bytes) = step else { continue };
        for cut in 1..bytes.len() {
            let (first, second) = bytes.split_at(cut);
            let mut pieces = steps.clone();
            let halves = [Step::Bytes(*peer, first.to_vec()), Step::Bytes(*peer, second.to_vec())];
            pieces.splice(at..=at, halves);
            assert_eq!(items_in_pieces(Session::new(), &pieces, usize::MAX), whole, "step {at} cut at {cut}");
            cuts += 1;
        }
    }
    assert!(cuts > 300, "{cuts} cuts");
}
