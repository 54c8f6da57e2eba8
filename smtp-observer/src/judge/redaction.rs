//! How much of a dialogue is shown: mailboxes as far as the user allows, credentials and content never.

mod mailbox;

use self::mailbox::Mask;
use crate::smtp::{Command, Exchange, Reply, Verb, escape};

/// How much of a mailbox events show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addresses {
    /// All of it: `bob@example.org`.
    Full,
    /// Its domain: `*@example.org`.
    #[default]
    Domain,
    /// That there is one: `*`.
    None,
}

/// The mailbox that MAIL or RCPT names.
pub(super) fn mailbox(argument: &[u8]) -> Option<&[u8]> {
    Some(mailbox::Path::of(argument)?.mailbox)
}

/// Stands for what is not shown.
const HIDDEN: &str = "*";

/// Characters of an unknown verb that are shown.
const LONGEST_VERB: usize = 32;

/// Shows a session's commands and replies.
#[derive(Debug)]
pub(super) struct Redaction {
    addresses: Addresses,
    /// Lines that are no commands may be answers to AUTH, or the content of a message that was not wanted.
    suspicious: bool,
}

/// An exchange as it is shown.
#[derive(Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) verb: String,
    pub(super) argument: Option<String>,
    pub(super) reply: Option<String>,
}

impl Redaction {
    pub(super) fn new(addresses: Addresses) -> Self {
        Self { addresses, suspicious: false }
    }

    /// Something was not seen: AUTH or DATA may have been.
    pub(super) fn lost(&mut self) {
        self.suspicious = true;
    }

    /// Shows an exchange.
    pub(super) fn exchange(&mut self, Exchange { command, reply }: &Exchange) -> Shown {
        let word = command.word().to_ascii_uppercase();
        let hidden = self.is_suspicious(command, &word, reply.as_ref());
        let hides_reply = hidden && (command.verb == Verb::Other || !command.argument().is_empty());
        Shown {
            verb: match command.verb {
                Verb::Other if hidden => HIDDEN.into(),
                Verb::Other => self.text(&word).chars().take(LONGEST_VERB).collect(),
                verb => verb.as_str().into(),
            },
            argument: match command.argument() {
                [] => None,
                _ if hidden => Some(HIDDEN.into()),
                argument => Some(self.argument(command.verb, &word, argument)),
            },
            reply: reply.as_ref().map(|reply| match hides_reply {
                true => HIDDEN.into(),
                false => self.reply(command, reply),
            }),
        }
    }

    /// The line may be an answer to AUTH, or content.
    fn is_suspicious(&mut self, command: &Command, word: &[u8], reply: Option<&Reply>) -> bool {
        let suspicious = self.suspicious;
        match command.verb {
            Verb::Auth | Verb::XExps => {
                self.suspicious = true;
                false
            }
            _ if command.challenges > 0 => {
                self.suspicious = true;
                true
            }
            // A slip of the finger (`AUHT`, `AUTHPLAIN`) still has its credentials behind it.
            Verb::Other if word.starts_with(b"AU") => {
                self.suspicious = true;
                true
            }
            // Words that a line of text may begin with.
            Verb::Other | Verb::Help | Verb::Noop | Verb::Vrfy | Verb::Expn | Verb::Burl | Verb::Send | Verb::Turn => {
                suspicious
            }
            Verb::Data => {
                self.suspicious = suspicious || reply.is_none_or(|reply| reply.code / 100 != 3);
                suspicious
            }
            Verb::Rset | Verb::Quit => {
                self.suspicious &= !command.argument().is_empty();
                suspicious
            }
            _ => {
                self.suspicious = false;
                false
            }
        }
    }

    /// A text of one or more lines, with the mailboxes in it as far as they are shown.
    pub(super) fn text(&self, text: &[u8]) -> String {
        let mut shown = String::with_capacity(text.len());
        for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
            if at > 0 {
                shown.push('\n');
            }
            match self.mask() {
                Some(mask) if mailbox::may_hold(line) => shown.push_str(&escape(&mask.text(line))),
                _ => shown.push_str(&escape(line)),
            }
        }
        shown
    }

    /// MAIL's reverse-path, with its angle brackets.
    pub(super) fn reverse_path(&self, mail: &Command) -> Option<String> {
        let path = mailbox(mail.argument())?;
        let shown = match self.mask() {
            None => escape(path),
            Some(mask) => escape(&mask.mailbox(path)),
        };
        Some(format!("<{shown}>"))
    }

    fn mask(&self) -> Option<Mask> {
        match self.addresses {
            Addresses::Full => None,
            Addresses::Domain => Some(Mask { domain: true }),
            Addresses::None => Some(Mask { domain: false }),
        }
    }

    fn argument(&self, verb: Verb, word: &[u8], argument: &[u8]) -> String {
        match (verb, self.mask()) {
            (Verb::Auth | Verb::XExps, _) => {
                let mechanism = argument.split(u8::is_ascii_whitespace).next().unwrap_or_default();
                escape(mechanism)
            }
            (Verb::Other, Some(_)) => HIDDEN.into(),
            (Verb::Other, None) if may_hold_secrets(word) => HIDDEN.into(),
            (_, None) => escape(argument),
            (Verb::Mail | Verb::Rcpt | Verb::Send | Verb::Soml | Verb::Saml, Some(mask)) => {
                match mailbox::Path::of(argument) {
                    Some(path) => escape(&mask.path(&path)),
                    None => HIDDEN.into(),
                }
            }
            // A name may stand there without a domain.
            (Verb::Vrfy | Verb::Expn, Some(mask)) => match argument.contains(&b' ') || !argument.contains(&b'@') {
                true => HIDDEN.into(),
                false => escape(&mask.text(argument)),
            },
            (Verb::XClient | Verb::XForward, Some(mask)) => {
                let words = argument.split(u8::is_ascii_whitespace).map(|word| match word.split_at_checked(6) {
                    Some((key, _)) if key.eq_ignore_ascii_case(b"LOGIN=") => format!("LOGIN={HIDDEN}"),
                    _ => escape(&mask.text(word)),
                });
                words.collect::<Vec<_>>().join(" ")
            }
            (_, Some(mask)) => escape(&mask.text(argument)),
        }
    }

    /// A reply's text. Servers repeat what they refuse, so what is hidden in the command is hidden here.
    fn reply(&self, command: &Command, reply: &Reply) -> String {
        let Some(mask) = self.mask() else {
            return match command.verb {
                Verb::Other if may_hold_secrets(&command.word().to_ascii_uppercase()) => HIDDEN.into(),
                _ => self.text(&reply.text),
            };
        };
        match command.verb {
            // Names, and who is behind them.
            Verb::Vrfy | Verb::Expn if reply.accepts() => HIDDEN.into(),
            Verb::Vrfy | Verb::Expn => self.text(&mailbox::without(&reply.text, command.argument())),
            Verb::Other => self.text(&mailbox::without(&reply.text, command.argument())),
            Verb::Mail | Verb::Rcpt => match mailbox::Path::of(command.argument()) {
                Some(path) => self.text(&mailbox::without(&reply.text, mask.hidden_part(path.mailbox))),
                None => self.text(&mailbox::without(&reply.text, command.argument())),
            },
            _ => self.text(&reply.text),
        }
    }
}

/// Other protocols' words for credentials, spoken by a client on the wrong port.
fn may_hold_secrets(word: &[u8]) -> bool {
    const WORDS: &[&[u8]] = &[b"USER", b"PASS", b"APOP", b"LOGIN", b"A1", b"COOKIE:"];
    WORDS.contains(&word) || word.windows(4).any(|part| part == b"AUTH")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Time;

    fn shown(redaction: &mut Redaction, line: &str, code: u16, text: &str) -> Shown {
        let command = Command::new(line.as_bytes(), Time(0), Time(0));
        let text = text.as_bytes().to_vec();
        let reply = Reply { code, enhanced_code: None, text, first_byte: Time(0), last_byte: Time(0) };
        redaction.exchange(&Exchange { command, reply: Some(reply) })
    }

    #[track_caller]
    fn check(addresses: Addresses, line: &str, reply: (u16, &str), expected: (&str, Option<&str>, &str)) {
        let shown = shown(&mut Redaction::new(addresses), line, reply.0, reply.1);
        assert_eq!(
            (shown.verb.as_str(), shown.argument.as_deref(), shown.reply.as_deref()),
            (expected.0, expected.1, Some(expected.2))
        );
    }

    #[test]
    fn envelopes() {
        let line = "mail FROM:<bob@example.org> SIZE=1000 AUTH=bob+40example.org";
        let reply = (250, "2.1.0 <bob@example.org>... Sender ok");
        check(
            Addresses::Full,
            line,
            reply,
            (
                "MAIL",
                Some("FROM:<bob@example.org> SIZE=1000 AUTH=bob+40example.org"),
                "2.1.0 <bob@example.org>... Sender ok",
            ),
        );
        check(
            Addresses::Domain,
            line,
            reply,
            ("MAIL", Some("FROM:<*@example.org> SIZE=1000 AUTH=*"), "2.1.0 <*@example.org>... Sender ok"),
        );
        check(Addresses::None, line, reply, ("MAIL", Some("FROM:<*> SIZE=1000 AUTH=*"), "2.1.0 <*>... Sender ok"));
    }

    #[test]
    fn odd_envelopes() {
        for (line, argument) in [
            ("MAIL FROM:<>", "FROM:<>"),
            ("RCPT TO:<postmaster>", "TO:<*>"),
            ("RCPT TO:bob@example.org NOTIFY=NEVER", "TO:*@example.org NOTIFY=NEVER"),
            ("RCPT to: <\"bob > smith\"@example.org> ORCPT=rfc822;b", "to: <*@example.org> ORCPT=*"),
            ("RCPT TO:<@relay.example,@b.example:bob@example.org>", "TO:<*@example.org>"),
            ("RCPT TO:<bob", "TO:<*"),
            ("RCPT bob", "*"),
            ("RCPT bob smith:x", "*"),
        ] {
            check(Addresses::Domain, line, (250, "ok"), (&line[..4], Some(argument), "ok"));
        }
    }

    #[test]
    fn a_name_that_the_server_repeats() {
        check(
            Addresses::Domain,
            "RCPT TO:<bob@example.org>",
            (550, "5.1.1 User bob unknown, bobby"),
            ("RCPT", Some("TO:<*@example.org>"), "5.1.1 User * unknown, bobby"),
        );
        check(
            Addresses::None,
            "RCPT TO:<bob@example.org>",
            (550, "5.1.1 bob@example.org unknown"),
            ("RCPT", Some("TO:<*>"), "5.1.1 * unknown"),
        );
        check(Addresses::Domain, "VRFY bob", (252, "2.0.0 Bob Smith"), ("VRFY", Some("*"), "*"));
        check(Addresses::Domain, "VRFY bob", (550, "bob: no such user"), ("VRFY", Some("*"), "*: no such user"));
        check(Addresses::Full, "VRFY bob", (252, "2.0.0 bob"), ("VRFY", Some("bob"), "2.0.0 bob"));
    }

    #[test]
    fn credentials_are_shown_to_nobody() {
        for addresses in [Addresses::Full, Addresses::Domain, Addresses::None] {
            check(addresses, "AUTH PLAIN AGJvYgBzZWNyZXQ=", (235, "ok"), ("AUTH", Some("PLAIN"), "ok"));
            check(addresses, "AUTHPLAIN AGJvYgBz", (500, "AGJvYgBz?"), ("*", Some("*"), "*"));
            let mut redaction = Redaction::new(addresses);
            shown(&mut redaction, "AUTH LOGIN", 503, "not now");
            let answer = shown(&mut redaction, "c2VjcmV0 x", 500, "c2VjcmV0?");
            assert_eq!(answer, Shown { verb: "*".into(), argument: Some("*".into()), reply: Some("*".into()) });
            shown(&mut redaction, "RSET", 250, "ok");
            assert_eq!(shown(&mut redaction, "XFOO", 500, "what").verb, "XFOO");
        }
        check(Addresses::Full, "PASS secret", (500, "PASS secret?"), ("PASS", Some("*"), "*"));
    }

    #[test]
    fn content_that_was_not_wanted_is_not_shown() {
        let mut redaction = Redaction::new(Addresses::Full);
        shown(&mut redaction, "DATA", 554, "no");
        for line in ["Dear Bob,", "help me", "."] {
            let shown = shown(&mut redaction, line, 500, "what");
            assert!(shown.argument.is_none_or(|argument| argument == "*"), "{line}");
            assert_eq!(shown.reply.as_deref(), Some("*"));
        }
    }

    #[test]
    fn unknown_verbs() {
        check(Addresses::Domain, "xfoo bob", (500, "\"bob\"?"), ("XFOO", Some("*"), "\"*\"?"));
        check(Addresses::Full, "xfoo bar\u{7}", (500, "what"), ("XFOO", Some("bar\\u{7}"), "what"));
        check(Addresses::Domain, "bob@example.org", (500, "what"), ("*@EXAMPLE.ORG", None, "what"));
        check(Addresses::Domain, &"y".repeat(500), (500, "what"), (&"Y".repeat(32), None, "what"));
        check(Addresses::Domain, "", (500, "what"), ("", None, "what"));
    }

    #[test]
    fn proxies_name_logins() {
        check(
            Addresses::Domain,
            "XCLIENT NAME=a.example LOGIN=bob",
            (220, "ok"),
            ("XCLIENT", Some("NAME=a.example LOGIN=*"), "ok"),
        );
    }
}
