//! What was said that a text may repeat: names of mailboxes, and whether there were credentials.
//!
//! They are compared as mailboxes are: without case, quotes and `+tag` (RFC 5233 calls that a subaddress).

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Time;
    use crate::smtp::LONGEST_REPLY;

    fn names(lines: &[&str]) -> Names {
        let mut names = Names::default();
        lines.iter().for_each(|line| names.add(&Command::new(line.as_bytes(), Time(0), Time(0))));
        names
    }

    #[track_caller]
    fn check(line: &str, text: &str, expected: &[&str], domains: &[&str]) {
        let Repeated { names, domains: found, .. } = names(&[line]).repeated_in(text.as_bytes());
        let text =
            |words: Vec<Vec<u8>>| words.into_iter().map(|word| String::from_utf8(word).expect("UTF-8")).collect();
        let (names, found): (Vec<String>, Vec<String>) = (text(names), text(found));
        assert_eq!(
            (names, found),
            (expected.iter().map(|&name| name.into()).collect(), domains.iter().map(|&name| name.into()).collect())
        );
    }

    #[test]
    fn names_are_compared_as_mailboxes_are() {
        check("RCPT TO:<bob+list@x.example>", "User BOB unknown", &["BOB"], &[]);
        check("RCPT TO:<bob+list@x.example>", "no bob+list, no Bob", &["bob+list", "bob", "Bob"], &[]);
        check("RCPT TO:<\"bob smith\"@x.example>", "to Bob Smith: no", &["Bob Smith", "Bob", "Smith"], &[]);
        check("RCPT TO:<bob.smith@x.example>", "no @bob.smith, <@bob.smith>", &["bob.smith"], &[]);
        check("RCPT TO:<bob+tag@x.example>", "bob has no folder Tag", &["bob", "Tag"], &[]);
        check("RCPT TO:<bob%in.example@x.example>", "relaying for bob denied", &["bob"], &[]);
        check("RCPT TO:<in!bob@x.example>", "relaying for bob in in denied", &["bob"], &[]);
        check("MAIL FROM:<b+bob=y.example@x.example>", "<al@y.example> is not bob", &["bob"], &[]);
        check("RCPT TO:<\"bob\"@x.example>", "\tbob", &["bob"], &[]);
        check("RCPT TO:<\u{e9}bob@x.example>", "no \u{c9}BOB, \u{e9}Bob", &["\u{c9}BOB", "\u{e9}Bob"], &[]);
        check("RCPT TO:<\u{411}\u{43e}\u{431}@x.example>", "\u{431}\u{41e}\u{411}", &["\u{431}\u{41e}\u{411}"], &[]);
        check("RCPT TO:<\u{3c3}\u{3c2}@x.example>", "\u{3a3}\u{3a3}:", &["\u{3a3}\u{3a3}"], &[]);
        check("RCPT TO:<bob\u{1e9e}@x.example>", "(BOB\u{df})", &["BOB\u{df}"], &[]);
        check("RCPT TO:<bob@b\u{fc}cher.example>", "no B\u{dc}CHER.example", &[], &["B\u{dc}CHER.example"]);
        check("RCPT TO:<\u{e9}bob@x.example>", "\u{e8}bob, \u{e9}\u{c9}bob, \u{e9}bo", &[], &[]);
        check("RCPT TO:<\"b\\\"c\"@x.example>", "b\"c", &["b\"c"], &[]);
        check("RCPT TO:<\"a > b\"@x.example> NOTIFY=NEVER", "a > b", &["a > b"], &[]);
        check("mail from:<@r.example:Ann@X.example> AUTH=<>", "ann is not of x.example", &["ann"], &["x.example"]);
        check("RCPT TO:<ok@x.example>", "Ok, ok", &["ok"], &[]);
        check("RCPT bob", "user.bob: no such", &["bob"], &[]);
        check("MAIL FROM:<>", "ok", &[], &[]);
        // With its sign it shows what it is.
        check("RCPT TO:<bob@x.example>", "<bob@x.example> unknown, bobby too", &[], &[]);
        check("VRFY bob", "bob", &[], &[]);
    }

    #[test]
    fn a_name_is_known_as_what_it_stands_for() {
        let from = "MAIL FROM:<a@y.example>";
        let with = |parameter: &str| format!("{from} {parameter}");
        check(
            &with("ORCPT=rfc822;annm+2Btagm+40z.example"),
            "annm+tagm (annm) TAGM",
            &["annm", "annm+tagm", "tagm", "TAGM"],
            &[],
        );
        check(&with("AUTH=e+3Dtagm@z.example"), "e=tagm", &["e", "e=tagm", "tagm"], &[]);
        check(&with("SUBMITTER=bobm+2bannm@z.example"), "annm, bobm+annm", &["bobm", "bobm+annm", "annm"], &[]);
        check(&with("ORCPT=utf-8;\\x{61}nnm@z.example"), "annm", &["annm"], &[]);
        check(&with("ORCPT=utf-8;ren\\x{E9}@z.example"), "ren\u{e9}", &["ren", "ren\u{e9}"], &[]);
        check(&with("AUTH=annm+40z.example"), "no z.example", &[], &["z.example"]);
    }

    #[test]
    fn a_user_that_a_proxy_names_is_known() {
        check("XCLIENT NAME=a.example LOGIN=annm", "mx ESMTP, hello annm at a.example", &["annm"], &[]);
        check("xclient login=annm+40z.example ADDR=bobm", "not owned by annm, bobm", &["annm"], &[]);
        check("XFORWARD HELO=a.example XUSER=annm bobm", "annm, bobm, a.example, XUSER", &["annm", "bobm"], &[]);
        let mut known = None;
        for line in ["XCLIENT LOGIN=annm", "RCPT TO:<al@x.example>"] {
            Names::note(&mut known, &Command::new(line.as_bytes(), Time(0), Time(0)));
        }
        assert_eq!(Names::of(&known).repeated_in(b"5.7.1 <al@x.example>: not owned by annm").names, [b"annm".to_vec()]);
    }

    #[test]
    fn a_name_is_introduced_where_none_was_said() {
        let said_nothing = |text: &str| Names::default().repeated_in(text.as_bytes()).names;
        for text in [
            "5.7.1 user annm may not send with an empty sender",
            "4.3.0 User annm has too many connections",
            "mx ESMTP, alias \u{201c}annm\u{201d}",
        ] {
            assert_eq!(said_nothing(text), [b"annm".to_vec()], "{text}");
        }
        // As a recording has it.
        assert!(said_nothing("user ****, **").contains(&b"****".to_vec()));
        assert!(said_nothing("user annm, **").contains(&b"**".to_vec()));
        for text in ["mx.example ESMTP ****", "2.0.0 Ok", "mx\nAUTH LOGIN\nTURN\nETRN", "****@x.example", ""] {
            assert_eq!(said_nothing(text), [b""; 0], "{text}");
        }
        check("MAIL FROM:<>", "5.7.1 user annm may not", &["annm"], &[]);
    }

    #[test]
    fn signs_beyond_ascii_part_names() {
        let bobm = "RCPT TO:<bobm@x.example>";
        for text in [
            "Mailbox \u{201c}bobm\u{201d} unknown",
            "\u{ab}bobm\u{bb}",
            "\u{2018}bobm\u{2019}s",
            "no bobm\u{2026}",
            "bobm\u{2014}no",
            "no\u{a0}bobm\u{a0}here",
            "\u{7528}\u{6237}bobm\u{4e0d}\u{5b58}\u{5728}",
            "caf\u{e9}bobm",
        ] {
            check(bobm, text, &["bobm"], &[]);
        }
        assert_eq!(names(&[bobm]).repeated_in(b"no \xabbobm\xbb").names, [b"bobm".to_vec()], "ISO 8859-1");
        assert_eq!(names(&[bobm]).repeated_in(b"no \x93bobm\x94").names, [b"bobm".to_vec()], "Windows-1252");
        check(bobm, "bobmx\u{201d} \u{201c}xbobm", &[], &[]);
        check("RCPT TO:<ren\u{e9}@x.example>", "\u{201c}ren\u{e9}\u{201d}", &["ren\u{e9}"], &[]);
        check(
            "RCPT TO:<\u{5f20}\u{4e09}@x.example>",
            "\u{7528}\u{6237}\u{5f20}\u{4e09}\u{4e0d}",
            &["\u{5f20}\u{4e09}"],
            &[],
        );
        check("RCPT TO:<bo@x.example>", "no\u{a0}x.example\u{2026}", &[], &["x.example"]);
        let cut = names(&["RCPT TO:<bobmarker@x.example>"]).repeated_before_cut("no \u{201c}bobm".as_bytes()).names;
        assert_eq!(cut, ["\u{201c}bobm".as_bytes().to_vec()]);
    }

    #[test]
    fn signs_that_are_written_as_numbers_part_names() {
        check("RCPT TO:<bobm+tagm@x.example>", "bobm%2Btagm", &["bobm", "tagm"], &[]);
        check("RCPT TO:<bobm+tagm@x.example>", "id=3DBobm+2btagm+3D", &["Bobm", "tagm"], &[]);
        for text in ["%22bobm%22", "=22bobm=22", "%3Cbobm%3E", "?to=%20bobm"] {
            check("RCPT TO:<bobm@x.example>", text, &["bobm"], &[]);
        }
        check("RCPT TO:<bobm@x.example>", "%2bobm, =bobm2, 2Bbobm", &[], &[]);
    }

    #[test]
    fn an_at_shows_no_more_than_a_word() {
        for name in ["bob smith", "bob,smith", "bob;smith", "bob:smith", "(bob)", "bob\tsmith"] {
            check(&format!("RCPT TO:<\"{name}\"@x.example>"), &format!("no {name}@x.example"), &[name, "bob"], &[]);
            check(&format!("RCPT TO:<\"{name}\"@x.example>"), &format!("{name}@x.example"), &[name, "bob"], &[]);
        }
        check("RCPT TO:<bob:smith@x.example>", "no bob:smith@x.example", &["bob:smith", "bob"], &[]);
        check("RCPT TO:<\"(bob)\"@x.example>", "no(bob)@x.example", &["(bob)", "bob"], &[]);
        check("RCPT TO:<bob.list@x.example>", "no bob.list@x.example", &[], &[]);
    }

    #[test]
    fn a_name_that_is_cut_is_known() {
        for (line, text, expected) in [
            ("RCPT TO:<bobmarker@x.example>", "no bobm", Some("bobm")),
            ("RCPT TO:<bobmarker@x.example>", "no <BOBM", Some("BOBM")),
            ("RCPT TO:<\"bob marker\"@x.example>", "b bob m", Some("bob m")),
            ("RCPT TO:<bob+marker@x.example>", "no folder mark", Some("mark")),
            ("RCPT TO:<\u{e9}bob@x.example>", "no \u{c9}B", Some("\u{c9}B")),
            ("RCPT TO:<bobmarker@x.example>", "no xbobm", Some("xbobm")),
            ("MAIL FROM:<>", "5.1.1 <annm", Some("annm")),
            ("MAIL FROM:<>", "5.1.1 <****", Some("****")),
            ("RCPT TO:<bobmarker@x.example>", "a\n5.1.1 mailto:annm", Some("mailto:annm")),
            ("RCPT TO:<bobmarker@x.example>", "5.1.1 \"annm ma", Some("annm ma")),
            ("RCPT TO:<bobmarker@x.example>", "5.1.1 <\"annm ma\"", Some("annm ma\"")),
            ("RCPT TO:<bobmarker@x.example>", "5.1.1 \"annm m@a", Some("annm m@a")),
            ("RCPT TO:<bobmarker@x.example>", "\"no\" annm", Some("annm")),
            ("RCPT TO:<bobmarker@x.example>", "no annm@y.exam", None),
            ("RCPT TO:<bobmarker@x.example>", "5.1.1 User unknown", None),
            ("RCPT TO:<bobmarker@x.example>", "2.1.5 Ok", None),
            ("RCPT TO:<bobmarker@x.example>", "2.1.5", None),
            ("RCPT TO:<bobmarker@x.example>", "annm\n", None),
            ("RCPT TO:<bobmarker@x.example>", "no annm, \"", None),
            ("RCPT TO:<bobmarker@x.example>", "bobm ", None),
            ("RCPT TO:<bobmarker@x.example>", "", None),
        ] {
            let names = names(&[line]).repeated_before_cut(text.as_bytes()).names;
            let last = names.last().map(|name| String::from_utf8_lossy(name));
            assert_eq!(last.as_deref(), expected, "{line}: {text}");
        }
    }

    #[test]
    fn a_text_of_the_greatest_length_is_cut() {
        let known = names(&["RCPT TO:<bobmarker@x.example>"]);
        for length in [LONGEST_REPLY - 1, LONGEST_REPLY] {
            let text = format!("{:>length$}", " bobmarke");
            assert_eq!(known.repeated_in(text.as_bytes()).names, [b"bobmarke".to_vec()], "{length}");
        }
        let another = format!("{:>LONGEST_REPLY$}", " annm");
        assert_eq!(known.repeated_in(another.as_bytes()).names, [b"annm".to_vec()]);
        let text = format!("{:>length$}", " bobmarke", length = LONGEST_REPLY - 2);
        assert_eq!(known.repeated_in(text.as_bytes()).names, [b""; 0]);
    }

    #[test]
    fn memory_is_bounded_and_the_last_are_known() {
        let mut known = Names::default();
        for number in 0..1000 {
            let line = format!("RCPT TO:<name{number}@x{number}.example>");
            known.add(&Command::new(line.as_bytes(), Time(0), Time(0)));
        }
        assert!(known.memory() < 3 * MAX_BYTES, "{}", known.memory());
        assert_eq!(known.repeated_in(b"name999").names, [b"name999".to_vec()]);
        let mut one = names(&["RCPT TO:<bob@x.example>"]);
        let cost = one.entries.len();
        one.add(&Command::new(b"RCPT TO:<BOB@x.example>", Time(0), Time(0)));
        assert_eq!(one.entries.len(), cost, "each once");
    }
}
