//! What the words of a text begin with: a text has no word whose first letter begins none of its words.

use memchr::memchr3_iter;

/// A set of first bytes: a bit for each letter, in either case, for digits, bytes beyond ASCII, the signs of an arrow, and
/// all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Starts(u32);

impl Starts {
    /// None at all.
    pub(super) const NONE: Self = Self(0);

    /// Those of words: in ASCII, and beyond it.
    const ASCII: Self = Self((1 << BEYOND) - 1);
    const BEYOND: Self = Self(1 << BEYOND);
    const WORDS: Self = Self::ASCII.and(Self::BEYOND);

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

    /// Those of the words in a text, and the signs between them. A word ends where ASCII begins or ends.
    pub(super) fn in_text(text: &[u8]) -> Self {
        let (mut starts, mut goes_on) = (Self::NONE, Self::NONE);
        for byte in text {
            let start = Self::of(*byte);
            if !goes_on.meet(start) {
                starts = starts.and(start);
            }
            goes_on = match start {
                Self::BEYOND => Self::BEYOND,
                _ if start.meet(Self::ASCII) => Self::ASCII,
                _ => Self::NONE,
            };
        }
        // A word may stand right behind a sign that is written as its number.
        for place in memchr3_iter(b'+', b'%', b'=', text) {
            if let [sign, one, other, first, ..] = text[place..]
                && is_code([sign, one, other])
            {
                starts = starts.and(Self::of(first));
            }
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

/// The last of the kinds that begin words, and the first of those that begin none.
const BEYOND: u8 = 27;
const ARROW: u8 = 28;

/// The bit that stands for a first byte.
const fn kind(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => byte - b'a',
        b'A'..=b'Z' => byte - b'A',
        b'0'..=b'9' => 26,
        0x80.. => BEYOND,
        b'-' | b'=' => ARROW,
        _ => ARROW + 1,
    }
}

/// It is part of a word.
pub(super) fn is_word(byte: &u8) -> bool {
    Starts::of(*byte).meet(Starts::WORDS)
}

/// Whether these are a sign that is written as its number.
pub(super) fn is_code([sign, one, other]: [u8; 3]) -> bool {
    matches!(sign, b'+' | b'%' | b'=') && one.is_ascii_hexdigit() && other.is_ascii_hexdigit()
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
            ("“bob”", &["bob"], true),
            ("用户bob不存在", &["bob"], true),
            ("bobé", &["é"], true),
            ("%22bob%22", &["bob"], true),
            ("a=3Cbob=3E", &["bob"], true),
            ("%2gbob +2", &["bob"], false),
            ("xbob“", &["bob"], false),
            ("", &["a"], false),
        ] {
            assert_eq!(Starts::in_text(text.as_bytes()).meet(Starts::of_words(words)), expected, "{text}");
        }
    }
}
