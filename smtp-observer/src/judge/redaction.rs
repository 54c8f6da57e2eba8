//! How much of a dialogue is shown: mailboxes as far as the user allows, credentials and content never.

mod mailbox;
mod stand_in;
mod view;

use std::borrow::Cow;
use std::ops::Range;

pub use self::stand_in::Key;
use self::stand_in::StandIn;
pub(crate) use self::view::View;
use crate::smtp::{Command, Exchange, Reply, Verb, escape};

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

/// What is shown where a verb is not known.
const UNKNOWN: &str = "other";

/// Shows a session's commands and replies.
#[derive(Debug)]
pub(super) struct Redaction {
    addresses: Addresses,
    /// Of a recording alone.
    kept: Option<Box<Notes>>,
}

/// What a recording is told.
#[derive(Debug, Default)]
struct Notes(Vec<Kept>);

/// Something said of which a recording is told how much it may keep.
#[derive(Debug)]
pub(crate) enum Kept {
    /// What the server replied.
    Replied {
        /// Where it is, counted in bytes of the server.
        span: Range<u64>,
        /// How much of it is shown.
        how: Reveal,
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
    pub(super) length: Option<u64>,
    pub(super) argument: Option<String>,
    pub(super) reply: Option<String>,
}

impl Redaction {
    pub(super) fn new(addresses: Addresses) -> Self {
        Self { addresses, kept: None }
    }

    fn view(&self) -> View {
        View { addresses: self.addresses, stand_in: StandIn::Star }
    }

    /// From now on tells what a recording may keep.
    pub(super) fn keep(&mut self) {
        self.kept = Some(Box::default());
    }

    /// What a recording may keep of what was shown since the last time.
    pub(super) fn kept(&mut self) -> Vec<Kept> {
        self.kept.as_mut().map(|notes| std::mem::take(&mut notes.0)).unwrap_or_default()
    }

    /// Notes something for a recording.
    pub(super) fn note(&mut self, note: impl FnOnce() -> Kept) {
        if let Some(kept) = &mut self.kept {
            kept.0.push(note());
        }
    }

    /// A reply's text; of one that stayed in the kernel its enhanced code, if it has one.
    pub(super) fn reply(&mut self, reply: &Reply) -> Option<String> {
        self.note(|| Kept::Replied { span: reply.span.clone(), how: Reveal::Text });
        match reply.withheld {
            true => code_alone(reply),
            false => Some(self.text(&reply.text)),
        }
    }

    /// Shows an exchange.
    pub(super) fn exchange(&mut self, Exchange { command, reply }: &Exchange) -> Shown {
        // The go-ahead of a message is shown with it, too.
        let hides = |reply: &Reply| reply.code != 354 && hides_reply(command);
        if let Some(reply) = reply {
            self.note(|| {
                let how = if hides(reply) { Reveal::Codes } else { Reveal::ReplyTo(command.clone()) };
                Kept::Replied { span: reply.span.clone(), how }
            });
        }
        let is_unknown = command.verb == Verb::Other;
        Shown {
            verb: match command.foreign_word() {
                Some(word) => escape(word),
                None if is_unknown => UNKNOWN.into(),
                None => command.verb.as_str().into(),
            },
            length: is_unknown.then_some(command.length),
            argument: match command.argument() {
                [] => None,
                _ if hides_argument(command.verb) => None,
                argument => Some(escape(&self.view().argument(command.verb, argument))),
            },
            reply: reply.as_deref().and_then(|reply| match reply.withheld || hides(reply) {
                true => code_alone(reply),
                false => Some(lines(&reply.text, |line| self.view().reply(command, line))),
            }),
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

/// What is shown of a reply whose text is not.
fn code_alone(reply: &Reply) -> Option<String> {
    reply.enhanced_code.map(|code| code.to_string())
}

/// Whether nothing of a command's argument is shown: it is any text.
fn hides_argument(verb: Verb) -> bool {
    matches!(verb, Verb::Other | Verb::Vrfy | Verb::Expn | Verb::Help | Verb::Noop)
}

/// Whether nothing of the replies to a command is shown: they tell who is behind a name, or repeat what is not known.
fn hides_reply(command: &Command) -> bool {
    matches!(command.verb, Verb::Other | Verb::Vrfy | Verb::Expn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Time;
    use crate::smtp::EnhancedCode;

    fn shown(redaction: &mut Redaction, line: &str, code: u16, text: &str) -> Shown {
        let command = Command::new(line.as_bytes(), Time(0), Time(0));
        let text = text.as_bytes().to_vec();
        let reply = Reply {
            code,
            enhanced_code: None,
            text,
            withheld: false,
            span: 0..0,
            first_byte: Time(0),
            last_byte: Time(0),
        };
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
    }

    #[test]
    fn credentials_are_shown_to_nobody() {
        for addresses in [Addresses::Full, Addresses::Domain, Addresses::None] {
            check(addresses, "AUTH PLAIN AGJvYgBzZWNyZXQ=", (235, "ok"), ("AUTH", Some("PLAIN"), "ok"));
        }
    }

    #[test]
    fn what_is_withheld_is_not_shown() {
        let mut redaction = Redaction::new(Addresses::Full);
        for (line, verb, length) in [
            ("xfoo bar\u{7}", "other", Some(9)),
            ("bob@example.org", "other", Some(15)),
            ("", "other", Some(0)),
            ("VRFY bob", "VRFY", None),
            ("GET / HTTP/1.1", "GET", Some(14)),
        ] {
            let shown = shown(&mut redaction, line, 500, "what");
            assert_eq!(shown, Shown { verb: verb.into(), length, argument: None, reply: None }, "{line}");
        }
        assert_eq!(shown(&mut redaction, "NOOP S3CRET", 250, "ok").argument, None);
        let command = Command::new(b"RCPT TO:<bob@example.org>", Time(0), Time(0));
        let reply = Reply {
            code: 550,
            enhanced_code: Some(EnhancedCode(5, 1, 1)),
            text: b"5.1.1 ".to_vec(),
            withheld: true,
            span: 0..0,
            first_byte: Time(0),
            last_byte: Time(0),
        };
        assert_eq!(redaction.reply(&reply).as_deref(), Some("5.1.1"));
        let exchange = Exchange { command: command.into(), reply: Some(reply.into()) };
        assert_eq!(redaction.exchange(&exchange).reply.as_deref(), Some("5.1.1"));
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
