//! Connections: their two byte streams, gaps, owners and end.
//!
//! Every transfer carries the socket's stream positions after the call. What lies between the end of one transfer and
//! the start of the next was not seen, whatever the reason, and is known to the byte.

mod stream;
#[cfg(test)]
mod tests;
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

    /// Whether the other direction has moved bytes before this transfer that no event tells of.
    pub fn is_behind(&self, event: &TransferEvent) -> bool {
        let (sent, received) = match &self.plaintext {
            Some(plaintext) if event.tls.plaintext => (&plaintext.sent, &plaintext.received),
            _ => (&self.sent, &self.received),
        };
        let is_told = match event.flow {
            Flow::Sent => received.reaches(event.positions.copied_seq),
            Flow::Received => sent.reaches(event.positions.write_seq),
        };
        !is_told && !event.socket.seq_unreliable && event.socket.state != TcpState::Close
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
