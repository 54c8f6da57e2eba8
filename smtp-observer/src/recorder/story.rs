//! One socket and what happens at it: what the kernel would tell.

use std::net::{Ipv4Addr, SocketAddr};

use super::Entry;
use crate::event::crossing::Filter;
use crate::event::{
    Flow, Host, KernelEvent, ProcessKey, Segment, SeqNumbers, Socket, StateEvent, Task, TcpState, Time, TransferEvent,
};
use crate::identity::Role;
use crate::smtp::Peer;

/// Bytes that can be read where a test fails.
#[derive(Clone)]
pub(super) struct Text(pub(super) Vec<u8>);

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Bytes { from_client: bool, bytes: Text },
    Hole { from_client: bool, length: u32 },
    Idle,
}

/// One socket and what happens at it.
#[derive(Clone, Debug)]
pub(super) struct Story {
    pub(super) role: Role,
    pub(super) midstream: bool,
    pub(super) steps: Vec<Step>,
    pub(super) cuts: Vec<usize>,
    /// It is over when the observer's time is.
    pub(super) closes: bool,
}

impl Story {
    pub(super) fn entries(&self) -> Vec<Entry> {
        let filter = if self.midstream { Filter::midstream() } else { Filter::new() };
        let mut teller = Teller { role: self.role, filter, time: 1000, written: 0, read: 0, told: Vec::new() };
        teller.tell(KernelEvent::Host(Host {
            unix_offset: 7,
            boot_id: "0123456789".into(),
            netns: None,
            addresses: Vec::new(),
        }));
        match (self.midstream, self.role) {
            (true, _) => {}
            (false, Role::Client) => {
                teller.state(TcpState::Close, TcpState::SynSent);
                teller.state(TcpState::SynSent, TcpState::Established);
            }
            (false, Role::Server) => teller.state(TcpState::SynReceived, TcpState::Established),
        }
        let mut cuts = self.cuts.iter().cycle();
        for step in &self.steps {
            match step {
                Step::Bytes { from_client, bytes } => {
                    let mut rest = bytes.0.as_slice();
                    while let Some(&cut) = cuts.next()
                        && !rest.is_empty()
                    {
                        let (piece, more) = rest.split_at(cut.min(rest.len()));
                        teller.transfer(*from_client, piece);
                        rest = more;
                    }
                }
                Step::Hole { from_client, length } => {
                    *teller.position(*from_client) += length;
                    teller.filter.hole(peer(*from_client), u64::from(*length));
                }
                Step::Idle => {
                    teller.time += 2_000_000_000;
                    teller.told.push(Entry::Settled(Time(teller.time)));
                }
            }
        }
        if self.closes {
            teller.state(TcpState::CloseWait, TcpState::Close);
        }
        teller.told
    }
}

struct Teller {
    role: Role,
    filter: Filter,
    time: u64,
    written: u32,
    read: u32,
    told: Vec<Entry>,
}

impl Teller {
    fn tell(&mut self, event: KernelEvent<'static>) {
        self.told.push(Entry::Event(event));
    }

    fn position(&mut self, from_client: bool) -> &mut u32 {
        if from_client == (self.role == Role::Client) { &mut self.written } else { &mut self.read }
    }

    fn socket(&self, state: TcpState) -> Socket {
        let [client, server] =
            [(1, 40000), (2, 25)].map(|(host, port)| SocketAddr::from((Ipv4Addr::new(10, 0, 0, host), port)));
        let (local, remote) = if self.role == Role::Client { (client, server) } else { (server, client) };
        Socket { cookie: 0xc0, netns: 7, local, remote, state, seq_unreliable: false }
    }

    fn positions(&self) -> SeqNumbers {
        SeqNumbers { write_seq: self.written, copied_seq: self.read }
    }

    fn state(&mut self, old: TcpState, new: TcpState) {
        self.time += 1000;
        let (time, socket, positions) = (Time(self.time), self.socket(old), self.positions());
        let event = StateEvent {
            time,
            task: (new == TcpState::SynSent).then(task),
            socket,
            positions,
            new,
            requested: None,
            peer: None,
            transparent: false,
            local_route: false,
            error: 0,
            unread: 0,
        };
        self.tell(KernelEvent::State(event));
    }

    fn transfer(&mut self, from_client: bool, bytes: &[u8]) {
        self.time += 1000;
        let parts = self.filter.call(peer(from_client), Time(self.time), bytes);
        for (place, (length, said)) in parts.into_iter().enumerate() {
            *self.position(from_client) += length;
            let flow = if from_client == (self.role == Role::Client) { Flow::Sent } else { Flow::Received };
            self.tell(KernelEvent::Transfer(TransferEvent {
                time: Time(self.time),
                task: task(),
                socket: self.socket(TcpState::Established),
                positions: self.positions(),
                flow,
                length,
                continues: place > 0,
                tls: Default::default(),
                said,
            }));
        }
    }
}

fn peer(from_client: bool) -> Peer {
    if from_client { Peer::Client } else { Peer::Server }
}

fn task() -> Task {
    let process = ProcessKey { pid: 10, start_time: Time(1), exec_id: 1 };
    Task { process, tid: 10, uid: 0, user: None, comm: "program".into() }
}

fn text(segment: Segment<'_>) -> Vec<u8> {
    match segment {
        Segment::Text(bytes) => bytes.to_vec(),
        _ => Vec::new(),
    }
}

/// The bytes of each direction, however they were parted into calls.
pub(super) fn said(entries: &[Entry]) -> String {
    let of = |wanted: Flow| {
        let parts = entries.iter().filter_map(move |entry| match entry {
            Entry::Event(KernelEvent::Transfer(event)) if event.flow == wanted => {
                Some(event.said.segments().flat_map(text).collect::<Vec<u8>>())
            }
            _ => None,
        });
        parts.flatten().map(char::from).collect::<String>()
    };
    (of(Flow::Sent) + "\n" + &of(Flow::Received)).to_ascii_lowercase()
}
