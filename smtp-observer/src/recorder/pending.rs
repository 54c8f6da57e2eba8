//! One connection's transfers, until the names in what they say are known.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use super::sanitize;
use crate::event::{LineEnd, Said, Segment, TransferEvent};
use crate::redact::{self, RedactionPolicy};
use crate::smtp::{Exchange, Item, Message, Names, Peer, Repeated, Reply, Session, is_cut};

/// Bytes of memory that the withheld transfers of one connection may have: enough for as many commands as may wait for
/// their replies. Of what comes when there are more, only the shape is kept.
const MAX_WITHHELD: usize = 1 << 20;

/// Bytes that those of all connections may have together.
pub(super) const MAX_WITHHELD_IN_ALL: usize = 8 << 20;

/// What is withheld of a connection.
#[derive(Debug)]
pub(crate) struct PendingTransfers {
    policy: RedactionPolicy,
    /// Of the socket that connected, and of the other.
    sides: [Side; 2],
    /// They have each other's role.
    reversed: bool,
    withheld: usize,
}

/// The transfers of one direction, in their order.
#[derive(Debug, Default)]
struct Side {
    strips: VecDeque<PendingTransfer>,
    /// Bytes so far, as a session counts them.
    end: u64,
    /// Lines whose names have not been replaced.
    lines: VecDeque<Line>,
    /// Replies that were judged and whose lines have not come out.
    replies: VecDeque<(Range<u64>, ReplyVisibility)>,
    /// It speaks TLS: what crosses of a handshake are no lines, and names no mailbox.
    speaks_tls: bool,
}

/// How much of a reply is kept.
#[derive(Debug)]
enum ReplyVisibility {
    /// Nothing but its codes.
    Codes,
    /// All but mailboxes, and what it repeats of them. Of one that is cut, what its further lines repeat is not among that.
    Text { repeated: Repeated, is_cut: bool },
}

impl ReplyVisibility {
    fn of(reply: &Reply) -> Self {
        Self::Text { repeated: reply.repeated.clone(), is_cut: is_cut(&reply.text) }
    }
}

/// One transfer, and its texts, in which names are replaced.
#[derive(Debug)]
struct PendingTransfer {
    number: u64,
    event: TransferEvent<'static>,
    texts: Vec<Text>,
    end: u64,
}

/// A text and where it begins.
#[derive(Debug)]
struct Text {
    at: u64,
    bytes: Vec<u8>,
}

/// A line, as far as it crossed.
#[derive(Debug)]
struct Line {
    at: u64,
    bytes: Vec<u8>,
    state: State,
    is_of_tls: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More of it may come.
    Open,
    /// All of it is here that crosses.
    Whole,
    /// Something of it is missing.
    Broken,
}

impl PendingTransfers {
    pub(crate) fn new(policy: RedactionPolicy) -> Self {
        Self { policy, sides: Default::default(), reversed: false, withheld: 0 }
    }

    /// Bytes that it withholds.
    pub(super) fn withheld(&self) -> usize {
        self.withheld
    }

    /// Takes a transfer, where there is room for so many bytes. One that cannot be withheld, or need not be, comes back.
    pub(super) fn push(
        &mut self,
        number: u64,
        event: &TransferEvent,
        peer: Peer,
        room: usize,
    ) -> Option<TransferEvent<'static>> {
        let cost = cost(event);
        let fits = cost <= room && self.withheld + cost <= MAX_WITHHELD;
        let side = &mut self.sides[usize::from(peer == Peer::Server)];
        let texts = side.read(&event.said, fits);
        if texts.is_empty() {
            return Some(event.to_static());
        }
        if !fits {
            return Some(sanitize::of_event(event));
        }
        self.withheld += cost;
        side.strips.push_back(PendingTransfer { number, event: event.to_static(), texts, end: side.end });
        None
    }

    /// Learns from what was said how much of it may be kept.
    pub(crate) fn item(&mut self, item: &Item) {
        match item {
            Item::Greeting(reply) => self.replied(reply, ReplyVisibility::of(reply)),
            Item::Exchange(Exchange { command, reply: Some(reply) }) => {
                let how = match redact::hides_reply(command, reply) {
                    true => ReplyVisibility::Codes,
                    false => ReplyVisibility::of(reply),
                };
                self.replied(reply, how);
            }
            Item::Message(message) => {
                if let Message { reply: Some(reply), .. } = &**message {
                    self.replied(reply, ReplyVisibility::of(reply));
                }
            }
            Item::Reversed => self.reversed = !self.reversed,
            _ => {}
        }
    }

    fn replied(&mut self, reply: &Reply, how: ReplyVisibility) {
        self.sides[usize::from(!self.reversed)].replies.push_back((reply.span.clone(), how));
    }

    /// Gives out the transfers whose lines are whole, and whose replies are known.
    pub(crate) fn conclude(&mut self, session: &Session, out: &mut dyn FnMut(u64, TransferEvent<'static>)) {
        self.release([Peer::Client, Peer::Server].map(|peer| session.concluded(peer)), session.names(), out);
    }

    /// Gives out what is left, at the end of the connection.
    pub(crate) fn finish(&mut self, session: &Session, out: &mut dyn FnMut(u64, TransferEvent<'static>)) {
        self.sides.iter_mut().for_each(Side::cut);
        self.release([u64::MAX; 2], session.names(), out);
    }

    fn release(&mut self, ends: [u64; 2], names: &Names, out: &mut dyn FnMut(u64, TransferEvent<'static>)) {
        for (side, end) in self.sides.iter_mut().zip(ends) {
            side.show_lines(self.policy, names, end);
            let shown = side.lines.front().map_or(side.end, |line| line.at).min(end);
            while let Some(strip) = side.strips.pop_front_if(|strip| strip.end <= shown) {
                self.withheld -= cost(&strip.event);
                out(strip.number, strip.into_event());
            }
        }
    }
}

fn cost(event: &TransferEvent) -> usize {
    let texts = event.said.segments().map(|segment| match segment {
        Segment::Text(bytes) => size_of::<Text>() + size_of::<Line>() + 3 * bytes.len(),
        _ => 0,
    });
    size_of::<PendingTransfer>() + texts.sum::<usize>()
}

impl Side {
    /// Reads on; the texts, each with its place.
    fn read(&mut self, said: &Said, fits: bool) -> Vec<Text> {
        let mut texts = Vec::new();
        for segment in said.segments() {
            match segment {
                Segment::Text(bytes) => {
                    texts.push(Text { at: self.end, bytes: bytes.to_vec() });
                    match fits {
                        true => self.read_lines(bytes),
                        false => self.cut(),
                    }
                    self.end += bytes.len() as u64;
                }
                Segment::Withheld(withheld) => {
                    self.end_line(State::Whole);
                    self.end += withheld.length;
                }
                Segment::Begun(_) => {}
                Segment::Content(_) | Segment::Uncaptured(_) | Segment::Ciphertext(_) => self.cut(),
            }
        }
        texts
    }

    fn read_lines(&mut self, bytes: &[u8]) {
        let mut at = self.end;
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            match self.lines.back_mut() {
                Some(line) if line.state == State::Open => line.bytes.extend_from_slice(part),
                _ => {
                    // As the kernel tells a record from a line; nothing but records crosses behind one.
                    self.speaks_tls |= matches!(part, [20..=23, 3, 0..=4, ..]);
                    let is_of_tls = self.speaks_tls;
                    self.lines.push_back(Line { at, bytes: part.to_vec(), state: State::Open, is_of_tls });
                }
            }
            if part.ends_with(b"\n") {
                self.end_line(State::Whole);
            }
            at += part.len() as u64;
        }
    }

    /// No more comes of the line that is not over.
    fn cut(&mut self) {
        self.end_line(State::Broken);
    }

    fn end_line(&mut self, state: State) {
        if let Some(line) = self.lines.back_mut().filter(|line| line.state == State::Open) {
            line.state = state;
        }
    }

    /// Replaces the names in lines up to `end`.
    fn show_lines(&mut self, policy: RedactionPolicy, names: &Names, end: u64) {
        let ready = |line: &mut Line| line.state != State::Open && line.at < end;
        while let Some(line) = self.lines.pop_front_if(ready) {
            let reply = self.replies.iter().find(|(reply, _)| reply.contains(&line.at));
            let shown = line.shown(policy, names, reply.map(|(_, how)| how));
            self.lay(line.at, &shown);
        }
        let start = self.lines.front().map_or(self.end, |line| line.at).min(end);
        self.replies.retain(|(span, _)| span.end > start);
    }

    /// Lays bytes over those that are withheld.
    fn lay(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        let first = self.strips.partition_point(|strip| strip.end <= at);
        let texts = self.strips.iter_mut().skip(first).flat_map(|strip| &mut strip.texts);
        for text in texts.take_while(|text| text.at < end) {
            let (from, to) = (text.at.max(at), (text.at + text.bytes.len() as u64).min(end));
            if from < to {
                let part = &bytes[(from - at) as usize..(to - at) as usize];
                text.bytes[(from - text.at) as usize..(to - text.at) as usize].copy_from_slice(part);
            }
        }
    }
}

impl Line {
    /// The line as it may be kept, as long as it was.
    fn shown(&self, policy: RedactionPolicy, names: &Names, reply: Option<&ReplyVisibility>) -> Vec<u8> {
        if self.is_of_tls {
            return self.bytes.clone();
        }
        let end = match &self.bytes[..] {
            [.., b'\r', b'\n'] => LineEnd::Crlf,
            [.., b'\n'] => LineEnd::Lf,
            _ => LineEnd::None,
        };
        let (line, _) = self.bytes.split_at(self.bytes.len() - end.bytes().len());
        let (code, text) = line.split_at(sanitize::text_of(line));
        let is_reply = !code.is_empty();
        let shown: Cow<'_, [u8]> = match reply {
            Some(ReplyVisibility::Codes) => sanitize::of_reply(line).into(),
            // It may be half a mailbox.
            None if self.state == State::Broken && is_reply => sanitize::of_reply(line).into(),
            Some(ReplyVisibility::Text { repeated, is_cut: false }) if !is_reply || end != LineEnd::None => {
                [code, &policy.reply_line(repeated, text)].concat().into()
            }
            None if !is_reply => policy.line(line),
            reply => {
                let mut repeated = match end {
                    // It may end within a name.
                    LineEnd::None if is_reply => names.repeated_before_cut(text),
                    _ => names.repeated_in(text),
                };
                if let Some(ReplyVisibility::Text { repeated: known, .. }) = reply {
                    repeated.names.extend_from_slice(&known.names);
                    repeated.domains.extend_from_slice(&known.domains);
                }
                [code, &policy.reply_line(&repeated, text)].concat().into()
            }
        };
        debug_assert_eq!(shown.len(), line.len(), "a stand-in is as long as what it stands for");
        match shown.len() == line.len() {
            true => [&shown, end.bytes()].concat(),
            false => [&sanitize::of_reply(line), end.bytes()].concat(),
        }
    }
}

impl PendingTransfer {
    fn into_event(self) -> TransferEvent<'static> {
        let mut texts = self.texts.iter();
        let said = Said::of(self.event.said.segments().map(|segment| match segment {
            Segment::Text(_) => Segment::Text(texts.next().map(|text| &text.bytes[..]).unwrap_or_default()),
            other => other,
        }));
        TransferEvent { said, ..self.event }
    }
}
