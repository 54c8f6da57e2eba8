//! Connections without a watched port whose first word is a greeting: a process that has accepted one has connected to a mail
//! server before it said that.

use std::collections::VecDeque;

use super::Out;
use super::ends::{Ends, OtherEnd, mirrored};
use super::tracker::{Conversation, Tracker, accepted};
use crate::event::{Socket, StateEvent, TransferEvent};
use crate::observation::Role;
use crate::smtp::Session;

/// Most of them.
const MAX_PAIRS: usize = 256;

/// Most clients that have heard a greeting before it was told who has said it.
const MAX_EARLY: usize = 64;

/// Most transfers that are held for one of those.
const MAX_HELD: usize = 16;

/// What the kernel side tells of such connections before their first transfers.
#[derive(Default)]
pub(super) struct Expected {
    /// Those of which an end is still to be heard of.
    pairs: VecDeque<Pair>,
    /// A call that sends is told when it returns: by then its reader may be told of already. Whether it is of interest is
    /// known with the sender.
    early: VecDeque<Early>,
}

/// An accepted socket, and its client.
struct Pair {
    accepted: StateEvent,
    /// The ends that are still to be heard of: each begins once.
    awaited: Vec<u64>,
}

/// A client that may be of interest.
struct Early {
    cookie: u64,
    held: Vec<TransferEvent<'static>>,
}

impl Expected {
    /// Whether the transfer is to wait for its connection's other end.
    pub(super) fn hold(&mut self, event: &TransferEvent) -> bool {
        let Some(early) = self.early.iter_mut().find(|early| early.cookie == event.socket.cookie) else {
            return false;
        };
        if early.held.len() < MAX_HELD {
            early.held.push(event.to_static());
        }
        true
    }

    fn wait_for_other_end(&mut self, cookie: u64) {
        if self.early.len() >= MAX_EARLY {
            self.early.pop_front();
        }
        self.early.push_back(Early { cookie, held: Vec::new() });
    }

    /// What was held of this client.
    fn release(&mut self, cookie: u64) -> Vec<TransferEvent<'static>> {
        let place = self.early.iter().position(|early| early.cookie == cookie);
        place.and_then(|place| self.early.remove(place)).map(|early| early.held).unwrap_or_default()
    }
}

impl Tracker {
    /// An accepted socket is a proxy's, or a client may be one's.
    pub(super) fn expect(&mut self, event: StateEvent, out: &mut Out<'_>) {
        let cookie = event.socket.cookie;
        let is_known = |pair: &Pair| pair.accepted.socket.cookie == cookie || pair.accepted.peer == Some(cookie);
        if self.expected.pairs.iter().any(is_known) || self.conversations.contains_key(&cookie) {
            return;
        }
        let Some(client) = event.peer else { return self.expected.wait_for_other_end(cookie) };
        if self.expected.pairs.len() >= MAX_PAIRS {
            self.expected.pairs.pop_front();
        }
        out.interceptions.expect(client, accepted(&self.host, &event));
        self.expected.pairs.push_back(Pair { accepted: event, awaited: vec![cookie, client] });
        for held in self.expected.release(client) {
            self.transfer(&held, out);
        }
    }

    /// The conversation on a socket that was expected: it is heard from its first byte.
    pub(super) fn expected(&mut self, socket: &Socket) -> Option<Box<Conversation>> {
        let place = self.expected.pairs.iter().position(|pair| pair.awaited.contains(&socket.cookie))?;
        let pair = self.expected.pairs.get_mut(place)?;
        pair.awaited.retain(|awaited| *awaited != socket.cookie);
        let event = match pair.awaited.is_empty() {
            true => self.expected.pairs.remove(place)?.accepted,
            false => pair.accepted.clone(),
        };
        let accepted = event.socket.cookie == socket.cookie;
        let role = if accepted { Role::Server } else { Role::Client };
        let mut conversation = self.begin(socket, role, event.time, Session::new());
        let positions = if accepted { event.positions } else { mirrored(event.positions) };
        let other_end = if accepted { event.peer } else { Some(event.socket.cookie) };
        conversation.other_end = other_end.filter(|_| !event.socket.seq_unreliable).map(|other| {
            // Of two ends the first that is heard of begins.
            let begins = !self.conversations.contains_key(&other);
            OtherEnd::new(other, begins.then(|| Ends::beginning(mirrored(event.positions))))
        });
        conversation.connection.establish(&StateEvent { positions, ..event });
        Some(conversation)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::super::tests::{CLIENT, OTHER, Story, task};
    use crate::event::{Flow, KernelEvent, Said, SeqNumbers, Socket, StateEvent, TcpState, Time, TransferEvent};
    use crate::observation::Role;

    const ACCEPTED: u64 = 0xa;
    const ASKED: u64 = 0xc;

    fn end(cookie: u64) -> Socket {
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (local, remote) = if cookie == ACCEPTED { (10025, 40000) } else { (40000, 10025) };
        let (local, remote) = (address(local), address(remote));
        Socket { cookie, netns: 7, local, remote, state: TcpState::Established, seq_unreliable: false }
    }

    fn pair(cookie: u64, peer: Option<u64>) -> KernelEvent<'static> {
        KernelEvent::State(StateEvent {
            time: Time(1000),
            task: None,
            socket: end(cookie),
            positions: SeqNumbers { write_seq: 100, copied_seq: 500 },
            new: TcpState::Established,
            requested: None,
            peer,
            transparent: false,
            local_route: false,
            error: 0,
            unread: 0,
        })
    }

    fn greeting(cookie: u64) -> KernelEvent<'static> {
        const GREETING: &[u8] = b"220 proxy.example ESMTP\r\n";
        let length = GREETING.len() as u32;
        let (who, flow, positions) = match cookie {
            ACCEPTED => (OTHER, Flow::Sent, SeqNumbers { write_seq: 100 + length, copied_seq: 500 }),
            _ => (CLIENT, Flow::Received, SeqNumbers { write_seq: 500, copied_seq: 100 + length }),
        };
        KernelEvent::Transfer(TransferEvent {
            time: Time(2000),
            task: task(who),
            socket: end(cookie),
            positions,
            flow,
            length,
            continues: false,
            tls: Default::default(),
            said: Said::text(GREETING),
        })
    }

    fn roles(story: &Story) -> Vec<(&'static str, Role)> {
        let told = story.names();
        assert_eq!(told, ["connection.opened", "smtp.greeting", "connection.opened", "smtp.greeting"]);
        let greetings = story.told.iter().skip(1).step_by(2);
        greetings.map(|observation| ("smtp.greeting", observation.connection.role)).collect()
    }

    #[test]
    fn a_greeting_that_is_read_before_its_sender_is_told_of_waits_for_it() {
        let mut story = Story::new();
        for event in [pair(ASKED, None), greeting(ASKED)] {
            story.event(event);
        }
        assert_eq!(story.names(), [""; 0]);
        for event in [pair(ACCEPTED, Some(ASKED)), greeting(ACCEPTED)] {
            story.event(event);
        }
        assert_eq!(roles(&story), [("smtp.greeting", Role::Client), ("smtp.greeting", Role::Server)]);
    }

    /// What is read of a socket whose connection is over, and told, is none of a new one.
    #[test]
    fn an_end_begins_once() {
        let mut story = Story::new();
        for event in [pair(ACCEPTED, Some(ASKED)), greeting(ACCEPTED), greeting(ASKED)] {
            story.event(event);
        }
        for cookie in [ASKED, ACCEPTED] {
            let KernelEvent::State(state) = pair(cookie, None) else { unreachable!("it is one") };
            story.event(KernelEvent::State(StateEvent { new: TcpState::Close, time: Time(3000), ..state }));
            let KernelEvent::Transfer(late) = greeting(cookie) else { unreachable!("it is one") };
            let socket = Socket { state: TcpState::Close, ..late.socket };
            story.event(KernelEvent::Transfer(TransferEvent { socket, time: Time(4000), ..late }));
        }
        story.time = 1_000_000_000_000;
        story.settle();
        assert_eq!(story.names().iter().filter(|name| **name == "connection.opened").count(), 2);
    }

    #[test]
    fn a_greeting_that_is_told_of_in_turn_does_not_wait() {
        let mut story = Story::new();
        for event in [pair(ACCEPTED, Some(ASKED)), greeting(ACCEPTED), pair(ASKED, None), greeting(ASKED)] {
            story.event(event);
        }
        assert_eq!(roles(&story), [("smtp.greeting", Role::Server), ("smtp.greeting", Role::Client)]);
    }
}
