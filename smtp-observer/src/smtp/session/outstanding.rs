//! What the peers still owe each other.

use super::super::decoder_output::DecoderOutput;
use super::super::item::{Exchange, Item};
use super::super::pending_replies::{ExpectedReplies, PendingReply};
use super::{Mode, Session};

impl Session {
    /// Whether nothing is outstanding, as far as is known: no reply, and neither the rest of a line nor of a message.
    pub(crate) fn has_nothing_outstanding(&self) -> bool {
        let between_commands = match &self.mode {
            Mode::Command | Mode::StartTls { .. } | Mode::ClientTls(_) | Mode::Handshake(_) | Mode::Opaque { .. } => {
                true
            }
            Mode::Resync(lost) => lost.has_nothing_outstanding(),
            Mode::Answer | Mode::Undecided | Mode::UndecidedForLine(..) | Mode::Body(..) | Mode::Octets(_) => false,
        };
        between_commands && self.is_at_rest()
    }

    /// Whether it is certain which commands have their replies.
    pub(crate) fn is_paired(&self) -> bool {
        let is_read = !self.is_opaque() && !matches!(self.mode, Mode::Resync(_) | Mode::ClientTls(_));
        is_read && self.unsettled.is_none() && self.fork.is_none() && self.last_word.is_none() && !self.garbled
    }

    /// Bytes of memory that it takes for what waits for the server, about.
    pub fn held_bytes(&self) -> usize {
        let handshake = match &self.mode {
            Mode::Handshake(handshake) => handshake.cost(),
            Mode::ClientTls(client) => client.handshake.cost(),
            _ => 0,
        };
        let unsettled = self.unsettled.as_ref().map_or(0, |unsettled| unsettled.cost());
        self.waiting.cost() + self.held.cost() + unsettled + handshake
    }

    /// Replies that the end of a message earns, of which none has come.
    pub(super) fn replies_to_message(&self) -> u32 {
        self.recipients.filter(|_| self.lmtp == Some(true)).map_or(1, |recipients| u32::from(recipients).max(1))
    }

    /// What waited comes out without a reply.
    pub(super) fn unanswered(&mut self, waits: PendingReply, items: &mut DecoderOutput) {
        match waits {
            PendingReply::Command(command, mut message) => {
                self.report_hello(&command, None, items);
                if command.verb.starts_tls() {
                    self.offer.settle();
                }
                items.push(Item::Exchange(Exchange { command, reply: None }));
                if let Some(message) = message.as_mut().filter(|message| message.ended_at.is_some()) {
                    message.owed = self.replies_to_message() - 1;
                }
                message.into_iter().for_each(|message| items.push(Item::Message(message)));
            }
            PendingReply::Message(mut message, owed) => {
                message.owed = match owed {
                    ExpectedReplies::Unknown => self.replies_to_message(),
                    known => known.count(),
                };
                items.push(Item::Message(message));
            }
            PendingReply::Greeting | PendingReply::Octets => {}
        }
    }
}
