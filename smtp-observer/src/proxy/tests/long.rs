//! Long conversations: what is far behind costs nothing, and what is forgotten proves nothing.

use super::super::dialogue::{MAX_STEPS, MAX_TEXTS, Step, reads};
use super::super::legs;
use super::*;
use crate::fact::evidence::ReasonEvidence;

const MAIL: &str = "MAIL FROM:<a@c>";
const RCPT: &str = "RCPT TO:<b@s>";

/// A redirected client whose DATA the program in the middle answered itself.
fn held_back() -> Stage {
    let mut stage = Stage::redirected(1, 2, 3);
    for command in ["EHLO c", MAIL, RCPT] {
        stage.pass_on(1, 3, command, 250, "Ok");
    }
    stage.say(1, "DATA", 354, "Please start mail input.");
    stage
}

/// What is seen of an RSET behind so many NOOPs, and what comes then.
fn behind(noops: usize, then: impl FnOnce(&mut Stage)) -> Stage {
    let mut stage = held_back();
    for _ in 0..noops {
        stage.noop(3);
    }
    assert_eq!(stage.noops(), vec![NoopReason::InterceptorKeepalive; noops]);
    then(&mut stage);
    stage
}

fn replay(stage: &mut Stage) {
    stage.rset(3);
    for command in [MAIL, RCPT] {
        stage.say(3, command, 250, "Ok");
    }
    stage.say(3, "DATA", 354, "End data");
    stage.message(3, 100, 250, "Queued");
}

const MANY: [usize; 8] = [0, 1, 50, 58, MAX_STEPS, 100, 500, 2000];

#[test]
fn a_replay_behind_any_number_of_noops() {
    for noops in MANY {
        let stage = behind(noops, |stage| {
            stage.message(1, 100, 250, "Mail queued for delivery.");
            stage.say(1, "QUIT", 221, "Bye");
            stage.close(1);
            replay(stage);
        });
        assert_eq!(stage.rsets(), [RsetReason::InterceptorReplay], "behind {noops} NOOPs");
        assert_eq!(stage.verdict(1).verdict, Verdict::TransparentInterceptor);
    }
}

#[test]
fn a_replay_while_the_client_waits() {
    for noops in MANY {
        let stage = behind(noops, |stage| {
            replay(stage);
            stage.message(1, 100, 250, "Queued");
        });
        assert_eq!(stage.rsets(), [RsetReason::InterceptorReplay], "behind {noops} NOOPs");
    }
}

#[test]
fn a_replay_that_begins_with_other_commands() {
    for before in [&["NOOP"; 3][..], &["EHLO c"], &["NOOP", "EHLO c", "NOOP"], &["HELO c", "HELP"]] {
        let stage = behind(100, |stage| {
            stage.message(1, 100, 250, "Queued");
            stage.say(1, "QUIT", 221, "Bye");
            stage.close(1);
            stage.rset(3);
            for command in before {
                stage.say(3, command, 250, "Ok");
            }
            stage.say(3, MAIL, 250, "Ok");
            stage.say(3, RCPT, 250, "Ok");
        });
        assert_eq!(stage.rsets(), [RsetReason::InterceptorReplay], "{before:?}");
    }
}

#[test]
fn a_client_that_sends_noops_itself_while_its_message_is_held() {
    let mut stage = held_back();
    stage.message(1, 100, 250, "Queued");
    for _ in 0..3 * MAX_STEPS {
        stage.say(1, "NOOP", 250, "Ok");
    }
    stage.say(1, "QUIT", 221, "Bye");
    stage.close(1);
    replay(&mut stage);
    assert_eq!(stage.rsets(), [RsetReason::InterceptorReplay]);
}

#[test]
fn a_message_that_is_thrown_away_behind_many_noops() {
    for noops in MANY {
        let stage = behind(noops, |stage| {
            stage.message(1, 100, 550, "Content rejected");
            stage.rset(3);
            stage.pass_on(1, 3, "QUIT", 221, "Bye");
        });
        assert_eq!(stage.rsets(), [RsetReason::InterceptorDiscard], "behind {noops} NOOPs");
    }
}

/// A connection to the server is used for one client after the other, and their mails have one sender.
#[test]
fn a_mail_of_the_same_sender_is_a_replay_when_it_names_the_same_recipient() {
    use RsetReason::{Ambiguous, InterceptorDiscard, InterceptorReplay};
    for (behind_mail, expected) in [
        (&[][..], Ambiguous),
        (&["NOOP"], Ambiguous),
        (&["RSET"], Ambiguous),
        (&[RCPT], InterceptorReplay),
        (&["RCPT TO:<z@s>", "NOOP", RCPT], InterceptorReplay),
        (&["RCPT TO:<z@s>", "DATA"], InterceptorDiscard),
    ] {
        let stage = behind(3, |stage| {
            stage.rset(3);
            stage.say(3, MAIL, 250, "Ok");
            assert_eq!(stage.rsets(), [], "it may be another client's");
            for command in behind_mail {
                stage.say(3, command, 250, "Ok");
            }
            stage.pass(3);
        });
        assert_eq!(stage.rsets()[0], expected, "{behind_mail:?}");
    }
}

#[test]
fn another_clients_mail_of_the_same_sender_is_no_replay() {
    let mut stage = behind(3, |stage| stage.rset(3));
    stage.connect(4, CLIENT, SERVER);
    stage.reach(4, 5, PROXY, false);
    stage.serve(5, MIDDLE, PROXY);
    stage.greet(4, "mx ESMTP");
    stage.pass_on(4, 3, MAIL, 250, "Ok");
    stage.say(4, "RCPT TO:<z@s>", 250, "Ok");
    stage.say(3, "RCPT TO:<z@s>", 250, "Ok");
    stage.pass(3);
    assert!(!stage.rsets().contains(&RsetReason::InterceptorReplay), "{:?}", stage.rsets());
}

#[test]
fn the_clients_next_mail_is_no_replay() {
    let stage = behind(100, |stage| {
        stage.message(1, 100, 550, "Content rejected");
        stage.rset(3);
        for command in [MAIL, RCPT] {
            stage.pass_on(1, 3, command, 250, "Ok");
        }
    });
    assert_eq!(stage.rsets(), [RsetReason::InterceptorDiscard]);
}

#[test]
fn what_came_of_an_rset_is_not_told_before_it_is_known() {
    let mut stage = behind(3, |stage| stage.rset(3));
    assert_eq!(stage.rsets(), []);
    stage.pass(3);
    assert_eq!(stage.rsets(), [RsetReason::Ambiguous], "the message may still be sent on");
    let evidence = stage.told.iter().find_map(|told| match &told.event {
        Event::Rset(rset) => Some(rset.evidence),
        _ => None,
    });
    let evidence = evidence.expect("it was told");
    let possible = ReasonEvidence::PossibleRset([RsetReason::InterceptorDiscard, RsetReason::InterceptorReplay].into());
    assert!(evidence.iter().any(|evidence| evidence == possible), "{evidence:?}");
}

#[test]
fn a_message_that_was_passed_on_long_ago_is_not_held_back() {
    let mut stage = Stage::redirected(1, 2, 3);
    for command in ["EHLO c", MAIL, RCPT] {
        stage.pass_on(1, 3, command, 250, "Ok");
    }
    stage.pass_on(1, 3, "DATA", 354, "Go on");
    stage.message(3, 100, 250, "Queued");
    stage.message(1, 100, 250, "Queued");
    for _ in 0..2 * MAX_STEPS {
        stage.noop(3);
        stage.pass(3);
    }
    stage.rset(3);
    stage.pass(3);
    assert_eq!(stage.rsets(), [RsetReason::Ambiguous], "as its connection alone shows it");
    assert_eq!(stage.noops(), vec![NoopReason::Ambiguous; 2 * MAX_STEPS]);
}

/// All of a group's replies come upstream before the client hears the first one.
#[test]
fn a_group_that_is_longer_than_what_is_kept() {
    for length in [10, MAX_STEPS, 3 * MAX_STEPS] {
        let mut stage = Stage::redirected(1, 2, 3);
        for command in ["EHLO c", MAIL] {
            stage.pass_on(1, 3, command, 250, "Ok");
        }
        let group: Vec<String> = (0..length).map(|number| format!("RCPT TO:<b{number}@s>")).collect();
        let sent = stage.time;
        for cookie in [3, 1] {
            for command in &group {
                let latency = Duration::from_nanos((stage.time + MILLISECOND - sent).unsigned_abs());
                stage.say_after(cookie, command, 250, "Ok", latency);
            }
        }
        stage.pass_on(1, 3, "DATA", 354, "Go on");
        stage.message(3, 100, 250, "Queued");
        stage.message(1, 100, 250, "Queued");
        stage.pass_on(1, 3, "QUIT", 221, "Bye");
        stage.close(3);
        stage.close(1);
        stage.pass(3);
        assert_eq!(stage.verdict(1).verdict, Verdict::TransparentL4, "{length}: {:?}", stage.verdict(1).evidence);
        assert!(stage.verdicts_of(1).iter().all(|told| told.verdict != Verdict::TransparentInterceptor), "{length}");
    }
}

/// A message with more recipients than are kept is sent on when it is there as a whole.
#[test]
fn recipients_that_are_forgotten_were_neither_swallowed_nor_invented() {
    let mut stage = Stage::redirected(1, 2, 3);
    let recipients: Vec<String> = (0..3 * MAX_STEPS).map(|number| format!("RCPT TO:<b{number}@s>")).collect();
    stage.pass_on(1, 3, "EHLO c", 250, "mx");
    for cookie in [1, 3] {
        stage.say(cookie, MAIL, 250, "Ok");
        recipients.iter().for_each(|recipient| stage.say(cookie, recipient, 250, "Ok"));
        stage.say(cookie, "DATA", 354, "Go on");
        stage.message(cookie, 100, 250, "Queued");
    }
    for cookie in [3, 1] {
        stage.say(cookie, "QUIT", 221, "Bye");
        stage.close(cookie);
    }
    stage.pass(3);
    let evidence = kinds(stage.verdict(1));
    assert!(evidence.contains(&EvidenceKind::GoAheadNotFromUpstream), "{evidence:?}");
    for forgotten in [EvidenceKind::CommandInjected, EvidenceKind::CommandSwallowed] {
        assert!(!evidence.contains(&forgotten), "{:?}", stage.verdict(1).evidence);
    }
}

/// Whether a client that says nothing for long has sent an RSET is not known.
#[test]
fn a_reason_whose_client_is_forgotten_is_ambiguous() {
    let mut stage = held_back();
    stage.message(1, 100, 250, "Queued");
    let before = stage.noops().len();
    for _ in 0..100 {
        stage.noop_after(3, Duration::from_micros(100));
    }
    stage.pass(3);
    let noops = stage.noops().split_off(before);
    assert_eq!(noops.len(), 100);
    assert!(noops.iter().all(|reason| [NoopReason::Ambiguous, NoopReason::InterceptorKeepalive].contains(reason)));
    assert!(noops.contains(&NoopReason::Ambiguous), "no more than some wait: {noops:?}");
}

#[test]
fn ten_thousand_commands_cost_the_same_each() {
    let through = |stage: &mut Stage, place: usize| match place % 4 {
        0 => stage.pass_on(1, 3, MAIL, 250, "Ok"),
        1 => stage.pass_on(1, 3, RCPT, 250, "Ok"),
        2 => {
            stage.noop(3);
            stage.say_after(1, "NOOP", 250, "Ok", Duration::from_millis(2));
        }
        _ => {
            stage.rset(3);
            stage.say_after(1, "RSET", 250, "Ok", Duration::from_millis(2));
        }
    };
    let of_the_middle = |stage: &mut Stage, _: usize| stage.noop(3);
    let of_the_client = |stage: &mut Stage, _: usize| stage.say(1, "NOOP", 250, "Ok");
    type Say = fn(&mut Stage, usize);
    let stories: [(&str, Stage, Say); 4] = [
        ("passed on", Stage::redirected(1, 2, 3), through),
        ("by the middle", held_back(), of_the_middle),
        ("by the client", held_back(), of_the_client),
        ("by the middle, of a silent client", Stage::redirected(1, 2, 3), of_the_middle),
    ];
    for (name, mut stage, command) in stories {
        let mut costs = Vec::new();
        for place in 0..10_000 {
            reads::take();
            command(&mut stage, place);
            costs.push(reads::take());
            stage.told.clear();
            let legs = &stage.interceptions.legs;
            for cookie in [1, 3] {
                let bytes = legs.get(&cookie).expect("it is open").dialogue.bytes();
                assert!(bytes <= 2 * MAX_TEXTS + 2 * MAX_STEPS * size_of::<Step>(), "{name}: {bytes} bytes");
            }
        }
        let sum = |range: std::ops::Range<usize>| costs[range].iter().sum::<usize>();
        assert_eq!(sum(1000..2000), sum(9000..10_000), "{name}: the last thousand and the second");
        // Each is aligned with what waits, settled, and looked at for two verdicts; an RSET or a NOOP is found in what is kept.
        let most = costs.iter().max().copied().unwrap_or_default();
        assert!(most <= 16 * MAX_STEPS, "{name}: {most} steps were read for one command");
    }
}

#[test]
fn all_dialogues_together_have_a_bound() {
    let mut stage = Stage::redirected(1, 2, 3);
    let text = "x".repeat(500);
    for cookie in 100..8100 {
        stage.connect(cookie, (1000, 1), SERVER);
        stage.say(cookie, "EHLO c", 250, &text);
        assert!(stage.interceptions.legs.bytes() <= legs::MAX_BYTES + 2 * MAX_TEXTS);
        stage.told.clear();
    }
    assert!(stage.interceptions.legs.bytes() > legs::MAX_BYTES / 8, "what there is room for is kept");
    stage.pass_on(1, 3, MAIL, 250, "Ok");
    stage.pass_on(1, 3, RCPT, 250, "Ok");
    stage.close(1);
    assert!(kinds(stage.verdict(1)).contains(&EvidenceKind::EnvelopeMirrored), "those in a comparison stay");
}

/// So many sessions through a proxy that the dialogues of all of them are forgotten, each in its middle.
#[test]
fn dialogues_that_are_forgotten_in_their_middle_prove_nothing() {
    let mut stage = Stage::default();
    let text = "x".repeat(500);
    let sessions = || (0..3000).map(|number| (10 * number + 1, 10 * number + 3));
    for (client, upstream) in sessions() {
        stage.redirect(client, client + 1, upstream, SERVER);
        stage.pass_on(client, upstream, "EHLO c", 250, &text);
        stage.pass_on(client, upstream, &format!("MAIL FROM:<{client}@c>"), 250, "Ok");
        stage.pass_on(client, upstream, RCPT, 250, "Ok");
        stage.say(client, "RCPT TO:<more@s>", 250, "Ok");
        assert!(stage.interceptions.legs.bytes() <= legs::MAX_BYTES + 2 * MAX_TEXTS);
        stage.told.clear();
    }
    for (client, upstream) in sessions().take(100) {
        stage.say(upstream, "RCPT TO:<more@s>", 250, "Ok");
        stage.pass_on(client, upstream, "DATA", 354, "Go on");
        stage.message(upstream, 100, 250, "Queued");
        stage.message(client, 100, 250, "Queued");
        stage.pass_on(client, upstream, "QUIT", 221, "Bye");
        stage.close(upstream);
        stage.close(client);
    }
    stage.pass(3);
    for (client, _) in sessions().take(100) {
        let evidence = kinds(stage.verdict(client));
        for forgotten in [EvidenceKind::CommandInjected, EvidenceKind::CommandSwallowed] {
            assert!(!evidence.contains(&forgotten), "{client}: {:?}", stage.verdict(client).evidence);
        }
    }
}
