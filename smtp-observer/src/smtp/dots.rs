//! Dots in content that may stand alone on a line.

/// Bytes that are looked at together, in words of a register.
const BLOCK: usize = 32;
const WORD: usize = 8;

/// Where the next dot is, from `at` on, that may stand behind CR, LF or NUL: at the start, or behind a byte that is not
/// printed. Most dots of a text stand behind one that is, so they are not stopped at one by one.
pub(super) fn next(bytes: &[u8], at: usize) -> Option<usize> {
    if at == 0 && bytes.first() == Some(&b'.') {
        return Some(0);
    }
    let at = at.max(1);
    let (before, bytes) = (bytes.get(at - 1..)?, bytes.get(at..)?);
    let blocks = before.as_chunks().0.iter().zip(bytes.as_chunks().0);
    let without = BLOCK * blocks.take_while(|(before, bytes)| !holds(before, bytes)).count();
    let (before, bytes) = (&before[without..], &bytes[without..]);
    let mut words = before.as_chunks().0.iter().zip(bytes.as_chunks().0).enumerate();
    let in_word = words.find_map(|(number, (before, bytes))| Some(WORD * number + first(before, bytes)?));
    let rest = bytes.len() - bytes.len() % WORD;
    let place = in_word.or_else(|| (rest..bytes.len()).find(|&place| is_one(before[place], bytes[place])))?;
    Some(at + without + place)
}

fn is_one(before: u8, byte: u8) -> bool {
    (before < b' ') & (byte == b'.')
}

/// Whether there is one in a block, each byte given with the one before it. Without a branch, which makes it quick.
fn holds(before: &[u8; BLOCK], bytes: &[u8; BLOCK]) -> bool {
    before.iter().zip(bytes).fold(false, |found, (before, byte)| found | is_one(*before, *byte))
}

/// The first in a word.
fn first(before: &[u8; WORD], bytes: &[u8; WORD]) -> Option<usize> {
    const EACH: u64 = u64::from_le_bytes([1; WORD]);
    let (before, bytes) = (u64::from_le_bytes(*before), u64::from_le_bytes(*bytes));
    // A byte of it is 0 where one is.
    let others = (bytes ^ (EACH * b'.' as u64)) | (before & (EACH * 0xe0));
    // The highest bit of the first such byte is set, and none below it: what is borrowed comes from further up.
    let highest = others.wrapping_sub(EACH) & !others & (EACH * 0x80);
    (highest != 0).then_some(highest.trailing_zeros() as usize / 8)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn one_by_one(bytes: &[u8], at: usize) -> Option<usize> {
        (at..bytes.len()).find(|&at| bytes[at] == b'.' && (at == 0 || bytes[at - 1] < b' '))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn none_is_missed(bytes in vec(prop::sample::select(&b"..x \x1f\r\n\0-/\x2d\x2f\xae\xff"[..]), 0..200)) {
            for at in 0..=bytes.len() {
                prop_assert_eq!(next(&bytes, at), one_by_one(&bytes, at), "from {} on", at);
            }
        }

        #[test]
        fn few_are_found(quiet in vec(any::<u8>().prop_filter("no dot", |byte| *byte != b'.'), 2..200), place: prop::sample::Index) {
            let mut bytes = quiet;
            let place = place.index(bytes.len() - 1);
            bytes[place..=place + 1].copy_from_slice(b"\n.");
            prop_assert_eq!(next(&bytes, 0), Some(place + 1));
            prop_assert_eq!(next(&bytes, place + 2), None);
        }
    }
}
