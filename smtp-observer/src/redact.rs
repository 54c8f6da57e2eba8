//! How much of a dialogue is shown: mailboxes as far as the user allows, credentials and content never.

mod arguments;
mod mailbox;
mod policy;
mod process;
mod pseudonym;

pub use self::policy::RedactionPolicy;
pub(crate) use self::policy::verb;
pub use self::pseudonym::Key;
pub(crate) use self::pseudonym::probe_mark;
use crate::smtp::{Command, Path, Reply, Verb};

/// How much of a mailbox events show: what shows more comes first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Deserialize, serde::Serialize,
)]
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

impl Addresses {
    /// How much of a mailbox is shown in the argument of MAIL or RCPT, which is redacted; none in the null path.
    pub(crate) fn shown_in(argument: &[u8]) -> Option<Self> {
        match mailbox(argument)? {
            b"" => None,
            b"*" => Some(Self::None),
            [b'*', b'@', ..] => Some(Self::Domain),
            _ => Some(Self::Full),
        }
    }
}

/// The mailbox that the argument of MAIL or RCPT names.
pub(crate) fn mailbox(argument: &[u8]) -> Option<&[u8]> {
    Some(Path::of(argument)?.mailbox)
}

/// A process's own name for itself (`comm`). Some take a mailbox for it: that is shown to nobody.
pub(crate) fn process_name(name: &[u8]) -> String {
    match name.contains(&b'@') {
        true => RedactionPolicy::new(Addresses::None).text(name),
        false => String::from_utf8_lossy(name).into_owned(),
    }
}

/// Whether nothing of a command's argument is shown: it is any text.
fn hides_argument(verb: Verb) -> bool {
    matches!(verb, Verb::Other | Verb::Vrfy | Verb::Expn | Verb::Help | Verb::Noop)
}

/// Whether nothing but the codes of a reply is shown: it may repeat a credential, tell who is behind a name, or repeat what
/// is not known. The go-ahead of a message is shown with the message, too.
pub(crate) fn hides_reply(command: &Command, reply: &Reply) -> bool {
    match command.verb {
        verb if verb.authenticates() => true,
        _ if reply.code == 354 => false,
        Verb::Other | Verb::Vrfy | Verb::Expn => true,
        verb => hides_argument(verb) && (command.is_cut() || !command.argument().is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Time;
    use crate::observation;
    use crate::smtp::{EnhancedCode, Exchange, Names, plain_bytes};

    fn shown(policy: RedactionPolicy, line: &str, code: u16, text: &str) -> observation::Command {
        let command = Command::new(line.as_bytes(), Time(0), Time(0));
        let text = text.as_bytes().to_vec();
        let mut names = Names::default();
        names.add(&command);
        let repeated = names.repeated_in(&text);
        let reply = Reply { code, text, repeated, ..Reply::default() };
        observation::Command::of(&Exchange { command: command.into(), reply: Some(reply.into()) }, policy)
    }

    #[track_caller]
    fn check(addresses: Addresses, line: &str, reply: (u16, &str), expected: (&str, Option<&str>, &str)) {
        let shown = shown(RedactionPolicy::new(addresses), line, reply.0, reply.1);
        assert_eq!(
            (&*shown.verb, shown.argument.as_deref(), shown.reply.as_deref()),
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
    fn a_reply_without_a_text_has_none() {
        let policy = RedactionPolicy::new(Addresses::Domain);
        assert_eq!(shown(policy, "RSET", 250, "").reply, None);
        assert_eq!(policy.reply(&Reply { code: 250, ..Reply::default() }), None);
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
            ("RCPT TO:<@relay.example:bob>", "TO:<*>"),
            ("RCPT TO:<a@x.example,bob>", "TO:<*>"),
            ("RCPT TO:<a@x.example;bob> SIZE=1", "TO:<*> SIZE=1"),
            ("RCPT TO:<a@x.example!bob>", "TO:<*>"),
            ("RCPT TO:<a@x.example(bob)>", "TO:<*>"),
            ("RCPT TO:<a@[192.0.2.1]>", "TO:<*@[192.0.2.1]>"),
            ("RCPT TO:<a@b\u{fc}cher.example>", "TO:<*@b\u{fc}cher.example>"),
            ("RCPT TO:a bob@x.example", "TO:* *"),
            ("RCPT TO:a@x\u{b}bob", "TO:*"),
            ("RCPT TO:a@x bob@y.example SIZE=1", "TO:*@x *"),
            ("RCPT TO:<a@x.example> bob@y.example", "TO:<*@x.example> *"),
            ("RCPT TO:Rob bob <a@x.example>", "TO:* *"),
            ("RCPT bob:<a@x.example>", "*"),
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
    fn a_quoted_name_that_the_server_repeats_without_quotes() {
        for (name, said) in [
            ("\"bob smith\"", "bob smith"),
            ("\"bob,smith\"", "bob,smith"),
            ("\"bob;smith\"", "Bob;Smith"),
            ("\"bob:smith\"", "bob:smith"),
            ("bob:smith", "bob:smith"),
            ("\"(bob)\"", "(bob)"),
            ("\"bob\\\"x\"", "bob\"x"),
            ("\"<bob>\"", "<bob>"),
        ] {
            let (line, text) = (format!("RCPT TO:<{name}@x.example>"), format!("5.1.1 {said}@x.example unknown"));
            let argument = Some("TO:<*@x.example>");
            check(Addresses::Domain, &line, (550, &text), ("RCPT", argument, "5.1.1 *@x.example unknown"));
            check(Addresses::None, &line, (550, &text), ("RCPT", Some("TO:<*>"), "5.1.1 * unknown"));
        }
    }

    #[test]
    fn credentials_are_shown_to_nobody() {
        for addresses in [Addresses::Full, Addresses::Domain, Addresses::None] {
            let policy = RedactionPolicy::new(addresses);
            for (line, verb, argument) in [
                ("AUTH PLAIN AGJvYgBzZWNyZXQ=", "AUTH", Some("PLAIN")),
                ("auth login c2VjcmV0", "AUTH", Some("login")),
                ("AUTH AGJvYgBzZWNyZXQ=", "AUTH", Some("other")),
                ("AUTH hunter2 PLAIN", "AUTH", Some("other")),
                ("AUTH PLAIN=hunter2", "AUTH", Some("other")),
                ("X-EXPS hunter2", "X-EXPS", Some("other")),
                ("AUTH", "AUTH", None),
                ("AUTH  ", "AUTH", None),
                ("NOOP hunter2", "NOOP", None),
                ("HELP hunter2", "HELP", None),
            ] {
                for text in ["5.5.4 cannot decode AUTH parameter hunter2", "HUNTER2?", "ok\nhunter2"] {
                    let shown = shown(policy, line, 501, text);
                    assert_eq!((&*shown.verb, shown.argument.as_deref()), (verb, argument), "{line}");
                    assert_eq!(shown.reply, None, "{line}");
                }
            }
        }
    }

    #[test]
    fn a_secret_is_no_verb() {
        let policy = RedactionPolicy::new(Addresses::Full);
        for line in ["hunter2", "aHVudGVyMg==", "SSH-hunter2", "*", "GETHUNTER2", "XXXXhunter2", "hunter2:"] {
            let shown = shown(policy, line, 500, "5.5.1 Command unrecognized: \"hunter2\"");
            let verb = if line.starts_with("SSH-") { "SSH-" } else { "other" };
            assert_eq!((&*shown.verb, shown.argument, shown.reply), (verb, None, None), "{line}");
        }
    }

    #[test]
    fn credentials_are_in_no_recording() {
        for addresses in [Addresses::Full, Addresses::Domain, Addresses::None] {
            let policy = RedactionPolicy::for_recording(addresses, Key(7));
            for line in
                ["AUTH PLAIN hunter2", "AUTH hunter2", " auth\tPLAIN\thunter2 x", "NOOP hunter2", "HELP hunter2"]
            {
                let kept = policy.line(line.as_bytes());
                assert_eq!(kept.len(), line.len(), "{line}");
                let kept = String::from_utf8(kept.into_owned()).expect("ASCII");
                assert!(!kept.contains("hunter2"), "{kept}");
            }
        }
    }

    #[test]
    fn what_is_withheld_is_not_shown() {
        let policy = RedactionPolicy::new(Addresses::Full);
        for (line, verb, length) in [
            ("xfoo bar\u{7}", "other", Some(9)),
            ("bob@example.org", "other", Some(15)),
            ("", "other", Some(0)),
            ("VRFY bob", "VRFY", None),
            ("GET / HTTP/1.1", "GET", Some(14)),
        ] {
            let shown = shown(policy, line, 500, "what");
            assert_eq!((&*shown.verb, shown.length, shown.argument, shown.reply), (verb, length, None, None), "{line}");
        }
        assert_eq!(shown(policy, "NOOP S3CRET", 250, "ok").argument, None);
        let command = Command::new(b"RCPT TO:<bob@example.org>", Time(0), Time(0));
        let reply = Reply {
            code: 550,
            enhanced_code: Some(EnhancedCode(5, 1, 1)),
            text: b"5.1.1 ".to_vec(),
            withheld: true,
            ..Reply::default()
        };
        assert_eq!(policy.reply(&reply).as_deref(), Some("5.1.1"));
        assert_eq!(policy.reply_to(&command, &reply).as_deref(), Some("5.1.1"));
    }

    #[test]
    fn proxies_name_logins() {
        check(
            Addresses::Domain,
            "XCLIENT NAME=a.example LOGIN=bob",
            (220, "mx ESMTP, hello bob at a.example"),
            ("XCLIENT", Some("NAME=a.example LOGIN=*"), "mx ESMTP, hello * at a.example"),
        );
        check(
            Addresses::Domain,
            "XCLIENT ADDR=192.0.2.1 FORWARD=dXNlcj1ib2I= XUSER=bob bob",
            (220, "ok"),
            ("XCLIENT", Some("ADDR=192.0.2.1 FORWARD=* * *"), "ok"),
        );
    }

    #[test]
    fn a_process_is_not_named_like_a_mailbox() {
        for (name, shown) in [
            ("smtpd", "smtpd"),
            ("bob@x.example", "*"),
            ("deliver bob@x.e", "deliver *"),
            ("<smtp>", "<smtp>"),
            ("kworker/0:1+x", "kworker/0:1+x"),
        ] {
            assert_eq!(process_name(name.as_bytes()), shown);
        }
    }

    #[test]
    fn parameters_name_nobody() {
        for (line, argument) in [
            ("MAIL FROM:<al@y.example>\tAUTH=bob\tENVID=bob", "FROM:<*@y.example>\\tAUTH=*\\tENVID=*"),
            ("RCPT TO:<bo@x.example> NOTIFY=NEVER\tORCPT=rfc822;bob", "TO:<*@x.example> NOTIFY=NEVER\\tORCPT=*"),
            ("RCPT TO:<bo@x.example> ORCPT=rfc822;\"a bob\" SIZE=1", "TO:<*@x.example> ORCPT=* *"),
            ("MAIL FROM:<al@y.example> SUBMITTER=bob SIZE=9 BODY=bob", "FROM:<*@y.example> SUBMITTER=* SIZE=9 BODY=*"),
            ("RCPT TO:<bo@x.example> XRCPTFORWARD=Ym9i RET=FULL", "TO:<*@x.example> XRCPTFORWARD=* RET=FULL"),
            ("RCPT TO:<bo@x.example> XUSER=bob SIZE=1", "TO:<*@x.example> *"),
            ("RCPT TO:<bo@x.example>ORCPT=bob", "TO:<*@x.example>*"),
        ] {
            check(Addresses::Domain, line, (250, "ok"), (&line[..4], Some(argument), "ok"));
        }
    }

    /// What an envelope is made of. No host has the name's second sign.
    const PIECES: &[&str] = &[
        "na_me",
        "SIZE=",
        "ORCPT=rfc822;",
        "AUTH=",
        "XUSER=",
        "NOTIFY=NEVER",
        "=",
        "12",
        " ",
        "\t",
        "\u{b}",
        "\"",
        ";",
        ",",
        "TO:",
        "<",
        ">",
        "bo",
        "@",
        "@x.example",
        ":",
        "!",
        "(",
        ")",
        "%",
        "\\",
    ];

    proptest! {
        /// A name anywhere in an envelope is neither shown nor recorded, and what is recorded is shown like what was said.
        #[test]
        fn no_envelope_shows_a_name(
            before in prop::sample::select(&["", "TO:", "TO:<", "TO:<bo@x.example>"][..]),
            pieces in prop::collection::vec(prop::sample::select(PIECES), 1..12),
        ) {
            let line = format!("RCPT {before}{}.", pieces.concat());
            let kept = RedactionPolicy::for_recording(Addresses::Domain, Key(7)).line(line.as_bytes()).into_owned();
            let kept = String::from_utf8(kept).expect("ASCII");
            prop_assert_eq!(kept.len(), line.len());
            let policy = RedactionPolicy::new(Addresses::Domain);
            let [said, replayed] = [&*line, &*kept].map(|line| shown(policy, line, 250, "ok").argument.unwrap_or_default());
            prop_assert!(!said.contains("na_me") && !kept.contains("na_me"), "{line}: {said}, {kept}");
            // By chance a pseudonym of a few letters is a parameter's name (`by`), and is shown as one.
            let parameters = |line: &str| line.split_ascii_whitespace().filter(|word| plain_bytes(word.as_bytes()) > 0).count();
            prop_assume!(parameters(&kept) <= parameters(&line));
            prop_assert_eq!(said, replayed);
        }

        /// Nor does a reply that repeats it.
        #[test]
        fn no_reply_repeats_a_name(
            before in prop::sample::select(&["TO:", "TO:<", "TO:<bo@x.example>"][..]),
            pieces in prop::collection::vec(prop::sample::select(PIECES), 1..12),
            echo in prop::sample::select(&["na_me", "NA_ME unknown", "no (na_me)", "<na_me> no", "na_me@x.example"][..]),
        ) {
            let line = format!("RCPT {before}{} na_me", pieces.concat());
            let said = shown(RedactionPolicy::new(Addresses::Domain), &line, 550, echo).reply.unwrap_or_default();
            prop_assert!(!said.to_ascii_lowercase().contains("na_me"), "{line}: {said}");
        }
    }
}
