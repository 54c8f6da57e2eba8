//! What leads to the reason of an RSET or a NOOP, with its numbers. It has no text: `observation::words` puts it in words.

use std::time::Duration;

use super::short_list::ShortList;
use crate::names::{NoopReason, RsetReason};
use crate::smtp::Verb;

/// A client that tests a connection in order to use it sends its next command sooner than this; a client that has not sent one by
/// then has nothing to send.
pub const NEXT_COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

/// The evidence for one reason, in the order in which it is told. One command has at most the state before it, NOOPs before it, a
/// pause, another owner, lower case, its reply, what came next, the comparison of two transactions and the reasons that are left.
pub type EvidenceList = ShortList<ReasonEvidence, 9>;

/// The reasons that the evidence leaves, in the order in which they are told. There are fewer than 15 wherever one is looked for.
pub type Reasons<R> = ShortList<R, 14>;

/// One piece of evidence for the reason of a command, which is an RSET or a NOOP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasonEvidence {
    /// The state of the session when the command came.
    State(SessionState),
    /// So many NOOPs were sent in the session, the command included.
    NoopsInSession(u32),
    /// So many NOOPs with no other command between them, the command included.
    NoopsInARow(u32),
    /// So many NOOPs in a row came at a constant period, the command included.
    PeriodicNoops {
        /// How many.
        count: u32,
        /// From one to the next.
        period: Duration,
    },
    /// So many NOOPs were sent right before the command, which is none.
    NoopsBefore(u32),
    /// The command was sent before the reply to the command before it (RFC 2920).
    Pipelined,
    /// The same, but so long after the command before it that the client has stopped waiting.
    StoppedWaiting(Duration),
    /// Nothing was said for so long before the command.
    Idle(Duration),
    /// Another process took the connection over before the command.
    OwnerChanged,
    /// The verb was sent in lower case.
    LowerCase,
    /// The reply to the command has this code, which is not 2yz.
    Refused(u16),
    /// What the client did next.
    Next(NextAction),
    /// How the next transaction compares with the one before the command.
    Comparison(TransactionComparison),
    /// The reasons of an RSET that all of this leaves.
    PossibleRset(Reasons<RsetReason>),
    /// The reasons of a NOOP that all of this leaves.
    PossibleNoop(Reasons<NoopReason>),
    /// The client of a proxy had sent the same verb to the proxy.
    SentByClient {
        /// The command's verb.
        verb: Verb,
        /// How long before the proxy sent it.
        earlier: Duration,
    },
    /// The client of a proxy had not sent this verb, which is the command's.
    NotSentByClient(Verb),
    /// The client of a proxy had sent DATA so long before, and the proxy had not passed it on to the server.
    DataHeldBack(Duration),
    /// A proxy began the same transaction again after the command.
    TransactionRepeated,
    /// What the client of a proxy sent at that time is not kept any more.
    ClientCommandsForgotten,
}

/// What a session has come to: the last event in it that matters for the reason of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionState {
    /// It was not seen.
    #[default]
    Unknown,
    /// No MAIL was sent so far.
    Start,
    /// AUTH was accepted, before any MAIL.
    Authenticated,
    /// AUTH was refused, before any MAIL.
    AuthRefused {
        /// The reply's code.
        code: u16,
    },
    /// No transaction is open, and there was one before, or may have been.
    Idle,
    /// MAIL was refused.
    SenderRefused {
        /// The reply's code.
        code: u16,
    },
    /// MAIL was accepted.
    Envelope {
        /// Recipients that the server accepted.
        accepted: u32,
        /// Recipients that it refused.
        rejected: u32,
        /// The last one of them all was refused.
        refused_last: bool,
    },
    /// DATA was refused though a recipient was accepted, or before one was named.
    DataRefused {
        /// The reply's code.
        code: u16,
    },
    /// A chunk of a message was accepted, the last is to come.
    Chunk,
    /// A chunk that is not the last was refused.
    ChunkRefused {
        /// The reply's code.
        code: u16,
    },
    /// The message was accepted.
    MessageAccepted,
    /// The message was refused.
    MessageRefused {
        /// The reply's code.
        code: u16,
    },
}

/// What the client did after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextAction {
    /// It sent another command.
    Command {
        /// That command's verb.
        verb: Verb,
        /// It was sent before the reply to the first one.
        early: bool,
    },
    /// It sent a command with this verb before the reply to the first one, and had waited for that reply.
    StoppedWaiting(Verb),
    /// It sent nothing for [`NEXT_COMMAND_TIMEOUT`].
    Nothing,
    /// The connection was over.
    Closed,
    /// Another process took the connection over.
    OwnerChanged,
    /// It was not seen.
    Unknown,
}

/// How two transactions of a session compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionComparison {
    /// Their senders differ.
    OtherSender,
    /// Their senders are the same, their recipients are not.
    OtherRecipients,
    /// Senders and recipients are the same, and then the message was to come.
    SameEnvelope,
    /// Two messages of the same sender differ in their sizes.
    OtherMessage,
    /// The same sender sent as many bytes to the same recipients: the same message again, or one like it.
    Repeated {
        /// Bytes of either message.
        bytes: u64,
    },
    /// The same sender sent as many bytes to other recipients.
    SameMessage {
        /// Bytes of either message.
        bytes: u64,
    },
    /// The same sender was named, and no message came.
    Unfinished,
    /// The same sender was named, and what came then was not seen.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::Reasoned;

    #[test]
    fn a_reason_with_its_evidence_is_small() {
        assert!(size_of::<ReasonEvidence>() <= 24, "{}", size_of::<ReasonEvidence>());
        assert!(size_of::<Reasoned<RsetReason>>() <= 256, "{}", size_of::<Reasoned<RsetReason>>());
    }
}
