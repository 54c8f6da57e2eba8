//! The evidence for the reason of an RSET or a NOOP in words, for JSON and for people.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::fact::evidence::{
    EvidenceList, NEXT_COMMAND_TIMEOUT, NextAction, ReasonEvidence, SessionState, TransactionComparison,
};
use crate::smtp::Verb;

/// The evidence as a list of texts.
pub(super) fn serialize<S: Serializer>(evidence: &EvidenceList, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(evidence.iter())
}

impl Serialize for ReasonEvidence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for ReasonEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::State(state) => state.fmt(f),
            Self::NoopsInSession(count) => write!(f, "{count} NOOPs in this session"),
            Self::NoopsInARow(count) => write!(f, "{count} NOOPs in a row"),
            Self::PeriodicNoops { count, period } => write!(f, "{count} NOOPs, one every {}", Seconds(period)),
            Self::NoopsBefore(1) => f.write_str("1 NOOP right before it"),
            Self::NoopsBefore(count) => write!(f, "{count} NOOPs right before it"),
            Self::Pipelined => f.write_str("sent before the reply to the command before it"),
            Self::StoppedWaiting(time) => {
                write!(f, "sent {} after the command before it, without the reply to that", Seconds(time))
            }
            Self::Idle(time) => write!(f, "idle for {} before it", Seconds(time)),
            Self::OwnerChanged => f.write_str("another process took the connection over before it"),
            Self::LowerCase => f.write_str("sent in lower case, as by Python's smtplib"),
            Self::Refused(code) => write!(f, "answered {code}"),
            Self::Next(next) => next.fmt(f),
            Self::Comparison(comparison) => comparison.fmt(f),
            Self::PossibleRset(reasons) => possible(f, reasons.iter().map(|reason| reason.as_str())),
            Self::PossibleNoop(reasons) => possible(f, reasons.iter().map(|reason| reason.as_str())),
            Self::SentByClient { verb, earlier } => {
                write!(f, "the client had sent {} {} before", verb.as_str(), Elapsed(earlier))
            }
            Self::NotSentByClient(verb) => write!(f, "the client had not sent {}", verb.as_str()),
            Self::DataHeldBack(time) => {
                write!(f, "the client had sent DATA {} before, the server had not got it", Elapsed(time))
            }
            Self::ClientCommandsForgotten => f.write_str("the client's commands of that time are forgotten"),
            Self::TransactionRepeated => f.write_str("the same transaction was begun again after it"),
        }
    }
}

fn possible(f: &mut fmt::Formatter<'_>, reasons: impl Iterator<Item = &'static str>) -> fmt::Result {
    f.write_str("possible: ")?;
    for (place, reason) in reasons.enumerate() {
        f.write_str(if place == 0 { "" } else { ", " })?;
        f.write_str(reason)?;
    }
    Ok(())
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unknown => f.write_str("what came before it is not known"),
            Self::Start => f.write_str("no MAIL before it in this session"),
            Self::Authenticated => f.write_str("AUTH was accepted, no MAIL before it in this session"),
            Self::AuthRefused { code } => write!(f, "AUTH was refused with {code}"),
            Self::Idle => f.write_str("no transaction is open"),
            Self::SenderRefused { code } => write!(f, "MAIL was refused with {code}"),
            Self::Envelope { accepted, rejected, .. } => {
                f.write_str("MAIL was accepted")?;
                match (accepted, rejected) {
                    (0, 0) => f.write_str(", no recipient was named"),
                    (0, _) => write!(f, ", {} refused", Count(rejected, "recipient")),
                    (_, 0) => write!(f, ", {} accepted", Count(accepted, "recipient")),
                    _ => write!(f, ", {} accepted, {} refused", Count(accepted, "recipient"), Count(rejected, "")),
                }
            }
            Self::DataRefused { code } => write!(f, "DATA was refused with {code}"),
            Self::Chunk => f.write_str("a chunk was accepted, the last has not come"),
            Self::ChunkRefused { code } => write!(f, "a chunk was refused with {code}"),
            Self::MessageAccepted => f.write_str("the message before was accepted"),
            Self::MessageRefused { code } => write!(f, "the message was refused with {code}"),
        }
    }
}

fn name(verb: Verb) -> &'static str {
    if verb == Verb::Other { "an unknown command" } else { verb.as_str() }
}

impl fmt::Display for NextAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Command { verb, early } => {
                f.write_str(name(verb))?;
                f.write_str(if early { " was sent before its reply" } else { " followed" })
            }
            Self::StoppedWaiting(verb) => write!(f, "{} was sent later, but before its reply", name(verb)),
            Self::Nothing => write!(f, "nothing followed for {} s", NEXT_COMMAND_TIMEOUT.as_secs()),
            Self::Closed => f.write_str("the connection was closed after it"),
            Self::OwnerChanged => f.write_str("another process took the connection over after it"),
            Self::Unknown => f.write_str("what followed was not seen"),
        }
    }
}

impl fmt::Display for TransactionComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherSender => f.write_str("the next MAIL named another sender"),
            Self::OtherRecipients => f.write_str("the same sender was named again, with other recipients"),
            Self::SameEnvelope => f.write_str("the same sender and recipients were named again, then the message came"),
            Self::OtherMessage => f.write_str("the same sender was named again, with another message"),
            Self::SameMessage { bytes } => {
                write!(f, "the next message of the same sender has as many bytes, {bytes}, and other recipients")
            }
            Self::Repeated { bytes } => {
                write!(f, "the next message of the same sender has as many bytes, {bytes}, and the same recipients")
            }
            Self::Unfinished => f.write_str("the same sender was named again, and no message came"),
            Self::Unknown => f.write_str("the same sender was named again"),
        }
    }
}

/// `1 recipient was`, `3 recipients were`.
struct Count(u32, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = self;
        let blank = if noun.is_empty() { "" } else { " " };
        match (count, noun.is_empty()) {
            (1, _) => write!(f, "1{blank}{noun} was"),
            (_, true) => write!(f, "{count} were"),
            (_, false) => write!(f, "{count}{blank}{noun}s were"),
        }
    }
}

/// `0.3 s`, `12 s`: what is below the last digit is cut off.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ 0..10 => write!(f, "{seconds}.{} s", self.0.subsec_millis() / 100),
            seconds => write!(f, "{seconds} s"),
        }
    }
}

/// `12.3 ms`, `2.0 s`: rounded.
pub(crate) struct Elapsed(pub(crate) Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs_f64() {
            // Where rounding would show a thousand milliseconds, it is a second.
            long if long >= 0.999_95 => write!(f, "{long:.1} s"),
            short => write!(f, "{:.1} ms", short * 1000.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{NoopReason, RsetReason};

    #[test]
    fn numbers() {
        assert_eq!(Count(1, "recipient").to_string(), "1 recipient was");
        assert_eq!(Count(2, "recipient").to_string(), "2 recipients were");
        assert_eq!(Count(1, "").to_string(), "1 was");
        assert_eq!(Count(2, "").to_string(), "2 were");
        assert_eq!(Seconds(Duration::from_millis(390)).to_string(), "0.3 s");
        assert_eq!(Seconds(Duration::from_millis(9_999)).to_string(), "9.9 s");
        assert_eq!(Seconds(Duration::from_millis(60_900)).to_string(), "60 s");
        assert_eq!(Elapsed(Duration::from_micros(12_345)).to_string(), "12.3 ms");
        assert_eq!(Elapsed(Duration::from_micros(999_960)).to_string(), "1.0 s");
    }

    #[test]
    fn evidence_as_people_read_it() {
        let envelope = |accepted, rejected| {
            ReasonEvidence::State(SessionState::Envelope { accepted, rejected, refused_last: false })
        };
        let next = |verb, early| ReasonEvidence::Next(NextAction::Command { verb, early });
        let rset = [RsetReason::BeforeQuit, RsetReason::ReuseProbe];
        for (evidence, expected) in [
            (envelope(0, 0), "MAIL was accepted, no recipient was named"),
            (envelope(0, 1), "MAIL was accepted, 1 recipient was refused"),
            (envelope(1, 0), "MAIL was accepted, 1 recipient was accepted"),
            (envelope(2, 1), "MAIL was accepted, 2 recipients were accepted, 1 was refused"),
            (ReasonEvidence::State(SessionState::SenderRefused { code: 550 }), "MAIL was refused with 550"),
            (ReasonEvidence::NoopsBefore(1), "1 NOOP right before it"),
            (ReasonEvidence::NoopsBefore(2), "2 NOOPs right before it"),
            (ReasonEvidence::PeriodicNoops { count: 3, period: Duration::from_secs(30) }, "3 NOOPs, one every 30 s"),
            (ReasonEvidence::Next(NextAction::Nothing), "nothing followed for 1 s"),
            (next(Verb::Mail, false), "MAIL followed"),
            (next(Verb::Mail, true), "MAIL was sent before its reply"),
            (next(Verb::Other, false), "an unknown command followed"),
            (ReasonEvidence::PossibleRset(rset.into()), "possible: before_quit, reuse_probe"),
            (ReasonEvidence::PossibleNoop([NoopReason::PipelineSync].into()), "possible: pipeline_sync"),
            (
                ReasonEvidence::SentByClient { verb: Verb::Noop, earlier: Duration::from_millis(3) },
                "the client had sent NOOP 3.0 ms before",
            ),
        ] {
            assert_eq!(evidence.to_string(), expected);
        }
        let list = EvidenceList::from([envelope(0, 1), ReasonEvidence::Refused(503)]);
        assert_eq!(
            serialize(&list, serde_json::value::Serializer).expect("JSON"),
            serde_json::json!(["MAIL was accepted, 1 recipient was refused", "answered 503"])
        );
    }
}
