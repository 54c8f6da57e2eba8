//! Names that a text gives for others: an alias, or where a mailbox's messages go. Nothing else tells that they are names.

use memchr::memmem;

use super::starts::{Starts, is_word};
use super::words::words;

/// A name stands behind one of these.
/// `try` is that of RFC 5321's 551: "User not local; please try <forward-path>".
const BEHIND: [&str; 7] = ["->", "=>", "alias", "aliases", "try", "user", "username"];

/// A name stands behind one of the first and one of the second.
const BEHIND_TWO: [(&[&str], &[&str]); 2] = [
    (
        &[
            "alias",
            "aliased",
            "forward",
            "forwarded",
            "forwarding",
            "forwards",
            "redirect",
            "redirected",
            "expanded",
            "expands",
            "delivered",
            "delivering",
            "rewritten",
            "mapped",
            "resolved",
            "resolves",
            "moved",
            "renamed",
        ],
        &["to"],
    ),
    (&["alias", "aliases", "mailbox", "inbox", "account", "known", "delivered", "rewritten"], &["of", "for", "as"]),
];

/// These stand there, too, and are no names.
const ORDINARY: [&str; 84] = [
    "a",
    "accepted",
    "account",
    "address",
    "addresses",
    "again",
    "alias",
    "an",
    "and",
    "another",
    "any",
    "are",
    "as",
    "at",
    "available",
    "can",
    "cannot",
    "count",
    "database",
    "denied",
    "disabled",
    "does",
    "doesn't",
    "domain",
    "different",
    "exceeded",
    "exist",
    "exists",
    "expansion",
    "for",
    "from",
    "full",
    "has",
    "here",
    "in",
    "inactive",
    "invalid",
    "is",
    "isn't",
    "known",
    "later",
    "limit",
    "list",
    "local",
    "locked",
    "lookup",
    "loop",
    "mailbox",
    "may",
    "must",
    "name",
    "no",
    "not",
    "of",
    "ok",
    "okay",
    "on",
    "or",
    "over",
    "quota",
    "recipient",
    "rejected",
    "remote",
    "requires",
    "sender",
    "server",
    "sending",
    "size",
    "storage",
    "suspended",
    "syntax",
    "table",
    "temporarily",
    "that",
    "the",
    "this",
    "to",
    "too",
    "unavailable",
    "unknown",
    "using",
    "user",
    "was",
    "with",
];

/// Whether a text whose words begin with these can introduce a name.
pub(super) fn may_be_among(starts: Starts) -> bool {
    const ALONE: Starts = Starts::of_words(&BEHIND);
    const PAIRS: [(Starts, Starts); 2] = [
        (Starts::of_words(BEHIND_TWO[0].0), Starts::of_words(BEHIND_TWO[0].1)),
        (Starts::of_words(BEHIND_TWO[1].0), Starts::of_words(BEHIND_TWO[1].1)),
    ];
    starts.meet(ALONE) || PAIRS.iter().any(|(firsts, seconds)| starts.meet(*firsts) && starts.meet(*seconds))
}

/// The names that a text introduces as such.
pub(super) fn names(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    // A mailbox is hidden as one, and must not be torn at a blank in its quotes.
    let is_torn = move |word: &[u8]| {
        word.iter().filter(|&&byte| byte == b'"').count() % 2 == 1 && memmem::find(text, b"\"@").is_some()
    };
    let mut before: [&[u8]; 2] = [b"", b""];
    words(text).filter_map(move |word| {
        let bare = bare(word);
        let is_name =
            is_introduced(before) && bare.len() > 1 && !bare.contains(&b'@') && !is_ordinary(bare) && !is_torn(word);
        before = [before[1], if bare.is_empty() { word } else { bare }];
        is_name.then_some(bare)
    })
}

/// Whether a word stands in many replies, whatever it may be the name of.
pub(super) fn is_ordinary(word: &[u8]) -> bool {
    is_one_of(word, &ORDINARY)
}

fn is_introduced([first, second]: [&[u8]; 2]) -> bool {
    is_one_of(second, &BEHIND)
        || BEHIND_TWO.iter().any(|(firsts, seconds)| is_one_of(second, seconds) && is_one_of(first, firsts))
}

fn is_one_of(word: &[u8], words: &[&str]) -> bool {
    words.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(word))
}

/// A word without the signs around it. In a recording stars stand for one.
fn bare(word: &[u8]) -> &[u8] {
    let is_star = |byte: &u8| *byte == b'*';
    let within = |is_of_it: &dyn Fn(&u8) -> bool| {
        let (first, last) = (word.iter().position(is_of_it)?, word.iter().rposition(is_of_it)?);
        Some(&word[first..=last])
    };
    within(&is_word).or_else(|| within(&is_star)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_names() {
        for (text, expected) in [
            ("2.1.5 ok, alias robert", &["robert"][..]),
            ("bob (alias of robert.smith) ok", &["robert.smith"]),
            ("bob -> robert, => \"rob_s\"", &["robert", "rob_s"]),
            ("2.1.5 aliased to <robert>", &["robert"]),
            ("User robert unknown", &["robert"]),
            ("Mailbox for 'robert' is full, forwarded to rita.", &["robert", "rita"]),
            ("Delivered to\trobert", &["robert"]),
            ("User not local; please try robert", &["robert"]),
            ("User ******, alias (**)", &["******", "**"]),
            ("User \u{201c}robert\u{201d} unknown", &["robert"]),
            ("alias\u{a0}robert\u{2026} ok", &["robert"]),
            ("\u{ab}User\u{bb} ren\u{e9}\u{2014}unknown", &["ren\u{e9}"]),
        ] {
            let found: Vec<_> = names(text.as_bytes()).map(|name| String::from_utf8_lossy(name).into_owned()).collect();
            assert_eq!(found, expected, "{text}");
            assert!(may_be_among(Starts::in_text(text.as_bytes())), "{text}");
        }
    }

    #[test]
    fn ordinary_texts_have_none() {
        for text in [
            "5.1.1 User unknown",
            "5.1.1 The email account that you tried to reach does not exist",
            "5.2.2 mailbox full",
            "5.7.1 Recipient address rejected: Access denied",
            "2.1.5 Recipient ok",
            "Requested mail action not taken: mailbox unavailable",
            "User not local; please try <robert@y.example>",
            "User <\"robert smith\"@y.example> unknown",
            "4.7.1 Greylisted, please try again later",
            "4.3.2 Please try later",
            "5.1.1 User doesn't exist: robert@y.example",
            "2.0.0 Ok: queued as 4Q1ABC",
            "",
        ] {
            assert_eq!(names(text.as_bytes()).next(), None, "{text}");
        }
    }
}
