//! The shape of a text: as long, with its line ends and the codes of replies, and nothing else of it.

use crate::event::{Said, Segment, TransferEvent};
use crate::smtp::EnhancedCode;

/// Stands for any byte.
const ANY: u8 = b'x';

/// Of a line its code stays, if it has one, its enhanced code, and what is wrong with it.
pub(super) fn of_reply(line: &[u8]) -> Vec<u8> {
    let text = text_of(line);
    let code = EnhancedCode::length(&line[text..]);
    let (codes, rest) = line.split_at(text + code);
    let rest = rest.iter().map(|byte| if matches!(byte, b'\r' | b'\n' | 0) { *byte } else { ANY });
    codes.iter().copied().chain(rest).collect()
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

/// An event of whose text nothing is kept but its shape.
pub(super) fn of_event(event: &TransferEvent) -> TransferEvent<'static> {
    let shapes: Vec<Vec<u8>> = event.said.segments().filter_map(of_text).collect();
    let mut shapes = shapes.iter();
    let said = Said::of(event.said.segments().map(|segment| match segment {
        Segment::Text(_) => Segment::Text(shapes.next().map(Vec::as_slice).unwrap_or_default()),
        other => other,
    }));
    TransferEvent { said, ..event.clone() }
}

fn of_text(segment: Segment<'_>) -> Option<Vec<u8>> {
    match segment {
        Segment::Text(bytes) => Some(bytes.split_inclusive(|&byte| byte == b'\n').flat_map(of_reply).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_replies_stay() {
        for (line, shape) in [
            ("250-mx.example", "250-xxxxxxxxxx"),
            ("535 5.7.8 bad c2VjcmV0", "535 5.7.8 xxxxxxxxxxxx"),
            ("334 VXNlcm5hbWU6", "334 xxxxxxxxxxxx"),
            ("250", "250"),
            ("garbage\r\n", "xxxxxxx\r\n"),
            ("a\rb\0", "x\rx\0"),
        ] {
            assert_eq!(of_reply(line.as_bytes()), shape.as_bytes(), "{line}");
        }
    }
}
