//! The content of a message behind DATA, up to its end.

use super::dots;

/// Finds the end of data: CR LF `.` CR LF and nothing else (RFC 5321, 4.1.1.4), in any split. Every form that some
/// server takes for it has a dot behind CR, LF or NUL: only dots are looked for.
#[derive(Debug)]
pub(super) struct Body {
    /// The bytes before what comes next.
    before: [u8; REACH],
    length: u64,
    /// It is known where it begins.
    from_start: bool,
    /// Bytes seen since the last hole.
    since_hole: Option<u64>,
    left_out: bool,
    /// A dot that may stand alone is being read.
    dot: Option<Dot>,
    /// The first disputed form was told.
    disputed: bool,
}

/// How far back the bytes before a dot, or of an end that began in a hole, are looked at.
const REACH: usize = 4;

/// No byte of any form.
const UNSEEN: u8 = b'x';

const END: &[u8] = b"\r\n.\r\n";

/// What came of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// How many of them belong to the message; less than all where something was found.
    pub(super) taken: usize,
    pub(super) found: Found,
}

/// What bytes of content hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Content alone.
    Nothing,
    /// The end of data.
    End,
    /// The first of the forms that some servers take for the end.
    Form(Form),
}

/// A dot that stands alone if CR or LF alone end a line, or if a NUL or a second CR does not count
/// (CVE-2023-51764, -51765, -51766).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// Its bytes, as they are written down.
    pub(super) before: &'static str,
    pub(super) behind: &'static str,
    /// Bytes of content before its dot.
    pub(super) size: u64,
}

/// A dot, and how it is read so far.
#[derive(Clone, Copy, Debug)]
struct Dot {
    place: u64,
    before: Before,
    /// CRs behind it.
    returns: u8,
}

/// What a dot stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    CrLf,
    Lf,
    Cr,
    Nul,
}

/// What the next byte makes of a dot.
enum Step {
    Reads(Dot),
    End,
    /// The form, and whether the byte is part of it.
    Form(Form, bool),
    /// It does not stand alone.
    Text,
}

impl Body {
    /// The content that follows the 354 to DATA, whose CR LF may be that of the end of data: a message can be empty.
    pub(super) fn new() -> Self {
        Self {
            before: *b"xx\r\n",
            length: 0,
            from_start: true,
            since_hole: None,
            left_out: false,
            dot: None,
            disputed: false,
        }
    }

    /// Content that was under way when the 354 was seen.
    pub(super) fn joined() -> Self {
        let mut body = Self::new();
        body.hole(0);
        body.from_start = false;
        body
    }

    /// Takes bytes up to the end of the message, or up to the first disputed form.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Scan {
        let mut at = 0;
        loop {
            let Some(dot) = self.dot else {
                let Some(next) = dots::next(bytes, at) else { break };
                at = next;
                let place = self.length.saturating_add(at as u64);
                self.dot = self.before_dot(bytes, at).map(|before| Dot { place, before, returns: 0 });
                at += 1;
                continue;
            };
            let Some(&byte) = bytes.get(at) else { break };
            self.dot = None;
            match dot.step(byte) {
                Step::Reads(dot) => {
                    self.dot = Some(dot);
                    at += 1;
                }
                Step::End => return self.found(bytes, at + 1, Found::End),
                Step::Form(form, with_byte) => {
                    at += usize::from(with_byte);
                    if !std::mem::replace(&mut self.disputed, true) {
                        return self.found(bytes, at, Found::Form(form));
                    }
                }
                // The byte may itself be a dot that stands alone.
                Step::Text => {}
            }
        }
        self.found(bytes, bytes.len(), Found::Nothing)
    }

    /// Bytes that were not seen belong to the message; its end may be among them.
    pub(super) fn hole(&mut self, length: u64) {
        self.skip(length);
        self.since_hole = Some(0);
    }

    /// Bytes that were left out because they are content belong to the message; no end is among them.
    pub(super) fn leave_out(&mut self, length: u64) {
        self.skip(length);
        self.left_out = true;
        if let Some(seen) = &mut self.since_hole {
            *seen = seen.saturating_add(length);
        }
    }

    /// What comes next begins a line, though the bytes before it were not seen.
    pub(super) fn begin_line(&mut self) {
        if self.before == [UNSEEN; REACH] {
            self.before = *b"xx\r\n";
        }
    }

    /// Some bytes of the message were not seen.
    pub(super) fn has_hole(&self) -> bool {
        self.since_hole.is_some()
    }

    /// Some bytes of the message were left out.
    pub(super) fn is_left_out(&self) -> bool {
        self.left_out
    }

    /// The message may be over: it stops in a hole, or behind one with the last bytes of the end of data.
    pub(super) fn may_have_ended(&self) -> bool {
        self.since_hole.is_some_and(|seen| {
            let seen = usize::try_from(seen).unwrap_or(usize::MAX);
            seen < END.len() && self.before.ends_with(&END[END.len() - seen..])
        })
    }

    /// Bytes of content, when the end of data was the last that was scanned or lies in a hole.
    pub(super) fn size_at_end(&self) -> Option<u64> {
        self.size().map(|size| size.saturating_sub(b".\r\n".len() as u64))
    }

    /// Bytes of content so far; absent where its beginning was not seen.
    pub(super) fn size(&self) -> Option<u64> {
        self.from_start.then_some(self.length)
    }

    fn skip(&mut self, length: u64) {
        self.length = self.length.saturating_add(length);
        self.before = [UNSEEN; REACH];
        self.dot = None;
    }

    fn before_dot(&self, bytes: &[u8], at: usize) -> Option<Before> {
        // The byte `back` places before the dot.
        let byte = |back: usize| match at.checked_sub(back) {
            Some(index) => bytes[index],
            None => self.before[REACH - (back - at)],
        };
        match byte(1) {
            b'\n' if byte(2) == b'\r' => Some(Before::CrLf),
            b'\n' => Some(Before::Lf),
            b'\r' => Some(Before::Cr),
            b'\0' if byte(2) == b'\n' => Some(Before::Nul),
            _ => None,
        }
    }

    fn found(&mut self, bytes: &[u8], taken: usize, found: Found) -> Scan {
        self.length = self.length.saturating_add(taken as u64);
        if let Some(seen) = &mut self.since_hole {
            *seen = seen.saturating_add(taken as u64);
        }
        let new = taken.min(REACH);
        self.before.rotate_left(new);
        self.before[REACH - new..].copy_from_slice(&bytes[taken - new..taken]);
        Scan { taken, found }
    }
}

impl Dot {
    fn step(self, byte: u8) -> Step {
        let form = |behind| Form { before: self.before.as_str(), behind, size: self.place };
        match (self.before, self.returns, byte) {
            (Before::Nul, 0, b'\r') => Step::Reads(Self { returns: 1, ..self }),
            (Before::Nul, 1, b'\n') => Step::Form(form(r"\r\n"), true),
            (Before::Nul, ..) => Step::Text,
            (_, 0, b'\n') => Step::Form(form(r"\n"), true),
            (Before::CrLf, 1, b'\n') => Step::End,
            (_, 1, b'\n') => Step::Form(form(r"\r\n"), true),
            (_, 0 | 1, b'\r') => Step::Reads(Self { returns: self.returns + 1, ..self }),
            (_, 0, _) => Step::Text,
            (_, 2, b'\n') => Step::Form(form(r"\r\r\n"), true),
            (..) => Step::Form(form(r"\r"), false),
        }
    }
}

impl Before {
    fn as_str(self) -> &'static str {
        match self {
            Self::CrLf => r"\r\n",
            Self::Lf => r"\n",
            Self::Cr => r"\r",
            Self::Nul => r"\n\0",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the message ends, its size, and the first disputed form, for `bytes` in pieces of `size`.
    fn scan(bytes: &[u8], size: usize) -> (Option<usize>, Option<u64>, Option<(String, u64)>) {
        let mut body = Body::new();
        let mut taken = 0;
        let mut disputed = None;
        for mut piece in bytes.chunks(size) {
            while !piece.is_empty() {
                let scan = body.scan(piece);
                taken += scan.taken;
                piece = &piece[scan.taken..];
                match scan.found {
                    Found::Nothing => {}
                    Found::Form(form) => disputed = Some((format!("{}.{}", form.before, form.behind), form.size)),
                    Found::End => return (Some(taken), body.size_at_end(), disputed),
                }
            }
        }
        (None, body.size(), disputed)
    }

    #[test]
    fn the_end_of_data() {
        for size in 1..=12 {
            assert_eq!(scan(b"Hi\r\n.\r\nQUIT\r\n", size), (Some(7), Some(4), None));
            assert_eq!(scan(b".\r\n", size), (Some(3), Some(0), None), "an empty message");
            assert_eq!(scan(b"a\r\n..\r\n.\r\n", size), (Some(10), Some(7), None), "a stuffed dot counts as sent");
            assert_eq!(scan(b"a.\r\n. \r\n.b\r\n", size), (None, Some(12), None));
            assert_eq!(scan(b"a\r\r\n.\r\n", size), (Some(7), Some(4), None), "CR CR LF ends in CR LF");
        }
    }

    #[test]
    fn disputed_ends() {
        // The forms of the SMTP smuggling scanner; none of them ends the message.
        for (form, shown, before) in [
            ("\n.\n", r"\n.\n", 1),
            ("\n.\r", r"\n.\r", 1),
            ("\r.\n", r"\r.\n", 1),
            ("\r.\r", r"\r.\r", 1),
            ("\n.\r\n", r"\n.\r\n", 1),
            ("\r.\r\n", r"\r.\r\n", 1),
            ("\r\n.\n", r"\r\n.\n", 2),
            ("\r\n.\r", r"\r\n.\r", 2),
            ("\r\n.\r\r\n", r"\r\n.\r\r\n", 2),
            ("\r\r\n.\r\r\n", r"\r\n.\r\r\n", 3),
            ("\r\n\0.\r\n", r"\n\0.\r\n", 3),
        ] {
            let text = format!("a{form}MAIL");
            for size in 1..=text.len() {
                let expected = (None, Some(text.len() as u64), Some((shown.to_owned(), 1 + before)));
                assert_eq!(scan(text.as_bytes(), size), expected, "{form:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_form_may_begin_in_another() {
        for size in 1..=10 {
            let form = Some((r"\n.\r".to_owned(), 2));
            assert_eq!(scan(b"a\n.\r.\n\r\n.\r\n", size), (Some(11), Some(8), form));
        }
    }

    #[test]
    fn only_the_first_disputed_form_is_told() {
        let mut body = Body::new();
        let form = Form { before: r"\n", behind: r"\n", size: 2 };
        assert_eq!(body.scan(b"a\n.\nb"), Scan { taken: 4, found: Found::Form(form) });
        assert_eq!(body.scan(b"ba\n.\nb"), Scan { taken: 6, found: Found::Nothing });
        assert_eq!(body.scan(b"\r\n.\r\nQUIT"), Scan { taken: 5, found: Found::End });
    }

    #[test]
    fn holes() {
        let mut body = Body::new();
        body.scan(b"abc");
        body.hole(100);
        assert!(body.may_have_ended());
        // The CR LF before the dot was not seen: the end is not certain, but possible.
        assert_eq!(body.scan(b".\r\n").found, Found::Nothing);
        assert!(body.may_have_ended());
        assert_eq!(body.size_at_end(), Some(103));
        assert_eq!(body.scan(b"more text").found, Found::Nothing);
        assert!(!body.may_have_ended());
        assert_eq!(body.scan(b"\r\n.\r\n").found, Found::End);
        assert_eq!(body.size_at_end(), Some(3 + 100 + 3 + 9 + 2));
    }

    #[test]
    fn what_was_left_out_holds_no_end() {
        let mut body = Body::new();
        body.leave_out(100);
        assert!(!body.may_have_ended() && !body.has_hole());
        assert_eq!(body.scan(b"\r\n").found, Found::Nothing);
        assert!(!body.may_have_ended());
        assert_eq!(body.scan(b".\r\n").found, Found::End);
        assert_eq!(body.size_at_end(), Some(102));
    }

    #[test]
    fn a_dot_that_begins_a_line_is_the_end() {
        let mut body = Body::new();
        body.leave_out(100);
        body.begin_line();
        assert_eq!(body.scan(b".\r\n").found, Found::End);
        assert_eq!(body.size_at_end(), Some(100));
        let mut body = Body::new();
        body.scan(b"text");
        body.begin_line();
        assert_eq!(body.scan(b".\r\n").found, Found::Nothing);
    }

    #[test]
    fn content_that_was_under_way_has_no_size() {
        let mut body = Body::joined();
        assert_eq!(body.scan(b"text\r\n.\r\n").found, Found::End);
        assert_eq!(body.size_at_end(), None);
    }
}
