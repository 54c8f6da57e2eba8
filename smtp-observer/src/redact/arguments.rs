//! What is shown of a program's arguments: no password, and of mailboxes as much as the policy allows.
//!
//! An argument is a secret where its option names one (`--auth-password x`, `-ap x`, `password=x`), where it stands in an address
//! (`smtp://user:x@host`), or behind a user's name (`-u user:x`, of curl). Of a text with blanks, which may be code, it is
//! not certain where a secret begins: all of it is one if it speaks of any, or if one of its words would be hidden alone.
//! In doubt an argument is hidden: one that was none costs little.
//!
//! A mailbox is what has an `@`, and what stands behind an option that names one: there it may have no domain.

use std::borrow::Cow;

use smtp_ebpf::event::ARGUMENTS_LENGTH;

use super::RedactionPolicy;
use super::mailbox::Mask;

/// What stands for a secret.
const SECRET: &str = "***";

/// Parts of words that name a secret.
const NAMES: [&str; 16] = [
    "pass",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api-key",
    "api_key",
    "bearer",
    "credential",
    "private-key",
    "accesskey",
    "access-key",
    "access_key",
    "otp",
    "cookie",
    "sasl",
];

/// More parts of words that tell that a secret is near: a user's name may stand before it.
const LOGINS: [&str; 2] = ["auth", "login"];

/// Last words of a password's name: of swaks, sendEmail, PuTTY, blat and TLS libraries.
const SHORT: [&str; 5] = ["ap", "xp", "pw", "apt", "psk"];

/// Last words of an option that may have a secret for its value.
const DOUBTFUL: [&str; 2] = ["auth", "key"];

/// A secret stands behind one of these words of SMTP and HTTP.
const MECHANISMS: [&str; 5] = ["plain", "login", "basic", "xoauth2", "ntlm"];

/// A value stands behind them.
const SIGNS: [char; 5] = ['=', ':', '(', '"', '\''];

/// Last words of options, parameters and header fields whose value is a mailbox, or a user who has one.
const MAILBOXES: [&str; 16] = [
    "to",
    "from",
    "cc",
    "bcc",
    "rcpt",
    "recipient",
    "recipients",
    "sender",
    "user",
    "username",
    "login",
    "mailbox",
    "email",
    "mailto",
    "au",
    "xu",
];

/// They may stand behind the last one.
const MORE: [&str; 5] = ["address", "addresses", "addr", "name", "list"];

/// Options for a sender and recipients: of sendmail, mail and swaks; in code only where it speaks of mail. Postfix names the
/// kind of a socket behind `-t`.
const MAILBOX_OPTIONS: [&str; 3] = ["f", "r", "t"];
const SOCKETS: [&str; 4] = ["inet", "unix", "fifo", "pass"];

/// What stands before a colon that is no user's name, though an `@` follows.
const FIELDS: [&str; 9] = ["mailto", "from", "to", "cc", "bcc", "sender", "reply-to", "rfc822", "utf-8"];

impl RedactionPolicy {
    /// A program's arguments as they are shown. Arguments that were shown so are shown again alike.
    pub fn arguments(self, arguments: &[String]) -> Vec<String> {
        let mut before: &str = "";
        let mut shown = Vec::with_capacity(arguments.len());
        let is_cut = arguments.iter().map(|argument| argument.len() + 1).sum::<usize>() >= ARGUMENTS_LENGTH;
        for (place, argument) in arguments.iter().enumerate() {
            let is_program = place == 0 && !argument.contains(char::is_whitespace);
            let whole = match is_cut && place + 1 == arguments.len() {
                true => without_last_word(argument).into(),
                false => Cow::Borrowed(&**argument),
            };
            let without_secrets = match is_program {
                true => whole,
                false => without_secrets(before, &whole).into_owned().into(),
            };
            shown.push(self.mailboxes(before, &without_secrets));
            before = if is_program { "" } else { argument };
        }
        shown
    }
}

impl RedactionPolicy {
    /// An argument, behind the one `before` it, with the mailboxes in it as far as they are shown. Angle brackets may stand for
    /// anything there, so that a text is looked at word by word, unless a quoted name may have blanks.
    fn mailboxes(self, before: &str, argument: &str) -> String {
        let Some(mask) = self.mask() else { return argument.to_owned() };
        if takes_mailbox(before, argument) || may_take_mailbox(before, argument) || is_name_with_address(argument) {
            return mask.addresses(argument);
        }
        if !argument.contains(char::is_whitespace) {
            return mask.in_word(argument);
        }
        let text = match argument.contains("\"@") {
            true => mask.shown(argument).into(),
            false => Cow::Borrowed(argument),
        };
        let is_of_mail = text.contains("mail") || text.contains("swaks");
        let mut before = "";
        let words = text.split_inclusive(char::is_whitespace).map(|part| {
            let word = part.trim_end();
            let before = std::mem::replace(&mut before, word.trim_matches(['"', '\'']));
            let shown = match takes_mailbox(before, word) || is_of_mail && may_take_mailbox(before, word) {
                true => mask.addresses(word),
                false => mask.in_word(word),
            };
            shown + &part[word.len()..]
        });
        words.collect()
    }
}

impl Mask {
    fn shown(self, text: &str) -> String {
        String::from_utf8_lossy(&self.text(text.as_bytes())).into_owned()
    }

    fn name(self, hidden: &str) -> String {
        let mut shown = Vec::new();
        self.stand_in.name(hidden.as_bytes(), &mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// A word of a text, or an argument that is one.
    pub(super) fn in_word(self, word: &str) -> String {
        // `--to=bob`, `-ubob:***`, `smtp://bob:***@host`
        let user = end_of_short_options(word).filter(|&end| word[end..].contains([':', ',']));
        if let Some(start) = behind_mailbox_name(word).or(user) {
            return word[..start].to_owned() + &self.addresses(&word[start..]);
        }
        let address = word.rfind('@').filter(|&at| word[..at].contains("://"));
        if let Some(end) = word.find(":***@").or(address) {
            let start = word[..end].rfind("://").map(|scheme| scheme + 3);
            let start = start.or_else(|| Some(word[..end].rfind(['=', ',', ';', '(', '"', '\''])? + 1)).unwrap_or(0);
            let user = if start < end { self.name(&word[start..end]) } else { String::new() };
            return word[..start].to_owned() + &user + &self.shown(&word[end..]);
        }
        // X.400 has mailboxes with slashes, and an equals sign behind each (RFC 2156, 2.3).
        if word.starts_with('/') && !word.contains('=') {
            return word.split_inclusive('/').map(|part| self.in_list(part)).collect();
        }
        self.in_list(word)
    }

    /// A mailbox, or several.
    pub(super) fn in_list(self, word: &str) -> String {
        let has_sign = |text: &str| ["@", "%40", "+40"].iter().any(|sign| text.contains(sign));
        if !has_sign(word) {
            return word.to_owned();
        }
        // What stands beside a mailbox in a list is one.
        let parts = word.split_inclusive([',', ';']).map(|part| match has_sign(part) {
            true => self.shown(part),
            false => self.addresses(part),
        });
        parts.collect()
    }

    /// Mailboxes with or without a domain, and in brackets behind a name.
    pub(super) fn addresses(self, list: &str) -> String {
        let shown = list.split_inclusive([',', ';']).map(|part| {
            let address = part.trim_end_matches([',', ';']);
            self.address(address) + &part[address.len()..]
        });
        shown.collect()
    }

    fn address(self, address: &str) -> String {
        let is_number = |byte: u8| byte.is_ascii_digit() || b".:[]".contains(&byte);
        if address == SECRET || address.bytes().all(is_number) {
            return address.to_owned();
        }
        let (start, inner) = address.strip_prefix('<').map_or(("", address), |inner| ("<", inner));
        let (inner, end) =
            inner.strip_suffix('>').map_or((inner, ""), |inner| (inner, if start.is_empty() { "" } else { ">" }));
        let domain = &inner[self.hidden_part(inner.as_bytes()).len()..];
        [start, &self.name(&inner[..inner.len() - domain.len()]), domain, end].concat()
    }
}

/// Whether an argument behind an option is a mailbox, or several.
fn takes_mailbox(option: &str, argument: &str) -> bool {
    let is_value = option.starts_with('-') && !argument.starts_with('-');
    is_value && (names_mailbox(option) || end_of_short_options(option) == Some(option.len()))
}

/// The same of an option that means something else to most programs.
fn may_take_mailbox(option: &str, argument: &str) -> bool {
    option.strip_prefix('-').is_some_and(|name| MAILBOX_OPTIONS.contains(&name.trim_start_matches('-')))
        && !argument.starts_with('-')
        && !argument.contains(['/', '@'])
        && !SOCKETS.contains(&argument)
}

/// Whether the last word of an option or of a header field's name tells of a mailbox.
fn names_mailbox(name: &str) -> bool {
    let mut words = name.rsplit(|sign: char| !sign.is_ascii_alphanumeric()).filter(|word| !is_one_of(word, &MORE));
    words.next().is_some_and(|word| is_one_of(word, &MAILBOXES))
}

/// Where a value begins behind a name that tells of a mailbox: `--to=`, `from:`, `?user=`.
fn behind_mailbox_name(word: &str) -> Option<usize> {
    let mut signs = word.match_indices(['=', ':']);
    signs.find(|&(end, _)| end + 1 < word.len() && names_mailbox(&word[..end])).map(|(end, _)| end + 1)
}

/// Whether a text is a mailbox with blanks in its name, or behind a person's name, and nothing else.
fn is_name_with_address(text: &str) -> bool {
    let has_option = || text.split_whitespace().any(|word| word.starts_with('-'));
    text.contains(char::is_whitespace)
        && (text.contains('@') || text.contains("%40"))
        && !text.contains(['$', '|', '&', '(', ')', '{', '}', '=', '/', '\\', '\n'])
        && !has_option()
}

/// An argument that may be cut: what its last word is was told by what is missing, as an `@`.
fn without_last_word(argument: &str) -> String {
    argument.trim_end_matches(|sign: char| !sign.is_whitespace()).to_owned() + "..."
}

/// An argument without its secrets, behind the one `before` it.
fn without_secrets<'a>(before: &str, argument: &'a str) -> Cow<'a, str> {
    let is_text = argument.contains(char::is_whitespace);
    match takes_secret(before) || may_take_secret(before, argument) || is_text && tells_secret(argument) {
        true => SECRET.into(),
        false => without_parts(before, argument),
    }
}

/// Whether a text speaks of a secret, or has one of its words hidden.
fn tells_secret(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    if NAMES.iter().chain(&LOGINS).any(|name| lower.contains(name)) {
        return true;
    }
    let mut before = "";
    let mut words =
        text.split(|sign: char| sign.is_whitespace() || "\"'`".contains(sign)).filter(|word| !word.is_empty());
    words.any(|word| {
        let before = std::mem::replace(&mut before, word);
        takes_secret(before) || may_take_secret(before, word) || matches!(without_parts(before, word), Cow::Owned(_))
    })
}

/// Whether the argument behind an option, or behind such a word, is a secret.
fn takes_secret(option: &str) -> bool {
    let name = option.trim_start_matches('-').trim_end_matches(['=', ':']);
    let has_sign = name.len() < option.len();
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || byte == b'.' && has_sign;
    if !name.bytes().all(is_of_name) {
        return false;
    }
    // `--password-stdin`, `--auth-hide-password`, `--no-pass` have no value.
    let takes_none = name.ends_with("-stdin")
        || name.split('-').any(|part| matches!(part, "no" | "hide" | "ask" | "prompt" | "protect" | "show"));
    let is_mechanism = !has_sign && is_one_of(name, &MECHANISMS);
    is_mechanism || !takes_none && (is_one_of(last_word(name), &SHORT) || speaks_of(name, &NAMES))
}

/// The same of an option that may have a secret for its value: another option, or a mechanism of AUTH, is none.
fn may_take_secret(option: &str, argument: &str) -> bool {
    option.starts_with('-')
        && is_one_of(last_word(option), &DOUBTFUL)
        && !argument.starts_with('-')
        && !is_one_of(argument, &MECHANISMS)
}

fn last_word(name: &str) -> &str {
    name.rsplit(|sign: char| !sign.is_ascii_alphanumeric()).next().unwrap_or_default()
}

/// An argument without the secrets that it has itself.
fn without_parts<'a>(before: &str, argument: &'a str) -> Cow<'a, str> {
    let shown = without_user_information(argument);
    let signs = [behind_name(&shown), behind_short_name(&shown), behind_user(before, &shown)];
    match signs.into_iter().flatten().filter(|&end| end < shown.len()).min() {
        Some(end) => format!("{}{SECRET}", &shown[..end]).into(),
        None => shown,
    }
}

/// Where a value begins behind what names a secret, wherever in the argument: `--password=`, `"token":"`, `login(`.
fn behind_name(argument: &str) -> Option<usize> {
    let lower = argument.to_ascii_lowercase();
    let ends = NAMES.iter().chain(&LOGINS).filter_map(|name| Some(lower.find(name)? + name.len()));
    ends.filter_map(|end| Some(end + lower[end..].find(SIGNS)? + 1)).min()
}

/// The same of a name whose last word is one of the short ones: `--smtp-pw=`, `?pw=`, `--key=`.
fn behind_short_name(argument: &str) -> Option<usize> {
    let is_short = |&(end, _): &(usize, &str)| {
        let last = last_word(&argument[..end]);
        is_one_of(last, &SHORT) || is_one_of(last, &DOUBTFUL)
    };
    argument.match_indices(SIGNS).find(is_short).map(|(end, _)| end + 1)
}

/// Where a password begins behind a user's name: `bob:x` and `bob,x` behind `-u` or `--user=`, and in `-sSubob:x`.
fn behind_user(before: &str, argument: &str) -> Option<usize> {
    let start = match argument.split_once('=') {
        _ if names_user(before) => 0,
        Some((option, _)) if names_user(option) => option.len() + 1,
        _ => end_of_short_options(argument)?,
    };
    Some(start + argument[start..].find([':', ','])? + 1)
}

/// Whether the value of an option is a user's name, and may be its password, too.
fn names_user(option: &str) -> bool {
    !option.contains(['=', ':'])
        && (speaks_of(option, &["user"])
            || speaks_of(option, &LOGINS)
            || end_of_short_options(option) == Some(option.len()))
}

/// Where the value of `-u`, or of `-U` for a proxy's user, begins; other options may stand before it in one argument.
fn end_of_short_options(argument: &str) -> Option<usize> {
    let options = argument.strip_prefix('-')?;
    let place = options.find(['u', 'U'])?;
    options[..place].bytes().all(|byte| byte.is_ascii_alphabetic()).then_some(place + 2)
}

fn speaks_of(word: &str, names: &[&str]) -> bool {
    let word = word.to_ascii_lowercase();
    names.iter().any(|name| word.contains(name))
}

fn is_one_of(word: &str, words: &[&str]) -> bool {
    words.iter().any(|one| one.eq_ignore_ascii_case(word))
}

/// `scheme://user:password@host` and `user:password@host` without the password. RFC 3986, 3.2.1, allows no `/`, `?`, `#`
/// and `@` there, but people write them: it goes up to the last `@`.
fn without_user_information(argument: &str) -> Cow<'_, str> {
    let Some(at) = argument.rfind('@') else { return argument.into() };
    let ends_user = |&(colon, _): &(usize, &str)| {
        let word = |sign: char| !sign.is_ascii_alphanumeric() && sign != '-';
        let user = argument[..colon].rsplit(word).next().unwrap_or_default();
        !argument[colon..].starts_with("://") && !is_one_of(user.trim_start_matches('-'), &FIELDS)
    };
    match argument[..at].match_indices(':').find(ends_user) {
        Some((colon, _)) => format!("{}{SECRET}{}", &argument[..=colon], &argument[at..]).into(),
        None => argument.into(),
    }
}

#[cfg(test)]
mod tests;
