mod outstanding;
mod users;

use std::net::{Ipv4Addr, SocketAddr};

use super::tracker::MAX_CONNECTIONS;
use super::*;
use crate::event::{Flow, Host, ProcessKey, Said, SeqNumbers, Socket, Task, TcpState};
use crate::observation::{Event, Observation, Role};
use crate::redact::Addresses;

pub(super) const CLIENT: (u32, &str) = (10, "swaks");
pub(super) const OTHER: (u32, &str) = (11, "scache");

pub(super) fn full() -> RedactionPolicy {
    RedactionPolicy::new(Addresses::Full)
}

/// A fact in words.
pub(super) fn shown(fact: &Fact<'_>) -> Observation {
    Observation::of(fact, full())
}

/// One socket's story, told in kernel events.
pub(super) struct Story {
    pub(super) observer: Observer,
    pub(super) time: u64,
    pub(super) written: u32,
    pub(super) read: u32,
    pub(super) told: Vec<Observation>,
}

impl Story {
    pub(super) fn new() -> Self {
        let mut observer = Observer::new(&[25], full());
        let host =
            Host { unix_offset: 1_000_000_000, boot_id: "0123456789abcdef".into(), netns: None, addresses: Vec::new() };
        observer.event(KernelEvent::Host(host), &mut |_| {});
        Self { observer, time: 0, written: 1000, read: 5000, told: Vec::new() }
    }

    pub(super) fn event(&mut self, event: KernelEvent) {
        self.observer.event(event, &mut |fact| self.told.push(shown(fact)));
    }

    pub(super) fn state(&mut self, old: TcpState, new: TcpState, requested: Option<SocketAddr>) {
        let event = self.state_event(old, new, requested);
        self.event(KernelEvent::State(event));
    }

    pub(super) fn state_event(&mut self, old: TcpState, new: TcpState, requested: Option<SocketAddr>) -> StateEvent {
        self.time += 1000;
        let task = (new == TcpState::SynSent).then(|| task(CLIENT));
        let positions = SeqNumbers { write_seq: self.written, copied_seq: self.read };
        let socket = socket(old);
        StateEvent {
            time: Time(self.time),
            task,
            socket,
            positions,
            new,
            requested,
            peer: None,
            transparent: false,
            local_route: false,
            error: 0,
            unread: 0,
        }
    }

    pub(super) fn connect(&mut self) {
        self.state(TcpState::Close, TcpState::SynSent, Some(socket(TcpState::Close).remote));
        self.state(TcpState::SynSent, TcpState::Established, None);
    }

    pub(super) fn transfer(&mut self, who: (u32, &str), flow: Flow, text: &str) {
        self.transfer_on(socket(TcpState::Established), who, flow, text);
    }

    fn transfer_by(&mut self, task: Task, flow: Flow, text: &str) {
        self.transfer_on_by(socket(TcpState::Established), task, flow, text);
    }

    pub(super) fn transfer_on(&mut self, socket: Socket, who: (u32, &str), flow: Flow, text: &str) {
        self.transfer_on_by(socket, task(who), flow, text);
    }

    fn transfer_on_by(&mut self, socket: Socket, task: Task, flow: Flow, text: &str) {
        self.time += 1000;
        let length = text.len() as u32;
        match flow {
            Flow::Sent => self.written += length,
            Flow::Received => self.read += length,
        }
        self.event(KernelEvent::Transfer(TransferEvent {
            time: Time(self.time),
            task,
            socket,
            positions: SeqNumbers { write_seq: self.written, copied_seq: self.read },
            flow,
            length,
            continues: false,
            tls: Default::default(),
            said: Said::text(text.as_bytes()),
        }));
    }

    /// As much time passes as connections wait.
    pub(super) fn settle(&mut self) {
        assert!(self.observer.has_deadlines());
        let now = Time(self.time + GRACE_PERIOD.as_nanos() as u64);
        self.observer.settle(now, &mut |fact| self.told.push(shown(fact)));
        assert!(!self.observer.has_deadlines());
    }

    /// Bytes sent, received and lost, as the last observation says.
    pub(super) fn bytes(&self) -> (u64, u64, u64) {
        match self.told.last().map(|observation| &observation.event) {
            Some(&Event::ConnectionClosed { bytes_sent, bytes_received, lost_bytes, .. }) => {
                (bytes_sent, bytes_received, lost_bytes.expect("positions are known"))
            }
            other => panic!("{other:?}"),
        }
    }

    /// The names of all that was told.
    pub(super) fn names(&self) -> Vec<String> {
        let name = |observation: &Observation| match &observation.event {
            Event::Command(command) => format!("{} {:?}", command.verb, command.code),
            event => serde_json::to_value(event).expect("serializable")["event"].as_str().unwrap_or("").to_owned(),
        };
        self.told.iter().map(name).collect()
    }
}

pub(super) fn task((pid, name): (u32, &str)) -> Task {
    let process = ProcessKey { pid, start_time: Time(1), exec_id: 1 };
    Task { process, tid: pid, uid: 0, user: None, comm: name.into() }
}

pub(super) fn socket(state: TcpState) -> Socket {
    Socket {
        cookie: 0xc0,
        netns: 7,
        local: SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 40000)),
        remote: SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), 25)),
        state,
        seq_unreliable: false,
    }
}

#[test]
fn a_clock_that_is_set_moves_what_is_told_from_then_on() {
    const HOURS: i64 = 3 * 3600 * 1_000_000_000;
    let mut story = Story::new();
    story.connect();
    story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
    let before = story.told.last().expect("a greeting").time;
    let set = Host {
        unix_offset: 1_000_000_000 + HOURS,
        boot_id: "0123456789abcdef".into(),
        netns: None,
        addresses: Vec::new(),
    };
    story.event(KernelEvent::Host(set));
    story.transfer(CLIENT, Flow::Sent, "NOOP\r\n");
    story.transfer(CLIENT, Flow::Received, "250 ok\r\n");
    let noop = story.told.iter().find(|observation| matches!(observation.event, Event::Command(_))).expect("NOOP");
    assert!((HOURS..HOURS + 1_000_000).contains(&(noop.time.0 - before.0)), "{before:?} {noop:?}");
    // How long it was open has nothing to do with the wall clock.
    story.state(TcpState::LastAck, TcpState::Close, None);
    let Some(Event::ConnectionClosed { duration, .. }) = story.told.last().map(|observation| &observation.event) else {
        panic!("{:?}", story.told.last());
    };
    assert!(duration.as_secs() < 1, "{duration:?}");
}

#[test]
fn a_session_from_connect_to_close() {
    let mut story = Story::new();
    story.connect();
    story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
    story.transfer(CLIENT, Flow::Sent, "QUIT\r\n");
    story.transfer(CLIENT, Flow::Received, "221 Bye\r\n");
    story.state(TcpState::LastAck, TcpState::Close, None);
    assert_eq!(story.names(), ["connection.opened", "smtp.greeting", "QUIT Some(221)", "connection.closed"]);
    assert_eq!(&*story.told[0].connection.id, "01234567-c0");
    assert_eq!(story.told[0].connection.role, Role::Client);
    assert_eq!(story.told[0].time, Timestamp(1_000_002_000));
    assert_eq!(story.bytes(), (6, 23, 0));
}

#[test]
fn what_moved_unseen_before_the_end_is_lost() {
    let mut story = Story::new();
    story.connect();
    story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
    // QUIT and its reply went by a path without a hook.
    story.written += 6;
    story.read += 9;
    story.state(TcpState::LastAck, TcpState::Close, None);
    assert_eq!(story.names(), ["connection.opened", "smtp.greeting"]);
    story.settle();
    assert_eq!(story.names(), ["connection.opened", "smtp.greeting", "smtp.anomaly", "connection.closed"]);
    assert_eq!(story.bytes(), (6, 23, 15));
    assert_eq!(story.observer.unseen().find(|(_, bytes)| *bytes > 0), Some(("hole", 15)));
}

#[test]
fn what_moved_unseen_before_the_end_of_a_message_is_content() {
    let mut story = Story::new();
    story.connect();
    story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
    story.transfer(CLIENT, Flow::Sent, "DATA\r\n");
    story.transfer(CLIENT, Flow::Received, "354 go\r\n");
    story.written += 100_000;
    story.state(TcpState::Established, TcpState::Close, None);
    story.settle();
    assert_eq!(story.bytes(), (100_006, 22, 0));
}

#[test]
fn a_call_may_return_after_the_end() {
    let mut story = Story::new();
    story.connect();
    story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
    // Inside of the call that sends QUIT a reset comes.
    story.written += 6;
    story.state(TcpState::CloseWait, TcpState::Close, None);
    story.written -= 6;
    story.transfer_on(socket(TcpState::Close), CLIENT, Flow::Sent, "QUIT\r\n");
    story.settle();
    assert_eq!(story.names(), ["connection.opened", "smtp.greeting", "QUIT None", "connection.closed"]);
    assert_eq!(story.bytes(), (6, 14, 0));
    assert_eq!(story.observer.unseen().map(|(_, bytes)| bytes).sum::<u64>(), 0);
}

#[test]
fn a_socket_that_connects_again_ends_what_was_before() {
    let mut story = Story::new();
    story.connect();
    story.written += 6;
    story.state(TcpState::Established, TcpState::Close, None);
    story.connect();
    assert_eq!(story.names(), ["connection.opened", "smtp.anomaly", "connection.closed", "connection.opened"],);
}

#[test]
fn an_answer_may_be_read_after_the_end() {
    let mut story = Story::new();
    story.connect();
    story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
    story.transfer(CLIENT, Flow::Sent, "QUIT\r\n");
    // It has shut its side, and the server has answered and closed.
    story.state(TcpState::FinWait2, TcpState::Close, None);
    story.transfer_on(socket(TcpState::Close), CLIENT, Flow::Received, "221 Bye\r\n");
    assert_eq!(story.names(), ["connection.opened", "smtp.greeting", "QUIT Some(221)", "connection.closed"]);
    assert_eq!(story.bytes(), (6, 23, 0));
}

#[test]
fn what_is_read_after_the_end_opens_no_connection() {
    let mut story = Story::new();
    story.connect();
    story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
    story.transfer(CLIENT, Flow::Sent, "QUIT\r\n");
    story.state(TcpState::FinWait2, TcpState::Close, None);
    story.settle();
    story.transfer_on(socket(TcpState::Close), CLIENT, Flow::Received, "221 Bye\r\n");
    assert_eq!(story.names(), ["connection.opened", "smtp.greeting", "QUIT None", "connection.closed"]);
    assert_eq!(story.observer.unseen().find(|(_, bytes)| *bytes > 0), Some(("hole", 9)));
}

#[test]
fn a_server_reads_before_fast_open_is_through() {
    let mut story = Story::new();
    let early = Socket { local: socket(TcpState::Close).remote, ..socket(TcpState::SynReceived) };
    story.transfer_on(early, OTHER, Flow::Received, "NOOP\r\n");
    story.state(TcpState::SynReceived, TcpState::Established, None);
    story.transfer(OTHER, Flow::Sent, "220 mx ESMTP\r\n");
    story.transfer(OTHER, Flow::Sent, "250 ok\r\n");
    story.state(TcpState::LastAck, TcpState::Close, None);
    assert_eq!(story.told[0].connection.role, Role::Server);
    assert_eq!(story.names().iter().filter(|name| *name == "connection.opened").count(), 1);
    assert!(story.names().contains(&"NOOP Some(250)".to_owned()), "{:?}", story.names());
    assert_eq!(story.bytes(), (22, 6, 0));
}

#[test]
fn a_client_sends_before_fast_open_is_through() {
    let mut story = Story::new();
    let unbound = Socket { local: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), ..socket(TcpState::Close) };
    story.event(KernelEvent::State(StateEvent {
        time: Time(1),
        task: Some(task(CLIENT)),
        socket: unbound,
        positions: SeqNumbers { write_seq: 0, copied_seq: 0 },
        new: TcpState::SynSent,
        requested: None,
        peer: None,
        transparent: false,
        local_route: false,
        error: 0,
        unread: 0,
    }));
    story.transfer_on(socket(TcpState::SynSent), CLIENT, Flow::Sent, "EHLO c.example\r\n");
    assert_eq!(story.told[0].connection.local.port, 40000);
    story.state(TcpState::SynSent, TcpState::Established, None);
    story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
    story.state(TcpState::LastAck, TcpState::Close, None);
    assert_eq!(story.names().iter().filter(|name| *name == "connection.opened").count(), 1);
    assert_eq!(story.bytes(), (16, 14, 0));
}

#[test]
fn a_connection_that_was_never_made_is_none() {
    let mut story = Story::new();
    story.state(TcpState::Close, TcpState::SynSent, None);
    story.state(TcpState::SynSent, TcpState::Close, None);
    assert_eq!(story.names(), [""; 0]);
}

#[test]
fn an_accepted_connection_is_told_with_its_owner() {
    let mut story = Story::new();
    story.state(TcpState::SynReceived, TcpState::Established, None);
    assert_eq!(story.names(), [""; 0]);
    story.transfer(OTHER, Flow::Sent, "220 mx ESMTP\r\n");
    assert_eq!(story.names(), ["connection.opened", "smtp.greeting"]);
    assert_eq!(story.told[0].connection.role, Role::Server);
    assert_eq!(story.told[0].process.as_ref().map(|caller| caller.process.pid), Some(11));
    // Told late, with the time at which it happened.
    assert_eq!(story.told[0].time, Timestamp(1_000_001_000));
}

#[test]
fn another_process_on_the_socket_is_told() {
    let mut story = Story::new();
    story.connect();
    story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
    story.transfer(OTHER, Flow::Sent, "NOOP\r\n");
    story.transfer(OTHER, Flow::Received, "250 ok\r\n");
    let Event::ConnectionOwnerChanged { previous_process } = &story.told[2].event else {
        panic!("{:?}", story.names());
    };
    assert_eq!(previous_process.process.pid, 10);
    assert_eq!(story.told[2].process.as_ref().map(|caller| caller.process.pid), Some(11));
}

#[test]
fn a_hole_in_commands_is_lost_and_one_in_content_is_not() {
    let mut story = Story::new();
    story.connect();
    story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
    story.transfer(CLIENT, Flow::Sent, "DATA\r\n");
    story.transfer(CLIENT, Flow::Received, "354 go\r\n");
    story.written += 100_000;
    story.transfer(CLIENT, Flow::Sent, "end\r\n.\r\n");
    story.transfer(CLIENT, Flow::Received, "250 ok\r\n");
    assert_eq!(story.observer.unseen().map(|(_, bytes)| bytes).sum::<u64>(), 0);
    story.written += 77;
    story.transfer(CLIENT, Flow::Sent, "QUIT\r\n");
    assert_eq!(story.observer.unseen().find(|(_, bytes)| *bytes > 0), Some(("hole", 77)));
    let size = story.told.iter().find_map(|observation| match &observation.event {
        Event::Data(data) => Some(data.size_bytes),
        _ => None,
    });
    assert_eq!(size, Some(Some(100_005)));
}

#[test]
fn what_was_open_before_is_followed_from_its_middle() {
    let mut story = Story::new();
    story.transfer(CLIENT, Flow::Sent, "NOOP\r\n");
    story.transfer(CLIENT, Flow::Received, "250 ok\r\n");
    story.settle();
    assert_eq!(story.names(), ["connection.opened", "NOOP Some(250)", "smtp.noop"]);
}

#[test]
fn a_process_that_was_not_described_has_its_name_all_the_same() {
    let mut story = Story::new();
    story.connect();
    let process = &story.told[0].process.as_ref().expect("the caller of connect").process;
    assert_eq!((process.pid, process.program()), (10, "swaks"));
}

#[test]
fn connections_are_bounded_and_those_let_go_are_not_told_as_closed() {
    let mut story = Story::new();
    for cookie in 0..MAX_CONNECTIONS as u64 + 10 {
        story.time += 1;
        let event = StateEvent {
            time: Time(story.time),
            task: None,
            socket: Socket { cookie, ..socket(TcpState::SynSent) },
            positions: SeqNumbers { write_seq: 0, copied_seq: 0 },
            new: TcpState::SynSent,
            requested: None,
            peer: None,
            transparent: false,
            local_route: false,
            error: 0,
            unread: 0,
        };
        story.event(KernelEvent::State(event.clone()));
        story.event(KernelEvent::State(StateEvent { new: TcpState::Established, ..event }));
    }
    let let_go: Vec<&str> = story
        .told
        .iter()
        .filter(|observation| matches!(observation.event, Event::ConnectionUnfollowed { .. }))
        .map(|observation| &*observation.connection.id)
        .collect();
    assert_eq!(story.observer.tracker.conversations.len() + let_go.len(), MAX_CONNECTIONS + 10);
    assert!(story.observer.tracker.conversations.len() <= MAX_CONNECTIONS);
    assert!(let_go.contains(&"01234567-0"), "the first was idle longest");
    assert!(story.observer.tracker.conversations.contains_key(&(MAX_CONNECTIONS as u64 + 9)));
    assert!(story.names().iter().all(|name| name != "connection.closed"), "none of them is over");

    // One that wakes up is seen again, and its end is told.
    story.told.clear();
    let awake = |state| Socket { cookie: 0, ..socket(state) };
    story.transfer_on(awake(TcpState::Established), CLIENT, Flow::Sent, "QUIT\r\n");
    story.event(KernelEvent::State(StateEvent {
        time: Time(story.time + 1),
        task: None,
        socket: awake(TcpState::LastAck),
        positions: SeqNumbers { write_seq: story.written, copied_seq: story.read },
        new: TcpState::Close,
        requested: None,
        peer: None,
        transparent: false,
        local_route: false,
        error: 0,
        unread: 0,
    }));
    let names = story.names();
    assert_eq!(names.first().map(String::as_str), Some("connection.opened"), "{names:?}");
    assert_eq!(names.last().map(String::as_str), Some("connection.closed"), "{names:?}");
}

/// However many peers wait for replies, and however much: room is bounded, and given back.
#[test]
fn what_waits_on_all_connections_is_bounded() {
    let mut story = Story::new();
    let most = |story: &Story| story.observer.tracker.held_bytes;
    let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let line = format!("RCPT TO:<{}@x.example>\r\n", "a".repeat(200));
    let sockets = (0..500_u16).map(|number| Socket {
        cookie: 1000 + u64::from(number),
        local: address(10_000 + number),
        ..socket(TcpState::Established)
    });
    let mut given_up = 0;
    for socket in sockets.clone() {
        (story.written, story.read) = (1000, 5000);
        story.transfer_on(socket, CLIENT, Flow::Received, "220 mx ESMTP\r\n");
        // It was under way: one command alone shows the state.
        story.transfer_on(socket, CLIENT, Flow::Sent, "NOOP\r\n");
        story.transfer_on(socket, CLIENT, Flow::Received, "250 ok\r\n");
        for _ in 0..100 {
            story.transfer_on(socket, CLIENT, Flow::Sent, &line);
        }
        assert!(most(&story) < 9 << 20, "{} bytes", most(&story));
        given_up += story.told.iter().filter(|told| matches!(&told.event, Event::Anomaly(_))).count();
        story.told.clear();
    }
    assert!(given_up > 200, "{given_up} sessions have given up");
    assert!(most(&story) > 4 << 20, "others have not: {} bytes", most(&story));
    // One that waits for few replies is not concerned.
    let few = Socket { cookie: 7, local: address(9), ..socket(TcpState::Established) };
    for (flow, text) in [(Flow::Received, "220 mx ESMTP\r\n"), (Flow::Sent, "NOOP\r\n"), (Flow::Received, "250 ok\r\n")]
    {
        story.transfer_on(few, CLIENT, flow, text);
    }
    assert!(story.told.iter().any(|told| matches!(&told.event, Event::Command(command) if command.code == Some(250))));
    for socket in sockets.chain([few]) {
        story.observer.event(
            KernelEvent::State(StateEvent {
                time: Time(story.time + 10_000_000_000),
                task: None,
                socket: Socket { state: TcpState::LastAck, ..socket },
                positions: SeqNumbers { write_seq: story.written, copied_seq: story.read },
                new: TcpState::Close,
                requested: None,
                peer: None,
                transparent: false,
                local_route: false,
                error: 0,
                unread: 0,
            }),
            &mut |_| {},
        );
    }
    story.observer.settle(Time(u64::MAX), &mut |_| {});
    assert_eq!(most(&story), 0);
}

#[test]
fn half_a_greeting_is_counted_and_not_told() {
    for (text, expected) in
        [("220 mx.exam", Some(11)), ("220-mx.example\r\n220 ESM", Some(23)), ("220 mx\r\n", None), ("", None)]
    {
        let mut story = Story::new();
        story.connect();
        if !text.is_empty() {
            story.transfer(CLIENT, Flow::Received, text);
        }
        story.state(TcpState::LastAck, TcpState::Close, None);
        let greeted = story.told.iter().any(|observation| matches!(observation.event, Event::Greeting(_)));
        assert_eq!(greeted, text.ends_with("mx\r\n"), "{text:?}");
        let Some(Event::ConnectionClosed { greeting_bytes, .. }) = story.told.last().map(|told| &told.event) else {
            panic!("{:?}", story.told)
        };
        assert_eq!(*greeting_bytes, expected, "{text:?}");
    }
}
