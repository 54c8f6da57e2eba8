//! Kernel events in, observations out: the only door of the pure core.

mod ends;
mod expected;
mod recorded;
mod settling;
mod snapshot;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use foldhash::HashMap;

use self::ends::OtherEnd;
use self::expected::Expected;
pub use self::settling::SETTLING;
use self::settling::settled_by;
use crate::connection::Connection;
use crate::event::{
    Flow, Host, KernelEvent, Segment, Socket, StateEvent, Task, TcpState, Time, TransferEvent, Unseen, cause_name,
};
use crate::interception::{Accepted, Interceptions, Opened};
use crate::judge::{Addresses, Judge};
use crate::observation::{self, Caller, ClosedBy, Endpoint, Event, Observation, Role, Timestamp};
use crate::process::Processes;
use crate::recorder::{Entry, Recorder, Reel};
use crate::smtp::{Items, Peer, Session};

/// Most connections that are followed at once; beyond it those that were idle longest are let go.
const MAX_CONNECTIONS: usize = 65_536;

/// Follows every connection on the watched ports.
pub struct Observer {
    ports: Vec<u16>,
    addresses: Addresses,
    host: Host,
    processes: Processes,
    conversations: HashMap<u64, Box<Conversation>>,
    /// Those that wait, and until when, in about that order: they are over, or were asked something that only the
    /// client's next command explains.
    settling: VecDeque<(Time, u64)>,
    unseen: [u64; Unseen::ALL.len()],
    holes: u64,
    /// The last snapshot has left connections in doubt.
    doubts: bool,
    /// Takes down what this observer is told.
    recorder: Option<Recorder>,
    interceptions: Interceptions,
    expected: Expected,
    // Kept from event to event for their room.
    items: Items,
    events: Vec<(Time, Event)>,
    told: Vec<Observation>,
}

/// A connection and what is said on it.
struct Conversation {
    connection: Connection,
    session: Session,
    judge: Judge,
    /// What waits to be taken down of it.
    reel: Option<Box<Reel>>,
    /// How it ended, when it has.
    over: Option<Box<StateEvent>>,
    /// The other end, where what is said there is compared.
    other_end: Option<Box<OtherEnd>>,
}

impl Observer {
    /// An observer of connections with one of `ports` at either end, which shows mailboxes as far as `addresses` says.
    pub fn new(ports: &[u16], addresses: Addresses) -> Self {
        Self {
            ports: ports.to_vec(),
            addresses,
            host: Host { unix_offset: 0, boot_id: "".into(), addresses: Vec::new() },
            processes: Processes::default(),
            conversations: HashMap::default(),
            settling: VecDeque::new(),
            unseen: [0; Unseen::ALL.len()],
            holes: 0,
            doubts: false,
            recorder: None,
            interceptions: Interceptions::default(),
            expected: Expected::default(),
            items: Items::default(),
            events: Vec::new(),
            told: Vec::new(),
        }
    }

    /// What the host's clock shows at this time of the events.
    pub fn timestamp(&self, time: Time) -> Timestamp {
        timestamp(&self.host, time)
    }

    /// Takes one event; what follows from it goes to `sink`.
    pub fn event(&mut self, event: KernelEvent, sink: &mut dyn FnMut(Observation)) {
        if let Some(recorder) = &mut self.recorder
            // A transfer is taken with its connection.
            && !matches!(event, KernelEvent::Transfer(_))
        {
            recorder.keep(Entry::Event(event.clone()));
        }
        if let KernelEvent::State(StateEvent { time, .. }) | KernelEvent::Transfer(TransferEvent { time, .. }) = event
            && self.interceptions.is_waiting()
        {
            self.interceptions.settle(timestamp(&self.host, time), sink);
        }
        self.relate(|observer, sink| observer.take(event, sink), sink);
    }

    /// What is told of single connections is seen together.
    fn relate(&mut self, tell: impl FnOnce(&mut Self, &mut dyn FnMut(Observation)), sink: &mut dyn FnMut(Observation)) {
        let mut told = mem::take(&mut self.told);
        tell(self, &mut |observation| told.push(observation));
        told.drain(..).for_each(|observation| self.interceptions.observe(observation, sink));
        self.told = told;
    }

    fn take(&mut self, event: KernelEvent, sink: &mut dyn FnMut(Observation)) {
        match event {
            KernelEvent::Host(host) => self.host = host,
            KernelEvent::Process(process) => self.processes.describe(process),
            KernelEvent::Snapshot(snapshot) => self.snapshot(snapshot, sink),
            KernelEvent::State(state) => {
                self.settle_until(state.time, sink);
                self.state(state, sink);
            }
            KernelEvent::Transfer(transfer) => {
                self.settle_until(transfer.time, sink);
                self.transfer(transfer, sink);
            }
        }
    }

    /// Bytes whose content was not seen, by cause.
    pub fn unseen(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let causes = Unseen::ALL.into_iter().zip(self.unseen).skip(1);
        causes.map(|(cause, bytes)| (cause_name(cause), bytes)).chain([("hole", self.holes)])
    }

    /// Bytes sent and received so far on a connection that is not over.
    pub fn bytes(&self, connection: &observation::Connection) -> Option<(u64, u64)> {
        let connection = &self.conversations.get(&connection.cookie)?.connection;
        Some((connection.bytes_sent(), connection.bytes_received()))
    }

    /// Whether a second snapshot is wanted, to tell whether connections are closed.
    pub fn doubts(&self) -> bool {
        self.doubts
    }

    fn state(&mut self, event: StateEvent, sink: &mut dyn FnMut(Observation)) {
        match event.new {
            TcpState::SynSent => {
                let owner = event.task.as_ref().map(|task| self.processes.caller(task));
                let mut conversation = self.begin(&event.socket, Role::Client, event.time, Session::new());
                conversation.connection.owner = owner;
                conversation.connection.requested = event
                    .requested
                    .filter(|asked| *asked != event.socket.remote)
                    .map(|asked| Box::new(endpoint(asked)));
                conversation.connection.announced = self.make_way(event.socket.cookie, event.time, sink);
                self.keep(event.socket.cookie, conversation, sink);
            }
            TcpState::Established if event.socket.state == TcpState::Established => self.expect(event, sink),
            TcpState::Established => self.established(&event, sink),
            TcpState::Close => self.closed(event, sink),
            _ => {}
        }
    }

    fn established(&mut self, event: &StateEvent, sink: &mut dyn FnMut(Observation)) {
        let cookie = event.socket.cookie;
        // What began before is another connection, unless TCP Fast Open has brought bytes early.
        let is_new = self.conversations.get(&cookie).is_none_or(|known| known.connection.has_begun());
        if event.socket.state == TcpState::SynReceived && is_new {
            // Who accepts it is not known yet: it is announced with its first transfer.
            let mut conversation = self.begin(&event.socket, Role::Server, event.time, Session::new());
            conversation.connection.establish(event);
            conversation.connection.announced = self.make_way(cookie, event.time, sink);
            self.keep(cookie, conversation, sink);
            self.join_ends(event);
            self.meet(event);
        } else if let Some(conversation) = self.conversations.get_mut(&cookie) {
            conversation.connection.establish(event);
            if conversation.connection.role() == Role::Client {
                conversation.connection.identity = Arc::new(identity(&self.host, &event.socket, Role::Client));
                conversation.announce(&self.host, sink);
            }
        } else {
            // MPTCP tells of its beginning only when it is there; or the record of it was lost.
            let mut conversation = self.begin(&event.socket, Role::Client, event.time, Session::new());
            conversation.connection.establish(event);
            self.keep(cookie, conversation, sink);
        }
    }

    /// The other end of an accepted socket's connection is a client here.
    fn meet(&mut self, event: &StateEvent) {
        let Some(client) = event.peer.and_then(|peer| self.conversations.get(&peer)) else { return };
        let client = &client.connection;
        let opened = Opened {
            connection: Arc::clone(&client.identity),
            process: client.owner.clone(),
            requested: client.requested.as_deref().copied(),
            time: timestamp(&self.host, client.first_seen),
        };
        let accepted = accepted(&self.host, event);
        self.interceptions.meet(opened, accepted, event.transparent, &self.host.addresses);
    }

    fn closed(&mut self, event: StateEvent, sink: &mut dyn FnMut(Observation)) {
        let (cookie, time) = (event.socket.cookie, event.time);
        let Some(mut conversation) = self.conversations.remove(&cookie) else { return };
        while let Some(held) = conversation.connection.release_in_vain() {
            self.follow(&mut conversation, &held, sink);
        }
        if conversation.connection.opened.is_some() || conversation.connection.announced {
            conversation.announce(&self.host, sink);
            conversation.over = Some(Box::new(event));
            if !self.keep_or_end(cookie, conversation, sink) {
                self.settling.push_back((settled_by(time), cookie));
            }
        } else {
            conversation.take_down(self.recorder.as_mut(), Reel::finish);
        }
    }

    /// Ends a conversation that is over and complete, else keeps it; whether it has ended.
    fn keep_or_end(&mut self, cookie: u64, conversation: Box<Conversation>, sink: &mut dyn FnMut(Observation)) -> bool {
        let ends = conversation
            .over
            .as_ref()
            .is_some_and(|over| conversation.connection.is_complete(over.positions) && !conversation.may_hear(over));
        match ends {
            true => self.end(conversation, sink),
            false => self.keep(cookie, conversation, sink),
        }
        ends
    }

    /// Accounts for what the socket moved after the last transfer that was seen.
    fn miss_last(&mut self, conversation: &mut Conversation, event: &StateEvent) {
        // The client's bytes first, as if the server's were the reply.
        let flows = match conversation.connection.role() {
            Role::Client => [Flow::Sent, Flow::Received],
            Role::Server => [Flow::Received, Flow::Sent],
        };
        for (flow, peer) in flows.into_iter().zip([Peer::Client, Peer::Server]) {
            let unhooked = conversation.connection.last_hole(flow, event.positions);
            self.unhooked(conversation, peer, event.time, unhooked);
        }
    }

    /// Accounts for bytes that no event tells of.
    fn unhooked(&mut self, conversation: &mut Conversation, peer: Peer, time: Time, length: u64) {
        let Conversation { connection, session, .. } = &mut *conversation;
        if session.misses(peer, length) {
            self.holes += length;
            connection.lost += length;
        }
        session.gap(peer, time, length, &mut self.items);
        self.judge(conversation);
    }

    fn transfer(&mut self, event: TransferEvent, sink: &mut dyn FnMut(Observation)) {
        let Some(event) = self.expected.hold(event) else { return };
        let cookie = event.socket.cookie;
        // Taken out while it is worked on, so that the rest of the observer stays at hand.
        let mut conversation = match self.conversations.remove(&cookie) {
            Some(conversation) => conversation,
            // TCP Fast Open (RFC 7413): the client's first bytes came before its connection was established.
            None if let Some(conversation) = self.expected(&event.socket) => conversation,
            None if event.socket.state == TcpState::SynReceived => {
                self.begin(&event.socket, Role::Server, event.time, Session::new())
            }
            // What is left in a closed socket can still be read, but its connection is over and told.
            None if event.socket.state == TcpState::Close => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.take(&event, None, Peer::Client);
                }
                self.holes += u64::from(event.length);
                return;
            }
            None => self.begin(&event.socket, self.role_by_port(&event.socket), event.time, Session::midstream()),
        };
        if event.socket.state == TcpState::SynSent {
            // The local end is chosen after `connect` has begun.
            conversation.connection.identity = Arc::new(identity(&self.host, &event.socket, Role::Client));
        }
        if let Some(recorder) = &mut self.recorder {
            let peer = conversation.peer(event.flow);
            recorder.take(&event, conversation.reel.as_deref_mut(), peer);
        }
        let disagreement = self.compare_ends(&mut conversation, &event).map(|found| (event.time, found));
        if let Some(event) = conversation.connection.in_turn(event) {
            while let Some(held) = conversation.connection.release_before(&event) {
                self.follow(&mut conversation, &held, sink);
            }
            self.follow(&mut conversation, &event, sink);
            while let Some(held) = conversation.connection.release() {
                self.follow(&mut conversation, &held, sink);
            }
        }
        if let Some((time, disagreement)) = disagreement {
            self.tell_ends_disagree(&conversation, time, disagreement, sink);
        }
        self.await_next(cookie, &mut conversation);
        self.keep_or_end(cookie, conversation, sink);
    }

    /// Accounts for a transfer and follows what is said in it.
    fn follow(&mut self, conversation: &mut Conversation, event: &TransferEvent, sink: &mut dyn FnMut(Observation)) {
        self.pass(conversation, event.time, sink);
        self.own(conversation, &event.task, event.time, sink);
        let peer = conversation.peer(event.flow);
        let unhooked = conversation.connection.advance(event);
        self.unhooked(conversation, peer, event.time, unhooked);
        if !event.continues {
            conversation.session.begin_call(peer);
        }
        let mut begun = None;
        for segment in event.said.segments() {
            let Conversation { connection, session, .. } = &mut *conversation;
            let missed = match segment {
                Segment::Begun(time) => {
                    begun = Some(time);
                    continue;
                }
                Segment::Content(length) if session.misses_content(peer, length) => Some((length, Unseen::Content)),
                Segment::Uncaptured(uncaptured) if session.misses(peer, uncaptured.length) => {
                    Some((uncaptured.length, uncaptured.cause))
                }
                _ => None,
            };
            if let Some((length, cause)) = missed {
                self.unseen[cause as usize] += length;
                connection.lost += length;
            }
            session.segment(peer, event.time, begun.take(), segment, &mut self.items);
            self.judge(conversation);
        }
        self.tell(conversation, sink);
    }

    /// Has the new items judged. What is known of the bytes now, the recorder may have.
    fn judge(&mut self, conversation: &mut Conversation) {
        for item in self.items.iter() {
            conversation.judge.item(conversation.connection.opened, item, &mut self.events);
        }
        self.items.clear();
        conversation.take_down(self.recorder.as_mut(), Reel::conclude);
    }

    /// Notes who uses the connection.
    fn own(&mut self, conversation: &mut Conversation, task: &Task, time: Time, sink: &mut dyn FnMut(Observation)) {
        let caller = self.processes.caller(task);
        let is_another = |previous: &&Caller| {
            previous.process.pid != caller.process.pid || previous.process.executable != caller.process.executable
        };
        if let Some(previous) = conversation.connection.owner.as_ref().filter(is_another).cloned() {
            conversation.announce(&self.host, sink);
            conversation.judge.owner_changed(conversation.connection.role(), time, &mut self.events);
            self.tell(conversation, sink);
            self.events.push((time, Event::ConnectionOwnerChanged { previous_process: previous }));
        }
        conversation.connection.owner = Some(caller);
        conversation.announce(&self.host, sink);
        self.tell(conversation, sink);
    }

    /// Concludes a conversation: when it was over, or when it was last heard of.
    fn end(&mut self, mut conversation: Box<Conversation>, sink: &mut dyn FnMut(Observation)) {
        self.part_ends(&mut conversation);
        let over = conversation.over.take();
        let ended = over.as_ref().map(|over| over.time);
        let closed_by = over.as_deref().map_or(ClosedBy::Unknown, StateEvent::closed_by);
        let time = ended.unwrap_or(conversation.connection.last_seen);
        if let Some(over) = over {
            self.miss_last(&mut conversation, &over);
        }
        for flow in [Flow::Sent, Flow::Received] {
            let (peer, waiting) = (conversation.peer(flow), conversation.connection.waiting(flow));
            conversation.session.waited(peer, waiting);
        }
        conversation.session.finish(time, &mut self.items);
        self.judge(&mut conversation);
        conversation.judge.finish(ended, time, &mut self.events);
        conversation.take_down(self.recorder.as_mut(), Reel::finish);
        let connection = &conversation.connection;
        self.events.push((
            time,
            Event::ConnectionClosed {
                bytes_sent: connection.bytes_sent(),
                bytes_received: connection.bytes_received(),
                duration: connection.age(time),
                lost_bytes: (!connection.apart).then_some(connection.lost),
                closed_by,
            },
        ));
        self.tell(&conversation, sink);
    }

    /// Says what the judge has concluded.
    fn tell(&mut self, conversation: &Conversation, sink: &mut dyn FnMut(Observation)) {
        for (time, event) in self.events.drain(..) {
            sink(conversation.observation(&self.host, time, event));
        }
    }

    fn begin(&self, socket: &Socket, role: Role, time: Time, session: Session) -> Box<Conversation> {
        let mut judge = Judge::new(self.addresses);
        let reel = self.recorder.as_ref().map(|recorder| {
            judge.keep();
            Box::new(Reel::new(recorder.view()))
        });
        let connection = Connection::new(identity(&self.host, socket, role), time);
        Box::new(Conversation { connection, session, judge, reel, over: None, other_end: None })
    }

    fn keep(&mut self, cookie: u64, conversation: Box<Conversation>, sink: &mut dyn FnMut(Observation)) {
        if self.conversations.len() >= MAX_CONNECTIONS {
            self.let_go(sink);
        }
        self.conversations.insert(cookie, conversation);
    }

    /// Lets go of the quarter of the connections that were idle longest: their end was missed, or will be. For those
    /// who listen they are closed; one that wakes up is first seen again.
    fn let_go(&mut self, sink: &mut dyn FnMut(Observation)) {
        let mut idle: Vec<(Time, u64)> =
            self.conversations.iter().map(|(cookie, it)| (it.connection.last_seen, *cookie)).collect();
        let quarter = idle.len() / 4;
        idle.select_nth_unstable(quarter);
        idle[..=quarter].sort_unstable();
        for (_, cookie) in idle.drain(..=quarter) {
            let Some(mut conversation) = self.conversations.remove(&cookie) else { continue };
            match conversation.connection.announced {
                true => self.end(conversation, sink),
                false => conversation.take_down(self.recorder.as_mut(), Reel::finish),
            }
        }
    }

    /// Of a connection first seen in the middle only the ports tell who connected.
    fn role_by_port(&self, socket: &Socket) -> Role {
        if self.ports.contains(&socket.local.port()) { Role::Server } else { Role::Client }
    }
}

impl Conversation {
    /// Whose bytes go this way.
    fn peer(&self, flow: Flow) -> Peer {
        match (self.connection.role(), flow) {
            (Role::Client, Flow::Sent) | (Role::Server, Flow::Received) => Peer::Client,
            (Role::Client, Flow::Received) | (Role::Server, Flow::Sent) => Peer::Server,
        }
    }

    /// Whether the client may still read a reply from the socket that is over: not if it was closed after the server's.
    fn may_hear(&self, over: &StateEvent) -> bool {
        self.connection.role() == Role::Client && over.socket.state != TcpState::LastAck && self.session.awaits_reply()
    }

    /// Says once that the connection was opened.
    fn announce(&mut self, host: &Host, sink: &mut dyn FnMut(Observation)) {
        if !self.connection.announced {
            self.connection.announced = true;
            let opened = Event::ConnectionOpened { requested: self.connection.requested.as_deref().copied() };
            sink(self.observation(host, self.connection.first_seen, opened));
        }
    }

    fn observation(&self, host: &Host, time: Time, event: Event) -> Observation {
        Observation {
            time: timestamp(host, time),
            event,
            connection: Arc::clone(&self.connection.identity),
            process: self.connection.owner.clone(),
            intercepted: false,
        }
    }
}

fn identity(host: &Host, socket: &Socket, role: Role) -> observation::Connection {
    // A cookie is unique until the next boot.
    let boot = host.boot_id.get(..8).unwrap_or(&host.boot_id);
    observation::Connection {
        id: format!("{boot}-{:x}", socket.cookie).into(),
        role,
        local: endpoint(socket.local),
        remote: endpoint(socket.remote),
        netns: socket.netns,
        cookie: socket.cookie,
    }
}

fn accepted(host: &Host, event: &StateEvent) -> Accepted {
    Accepted { cookie: event.socket.cookie, local: endpoint(event.socket.local), time: timestamp(host, event.time) }
}

fn endpoint(address: std::net::SocketAddr) -> Endpoint {
    Endpoint { address: address.ip(), port: address.port() }
}

fn timestamp(host: &Host, time: Time) -> Timestamp {
    Timestamp(host.unix_offset.saturating_add_unsigned(time.0))
}

#[cfg(test)]
mod tests;
