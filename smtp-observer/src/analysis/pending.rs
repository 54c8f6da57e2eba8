//! RSETs and NOOPs whose reason depends on what the client does next.

use std::time::Duration;

use super::comparison::Comparison;
use super::session_tracker::CommandContext;
use super::{Emit, noop, rset};
use crate::event::Time;
use crate::fact::Reasoned;
use crate::fact::What;
use crate::fact::evidence::{
    EvidenceList, NEXT_COMMAND_TIMEOUT, NextAction, ReasonEvidence, SessionState, TransactionComparison,
};
use crate::identity::Caller;
use crate::names::{NoopReason, RsetReason};
use crate::smtp::{Exchange, Message};

/// The commands whose reason is not known yet. The next command, the end of the connection, a loss or a deadline settles them:
/// whichever was first on the wire, by the times of the events.
#[derive(Debug, Default)]
pub(super) struct Pending {
    rset: Option<Box<Rset>>,
    noop: Option<Box<Answered>>,
}

/// An RSET or a NOOP, with its reply.
#[derive(Debug)]
pub(super) struct Answered {
    /// When the reply was complete.
    pub(super) time: Time,
    pub(super) latency: Option<Duration>,
    pub(super) code: u16,
    pub(super) context: CommandContext,
    /// Who sent it, where that is known.
    pub(super) process: Option<Caller>,
}

#[derive(Debug)]
struct Rset {
    answered: Answered,
    /// The MAIL that came next, and the comparison of its transaction with the one before.
    compared: Option<(NextAction, Comparison)>,
}

impl Pending {
    /// An RSET was answered.
    pub(super) fn rset(&mut self, answered: Answered, emit: &mut Emit<'_>) {
        match rset::immediate(&answered.context) {
            Some(reason) => {
                let evidence = answered.context.evidence();
                answered.rset(reason, evidence, emit);
            }
            None => self.rset = Some(Box::new(Rset { answered, compared: None })),
        }
    }

    /// A NOOP was answered.
    pub(super) fn noop(&mut self, answered: Answered, emit: &mut Emit<'_>) {
        match noop::immediate(&answered.context) {
            Some(reason) => {
                let evidence = answered.context.evidence();
                answered.noop(reason, evidence, emit);
            }
            None => self.noop = Some(Box::new(answered)),
        }
    }

    /// The next command came, with its reply; whether the client had waited before it for the reply to the one before.
    pub(super) fn exchange(&mut self, exchange: &Exchange, waited: bool, emit: &mut Emit<'_>) {
        if let Some(mut rset) = self.rset.take() {
            match rset.exchange(exchange, waited) {
                Some((next, comparison)) => rset.answered.settle_rset(next, comparison, emit),
                None => self.rset = Some(rset),
            }
        }
        if let Some(noop) = self.noop.take() {
            noop.settle_noop(next(exchange, waited, noop.deadline()), emit);
        }
    }

    /// A message is over.
    pub(super) fn message(&mut self, message: &Message, emit: &mut Emit<'_>) {
        let Some(rset) = self.rset.take_if(|rset| rset.compared.is_some()) else { return };
        if let Some((next, comparison)) = rset.compared {
            rset.answered.settle_rset(next, Some(comparison.message(message)), emit);
        }
    }

    /// Something was not seen.
    pub(super) fn unseen(&mut self, emit: &mut Emit<'_>) {
        self.settle(|_| Some(NextAction::Unknown), emit);
    }

    /// Another process goes on with the socket.
    pub(super) fn owner_changed(&mut self, emit: &mut Emit<'_>) {
        self.settle(|_| Some(NextAction::OwnerChanged), emit);
    }

    /// The connection is over.
    pub(super) fn finish(&mut self, time: Time, emit: &mut Emit<'_>) {
        let next = |deadline: Option<Time>| match deadline.is_some_and(|deadline| time >= deadline) {
            true => Some(NextAction::Nothing),
            false => Some(NextAction::Closed),
        };
        self.settle(next, emit);
    }

    /// When [`Self::pass`] is to be called.
    pub(super) fn deadline(&self) -> Option<Time> {
        let rset = self.rset.as_ref().and_then(|rset| rset.deadline());
        let noop = self.noop.as_ref().map(|noop| noop.deadline());
        [rset, noop].into_iter().flatten().min()
    }

    /// Nothing was said until `now`.
    pub(super) fn pass(&mut self, now: Time, emit: &mut Emit<'_>) {
        self.settle(|deadline| deadline.filter(|deadline| *deadline <= now).map(|_| NextAction::Nothing), emit);
    }

    /// Settles each command for whose deadline `next` gives an action.
    fn settle(&mut self, next: impl Fn(Option<Time>) -> Option<NextAction>, emit: &mut Emit<'_>) {
        if let Some(rset) = self.rset.take() {
            match (next(rset.deadline()), rset.compared) {
                (Some(NextAction::Unknown), Some((next, _))) => {
                    rset.answered.settle_rset(next, Some(TransactionComparison::Unknown), emit);
                }
                (Some(_), Some((next, _))) => {
                    rset.answered.settle_rset(next, Some(TransactionComparison::Unfinished), emit)
                }
                (Some(next), None) => rset.answered.settle_rset(next, None, emit),
                (None, compared) => self.rset = Some(Box::new(Rset { answered: rset.answered, compared })),
            }
        }
        if let Some(noop) = self.noop.take() {
            match next(Some(noop.deadline())) {
                Some(next) => noop.settle_noop(next, emit),
                None => self.noop = Some(noop),
            }
        }
    }
}

impl Rset {
    fn deadline(&self) -> Option<Time> {
        let waits = self.compared.is_none() && !rset::waits_without_deadline(&self.answered.context);
        waits.then(|| self.answered.deadline())
    }

    /// Takes the next exchange; gives the next action and the comparison, once both are known.
    fn exchange(&mut self, exchange: &Exchange, waited: bool) -> Option<(NextAction, Option<TransactionComparison>)> {
        if let Some((next, comparison)) = &mut self.compared {
            return comparison.exchange(exchange).map(|comparison| (*next, Some(comparison)));
        }
        let next = next(exchange, waited, self.deadline().unwrap_or(Time(u64::MAX)));
        self.answered.context.followed = Some(exchange.command.first_byte.since(self.answered.time));
        let context = &self.answered.context;
        if !rset::compares(context, next) {
            return Some((next, None));
        }
        let to_the_end = context.state == SessionState::MessageAccepted;
        match Comparison::begin(context.envelope, context.size, to_the_end, exchange) {
            Ok(comparison) => {
                self.compared = Some((next, comparison));
                None
            }
            Err(comparison) => Some((next, Some(comparison))),
        }
    }
}

impl Answered {
    fn deadline(&self) -> Time {
        Time(self.time.0.saturating_add(NEXT_COMMAND_TIMEOUT.as_nanos() as u64))
    }

    fn rset(&self, reason: RsetReason, evidence: EvidenceList, emit: &mut Emit<'_>) {
        let Self { time, latency, code, .. } = *self;
        emit(time, self.process.as_ref(), What::Rset(&Reasoned { reason, evidence, latency, code: Some(code) }));
    }

    fn settle_rset(&self, next: NextAction, comparison: Option<TransactionComparison>, emit: &mut Emit<'_>) {
        let reasons = rset::possible(&self.context, self.is_accepted(), next, comparison);
        let mut evidence = self.evidence(next);
        evidence.extend(comparison.map(ReasonEvidence::Comparison));
        let reason = reasons.only().unwrap_or_else(|| {
            evidence.push(ReasonEvidence::PossibleRset(reasons));
            RsetReason::Ambiguous
        });
        self.rset(reason, evidence, emit);
    }

    fn noop(&self, reason: NoopReason, evidence: EvidenceList, emit: &mut Emit<'_>) {
        let Self { time, latency, code, .. } = *self;
        emit(time, self.process.as_ref(), What::Noop(&Reasoned { reason, evidence, latency, code: Some(code) }));
    }

    fn settle_noop(&self, next: NextAction, emit: &mut Emit<'_>) {
        let reasons = noop::possible(&self.context, self.is_accepted(), next);
        let mut evidence = self.evidence(next);
        // One connection alone does not show that a program in the middle waits.
        let reason = reasons.only().filter(|reason| *reason != NoopReason::InterceptorKeepalive).unwrap_or_else(|| {
            evidence.push(ReasonEvidence::PossibleNoop(reasons));
            NoopReason::Ambiguous
        });
        self.noop(reason, evidence, emit);
    }

    fn is_accepted(&self) -> bool {
        self.code / 100 == 2
    }

    /// The context of the command, its reply if that refuses it, and the next action.
    fn evidence(&self, next: NextAction) -> EvidenceList {
        let mut evidence = self.context.evidence();
        if !self.is_accepted() {
            evidence.push(ReasonEvidence::Refused(self.code));
        }
        evidence.push(ReasonEvidence::Next(next));
        evidence
    }
}

/// The next action that this exchange is.
fn next(Exchange { command, .. }: &Exchange, waited: bool, deadline: Time) -> NextAction {
    match command.first_byte >= deadline {
        true => NextAction::Nothing,
        false if waited => NextAction::StoppedWaiting(command.verb),
        false => NextAction::Command { verb: command.verb, early: command.pipelined },
    }
}
