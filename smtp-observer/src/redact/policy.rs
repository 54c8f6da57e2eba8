//! What is shown of a line, whatever stands for the rest.

use std::borrow::Cow;

use super::mailbox::{self, Mask};
use super::pseudonym::StandIn;
use super::{Addresses, Key, hides_argument, hides_reply};
use crate::event::Time;
use crate::smtp::{Command, EnhancedCode, Path, Repeated, Reply, Verb, attribute, escape, names_host, write_escaped};

/// What is shown where a verb or a mechanism is not known.
const UNKNOWN: &str = "other";

/// How much is shown, and what stands for what is not.
#[derive(Clone, Copy, Debug)]
pub struct RedactionPolicy {
    addresses: Addresses,
    stand_in: StandIn,
}

impl RedactionPolicy {
    /// Shows as much as `addresses` allows, to people.
    pub fn new(addresses: Addresses) -> Self {
        Self { addresses, stand_in: StandIn::Star }
    }

    /// What followed a command's verb.
    pub fn argument_of(self, command: &Command) -> Option<String> {
        match command.argument() {
            // A mechanism that is not known is not kept.
            [] if command.verb.authenticates() && command.is_cut() => Some(UNKNOWN.into()),
            [] => None,
            _ if hides_argument(command.verb) => None,
            argument => Some(escape(&self.argument(command.verb, argument))),
        }
    }

    /// The text of the reply to a command, lines joined by a line feed; absent where it has none.
    pub fn reply_to(self, command: &Command, reply: &Reply) -> Option<String> {
        match hides_reply(command, reply) {
            true => code_alone(reply),
            false => self.reply(reply),
        }
    }

    /// The text of the reply to a command, as far as it is shown, behind what is in `out`.
    pub(crate) fn write_reply_to(self, command: &Command, reply: &Reply, out: &mut String) {
        match reply.withheld || hides_reply(command, reply) {
            true => out.extend(code_alone(reply)),
            false => write_lines(&reply.text, |line| self.reply_line(&reply.repeated, line), out),
        }
    }

    /// A reply's text; of one that stayed in the kernel its enhanced code, if it has one.
    pub fn reply(self, reply: &Reply) -> Option<String> {
        if reply.withheld {
            return code_alone(reply);
        }
        let text = lines(&reply.text, |line| self.reply_line(&reply.repeated, line));
        Some(text).filter(|text| !text.is_empty())
    }

    /// A server's text that repeats this.
    pub(crate) fn repeating(self, text: &[u8], repeated: &Repeated) -> String {
        lines(text, |line| self.reply_line(repeated, line))
    }

    /// A text of one or more lines, with the mailboxes in it as far as they are shown.
    pub fn text(self, text: &[u8]) -> String {
        lines(text, |line| self.text_line(line))
    }

    /// The mailbox of MAIL's reverse-path, in angle brackets.
    pub fn reverse_path(self, mailbox: &[u8]) -> String {
        let shown = match self.mask() {
            None => Cow::Borrowed(mailbox),
            Some(mask) => mask.mailbox(mailbox).into(),
        };
        format!("<{}>", escape(&shown))
    }

    /// Shows as much as `addresses` allows, each line as long as it was, for a recording.
    pub(crate) fn for_recording(addresses: Addresses, key: Key) -> Self {
        Self { addresses, stand_in: StandIn::Pseudonym(key) }
    }

    pub(super) fn mask(self) -> Option<Mask> {
        match self.addresses {
            Addresses::Full => None,
            Addresses::Domain => Some(Mask { domain: true, stand_in: self.stand_in }),
            Addresses::None => Some(Mask { domain: false, stand_in: self.stand_in }),
        }
    }

    fn name(self, hidden: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(hidden.len());
        self.stand_in.name(hidden, &mut shown);
        shown
    }

    fn secret(self, hidden: &[u8]) -> Vec<u8> {
        Self { stand_in: self.stand_in.for_secrets(), ..self }.name(hidden)
    }

    /// A line of text with its mailboxes as far as they are shown.
    pub(crate) fn text_line(self, line: &[u8]) -> Cow<'_, [u8]> {
        match self.mask() {
            Some(mask) if mailbox::may_hold(line) => mask.text(line).into(),
            _ => line.into(),
        }
    }

    /// A command's argument, which is not empty.
    fn argument<'a>(self, verb: Verb, argument: &'a [u8]) -> Cow<'a, [u8]> {
        match (verb, self.mask()) {
            (_, None) => argument.into(),
            (Verb::Mail | Verb::Rcpt | Verb::Send | Verb::Soml | Verb::Saml, Some(mask)) => match Path::of(argument) {
                Some(path) => mask.path(&path).into(),
                None => self.name(argument).into(),
            },
            // A name may stand there without a domain.
            (Verb::Vrfy | Verb::Expn, Some(mask)) => match argument.contains(&b' ') || !argument.contains(&b'@') {
                true => self.name(argument).into(),
                false => mask.text(argument).into(),
            },
            (Verb::XClient | Verb::XForward, Some(mask)) => {
                let words = argument.split(u8::is_ascii_whitespace).map(|word| match attribute(word) {
                    (b"", b"") => Vec::new(),
                    (key, host) if names_host(key) => [key, &mask.text(host)].concat(),
                    (key, name) if names_user(key) => [key, &self.name(name)].concat(),
                    _ => self.name(word),
                });
                words.collect::<Vec<_>>().join(&b' ').into()
            }
            (_, Some(mask)) => mask.text(argument).into(),
        }
    }

    /// A line of a reply's text. Servers repeat what they were told, so what is hidden there is hidden here.
    pub(crate) fn reply_line<'a>(self, repeated: &Repeated, line: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(mask) = self.mask() else { return line.into() };
        if repeated.names_nobody() {
            return self.text_line(line);
        }
        let (code, text) = line.split_at(EnhancedCode::length(line));
        let domains = repeated.domains.iter().filter(|_| !mask.domain);
        let places = mailbox::all_occurrences(text, repeated.names.iter().chain(domains));
        let shown = mailbox::with(text, &places, |place| match self.stand_in {
            StandIn::Star => b"*".to_vec(),
            // As long; whoever reads the recording knows them for a name.
            StandIn::Pseudonym(_) | StandIn::Blank => vec![b'*'; place.len()],
        });
        [code, &self.text_line(&shown)].concat().into()
    }

    /// A line that is no reply, as long as it was.
    pub(crate) fn line<'a>(self, line: &'a [u8]) -> Cow<'a, [u8]> {
        let command = Command::new(line, Time::default(), Time::default());
        let argument = command.argument();
        if command.verb.authenticates() {
            let (kept, credentials) = line.split_at(command.line.len());
            return [kept, &self.secret(credentials)].concat().into();
        }
        if command.verb == Verb::Other || argument.is_empty() {
            return self.text_line(line);
        }
        let start = argument.as_ptr().addr() - command.line.as_ptr().addr();
        let end = start + argument.len();
        if matches!(command.verb, Verb::Noop | Verb::Help) {
            return [&line[..start], &self.secret(argument), &line[end..]].concat().into();
        }
        [&line[..start], &self.argument(command.verb, argument), &line[end..]].concat().into()
    }
}

/// XCLIENT's attributes that tell who logged in; Dovecot encodes further ones in FORWARD.
fn names_user(key: &[u8]) -> bool {
    [&b"LOGIN="[..], b"FORWARD="].iter().any(|known| known.eq_ignore_ascii_case(key))
}

/// A command's verb as it is shown.
pub(crate) fn verb(command: &Command) -> Cow<'static, str> {
    match command.verb {
        Verb::Other => command.foreign_word().map_or(UNKNOWN.into(), |word| escape(word).into()),
        known => known.as_str().into(),
    }
}

fn lines<'a>(text: &'a [u8], show: impl Fn(&'a [u8]) -> Cow<'a, [u8]>) -> String {
    let mut shown = String::with_capacity(text.len());
    write_lines(text, show, &mut shown);
    shown
}

fn write_lines<'a>(text: &'a [u8], show: impl Fn(&'a [u8]) -> Cow<'a, [u8]>, out: &mut String) {
    out.reserve(text.len());
    for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
        if at > 0 {
            out.push('\n');
        }
        write_escaped(&show(line), out);
    }
}

/// What is shown of a reply whose text is not.
fn code_alone(reply: &Reply) -> Option<String> {
    reply.enhanced_code.map(|code| code.to_string())
}
