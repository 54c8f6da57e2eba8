//! RSETs and NOOPs whose reason depends on what comes next.

use std::time::Duration;

use super::next::{Next, PATIENCE};
use super::repeat::{Comparison, Repeat};
use super::session_tracker::{CommandContext, SessionState};
use super::{Told, noop, rset};
use crate::event::Time;
use crate::fact::What;
use crate::observation::{NoopReason, Reasoned, RsetReason};
use crate::smtp::{Exchange, Message};

/// What waits. It is settled by the next command, by the end of the connection, by a loss, or by a deadline: whichever
/// was first on the wire, not in this program.
#[derive(Debug, Default)]
pub(super) struct Pending {
    rset: Option<Box<Rset>>,
    noop: Option<Box<Answered>>,
}

/// An RSET or a NOOP, with its reply.
#[derive(Debug)]
pub(super) struct Answered {
    /// When the reply was there.
    pub(super) time: Time,
    pub(super) latency: Option<Duration>,
    pub(super) code: u16,
    pub(super) before: CommandContext,
}

#[derive(Debug)]
struct Rset {
    answered: Answered,
    /// What came next, and began a transaction that is compared.
    compared: Option<(Next, Comparison)>,
}

impl Pending {
    /// An RSET was answered.
    pub(super) fn rset(&mut self, answered: Answered, told: &mut Told<'_>) {
        match rset::at_once(&answered.before) {
            Some(reason) => {
                let evidence = answered.before.evidence();
                answered.rset(reason, evidence, told);
            }
            None => self.rset = Some(Box::new(Rset { answered, compared: None })),
        }
    }

    /// A NOOP was answered.
    pub(super) fn noop(&mut self, answered: Answered, told: &mut Told<'_>) {
        match noop::at_once(&answered.before) {
            Some(reason) => {
                let evidence = answered.before.evidence();
                answered.noop(reason, evidence, told);
            }
            None => self.noop = Some(Box::new(answered)),
        }
    }

    /// The next command came.
    pub(super) fn exchange(&mut self, exchange: &Exchange, told: &mut Told<'_>) {
        if let Some(mut rset) = self.rset.take() {
            match rset.exchange(exchange) {
                Some((next, repeat)) => rset.answered.rset_settled(next, repeat, told),
                None => self.rset = Some(rset),
            }
        }
        if let Some(noop) = self.noop.take() {
            noop.noop_settled(next(exchange, noop.deadline()), told);
        }
    }

    /// A message is over.
    pub(super) fn message(&mut self, message: &Message, told: &mut Told<'_>) {
        let Some(rset) = self.rset.take_if(|rset| rset.compared.is_some()) else { return };
        if let Some((next, comparison)) = rset.compared {
            rset.answered.rset_settled(next, Some(comparison.message(message)), told);
        }
    }

    /// Nothing more is known of what comes.
    pub(super) fn unseen(&mut self, told: &mut Told<'_>) {
        self.settle(|_| Some(Next::CaptureMiss), told);
    }

    /// Another process goes on with the socket.
    pub(super) fn moved(&mut self, told: &mut Told<'_>) {
        self.settle(|_| Some(Next::Moved), told);
    }

    /// The connection is over.
    pub(super) fn finish(&mut self, time: Time, told: &mut Told<'_>) {
        let next = |deadline: Option<Time>| match deadline.is_some_and(|deadline| time >= deadline) {
            true => Some(Next::Nothing),
            false => Some(Next::Closed),
        };
        self.settle(next, told);
    }

    /// When that nothing came says something, too.
    pub(super) fn deadline(&self) -> Option<Time> {
        let rset = self.rset.as_ref().and_then(|rset| rset.deadline());
        let noop = self.noop.as_ref().map(|noop| noop.deadline());
        [rset, noop].into_iter().flatten().min()
    }

    /// Nothing was said until now.
    pub(super) fn pass(&mut self, now: Time, told: &mut Told<'_>) {
        self.settle(|deadline| deadline.filter(|deadline| *deadline <= now).map(|_| Next::Nothing), told);
    }

    /// Settles those for whose deadline there is something that came next.
    fn settle(&mut self, next: impl Fn(Option<Time>) -> Option<Next>, told: &mut Told<'_>) {
        if let Some(rset) = self.rset.take() {
            match (next(rset.deadline()), rset.compared) {
                (Some(Next::CaptureMiss), Some((next, _))) => {
                    rset.answered.rset_settled(next, Some(Repeat::CaptureMiss), told);
                }
                (Some(_), Some((next, _))) => rset.answered.rset_settled(next, Some(Repeat::Unfinished), told),
                (Some(next), None) => rset.answered.rset_settled(next, None, told),
                (None, compared) => self.rset = Some(Box::new(Rset { answered: rset.answered, compared })),
            }
        }
        if let Some(noop) = self.noop.take() {
            match next(Some(noop.deadline())) {
                Some(next) => noop.noop_settled(next, told),
                None => self.noop = Some(noop),
            }
        }
    }
}

impl Rset {
    fn deadline(&self) -> Option<Time> {
        let waits = self.compared.is_none() && !rset::is_patient(&self.answered.before);
        waits.then(|| self.answered.deadline())
    }

    /// What came next, when enough is known of it.
    fn exchange(&mut self, exchange: &Exchange) -> Option<(Next, Option<Repeat>)> {
        if let Some((next, comparison)) = &mut self.compared {
            return comparison.exchange(exchange).map(|repeat| (*next, Some(repeat)));
        }
        let next = next(exchange, self.deadline().unwrap_or(Time(u64::MAX)));
        let before = &self.answered.before;
        if !rset::compares(before, next) {
            return Some((next, None));
        }
        let to_the_end = before.point == SessionState::MessageAccepted;
        match Comparison::begin(before.envelope, before.size, to_the_end, exchange) {
            Ok(comparison) => {
                self.compared = Some((next, comparison));
                None
            }
            Err(repeat) => Some((next, Some(repeat))),
        }
    }
}

impl Answered {
    fn deadline(&self) -> Time {
        Time(self.time.0.saturating_add(PATIENCE.as_nanos() as u64))
    }

    fn rset(&self, reason: RsetReason, evidence: Vec<String>, told: &mut Told<'_>) {
        let Self { time, latency, code, .. } = *self;
        told(time, What::Rset(&Reasoned { reason, evidence, latency, code: Some(code) }));
    }

    fn rset_settled(&self, next: Next, repeat: Option<Repeat>, told: &mut Told<'_>) {
        let reasons = rset::settled(&self.before, self.is_accepted(), next, repeat);
        let mut evidence = self.evidence(next);
        evidence.extend(repeat.map(|repeat| repeat.to_string()));
        match reasons.as_slice() {
            [reason] => self.rset(*reason, evidence, told),
            reasons => {
                evidence.push(possible(reasons.iter().map(|reason| reason.as_str())));
                self.rset(RsetReason::Ambiguous, evidence, told)
            }
        }
    }

    fn noop(&self, reason: NoopReason, evidence: Vec<String>, told: &mut Told<'_>) {
        let Self { time, latency, code, .. } = *self;
        told(time, What::Noop(&Reasoned { reason, evidence, latency, code: Some(code) }));
    }

    fn noop_settled(&self, next: Next, told: &mut Told<'_>) {
        let reasons = noop::settled(&self.before, self.is_accepted(), next);
        let mut evidence = self.evidence(next);
        match reasons.as_slice() {
            [reason] if *reason != NoopReason::InterceptorKeepalive => self.noop(*reason, evidence, told),
            reasons => {
                evidence.push(possible(reasons.iter().map(|reason| reason.as_str())));
                self.noop(NoopReason::Ambiguous, evidence, told)
            }
        }
    }

    fn is_accepted(&self) -> bool {
        self.code / 100 == 2
    }

    /// What was before, the reply where it was a no, and what came next.
    fn evidence(&self, next: Next) -> Vec<String> {
        let mut evidence = self.before.evidence();
        if !self.is_accepted() {
            evidence.push(format!("answered {}", self.code));
        }
        evidence.push(next.to_string());
        evidence
    }
}

/// What a command is, read as what came next.
fn next(Exchange { command, .. }: &Exchange, deadline: Time) -> Next {
    match command.first_byte >= deadline {
        true => Next::Nothing,
        false => Next::Command { verb: command.verb, early: command.pipelined },
    }
}

fn possible(names: impl Iterator<Item = &'static str>) -> String {
    format!("possible: {}", names.collect::<Vec<_>>().join(", "))
}
