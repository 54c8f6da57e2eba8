//! Where sessions put what they yield, and the room they work in.

use std::collections::VecDeque;
use std::ops::Deref;

use super::command::Command;
use super::item::{Exchange, Item};
use super::pending_replies::PendingReply;
use super::reply::Reply;

/// Commands that are kept for the next ones, and replies: as many as are pipelined on one connection, or a few on many.
const MAX_OF_EACH: usize = 256;

/// Room for their texts, when they are new: few lines of a dialogue are longer. And the most that is kept.
pub(super) const ROOM: usize = 128;
const MAX_ROOM: usize = 512;

/// Queues that are kept for the next commands, and the longest of them.
const MAX_QUEUES: usize = 64;
const LONGEST_QUEUE: usize = 128;

/// Places in a new queue.
const QUEUE: usize = 4;

/// What sessions have yielded, in order. It lends them room and, cleared, has back that of its items: a dialogue that
/// goes on as before allocates nothing, and a session that waits for nothing holds nothing.
#[derive(Debug, Default)]
pub struct DecoderOutput {
    items: Vec<Item>,
    #[expect(clippy::vec_box, reason = "they are handed out as they are")]
    commands: Vec<Box<Command>>,
    #[expect(clippy::vec_box, reason = "they are handed out as they are")]
    replies: Vec<Box<Reply>>,
    queues: Vec<VecDeque<PendingReply>>,
}

impl DecoderOutput {
    /// Adds what comes next.
    #[inline]
    pub(super) fn push(&mut self, item: Item) {
        self.items.push(item);
    }

    /// Lets go of all items.
    pub fn clear(&mut self) {
        if self.items.is_empty() {
            return;
        }
        let mut items = std::mem::take(&mut self.items);
        for item in items.drain(..) {
            match item {
                Item::Exchange(Exchange { command, reply }) => {
                    self.take_command(command);
                    reply.into_iter().for_each(|reply| self.take_reply(reply));
                }
                Item::Greeting(reply) => self.take_reply(reply),
                Item::Message(message) => message.reply.into_iter().for_each(|reply| self.take_reply(reply)),
                _ => {}
            }
        }
        self.items = items;
    }

    /// Room for a command.
    #[inline]
    pub(super) fn command(&mut self) -> Box<Command> {
        self.commands.pop().unwrap_or_else(|| Box::new(Command::with_room(ROOM)))
    }

    /// Takes back a command.
    pub(super) fn take_command(&mut self, command: Box<Command>) {
        if self.commands.len() < MAX_OF_EACH && command.line.capacity() <= MAX_ROOM {
            self.commands.push(command);
        }
    }

    /// Room for a reply.
    #[inline]
    pub(super) fn reply(&mut self) -> Box<Reply> {
        self.replies.pop().unwrap_or_else(|| Box::new(Reply::with_room(ROOM)))
    }

    /// Takes back a reply.
    pub(super) fn take_reply(&mut self, reply: Box<Reply>) {
        if self.replies.len() < MAX_OF_EACH && reply.text.capacity() <= MAX_ROOM {
            self.replies.push(reply);
        }
    }

    /// An empty queue.
    pub(super) fn queue(&mut self) -> VecDeque<PendingReply> {
        self.queues.pop().unwrap_or_else(|| VecDeque::with_capacity(QUEUE))
    }

    /// Takes back a queue.
    pub(super) fn take_queue(&mut self, mut queue: VecDeque<PendingReply>) {
        if self.queues.len() < MAX_QUEUES && (QUEUE..=LONGEST_QUEUE).contains(&queue.capacity()) {
            queue.clear();
            self.queues.push(queue);
        }
    }
}

impl Deref for DecoderOutput {
    type Target = [Item];

    fn deref(&self) -> &[Item] {
        &self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Time;
    use crate::smtp::{Peer, Session};

    #[test]
    fn room_is_used_again_and_bounded() {
        let mut items = DecoderOutput::default();
        let mut session = Session::new();
        session.receive(Peer::Server, Time(1), b"220 mx.example\r\n", &mut items);
        items.clear();
        for (commands, kept, queues) in [(1, 1, 1), (50, 50, 1), (1, 50, 1), (900, MAX_OF_EACH, 0)] {
            session.receive(Peer::Client, Time(2), "NOOP\r\n".repeat(commands).as_bytes(), &mut items);
            session.receive(Peer::Server, Time(3), "250 ok\r\n".repeat(commands).as_bytes(), &mut items);
            items.clear();
            assert_eq!((items.commands.len(), items.replies.len(), items.queues.len()), (kept, kept, queues));
        }
    }

    #[test]
    fn what_is_long_is_not_kept() {
        let mut items = DecoderOutput::default();
        items.take_command(Box::new(Command::with_room(MAX_ROOM + 1)));
        items.take_reply(Box::new(Reply::with_room(MAX_ROOM + 1)));
        assert!(items.commands.is_empty() && items.replies.is_empty());
    }
}
