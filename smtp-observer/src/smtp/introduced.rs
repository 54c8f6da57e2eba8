//! Names that a text gives for others: an alias, or where a mailbox's messages go. Nothing else tells that they are names.

use memchr::{memchr, memchr2, memmem};

use super::parameter::is_one_of;
use super::starts::{Starts, is_word};
use super::words::words;

/// A name stands behind one of these.
/// `try` is that of RFC 5321's 551: "User not local; please try <forward-path>".
const BEHIND: [&str; 7] = ["->", "=>", "alias", "aliases", "try", "user", "username"];

/// A text that speaks of one of these may end with its name, behind a colon or a dash: `No such user - bob`.
const SUBJECTS: [&str; 9] =
    ["account", "address", "alias", "inbox", "login", "mailbox", "recipient", "user", "username"];

/// The values of these are names: `(user=bob)`, `uid=bob,ou=people`.
const KEYS: [&str; 10] = ["account", "alias", "cn", "login", "mail", "mailbox", "recipient", "uid", "user", "username"];

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
const ORDINARY: [&str; 167] = [
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
    "be",
    "been",
    "blocked",
    "busy",
    "but",
    "by",
    "can",
    "cannot",
    "closed",
    "couldn't",
    "count",
    "currently",
    "database",
    "deactivated",
    "delayed",
    "deleted",
    "delivery",
    "denied",
    "did",
    "didn't",
    "different",
    "disabled",
    "does",
    "doesn't",
    "domain",
    "error",
    "exceeded",
    "exceeding",
    "exceeds",
    "exist",
    "exists",
    "expansion",
    "expired",
    "failed",
    "failure",
    "for",
    "format",
    "found",
    "from",
    "full",
    "greylisted",
    "had",
    "has",
    "hasn't",
    "have",
    "here",
    "host",
    "if",
    "in",
    "inactive",
    "inbound",
    "incorrect",
    "into",
    "invalid",
    "is",
    "isn't",
    "it",
    "its",
    "known",
    "later",
    "limit",
    "limits",
    "list",
    "local",
    "locked",
    "lookup",
    "loop",
    "mail",
    "mailbox",
    "mailboxes",
    "may",
    "message",
    "migrated",
    "moved",
    "must",
    "name",
    "no",
    "not",
    "of",
    "ok",
    "okay",
    "on",
    "only",
    "or",
    "over",
    "permanently",
    "please",
    "policy",
    "quota",
    "reached",
    "receiving",
    "recipient",
    "rejected",
    "relay",
    "relaying",
    "remote",
    "removed",
    "require",
    "required",
    "requires",
    "reserved",
    "restricted",
    "sender",
    "sending",
    "server",
    "setup",
    "size",
    "space",
    "status",
    "still",
    "storage",
    "store",
    "such",
    "suspended",
    "syntax",
    "table",
    "temporarily",
    "than",
    "that",
    "the",
    "there",
    "they",
    "this",
    "to",
    "too",
    "unavailable",
    "undeliverable",
    "under",
    "unknown",
    "unreachable",
    "unverified",
    "usage",
    "user",
    "user's",
    "using",
    "validation",
    "verification",
    "verified",
    "verify",
    "via",
    "was",
    "wasn't",
    "we",
    "when",
    "which",
    "while",
    "will",
    "with",
    "won't",
    "would",
    "you",
    "your",
];

/// Whether a text whose words begin with these can introduce a name.
pub(super) fn may_be_among(starts: Starts) -> bool {
    const ALONE: Starts = Starts::of_words(&BEHIND).and(Starts::of_words(&SUBJECTS)).and(Starts::of_words(&KEYS));
    const PAIRS: [(Starts, Starts); 2] = [
        (Starts::of_words(BEHIND_TWO[0].0), Starts::of_words(BEHIND_TWO[0].1)),
        (Starts::of_words(BEHIND_TWO[1].0), Starts::of_words(BEHIND_TWO[1].1)),
    ];
    starts.meet(ALONE) || PAIRS.iter().any(|(firsts, seconds)| starts.meet(*firsts) && starts.meet(*seconds))
}

/// The names that a text introduces as such.
pub(super) fn names(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Most texts have neither of these signs.
    let with_values = if memchr(b'=', text).is_some() { text } else { b"" };
    let with_ends = if memchr2(b':', b'-', text).is_some() { text } else { b"" };
    let at_ends = with_ends.split(|byte| *byte == b'\n').filter_map(at_end);
    behind_words(text).chain(values(with_values)).chain(at_ends)
}

/// Names behind words that introduce them.
fn behind_words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    // A mailbox is hidden as one, and must not be torn at a blank in its quotes.
    let is_torn = move |word: &[u8]| {
        word.iter().filter(|&&byte| byte == b'"').count() % 2 == 1 && memmem::find(text, b"\"@").is_some()
    };
    let mut before: [&[u8]; 2] = [b"", b""];
    words(text).filter_map(move |word| {
        let bare = bare(word);
        let is_name = is_introduced(before) && may_be_name(bare) && !is_torn(word);
        before = [before[1], if bare.is_empty() { word } else { bare }];
        is_name.then_some(bare)
    })
}

/// Names that stand as values behind keys.
fn values(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parts = words(text).flat_map(|word| word.split(|byte| matches!(byte, b',' | b';' | b'&' | b'(' | b')')));
    parts.filter_map(|part| {
        let (key, value) = part.split_at(memchr(b'=', part)?);
        let name = bare(value);
        (is_one_of(bare(key), &KEYS) && !value.contains(&b'@') && may_be_name(name)).then_some(name)
    })
}

/// The name with which a line ends that speaks of one.
fn at_end(line: &[u8]) -> Option<&[u8]> {
    let mut all: [&[u8]; 2] = [b"", b""];
    let mut speaks = false;
    for word in words(line) {
        speaks |= is_one_of(bare(all[1]), &SUBJECTS);
        all = [all[1], word];
    }
    let name = bare(all[1]);
    let is_behind_sign = all[0].ends_with(b":") || all[0] == b"-";
    let speaks = speaks || is_one_of(bare(all[0]), &SUBJECTS);
    // Of a mailbox whose name is hidden, the domain is left.
    (speaks && is_behind_sign && !all[1].contains(&b'@') && may_be_name(name)).then_some(name)
}

fn may_be_name(word: &[u8]) -> bool {
    word.len() > 1 && !word.contains(&b'@') && !is_ordinary(word)
}

/// Whether a word stands in many replies, whatever it may be the name of.
pub(super) fn is_ordinary(word: &[u8]) -> bool {
    is_one_of(word, &ORDINARY)
}

fn is_introduced([first, second]: [&[u8]; 2]) -> bool {
    is_one_of(second, &BEHIND)
        || BEHIND_TWO.iter().any(|(firsts, seconds)| is_one_of(second, seconds) && is_one_of(first, firsts))
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
            ("5.1.1 User doesn't exist: robert", &["robert"]),
            ("No such user - robert", &["robert"]),
            ("no such person (user=robert)", &["robert"]),
            ("not found: uid=robert,ou=people", &["robert"]),
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
            "5.2.1 The recipient's mailbox has been disabled",
            "4.2.1 Mailbox busy",
            "5.7.1 Recipient address rejected: greylisted",
            "2.1.5 OK: recipient address verified",
            "5.1.1 Account closed: permanently",
            "SIZE=10240000",
            "2.0.0 Ok: queued as 4Q1ABC",
            "",
        ] {
            assert_eq!(names(text.as_bytes()).next(), None, "{text}");
        }
    }
}
