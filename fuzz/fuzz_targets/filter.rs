//! Any dialogue through the filter of what crosses from the kernel: nothing panics, no marked byte of a body crosses, what
//! is told and what waits is as long as what was said, and no cut changes what crosses.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_ebpf::event::{CaptureMiss, Segment, SegmentKind};
use smtp_ebpf::protocol::{Call, Crossing, Dialogue, Speaker, Work, miss, pass};

/// No text has this byte but what stands for content (it is not part of UTF-8).
const MARK: u8 = 0xf5;

/// The first byte of a handshake's record, whose text crosses whatever it is.
const HANDSHAKE: u8 = 0x16;

/// What a body is made of: nothing of it is a command.
const BODY: [u8; 8] = [MARK, MARK, MARK, b'\r', b'\n', b'.', b'\0', b' '];

/// What happens next.
enum Turn {
    Says(Speaker, Vec<u8>),
    Gap(Speaker, u32),
    Fault(Speaker, u32),
}

/// The turns that bytes are, in the form of a packed transcript: what it is, a number, and so many bytes.
fn turns(mut bytes: &[u8]) -> Vec<Turn> {
    let mut turns = Vec::new();
    while let [kind, number, rest @ ..] = bytes {
        let speaker = if kind % 2 == 0 { Speaker::Client } else { Speaker::Server };
        let length = usize::from(*number);
        let (said, behind) = rest.split_at(rest.len().min(length));
        let says = |said: Vec<u8>| Turn::Says(speaker, said);
        bytes = if matches!(kind % 8, 0..=3 | 7) { behind } else { rest };
        match kind % 8 {
            0..=3 => turns.push(says(said.iter().map(|byte| if *byte == MARK { b'x' } else { *byte }).collect())),
            4 | 5 => turns.push(Turn::Gap(speaker, length as u32)),
            6 => turns.push(Turn::Fault(Speaker::Client, length as u32)),
            // A body stands for itself, and is not the argument of what was said before.
            _ => {
                let body = said.iter().map(|byte| BODY[usize::from(*byte) % BODY.len()]);
                turns.push(Turn::Says(Speaker::Client, b"\r\n".iter().copied().chain(body).chain(*b"\r\n").collect()));
            }
        }
    }
    turns
}

/// What crossed of one direction.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    text: Vec<u8>,
    /// By kind: bytes, and lines that end in them.
    lengths: [u64; 8],
    lines: u64,
}

struct Talk {
    dialogue: Box<Dialogue>,
    work: Box<Work>,
    positions: [u32; 2],
    said: [u64; 2],
    told: [Told; 2],
}

impl Talk {
    fn call(&mut self, speaker: Speaker, length: u32) -> Call {
        let start = self.positions[speaker as usize];
        self.positions[speaker as usize] = start.wrapping_add(length);
        self.said[speaker as usize] += u64::from(length);
        Call { speaker, time: 1, start, length, positions: true, behind: false }
    }

    fn says(&mut self, speaker: Speaker, bytes: &[u8]) {
        if !bytes.is_empty() {
            let call = self.call(speaker, bytes.len() as u32);
            self.told[speaker as usize].read(pass(&mut self.dialogue, &mut self.work, call, bytes));
        }
    }

    fn turn(&mut self, turn: &Turn, cut: usize) {
        match turn {
            Turn::Says(speaker, bytes) => bytes.chunks(cut).for_each(|bytes| self.says(*speaker, bytes)),
            Turn::Gap(speaker, length) => {
                let position = &mut self.positions[*speaker as usize];
                *position = position.wrapping_add(*length);
            }
            Turn::Fault(_, 0) => {}
            Turn::Fault(speaker, length) => {
                let call = self.call(*speaker, *length);
                // SAFETY: both are this talk's own.
                let crossing = unsafe { miss(&raw mut *self.dialogue, &raw mut *self.work, call, CaptureMiss::Fault) };
                let Crossing::Segments(size) = crossing else { unreachable!("no text was read") };
                self.told[*speaker as usize].read(&self.work.out[..size as usize]);
            }
        }
    }
}

impl Told {
    fn read(&mut self, mut bytes: &[u8]) {
        while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
            let Segment { kind, count, length, .. } = Segment::from_bytes(*header);
            let kind = SegmentKind::from_number(kind).expect("a kind");
            let follows = if matches!(kind, SegmentKind::Text | SegmentKind::Begun) { usize::from(count) } else { 0 };
            let (follows, rest) = rest.split_at(follows);
            bytes = rest;
            self.lengths[kind as usize] += u64::from(length);
            match kind {
                SegmentKind::Text => self.text.extend(follows),
                SegmentKind::Uncaptured => self.lines += u64::from(count),
                _ => {}
            }
        }
        assert!(bytes.is_empty());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let is_under_way = bytes.first().is_some_and(|first| *first >= 0x80);
    let begin = if is_under_way { Dialogue::UNDER_WAY } else { Dialogue::beginning() };
    let turns = turns(bytes);
    let is_handshake = turns.iter().any(|turn| matches!(turn, Turn::Says(_, bytes) if bytes.contains(&HANDSHAKE)));
    let told = [usize::MAX, 1, 7].map(|cut| {
        let (dialogue, work) = (Box::new(begin), Box::new(Work::EMPTY));
        let mut talk = Talk { dialogue, work, positions: [u32::MAX - 9, 5], said: [0; 2], told: Default::default() };
        for turn in &turns {
            talk.turn(turn, cut);
        }
        for speaker in [Speaker::Client, Speaker::Server] {
            let told = &talk.told[speaker as usize];
            let waits = talk.dialogue.waits(speaker);
            assert_eq!(told.lengths.iter().sum::<u64>() + u64::from(waits), talk.said[speaker as usize]);
            assert!(is_handshake || !told.text.contains(&MARK), "{}", told.text.escape_ascii());
        }
        talk.told
    });
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], told[2]);
});
