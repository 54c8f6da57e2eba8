//! Why a NOOP was sent.

use std::time::Duration;

use super::session_tracker::{CommandContext, Noops};
use crate::fact::evidence::{NextAction, Reasons, SessionState};
use crate::names::NoopReason::{
    self, Excessive, IdleKeepalive, InterceptorKeepalive, LeaseCheck, PipelineSync, ReachabilityTest, Verification,
};
use crate::smtp::Verb;

/// Most NOOPs of a session that a purpose explains; Sendmail slows a client down after more (`MAXNOOPCOMMANDS`).
pub(super) const MAX_EXPLAINED: u32 = 20;

/// Fewest NOOPs that make a period, and the shortest period: a client that sends NOOPs without a pause keeps nothing alive.
const PERIODIC: u32 = 3;
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);

/// The reason that follows from the context alone.
pub(super) fn immediate(context: &CommandContext) -> Option<NoopReason> {
    let is_idle = !context.state.is_in_transaction() && context.state != SessionState::Unknown;
    match context.noops.total > MAX_EXPLAINED {
        true => Some(Excessive),
        false => (is_idle && is_periodic(&context.noops)).then_some(IdleKeepalive),
    }
}

/// They come at a constant period.
pub(super) fn is_periodic(noops: &Noops) -> bool {
    noops.steady >= PERIODIC && noops.period() >= SHORTEST_PERIOD
}

/// The reasons that are possible with the next action, if there is no [`immediate`] one. `accepted`: the reply to the NOOP was
/// 2yz.
pub(super) fn possible(context: &CommandContext, accepted: bool, next: NextAction) -> Reasons<NoopReason> {
    let early = matches!(next, NextAction::Command { early: true, .. });
    let waited = context.pause.waited.is_some();
    if context.pipelined && !waited && !early && next != NextAction::Unknown {
        return [PipelineSync].into();
    }
    let mut reasons = match context.state {
        SessionState::Unknown if next.verb() == Some(Verb::Rcpt) => between_recipients(context),
        SessionState::Unknown => [LeaseCheck, IdleKeepalive, Verification, InterceptorKeepalive].into(),
        state if state.is_in_transaction() => in_transaction(context, next),
        _ => outside(context, accepted, next),
    };
    if context.pipelined && (waited || next == NextAction::Unknown) {
        reasons.push(PipelineSync);
    }
    // While a reply is slow, one keeps the connection alive wherever it stands.
    if waited && reasons.iter().all(|reason| reason != IdleKeepalive) {
        reasons.push(IdleKeepalive);
    }
    reasons
}

/// A transaction is open: an interceptor that waits for a message, and a program that tests addresses, send NOOPs there.
fn in_transaction(context: &CommandContext, next: NextAction) -> Reasons<NoopReason> {
    match next.verb() {
        Some(Verb::Rcpt) => between_recipients(context),
        // Only the other connection shows that a message is waited for.
        Some(Verb::Data | Verb::Bdat | Verb::Burl) => [InterceptorKeepalive].into(),
        _ => match context.state {
            SessionState::Chunk | SessionState::ChunkRefused { .. } => [InterceptorKeepalive].into(),
            _ => [InterceptorKeepalive, Verification].into(),
        },
    }
}

/// RCPT follows. A program that tests addresses goes on at once; one in the middle may have waited for its client.
fn between_recipients(context: &CommandContext) -> Reasons<NoopReason> {
    match context.pause.idle {
        None => [Verification].into(),
        Some(_) => [InterceptorKeepalive, Verification].into(),
    }
}

/// No transaction is open.
fn outside(context: &CommandContext, accepted: bool, next: NextAction) -> Reasons<NoopReason> {
    let alone = context.noops.in_a_row == 1;
    match next {
        // Of a client that keeps the connection alive, it may be by chance that MAIL follows at once.
        _ if alone && accepted && next.is(Verb::Mail) && !context.noops.keep_alive => [LeaseCheck].into(),
        _ if context.state.is_start() && next.leaves() => match accepted {
            true => [ReachabilityTest].into(),
            false => [ReachabilityTest, LeaseCheck].into(),
        },
        _ if alone && !accepted && next.leaves() => [LeaseCheck].into(),
        NextAction::Unknown if context.state.is_start() => [ReachabilityTest, LeaseCheck, IdleKeepalive].into(),
        _ => [LeaseCheck, IdleKeepalive].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::next_action::tests::NEXT_ACTIONS;
    use crate::analysis::session_tracker::tests::contexts;

    #[test]
    fn there_is_always_a_reason_and_none_twice() {
        for context in contexts() {
            for next in NEXT_ACTIONS {
                for accepted in [true, false] {
                    let reasons = possible(&context, accepted, next);
                    let distinct = reasons.iter().collect::<std::collections::HashSet<_>>();
                    assert!(
                        reasons.iter().count() > 0 && distinct.len() == reasons.iter().count(),
                        "{context:?}, {next:?}: {reasons:?}"
                    );
                }
            }
        }
    }
}
