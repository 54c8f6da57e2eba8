//! The path that MAIL and RCPT name.

use memchr::{memchr, memchr2};

use super::parameter::is_keyword;

/// The argument of MAIL or RCPT (RFC 5321, 4.1.2), leniently.
#[derive(Debug, PartialEq)]
pub(crate) struct Path<'a> {
    /// Up to the path: `FROM:<`.
    pub(crate) before: &'a [u8],
    /// What stands in the angle brackets, or without them.
    pub(crate) mailbox: &'a [u8],
    /// From the closing bracket on.
    pub(crate) after: &'a [u8],
}

impl<'a> Path<'a> {
    /// Finds the path behind `FROM:` or `TO:`.
    pub(crate) fn of(argument: &'a [u8]) -> Option<Self> {
        let colon = memchr(b':', argument).filter(|&colon| is_keyword(&argument[..colon]))?;
        Some(Self::behind(argument, colon + 1))
    }

    /// The same, and where neither stands there, what may be a path all the same.
    pub(super) fn leniently(argument: &'a [u8]) -> Self {
        Self::of(argument).unwrap_or_else(|| Self::behind(argument, 0))
    }

    fn behind(argument: &'a [u8], place: usize) -> Self {
        let start = place + argument[place..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let (start, end) = match argument.get(start) {
            Some(b'<') => (start + 1, start + 1 + mailbox_length(&argument[start + 1..], |byte| byte == b'>')),
            _ => (start, start + mailbox_length(&argument[start..], |byte| byte.is_ascii_whitespace())),
        };
        Self { before: &argument[..start], mailbox: &argument[start..end], after: &argument[end..] }
    }
}

/// Bytes up to one that ends the mailbox and is not in quotes.
pub(crate) fn mailbox_length(bytes: &[u8], ends: impl Fn(u8) -> bool) -> usize {
    let end = bytes.iter().position(|&byte| ends(byte)).unwrap_or(bytes.len());
    // Nearly all.
    if memchr2(b'"', b'\\', &bytes[..end]).is_none() {
        return end;
    }
    let mut quoted = false;
    let mut escaped = false;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ if !quoted && ends(byte) => return at,
            _ => {}
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let path = |argument: &'static str| {
            Path::of(argument.as_bytes()).map(|path| str::from_utf8(path.mailbox).expect("text"))
        };
        assert_eq!(path("FROM:<a@b.example> SIZE=1"), Some("a@b.example"));
        assert_eq!(path("FROM: <a@b.example>"), Some("a@b.example"));
        assert_eq!(path("FROM:a@b.example SIZE=1"), Some("a@b.example"));
        assert_eq!(path("FROM:<>"), Some(""));
        assert_eq!(path("FROM:"), Some(""));
        assert_eq!(path("TO:<\"a\\\" >\"@b.example>"), Some("\"a\\\" >\"@b.example"));
        assert_eq!(path("FROM"), None);
        assert_eq!(path("a b:c"), None);
    }
}
