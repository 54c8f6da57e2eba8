//! Finding mailboxes in paths and texts, and hiding their names.

use std::ops::Range;

use super::pseudonym::StandIn;
use crate::smtp::{Path, domain_length, is_domain, mailbox_length, occurrences, parts_words, plain_bytes};

/// Hides mailbox names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask {
    /// The domain stays.
    pub(super) domain: bool,
    /// What stands for a name.
    pub(super) stand_in: StandIn,
}

impl Mask {
    /// MAIL's or RCPT's argument. Parameters are shown as far as they can name no mailbox; from the first word on that is no
    /// known one, all is hidden.
    pub(super) fn path(self, path: &Path<'_>) -> Vec<u8> {
        let mut shown = [path.before, &self.mailbox(path.mailbox)].concat();
        let (bracket, mut rest) = path.after.split_at(usize::from(path.after.first() == Some(&b'>')));
        shown.extend_from_slice(bracket);
        while !rest.is_empty() {
            let start = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let (blanks, words) = rest.split_at(start);
            shown.extend_from_slice(blanks);
            let (word, behind) = words.split_at(words.iter().position(u8::is_ascii_whitespace).unwrap_or(words.len()));
            // What stands right behind the path is no parameter.
            let plain = if blanks.is_empty() { 0 } else { plain_bytes(word) };
            shown.extend_from_slice(&word[..plain]);
            let (hidden, next) = if plain == 0 { (words, &[][..]) } else { (&word[plain..], behind) };
            if !hidden.is_empty() {
                self.stand_in.name(hidden, &mut shown);
            }
            rest = next;
        }
        shown
    }

    /// A mailbox: `bob@example.org`, with or without a source route. The null path stays.
    pub(super) fn mailbox(self, mailbox: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(mailbox.len());
        self.write_mailbox(mailbox, &mut shown);
        shown
    }

    fn write_mailbox(self, mailbox: &[u8], shown: &mut Vec<u8>) {
        if !mailbox.is_empty() {
            let hidden = self.hidden_part(mailbox);
            self.stand_in.name(hidden, shown);
            shown.extend_from_slice(&mailbox[hidden.len()..]);
        }
    }

    /// The part of a mailbox that is not shown.
    pub(super) fn hidden_part(self, mailbox: &[u8]) -> &[u8] {
        match domain_of(mailbox) {
            Some(domain) if self.domain => &mailbox[..mailbox.len() - domain.len()],
            _ => mailbox,
        }
    }

    /// A line of text with its mailboxes hidden: what stands before an `@`, and what stands in angle brackets.
    pub(super) fn text(self, line: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(line.len());
        self.write_text(line, &mut shown);
        shown
    }

    fn write_text(self, line: &[u8], shown: &mut Vec<u8>) {
        let mut rest = line;
        while let Some(&first) = rest.first() {
            let length = match first {
                b'<' => match mailbox_length(&rest[1..], |byte| byte == b'>') + 1 {
                    end if end < rest.len() => {
                        shown.push(b'<');
                        self.bracketed(&rest[1..end], shown);
                        shown.push(b'>');
                        end + 1
                    }
                    _ => {
                        shown.push(b'<');
                        1
                    }
                },
                b'"' => self.quoted(rest, shown),
                _ if parts_words(first) => {
                    shown.push(first);
                    1
                }
                _ => {
                    let end = rest.iter().position(|&byte| parts_words(byte)).unwrap_or(rest.len());
                    self.word(&rest[..end], shown);
                    end
                }
            };
            rest = &rest[length..];
        }
    }

    /// What stands in angle brackets: a mailbox, or one of the names that servers write there (`<CRLF>`).
    fn bracketed(self, text: &[u8], shown: &mut Vec<u8>) {
        const NAMES: &[&[u8]] = &[b"CRLF", b"CR", b"LF", b"SP", b"address", b"domain", b"hostname"];
        match NAMES.iter().any(|name| name.eq_ignore_ascii_case(text)) {
            true => shown.extend_from_slice(text),
            false => self.write_mailbox(text, shown),
        }
    }

    /// A quoted text, which may be a mailbox's name. Returns how many bytes it has.
    fn quoted(self, text: &[u8], shown: &mut Vec<u8>) -> usize {
        let length = 1 + closing_quote(&text[1..]);
        let sign = sign_length(&text[length..]);
        if sign == 0 {
            shown.push(b'"');
            return 1;
        }
        // Behind the domain, and a sign that is of none, another mailbox may stand.
        let end = length + sign + domain_length(&text[length + sign..]);
        self.split(&text[..end], length, shown);
        end
    }

    /// A word, and all mailboxes in it: a colon may stand between them.
    fn word(self, word: &[u8], shown: &mut Vec<u8>) {
        // Nearly all have one at most.
        let (mut end, mut first, mut others) = (word.len(), None, Vec::new());
        // From the last to the first, so that each byte is looked at once.
        while let Some(at) = (1..end).rev().find(|&at| sign_length(&word[at..end]) > 0) {
            let start = word[..at].iter().rposition(|&byte| byte == b':').map_or(0, |colon| colon + 1);
            others.extend(first.replace((start, at, end)));
            end = start;
        }
        shown.extend_from_slice(&word[..end]);
        for (start, at, end) in first.into_iter().chain(others.into_iter().rev()) {
            let (mailbox, colon) = word[start..end].split_at(end - start - usize::from(end < word.len()));
            self.split(mailbox, at - start, shown);
            shown.extend_from_slice(colon);
        }
    }

    /// A mailbox whose domain begins at `at`, with its sign.
    fn split(self, mailbox: &[u8], at: usize, shown: &mut Vec<u8>) {
        let (hidden, rest) = mailbox.split_at(if self.domain { at } else { mailbox.len() });
        self.stand_in.name(hidden, shown);
        shown.extend_from_slice(rest);
    }
}

/// Whether a mailbox may stand in the line: without any of these signs none does.
pub(super) fn may_hold(line: &[u8]) -> bool {
    line.iter().any(|byte| matches!(byte, b'<' | b'@' | b'+' | b'%'))
}

/// Where any of these words stands as it is written, and is no part of a longer word. Places that overlap or touch become
/// one: of a name nothing is left, and what stands for several names side by side stands for one when it is read again.
pub(super) fn all_occurrences<'a>(text: &[u8], words: impl Iterator<Item = &'a Vec<u8>>) -> Vec<Range<usize>> {
    let places = |word: &'a Vec<u8>| occurrences(text, word).filter(|place| text[place.clone()] == **word);
    let mut places: Vec<_> = words.flat_map(places).collect();
    places.sort_unstable_by_key(|place| place.start);
    places.dedup_by(|place, before| {
        let meets = place.start <= before.end;
        before.end = if meets { before.end.max(place.end) } else { before.end };
        meets
    });
    places
}

/// The text with something else at these places.
pub(super) fn with(text: &[u8], places: &[Range<usize>], stand_in: impl Fn(Range<usize>) -> Vec<u8>) -> Vec<u8> {
    let mut shown = Vec::with_capacity(text.len());
    let mut end = 0;
    for place in places {
        shown.extend_from_slice(&text[end..place.start]);
        shown.extend(stand_in(place.clone()));
        end = place.end;
    }
    shown.extend_from_slice(&text[end..]);
    shown
}

/// The domain with its `@`. Behind that of an address list or of a source route a further name may stand.
fn domain_of(mailbox: &[u8]) -> Option<&[u8]> {
    let at = mailbox.iter().rposition(|&byte| byte == b'@')?;
    is_domain(&mailbox[at + 1..]).then(|| &mailbox[at..])
}

/// Bytes of the `@` that a text begins with; it may be written `+40` (RFC 3461, 4) or `%40`.
fn sign_length(text: &[u8]) -> usize {
    match text {
        [b'@', ..] => 1,
        [b'+' | b'%', b'4', b'0', ..] => 3,
        _ => 0,
    }
}

fn closing_quote(bytes: &[u8]) -> usize {
    let mut escaped = false;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(domain: bool, line: &str) -> String {
        let mask = Mask { domain, stand_in: StandIn::Star };
        String::from_utf8(mask.text(line.as_bytes())).expect("text in, text out")
    }

    #[test]
    fn texts_with_mailboxes() {
        for (line, with_domain, without) in [
            ("5.1.1 <bob@x.example>: no", "5.1.1 <*@x.example>: no", "5.1.1 <*>: no"),
            ("bob.smith+tag@x.example... ok", "*@x.example... ok", "* ok"),
            ("<\"b > c\"@x.example> no", "<*@x.example> no", "<*> no"),
            ("\"bob smith\"@x.example no", "*@x.example no", "* no"),
            ("a \"quoted\" word", "a \"quoted\" word", "a \"quoted\" word"),
            ("mailto:bob@x.example, (ann@y.example)", "mailto:*@x.example, (*@y.example)", "mailto:*, (*)"),
            ("rfc822;bob+40x.example", "rfc822;*+40x.example", "rfc822;*"),
            ("192.0.2.1:ann@y.example:bob@x.example", "192.0.2.1:*@y.example:*@x.example", "192.0.2.1:*:*"),
            ("a@x.example:b%40y.example::c+40z.example", "*@x.example:*%40y.example::*+40z.example", "*:*:*"),
            ("@r.example:bob@x.example", "@r.example:*@x.example", "@r.example:*"),
            ("mailto:pm@y.example?cc=ann%40z.example", "mailto:*%40z.example", "mailto:*"),
            ("\"bob zz\"@x.example/ann@y.example", "*@x.example*@y.example", "**"),
            ("\"bob zz\"@[192.0.2.1]:\"ann zz\"@y.example", "*@[192.0.2.1]:*@y.example", "*:*"),
            ("\"bob zz\"%40x.example, \"ann zz\"+40y.example", "*%40x.example, *+40y.example", "*, *"),
            ("\"bob zz\"@[x ann@y.example", "*@[x *@y.example", "*[x *"),
            ("<bob>: unknown", "<*>: unknown", "<*>: unknown"),
            ("bücher@x.example", "*@x.example", "*"),
            ("queued as <1@x.example", "queued as <*@x.example", "queued as <*"),
        ] {
            assert_eq!(text(true, line), with_domain);
            assert_eq!(text(false, line), without);
        }
    }

    #[test]
    fn texts_without_mailboxes() {
        for line in [
            "End data with <CR><LF>.<CR><LF>",
            "Start mail input; end with <CRLF>.<CRLF>",
            "MAIL FROM:<>",
            "@x.example",
            "2.0.0 Ok: queued as 4Q1\" <",
            "",
        ] {
            assert_eq!(text(true, line), line);
            assert_eq!(text(false, line), line);
        }
    }

    #[test]
    fn words_are_hidden_whole() {
        let hidden = |text: &str, words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            let places = all_occurrences(text.as_bytes(), words.iter());
            String::from_utf8(with(text.as_bytes(), &places, |_| b"*".to_vec())).expect("text in, text out")
        };
        assert_eq!(hidden("bob, bobby and bob", &["bob"]), "*, bobby and *");
        assert_eq!(hidden("bob", &[""]), "bob");
        assert_eq!(hidden("Recipient ok", &["recipient"]), "Recipient ok");
        assert_eq!(hidden("\u{201c}bob\u{201d}", &["bob"]), "\u{201c}*\u{201d}");
        assert_eq!(hidden("to bob smith jones, bob", &["bob smith", "smith jones", "bob"]), "to *, *");
        assert_eq!(hidden("bob+tag ann", &["bob", "+tag", "ann"]), "* *");
    }
}
