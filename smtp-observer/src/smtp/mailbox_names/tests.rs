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
    let text = |words: Vec<Vec<u8>>| words.into_iter().map(|word| String::from_utf8(word).expect("UTF-8")).collect();
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
