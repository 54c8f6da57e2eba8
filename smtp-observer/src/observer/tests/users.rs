//! A socket that several processes share, and one that is handed over.

use super::*;
use crate::connection::MAX_TOLD;
use crate::fact::evidence::ReasonEvidence;

const READER: (u32, &str) = (12, "cat");

/// A session with an RSET and a NOOP for each of several reasons.
const SESSION: [(Speaker, &str); 19] = [
    (Server, "220 mx ESMTP\r\n"),
    (Client, "EHLO c.example\r\n"),
    (Server, "250-mx\r\n250 PIPELINING\r\n"),
    (Client, "RSET\r\n"),
    (Server, "250 ok\r\n"),
    (Client, "NOOP\r\n"),
    (Server, "250 ok\r\n"),
    (Client, "MAIL FROM:<a@c.example>\r\n"),
    (Server, "250 ok\r\n"),
    (Client, "RCPT TO:<b@s.example>\r\n"),
    (Server, "550 no\r\n"),
    (Client, "RSET\r\n"),
    (Server, "250 ok\r\n"),
    (Client, "NOOP\r\n"),
    (Server, "250 ok\r\n"),
    (Client, "RSET\r\n"),
    (Server, "250 ok\r\n"),
    (Client, "QUIT\r\n"),
    (Server, "221 bye\r\n"),
];

#[derive(Clone, Copy, PartialEq)]
enum Speaker {
    Client,
    Server,
}
use Speaker::{Client, Server};

/// Says the session on a socket of this role. `who` makes the call for what the speaker says, of all calls the one with
/// this number.
fn session(role: Role, who: impl Fn(Speaker, usize) -> (u32, &'static str)) -> Story {
    let mut story = Story::new();
    match role {
        Role::Client => story.connect(),
        Role::Server => story.state(TcpState::SynReceived, TcpState::Established, None),
    }
    for (number, (speaker, text)) in SESSION.into_iter().enumerate() {
        let flow = flow(role, speaker);
        story.transfer(who(speaker, number), flow, text);
    }
    story.state(TcpState::LastAck, TcpState::Close, None);
    story
}

fn flow(role: Role, speaker: Speaker) -> Flow {
    if (role == Role::Client) == (speaker == Client) { Flow::Sent } else { Flow::Received }
}

fn pid(observation: &Observation) -> Option<u32> {
    observation.process.as_ref().map(|caller| caller.process.pid)
}

/// The changes of owner: from whom to whom.
fn changes(story: &Story) -> Vec<(u32, u32)> {
    let change = |told: &Observation| match &told.event {
        Event::ConnectionOwnerChanged { previous_process } => Some((previous_process.process.pid, pid(told)?)),
        _ => None,
    };
    story.told.iter().filter_map(change).collect()
}

/// The commands, each with the process that it is told of.
fn commands(story: &Story) -> Vec<(String, Option<u32>)> {
    let command = |told: &Observation| match &told.event {
        Event::Command(command) => Some((command.verb.to_string(), pid(told))),
        _ => None,
    };
    story.told.iter().filter_map(command).collect()
}

/// Why each RSET and NOOP was sent, and whose it is.
fn reasons(story: &Story) -> Vec<(&'static str, Vec<ReasonEvidence>, Option<u32>)> {
    let reason = |told: &Observation| match &told.event {
        Event::Rset(rset) => Some((rset.reason.as_str(), rset.evidence.iter().collect(), pid(told))),
        Event::Noop(noop) => Some((noop.reason.as_str(), noop.evidence.iter().collect(), pid(told))),
        _ => None,
    };
    story.told.iter().filter_map(reason).collect()
}

/// Nobody else has the connection, each command is of this process, and the reasons are those of one process.
fn check_shared(role: Role, commander: u32, story: &Story) {
    let alone = session(role, |_, _| (commander, "alone"));
    assert_eq!(changes(story), []);
    assert_eq!(commands(story), commands(&alone));
    assert_eq!(commands(story).len(), 9);
    assert!(commands(story).iter().all(|(_, pid)| *pid == Some(commander)), "{:?}", commands(story));
    assert_eq!(reasons(story), reasons(&alone));
    assert_eq!(reasons(story).len(), 5);
}

#[test]
fn a_shell_that_writes_and_a_reader() {
    let story = session(Role::Client, |speaker, _| if speaker == Client { CLIENT } else { READER });
    check_shared(Role::Client, CLIENT.0, &story);
}

#[test]
fn a_writer_and_a_shell_that_reads() {
    let story = session(Role::Client, |speaker, _| if speaker == Client { OTHER } else { CLIENT });
    assert_eq!(changes(&story), []);
    assert!(commands(&story).iter().all(|(_, pid)| *pid == Some(OTHER.0)), "{:?}", commands(&story));
    let alone = session(Role::Client, |_, _| OTHER);
    assert_eq!(reasons(&story), reasons(&alone));
}

#[test]
fn a_server_whose_helper_replies() {
    for greeter in [OTHER, READER] {
        let who = |speaker, number| match (speaker, number) {
            (_, 0) => greeter,
            (Client, _) => OTHER,
            (Server, _) => READER,
        };
        check_shared(Role::Server, OTHER.0, &session(Role::Server, who));
    }
}

#[test]
fn a_server_with_a_new_helper_for_each_reply() {
    let who = |speaker, number| match speaker {
        Client => OTHER,
        Server => (100 + number as u32, "helper"),
    };
    check_shared(Role::Server, OTHER.0, &session(Role::Server, who));
}

#[test]
fn two_writers_and_a_reader() {
    let writer = |number| if number % 4 == 1 { CLIENT } else { OTHER };
    let story = session(Role::Client, |speaker, number| if speaker == Client { writer(number) } else { READER });
    assert_eq!(changes(&story), []);
    let senders: Vec<_> = commands(&story).into_iter().map(|(_, pid)| pid).collect();
    let expected: Vec<_> =
        (0..SESSION.len()).filter(|number| number % 2 == 1).map(|number| Some(writer(number).0)).collect();
    assert_eq!(senders, expected);
    let why = |story: &Story| reasons(story).into_iter().map(|(reason, evidence, _)| (reason, evidence)).collect();
    let (shared, alone): (Vec<_>, Vec<_>) = (why(&story), why(&session(Role::Client, |_, _| CLIENT)));
    assert_eq!(shared, alone);
    // Each reason is told of the process that sent its command.
    let (rset, noop) = (writer(3).0, writer(5).0);
    assert_eq!(reasons(&story)[..2].iter().map(|(.., pid)| *pid).collect::<Vec<_>>(), [Some(rset), Some(noop)]);
}

#[test]
fn threads_of_one_process() {
    let mut story = Story::new();
    story.connect();
    for (tid, flow, text) in [
        (71, Flow::Received, "220 mx ESMTP\r\n"),
        (70, Flow::Sent, "NOOP\r\n"),
        (71, Flow::Received, "250 ok\r\n"),
        (72, Flow::Sent, "RSET\r\n"),
        (71, Flow::Received, "250 ok\r\n"),
    ] {
        story.transfer_by(Task { tid, ..task(CLIENT) }, flow, text);
    }
    assert_eq!(changes(&story), []);
    let tids: Vec<_> = story
        .told
        .iter()
        .filter(|told| matches!(told.event, Event::Command(_)))
        .map(|told| told.process.as_ref().map(|caller| caller.tid))
        .collect();
    assert_eq!(tids, [Some(70), Some(72)]);
}

#[test]
fn the_user_is_that_of_the_call_that_sent_the_command() {
    let mut story = Story::new();
    story.connect();
    story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
    story.transfer_by(Task { uid: 8, ..task(CLIENT) }, Flow::Sent, "NOOP\r\n");
    story.transfer_by(Task { uid: 9, ..task(CLIENT) }, Flow::Received, "250 ok\r\n");
    let noop = story.told.iter().find(|told| matches!(told.event, Event::Command(_))).expect("a NOOP");
    assert_eq!(noop.process.as_ref().map(|caller| caller.process.uid), Some(8));
    assert_eq!(changes(&story), []);
}

#[test]
fn commands_sent_early_by_two_processes() {
    let mut story = Story::new();
    story.connect();
    story.transfer(READER, Flow::Received, "220 mx ESMTP\r\n");
    story.transfer(CLIENT, Flow::Sent, "EHLO c.example\r\n");
    story.transfer(OTHER, Flow::Sent, "NOOP\r\n");
    story.transfer(CLIENT, Flow::Sent, "RSET\r\nVRFY x\r\n");
    story.transfer(READER, Flow::Received, "250 mx\r\n250 ok\r\n250 ok\r\n252 ok\r\n");
    let senders: Vec<_> = commands(&story).into_iter().map(|(_, pid)| pid).collect();
    assert_eq!(senders, [CLIENT, OTHER, CLIENT, CLIENT].map(|(pid, _)| Some(pid)));
    assert_eq!(changes(&story), []);
}

#[test]
fn who_sent_a_command_too_long_ago_is_not_known() {
    let mut story = Story::new();
    story.connect();
    story.transfer(READER, Flow::Received, "220 mx ESMTP\r\n");
    let sender = |number: usize| if number.is_multiple_of(2) { CLIENT } else { OTHER };
    for number in 0..30 {
        story.transfer(sender(number), Flow::Sent, "NOOP\r\n");
    }
    story.transfer(READER, Flow::Received, &"250 ok\r\n".repeat(30));
    let senders: Vec<_> = commands(&story).into_iter().map(|(_, pid)| pid).collect();
    assert_eq!(senders.len(), 30);
    let unknown = senders.iter().take_while(|pid| pid.is_none()).count();
    assert!((1..15).contains(&unknown), "{senders:?}");
    let known: Vec<_> = (unknown..30).map(|number| Some(sender(number).0)).collect();
    assert_eq!(senders[unknown..], known);
}

#[test]
fn a_message_that_another_program_writes() {
    let mut story = Story::new();
    story.connect();
    for (who, flow, text) in [
        (CLIENT, Flow::Received, "220 mx ESMTP\r\n"),
        (CLIENT, Flow::Sent, "MAIL FROM:<a@c.example>\r\n"),
        (CLIENT, Flow::Received, "250 ok\r\n"),
        (CLIENT, Flow::Sent, "RCPT TO:<b@s.example>\r\n"),
        (CLIENT, Flow::Received, "250 ok\r\n"),
        (CLIENT, Flow::Sent, "DATA\r\n"),
        (CLIENT, Flow::Received, "354 go\r\n"),
        (READER, Flow::Sent, "Subject: x\r\n\r\ny\r\n"),
        (CLIENT, Flow::Sent, ".\r\n"),
        (CLIENT, Flow::Received, "250 ok\r\n"),
    ] {
        story.transfer(who, flow, text);
    }
    assert_eq!(changes(&story), []);
    let data = story.told.iter().find(|told| matches!(told.event, Event::Data(_))).expect("a message");
    assert_eq!(pid(data), Some(CLIENT.0));
}

/// Says a command and reads its reply.
fn ask(story: &mut Story, who: (u32, &str), command: &str) {
    story.transfer(who, Flow::Sent, command);
    story.transfer(who, Flow::Received, "250 ok\r\n");
}

#[test]
fn a_connection_that_is_handed_over_and_back() {
    let mut story = Story::new();
    story.connect();
    story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
    ask(&mut story, CLIENT, "EHLO c.example\r\n");
    let before = story.time;
    ask(&mut story, OTHER, "RSET\r\n");
    ask(&mut story, OTHER, "NOOP\r\n");
    ask(&mut story, CLIENT, "RSET\r\n");
    story.state(TcpState::FinWait2, TcpState::Close, None);
    assert_eq!(changes(&story), [(CLIENT.0, OTHER.0), (OTHER.0, CLIENT.0)]);
    let first = story.told.iter().find(|told| matches!(told.event, Event::ConnectionOwnerChanged { .. }));
    let first = first.expect("a change").time;
    assert_eq!(first, story.observer.timestamp(Time(before + 1000)), "when it sent its first command");
    let told = reasons(&story);
    let taken_over = |evidence: &[ReasonEvidence]| evidence.contains(&ReasonEvidence::OwnerChanged);
    let told: Vec<_> = told.iter().map(|(_, evidence, pid)| (taken_over(evidence), *pid)).collect();
    assert_eq!(told, [(true, Some(OTHER.0)), (false, Some(OTHER.0)), (true, Some(CLIENT.0))]);
}

#[test]
fn a_server_that_hands_over_what_it_has_greeted() {
    let mut story = Story::new();
    story.state(TcpState::SynReceived, TcpState::Established, None);
    story.transfer(CLIENT, Flow::Sent, "220-wait\r\n");
    story.transfer(OTHER, Flow::Sent, "220 mx ESMTP\r\n");
    story.transfer(OTHER, Flow::Received, "NOOP\r\n");
    story.transfer(OTHER, Flow::Sent, "250 ok\r\n");
    assert_eq!(changes(&story), [(CLIENT.0, OTHER.0)]);
    assert_eq!(commands(&story), [("NOOP".to_owned(), Some(OTHER.0))]);
}

#[test]
fn the_end_decides_who_has_it_unless_it_was_shared() {
    for (reader, expected) in [(CLIENT, vec![(CLIENT.0, OTHER.0)]), (READER, vec![])] {
        let mut story = Story::new();
        story.connect();
        story.transfer(reader, Flow::Received, "220 mx ESMTP\r\n");
        story.transfer(CLIENT, Flow::Sent, "EHLO c.example\r\n");
        story.transfer(reader, Flow::Received, "250 mx\r\n");
        story.transfer(OTHER, Flow::Sent, "QUIT\r\n");
        assert_eq!(changes(&story), []);
        story.state(TcpState::FinWait1, TcpState::Close, None);
        story.settle();
        assert_eq!(changes(&story), expected);
        assert_eq!(commands(&story).last(), Some(&("QUIT".to_owned(), Some(OTHER.0))));
    }
}

#[test]
fn changes_of_owner_are_told_up_to_a_bound() {
    let mut story = Story::new();
    story.connect();
    story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
    let take_turns = |story: &mut Story| {
        for number in 0..2 * MAX_TOLD {
            ask(story, if number.is_multiple_of(2) { OTHER } else { CLIENT }, "NOOP\r\n");
        }
    };
    take_turns(&mut story);
    assert_eq!(changes(&story).len(), MAX_TOLD as usize);
    story.time += 60_000_000_000;
    take_turns(&mut story);
    assert_eq!(changes(&story).len(), 2 * MAX_TOLD as usize);
}
