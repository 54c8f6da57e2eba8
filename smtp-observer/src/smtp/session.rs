//! One SMTP dialogue, followed in both directions.

mod after;
mod client;
mod gaps;
mod opening;
mod outstanding;
mod place;
mod resync;
mod role;
mod said;
mod server;
mod smuggling;
mod unsettled;

use std::num::NonZero;

use self::opening::{ClientTls, Early};
use self::resync::Resync;
use self::smuggling::SmugglingState;
use self::unsettled::Unsettled;
use super::Peer;
use super::anomalies::Anomalies;
use super::body::Body;
use super::decoder_output::DecoderOutput;
use super::extensions::Extensions;
use super::item::{GoAhead, Item, Message, Transfer};
use super::line::{Lines, Origin};
use super::mailbox_names::Names;
use super::pending_replies::PendingReplies;
use super::preamble::Preamble;
use super::reply::{Replies, Reply};
use super::tls::{Handshake, Offer, Opening};
use super::undecided_input::{Content, UndecidedInput, Unread};
use crate::event::Time;

/// Follows a dialogue from the bytes of both peers, handed in as they were sent and received.
///
/// Every command line becomes one [`Exchange`], in the order they were sent, when the last line of its reply is there.
/// When bytes are missing where they matter, no command is read until the next point where both peers' states are
/// certain. When bytes of the server are among them, what waits for a reply comes out without one.
///
/// [`Session::new`] and [`Session::midstream`] begin one: its default waits for nothing, and does not know how it began.
#[derive(Debug, Default)]
pub struct Session {
    mode: Mode,
    waiting: PendingReplies,
    client: Direction,
    server: Direction,
    replies: Replies,
    /// Where the client's current line began.
    line: LineStart,
    /// When the server's current line began.
    reply_line: Time,
    /// Where that is.
    reply_line_at: u64,
    /// Bytes that came of the socket that connected, and of the other, up to the end of those that are being read.
    ends: [u64; 2],
    held: UndecidedInput,
    /// Whether the bytes that are being read crossed.
    origin: Origin,
    /// The client's bytes are being read later than they were sent: the reply before them was not there yet.
    sent_early: bool,
    /// The chunks of a message so far.
    chunks: Option<Box<Chunks>>,
    /// What the server offered in its last reply to EHLO; nothing after HELO. Absent while that is not known.
    extensions: Option<Extensions>,
    /// The end of a message earns one reply a recipient (RFC 2033); absent while that is not known.
    lmtp: Option<bool>,
    /// Recipients that the server has accepted for the next message; absent where some may not have been seen.
    recipients: Option<u16>,
    /// The end of the last message may have earned more replies than the one that has come.
    may_owe_more: bool,
    /// A call of the client was seen.
    has_written: bool,
    /// When the client's last command ended.
    command_at: Time,
    /// When the last reply to a command ended.
    answered_at: Time,
    /// A reply came where an answer to a 334 was due: a line that began before that is the answer.
    answer_waits: bool,
    /// The client's first line was read, or went unseen.
    spoken: bool,
    /// What became of the server's offer of TLS.
    offer: Offer,
    anomalies: Anomalies,
    preamble: Preamble,
    /// What came of a message in chunks before a command that ends it, which may yet be refused.
    shelved: Option<Box<Chunks>>,
    /// The other peer has sent bytes before the call that is being read of which nothing was told.
    is_behind: bool,
    /// The one that connected serves.
    reversed: bool,
    /// What the client said before the greeting.
    early: Option<Box<Early>>,
    /// Replies that came though nothing was seen of the client.
    unasked: u8,
    /// The octets that are being received are a chunk's.
    in_chunk: bool,
    /// The message that is received, or whose reply is due, is over already for some servers.
    fork: Option<Box<SmugglingState>>,
    /// A reply had the message over: so many bytes of it may still wait in the kernel.
    left_waiting: u8,
    /// A message was received up to its end of data.
    had_content: bool,
    /// The server's last line had no code, or was not the last of its reply, where one command waits for it.
    garbled: bool,
    /// A 421 where more waits for a reply: the reply to the first that waits, unless it is the last of all.
    last_word: Option<Box<Reply>>,
    /// It is not certain which commands the replies answer.
    unsettled: Option<Box<Unsettled>>,
    /// The client has sent a command before the reply to the one before it.
    pipelines: bool,
    /// A message was accepted before its end, and nothing of it has come since.
    cut_short: bool,
    /// Lines of the client ended with LF alone, and with CR LF.
    ended_by: [bool; 2],
    /// What the client has said that the server may repeat.
    names: Option<Box<Names>>,
    /// Nanoseconds that the quickest reply to a command took, at most what fits.
    quickest: Option<NonZero<u32>>,
}

/// How the client's next bytes are read.
#[derive(Debug, Default)]
enum Mode {
    /// As lines, each a command.
    #[default]
    Command,
    /// As a line that answers a 334. It is never kept.
    Answer,
    /// Not yet: the reply to the last command says how.
    Undecided,
    /// Not yet: DATA was answered 2yz. Some clients take that for a go-ahead; their next line tells.
    UndecidedForLine(Box<GoAhead>, Time),
    /// As a message's content, up to its end.
    Body(Box<Body>, Box<Message>),
    /// As so many octets.
    Octets(u64),
    /// As TLS, unless its first bytes are none. The server has spoken before, or not, and may be in the middle of a line.
    StartTls { injected: bool, in_line: bool },
    /// As TLS, which nobody has asked for. The server's next bytes tell whether it speaks that too.
    ClientTls(Box<ClientTls>),
    /// As TLS whose handshake is not over.
    Handshake(Box<Handshake>),
    /// Not at all: no SMTP, or TLS, of which it may have been told that its plaintext is read.
    Opaque { is_read: bool },
    /// Not until the next certain point.
    Resync(Resync),
}

/// One direction's lines.
#[derive(Debug, Default)]
struct Direction {
    lines: Lines,
    opening: Opening,
    /// The line that is being received is no command.
    skip: bool,
    /// The last bytes were not seen, and why: more of them are the same gap.
    gap: Option<Unread>,
}

/// What is known when a line begins.
#[derive(Clone, Copy, Debug, Default)]
struct LineStart {
    time: Time,
    at: u64,
    pipelined: bool,
    early: bool,
}

/// A message that comes in chunks.
#[derive(Debug)]
struct Chunks {
    requested_at: Time,
    /// Octets so far; absent where the server fetched some of them itself.
    size: Option<u64>,
}

impl Session {
    /// A session that is followed from the start of its connection: the server greets first.
    pub fn new() -> Self {
        let (waiting, preamble) = (PendingReplies::for_greeting_alone(), Preamble::expected());
        Self { waiting, preamble, ..Self::begun() }
    }

    /// The same behind the greeting.
    fn begun() -> Self {
        Self { lmtp: Some(false), recipients: Some(0), ..Self::default() }
    }

    /// A session that was under way when it was first seen. It is followed from the next certain point.
    pub fn midstream() -> Self {
        Self { mode: Mode::Resync(Resync::unseen()), spoken: true, ..Self::default() }
    }

    /// Whether the server still owes a reply, or the greeting.
    pub fn awaits_reply(&self) -> bool {
        !self.waiting.is_empty() && !self.has_withheld_all()
    }

    /// Whether the greeting has not come, or not in full.
    pub fn awaits_greeting(&self) -> bool {
        self.waiting.for_greeting()
    }

    /// Whether the server owes nothing, and the client has not begun another line.
    pub fn is_at_rest(&self) -> bool {
        self.waiting.is_empty() && self.client.lines.at_start()
    }

    /// The connection is over: what waits for a reply comes out without one, and so does a message whose end did not
    /// come.
    pub fn finish(&mut self, time: Time, items: &mut DecoderOutput) {
        self.give_up_preamble(items);
        self.report_early(items);
        self.read_unfinished_reply(items);
        self.give_up_pairing(time, items);
        self.end_of_client_tls(items);
        self.end_of_handshake(time, items);
        self.settle_fork(items);
        if let Some(last_word) = self.last_word.take() {
            self.shut_down(&last_word, items);
        }
        self.give_up_waiting(items);
        self.goes_on_in_clear(time, items);
        let mut mode = std::mem::replace(&mut self.mode, Mode::Command);
        self.report_cut_short(time, &mut mode, items);
        if let Mode::Body(body, mut message) = mode {
            message.size = body.size();
            message.ended_at = None;
            items.push(Item::Message(message));
        }
        self.held = UndecidedInput::default();
    }

    /// Reads what was held, in the mode that is known now: since a reply at that time, if it was one that told.
    fn read_held(&mut self, replied: Option<Time>, items: &mut DecoderOutput) {
        let origin = std::mem::take(&mut self.origin);
        while !matches!(self.mode, Mode::Undecided | Mode::UndecidedForLine(..))
            && let Some(part) = self.held.pop()
        {
            self.sent_early = replied.is_some_and(|replied| part.time <= replied);
            self.up_to(part.end, Peer::Client, |session| match &part.content {
                Content::Bytes(_) => {
                    let taken = session.read_client(part.time, part.bytes(), items);
                    session.held.put_back(part, taken);
                }
                Content::Withheld(withheld) => session.read_withheld(part.time, *withheld, items),
                Content::Unread(unread, length) => session.client_unread(part.time, *unread, *length, items),
            });
        }
        self.sent_early = false;
        self.origin = origin;
    }

    /// Nothing is read from here on.
    fn become_opaque(&mut self) {
        self.mode = Mode::Opaque { is_read: false };
        self.held = UndecidedInput::default();
        self.preamble = Preamble::default();
        self.client = Direction::default();
        self.server = Direction::default();
        self.replies.reset();
    }

    /// Nothing is read, or the roles are not those of the peers' sockets.
    #[cfg(test)]
    pub(super) fn is_changed(&self) -> bool {
        self.is_opaque() || matches!(self.mode, Mode::ClientTls(_)) || self.reversed
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
    Box::new(Message { transfer, requested_at, go_ahead, size: Some(0), ..Message::default() })
}
