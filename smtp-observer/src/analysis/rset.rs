//! Why an RSET was sent.

use super::session_tracker::CommandContext;
use crate::fact::evidence::{NextAction, Reasons, SessionState, TransactionComparison};
use crate::observation::RsetReason::{
    self, AddressProbe, AuthRetry, BeforeQuit, BetweenMessages, ChunkAbort, ClientAbort, DataRejected,
    InterceptorDiscard, InterceptorReplay, MessageRejected, PipelinedBetweenMessages, RecipientRejected,
    RecipientsRejected, ReuseProbe, SameMessageSplit, SenderRejected, SessionStart,
};
use crate::smtp::Verb;

/// The reason that follows from what was before, whatever comes next.
pub(super) fn immediate(context: &CommandContext) -> Option<RsetReason> {
    match context.state {
        SessionState::Chunk | SessionState::ChunkRefused { .. } => Some(ChunkAbort),
        // The client did not know how the command before it went.
        _ if context.pipelined => None,
        SessionState::SenderRefused { .. } => Some(SenderRejected),
        SessionState::Envelope { accepted: 0, rejected: 1.. } => Some(RecipientsRejected),
        SessionState::Envelope { rejected: 1.., .. } => Some(RecipientRejected),
        SessionState::DataRefused { .. } => Some(DataRejected),
        // A message that was refused long ago, or to another process, is not what Postfix' probe is about.
        SessionState::MessageRefused { .. } if !context.pause.is_over() => Some(MessageRejected),
        _ => None,
    }
}

/// Whether the next command is waited for however late it comes: an interceptor may send the message on long after its
/// RSET, when its client has gone.
pub(super) fn waits_without_deadline(context: &CommandContext) -> bool {
    is_accepted(context)
}

/// Whether the transaction that the next command begins says more.
pub(super) fn compares(context: &CommandContext, next: NextAction) -> bool {
    match context.state {
        SessionState::MessageAccepted => next.is(Verb::Mail) && !context.pipelined && !context.pause.is_over(),
        _ => next.verb() == Some(Verb::Mail) && is_accepted(context),
    }
}

/// The client knows that its transaction is open and that no recipient was refused.
fn is_accepted(context: &CommandContext) -> bool {
    matches!(context.state, SessionState::Envelope { rejected: 0, .. }) && !context.pipelined
}

/// The reasons that are left when it is known what came next: of [`immediate`] there was none. `accepted`: the reply to the
/// RSET was 2yz.
pub(super) fn possible(
    context: &CommandContext,
    accepted: bool,
    next: NextAction,
    repeat: Option<TransactionComparison>,
) -> Reasons<RsetReason> {
    match context.state {
        SessionState::Start | SessionState::Authenticated => at_start(context, accepted, next),
        SessionState::AuthRefused { .. } => behind_auth(next),
        SessionState::MessageRefused { .. } if !context.pipelined => behind_refusal(context, accepted, next),
        SessionState::Idle | SessionState::MessageAccepted | SessionState::MessageRefused { .. } => {
            between(context, accepted, next, repeat)
        }
        _ if context.pipelined => unaware(context, next),
        SessionState::Unknown => unknown(next),
        _ => in_transaction(context, next, repeat),
    }
}

/// The connection was tried, and used or left as it turned out.
fn is_probe(context: &CommandContext, accepted: bool, next: NextAction) -> bool {
    context.pause.is_over() && (if accepted { next.is(Verb::Mail) } else { next.leaves() })
}

fn at_start(context: &CommandContext, accepted: bool, next: NextAction) -> Reasons<RsetReason> {
    let over = context.pause.is_over();
    if is_probe(context, accepted, next) {
        return [ReuseProbe].into();
    }
    match next {
        NextAction::Unknown if over => [SessionStart, ReuseProbe, BeforeQuit].into(),
        NextAction::Unknown => [SessionStart, BeforeQuit].into(),
        NextAction::Closed | NextAction::OwnerChanged if over => [SessionStart, ReuseProbe].into(),
        _ if next.is(Verb::Quit) && over => [BeforeQuit, ReuseProbe].into(),
        _ if next.verb() == Some(Verb::Quit) => [BeforeQuit].into(),
        _ => [SessionStart].into(),
    }
}

fn behind_auth(next: NextAction) -> Reasons<RsetReason> {
    match next.verb() {
        Some(Verb::Auth | Verb::XExps) => [AuthRetry].into(),
        Some(Verb::Mail) => [SessionStart].into(),
        Some(Verb::Quit) => [BeforeQuit].into(),
        _ if next == NextAction::Unknown => [AuthRetry, SessionStart, BeforeQuit].into(),
        _ => [AuthRetry, SessionStart].into(),
    }
}

/// A message was refused, and then the client paused.
fn behind_refusal(context: &CommandContext, accepted: bool, next: NextAction) -> Reasons<RsetReason> {
    match context.pause.moved && is_probe(context, accepted, next) {
        true => [ReuseProbe].into(),
        false => [MessageRejected, ReuseProbe].into(),
    }
}

/// No transaction is open, and one was before.
fn between(
    context: &CommandContext,
    accepted: bool,
    next: NextAction,
    repeat: Option<TransactionComparison>,
) -> Reasons<RsetReason> {
    let over = context.pause.is_over();
    match next {
        _ if next.is_early(Verb::Mail) => [PipelinedBetweenMessages].into(),
        _ if next.is_early(Verb::Quit) => [BeforeQuit].into(),
        NextAction::Unknown => {
            [BetweenMessages, PipelinedBetweenMessages, ReuseProbe, SameMessageSplit, BeforeQuit].into()
        }
        _ if context.pipelined && next.is(Verb::Quit) => [BeforeQuit].into(),
        _ if context.pipelined => [PipelinedBetweenMessages, BetweenMessages].into(),
        _ if is_probe(context, accepted, next) => [ReuseProbe].into(),
        _ if over && next.is(Verb::Quit) => [BeforeQuit, ReuseProbe].into(),
        _ if next.is(Verb::Quit) => [BeforeQuit].into(),
        NextAction::Closed | NextAction::OwnerChanged if over => [BetweenMessages, ReuseProbe].into(),
        NextAction::Nothing if context.pause.moved => [BetweenMessages, ReuseProbe].into(),
        // It may not have been a message that was before.
        _ if context.state == SessionState::Idle => [BetweenMessages, ReuseProbe].into(),
        _ => match repeat {
            Some(TransactionComparison::SameMessage { .. }) => [SameMessageSplit].into(),
            Some(TransactionComparison::Unfinished | TransactionComparison::Unknown) => {
                [BetweenMessages, ReuseProbe, SameMessageSplit].into()
            }
            // A busy Postfix hands a connection on, and tries it, within a few milliseconds.
            _ if next.is(Verb::Mail) => [BetweenMessages, ReuseProbe].into(),
            _ => [BetweenMessages].into(),
        },
    }
}

/// Everything was accepted, and the client knows it.
fn in_transaction(
    context: &CommandContext,
    next: NextAction,
    repeat: Option<TransactionComparison>,
) -> Reasons<RsetReason> {
    let has_recipients = context.envelope.named() > 0;
    let tests = has_recipients && context.envelope.sends_nothing() && context.noops.in_a_row == 0;
    match (next, repeat) {
        (_, Some(TransactionComparison::SameEnvelope)) if context.noops.in_a_row > 0 => [InterceptorReplay].into(),
        (_, Some(TransactionComparison::SameEnvelope)) => [InterceptorReplay, ClientAbort].into(),
        _ if has_recipients && next.is_early(Verb::Quit) => [AddressProbe].into(),
        (NextAction::Unknown, _) | (_, Some(TransactionComparison::Unknown)) if has_recipients => {
            [ClientAbort, AddressProbe, InterceptorReplay, InterceptorDiscard].into()
        }
        _ if tests => [AddressProbe].into(),
        // A program in the middle waits for its client's next command, and has a recipient when it waits for a message.
        (_, Some(TransactionComparison::OtherSender | TransactionComparison::OtherRecipients))
            if next.is_early(Verb::Mail) || !has_recipients =>
        {
            [ClientAbort].into()
        }
        _ if has_recipients => [AddressProbe, ClientAbort, InterceptorDiscard].into(),
        _ if next.verb() == Some(Verb::Quit) => [ClientAbort, BeforeQuit].into(),
        _ => [ClientAbort, AddressProbe].into(),
    }
}

/// The client did not wait to know how its transaction went.
fn unaware(context: &CommandContext, next: NextAction) -> Reasons<RsetReason> {
    let has_recipients = context.envelope.named() > 0 && context.state.has_envelope();
    match next {
        NextAction::Unknown => [ClientAbort, AddressProbe, PipelinedBetweenMessages, BeforeQuit].into(),
        // Whatever the replies: it never meant to send.
        _ if has_recipients && (next.leaves() || context.envelope.sends_nothing()) => [AddressProbe].into(),
        _ if next.verb() == Some(Verb::Quit) => [ClientAbort, BeforeQuit].into(),
        _ if next.is_early(Verb::Mail) => [ClientAbort, AddressProbe, PipelinedBetweenMessages].into(),
        _ => [ClientAbort, AddressProbe].into(),
    }
}

/// What was before was not seen: all reasons that what came next allows.
fn unknown(next: NextAction) -> Reasons<RsetReason> {
    let unseen = next == NextAction::Unknown;
    let mut reasons =
        Reasons::from([SenderRejected, RecipientsRejected, RecipientRejected, DataRejected, MessageRejected]);
    reasons.extend([ChunkAbort, ClientAbort, AddressProbe]);
    if unseen || matches!(next.verb(), Some(Verb::Auth | Verb::XExps)) {
        reasons.push(AuthRetry);
    }
    if unseen || next.is_early(Verb::Mail) {
        reasons.push(PipelinedBetweenMessages);
    }
    if next.verb() != Some(Verb::Quit) {
        reasons.extend([SessionStart, BetweenMessages]);
    }
    if unseen || next.is(Verb::Mail) || next.leaves() {
        reasons.push(ReuseProbe);
    }
    if unseen || next.verb() == Some(Verb::Quit) {
        reasons.push(BeforeQuit);
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::next_action::tests::NEXT_ACTIONS;
    use crate::analysis::session_tracker::tests::contexts;

    #[test]
    fn there_is_always_a_reason_and_none_twice() {
        let repeats = [
            TransactionComparison::OtherSender,
            TransactionComparison::SameEnvelope,
            TransactionComparison::SameMessage { bytes: 9 },
            TransactionComparison::Unknown,
        ];
        for context in contexts().into_iter().filter(|context| immediate(context).is_none()) {
            for next in NEXT_ACTIONS {
                let compared = repeats.into_iter().filter(|_| compares(&context, next)).map(Some);
                for (accepted, repeat) in compared.chain([None]).flat_map(|repeat| [(true, repeat), (false, repeat)]) {
                    let reasons = possible(&context, accepted, next, repeat);
                    let distinct = reasons.iter().collect::<std::collections::HashSet<_>>();
                    assert!(
                        reasons.iter().count() > 0 && distinct.len() == reasons.iter().count(),
                        "{context:?}, {next:?}: {reasons:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_reply_that_was_not_there_is_no_reason() {
        let early = contexts().into_iter().filter(|context| context.pipelined);
        let reasons = early.filter_map(|context| immediate(&context));
        assert!(reasons.into_iter().all(|reason| reason == ChunkAbort));
    }

    #[test]
    fn what_two_connections_show_is_not_claimed_of_one() {
        for context in contexts() {
            for next in NEXT_ACTIONS {
                let reasons = possible(&context, true, next, None);
                assert_ne!(reasons.only(), Some(InterceptorDiscard), "{context:?}, {next:?}");
                assert!(reasons.iter().all(|reason| reason != RsetReason::Relayed), "{context:?}, {next:?}");
            }
        }
    }
}
