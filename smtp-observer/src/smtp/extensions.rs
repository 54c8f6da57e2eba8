//! What a server offers in its reply to EHLO (RFC 5321, 4.1.1.1).

/// What a server has offered that tells how its session is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    /// Commands may be sent before the reply to the one before (RFC 2920).
    pub(super) pipelining: bool,
    /// TLS may be started (RFC 3207).
    pub(super) starttls: bool,
}

impl Extensions {
    /// Reads a reply's text. Case does not matter.
    pub(super) fn parse(text: &[u8]) -> Self {
        let offers = |keyword: &[u8]| keywords(text).any(|word| word.eq_ignore_ascii_case(keyword));
        Self { pipelining: offers(b"PIPELINING"), starttls: offers(b"STARTTLS") }
    }
}

/// The first words of a reply's lines, of which the first greets. `AUTH=` is as old as AUTH.
pub(super) fn keywords(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = text.split(|&byte| byte == b'\n').skip(1);
    lines.filter_map(|line| line.split(|byte| b" \t=".contains(byte)).find(|word| !word.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_have_no_case() {
        let text = b"server.example\nSIZE 1000\npipelining\nStartTLS \nAUTH=PLAIN LOGIN\n8bitmime";
        assert_eq!(Extensions::parse(text), Extensions { pipelining: true, starttls: true });
        let words: [&[u8]; 5] = [b"SIZE", b"pipelining", b"StartTLS", b"AUTH", b"8bitmime"];
        assert!(keywords(text).eq(words));
    }

    #[test]
    fn the_first_line_is_no_keyword() {
        assert_eq!(Extensions::parse(b"PIPELINING"), Extensions::default());
        assert_eq!(Extensions::parse(b"server.example\nXPIPELINING\n"), Extensions::default());
    }
}
