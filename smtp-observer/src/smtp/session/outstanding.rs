//! What the peers still owe each other.

use super::{Mode, Session};

impl Session {
    /// Whether nothing is outstanding, as far as is known: no reply, and neither the rest of a line nor of a message.
    pub(crate) fn has_nothing_outstanding(&self) -> bool {
        let between_commands = match &self.mode {
            Mode::Command | Mode::StartTls { .. } | Mode::ClientTls { .. } | Mode::Opaque => true,
            Mode::Resync(lost) => lost.has_nothing_outstanding(),
            Mode::Answer | Mode::Undecided | Mode::UndecidedForLine(..) | Mode::Body(..) | Mode::Octets(_) => false,
        };
        between_commands && self.is_at_rest()
    }

    /// Whether it is certain which commands have their replies.
    pub(crate) fn is_paired(&self) -> bool {
        let is_read = !matches!(self.mode, Mode::Resync(_) | Mode::ClientTls { .. } | Mode::Opaque);
        is_read && self.unsettled.is_none() && self.fork.is_none() && self.last_word.is_none() && !self.garbled
    }
}
