//! Connections: their two byte streams, gaps, owners and end.
//!
//! Every transfer carries the socket's stream positions after the call. What lies between the end of one transfer and
//! the start of the next was not seen, whatever the reason, and is known to the byte.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Flow, StateEvent, TcpState, Time, TransferEvent};
use crate::observation::{self, Caller, Endpoint, Role};

/// Most transfers held back because a send that came before them has not been seen.
const MAX_HELD: usize = 16;

/// A piece of one direction of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes.
    Bytes(&'a [u8]),
    /// So many bytes that no event tells of.
    Hole(u64),
    /// So many bytes of the event's call whose content is not in it.
    Missing(u64),
}

/// What a connection is, without what is said on it.
pub struct Connection {
    /// As faces show it.
    pub identity: Arc<observation::Connection>,
    /// When it was established; absent where that was not seen.
    pub opened: Option<Time>,
    /// When the first event came.
    pub first_seen: Time,
    /// When the last event came.
    pub last_seen: Time,
    /// The address the program asked for, where it is not the one it is connected to.
    pub requested: Option<Endpoint>,
    /// The process that used it last.
    pub owner: Option<Caller>,
    /// `connection.opened` has been said.
    pub announced: bool,
    /// Bytes whose content was not seen, of those that should have been.
    pub lost: u64,
    sent: Stream,
    received: Stream,
    held: VecDeque<TransferEvent>,
}

/// One direction.
#[derive(Default)]
struct Stream {
    /// The sequence number after the last byte that is accounted for.
    next: Option<u32>,
    bytes: u64,
}

impl Stream {
    /// Accounts for a transfer that ended at `end`: how many bytes before it were not seen.
    fn advance(&mut self, end: u32, length: u32) -> u64 {
        let start = end.wrapping_sub(length);
        // A start before the end of what is known comes of two threads in one call each; there is no hole then.
        let hole = self.next.map_or(0, |next| start.wrapping_sub(next) as i32).max(0).unsigned_abs();
        self.next = Some(end);
        self.bytes += u64::from(hole) + u64::from(length);
        hole.into()
    }
}

impl Connection {
    /// A connection that `connect` just began, or that was just accepted, or whose first transfer was just seen.
    pub fn new(identity: observation::Connection, time: Time) -> Self {
        Self {
            identity: Arc::new(identity),
            opened: None,
            first_seen: time,
            last_seen: time,
            requested: None,
            owner: None,
            announced: false,
            lost: 0,
            sent: Stream::default(),
            received: Stream::default(),
            held: VecDeque::new(),
        }
    }

    /// Both ends agree: here the streams begin.
    pub fn establish(&mut self, event: &StateEvent) {
        self.opened = Some(event.time);
        self.first_seen = event.time;
        self.sent.next = Some(event.positions.written);
        self.received.next = Some(event.positions.read);
    }

    /// The transfers that may be looked at now, in their order.
    ///
    /// A send is told when it returns, and by then another thread may have read the answer: a receive whose socket
    /// has sent more than was seen waits for that send.
    pub fn in_order(&mut self, event: TransferEvent) -> Vec<TransferEvent> {
        self.last_seen = event.time;
        if self.is_early(&event) && self.held.len() < MAX_HELD {
            self.held.push_back(event);
            return Vec::new();
        }
        let mut ready = vec![event];
        if !self.held.is_empty() {
            if ready[0].flow == Flow::Sent {
                // A copy of what `pieces` will do, to know what the send settles.
                let written = ready[0].positions.written;
                let settled = |held: &TransferEvent| (written.wrapping_sub(held.positions.written) as i32) >= 0;
                while self.held.front().is_some_and(settled) {
                    ready.extend(self.held.pop_front());
                }
            } else {
                let last = ready.pop();
                ready.extend(self.held.drain(..));
                ready.extend(last);
            }
        }
        ready
    }

    /// What was held back to the end.
    pub fn take_held(&mut self) -> Vec<TransferEvent> {
        self.held.drain(..).collect()
    }

    fn is_early(&self, event: &TransferEvent) -> bool {
        let unseen = |next: u32| (event.positions.written.wrapping_sub(next) as i32) > 0;
        // A socket that is closed may have counted a FIN or not; nothing is sent on it any more.
        let open = event.socket.state != TcpState::Close;
        event.flow == Flow::Received && open && (self.sent.next.is_some_and(unseen) || !self.held.is_empty())
    }

    /// The bytes and gaps that a transfer adds to its direction. A peek adds nothing.
    pub fn pieces<'a>(&mut self, event: &'a TransferEvent) -> Vec<Piece<'a>> {
        if event.peek {
            return Vec::new();
        }
        let (stream, end) = match event.flow {
            Flow::Sent => (&mut self.sent, event.positions.written),
            Flow::Received => (&mut self.received, event.positions.read),
        };
        let hole = stream.advance(end, event.length);
        let missing = event.missing();
        [Piece::Hole(hole), Piece::Bytes(&event.head), Piece::Missing(missing), Piece::Bytes(&event.tail)]
            .into_iter()
            .filter(|piece| !matches!(piece, Piece::Hole(0) | Piece::Missing(0) | Piece::Bytes([])))
            .collect()
    }

    /// Bytes that its processes sent, seen or not.
    pub fn bytes_sent(&self) -> u64 {
        self.sent.bytes
    }

    /// Bytes that its processes received, seen or not.
    pub fn bytes_received(&self) -> u64 {
        self.received.bytes
    }

    /// How long it has been known at `time`.
    pub fn age(&self, time: Time) -> Duration {
        time.since(self.first_seen)
    }

    /// What its socket did to get it.
    pub fn role(&self) -> Role {
        self.identity.role
    }
}

impl TransferEvent {
    /// Bytes of the call that are not in the event.
    pub fn missing(&self) -> u64 {
        u64::from(self.length).saturating_sub((self.head.len() + self.tail.len()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use bytes::Bytes;

    use super::*;
    use crate::event::{Positions, ProcessKey, Socket, Task, Unseen};

    fn socket() -> Socket {
        Socket {
            cookie: 1,
            netns: 1,
            local: SocketAddr::from((Ipv4Addr::LOCALHOST, 40000)),
            remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 25)),
            state: TcpState::SynSent,
        }
    }

    /// Established with both streams at these positions.
    fn established(written: u32, read: u32) -> Connection {
        let end = |port| Endpoint { address: Ipv4Addr::LOCALHOST.into(), port };
        let (local, remote) = (end(40000), end(25));
        let identity = observation::Connection { id: "1".into(), role: Role::Client, local, remote, netns: 1 };
        let mut connection = Connection::new(identity, Time(0));
        connection.establish(&StateEvent {
            time: Time(1),
            task: None,
            socket: socket(),
            positions: Positions { written, read },
            new: TcpState::Established,
            requested: None,
        });
        connection
    }

    fn transfer(flow: Flow, text: &'static str, written: u32, read: u32) -> TransferEvent {
        TransferEvent {
            time: Time(2),
            task: Task {
                process: ProcessKey { pid: 1, start_time: Time(0), exec_id: 0 },
                tid: 1,
                uid: 0,
                comm: "swaks".into(),
            },
            socket: socket(),
            positions: Positions { written, read },
            flow,
            length: text.len() as u32,
            peek: false,
            head: Bytes::from_static(text.as_bytes()),
            tail: Bytes::new(),
            unseen: Unseen::None,
        }
    }

    #[test]
    fn a_hole_is_known_to_the_byte() {
        let mut connection = established(100, 500);
        assert_eq!(connection.pieces(&transfer(Flow::Sent, "NOOP\r\n", 106, 500)), [Piece::Bytes(b"NOOP\r\n")]);
        // 1,000 bytes went by a path without a hook.
        let quit = transfer(Flow::Sent, "QUIT\r\n", 1112, 500);
        assert_eq!(connection.pieces(&quit), [Piece::Hole(1000), Piece::Bytes(b"QUIT\r\n")]);
        assert_eq!(connection.bytes_sent(), 1012);
    }

    #[test]
    fn positions_wrap() {
        let mut connection = established(u32::MAX - 2, 0);
        assert_eq!(connection.pieces(&transfer(Flow::Sent, "NOOP\r\n", 3, 0)), [Piece::Bytes(b"NOOP\r\n")]);
        assert_eq!(connection.pieces(&transfer(Flow::Sent, "QUIT\r\n", 9, 0)), [Piece::Bytes(b"QUIT\r\n")]);
    }

    #[test]
    fn the_middle_of_a_long_call_is_a_gap() {
        let mut connection = established(0, 0);
        let mut long = transfer(Flow::Sent, "head", 1000, 0);
        long.length = 1000;
        long.tail = Bytes::from_static(b"tail");
        assert_eq!(connection.pieces(&long), [Piece::Bytes(b"head"), Piece::Missing(992), Piece::Bytes(b"tail")]);
    }

    #[test]
    fn a_peek_is_not_counted() {
        let mut connection = established(0, 0);
        let mut peek = transfer(Flow::Received, "220 x\r\n", 0, 0);
        peek.peek = true;
        assert_eq!(connection.pieces(&peek), []);
        assert_eq!(connection.pieces(&transfer(Flow::Received, "220 x\r\n", 0, 7)), [Piece::Bytes(b"220 x\r\n")]);
        assert_eq!(connection.bytes_received(), 7);
    }

    #[test]
    fn an_answer_waits_for_its_command() {
        let mut connection = established(0, 0);
        // Another thread reads the answer before the sender's call returns.
        let answer = transfer(Flow::Received, "250 ok\r\n", 6, 8);
        assert_eq!(connection.in_order(answer.clone()), []);
        let command = transfer(Flow::Sent, "NOOP\r\n", 6, 8);
        let ready = connection.in_order(command.clone());
        assert_eq!(ready, [command, answer]);
    }

    #[test]
    fn what_waits_in_vain_comes_in_the_end() {
        let mut connection = established(0, 0);
        let answer = transfer(Flow::Received, "250 ok\r\n", 6, 8);
        assert_eq!(connection.in_order(answer.clone()), []);
        assert_eq!(connection.take_held(), [answer]);
    }

    #[test]
    fn no_more_waits_than_the_bound() {
        let mut connection = established(0, 0);
        let mut seen = 0;
        for read in 1..=100 {
            seen += connection.in_order(transfer(Flow::Received, "x", 6, read)).len();
        }
        seen += connection.take_held().len();
        assert_eq!(seen, 100);
    }
}
