//! What stands for something that is not shown.

use std::hash::{DefaultHasher, Hasher as _};
use std::ops::Range;

/// Names that are nobody's, and by which a program is told: Postfix verifies addresses with the first.
const ROLES: [&[u8]; 2] = [b"double-bounce", b"postmaster"];

/// What of a name shows that nobody has it: it is named to see whether a server takes any (smtp-validate-email; Exim's callout,
/// `callout_random_local_part`).
pub(crate) fn probe_mark(local_part: &[u8]) -> Option<Range<usize>> {
    const ANY: &[u8] = b"catch-all-test-";
    const EXIM: &[u8] = b"-testing";
    const TIME: usize = 9;
    if local_part.get(..ANY.len()).is_some_and(|start| start.eq_ignore_ascii_case(ANY)) {
        return Some(0..ANY.len());
    }
    let before = local_part.strip_suffix(EXIM)?;
    let digits = before.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    (digits >= TIME).then_some(before.len()..local_part.len())
}

/// Makes the names in one recording others than those in the next. Whoever has it can undo them: it is nowhere kept.
#[derive(Clone, Copy)]
pub struct Key(pub u128);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What stands for something that is not shown.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StandIn {
    /// A star: for people.
    Star,
    /// Something of the same length and build, so that whatever reads it finds what it would have found: for a
    /// recording. The same name has the same stand-in, and no other name has it.
    Pseudonym(Key),
    /// As many bytes, and nothing of what it was: for credentials in a recording.
    Blank,
}

impl StandIn {
    /// Stands for a name.
    pub(super) fn name(self, hidden: &[u8], shown: &mut Vec<u8>) {
        match self {
            Self::Star => shown.push(b'*'),
            Self::Pseudonym(key) => shown.extend(key.pseudonym(hidden)),
            // What is wrong with a line stays.
            Self::Blank => shown.extend(hidden.iter().map(|&byte| if byte.is_ascii_control() { byte } else { b'x' })),
        }
    }

    /// What stands for what may be a credential, or content.
    pub(super) fn for_secrets(self) -> Self {
        match self {
            Self::Star => Self::Star,
            Self::Pseudonym(_) | Self::Blank => Self::Blank,
        }
    }
}

impl Key {
    /// Letters become other letters of the same case, digits other digits, bytes beyond ASCII others of their kind; all
    /// else, which may be of meaning to a reader of mailboxes, stays. Each character is shifted by a keyed hash of those
    /// on one side of it, then of those on the other: so it depends on all of them, and two names never become one.
    fn pseudonym(self, name: &[u8]) -> Vec<u8> {
        let (local_part, domain) = name.split_at(name.iter().position(|&byte| byte == b'@').unwrap_or(name.len()));
        if ROLES.iter().any(|role| role.eq_ignore_ascii_case(local_part)) {
            return [local_part, &self.pseudonym_of_all(domain)].concat();
        }
        if let Some(Range { start, end }) = probe_mark(local_part) {
            let (before, behind) = (self.pseudonym_of_all(&name[..start]), self.pseudonym_of_all(&name[end..]));
            return [&before, &name[start..end], &behind].concat();
        }
        self.pseudonym_of_all(name)
    }

    fn pseudonym_of_all(self, name: &[u8]) -> Vec<u8> {
        let mut name = name.to_vec();
        for round in 0..4 {
            let mut hasher = DefaultHasher::new();
            hasher.write_u128(self.0);
            hasher.write_u8(round);
            hasher.write_usize(name.len());
            for step in 0..name.len() {
                let at = if round % 2 == 0 { step } else { name.len() - 1 - step };
                name[at] = shifted(name[at], other_digit(&name, at), hasher.finish());
                // `Bob` is to become what `bob` becomes, with another case.
                hasher.write_u8(name[at].to_ascii_lowercase());
            }
        }
        name
    }
}

/// The digit that would make `+40` or `%40` here, a written `@`. It stays where it is, and comes where it is not: so the rest
/// of a pair does not change what may stand here, and two names never become one.
fn other_digit(name: &[u8], at: usize) -> Option<u8> {
    let is_sign = |back: usize| at.checked_sub(back).is_some_and(|at| matches!(name[at], b'+' | b'%'));
    match (name.get(at + 1), at.checked_sub(1).map(|before| name[before])) {
        (Some(b'0'), _) if is_sign(1) => Some(b'4'),
        (_, Some(b'4')) if is_sign(2) => Some(b'0'),
        _ => None,
    }
}

/// Another byte of its kind; of a digit none but `fixed` becomes that.
fn shifted(byte: u8, fixed: Option<u8>, by: u64) -> u8 {
    let (first, count) = match byte {
        b'a'..=b'z' => (b'a', 26),
        b'A'..=b'Z' => (b'A', 26),
        b'0'..=b'9' => (b'0', 10),
        0x80.. => (0x80, 128),
        _ => return byte,
    };
    match fixed.filter(|_| byte.is_ascii_digit()) {
        Some(fixed) if fixed == byte => byte,
        Some(fixed) => {
            // The nine others, in a row.
            let place = u64::from(byte - first - u8::from(byte > fixed));
            let other = first + ((place + by % 9) % 9) as u8;
            other + u8::from(other >= fixed)
        }
        // Less than `count`, which is at most 128.
        None => first + ((u64::from(byte - first) + by % count) % count) as u8,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn pseudonym(name: &str) -> Vec<u8> {
        Key(7).pseudonym(name.as_bytes())
    }

    #[test]
    fn a_name_has_one_pseudonym_of_its_own_build() {
        assert_eq!(pseudonym("bob.smith+tag"), pseudonym("bob.smith+tag"));
        assert_ne!(pseudonym("bob.smith+tag"), b"bob.smith+tag");
        assert_ne!(pseudonym("bobmarker"), Key(8).pseudonym(b"bobmarker"));
        let kind = |byte: &u8| match byte {
            b'a'..=b'z' => b'a',
            b'A'..=b'Z' => b'A',
            b'0'..=b'9' => b'0',
            0x80.. => b'\xff',
            other => *other,
        };
        let name = "\"Bob 1>\\\"\"; bücher:x+40y%40z@a.example";
        let kinds = |bytes: &[u8]| bytes.iter().map(kind).collect::<Vec<_>>();
        assert_eq!(kinds(&pseudonym(name)), kinds(name.as_bytes()));
        assert!(pseudonym(name).windows(3).any(|part| part == b"+40"), "a written @ stays one");
        assert_eq!(pseudonym("bob").to_ascii_uppercase(), pseudonym("BOB"), "cases stay");
    }

    #[test]
    fn a_role_is_no_name() {
        assert_eq!(pseudonym("double-bounce"), b"double-bounce");
        let whole = pseudonym("Postmaster@x.example");
        assert!(whole.starts_with(b"Postmaster@") && !whole.ends_with(b"@x.example"), "{}", whole.escape_ascii());
        assert_ne!(pseudonym("postmasters"), b"postmasters");
        for (name, begin, end) in [
            ("catch-all-test-1700000000@y.example", "catch-all-test-", ""),
            ("mx.x.example-1700000000-testing", "", "-testing"),
        ] {
            let stand_in = String::from_utf8(pseudonym(name)).expect("ASCII");
            assert!(stand_in.starts_with(begin) && stand_in.ends_with(end) && stand_in != name, "{stand_in}");
        }
    }

    #[test]
    fn digits_behind_a_sign_are_hidden() {
        for sign in ["+", "%"] {
            let stand_ins: HashSet<_> = (0..100).map(|tag| pseudonym(&format!("bob{sign}{tag:02}1"))).collect();
            assert_eq!(stand_ins.len(), 100, "two names never become one");
            let makes_sign = |name: &[u8]| name[3..].starts_with(&[sign.as_bytes(), b"40"].concat());
            assert_eq!(stand_ins.iter().filter(|name| makes_sign(name)).count(), 1, "only of itself");
            assert!(makes_sign(&pseudonym(&format!("bob{sign}401"))));
        }
        // Of a hundred recordings few have the same two digits by chance.
        for name in [&b"bobm+42"[..], b"+4915112345678", b"a%20b", b"a+41", b"a+50"] {
            let signs = name.iter().position(|byte| matches!(byte, b'+' | b'%')).expect("one") + 1;
            let same = (0..100).filter(|&key| Key(key).pseudonym(name)[signs..signs + 2] == name[signs..signs + 2]);
            assert!(same.count() < 15, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn two_names_never_become_one() {
        let letters = || b'a'..=b'z';
        let names = letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| [a, b, c])));
        let pseudonyms: HashSet<_> = names.map(|name| Key(1).pseudonym(&name)).collect();
        assert_eq!(pseudonyms.len(), 26 * 26 * 26);
    }
}
