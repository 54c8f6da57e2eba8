//! The content of a message behind DATA, up to its end.

/// Finds the end of data: CR LF `.` CR LF and nothing else (RFC 5321, 4.1.1.4), in any split.
#[derive(Debug)]
pub(super) struct Body {
    /// The bytes before what comes next.
    before: [u8; REACH],
    length: u64,
    /// Bytes seen since the last hole.
    since_hole: Option<u64>,
    /// The stream stopped behind a dot and a CR that do not stand after CR LF, or may not be followed by LF.
    dot_cr: bool,
    disputed_end: Option<u64>,
}

/// How far the forms that are looked for reach back from their last byte.
const REACH: usize = 6;

/// No byte of any form.
const UNSEEN: u8 = b'x';

const END: &[u8] = b"\r\n.\r\n";

/// What came of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// How many of them belong to the message.
    pub(super) taken: usize,
    /// They hold its end.
    pub(super) ended: bool,
    /// They hold the first of the forms that some servers take for the end.
    pub(super) disputed: bool,
}

impl Body {
    /// The content that follows the 354 to DATA, whose CR LF may be that of the end of data: a message can be empty.
    pub(super) fn new() -> Self {
        let mut before = [UNSEEN; REACH];
        before[REACH - 2..].copy_from_slice(b"\r\n");
        Self { before, length: 0, since_hole: None, dot_cr: false, disputed_end: None }
    }

    /// Takes bytes up to the end of the message.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Scan {
        let mut disputed = false;
        let mut at = 0;
        if let (true, Some(&next)) = (self.dot_cr, bytes.first()) {
            self.dot_cr = false;
            disputed |= next != b'\n' && self.dispute(self.length.saturating_sub(1));
        }
        while let Some(step) = bytes[at..].iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            at += step;
            match Form::at(bytes, at, &self.before) {
                Form::End => {
                    self.advance(&bytes[..=at]);
                    return Scan { taken: at + 1, ended: true, disputed };
                }
                Form::Disputed => disputed |= self.dispute(self.length.saturating_add(at as u64)),
                Form::DotCr => match bytes.get(at + 1) {
                    Some(b'\n') => {}
                    Some(_) => disputed |= self.dispute(self.length.saturating_add(at as u64)),
                    None => self.dot_cr = true,
                },
                Form::None => {}
            }
            at += 1;
        }
        self.advance(bytes);
        Scan { taken: bytes.len(), ended: false, disputed }
    }

    /// Bytes that were not seen belong to the message; its end may be among them.
    pub(super) fn hole(&mut self, length: u64) {
        self.length = self.length.saturating_add(length);
        self.before = [UNSEEN; REACH];
        self.since_hole = Some(0);
        self.dot_cr = false;
    }

    /// Some bytes of the message were not seen.
    pub(super) fn has_hole(&self) -> bool {
        self.since_hole.is_some()
    }

    /// The message may be over: it stops in a hole, or behind one with the last bytes of the end of data.
    pub(super) fn may_have_ended(&self) -> bool {
        self.since_hole.is_some_and(|seen| {
            let seen = usize::try_from(seen).unwrap_or(usize::MAX);
            seen < END.len() && self.before.ends_with(&END[END.len() - seen..])
        })
    }

    /// Bytes of content, when the end of data was the last that was scanned or lies in a hole.
    pub(super) fn size_at_end(&self) -> u64 {
        self.length.saturating_sub(b".\r\n".len() as u64)
    }

    /// Bytes of content so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Bytes before the last of the first form that some servers take for the end.
    pub(super) fn disputed_end(&self) -> Option<u64> {
        self.disputed_end
    }

    /// Notes a disputed form whose last byte is the content's byte `at`; true for the first.
    fn dispute(&mut self, at: u64) -> bool {
        let first = self.disputed_end.is_none();
        self.disputed_end.get_or_insert(at);
        first
    }

    fn advance(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len() as u64);
        if let Some(seen) = &mut self.since_hole {
            *seen = seen.saturating_add(bytes.len() as u64);
        }
        let new = bytes.len().min(REACH);
        self.before.rotate_left(new);
        self.before[REACH - new..].copy_from_slice(&bytes[bytes.len() - new..]);
    }
}

/// What a CR or LF completes.
enum Form {
    End,
    /// A dot that stands alone if CR or LF alone end a line, or if a NUL or a second CR does not count
    /// (CVE-2023-51764, -51765, -51766).
    Disputed,
    /// The same, unless LF follows.
    DotCr,
    None,
}

impl Form {
    fn at(bytes: &[u8], at: usize, before: &[u8; REACH]) -> Self {
        // The byte `back` places before `at`.
        let byte = |back: usize| match at.checked_sub(back) {
            Some(index) => bytes[index],
            None => before[REACH - (back - at)],
        };
        let ends_line = |byte: u8| matches!(byte, b'\r' | b'\n');
        if bytes[at] == b'\r' {
            return match byte(1) == b'.' && ends_line(byte(2)) {
                true => Self::DotCr,
                false => Self::None,
            };
        }
        match (byte(4), byte(3), byte(2), byte(1)) {
            (b'\r', b'\n', b'.', b'\r') => Self::End,
            (_, before, b'.', b'\r') if ends_line(before) => Self::Disputed,
            (_, _, before, b'.') if ends_line(before) => Self::Disputed,
            (b'\n', b'.', b'\r', b'\r') | (b'\n', b'\0', b'.', b'\r') => Self::Disputed,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the message ends, its size, and where the first disputed form ends, for `bytes` in pieces of `size`.
    fn scan(bytes: &[u8], size: usize) -> (Option<usize>, u64, Option<u64>) {
        let mut body = Body::new();
        let mut taken = 0;
        for piece in bytes.chunks(size) {
            let scan = body.scan(piece);
            taken += scan.taken;
            if scan.ended {
                return (Some(taken), body.size_at_end(), body.disputed_end());
            }
        }
        (None, body.length(), body.disputed_end())
    }

    #[test]
    fn the_end_of_data() {
        for size in 1..=12 {
            assert_eq!(scan(b"Hi\r\n.\r\nQUIT\r\n", size), (Some(7), 4, None));
            assert_eq!(scan(b".\r\n", size), (Some(3), 0, None), "an empty message");
            assert_eq!(scan(b"a\r\n..\r\n.\r\n", size), (Some(10), 7, None), "a stuffed dot counts as sent");
            assert_eq!(scan(b"a.\r\n. \r\n.b\r\n", size), (None, 12, None));
            assert_eq!(scan(b"a\r\r\n.\r\n", size), (Some(7), 4, None), "CR CR LF ends in CR LF");
        }
    }

    #[test]
    fn disputed_ends() {
        // The forms of the SMTP smuggling scanner; none of them ends the message.
        for form in [
            "\n.\n",
            "\n.\r",
            "\r.\n",
            "\r.\r",
            "\n.\r\n",
            "\r.\r\n",
            "\r\n.\n",
            "\r\n.\r",
            "\r\n.\r\r\n",
            "\r\r\n.\r\r\n",
            "\r\n\0.\r\n",
        ] {
            let text = format!("a{form}MAIL");
            for size in 1..=text.len() {
                let (end, length, disputed) = scan(text.as_bytes(), size);
                assert_eq!((end, length), (None, text.len() as u64), "{form:?} in pieces of {size}");
                assert!(disputed.is_some(), "{form:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn only_the_first_disputed_form_is_told() {
        let mut body = Body::new();
        assert_eq!(body.scan(b"a\n.\nb"), Scan { taken: 5, ended: false, disputed: true });
        assert_eq!(body.scan(b"a\n.\nb"), Scan { taken: 5, ended: false, disputed: false });
        assert_eq!(body.scan(b"\r\n.\r\n"), Scan { taken: 5, ended: true, disputed: false });
    }

    #[test]
    fn holes() {
        let mut body = Body::new();
        body.scan(b"abc");
        body.hole(100);
        assert!(body.may_have_ended());
        // The CR LF before the dot was not seen: the end is not certain, but possible.
        assert!(!body.scan(b".\r\n").ended);
        assert!(body.may_have_ended());
        assert_eq!(body.size_at_end(), 103);
        assert!(!body.scan(b"more text").ended);
        assert!(!body.may_have_ended());
        assert!(body.scan(b"\r\n.\r\n").ended);
        assert_eq!(body.size_at_end(), 3 + 100 + 3 + 9 + 2);
    }
}
