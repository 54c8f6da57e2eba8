//! Bytes of the client that cannot be read before the server has said how: behind DATA they are a message after 354 and
//! commands after a refusal.

use crate::event::Time;

/// Bytes that are held as they came. Of what comes behind them only the last [`LAST`] are kept: enough to find the end
/// of a message, while the rest counts as not seen.
pub const MOST_HELD: usize = 16 * 1024;

/// Bytes kept of the end of what is more than [`MOST_HELD`].
const LAST: usize = 1024;

/// Parts with times of their own; further bytes have the time of the part they join.
const MOST_PARTS: usize = 64;

/// Gaps that are told apart.
const MOST_GAPS: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Held {
    parts: Vec<Part>,
    bytes: usize,
}

/// A part of what is held.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub(super) time: Time,
    /// The number of the write it came with.
    pub(super) write: u64,
    pub(super) content: Content,
}

#[derive(Debug, PartialEq)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    /// So many bytes were not seen, or not kept.
    Gap(u64),
}

impl Held {
    /// Adds bytes.
    pub(super) fn push(&mut self, time: Time, write: u64, bytes: &[u8]) {
        let (fits, rest) = bytes.split_at(bytes.len().min(MOST_HELD - self.bytes));
        self.bytes += fits.len();
        self.append(time, write, fits);
        if !rest.is_empty() {
            self.keep_last(time, write, rest);
        }
    }

    /// Adds bytes that were not seen.
    pub(super) fn gap(&mut self, time: Time, write: u64, length: u64) {
        if self.bytes == MOST_HELD {
            // What was kept of the end is not the end any more.
            self.drop_last();
        }
        if let Some(Part { content: Content::Gap(gap), .. }) = self.parts.last_mut() {
            *gap = gap.saturating_add(length);
            return;
        }
        let mut length = length;
        if self.parts.iter().filter(|part| matches!(part.content, Content::Gap(_))).count() >= MOST_GAPS {
            // Little of it was seen: all of it counts as not seen.
            length = self.parts.drain(..).fold(length, |total, part| total.saturating_add(part.content.length()));
            self.bytes = 0;
        }
        self.parts.push(Part { time, write, content: Content::Gap(length) });
    }

    /// The first line without its end, once it can be told: complete, cut off by a gap, or already long.
    pub(super) fn first_line(&self) -> Option<Vec<u8>> {
        const LONG: usize = 512;
        let mut line = Vec::new();
        for part in &self.parts {
            let Content::Bytes(bytes) = &part.content else { return Some(line) };
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

    /// All of it, in order.
    pub(super) fn into_parts(self) -> Vec<Part> {
        self.parts
    }

    fn append(&mut self, time: Time, write: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let full = self.parts.len() >= MOST_PARTS;
        match self.parts.last_mut() {
            Some(Part { time: last, write: by, content: Content::Bytes(held) })
                if full || (*last == time && *by == write) =>
            {
                held.extend_from_slice(bytes);
            }
            _ => self.parts.push(Part { time, write, content: Content::Bytes(bytes.to_vec()) }),
        }
    }

    /// Keeps the end of what is too much: the last two parts are then a gap and what follows it.
    fn keep_last(&mut self, time: Time, write: u64, bytes: &[u8]) {
        if !matches!(self.parts.as_slice(), [.., Part { content: Content::Gap(_), .. }, _]) {
            self.parts.push(Part { time, write, content: Content::Gap(0) });
            self.parts.push(Part { time, write, content: Content::Bytes(Vec::new()) });
        }
        if let [
            ..,
            Part { content: Content::Gap(gap), .. },
            Part { time: last_time, content: Content::Bytes(last), .. },
        ] = self.parts.as_mut_slice()
        {
            *last_time = time;
            let kept = &bytes[bytes.len().saturating_sub(LAST)..];
            let surplus = (last.len() + kept.len()).saturating_sub(LAST);
            last.drain(..surplus);
            last.extend_from_slice(kept);
            *gap += (bytes.len() - kept.len() + surplus) as u64;
        }
    }

    /// Turns what was kept of the end into a part of the gap before it.
    fn drop_last(&mut self) {
        if let [.., Part { content: Content::Gap(gap), .. }, Part { content: Content::Bytes(last), .. }] =
            self.parts.as_mut_slice()
        {
            *gap += last.len() as u64;
            self.parts.pop();
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let bytes = self.parts.iter().map(|part| match &part.content {
            Content::Bytes(bytes) => bytes.capacity(),
            Content::Gap(_) => 0,
        });
        self.parts.capacity() * size_of::<Part>() + bytes.sum::<usize>()
    }
}

impl Content {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Gap(length) => *length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(held: Held) -> Vec<Content> {
        held.into_parts().into_iter().map(|part| part.content).collect()
    }

    #[test]
    fn parts_keep_their_times() {
        let mut held = Held::default();
        held.push(Time(1), 1, b"ab");
        held.push(Time(1), 1, b"c");
        held.gap(Time(2), 2, 7);
        held.gap(Time(2), 3, 1);
        held.push(Time(3), 4, b"d");
        let parts = [
            Part { time: Time(1), write: 1, content: Content::Bytes(b"abc".to_vec()) },
            Part { time: Time(2), write: 2, content: Content::Gap(8) },
            Part { time: Time(3), write: 4, content: Content::Bytes(b"d".to_vec()) },
        ];
        assert_eq!(held.into_parts(), parts);
    }

    #[test]
    fn the_end_of_too_much_is_kept() {
        for size in [1, 100, 30_000] {
            let bytes: Vec<u8> = (0..30_000).map(|at| (at % 251) as u8).collect();
            let mut held = Held::default();
            bytes.chunks(size).for_each(|piece| held.push(Time(1), 1, piece));
            let expected = [
                Content::Bytes(bytes[..16_384].to_vec()),
                Content::Gap(30_000 - 16_384 - 1024),
                Content::Bytes(bytes[30_000 - 1024..].to_vec()),
            ];
            assert_eq!(contents(held), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn many_parts_are_bounded() {
        let mut held = Held::default();
        for at in 0..100_000 {
            held.push(Time(at), at, b"x");
            if at % 3 == 0 {
                held.gap(Time(at), at, 5);
            }
        }
        assert!(held.memory() < 64 * 1024, "{} bytes", held.memory());
        let total: u64 = contents(held).iter().map(Content::length).sum();
        assert_eq!(total, 100_000 + 33_334 * 5);
    }

    #[test]
    fn first_lines() {
        let line = |pieces: &[&[u8]]| {
            let mut held = Held::default();
            pieces.iter().enumerate().for_each(|(at, piece)| held.push(Time(at as u64), at as u64, piece));
            held.first_line()
        };
        assert_eq!(line(&[b"QU", b"IT\r", b"\nmore"]), Some(b"QUIT\r".to_vec()));
        assert_eq!(line(&[b"QUIT"]), None);
        assert_eq!(line(&[&[b'a'; 600]]).map(|line| line.len()), Some(600));
    }
}
