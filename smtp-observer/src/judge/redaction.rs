//! How much of a dialogue is shown: mailboxes as far as the user allows, credentials and content never.

mod mailbox;
mod stand_in;
mod view;

use std::borrow::Cow;
use std::ops::Range;

pub use self::stand_in::Key;
use self::stand_in::StandIn;
pub(crate) use self::view::View;
use crate::smtp::{Command, Exchange, Peer, Reply, Verb, escape};

/// How much of a mailbox events show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize, serde::Serialize)]
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
    /// Of a recording alone.
    kept: Option<Box<Keeping>>,
}

/// What a recording may keep of the dialogue.
#[derive(Debug)]
struct Keeping {
    view: View,
    kept: Vec<Kept>,
}

/// Something said that a recording may keep. Of all else it keeps the shape.
#[derive(Debug)]
pub(crate) enum Kept {
    /// What the client said, with nothing in it that is not shown.
    Said {
        /// Where it begins, counted in bytes of the client.
        at: u64,
        /// As long as what was said.
        bytes: Vec<u8>,
        /// Credentials may follow in the same line.
        cut: bool,
    },
    /// What the server replied.
    Replied {
        /// Where it is, counted in bytes of the server.
        span: Range<u64>,
        /// How much of it is shown.
        how: Reveal,
    },
    /// What tells how to read on.
    Plain {
        /// Whose it is.
        peer: Peer,
        /// Where it begins, counted in bytes of the peer.
        at: u64,
        /// What may be kept of it, as long as it was.
        bytes: Vec<u8>,
    },
    /// A line of the server.
    Line {
        /// Where it is, counted in bytes of the server.
        span: Range<u64>,
        /// It was understood.
        read: bool,
    },
    /// What follows is said with the roles reversed.
    Reversed,
}

/// How much of a reply is shown.
#[derive(Debug)]
pub(crate) enum Reveal {
    /// Nothing but its codes.
    Codes,
    /// What it does not repeat of this command.
    ReplyTo(Box<Command>),
    /// All but mailboxes.
    Text,
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
        Self { addresses, suspicious: false, kept: None }
    }

    fn view(&self) -> View {
        View { addresses: self.addresses, stand_in: StandIn::Star }
    }

    /// From now on tells what a recording may keep.
    pub(super) fn keep(&mut self, view: View) {
        self.kept = Some(Box::new(Keeping { view, kept: Vec::new() }));
    }

    /// What a recording may keep of what was shown since the last time.
    pub(super) fn kept(&mut self) -> Vec<Kept> {
        self.kept.as_mut().map(|keeping| std::mem::take(&mut keeping.kept)).unwrap_or_default()
    }

    /// Something was not seen: AUTH or DATA may have been.
    pub(super) fn lost(&mut self) {
        self.suspicious = true;
    }

    /// Something that nobody is shown, which a recording may keep.
    pub(super) fn note(&mut self, kept: impl FnOnce() -> Kept) {
        if let Some(keeping) = &mut self.kept {
            keeping.kept.push(kept());
        }
    }

    /// A reply's text.
    pub(super) fn reply(&mut self, reply: &Reply) -> String {
        self.note(|| Kept::Replied { span: reply.span.clone(), how: Reveal::Text });
        self.text(&reply.text)
    }

    /// Shows an exchange.
    pub(super) fn exchange(&mut self, Exchange { command, reply }: &Exchange) -> Shown {
        let word = command.word().to_ascii_uppercase();
        let hidden = self.is_suspicious(command, &word, reply.as_deref());
        let hides_reply = reply.as_ref().is_some_and(|reply| {
            // The go-ahead of a message is shown with it, too.
            reply.code != 354
                && (hidden && repeats(command, reply) || self.view().hides_reply(command, reply.accepts()))
        });
        if let Some(Keeping { view, kept }) = self.kept.as_deref_mut() {
            let cut = command.verb.authenticates();
            kept.push(Kept::Said { at: command.at, bytes: view.line(command, hidden), cut });
            if let Some(reply) = reply {
                let how = match hides_reply {
                    true => Reveal::Codes,
                    false => Reveal::ReplyTo(command.clone()),
                };
                kept.push(Kept::Replied { span: reply.span.clone(), how });
            }
        }
        Shown {
            verb: match command.verb {
                Verb::Other if hidden => HIDDEN.into(),
                Verb::Other => self.text(&word).chars().take(LONGEST_VERB).collect(),
                verb => verb.as_str().into(),
            },
            argument: match command.argument() {
                [] => None,
                _ if hidden => Some(HIDDEN.into()),
                argument => Some(escape(&self.view().argument(command.verb, &word, argument))),
            },
            reply: reply.as_ref().map(|reply| match hides_reply {
                true => HIDDEN.into(),
                false => lines(&reply.text, |line| self.view().reply(command, line)),
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
        lines(text, |line| self.view().text(line))
    }

    /// MAIL's reverse-path, with its angle brackets.
    pub(super) fn reverse_path(&self, mail: &Command) -> Option<String> {
        self.view().reverse_path(mail).map(|path| format!("<{}>", escape(&path)))
    }
}

fn lines<'a>(text: &'a [u8], show: impl Fn(&'a [u8]) -> Cow<'a, [u8]>) -> String {
    let mut shown = String::with_capacity(text.len());
    for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
        if at > 0 {
            shown.push('\n');
        }
        shown.push_str(&escape(&show(line)));
    }
    shown
}

/// Servers repeat what they refuse, so what is hidden in the command is hidden in the reply. What they offer, and say to a
/// message, is their own text.
fn repeats(command: &Command, reply: &Reply) -> bool {
    match command.verb {
        Verb::Other => true,
        Verb::Data if matches!(reply.code / 100, 2 | 3) => false,
        Verb::Ehlo | Verb::Lhlo if reply.accepts() => false,
        Verb::Bdat if command.chunk().is_some() => false,
        _ => !command.argument().is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Time;

    fn shown(redaction: &mut Redaction, line: &str, code: u16, text: &str) -> Shown {
        let command = Command::new(line.as_bytes(), Time(0), Time(0));
        let text = text.as_bytes().to_vec();
        let reply = Reply { code, enhanced_code: None, text, span: 0..0, first_byte: Time(0), last_byte: Time(0) };
        redaction.exchange(&Exchange { command: command.into(), reply: Some(reply.into()) })
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
        check(
            Addresses::None,
            "RCPT TO:<bob@example.org>",
            (550, "5.1.1 User bob unknown, bobby, bob@example.org"),
            ("RCPT", Some("TO:<*>"), "5.1.1 User * unknown, bobby, *"),
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
