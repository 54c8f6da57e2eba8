//! Classes of bytes that the forms of commands and replies are made of.

use super::scan::{EACH, zeros};

/// Space and tab.
pub const BLANK: u8 = 1;
/// Of a domain or an address literal (RFC 5321, 4.1.2 and 4.1.3; RFC 6531 for the bytes above ASCII), or of a queue's name
/// (RFC 1985).
pub const DOMAIN: u8 = 2;
/// Of the name of a SASL mechanism (RFC 4422, 3.1).
pub const MECHANISM: u8 = 4;
/// Printable, `<` and `>` and blanks excepted: of a path or a parameter (RFC 5321, 4.1.2).
pub const PATH: u8 = 8;
/// Printable.
pub const PRINTABLE: u8 = 16;
/// `@`, `#` and the like before a domain (RFC 1985, 5.1).
pub const SIGN: u8 = 32;

/// CR: servers forgive more than one at a line's end (Postfix strips them).
pub const CR: u8 = 64;

/// The classes of each byte.
pub static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let it = byte as u8;
        let mut of = 0;
        if it == b' ' || it == b'\t' {
            of |= BLANK | PRINTABLE;
        }
        if it.is_ascii_alphanumeric() || it >= 0x80 || matches!(it, b'.' | b'-' | b'_' | b':' | b'[' | b']') {
            of |= DOMAIN;
        }
        if it.is_ascii_alphanumeric() || it == b'-' || it == b'_' {
            of |= MECHANISM;
        }
        if it.is_ascii_graphic() || it >= 0x80 {
            of |= PRINTABLE;
            if it != b'<' && it != b'>' {
                of |= PATH;
            }
        }
        if matches!(it, b'@' | b'#') {
            of |= SIGN;
        }
        if it == b'\r' {
            of |= CR;
        }
        classes[byte] = of;
        byte += 1;
    }
    classes
};

/// The highest bit of each byte of a word that is not of [`PATH`].
#[inline(always)]
pub fn not_of_path(word: u64) -> u64 {
    const LOW: u64 = 0x7f * EACH;
    const HIGH: u64 = 0x80 * EACH;
    const BEFORE_PRINTABLE: u64 = b' ' as u64;
    const DELETE: u64 = 0x7f * EACH;
    // `<` and `>` differ in one bit.
    const BRACKETS: u64 = b'>' as u64 * EACH;
    const BRACKET: u64 = (b'<' ^ b'>') as u64 * EACH;
    let printable = (word & LOW) + (0x7f - BEFORE_PRINTABLE) * EACH;
    let control = !(printable | word) & HIGH;
    control | zeros(word ^ DELETE) | zeros((word | BRACKET) ^ BRACKETS)
}
