//! What is hidden of arguments, and what is not.

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
        (&["curl", "smtps://bob:hunter2@mx:465/x@y"], &["curl", "smtps://bob:***@y"]),
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

/// An argument, or two, behind the program.
#[test]
fn a_secret_is_hidden_wherever_it_is_written() {
    for (given, expected) in [
        ("-ubob:hunter2", "-ubob:***"),
        ("-sSu bob:hunter2", "-sSu bob:***"),
        ("-vubob:hunter2", "-vubob:***"),
        ("-Ubob:hunter2", "-Ubob:***"),
        ("-u bob,hunter2", "-u bob,***"),
        ("--ap hunter2", "--ap ***"),
        ("-psk hunter2", "-psk ***"),
        ("--pw=hunter2", "--pw=***"),
        ("--password= hunter2", "--password= ***"),
        ("--password: hunter2", "--password: ***"),
        ("PASSWORD hunter2", "PASSWORD ***"),
        ("smtp_password hunter2", "smtp_password ***"),
        ("XOAUTH2 hunter2", "XOAUTH2 ***"),
        ("--auth bob:hunter2", "--auth ***"),
        ("--smtp-auth hunter2", "--smtp-auth ***"),
        ("--smtp-auth=hunter2", "--smtp-auth=***"),
        ("--auth plain", "--auth plain"),
        ("--auth --tls", "--auth --tls"),
        ("--smtp-pw hunter2", "--smtp-pw ***"),
        ("--smtp-pw=hunter2", "--smtp-pw=***"),
        ("smtp_pw hunter2", "smtp_pw ***"),
        ("--access-key hunter2", "--access-key ***"),
        ("--access-key=hunter2", "--access-key=***"),
        ("--accesskey hunter2", "--accesskey ***"),
        ("--signing-key hunter2", "--signing-key ***"),
        ("--key=hunter2", "--key=***"),
        ("--login bob:hunter2", "--login bob:***"),
        ("--login=bob:hunter2", "--login=***"),
        ("--smtp-user=bob:hunter2", "--smtp-user=bob:***"),
        ("{\"user\":\"x\",\"password\":\"hunter2\"}", "{\"user\":\"x\",\"password\"***"),
        ("user=x&password=hunter2", "user=x&password=***"),
        ("user=x&pw=hunter2", "user=x&pw=***"),
        ("http://h/?token=hunter2", "http://h/?token=***"),
        ("--option=password=hunter2", "--option=password=***"),
        ("-HAuthorization:Basichunter2", "-HAuthorization:***"),
        ("s.login('bob','hunter2')", "s.login(***"),
        ("smtp://bob:hunt/er2@mx", "smtp://bob:***@mx"),
        ("smtp://bob:hunt?er2@mx", "smtp://bob:***@mx"),
        ("smtp://bob:hunt#er2@mx", "smtp://bob:***@mx"),
        ("smtp://bob:hunt@er2@mx", "smtp://bob:***@mx"),
        ("smtp://bob:hunt:er2@mx/?token=hunter2", "smtp://bob:***@mx/?token=***"),
        ("http://a/,smtp://bob:hunter2@mx", "http://a/,smtp://bob:***@mx"),
        ("bob:hunter2@mx", "bob:***@mx"),
        ("--proxy=bob:hunter2@mx", "--proxy=bob:***@mx"),
        ("curl\u{a0}-u\u{a0}bob:hunter2", "***"),
    ] {
        let split = |text: &'static str| std::iter::once("program").chain(text.split(' ')).collect::<Vec<_>>();
        check(Addresses::Full, &split(given), &split(expected));
    }
}

#[test]
fn a_secret_is_in_no_code() {
    for code in [
        "exec 3<>/dev/tcp/mx/25; curl -u bob:hunter2 smtp://mx",
        "curl -ubob:hunter2 smtp://mx",
        "read x; swaks -au bob -ap hunter2",
        "curl http://a/; curl smtp://bob:hunter2@mx",
        "echo x | mail --pw=hunter2",
        "f(); send('-pw', 'hunter2')",
        "curl '-u' 'bob:hunter2'",
    ] {
        check(Addresses::Full, &["bash", "-c", code], &["bash", "-c", "***"]);
    }
}

#[test]
fn what_is_no_secret_stays() {
    for given in [
        &["curl", "-sS", "--url", "smtp://mx:25", "--mail-from", "a@x", "mailto:b@y"][..],
        &["smtpd", "-n", "smtp", "-t", "inet", "-u", "-c", "-o", "stress="],
        &["exim4", "-bd", "-q30m", "-oX", "25:465"],
        &["swaks", "--server", "mx", "--to", "<a@x>", "-p", "25"],
        &["bash", "-c", "for x in 1 2; do echo $x | mail -s hi a@x; done"],
        &["python3", "-m", "smtplib", "TO:<a@x>"],
        &["postgres: writer process"],
    ] {
        check(Addresses::Full, given, given);
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
fn a_mailbox_is_hidden_wherever_it_is_written() {
    for (given, expected) in [
        (&["/srv/bob@x.example/job.py"][..], &["/srv/*@x.example/job.py"][..]),
        (&["/node_modules/@scope/run.js"], &["/node_modules/@scope/run.js"]),
        (&["/G=bob/S=smith@x.example"], &["*@x.example"]),
        (&["smtp://bob%40x.example:pw@host:25"][..], &["smtp://*:*@host:25"][..]),
        (&["smtp://bob:pw@host"], &["smtp://*:*@host"]),
        (&["--proxy=bob:pw@host"], &["--proxy=*:*@host"]),
        (&["mailto:bob%40x.example"], &["mailto:*"]),
        (&["mailto:bob"], &["mailto:*"]),
        (&["--mail-rcpt", "bob%40x.example"], &["--mail-rcpt", "*"]),
        (&["x=bob%40x.example"], &["*%40x.example"]),
        (&["--to", "bob"], &["--to", "*"]),
        (&["--to", "b@x.example,bob"], &["--to", "*@x.example,*"]),
        (&["--to", "b@x.example;bob;c@x.example"], &["--to", "*@x.example;*;*@x.example"]),
        (&["--to=<bob>"], &["--to=<*>"]),
        (&["--to:bob"], &["--to:*"]),
        (&["--h-From", "Bob bob <b@x.example>"], &["--h-From", "*@x.example"]),
        (&["--from-address=bob"], &["--from-address=*"]),
        (&["-f", "bob"], &["-f", "*"]),
        (&["-t", "bob,ann"], &["-t", "*,*"]),
        (&["bob smith@x.example"], &["*@x.example"]),
        (&["Bob bob <b@x.example>"], &["*@x.example"]),
        (&["b@x.example,bob"], &["*@x.example,*"]),
        (&["b%40x.example,bob"], &["*%40x.example,*"]),
        (&["-u", "bob:pw"], &["-u", "*"]),
        (&["-au", "bob"], &["-au", "*"]),
        (&["--au", "bob", "--f", "bob"], &["--au", "*", "--f", "*"]),
        (&["sh", "-c", "x '--to' 'bob'"], &["sh", "-c", "x '--to' *"]),
        (&["--user", "bob@x.example"], &["--user", "*@x.example"]),
        (&["-sSubob:pw"], &["-sSu*"]),
        (&["-Dmail.smtp.user=bob"], &["-Dmail.smtp.user=*"]),
        (&["http://h/?to=bob&x=y"], &["http://h/?to=*"]),
        (&["bash", "-c", "swaks --to bob --from=bob -f bob; x"], &["bash", "-c", "swaks --to * --from=* -f *; x"]),
        (&["sh", "-c", "mail -s 'to \"bob smith\"@x.example' b@y"], &["sh", "-c", "mail -s 'to *@x.example' *@y"]),
    ] {
        let split = |text: &[&'static str]| [&["program"], text].concat();
        check(Addresses::Domain, &split(given), &split(expected));
    }
}

#[test]
fn what_is_no_mailbox_stays() {
    for given in [
        &["smtpd", "-n", "smtp", "-t", "inet", "-u", "-c", "-o", "smtpd_recipient_restrictions=permit,reject"][..],
        &["tail", "-f", "/var/log/mail.log"],
        &["swaks", "--to", "--tls", "--listen", "192.0.2.1:25", "-u", "1000"],
        &["java", "-Dmail.smtp.host=mx.example", "-jar", "a.jar"],
        &["exim4", "-bd", "-q30m", "-oX", "25:465"],
    ] {
        check(Addresses::Domain, given, given);
    }
    let code = ["bash", "-c", "read -r line <&3; echo $line >&2"];
    check(Addresses::Domain, &code, &code);
    let given = ["bash", "-c", "mail -r al@example.net bob@example.org <&3 >&2"];
    check(Addresses::Domain, &given, &["bash", "-c", "mail -r *@example.net *@example.org <&3 >&2"]);
    check(Addresses::Domain, &["x", "\"bob smith\"@example.org"], &["x", "*@example.org"]);
}

#[test]
fn of_what_may_be_cut_the_last_word_is_not_shown() {
    let long = "x".repeat(ARGUMENTS_LENGTH);
    check(Addresses::Full, &["curl", &long, "smtp://bob:hunt"], &["curl", &long, "..."]);
    check(Addresses::Domain, &["mail", &long, "a@x", "bo"], &["mail", &long, "*@x", "..."]);
    check(Addresses::Domain, &["sh", "-c", &format!("mail {long} bo")], &["sh", "-c", &format!("mail {long} ...")]);
}

#[test]
fn the_program_s_own_name_stays() {
    let given = ["/usr/bin/passwd-login", "smtpd", "-n", "C:\\x"];
    check(Addresses::Domain, &given, &given);
}

/// How programs are told a secret.
const FORMS: &[&str] = &[
    "--option HUNTER2",
    "--option=HUNTER2",
    "--option= HUNTER2",
    "x--option:HUNTER2",
    "{\"--option\":\"HUNTER2\"}",
    "http://h/?--option=HUNTER2",
    "-u x:HUNTER2",
    "-vux:HUNTER2",
    "x:HUNTER2@h",
    "smtp://x:HUNTER2/@h",
    "f('--option','HUNTER2')",
    "-c\u{a0}--option\u{a0}HUNTER2",
    "-c\u{a0}-u\u{a0}x:HUNTER2",
];

/// How programs are told a mailbox.
const MAILBOX_FORMS: &[&str] = &[
    "--option NAME",
    "--option=NAME",
    "--option=<NAME>",
    "--option x@y,NAME",
    "--option=NAME,x@y",
    "x@y,NAME",
    "NAME@y",
    "NAME%40y",
    "smtp://NAME%40y:z@h",
    "NAME:z@h",
    "-u NAME:z",
    "-auNAME:z",
    "-c\u{a0}--option\u{a0}NAME",
    "x\u{a0}NAME\u{a0}<y@z>",
];

proptest! {
    /// Wherever an option that names a secret stands, its value is shown in no argument.
    #[test]
    fn no_secret_is_shown(
        words in prop::collection::vec("[a-z=:@/-]{0,12}", 0..6),
        option in prop::sample::select(vec!["--auth-password", "--password", "-ap", "--api-token", "--client-secret"]),
        place in 0usize..6,
        form in prop::sample::select(FORMS),
    ) {
        let mut arguments = vec!["program".to_owned()];
        arguments.extend(words);
        let place = 1 + place.min(arguments.len() - 1);
        let form = form.replace("--option", option);
        arguments.splice(place..place, form.split(' ').map(str::to_owned));
        let shown = RedactionPolicy::new(Addresses::Full).arguments(&arguments);
        prop_assert!(shown.iter().all(|argument| !argument.contains("HUNTER2")), "{shown:?}");
    }

    /// Wherever an option that names a mailbox stands, its value is shown in no argument.
    #[test]
    fn no_mailbox_is_shown(
        words in prop::collection::vec("[a-z=:@/-]{0,12}", 0..6),
        option in prop::sample::select(vec!["--to", "--mail-from", "--h-From", "--rcpt", "--smtp-user", "--bcc"]),
        place in 0usize..6,
        form in prop::sample::select(MAILBOX_FORMS),
    ) {
        let mut arguments = vec!["program".to_owned()];
        arguments.extend(words);
        let place = 1 + place.min(arguments.len() - 1);
        let form = form.replace("--option", option);
        arguments.splice(place..place, form.split(' ').map(str::to_owned));
        let policy = RedactionPolicy::new(Addresses::Domain);
        let shown = policy.arguments(&arguments);
        prop_assert!(shown.iter().all(|argument| !argument.contains("NAME")), "{shown:?}");
        prop_assert_eq!(policy.arguments(&shown), shown, "shown again");
    }
}

#[test]
fn each_mailbox_of_a_word_is_hidden() {
    for (given, expected) in [
        ("bob@x.example:ann%40y.example", "*@x.example:*%40y.example"),
        ("see mailto:pm@y.example?cc=ann%40z.example", "see mailto:*"),
    ] {
        check(Addresses::Domain, &["app", given], &["app", expected]);
    }
}
