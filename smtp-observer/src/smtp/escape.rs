use std::fmt::Write as _;

/// The bytes as text for people: printable characters as they are, all else escaped, so that a peer can neither
/// steer a terminal nor break a line.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    write_escaped(bytes, &mut text);
    text
}

/// The same, behind what is in `text`.
pub fn write_escaped(bytes: &[u8], text: &mut String) {
    // Nearly all that is shown: nothing to look at one by one.
    if let (true, Ok(plain)) = (bytes.iter().all(|byte| matches!(byte, b' '..=b'~')), str::from_utf8(bytes)) {
        return text.push_str(plain);
    }
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\'' | '\\' => text.push(character),
                _ => text.extend(character.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            // Writing into a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
}

/// As much of a text as may be shown, in characters, and a sign that there is more.
pub(crate) fn cut(mut text: String, most: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn printable_text_stays() {
        assert_eq!(escape(b"EHLO \"client\".example\\x"), "EHLO \"client\".example\\x");
        assert_eq!(escape("héllo 日本".as_bytes()), "héllo 日本");
    }

    #[test]
    fn control_and_broken_bytes_are_escaped() {
        assert_eq!(escape(b"a\0b\r\n\x1b[2J"), "a\\0b\\r\\n\\u{1b}[2J");
        assert_eq!(escape(b"\xff\xfe"), "\\xff\\xfe");
        assert_eq!(escape("\u{202e}".as_bytes()), "\\u{202e}");
    }
}
