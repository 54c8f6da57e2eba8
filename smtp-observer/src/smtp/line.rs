//! One direction of the dialogue, cut into lines.

use memchr::memchr;

/// Bytes of a line that are kept, its CR included: four times what RFC 5321, 4.5.3.1 asks for. The rest is counted and
/// skipped.
pub const LONGEST_LINE: usize = 2048;

/// The line that is being received.
#[derive(Debug, Default)]
pub(super) struct Lines {
    kept: Vec<u8>,
    /// Bytes of the line so far, kept or not.
    length: u64,
    /// Some of them did not cross. So many did, from the first on, of those that are kept.
    withheld: bool,
    crossed: u16,
    last: u8,
    skipped: Skipped,
    /// The line was handed out; what is kept is cleared at the next step.
    done: bool,
}

/// What is wrong with the bytes of a line that are not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Skipped {
    pub(super) bare_cr: bool,
    pub(super) nul: bool,
}

/// What came of some input.
#[derive(Debug, PartialEq)]
pub(super) enum Step<'a> {
    /// All input is used, the line goes on.
    More,
    /// The line has just become longer than [`LONGEST_LINE`]; said once a line. These of its first bytes crossed.
    TooLong(&'a [u8]),
    /// A line is complete.
    Line(Line<'a>),
}

/// A line, without its end.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Line<'a> {
    /// Its first bytes, at most [`LONGEST_LINE`].
    pub(super) bytes: &'a [u8],
    /// How many bytes it has.
    pub(super) length: u64,
    /// How many of them crossed, from the first on. Stand-ins follow these.
    pub(super) crossed: u64,
    /// LF alone ended it.
    pub(super) bare_lf: bool,
    /// What is wrong behind those bytes.
    pub(super) skipped: Skipped,
}

/// Whether bytes crossed from the kernel, or others stand for bytes that did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Origin {
    #[default]
    Said,
    StandIn,
}

impl Lines {
    /// No byte of the next line was seen yet.
    pub(super) fn at_start(&self) -> bool {
        self.done || self.length == 0
    }

    /// Forgets the line that is being received.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Takes out the line that is being received: its first bytes, and how many it has so far.
    pub(super) fn take(&mut self) -> (Vec<u8>, u64) {
        match self.at_start() {
            true => (Vec::new(), 0),
            false => {
                let Self { kept, length, .. } = std::mem::take(self);
                (kept, length)
            }
        }
    }

    /// Counts so many more bytes of a line that is too long already; false where there is none.
    pub(super) fn count(&mut self, length: u64) -> bool {
        let is_long = !self.done && self.length > LONGEST_LINE as u64;
        if is_long && length > 0 {
            self.length = self.length.saturating_add(length);
            self.skipped.bare_cr |= self.last == b'\r';
            self.last = b'x';
        }
        is_long
    }

    /// How many bytes of the line that is being received crossed, from the first on.
    pub(super) fn crossed(&self) -> u64 {
        if self.withheld { self.crossed.into() } else { self.length }
    }

    /// The next bytes did not cross.
    fn withhold(&mut self) {
        if !std::mem::replace(&mut self.withheld, true) {
            self.crossed = self.kept.len() as u16;
        }
    }

    /// Takes `input` up to the end of the line.
    pub(super) fn step<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8], origin: Origin) -> Step<'a> {
        if self.done {
            self.kept.clear();
            self.length = 0;
            self.withheld = false;
            self.skipped = Skipped::default();
            self.done = false;
        }
        let end = memchr(b'\n', input);
        let part = &input[..end.unwrap_or(input.len())];
        let room = (LONGEST_LINE as u64).saturating_sub(self.length);
        let fits = part.len() as u64 <= room;
        if origin == Origin::StandIn && !part.is_empty() {
            self.withhold();
        }
        if fits && self.length == 0 && end.is_some() {
            *input = &input[part.len() + 1..];
            let crossed = self.withheld.then_some(0);
            self.withheld = false;
            return Step::Line(Line::new(part, part.len() as u64, crossed, part.last().copied(), Skipped::default()));
        }
        if !fits && self.length <= LONGEST_LINE as u64 {
            let part = &part[..room as usize + 1];
            self.append(part);
            *input = &input[part.len()..];
            let said = self.kept.len().min(usize::try_from(self.crossed()).unwrap_or(usize::MAX));
            return Step::TooLong(&self.kept[..said]);
        }
        self.append(part);
        *input = &input[part.len()..];
        if end.is_none() {
            return Step::More;
        }
        *input = &input[1..];
        self.done = true;
        let crossed = self.withheld.then_some(self.crossed.into());
        Step::Line(Line::new(&self.kept, self.length, crossed, Some(self.last), self.skipped))
    }

    fn append(&mut self, part: &[u8]) {
        let (kept, skipped) = part.split_at(part.len().min(LONGEST_LINE - self.kept.len()));
        self.kept.extend_from_slice(kept);
        if let Some((_, before)) = skipped.split_last() {
            let last_was_skipped = self.length > LONGEST_LINE as u64;
            self.skipped.bare_cr |= last_was_skipped && self.last == b'\r' || before.contains(&b'\r');
            self.skipped.nul |= skipped.contains(&b'\0');
        }
        self.length += part.len() as u64;
        if let Some(&last) = part.last() {
            self.last = last;
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.kept.capacity()
    }
}

impl<'a> Line<'a> {
    fn new(kept: &'a [u8], length: u64, crossed: Option<u64>, last: Option<u8>, skipped: Skipped) -> Self {
        let bare_lf = last != Some(b'\r');
        let length = length - u64::from(!bare_lf);
        let bytes = kept.get(..length as usize).unwrap_or(kept);
        Self { bytes, length, crossed: crossed.map_or(length, |crossed| crossed.min(length)), bare_lf, skipped }
    }

    /// A line that has no end, all of whose bytes are here.
    pub(super) fn unfinished(bytes: &'a [u8], crossed: u64) -> Self {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let length = bytes.len() as u64;
        Self { bytes, length, crossed: crossed.min(length), ..Self::default() }
    }

    /// Its first bytes, up to the first that did not cross.
    pub(super) fn said(&self) -> &'a [u8] {
        self.bytes.get(..self.crossed as usize).unwrap_or(self.bytes)
    }

    /// Bytes of it did not cross.
    pub(super) fn is_withheld(&self) -> bool {
        self.crossed < self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the lines of `input` are when it is fed in pieces of `size`.
    fn lines(input: &[u8], size: usize) -> Vec<(Vec<u8>, u64, bool)> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for mut piece in input.chunks(size) {
            while !piece.is_empty() {
                match lines.step(&mut piece, Origin::Said) {
                    Step::More => {}
                    Step::TooLong(kept) => seen.push((kept.to_vec(), u64::MAX, false)),
                    Step::Line(line) => seen.push((line.bytes.to_vec(), line.length, line.bare_lf)),
                }
            }
        }
        seen
    }

    #[test]
    fn line_ends() {
        for size in 1..=8 {
            assert_eq!(
                lines(b"ab\r\n\r\n\ncd\nx\ry\r\r\n", size),
                [
                    (b"ab".to_vec(), 2, false),
                    (b"".to_vec(), 0, false),
                    (b"".to_vec(), 0, true),
                    (b"cd".to_vec(), 2, true),
                    (b"x\ry\r".to_vec(), 4, false),
                ],
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn a_line_is_kept_up_to_its_limit() {
        let mut fits = vec![b'a'; LONGEST_LINE - 1];
        fits.extend(b"\r\n");
        let mut long = vec![b'b'; LONGEST_LINE + 500];
        long.extend(b"\r\nnext\r\n");
        for size in [1, 7, 1000, 10_000] {
            assert_eq!(lines(&fits, size), [(vec![b'a'; LONGEST_LINE - 1], LONGEST_LINE as u64 - 1, false)]);
            assert_eq!(
                lines(&long, size),
                [
                    (vec![b'b'; LONGEST_LINE], u64::MAX, false),
                    (vec![b'b'; LONGEST_LINE], LONGEST_LINE as u64 + 500, false),
                    (b"next".to_vec(), 4, false),
                ]
            );
        }
    }

    #[test]
    fn the_limit_is_reported_at_its_byte() {
        let mut lines = Lines::default();
        let long = vec![b'a'; LONGEST_LINE + 1];
        let mut input = long.as_slice();
        assert_eq!(lines.step(&mut input, Origin::Said), Step::TooLong(&[b'a'; LONGEST_LINE]));
        let mut input: &[u8] = b"\r\n";
        let Step::Line(line) = lines.step(&mut input, Origin::Said) else { panic!("the line is complete") };
        assert_eq!((line.length, line.bare_lf), (LONGEST_LINE as u64 + 1, false));
        assert!(lines.at_start());
    }

    #[test]
    fn what_is_wrong_in_the_part_that_is_skipped_is_known() {
        let wrong = |tail: &[u8], size| {
            let mut lines = Lines::default();
            let input = [&[b'a'; LONGEST_LINE], tail, b"next\r\n"].concat();
            let mut seen = Vec::new();
            for mut piece in input.chunks(size) {
                while !piece.is_empty() {
                    if let Step::Line(line) = lines.step(&mut piece, Origin::Said) {
                        seen.push((line.skipped.bare_cr, line.skipped.nul));
                    }
                }
            }
            seen
        };
        let fine = (false, false);
        for size in [1, 2, 3, 1000, 10_000] {
            assert_eq!(wrong(b"bb\r\n", size), [fine, fine], "in pieces of {size}");
            assert_eq!(wrong(b"b\rb\r\n", size), [(true, false), fine], "in pieces of {size}");
            assert_eq!(wrong(b"b\r\r\n", size), [(true, false), fine], "in pieces of {size}");
            assert_eq!(wrong(b"\0\n", size), [(false, true), fine], "in pieces of {size}");
            assert_eq!(wrong(b"b\rb\0\n", size), [(true, true), fine], "in pieces of {size}");
        }
    }

    #[test]
    fn what_stands_in_is_told_from_what_was_said() {
        let said = |pieces: &[(&[u8], Origin)]| {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for (mut piece, origin) in pieces.iter().copied() {
                while !piece.is_empty() {
                    if let Step::Line(line) = lines.step(&mut piece, origin) {
                        seen.push((line.said().to_vec(), line.length, line.is_withheld()));
                    }
                }
            }
            seen
        };
        assert_eq!(
            said(&[
                (b"NOOP ", Origin::Said),
                (b"xxx", Origin::StandIn),
                (b"\r\n", Origin::StandIn),
                (b"xx\n", Origin::StandIn),
                (b"RSET", Origin::Said),
                (b"\r\n", Origin::StandIn),
                (b"QUIT\r\n", Origin::Said),
            ]),
            [
                (b"NOOP ".to_vec(), 8, true),
                (b"".to_vec(), 2, true),
                (b"RSET".to_vec(), 4, false),
                (b"QUIT".to_vec(), 4, false),
            ]
        );
    }
}
