//! The transaction behind an RSET, compared with the one before it.

use std::fmt;

use super::envelope::Envelope;
use crate::smtp::{Exchange, Message, Verb};

/// How they compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Their senders differ.
    OtherSender,
    /// Their senders are the same, their recipients are not.
    OtherRecipients,
    /// Both are the same, and then the message was to come.
    SameEnvelope,
    /// Of two messages of the same sender either the sizes differ, or the recipients do not.
    OtherMessage,
    /// The same sender sent so many bytes to other recipients as before.
    SameMessage(u64),
    /// The same sender was named, and no message came.
    Unfinished,
    /// The same sender was named, and what came then was not seen.
    CaptureMiss,
}

/// A comparison under way: the same sender was named again.
#[derive(Debug)]
pub(super) struct Comparison {
    first: Envelope,
    /// Bytes of the first message; absent where there was none.
    message: Option<u64>,
    second: Envelope,
    /// The message is compared too.
    to_the_end: bool,
}

impl Comparison {
    /// Begins with MAIL. What is known at once comes instead.
    pub(super) fn begin(
        first: Envelope,
        message: Option<u64>,
        to_the_end: bool,
        mail: &Exchange,
    ) -> Result<Self, Repeat> {
        let second = Envelope::mail(&mail.command);
        if !first.has_sender_of(&second) {
            return Err(Repeat::OtherSender);
        }
        match &mail.reply {
            Some(reply) if reply.accepts() => Ok(Self { first, message, second, to_the_end }),
            _ => Err(Repeat::Unfinished),
        }
    }

    /// Takes the next exchange into account.
    pub(super) fn exchange(&mut self, exchange: &Exchange) -> Option<Repeat> {
        match exchange.command.verb {
            Verb::Rcpt => {
                self.second.rcpt(&exchange.command);
                None
            }
            Verb::Noop => None,
            Verb::Data | Verb::Bdat | Verb::Burl if self.to_the_end => {
                exchange.reply.as_ref().is_none_or(|reply| reply.refuses()).then_some(Repeat::Unfinished)
            }
            Verb::Data | Verb::Bdat | Verb::Burl => Some(match self.first.has_recipients_of(&self.second) {
                true => Repeat::SameEnvelope,
                false => Repeat::OtherRecipients,
            }),
            _ => Some(Repeat::Unfinished),
        }
    }

    /// The second message is over.
    pub(super) fn message(&self, message: &Message) -> Repeat {
        match (self.message, message.size) {
            (Some(first), Some(second)) if first == second && !self.first.has_recipients_of(&self.second) => {
                Repeat::SameMessage(first)
            }
            (Some(_), Some(_)) => Repeat::OtherMessage,
            _ => Repeat::CaptureMiss,
        }
    }
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherSender => f.write_str("another sender was named then"),
            Self::OtherRecipients => f.write_str("the same sender was named again, with other recipients"),
            Self::SameEnvelope => f.write_str("the same sender and recipients were named again, then the message came"),
            Self::OtherMessage => f.write_str("the same sender was named again, with another message"),
            Self::SameMessage(size) => {
                write!(f, "the same sender sent as many bytes to other recipients then: {size}")
            }
            Self::Unfinished => f.write_str("the same sender was named again, and no message came"),
            Self::CaptureMiss => f.write_str("the same sender was named again"),
        }
    }
}
