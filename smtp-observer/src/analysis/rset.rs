//! Why an RSET was sent.

use super::session_tracker::{CommandContext, Since};
use crate::fact::evidence::{NextAction, Reasons, SessionState, TransactionComparison};
use crate::names::RsetReason::{
    self, AddressProbe, AuthRetry, BeforeQuit, BetweenMessages, ChunkAbort, ClientAbort, DataRejected,
    InterceptorDiscard, InterceptorReplay, MessageRejected, PipelinedBetweenMessages, RecipientRejected,
    RecipientsRejected, ReuseProbe, SameMessageSplit, SenderRejected, SessionStart,
};
use crate::smtp::Verb;

/// The reason that follows from the context alone.
pub(super) fn immediate(context: &CommandContext) -> Option<RsetReason> {
    // What follows tells whether it is for another AUTH.
    if context.is_auth_refused() { None } else { by_state(context) }
}

fn by_state(context: &CommandContext) -> Option<RsetReason> {
    match context.state {
        SessionState::Chunk | SessionState::ChunkRefused { .. } => Some(ChunkAbort),
        // The client did not know how the command before it went.
        _ if context.pipelined => None,
        // The RSET may as well be Postfix's probe of a cached connection: what follows tells.
        _ if context.pause.is_reuse() => None,
        _ => by_refusal(context),
    }
}

/// What was refused before the RSET, where that is all that is known.
fn by_refusal(context: &CommandContext) -> Option<RsetReason> {
    match context.state {
        SessionState::SenderRefused { .. } if context.since == Since::Nothing => Some(SenderRejected),
        _ if context.is_mail_refused() => (context.noops.in_a_row == 0).then_some(SenderRejected),
        SessionState::Envelope { accepted: 0, rejected: 1.., .. } if !context.envelope.has_noops() => {
            Some(RecipientsRejected)
        }
        // A program that tests addresses ends like that, too.
        SessionState::Envelope { refused_last: true, .. } if !context.envelope.has_noops() => Some(RecipientRejected),
        SessionState::Envelope { rejected: 1.., refused_last: false, .. } if context.envelope.is_test() => {
            Some(AddressProbe)
        }
        SessionState::DataRefused { .. } => Some(DataRejected),
        SessionState::MessageRefused { .. } if context.since == Since::Nothing => Some(MessageRejected),
        _ => None,
    }
}

/// Whether the next command counts however late it comes: an interceptor may pass the message on long after its RSET, when its
/// client has gone.
pub(super) fn waits_without_deadline(context: &CommandContext) -> bool {
    is_accepted(context)
}

/// Whether the transaction that the next command begins is evidence, too.
pub(super) fn compares(context: &CommandContext, next: NextAction) -> bool {
    match context.state {
        _ if context.is_auth_refused() => false,
        SessionState::MessageAccepted => next.is(Verb::Mail) && !context.pipelined && !context.pause.is_reuse(),
        _ => next.verb() == Some(Verb::Mail) && is_accepted(context),
    }
}

/// The client knows that its transaction is open and that no recipient was refused.
fn is_accepted(context: &CommandContext) -> bool {
    matches!(context.state, SessionState::Envelope { rejected: 0, .. })
        && !context.pipelined
        && !context.is_auth_refused()
}

/// The reasons that are possible with the next action, if there is no [`immediate`] one. `accepted`: the reply to the RSET was
/// 2yz.
pub(super) fn possible(
    context: &CommandContext,
    accepted: bool,
    next: NextAction,
    comparison: Option<TransactionComparison>,
) -> Reasons<RsetReason> {
    let without_auth = || match by_state(context) {
        Some(reason) => [reason].into(),
        None if context.is_mail_refused() => with(by_what_follows(context, accepted, next, comparison), SenderRejected),
        None => by_what_follows(context, accepted, next, comparison),
    };
    match next.verb() {
        Some(Verb::Mail | Verb::Quit) => without_auth(),
        _ if !context.is_auth_refused() => without_auth(),
        Some(Verb::Auth | Verb::XExps) if !context.state.is_in_transaction() => [AuthRetry].into(),
        _ => with(without_auth(), AuthRetry),
    }
}

/// These reasons and one more.
fn with(mut reasons: Reasons<RsetReason>, reason: RsetReason) -> Reasons<RsetReason> {
    if reasons.iter().all(|other| other != reason) {
        reasons.push(reason);
    }
    reasons
}

fn by_what_follows(
    context: &CommandContext,
    accepted: bool,
    next: NextAction,
    comparison: Option<TransactionComparison>,
) -> Reasons<RsetReason> {
    match context.state {
        SessionState::Start | SessionState::Authenticated => at_start(context, accepted, next),
        SessionState::AuthRefused { .. } => after_refused_auth(context, accepted, next),
        SessionState::SenderRefused { .. } | SessionState::MessageRefused { .. }
            if !context.pipelined && context.since != Since::Nothing =>
        {
            after_an_older_refusal(context, accepted, next)
        }
        _ if !context.pipelined && context.pause.is_reuse() && by_refusal(context).is_some() => {
            refused_before_pause(context, accepted, next)
        }
        SessionState::Idle | SessionState::MessageAccepted | SessionState::MessageRefused { .. } => {
            let reasons = between_transactions(context, accepted, next, comparison);
            // It gave up what had no reply yet.
            if context.pause.waited.is_some() { with(reasons, ClientAbort) } else { reasons }
        }
        _ if context.pipelined => pipelined_in_transaction(context, next),
        SessionState::Unknown => unknown(next),
        SessionState::Envelope { accepted: 0, rejected: 1.., .. } => [RecipientsRejected, AddressProbe].into(),
        // An acceptance came after the refusal, and was left unused; or NOOPs stood between the recipients.
        SessionState::Envelope { rejected: 1.., .. } => [RecipientRejected, AddressProbe].into(),
        _ => in_transaction(context, next, comparison),
    }
}

/// QUIT follows, and may be the client's answer to what became of the RSET: it was refused, or its reply did not come for long.
fn gives_up(accepted: bool, next: NextAction) -> bool {
    next.is(Verb::Quit) && !accepted || next == NextAction::StoppedWaiting(Verb::Quit)
}

/// The RSET tested the connection: the client used the connection, or left it, by the reply.
fn is_probe(context: &CommandContext, accepted: bool, next: NextAction) -> bool {
    context.pause.is_reuse() && (if accepted { next.is(Verb::Mail) && context.is_resumed() } else { next.leaves() })
}

fn at_start(context: &CommandContext, accepted: bool, next: NextAction) -> Reasons<RsetReason> {
    let reuses = context.pause.is_reuse();
    if is_probe(context, accepted, next) {
        return [ReuseProbe].into();
    }
    match next {
        NextAction::Unknown if reuses => [SessionStart, ReuseProbe, BeforeQuit].into(),
        NextAction::Unknown => [SessionStart, BeforeQuit].into(),
        _ if next.is(Verb::Quit) && reuses => [BeforeQuit, ReuseProbe].into(),
        _ if gives_up(accepted, next) => [SessionStart, BeforeQuit].into(),
        _ if next.verb() == Some(Verb::Quit) => [BeforeQuit].into(),
        _ if reuses => [SessionStart, ReuseProbe].into(),
        _ => [SessionStart].into(),
    }
}

fn after_refused_auth(context: &CommandContext, accepted: bool, next: NextAction) -> Reasons<RsetReason> {
    match next.verb() {
        Some(Verb::Auth | Verb::XExps) => [AuthRetry].into(),
        Some(Verb::Mail | Verb::Quit) => at_start(context, accepted, next),
        _ => {
            let mut reasons = Reasons::from([AuthRetry]);
            reasons.extend(at_start(context, accepted, next).iter());
            reasons
        }
    }
}

/// Something was refused, and then the client paused, or another process took the connection over.
fn refused_before_pause(context: &CommandContext, accepted: bool, next: NextAction) -> Reasons<RsetReason> {
    let is_message = matches!(context.state, SessionState::MessageRefused { .. });
    let is_probe = is_probe(context, accepted, next);
    let mut reasons = Reasons::default();
    reasons.extend(by_refusal(context));
    match context.pause.owner_changed {
        true if is_probe => [ReuseProbe].into(),
        // A program that tries a connection has closed its transaction before.
        false if !is_message && !is_probe && next != NextAction::Unknown => reasons,
        _ => with(reasons, ReuseProbe),
    }
}

/// MAIL or the message was refused, and then other commands were answered: it may be any of both that is reset.
fn after_an_older_refusal(context: &CommandContext, accepted: bool, next: NextAction) -> Reasons<RsetReason> {
    let older = match context.state {
        SessionState::SenderRefused { .. } => SenderRejected,
        _ => MessageRejected,
    };
    with(between_transactions(context, accepted, next, None), older)
}

/// No transaction is open, and one was before.
fn between_transactions(
    context: &CommandContext,
    accepted: bool,
    next: NextAction,
    comparison: Option<TransactionComparison>,
) -> Reasons<RsetReason> {
    let reuses = context.pause.is_reuse();
    match next {
        _ if next.is_early(Verb::Mail) => [PipelinedBetweenMessages].into(),
        _ if next.is_early(Verb::Quit) => [BeforeQuit].into(),
        NextAction::Unknown => {
            [BetweenMessages, PipelinedBetweenMessages, ReuseProbe, SameMessageSplit, BeforeQuit].into()
        }
        _ if context.pipelined && next.verb() == Some(Verb::Quit) => [BeforeQuit].into(),
        _ if context.pipelined => [PipelinedBetweenMessages, BetweenMessages].into(),
        _ if is_probe(context, accepted, next) => [ReuseProbe].into(),
        _ if gives_up(accepted, next) => [BetweenMessages, ReuseProbe, BeforeQuit].into(),
        _ if reuses && next.verb() == Some(Verb::Quit) => [BeforeQuit, ReuseProbe].into(),
        _ if next.verb() == Some(Verb::Quit) => [BeforeQuit].into(),
        _ if reuses => [BetweenMessages, ReuseProbe].into(),
        // It may not have been a message that was before.
        _ if context.state == SessionState::Idle => [BetweenMessages, ReuseProbe].into(),
        _ => match comparison {
            // Personal mails of a series may have one size, too.
            Some(
                TransactionComparison::SameMessage { .. }
                | TransactionComparison::Unfinished
                | TransactionComparison::Unknown,
            ) => [BetweenMessages, ReuseProbe, SameMessageSplit].into(),
            // A busy Postfix hands a connection on, and tries it, within a few milliseconds. It leaves one that fails.
            _ if next.verb() == Some(Verb::Mail) || !accepted => [BetweenMessages, ReuseProbe].into(),
            _ => [BetweenMessages].into(),
        },
    }
}

/// Everything was accepted, and the client knows it.
fn in_transaction(
    context: &CommandContext,
    next: NextAction,
    comparison: Option<TransactionComparison>,
) -> Reasons<RsetReason> {
    let has_recipients = context.envelope.named() > 0;
    let tests = has_recipients && context.envelope.sends_nothing() && context.noops.in_a_row == 0;
    match (next, comparison) {
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

/// The client sent the RSET before it knew how its transaction went.
fn pipelined_in_transaction(context: &CommandContext, next: NextAction) -> Reasons<RsetReason> {
    let has_recipients = context.envelope.named() > 0 && context.state.has_envelope();
    let reasons = match next {
        NextAction::Unknown => [ClientAbort, AddressProbe, PipelinedBetweenMessages, BeforeQuit].into(),
        // It gave up, or it tests addresses and is as impatient.
        _ if has_recipients && context.pause.waited.is_some() => [AddressProbe, ClientAbort, InterceptorDiscard].into(),
        // What it had read may be why.
        _ if context.refusal_read => [AddressProbe, ClientAbort].into(),
        // Whatever the replies: it never meant to send.
        _ if has_recipients && (next.leaves() || context.envelope.sends_nothing()) => [AddressProbe].into(),
        _ if next.verb() == Some(Verb::Quit) => [ClientAbort, BeforeQuit].into(),
        _ if next.is_early(Verb::Mail) => [ClientAbort, AddressProbe, PipelinedBetweenMessages].into(),
        _ => [ClientAbort, AddressProbe].into(),
    };
    if context.refusal_read { with(reasons, refusal(context.state)) } else { reasons }
}

/// What was refused in a transaction, if something was.
fn refusal(state: SessionState) -> RsetReason {
    match state {
        SessionState::SenderRefused { .. } => SenderRejected,
        SessionState::Envelope { accepted: 0, .. } => RecipientsRejected,
        SessionState::DataRefused { .. } => DataRejected,
        _ => RecipientRejected,
    }
}

/// The state before it was not seen: all reasons that the next action allows.
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
        let comparisons = [
            TransactionComparison::OtherSender,
            TransactionComparison::SameEnvelope,
            TransactionComparison::SameMessage { bytes: 9 },
            TransactionComparison::Unknown,
        ];
        for context in contexts().into_iter().filter(|context| immediate(context).is_none()) {
            for next in NEXT_ACTIONS {
                let compared = comparisons.into_iter().filter(|_| compares(&context, next)).map(Some);
                for (accepted, comparison) in
                    compared.chain([None]).flat_map(|comparison| [(true, comparison), (false, comparison)])
                {
                    let reasons = possible(&context, accepted, next, comparison);
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
