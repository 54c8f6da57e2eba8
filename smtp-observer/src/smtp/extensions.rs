//! What a server offers in its reply to EHLO (RFC 5321, 4.1.1.1).

macro_rules! keywords {
    ($($(#[$doc:meta])* $variant:ident => $text:literal,)*) => {
        /// The keywords that are told apart; case does not matter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Keyword { $($(#[$doc])* $variant,)* }

        impl Keyword {
            const ALL: &[(Self, &[u8])] = &[$((Self::$variant, $text.as_bytes()),)*];
        }
    };
}

keywords! {
    /// Commands may be sent before the reply to the one before (RFC 2920).
    Pipelining => "PIPELINING",
    /// TLS may be started (RFC 3207).
    StartTls => "STARTTLS",
    /// BDAT may be used (RFC 3030).
    Chunking => "CHUNKING",
    /// Content may be any octets (RFC 3030).
    BinaryMime => "BINARYMIME",
    /// Content may have octets above 127 (RFC 6152).
    EightBitMime => "8BITMIME",
    /// Addresses may be in UTF-8 (RFC 6531).
    SmtpUtf8 => "SMTPUTF8",
    /// The size of a message may be declared (RFC 1870).
    Size => "SIZE",
    /// Notifications may be asked for (RFC 3461).
    Dsn => "DSN",
    /// Replies have enhanced codes (RFC 2034).
    EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
    /// The client may log in (RFC 4954).
    Auth => "AUTH",
    /// Exchange's AUTH.
    XExps => "X-EXPS",
    /// Postfix: a proxy may name its client.
    XClient => "XCLIENT",
    /// Postfix: a filter may name its client.
    XForward => "XFORWARD",
    /// Exchange: counted blocks of octets.
    Xexch50 => "XEXCH50",
    /// The end of a message may have a reply for each recipient.
    Prdr => "PRDR",
    /// Limits are named (RFC 9422).
    Limits => "LIMITS",
}

/// The keywords that a server has offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions(u32);

impl Extensions {
    /// Whether a keyword is among them.
    pub fn offer(self, keyword: Keyword) -> bool {
        self.0 & 1 << keyword as u32 != 0
    }

    /// Reads a reply's text.
    pub(super) fn parse(text: &[u8]) -> Self {
        let known = keywords(text).filter_map(|word| {
            Keyword::ALL.iter().find(|(_, text)| text.eq_ignore_ascii_case(word)).map(|&(keyword, _)| keyword)
        });
        Self(known.fold(0, |offered, keyword| offered | 1 << keyword as u32))
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
        let offered = Extensions::parse(text);
        use Keyword::*;
        for (keyword, _) in Keyword::ALL {
            let is_offered = matches!(keyword, Size | Pipelining | StartTls | Auth | EightBitMime);
            assert_eq!(offered.offer(*keyword), is_offered, "{keyword:?}");
        }
    }

    #[test]
    fn every_keyword_has_a_place() {
        for (keyword, text) in Keyword::ALL {
            let offered = Extensions::parse(&[b"x\n", *text].concat());
            assert_eq!(offered, Extensions(1 << *keyword as u32));
        }
    }

    #[test]
    fn the_first_line_is_no_keyword() {
        assert_eq!(Extensions::parse(b"PIPELINING"), Extensions::default());
        assert_eq!(Extensions::parse(b"server.example\nXPIPELINING\n"), Extensions::default());
    }
}
