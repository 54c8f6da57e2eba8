//! What of the argument of MAIL and RCPT (RFC 5321, 4.1.2) can name no mailbox: its keyword, the path's domain, and some
//! parameters; and which attributes of XCLIENT and XFORWARD name no user.

use memchr::{memchr, memchr2};

/// Their values are numbers, times and the words below.
const PLAIN: [&str; 12] = [
    "SIZE",
    "BODY",
    "SMTPUTF8",
    "RET",
    "NOTIFY",
    "BY",
    "MT-PRIORITY",
    "HOLDFOR",
    "HOLDUNTIL",
    "REQUIRETLS",
    "RRVS",
    "CONPERM",
];

/// Words that are such a value, or a part of one.
const WORDS: [&str; 14] = [
    "7BIT",
    "8BITMIME",
    "BINARYMIME",
    "FULL",
    "HDRS",
    "NEVER",
    "SUCCESS",
    "FAILURE",
    "DELAY",
    "R",
    "RT",
    "N",
    "NT",
    "C",
];

/// Their values may name a mailbox, or anything.
const OTHERS: [&str; 12] = [
    "AUTH",
    "ENVID",
    "ORCPT",
    "SUBMITTER",
    "MTRK",
    "TRANSID",
    "SOLICIT",
    "ALT-ADDRESS",
    "XRCPTFORWARD",
    "XORCPT",
    "XOORG",
    "XVERP",
];

/// Whether this stands before the path.
pub(crate) fn is_keyword(word: &[u8]) -> bool {
    is_one_of(word.trim_ascii_end(), &["FROM", "TO"])
}

/// Whether this behind a mailbox's `@` is a domain or an address in brackets and nothing more.
pub(crate) fn is_domain(text: &[u8]) -> bool {
    domain_length(text) == text.len()
}

/// Bytes of the domain, or of the address in brackets, that a text begins with.
pub(crate) fn domain_length(text: &[u8]) -> usize {
    let is_of_label = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.".contains(byte) || *byte >= 0x80;
    match text.strip_prefix(b"[") {
        Some(literal) => {
            let length = literal.iter().take_while(|byte| is_of_label(byte) || **byte == b':').count();
            if literal.get(length) == Some(&b']') { length + 2 } else { 0 }
        }
        None => text.iter().take_while(|byte| is_of_label(byte)).count(),
    }
}

/// How many bytes of a parameter name no mailbox, whatever the rest does: all, its keyword with the sign behind it, or none.
pub(crate) fn plain_bytes(parameter: &[u8]) -> usize {
    let end = parameter.iter().position(|&byte| byte == b'=').map_or(parameter.len(), |at| at + 1);
    let (key, value) = parameter.split_at(end);
    let key = key.strip_suffix(b"=").unwrap_or(key);
    match is_one_of(key, &PLAIN) {
        true if value.split(|byte| matches!(byte, b',' | b';')).all(is_plain) => parameter.len(),
        false if !is_one_of(key, &OTHERS) => 0,
        _ => end,
    }
}

/// An attribute of XCLIENT or XFORWARD: its name with the sign behind it, and its value.
pub(crate) fn attribute(word: &[u8]) -> (&[u8], &[u8]) {
    word.split_at(memchr(b'=', word).map_or(0, |at| at + 1))
}

/// Whether this names an attribute of a client's host or connection. All others may tell who the client is.
pub(crate) fn names_host(key: &[u8]) -> bool {
    const KEYS: [&[u8]; 12] = [
        b"NAME=",
        b"ADDR=",
        b"PORT=",
        b"PROTO=",
        b"HELO=",
        b"IDENT=",
        b"SOURCE=",
        b"DESTADDR=",
        b"DESTPORT=",
        b"SESSION=",
        b"TTL=",
        b"TIMEOUT=",
    ];
    KEYS.iter().any(|known| known.eq_ignore_ascii_case(key))
}

/// What a value stands for: `+2B` for a byte (xtext of RFC 3461, 4), `\x{E9}` for a character (RFC 6533, 3). None where all
/// stands for itself.
pub(super) fn decoded(value: &[u8]) -> Option<Vec<u8>> {
    memchr2(b'+', b'\\', value)?;
    let (mut plain, mut rest) = (Vec::with_capacity(value.len()), value);
    while let Some((&first, behind)) = rest.split_first() {
        rest = match (coded_byte(rest), coded_character(rest)) {
            (Some(byte), _) => {
                plain.push(byte);
                &rest[3..]
            }
            (None, Some((character, length))) => {
                plain.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                &rest[length..]
            }
            (None, None) => {
                plain.push(first);
                behind
            }
        };
    }
    (plain != value).then_some(plain)
}

fn coded_byte(text: &[u8]) -> Option<u8> {
    u8::try_from(number(text.strip_prefix(b"+")?.get(..2)?)?).ok()
}

/// A character that is written as its number, and how long that is.
fn coded_character(text: &[u8]) -> Option<(char, usize)> {
    const MAX_DIGITS: usize = 6;
    const START: &[u8] = b"\\x{";
    let behind = text.strip_prefix(START)?;
    let digits = behind.iter().take(MAX_DIGITS + 1).position(|&byte| byte == b'}').filter(|&digits| digits > 0)?;
    Some((char::from_u32(number(&behind[..digits])?)?, START.len() + digits + 1))
}

/// A number in hexadecimal digits.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, &digit| Some(16 * number + char::from(digit).to_digit(16)?))
}

/// A number, a time, or one of the words; or nothing.
fn is_plain(value: &[u8]) -> bool {
    let is_of_number = |byte: &u8| byte.is_ascii_digit() || b"+-:.TZ".contains(byte);
    value.iter().all(is_of_number) || is_one_of(value, &WORDS)
}

pub(super) fn is_one_of(word: &[u8], words: &[&str]) -> bool {
    words.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_name_a_mailbox() {
        for parameter in [
            "SIZE=1000",
            "size=",
            "BODY=8BITMIME",
            "SMTPUTF8",
            "RET=HDRS",
            "NOTIFY=SUCCESS,failure",
            "BY=-120;RT",
            "MT-PRIORITY=-3",
            "HOLDUNTIL=2026-11-30T04:00:00Z",
            "RRVS=2014-04-03T23:01:00Z;C",
            "REQUIRETLS",
        ] {
            assert_eq!(plain_bytes(parameter.as_bytes()), parameter.len(), "{parameter}");
        }
        for (parameter, plain) in [
            ("ORCPT=rfc822;bob", "ORCPT="),
            ("auth=<>", "auth="),
            ("SUBMITTER=bob", "SUBMITTER="),
            ("SIZE=bob", "SIZE="),
            ("NOTIFY=NEVER,bob", "NOTIFY="),
            ("XRCPTFORWARD=Ym9i", "XRCPTFORWARD="),
            ("bob", ""),
            ("bob=1", ""),
            ("", ""),
        ] {
            assert_eq!(plain_bytes(parameter.as_bytes()), plain.len(), "{parameter}");
        }
    }

    #[test]
    fn what_a_value_stands_for() {
        for (value, plain) in [
            ("annm+2Btagm+40z.example", Some("annm+tagm@z.example")),
            ("e+3dtagm", Some("e=tagm")),
            ("\\x{61}nn\\x{1F600}+2B", Some("ann\u{1f600}+")),
            ("bob+tag", None),
            ("+2", None),
            ("+-1", None),
            ("\\x{}\\x{D800}\\x{1234567}\\x{61", None),
            ("bob", None),
        ] {
            assert_eq!(decoded(value.as_bytes()).as_deref(), plain.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn what_is_a_domain() {
        for domain in
            ["x.example", "b\u{fc}cher.example", "xn--bcher-kva.example.", "[192.0.2.1]", "[IPv6:2001:db8::1]", ""]
        {
            assert!(is_domain(domain.as_bytes()), "{domain}");
        }
        for other in
            ["x,bob", "x!bob", "x(bob)", "x bob", "x:bob", "x\tbob", "[x] bob", "[x", "x\"bob", "x%bob", "x>bob"]
        {
            assert!(!is_domain(other.as_bytes()), "{other}");
        }
    }
}
