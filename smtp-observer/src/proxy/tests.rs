//! Stories of clients, programs in the middle and servers, told as the observations that single connections give.

mod encrypted;
mod long;
mod pairing;
mod random;
mod stage;
mod verdicts;

use std::net::Ipv4Addr;
use std::time::Duration;

pub(super) use self::stage::process;
use self::stage::{CLIENT, MIDDLE, MILLISECOND, OWN, PROXY, SERVER, Stage, shown};
use super::*;
use crate::fact::Interception;
use crate::fact::samples as facts;
use crate::names::{EvidenceKind, NoopReason, RsetReason, Verdict};
use crate::observation::Event;

fn kinds(interception: &Interception) -> Vec<EvidenceKind> {
    interception.evidence.iter().map(|evidence| evidence.kind).collect()
}

#[test]
fn the_story_of_the_antivirus() {
    let mut stage = Stage::redirected(1, 2, 3);
    stage.pass_on(1, 3, "EHLO c", 250, "mx\nPIPELINING");
    stage.pass_on(1, 3, "MAIL FROM:<a@c>", 250, "Ok");
    stage.pass_on(1, 3, "RCPT TO:<b@s>", 250, "Ok");
    stage.say(1, "DATA", 354, "Please start mail input.");
    stage.noop(3);
    assert_eq!(stage.noops(), [NoopReason::InterceptorKeepalive], "at once: a client sends nothing beside a message");
    stage.noop(3);
    stage.message(1, 100, 250, "Mail queued for delivery.");
    stage.say(1, "QUIT", 221, "Good bye.");
    stage.close(1);
    stage.rset(3);
    stage.say(3, "MAIL FROM:<a@c>", 250, "Ok");
    stage.say(3, "RCPT TO:<b@s>", 250, "Ok");
    stage.say(3, "DATA", 354, "End data");
    stage.message(3, 100, 250, "Queued");
    stage.say(3, "QUIT", 221, "Bye");
    stage.close(3);
    stage.pass(2);
    let verdict = stage.verdict(1);
    assert_eq!((verdict.verdict, verdict.method), (Verdict::TransparentInterceptor, Method::Redirect));
    assert_eq!(verdict.interceptor.as_ref().map(|caller| caller.process.pid), Some(MIDDLE.0));
    assert_eq!(verdict.client.process.as_ref().map(|caller| caller.process.pid), Some(CLIENT.0));
    assert_eq!(verdict.upstream.as_ref().map(|upstream| &*upstream.connection_id), Some("3"));
    assert_eq!(verdict.upstream.as_ref().map(|upstream| upstream.source_preserved), Some(true));
    use EvidenceKind::*;
    for kind in [
        LocalPeer,
        SameDestinationConnected,
        EnvelopeMirrored,
        ReplyTextDiffers,
        GoAheadNotFromUpstream,
        DataHeldBack,
        SuccessBeforeUpstream,
        CommandInjected,
        CoupledClose,
    ] {
        assert!(kinds(verdict).contains(&kind), "{kind:?} in {:?}", verdict.evidence);
    }
    assert_eq!(stage.rsets(), [RsetReason::InterceptorReplay]);
    assert_eq!(stage.noops(), [NoopReason::InterceptorKeepalive; 2]);
    // DATA was sent at 15.5 ms, and upstream of it eight things later.
    assert!(verdict.hold.is_some_and(|hold| hold > Duration::from_millis(5)), "{:?}", verdict.hold);
    let marked =
        |cookie: u64| stage.told.iter().filter(move |told| told.connection.cookie == cookie && told.intercepted);
    assert!([1, 3].into_iter().all(|cookie| marked(cookie).count() > 3), "its lines are marked");
    let hidden = stage.verdicts_of(1).iter().filter(|verdict| verdict.news.hidden).count();
    assert_eq!(hidden, 1, "it is counted once");
}

#[test]
fn the_servers_own_end_tells_the_same_reasons() {
    let mut stage = Stage::redirected(1, 2, 3);
    stage.reach(3, 4, SERVER, false);
    stage.end(4, Role::Server, SERVER, SERVER, (300, 1));
    stage.happens(4, facts::opened());
    for command in ["EHLO c", "NOOP", "MAIL FROM:<a@c>", "RCPT TO:<b@s>"] {
        stage.pass_on(1, 3, command, 250, "Ok");
    }
    stage.noop(4);
    stage.noop_after(3, Duration::from_millis(2));
    assert_eq!(stage.noops(), [], "whether the client sends one, too, is not known yet");
    stage.noop_after(1, Duration::from_millis(5));
    assert_eq!(stage.noops(), [NoopReason::Ambiguous], "the client's own says nothing of the middle");
    stage.say(1, "DATA", 354, "Please start mail input.");
    assert_eq!(stage.noops()[1..], [NoopReason::Relayed; 2], "both ends of one connection");
    stage.noop(4);
    assert_eq!(stage.noops().len(), 3, "the reply is on its way");
    stage.noop_after(3, Duration::from_millis(2));
    assert_eq!(stage.noops()[3..], [NoopReason::InterceptorKeepalive; 2]);
    stage.pass(1);
    stage.noop(4);
    stage.close(4);
    assert_eq!(stage.noops()[5..], [NoopReason::Ambiguous], "nobody heard the reply");
    let marked = stage.told.iter().any(|told| told.connection.cookie == 4 && told.intercepted);
    assert!(marked, "the server's lines are marked, too");
}

#[test]
fn who_passes_everything_on_is_no_interceptor() {
    let mut stage = Stage::redirected(1, 2, 3);
    stage.pass_on(1, 3, "EHLO c", 250, "mx\nPIPELINING\nSTARTTLS");
    stage.pass_on(1, 3, "MAIL FROM:<a@c>", 250, "Ok");
    stage.pass_on(1, 3, "RCPT TO:<b@s>", 250, "Ok");
    stage.pass_on(1, 3, "DATA", 354, "Go on");
    stage.message(3, 100, 250, "Queued as 1");
    stage.message(1, 100, 250, "Queued as 1");
    stage.rset(3);
    stage.say_after(1, "RSET", 250, "Ok", Duration::from_millis(2));
    stage.noop(3);
    stage.say_after(1, "NOOP", 250, "Ok", Duration::from_millis(2));
    stage.pass_on(1, 3, "QUIT", 221, "Bye");
    stage.close(3);
    stage.close(1);
    stage.pass(3);
    assert_eq!(stage.verdict(1).verdict, Verdict::TransparentL4, "{:?}", stage.verdict(1).evidence);
    assert_eq!(stage.rsets(), [RsetReason::Relayed]);
    assert_eq!(stage.noops(), [NoopReason::Relayed]);
}

#[test]
fn a_client_whose_calls_return_late() {
    let mut stage = Stage::redirected(1, 2, 3);
    // It lost the processor in each of them: when it came back, all had been answered upstream.
    let late = |stage: &mut Stage, command: &str, code: u16, reply: &str| {
        stage.say(3, command, code, reply);
        stage.say_after(1, command, code, reply, Duration::from_micros(200));
    };
    for command in ["EHLO c", "NOOP", "MAIL FROM:<a@c>", "RCPT TO:<b@s>"] {
        late(&mut stage, command, 250, "Ok");
    }
    stage.noop_after(3, Duration::from_micros(500));
    stage.say_after(1, "NOOP", 250, "Ok", Duration::from_micros(200));
    late(&mut stage, "DATA", 354, "Go ahead");
    stage.message(3, 100, 250, "Queued");
    stage.message(1, 100, 250, "Queued");
    stage.pass_on(1, 3, "QUIT", 221, "Bye");
    stage.close(3);
    stage.close(1);
    stage.pass(2);
    let verdict = stage.verdict(1);
    assert_eq!(verdict.verdict, Verdict::TransparentL4, "{:?}", verdict.evidence);
    assert_eq!(stage.noops(), [NoopReason::Relayed]);
}

#[test]
fn a_program_in_the_middle_that_is_faster_than_its_clients_call() {
    let mut stage = Stage::redirected(1, 2, 3);
    stage.reach(3, 4, SERVER, false);
    stage.end(4, Role::Server, SERVER, SERVER, (300, 1));
    stage.happens(4, facts::opened());
    for command in ["EHLO c", "MAIL FROM:<a@c>", "RCPT TO:<b@s>"] {
        stage.pass_on(1, 3, command, 250, "Ok");
    }
    // The call that sent DATA returns when the first NOOP is answered; the server's, when its answer is there.
    stage.noop(3);
    stage.noop(4);
    stage.say_after(1, "DATA", 354, "Please start mail input.", Duration::from_micros(200));
    assert_eq!(stage.noops(), [NoopReason::InterceptorKeepalive]);
    stage.noop(3);
    assert_eq!(stage.noops(), [NoopReason::InterceptorKeepalive; 3], "the first one at both ends, and another");
}

/// All of it is passed on before the client's side of it is told, which is with the reply to the message.
#[test]
fn a_client_that_pipelines_behind_its_message() {
    let mut stage = Stage::redirected(1, 2, 3);
    for command in ["EHLO c", "MAIL FROM:<a@c>", "RCPT TO:<b@s>"] {
        stage.pass_on(1, 3, command, 250, "Ok");
    }
    stage.pass_on(1, 3, "DATA", 354, "Go on");
    let ended = stage.time;
    let behind = |stage: &mut Stage, cookie: u64, late: i64| {
        let since = |stage: &Stage| Duration::from_nanos((stage.time + late * MILLISECOND - ended).unsigned_abs());
        let latency = since(stage);
        stage.happens(cookie, facts::message(100, 250, "Queued", latency));
        let latency = since(stage);
        stage.say_after(cookie, "RSET", 250, "Ok", latency);
        stage.time -= MILLISECOND;
        stage.happens(cookie, facts::rset(RsetReason::PipelinedBetweenMessages));
        for command in ["MAIL FROM:<c@c>", "RCPT TO:<d@s>"] {
            let latency = since(stage);
            stage.say_after(cookie, command, 250, "Ok", latency);
        }
    };
    behind(&mut stage, 3, 0);
    assert_eq!(stage.rsets(), [], "the client's may not be told yet");
    stage.time += 20 * MILLISECOND;
    behind(&mut stage, 1, 1);
    stage.pass_on(1, 3, "QUIT", 221, "Bye");
    stage.close(3);
    stage.close(1);
    stage.pass(3);
    stage.check_passed_on(&[(1, "3")]);
    assert_eq!(
        stage.rsets(),
        [RsetReason::PipelinedBetweenMessages, RsetReason::Relayed],
        "the client's, and its copy"
    );
}

#[test]
fn what_is_taken_away_from_ehlo_is_told() {
    let mut stage = Stage::redirected(1, 2, 3);
    stage.say(3, "EHLO proxy", 250, "mx\nPIPELINING\nSTARTTLS\nSIZE 9");
    stage.say_after(1, "EHLO c", 250, "mx\nSIZE 9\nXFILTERED", Duration::from_millis(2));
    stage.pass_on(1, 3, "MAIL FROM:<a@c>", 250, "Ok");
    stage.pass(3);
    stage.close(1);
    let evidence = kinds(stage.verdict(1));
    use EvidenceKind::*;
    for kind in [StarttlsStripped, CapabilityRemoved, CapabilityAdded, HeloChanged] {
        assert!(evidence.contains(&kind), "{kind:?} in {evidence:?}");
    }
}

#[test]
fn starttls_is_taken_away_by_who_speaks_tls_to_the_server() {
    let mut stage = Stage::redirected(1, 2, 3);
    // Inside of TLS the server offers it no more (RFC 3207, 4.2).
    stage.say(3, "EHLO c", 250, "mx\nPIPELINING\nSTARTTLS\nSIZE 9");
    stage.say(3, "STARTTLS", 220, "Ready");
    stage.say(3, "EHLO c", 250, "mx\nPIPELINING\nSIZE 9");
    stage.say_after(1, "EHLO c", 250, "mx\nPIPELINING\nSIZE 9", Duration::from_millis(5));
    stage.pass_on(1, 3, "MAIL FROM:<a@c>", 250, "Ok");
    stage.pass(3);
    stage.close(1);
    let evidence = kinds(stage.verdict(1));
    assert!(evidence.contains(&EvidenceKind::StarttlsStripped), "{evidence:?}");
}

#[test]
fn a_message_that_is_thrown_away() {
    let mut stage = Stage::redirected(1, 2, 3);
    stage.pass_on(1, 3, "MAIL FROM:<a@c>", 250, "Ok");
    stage.pass_on(1, 3, "RCPT TO:<b@s>", 250, "Ok");
    stage.say(1, "DATA", 354, "Start");
    stage.message(1, 100, 550, "Content rejected");
    stage.rset(3);
    stage.pass_on(1, 3, "QUIT", 221, "Bye");
    assert_eq!(stage.rsets(), [RsetReason::InterceptorDiscard]);
    assert_eq!(stage.verdict(1).verdict, Verdict::TransparentInterceptor);
}

#[test]
fn what_the_client_has_not_sent_is_no_habit_of_the_client() {
    use RsetReason::{AddressProbe, Ambiguous, ClientAbort, RecipientsRejected, ReuseProbe};
    for (alone, expected) in [
        (AddressProbe, Ambiguous),
        (ClientAbort, Ambiguous),
        (RecipientsRejected, RecipientsRejected),
        (ReuseProbe, ReuseProbe),
    ] {
        let mut stage = Stage::redirected(1, 2, 3);
        stage.pass_on(1, 3, "MAIL FROM:<>", 250, "Ok");
        stage.pass_on(1, 3, "RCPT TO:<b@s>", 250, "Ok");
        stage.close(1);
        stage.rset_because(3, alone);
        stage.say(3, "QUIT", 221, "Bye");
        stage.close(3);
        stage.pass(3);
        assert_eq!(stage.rsets(), [expected]);
    }
    use NoopReason::{LeaseCheck, PipelineSync, Verification};
    for (alone, expected) in
        [(Verification, NoopReason::Ambiguous), (PipelineSync, NoopReason::Ambiguous), (LeaseCheck, LeaseCheck)]
    {
        let mut stage = Stage::redirected(1, 2, 3);
        stage.pass_on(1, 3, "MAIL FROM:<a@c>", 250, "Ok");
        stage.noop_because(3, alone);
        stage.pass_on(1, 3, "RCPT TO:<b@s>", 250, "Ok");
        stage.pass_on(1, 3, "QUIT", 221, "Bye");
        stage.close(3);
        stage.close(1);
        stage.pass(3);
        assert_eq!(stage.noops(), [expected]);
    }
}

#[test]
fn a_clients_own_test_of_addresses_is_passed_on() {
    let mut stage = Stage::redirected(1, 2, 3);
    stage.pass_on(1, 3, "MAIL FROM:<>", 250, "Ok");
    stage.pass_on(1, 3, "RCPT TO:<b@s>", 250, "Ok");
    stage.rset_because(3, RsetReason::AddressProbe);
    stage.say_after(1, "RSET", 250, "Ok", Duration::from_millis(2));
    stage.pass_on(1, 3, "QUIT", 221, "Bye");
    stage.close(3);
    stage.close(1);
    stage.pass(3);
    assert_eq!(stage.rsets(), [RsetReason::Relayed]);
}

/// A proxy that the client asked for, and its connection to the server.
fn chosen() -> Stage {
    let mut stage = Stage::default();
    stage.connect(1, CLIENT, OWN);
    stage.reach(1, 2, OWN, false);
    stage.serve(2, MIDDLE, OWN);
    stage.greet(1, "proxy ESMTP");
    stage.connect(3, MIDDLE, SERVER);
    stage.greet(3, "mx ESMTP");
    stage
}

#[test]
fn a_proxy_that_the_client_asked_for() {
    let mut stage = chosen();
    assert!(stage.verdicts_of(1).is_empty(), "nothing is common to them yet");
    stage.pass_on(1, 3, "MAIL FROM:<a@c>", 250, "Ok");
    stage.pass_on(1, 3, "RCPT TO:<b@s>", 250, "Ok");
    assert_eq!(stage.verdict(1).verdict, Verdict::InlineProxy);
    assert_eq!(stage.verdict(1).method, Method::LocalProxy);
}

/// RFC 5321, 4.1.1.9: NOOP does nothing, wherever it stands.
#[test]
fn a_noop_within_a_transaction_hides_no_proxy() {
    for passes_it in [true, false] {
        let mut stage = chosen();
        stage.pass_on(1, 3, "MAIL FROM:<a@c>", 250, "Ok");
        if passes_it {
            stage.say(3, "NOOP", 250, "Ok");
        }
        stage.say_after(1, "NOOP", 250, "Ok", Duration::from_millis(2));
        stage.pass_on(1, 3, "RCPT TO:<b@s>", 250, "Ok");
        assert_eq!(stage.verdict(1).verdict, Verdict::InlineProxy, "passes it: {passes_it}");
    }
}

/// The client sends DATA when it has heard of its recipient: what was sent before that was sent before DATA.
#[test]
fn a_noop_of_the_proxy_before_the_client_heard_the_reply_is_before_its_data() {
    let mut stage = Stage::redirected(1, 2, 3);
    for command in ["EHLO c", "MAIL FROM:<a@c>"] {
        stage.pass_on(1, 3, command, 250, "Ok");
    }
    stage.say(3, "RCPT TO:<b@s>", 250, "Ok");
    stage.noop(3);
    stage.say_after(1, "RCPT TO:<b@s>", 250, "Ok", Duration::from_millis(3));
    stage.pass_on(1, 3, "DATA", 354, "Go on");
    stage.message(3, 100, 250, "Queued");
    stage.message(1, 100, 250, "Queued");
    stage.pass(3);
    assert_eq!(stage.noops(), [NoopReason::Ambiguous], "no message was held back");
    assert!(kinds(stage.verdict(1)).contains(&EvidenceKind::CommandInjected), "though the client did not send it");
}

/// A mail server: one process takes the mail, another sends it on; both are children of one.
#[test]
fn a_relay() {
    let (smtpd, smtp) = ((200, 50), (201, 50));
    let mut stage = Stage::default();
    stage.connect(1, CLIENT, OWN);
    stage.reach(1, 2, OWN, false);
    stage.serve(2, smtpd, OWN);
    stage.greet(1, "own ESMTP");
    stage.say(1, "MAIL FROM:<a@c>", 250, "Ok");
    stage.say(1, "RCPT TO:<b@s>", 250, "Ok");
    // Another mail with the same envelope, before this one is taken: it cannot be this one.
    stage.connect(9, smtp, SERVER);
    stage.say(9, "MAIL FROM:<a@c>", 250, "Ok");
    stage.say(9, "RCPT TO:<b@s>", 250, "Ok");
    stage.say(1, "DATA", 354, "Go on");
    stage.message(1, 100, 250, "Queued");
    assert!(stage.verdicts_of(1).is_empty());
    stage.connect(3, smtp, SERVER);
    stage.greet(3, "mx ESMTP");
    stage.say(3, "MAIL FROM:<a@c>", 250, "Ok");
    stage.say(3, "RCPT TO:<b@s>", 250, "Ok");
    assert_eq!(stage.verdict(1).verdict, Verdict::Relay);
    stage.say(3, "DATA", 354, "Go on");
    stage.message(3, 400, 250, "Queued");
    stage.close(3);
    stage.close(1);
    assert_eq!(stage.verdict(1).verdict, Verdict::Relay);
    assert!(!stage.verdicts_of(1).iter().any(|verdict| verdict.verdict.is_hidden()));
}

#[test]
fn strangers_with_the_same_envelope() {
    let stranger = (300, 1);
    let mut stage = Stage::default();
    stage.connect(1, CLIENT, OWN);
    stage.reach(1, 2, OWN, false);
    stage.serve(2, MIDDLE, OWN);
    stage.connect(3, stranger, SERVER);
    for command in ["MAIL FROM:<a@c>", "RCPT TO:<b@s>"] {
        stage.say(1, command, 250, "Ok");
        stage.say(3, command, 250, "Ok");
    }
    assert!(stage.verdicts_of(1).is_empty());
}

#[test]
fn who_talks_to_itself_is_in_nobodys_middle() {
    let mut stage = Stage::default();
    stage.connect(1, CLIENT, SERVER);
    stage.reach(1, 2, PROXY, false);
    stage.serve(2, CLIENT, PROXY);
    stage.connect(3, CLIENT, SERVER);
    assert!(stage.verdicts_of(1).is_empty());
}

/// A proxy in front of which a server stands in a network of its own: whoever asks this host asks for it.
#[test]
fn a_published_port() {
    let mut stage = Stage::default();
    stage.connect(1, CLIENT, SERVER);
    stage.time += MILLISECOND;
    let accepted = Accepted { cookie: 2, local: PROXY, time: Timestamp(stage.time) };
    stage.interceptions.meet(stage.opened[&1].clone(), accepted, false, &[SERVER.address]);
    let backend = Endpoint { port: 25, ..PROXY };
    stage.connect(3, MIDDLE, backend);
    stage.greet(3, "mx ESMTP");
    stage.serve(2, MIDDLE, PROXY);
    stage.greet(1, "mx ESMTP");
    assert_eq!(stage.verdict(1).verdict, Verdict::InlineProxy);
}

#[test]
fn methods_are_told_apart() {
    let method = |asked: Option<Endpoint>, remote: Endpoint, at: Endpoint, transparent: bool| {
        let mut stage = Stage::default();
        stage.connect_asking(1, CLIENT, remote, asked);
        stage.reach(1, 2, at, transparent);
        stage.interceptions.cases[&1].method
    };
    let elsewhere = Endpoint { address: Ipv4Addr::new(198, 51, 100, 7).into(), port: 2525 };
    assert_eq!(method(None, SERVER, PROXY, false), Method::Redirect);
    assert_eq!(method(None, SERVER, Endpoint { port: 2525, ..SERVER }, false), Method::Redirect);
    assert_eq!(method(None, SERVER, elsewhere, false), Method::Dnat);
    assert_eq!(method(None, SERVER, SERVER, true), Method::Tproxy);
    assert_eq!(method(Some(SERVER), PROXY, PROXY, false), Method::ConnectRewrite);
    assert_eq!(method(None, SERVER, SERVER, false), Method::LocalProxy);
    let any = Endpoint { address: Ipv4Addr::UNSPECIFIED.into(), port: 25 };
    assert_eq!(method(Some(any), OWN, OWN, false), Method::LocalProxy, "what asks for any address gets its own");
}

#[test]
fn what_waits_at_the_end_is_judged_once() {
    let mut stage = Stage::redirected(1, 2, 3);
    stage.pass_on(1, 3, "MAIL FROM:<a@c>", 250, "Ok");
    stage.pass_on(1, 3, "RCPT TO:<b@s>", 250, "Ok");
    stage.noop(3);
    stage.say(1, "DATA", 354, "Start");
    assert!(stage.interceptions.is_waiting());
    stage.interceptions.settle(Timestamp(i64::MAX), &mut |fact| stage.told.push(shown(fact)));
    assert_eq!(stage.noops().len(), 1);
    let evidence = kinds(stage.verdict(1));
    assert!(evidence.contains(&EvidenceKind::GoAheadNotFromUpstream), "{evidence:?}");
}

#[test]
fn a_socket_that_connects_again_is_not_over() {
    let mut stage = Stage::redirected(1, 2, 3);
    stage.close(3);
    stage.close(1);
    stage.pass(20);
    stage.redirect(1, 4, 5, SERVER);
    stage.pass(20);
    let Interceptions { legs, cases, accepted, .. } = &stage.interceptions;
    assert!(legs.contains_key(&1) && cases.contains_key(&1));
    assert_eq!((accepted.get(&2), accepted.get(&4)), (None, Some(&1)));
}

#[test]
fn what_is_over_is_forgotten() {
    let mut stage = Stage::default();
    for client in (0..30_000).step_by(3) {
        stage.redirect(client, client + 1, client + 2, SERVER);
        stage.close(client + 2);
        stage.close(client);
    }
    let Interceptions { legs, cases, accepted, .. } = &stage.interceptions;
    assert!(legs.len() <= MAX_REMEMBERED + 2 && cases.len() <= MAX_REMEMBERED && accepted.len() <= MAX_REMEMBERED);
    stage.pass(60);
    let Interceptions { legs, cases, accepted, middles, due, held, over, .. } = &stage.interceptions;
    assert_eq!((legs.len(), cases.len(), accepted.len(), over.len()), (0, 0, 0, 0));
    assert_eq!((due.len(), held.is_waiting(), legs.bytes()), (0, false, 0));
    assert!(middles.get(MIDDLE.0).is_none() && middles.get(CLIENT.0).is_none());
}
