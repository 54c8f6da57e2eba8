//! The shape of bytes: as many, with what ends lines, messages and the dialogue itself, and nothing else of them.

use bytes::Bytes;

use crate::event::TransferEvent;
use crate::smtp::EnhancedCode;

/// Stands for any byte.
const ANY: u8 = b'x';

/// Keeps the line ends, NULs, and dots that may stand alone in a line: by them the end of a message and what some servers
/// take for it is found; and the bytes by which TLS is told from SMTP. `before` is the byte before the first.
pub(super) fn of_bytes(bytes: &mut [u8], mut before: u8) {
    for byte in bytes {
        let was = *byte;
        let kept = match was {
            b'\r' | b'\n' | 0 => true,
            b'.' => matches!(before, b'\r' | b'\n' | 0),
            // The type of a TLS record, and its version.
            20..=23 | 3 => true,
            _ => false,
        };
        if !kept {
            *byte = ANY;
        }
        before = was;
    }
}

/// Of a reply's line its codes stay, too, and that there is nothing in it.
pub(super) fn of_reply(line: &mut [u8]) {
    if line.trim_ascii().is_empty() {
        return;
    }
    let text = text_of(line);
    let code = EnhancedCode::length(&line[text..]);
    of_bytes(&mut line[text + code..], ANY);
}

/// Where the text of a reply's line begins: behind the code and the sign behind it.
pub(super) fn text_of(line: &[u8]) -> usize {
    match line {
        [a, b, c, rest @ ..] if [a, b, c].iter().all(|byte| byte.is_ascii_digit()) => {
            3 + usize::from(matches!(rest.first(), Some(b' ' | b'-')))
        }
        _ => 0,
    }
}

/// An event none of whose bytes is kept.
pub(super) fn of_event(event: &TransferEvent) -> TransferEvent {
    let shape = |bytes: &Bytes| {
        let mut bytes = bytes.to_vec();
        of_bytes(&mut bytes, b'\n');
        Bytes::from(bytes)
    };
    TransferEvent { head: shape(&event.head), tail: shape(&event.tail), ..event.clone() }
}

/// An event with as many bytes, and nothing of them.
pub(super) fn of_nothing(event: &TransferEvent) -> TransferEvent {
    let nothing = |bytes: &Bytes| Bytes::from(vec![ANY; bytes.len()]);
    TransferEvent { head: nothing(&event.head), tail: nothing(&event.tail), ..event.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &[u8]) -> Vec<u8> {
        let mut bytes = text.to_vec();
        of_bytes(&mut bytes, b'\n');
        bytes
    }

    #[test]
    fn lines_and_ends_stay() {
        assert_eq!(bytes(b"Hi B.\r\n..stuffed\r\n.\r\n"), b"xxxxx\r\n.xxxxxxxx\r\n.\r\n");
        assert_eq!(bytes(b"a\n.\nb\r\n\0.\r\n"), b"x\n.\nx\r\n\0.\r\n");
        assert_eq!(bytes(b"\x16\x03\x01\xff"), b"\x16\x03xx");
    }

    #[test]
    fn codes_of_replies_stay() {
        for (line, shape) in [
            ("250-mx.example", "250-xxxxxxxxxx"),
            ("535 5.7.8 bad c2VjcmV0", "535 5.7.8 xxxxxxxxxxxx"),
            ("334 VXNlcm5hbWU6", "334 xxxxxxxxxxxx"),
            ("250", "250"),
            ("garbage", "xxxxxxx"),
            (" \t", " \t"),
        ] {
            let mut bytes = line.as_bytes().to_vec();
            of_reply(&mut bytes);
            assert_eq!(str::from_utf8(&bytes), Ok(shape), "{line}");
        }
    }
}
