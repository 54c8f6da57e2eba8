//! Why a NOOP was sent.

use std::time::Duration;

use super::next::Next;
use super::session_tracker::{CommandContext, Noops, SessionState};
use crate::observation::NoopReason::{
    self, Excessive, IdleKeepalive, InterceptorKeepalive, LeaseCheck, PipelineSync, ReachabilityTest, Verification,
};
use crate::smtp::Verb;

/// NOOPs in a session that any purpose explains; Sendmail slows a client down beyond it (`MAXNOOPCOMMANDS`).
pub(super) const MOST: u32 = 20;

/// NOOPs that make a period, and the shortest one: what a client sends at once keeps nothing alive.
const PERIODIC: u32 = 3;
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);

/// The reason that follows from what was before, whatever comes next.
pub(super) fn at_once(before: &CommandContext) -> Option<NoopReason> {
    let is_idle = !before.point.is_in_transaction() && before.point != SessionState::Unknown;
    match before.noops.total > MOST {
        true => Some(Excessive),
        false => (is_idle && is_periodic(&before.noops)).then_some(IdleKeepalive),
    }
}

/// They come at a constant period.
pub(super) fn is_periodic(noops: &Noops) -> bool {
    noops.steady >= PERIODIC && noops.period >= SHORTEST_PERIOD
}

/// The reasons that are left when it is known what came next: of [`at_once`] there was none. `accepted`: the reply to the
/// NOOP was 2yz.
pub(super) fn settled(before: &CommandContext, accepted: bool, next: Next) -> Vec<NoopReason> {
    let early = matches!(next, Next::Command { early: true, .. });
    if before.pipelined && !early && next != Next::CaptureMiss {
        return vec![PipelineSync];
    }
    let mut reasons = match before.point {
        SessionState::Unknown if next.verb() == Some(Verb::Rcpt) => vec![Verification],
        SessionState::Unknown => vec![LeaseCheck, IdleKeepalive, Verification, InterceptorKeepalive],
        point if point.is_in_transaction() => in_transaction(point, next),
        _ => outside(before, accepted, next),
    };
    if before.pipelined && next == Next::CaptureMiss {
        reasons.push(PipelineSync);
    }
    reasons
}

/// Who waits in the middle for a message, and who tests addresses, send NOOPs where a sender would go on.
fn in_transaction(point: SessionState, next: Next) -> Vec<NoopReason> {
    match next.verb() {
        Some(Verb::Rcpt) => vec![Verification],
        // That a message is waited for can be seen at the other connection alone.
        Some(Verb::Data | Verb::Bdat | Verb::Burl) => vec![InterceptorKeepalive],
        _ => match point {
            SessionState::Chunk | SessionState::ChunkRefused { .. } => vec![InterceptorKeepalive],
            _ => vec![InterceptorKeepalive, Verification],
        },
    }
}

/// No transaction is open.
fn outside(before: &CommandContext, accepted: bool, next: Next) -> Vec<NoopReason> {
    let alone = before.noops.row == 1;
    match next {
        _ if alone && accepted && next.is(Verb::Mail) => vec![LeaseCheck],
        _ if before.point.is_start() && next.leaves() => match accepted {
            true => vec![ReachabilityTest],
            false => vec![ReachabilityTest, LeaseCheck],
        },
        _ if alone && !accepted && next.leaves() => vec![LeaseCheck],
        Next::CaptureMiss if before.point.is_start() => vec![ReachabilityTest, LeaseCheck, IdleKeepalive],
        _ => vec![LeaseCheck, IdleKeepalive],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::next::tests::NEXTS;
    use crate::analysis::session_tracker::tests::befores;

    #[test]
    fn there_is_always_a_reason_and_none_twice() {
        for before in befores() {
            for next in NEXTS {
                for accepted in [true, false] {
                    let reasons = settled(&before, accepted, next);
                    let distinct = reasons.iter().collect::<std::collections::HashSet<_>>();
                    assert!(
                        !reasons.is_empty() && distinct.len() == reasons.len(),
                        "{before:?}, {next:?}: {reasons:?}"
                    );
                }
            }
        }
    }
}
