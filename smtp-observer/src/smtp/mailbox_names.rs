//! What was said that a text may repeat: names of mailboxes, and whether there were credentials.
//!
//! They are compared as mailboxes are: without case, quotes and `+tag` (RFC 5233 calls that a subaddress).

#[cfg(test)]
mod tests;

use memchr::{memchr, memchr_iter, memrchr};

use super::command::{Command, Verb};
use super::introduced;
use super::parameter::{attribute, decoded, is_domain, names_host, plain_bytes};
use super::path::Path;
use super::reply::{EnhancedCode, is_cut};
use super::starts::{Starts, is_word};
use super::words::{is_border, length_in, occurrences};

/// Bytes of names that are kept; the oldest are let go of.
const MAX_BYTES: usize = 4096;

/// Bytes of a name that may be cut at the end of a text: a local part has no more (RFC 5321, 4.5.3.1.1), and some are longer.
const LONGEST_PIECE: usize = 256;

/// First byte of an entry. Its length is in the next two, and then it comes itself.
const NAME: u8 = b'n';
const DOMAIN: u8 = b'd';

/// Bytes before it.
const HEAD: usize = 3;

/// What a client has said that a server may repeat.
#[derive(Debug, Default)]
pub(crate) struct Names {
    entries: Vec<u8>,
    /// Credentials were sent, or what may be some.
    secret: bool,
    /// What they begin with: most texts begin no word with any of these.
    starts: Starts,
}

/// What a text repeats of names, and names that it gives for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Repeated {
    /// Names as they stand in it.
    pub names: Vec<Vec<u8>>,
    /// Domains as they stand in it.
    pub domains: Vec<Vec<u8>>,
    /// It may repeat a credential or an unknown command: one was sent before.
    pub secret: bool,
}

impl Repeated {
    /// It repeats no name and no domain. Those of one word with an `@` beside them do not count: they show what they are.
    pub fn names_nobody(&self) -> bool {
        self.names.is_empty() && self.domains.is_empty()
    }

    /// It repeats something, or may.
    pub(crate) fn is_any(&self) -> bool {
        self.secret || !self.names_nobody()
    }
}

impl Names {
    /// Those that are known, or none.
    pub(crate) fn of(known: &Option<Box<Self>>) -> &Self {
        const NONE: &Names = &Names { entries: Vec::new(), secret: false, starts: Starts::NONE };
        known.as_deref().unwrap_or(NONE)
    }

    /// Takes what there is in a command that a server may repeat.
    pub(crate) fn note(known: &mut Option<Box<Self>>, command: &Command) {
        if names_mailbox(command) || may_be_secret(command) || has_attributes(command) {
            known.get_or_insert_default().add(command);
        }
    }

    /// Takes the mailbox of MAIL or RCPT, or of RFC 821's other three, the user of XCLIENT or XFORWARD, and notice of what may be
    /// a credential.
    pub(crate) fn add(&mut self, command: &Command) {
        self.secret |= may_be_secret(command);
        if has_attributes(command) {
            for word in command.argument().split(u8::is_ascii_whitespace) {
                let (key, value) = attribute(word);
                if !names_host(key) {
                    self.add_value(value);
                }
            }
        }
        if !names_mailbox(command) {
            return;
        }
        let path = Path::leniently(command.argument());
        self.add_mailbox(path.mailbox.trim_ascii_end());
        for word in path.after.strip_prefix(b">").unwrap_or(path.after).split(u8::is_ascii_whitespace) {
            let value = &word[plain_bytes(word)..];
            // An address in ORCPT has its type before it (RFC 3461, 4.2).
            self.add_value(memchr(b';', value).map_or(value, |end| &value[end + 1..]));
        }
    }

    /// A parameter's value, as it is written and as what it stands for: a server repeats either.
    fn add_value(&mut self, value: &[u8]) {
        self.add_mailbox(value);
        if let Some(plain) = decoded(value) {
            self.add_mailbox(&plain);
        }
    }

    fn add_mailbox(&mut self, path: &[u8]) {
        // A source route goes before it (RFC 5321, C).
        let mailbox = match path.first() {
            Some(b'@') => memchr(b':', path).map_or(path, |colon| &path[colon + 1..]),
            _ => path,
        };
        let (local_part, domain) = match memrchr(b'@', mailbox) {
            Some(at) if is_domain(&mailbox[at + 1..]) => (&mailbox[..at], &mailbox[at + 1..]),
            at => {
                // It may be several.
                mailbox.split(|byte| !is_of_name(byte)).for_each(|part| self.add_part(part));
                if at.is_some() {
                    return;
                }
                (mailbox, &[][..])
            }
        };
        let inner = local_part.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(local_part);
        // The longest first: of two at one place it is the one that is found.
        self.push(NAME, inner);
        // Nearly all are one name.
        if !inner.iter().all(is_of_name) {
            let is_left_out = |byte: &u8| *byte == b'\\' || byte.is_ascii_control();
            let bare: Vec<u8> = inner.iter().copied().filter(|byte| !is_left_out(byte)).collect();
            self.push(NAME, &bare);
            if let Some(tag) = memchr(b'+', inner).filter(|&at| at > 0) {
                self.push(NAME, &inner[..tag]);
            }
            // The tag too, and of `bob%y.example` or `y!bob` the user.
            inner.split(|byte| !is_of_name(byte)).for_each(|part| self.add_part(part));
        }
        self.push(DOMAIN, domain);
    }

    /// Takes what stands between the signs of a name. A server's common words are none.
    fn add_part(&mut self, part: &[u8]) {
        if part.len() > 1 && !introduced::is_ordinary(part) {
            self.push(NAME, part);
        }
    }

    /// Which of them a text repeats, and which names it introduces. Where there are any, stars stand for one, as in a recording.
    pub(crate) fn repeated_in(&self, text: &[u8]) -> Repeated {
        match is_cut(text) {
            true => self.repeated_before_cut(text),
            false => self.repeated_in_whole(text),
        }
    }

    fn repeated_in_whole(&self, text: &[u8]) -> Repeated {
        let mut repeated = Repeated { secret: self.secret, ..Repeated::default() };
        let starts = Starts::in_text(text);
        if introduced::may_be_among(starts) {
            repeated.names.extend(introduced::names(text).map(<[u8]>::to_vec));
        }
        if !self.entries.is_empty() || !repeated.names.is_empty() {
            repeated.names.extend(stars(text).map(<[u8]>::to_vec));
        }
        if !self.starts.meet(starts) {
            return repeated;
        }
        let may_stand = |name: &[u8]| name.first().is_some_and(|first| starts.meet(Starts::of(*first)));
        for (kind, name) in entries(&self.entries).filter(|(_, name)| may_stand(name)) {
            let found = if kind == NAME { &mut repeated.names } else { &mut repeated.domains };
            for place in occurrences(text, name) {
                let word = &text[place.clone()];
                let has_sign = match kind {
                    NAME if is_one_word(name) && text.get(place.end) == Some(&b'@') => true,
                    // A part of a name may be a domain.
                    NAME => name.contains(&b'.') && is_behind_name(&text[..place.start]),
                    _ => place.start.checked_sub(1).map(|before| text[before]) == Some(b'@'),
                };
                // `Ok` is no sign of one named `ok`, and an article none of one named `a`.
                let is_it = name != b"a" && (word == name || !introduced::is_ordinary(name));
                if is_it && !has_sign && !found.iter().any(|known| known == word) {
                    found.push(word.to_vec());
                }
            }
        }
        repeated
    }

    /// Which of them a text repeats that is cut at its end, maybe within a name: it may be one that no command has named.
    pub(crate) fn repeated_before_cut(&self, text: &[u8]) -> Repeated {
        let mut repeated = self.repeated_in_whole(text);
        let begins = |rest: &[u8]| {
            entries(&self.entries)
                .any(|(kind, name)| kind == NAME && name.len() > rest.len() && length_in(name, rest).is_some())
        };
        // Its last character may be cut, too.
        let end = text.len() - text.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
        let mut places = text.len().saturating_sub(LONGEST_PIECE)..end;
        let known = places.find(|&place| is_border(text, place) && begins(&text[place..end]));
        let place = known.into_iter().chain(last_word(text)).min();
        repeated.names.extend(place.map(|place| text[place..].to_vec()));
        repeated
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.entries.capacity()
    }

    fn push(&mut self, kind: u8, name: &[u8]) {
        let is_known = || entries(&self.entries).any(|known| known.0 == kind && known.1.eq_ignore_ascii_case(name));
        let Some(first) = name.first() else { return };
        // Without what stands before it, an `@` would no longer show that to be a name.
        if name.len() > MAX_BYTES - HEAD || *first == b'@' || is_known() {
            return;
        }
        self.starts = self.starts.and(Starts::of(*first));
        let [low, high] = (name.len() as u16).to_le_bytes();
        self.entries.extend([kind, low, high]);
        self.entries.extend(name);
        let surplus = self.entries.len().saturating_sub(MAX_BYTES);
        if surplus > 0 {
            let ends = |end: &mut usize, (_, name): (u8, &[u8])| {
                *end += HEAD + name.len();
                Some(*end)
            };
            let end = entries(&self.entries).scan(0, ends).find(|end| *end >= surplus);
            self.entries.drain(..end.unwrap_or_default());
        }
    }
}

/// The entries, each with its kind.
fn entries(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[kind, low, high], rest) = bytes.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(u16::from_le_bytes([low, high]).into())?;
        bytes = rest;
        Some((kind, name))
    })
}

/// Whether a text repeats the whole mailbox that a command names.
pub(super) fn is_about(text: &[u8], command: &Command) -> bool {
    let mailbox = if names_mailbox(command) { Path::leniently(command.argument()).mailbox } else { b"" };
    memchr(b'@', mailbox).is_some() && occurrences(text, mailbox).next().is_some()
}

/// A mailbox stands behind it.
fn names_mailbox(command: &Command) -> bool {
    command.verb == Verb::Rcpt || command.verb.opens_transaction()
}

/// Attributes of a client stand behind it.
fn has_attributes(command: &Command) -> bool {
    matches!(command.verb, Verb::XClient | Verb::XForward)
}

/// It is a credential, or has something behind it that may be one.
fn may_be_secret(command: &Command) -> bool {
    match command.verb {
        Verb::Other => command.length > 0,
        Verb::Noop | Verb::Help => command.is_cut() || !command.argument().is_empty(),
        verb => verb.authenticates(),
    }
}

/// Stars side by side that are not before an `@`.
fn stars(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = if memchr(b'*', text).is_some() { text } else { b"" };
    let runs = text.chunk_by(|one, other| (*one == b'*') == (*other == b'*'));
    let behind = |run: &[u8]| run.as_ptr().addr() + run.len() - text.as_ptr().addr();
    runs.filter(move |run| run[0] == b'*' && text.get(behind(run)) != Some(&b'@'))
}

/// Where the last word of a text begins, if it may be the beginning of a mailbox that is cut. In quotes it may have blanks.
fn last_word(text: &[u8]) -> Option<usize> {
    let line = memrchr(b'\n', text).map_or(0, |end| end + 1);
    let start = line + EnhancedCode::length(&text[line..]);
    let quotes = memchr_iter(b'"', &text[start..]).count();
    let quote = match text.strip_suffix(b"\"") {
        Some(before) if quotes.is_multiple_of(2) => memrchr(b'"', before),
        _ if !quotes.is_multiple_of(2) => memrchr(b'"', text),
        _ => None,
    };
    let sign = quote.or_else(|| text.iter().rposition(|&byte| parts_words(byte)));
    let place = sign.map_or(start, |sign| start.max(sign + 1));
    let word = &text[place..];
    // In a recording stars may stand there. Of the longest text it has more: a piece of a pseudonym may look like any word.
    let has_name = word.iter().any(|byte| is_word(byte) || *byte == b'*');
    let may_be_piece = has_name && (is_cut(text) || !introduced::is_ordinary(word));
    // Before its `@` it is hidden as any mailbox is.
    (may_be_piece && (quote.is_some() || memchr(b'@', word).is_none())).then_some(place)
}

/// It stands between words. In a text what is behind the last of these before an `@` is a mailbox's name.
pub(crate) fn parts_words(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte.is_ascii_control() || b"<>(),;\"".contains(&byte)
}

/// Before an `@` in a text all of the name is taken for one.
fn is_one_word(name: &[u8]) -> bool {
    !name.iter().any(|&byte| parts_words(byte) || byte == b':')
}

/// What stands behind this text is the domain of a mailbox.
fn is_behind_name(text: &[u8]) -> bool {
    let before = text.strip_suffix(b"@").and_then(<[u8]>::last);
    before.is_some_and(|&byte| !parts_words(byte) || byte == b'"')
}

/// It may be part of a name without quotes, and parts it from no other one.
fn is_of_name(byte: &u8) -> bool {
    is_word(byte) || b".-_'".contains(byte)
}
