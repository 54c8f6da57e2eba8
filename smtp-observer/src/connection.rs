//! Connections: their two byte streams, gaps, owners and end.
//!
//! Every transfer carries the socket's stream positions after the call. What lies between the end of one transfer and
//! the start of the next was not seen, whatever the reason, and is known to the byte.

mod stream;
mod users;

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use self::stream::{Plaintext, Stream};
#[cfg(test)]
pub(crate) use self::users::MAX_TOLD;
pub(crate) use self::users::{Handover, Users};
use crate::event::{Flow, SeqNumbers, StateEvent, TcpState, Time, TransferEvent};
use crate::identity;
use crate::identity::{Endpoint, Role};
use crate::names::ClosedBy;

/// Most transfers held back because a send that came before them has not been seen.
const MAX_HELD: usize = 16;

/// What a connection is, without what is said on it.
pub struct Connection {
    /// As sinks show it.
    pub identity: Arc<identity::Connection>,
    /// When it was established; absent where that was not seen.
    pub opened: Option<Time>,
    /// When the first event came.
    pub first_seen: Time,
    /// When the last event came.
    pub last_seen: Time,
    /// Nanoseconds of the time when a snapshot read its socket, where that is how it became known.
    pub listed: Option<NonZero<u64>>,
    /// Nanoseconds of the time at which its last event had come, where the last snapshot found no process that holds it.
    pub missed: Option<NonZero<u64>>,
    /// The address the program asked for, where it is not the one it is connected to.
    pub requested: Option<Box<Endpoint>>,
    /// A client's: its host takes what it sends to the remote end for its own.
    pub local_route: bool,
    /// The processes that use it.
    pub(crate) users: Users,
    /// `connection.opened` has been said.
    pub announced: bool,
    /// A deadline of its judge is among those that settle.
    pub awaited: bool,
    /// Bytes whose content was not seen, of those that should have been.
    pub lost: u64,
    /// Its positions tell nothing: bytes that no hook saw are not known.
    pub seq_unreliable: bool,
    sent: Stream,
    received: Stream,
    /// The same of the plaintext, where the connection carries a TLS session that is read.
    plaintext: Option<Box<Plaintext>>,
    held: VecDeque<TransferEvent<'static>>,
}

impl Connection {
    /// A connection that `connect` just began, or that was just accepted, or whose first transfer was just seen.
    pub fn new(identity: identity::Connection, time: Time) -> Self {
        Self {
            identity: Arc::new(identity),
            opened: None,
            first_seen: time,
            last_seen: time,
            listed: None,
            missed: None,
            requested: None,
            local_route: false,
            users: Users::default(),
            announced: false,
            awaited: false,
            lost: 0,
            seq_unreliable: false,
            sent: Stream::default(),
            received: Stream::default(),
            plaintext: None,
            held: VecDeque::new(),
        }
    }

    /// Both ends agree: here the streams begin, unless TCP Fast Open has moved bytes before (RFC 7413).
    pub fn establish(&mut self, event: &StateEvent) {
        self.opened = Some(event.time);
        self.local_route = event.local_route;
        if !self.announced {
            self.first_seen = event.time;
        }
        if event.socket.seq_unreliable {
            self.seq_unreliable = true;
            return;
        }
        for (stream, next) in
            [(&mut self.sent, event.positions.write_seq), (&mut self.received, event.positions.copied_seq)]
        {
            stream.begin(stream.next().unwrap_or(next));
        }
    }

    /// It is known to be established.
    pub fn has_begun(&self) -> bool {
        self.opened.is_some() || self.listed.is_some()
    }

    /// Where its streams begin, if its beginning was seen and nothing has been said since.
    pub fn beginning(&self) -> Option<SeqNumbers> {
        let is_new = self.opened.is_some() && !self.seq_unreliable && self.sent.bytes == 0 && self.received.bytes == 0;
        let positions = SeqNumbers { write_seq: self.sent.next()?, copied_seq: self.received.next()? };
        is_new.then_some(positions)
    }

    /// It was found under way: from here on no byte is missed without its being known.
    pub fn join(&mut self, positions: SeqNumbers) {
        self.sent.begin(positions.write_seq);
        self.received.begin(positions.copied_seq);
    }

    /// Whether the transfer is to wait: it is not its turn.
    ///
    /// A send is told when it returns, and by then another thread may have read the answer: a receive whose socket
    /// has sent more than was seen is held until that send comes, and so is all that is received after it. Each
    /// transfer that had its turn may [`release`](Self::release) others.
    pub fn hold(&mut self, event: &TransferEvent) -> bool {
        self.last_seen = event.time;
        if self.is_outside(event) {
            return false;
        }
        let waits = event.flow == Flow::Received && (self.is_early(event) || !self.held.is_empty());
        if waits {
            self.held.push_back(event.to_static());
        }
        waits
    }

    /// The first transfer that is held, where too many wait: the send that they wait for is lost.
    pub fn release_surplus(&mut self) -> Option<TransferEvent<'static>> {
        if self.held.len() > MAX_HELD { self.held.pop_front() } else { None }
    }

    /// The next transfer that was held for a send which came before this one, and is therefore lost.
    pub fn release_before(&mut self, send: &TransferEvent) -> Option<TransferEvent<'static>> {
        let start = send.positions.write_seq.wrapping_sub(send.length);
        let before = start.wrapping_sub(self.held.front()?.positions.write_seq) as i32 >= 0;
        if send.flow == Flow::Sent && before { self.held.pop_front() } else { None }
    }

    /// The next transfer that was held and waits for nothing any more.
    pub fn release(&mut self) -> Option<TransferEvent<'static>> {
        let waits = self.is_early(self.held.front()?);
        if waits { None } else { self.held.pop_front() }
    }

    /// Whether a transfer is held.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// The next transfer that was held, at the end of the connection.
    pub fn drain_held(&mut self) -> Option<TransferEvent<'static>> {
        self.held.pop_front()
    }

    fn is_early(&self, event: &TransferEvent) -> bool {
        // What is not counted in positions cannot be put in order by them.
        !event.socket.seq_unreliable
            // A socket that is closed may have counted a FIN or not; nothing is sent on it any more.
            && event.socket.state != TcpState::Close
            && self.sent(event).next().is_some_and(|next| (event.positions.write_seq.wrapping_sub(next) as i32) > 0)
    }

    /// Accounts for a transfer: how many bytes of its direction, before it, no event tells of.
    pub fn advance(&mut self, event: &TransferEvent) -> u64 {
        self.seq_unreliable |= event.socket.seq_unreliable;
        if let Some(plaintext) = self.plaintext.as_deref_mut().filter(|_| event.tls.plaintext) {
            let (stream, end) = match event.flow {
                Flow::Sent => (&mut plaintext.sent, event.positions.write_seq),
                Flow::Received => (&mut plaintext.received, event.positions.copied_seq),
            };
            stream.wait(event);
            return stream.advance(end, event.length);
        }
        let stream = self.stream(event.flow);
        stream.wait(event);
        match event.flow {
            Flow::Sent if self.seq_unreliable => self.sent.grow(event.length),
            Flow::Received if self.seq_unreliable => self.received.grow(event.length),
            Flow::Sent => self.sent.advance(event.positions.write_seq, event.length),
            Flow::Received => self.received.advance(event.positions.copied_seq, event.length),
        }
    }

    /// Bytes that a transfer has moved and no segment has told of: they wait in the kernel.
    pub fn waiting(&mut self, flow: Flow) -> u64 {
        let stream = match (&self.plaintext, flow) {
            (Some(plaintext), Flow::Sent) => &plaintext.sent,
            (Some(plaintext), Flow::Received) => &plaintext.received,
            (None, _) => self.stream(flow),
        };
        stream.waiting.into()
    }

    /// Whether plaintext of a TLS session begins with this transfer, of which none was seen before, or another session's.
    pub fn begins_plaintext(&mut self, event: &TransferEvent) -> bool {
        if !event.tls.plaintext {
            return false;
        }
        let start = match event.flow {
            Flow::Sent => event.positions.write_seq,
            Flow::Received => event.positions.copied_seq,
        }
        .wrapping_sub(event.length);
        let known = self.plaintext.as_deref().map(|plaintext| match event.flow {
            Flow::Sent => &plaintext.sent,
            Flow::Received => &plaintext.received,
        });
        // Positions begin anew with a session.
        let goes_on = known.is_some_and(|stream| start != 0 || stream.next().is_none_or(|next| next == 0));
        if goes_on {
            return false;
        }
        let mut plaintext = Plaintext::default();
        if event.tls.from_start {
            plaintext.sent.begin(0);
            plaintext.received.begin(0);
        }
        self.plaintext = Some(Box::new(plaintext));
        true
    }

    /// Whether a transfer moved ciphertext whose plaintext is read.
    pub fn is_outside(&self, event: &TransferEvent) -> bool {
        self.plaintext.is_some() && !event.tls.plaintext
    }

    /// The connection carries a TLS session that is read.
    pub fn has_plaintext(&self) -> bool {
        self.plaintext.is_some()
    }

    fn sent(&self, event: &TransferEvent) -> &Stream {
        match &self.plaintext {
            Some(plaintext) if event.tls.plaintext => &plaintext.sent,
            _ => &self.sent,
        }
    }

    fn stream(&mut self, flow: Flow) -> &mut Stream {
        match flow {
            Flow::Sent => &mut self.sent,
            Flow::Received => &mut self.received,
        }
    }

    /// Whether transfers told of all that the socket moved up to its last positions.
    pub fn is_complete(&self, last: SeqNumbers) -> bool {
        self.seq_unreliable || self.sent.reaches(last.write_seq) && self.received.reaches(last.copied_seq)
    }

    /// How many bytes of one direction, up to the socket's last position, no transfer tells of.
    pub fn last_hole(&mut self, flow: Flow, last: SeqNumbers) -> u64 {
        match flow {
            _ if self.seq_unreliable => 0,
            Flow::Sent => self.sent.advance(last.write_seq, 0),
            Flow::Received => self.received.advance(last.copied_seq, 0),
        }
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

impl StateEvent {
    /// Where the streams of the connection that is over end, as far as its process can still read. What has come can be read
    /// after the end, unless that is the process's own doing: it has closed its socket with these bytes unread.
    pub(crate) fn readable_end(&self) -> SeqNumbers {
        let unread = match (self.socket.state, self.error) {
            (TcpState::Established | TcpState::CloseWait, 0) => 0,
            _ => self.unread,
        };
        SeqNumbers { copied_seq: self.positions.copied_seq.wrapping_add(unread), ..self.positions }
    }

    /// What ended the connection that is over. The state that its socket leaves tells whose FIN was the first, and without
    /// a FIN the error tells who has reset it: the kernel sets none for what its own process does.
    pub(crate) fn closed_by(&self) -> ClosedBy {
        // include/uapi/asm-generic/errno.h
        const ENETUNREACH: u32 = 101;
        const ECONNABORTED: u32 = 103;
        const ECONNRESET: u32 = 104;
        const ETIMEDOUT: u32 = 110;
        const EHOSTUNREACH: u32 = 113;
        match (self.socket.state, self.error) {
            _ if self.new != TcpState::Close || self.socket.seq_unreliable => ClosedBy::Unknown,
            (TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing, _) => ClosedBy::Local,
            (TcpState::CloseWait | TcpState::LastAck, _) => ClosedBy::Remote,
            // SO_LINGER, bytes left unread (RFC 2525, 2.17), or another process that has it ended (`ss --kill`).
            (TcpState::Established, 0 | ECONNABORTED) => ClosedBy::ResetSent,
            (TcpState::Established, ECONNRESET) => ClosedBy::ResetReceived,
            // The last thing heard of an address that does not answer may be that it is out of reach (ICMP).
            (TcpState::Established, ETIMEDOUT | EHOSTUNREACH | ENETUNREACH) => ClosedBy::Timeout,
            _ => ClosedBy::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::event::{ProcessKey, Said, SeqNumbers, Socket, Task};

    fn socket() -> Socket {
        Socket {
            cookie: 1,
            netns: 1,
            local: SocketAddr::from((Ipv4Addr::LOCALHOST, 40000)),
            remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 25)),
            state: TcpState::SynSent,
            seq_unreliable: false,
        }
    }

    /// Established with both streams at these positions.
    fn established(write_seq: u32, copied_seq: u32) -> Connection {
        let end = |port| Endpoint { address: Ipv4Addr::LOCALHOST.into(), port };
        let (local, remote) = (end(40000), end(25));
        let identity = identity::Connection { id: "1".into(), role: Role::Client, local, remote, netns: 1, cookie: 1 };
        let mut connection = Connection::new(identity, Time(0));
        connection.establish(&StateEvent {
            time: Time(1),
            task: None,
            socket: socket(),
            positions: SeqNumbers { write_seq, copied_seq },
            new: TcpState::Established,
            requested: None,
            peer: None,
            transparent: false,
            local_route: false,
            error: 0,
            unread: 0,
        });
        connection
    }

    fn transfer(flow: Flow, text: &'static str, write_seq: u32, copied_seq: u32) -> TransferEvent<'static> {
        TransferEvent {
            time: Time(2),
            task: Task {
                process: ProcessKey { pid: 1, start_time: Time(0), exec_id: 0 },
                tid: 1,
                uid: 0,
                user: None,
                comm: "swaks".into(),
            },
            socket: socket(),
            positions: SeqNumbers { write_seq, copied_seq },
            flow,
            length: text.len() as u32,
            continues: false,
            tls: Default::default(),
            said: Said::text(text.as_bytes()),
        }
    }

    /// What has its turn with this event.
    fn reorder(connection: &mut Connection, event: TransferEvent<'static>) -> Vec<TransferEvent<'static>> {
        let mut turns = Vec::new();
        let turn = if connection.hold(&event) { connection.release_surplus() } else { Some(event) };
        if let Some(event) = turn {
            connection.advance(&event);
            turns.push(event);
            while let Some(held) = connection.release() {
                turns.push(held);
            }
        }
        turns
    }

    #[test]
    fn what_comes_first_has_closed_it() {
        let closed_by = |state, error| {
            let positions = SeqNumbers { write_seq: 0, copied_seq: 0 };
            let socket = Socket { state, ..socket() };
            let (time, new) = (Time(1), TcpState::Close);
            let event = StateEvent {
                time,
                task: None,
                socket,
                positions,
                new,
                requested: None,
                peer: None,
                transparent: false,
                local_route: false,
                error,
                unread: 0,
            };
            event.closed_by()
        };
        assert_eq!(closed_by(TcpState::FinWait2, 0), ClosedBy::Local);
        assert_eq!(closed_by(TcpState::FinWait1, 104), ClosedBy::Local, "a reset answers the FIN");
        assert_eq!(closed_by(TcpState::LastAck, 0), ClosedBy::Remote);
        assert_eq!(closed_by(TcpState::CloseWait, 32), ClosedBy::Remote, "EPIPE");
        assert_eq!(closed_by(TcpState::Established, 0), ClosedBy::ResetSent);
        assert_eq!(closed_by(TcpState::Established, 104), ClosedBy::ResetReceived);
        assert_eq!(closed_by(TcpState::Established, 110), ClosedBy::Timeout);
        assert_eq!(closed_by(TcpState::Established, 5), ClosedBy::Unknown);
        assert_eq!(closed_by(TcpState::SynReceived, 0), ClosedBy::Unknown);
    }

    #[test]
    fn a_hole_is_known_to_the_byte() {
        let mut connection = established(100, 500);
        assert_eq!(connection.advance(&transfer(Flow::Sent, "NOOP\r\n", 106, 500)), 0);
        // 1,000 bytes went by a path without a hook.
        assert_eq!(connection.advance(&transfer(Flow::Sent, "QUIT\r\n", 1112, 500)), 1000);
        assert_eq!(connection.bytes_sent(), 1012);
    }

    #[test]
    fn the_last_hole_reaches_to_the_sockets_end() {
        let mut connection = established(u32::MAX - 2, 500);
        assert_eq!(connection.advance(&transfer(Flow::Sent, "QUIT\r\n", 3, 500)), 0);
        let last = SeqNumbers { write_seq: 13, copied_seq: 500 };
        assert_eq!(connection.last_hole(Flow::Sent, last), 10);
        assert_eq!(connection.last_hole(Flow::Received, last), 0);
        assert_eq!((connection.bytes_sent(), connection.bytes_received()), (16, 0));
    }

    #[test]
    fn a_stream_whose_start_is_not_known_has_no_hole() {
        let end = |port| Endpoint { address: Ipv4Addr::LOCALHOST.into(), port };
        let (local, remote) = (end(40000), end(25));
        let identity = identity::Connection { id: "1".into(), role: Role::Client, local, remote, netns: 1, cookie: 1 };
        let mut connection = Connection::new(identity, Time(0));
        assert_eq!(connection.last_hole(Flow::Sent, SeqNumbers { write_seq: 900, copied_seq: 900 }), 0);
        assert_eq!(connection.bytes_sent(), 0);
    }

    #[test]
    fn calls_told_in_the_wrong_order_leave_no_hole() {
        let mut connection = established(0, 0);
        // Two threads sent six bytes each; the second was told first, and its six bytes before with it.
        assert_eq!(connection.advance(&transfer(Flow::Sent, "QUIT\r\n", 12, 0)), 6);
        assert_eq!(connection.advance(&transfer(Flow::Sent, "NOOP\r\n", 6, 0)), 0);
        assert_eq!(connection.last_hole(Flow::Sent, SeqNumbers { write_seq: 12, copied_seq: 0 }), 0);
    }

    #[test]
    fn positions_wrap() {
        let mut connection = established(u32::MAX - 2, 0);
        assert_eq!(connection.advance(&transfer(Flow::Sent, "NOOP\r\n", 3, 0)), 0);
        assert_eq!(connection.advance(&transfer(Flow::Sent, "QUIT\r\n", 9, 0)), 0);
    }

    #[test]
    fn an_answer_waits_for_its_command() {
        let mut connection = established(0, 0);
        // Another thread reads the answer before the sender's call returns.
        let answer = transfer(Flow::Received, "250 ok\r\n", 6, 8);
        assert_eq!(reorder(&mut connection, answer.clone()), []);
        let command = transfer(Flow::Sent, "NOOP\r\n", 6, 8);
        let ready = reorder(&mut connection, command.clone());
        assert_eq!(ready, [command, answer]);
    }

    #[test]
    fn a_command_comes_before_its_answer_though_the_answer_before_is_lost() {
        let mut connection = established(0, 0);
        // An answer of six bytes was lost, so the next command seems to be early.
        let command = transfer(Flow::Received, "NOOP\r\n", 6, 12);
        assert_eq!(reorder(&mut connection, command.clone()), []);
        let answer = transfer(Flow::Sent, "250 \r\n", 12, 12);
        assert!(!connection.hold(&answer), "a send never waits");
        assert_eq!(connection.release_before(&answer), Some(command));
        assert_eq!(connection.release_before(&answer), None);
    }

    #[test]
    fn what_waits_in_vain_comes_in_the_end() {
        let mut connection = established(0, 0);
        let answer = transfer(Flow::Received, "250 ok\r\n", 6, 8);
        assert_eq!(reorder(&mut connection, answer.clone()), []);
        assert_eq!(connection.drain_held(), Some(answer));
    }

    #[test]
    fn no_more_waits_than_the_bound() {
        let mut connection = established(0, 0);
        let mut seen = 0;
        for read in 1..=100 {
            seen += reorder(&mut connection, transfer(Flow::Received, "x", 6, read)).len();
        }
        assert!(connection.held.len() <= MAX_HELD);
        while connection.drain_held().is_some() {
            seen += 1;
        }
        assert_eq!(seen, 100);
    }
}
