//! What the client did after an RSET or a NOOP.

use crate::fact::evidence::NextAction;
use crate::smtp::Verb;

impl NextAction {
    /// It sent a command with this verb, after the reply.
    pub(super) fn is(self, verb: Verb) -> bool {
        self == Self::Command { verb, early: false }
    }

    /// It sent a command with this verb before the reply.
    pub(super) fn is_early(self, verb: Verb) -> bool {
        self == Self::Command { verb, early: true }
    }

    /// The verb of the command that it sent.
    pub(super) fn verb(self) -> Option<Verb> {
        match self {
            Self::Command { verb, .. } | Self::StoppedWaiting(verb) => Some(verb),
            _ => None,
        }
    }

    /// It ends the connection.
    pub(super) fn leaves(self) -> bool {
        self == Self::Closed || self.verb() == Some(Verb::Quit)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// All that the reasons depend on.
    pub(in crate::analysis) const NEXT_ACTIONS: [NextAction; 16] = [
        NextAction::Nothing,
        NextAction::Closed,
        NextAction::Unknown,
        NextAction::Command { verb: Verb::Mail, early: false },
        NextAction::Command { verb: Verb::Mail, early: true },
        NextAction::Command { verb: Verb::Rcpt, early: false },
        NextAction::Command { verb: Verb::Data, early: false },
        NextAction::Command { verb: Verb::Quit, early: false },
        NextAction::Command { verb: Verb::Quit, early: true },
        NextAction::Command { verb: Verb::Auth, early: false },
        NextAction::Command { verb: Verb::Noop, early: true },
        NextAction::Command { verb: Verb::Rset, early: false },
        NextAction::Command { verb: Verb::Other, early: false },
        NextAction::OwnerChanged,
        NextAction::StoppedWaiting(Verb::Mail),
        NextAction::StoppedWaiting(Verb::Quit),
    ];
}
