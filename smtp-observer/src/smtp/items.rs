//! Where sessions put what they yield, and the room they work in.

use std::collections::VecDeque;
use std::ops::Deref;

use super::item::{Exchange, Item};
use super::reply::Reply;
use super::waiting::Slot;

/// Buffers that are kept for the next lines, and the longest of them: a few commands pipelined on many connections, or
/// many on one.
const MOST_BUFFERS: usize = 256;
const LONGEST_BUFFER: usize = 512;

/// Bytes of a new buffer: few lines of a dialogue are longer.
const BUFFER: usize = 128;

/// Queues that are kept for the next commands, and the longest of them.
const MOST_QUEUES: usize = 64;
const LONGEST_QUEUE: usize = 128;

/// Places in a new queue.
const QUEUE: usize = 4;

/// What sessions have yielded, in order. It lends them room and, cleared, has back that of its items: a dialogue that
/// goes on as before allocates nothing, and a session that waits for nothing holds nothing.
#[derive(Debug, Default)]
pub struct Items {
    items: Vec<Item>,
    buffers: Vec<Vec<u8>>,
    queues: Vec<VecDeque<Slot>>,
}

impl Items {
    /// Adds what comes next.
    pub(super) fn push(&mut self, item: Item) {
        self.items.push(item);
    }

    /// Lets go of all items.
    pub fn clear(&mut self) {
        let mut items = std::mem::take(&mut self.items);
        for item in items.drain(..) {
            match item {
                Item::Exchange(Exchange { command, reply }) => {
                    self.take_buffer(command.line);
                    reply.into_iter().for_each(|Reply { text, .. }| self.take_buffer(text));
                }
                Item::Greeting(reply) => self.take_buffer(reply.text),
                Item::Message(message) => {
                    message.reply.into_iter().for_each(|reply| self.take_buffer(reply.text));
                    message.go_ahead.into_iter().for_each(|go_ahead| self.take_buffer(go_ahead.text));
                }
                _ => {}
            }
        }
        self.items = items;
    }

    /// An empty buffer.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER))
    }

    /// Takes back a buffer.
    pub(super) fn take_buffer(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() < MOST_BUFFERS && (1..=LONGEST_BUFFER).contains(&buffer.capacity()) {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    /// An empty queue.
    pub(super) fn queue(&mut self) -> VecDeque<Slot> {
        self.queues.pop().unwrap_or_else(|| VecDeque::with_capacity(QUEUE))
    }

    /// Takes back a queue.
    pub(super) fn take_queue(&mut self, mut queue: VecDeque<Slot>) {
        if self.queues.len() < MOST_QUEUES && (QUEUE..=LONGEST_QUEUE).contains(&queue.capacity()) {
            queue.clear();
            self.queues.push(queue);
        }
    }
}

impl Extend<Item> for Items {
    fn extend<I: IntoIterator<Item = Item>>(&mut self, items: I) {
        self.items.extend(items);
    }
}

impl Deref for Items {
    type Target = [Item];

    fn deref(&self) -> &[Item] {
        &self.items
    }
}

impl IntoIterator for Items {
    type Item = Item;
    type IntoIter = std::vec::IntoIter<Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Time;
    use crate::smtp::{Peer, Session};

    #[test]
    fn room_is_used_again_and_bounded() {
        let mut items = Items::default();
        let mut session = Session::new();
        session.receive(Peer::Server, Time(1), b"220 mx.example\r\n", &mut items);
        items.clear();
        for (commands, buffers, queues) in [(1, 2, 1), (50, 100, 1), (1, 100, 1), (900, MOST_BUFFERS, 0)] {
            session.receive(Peer::Client, Time(2), "NOOP\r\n".repeat(commands).as_bytes(), &mut items);
            session.receive(Peer::Server, Time(3), "250 ok\r\n".repeat(commands).as_bytes(), &mut items);
            items.clear();
            assert_eq!((items.len(), items.buffers.len(), items.queues.len()), (0, buffers, queues));
        }
    }

    #[test]
    fn long_buffers_are_not_kept() {
        let mut items = Items::default();
        items.take_buffer(vec![b'x'; LONGEST_BUFFER + 1]);
        items.take_buffer(Vec::new());
        assert!(items.buffers.is_empty());
        items.take_buffer(vec![b'x'; LONGEST_BUFFER]);
        assert!(items.buffer().is_empty() && items.buffers.is_empty());
    }
}
