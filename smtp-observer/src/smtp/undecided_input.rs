//! Bytes of the client that cannot be read before the server has said how: behind DATA they are a message after 354 and
//! commands after a refusal.

use std::collections::VecDeque;

use crate::event::{LineEnd, Time, Withheld};

/// Bytes that are held as they came. Of what comes behind them only the last [`LAST`] are kept: enough to find the end
/// of a message, while the rest counts as not seen.
pub const MAX_HELD: usize = 16 * 1024;

/// Bytes kept of the end of what is more than [`MAX_HELD`].
const LAST: usize = 1024;

/// Parts with times of their own; further bytes have the time of the part they join.
const MAX_PARTS: usize = 64;

/// Gaps that are told apart.
const MAX_GAPS: usize = 16;

/// Parts of lines that did not cross. What comes with more of them counts as not seen.
const MAX_WITHHELD: usize = 256;

#[derive(Debug, Default)]
pub(super) struct UndecidedInput {
    parts: VecDeque<Part>,
    bytes: usize,
}

/// A part of what is held.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub(super) time: Time,
    /// Where it ends: so many bytes of the client came up to there.
    pub(super) end: u64,
    pub(super) content: Content,
    /// Bytes of it that were read since.
    read: usize,
}

#[derive(Debug, PartialEq)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    /// A line, or a part of one, that did not cross.
    Withheld(Withheld),
    /// So many bytes that are no lines.
    Unread(Unread, u64),
}

/// What bytes are that are not read as lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// They were not seen, or not kept.
    Gap,
    /// It is not certain what they are.
    Uncertain,
    /// Content of a message.
    Content,
    /// TLS.
    Ciphertext,
}

impl UndecidedInput {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// When the first of it came.
    pub(super) fn time(&self) -> Option<Time> {
        self.parts.front().map(|part| part.time)
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn cost(&self) -> usize {
        self.parts.len() * size_of::<Part>() + self.bytes
    }

    /// Adds bytes that end at `end`.
    pub(super) fn push(&mut self, time: Time, end: u64, bytes: &[u8]) {
        let (fits, rest) = bytes.split_at(bytes.len().min(MAX_HELD - self.bytes));
        self.bytes += fits.len();
        self.append(time, end.saturating_sub(rest.len() as u64), fits);
        if !rest.is_empty() {
            self.keep_last(time, end, rest);
        }
    }

    /// Adds bytes that are no lines, behind those that end at `end`.
    pub(super) fn unread(&mut self, time: Time, end: u64, unread: Unread, length: u64) {
        if self.bytes == MAX_HELD {
            // What was kept of the end is not the end any more.
            self.drop_last();
        }
        if let Some(Part { content: Content::Unread(last, gap), .. }) = self.parts.back_mut()
            && *last == unread
        {
            *gap = gap.saturating_add(length);
            return;
        }
        let gaps = self.parts.iter().filter(|part| matches!(part.content, Content::Unread(..))).count();
        let content = match gaps >= MAX_GAPS {
            true => Content::Unread(Unread::Gap, self.forget().saturating_add(length)),
            false => Content::Unread(unread, length),
        };
        self.parts.push_back(Part::new(time, end, content));
    }

    /// Adds a line, or a part of one, that did not cross and ends at `end`.
    pub(super) fn withheld(&mut self, time: Time, end: u64, withheld: Withheld) {
        if let Some(Part { end: until, content: Content::Withheld(last), .. }) = self.parts.back_mut()
            && (last.end, withheld.end) == (LineEnd::None, LineEnd::None)
        {
            // When the middle of a line came tells nothing: one that comes in pieces is not to use up the parts.
            last.length = last.length.saturating_add(withheld.length);
            last.nul |= withheld.nul;
            last.bare_cr |= withheld.bare_cr;
            *until = end;
            return;
        }
        let parts = self.parts.iter().filter(|part| matches!(part.content, Content::Withheld(_))).count();
        if parts >= MAX_WITHHELD {
            self.unread(time, end, Unread::Gap, withheld.length);
            return;
        }
        if self.bytes == MAX_HELD {
            self.drop_last();
        }
        self.parts.push_back(Part::new(time, end, Content::Withheld(withheld)));
    }

    /// Little of it was seen: all of it counts as not seen. How many bytes that are.
    fn forget(&mut self) -> u64 {
        self.bytes = 0;
        self.parts.drain(..).fold(0, |total, part| total.saturating_add(part.length()))
    }

    /// The first line without its end, once it can be told: complete, cut off by a gap, or already long.
    pub(super) fn first_line(&self) -> Option<Vec<u8>> {
        const LONG: usize = 512;
        let mut line = Vec::new();
        for part in &self.parts {
            let bytes = part.bytes();
            match &part.content {
                Content::Unread(..) => return Some(line),
                // It is no verb, or stands behind one.
                Content::Withheld(_) if line.is_empty() => return Some(b"x".to_vec()),
                Content::Withheld(_) => return Some(line),
                Content::Bytes(_) => {}
            }
            match bytes.iter().position(|&byte| byte == b'\n') {
                Some(end) => {
                    line.extend_from_slice(&bytes[..end]);
                    return Some(line);
                }
                None => line.extend_from_slice(bytes),
            }
        }
        (line.len() >= LONG).then_some(line)
    }

    /// Takes out the first part.
    pub(super) fn pop(&mut self) -> Option<Part> {
        let part = self.parts.pop_front()?;
        self.bytes = self.bytes.saturating_sub(part.bytes().len());
        Some(part)
    }

    /// Puts back the part that was taken out, of which so many bytes were read.
    pub(super) fn put_back(&mut self, part: Part, read: usize) {
        let read = part.read + read;
        let part = Part { read, ..part };
        if !part.bytes().is_empty() {
            self.bytes = (self.bytes + part.bytes().len()).min(MAX_HELD);
            self.parts.push_front(part);
        }
    }

    fn append(&mut self, time: Time, end: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let full = self.parts.len() >= MAX_PARTS;
        match self.parts.back_mut() {
            // Whatever the calls: one that came in pieces is not to use up the parts.
            Some(Part { time: last, end: until, content: Content::Bytes(held), .. }) if full || *last == time => {
                held.extend_from_slice(bytes);
                *until = end;
            }
            _ => self.parts.push_back(Part::new(time, end, Content::Bytes(bytes.to_vec()))),
        }
    }

    /// Keeps the end of what is too much: the last two parts are then a gap and what follows it.
    fn keep_last(&mut self, time: Time, end: u64, bytes: &[u8]) {
        if !matches!(self.parts.make_contiguous(), [.., Part { content: Content::Unread(Unread::Gap, _), .. }, _]) {
            self.parts.push_back(Part::new(time, end, Content::Unread(Unread::Gap, 0)));
            self.parts.push_back(Part::new(time, end, Content::Bytes(Vec::new())));
        }
        if let [
            ..,
            Part { content: Content::Unread(Unread::Gap, gap), .. },
            Part { time: last_time, end: until, content: Content::Bytes(last), read, .. },
        ] = self.parts.make_contiguous()
        {
            last.drain(..std::mem::take(read));
            *last_time = time;
            *until = end;
            let kept = &bytes[bytes.len().saturating_sub(LAST)..];
            let surplus = (last.len() + kept.len()).saturating_sub(LAST);
            last.drain(..surplus);
            last.extend_from_slice(kept);
            *gap += (bytes.len() - kept.len() + surplus) as u64;
        }
    }

    /// Turns what was kept of the end into a part of the gap before it.
    fn drop_last(&mut self) {
        if let [
            ..,
            Part { content: Content::Unread(Unread::Gap, gap), .. },
            Part { content: Content::Bytes(last), .. },
        ] = self.parts.make_contiguous()
        {
            *gap += last.len() as u64;
            self.parts.pop_back();
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let bytes = self.parts.iter().map(|part| match &part.content {
            Content::Bytes(bytes) => bytes.capacity(),
            _ => 0,
        });
        self.parts.capacity() * size_of::<Part>() + bytes.sum::<usize>()
    }
}

impl Part {
    fn new(time: Time, end: u64, content: Content) -> Self {
        Self { time, end, content, read: 0 }
    }

    /// Its bytes that are still to be read; none where they did not cross.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Bytes(bytes) => bytes.get(self.read..).unwrap_or_default(),
            _ => &[],
        }
    }

    fn length(&self) -> u64 {
        match &self.content {
            Content::Bytes(_) => self.bytes().len() as u64,
            Content::Withheld(withheld) => withheld.length,
            Content::Unread(_, length) => *length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::LineEnd;

    fn withheld(length: u64) -> Withheld {
        Withheld { length, end: LineEnd::Crlf, nul: false, bare_cr: false }
    }

    fn contents(held: &mut UndecidedInput) -> Vec<Content> {
        std::iter::from_fn(|| held.pop()).map(|part| part.content).collect()
    }

    #[test]
    fn parts_keep_their_times() {
        let mut held = UndecidedInput::default();
        held.push(Time(1), 12, b"ab");
        held.push(Time(1), 13, b"c");
        held.unread(Time(2), 13, Unread::Gap, 7);
        held.unread(Time(2), 13, Unread::Gap, 1);
        held.push(Time(3), 14, b"d");
        let parts = [
            Part::new(Time(1), 13, Content::Bytes(b"abc".to_vec())),
            Part::new(Time(2), 13, Content::Unread(Unread::Gap, 8)),
            Part::new(Time(3), 14, Content::Bytes(b"d".to_vec())),
        ];
        assert_eq!(std::iter::from_fn(|| held.pop()).collect::<Vec<_>>(), parts);
    }

    #[test]
    fn pieces_of_one_time_are_one_part() {
        let mut held = UndecidedInput::default();
        (1..=100).for_each(|end| held.push(Time(1), end, b"a"));
        held.push(Time(2), 101, b"b");
        let parts: Vec<_> = std::iter::from_fn(|| held.pop()).map(|part| (part.time, part.bytes().len())).collect();
        assert_eq!(parts, [(Time(1), 100), (Time(2), 1)]);
    }

    #[test]
    fn what_is_put_back_is_not_copied() {
        let mut held = UndecidedInput::default();
        held.push(Time(1), 6, b"abcdef");
        let mut places = Vec::new();
        while let Some(part) = held.pop() {
            places.push(part.bytes().as_ptr().addr());
            held.put_back(part, 2);
        }
        assert_eq!(places, [places[0], places[0] + 2, places[0] + 4]);
    }

    #[test]
    fn the_end_of_too_much_is_kept() {
        for size in [1, 100, 30_000] {
            let bytes: Vec<u8> = (0..30_000).map(|at| (at % 251) as u8).collect();
            let mut held = UndecidedInput::default();
            bytes.chunks(size).for_each(|piece| held.push(Time(1), 0, piece));
            let expected = [
                Content::Bytes(bytes[..16_384].to_vec()),
                Content::Unread(Unread::Gap, 30_000 - 16_384 - 1024),
                Content::Bytes(bytes[30_000 - 1024..].to_vec()),
            ];
            assert_eq!(contents(&mut held), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn many_parts_are_bounded() {
        let mut held = UndecidedInput::default();
        for at in 0..100_000 {
            held.push(Time(at), at, b"x");
            if at % 3 == 0 {
                held.unread(Time(at), at, Unread::Gap, 5);
            }
            if at % 3 == 1 {
                held.withheld(Time(at), at, withheld(5));
            }
        }
        assert!(held.memory() < 64 * 1024, "{} bytes", held.memory());
        let total: u64 = std::iter::from_fn(|| held.pop()).map(|part| part.length()).sum();
        assert_eq!(total, 100_000 + 33_334 * 5 + 33_333 * 5);
    }

    #[test]
    fn first_lines() {
        let line = |pieces: &[&[u8]]| {
            let mut held = UndecidedInput::default();
            pieces.iter().enumerate().for_each(|(at, piece)| held.push(Time(at as u64), 0, piece));
            held.first_line()
        };
        assert_eq!(line(&[b"QU", b"IT\r", b"\nmore"]), Some(b"QUIT\r".to_vec()));
        assert_eq!(line(&[b"QUIT"]), None);
        assert_eq!(line(&[&[b'a'; 600]]).map(|line| line.len()), Some(600));
    }

    /// However many calls a line that did not cross comes in, it takes no more than three parts.
    #[test]
    fn a_withheld_line_in_pieces_is_kept() {
        let mut held = UndecidedInput::default();
        let piece = |end, nul| Withheld { length: 1, end, nul, bare_cr: false };
        for line in 0..3 {
            (0..1000).for_each(|at| held.withheld(Time(line), at + 1, piece(LineEnd::None, at == 500)));
            held.withheld(Time(line), 1001, piece(LineEnd::Lf, false));
        }
        let line = [Withheld { length: 1000, ..piece(LineEnd::None, true) }, piece(LineEnd::Lf, false)];
        let lines = [line, line, line].concat().into_iter().map(Content::Withheld).collect::<Vec<_>>();
        assert_eq!(contents(&mut held), lines);
    }

    #[test]
    fn what_is_withheld_is_counted() {
        let mut held = UndecidedInput::default();
        held.withheld(Time(1), 0, withheld(1 << 20));
        held.withheld(Time(1), 0, withheld(7));
        held.unread(Time(1), 0, Unread::Content, 9);
        held.unread(Time(1), 0, Unread::Gap, 9);
        assert!(held.memory() < 1024);
        assert_eq!(held.first_line(), Some(b"x".to_vec()));
        assert_eq!(
            contents(&mut held),
            [
                Content::Withheld(withheld(1 << 20)),
                Content::Withheld(withheld(7)),
                Content::Unread(Unread::Content, 9),
                Content::Unread(Unread::Gap, 9),
            ]
        );
    }
}
