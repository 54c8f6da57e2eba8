//! Why an RSET was sent.

use super::next::Next;
use super::repeat::Repeat;
use super::session_tracker::{CommandContext, SessionState};
use crate::observation::RsetReason::{
    self, AddressProbe, AuthRetry, BeforeQuit, BetweenMessages, ChunkAbort, ClientAbort, DataRejected,
    InterceptorDiscard, InterceptorReplay, MessageRejected, PipelinedBetweenMessages, RecipientRejected,
    RecipientsRejected, ReuseProbe, SameMessageSplit, SenderRejected, SessionStart,
};
use crate::smtp::Verb;

/// The reason that follows from what was before, whatever comes next.
pub(super) fn at_once(before: &CommandContext) -> Option<RsetReason> {
    match before.point {
        SessionState::Chunk | SessionState::ChunkRefused { .. } => Some(ChunkAbort),
        // The client did not know how the command before it went.
        _ if before.pipelined => None,
        SessionState::SenderRefused { .. } => Some(SenderRejected),
        SessionState::Envelope { accepted: 0, rejected: 1.. } => Some(RecipientsRejected),
        SessionState::Envelope { rejected: 1.., .. } => Some(RecipientRejected),
        SessionState::DataRefused { .. } => Some(DataRejected),
        // A message that was refused long ago, or to another process, is not what Postfix' probe is about.
        SessionState::MessageRefused { .. } if !before.pause.is_over() => Some(MessageRejected),
        _ => None,
    }
}

/// Whether the next command is waited for however late it comes: an interceptor may send the message on long after its
/// RSET, when its client has gone.
pub(super) fn is_patient(before: &CommandContext) -> bool {
    is_accepted(before)
}

/// Whether the transaction that the next command begins says more.
pub(super) fn compares(before: &CommandContext, next: Next) -> bool {
    match before.point {
        SessionState::MessageAccepted => next.is(Verb::Mail) && !before.pipelined && !before.pause.is_over(),
        _ => next.verb() == Some(Verb::Mail) && is_accepted(before),
    }
}

/// The client knows that its transaction is open and that no recipient was refused.
fn is_accepted(before: &CommandContext) -> bool {
    matches!(before.point, SessionState::Envelope { rejected: 0, .. }) && !before.pipelined
}

/// The reasons that are left when it is known what came next: of [`at_once`] there was none. `accepted`: the reply to the
/// RSET was 2yz.
pub(super) fn settled(before: &CommandContext, accepted: bool, next: Next, repeat: Option<Repeat>) -> Vec<RsetReason> {
    match before.point {
        SessionState::Start | SessionState::Authenticated => at_start(before, accepted, next),
        SessionState::AuthRefused { .. } => behind_auth(next),
        SessionState::MessageRefused { .. } if !before.pipelined => behind_refusal(before, accepted, next),
        SessionState::Idle | SessionState::MessageAccepted | SessionState::MessageRefused { .. } => {
            between(before, accepted, next, repeat)
        }
        _ if before.pipelined => unaware(before, next),
        SessionState::Unknown => unknown(next),
        _ => in_transaction(before, next, repeat),
    }
}

/// The connection was tried, and used or left as it turned out.
fn is_probe(before: &CommandContext, accepted: bool, next: Next) -> bool {
    before.pause.is_over() && (if accepted { next.is(Verb::Mail) } else { next.leaves() })
}

fn at_start(before: &CommandContext, accepted: bool, next: Next) -> Vec<RsetReason> {
    let over = before.pause.is_over();
    if is_probe(before, accepted, next) {
        return vec![ReuseProbe];
    }
    match next {
        Next::CaptureMiss if over => vec![SessionStart, ReuseProbe, BeforeQuit],
        Next::CaptureMiss => vec![SessionStart, BeforeQuit],
        Next::Closed | Next::Moved if over => vec![SessionStart, ReuseProbe],
        _ if next.is(Verb::Quit) && over => vec![BeforeQuit, ReuseProbe],
        _ if next.verb() == Some(Verb::Quit) => vec![BeforeQuit],
        _ => vec![SessionStart],
    }
}

fn behind_auth(next: Next) -> Vec<RsetReason> {
    match next.verb() {
        Some(Verb::Auth | Verb::XExps) => vec![AuthRetry],
        Some(Verb::Mail) => vec![SessionStart],
        Some(Verb::Quit) => vec![BeforeQuit],
        _ if next == Next::CaptureMiss => vec![AuthRetry, SessionStart, BeforeQuit],
        _ => vec![AuthRetry, SessionStart],
    }
}

/// A message was refused, and then the client paused.
fn behind_refusal(before: &CommandContext, accepted: bool, next: Next) -> Vec<RsetReason> {
    match before.pause.moved && is_probe(before, accepted, next) {
        true => vec![ReuseProbe],
        false => vec![MessageRejected, ReuseProbe],
    }
}

/// No transaction is open, and one was before.
fn between(before: &CommandContext, accepted: bool, next: Next, repeat: Option<Repeat>) -> Vec<RsetReason> {
    let over = before.pause.is_over();
    match next {
        _ if next.is_early(Verb::Mail) => vec![PipelinedBetweenMessages],
        _ if next.is_early(Verb::Quit) => vec![BeforeQuit],
        Next::CaptureMiss => {
            vec![BetweenMessages, PipelinedBetweenMessages, ReuseProbe, SameMessageSplit, BeforeQuit]
        }
        _ if before.pipelined && next.is(Verb::Quit) => vec![BeforeQuit],
        _ if before.pipelined => vec![PipelinedBetweenMessages, BetweenMessages],
        _ if is_probe(before, accepted, next) => vec![ReuseProbe],
        _ if over && next.is(Verb::Quit) => vec![BeforeQuit, ReuseProbe],
        _ if next.is(Verb::Quit) => vec![BeforeQuit],
        Next::Closed | Next::Moved if over => vec![BetweenMessages, ReuseProbe],
        Next::Nothing if before.pause.moved => vec![BetweenMessages, ReuseProbe],
        // It may not have been a message that was before.
        _ if before.point == SessionState::Idle => vec![BetweenMessages, ReuseProbe],
        _ => match repeat {
            Some(Repeat::SameMessage(_)) => vec![SameMessageSplit],
            Some(Repeat::Unfinished | Repeat::CaptureMiss) => vec![BetweenMessages, ReuseProbe, SameMessageSplit],
            // A busy Postfix hands a connection on, and tries it, within a few milliseconds.
            _ if next.is(Verb::Mail) => vec![BetweenMessages, ReuseProbe],
            _ => vec![BetweenMessages],
        },
    }
}

/// Everything was accepted, and the client knows it.
fn in_transaction(before: &CommandContext, next: Next, repeat: Option<Repeat>) -> Vec<RsetReason> {
    let has_recipients = before.envelope.named() > 0;
    let tests = has_recipients && before.envelope.sends_nothing() && before.noops.row == 0;
    match (next, repeat) {
        (_, Some(Repeat::SameEnvelope)) if before.noops.row > 0 => vec![InterceptorReplay],
        (_, Some(Repeat::SameEnvelope)) => vec![InterceptorReplay, ClientAbort],
        _ if has_recipients && next.is_early(Verb::Quit) => vec![AddressProbe],
        (Next::CaptureMiss, _) | (_, Some(Repeat::CaptureMiss)) if has_recipients => {
            vec![ClientAbort, AddressProbe, InterceptorReplay, InterceptorDiscard]
        }
        _ if tests => vec![AddressProbe],
        // A program in the middle waits for its client's next command, and has a recipient when it waits for a message.
        (_, Some(Repeat::OtherSender | Repeat::OtherRecipients)) if next.is_early(Verb::Mail) || !has_recipients => {
            vec![ClientAbort]
        }
        _ if has_recipients => vec![AddressProbe, ClientAbort, InterceptorDiscard],
        _ if next.verb() == Some(Verb::Quit) => vec![ClientAbort, BeforeQuit],
        _ => vec![ClientAbort, AddressProbe],
    }
}

/// The client did not wait to know how its transaction went.
fn unaware(before: &CommandContext, next: Next) -> Vec<RsetReason> {
    let has_recipients = before.envelope.named() > 0 && before.point.has_envelope();
    match next {
        Next::CaptureMiss => vec![ClientAbort, AddressProbe, PipelinedBetweenMessages, BeforeQuit],
        // Whatever the replies: it never meant to send.
        _ if has_recipients && (next.leaves() || before.envelope.sends_nothing()) => vec![AddressProbe],
        _ if next.verb() == Some(Verb::Quit) => vec![ClientAbort, BeforeQuit],
        _ if next.is_early(Verb::Mail) => vec![ClientAbort, AddressProbe, PipelinedBetweenMessages],
        _ => vec![ClientAbort, AddressProbe],
    }
}

/// What was before was not seen: all reasons that what came next allows.
fn unknown(next: Next) -> Vec<RsetReason> {
    let unseen = next == Next::CaptureMiss;
    let mut reasons = vec![SenderRejected, RecipientsRejected, RecipientRejected, DataRejected, MessageRejected];
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
    use crate::analysis::next::tests::NEXTS;
    use crate::analysis::session_tracker::tests::befores;

    #[test]
    fn there_is_always_a_reason_and_none_twice() {
        let repeats = [Repeat::OtherSender, Repeat::SameEnvelope, Repeat::SameMessage(9), Repeat::CaptureMiss];
        for before in befores().into_iter().filter(|before| at_once(before).is_none()) {
            for next in NEXTS {
                let compared = repeats.into_iter().filter(|_| compares(&before, next)).map(Some);
                for (accepted, repeat) in compared.chain([None]).flat_map(|repeat| [(true, repeat), (false, repeat)]) {
                    let reasons = settled(&before, accepted, next, repeat);
                    let distinct = reasons.iter().collect::<std::collections::HashSet<_>>();
                    assert!(
                        !reasons.is_empty() && distinct.len() == reasons.len(),
                        "{before:?}, {next:?}: {reasons:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_reply_that_was_not_there_is_no_reason() {
        let early = befores().into_iter().filter(|before| before.pipelined);
        let reasons = early.filter_map(|before| at_once(&before));
        assert!(reasons.into_iter().all(|reason| reason == ChunkAbort));
    }

    #[test]
    fn what_two_connections_show_is_not_claimed_of_one() {
        for before in befores() {
            for next in NEXTS {
                let reasons = settled(&before, true, next, None);
                assert_ne!(reasons, [InterceptorDiscard], "{before:?}, {next:?}");
                assert!(!reasons.contains(&RsetReason::Relayed), "{before:?}, {next:?}");
            }
        }
    }
}
