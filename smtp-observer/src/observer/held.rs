//! What all sessions together hold while they wait for servers: bounded, whatever so many peers do.

use super::Out;
use super::tracker::{Conversation, Tracker};
use crate::event::Time;

/// Bytes that all sessions together may take for what waits for servers. Beyond it those give up who have more than is
/// [`FAIR_HELD_BYTES`]: one that waits for a few replies does not.
const MAX_HELD_BYTES: usize = 8 << 20;

/// What each may have then.
const FAIR_HELD_BYTES: usize = 8 << 10;

impl Tracker {
    /// Has a session that takes too much of the room for what waits for servers give up.
    pub(super) fn bound_held(&mut self, conversation: &mut Conversation, time: Time, out: &mut Out<'_>) {
        self.count_held(conversation, conversation.session.held_bytes());
        if self.held_bytes > MAX_HELD_BYTES && conversation.held_bytes > FAIR_HELD_BYTES {
            conversation.session.give_up(time, &mut self.items);
            self.analyse(conversation, out);
            self.count_held(conversation, conversation.session.held_bytes());
        }
    }

    /// A session takes so much of the room for what waits for servers.
    pub(super) fn count_held(&mut self, conversation: &mut Conversation, held: usize) {
        self.held_bytes = self.held_bytes + held - std::mem::replace(&mut conversation.held_bytes, held);
    }
}
