//! What a proxy has before a session: a header that is no command.
//!
//! The PROXY protocol names the client, in a line (version 1) or in binary (version 2). SOCKS (version 4, and 5 by RFC 1928)
//! asks for a connection, and the proxy answers. SMTP, or TLS, follows.

use crate::event::Time;

/// Looks for a header at the start of a connection.
#[derive(Debug, Default)]
pub(super) struct Preamble {
    client: State,
    answer: Answer,
    /// When the first byte came.
    since: Time,
}

#[derive(Debug, Default)]
enum State {
    /// No byte was seen.
    Start,
    /// The first bytes may begin this one of the headers: so many were taken.
    Prefix { header: u8, taken: u8 },
    /// A header is being read.
    Fields(Fields),
    /// There is no header, or it is over.
    #[default]
    Past,
}

/// What a SOCKS proxy says before the server does.
#[derive(Debug, Default)]
enum Answer {
    #[default]
    None,
    Due,
    Fields(Fields),
}

/// What the client's first bytes are.
#[derive(Debug, PartialEq)]
pub(super) enum Look {
    /// They are, or may be, of a header; they were taken.
    Taken,
    /// They are none. Bytes that were taken come back, with the time of the first.
    Plain(&'static [u8], Time),
}

/// Stands for a byte that tells nothing.
const ANY: u8 = b'x';

#[derive(Debug)]
struct Header {
    begins: &'static [u8],
    fields: Fields,
    is_answered: bool,
}

/// No two of them begin with the same byte.
static HEADERS: [Header; 4] = [
    Header { begins: b"PROXY ", fields: Fields { skip: 0, next: Field::Line }, is_answered: false },
    // Version and command, family and protocol, the length of the rest.
    Header { begins: b"\r\n\r\n\0\r\nQUIT\n", fields: Fields { skip: 2, next: Field::LengthHigh }, is_answered: false },
    // The port, the address, the user.
    Header {
        begins: b"\x04\x01",
        fields: Fields { skip: 2, next: Field::Address { at: 0, names: true } },
        is_answered: true,
    },
    Header { begins: b"\x05", fields: Fields { skip: 0, next: Field::Methods }, is_answered: true },
];

/// Bytes to skip, and what the one behind them is.
#[derive(Clone, Copy, Debug)]
struct Fields {
    skip: u16,
    next: Field,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    /// The rest of a line.
    Line,
    LengthHigh,
    LengthLow(u8),
    /// A byte of SOCKS 4's address; 0.0.0.x says that a name follows the user.
    Address {
        at: u8,
        names: bool,
    },
    /// Up to a NUL, and whether another text follows.
    Text {
        more: bool,
    },
    /// How many methods the client offers.
    Methods,
    /// The first byte of SOCKS 5's next message: its version, or that of the log-in (RFC 1929).
    Request,
    User,
    Password,
    /// The first byte of SOCKS 5's next answer.
    Reply,
    AddressType,
    Name,
    End,
}

impl Fields {
    /// Reads on; whether all of it was read. What tells of the header's form goes to `told`, another byte for each of the
    /// others: names and passwords are among them.
    fn take(&mut self, bytes: &mut &[u8], told: &mut Vec<u8>) -> bool {
        loop {
            let skipped = bytes.len().min(self.skip.into());
            told.resize(told.len() + skipped, ANY);
            *bytes = &bytes[skipped..];
            self.skip -= skipped as u16;
            if self.skip == 0 && matches!(self.next, Field::End) {
                return true;
            }
            let Some((&byte, rest)) = bytes.split_first() else { return false };
            *bytes = rest;
            told.push(self.next.told(byte));
            *self = self.next.read(byte);
        }
    }
}

impl Field {
    /// The byte as far as it tells what comes next.
    fn told(self, byte: u8) -> u8 {
        match (self, byte) {
            (Self::Line, b'\n') | (Self::Address { .. } | Self::Text { .. }, 0) => byte,
            (Self::Line | Self::Address { .. } | Self::Text { .. }, _) => ANY,
            _ => byte,
        }
    }

    fn read(self, byte: u8) -> Fields {
        let (skip, next) = match (self, byte) {
            (Self::Line, b'\n') => (0, Self::End),
            (Self::Line, _) => (0, Self::Line),
            (Self::LengthHigh, high) => (0, Self::LengthLow(high)),
            (Self::LengthLow(high), low) => (u16::from_be_bytes([high, low]), Self::End),
            (Self::Address { at: 3, names }, byte) => (0, Self::Text { more: names && byte != 0 }),
            (Self::Address { at, names }, byte) => (0, Self::Address { at: at + 1, names: names && byte == 0 }),
            (Self::Text { more: true }, 0) => (0, Self::Text { more: false }),
            (Self::Text { more: false }, 0) => (0, Self::End),
            (Self::Text { more }, _) => (0, Self::Text { more }),
            (Self::Methods, count) => (count.into(), Self::Request),
            (Self::Request, 1) => (0, Self::User),
            (Self::User, length) => (length.into(), Self::Password),
            (Self::Password, length) => (length.into(), Self::Request),
            (Self::Reply, 1) => (1, Self::Reply),
            // Command or reply, and a reserved byte.
            (Self::Request | Self::Reply, 5) => (2, Self::AddressType),
            // An address and a port.
            (Self::AddressType, 1) => (4 + 2, Self::End),
            (Self::AddressType, 3) => (0, Self::Name),
            (Self::AddressType, 4) => (16 + 2, Self::End),
            (Self::Name, length) => (u16::from(length) + 2, Self::End),
            (Self::Request | Self::Reply | Self::AddressType | Self::End, _) => (0, Self::End),
        };
        Fields { skip, next }
    }
}

impl Preamble {
    /// A header may come.
    pub(super) fn expected() -> Self {
        Self { client: State::Start, ..Self::default() }
    }

    /// No header is being read or looked for.
    pub(super) fn is_past(&self) -> bool {
        matches!(self.client, State::Past)
    }

    /// Bytes that were taken and may come back.
    pub(super) fn undecided(&self) -> u64 {
        match self.client {
            State::Prefix { taken, .. } => taken.into(),
            _ => 0,
        }
    }

    /// Looks at bytes of the client. `told` gets the header's form up to where it was read.
    pub(super) fn look(&mut self, time: Time, bytes: &mut &[u8], told: &mut Vec<u8>) -> Look {
        if let State::Start = self.client {
            let header = HEADERS.iter().position(|header| bytes.first() == header.begins.first());
            self.client = header.map_or(State::Past, |header| State::Prefix { header: header as u8, taken: 0 });
            self.since = time;
        }
        while let State::Prefix { header: index, taken } = self.client {
            let header = &HEADERS[usize::from(index)];
            match (header.begins.get(usize::from(taken)), bytes.split_first()) {
                (None, _) => {
                    told.extend_from_slice(header.begins);
                    self.client = State::Fields(header.fields);
                    if header.is_answered {
                        self.answer = Answer::Due;
                    }
                }
                (Some(expected), Some((byte, rest))) if byte == expected => {
                    *bytes = rest;
                    self.client = State::Prefix { header: index, taken: taken + 1 };
                }
                (Some(_), None) => return Look::Taken,
                (Some(_), Some(_)) => {
                    self.client = State::Past;
                    return Look::Plain(&header.begins[..usize::from(taken)], self.since);
                }
            }
        }
        let State::Fields(fields) = &mut self.client else { return Look::Plain(b"", time) };
        if fields.take(bytes, told) {
            self.client = State::Past;
        }
        Look::Taken
    }

    /// No header comes any more: the server has spoken, or the client's bytes are over. What was taken comes back.
    pub(super) fn give_up(&mut self) -> Option<(&'static [u8], Time)> {
        if let State::Fields(_) = self.client {
            return None;
        }
        match std::mem::take(&mut self.client) {
            State::Prefix { header, taken } => {
                Some((&HEADERS[usize::from(header)].begins[..usize::from(taken)], self.since))
            }
            _ => None,
        }
    }

    /// A header is being read that no server answers before its end.
    pub(super) fn is_unfinished(&self) -> bool {
        matches!((&self.client, &self.answer), (State::Fields(_), Answer::None))
    }

    /// The server's first bytes are due to be a SOCKS proxy's.
    pub(super) fn awaits_answer(&self) -> bool {
        !matches!(self.answer, Answer::None)
    }

    /// Takes what a SOCKS proxy says; false where the server is none. `told` gets its form.
    pub(super) fn answered(&mut self, bytes: &mut &[u8], told: &mut Vec<u8>) -> bool {
        if let (Answer::Due, Some((&first, rest))) = (&self.answer, bytes.split_first()) {
            self.answer = Answer::Fields(match first {
                // The result, the port, the address.
                0 => Fields { skip: 1 + 2 + 4, next: Field::End },
                // The chosen method.
                5 => Fields { skip: 1, next: Field::Reply },
                _ => {
                    self.answer = Answer::None;
                    return false;
                }
            });
            *bytes = rest;
            told.push(first);
        }
        if let Answer::Fields(fields) = &mut self.answer
            && fields.take(bytes, told)
        {
            self.answer = Answer::None;
        }
        true
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
                if let Look::Plain(taken, _) = preamble.look(Time(1), &mut piece, &mut Vec::new()) {
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
            b"\x04\x01\0\x19\xc0\0\x02\x01bob\0",
            b"\x04\x01\0\x19\0\0\0\x01\0mx.example\0",
            b"\x05\x01\0\x05\x01\0\x01\xc0\0\x02\x01\0\x19",
            b"\x05\x02\0\x02\x01\x03bob\x06secret\x05\x01\0\x03\x0amx.example\0\x19",
            b"\x05\x01\0\x05\x01\0\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\x19",
        ] {
            for size in 1..=header.len() + 6 {
                let input = [header, b"QUIT\r\n"].concat();
                assert_eq!(rest(&input, size), b"QUIT\r\n", "{header:x?} in pieces of {size}");
            }
        }
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

    #[test]
    fn answers() {
        let answered = |client: &[u8], server: &[u8]| {
            let mut preamble = Preamble::expected();
            preamble.look(Time(1), &mut &*client, &mut Vec::new());
            server
                .iter()
                .map(|&byte| preamble.awaits_answer() && preamble.answered(&mut &[byte][..], &mut Vec::new()))
                .collect::<Vec<_>>()
        };
        let all = |length| [vec![true; length], vec![false; 3]].concat();
        assert_eq!(answered(b"\x04\x01", b"\0\x5a\0\0\0\0\0\x00220"), all(8));
        assert_eq!(answered(b"\x05\x01\0", b"\x05\0\x05\0\0\x01\0\0\0\0\0\x00220"), all(12));
        assert_eq!(answered(b"\x05\x01\x02", b"\x05\x02\x01\0\x05\0\0\x03\x02mx\0\x19220"), all(13));
        assert_eq!(answered(b"\x05\x01\0", b"220"), all(0));
        assert_eq!(answered(b"PROXY ", b"220"), all(0));
    }
}
