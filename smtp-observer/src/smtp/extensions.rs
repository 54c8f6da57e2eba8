//! What a server offers in its reply to EHLO (RFC 5321, 4.1.1.1).

/// The offered extensions that change how a session is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Commands may be sent before the reply to the one before (RFC 2920).
    pub pipelining: bool,
    /// TLS may be started (RFC 3207).
    pub starttls: bool,
    /// BDAT may be used (RFC 3030).
    pub chunking: bool,
}

impl Extensions {
    /// Reads a reply's text: the first line greets, each other begins with a keyword.
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut extensions = Self::default();
        for line in text.split(|&byte| byte == b'\n').skip(1) {
            let keyword = line.split(|byte| b" \t=".contains(byte)).find(|word| !word.is_empty()).unwrap_or_default();
            if keyword.eq_ignore_ascii_case(b"PIPELINING") {
                extensions.pipelining = true;
            } else if keyword.eq_ignore_ascii_case(b"STARTTLS") {
                extensions.starttls = true;
            } else if keyword.eq_ignore_ascii_case(b"CHUNKING") {
                extensions.chunking = true;
            }
        }
        extensions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_have_no_case() {
        let text = b"server.example\nSIZE 1000\npipelining\nStartTLS \nAUTH=PLAIN LOGIN\nCHUNKING";
        assert_eq!(Extensions::parse(text), Extensions { pipelining: true, starttls: true, chunking: true });
    }

    #[test]
    fn the_first_line_is_no_keyword() {
        assert_eq!(Extensions::parse(b"PIPELINING"), Extensions::default());
        assert_eq!(Extensions::parse(b"server.example\nXPIPELINING\n"), Extensions::default());
    }
}
