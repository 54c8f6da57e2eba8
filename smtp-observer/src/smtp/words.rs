//! Where the words of a text begin and end, and where one stands in it.

use std::ops::Range;

use memchr::memchr2_iter;

use super::starts::{is_code, is_word};

/// Where a name stands in the text, in any case, and is no part of a longer word.
pub(crate) fn occurrences<'a>(text: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
    let first = name.first().copied().unwrap_or_default();
    // Another case of a letter beyond ASCII has other bytes.
    let (ascii, beyond) = if first.is_ascii() { (text, 0) } else { (&[][..], text.len()) };
    let beyond = (0..beyond).filter(|&place| !text[place].is_ascii());
    let places = memchr2_iter(first.to_ascii_lowercase(), first.to_ascii_uppercase(), ascii).chain(beyond);
    let places = places.take_while(|_| !name.is_empty());
    places.filter_map(move |place| {
        let end = place + length_in(&text[place..], name)?;
        (is_border(text, place) && is_border(text, end)).then_some(place..end)
    })
}

/// How many bytes a name has at the beginning of a text, in whatever case.
pub(super) fn length_in(text: &[u8], name: &[u8]) -> Option<usize> {
    if name.is_ascii() {
        return text.get(..name.len())?.eq_ignore_ascii_case(name).then_some(name.len());
    }
    let (mut rest, mut name) = (text, name);
    while !name.is_empty() {
        let (one, other) = (first_character(rest)?, first_character(name)?);
        let (is_same, [length, other_length]) = match (one, other) {
            (Ok(one), Ok(other)) => (is_same_letter(one, other), [one.len_utf8(), other.len_utf8()]),
            (one, other) => (one == other, [1, 1]),
        };
        if !is_same {
            return None;
        }
        (rest, name) = (&rest[length..], &name[other_length..]);
    }
    Some(text.len() - rest.len())
}

/// Whether one word may end at this place of a text, and another begin. Beyond ASCII there are signs, too (`“bob”`), and
/// writing without blanks (`用户bob不存在`): only letters that have cases go on with a word there.
pub(super) fn is_border(text: &[u8], place: usize) -> bool {
    let (before, behind) = text.split_at(place);
    match (before.last(), behind.first()) {
        (Some(last), Some(first)) if is_word(last) && is_word(first) => match (last.is_ascii(), first.is_ascii()) {
            (true, true) => ends_code(before),
            (false, false) => {
                !(last_character(before).is_some_and(has_case)
                    && as_letter(first_character(behind)).is_some_and(has_case))
            }
            _ => true,
        },
        _ => true,
    }
}

/// Whether a text ends with a sign that is written as its number: `%2B`, `=22`, or `+3D` (RFC 3461, 4).
fn ends_code(text: &[u8]) -> bool {
    matches!(text, [.., sign, one, other] if is_code([*sign, *one, *other]))
}

/// The words of a text: what stands between blanks, and between signs beyond ASCII.
pub(super) fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut end = 0;
        while let Some(first) = text.get(end) {
            let (is_sign, length) = match first.is_ascii() {
                true => (first.is_ascii_whitespace(), 1),
                false => match first_character(&text[end..])? {
                    Ok(character) => (is_sign(character), character.len_utf8()),
                    Err(byte) => (is_sign(byte.into()), 1),
                },
            };
            if is_sign {
                rest = Some(&text[end + length..]);
                return Some(&text[..end]);
            }
            end += length;
        }
        rest = None;
        Some(text)
    })
    .filter(|word| !word.is_empty())
}

/// Quotation marks, dashes, arrows and such, but not what stands within words of some languages.
fn is_sign(character: char) -> bool {
    let may_be = matches!(
        character,
        '\u{80}'..='\u{bf}'
            | '\u{d7}'
            | '\u{f7}'
            | '\u{2010}'..='\u{205e}'
            | '\u{2190}'..='\u{2bff}'
            | '\u{3000}'..='\u{303f}'
            | '\u{ff00}'..='\u{ff65}'
    );
    character.is_whitespace() || may_be && !character.is_alphanumeric()
}

fn has_case(letter: char) -> bool {
    letter.is_lowercase() || letter.is_uppercase()
}

/// The first character, or the first byte where there is none.
fn first_character(bytes: &[u8]) -> Option<Result<char, u8>> {
    let first = bytes.first()?;
    let chunk = bytes[..bytes.len().min(4)].utf8_chunks().next()?;
    Some(chunk.valid().chars().next().ok_or(*first))
}

/// The last character; of a byte that is of none, the one of ISO 8859-1.
fn last_character(bytes: &[u8]) -> Option<char> {
    let chunk = bytes[bytes.len().saturating_sub(4)..].utf8_chunks().last()?;
    chunk.invalid().last().map(|&byte| byte.into()).or_else(|| chunk.valid().chars().last())
}

fn as_letter(first: Option<Result<char, u8>>) -> Option<char> {
    Some(first?.unwrap_or_else(char::from))
}

fn is_same_letter(one: char, other: char) -> bool {
    one == other || one.to_lowercase().eq(other.to_lowercase()) || one.to_uppercase().eq(other.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_at_signs() {
        for (text, expected) in [
            ("a b  c\t", &["a", "b", "c"][..]),
            ("User \u{201c}ann\u{201d}: no", &["User", "ann", ": no"][..2]),
            ("user\u{a0}ann\u{2026}", &["user", "ann"]),
            ("\u{ff1a}ann\u{3002}bob", &["ann", "bob"]),
            ("ren\u{e9} bjo\u{308}rn", &["ren\u{e9}", "bjo\u{308}rn"]),
            ("", &[]),
        ] {
            let found: Vec<_> = words(text.as_bytes()).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            assert_eq!(found[..expected.len()], *expected, "{text}");
        }
        assert_eq!(words(b"user \xabann\xbb \xe9").collect::<Vec<_>>(), [&b"user"[..], b"ann", b"\xe9"]);
    }

    #[test]
    fn a_word_is_found_whole() {
        let count = |text: &str, word: &str| occurrences(text.as_bytes(), word.as_bytes()).count();
        assert_eq!(count("bob, bobby and Bob", "bob"), 2);
        assert_eq!(count("bob", ""), 0);
        assert_eq!(count("%22bob%22 =22bob=22 %3Cbob%3e x%2bbob x+2Bbob", "bob"), 5);
        assert_eq!(count("%2xbob 22bob %bob2 %Gabob", "bob"), 0);
        assert_eq!(
            count("\u{e9}bob \u{df}\u{e9}", "\u{e9}"),
            1,
            "a change between ASCII and what is beyond parts words"
        );
    }
}
