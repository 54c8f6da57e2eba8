//! What the core takes of memory: nothing for a further command, and little for a connection that nothing is said on.

use std::alloc::System;
use std::net::{Ipv4Addr, SocketAddr};

use smtp_observer::event::{
    Flow, Host, KernelEvent, LineEnd, ProcessKey, Said, Segment, SeqNumbers, Socket, StateEvent, Task, TcpState, Time,
    TransferEvent, Withheld,
};
use smtp_observer::fact::{Fact, What};
use smtp_observer::observer::Observer;
use smtp_observer::redact::{Addresses, RedactionPolicy};
use smtp_observer::smtp::{DecoderOutput, Peer, Session};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Commands that are counted.
const COMMANDS: usize = 1000;

/// Connections that are counted.
const CONNECTIONS: u64 = 1000;

/// Bytes that an idle connection may hold.
const MAX_IDLE: usize = 1024;

const GREETING: &str = "220 mx.example ESMTP Postfix\r\n";
const EHLO: &str = "EHLO client.example\r\n";
const OFFER: &str = "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-STARTTLS\r\n250 CHUNKING\r\n";

/// Commands with their replies.
const DIALOGUE: [(&str, &str); 5] = [
    ("MAIL FROM:<alice@client.example> SIZE=4711\r\n", "250 2.1.0 Ok\r\n"),
    ("RCPT TO:<bob@server.example>\r\n", "250 2.1.5 Ok\r\n"),
    ("RCPT TO:<carol@server.example>\r\n", "550-5.1.1 <carol@server.example>:\r\n550 5.1.1 unknown\r\n"),
    ("NOOP\r\n", "250 2.0.0 Ok\r\n"),
    ("RSET\r\n", "250 2.0.0 Ok\r\n"),
];

fn main() {
    withheld_lines();
    for (connections, group) in [(8, 1), (8, 5), (1, 100)] {
        commands(connections, group);
    }
    idle_connections();
    commands_through_a_proxy();
}

/// Further commands on so many connections that take turns, so many commands in a write, allocate nothing.
fn commands(connections: usize, group: usize) {
    let mut items = DecoderOutput::default();
    let mut sessions: Vec<_> = (0..connections).map(|_| greeted(&mut items)).collect();
    items.clear();
    let dialogue = || DIALOGUE.into_iter().cycle().take(group);
    let client: String = dialogue().map(|(command, _)| command).collect();
    let server: String = dialogue().map(|(_, reply)| reply).collect();
    let round = sessions.len() * group;
    let mut told = 0;
    let mut speak = |commands: usize| {
        for _ in 0..commands.div_ceil(round) {
            for (peer, text) in [(Peer::Client, &client), (Peer::Server, &server)] {
                for session in &mut sessions {
                    session.receive(peer, Time(2), text.as_bytes(), &mut items);
                    told += items.len();
                    items.clear();
                }
            }
        }
    };
    speak(COMMANDS);
    let region = Region::new(ALLOCATOR);
    speak(COMMANDS);
    let change = region.change();
    assert!(told >= 2 * COMMANDS, "{told} items");
    println!("{COMMANDS} commands in groups of {group}: {} allocations", change.allocations + change.reallocations);
    assert_eq!((change.allocations, change.reallocations), (0, 0), "in groups of {group}: {change:?}");
}

/// Lines that stay in the kernel allocate nothing, however long they are.
fn withheld_lines() {
    let mut items = DecoderOutput::default();
    let mut session = greeted(&mut items);
    let mut speak = |length| {
        let withheld = |length| Segment::Withheld(Withheld { length, end: LineEnd::Crlf, nul: false, bare_cr: false });
        for (peer, segments) in
            [(Peer::Client, &[withheld(length)][..]), (Peer::Server, &[Segment::Text(b"500 5.5.1 "), withheld(length)])]
        {
            session.begin_call(peer);
            for segment in segments {
                session.segment(peer, Time(2), None, *segment, &mut items);
            }
            items.clear();
        }
    };
    (0..COMMANDS).for_each(|_| speak(1 << 20));
    let region = Region::new(ALLOCATOR);
    for length in [2, 20, 1 << 20, 1 << 32] {
        (0..10).for_each(|_| speak(length));
    }
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{change:?}");
}

fn greeted(items: &mut DecoderOutput) -> Session {
    let mut session = Session::new();
    session.receive(Peer::Server, Time(1), GREETING.as_bytes(), items);
    session.receive(Peer::Client, Time(1), EHLO.as_bytes(), items);
    session.receive(Peer::Server, Time(1), OFFER.as_bytes(), items);
    session
}

/// A connection that has been greeted and has sent EHLO is small, and is so again behind a burst of commands.
fn idle_connections() {
    for burst in [0, 100] {
        let mut told = 0;
        let mut observer = Observer::new(&[25], RedactionPolicy::new(Addresses::Domain));
        observer.event(
            KernelEvent::Host(Host {
                unix_offset: 0,
                boot_id: "0123456789abcdef".into(),
                netns: None,
                addresses: Vec::new(),
            }),
            &mut |_| {},
        );
        let mut open = |cookies| {
            for cookie in cookies {
                let mut connection = Connection::open(&mut observer, cookie, &mut told);
                if burst > 0 {
                    connection.transfer(Flow::Sent, &"HELP\r\n".repeat(burst));
                    connection.transfer(Flow::Received, &"214 2.0.0 No\r\n".repeat(burst));
                }
            }
        };
        // What all share is there with the first.
        open(0..1);
        let region = Region::new(ALLOCATOR);
        open(1..1 + CONNECTIONS);
        let change = region.change();
        let held = (change.bytes_allocated - change.bytes_deallocated) / CONNECTIONS as usize;
        // Opened, greeted, EHLO, and TLS was offered.
        assert!(told >= (4 + burst) * CONNECTIONS as usize, "{told} observations");
        println!("a connection that is idle behind {} commands: {held} bytes", 1 + burst);
        assert!(held < MAX_IDLE, "{held} bytes a connection that is idle behind {} commands", 1 + burst);
    }
}

/// Commands that are counted through a proxy.
const PROXIED: usize = 10_000;

/// Commands through a proxy cost the same each, however many there were before, and what is kept of them does not grow.
fn commands_through_a_proxy() {
    const PLAIN: &[(&str, &str)] = &[("HELP\r\n", "214 2.0.0 no\r\n")];
    // Why each RSET and NOOP was sent is told in words: only others allocate nothing.
    for (dialogue, is_free) in [(PLAIN, true), (&DIALOGUE, false)] {
        let (mut told, mut verdicts) = (0, 0);
        let mut observer = Observer::new(&[25], RedactionPolicy::new(Addresses::Domain));
        let mut events = Events::default();
        events.begin();
        let mut speak = |mut events: Events, commands: usize| {
            for (command, reply) in dialogue.iter().cycle().take(commands) {
                events.say(command, reply);
            }
            let region = Region::new(ALLOCATOR);
            let mut count = |fact: &Fact<'_>| {
                told += 1;
                verdicts += usize::from(matches!(fact.what, What::Interception(_)));
            };
            events.list.drain(..).for_each(|event| observer.event(event, &mut count));
            let change = region.change();
            (Events { time: events.time, list: Vec::new() }, change.allocations + change.reallocations)
        };
        // What is told late and what is kept for later is there.
        let (events, _) = speak(events, COMMANDS);
        let (events, first) = speak(events, PROXIED / 2);
        let region = Region::new(ALLOCATOR);
        let (_, last) = speak(events, PROXIED / 2);
        let change = region.change();
        assert!(told >= 3 * PROXIED && verdicts > 0, "{told} facts, {verdicts} verdicts");
        println!("{PROXIED} commands through a proxy: {} allocations", first + last);
        assert_eq!(first, last, "the first half and the last one");
        assert!(!is_free || last == 0, "{last} allocations");
        let grown = change.bytes_allocated.abs_diff(change.bytes_deallocated);
        assert!(grown < 4096, "{grown} bytes more or less are held behind {} more commands", PROXIED / 2);
    }
}

/// What the kernel tells of a client's connection that ends in a proxy, and of the proxy's own.
#[derive(Default)]
struct Events {
    time: u64,
    list: Vec<KernelEvent<'static>>,
}

impl Events {
    const CLIENT: u32 = 10;
    const PROXY: u32 = 20;

    /// The client's socket, the one that accepted it, and the one that the proxy connects.
    fn sockets() -> [(Socket, u32); 3] {
        let server = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 25), 25));
        let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, 10_025));
        let client = |port| SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), port));
        let state = TcpState::Close;
        let socket = |cookie, local, remote| Socket { cookie, netns: 1, local, remote, state, seq_unreliable: true };
        [
            (socket(1, client(40_000), server), Self::CLIENT),
            (socket(2, proxy, client(40_000)), Self::PROXY),
            (socket(3, client(40_001), server), Self::PROXY),
        ]
    }

    fn begin(&mut self) {
        let [(client, who), (accepted, proxy), (upstream, _)] = Self::sockets();
        self.state(client, TcpState::Close, TcpState::SynSent, Some(who), None);
        self.state(client, TcpState::SynSent, TcpState::Established, None, None);
        self.state(accepted, TcpState::SynReceived, TcpState::Established, None, Some(client.cookie));
        self.state(upstream, TcpState::Close, TcpState::SynSent, Some(proxy), None);
        self.state(upstream, TcpState::SynSent, TcpState::Established, None, None);
        self.reply(GREETING);
        self.say(EHLO, OFFER);
    }

    /// Said by the client, passed on, and answered.
    fn say(&mut self, command: &str, reply: &str) {
        let [client, accepted, upstream] = Self::sockets();
        for (socket, flow) in [(client, Flow::Sent), (accepted, Flow::Received), (upstream, Flow::Sent)] {
            self.moves(socket, flow, command);
        }
        self.reply(reply);
    }

    fn reply(&mut self, reply: &str) {
        let [client, accepted, upstream] = Self::sockets();
        for (socket, flow) in [(upstream, Flow::Received), (accepted, Flow::Sent), (client, Flow::Received)] {
            self.moves(socket, flow, reply);
        }
    }

    fn state(&mut self, socket: Socket, old: TcpState, new: TcpState, pid: Option<u32>, peer: Option<u64>) {
        self.time += 1000;
        self.list.push(KernelEvent::State(StateEvent {
            time: Time(self.time),
            task: pid.map(task_of),
            socket: Socket { state: old, ..socket },
            positions: SeqNumbers { write_seq: 0, copied_seq: 0 },
            new,
            requested: None,
            peer,
            transparent: false,
            local_route: false,
            error: 0,
            unread: 0,
        }));
    }

    fn moves(&mut self, (socket, pid): (Socket, u32), flow: Flow, text: &str) {
        self.time += 1000;
        self.list.push(KernelEvent::Transfer(TransferEvent {
            time: Time(self.time),
            task: task_of(pid),
            socket: Socket { state: TcpState::Established, ..socket },
            positions: SeqNumbers { write_seq: 0, copied_seq: 0 },
            flow,
            length: text.len() as u32,
            continues: false,
            tls: Default::default(),
            said: Said::text(text.as_bytes()),
        }));
    }
}

/// A client's socket, as the kernel tells of it.
struct Connection<'a> {
    observer: &'a mut Observer,
    told: &'a mut usize,
    cookie: u64,
    positions: SeqNumbers,
}

impl<'a> Connection<'a> {
    fn open(observer: &'a mut Observer, cookie: u64, told: &'a mut usize) -> Self {
        let mut connection = Self { observer, told, cookie, positions: SeqNumbers { write_seq: 1, copied_seq: 1 } };
        connection.state(TcpState::Close, TcpState::SynSent);
        connection.state(TcpState::SynSent, TcpState::Established);
        connection.transfer(Flow::Received, GREETING);
        connection.transfer(Flow::Sent, EHLO);
        connection.transfer(Flow::Received, OFFER);
        connection
    }

    fn state(&mut self, old: TcpState, new: TcpState) {
        let task = (new == TcpState::SynSent).then(task);
        let (socket, positions) = (self.socket(old), self.positions);
        self.event(KernelEvent::State(StateEvent {
            time: Time(1),
            task,
            socket,
            positions,
            new,
            requested: None,
            peer: None,
            transparent: false,
            local_route: false,
            error: 0,
            unread: 0,
        }));
    }

    fn transfer(&mut self, flow: Flow, text: &str) {
        let length = text.len() as u32;
        match flow {
            Flow::Sent => self.positions.write_seq += length,
            Flow::Received => self.positions.copied_seq += length,
        }
        self.event(KernelEvent::Transfer(TransferEvent {
            time: Time(2),
            task: task(),
            socket: self.socket(TcpState::Established),
            positions: self.positions,
            flow,
            length,
            continues: false,
            tls: Default::default(),
            said: Said::text(text.as_bytes()),
        }));
    }

    fn event(&mut self, event: KernelEvent) {
        self.observer.event(event, &mut |_| *self.told += 1);
    }

    fn socket(&self, state: TcpState) -> Socket {
        Socket {
            cookie: self.cookie,
            netns: 1,
            local: SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 40_000)),
            remote: SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), 25)),
            state,
            seq_unreliable: false,
        }
    }
}

fn task() -> Task {
    task_of(10)
}

fn task_of(pid: u32) -> Task {
    let process = ProcessKey { pid, start_time: Time(1), exec_id: 1 };
    Task { process, tid: pid, uid: 0, user: None, comm: "smtp".into() }
}
