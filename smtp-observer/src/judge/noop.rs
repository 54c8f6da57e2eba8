//! Why a NOOP was sent.

use super::phase::{Before, Point};
use crate::observation::NoopReason;

/// NOOPs in a session that any purpose explains; Sendmail slows a client down beyond it (`MAXNOOPCOMMANDS`).
const MOST: u32 = 20;

/// The reason that follows from what was before, with its evidence. Where several are left it is ambiguous, and the last
/// evidence names them.
pub(super) fn reason(before: &Before) -> (NoopReason, Vec<String>) {
    use NoopReason::{IdleKeepalive, InterceptorKeepalive, LeaseCheck, PipelineSync, ReachabilityTest, Verification};
    let mut evidence = before.evidence();
    if before.noops > MOST {
        evidence.push(format!("{} NOOPs in this session", before.noops));
        return (NoopReason::Excessive, evidence);
    }
    let mut candidates = match before.point {
        Point::Start | Point::AuthRefused { .. } => vec![ReachabilityTest, LeaseCheck, IdleKeepalive, Verification],
        Point::Envelope { .. } | Point::SenderRefused { .. } | Point::DataRefused { .. } => {
            vec![InterceptorKeepalive, Verification]
        }
        Point::Chunk | Point::ChunkRefused { .. } => vec![InterceptorKeepalive],
        Point::Idle | Point::MessageAccepted | Point::MessageRefused { .. } => vec![LeaseCheck, IdleKeepalive],
        Point::Unknown => Vec::new(),
    };
    if before.pipelined {
        candidates.push(PipelineSync);
    }
    if !candidates.is_empty() {
        let names: Vec<_> = candidates.iter().map(|reason| reason.as_str()).collect();
        evidence.push(format!("possible: {}", names.join(", ")));
    }
    (NoopReason::Ambiguous, evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(point: Point, pipelined: bool, noops: u32) -> Before {
        Before { point, pipelined, noops }
    }

    #[test]
    fn too_many() {
        assert_eq!(reason(&before(Point::Start, false, 20)).0, NoopReason::Ambiguous);
        let (reason, evidence) = reason(&before(Point::Start, false, 21));
        assert_eq!(reason, NoopReason::Excessive);
        assert_eq!(evidence, ["no MAIL before it in this session", "21 NOOPs in this session"]);
    }

    #[test]
    fn candidates() {
        assert_eq!(
            reason(&before(Point::Envelope { accepted: 1, rejected: 0 }, true, 1)),
            (
                NoopReason::Ambiguous,
                vec![
                    "MAIL was accepted, 1 recipients were accepted, 0 were refused".into(),
                    "sent before the reply to the command before it".into(),
                    "possible: interceptor_keepalive, verification, pipeline_sync".into(),
                ]
            )
        );
        assert_eq!(
            reason(&before(Point::Unknown, false, 1)),
            (NoopReason::Ambiguous, vec!["what was before was not seen".into()])
        );
    }
}
