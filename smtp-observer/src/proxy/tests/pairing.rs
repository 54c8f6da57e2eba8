//! Which connection carries which client's conversation on.

use super::stage::{CLIENT, MIDDLE, OWN, PROXY, SERVER, Stage};
use super::*;

/// Two clients at once: the proxy's connections were made in the other order than the clients'.
#[test]
fn a_pair_that_was_wrong_is_put_right() {
    let mut stage = Stage::default();
    for (client, accepted) in [(1, 11), (2, 12)] {
        stage.connect(client, CLIENT, SERVER);
        stage.reach(client, accepted, PROXY, false);
    }
    // 4 is for the second client, and made first.
    for upstream in [4, 3] {
        stage.connect(upstream, MIDDLE, SERVER);
        stage.greet(upstream, "mx ESMTP");
    }
    for (client, accepted) in [(1, 11), (2, 12)] {
        stage.serve(accepted, MIDDLE, PROXY);
        stage.greet(client, "mx ESMTP");
    }
    for (client, upstream, sender) in [(1, 3, "MAIL FROM:<one@c>"), (2, 4, "MAIL FROM:<another@c>")] {
        stage.pass_on(client, upstream, sender, 250, "Ok");
        stage.pass_on(client, upstream, "RCPT TO:<b@s>", 250, "Ok");
        stage.pass_on(client, upstream, "QUIT", 221, "Bye");
    }
    for cookie in [3, 4, 1, 2] {
        stage.close(cookie);
    }
    stage.pass(5);
    stage.check_passed_on(&[(1, "3"), (2, "4")]);
}

/// Two clients of one proxy send the same mail twice, at the same time.
#[test]
fn the_same_envelope_through_one_proxy() {
    let mut stage = Stage::default();
    stage.redirect(1, 11, 3, SERVER);
    stage.redirect(2, 12, 4, SERVER);
    for _ in 0..2 {
        for command in ["MAIL FROM:<a@c>", "RCPT TO:<b@s>", "DATA"] {
            for (client, upstream) in [(1, 3), (2, 4)] {
                let code = if command == "DATA" { 354 } else { 250 };
                stage.pass_on(client, upstream, command, code, "Ok");
            }
        }
        for (client, upstream) in [(1, 3), (2, 4)] {
            stage.message(upstream, 100, 250, "Queued");
            stage.message(client, 100, 250, "Queued");
        }
    }
    for cookie in [3, 4, 1, 2] {
        stage.close(cookie);
    }
    stage.pass(5);
    stage.check_passed_on(&[(1, "3"), (2, "4")]);
}

/// One connection to the server serves one client after the other.
#[test]
fn many_to_one() {
    let mut stage = Stage::default();
    for (client, accepted, sender) in [(1, 11, "MAIL FROM:<one@c>"), (2, 12, "MAIL FROM:<another@c>")] {
        stage.connect(client, CLIENT, OWN);
        stage.reach(client, accepted, OWN, false);
        if client == 1 {
            stage.connect(3, MIDDLE, SERVER);
            stage.greet(3, "mx ESMTP");
        }
        stage.serve(accepted, MIDDLE, OWN);
        stage.greet(client, "proxy ESMTP");
        stage.pass_on(client, 3, sender, 250, "Ok");
        stage.pass_on(client, 3, "RCPT TO:<b@s>", 250, "Ok");
        stage.pass_on(client, 3, "DATA", 354, "Go on");
        stage.message(3, 100, 250, "Queued");
        stage.message(client, 100, 250, "Queued");
        stage.say(client, "QUIT", 221, "Bye");
        stage.close(client);
    }
    stage.pass(5);
    for client in [1, 2] {
        let verdict = stage.verdict(client);
        assert_eq!(verdict.verdict, Verdict::InlineProxy);
        assert_eq!(verdict.upstream.as_ref().map(|upstream| upstream.source_preserved), Some(false));
        assert!(!kinds(verdict).contains(&EvidenceKind::CommandInjected), "{:?}", verdict.evidence);
        assert!(!kinds(verdict).contains(&EvidenceKind::CommandSwallowed), "{:?}", verdict.evidence);
    }
}

/// One client's transactions go by different connections.
#[test]
fn one_to_many() {
    let mut stage = Stage::default();
    stage.connect(1, CLIENT, OWN);
    stage.reach(1, 2, OWN, false);
    stage.serve(2, MIDDLE, OWN);
    for (upstream, recipient) in [(3, "RCPT TO:<b@s>"), (4, "RCPT TO:<other@s>")] {
        stage.connect(upstream, MIDDLE, SERVER);
        stage.pass_on(1, upstream, "MAIL FROM:<a@c>", 250, "Ok");
        stage.pass_on(1, upstream, recipient, 250, "Ok");
        stage.pass_on(1, upstream, "DATA", 354, "Go on");
        stage.message(upstream, 100, 250, "Queued");
        stage.message(1, 100, 250, "Queued");
        stage.close(upstream);
    }
    stage.close(1);
    stage.pass(5);
    let verdict = stage.verdict(1);
    assert_eq!(verdict.upstream.as_ref().map(|upstream| &*upstream.connection_id), Some("4"));
    assert!(!kinds(verdict).contains(&EvidenceKind::CommandSwallowed), "{:?}", verdict.evidence);
}
