//! Lines of the server, read as replies (RFC 5321, 4.2).

use std::fmt;
use std::ops::Range;

use super::decoder_output::DecoderOutput;
use super::line::Line;
use super::mailbox_names::Repeated;
use crate::event::Time;

/// Bytes of a reply's text that are kept; the rest is skipped.
pub const LONGEST_REPLY: usize = 4096;

/// Whether a reply's text may go on behind what is kept of it. The line feed before a further line takes a byte, too.
pub(crate) fn is_cut(text: &[u8]) -> bool {
    text.len() + 1 >= LONGEST_REPLY
}

/// A complete reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// The code of its last line, 0 to 999.
    pub code: u16,
    /// The first enhanced status code in it.
    pub enhanced_code: Option<EnhancedCode>,
    /// What follows the code as sent, enhanced code included, lines joined by LF, at most [`LONGEST_REPLY`] bytes.
    pub text: Vec<u8>,
    /// Some of the text stayed in the kernel: it may repeat what is shown to nobody.
    pub withheld: bool,
    /// What its text repeats of names that were said before.
    pub repeated: Repeated,
    /// Where its lines are, counted in bytes of the server.
    pub span: Range<u64>,
    /// When the first byte of its first line was seen.
    pub first_byte: Time,
    /// When the last byte of its last line was seen.
    pub last_byte: Time,
}

impl Reply {
    /// An empty one, with room for so many bytes of text.
    pub(super) fn with_room(room: usize) -> Self {
        Self { text: Vec::with_capacity(room), ..Self::default() }
    }

    /// The lines behind these, which came later.
    pub(super) fn goes_on(&mut self, rest: &Self) {
        append(&mut self.text, &rest.text);
        self.enhanced_code = self.enhanced_code.or(rest.enhanced_code);
        self.withheld |= rest.withheld;
        self.span.end = rest.span.end;
        self.last_byte = rest.last_byte;
    }

    /// It says yes: 2yz.
    pub fn accepts(&self) -> bool {
        self.code / 100 == 2
    }

    /// It says that the server has waited too long (RFC 3463, 3.5: X.4.2 among others).
    pub(super) fn names_a_timeout(&self) -> bool {
        let says = |word: &[u8]| self.text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
        self.enhanced_code == Some(EnhancedCode(4, 4, 2)) || says(b"timeout") || says(b"timed out")
    }

    /// It says no: 4yz or 5yz.
    pub fn refuses(&self) -> bool {
        matches!(self.code / 100, 4 | 5)
    }
}

/// An enhanced status code (RFC 2034, RFC 3463): class, subject, detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnhancedCode(pub u16, pub u16, pub u16);

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl EnhancedCode {
    /// Bytes of the code that a text begins with, if it does, and of the blank behind it.
    pub(crate) fn length(text: &[u8]) -> usize {
        match Self::parse(text) {
            Some(_) => text.iter().position(|&byte| byte == b' ').map_or(text.len(), |blank| blank + 1),
            None => 0,
        }
    }

    /// The code that a text begins with (RFC 3463, 2: class 2, 4 or 5; the others at most three digits).
    fn parse(text: &[u8]) -> Option<Self> {
        let mut before = [0; 2];
        let (mut at, mut number, mut length) = (0, 0, 0);
        for byte in text.iter().take_while(|byte| **byte != b' ') {
            match byte {
                b'0'..=b'9' if length < 3 => {
                    number = 10 * number + u16::from(byte - b'0');
                    length += 1;
                }
                b'.' if length > 0 && at < before.len() => {
                    before[at] = number;
                    (at, number, length) = (at + 1, 0, 0);
                }
                _ => return None,
            }
        }
        let [class, subject] = before;
        let is_whole = at == before.len() && length > 0;
        (is_whole && matches!(class, 2 | 4 | 5)).then_some(Self(class, subject, number))
    }
}

/// Puts lines together to replies.
#[derive(Debug, Default)]
pub(super) struct Replies {
    partial: Option<Box<Reply>>,
}

/// What a line was.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// The reply that it ends by having another code.
    pub(super) before: Option<Box<Reply>>,
    /// The reply it completes.
    pub(super) reply: Option<Box<Reply>>,
    /// Its code; zero where it has none.
    pub(super) code: u16,
    /// It is not as RFC 5321, 4.2 has it.
    pub(super) malformed: bool,
    /// The class of its enhanced code is not the code's (RFC 2034, 4).
    pub(super) contradicts: bool,
    /// More lines of its reply are to come.
    pub(super) continues: bool,
    /// It has no code and stands in no reply: it was dropped.
    pub(super) dropped: bool,
}

impl Replies {
    /// Forgets the reply that is being received.
    pub(super) fn reset(&mut self) {
        self.partial = None;
    }

    /// Takes the reply as it is of which more lines were to come.
    pub(super) fn take(&mut self) -> Option<Box<Reply>> {
        self.partial.take()
    }

    /// Where the reply begins of which more lines are to come.
    pub(super) fn start(&self) -> Option<u64> {
        self.partial.as_ref().map(|partial| partial.span.start)
    }

    /// The line had no code, and stood in no reply.
    pub(super) fn is_no_reply(&self, outcome: &Outcome) -> bool {
        outcome.reply.is_none() && self.partial.is_none()
    }

    /// Takes a line, which is there with its end. A line without a code belongs to the reply it stands in, and is dropped where it
    /// stands in none. `apart`: a line with another code begins another reply.
    pub(super) fn line(
        &mut self,
        line: &Line<'_>,
        span: Range<u64>,
        first_byte: Time,
        last_byte: Time,
        apart: bool,
        items: &mut DecoderOutput,
    ) -> Outcome {
        let (withheld, line) = (line.is_withheld(), line.said());
        let Some((code, continues, text, mut malformed)) = parse(line) else {
            let dropped = self.partial.is_none();
            if let Some(partial) = &mut self.partial {
                append(&mut partial.text, line);
                partial.withheld |= withheld;
            }
            return Outcome { malformed: true, dropped, ..Outcome::default() };
        };
        let before = self.partial.take_if(|partial| apart && partial.code != code);
        let mut reply = match self.partial.take() {
            Some(mut partial) => {
                malformed |= partial.code != code;
                append(&mut partial.text, text);
                partial
            }
            None => {
                let mut reply = items.reply();
                reply.text.clear();
                reply.text.extend_from_slice(&text[..text.len().min(LONGEST_REPLY)]);
                reply.enhanced_code = None;
                reply.withheld = false;
                reply.repeated = Repeated::default();
                reply.span.start = span.start;
                reply.first_byte = first_byte;
                reply
            }
        };
        reply.code = code;
        reply.withheld |= withheld;
        reply.span.end = span.end;
        let enhanced_code = EnhancedCode::parse(text);
        let contradicts =
            matches!((code / 100, enhanced_code), (class @ (2 | 4 | 5), Some(enhanced)) if enhanced.0 != class);
        reply.enhanced_code = reply.enhanced_code.or(enhanced_code);
        reply.last_byte = last_byte;
        let (partial, reply) = if continues { (Some(reply), None) } else { (None, Some(reply)) };
        self.partial = partial;
        Outcome { before, reply, code, malformed, contradicts, continues, dropped: false }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.text.capacity())
    }
}

/// A line's code, whether more lines follow, its text, and whether it is malformed.
fn parse(line: &[u8]) -> Option<(u16, bool, &[u8], bool)> {
    let (code, rest) = line.split_at_checked(3)?;
    let code = digits(code)?;
    let odd_class = !matches!(code / 100, 2..=5);
    Some(match rest.split_first() {
        None => (code, false, rest, odd_class),
        Some((b' ', text)) => (code, false, text, odd_class),
        Some((b'-', text)) => (code, true, text, odd_class),
        Some(_) => (code, false, rest, true),
    })
}

fn digits(bytes: &[u8]) -> Option<u16> {
    bytes.iter().try_fold(0, |number: u16, byte| {
        byte.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u16::from(byte - b'0')))
    })
}

fn append(text: &mut Vec<u8>, line: &[u8]) {
    let room = LONGEST_REPLY.saturating_sub(text.len() + 1);
    if room > 0 {
        text.push(b'\n');
        text.extend_from_slice(&line[..line.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(line: &[u8]) -> Line<'_> {
        Line { bytes: line, length: line.len() as u64, crossed: line.len() as u64, ..Line::default() }
    }

    /// The replies of some lines, each line at its own time, and the numbers of the malformed lines.
    fn replies(lines: &[&[u8]]) -> (Vec<Reply>, Vec<usize>) {
        let mut replies = Replies::default();
        let (mut complete, mut malformed) = (Vec::new(), Vec::new());
        for (at, line) in lines.iter().enumerate() {
            let outcome = replies.line(
                &whole(line),
                0..0,
                Time(at as u64 * 10),
                Time(at as u64 * 10 + 1),
                false,
                &mut DecoderOutput::default(),
            );
            complete.extend(outcome.reply.map(|reply| *reply));
            if outcome.malformed {
                malformed.push(at);
            }
        }
        (complete, malformed)
    }

    fn reply(code: u16, enhanced_code: Option<EnhancedCode>, text: &str, first: u64, last: u64) -> Reply {
        let (first_byte, last_byte) = (Time(first), Time(last));
        Reply { code, enhanced_code, text: text.into(), first_byte, last_byte, ..Reply::default() }
    }

    #[test]
    fn single_lines() {
        let (complete, malformed) = replies(&[b"250 2.1.5 Ok", b"354", b"250 ", b"472 odd but legal"]);
        assert_eq!(
            complete,
            [
                reply(250, Some(EnhancedCode(2, 1, 5)), "2.1.5 Ok", 0, 1),
                reply(354, None, "", 10, 11),
                reply(250, None, "", 20, 21),
                reply(472, None, "odd but legal", 30, 31),
            ]
        );
        assert!(malformed.is_empty());
    }

    #[test]
    fn a_reply_ends_at_its_last_line() {
        let (complete, malformed) = replies(&[b"250-server.example", b"250-SIZE 1000", b"250-", b"250 PIPELINING"]);
        assert_eq!(complete, [reply(250, None, "server.example\nSIZE 1000\n\nPIPELINING", 0, 31)]);
        assert!(malformed.is_empty());
    }

    #[test]
    fn a_changed_code_is_one_reply() {
        let (complete, malformed) = replies(&[b"250-one", b"550 5.1.1 two"]);
        assert_eq!(complete, [reply(550, Some(EnhancedCode(5, 1, 1)), "one\n5.1.1 two", 0, 11)]);
        assert_eq!(malformed, [1]);
    }

    #[test]
    fn an_enhanced_code_of_another_class() {
        let mut replies = Replies::default();
        let mut contradicts = |line: &[u8]| {
            replies.line(&whole(line), 0..0, Time(0), Time(0), false, &mut DecoderOutput::default()).contradicts
        };
        assert!(contradicts(b"250 5.1.1 no"));
        assert!(contradicts(b"550 4.1.1 later"));
        assert!(!contradicts(b"550 5.1.1 no"));
        assert!(!contradicts(b"354 2.0.0 a class that has no enhanced codes"));
    }

    #[test]
    fn malformed_lines() {
        let (complete, malformed) =
            replies(&[b"hello", b"", b"25", b"250OK", b"250-a", b"garbage", b"250 b", b"999 z"]);
        assert_eq!(
            complete,
            [reply(250, None, "OK", 30, 31), reply(250, None, "a\ngarbage\nb", 40, 61), reply(999, None, "z", 70, 71)]
        );
        assert_eq!(malformed, [0, 1, 2, 3, 5, 7]);
    }

    #[test]
    fn enhanced_codes() {
        for (text, code) in [
            ("5.7.1 no", Some(EnhancedCode(5, 7, 1))),
            ("4.7.500 later", Some(EnhancedCode(4, 7, 500))),
            ("2.0.0", Some(EnhancedCode(2, 0, 0))),
            ("3.1.1 x", None),
            ("2.0 x", None),
            ("2.0.0.0 x", None),
            ("2.1234.0 x", None),
            ("2..0 x", None),
            ("", None),
        ] {
            assert_eq!(EnhancedCode::parse(text.as_bytes()), code, "{text}");
        }
    }

    #[test]
    fn a_text_is_bounded() {
        let long = [b"250-".as_slice(), &[b'a'; 2000]].concat();
        let (complete, _) = replies(&[&long, &long, &long, &long, b"250 end"]);
        assert_eq!(complete[0].text.len(), LONGEST_REPLY);
    }
    #[test]
    fn what_is_withheld_of_a_text_is_not_in_it() {
        let mut replies = Replies::default();
        let line = Line { bytes: b"550 5.1.1 xxxxx", length: 15, crossed: 10, ..Line::default() };
        let outcome = replies.line(&line, 0..0, Time(0), Time(0), false, &mut DecoderOutput::default());
        let reply = outcome.reply.expect("a reply");
        assert_eq!((reply.code, reply.enhanced_code), (550, Some(EnhancedCode(5, 1, 1))));
        assert_eq!((&reply.text[..], reply.withheld), (&b"5.1.1 "[..], true));
        let line = Line { bytes: b"250 x", length: 5, crossed: 5, ..Line::default() };
        let next =
            replies.line(&line, 0..0, Time(0), Time(0), false, &mut DecoderOutput::default()).reply.expect("a reply");
        assert!(!next.withheld);
    }
}
