//! What is said of a process that the client did not choose, by what it does: when, and where it goes on to.

use super::kinds;
use super::stage::{CLIENT, FORKED, HOST, MIDDLE, OTHER_SERVER, OWN, PROXY, SERVER, Stage};
use crate::fact::What;
use crate::identity::Endpoint;
use crate::names::{EvidenceKind, RsetReason, Verdict};
use crate::smtp::{Tls, TlsSession};

#[test]
fn addresses_alone_are_no_verdict_where_a_greeting_will_tell_more() {
    let mut stage = Stage::default();
    stage.connect(1, CLIENT, SERVER);
    stage.reach(1, 2, PROXY, false);
    assert!(stage.verdicts_of(1).is_empty(), "who only answers may be the server, behind translated addresses");
    stage.connect(3, MIDDLE, SERVER);
    assert!(stage.verdicts_of(1).is_empty(), "whoever else asks for that server may be another client");
    stage.serve(2, MIDDLE, PROXY);
    assert!(stage.verdicts_of(1).is_empty(), "it may pass on every byte");
    stage.greet(3, "mx ESMTP");
    assert!(stage.verdicts_of(1).is_empty());
    stage.greet(1, "mx ESMTP");
    assert_eq!(stage.verdict(1).verdict, Verdict::TransparentL4);
    let kinds = kinds(stage.verdict(1));
    assert_eq!(kinds, [EvidenceKind::LocalPeer, EvidenceKind::SameDestinationConnected]);
    stage.close(1);
    stage.close(3);
    assert!(stage.verdicts_of(1).iter().all(|verdict| verdict.verdict == Verdict::TransparentL4));
}

#[test]
fn a_connection_that_ends_before_any_greeting_has_its_addresses_alone() {
    let mut stage = Stage::default();
    stage.connect(1, CLIENT, SERVER);
    stage.reach(1, 2, PROXY, false);
    stage.connect(3, MIDDLE, SERVER);
    stage.serve(2, MIDDLE, PROXY);
    stage.close(1);
    assert_eq!(stage.verdict(1).verdict, Verdict::LikelyInterceptor);
}

/// A front of several servers: a virtual address leads to it, and it goes on to one of them.
#[test]
fn who_goes_on_to_another_address_is_what_the_client_was_led_to() {
    let mut stage = Stage::default();
    stage.redirect(1, 2, 3, OTHER_SERVER);
    stage.pass_on(1, 3, "MAIL FROM:<a@c>", 250, "Ok");
    stage.pass_on(1, 3, "RCPT TO:<b@s>", 250, "Ok");
    stage.pass_on(1, 3, "DATA", 354, "Go on");
    stage.message(3, 100, 250, "Queued as 1");
    stage.message(1, 100, 250, "Queued as 1");
    stage.close(3);
    stage.close(1);
    assert!(!stage.verdicts_of(1).is_empty());
    assert!(stage.verdicts_of(1).iter().all(|verdict| verdict.verdict == Verdict::Redirected));
    assert_eq!(stage.verdicts_of(1).iter().filter(|verdict| verdict.news.redirected).count(), 1, "counted once");
    assert!(stage.verdicts_of(1).iter().all(|verdict| !verdict.news.hidden), "nobody is accused");
}

/// A redirect to the host's own mail server, which queues and sends on.
#[test]
fn who_takes_mail_unasked_and_sends_it_on_is_a_relay_that_nobody_chose() {
    for server in [SERVER, OTHER_SERVER] {
        let mut stage = Stage::default();
        stage.connect(1, CLIENT, SERVER);
        stage.reach(1, 2, PROXY, false);
        stage.serve(2, MIDDLE, PROXY);
        stage.greet(1, "own ESMTP");
        stage.say(1, "MAIL FROM:<a@c>", 250, "Ok");
        stage.say(1, "RCPT TO:<b@s>", 250, "Ok");
        stage.say(1, "DATA", 354, "Go on");
        stage.message(1, 100, 250, "Queued");
        stage.connect(3, MIDDLE, server);
        stage.greet(3, "mx ESMTP");
        stage.say(3, "MAIL FROM:<a@c>", 250, "Ok");
        stage.say(3, "RCPT TO:<b@s>", 250, "Ok");
        assert_eq!(stage.verdict(1).verdict, Verdict::TransparentRelay);
        stage.say(3, "DATA", 354, "Go on");
        stage.message(3, 100, 250, "Queued");
        stage.close(3);
        stage.close(1);
        assert_eq!(stage.verdict(1).verdict, Verdict::TransparentRelay);
    }
}

#[test]
fn a_service_of_one_s_own_is_no_finding() {
    let mut stage = Stage::default();
    stage.interceptions.service_addresses = vec!["192.0.2.0/24".parse().expect("a block")];
    stage.redirect(1, 2, 3, OTHER_SERVER);
    stage.pass_on(1, 3, "MAIL FROM:<a@c>", 250, "Ok");
    stage.pass_on(1, 3, "RCPT TO:<b@s>", 250, "Ok");
    stage.close(3);
    stage.close(1);
    assert!(stage.verdicts_of(1).iter().all(|verdict| !verdict.verdict.is_hidden() && !verdict.news.redirected));
    assert!(stage.verdicts_of(1).iter().all(|verdict| verdict.verdict != Verdict::Redirected));
}

/// Whatever network namespace it is in: the agent knows the addresses of its own alone.
#[test]
fn who_asks_for_the_address_it_asks_from_asks_for_its_own_host() {
    for (asked, verdict) in [(HOST, None), (SERVER.address, Some(Verdict::Redirected))] {
        let mut stage = Stage::default();
        stage.connect(1, CLIENT, Endpoint { address: asked, port: 25 });
        stage.reach(1, 2, PROXY, false);
        stage.serve(2, MIDDLE, PROXY);
        stage.greet(1, "mx ESMTP");
        stage.say(1, "QUIT", 221, "Bye");
        stage.close(1);
        let told = stage.verdicts_of(1);
        assert_eq!(told.last().map(|told| told.verdict), verdict, "{asked}");
    }
}

/// Whatever address it asks from. A socket that may have another's has it by such a route, too.
#[test]
fn who_is_routed_to_its_own_host_asks_for_it() {
    for (transparent, verdict) in [(false, None), (true, Some(Verdict::Redirected))] {
        let mut stage = Stage::default();
        stage.connect(1, CLIENT, SERVER);
        stage.opened.get_mut(&1).expect("it is opened").local_route = true;
        stage.reach(1, 2, PROXY, transparent);
        stage.serve(2, MIDDLE, PROXY);
        stage.greet(1, "mx ESMTP");
        stage.say(1, "QUIT", 221, "Bye");
        stage.close(1);
        assert_eq!(stage.verdicts_of(1).last().map(|told| told.verdict), verdict, "transparent: {transparent}");
    }
}

/// A published port, or a redirect to a server that keeps what it gets.
#[test]
fn who_answers_by_itself_is_what_the_client_was_led_to() {
    let mut stage = Stage::default();
    stage.connect(1, CLIENT, SERVER);
    stage.reach(1, 2, PROXY, false);
    stage.serve(2, MIDDLE, PROXY);
    stage.greet(1, "mx ESMTP");
    stage.say(1, "MAIL FROM:<a@c>", 250, "Ok");
    stage.say(1, "RCPT TO:<b@s>", 250, "Ok");
    assert!(stage.verdicts_of(1).is_empty(), "it may go on yet");
    stage.say(1, "DATA", 354, "Go on");
    stage.message(1, 100, 250, "Queued as 1");
    assert_eq!(stage.verdict(1).verdict, Verdict::Redirected);
    stage.close(1);
    assert_eq!(stage.verdict(1).verdict, Verdict::Redirected);
}

/// Clients send the same envelope one after the other, each by a connection that the process in the middle makes for it.
#[test]
fn the_next_mail_of_one_envelope_is_not_the_last_one_sent_on() {
    for (asked, at, server, expected) in [
        (SERVER, PROXY, SERVER, Verdict::TransparentL4),
        (SERVER, PROXY, OTHER_SERVER, Verdict::Redirected),
        (OWN, OWN, SERVER, Verdict::InlineProxy),
    ] {
        for code in [250, 451, 550] {
            let mut stage = Stage::default();
            for client in [10, 20, 30] {
                stage.connect(client, CLIENT, asked);
                stage.reach(client, client + 1, at, false);
                stage.connect(client + 2, MIDDLE, server);
                stage.greet(client + 2, "mx ESMTP");
                stage.serve(client + 1, MIDDLE, at);
                stage.greet(client, "mx ESMTP");
                for command in ["MAIL FROM:<a@c>", "RCPT TO:<b@s>"] {
                    stage.pass_on(client, client + 2, command, 250, "Ok");
                }
                stage.pass_on(client, client + 2, "DATA", 354, "Go on");
                stage.message(client + 2, 100, code, "Said");
                stage.message(client, 100, code, "Said");
                stage.close(client + 2);
                stage.close(client);
            }
            stage.pass(5);
            for client in [10, 20, 30] {
                let verdicts = stage.verdicts_of(client);
                assert!(!verdicts.is_empty() && verdicts.iter().all(|told| told.verdict == expected), "{verdicts:?}");
            }
        }
    }
}

/// What was not taken is sent on again, by another connection.
#[test]
fn a_relay_that_tries_again() {
    let mut stage = Stage::default();
    stage.connect(1, CLIENT, OWN);
    stage.reach(1, 2, OWN, false);
    stage.serve(2, MIDDLE, OWN);
    stage.greet(1, "relay ESMTP");
    stage.say(1, "MAIL FROM:<a@c>", 250, "Ok");
    stage.say(1, "RCPT TO:<b@s>", 250, "Ok");
    stage.say(1, "DATA", 354, "Go on");
    stage.message(1, 100, 250, "Queued");
    stage.close(1);
    for (upstream, code) in [(3, 451), (4, 250)] {
        stage.connect(upstream, MIDDLE, SERVER);
        stage.say(upstream, "MAIL FROM:<a@c>", 250, "Ok");
        stage.say(upstream, "RCPT TO:<b@s>", 250, "Ok");
        stage.say(upstream, "DATA", 354, "Go on");
        stage.message(upstream, 100, code, "Said");
        stage.close(upstream);
        let serves = stage.interceptions.legs.get(&upstream).and_then(|leg| leg.serves);
        assert_eq!((stage.verdict(1).verdict, serves), (Verdict::Relay, Some(1)));
    }
}

/// Two clients of a process that passes everything on, of whom the second one's connection is the first that greets.
fn two_at_once(greets_itself: bool) -> Stage {
    let mut stage = Stage::default();
    let clients = [(1, 11), (2, 12)];
    for (client, accepted) in clients {
        stage.connect(client, CLIENT, SERVER);
        stage.reach(client, accepted, PROXY, false);
    }
    let answer = |stage: &mut Stage, (client, accepted): (u64, u64)| {
        stage.serve(accepted, MIDDLE, PROXY);
        stage.greet(client, "mx ESMTP");
    };
    if greets_itself {
        clients.into_iter().for_each(|client| answer(&mut stage, client));
    }
    let (first, second) = if greets_itself { (4, 3) } else { (3, 4) };
    stage.connect(first, MIDDLE, SERVER);
    stage.connect(second, MIDDLE, SERVER);
    for (upstream, client) in [(4, clients[1]), (3, clients[0])] {
        stage.greet(upstream, "mx ESMTP");
        if !greets_itself {
            answer(&mut stage, client);
        }
    }
    stage.pass_on(1, 3, "EHLO one", 250, "mx\nSTARTTLS");
    stage.pass_on(2, 4, "EHLO two", 250, "mx\nSTARTTLS");
    stage
}

#[test]
fn of_clients_that_come_at_once_nothing_is_told_that_is_not_certain() {
    for greets_itself in [false, true] {
        let mut stage = two_at_once(greets_itself);
        stage.pass_on(1, 3, "NOOP", 250, "Ok");
        for (client, upstream) in [(1, 3), (2, 4)] {
            stage.pass_on(client, upstream, "QUIT", 221, "Bye");
            stage.close(upstream);
            stage.close(client);
        }
        stage.pass(5);
        let told = [1, 2].into_iter().flat_map(|client| stage.verdicts_of(client));
        let told: Vec<_> = told.filter(|told| told.verdict != Verdict::TransparentL4).collect();
        assert!(told.is_empty(), "greets itself: {greets_itself}: {told:?}");
    }
}

/// No hello is like another: it shows which connection is whose (RFC 8446, 4.1.2).
#[test]
fn the_same_hello_pairs_clients_that_come_at_once() {
    for (greets_itself, is_client_first) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut stage = two_at_once(greets_itself);
        for (client, upstream) in [(1, 3), (2, 4)] {
            stage.pass_on(client, upstream, "STARTTLS", 220, "Ready");
            let session = || Box::new(TlsSession { client_random: Some(client), ..TlsSession::default() });
            for cookie in if is_client_first { [client, upstream] } else { [upstream, client] } {
                stage.happens(cookie, What::Tls(&Tls::Started(session())));
            }
        }
        for (client, upstream, bytes) in [(1, 3, 900), (2, 4, 3000)] {
            stage.close_with(upstream, bytes, 2400);
            stage.close_with(client, bytes, 2400);
        }
        stage.check_passed_on(&[(1, "3"), (2, "4")]);
    }
}

const MAIL: &str = "MAIL FROM:<a@c>";
const RCPT: &str = "RCPT TO:<b@s>";

/// The client's message is taken; what asks for it is the client itself, or a rule.
fn take(stage: &mut Stage, client: u64, mail: &str) {
    stage.say(client, mail, 250, "Ok");
    stage.say(client, RCPT, 250, "Ok");
    stage.say(client, "DATA", 354, "Go on");
    stage.message(client, 100, 250, "Queued");
}

/// The addresses that a client may ask for and end at, and what a relay there is called.
const RELAYS: [(Endpoint, Endpoint, Verdict); 2] =
    [(OWN, OWN, Verdict::Relay), (SERVER, PROXY, Verdict::TransparentRelay)];

#[test]
fn a_relay_is_told_by_when_it_sends_a_message_on_not_by_when_it_connected() {
    for (asked, at, verdict) in RELAYS {
        for mails in [1, 40] {
            let mut stage = Stage::default();
            stage.connect(3, MIDDLE, SERVER);
            stage.greet(3, "mx ESMTP");
            stage.connect(1, CLIENT, asked);
            stage.reach(1, 2, at, false);
            stage.serve(2, MIDDLE, at);
            stage.greet(1, "relay ESMTP");
            (0..mails).for_each(|mail| take(&mut stage, 1, &format!("MAIL FROM:<a{mail}@c>")));
            stage.say(1, "QUIT", 221, "Bye");
            stage.close(1);
            (0..mails).for_each(|mail| take(&mut stage, 3, &format!("MAIL FROM:<a{mail}@c>")));
            stage.pass(5);
            assert_eq!(stage.verdict(1).verdict, verdict);
            let told = stage.verdicts_of(1);
            let known = [verdict, Verdict::Redirected];
            assert!(told.iter().all(|told| known.contains(&told.verdict)), "{mails}: {told:?}");
        }
    }
}

/// It makes a connection for each message, and the client waits for the server's answer each time.
#[test]
fn who_holds_each_message_back_is_no_relay_because_of_the_one_before() {
    for (asked, at, verdict) in [(OWN, OWN, Verdict::InlineProxy), (SERVER, PROXY, Verdict::TransparentInterceptor)] {
        let mut stage = Stage::default();
        stage.connect(1, CLIENT, asked);
        stage.reach(1, 2, at, false);
        stage.serve(2, MIDDLE, at);
        stage.greet(1, "proxy ESMTP");
        for (upstream, mail) in [(3, MAIL), (4, "MAIL FROM:<another@c>")] {
            stage.say(1, mail, 250, "Ok");
            stage.say(1, RCPT, 250, "Ok");
            stage.say(1, "DATA", 354, "Send it");
            let ended = stage.time;
            stage.connect(upstream, MIDDLE, SERVER);
            stage.greet(upstream, "mx ESMTP");
            take(&mut stage, upstream, mail);
            let latency = std::time::Duration::from_nanos((stage.time - ended).unsigned_abs());
            stage.happens(1, crate::fact::samples::message(100, 250, "Queued", latency));
            stage.close(upstream);
        }
        stage.close(1);
        let told = stage.verdicts_of(1);
        assert!(told.iter().all(|told| told.verdict == verdict), "{told:?}");
        assert!(kinds(stage.verdict(1)).contains(&EvidenceKind::DataHeldBack), "{:?}", stage.verdict(1).evidence);
    }
}

/// Who has taken a message has its own reasons, whatever its client said behind it.
#[test]
fn a_relay_that_gives_up_a_transaction_has_the_reasons_of_a_client() {
    let smtpd = (200, 50);
    for (cached, smtp) in [(false, smtpd), (true, smtpd), (false, (201, 50)), (true, (201, 50))] {
        for says_rset in [false, true] {
            let mut stage = Stage::default();
            if cached {
                stage.connect(3, smtp, SERVER);
            }
            stage.connect(1, CLIENT, OWN);
            stage.reach(1, 2, OWN, false);
            stage.serve(2, smtpd, OWN);
            stage.greet(1, "relay ESMTP");
            take(&mut stage, 1, MAIL);
            if says_rset {
                stage.say(1, "RSET", 250, "Ok");
            }
            if !cached {
                stage.connect(3, smtp, SERVER);
            }
            stage.say(3, MAIL, 250, "Ok");
            stage.say(3, RCPT, 550, "No");
            stage.rset(3);
            assert_eq!(stage.rsets(), [RsetReason::Ambiguous], "as its connection alone shows it, and at once");
            assert_eq!(stage.verdict(1).verdict, Verdict::Relay);
        }
    }
}

/// A server to which a rule leads the client delivers another mail while the client is there, which only asks whether it is.
#[test]
fn what_a_server_delivers_for_another_is_not_held_against_its_client() {
    for is_greeted in [true, false] {
        for client_mail in [None, Some(MAIL)] {
            let mut stage = Stage::default();
            stage.connect(1, CLIENT, SERVER);
            stage.reach(1, 2, PROXY, false);
            stage.serve(2, MIDDLE, PROXY);
            if is_greeted {
                stage.greet(1, "relay ESMTP");
                stage.say(1, "EHLO c", 250, "relay\nPIPELINING");
            }
            stage.connect(3, MIDDLE, SERVER);
            stage.greet(3, "mx ESMTP");
            stage.say(3, "EHLO relay", 250, "mx\nSTARTTLS");
            take(&mut stage, 3, "MAIL FROM:<old@c>");
            stage.pass(3);
            if !is_greeted {
                stage.greet(1, "relay ESMTP");
                stage.say(1, "EHLO c", 250, "relay\nPIPELINING");
            }
            stage.say(1, "NOOP", 250, "Ok");
            if let Some(mail) = client_mail {
                take(&mut stage, 1, mail);
            }
            stage.say(1, "QUIT", 221, "Bye");
            stage.close(3);
            stage.close(1);
            stage.pass(3);
            assert_eq!(stage.verdict(1).verdict, Verdict::Redirected, "greeted: {is_greeted}");
            if is_greeted {
                let told = stage.verdicts_of(1);
                assert!(told.iter().all(|told| told.verdict == Verdict::Redirected), "{told:?}");
            }
        }
    }
}

/// It greets its client by itself, in the server's words, and connects when the client has said something.
#[test]
fn who_greets_in_the_words_of_the_server_is_known_by_them() {
    let mut stage = Stage::default();
    stage.connect(1, CLIENT, SERVER);
    stage.reach(1, 2, PROXY, false);
    stage.serve(2, MIDDLE, PROXY);
    stage.greet(1, "mx ESMTP");
    stage.connect(3, MIDDLE, SERVER);
    assert!(stage.verdicts_of(1).is_empty());
    stage.greet(3, "mx ESMTP");
    assert_eq!(stage.verdict(1).verdict, Verdict::TransparentL4);
    stage.say(3, "EHLO other", 250, "mx\nSTARTTLS");
    stage.say_after(1, "EHLO c", 250, "mx", std::time::Duration::from_millis(2));
    stage.pass_on(1, 3, "QUIT", 221, "Bye");
    stage.close(3);
    stage.close(1);
    assert_eq!(stage.verdict(1).verdict, Verdict::TransparentInterceptor, "{:?}", stage.verdict(1).evidence);
}

/// A mail server asks the next one for each recipient, with the client's sender, before it answers.
#[test]
fn who_verifies_a_recipient_at_the_next_server_passes_nothing_on() {
    let deliveries = [(None, true), (Some(4), true), (Some(4), false), (Some(3), false)];
    for (asked, at, verdict) in RELAYS {
        for (delivers, closes) in deliveries {
            let mut stage = Stage::default();
            stage.connect(1, CLIENT, asked);
            stage.reach(1, 2, at, false);
            stage.serve(2, MIDDLE, at);
            stage.greet(1, "relay ESMTP");
            stage.say(1, "EHLO c", 250, "relay");
            stage.say(1, MAIL, 250, "Ok");
            let begun = stage.time;
            stage.connect(3, MIDDLE, SERVER);
            stage.greet(3, "mx ESMTP");
            for command in ["EHLO relay", MAIL, RCPT] {
                stage.say(3, command, 250, "Ok");
            }
            stage.rset(3);
            if closes {
                stage.say(3, "QUIT", 221, "Bye");
                stage.close(3);
            }
            let latency = std::time::Duration::from_nanos((stage.time - begun).unsigned_abs());
            stage.say_after(1, RCPT, 250, "Ok", latency);
            match delivers {
                None => stage.say(1, "RSET", 250, "Ok"),
                Some(_) => {
                    stage.say(1, "DATA", 354, "Go on");
                    stage.message(1, 100, 250, "Queued");
                }
            }
            stage.say(1, "QUIT", 221, "Bye");
            stage.close(1);
            stage.pass(3);
            if let Some(upstream) = delivers {
                if upstream != 3 {
                    stage.connect(upstream, MIDDLE, SERVER);
                }
                take(&mut stage, upstream, MAIL);
            }
            stage.pass(3);
            let mut told: Vec<_> = stage.verdicts_of(1).into_iter().map(|told| told.verdict).collect();
            told.dedup();
            let led_there = (asked == SERVER).then_some(Verdict::Redirected);
            let expected: Vec<_> = led_there.into_iter().chain(delivers.map(|_| verdict)).collect();
            assert_eq!(told, expected, "{delivers:?}, closes: {closes}");
            assert_eq!(stage.rsets(), [RsetReason::Ambiguous], "as its connection alone shows it");
        }
    }
}

/// A proxy that connects when it has a recipient is known as soon as it asks for the message.
#[test]
fn who_asks_for_the_message_behind_the_recipient_is_a_proxy() {
    let mut stage = Stage::default();
    stage.connect(1, CLIENT, OWN);
    stage.reach(1, 2, OWN, false);
    stage.serve(2, MIDDLE, OWN);
    stage.greet(1, "proxy ESMTP");
    stage.say(1, MAIL, 250, "Ok");
    stage.connect(3, MIDDLE, SERVER);
    stage.say(3, MAIL, 250, "Ok");
    stage.say(3, RCPT, 250, "Ok");
    stage.say_after(1, RCPT, 250, "Ok", std::time::Duration::from_millis(4));
    assert!(stage.verdicts_of(1).is_empty());
    stage.pass_on(1, 3, "DATA", 354, "Go on");
    assert_eq!(stage.verdict(1).verdict, Verdict::InlineProxy);
}

/// The same mail goes to two addresses, as a test program and its children do it: nobody sends it on.
fn sent_twice(senders: [(u32, u32); 2], servers: [(u32, u32); 2], is_at_once: bool) -> Stage {
    let mut stage = Stage::default();
    let address = |last: u8| Endpoint { address: [127, 0, 0, last].into(), port: 25 };
    for (client, place) in [(1, 0), (5, 1)] {
        let at = address(place as u8 + 1);
        stage.connect(client, senders[place], at);
        stage.reach(client, client + 1, at, false);
        stage.serve(client + 1, servers[place], at);
        stage.greet(client, "mock ESMTP");
        if !is_at_once {
            take(&mut stage, client, MAIL);
        }
    }
    if is_at_once {
        for command in [MAIL, RCPT] {
            [1, 5].into_iter().for_each(|client| stage.say(client, command, 250, "Ok"));
        }
        for client in [1, 5] {
            stage.say(client, "DATA", 354, "Go on");
            stage.message(client, 100, 250, "Queued");
        }
    }
    [1, 5].into_iter().for_each(|client| stage.close(client));
    stage.pass(3);
    stage
}

#[test]
fn clients_and_servers_of_one_program_are_no_proxies() {
    let (runner, one, other) = ((FORKED, 50), (FORKED + 1, FORKED), (FORKED + 2, FORKED));
    for is_at_once in [true, false] {
        for (senders, servers) in [([one, other], [runner; 2]), ([runner; 2], [one, other])] {
            let stage = sent_twice(senders, servers, is_at_once);
            let told: Vec<_> = [1, 5].into_iter().flat_map(|client| stage.verdicts_of(client)).collect();
            assert!(told.is_empty(), "{senders:?} to {servers:?}, at once: {is_at_once}: {told:?}");
        }
    }
}

#[test]
fn a_connection_that_an_envelope_has_decided_is_nobody_elses() {
    let mut stage = Stage::default();
    for (client, accepted) in [(1, 11), (2, 12)] {
        stage.connect(client, CLIENT, SERVER);
        stage.reach(client, accepted, PROXY, false);
        stage.serve(accepted, MIDDLE, PROXY);
        stage.greet(client, "mx ESMTP");
    }
    stage.connect(3, MIDDLE, SERVER);
    stage.greet(3, "mx ESMTP");
    stage.pass_on(1, 3, MAIL, 250, "Ok");
    stage.pass_on(1, 3, RCPT, 250, "Ok");
    assert!(stage.verdicts_of(2).is_empty());
    stage.connect(4, MIDDLE, SERVER);
    stage.greet(4, "mx ESMTP");
    stage.check_passed_on(&[(1, "3"), (2, "4")]);
}
