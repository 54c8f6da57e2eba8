//! Text from the wire and from other users' processes, made safe to show.

use std::fmt::{self, Write as _};

/// Shows text with everything escaped that could steer a terminal, break a line or turn the reading direction.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\n' => f.write_str("\\n"),
            '\r' => f.write_str("\\r"),
            '\t' => f.write_str("\\t"),
            '\0'..='\x1f' | '\x7f' => write!(f, "\\x{:02x}", u32::from(character)),
            character if is_hidden(character) => write!(f, "\\u{{{:x}}}", u32::from(character)),
            character => f.write_char(character),
        })
    }
}

/// Whether a character is not shown as itself: it would steer a terminal, break a line or change how others are shown.
pub fn steers(character: char) -> bool {
    character.is_control() || is_hidden(character)
}

/// Characters that change how others are shown: C1 controls, separators, and marks of direction (Unicode TR 36).
fn is_hidden(character: char) -> bool {
    matches!(character,
        '\u{80}'..='\u{9f}'
        | '\u{ad}' | '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// The first `width` characters, escaped, with an ellipsis where some are cut.
pub fn cut(text: &str, width: usize) -> String {
    let escaped = Escaped(text).to_string();
    match escaped.char_indices().nth(width) {
        None => escaped,
        Some(_) => {
            let end = escaped.char_indices().nth(width.saturating_sub(1)).map_or(0, |(index, _)| index);
            format!("{}…", &escaped[..end])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        let hostile = "\u{1b}]0;title\u{7}\u{1b}[31mred\u{9b}2J\r\nover\u{8}\u{7f}\u{202e}gnp\u{200b}\u{2028}\0";
        let shown = Escaped(hostile).to_string();
        assert_eq!(
            shown,
            "\\x1b]0;title\\x07\\x1b[31mred\\u{9b}2J\\r\\nover\\x08\\x7f\\u{202e}gnp\\u{200b}\\u{2028}\\x00"
        );
        assert!(!shown.chars().any(char::is_control));
    }

    #[test]
    fn plain_text_is_left() {
        let text = "250 2.1.0 Grüße, <…@例え.jp>\\o/";
        assert_eq!(Escaped(text).to_string(), text);
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(cut("äöüßäöü", 6), "äöüßä…");
        assert_eq!(cut("\u{1b}\u{1b}", 5), "\\x1b…");
        assert_eq!(cut("ab", 0), "…");
    }
}
