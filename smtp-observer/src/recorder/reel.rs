//! One connection's transfers, until it is known what of their bytes may be kept.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::shape;
use crate::event::TransferEvent;
use crate::judge::{Kept, Reveal, View};
use crate::smtp::{Peer, Session};

/// Bytes of memory that the withheld transfers of one connection may have: enough for as many commands as may wait for
/// their replies. Of what comes when there are more, only the shape is kept.
const MOST_WITHHELD: usize = 1 << 20;

/// What is withheld of a connection.
#[derive(Debug)]
pub(crate) struct Reel {
    view: View,
    client: Side,
    server: Side,
    /// Replies that were judged and whose lines have not come out.
    replies: VecDeque<(Range<u64>, Reveal)>,
    withheld: usize,
    /// From where on the session has not read what the server says, if it does not.
    unread: Option<u64>,
}

/// The transfers of one direction, in their order.
#[derive(Debug, Default)]
struct Side {
    strips: VecDeque<Strip>,
    /// Bytes so far.
    end: u64,
    /// Up to here lines have been looked at.
    looked: u64,
}

/// The bytes of one transfer: of the client in their shape, with what may be kept laid over it; of the server as they
/// are.
#[derive(Debug)]
struct Strip {
    number: u64,
    /// Without bytes.
    event: TransferEvent,
    /// So many of the bytes are the event's head.
    head: usize,
    start: u64,
    bytes: Vec<u8>,
}

impl Reel {
    pub(crate) fn new(view: View) -> Self {
        Self {
            view,
            client: Side::default(),
            server: Side::default(),
            replies: VecDeque::new(),
            withheld: 0,
            unread: None,
        }
    }

    /// Takes a transfer. One that cannot be withheld comes back.
    pub(super) fn push(&mut self, number: u64, event: &TransferEvent, from_client: bool) -> Option<TransferEvent> {
        let side = if from_client { &mut self.client } else { &mut self.server };
        let start = side.end;
        side.end += (event.head.len() + event.tail.len()) as u64;
        let mut bytes = [&event.head[..], &event.tail].concat();
        let strip = bytes.len() + size_of::<Strip>();
        if bytes.is_empty() {
            return Some(event.clone());
        }
        if self.withheld + strip > MOST_WITHHELD {
            return Some(shape::of_event(event));
        }
        if from_client {
            let first = bytes[0];
            let (head, tail) = bytes.split_at_mut(event.head.len());
            // A dot that a hole may stand before is kept as well.
            shape::of_bytes(head, b'\n');
            shape::of_bytes(tail, b'\n');
            if start == 0 && is_odd(first) {
                bytes[0] = first;
            }
        }
        self.withheld += strip;
        let head = event.head.len();
        let event = TransferEvent { head: Bytes::new(), tail: Bytes::new(), ..event.clone() };
        side.strips.push_back(Strip { number, event, head, start, bytes });
        None
    }

    /// Learns what may be kept.
    pub(crate) fn keep(&mut self, kept: Kept) {
        match kept {
            Kept::Said { at, bytes, cut } => {
                let first = self.client.byte(0).filter(|first| at == 0 && is_odd(*first));
                self.client.lay(at, &bytes);
                if let Some(first) = first {
                    self.client.lay(0, &[first]);
                }
                let behind = at + bytes.len() as u64;
                if cut && self.client.byte(behind).is_some_and(|byte| !matches!(byte, b'\r' | b'\n')) {
                    self.client.lay(behind, b" ");
                }
            }
            Kept::Replied { span, how } => self.replies.push_back((span, how)),
        }
    }
}

impl Reel {
    /// Gives out the transfers whose bytes are concluded.
    pub(crate) fn conclude(&mut self, session: &Session, out: &mut dyn FnMut(u64, TransferEvent)) {
        self.note(session);
        self.look_at_replies(session.concluded(Peer::Server));
        self.release(session.concluded(Peer::Client), session.concluded(Peer::Server), out);
    }

    /// Gives out what is left, at the end of the connection.
    pub(crate) fn finish(&mut self, session: &Session, out: &mut dyn FnMut(u64, TransferEvent)) {
        self.note(session);
        self.look_at_replies(self.server.end);
        self.release(u64::MAX, u64::MAX, out);
    }

    fn note(&mut self, session: &Session) {
        self.unread = match session.is_unread() {
            // What led to there was read.
            true => self.unread.or(Some(session.server_bytes_seen())),
            false => None,
        };
    }

    fn release(&mut self, client: u64, server: u64, out: &mut dyn FnMut(u64, TransferEvent)) {
        for (side, end) in [(&mut self.client, client), (&mut self.server, server)] {
            while let Some(strip) = side.strips.pop_front_if(|strip| strip.end() <= end) {
                self.withheld -= strip.cost();
                out(strip.number, strip.into_event());
            }
        }
    }

    /// Hides in the server's lines up to `end` what is not shown of them. Those that were not read keep their shape.
    fn look_at_replies(&mut self, end: u64) {
        let start = std::mem::replace(&mut self.server.looked, end);
        if start >= end || self.server.strips.is_empty() {
            return;
        }
        let bytes = self.server.copy(start..end);
        let mut at = start;
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let reply = self.replies.iter().find(|(span, _)| span.contains(&at));
            let kept = match reply {
                Some((_, Reveal::ReplyTo(command))) => Line::of(line).with(|text| self.view.reply(command, text)),
                Some((span, Reveal::Codes)) if !self.is_told(line, span) => Line::of(line).shape(),
                // A mailbox cannot be found in a part of a line.
                None if !line.ends_with(b"\n") || self.unread.is_some_and(|since| since <= at) => {
                    Line::of(line).shape()
                }
                _ => Line::of(line).with(|text| self.view.text(text)),
            };
            self.server.lay(at, &kept);
            at += line.len() as u64;
        }
        self.replies.retain(|(span, _)| span.end > end);
    }

    /// An anomaly tells of the line.
    fn is_told(&self, line: &[u8], reply: &Range<u64>) -> bool {
        let code = |line: &[u8]| line.get(..3).map(<[u8]>::to_vec);
        let whole = self.server.copy(reply.clone());
        let mut lines = whole.split_inclusive(|&byte| byte == b'\n');
        Line::of(line).is_flawed() || !lines.all(|other| code(other) == code(line))
    }
}

/// A first byte like this tells that a client does not speak SMTP.
fn is_odd(first: u8) -> bool {
    !matches!(first, b'\t' | b'\r' | b'\n' | b' '..=b'~')
}

/// A line of the server.
struct Line<'a> {
    text: usize,
    bytes: &'a [u8],
    end: &'a [u8],
}

impl<'a> Line<'a> {
    fn of(line: &'a [u8]) -> Self {
        let bytes = line.strip_suffix(b"\n").unwrap_or(line);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        Self { text: shape::text_of(bytes), bytes, end: &line[bytes.len()..] }
    }

    fn is_flawed(&self) -> bool {
        let is_reply =
            matches!(self.bytes, [b'2'..=b'5', _, _] | [b'2'..=b'5', _, _, b' ' | b'-', ..]) && self.text > 0;
        self.end != b"\r\n" || !is_reply || self.bytes.iter().any(|byte| matches!(byte, b'\r' | 0))
    }

    fn shape(&self) -> Vec<u8> {
        let mut bytes = self.bytes.to_vec();
        shape::of_reply(&mut bytes);
        [&bytes, self.end].concat()
    }

    fn with<'t>(&'t self, show: impl Fn(&'t [u8]) -> Cow<'t, [u8]>) -> Vec<u8> {
        let (code, text) = self.bytes.split_at(self.text);
        let shown = show(text);
        debug_assert_eq!(shown.len(), text.len(), "a stand-in is as long as what it stands for");
        match shown.len() == text.len() {
            true => [code, &shown, self.end].concat(),
            false => self.shape(),
        }
    }
}

impl Side {
    /// Lays bytes over those that are withheld.
    fn lay(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        for strip in self.strips.iter_mut().filter(|strip| strip.start < end && strip.end() > at) {
            let (from, to) = (strip.start.max(at), strip.end().min(end));
            let part = &bytes[(from - at) as usize..(to - at) as usize];
            strip.bytes[(from - strip.start) as usize..(to - strip.start) as usize].copy_from_slice(part);
        }
    }

    /// The bytes there; what is not withheld any more is unknown.
    fn copy(&self, range: Range<u64>) -> Vec<u8> {
        (range).map(|at| self.byte(at).unwrap_or(b'x')).collect()
    }

    fn byte(&self, at: u64) -> Option<u8> {
        let after = self.strips.partition_point(|strip| strip.end() <= at);
        let strip = self.strips.get(after).filter(|strip| strip.start <= at)?;
        strip.bytes.get((at - strip.start) as usize).copied()
    }
}

impl Strip {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn cost(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }

    fn into_event(self) -> TransferEvent {
        let mut head = Bytes::from(self.bytes);
        let tail = head.split_off(self.head);
        TransferEvent { head, tail, ..self.event }
    }
}
