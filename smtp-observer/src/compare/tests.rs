//! Stories of conversations that two agents saw.

use serde_json::json;

use super::samples::{
    CLIENT, DATA, EHLO, ELSEWHERE, Line, MAIL, NOOP, PROXY, Path, QUEUED, QUIT, RCPT, RSET, Socket, WAY, client, server,
};
use super::*;
use crate::observation::Role;

fn kinds(compared: &Compared<'_>) -> Vec<EvidenceKind> {
    let mut kinds: Vec<_> = compared.evidence.iter().map(|evidence| evidence.kind).collect();
    kinds.sort_unstable();
    kinds
}

#[track_caller]
fn only<'r, 'a>(report: &'r Report<'a>) -> &'r Compared<'a> {
    match &report.pairs[..] {
        [compared] => compared,
        others => panic!("{} pairs", others.len()),
    }
}

/// Its rows in short: a mark, and what was said.
fn brief(compared: &Compared<'_>) -> Vec<String> {
    let row = |row: &Row<'_>| {
        let said = row.client.or(row.server).and_then(|turn| turn.step).map_or("greeting", |step| &step.verb);
        let mark = match row.mark {
            Mark::Same => "=",
            Mark::Changed => "|",
            Mark::ClientOnly => "<",
            Mark::ServerOnly => ">",
            Mark::Unknown => "?",
        };
        format!("{mark} {said}")
    };
    compared.rows().iter().map(row).collect()
}

#[test]
fn nothing_is_in_between() {
    for ahead in [0, 180_000, -3_600_000] {
        let mut path = Path::ahead(ahead);
        path.mail(0, client("c", CLIENT), server("s", CLIENT));
        let report = path.report();
        let compared = only(&report);
        assert_eq!((compared.by, compared.outcome()), (By::Addresses, Outcome::Same), "{:?}", compared.evidence);
        assert_eq!(compared.notes, []);
        assert_eq!(brief(compared), ["= greeting", "= EHLO", "= MAIL", "= RCPT", "= DATA", "= QUIT"]);
        let clocks = report.clocks.expect("known");
        let wrong = (clocks.ahead - ahead * 1_000_000).unsigned_abs();
        assert!(u128::from(wrong) <= clocks.within.as_nanos(), "{clocks:?}");
        assert!(clocks.within <= Duration::from_millis(2 * WAY as u64), "{clocks:?}");
    }
}

#[test]
fn the_story_of_the_antivirus_somewhere_on_the_path() {
    use EvidenceKind::{
        CommandInjected, DataHeldBack, GoAheadNotFromUpstream, ReplyTextDiffers, SuccessBeforeUpstream,
    };
    for (from, by) in [(PROXY, By::Envelope), (CLIENT, By::Addresses)] {
        let mut path = Path::ahead(-240_000);
        path.antivirus(client("c", CLIENT), server("s", from));
        let report = path.report();
        let compared = only(&report);
        assert_eq!(compared.by, by);
        assert_eq!(compared.notes.contains(&Note::DomainsAlone), by == By::Envelope);
        let expected = [ReplyTextDiffers, GoAheadNotFromUpstream, DataHeldBack, SuccessBeforeUpstream, CommandInjected];
        assert_eq!(kinds(compared), expected);
        // 2050 - 400, and no better than the clocks are known.
        let (hold, clocks) = (compared.hold.expect("held"), report.clocks.expect("known"));
        assert!(hold.abs_diff(Duration::from_millis(1650)) <= clocks.within, "{hold:?} {clocks:?}");
        let rows = [
            "= greeting",
            "= EHLO",
            "= MAIL",
            "= RCPT",
            "> NOOP",
            "> NOOP",
            "> RSET",
            "> MAIL",
            "> RCPT",
            "| DATA",
            "| QUIT",
        ];
        assert_eq!(brief(compared), rows);
    }
}

/// On the client's own host: its agent saw the proxy's connection, too, and knows whose it is.
#[test]
fn the_agent_knows_the_way_on() {
    let mut path = Path::ahead(90_000);
    let (mail_client, proxy, mail_server) = (client("c", CLIENT), client("p", PROXY), server("s", PROXY));
    path.antivirus(mail_client, mail_server);
    let verdict =
        json!({"event": "interception", "verdict": "transparent_interceptor", "upstream": {"connection_id": "p"}});
    path.tell(2001, mail_client, verdict);
    path.greet(1, proxy);
    path.say(97, proxy, EHLO, 9);
    let report = path.report();
    let by = |by: By| report.pairs.iter().find(|pair| pair.by == by).expect("a pair");
    assert_eq!((report.pairs.len(), &*by(By::Addresses).client.connection.id), (2, "p"));
    let through = by(By::Upstream);
    assert_eq!((&*through.client.connection.id, &*through.server.connection.id), ("c", "s"));
    assert!(kinds(through).contains(&EvidenceKind::CommandInjected));
}

/// What was said on a connection that has its other end elsewhere is not taken for another's.
#[test]
fn strangers_with_the_same_envelope() {
    let mut path = Path::ahead(0);
    path.mail(0, client("c", CLIENT), server("s", CLIENT));
    let unseen = client("lost", PROXY);
    path.greet(1, unseen);
    for (step, line) in [EHLO, MAIL, RCPT].into_iter().enumerate() {
        path.say(110 * (step as i64 + 1), unseen, line, 9);
    }
    path.mail(5_000, Socket { remote: ELSEWHERE, ..client("other", CLIENT) }, server("from elsewhere", ELSEWHERE));
    let report = path.report();
    assert_eq!(report.pairs.iter().map(|pair| &*pair.client.connection.id).collect::<Vec<_>>(), ["c", "other"]);
    assert_eq!(report.client_only.iter().map(|it| &*it.connection.id).collect::<Vec<_>>(), ["lost"]);
    assert_eq!((report.server_only.len(), report.with_others), (0, [0, 0]));
}

/// An address was translated, and nothing else.
#[test]
fn by_their_envelopes_and_what_else_they_have_in_common() {
    let mut path = Path::ahead(60_000);
    let ports = [(CLIENT, ("203.0.113.1", 1)), (PROXY, ("203.0.113.1", 2))];
    let [first, second] = ports.map(|(before, behind)| (client("c", before), server("s", behind)));
    path.mail(0, Socket { id: "c1", ..first.0 }, Socket { id: "s1", ..first.1 });
    path.mail(300, Socket { id: "c2", ..second.0 }, Socket { id: "s2", ..second.1 });
    let report = path.report();
    let pairs: Vec<_> = report.pairs.iter().map(|it| (&*it.client.connection.id, &*it.server.connection.id)).collect();
    assert_eq!(pairs, [("c1", "s1"), ("c2", "s2")]);
    assert!(report.pairs.iter().all(|pair| pair.by == By::Envelope && !pair.differs()));
}

#[test]
fn texts_that_were_rewritten() {
    use EvidenceKind::{BodyChanged, CapabilityAdded, HeloChanged, StarttlsStripped};
    let mut path = Path::ahead(0);
    let (from, to) = (client("c", CLIENT), server("s", CLIENT));
    path.greet(0, to);
    path.greet(WAY, from);
    path.say(100, from, Line("EHLO c.example", 250, "mx.example\nPIPELINING\nXXXXXXXA"), 9);
    path.say(104, to, Line("EHLO proxy.example", 250, "mx.example\nPIPELINING\nSTARTTLS"), 1);
    path.pass(200, from, to, MAIL);
    path.pass(300, from, to, RCPT);
    path.pass(400, from, to, DATA);
    path.message(500, from, 131, QUEUED, 9);
    path.message(504, to, 190, QUEUED, 1);
    path.close(600, from);
    path.close(600, to);
    let report = path.report();
    assert_eq!(kinds(only(&report)), [CapabilityAdded, StarttlsStripped, HeloChanged, BodyChanged]);
    assert_eq!(brief(only(&report)), ["= greeting", "| EHLO", "= MAIL", "= RCPT", "| DATA"]);
}

/// A send that is noted only when the processor has done other work looks as if it came behind what it caused.
#[test]
fn a_time_that_was_noted_late() {
    let mut path = Path::ahead(-9_000);
    let (from, to) = (client("c", CLIENT), server("s", CLIENT));
    path.greet(0, to);
    path.greet(WAY, from);
    path.pass(100, from, to, EHLO);
    path.pass(200, from, to, MAIL);
    path.pass(300, from, to, RCPT);
    // DATA was sent at 400.
    path.say(430, from, DATA, 0);
    path.say(404, to, DATA, 1);
    path.message(435, from, 131, QUEUED, 9);
    path.message(439, to, 131, QUEUED, 1);
    path.close(500, from);
    path.close(500, to);
    let report = path.report();
    assert!(!only(&report).differs(), "{:?} {:?}", only(&report).evidence, brief(only(&report)));
}

/// A parameter of MAIL is no evidence of anything, and still a difference.
#[test]
fn an_argument_that_was_rewritten() {
    let mut path = Path::ahead(0);
    let (from, to) = (client("c", CLIENT), server("s", CLIENT));
    path.greet(0, to);
    path.greet(WAY, from);
    path.say(100, from, Line("MAIL FROM:<*@c.example> SIZE=131", 250, "Ok"), 9);
    path.say(104, to, Line("MAIL FROM:<*@c.example>", 250, "Ok"), 1);
    let report = path.report();
    assert_eq!((kinds(only(&report)), only(&report).differs()), (vec![], true));
}

#[test]
fn a_command_that_was_swallowed() {
    let mut path = Path::ahead(0);
    let (from, to) = (client("c", CLIENT), server("s", CLIENT));
    path.greet(0, to);
    path.greet(WAY, from);
    path.pass(100, from, to, EHLO);
    path.say(200, from, NOOP, 1);
    path.pass(300, from, to, MAIL);
    let report = path.report();
    assert_eq!(kinds(only(&report)), [EvidenceKind::CommandSwallowed]);
    assert_eq!(brief(only(&report)), ["= greeting", "= EHLO", "< NOOP", "= MAIL"]);
}

/// An agent that was started later, and ended earlier, than the other proves nothing by what it did not see.
#[test]
fn what_one_end_could_not_see() {
    let mut path = Path::ahead(30_000);
    let (from, to) = (client("c", CLIENT), server("s", CLIENT));
    path.greet(0, to);
    path.say(104, to, EHLO, 1);
    path.pass(200, from, to, MAIL);
    path.pass(300, from, to, RCPT);
    path.say(400, from, RSET, 9);
    let report = path.report();
    let compared = only(&report);
    assert_eq!((compared.outcome(), &compared.notes[..]), (Outcome::AlikeInPart, &[Note::ClientFromMiddle][..]));
    assert_eq!(brief(compared), ["= MAIL", "= RCPT", "? RSET"]);
}

#[test]
fn what_was_lost_may_have_been_said() {
    let mut path = Path::ahead(0);
    let (from, to) = (client("c", CLIENT), server("s", CLIENT));
    path.greet(0, to);
    path.greet(WAY, from);
    path.pass(100, from, to, EHLO);
    path.say(204, to, NOOP, 1);
    path.pass(300, from, to, MAIL);
    assert_eq!(kinds(only(&path.report())), [EvidenceKind::CommandInjected]);
    path.tell(205, from, json!({"event": "smtp.anomaly", "kind": "gap", "detail": "6 bytes"}));
    let report = path.report();
    let compared = only(&report);
    assert_eq!((compared.differs(), &compared.notes[..]), (false, &[Note::GapAtClient][..]));
    assert_eq!(brief(compared), ["= greeting", "= EHLO", "? NOOP", "= MAIL"]);
}

/// Lines that were lost may be of all conversations that were open there, and of no others.
#[test]
fn lines_that_an_agent_lost() {
    const OTHER: (&str, u16) = ("198.51.100.4", 40009);
    let (from, to) = (client("c", CLIENT), server("s", CLIENT));
    let (before, seen) = (client("before", OTHER), server("seen", OTHER));
    // Of two mails of a connection, the server's file has the second alone; another connection was over by then.
    let mails = |loss: bool| {
        let mut path = Path::ahead(0);
        path.greet(-500, seen);
        path.greet(-500 + WAY, before);
        path.pass(-400, before, seen, EHLO);
        path.say(-300, before, NOOP, 9);
        path.pass(-200, before, seen, QUIT);
        path.close(-100, before);
        path.close(-100, seen);
        path.greet(0, to);
        path.greet(WAY, from);
        path.pass(100, from, to, EHLO);
        for line in [MAIL, RCPT, DATA] {
            path.say(200, from, line, 9);
        }
        path.message(300, from, 131, "2.0.0 Ok: queued as 4F1C0A76", 20);
        if loss {
            path.server.lines_lost();
        }
        for (step, line) in [MAIL, RCPT, DATA].into_iter().enumerate() {
            path.pass(60_000 + 100 * step as i64, from, to, line);
        }
        path.message(60_400, from, 262, QUEUED, 20);
        path.message(60_404, to, 262, QUEUED, 12);
        path.pass(60_500, from, to, QUIT);
        path.close(60_600, from);
        path.close(60_600, to);
        path
    };
    let kinds_of = |path: &Path| path.report().pairs.iter().map(kinds).collect::<Vec<_>>();
    let swallowed = vec![EvidenceKind::CommandSwallowed];
    let path = mails(false);
    let told = kinds_of(&path);
    assert_eq!(told[0], swallowed);
    assert!(!told[1].is_empty());
    assert_eq!(kinds_of(&mails(true)), [swallowed, vec![]]);
}

#[test]
fn tls_that_begins_on_the_way() {
    let mut path = Path::ahead(0);
    let (from, to) = (client("c", CLIENT), server("s", CLIENT));
    path.greet(0, to);
    path.greet(WAY, from);
    path.pass(100, from, to, EHLO);
    path.say(110, to, Line("STARTTLS", 220, "Ready"), 1);
    path.tell(112, to, json!({"event": "smtp.tls", "phase": "started", "visible": false}));
    path.say(200, from, MAIL, 9);
    path.close(700, from);
    path.close(700, to);
    let report = path.report();
    let compared = only(&report);
    assert_eq!((kinds(compared), &compared.notes[..]), (vec![], &[Note::EncryptedAtServer][..]));
    assert_eq!(brief(compared), ["= greeting", "= EHLO", "> STARTTLS"]);
}

/// An end that was not heard since proves nothing: its agent may have ended, or lost what it saw.
#[test]
fn tls_that_one_end_could_not_see() {
    let started = json!({"event": "smtp.tls", "phase": "started", "visible": false});
    let gap = json!({"event": "smtp.anomaly", "kind": "gap", "detail": "6 bytes"});
    let said = |at_client: bool| {
        let mut path = Path::ahead(0);
        let (from, to) = (client("c", CLIENT), server("s", CLIENT));
        path.greet(0, to);
        path.greet(WAY, from);
        path.pass(100, from, to, EHLO);
        path.pass(200, from, to, Line("STARTTLS", 220, "Ready"));
        let (tls, clear) = if at_client { (from, to) } else { (to, from) };
        path.tell(212, tls, started.clone());
        path.close(900, tls);
        (path, clear)
    };
    for (at_client, note) in [(true, Note::EncryptedAtClient), (false, Note::EncryptedAtServer)] {
        let (path, _) = said(at_client);
        assert_eq!(only(&path.report()).notes, [], "its file ends before");
        let (mut path, clear) = said(at_client);
        path.tell(205, clear, gap.clone());
        path.close(900, clear);
        assert!(!only(&path.report()).notes.contains(&note), "something of it is missing");
        let (mut path, clear) = said(at_client);
        path.close(900, clear);
        assert_eq!(only(&path.report()).notes, [note]);
    }
}

/// Of a pair without a command that both ends saw nothing is certain.
#[test]
fn what_both_ends_saw_may_be_nothing() {
    let mut path = Path::ahead(0);
    let (from, to) = (client("c", CLIENT), server("s", CLIENT));
    path.greet(0, to);
    path.greet(WAY, from);
    assert_eq!(brief(only(&path.report())), ["= greeting"]);
    assert_eq!(only(&path.report()).outcome(), Outcome::AlikeInPart);
    path.pass(100, from, to, EHLO);
    assert_eq!(only(&path.report()).outcome(), Outcome::Same);
}

/// What is said after that was not seen.
#[test]
fn a_connection_that_was_followed_no_longer() {
    let mut path = Path::ahead(0);
    let (from, to) = (client("c", CLIENT), server("s", CLIENT));
    path.greet(0, to);
    path.greet(WAY, from);
    path.pass(100, from, to, EHLO);
    path.tell(150, from, json!({"event": "connection.unfollowed", "bytes_sent": 1, "bytes_received": 1}));
    path.say(204, to, NOOP, 1);
    path.pass(300, from, to, MAIL);
    let report = path.report();
    let compared = only(&report);
    assert_eq!((compared.outcome(), &compared.notes[..]), (Outcome::AlikeInPart, &[Note::GapAtClient][..]));
    assert_eq!(brief(compared), ["= greeting", "= EHLO", "? NOOP", "= MAIL"]);
}

/// One connection to the server carries two clients' mails.
#[test]
fn a_pool() {
    let mut path = Path::ahead(7_000);
    let pool = server("pool", ELSEWHERE);
    path.greet(0, pool);
    path.say(10, pool, EHLO, 1);
    for (at, from, mailbox) in [
        (1000, client("c1", CLIENT), "MAIL FROM:<*@one.example>"),
        (2000, client("c2", PROXY), "MAIL FROM:<*@two.example>"),
    ] {
        path.greet(at, from);
        path.say(at + 50, from, EHLO, 1);
        path.pass(at + 100, from, pool, Line(mailbox, 250, "Ok"));
        path.pass(at + 200, from, pool, RCPT);
        path.pass(at + 300, from, pool, DATA);
        path.message(at + 400, from, 99, QUEUED, 9);
        path.message(at + 404, pool, 99, QUEUED, 1);
        path.say(at + 500, from, QUIT, 1);
        path.close(at + 510, from);
    }
    let report = path.report();
    let pairs: Vec<_> = report.pairs.iter().map(|it| (&*it.client.connection.id, &*it.server.connection.id)).collect();
    assert_eq!(pairs, [("c1", "pool"), ("c2", "pool")]);
    for compared in &report.pairs {
        assert_eq!(kinds(compared), [], "{:?}", compared.evidence);
    }
    assert_eq!(brief(&report.pairs[1]), ["? greeting", "< EHLO", "= MAIL", "= RCPT", "= DATA", "? QUIT"]);
}

/// Two of a client's mails go different ways.
#[test]
fn one_to_many() {
    let mut path = Path::ahead(0);
    let from = client("c", CLIENT);
    path.greet(0, from);
    path.say(50, from, EHLO, 1);
    for (at, to, mailbox) in [
        (1000, server("s1", ("203.0.113.1", 1)), "MAIL FROM:<*@one.example>"),
        (2000, server("s2", ("203.0.113.1", 2)), "MAIL FROM:<*@two.example>"),
    ] {
        path.greet(at, to);
        path.say(at + 50, to, EHLO, 1);
        path.pass(at + 100, from, to, Line(mailbox, 250, "Ok"));
        path.pass(at + 200, from, to, RCPT);
        path.close(at + 400, to);
    }
    path.close(3000, from);
    let report = path.report();
    let pairs: Vec<_> = report.pairs.iter().map(|it| (&*it.server.connection.id, kinds(it))).collect();
    assert_eq!(pairs, [("s1", vec![]), ("s2", vec![])]);
}

/// Of four connections from one port each agent missed another.
#[test]
fn a_port_that_is_used_again() {
    for missed in [["s1", "c4"], ["s4", "c1"], ["s2", "c3"]] {
        let mut path = Path::ahead(500_000);
        for (at, from, to) in [(0, "c1", "s1"), (100_000, "c2", "s2"), (230_000, "c3", "s3"), (310_000, "c4", "s4")] {
            let ends = [client(from, CLIENT), server(to, CLIENT)];
            ends.into_iter().filter(|end| !missed.contains(&end.id)).for_each(|end| path.mail_at(at, end));
        }
        let report = path.report();
        let pairs: Vec<_> =
            report.pairs.iter().map(|it| (&it.client.connection.id[1..], &it.server.connection.id[1..])).collect();
        let expected: Vec<_> = ["1", "2", "3", "4"]
            .into_iter()
            .filter(|number| !missed.iter().any(|missed| &missed[1..] == *number))
            .map(|number| (number, number))
            .collect();
        assert_eq!(pairs, expected, "{missed:?}");
        assert!(report.pairs.iter().all(|pair| !pair.differs()));
    }
}

/// Two quartzes that differ by fifty parts in a million, over an hour.
#[test]
fn clocks_that_drift() {
    let mut path = Path::ahead(0);
    let (from, to) = (client("c", CLIENT), server("s", CLIENT));
    path.greet(0, to);
    path.greet(WAY, from);
    path.pass(100, from, to, EHLO);
    for minute in 1..=60 {
        path.ahead = f64::from(minute) * 60_000.0 * 50e-6;
        path.pass(i64::from(minute) * 60_000, from, to, NOOP);
    }
    let report = path.report();
    assert!(!only(&report).differs(), "{:?}", brief(only(&report)));
}

#[test]
fn nothing_in_common() {
    let path = Path::ahead(0);
    let report = path.report();
    assert!(report.pairs.is_empty() && report.clocks.is_none());
    let mut path = Path::ahead(0);
    path.mail(0, client("c", CLIENT), Socket { local: ELSEWHERE, ..server("s", ELSEWHERE) });
    assert!(!path.client.is_the_other() && !path.server.is_the_other());
    let mut swapped = End::new(Role::Server);
    let line = |event: &str| {
        format!(
            r#"{{"time":"2026-11-23T17:04:05Z","event":"{event}","code":220,"text":"hello","connection":{{"id":"1",
            "role":"client","local":{{"address":"::1","port":1}},"remote":{{"address":"::1","port":25}},"netns":1}}}}"#
        )
    };
    swapped.take(line("connection.opened").as_bytes()).expect("an event");
    assert!(!swapped.is_the_other(), "nothing was said");
    swapped.take(line("smtp.greeting").as_bytes()).expect("an event");
    assert!(swapped.is_the_other());
}

#[test]
fn lines_that_are_no_events() {
    let mut end = End::new(Role::Client);
    let connection = r#""connection":{"id":"1","role":"client","local":{"address":"::1","port":1},
        "remote":{"address":"::1","port":25},"netns":1}"#;
    let take = |end: &mut End, event: &str| {
        end.take(format!(r#"{{"time":"2026-11-23T17:04:05Z",{event},{connection}}}"#).as_bytes())
    };
    assert_eq!(take(&mut end, r#""event":"smtp.weather","sky":"blue""#), Ok(()), "an event that is not known yet");
    for (line, words) in [
        ("", "EOF"),
        ("220 mx ESMTP", "expected an event"),
        ("{}", "`time`"),
        (r#"{"time":"noon"}"#, "`noon` is not a time"),
        (r#"{"time":"2026-11-23T17:04:05Z","event":"smtp.data"}"#, "`connection`"),
    ] {
        let wrong = end.take(line.as_bytes()).expect_err("no event");
        assert!(wrong.contains(words) && !wrong.contains(" line "), "{line}: {wrong}");
    }
    let wrong =
        take(&mut end, r#""event":"smtp.command","verb":"NOOP","latency_seconds":-1"#).expect_err("no duration");
    assert!(wrong.contains("`latency_seconds`"), "{wrong}");
    let wrong = take(&mut end, r#""event":"smtp.command","code":250"#).expect_err("no verb");
    assert!(wrong.contains("`verb`"), "{wrong}");
}

#[test]
fn how_much_of_mailboxes_is_shown() {
    use crate::redact::Addresses;
    for (argument, shown) in [
        ("FROM:<>", None),
        ("FROM:<*>", Some(Addresses::None)),
        ("FROM:<*@c.example> SIZE=5", Some(Addresses::Domain)),
        ("FROM:<alice@c.example>", Some(Addresses::Full)),
    ] {
        let mut path = Path::ahead(0);
        path.tell(0, client("c", CLIENT), json!({"event": "smtp.command", "verb": "MAIL", "argument": argument}));
        path.say(1, client("c", CLIENT), Line("RCPT TO:<>", 250, ""), 1);
        assert_eq!(path.client.addresses(), shown, "{argument}");
    }
}
