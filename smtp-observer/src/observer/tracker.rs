//! The connections on the watched ports: each with what is said on it, from event to event.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::HashMap;

use super::Out;
use super::ends::OtherEnd;
use super::expected::Expected;
use super::libraries::Libraries;
use crate::analysis::Analysis;
use crate::connection::Connection;
use crate::event::{
    CaptureMiss, Flow, Host, KernelEvent, Segment, Socket, StateEvent, TcpState, Time, TransferEvent, cause_name,
};
use crate::fact::{Fact, What};
use crate::observation::{self, Caller, Endpoint, Role, Timestamp};
use crate::process::Processes;
use crate::proxy::{Accepted, Opened};
use crate::redact::RedactionPolicy;
use crate::smtp::{DecoderOutput, Peer, Session};

/// Most connections that are followed at once; beyond it those that were idle longest are let go.
pub(super) const MAX_CONNECTIONS: usize = 65_536;

/// Follows every connection on the watched ports by itself.
pub(super) struct Tracker {
    ports: Vec<u16>,
    pub(super) host: Host,
    pub(super) processes: Processes,
    pub(super) conversations: HashMap<u64, Box<Conversation>>,
    /// Those that wait, and until when, in about that order: they are over, or were asked something that only the
    /// client's next command explains.
    pub(super) deadlines: VecDeque<(Time, u64)>,
    unseen: [u64; CaptureMiss::ALL.len()],
    holes: u64,
    /// The last snapshot has left connections in doubt.
    pub(super) needs_second_snapshot: bool,
    /// It was looked which sockets are open.
    pub(super) has_looked: bool,
    /// What is known of the processes' libraries of TLS.
    pub(super) libraries: Libraries,
    pub(super) expected: Expected,
    /// What all sessions take for what waits for servers.
    pub(super) held_bytes: usize,
    // Kept from event to event for its room.
    pub(super) items: DecoderOutput,
}

/// A connection and what is said on it.
pub(super) struct Conversation {
    pub(super) connection: Connection,
    pub(super) session: Session,
    pub(super) analysis: Analysis,
    /// How it ended, when it has.
    pub(super) over: Option<Box<StateEvent>>,
    /// The other end, where what is said there is compared.
    pub(super) other_end: Option<Box<OtherEnd>>,
    /// What its session takes of the room for what waits for servers.
    pub(super) held_bytes: usize,
}

impl Tracker {
    pub(super) fn new(ports: &[u16], policy: RedactionPolicy) -> Self {
        Self {
            ports: ports.to_vec(),
            host: Host { unix_offset: 0, boot_id: "".into(), netns: None, addresses: Vec::new() },
            processes: Processes::new(policy),
            conversations: HashMap::default(),
            deadlines: VecDeque::new(),
            unseen: [0; CaptureMiss::ALL.len()],
            holes: 0,
            needs_second_snapshot: false,
            has_looked: false,
            libraries: Libraries::default(),
            expected: Expected::default(),
            held_bytes: 0,
            items: DecoderOutput::default(),
        }
    }

    /// Takes an event.
    pub(super) fn take(&mut self, event: KernelEvent, out: &mut Out<'_>) {
        match event {
            KernelEvent::Host(host) => self.host = host,
            KernelEvent::Process(process) => self.processes.describe(process),
            KernelEvent::ReadsTls(reads) => self.libraries.are_read(reads),
            KernelEvent::TlsLibraries(found) => self.libraries.note(found),
            KernelEvent::Snapshot(snapshot) => self.snapshot(snapshot, out),
            KernelEvent::State(state) => {
                self.pass_deadlines(state.time, out);
                self.state(state, out);
            }
            KernelEvent::Transfer(transfer) => {
                self.pass_deadlines(transfer.time, out);
                self.transfer(&transfer, out);
            }
        }
    }

    /// Bytes whose content was not seen, by cause.
    pub(super) fn unseen(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let causes = CaptureMiss::ALL.into_iter().zip(self.unseen).skip(1);
        causes.map(|(cause, bytes)| (cause_name(cause), bytes)).chain([("hole", self.holes)])
    }

    /// Bytes sent and received so far on a connection that is not over.
    pub(super) fn bytes(&self, connection: &observation::Connection) -> Option<(u64, u64)> {
        let connection = &self.conversations.get(&connection.cookie)?.connection;
        Some((connection.bytes_sent(), connection.bytes_received()))
    }

    fn state(&mut self, event: StateEvent, out: &mut Out<'_>) {
        match event.new {
            TcpState::SynSent => {
                let mut conversation = self.begin(&event.socket, Role::Client, event.time, Session::new());
                if let Some(task) = &event.task {
                    conversation.connection.users.set_owner(self.processes.caller(task));
                }
                conversation.connection.requested = event
                    .requested
                    .filter(|asked| *asked != event.socket.remote)
                    .map(|asked| Box::new(endpoint(asked)));
                conversation.connection.announced = self.replace_existing(event.socket.cookie, event.time, out);
                self.keep(event.socket.cookie, conversation, out);
            }
            TcpState::Established if event.socket.state == TcpState::Established => self.expect(event, out),
            TcpState::Established => self.established(&event, out),
            TcpState::Close => self.closed(event, out),
            _ => {}
        }
    }

    fn established(&mut self, event: &StateEvent, out: &mut Out<'_>) {
        let cookie = event.socket.cookie;
        // What began before is another connection, unless TCP Fast Open has brought bytes early.
        let is_new = self.conversations.get(&cookie).is_none_or(|known| known.connection.has_begun());
        if event.socket.state == TcpState::SynReceived && is_new {
            // Who accepts it is not known yet: it is announced with its first transfer.
            let mut conversation = self.begin(&event.socket, Role::Server, event.time, Session::new());
            conversation.connection.establish(event);
            conversation.connection.announced = self.replace_existing(cookie, event.time, out);
            self.keep(cookie, conversation, out);
            self.join_ends(event);
            self.meet(event, out);
        } else if let Some(conversation) = self.conversations.get_mut(&cookie) {
            conversation.connection.establish(event);
            if conversation.connection.role() == Role::Client {
                conversation.connection.identity = Arc::new(identity(&self.host, &event.socket, Role::Client));
                conversation.announce(&self.host, out);
            }
        } else {
            // MPTCP tells of its beginning only when it is there; or the record of it was lost.
            let mut conversation = self.begin(&event.socket, Role::Client, event.time, Session::new());
            conversation.connection.establish(event);
            self.keep(cookie, conversation, out);
        }
    }

    /// The other end of an accepted socket's connection is a client here.
    fn meet(&self, event: &StateEvent, out: &mut Out<'_>) {
        let Some(client) = event.peer.and_then(|peer| self.conversations.get(&peer)) else { return };
        let client = &client.connection;
        let opened = Opened {
            connection: Arc::clone(&client.identity),
            process: client.users.owner().cloned(),
            requested: client.requested.as_deref().copied(),
            local_route: client.local_route,
            time: timestamp(&self.host, client.first_seen),
        };
        let accepted = accepted(&self.host, event);
        let own = self.host.addresses_in(client.identity.netns);
        out.interceptions.meet(opened, accepted, event.transparent, own);
    }

    /// Accounts for bytes that no event tells of.
    pub(super) fn unhooked(
        &mut self,
        conversation: &mut Conversation,
        peer: Peer,
        time: Time,
        length: u64,
        out: &mut Out<'_>,
    ) {
        if length == 0 {
            return;
        }
        let Conversation { connection, session, .. } = &mut *conversation;
        let missed = session.missed(peer, length);
        self.holes += missed;
        connection.lost += missed;
        session.gap(peer, time, length, &mut self.items);
        self.analyse(conversation, out);
    }

    pub(super) fn transfer(&mut self, event: &TransferEvent, out: &mut Out<'_>) {
        if self.expected.hold(event) {
            return;
        }
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
                out.show(|tap| tap.transfer(None, event, Peer::Client));
                self.holes += u64::from(event.length);
                return;
            }
            None => self.begin(&event.socket, self.role_by_port(&event.socket), event.time, Session::midstream()),
        };
        if event.socket.state == TcpState::SynSent {
            // The local end is chosen after `connect` has begun.
            conversation.connection.identity = Arc::new(identity(&self.host, &event.socket, Role::Client));
        }
        self.begin_plaintext(&mut conversation, event, out);
        out.show(|tap| {
            let dialogue = Some(cookie).filter(|_| !conversation.connection.is_outside(event));
            tap.transfer(dialogue, event, conversation.peer(event.flow));
        });
        let disagreement = self.compare_ends(&mut conversation, event).map(|found| (event.time, found));
        let surplus;
        let turn = match conversation.connection.hold(event) {
            false => Some(event),
            true => {
                surplus = conversation.connection.release_surplus();
                surplus.as_ref()
            }
        };
        if let Some(event) = turn {
            while let Some(held) = conversation.connection.release_before(event) {
                self.follow(&mut conversation, &held, out);
            }
            self.follow(&mut conversation, event, out);
            while let Some(held) = conversation.connection.release() {
                self.follow(&mut conversation, &held, out);
            }
        }
        if let Some((time, disagreement)) = disagreement {
            self.tell_ends_disagree(&conversation, time, disagreement, out);
        }
        self.await_next(cookie, &mut conversation);
        self.keep_or_end(cookie, conversation, out);
    }

    /// Accounts for a transfer and follows what is said in it.
    pub(super) fn follow(&mut self, conversation: &mut Conversation, event: &TransferEvent, out: &mut Out<'_>) {
        if conversation.connection.is_outside(event) {
            conversation.connection.advance(event);
            return;
        }
        self.pass(conversation, event.time, out);
        let peer = conversation.peer(event.flow);
        self.note_user(conversation, peer, event, out);
        let unhooked = conversation.connection.advance(event);
        self.unhooked(conversation, peer, event.time, unhooked, out);
        conversation.session.set_behind(conversation.connection.is_behind(event));
        if !event.continues {
            conversation.session.begin_call(peer);
        }
        if conversation.session.is_in_handshake() {
            conversation.session.know_plaintext(self.libraries.plaintext(event));
        }
        let mut begun = None;
        for segment in event.said.segments() {
            let Conversation { connection, session, .. } = &mut *conversation;
            let (missed, cause) = match segment {
                Segment::Begun(time) => {
                    begun = Some(time);
                    continue;
                }
                Segment::Content(length) => (session.missed_of_content(peer, length), CaptureMiss::Content),
                Segment::Uncaptured(uncaptured) => (session.missed(peer, uncaptured.length), uncaptured.cause),
                _ => (0, CaptureMiss::None),
            };
            session.segment(peer, event.time, begun.take(), segment, &mut self.items);
            if missed > 0 {
                // They may have shown that TLS is spoken, or that a message was under way: of these nothing is missed.
                let missed = session.missed(peer, missed);
                self.unseen[cause as usize] += missed;
                connection.lost += missed;
            }
            self.analyse(conversation, out);
        }
        self.bound_held(conversation, event.time, out);
    }

    /// Has the new items judged.
    pub(super) fn analyse(&mut self, conversation: &mut Conversation, out: &mut Out<'_>) {
        let cookie = conversation.cookie();
        let Conversation { connection, analysis, .. } = &mut *conversation;
        for item in self.items.iter() {
            out.show(|tap| tap.item(cookie, item));
            let told = &mut |time, process: Option<&Caller>, what: What<'_>| {
                out.tell(&connection.fact_of(&self.host, time, process, what));
            };
            analysis.item(connection.opened, connection.process_of(item), item, told);
        }
        self.items.clear();
        out.show(|tap| tap.read(cookie, &conversation.session));
    }

    pub(super) fn begin(&self, socket: &Socket, role: Role, time: Time, session: Session) -> Box<Conversation> {
        let connection = Connection::new(identity(&self.host, socket, role), time);
        Box::new(Conversation {
            connection,
            session,
            analysis: Analysis::default(),
            over: None,
            other_end: None,
            held_bytes: 0,
        })
    }

    pub(super) fn keep(&mut self, cookie: u64, conversation: Box<Conversation>, out: &mut Out<'_>) {
        if self.conversations.len() >= MAX_CONNECTIONS {
            self.evict_idle(out);
        }
        self.conversations.insert(cookie, conversation);
    }

    /// Of a connection first seen in the middle only the ports tell who connected.
    pub(super) fn role_by_port(&self, socket: &Socket) -> Role {
        if self.ports.contains(&socket.local.port()) { Role::Server } else { Role::Client }
    }
}

impl Conversation {
    pub(super) fn cookie(&self) -> u64 {
        self.connection.identity.cookie
    }

    /// Shows the tap that nothing more is said in this dialogue.
    pub(super) fn show_end(&self, out: &mut Out<'_>) {
        out.show(|tap| tap.ended(self.cookie(), &self.session));
    }

    /// Whose bytes go this way.
    pub(super) fn peer(&self, flow: Flow) -> Peer {
        match (self.connection.role(), flow) {
            (Role::Client, Flow::Sent) | (Role::Server, Flow::Received) => Peer::Client,
            (Role::Client, Flow::Received) | (Role::Server, Flow::Sent) => Peer::Server,
        }
    }

    /// Says once that the connection was opened.
    pub(super) fn announce(&mut self, host: &Host, out: &mut Out<'_>) {
        if !self.connection.announced {
            self.connection.announced = true;
            let what = What::ConnectionOpened { requested: self.connection.requested.as_deref().copied() };
            out.tell(&self.connection.fact(host, self.connection.first_seen, what));
        }
    }
}

impl Connection {
    /// Something that is known of it.
    pub(super) fn fact<'a>(&'a self, host: &Host, time: Time, what: What<'a>) -> Fact<'a> {
        self.fact_of(host, time, self.users.owner(), what)
    }

    /// Something that is known of it and of this process.
    pub(super) fn fact_of<'a>(
        &'a self,
        host: &Host,
        time: Time,
        process: Option<&'a Caller>,
        what: What<'a>,
    ) -> Fact<'a> {
        Fact { time: timestamp(host, time), connection: &self.identity, process, intercepted: false, what }
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

pub(super) fn accepted(host: &Host, event: &StateEvent) -> Accepted {
    Accepted { cookie: event.socket.cookie, local: endpoint(event.socket.local), time: timestamp(host, event.time) }
}

fn endpoint(address: std::net::SocketAddr) -> Endpoint {
    Endpoint { address: address.ip(), port: address.port() }
}

pub(super) fn timestamp(host: &Host, time: Time) -> Timestamp {
    Timestamp(host.unix_offset.saturating_add_unsigned(time.0))
}
