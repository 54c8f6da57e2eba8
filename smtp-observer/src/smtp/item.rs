//! What a session yields.

use std::time::Duration;

use super::command::{Command, Verb};
use super::mailbox_names::Repeated;
use super::pending_replies::ExpectedReplies;
use super::reply::Reply;
use super::tls::Tls;
use crate::event::Time;
use crate::names::AnomalyKind;

/// Something the dialogue showed.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// The server's first reply (RFC 5321, 4.3.1): 220, or a refusal.
    Greeting(Box<Reply>),
    /// A command with its reply, one for each command line. Where a command's answer spans rounds (AUTH), the reply is
    /// the last.
    Exchange(Exchange),
    /// A message's content was handed over.
    Message(Box<Message>),
    /// How far TLS got.
    Tls(Time, Tls),
    /// From here on it is not known what was before. Told each time, where the anomaly of it is told a bounded number of times.
    Lost(Lost),
    /// From here on the peers have each other's role.
    Reversed,
    /// A peer broke the protocol, or the stream could not be followed.
    Anomaly(Anomaly),
}

/// Why what was before is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Bytes were not seen, of which nothing is certain.
    Bytes,
    /// A reply is missing; all commands were seen.
    Reply,
}

/// A command and what the server said to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// What the client sent.
    pub command: Box<Command>,
    /// What the server replied; absent where the session was over, or its stream was lost, before.
    pub reply: Option<Box<Reply>>,
}

impl Exchange {
    /// When the reply was there; without one, when the command was sent.
    pub fn time(&self) -> Time {
        self.reply.as_ref().map_or(self.command.last_byte, |reply| reply.last_byte)
    }

    /// The reply's code (RFC 5321, 4.2).
    pub fn code(&self) -> Option<u16> {
        self.reply.as_ref().map(|reply| reply.code)
    }

    /// From the command's last byte to the reply's last byte.
    pub fn latency(&self) -> Option<Duration> {
        self.reply.as_ref().map(|reply| reply.last_byte.since(self.command.last_byte))
    }
}

/// How a message's content travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transfer {
    /// Lines up to a lone dot (RFC 5321, 4.1.1.4).
    #[default]
    Data,
    /// Counted chunks (RFC 3030).
    Bdat,
    /// The server fetches it, or its last part (RFC 4468).
    Burl,
}

impl Transfer {
    /// The command's verb.
    pub fn verb(self) -> Verb {
        match self {
            Self::Data => Verb::Data,
            Self::Bdat => Verb::Bdat,
            Self::Burl => Verb::Burl,
        }
    }

    /// The same as text.
    pub fn as_str(self) -> &'static str {
        self.verb().as_str()
    }
}

/// A message's content, from the request to the final reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// How it travelled.
    pub transfer: Transfer,
    /// The last byte of DATA, or of the first BDAT command's line; absent where that was not seen.
    pub requested_at: Option<Time>,
    /// The server's permission; BDAT needs none.
    pub go_ahead: Option<GoAhead>,
    /// The last byte of the end of data, or of the last chunk; absent where that was not seen.
    pub ended_at: Option<Time>,
    /// Bytes of content as transmitted: dots still stuffed, the end of data (`.` CR LF) not counted. Absent where its
    /// beginning was not seen.
    pub size: Option<u64>,
    /// The final reply. With one reply a recipient (RFC 2033, 4.2) it is the first that refuses, or else the last, and was
    /// there when the last was. With one for all behind them, it is that.
    pub reply: Option<Box<Reply>>,
    /// Final replies that accepted the message: 0 or 1, with one reply a recipient up to their number.
    pub accepted: u32,
    /// Recipients whose own final reply refused the message.
    pub refused: u32,
    /// Final replies that did not come, but for that to the command which ends the message.
    pub owed: u32,
}

impl Message {
    /// When its last part that was seen was there.
    pub fn time(&self) -> Time {
        let reply = self.reply.as_ref().map(|reply| reply.last_byte);
        reply.or(self.ended_at).or(self.began_at()).unwrap_or_default()
    }

    /// Takes a final reply, the first of those that are expected.
    pub(super) fn answer(&mut self, expected: ExpectedReplies, reply: Box<Reply>) {
        let (accepts, refuses) = (u32::from(reply.accepts()), u32::from(reply.refuses()));
        match expected {
            ExpectedReplies::Each(_) => {
                self.accepted += accepts;
                self.refused += refuses;
                match &mut self.reply {
                    Some(refusal) if self.refused > refuses => refusal.last_byte = reply.last_byte,
                    told => *told = Some(reply),
                }
            }
            ExpectedReplies::EachAndAll(2..) => {
                self.accepted += accepts;
                self.refused += refuses;
            }
            ExpectedReplies::EachAndAll(_) => {
                self.accepted = self.accepted.max(1) * accepts;
                self.reply = Some(reply);
            }
            ExpectedReplies::Unknown | ExpectedReplies::One => {
                self.accepted = accepts;
                self.reply = Some(reply);
            }
        }
    }

    /// Whether the server took it for a recipient; absent while that is not known.
    pub fn is_taken(&self) -> Option<bool> {
        match self.reply {
            None => None,
            Some(_) if self.accepted > 0 => Some(true),
            Some(_) => (self.owed == 0).then_some(false),
        }
    }

    /// When the content could begin: with the go-ahead, or behind the first chunk's command.
    fn began_at(&self) -> Option<Time> {
        self.go_ahead.as_ref().map(|go_ahead| go_ahead.time).or(self.requested_at)
    }

    /// From DATA to the 354; absent for BDAT, which waits for none.
    pub fn go_ahead_latency(&self) -> Option<Duration> {
        Some(self.go_ahead.as_ref()?.time.since(self.requested_at?))
    }

    /// From the 354 (BDAT: from the first chunk's command) to the end of data.
    pub fn transfer_time(&self) -> Option<Duration> {
        Some(self.ended_at?.since(self.began_at()?))
    }

    /// From the end of data to the final reply. Content that was sent before its go-ahead is waited for from there on.
    pub fn final_reply_latency(&self) -> Option<Duration> {
        let ended = self.ended_at?;
        let waited_for = self.go_ahead.as_ref().map_or(ended, |go_ahead| ended.max(go_ahead.time));
        Some(self.reply.as_ref()?.last_byte.since(waited_for))
    }
}

/// The reply that let the content come: 354.
#[derive(Clone, Debug, PartialEq)]
pub struct GoAhead {
    /// Its last byte.
    pub time: Time,
    /// Its text, lines joined by LF.
    pub text: Vec<u8>,
    /// What it repeats of names.
    pub repeated: Repeated,
}

/// A departure from the protocol, or a loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Anomaly {
    /// When it was seen.
    pub time: Time,
    /// What it is.
    pub kind: AnomalyKind,
    /// What was seen, bytes escaped, bounded. Bytes of the client are not in it: they may be credentials.
    pub detail: String,
}
