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
    /// Of the socket that connected, and of the other.
    sides: [Side; 2],
    /// They have each other's role.
    reversed: bool,
    withheld: usize,
}

/// The transfers of one direction, in their order.
#[derive(Debug, Default)]
struct Side {
    strips: VecDeque<Strip>,
    /// Bytes so far.
    end: u64,
    /// Lines of a server that have not come out, and whether they were understood.
    lines: VecDeque<(Range<u64>, bool)>,
    /// Replies that were judged and whose lines have not come out.
    replies: VecDeque<(Range<u64>, Reveal)>,
    /// What tells how to read on, and has not come out.
    plain: Vec<(u64, Vec<u8>)>,
}

/// One transfer, and its bytes in their shape, with what may be kept laid over it.
#[derive(Debug)]
struct Strip {
    number: u64,
    event: TransferEvent,
    /// Where its head begins.
    start: u64,
    bytes: Vec<u8>,
}

impl Reel {
    pub(crate) fn new(view: View) -> Self {
        Self { view, sides: Default::default(), reversed: false, withheld: 0 }
    }

    /// Takes a transfer. One that cannot be withheld comes back.
    pub(super) fn push(
        &mut self,
        number: u64,
        event: &TransferEvent,
        peer: Peer,
        opaque: bool,
    ) -> Option<TransferEvent> {
        let side = &mut self.sides[usize::from(peer == Peer::Server)];
        let (_, disputed, _) = event.content();
        let start = side.end + disputed.len() as u64;
        let length = event.head.len() + event.tail.len();
        side.end = start + length as u64;
        if opaque {
            return Some(shape::of_nothing(event));
        }
        if length == 0 {
            return Some(event.clone());
        }
        let shape = shape::of_event(event);
        let strip = Strip { number, event: event.clone(), start, bytes: [&shape.head[..], &shape.tail].concat() };
        if self.withheld + strip.cost() > MOST_WITHHELD {
            return Some(shape);
        }
        self.withheld += strip.cost();
        side.strips.push_back(strip);
        None
    }

    /// Learns what may be kept.
    pub(crate) fn keep(&mut self, kept: Kept) {
        match kept {
            Kept::Said { at, bytes, cut } => self.acting_as(Peer::Client).said(at, &bytes, cut),
            Kept::Replied { span, how } => self.acting_as(Peer::Server).replies.push_back((span, how)),
            Kept::Plain { peer, at, bytes } => {
                let side = self.acting_as(peer);
                side.lay(at, &bytes);
                side.plain.push((at, bytes));
            }
            Kept::Line { span, read } => self.acting_as(Peer::Server).lines.push_back((span, read)),
            Kept::Reversed => self.reversed = !self.reversed,
        }
    }

    fn acting_as(&mut self, peer: Peer) -> &mut Side {
        &mut self.sides[usize::from((peer == Peer::Server) != self.reversed)]
    }

    /// Gives out the transfers whose bytes are concluded.
    pub(crate) fn conclude(&mut self, session: &Session, out: &mut dyn FnMut(u64, TransferEvent)) {
        self.release([Peer::Client, Peer::Server].map(|peer| session.concluded(peer)), out);
    }

    /// Gives out what is left, at the end of the connection.
    pub(crate) fn finish(&mut self, _: &Session, out: &mut dyn FnMut(u64, TransferEvent)) {
        self.release([u64::MAX; 2], out);
    }

    fn release(&mut self, ends: [u64; 2], out: &mut dyn FnMut(u64, TransferEvent)) {
        for (side, end) in self.sides.iter_mut().zip(ends) {
            side.show_lines(self.view, end);
            while let Some(strip) = side.strips.pop_front_if(|strip| strip.end() <= end) {
                self.withheld -= strip.cost();
                out(strip.number, strip.into_event());
            }
        }
    }
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
    /// What a client said. What tells how to read on stays.
    fn said(&mut self, at: u64, bytes: &[u8], cut: bool) {
        self.lay(at, bytes);
        let behind = at + bytes.len() as u64;
        if cut && self.byte(behind).is_some_and(|byte| !matches!(byte, b'\r' | b'\n')) {
            self.lay(behind, b" ");
        }
        for (at, bytes) in std::mem::take(&mut self.plain) {
            self.lay(at, &bytes);
            self.plain.push((at, bytes));
        }
    }

    /// Lays over the lines of a server up to `end` what is shown of them. Those that were not read keep their shape.
    fn show_lines(&mut self, view: View, end: u64) {
        while let Some((span, read)) = self.lines.pop_front_if(|(span, _)| span.end <= end) {
            let reply = self.replies.iter().find(|(reply, _)| reply.contains(&span.start));
            let lines = self.copy(span.clone());
            // Half a mailbox is not known for one.
            let whole = span.clone().all(|at| self.byte(at).is_some());
            let kept = lines.split_inclusive(|&byte| byte == b'\n').flat_map(|line| match reply {
                _ if !whole => Line::of(line).shape(),
                Some((_, Reveal::ReplyTo(command))) => Line::of(line).with(|text| view.reply(command, text)),
                Some((reply, Reveal::Codes)) if !self.is_told(line, reply) => Line::of(line).shape(),
                None if !read => Line::of(line).shape(),
                _ => Line::of(line).with(|text| view.text(text)),
            });
            let kept: Vec<u8> = kept.collect();
            self.lay(span.start, &kept);
        }
        self.replies.retain(|(span, _)| span.end > end);
        self.plain.retain(|(at, bytes)| at + bytes.len() as u64 > end);
    }

    /// An anomaly tells of the line.
    fn is_told(&self, line: &[u8], reply: &Range<u64>) -> bool {
        let code = |line: &[u8]| line.get(..3).map(<[u8]>::to_vec);
        let whole = self.copy(reply.clone());
        let mut lines = whole.split_inclusive(|&byte| byte == b'\n');
        Line::of(line).is_flawed() || !lines.all(|other| code(other) == code(line))
    }

    /// Lays bytes over those that are withheld.
    fn lay(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        for strip in self.strips.iter_mut().filter(|strip| strip.start < end && strip.end() > at) {
            let (from, to) = (strip.start.max(at), strip.end().min(end));
            let part = &bytes[(from - at) as usize..(to - at) as usize];
            strip.bytes[(from - strip.start) as usize..(to - strip.start) as usize].copy_from_slice(part);
        }
    }

    /// The bytes there, as they were said; what is not withheld any more is unknown.
    fn copy(&self, range: Range<u64>) -> Vec<u8> {
        (range).map(|at| self.byte(at).unwrap_or(b'x')).collect()
    }

    fn byte(&self, at: u64) -> Option<u8> {
        let after = self.strips.partition_point(|strip| strip.end() <= at);
        let strip = self.strips.get(after).filter(|strip| strip.start <= at)?;
        strip.said((at - strip.start) as usize)
    }
}

impl Strip {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// A byte as it was said.
    fn said(&self, at: usize) -> Option<u8> {
        let TransferEvent { head, tail, .. } = &self.event;
        head.get(at).or_else(|| tail.get(at.checked_sub(head.len())?)).copied()
    }

    fn cost(&self) -> usize {
        size_of::<Self>() + 2 * self.bytes.len()
    }

    fn into_event(self) -> TransferEvent {
        let mut head = Bytes::from(self.bytes);
        let tail = head.split_off(self.event.head.len());
        TransferEvent { head, tail, ..self.event }
    }
}
