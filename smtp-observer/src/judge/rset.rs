//! Why an RSET was sent.

use super::phase::{Before, Point};
use crate::observation::RsetReason;

/// The reason that follows from what was before, with its evidence. Where several are left it is ambiguous, and the last
/// evidence names them.
pub(super) fn reason(before: &Before) -> (RsetReason, Vec<String>) {
    use RsetReason::{
        AddressProbe, AuthRetry, BeforeQuit, BetweenMessages, ChunkAbort, ClientAbort, DataRejected,
        InterceptorDiscard, InterceptorReplay, MessageRejected, PipelinedBetweenMessages, RecipientRejected,
        RecipientsRejected, ReuseProbe, SameMessageSplit, SenderRejected, SessionStart,
    };
    let candidates: &[RsetReason] = match (before.point, before.pipelined) {
        // Whatever the reply before it says: this is where it stands.
        (Point::Start, _) => &[SessionStart],
        // The client did not know how the command before it went.
        (Point::MessageAccepted | Point::MessageRefused { .. }, true) => &[PipelinedBetweenMessages, BeforeQuit],
        (_, true) => &[ClientAbort, AddressProbe, PipelinedBetweenMessages, BeforeQuit],
        (Point::SenderRefused { .. }, false) => &[SenderRejected],
        (Point::Envelope { accepted: 0, rejected: 1.. }, false) => &[RecipientsRejected],
        (Point::Envelope { rejected: 1.., .. }, false) => &[RecipientRejected],
        (Point::DataRefused { .. }, false) => &[DataRejected],
        (Point::Chunk | Point::ChunkRefused { .. }, false) => &[ChunkAbort],
        (Point::MessageRefused { .. }, false) => &[MessageRejected],
        (Point::AuthRefused { .. }, false) => &[AuthRetry, SessionStart, BeforeQuit],
        (Point::MessageAccepted, false) => &[BetweenMessages, ReuseProbe, SameMessageSplit, BeforeQuit],
        (Point::Idle, false) => &[BetweenMessages, ReuseProbe, BeforeQuit],
        (Point::Envelope { rejected: 0, .. }, false) => {
            &[ClientAbort, AddressProbe, InterceptorDiscard, InterceptorReplay]
        }
        (Point::Unknown, false) => &[],
    };
    let mut evidence = before.evidence();
    if let [reason] = candidates {
        return (*reason, evidence);
    }
    if !candidates.is_empty() {
        let names: Vec<_> = candidates.iter().map(|reason| reason.as_str()).collect();
        evidence.push(format!("possible: {}", names.join(", ")));
    }
    (RsetReason::Ambiguous, evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(point: Point, pipelined: bool) -> RsetReason {
        reason(&Before { point, pipelined, noops: 0 }).0
    }

    #[test]
    fn certain_reasons() {
        for (point, expected) in [
            (Point::Start, RsetReason::SessionStart),
            (Point::SenderRefused { code: 550 }, RsetReason::SenderRejected),
            (Point::Envelope { accepted: 0, rejected: 2 }, RsetReason::RecipientsRejected),
            (Point::Envelope { accepted: 1, rejected: 1 }, RsetReason::RecipientRejected),
            (Point::DataRefused { code: 451 }, RsetReason::DataRejected),
            (Point::Chunk, RsetReason::ChunkAbort),
            (Point::ChunkRefused { code: 552 }, RsetReason::ChunkAbort),
            (Point::MessageRefused { code: 550 }, RsetReason::MessageRejected),
        ] {
            assert_eq!(judged(point, false), expected, "{point:?}");
        }
    }

    #[test]
    fn ambiguous_reasons_name_their_candidates() {
        let before = Before { point: Point::MessageAccepted, pipelined: false, noops: 0 };
        assert_eq!(
            reason(&before),
            (
                RsetReason::Ambiguous,
                vec![
                    "the message before was accepted".into(),
                    "possible: between_messages, reuse_probe, same_message_split, before_quit".into(),
                ]
            )
        );
        for point in [
            Point::Unknown,
            Point::Idle,
            Point::AuthRefused { code: 535 },
            Point::Envelope { accepted: 0, rejected: 0 },
            Point::Envelope { accepted: 3, rejected: 0 },
        ] {
            assert_eq!(judged(point, false), RsetReason::Ambiguous, "{point:?}");
        }
    }

    #[test]
    fn a_reply_that_was_not_there_is_no_reason() {
        assert_eq!(judged(Point::SenderRefused { code: 550 }, true), RsetReason::Ambiguous);
        assert_eq!(judged(Point::MessageRefused { code: 550 }, true), RsetReason::Ambiguous);
        assert_eq!(judged(Point::Start, true), RsetReason::SessionStart);
    }
}
