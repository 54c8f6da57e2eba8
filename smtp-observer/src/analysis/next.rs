//! What came behind an RSET or a NOOP.

use std::fmt;
use std::time::Duration;

use crate::smtp::Verb;

/// A client that tries a connection in order to use it has gone on by then; one that has not gone on has nothing to send.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// What the client did next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It sent a command; `early`: before it had the reply.
    Command { verb: Verb, early: bool },
    /// It sent nothing for [`PATIENCE`].
    Nothing,
    /// The connection was over.
    Closed,
    /// Another process took the connection over.
    Moved,
    /// It was not seen.
    CaptureMiss,
}

impl Next {
    /// It sent this, with the reply in hand.
    pub(super) fn is(self, verb: Verb) -> bool {
        self == Self::Command { verb, early: false }
    }

    /// It sent this together with the command that is judged.
    pub(super) fn is_early(self, verb: Verb) -> bool {
        self == Self::Command { verb, early: true }
    }

    pub(super) fn verb(self) -> Option<Verb> {
        match self {
            Self::Command { verb, .. } => Some(verb),
            _ => None,
        }
    }

    /// It had enough of the connection.
    pub(super) fn leaves(self) -> bool {
        self == Self::Closed || self.verb() == Some(Verb::Quit)
    }
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Command { verb, early } => {
                f.write_str(if verb == Verb::Other { "an unknown command" } else { verb.as_str() })?;
                f.write_str(if early { " was sent before its reply" } else { " followed" })
            }
            Self::Nothing => write!(f, "nothing followed for {} s", PATIENCE.as_secs()),
            Self::Closed => f.write_str("the connection was closed behind it"),
            Self::Moved => f.write_str("another process took the connection over behind it"),
            Self::CaptureMiss => f.write_str("what followed was not seen"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// All that differ in a judgement.
    pub(in crate::analysis) const NEXTS: [Next; 14] = [
        Next::Nothing,
        Next::Closed,
        Next::CaptureMiss,
        Next::Command { verb: Verb::Mail, early: false },
        Next::Command { verb: Verb::Mail, early: true },
        Next::Command { verb: Verb::Rcpt, early: false },
        Next::Command { verb: Verb::Data, early: false },
        Next::Command { verb: Verb::Quit, early: false },
        Next::Command { verb: Verb::Quit, early: true },
        Next::Command { verb: Verb::Auth, early: false },
        Next::Command { verb: Verb::Noop, early: true },
        Next::Command { verb: Verb::Rset, early: false },
        Next::Command { verb: Verb::Other, early: false },
        Next::Moved,
    ];

    #[test]
    fn words() {
        for (next, expected) in [
            (NEXTS[0], "nothing followed for 1 s"),
            (NEXTS[3], "MAIL followed"),
            (NEXTS[4], "MAIL was sent before its reply"),
            (NEXTS[12], "an unknown command followed"),
        ] {
            assert_eq!(next.to_string(), expected);
        }
    }
}
