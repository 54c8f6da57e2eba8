//! Which process each fact is about.

use super::Out;
use super::tracker::{Conversation, Tracker};
use crate::connection::{Connection, Handover};
use crate::event::TransferEvent;
use crate::fact::What;
use crate::observation::{Caller, Role};
use crate::smtp::{Item, Peer};

impl Tracker {
    /// Notes who uses the connection, and for what.
    pub(super) fn note_user(
        &mut self,
        conversation: &mut Conversation,
        peer: Peer,
        event: &TransferEvent,
        out: &mut Out<'_>,
    ) {
        let caller = self.processes.caller(&event.task);
        let Conversation { connection, session, .. } = &mut *conversation;
        let handover = match session.acts_as(peer) {
            Peer::Client => {
                // With the roles reversed it is not told whose the connection is: they may change within a call.
                let may_take_up = session.has_nothing_outstanding() && !session.is_reversed();
                connection.users.command(&caller, may_take_up, event.time);
                None
            }
            Peer::Server => connection.users.reply(&caller),
        };
        conversation.announce(&self.host, out);
        if let Some(handover) = handover {
            self.hand_over(conversation, &handover, out);
        }
    }

    /// Another process has the connection now. At the server's end that says nothing of what the client does.
    pub(super) fn hand_over(&self, conversation: &mut Conversation, handover: &Handover, out: &mut Out<'_>) {
        let Conversation { connection, analysis, .. } = conversation;
        if connection.role() == Role::Client {
            let told = &mut |time, process: Option<&Caller>, what: What<'_>| {
                out.tell(&connection.fact_of(&self.host, time, process, what));
            };
            analysis.owner_changed(handover.time, told);
        }
        if handover.is_told {
            let what = What::ConnectionOwnerChanged { previous: &handover.previous };
            out.tell(&connection.fact(&self.host, handover.time, what));
        }
    }
}

impl Connection {
    /// The process that an item is about: the one that sent the command, or the end of the content.
    pub(super) fn process_of(&self, item: &Item) -> Option<&Caller> {
        match item {
            Item::Exchange(exchange) => self.users.sender(exchange.command.last_byte),
            Item::Message(message) => {
                message.ended_at.or(message.requested_at).and_then(|time| self.users.sender(time))
            }
            _ => self.users.owner(),
        }
    }
}
