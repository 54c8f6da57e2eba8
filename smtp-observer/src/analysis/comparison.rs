//! Compares the transaction after an RSET with the one before it.

use super::envelope::Envelope;
use crate::fact::evidence::TransactionComparison;
use crate::smtp::{Exchange, Message, Verb};

/// A comparison that is not complete: both transactions name the same sender.
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
    /// Begins with the second MAIL. The error is the result, if MAIL alone decides it.
    pub(super) fn begin(
        first: Envelope,
        message: Option<u64>,
        to_the_end: bool,
        mail: &Exchange,
    ) -> Result<Self, TransactionComparison> {
        let second = Envelope::mail(&mail.command);
        if !first.has_sender_of(&second) {
            return Err(TransactionComparison::OtherSender);
        }
        match &mail.reply {
            Some(reply) if reply.accepts() => Ok(Self { first, message, second, to_the_end }),
            _ => Err(TransactionComparison::Unfinished),
        }
    }

    /// Takes the next exchange into account.
    pub(super) fn exchange(&mut self, exchange: &Exchange) -> Option<TransactionComparison> {
        match exchange.command.verb {
            Verb::Rcpt => {
                self.second.rcpt(&exchange.command);
                None
            }
            Verb::Noop => None,
            Verb::Data | Verb::Bdat | Verb::Burl if self.to_the_end => match &exchange.reply {
                Some(reply) => reply.refuses().then_some(TransactionComparison::Unfinished),
                None => Some(TransactionComparison::Unknown),
            },
            Verb::Data | Verb::Bdat | Verb::Burl => Some(match self.first.has_recipients_of(&self.second) {
                true => TransactionComparison::SameEnvelope,
                false => TransactionComparison::OtherRecipients,
            }),
            _ => Some(TransactionComparison::Unfinished),
        }
    }

    /// The second message is over.
    pub(super) fn message(&self, message: &Message) -> TransactionComparison {
        match (self.message, message.size) {
            (Some(first), Some(second)) if first != second => TransactionComparison::OtherMessage,
            (Some(bytes), Some(_)) => match self.first.has_recipients_of(&self.second) {
                true => TransactionComparison::Repeated { bytes },
                false => TransactionComparison::SameMessage { bytes },
            },
            _ => TransactionComparison::Unknown,
        }
    }
}
