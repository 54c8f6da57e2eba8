//! A line of the client, read as a command.

use std::ops::Range;

use smtp_ebpf::protocol::MECHANISMS;

use super::line::Line;
use crate::event::Time;

macro_rules! verbs {
    ($($(#[$doc:meta])* $variant:ident => $text:literal,)*) => {
        /// The verbs that are told apart; case does not matter (RFC 5321, 2.4).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum Verb {
            $($(#[$doc])* $variant,)*
            /// Anything else; the command's line has it.
            #[default]
            Other,
        }

        impl Verb {
            /// All of them, each at the place of its number.
            pub const ALL: &[Self] = &[$(Self::$variant,)* Self::Other];

            #[cfg(test)]
            const KNOWN: &[(Self, &[u8])] = &[$((Self::$variant, $text.as_bytes()),)*];

            /// The only verb that may begin like that.
            #[expect(non_upper_case_globals, reason = "they are named like the variants")]
            fn beginning(start: u32) -> Self {
                $(const $variant: u32 = folded($text.as_bytes());)*
                match start { $($variant => Self::$variant,)* _ => Self::Other }
            }

            /// The verb in upper case; empty for [`Verb::Other`].
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* Self::Other => "" }
            }
        }
    };
}

verbs! {
    /// RFC 5321, 4.1.1.1.
    Ehlo => "EHLO",
    /// RFC 5321, 4.1.1.1.
    Helo => "HELO",
    /// RFC 2033, 4.1.
    Lhlo => "LHLO",
    /// RFC 5321, 4.1.1.2.
    Mail => "MAIL",
    /// RFC 5321, 4.1.1.3.
    Rcpt => "RCPT",
    /// RFC 5321, 4.1.1.4.
    Data => "DATA",
    /// RFC 3030, 2.
    Bdat => "BDAT",
    /// RFC 5321, 4.1.1.5.
    Rset => "RSET",
    /// RFC 5321, 4.1.1.6.
    Vrfy => "VRFY",
    /// RFC 5321, 4.1.1.7.
    Expn => "EXPN",
    /// RFC 5321, 4.1.1.8.
    Help => "HELP",
    /// RFC 5321, 4.1.1.9.
    Noop => "NOOP",
    /// RFC 5321, 4.1.1.10.
    Quit => "QUIT",
    /// RFC 4954, 4.
    Auth => "AUTH",
    /// Exchange's AUTH.
    XExps => "X-EXPS",
    /// RFC 3207, 4.
    StartTls => "STARTTLS",
    /// Exchange's STARTTLS.
    XAnonymousTls => "X-ANONYMOUSTLS",
    /// RFC 4468, 3.
    Burl => "BURL",
    /// RFC 1985, 5.
    Etrn => "ETRN",
    /// RFC 2645, 5.2.
    Atrn => "ATRN",
    /// RFC 821, 3.8.
    Turn => "TURN",
    /// RFC 821, 3.4.
    Send => "SEND",
    /// RFC 821, 3.4.
    Soml => "SOML",
    /// RFC 821, 3.4.
    Saml => "SAML",
    /// Postfix: the client of a proxy.
    XClient => "XCLIENT",
    /// Postfix: the client of a filter.
    XForward => "XFORWARD",
    /// Exchange: a counted block of octets.
    Xexch50 => "XEXCH50",
}

impl Verb {
    /// The verb of a line.
    pub(super) fn of_line(line: &[u8]) -> Self {
        Self::parse(&line[verb_range(line)])
    }

    /// The verb that a word is.
    pub fn parse(word: &[u8]) -> Self {
        let verb = Self::beginning(folded(word));
        if verb.as_str().as_bytes().eq_ignore_ascii_case(word) { verb } else { Self::Other }
    }

    /// Names a sender: MAIL, and RFC 821's other three.
    pub fn opens_transaction(self) -> bool {
        matches!(self, Self::Mail | Self::Send | Self::Soml | Self::Saml)
    }

    /// The client's next lines may be credentials, if the server asks for them.
    pub(crate) fn authenticates(self) -> bool {
        matches!(self, Self::Auth | Self::XExps)
    }

    /// A 220 to it starts TLS.
    pub(super) fn starts_tls(self) -> bool {
        matches!(self, Self::StartTls | Self::XAnonymousTls)
    }

    /// What the client sends next can only be read when the reply is known.
    pub(crate) fn decides_what_follows(self) -> bool {
        self.authenticates()
            || self.starts_tls()
            || matches!(self, Self::Data | Self::Xexch50 | Self::Atrn | Self::Turn)
    }
}

/// What an SSH client's first line begins with (RFC 4253, 4.2).
const SSH: &[u8] = b"SSH-";

/// Whether this is the first word of another protocol, as it is told.
pub(crate) fn is_foreign(word: &[u8]) -> bool {
    // Postfix takes no session that begins with one of the first three.
    const WORDS: &[&[u8]] = &[b"GET", b"POST", b"CONNECT", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PRI"];
    WORDS.iter().any(|one| one.eq_ignore_ascii_case(word)) || word == SSH
}

/// A command line. An empty line is one as well: servers answer it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Command {
    /// Its verb.
    pub verb: Verb,
    /// The line as sent, without its end, at most [`LONGEST_LINE`](super::LONGEST_LINE) bytes, up to the first byte that
    /// stayed in the kernel. Of AUTH, nothing behind the mechanism is kept, nor a mechanism that is not known.
    pub line: Vec<u8>,
    /// Bytes of the line as it was sent, without its end.
    pub length: u64,
    /// Bytes of the line stayed in the kernel.
    pub withheld: bool,
    /// When its first byte was seen.
    pub first_byte: Time,
    /// When its last byte was seen; of BDAT, the last byte of the chunk, where it came before the reply.
    pub last_byte: Time,
    /// It was sent before the reply to the command before it (RFC 2920).
    pub pipelined: bool,
}

/// The word that ends a message (RFC 4468, 3.1), with the blank before it.
const LAST: &[u8] = b" LAST";

fn ends_with_last(line: &[u8]) -> bool {
    line.len().checked_sub(LAST.len()).is_some_and(|start| line[start..].eq_ignore_ascii_case(LAST))
}

impl Command {
    /// An empty one, with room for so many bytes of a line.
    pub(super) fn with_room(room: usize) -> Self {
        Self { line: Vec::with_capacity(room), ..Self::default() }
    }

    /// Reads a line, in place of what was here. Credentials behind AUTH are dropped.
    pub(super) fn read(&mut self, line: &Line<'_>, first_byte: Time, last_byte: Time) {
        let (length, withheld, whole, line) = (line.length, line.is_withheld(), line.bytes, line.said());
        let word = verb_range(line);
        let verb = Verb::parse(&line[word.clone()]);
        let kept = match verb.authenticates() {
            true => without_credentials(line, word.end),
            false => line,
        };
        self.line.clear();
        self.line.extend_from_slice(kept);
        // Of BURL's argument the last word crosses, too.
        if verb == Verb::Burl && withheld && ends_with_last(whole) {
            self.line.extend_from_slice(LAST);
        }
        let line = std::mem::take(&mut self.line);
        *self = Self { verb, line, length, withheld, first_byte, last_byte, ..Self::default() };
    }

    /// A line alone.
    pub(crate) fn new(line: &[u8], first_byte: Time, last_byte: Time) -> Self {
        let mut command = Self::with_room(line.len());
        let length = line.len() as u64;
        command.read(&Line { bytes: line, length, crossed: length, ..Line::default() }, first_byte, last_byte);
        command
    }

    /// The verb as sent; empty for an empty line.
    pub fn word(&self) -> &[u8] {
        &self.line[verb_range(&self.line)]
    }

    /// What follows the verb, without the blanks around it.
    pub fn argument(&self) -> &[u8] {
        self.line[verb_range(&self.line).end..].trim_ascii()
    }

    /// The first word of another protocol, if it is one that is told: the kernel lets no other unknown word cross.
    pub(crate) fn foreign_word(&self) -> Option<&[u8]> {
        let word = self.word();
        // What follows `SSH-` names a client, or is anything.
        let shown = if word.starts_with(SSH) { SSH } else { word };
        is_foreign(shown).then_some(shown)
    }

    /// More was said than the line has: it stayed in the kernel, or is not kept.
    pub(crate) fn is_cut(&self) -> bool {
        self.length > self.line.len() as u64
    }

    /// BDAT's argument (RFC 3030, 2): the chunk's octets, and whether it is the last. Absent where it is malformed;
    /// then no octets follow.
    pub(crate) fn chunk(&self) -> Option<(u64, bool)> {
        let mut words = self.argument().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let size = number(words.next()?)?;
        match (words.next(), words.next()) {
            (None, _) => Some((size, false)),
            (Some(last), None) if last.eq_ignore_ascii_case(b"LAST") => Some((size, true)),
            _ => None,
        }
    }

    /// BDAT announces the last chunk of a message.
    pub fn is_last_chunk(&self) -> bool {
        self.verb == Verb::Bdat && self.chunk().is_some_and(|(_, last)| last)
    }

    /// XEXCH50's first argument: the octets that follow a 354.
    pub(super) fn octets(&self) -> Option<u64> {
        number(self.argument().split(u8::is_ascii_whitespace).next()?)
    }
}

/// The first four bytes, in which letters have no case; no verb is shorter, and no two of them begin alike.
const fn folded(word: &[u8]) -> u32 {
    match word.first_chunk() {
        Some(start) => u32::from_be_bytes(*start) & u32::from_be_bytes(*b"\xdf\xdf\xdf\xdf"),
        None => 0,
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    // `parse` alone would take a sign.
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// A line may end with more than one CR, as Postfix has it; its flaw is told.
fn verb_range(line: &[u8]) -> Range<usize> {
    let end = line.iter().rposition(|&byte| byte != b'\r').map_or(0, |last| last + 1);
    let start = line[..end].iter().position(|byte| !is_blank(byte)).unwrap_or(end);
    let length = line[start..end].iter().position(is_blank).unwrap_or(end - start);
    start..start + length
}

/// AUTH with its mechanism, if it is a known one. `verb_end`: where the verb ends.
fn without_credentials(line: &[u8], verb_end: usize) -> &[u8] {
    let mechanism = verb_range(&line[verb_end..]);
    match &line[verb_end..][mechanism.clone()] {
        b"" => line,
        word if is_mechanism(word) => &line[..verb_end + mechanism.end],
        _ => &line[..verb_end],
    }
}

/// Whether a word is the name of a SASL mechanism; case does not matter (RFC 4422, 3.1 has upper case, servers take both).
/// Other words behind AUTH are not kept: they may be credentials.
fn is_mechanism(word: &[u8]) -> bool {
    MECHANISMS.iter().any(|name| name.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &[u8]) -> Command {
        Command::new(line, Time(1), Time(2))
    }

    #[test]
    fn verbs_have_no_case_and_may_be_indented() {
        for line in ["MAIL FROM:<a@b.example>", "mail FROM:<a@b.example>", " \tMail  FROM:<a@b.example>  "] {
            let command = command(line.as_bytes());
            assert_eq!(command.verb, Verb::Mail);
            assert_eq!(command.argument(), b"FROM:<a@b.example>");
            assert_eq!(command.line, line.as_bytes());
        }
    }

    #[test]
    fn every_known_verb_reads_back() {
        for (verb, text) in Verb::KNOWN {
            assert_eq!(Verb::parse(text), *verb);
            assert_eq!(verb.as_str().as_bytes(), *text);
        }
    }

    #[test]
    fn carriage_returns_at_the_end_are_of_no_verb() {
        for (line, verb, argument) in [
            (&b"DATA\r"[..], Verb::Data, &b""[..]),
            (b"RSET\r\r", Verb::Rset, b""),
            (b"BDAT 5 LAST\r", Verb::Bdat, b"5 LAST"),
            (b"NO\rOP", Verb::Other, b""),
            (b"\r", Verb::Other, b""),
        ] {
            let command = command(line);
            assert_eq!((command.verb, command.argument()), (verb, argument));
            assert_eq!(command.line, line);
        }
    }

    #[test]
    fn what_is_no_verb() {
        for line in [&b""[..], b"   ", b"MAILFROM:<a@b.example>", b"DATA.", b"\xff\xfe\0"] {
            assert_eq!(command(line).verb, Verb::Other);
        }
        assert_eq!(command(b"XFOO bar").word(), b"XFOO");
        assert_eq!(command(b"   ").word(), b"");
        assert_eq!(command(b"   ").argument(), b"");
    }

    #[test]
    fn credentials_are_not_kept() {
        assert_eq!(command(b"AUTH PLAIN AGJvYgBzZWNyZXQ=").line, b"AUTH PLAIN");
        assert_eq!(command(b" auth\t LOGIN  Ym9i  extra").line, b" auth\t LOGIN");
        for line in ["AUTH AGJvYgBzZWNyZXQ=", "AUTH hunter2 PLAIN", "auth =", "AUTH PLAINhunter2", "AUTH hunter2"] {
            let command = command(line.as_bytes());
            assert_eq!((&command.line[..], command.is_cut()), (&line.as_bytes()[..4], true), "{line}");
        }
        assert!(!command(b"AUTH").is_cut() && !command(b"AUTH \r").is_cut());
        assert_eq!(command(b"X-EXPS GSSAPI YII=").line, b"X-EXPS GSSAPI");
        assert_eq!(command(b"AUTH").line, b"AUTH");
        assert_eq!(command(b"AUTH PLAIN AGJvYg==").argument(), b"PLAIN");
    }

    #[test]
    fn a_credential_is_no_mechanism() {
        assert!(is_mechanism(b"PLAIN") && is_mechanism(b"xoauth2") && is_mechanism(b"SCRAM-SHA-256-PLUS"));
        for word in ["AGJvYgBodW50ZXIy", "hunter2", "PLAIN=", "PLAINhunter2", "PLAI", "=", ""] {
            assert!(!is_mechanism(word.as_bytes()), "{word}");
        }
    }

    #[test]
    fn chunks() {
        assert_eq!(command(b"BDAT 86").chunk(), Some((86, false)));
        assert_eq!(command(b"bdat 0 last").chunk(), Some((0, true)));
        assert_eq!(command(b"BDAT  12   LAST  ").chunk(), Some((12, true)));
        for bad in ["BDAT", "BDAT LAST", "BDAT -1", "BDAT +1", "BDAT 1x", "BDAT 1 FIRST", "BDAT 1 LAST x"] {
            assert_eq!(command(bad.as_bytes()).chunk(), None, "{bad}");
        }
        assert_eq!(command(b"BDAT 18446744073709551616 LAST").chunk(), None);
    }
}
