//! What the server still has to reply to, in order.

use std::collections::VecDeque;

use super::command::{Command, Verb};
use super::decoder_output::{DecoderOutput, ROOM};
use super::item::Message;
use crate::event::Time;

/// Commands that may wait for their replies; with one more the stream counts as lost.
pub const MAX_WAITING: usize = 1000;

/// Bytes that their lines may have together.
pub const MAX_WAITING_BYTES: usize = 256 * 1024;

/// Something that earns a reply.
#[derive(Debug)]
pub(super) enum PendingReply {
    /// The connection itself: its reply is the greeting.
    Greeting,
    /// A command line. The last chunk of a message brings the message along.
    Command(Box<Command>, Option<Box<Message>>),
    /// The end of a message, with the replies that it still earns.
    Message(Box<Message>, ExpectedReplies),
    /// Octets that no command line announced with a reply of its own (XEXCH50).
    Octets,
}

/// The replies that the end of a message still earns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpectedReplies {
    /// The first one tells.
    Unknown,
    /// One tells of all.
    One,
    /// Each tells of a recipient (RFC 2033, 4.2).
    Each(u32),
    /// The last decides, those before it tell of a recipient each (per-recipient data responses).
    EachAndAll(u32),
}

impl ExpectedReplies {
    /// How many they are.
    pub(super) fn count(self) -> u32 {
        match self {
            Self::Unknown | Self::One => 1,
            Self::Each(replies) | Self::EachAndAll(replies) => replies,
        }
    }

    /// What is expected behind one of them, if it is not the last.
    pub(super) fn behind_one(self) -> Option<Self> {
        match self {
            Self::Each(replies @ 2..) => Some(Self::Each(replies - 1)),
            Self::EachAndAll(replies @ 2..) => Some(Self::EachAndAll(replies - 1)),
            _ => None,
        }
    }
}

/// The queue's room is of the items, where it is empty.
#[derive(Debug, Default)]
pub(super) struct PendingReplies {
    slots: VecDeque<PendingReply>,
    bytes: usize,
}

impl PendingReplies {
    pub(super) fn for_greeting_alone() -> Self {
        Self { slots: [PendingReply::Greeting].into(), bytes: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.slots.len() > MAX_WAITING || self.bytes > MAX_WAITING_BYTES
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn cost(&self) -> usize {
        self.slots.len() * (size_of::<PendingReply>() + size_of::<Command>() + ROOM) + self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&PendingReply> {
        self.slots.get(index)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut PendingReply> {
        self.slots.get_mut(index)
    }

    /// What was sent last.
    pub(super) fn last(&self) -> Option<&PendingReply> {
        self.slots.back()
    }

    /// Behind the first that waits is another, and it is not QUIT, after which replies are not waited for.
    pub(super) fn holds_more_than_quit(&self) -> bool {
        self.slots
            .iter()
            .skip(1)
            .any(|slot| !matches!(slot, PendingReply::Command(command, _) if command.verb == Verb::Quit))
    }

    /// Only one thing waits.
    pub(super) fn is_single(&self) -> bool {
        self.slots.len() == 1
    }

    /// The greeting has not come.
    pub(super) fn for_greeting(&self) -> bool {
        matches!(self.slots.front(), Some(PendingReply::Greeting))
    }

    /// Something of the client's waits.
    pub(super) fn for_command(&self) -> bool {
        self.slots.len() > usize::from(self.for_greeting())
    }

    #[inline]
    pub(super) fn push(&mut self, slot: PendingReply, items: &mut DecoderOutput) {
        self.make_room(items);
        self.bytes += slot.bytes();
        self.slots.push_back(slot);
    }

    /// Puts back what has more replies to come.
    pub(super) fn push_front(&mut self, slot: PendingReply, items: &mut DecoderOutput) {
        self.make_room(items);
        self.bytes += slot.bytes();
        self.slots.push_front(slot);
    }

    #[inline]
    pub(super) fn pop(&mut self, items: &mut DecoderOutput) -> Option<PendingReply> {
        let slot = self.slots.pop_front()?;
        self.bytes -= slot.bytes();
        if self.slots.is_empty() {
            items.take_queue(std::mem::take(&mut self.slots));
        }
        Some(slot)
    }

    fn make_room(&mut self, items: &mut DecoderOutput) {
        if self.slots.capacity() == 0 {
            self.slots = items.queue();
        }
    }

    /// So many octets of the message that the last command ends have come.
    pub(super) fn chunk_grew(&mut self, length: u64) {
        if let Some(PendingReply::Command(_, Some(message))) = self.slots.back_mut() {
            message.size = message.size.map(|size| size.saturating_add(length));
        }
    }

    /// The chunk that was announced last is complete.
    pub(super) fn chunk_ended(&mut self, time: Time) {
        if let Some(PendingReply::Command(command, message)) = self.slots.back_mut() {
            command.last_byte = time;
            if let Some(message) = message {
                message.ended_at = Some(time);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<PendingReply>() + self.bytes
    }
}

impl PendingReply {
    fn bytes(&self) -> usize {
        match self {
            Self::Command(command, _) => command.line.len(),
            Self::Message(message, _) => message.go_ahead.as_ref().map_or(0, |go_ahead| go_ahead.text.len()),
            Self::Greeting | Self::Octets => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(length: usize) -> PendingReply {
        PendingReply::Command(Box::new(Command::new(&vec![b'x'; length], Time(1), Time(1))), None)
    }

    #[test]
    fn first_in_first_out() {
        let mut items = DecoderOutput::default();
        let mut waiting = PendingReplies::for_greeting_alone();
        waiting.push(command(4), &mut items);
        assert!(waiting.for_greeting() && !waiting.is_single());
        assert!(matches!(waiting.pop(&mut items), Some(PendingReply::Greeting)));
        assert!(!waiting.for_greeting() && waiting.is_single());
        assert!(matches!(waiting.pop(&mut items), Some(PendingReply::Command(..))));
        assert!(waiting.pop(&mut items).is_none() && waiting.is_empty());
    }

    #[test]
    fn bounds() {
        let mut items = DecoderOutput::default();
        let mut waiting = PendingReplies::default();
        (0..MAX_WAITING).for_each(|_| waiting.push(command(10), &mut items));
        assert!(!waiting.is_full());
        waiting.push(command(10), &mut items);
        assert!(waiting.is_full());

        let mut waiting = PendingReplies::default();
        (0..128).for_each(|_| waiting.push(command(2048), &mut items));
        assert!(!waiting.is_full());
        waiting.push(command(1), &mut items);
        assert!(waiting.is_full());
    }
}
