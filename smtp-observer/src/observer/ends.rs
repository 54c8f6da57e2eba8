//! The two ends of one connection on this host: what one is seen to send, the other is to be seen to receive.
//!
//! A buffer that is rewritten between the kernel's copy and the hook's shows other bytes than were moved, and the end shows it
//! no trace of that: its lengths and positions are right. The other end's bytes tell.
//!
//! What is not certain is not compared. Each end is followed from the connection's first byte on. Its place in a stream is known
//! as long as its transfers follow each other without a gap, and without two threads in one direction at a time; behind
//! that, behind TLS, and where positions tell nothing, no more is compared of the direction. Of the rest, lines that
//! cross at both ends are: of the client's all bytes, of the server's the code and the length, which a recording has of a
//! reply whatever else it keeps of it.

use std::collections::VecDeque;
use std::fmt;

use memchr::memchr;

use super::Out;
use super::tracker::{Conversation, Tracker};
use crate::event::{Flow, LineEnd, Segment, SeqNumbers, StateEvent, Time, TransferEvent};
use crate::fact::What;
use crate::observation::{AnomalyKind, Role};
use crate::smtp::{Peer, Verb};

/// Most lines of one direction that wait until the other end shows them; the oldest make room for others.
const MAX_LINES: usize = 64;

/// A polynomial of a line's bytes: it grows with the line, wherever that is cut, by a word at a time.
mod polynomial {
    /// Any odd number: that of Fibonacci hashing.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The weights of a word's bytes, the last of which has 1, and that of what is before it.
    const WEIGHTS: [u64; 8] = [power(7), power(6), power(5), power(4), power(3), power(2), power(1), power(0)];
    const BEFORE: u64 = power(8);

    const fn power(exponent: u32) -> u64 {
        FACTOR.wrapping_pow(exponent)
    }

    /// The value with more bytes behind it.
    pub(super) fn grow(value: u64, bytes: &[u8]) -> u64 {
        let (words, rest) = bytes.as_chunks::<8>();
        let value = words.iter().fold(value, |value, word| {
            let sum = |sum: u64, (byte, weight): (&u8, u64)| sum.wrapping_add(u64::from(*byte).wrapping_mul(weight));
            word.iter().zip(WEIGHTS).fold(value.wrapping_mul(BEFORE), sum)
        });
        rest.iter().fold(value, |value, byte| value.wrapping_mul(FACTOR).wrapping_add(u64::from(*byte)))
    }
}

/// The longest verb has 14 bytes; what is behind it shows where it ends.
const HEAD: usize = 16;

/// What a conversation has of the other end of its connection.
#[derive(Debug)]
pub(super) struct OtherEnd {
    /// The cookie of its socket.
    cookie: u64,
    /// What is compared: one of the two has it.
    ends: Option<Box<Ends>>,
}

/// A connection whose two ends are followed.
#[derive(Debug)]
pub(super) struct Ends {
    /// Who calls at the client's end, and at the server's.
    callers: [Callers; 2],
    /// What the client says, and what the server says; absent where no more of it is compared.
    directions: [Option<Direction>; 2],
}

/// What one end is seen to send and the other to receive.
#[derive(Debug)]
struct Direction {
    sent: Stream,
    received: Stream,
}

/// One direction at one end.
#[derive(Debug)]
struct Stream {
    /// The sequence number of the next byte.
    next: u32,
    /// Bytes that were moved, that segments tell of, and up to which the one is known to be the other.
    moved: u64,
    told: u64,
    agreed: u64,
    line: State,
    lines: VecDeque<Line>,
}

/// Where in a line the next byte is.
#[derive(Clone, Copy, Debug)]
enum State {
    Start,
    In(Line),
    /// In one whose beginning did not cross.
    Unknown,
}

/// A line, as far as it crossed.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// How many bytes are before it.
    at: u64,
    length: u32,
    hash: u64,
    /// Its first bytes.
    head: [u8; HEAD],
    /// Its end has crossed; else what is behind did not.
    is_whole: bool,
}

/// Who moves bytes at one end.
#[derive(Debug, Default)]
struct Callers {
    /// Of the last call that sent, and of the last that received.
    last: [Option<Call>; 2],
    newest: Option<Flow>,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    tid: u32,
    time: Time,
}

/// The two ends show other bytes at one place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disagreement {
    speaker: Peer,
    sent: Line,
    received: Line,
}

impl Tracker {
    /// The other end of this accepted socket's connection is a client here: they are compared if both begin now.
    pub(super) fn join_ends(&mut self, event: &StateEvent) {
        let cookie = event.socket.cookie;
        let Some(peer) = event.peer.filter(|_| !event.socket.seq_unreliable) else { return };
        let Some(client) = self.conversations.get_mut(&peer) else { return };
        let accepted = mirrored(event.positions);
        if client.connection.role() != Role::Client || client.connection.beginning() != Some(accepted) {
            return;
        }
        client.other_end = Some(OtherEnd::new(cookie, None));
        if let Some(server) = self.conversations.get_mut(&cookie) {
            server.other_end = Some(OtherEnd::new(peer, Some(Ends::beginning(accepted))));
        }
    }

    /// Compares what a transfer shows with what the other end has shown.
    pub(super) fn compare_ends(
        &mut self,
        conversation: &mut Conversation,
        event: &TransferEvent,
    ) -> Option<Disagreement> {
        let other_end = conversation.other_end.as_mut()?;
        let place = match other_end.ends {
            Some(_) => Some(&mut other_end.ends),
            None => self.other_end(other_end.cookie, event.socket.cookie).map(|other| &mut other.ends),
        };
        let Some((place, mut ends)) = place.and_then(|place| place.take().map(|ends| (place, ends))) else {
            conversation.other_end = None;
            return None;
        };
        let speaker = match (conversation.connection.role(), event.flow) {
            (Role::Client, Flow::Sent) | (Role::Server, Flow::Received) => Peer::Client,
            (Role::Client, Flow::Received) | (Role::Server, Flow::Sent) => Peer::Server,
        };
        let found = ends.take(speaker, event);
        // Where nothing is left to compare, both ends forget each other with their next transfers.
        *place = ends.directions.iter().any(Option::is_some).then_some(ends);
        found
    }

    /// Says at both ends that they disagree: it is not known which of them shows what was moved.
    pub(super) fn tell_ends_disagree(
        &self,
        conversation: &Conversation,
        time: Time,
        disagreement: Disagreement,
        out: &mut Out<'_>,
    ) {
        let detail = disagreement.to_string();
        let anomaly = What::Anomaly { kind: AnomalyKind::EndsDisagree, detail: &detail };
        out.tell(&conversation.connection.fact(&self.host, time, anomaly));
        let cookie = conversation.connection.identity.cookie;
        let other = conversation.other_end.as_ref().and_then(|other| self.conversations.get(&other.cookie));
        if let Some(other) = other
            && other.connection.announced
            && other.other_end.as_ref().is_some_and(|end| end.cookie == cookie)
        {
            out.tell(&other.connection.fact(&self.host, time, anomaly));
        }
    }

    /// A conversation is over: what is known of both ends stays with the other.
    pub(super) fn part_ends(&mut self, conversation: &mut Conversation) {
        let cookie = conversation.connection.identity.cookie;
        let Some(this) = conversation.other_end.take() else { return };
        if let Some(other) = self.other_end(this.cookie, cookie)
            && this.ends.is_some()
        {
            other.ends = this.ends;
        }
    }

    /// What the end at one cookie has of its other end, if that is the one at `this`.
    fn other_end(&mut self, cookie: u64, this: u64) -> Option<&mut OtherEnd> {
        let other = self.conversations.get_mut(&cookie)?.other_end.as_deref_mut()?;
        (other.cookie == this).then_some(other)
    }
}

impl OtherEnd {
    pub(super) fn new(cookie: u64, ends: Option<Ends>) -> Box<Self> {
        Box::new(Self { cookie, ends: ends.map(Box::new) })
    }
}

/// Of the one end's positions those of the other.
pub(super) fn mirrored(SeqNumbers { write_seq, copied_seq }: SeqNumbers) -> SeqNumbers {
    SeqNumbers { write_seq: copied_seq, copied_seq: write_seq }
}

impl Ends {
    /// Of a connection whose client's streams begin at these positions.
    pub(super) fn beginning(client: SeqNumbers) -> Self {
        let direction = |next| Some(Direction { sent: Stream::beginning(next), received: Stream::beginning(next) });
        Self { callers: Default::default(), directions: [client.write_seq, client.copied_seq].map(direction) }
    }

    /// Takes what one end shows of what one side has said.
    fn take(&mut self, speaker: Peer, event: &TransferEvent) -> Option<Disagreement> {
        if event.socket.seq_unreliable {
            self.directions = [None, None];
            return None;
        }
        let is_client = speaker == Peer::Client;
        let is_clients_end = is_client == (event.flow == Flow::Sent);
        let is_alone = self.callers[usize::from(!is_clients_end)].take(event);
        let place = &mut self.directions[usize::from(!is_client)];
        let direction = place.as_mut()?;
        let stream = match event.flow {
            Flow::Sent => &mut direction.sent,
            Flow::Received => &mut direction.received,
        };
        if !is_alone || !stream.take(speaker, event) {
            *place = None;
            return None;
        }
        let found = direction.compare(speaker);
        if found.is_some() {
            *place = None;
        }
        found
    }
}

impl Callers {
    /// Notes a call. Whether that before it in its direction is known to have been over: of two threads that call at a time, the
    /// kernel may tell what they have said confounded.
    fn take(&mut self, event: &TransferEvent) -> bool {
        let TransferEvent { flow, time, .. } = *event;
        let tid = event.task.tid;
        let (this, other) = match flow {
            Flow::Sent => (0, 1),
            Flow::Received => (1, 0),
        };
        let is_alone = self.last[this].is_none_or(|last| {
            // One of the two threads has made another call since.
            let between = self.last[other].filter(|_| self.newest != Some(flow));
            let separates = |call: Call| call.tid == tid || call.tid == last.tid && call.time < time;
            last.tid == tid || between.is_some_and(separates)
        });
        self.last[this] = Some(Call { tid, time });
        self.newest = Some(flow);
        is_alone
    }
}

impl Stream {
    fn beginning(next: u32) -> Self {
        Self { next, moved: 0, told: 0, agreed: 0, line: State::Start, lines: VecDeque::new() }
    }

    /// Reads on. Whether the place in the stream is known to be right.
    fn take(&mut self, speaker: Peer, event: &TransferEvent) -> bool {
        let end = match event.flow {
            Flow::Sent => event.positions.write_seq,
            Flow::Received => event.positions.copied_seq,
        };
        if end.wrapping_sub(event.length) != self.next {
            return false;
        }
        self.next = end;
        self.moved += u64::from(event.length);
        for segment in event.said.segments() {
            match segment {
                Segment::Text(text) => self.text(speaker, text),
                Segment::Withheld(withheld) => {
                    self.end_line(false);
                    self.told += withheld.length;
                    self.line = match withheld.end {
                        LineEnd::Lf | LineEnd::Crlf => State::Start,
                        LineEnd::None | LineEnd::Cr => State::Unknown,
                    };
                }
                Segment::Content(length) => self.skip(length),
                Segment::Uncaptured(uncaptured) => self.skip(uncaptured.length),
                Segment::Ciphertext(_) => return false,
                Segment::Begun(_) => {}
            }
        }
        if self.told == self.moved {
            self.agreed = self.told;
        }
        // More may have been moved: that waits in the kernel.
        self.told <= self.moved
    }

    fn text(&mut self, speaker: Peer, mut text: &[u8]) {
        while !text.is_empty() {
            let (part, rest) = text.split_at(memchr(b'\n', text).map_or(text.len(), |end| end + 1));
            text = rest;
            let ends = part.ends_with(b"\n");
            match &mut self.line {
                State::Start => {
                    let mut line = Line { at: self.told, length: 0, hash: 0, head: [0; HEAD], is_whole: false };
                    line.grow(speaker, part);
                    self.line = State::In(line);
                }
                State::In(line) => line.grow(speaker, part),
                State::Unknown => {}
            }
            self.told += part.len() as u64;
            if ends {
                self.end_line(true);
                self.line = State::Start;
            }
        }
    }

    fn end_line(&mut self, is_whole: bool) {
        if let State::In(line) = self.line {
            if self.lines.len() >= MAX_LINES {
                self.lines.pop_front();
            }
            self.lines.push_back(Line { is_whole, ..line });
        }
    }

    /// What is said is not shown, and so it is not known where a line begins.
    fn skip(&mut self, length: u64) {
        self.told += length;
        self.line = State::Unknown;
    }

    /// The next line whose place is known to be right.
    fn front(&self) -> Option<&Line> {
        self.lines.front().filter(|line| line.at + u64::from(line.length) <= self.agreed)
    }
}

impl Direction {
    /// Compares the lines that both ends show at the same place.
    fn compare(&mut self, speaker: Peer) -> Option<Disagreement> {
        while let (Some(&sent), Some(&received)) = (self.sent.front(), self.received.front()) {
            if sent.at <= received.at {
                self.sent.lines.pop_front();
            }
            if received.at <= sent.at {
                self.received.lines.pop_front();
            }
            if sent.at == received.at && sent.differs(&received, speaker) {
                return Some(Disagreement { speaker, sent, received });
            }
        }
        None
    }
}

impl Line {
    fn grow(&mut self, speaker: Peer, part: &[u8]) {
        let known = (self.length as usize).min(HEAD);
        let more = part.len().min(HEAD - known);
        self.head[known..known + more].copy_from_slice(&part[..more]);
        if speaker == Peer::Client {
            self.hash = polynomial::grow(self.hash, part);
        }
        self.length = self.length.saturating_add(part.len() as u32);
    }

    /// Whether other bytes stand at this line's place at the other end, for certain.
    fn differs(&self, other: &Self, speaker: Peer) -> bool {
        let both_whole = self.is_whole && other.is_whole;
        let is_longer = both_whole && self.length != other.length;
        match speaker {
            // Of a line that crosses in part it is not certain how far that is so.
            Peer::Client if self.is_whole != other.is_whole => false,
            Peer::Client if self.length != other.length && !both_whole => false,
            Peer::Client => {
                let are_commands = self.is_command() && other.is_command();
                are_commands && (is_longer || self.hash != other.hash)
            }
            Peer::Server => match (self.code(), other.code()) {
                (Some(code), Some(others)) => is_longer || code != others,
                // It may be a banner, or the roles are reversed.
                _ => false,
            },
        }
    }

    /// Not what ends content, of which a byte may stand for another; nor what a recording has of a line that was too much
    /// for it.
    fn is_command(&self) -> bool {
        self.head[0].is_ascii_alphabetic() && !self.head.starts_with(b"xxxx")
    }

    /// A reply's code, and whether another line of it follows.
    fn code(&self) -> Option<([u8; 3], bool)> {
        let (code, rest) = self.head.split_first_chunk()?;
        code.iter().all(u8::is_ascii_digit).then_some((*code, rest[0] == b'-'))
    }

    /// What it is, without what it is about.
    fn word(&self, speaker: Peer) -> &str {
        let ends = |byte: &u8| !byte.is_ascii_alphanumeric() && *byte != b'-';
        let word = self.head.split(ends).next().unwrap_or_default();
        match speaker {
            Peer::Client => match Verb::parse(word) {
                Verb::Other => "command",
                verb => verb.as_str(),
            },
            Peer::Server => str::from_utf8(&self.head[..3]).unwrap_or("reply"),
        }
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { speaker, sent, received } = self;
        let words = (sent.word(*speaker), received.word(*speaker));
        let another = if words.0 == words.1 { "another " } else { "" };
        let speaker = speaker.as_str();
        write!(f, "behind {} bytes of the {speaker}: {} was sent, {another}{} received", sent.at, words.0, words.1)
    }
}

#[cfg(test)]
mod tests;
