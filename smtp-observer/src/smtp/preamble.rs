//! What a proxy has before a session: a header that is no command.
//!
//! The PROXY protocol names the client, in a line (version 1) or in binary (version 2). SOCKS (version 4, and 5 by RFC 1928)
//! asks for a connection, and the proxy answers. SMTP, or TLS, follows. Of SOCKS nothing is read: it is over when the
//! server greets.

use crate::event::Time;

/// Looks for a header at the start of a connection.
#[derive(Debug, Default)]
pub(super) struct Preamble {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// No byte was seen.
    Start,
    /// The first bytes may begin this one of the headers: so many were taken, the first of them then.
    Prefix { header: u8, taken: u8, since: Time },
    /// The rest of a line.
    Line,
    /// The bytes behind the signature of PROXY's version 2, the last two of which are the length of the rest.
    Lengths { taken: u8, high: u8 },
    /// So many bytes.
    Skip(u16),
    /// The client has asked a SOCKS proxy.
    Socks(Box<Greeting>),
    /// There is no header, or it is over.
    #[default]
    Past,
}

/// Looks for a reply behind what a SOCKS proxy says.
#[derive(Debug, Default)]
struct Greeting {
    /// The last bytes, the last of them last; zero where none are known.
    last: [u8; 4],
    /// When each of them came.
    times: [Time; 4],
    /// The proxy has said something.
    answered: bool,
}

/// What the client's first bytes are.
#[derive(Debug, PartialEq)]
pub(super) enum Look {
    /// They are, or may be, of a header; they were taken.
    Taken,
    /// They are none. Bytes that were taken come back, with the time of the first.
    Plain(&'static [u8], Time),
}

/// What the server's bytes are, where the client has asked a SOCKS proxy.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// A proxy's; they were taken.
    Taken,
    /// A reply follows: its code, which was taken, and when that came.
    Replies {
        /// The code.
        code: [u8; 3],
        /// When its first byte came.
        since: Time,
        /// A proxy has answered before.
        answered: bool,
    },
}

#[derive(Debug)]
struct Header {
    begins: &'static [u8],
    then: fn() -> State,
}

/// No two of them begin with the same byte.
static HEADERS: [Header; 4] = [
    Header { begins: b"PROXY ", then: || State::Line },
    Header { begins: b"\r\n\r\n\0\r\nQUIT\n", then: || State::Lengths { taken: 0, high: 0 } },
    Header { begins: b"\x04\x01", then: || State::Socks(Box::default()) },
    Header { begins: b"\x05", then: || State::Socks(Box::default()) },
];

/// The codes of a greeting (RFC 5321, 4.3.2).
const CODES: [&[u8; 3]; 3] = [b"220", b"554", b"421"];

impl Preamble {
    /// A header may come.
    pub(super) fn expected() -> Self {
        Self { state: State::Start }
    }

    /// No header is being read or looked for.
    pub(super) fn is_past(&self) -> bool {
        matches!(self.state, State::Past)
    }

    /// Looks at bytes of the client, which are not empty.
    pub(super) fn look(&mut self, time: Time, bytes: &mut &[u8]) -> Look {
        if let State::Start = self.state {
            let header = HEADERS.iter().position(|header| bytes.first() == header.begins.first());
            self.state =
                header.map_or(State::Past, |header| State::Prefix { header: header as u8, taken: 0, since: time });
        }
        while let State::Prefix { header: index, taken, since } = self.state {
            let header = &HEADERS[usize::from(index)];
            match (header.begins.get(usize::from(taken)), bytes.split_first()) {
                (None, _) => self.state = (header.then)(),
                (Some(expected), Some((byte, rest))) if byte == expected => {
                    *bytes = rest;
                    self.state = State::Prefix { header: index, taken: taken + 1, since };
                }
                (Some(_), None) => return Look::Taken,
                (Some(_), Some(_)) => {
                    self.state = State::Past;
                    return Look::Plain(&header.begins[..usize::from(taken)], since);
                }
            }
        }
        if self.is_past() {
            return Look::Plain(b"", time);
        }
        self.skip(bytes);
        Look::Taken
    }

    /// Skips bytes of a header that has begun.
    fn skip(&mut self, bytes: &mut &[u8]) {
        loop {
            self.state = match (&self.state, bytes.split_first()) {
                (State::Skip(0), _) => State::Past,
                (State::Skip(length), Some(_)) => {
                    let skipped = bytes.len().min(usize::from(*length));
                    *bytes = &bytes[skipped..];
                    State::Skip(length - skipped as u16)
                }
                (State::Line, Some((byte, rest))) => {
                    *bytes = rest;
                    if *byte == b'\n' { State::Past } else { State::Line }
                }
                // Version and command, family and protocol, the length of the rest.
                (State::Lengths { taken: 3, high }, Some((low, rest))) => {
                    *bytes = rest;
                    State::Skip(u16::from_be_bytes([*high, *low]))
                }
                (State::Lengths { taken, .. }, Some((byte, rest))) => {
                    *bytes = rest;
                    State::Lengths { taken: taken + 1, high: *byte }
                }
                (State::Socks(_), _) => {
                    *bytes = &[];
                    return;
                }
                _ => return,
            };
        }
    }

    /// No header comes any more: the server has spoken, or the client's bytes are over. What was taken comes back.
    pub(super) fn give_up(&mut self) -> Option<(&'static [u8], Time)> {
        let (State::Start | State::Prefix { .. }) = self.state else { return None };
        match std::mem::take(&mut self.state) {
            State::Prefix { header, taken, since } => {
                Some((&HEADERS[usize::from(header)].begins[..usize::from(taken)], since))
            }
            _ => None,
        }
    }

    /// A header is being read that no server answers before its end.
    pub(super) fn is_unfinished(&self) -> bool {
        matches!(self.state, State::Line | State::Lengths { .. } | State::Skip(_))
    }

    /// The client has asked a SOCKS proxy, and the server has not greeted.
    pub(super) fn is_socks(&self) -> bool {
        matches!(self.state, State::Socks(_))
    }

    /// Takes what a SOCKS proxy says, up to a greeting; or to another reply at the start of a line, where the greeting was
    /// not seen.
    pub(super) fn answered(&mut self, time: Time, bytes: &mut &[u8]) -> Answer {
        let State::Socks(greeting) = &mut self.state else { return Answer::Taken };
        while let Some((&byte, rest)) = bytes.split_first() {
            let [before, code @ ..] = greeting.last;
            let is_code = CODES.contains(&&code)
                || matches!(before, 0 | b'\n') && matches!(code[0], b'2'..=b'5') && code.iter().all(u8::is_ascii_digit);
            if matches!(byte, b' ' | b'-' | b'\r' | b'\n') && is_code {
                let (since, answered) = (greeting.times[1], greeting.answered);
                self.state = State::Past;
                return Answer::Replies { code, since, answered };
            }
            greeting.take(time, byte);
            *bytes = rest;
        }
        Answer::Taken
    }

    /// Some of what a SOCKS proxy says was not seen.
    pub(super) fn answer_unseen(&mut self) {
        if let State::Socks(greeting) = &mut self.state {
            **greeting = Greeting { answered: true, ..Greeting::default() };
        }
    }
}

/// Whether a code is a greeting's.
pub(super) fn greets(code: [u8; 3]) -> bool {
    CODES.contains(&&code)
}

impl Greeting {
    fn take(&mut self, time: Time, byte: u8) {
        // What leaves is no code's.
        self.answered |= self.last[1] != 0 || byte == 0;
        self.last.rotate_left(1);
        self.times.rotate_left(1);
        (self.last[3], self.times[3]) = (byte, time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of the client's bytes, fed in pieces of `size`.
    fn rest(input: &[u8], size: usize) -> Vec<u8> {
        let mut preamble = Preamble::expected();
        let mut rest = Vec::new();
        for mut piece in input.chunks(size) {
            while !piece.is_empty() {
                if preamble.is_past() {
                    rest.extend_from_slice(piece);
                    break;
                }
                if let Look::Plain(taken, _) = preamble.look(Time(1), &mut piece) {
                    rest.extend_from_slice(taken);
                }
            }
        }
        rest.extend(preamble.give_up().map_or(&b""[..], |(taken, _)| taken));
        rest
    }

    #[test]
    fn headers_are_taken() {
        for header in [
            &b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 25\r\n"[..],
            b"PROXY UNKNOWN\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x13\x88\0\x19",
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        ] {
            for size in 1..=header.len() + 6 {
                let input = [header, b"QUIT\r\n"].concat();
                assert_eq!(rest(&input, size), b"QUIT\r\n", "{header:x?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn socks_lasts_until_the_greeting() {
        for client in [&b"\x04\x01\0\x19\xc0\0\x02\x01bob\0"[..], b"\x05\x01\0\x05\x01\0\x01\xc0\0\x02\x01\0\x19"] {
            for size in 1..=client.len() {
                assert_eq!(rest(client, size), b"");
            }
        }
        let answered = |server: &[&'static [u8]]| {
            let mut preamble = Preamble::expected();
            preamble.look(Time(1), &mut &b"\x05\x01\0"[..]);
            for (at, piece) in server.iter().enumerate() {
                let mut bytes = *piece;
                if bytes.is_empty() {
                    preamble.answer_unseen();
                }
                if let Answer::Replies { code, since, answered } = preamble.answered(Time(at as u64), &mut bytes) {
                    assert!(preamble.is_past() && greets(code) == (&code == b"220"));
                    return Some((bytes, since, answered));
                }
            }
            None
        };
        assert_eq!(answered(&[b"\x05\0", b"\x05\0\0\x01\0\0\0\0\0\x00220 mx"]), Some((&b" mx"[..], Time(1), true)));
        assert_eq!(answered(&[b"2", b"2", b"0-mx"]), Some((&b"-mx"[..], Time(0), false)));
        assert_eq!(answered(&[b"", b"220\r\n"]), Some((&b"\r\n"[..], Time(1), true)));
        assert_eq!(answered(&[b"22", b"", b"0 mx"]), None);
        assert_eq!(answered(&[b"\x05\0", b"", b"250 ok"]), Some((&b" ok"[..], Time(2), true)));
    }

    #[test]
    fn all_else_comes_back() {
        for input in [
            &b"EHLO client.example\r\n"[..],
            b"PROX",
            b"PRDR\r\n",
            b"\r\n\r\n\r\nQUIT\r\n",
            b"\r\n\r\n\0\r\nQUIT\r\n",
            b"\x04\x02\0\x19",
            b"\x16\x03\x01",
        ] {
            for size in 1..=input.len() {
                assert_eq!(rest(input, size), input, "{input:x?} in pieces of {size}");
            }
        }
    }
}
