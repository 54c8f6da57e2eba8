//! What the words of a text begin with: a text has no word whose first letter begins none of its words.

/// A set of first bytes: a bit for each letter, in either case, for digits, bytes beyond ASCII, the signs of an arrow, and
/// all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Starts(u32);

impl Starts {
    /// None at all.
    pub(super) const NONE: Self = Self(0);

    /// Those of words.
    const WORDS: Self = Self((1 << ARROW) - 1);

    /// Each byte's set.
    const BY_BYTE: [Self; 256] = {
        let mut sets = [Self::NONE; 256];
        let mut byte = 0;
        while byte < sets.len() {
            sets[byte] = Self(1 << kind(byte as u8));
            byte += 1;
        }
        sets
    };

    /// That of one byte.
    pub(super) const fn of(byte: u8) -> Self {
        Self::BY_BYTE[byte as usize]
    }

    /// Those that words begin with.
    pub(super) const fn of_words(words: &[&str]) -> Self {
        let (mut starts, mut place) = (Self::NONE, 0);
        while place < words.len() {
            starts = starts.and(Self::of(words[place].as_bytes()[0]));
            place += 1;
        }
        starts
    }

    /// Those of the words in a text, and the signs between them.
    pub(super) fn in_text(text: &[u8]) -> Self {
        let (mut starts, mut in_word) = (Self::NONE, false);
        for byte in text {
            let start = Self::of(*byte);
            let goes_on = start.meet(Self::WORDS);
            if !(in_word && goes_on) {
                starts = starts.and(start);
            }
            in_word = goes_on;
        }
        starts
    }

    /// Both together.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there is one that both have.
    pub(super) const fn meet(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The first of the kinds that begin no word.
const ARROW: u8 = 28;

/// The bit that stands for a first byte.
const fn kind(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => byte - b'a',
        b'A'..=b'Z' => byte - b'A',
        b'0'..=b'9' => 26,
        0x80.. => 27,
        b'-' | b'=' => ARROW,
        _ => ARROW + 1,
    }
}

/// It is part of a word.
pub(super) fn is_word(byte: &u8) -> bool {
    Starts::of(*byte).meet(Starts::WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_begins_behind_a_sign() {
        for (text, words, expected) in [
            ("2.1.5 Ok", &["ok"][..], true),
            ("2.1.5 Ok", &["known"], false),
            ("<alias>", &["Alias"], true),
            ("no-one => bob", &["=>"], true),
            ("250 ok", &["-"], false),
            ("é", &["ü"], true),
            ("", &["a"], false),
        ] {
            assert_eq!(Starts::in_text(text.as_bytes()).meet(Starts::of_words(words)), expected, "{text}");
        }
    }
}
