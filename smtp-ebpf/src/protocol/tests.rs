//! Dialogues through the filter, in words.

use std::boxed::Box;
use std::format;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::event::{
    Segment, SegmentKind, WINDOW_LENGTH, WITHHELD_BARE_CR, WITHHELD_CR, WITHHELD_CRLF, WITHHELD_LF, WITHHELD_NUL,
};

/// Both directions of a dialogue, and what crosses of them.
pub(super) struct Talk {
    dialogue: Box<Dialogue>,
    work: Box<Work>,
    positions: [u32; 2],
    time: u64,
    /// By speaker: what crossed.
    pub(super) told: [Vec<Told>; 2],
}

/// A segment, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Text(Vec<u8>),
    /// Its length, how it ends, NUL, bare CR.
    Withheld(u32, u8),
    Content(u32),
    Uncaptured(u32),
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
        let (dialogue, work) = (Box::new(dialogue), Box::new(Work::new()));
        Self { dialogue, work, positions: [1000, 5000], time: 0, told: [Vec::new(), Vec::new()] }
    }

    /// A call moves these bytes.
    pub(super) fn says(&mut self, speaker: Speaker, bytes: &[u8]) -> &mut Self {
        for bytes in bytes.chunks(WINDOW_LENGTH) {
            self.time += 1;
            let start = self.positions[speaker as usize];
            self.positions[speaker as usize] += bytes.len() as u32;
            let call =
                Call { speaker, time: self.time, start, length: bytes.len() as u32, positions: true, behind: false };
            let segments = pass(&mut self.dialogue, &mut self.work, call, bytes).to_vec();
            read(&segments, &mut self.told[speaker as usize]);
        }
        self
    }

    pub(super) fn client(&mut self, text: &str) -> &mut Self {
        self.says(Speaker::Client, text.as_bytes())
    }

    pub(super) fn server(&mut self, text: &str) -> &mut Self {
        self.says(Speaker::Server, text.as_bytes())
    }

    /// Bytes go by unseen.
    pub(super) fn gap(&mut self, speaker: Speaker, length: u32) -> &mut Self {
        self.positions[speaker as usize] += length;
        self
    }

    pub(super) fn shown(&self, speaker: Speaker) -> String {
        self.told[speaker as usize].iter().map(show).collect()
    }
}

fn show(told: &Told) -> String {
    match told {
        Told::Text(text) => format!("{}", text.escape_ascii()),
        Told::Withheld(length, flags) => {
            let mut shown = format!("<{length}");
            for (flag, sign) in [
                (WITHHELD_CRLF, "$"),
                (WITHHELD_LF, "~"),
                (WITHHELD_NUL, "0"),
                (WITHHELD_BARE_CR, "^"),
                (WITHHELD_CR, ","),
            ] {
                if flags & flag != 0 {
                    shown.push_str(sign);
                }
            }
            shown + ">"
        }
        Told::Content(length) => format!("[{length}]"),
        Told::Uncaptured(length) => format!("({length})"),
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
            SegmentKind::Uncaptured => Told::Uncaptured(length),
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
            | (Some(Told::Uncaptured(length)), Told::Uncaptured(more))
            | (Some(Told::Ciphertext(length)), Told::Ciphertext(more)) => *length += more,
            (Some(Told::Withheld(length, flags)), Told::Withheld(more, end)) if *flags & ENDS == 0 => {
                *length += more;
                *flags |= end;
            }
            (_, next) => told.push(next),
        }
    }
    assert!(bytes.is_empty());
}

#[test]
fn a_mail() {
    let mut talk = Talk::new();
    talk.server("220 mx ESMTP\r\n").client("EHLO a.example\r\n").server("250-mx\r\n250 PIPELINING\r\n");
    talk.client("MAIL FROM:<a@b.example> SIZE=10\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    talk.server("250 ok\r\n250 ok\r\n354 go on\r\n");
    talk.client("Subject: x\r\n\r\nsecret\r\n.\r\n").server("250 queued\r\n").client("QUIT\r\n").server("221 bye\r\n");
    assert_eq!(
        talk.shown(Speaker::Client),
        r"EHLO a.example\r\nMAIL FROM:<a@b.example> SIZE=10\r\nRCPT TO:<c@d>\r\nDATA\r\n[20]\r\n.\r\nQUIT\r\n"
    );
    assert_eq!(
        talk.shown(Speaker::Server),
        r"220 mx ESMTP\r\n250-mx\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n354 go on\r\n250 queued\r\n221 bye\r\n"
    );
}

#[test]
fn credentials() {
    let mut talk = Talk::new();
    talk.server("220 mx\r\n").client("AUTH LOGIN\r\n").server("334 VXNlcm5hbWU6\r\n").client("hunter2\r\n");
    talk.server("334 x\r\n").client("secret\r\n").server("535 5.7.8 no hunter2\r\n").client("AUTH PLAIN abc\r\n");
    talk.server("501 5.5.4 cannot decode abc\r\n").client("hunter2\r\n").server("500 what is hunter2?\r\n");
    talk.client("NOOP\r\n").server("250 ok\r\n").client("auth hunter2\r\n").server("504 5.5.4 hunter2\r\n");
    assert_eq!(talk.shown(Speaker::Client), r"AUTH LOGIN\r\n<9$><8$>AUTH PLAIN<6$><9$>NOOP\r\nauth<10$>");
    assert_eq!(
        talk.shown(Speaker::Server),
        r"220 mx\r\n334 <14$>334 <3$>535 5.7.8 <12$>501 5.5.4 <19$>500 <18$>250 ok\r\n504 5.5.4 <9$>"
    );
}

#[test]
fn content_that_waited_is_told_once() {
    let mut talk = Talk::new();
    talk.server("220 mx\r\n").client("DATA\r\n").server("354 go\r\n");
    talk.client("one\r\n").client("two\r\n.\r\n").server("250 ok\r\n").client("QUIT\r\n");
    assert_eq!(talk.shown(Speaker::Client), r"DATA\r\n[8]\r\n.\r\nQUIT\r\n");
}

#[test]
fn a_line_that_is_cut_between_cr_and_lf() {
    let mut talk = Talk::new();
    talk.client("AUTH LOGIN\r\n")
        .server("334 ")
        .server("x\r")
        .server("\n")
        .server("535 5.7.8 no hunter2\r")
        .server("\n");
    assert_eq!(talk.shown(Speaker::Server), "334 <3$>535 5.7.8 <12~,>");
    let credentials = "x".repeat(300);
    let mut talk = Talk::new();
    talk.server("220 mx\r\n");
    format!("AUTH PLAIN {credentials}\r\n").bytes().for_each(|byte| {
        talk.says(Speaker::Client, &[byte]);
    });
    assert_eq!(talk.shown(Speaker::Client), "AUTH PLAIN<303~,>");
}
