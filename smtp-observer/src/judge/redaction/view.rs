//! What is shown of a line, whatever stands for the rest.

use std::borrow::Cow;
use std::ops::Range;

use super::mailbox::{self, Mask};
use super::stand_in::StandIn;
use super::{Addresses, Key};
use crate::event::Time;
use crate::smtp::{Command, EnhancedCode, Verb};

/// How much is shown, and what stands for what is not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(super) addresses: Addresses,
    pub(super) stand_in: StandIn,
}

impl View {
    /// Shows as much as `addresses` allows, each line as long as it was, for a recording.
    pub(crate) fn for_recording(addresses: Addresses, key: Key) -> Self {
        Self { addresses, stand_in: StandIn::Likeness(key) }
    }

    fn mask(self) -> Option<Mask> {
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
    pub(crate) fn text(self, line: &[u8]) -> Cow<'_, [u8]> {
        match self.mask() {
            Some(mask) if mailbox::may_hold(line) => mask.text(line).into(),
            _ => line.into(),
        }
    }

    /// The mailbox that MAIL's argument names.
    pub(super) fn reverse_path(self, mail: &Command) -> Option<Cow<'_, [u8]>> {
        let path = mailbox::Path::of(mail.argument())?.mailbox;
        Some(match self.mask() {
            None => path.into(),
            Some(mask) => mask.mailbox(path).into(),
        })
    }

    /// A command's argument, which is not empty.
    pub(super) fn argument<'a>(self, verb: Verb, argument: &'a [u8]) -> Cow<'a, [u8]> {
        match (verb, self.mask()) {
            (Verb::Auth | Verb::XExps, _) => argument.split(u8::is_ascii_whitespace).next().unwrap_or_default().into(),
            (_, None) => argument.into(),
            (Verb::Mail | Verb::Rcpt | Verb::Send | Verb::Soml | Verb::Saml, Some(mask)) => {
                match mailbox::Path::of(argument) {
                    Some(path) => mask.path(&path).into(),
                    None => self.name(argument).into(),
                }
            }
            // A name may stand there without a domain.
            (Verb::Vrfy | Verb::Expn, Some(mask)) => match argument.contains(&b' ') || !argument.contains(&b'@') {
                true => self.name(argument).into(),
                false => mask.text(argument).into(),
            },
            (Verb::XClient | Verb::XForward, Some(mask)) => {
                let words = argument.split(u8::is_ascii_whitespace).map(|word| match word.split_at_checked(6) {
                    Some((key, name)) if key.eq_ignore_ascii_case(b"LOGIN=") => {
                        [&b"LOGIN="[..], &self.name(name)].concat()
                    }
                    _ => mask.text(word),
                });
                words.collect::<Vec<_>>().join(&b' ').into()
            }
            (_, Some(mask)) => mask.text(argument).into(),
        }
    }

    /// A line of a reply's text. Servers repeat what they refuse, so what is hidden in the command is hidden here.
    pub(crate) fn reply<'a>(self, command: &Command, line: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(mask) = self.mask() else { return line.into() };
        let (code, text) = line.split_at(EnhancedCode::length(line));
        let argument = command.argument();
        let name = match command.verb {
            // One character is no name, and may stand in any reply.
            Verb::Vrfy | Verb::Expn if argument.len() > 1 => argument,
            Verb::Mail | Verb::Rcpt => match mailbox::Path::of(argument) {
                Some(path) => mask.hidden_part(path.mailbox),
                None => argument,
            },
            _ => b"",
        };
        let mut places = mailbox::occurrences(text, name);
        // Where all of a mailbox is hidden, servers may still speak of its name alone.
        let local_part = mailbox::local_part(name);
        if local_part.len() < name.len() {
            let others = mailbox::occurrences(text, local_part);
            let overlaps = |place: &Range<usize>| places.iter().any(|known| known.contains(&place.start));
            let others: Vec<_> = others.into_iter().filter(|place| !overlaps(place)).collect();
            places.extend(others);
            places.sort_unstable_by_key(|place| place.start);
        }
        if places.is_empty() {
            return self.text(line);
        }
        let stand_in = self.name(name);
        // What stands there is not to be hidden once more, where a name that the text has around it is.
        let without = mailbox::with(text, &places, |place| self.secret(&text[place]));
        let shown = self.text(&without);
        let shown = match self.stand_in {
            StandIn::Star => shown,
            // The local part of the stand-in stands for the local part.
            StandIn::Likeness(_) | StandIn::Blank => {
                mailbox::with(&shown, &places, |place| stand_in[..place.len()].to_vec()).into()
            }
        };
        [code, &shown].concat().into()
    }

    /// A line that is no reply, as long as it was.
    pub(crate) fn line<'a>(self, line: &'a [u8]) -> Cow<'a, [u8]> {
        let command = Command::new(line, Time::default(), Time::default());
        let argument = command.argument();
        if command.verb == Verb::Other || argument.is_empty() {
            return self.text(line);
        }
        let start = argument.as_ptr().addr() - command.line.as_ptr().addr();
        let end = start + argument.len();
        [&line[..start], &self.argument(command.verb, argument), &line[end..]].concat().into()
    }
}
