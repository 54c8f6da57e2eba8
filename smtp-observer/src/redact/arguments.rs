//! What is shown of a program's arguments: no password, and of mailboxes as much as the policy allows.
//!
//! An argument is a secret where its option names one (`--auth-password x`, `-ap x`, `password=x`), where it stands in an address
//! (`smtp://user:x@host`), or behind a user's name (`-u user:x`, of curl). Of a text with blanks, which may be code, it is
//! not certain where a secret begins: all of it is one if it speaks of any.

use std::borrow::Cow;

use super::RedactionPolicy;

/// What stands for a secret.
const SECRET: &str = "***";

/// Parts of words that name a secret.
const NAMES: [&str; 13] = [
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
    "otp",
    "cookie",
    "sasl",
];

/// More parts of words that tell that a text speaks of one.
const IN_TEXTS: [&str; 2] = ["auth", "login"];

/// Short options that name a password: of swaks, sendEmail, PuTTY and blat.
const SHORT: [&str; 4] = ["-ap", "-xp", "-pw", "-apt"];

/// Options whose value is a user's name, and may be its password, too.
const USERS: [&str; 5] = ["-u", "-U", "--user", "--proxy-user", "--http-user"];

impl RedactionPolicy {
    /// A program's arguments as they are shown. Arguments that were shown so are shown again alike.
    pub fn arguments(self, arguments: &[String]) -> Vec<String> {
        let mut before: &str = "";
        let mut shown = Vec::with_capacity(arguments.len());
        for (place, argument) in arguments.iter().enumerate() {
            let is_program = place == 0 && !argument.contains(char::is_whitespace);
            let without_secrets = match is_program {
                true => Cow::Borrowed(&**argument),
                false => without_secrets(before, argument),
            };
            shown.push(self.mailboxes(&without_secrets));
            before = argument;
        }
        shown
    }
}

impl RedactionPolicy {
    /// An argument with the mailboxes in it as far as they are shown. Angle brackets may stand for anything there, so that a
    /// text is looked at word by word, unless a quoted name may have blanks.
    fn mailboxes(self, argument: &str) -> String {
        let shown = |text: &str| match text.contains('@') {
            true => String::from_utf8_lossy(&self.text_line(text.as_bytes())).into_owned(),
            false => text.to_owned(),
        };
        match argument.contains("\"@") {
            true => shown(argument),
            false => argument.split_inclusive(char::is_whitespace).map(shown).collect(),
        }
    }
}

/// An argument without its secrets, behind the one `before` it.
fn without_secrets<'a>(before: &str, argument: &'a str) -> Cow<'a, str> {
    if takes_secret(before) {
        return SECRET.into();
    }
    if let Some((key, value)) = argument.split_once(['=', ':'])
        && !key.contains(char::is_whitespace)
        && names_secret(key)
        && !value.is_empty()
    {
        return format!("{}{SECRET}", &argument[..=key.len()]).into();
    }
    if argument.contains(char::is_whitespace) && speaks_of_secret(argument) {
        return SECRET.into();
    }
    let user = match argument.split_once('=') {
        Some((option, _)) if USERS.contains(&option) => Some(option.len() + 1),
        _ if USERS.contains(&before) => Some(0),
        _ => None,
    };
    if let Some(start) = user
        && let Some(colon) = argument[start..].find(':')
    {
        return format!("{}{SECRET}", &argument[..=start + colon]).into();
    }
    without_user_information(argument)
}

/// Whether the argument behind an option is a secret.
fn takes_secret(option: &str) -> bool {
    if SHORT.contains(&option) || option.eq_ignore_ascii_case("plain") || option.eq_ignore_ascii_case("login") {
        return true;
    }
    let Some(name) = option.strip_prefix('-') else { return false };
    let name = name.trim_start_matches('-');
    // `--password-stdin`, `--auth-hide-password`, `--no-pass` have no value.
    let takes_none = name.ends_with("-stdin")
        || name.split('-').any(|part| matches!(part, "no" | "hide" | "ask" | "prompt" | "protect" | "show"));
    !takes_none && !name.contains(['=', ':']) && names_secret(name)
}

fn names_secret(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    NAMES.iter().any(|name| word.contains(name)) || SHORT.contains(&&*word)
}

fn speaks_of_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    NAMES.iter().chain(&IN_TEXTS).any(|name| text.contains(name))
}

/// `scheme://user:password@host` without the password (RFC 3986, 3.2.1).
fn without_user_information(argument: &str) -> Cow<'_, str> {
    let Some((start, authority)) = argument.find("://").map(|at| (at + 3, &argument[at + 3..])) else {
        return argument.into();
    };
    let authority = &authority[..authority.find(['/', '?', '#']).unwrap_or(authority.len())];
    let Some(at) = authority.rfind('@') else { return argument.into() };
    match authority[..at].find(':') {
        Some(colon) => format!("{}{SECRET}{}", &argument[..=start + colon], &argument[start + at..]).into(),
        None => argument.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::redact::Addresses;

    #[track_caller]
    fn check(addresses: Addresses, arguments: &[&str], expected: &[&str]) {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let policy = RedactionPolicy::new(addresses);
        let shown = policy.arguments(&arguments);
        assert_eq!(shown, expected);
        assert_eq!(policy.arguments(&shown), expected, "shown again");
    }

    #[test]
    fn the_value_of_an_option_that_names_a_secret_is_not_shown() {
        for (given, expected) in [
            (&["swaks", "-au", "bob", "-ap", "hunter2"][..], &["swaks", "-au", "bob", "-ap", "***"][..]),
            (&["swaks", "--auth-password", "hunter2", "--tls"], &["swaks", "--auth-password", "***", "--tls"]),
            (&["swaks", "--auth-password=hunter2"], &["swaks", "--auth-password=***"]),
            (&["swaks", "--auth-hide-password", "--to", "x"], &["swaks", "--auth-hide-password", "--to", "x"]),
            (&["sendEmail", "-xu", "bob", "-xp", "hunter2"], &["sendEmail", "-xu", "bob", "-xp", "***"]),
            (&["curl", "-u", "bob:hunter2", "smtp://mx"], &["curl", "-u", "bob:***", "smtp://mx"]),
            (&["curl", "--user=bob:hunter2"], &["curl", "--user=bob:***"]),
            (&["curl", "--oauth2-bearer", "hunter2"], &["curl", "--oauth2-bearer", "***"]),
            (&["curl", "smtps://bob:hunter2@mx:465/x@y"], &["curl", "smtps://bob:***@mx:465/x@y"]),
            (
                &["java", "-Dmail.smtp.password=hunter2", "-jar", "a.jar"],
                &["java", "-Dmail.smtp.password=***", "-jar", "a.jar"],
            ),
            (&["s-nail", "-S", "smtp-auth-password=hunter2"], &["s-nail", "-S", "smtp-auth-password=***"]),
            (&["openssl", "s_client", "-pass", "pass:hunter2"], &["openssl", "s_client", "-pass", "***"]),
            (&["app", "API_KEY=hunter2", "MAIL_TOKEN=hunter2"], &["app", "API_KEY=***", "MAIL_TOKEN=***"]),
            (&["python3", "-c", "s.login('bob', 'hunter2')"], &["python3", "-c", "***"]),
            (&["sh", "-c", "swaks -ap hunter2 --auth"], &["sh", "-c", "***"]),
            (&["sh", "-c", "exec sleep 5"], &["sh", "-c", "exec sleep 5"]),
            (&["say", "AUTH", "PLAIN", "hunter2"], &["say", "AUTH", "PLAIN", "***"]),
            (&["worker: login bob hunter2"], &["***"]),
        ] {
            check(Addresses::Full, given, expected);
        }
    }

    #[test]
    fn mailboxes_are_shown_as_the_policy_says() {
        let given = ["swaks", "--to", "bob@example.org", "--from=<al@example.net>"];
        check(Addresses::Full, &given, &given);
        check(Addresses::Domain, &given, &["swaks", "--to", "*@example.org", "--from=<*@example.net>"]);
        check(Addresses::None, &given, &["swaks", "--to", "*", "--from=<*>"]);
    }

    #[test]
    fn what_is_no_mailbox_stays() {
        let code = ["bash", "-c", "read -r line <&3; echo $line >&2"];
        check(Addresses::Domain, &code, &code);
        let given = ["bash", "-c", "mail -r al@example.net bob@example.org <&3 >&2"];
        check(Addresses::Domain, &given, &["bash", "-c", "mail -r *@example.net *@example.org <&3 >&2"]);
        check(Addresses::Domain, &["x", "\"bob smith\"@example.org"], &["x", "*@example.org"]);
    }

    #[test]
    fn the_program_s_own_name_stays() {
        let given = ["/usr/bin/passwd-login", "smtpd", "-n", "C:\\x"];
        check(Addresses::Domain, &given, &given);
    }

    proptest! {
        /// Wherever an option that names a secret stands, its value is shown in no argument.
        #[test]
        fn no_secret_is_shown(
            words in prop::collection::vec("[a-z=:@/-]{0,12}", 0..6),
            option in prop::sample::select(vec!["--auth-password", "--password", "-ap", "--api-token", "--client-secret"]),
            place in 0usize..6,
            joined: bool,
        ) {
            let mut arguments = vec!["program".to_owned()];
            arguments.extend(words);
            let place = 1 + place.min(arguments.len() - 1);
            match joined {
                true => arguments.insert(place, format!("{option}=HUNTER2")),
                false => drop(arguments.splice(place..place, [option.to_owned(), "HUNTER2".to_owned()])),
            }
            let shown = RedactionPolicy::new(Addresses::Full).arguments(&arguments);
            prop_assert!(shown.iter().all(|argument| !argument.contains("HUNTER2")), "{shown:?}");
        }
    }
}
