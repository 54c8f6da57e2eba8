//! A transcript without sockets: the events that the kernel would tell, one socket's. What is said goes through the
//! kernel's own filter.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use serde_json::Value;
use smtp_ebpf::event::{SegmentKind, WINDOW_LENGTH};
use smtp_ebpf::protocol::{self, Call, Dialogue, Work};
use smtp_observer::event::{
    Flow, Host, KernelEvent, ProcessKey, Said, SeqNumbers, Socket, StateEvent, Task, TcpState, Time, TlsLibrary,
    TlsSession, TransferEvent,
};
use smtp_observer::observation::{Observation, Role};
use smtp_observer::observer::{GRACE_PERIOD, Observer, Tap};
use smtp_observer::recorder::{Entry, Recorder};
use smtp_observer::recording::{self, Header};
use smtp_observer::redact::{Addresses, Key, RedactionPolicy};

use super::{Speaker, Step, Transcript};

/// How the bytes of a write are parted into calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Not at all.
    Whole,
    /// Into pieces of so many bytes.
    Every(usize),
    /// All bytes of the dialogue are counted, and one cut is behind so many.
    Behind(usize),
}

/// Time between two writes, in nanoseconds.
const STEP: u64 = 10_000_000;

/// What is observed of a transcript at the socket with this role, each observation as JSON.
pub fn observe(transcript: &Transcript, role: Role, cut: Cut) -> Result<Vec<Value>> {
    Ok(observations(transcript, role, cut).iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
}

/// What is observed of a transcript at the socket with this role.
pub fn observations(transcript: &Transcript, role: Role, cut: Cut) -> Vec<Observation> {
    play(transcript, None, role, cut).observed
}

/// What is observed of a transcript that is said inside of TLS from the connection's start on, as JSON, and the recording that
/// was made of it.
pub fn record_inside_tls(transcript: &Transcript, role: Role, cut: Cut) -> Result<(Vec<Value>, Vec<u8>)> {
    recorded(play_inside(transcript, Some(recorder()), role, cut, true))
}

/// The same as JSON, and the recording that was made of it.
pub fn record(transcript: &Transcript, role: Role, cut: Cut) -> Result<(Vec<Value>, Vec<u8>)> {
    recorded(play(transcript, Some(recorder()), role, cut))
}

fn recorder() -> Recorder {
    Recorder::new(Addresses::Domain, Key(7))
}

fn recorded(mut player: Player) -> Result<(Vec<Value>, Vec<u8>)> {
    let mut file = Vec::new();
    Header::new(&[25], Addresses::Domain, &[]).write(&mut file);
    let recorder = player.recorder.as_mut().context("nothing is recorded")?;
    recorder.drain().for_each(|(number, entry)| recording::write(number, &entry, &mut file));
    Ok((player.observed.iter().map(serde_json::to_value).collect::<Result<_, _>>()?, file))
}

/// What is observed of a recording.
pub fn replay(file: &[u8]) -> Result<Vec<Value>> {
    let (header, entries) = recording::open(file)?;
    let policy = RedactionPolicy::new(header.addresses);
    let mut observer = Observer::new(&header.ports, policy);
    let mut observed = Vec::new();
    for entry in entries {
        match entry? {
            Entry::Event(event) => observer.event(event, &mut |fact| observed.push(Observation::of(fact, policy))),
            Entry::Settled(now) => observer.settle(now, &mut |fact| observed.push(Observation::of(fact, policy))),
        }
    }
    observer.settle(Time(u64::MAX), &mut |fact| observed.push(Observation::of(fact, policy)));
    Ok(observed.iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
}

fn play(transcript: &Transcript, recorder: Option<Recorder>, role: Role, cut: Cut) -> Player {
    play_inside(transcript, recorder, role, cut, false)
}

fn play_inside(transcript: &Transcript, recorder: Option<Recorder>, role: Role, cut: Cut, tls: bool) -> Player {
    let mut dialogue = match transcript.midstream {
        true => Dialogue::UNDER_WAY,
        false => Dialogue::beginning(),
    };
    if !transcript.midstream {
        let (client, server) = if role == Role::Client { (WRITTEN, READ) } else { (READ, WRITTEN) };
        // SAFETY: it is a reference.
        unsafe {
            if tls {
                Dialogue::start_at(&mut dialogue, 0, 0)
            } else {
                Dialogue::start_at(&mut dialogue, client, server)
            }
        };
    }
    let mut player = Player {
        dialogue: Box::new(dialogue),
        work: Box::new(Work::EMPTY),
        observer: Observer::new(&[25], RedactionPolicy::new(Addresses::Domain)),
        recorder,
        policy: RedactionPolicy::new(Addresses::Domain),
        role,
        cut,
        time: 1_000_000_000,
        written: WRITTEN,
        read: READ,
        said: 0,
        client: 10,
        observed: Vec::new(),
        is_read: tls,
        plaintext: None,
    };
    player.event(KernelEvent::Host(Host {
        unix_offset: 0,
        boot_id: "0123456789abcdef".into(),
        netns: None,
        addresses: Vec::new(),
    }));
    if !transcript.midstream {
        match role {
            Role::Client => {
                player.state(TcpState::Close, TcpState::SynSent);
                player.state(TcpState::SynSent, TcpState::Established);
            }
            Role::Server => player.state(TcpState::SynReceived, TcpState::Established),
        }
    }
    if tls {
        player.shake_hands();
    }
    for step in &transcript.steps {
        player.step(step);
    }
    player.plaintext = None;
    player.time += STEP;
    player.state(TcpState::LastAck, TcpState::Close);
    let end = Time(player.time + GRACE_PERIOD.as_nanos() as u64);
    player.settle(end);
    player
}

/// Positions when the connection is established.
const WRITTEN: u32 = 1000;
const READ: u32 = 5000;

struct Player {
    recorder: Option<Recorder>,
    dialogue: Box<Dialogue>,
    work: Box<Work>,
    observer: Observer,
    policy: RedactionPolicy,
    role: Role,
    cut: Cut,
    time: u64,
    written: u32,
    read: u32,
    /// Bytes of the dialogue so far.
    said: usize,
    /// The client's pid.
    client: u32,
    observed: Vec<Observation>,
    /// It has TLS, whose plaintext is read.
    is_read: bool,
    /// Inside of it: its positions.
    plaintext: Option<SeqNumbers>,
}

impl Player {
    /// TLS begins, of which nothing but lengths crosses.
    fn shake_hands(&mut self) {
        for (speaker, length) in [(Speaker::Client, 200), (Speaker::Server, 900), (Speaker::Client, 80)] {
            *self.position(speaker) += length;
            let (flow, mut segment) = (self.flow(speaker), vec![SegmentKind::Ciphertext as u8, 0, 0, 0]);
            segment.extend_from_slice(&length.to_ne_bytes());
            let said = Said::read(&segment).expect("a segment").to_static();
            self.moved(flow, length, false, said);
        }
        self.plaintext = Some(SeqNumbers { write_seq: 0, copied_seq: 0 });
    }

    fn flow(&self, speaker: Speaker) -> Flow {
        if self.sends(speaker) { Flow::Sent } else { Flow::Received }
    }

    fn moved(&mut self, flow: Flow, length: u32, continues: bool, said: Said<'static>) {
        let pid = if self.role == Role::Client { self.client } else { 20 };
        let tls = TlsSession {
            library: self.is_read.then_some(TlsLibrary::OpenSsl),
            plaintext: self.plaintext.is_some(),
            from_start: self.is_read,
        };
        self.event(KernelEvent::Transfer(TransferEvent {
            time: Time(self.time),
            task: task(pid),
            socket: self.socket(TcpState::Established),
            positions: self.positions(),
            flow,
            length,
            continues,
            tls,
            said,
        }));
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Wait(time) => self.wait(time.as_nanos() as u64),
            Step::ClientMoves => self.client += 1,
            Step::Gap(speaker, length) => {
                self.time += STEP;
                *self.position(*speaker) += length;
            }
            // No call that moves bytes.
            Step::Says(_, bytes) if bytes.is_empty() => {}
            Step::Says(speaker, bytes) => {
                self.time += STEP;
                let pieces: Vec<&[u8]> = match self.cut {
                    Cut::Whole => vec![bytes],
                    Cut::Every(size) => bytes.chunks(size).collect(),
                    Cut::Behind(place) if place > self.said && place < self.said + bytes.len() => {
                        let (before, behind) = bytes.split_at(place - self.said);
                        vec![before, behind]
                    }
                    Cut::Behind(_) => vec![bytes],
                };
                self.said += bytes.len();
                for piece in pieces {
                    self.transfer(*speaker, piece);
                }
            }
        }
    }

    /// Time passes; with small pieces the clock is read often, and with others not at all.
    fn wait(&mut self, time: u64) {
        let end = self.time + time;
        while matches!(self.cut, Cut::Every(_)) && self.time + 10 * STEP < end {
            self.time += 10 * STEP;
            self.settle(Time(self.time));
        }
        self.time = end;
    }

    fn sends(&self, speaker: Speaker) -> bool {
        (speaker == Speaker::Client) == (self.role == Role::Client)
    }

    fn position(&mut self, speaker: Speaker) -> &mut u32 {
        let sends = self.sends(speaker);
        match (&mut self.plaintext, sends) {
            (Some(positions), true) => &mut positions.write_seq,
            (Some(positions), false) => &mut positions.copied_seq,
            (None, true) => &mut self.written,
            (None, false) => &mut self.read,
        }
    }

    fn transfer(&mut self, speaker: Speaker, bytes: &[u8]) {
        let flow = self.flow(speaker);
        for (place, bytes) in bytes.chunks(WINDOW_LENGTH).enumerate() {
            let said = self.filter(speaker, bytes);
            let length = bytes.len() as u32;
            *self.position(speaker) += length;
            self.moved(flow, length, place > 0, said);
        }
    }

    /// What crosses of a call.
    fn filter(&mut self, speaker: Speaker, bytes: &[u8]) -> Said<'static> {
        let start = *self.position(speaker);
        let speaker = match speaker {
            Speaker::Client => protocol::Speaker::Client,
            Speaker::Server => protocol::Speaker::Server,
        };
        let length = bytes.len() as u32;
        let call = Call { speaker, time: self.time, start, length, positions: true, behind: false };
        let segments = protocol::pass(&mut self.dialogue, &mut self.work, call, bytes);
        Said::read(segments).expect("the filter writes segments").to_static()
    }

    fn state(&mut self, old: TcpState, new: TcpState) {
        let task = (new == TcpState::SynSent).then(|| task(self.client));
        let (time, socket, positions) = (Time(self.time), self.socket(old), self.positions());
        self.event(KernelEvent::State(StateEvent {
            time,
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

    fn event(&mut self, event: KernelEvent) {
        let tap = self.recorder.as_mut().map(|recorder| recorder as &mut dyn Tap);
        self.observer.event_tapped(event, &mut |fact| self.observed.push(Observation::of(fact, self.policy)), tap);
    }

    fn settle(&mut self, now: Time) {
        let tap = self.recorder.as_mut().map(|recorder| recorder as &mut dyn Tap);
        self.observer.settle_tapped(now, &mut |fact| self.observed.push(Observation::of(fact, self.policy)), tap);
    }

    fn positions(&self) -> SeqNumbers {
        self.plaintext.unwrap_or(SeqNumbers { write_seq: self.written, copied_seq: self.read })
    }

    fn socket(&self, state: TcpState) -> Socket {
        let client = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 40000));
        let server = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), 25));
        let (local, remote) = if self.role == Role::Client { (client, server) } else { (server, client) };
        Socket { cookie: 0xc0, netns: 7, local, remote, state, seq_unreliable: false }
    }
}

fn task(pid: u32) -> Task {
    let process = ProcessKey { pid, start_time: Time(1), exec_id: 1 };
    Task { process, tid: pid, uid: 0, user: None, comm: "program".into() }
}
