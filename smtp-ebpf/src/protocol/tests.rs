//! Dialogues through the filter, in words. Each is run whole, byte by byte, and cut at every place.

mod chunks;
mod commands;
mod content;
mod handshakes;
mod openings;
mod properties;
mod replies;
mod uncertainty;

use std::boxed::Box;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::*;
use crate::event::{
    CaptureMiss, Segment, SegmentKind, WINDOW_LENGTH, WITHHELD_BARE_CR, WITHHELD_CR, WITHHELD_CRLF, WITHHELD_LF,
    WITHHELD_NUL,
};

/// What happens next.
#[derive(Clone)]
pub(super) enum Turn {
    /// Who connected says this.
    C(Vec<u8>),
    /// Who accepted says this.
    S(Vec<u8>),
    /// Who accepted says this, when who connected has said more than the filter was told of.
    Behind(Vec<u8>),
    /// So many bytes go by unseen.
    Gap(Speaker, u32),
    /// So many bytes cannot be read.
    Fault(Speaker, u32),
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::C(bytes) => write!(f, "C {}", shown(bytes)),
            Self::S(bytes) => write!(f, "S {}", shown(bytes)),
            Self::Behind(bytes) => write!(f, "behind {}", shown(bytes)),
            Self::Gap(speaker, length) => write!(f, "gap {speaker:?} {length}"),
            Self::Fault(speaker, length) => write!(f, "fault {speaker:?} {length}"),
        }
    }
}

fn c(text: impl AsRef<[u8]>) -> Turn {
    Turn::C(text.as_ref().to_vec())
}

fn s(text: impl AsRef<[u8]>) -> Turn {
    Turn::S(text.as_ref().to_vec())
}

/// What is shown of text that crosses whole.
fn shown(text: impl AsRef<[u8]>) -> String {
    text.as_ref().escape_ascii().to_string()
}

/// How what is said is cut into calls.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    Whole,
    /// Each call has so many bytes.
    Every(usize),
    /// A turn, by its number, is cut in two.
    At(usize, usize),
}

impl Cut {
    fn calls(self, turn: usize, bytes: &[u8]) -> Vec<&[u8]> {
        match self {
            Self::Every(length) => bytes.chunks(length).collect(),
            Self::At(at, place) if at == turn => [&bytes[..place], &bytes[place..]].to_vec(),
            _ => bytes.chunks(WINDOW_LENGTH).collect(),
        }
    }
}

/// Both directions of a dialogue, and what crosses of them.
pub(super) struct Talk {
    dialogue: Box<Dialogue>,
    work: Box<Work>,
    positions: [u32; 2],
    time: u64,
    /// By speaker: what crossed, and how many bytes were said.
    pub(super) told: [Vec<Told>; 2],
    said: [u64; 2],
}

/// A segment, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Text(Vec<u8>),
    /// Its length, how it ends, NUL, bare CR.
    Withheld(u32, u8),
    Content(u32),
    /// Its length, and how many lines end in it.
    Uncaptured(u32, u16),
    Ciphertext(u32),
}

impl Talk {
    pub(super) fn new() -> Self {
        Self::of(Dialogue::beginning())
    }

    pub(super) fn under_way() -> Self {
        Self::of(Dialogue::UNDER_WAY)
    }

    fn of(dialogue: Dialogue) -> Self {
        let (dialogue, work) = (Box::new(dialogue), Box::new(Work::EMPTY));
        Self { dialogue, work, positions: [1000, 5000], time: 0, told: [Vec::new(), Vec::new()], said: [0; 2] }
    }

    /// The call that moves so many bytes next.
    fn call(&mut self, speaker: Speaker, length: usize) -> Call {
        self.time += 1;
        let start = self.positions[speaker as usize];
        self.positions[speaker as usize] += length as u32;
        self.said[speaker as usize] += length as u64;
        Call { speaker, time: self.time, start, length: length as u32, positions: true, behind: false }
    }

    /// A call moves these bytes.
    fn says(&mut self, speaker: Speaker, bytes: &[u8], behind: bool) -> &mut Self {
        if !bytes.is_empty() {
            let call = Call { behind, ..self.call(speaker, bytes.len()) };
            // SAFETY: a working memory is numbers alone; both are this call's own.
            let (mut slow, mut work) =
                (self.dialogue.clone(), Box::new(unsafe { core::ptr::read(&raw const *self.work) }));
            work.load(bytes);
            // SAFETY: as above.
            let crossing = unsafe { step(&raw mut *slow, &raw mut *work, call) };
            let segments = pass(&mut self.dialogue, &mut self.work, call, bytes);
            // What is decided at a glance is what the step comes to.
            assert_eq!(segments, work.segments(crossing, bytes.len()), "{}", shown(bytes));
            assert_eq!(self.dialogue, slow, "{}", shown(bytes));
            read(segments, &mut self.told[speaker as usize]);
        }
        self
    }

    /// A call moves bytes that cannot be read.
    fn misses(&mut self, speaker: Speaker, length: u32) {
        let call = self.call(speaker, length as usize);
        // SAFETY: both are this talk's own.
        let crossing = unsafe { miss(&raw mut *self.dialogue, &raw mut *self.work, call, CaptureMiss::Fault) };
        let Crossing::Segments(_) = crossing else { panic!("no text was read") };
        read(self.work.segments(crossing, 0), &mut self.told[speaker as usize]);
    }

    pub(super) fn client(&mut self, text: &str) -> &mut Self {
        self.says(Speaker::Client, text.as_bytes(), false)
    }

    pub(super) fn server(&mut self, text: &str) -> &mut Self {
        self.says(Speaker::Server, text.as_bytes(), false)
    }

    fn turns(&mut self, turns: &[Turn], cut: Cut) -> &mut Self {
        for (at, turn) in turns.iter().enumerate() {
            match turn {
                Turn::C(bytes) => cut.calls(at, bytes).iter().for_each(|bytes| {
                    self.says(Speaker::Client, bytes, false);
                }),
                Turn::S(bytes) => cut.calls(at, bytes).iter().for_each(|bytes| {
                    self.says(Speaker::Server, bytes, false);
                }),
                Turn::Behind(bytes) => cut.calls(at, bytes).iter().for_each(|bytes| {
                    self.says(Speaker::Server, bytes, true);
                }),
                Turn::Gap(speaker, length) => self.positions[*speaker as usize] += length,
                Turn::Fault(speaker, length) => self.misses(*speaker, *length),
            }
        }
        self.adds_up();
        self
    }

    /// What was told and what waits is as long as what was said.
    fn adds_up(&self) {
        for speaker in [Speaker::Client, Speaker::Server] {
            let waits = self.dialogue.waits(speaker);
            let told: u64 = self.told[speaker as usize].iter().map(Told::length).sum();
            assert_eq!(told + u64::from(waits), self.said[speaker as usize], "{speaker:?} {}", self.shown(speaker));
        }
    }

    pub(super) fn shown(&self, speaker: Speaker) -> String {
        self.told[speaker as usize].iter().map(show).collect()
    }

    /// Every byte that crossed.
    fn text(&self) -> Vec<u8> {
        let texts = self.told.iter().flatten().filter_map(|told| match told {
            Told::Text(text) => Some(text.as_slice()),
            _ => None,
        });
        texts.flat_map(|text| text.iter().copied().chain([b'|'])).collect()
    }
}

impl Told {
    fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Withheld(length, _)
            | Self::Content(length)
            | Self::Uncaptured(length, _)
            | Self::Ciphertext(length) => u64::from(*length),
        }
    }
}

/// Text as it is, with the names of control bytes; `<9$>`: so many bytes of a line are withheld, with CR LF (`$`), LF (`~`),
/// NUL (`0`), a bare CR (`^`); `[9]`: content; `(9)`: not certain, or not seen; `{9}`: ciphertext.
fn show(told: &Told) -> String {
    match told {
        Told::Text(text) => shown(text),
        Told::Withheld(length, flags) => {
            let mut shown = format!("<{length}");
            for (flag, sign) in [(WITHHELD_CRLF, "$"), (WITHHELD_LF, "~"), (WITHHELD_NUL, "0"), (WITHHELD_BARE_CR, "^")]
            {
                if flags & flag != 0 {
                    shown.push_str(sign);
                }
            }
            shown + ">"
        }
        Told::Content(length) => format!("[{length}]"),
        Told::Uncaptured(length, _) => format!("({length})"),
        Told::Ciphertext(length) => format!("{{{length}}}"),
    }
}

/// Reads segments; what is alike and next to each other is one.
fn read(mut bytes: &[u8], told: &mut Vec<Told>) {
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        let Segment { kind, flags, count, length } = Segment::from_bytes(*header);
        bytes = rest;
        let next = match SegmentKind::from_number(kind).expect("a kind") {
            SegmentKind::Text => {
                assert_eq!(u32::from(count), length);
                let (text, rest) = bytes.split_at(length as usize);
                bytes = rest;
                Told::Text(text.to_vec())
            }
            SegmentKind::Withheld => Told::Withheld(length, flags),
            SegmentKind::Content => Told::Content(length),
            SegmentKind::Uncaptured => Told::Uncaptured(length, count),
            SegmentKind::Ciphertext => Told::Ciphertext(length),
            SegmentKind::Begun => {
                bytes = &bytes[8..];
                continue;
            }
        };
        const ENDS: u8 = WITHHELD_CRLF | WITHHELD_LF;
        match (told.last_mut(), next) {
            (Some(Told::Text(text)), Told::Text(more)) => text.extend(more),
            (Some(Told::Content(length)), Told::Content(more))
            | (Some(Told::Ciphertext(length)), Told::Ciphertext(more)) => *length += more,
            (Some(Told::Uncaptured(length, lines)), Told::Uncaptured(more, ends)) => {
                *length += more;
                *lines += ends;
            }
            (Some(Told::Withheld(length, flags)), Told::Withheld(more, end)) if *flags & ENDS == 0 => {
                *length += more;
                let is_crlf = *flags & WITHHELD_CR != 0 && more == 1 && end & WITHHELD_LF != 0;
                *flags = *flags & !WITHHELD_CR | if is_crlf { WITHHELD_CRLF } else { end };
            }
            (_, next) => told.push(next),
        }
    }
    assert!(bytes.is_empty());
}

/// Every way to cut these turns; of a long turn, some places.
fn cuts(turns: &[Turn]) -> Vec<Cut> {
    let mut cuts = Vec::from([Cut::Whole, Cut::Every(1), Cut::Every(3), Cut::Every(17)]);
    for (at, turn) in turns.iter().enumerate() {
        if let Turn::C(bytes) | Turn::S(bytes) | Turn::Behind(bytes) = turn {
            let stride = bytes.len().div_ceil(400).max(1);
            cuts.extend((1..bytes.len()).step_by(stride).map(|place| Cut::At(at, place)));
        }
    }
    cuts
}

/// What crosses of these turns, however they are cut.
fn cross(begin: fn() -> Talk, turns: &[Turn]) -> [String; 2] {
    let mut whole = begin();
    whole.turns(turns, Cut::Whole);
    for cut in cuts(turns) {
        // A turn cut in two has no part that is longer than a window.
        if matches!(cut, Cut::At(at, place) if is_long(&turns[at], place)) {
            continue;
        }
        let mut talk = begin();
        talk.turns(turns, cut);
        for speaker in [Speaker::Client, Speaker::Server] {
            let (told, expected) = (&talk.told[speaker as usize], &whole.told[speaker as usize]);
            assert_eq!(told, expected, "{cut:?} {}\n{}", talk.shown(speaker), whole.shown(speaker));
        }
    }
    [whole.shown(Speaker::Client), whole.shown(Speaker::Server)]
}

fn is_long(turn: &Turn, place: usize) -> bool {
    match turn {
        Turn::C(bytes) | Turn::S(bytes) | Turn::Behind(bytes) => place.max(bytes.len() - place) > WINDOW_LENGTH,
        _ => false,
    }
}

/// A dialogue is shown like this, both its sides.
fn check(turns: &[Turn], client: &str, server: &str) {
    let [shown_client, shown_server] = cross(Talk::new, turns);
    assert_eq!(shown_client, client, "the client");
    assert_eq!(shown_server, server, "the server");
}

/// The same of one that was under way when it was first seen.
fn check_under_way(turns: &[Turn], client: &str, server: &str) {
    let [shown_client, shown_server] = cross(Talk::under_way, turns);
    assert_eq!(shown_client, client, "the client");
    assert_eq!(shown_server, server, "the server");
}

/// A dialogue behind its greeting is shown like this.
fn check_greeted(turns: &[Turn], client: &str, server: &str) {
    let turns: Vec<Turn> = [s("220 mx\r\n")].into_iter().chain(turns.iter().cloned()).collect();
    check(&turns, client, &format!(r"220 mx\r\n{server}"));
}

#[test]
fn a_mail() {
    check(
        &[
            s("220 mx ESMTP\r\n"),
            c("EHLO a.example\r\n"),
            s("250-mx\r\n250 PIPELINING\r\n"),
            c("MAIL FROM:<a@b.example> SIZE=10\r\nRCPT TO:<c@d>\r\nDATA\r\n"),
            s("250 ok\r\n250 ok\r\n354 go on\r\n"),
            c("Subject: x\r\n\r\nsecret\r\n.\r\n"),
            s("250 queued\r\n"),
            c("QUIT\r\n"),
            s("221 bye\r\n"),
        ],
        r"EHLO a.example\r\nMAIL FROM:<a@b.example> SIZE=10\r\nRCPT TO:<c@d>\r\nDATA\r\n[20]\r\n.\r\nQUIT\r\n",
        r"220 mx ESMTP\r\n250-mx\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n354 go on\r\n250 queued\r\n221 bye\r\n",
    );
}

/// Of a hundred recipients in one call one text is told, and no byte is copied.
#[test]
fn a_run_of_known_lines_is_one_text() {
    let mut talk = Talk::new();
    talk.server("220 mx\r\n");
    let text = "RCPT TO:<somebody@example.org>\r\n".repeat(100);
    let call = Call { length: text.len() as u32, ..talk.call(Speaker::Client, text.len()) };
    talk.work.load(text.as_bytes());
    // SAFETY: both are this talk's own.
    let crossing = unsafe { step(&raw mut *talk.dialogue, &raw mut *talk.work, call) };
    assert_eq!(crossing, Crossing::Whole);
}

/// A line that waited is told with the time of its first byte.
#[test]
fn a_line_keeps_the_time_of_its_first_byte() {
    let mut talk = Talk::new();
    talk.server("220 mx\r\n").client("NO").client("O").client("P\r\nQU");
    let header = |kind: SegmentKind, count: u16, length: u32| Segment { kind: kind as u8, flags: 0, count, length };
    let begun = header(SegmentKind::Begun, 8, 0).to_bytes();
    let segments = |talk: &Talk, length: usize| talk.work.out[..length].to_vec();
    let expected =
        [&begun[..], &2_u64.to_ne_bytes(), &header(SegmentKind::Text, 6, 6).to_bytes(), b"NOOP\r\n"].concat();
    assert_eq!(segments(&talk, expected.len()), expected);
    talk.client("IT\r\nNOOP\r\n");
    let expected = [
        &begun[..],
        &4_u64.to_ne_bytes(),
        &header(SegmentKind::Text, 6, 6).to_bytes(),
        b"QUIT\r\n",
        &header(SegmentKind::Text, 6, 6).to_bytes(),
        b"NOOP\r\n",
    ]
    .concat();
    assert_eq!(segments(&talk, expected.len()), expected);
    talk.server("25").server("0 ok\r\n");
    let expected =
        [&begun[..], &6_u64.to_ne_bytes(), &header(SegmentKind::Text, 8, 8).to_bytes(), b"250 ok\r\n"].concat();
    assert_eq!(segments(&talk, expected.len()), expected);
}

#[test]
fn content_that_waited_is_told_once() {
    check_greeted(
        &[c("DATA\r\n"), s("354 go\r\n"), c("one\r\n"), c("two\r\n.\r\n"), s("250 ok\r\n"), c("QUIT\r\n")],
        r"DATA\r\n[8]\r\n.\r\nQUIT\r\n",
        r"354 go\r\n250 ok\r\n",
    );
}
