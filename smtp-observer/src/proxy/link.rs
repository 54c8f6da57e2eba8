//! A connection that carries a client's conversation on.

use std::time::Duration;

use super::comparison::{Differences, Part, Sides};
use super::cursor::Cursor;
use super::dialogue::Dialogue;
use crate::timestamp::Timestamp;

/// A connection that carries a conversation on, or a part of it.
#[derive(Clone, Debug)]
pub struct Link {
    /// The cookie of its socket.
    pub cookie: u64,
    /// Which part of the conversation.
    pub of: Part,
    /// Which part of the connection.
    pub part: Part,
    /// Why it is taken for this.
    pub sign: Recognised,
    /// When the transaction that it carries on last began at the client, and on the connection, if it is known by that.
    transaction: Option<(Timestamp, Timestamp)>,
    /// When the client was told that the message of that is taken.
    accepted: Option<Timestamp>,
    /// It began while the client waited for the reply to its recipient, and the server was not asked for a message since: it
    /// may only verify the recipient (a callout).
    pub is_callout: bool,
    /// How far the two dialogues are compared.
    pub cursor: Cursor,
}

impl Link {
    /// One of which nothing is compared yet.
    pub fn new(cookie: u64, of: Part, part: Part, sign: Recognised) -> Self {
        let cursor = Cursor::default();
        Self { cookie, of, part, sign, transaction: None, accepted: None, is_callout: false, cursor }
    }

    /// It carries on the client's transaction that began at the first moment, from the second on.
    pub fn carries(&mut self, client: &Dialogue, (inner, outer): (Timestamp, Timestamp)) {
        let before = std::mem::replace(&mut self.sign, Recognised::Envelope);
        // What carries the conversation on from its beginning has not waited for the message. Whoever begins a transaction
        // again has begun it before, unless that was a callout.
        let is_known = before != Recognised::Alike && self.transaction.is_none_or(|(known, _)| known == inner);
        if !is_known || self.is_callout {
            (self.transaction, self.accepted) = (Some((inner, outer)), client.has_taken(inner));
            self.is_callout = client.awaited_recipient(inner, outer);
        }
    }

    /// The client's message was taken before it was sent on.
    pub fn relays(&self, client: &Dialogue) -> bool {
        let (begun, accepted) = match self.transaction {
            Some((_, begun)) => (begun, self.accepted),
            None => (*self.part.start(), client.accepted),
        };
        accepted.is_some_and(|accepted| accepted <= begun)
    }

    /// What is said on the connection is compared: it is certain enough that it carries the conversation on.
    pub fn is_compared(&self) -> bool {
        self.sign != Recognised::Alike
    }

    /// Reads what is new of the client's dialogue and of the one that carries it on.
    pub fn advance(&mut self, inner: &Dialogue, outer: &Dialogue, now: Timestamp) {
        if let Some((begun, sent_on)) = self.transaction {
            self.accepted = self.accepted.or_else(|| inner.took(begun));
            self.is_callout &= !outer.asked_for_message(sent_on);
        }
        let (of, part) = self.read_parts(inner, outer);
        let sides = Sides { inner, of: &of, outer, part: &part, slack: Duration::ZERO };
        self.cursor.unread_since = unread_since(inner, outer);
        self.cursor.advance(&sides);
        self.cursor.settle(&sides, now);
    }

    /// The parts of both in which what is said can be seen at either side.
    fn read_parts(&self, inner: &Dialogue, outer: &Dialogue) -> (Part, Part) {
        let end = unread_since(inner, outer);
        let read = |part: &Part| *part.start()..=end.map_or(*part.end(), |end| end.min(*part.end()));
        (read(&self.of), read(&self.part))
    }

    /// Adds all that differs between the client's dialogue and the one that carries it on.
    pub fn compare(&self, found: &mut Differences, inner: &Dialogue, outer: &Dialogue, overdue: Timestamp) {
        let (of, part) = self.read_parts(inner, outer);
        self.cursor.compare(found, &Sides { inner, of: &of, outer, part: &part, slack: Duration::ZERO }, overdue);
    }
}

/// What an upstream connection is recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognised {
    /// It leads where the client wanted to go, or it greets as the process does.
    Alike,
    /// So it does, and no other connection could be meant; or it has the same hello of TLS.
    AlikeAlone,
    /// The same envelope.
    Envelope,
}

/// Since when what is said at one side or at both cannot be seen.
pub fn unread_since(inner: &Dialogue, outer: &Dialogue) -> Option<Timestamp> {
    [inner, outer].into_iter().filter_map(Dialogue::unread_since).min()
}
