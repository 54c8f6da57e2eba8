//! One SMTP dialogue, followed in both directions.

mod after;
mod client;
mod lost;
mod server;

use self::lost::Lost;
use super::Peer;
use super::anomalies::Anomalies;
use super::body::Body;
use super::extensions::Extensions;
use super::held::{Content, Held};
use super::item::{Exchange, GoAhead, Item, Message, Transfer};
use super::line::Lines;
use super::reply::Replies;
use super::tls::Opening;
use super::waiting::{Slot, Waiting};
use crate::event::Time;
use crate::observation::AnomalyKind;

/// Follows a dialogue from the bytes of both peers, handed in as they were sent and received.
///
/// Every command line becomes one [`Exchange`], in the order they were sent, when the last line of its reply is there.
/// When bytes are missing where they matter, no command is read until the next point where both peers' states are
/// certain. When bytes of the server are among them, what waits for a reply comes out without one.
#[derive(Debug)]
pub struct Session {
    mode: Mode,
    waiting: Waiting,
    client: Direction,
    server: Direction,
    replies: Replies,
    /// Where the client's current line began.
    line: LineStart,
    /// When the server's current line began.
    reply_line: Time,
    held: Held,
    /// The client's bytes are being read later than they were sent: the reply before them was not there yet.
    sent_early: bool,
    /// The chunks of a message so far.
    chunks: Option<Chunks>,
    /// What the server offers; absent while that is not known.
    extensions: Option<Extensions>,
    /// The end of a message earns one reply a recipient (RFC 2033).
    lmtp: bool,
    recipients: u32,
    /// The number of the client's write that is being read, and of the one that held the end of its last command.
    write: u64,
    command_write: Option<u64>,
    /// The client's first line was read.
    spoken: bool,
    opaque_bytes: u64,
    anomalies: Anomalies,
}

/// How the client's next bytes are read.
#[derive(Debug)]
enum Mode {
    /// As lines, each a command.
    Command,
    /// As a line that answers a 334. It is never kept.
    Answer,
    /// Not yet: the reply to the last command says how.
    Held,
    /// Not yet: DATA was answered 2yz. Some clients take that for a go-ahead; their next line tells.
    HeldForLine(GoAhead, Time),
    /// As a message's content, up to its end.
    Body(Box<Body>, Box<Message>),
    /// As so many octets.
    Octets(u64),
    /// Not at all: TLS. The client has spoken in it, or not yet.
    Opaque { client_spoke: bool },
    /// Not until the next certain point.
    Lost(Lost),
}

/// One direction's lines.
#[derive(Debug, Default)]
struct Direction {
    lines: Lines,
    opening: Opening,
    /// The line that is being received is no command.
    skip: bool,
}

/// What is known when a line begins.
#[derive(Clone, Copy, Debug, Default)]
struct LineStart {
    time: Time,
    pipelined: bool,
    early: bool,
    same_write: bool,
}

/// A message that comes in chunks.
#[derive(Clone, Copy, Debug)]
struct Chunks {
    requested_at: Time,
    size: u64,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A session that is followed from the start of its connection: the server greets first.
    pub fn new() -> Self {
        let mut session = Self::with(Mode::Command);
        session.waiting.push(Slot::Greeting);
        session
    }

    /// A session that was under way when it was first seen. It is followed from the next certain point.
    pub fn midstream() -> Self {
        Self::with(Mode::Lost(Lost::unseen()))
    }

    fn with(mode: Mode) -> Self {
        Self {
            mode,
            waiting: Waiting::default(),
            client: Direction::default(),
            server: Direction::default(),
            replies: Replies::default(),
            line: LineStart::default(),
            reply_line: Time::default(),
            held: Held::default(),
            sent_early: false,
            chunks: None,
            extensions: None,
            lmtp: false,
            recipients: 0,
            write: 0,
            command_write: None,
            spoken: false,
            opaque_bytes: 0,
            anomalies: Anomalies::default(),
        }
    }

    /// What the server offered in its last reply to EHLO; nothing after HELO. Absent while that is not known.
    pub fn extensions(&self) -> Option<Extensions> {
        self.extensions
    }

    /// Bytes that passed unread because TLS had started.
    pub fn opaque_bytes(&self) -> u64 {
        self.opaque_bytes
    }

    /// Whether the server still owes a reply, or the greeting.
    pub fn awaits_reply(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the server owes nothing, and the client has not begun another line.
    pub fn is_at_rest(&self) -> bool {
        self.waiting.is_empty() && self.client.lines.at_start()
    }

    /// Whether `length` bytes of this peer, not seen, would be missed: not those of a message's content, nor of TLS.
    pub fn misses(&self, peer: Peer, length: u64) -> bool {
        match (&self.mode, peer) {
            (Mode::Opaque { .. }, _) | (Mode::Body(..), Peer::Client) => false,
            (Mode::Octets(remaining), Peer::Client) => length > *remaining,
            _ => true,
        }
    }

    /// Takes bytes that a peer sent, as one call moved them.
    pub fn receive(&mut self, peer: Peer, time: Time, bytes: &[u8], items: &mut Vec<Item>) {
        match peer {
            Peer::Client => {
                self.write += 1;
                self.client_bytes(time, bytes, items);
            }
            Peer::Server => self.server_bytes(time, bytes, items),
        }
    }

    /// Takes notice of `length` bytes of a peer that were not seen. Inside a message they are content.
    pub fn gap(&mut self, peer: Peer, time: Time, length: u64, items: &mut Vec<Item>) {
        if length == 0 {
            return;
        }
        match peer {
            Peer::Client => {
                self.write += 1;
                self.client_gap(time, length, items);
            }
            Peer::Server => self.server_gap(time, length, items),
        }
    }

    /// The connection is over: what waits for a reply comes out without one, and so does a message whose end did not
    /// come.
    pub fn finish(&mut self, _time: Time, items: &mut Vec<Item>) {
        self.give_up_waiting(items);
        if let Mode::Body(body, mut message) = std::mem::replace(&mut self.mode, Mode::Command) {
            message.size = Some(body.length());
            message.ended_at = None;
            items.push(Item::Message(*message));
        }
        self.held = Held::default();
    }

    fn client_gap(&mut self, time: Time, length: u64, items: &mut Vec<Item>) {
        match &mut self.mode {
            Mode::Opaque { client_spoke } => {
                *client_spoke = true;
                self.opaque_bytes = self.opaque_bytes.saturating_add(length);
            }
            Mode::Body(body, message) => {
                body.hole(length);
                message.ended_at = Some(time);
            }
            Mode::Octets(remaining) if length <= *remaining => {
                *remaining -= length;
                if *remaining == 0 {
                    self.octets_ended(time);
                }
            }
            Mode::Held => self.held.gap(time, self.write, length),
            Mode::HeldForLine(..) => {
                self.held.gap(time, self.write, length);
                self.read_held_for_line(items);
            }
            Mode::Lost(lost) => {
                lost.unsure();
                self.client.lines.reset();
            }
            Mode::Command | Mode::Answer | Mode::Octets(_) => {
                self.client = Direction::default();
                self.lose(time, || format!("{length} bytes of the client"), items);
            }
        }
    }

    fn server_gap(&mut self, time: Time, length: u64, items: &mut Vec<Item>) {
        if matches!(self.mode, Mode::Opaque { .. }) {
            self.opaque_bytes = self.opaque_bytes.saturating_add(length);
            return;
        }
        self.server = Direction::default();
        self.replies.reset();
        let detail = || format!("{length} bytes of the server");
        match &mut self.mode {
            // Nothing was due: the content of the message goes on.
            Mode::Body(..) => {
                items.push(Item::Lost);
                self.anomalies.report(time, AnomalyKind::Gap, items, detail);
            }
            Mode::Lost(lost) => {
                lost.unsure();
                self.give_up_waiting(items);
            }
            _ => {
                self.give_up_waiting(items);
                self.lose(time, detail, items);
            }
        }
    }

    /// It is not certain any more what the client's next bytes are. What waits for a reply still gets it, unless
    /// replies were lost.
    fn lose(&mut self, time: Time, detail: impl FnOnce() -> String, items: &mut Vec<Item>) {
        items.push(Item::Lost);
        self.anomalies.report(time, AnomalyKind::Gap, items, detail);
        self.mode = Mode::Lost(Lost::after_gap());
        self.held = Held::default();
        self.chunks = None;
        self.recipients = 0;
        self.client.opening = Opening::default();
        self.server.opening = Opening::default();
    }

    fn give_up_waiting(&mut self, items: &mut Vec<Item>) {
        while let Some(slot) = self.waiting.pop() {
            match slot {
                Slot::Command(command, message) => {
                    items.push(Item::Exchange(Exchange { command, reply: None }));
                    items.extend(message.map(|message| Item::Message(*message)));
                }
                Slot::Message(message, _) => items.push(Item::Message(*message)),
                Slot::Greeting | Slot::Octets => {}
            }
        }
    }

    /// Reads what was held, in the mode that is known now.
    fn read_held(&mut self, sent_early: bool, items: &mut Vec<Item>) {
        let write = self.write;
        self.sent_early = sent_early;
        for part in std::mem::take(&mut self.held).into_parts() {
            self.write = part.write;
            match part.content {
                Content::Bytes(bytes) => self.client_bytes(part.time, &bytes, items),
                Content::Gap(length) => self.client_gap(part.time, length, items),
            }
        }
        self.sent_early = false;
        self.write = write;
    }

    /// TLS has started.
    fn become_opaque(&mut self, client_spoke: bool) {
        self.mode = Mode::Opaque { client_spoke };
        self.held = Held::default();
        self.client = Direction::default();
        self.server = Direction::default();
        self.replies.reset();
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>()
            + self.waiting.memory()
            + self.client.lines.memory()
            + self.server.lines.memory()
            + self.replies.memory()
            + self.held.memory()
    }
}

/// The content of a message that the server has let come.
fn message(transfer: Transfer, requested_at: Option<Time>, go_ahead: Option<GoAhead>) -> Box<Message> {
    Box::new(Message { transfer, requested_at, go_ahead, ended_at: None, size: Some(0), reply: None, accepted: 0 })
}
