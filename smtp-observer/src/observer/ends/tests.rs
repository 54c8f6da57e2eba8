use super::super::tests::{CLIENT, OTHER, full, shown, socket, task};
use super::super::{Observer, Tap};
use super::*;
use crate::event::{CaptureMiss, Host, KernelEvent, Said, Socket, TcpState, Uncaptured, Withheld};
use crate::observation::{Event, Observation};
use crate::recorder::{Entry, Recorder};
use crate::redact::{Addresses, Key, RedactionPolicy};

const CLIENTS: u64 = 0xc0;
const SERVERS: u64 = 0x5e;

/// An end of the connection: at which cookie, and who calls there.
type End = (u64, (u32, &'static str));
const AT_CLIENT: End = (CLIENTS, CLIENT);
const AT_SERVER: End = (SERVERS, OTHER);
const ENDS: [End; 2] = [AT_CLIENT, AT_SERVER];

/// A connection on this host, told in kernel events at both ends.
struct Story {
    observer: Observer,
    recorder: Option<Recorder>,
    time: u64,
    /// Of each end the position behind what the client, and the server, has said.
    next: [[u32; 2]; 2],
    seq_unreliable: bool,
    told: Vec<Observation>,
}

fn host() -> KernelEvent<'static> {
    KernelEvent::Host(Host { unix_offset: 0, boot_id: "0123456789abcdef".into(), netns: None, addresses: Vec::new() })
}

fn end(cookie: u64, state: TcpState) -> Socket {
    let Socket { local, remote, .. } = socket(state);
    match cookie {
        CLIENTS => socket(state),
        _ => Socket { cookie, local: remote, remote: local, ..socket(state) },
    }
}

impl Story {
    fn of(mut observer: Observer) -> Self {
        observer.event(host(), &mut |_| {});
        // The client's stream wraps.
        let next = [[u32::MAX - 20, 5000]; 2];
        Self { observer, recorder: None, time: 0, next, seq_unreliable: false, told: Vec::new() }
    }

    /// From the beginning on.
    fn new() -> Self {
        let mut story = Self::of(Observer::new(&[25], full()));
        story.begin();
        story
    }

    fn begin(&mut self) {
        self.state(CLIENTS, TcpState::Close, TcpState::SynSent, None);
        self.state(CLIENTS, TcpState::SynSent, TcpState::Established, None);
        self.state(SERVERS, TcpState::SynReceived, TcpState::Established, Some(CLIENTS));
    }

    fn event(&mut self, event: KernelEvent) {
        let tap = self.recorder.as_mut().map(|recorder| recorder as &mut dyn Tap);
        self.observer.event_tapped(event, &mut |fact| self.told.push(shown(fact)), tap);
    }

    fn state(&mut self, cookie: u64, old: TcpState, new: TcpState, peer: Option<u64>) {
        self.time += 1000;
        let [client, server] = self.next[usize::from(cookie != CLIENTS)];
        let positions = match cookie {
            CLIENTS => SeqNumbers { write_seq: client, copied_seq: server },
            _ => SeqNumbers { write_seq: server, copied_seq: client },
        };
        let task = (new == TcpState::SynSent).then(|| task(CLIENT));
        let (time, socket) = (Time(self.time), end(cookie, old));
        let (requested, transparent, local_route, error) = (None, false, false, 0);
        self.event(KernelEvent::State(StateEvent {
            time,
            task,
            socket,
            positions,
            new,
            requested,
            peer,
            transparent,
            local_route,
            error,
            unread: 0,
        }));
    }

    /// An end shows something of so many bytes that one side has said.
    fn show(&mut self, (cookie, who): End, speaker: Peer, length: u32, said: Said) {
        self.time += 1000;
        let at_client = cookie == CLIENTS;
        let next = &mut self.next[usize::from(!at_client)];
        let said_by_client = speaker == Peer::Client;
        let place = &mut next[usize::from(!said_by_client)];
        *place = place.wrapping_add(length);
        let [client, server] = *next;
        let positions = match at_client {
            true => SeqNumbers { write_seq: client, copied_seq: server },
            false => SeqNumbers { write_seq: server, copied_seq: client },
        };
        let flow = if at_client == said_by_client { Flow::Sent } else { Flow::Received };
        self.event(KernelEvent::Transfer(TransferEvent {
            time: Time(self.time),
            task: task(who),
            socket: Socket { seq_unreliable: self.seq_unreliable, ..end(cookie, TcpState::Established) },
            positions,
            flow,
            length,
            continues: false,
            tls: Default::default(),
            said,
        }));
    }

    fn text(&mut self, end: End, speaker: Peer, text: &str) {
        self.show(end, speaker, text.len() as u32, Said::text(text.as_bytes()));
    }

    /// Both ends show the same, first the one that speaks.
    fn both(&mut self, speaker: Peer, text: &str) {
        let ends = if speaker == Peer::Client { ENDS } else { [AT_SERVER, AT_CLIENT] };
        for end in ends {
            self.text(end, speaker, text);
        }
    }

    /// A call whose line waits in the kernel for its end.
    fn wait(&mut self, end: End, speaker: Peer, text: &str) {
        self.show(end, speaker, text.len() as u32, Said::default());
    }

    /// The rest of a line of which so many bytes have waited.
    fn rest(&mut self, end: End, speaker: Peer, waited: usize, line: &str) {
        let begun = Segment::Begun(Time(self.time));
        let said = Said::of([begun, Segment::Text(line.as_bytes())]);
        self.show(end, speaker, (line.len() - waited) as u32, said);
    }

    /// What was told, each with the end where.
    fn disagreements(&self) -> Vec<(u64, &str)> {
        let told = self.told.iter().filter_map(|observation| match &observation.event {
            Event::Anomaly(anomaly) if anomaly.kind == AnomalyKind::EndsDisagree => {
                Some((observation.connection.cookie, &*anomaly.detail))
            }
            _ => None,
        });
        told.collect()
    }

    fn is_compared(&self) -> bool {
        let mut ends =
            self.observer.tracker.conversations.values().filter_map(|conversation| conversation.other_end.as_ref());
        ends.any(|other| other.ends.is_some())
    }
}

const GREETING: &str = "220 mx.example ESMTP\r\n";
const CHANGED: &str = "behind 0 bytes of the client: NOOP was sent, RSET received";

#[test]
fn the_same_in_other_calls_agrees() {
    let mut story = Story::new();
    // One call here is several there, and lines wait for their ends.
    story.text(AT_SERVER, Peer::Server, "220-mx.example\r\n220 ESMTP\r\n");
    story.text(AT_CLIENT, Peer::Server, "220-mx.");
    story.text(AT_CLIENT, Peer::Server, "example\r\n220");
    story.text(AT_CLIENT, Peer::Server, " ESMTP\r\n");
    story.wait(AT_CLIENT, Peer::Client, "EHLO c");
    story.rest(AT_CLIENT, Peer::Client, 6, "EHLO c.example\r\n");
    story.text(AT_CLIENT, Peer::Client, "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@mx.example>\r\n");
    story.text(AT_SERVER, Peer::Client, "EHLO c.example\r\nMAIL FROM:<a@c.example>\r\n");
    for byte in "RCPT TO:<b@mx.example>\r".chars() {
        story.wait(AT_SERVER, Peer::Client, &byte.to_string());
    }
    story.rest(AT_SERVER, Peer::Client, 23, "RCPT TO:<b@mx.example>\r\n");
    assert_eq!(story.disagreements(), []);
    assert!(story.is_compared());
    // And it was compared up to here.
    story.text(AT_CLIENT, Peer::Client, "NOOP\r\n");
    story.text(AT_SERVER, Peer::Client, "RSET\r\n");
    assert_eq!(story.disagreements().len(), 2);
}

#[test]
fn another_command_is_told_once_at_each_end_whichever_is_first() {
    for server_first in [false, true] {
        let mut story = Story::new();
        story.both(Peer::Server, GREETING);
        let shown = [(AT_CLIENT, "NOOP\r\n"), (AT_SERVER, "RSET\r\n")];
        let order = if server_first { [1, 0] } else { [0, 1] };
        for at in order.into_iter().chain(order) {
            story.text(shown[at].0, Peer::Client, shown[at].1);
        }
        let mut told = story.disagreements();
        told.sort_unstable();
        assert_eq!(told, [(SERVERS, CHANGED), (CLIENTS, CHANGED)]);
        // The other direction is its own.
        story.text(AT_SERVER, Peer::Server, "250 ok\r\n");
        story.text(AT_CLIENT, Peer::Server, "550 no\r\n");
        let told = story.disagreements();
        assert_eq!(told.len(), 4, "{told:?}");
        assert_eq!(told[2].1, "behind 22 bytes of the server: 250 was sent, 550 received");
        assert!(!story.is_compared(), "nothing is left to compare");
    }
}

#[test]
fn other_arguments_and_lengths_are_told_without_them() {
    for (sent, received, detail) in [
        ("MAIL FROM:<ann@x>\r\n", "MAIL FROM:<bob@x>\r\n", "MAIL was sent, another MAIL received"),
        ("MAIL FROM:<ann@x>\r\n", "MAIL FROM:<a@x>\r\nNO", "MAIL was sent, another MAIL received"),
        ("frob\r\n", "quit\r\n", "command was sent, QUIT received"),
    ] {
        let mut story = Story::new();
        story.text(AT_CLIENT, Peer::Client, sent);
        story.text(AT_SERVER, Peer::Client, received);
        let told = story.disagreements();
        assert_eq!(told.len(), 2, "{sent}");
        assert_eq!(told[0].1, format!("behind 0 bytes of the client: {detail}"));
    }
}

#[test]
fn of_replies_codes_and_lengths_are_compared() {
    for (sent, received, is_told) in [
        ("250 ok\r\n", "250 ok\r\n", false),
        ("250-ok\r\n", "250 ok\r\n", true),
        ("250 okay\r\n", "250 ok\r\n25", true),
        // A recording has names replaced in one of them, where it is not known what it answers.
        ("250 ann\r\n", "250 bob\r\n", false),
        ("hello!\r\n", "250 ok\r\n", false),
    ] {
        let mut story = Story::new();
        story.text(AT_SERVER, Peer::Server, sent);
        story.text(AT_CLIENT, Peer::Server, received);
        assert_eq!(!story.disagreements().is_empty(), is_told, "{sent:?} {received:?}");
    }
}

#[test]
fn behind_a_gap_nothing_is_compared_in_its_direction() {
    for gap_at in [0, 1] {
        let mut story = Story::new();
        story.both(Peer::Client, "EHLO c\r\n");
        // Six bytes of the client go by unseen at one end; the other has them.
        let place = &mut story.next[gap_at][0];
        *place = place.wrapping_add(6);
        story.text(ENDS[1 - gap_at], Peer::Client, "NOOP\r\n");
        story.text(AT_CLIENT, Peer::Client, "NOOP\r\n");
        story.text(AT_SERVER, Peer::Client, "RSET\r\n");
        assert_eq!(story.disagreements(), []);
        story.text(AT_SERVER, Peer::Server, "250 ok\r\n");
        story.text(AT_CLIENT, Peer::Server, "550 no\r\n");
        assert_eq!(story.disagreements().len(), 2, "the other direction has no gap");
    }
}

#[test]
fn what_is_found_in_its_middle_is_not_compared() {
    let mut story = Story::of(Observer::new(&[25], full()));
    story.text(AT_CLIENT, Peer::Client, "NOOP\r\n");
    story.text(AT_SERVER, Peer::Client, "RSET\r\n");
    // The client had spoken before its peer was known.
    let mut late = Story::of(Observer::new(&[25], full()));
    late.state(CLIENTS, TcpState::Close, TcpState::SynSent, None);
    late.state(CLIENTS, TcpState::SynSent, TcpState::Established, None);
    late.text(AT_CLIENT, Peer::Client, "NOOP\r\n");
    late.state(SERVERS, TcpState::SynReceived, TcpState::Established, Some(CLIENTS));
    late.text(AT_SERVER, Peer::Client, "RSET\r\n");
    for story in [story, late] {
        assert_eq!(story.disagreements(), []);
        assert!(!story.is_compared());
    }
}

#[test]
fn where_positions_tell_nothing_nothing_is_compared() {
    let mut story = Story::new();
    story.seq_unreliable = true;
    story.both(Peer::Server, GREETING);
    story.text(AT_CLIENT, Peer::Client, "NOOP\r\n");
    story.text(AT_SERVER, Peer::Client, "RSET\r\n");
    assert_eq!(story.disagreements(), []);
    assert!(!story.is_compared());
}

#[test]
fn what_did_not_cross_at_one_end_is_not_compared() {
    let withheld = |length| Segment::Withheld(Withheld { length, end: LineEnd::Crlf, nul: false, bare_cr: false });
    let uncaptured = Segment::Uncaptured(Uncaptured { cause: CaptureMiss::Uncertain, length: 6, lines: 1 });
    for hidden in
        [vec![withheld(6)], vec![Segment::Content(6)], vec![uncaptured], vec![Segment::Text(b"VRFY"), withheld(2)]]
    {
        for hidden_at in [0, 1] {
            let mut story = Story::new();
            story.text(ENDS[1 - hidden_at], Peer::Client, "NOOP\r\n");
            story.show(ENDS[hidden_at], Peer::Client, 6, Said::of(hidden.clone()));
            // Where a line begins is known again behind its end.
            story.both(Peer::Client, "EHLO c\r\n");
            assert_eq!(story.disagreements(), []);
            story.text(AT_CLIENT, Peer::Client, "NOOP\r\n");
            story.text(AT_SERVER, Peer::Client, "RSET\r\n");
            assert_eq!(story.disagreements().len(), 2, "{hidden:?}");
        }
    }
}

#[test]
fn the_end_of_content_is_not_compared() {
    let mut story = Story::new();
    for (end, text) in [(AT_CLIENT, "\r\n.\rx\r\n.\r\n"), (AT_SERVER, "\r\n.\ra\r\n.\r\n")] {
        let said = [Segment::Content(10), Segment::Text(text.as_bytes())];
        story.show(end, Peer::Client, 10 + text.len() as u32, Said::of(said));
    }
    assert_eq!(story.disagreements(), []);
}

#[test]
fn ciphertext_ends_the_comparison() {
    let mut story = Story::new();
    for end in ENDS {
        story.show(end, Peer::Client, 100, Said::of([Segment::Ciphertext(100)]));
        story.show(end, Peer::Server, 100, Said::of([Segment::Ciphertext(100)]));
    }
    assert!(!story.is_compared());
}

#[test]
fn of_more_than_may_wait_the_last_are_compared() {
    let mut story = Story::new();
    for number in 0..1000 {
        story.text(AT_CLIENT, Peer::Client, &format!("RCPT TO:<{number:04}@mx.example>\r\n"));
    }
    for number in 0..999 {
        story.text(AT_SERVER, Peer::Client, &format!("RCPT TO:<{number:04}@mx.example>\r\n"));
    }
    assert_eq!(story.disagreements(), []);
    let waiting = |story: &Story| {
        let others =
            story.observer.tracker.conversations.values().filter_map(|conversation| conversation.other_end.as_ref());
        let ends = others.filter_map(|other| other.ends.as_ref());
        ends.flat_map(|ends| ends.directions.iter().flatten())
            .map(|direction| direction.sent.lines.len().max(direction.received.lines.len()))
            .max()
    };
    assert_eq!(waiting(&story), Some(1));
    story.text(AT_SERVER, Peer::Client, "RCPT TO:<0998@mx.example>\r\n");
    assert_eq!(story.disagreements().len(), 2);

    // The other end is never heard of.
    let mut story = Story::new();
    for _ in 0..1000 {
        story.text(AT_CLIENT, Peer::Client, "NOOP\r\n");
    }
    assert_eq!(waiting(&story), Some(MAX_LINES));
}

#[test]
fn two_threads_at_a_time_end_the_comparison() {
    const SECOND: End = (CLIENTS, OTHER);
    let mut story = Story::new();
    story.text(AT_CLIENT, Peer::Client, "NOOP\r\n");
    story.text(SECOND, Peer::Client, "NOOP\r\n");
    story.text(AT_SERVER, Peer::Client, "NOOP\r\n");
    story.text(AT_SERVER, Peer::Client, "RSET\r\n");
    assert_eq!(story.disagreements(), []);
    // One that has waited for the other's answer.
    let mut story = Story::new();
    story.both(Peer::Client, "NOOP\r\n");
    story.text(AT_SERVER, Peer::Server, "250 ok\r\n");
    story.text(SECOND, Peer::Server, "250 ok\r\n");
    story.text(SECOND, Peer::Client, "NOOP\r\n");
    story.text(AT_SERVER, Peer::Client, "RSET\r\n");
    assert_eq!(story.disagreements().len(), 2);
}

#[test]
fn the_last_reply_is_compared_though_its_sender_is_gone() {
    let mut story = Story::new();
    story.both(Peer::Server, GREETING);
    story.both(Peer::Client, "QUIT\r\n");
    story.text(AT_SERVER, Peer::Server, "221 bye\r\n");
    story.state(SERVERS, TcpState::LastAck, TcpState::Close, None);
    assert!(!story.observer.tracker.conversations.contains_key(&SERVERS));
    story.text(AT_CLIENT, Peer::Server, "421 bye\r\n");
    let detail = "behind 22 bytes of the server: 221 was sent, 421 received";
    assert_eq!(story.disagreements(), [(CLIENTS, detail)]);
}

#[test]
fn a_recording_disagrees_as_the_connection_did() {
    let tell = |addresses: Addresses| {
        let mut story = Story::of(Observer::new(&[25], RedactionPolicy::new(addresses)));
        story.recorder = Some(Recorder::new(addresses, Key(7)));
        story.event(host());
        story.begin();
        story.both(Peer::Server, GREETING);
        story.both(Peer::Client, "MAIL FROM:<annmarker@c.example>\r\n");
        story.both(Peer::Server, "250 annmarker may\r\n");
        story.text(AT_CLIENT, Peer::Client, "RCPT TO:<annmarker@mx.example>\r\n");
        story.text(AT_SERVER, Peer::Client, "RCPT TO:<bobmarker@mx.example>\r\n");
        // Each reply names what its end has seen.
        story.both(Peer::Server, "250 annmarker, bobmarker\r\n");
        story.both(Peer::Client, "RSET\r\n");
        story.text(AT_SERVER, Peer::Server, "250 ok\r\n");
        story.text(AT_CLIENT, Peer::Server, "550 no\r\n");
        story
    };
    for addresses in [Addresses::Full, Addresses::Domain, Addresses::None] {
        let mut story = tell(addresses);
        assert_eq!(story.disagreements().len(), 4);
        assert!(story.disagreements().iter().all(|(_, detail)| !detail.contains("marker")));
        let mut recorder = story.recorder.take().expect("a recorder");
        story.observer.finish(&mut recorder);
        let mut entries: Vec<_> = recorder.drain().collect();
        entries.sort_by_key(|(number, _)| *number);
        let mut again = Story::of(Observer::new(&[25], RedactionPolicy::new(addresses)));
        for (_, entry) in entries {
            let Entry::Event(event) = entry else { continue };
            again.event(event);
        }
        let shown = |story: &Story| story.told.iter().map(|told| format!("{told:?}")).collect::<Vec<_>>();
        assert_eq!(again.disagreements(), story.disagreements());
        assert_eq!(shown(&again).len(), shown(&story).len());
    }
}
