//! Why an RSET or a NOOP was sent on a connection that carries another on: whether the client sent it, too.

use std::time::Duration;

use super::Interceptions;
use super::comparison::LATE;
use super::cursor::{HeldBack, Origin};
use super::dialogue::{Dialogue, Step};
use super::held::{Command, Held};
use super::link::Link;
use crate::fact::Reasoned;
use crate::fact::evidence::{EvidenceList, ReasonEvidence, Reasons};
use crate::identity::Role;
use crate::names::{NoopReason, RsetReason};
use crate::timestamp::Timestamp;

impl Interceptions {
    /// The same with its reason, if the client's side is known. What was sent until `overdue` and is not known by now was not
    /// sent; where the connection `is_over`, nothing more comes on it.
    pub(super) fn resolve(&self, held: &Held, overdue: Timestamp, is_over: bool) -> Option<Held> {
        let unchanged = || Some(held.clone());
        let verb = held.command.verb().as_str();
        let upstream = self.near_end(&held.connection);
        let Some(outer) = self.legs.get(&upstream) else { return unchanged() };
        let dialogue = &outer.dialogue;
        let step = match held.connection.role {
            Role::Client => {
                let mut steps = dialogue.range(0..dialogue.end());
                steps.rfind(|(_, step)| answers(step, verb) == Some(held.time))
            }
            Role::Server => other_end(dialogue, verb, held.time, overdue),
        };
        let Some((number, step)) = step else {
            let comes = upstream != held.connection.cookie && held.time > overdue;
            return if comes { None } else { unchanged() };
        };
        let Some((link, inner)) = self.carried(outer.serves, upstream, step.sent) else { return unchanged() };
        // Its client waits for nothing any more: a relay has a client's reasons.
        if link.relays(inner) {
            return unchanged();
        }
        if !link.cursor.knows(number, step, inner, overdue) {
            return None;
        }
        let mut resolved = held.clone();
        match (link.cursor.origin(number, step), link.cursor.held_back(number, step.sent)) {
            (Origin::Client(sent), _) => relayed(&mut resolved.command, step.sent.since(sent)),
            (Origin::Unknown, _) | (_, HeldBack::Unknown) => forgotten(&mut resolved.command),
            (Origin::Middle, HeldBack::Nothing) => unasked(&mut resolved.command),
            (Origin::Middle, HeldBack::Message(message, earlier)) => {
                let repeats = || match link.repeats(inner, dialogue, (number, step), overdue) {
                    Repeats::Unknown if is_over => Some(Repeats::No),
                    Repeats::Unknown | Repeats::Begun if held.time > overdue => None,
                    // Who has refused a message does not begin it again.
                    Repeats::Unknown | Repeats::Begun if is_refused(inner, message) => Some(Repeats::No),
                    repeats => Some(repeats),
                };
                invented(&mut resolved.command, earlier, repeats)?;
            }
        }
        Some(resolved)
    }

    /// How a connection carried a conversation on at this moment, and what was said in that.
    fn carried(&self, serves: Option<u64>, upstream: u64, sent: Timestamp) -> Option<(&Link, &Dialogue)> {
        let case = self.cases.get(&serves?)?;
        let serves = |link: &&Link| {
            link.cookie == upstream && link.part.contains(&sent) && link.is_compared() && !link.is_callout
        };
        Some((case.links.iter().find(serves)?, &self.legs.get(&case.client)?.dialogue))
    }
}

/// Whether the transaction that was open before an RSET is begun again behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeats {
    Yes,
    No,
    /// One of the same sender is begun, which may be another client's: it has named no recipient.
    Begun,
    /// Nothing that tells was heard yet.
    Unknown,
}

impl Link {
    /// Whether the transaction before this outer step is begun again behind it, though not by the client.
    fn repeats(&self, inner: &Dialogue, outer: &Dialogue, (number, step): (u64, &Step), overdue: Timestamp) -> Repeats {
        let mut behind = outer.range(number + 1..outer.end());
        let next = behind.find(|(_, step)| matches!(&*step.verb, "MAIL" | "QUIT"));
        match next {
            None if outer.closed.is_some() => Repeats::No,
            None => Repeats::Unknown,
            Some((_, next)) if next.verb == "QUIT" || !self.part.contains(&next.sent) => Repeats::No,
            Some((_, next)) if next.mailbox != step.sender_before => Repeats::No,
            Some((number, next)) => match self.cursor.origin(number, next) {
                Origin::Client(_) => Repeats::No,
                Origin::Middle if self.cursor.knows(number, next, inner, overdue) => {
                    names_again(outer, number, step.recipient_before)
                }
                Origin::Middle | Origin::Unknown => Repeats::Unknown,
            },
        }
    }
}

/// Whether the transaction that begins with this step names the first recipient of the one before.
fn names_again(outer: &Dialogue, mail: u64, recipient: Option<u64>) -> Repeats {
    let mut unnamed = Repeats::Begun;
    for (_, step) in outer.range(mail + 1..outer.end()) {
        match &*step.verb {
            "RCPT" if recipient.is_some() && step.mailbox == recipient => return Repeats::Yes,
            "RCPT" => unnamed = Repeats::No,
            "NOOP" => {}
            _ => return unnamed,
        }
    }
    Repeats::Begun
}

/// The client was told that its message, which began with this step, is not taken.
fn is_refused(inner: &Dialogue, message: u64) -> bool {
    let content = inner.step(message).and_then(|step| step.content.as_ref());
    content.and_then(|content| content.reply.as_ref()).is_some_and(|reply| reply.code >= 400)
}

/// When a step with this verb was answered.
fn answers(step: &Step, verb: &str) -> Option<Timestamp> {
    step.reply.as_ref().filter(|_| &*step.verb == verb).map(|reply| reply.time)
}

/// The command in the dialogue of the end that sent it, which the other end answered at this time: it was sent before, and the
/// answer was heard later. But each call is told when it returns, which may be late: if nothing more can come, it is the
/// nearest.
fn other_end<'a>(
    dialogue: &'a Dialogue,
    verb: &str,
    answered: Timestamp,
    overdue: Timestamp,
) -> Option<(u64, &'a Step)> {
    let within = |late: Duration| {
        let steps = dialogue.range(0..dialogue.end());
        let alike = steps.filter_map(|(number, step)| Some(((number, step), step.sent, answers(step, verb)?)));
        let fits = |(_, sent, heard): &(_, Timestamp, Timestamp)| {
            *sent <= answered.after(late) && answered <= (*heard).after(late)
        };
        alike.filter(fits).min_by_key(|(_, _, heard)| heard.0.abs_diff(answered.0)).map(|(step, _, _)| step)
    };
    within(Duration::ZERO).or_else(|| within(LATE).filter(|_| dialogue.knows(answered, overdue)))
}

fn relayed(command: &mut Command, earlier: Duration) {
    let evidence = [ReasonEvidence::SentByClient { verb: command.verb(), earlier }].into();
    match command {
        Command::Rset(rset) => explain(rset, RsetReason::Relayed, evidence),
        Command::Noop(noop) => explain(noop, NoopReason::Relayed, evidence),
    }
}

/// A command that the client did not send, with no message of its own held back. Between messages a process in the middle has
/// its own reasons, which are a client's; what the client wants of its transaction is not among them.
fn unasked(command: &mut Command) {
    let evidence = |verb, possible| [ReasonEvidence::NotSentByClient(verb), possible].into();
    let verb = command.verb();
    match command {
        Command::Rset(rset) => {
            use RsetReason::{AddressProbe, Ambiguous, ClientAbort, InterceptorDiscard};
            if [AddressProbe, ClientAbort].contains(&rset.reason) {
                let possible = [ClientAbort, AddressProbe, InterceptorDiscard].into();
                explain(rset, Ambiguous, evidence(verb, ReasonEvidence::PossibleRset(possible)));
            }
        }
        Command::Noop(noop) => {
            use NoopReason::{Ambiguous, InterceptorKeepalive, PipelineSync, Verification};
            if [Verification, PipelineSync].contains(&noop.reason) {
                let possible = [InterceptorKeepalive, noop.reason].into();
                explain(noop, Ambiguous, evidence(verb, ReasonEvidence::PossibleNoop(possible)));
            }
        }
    }
}

/// A command that the client did not send, while its message was held back: its reason, if that is known.
fn invented(command: &mut Command, earlier: Duration, repeats: impl FnOnce() -> Option<Repeats>) -> Option<()> {
    let mut evidence =
        EvidenceList::from([ReasonEvidence::NotSentByClient(command.verb()), ReasonEvidence::DataHeldBack(earlier)]);
    match command {
        Command::Noop(noop) => explain(noop, NoopReason::InterceptorKeepalive, evidence),
        Command::Rset(rset) => {
            use RsetReason::{Ambiguous, InterceptorDiscard, InterceptorReplay};
            let reason = match repeats()? {
                Repeats::Yes => {
                    evidence.push(ReasonEvidence::TransactionRepeated);
                    InterceptorReplay
                }
                Repeats::No => InterceptorDiscard,
                Repeats::Begun | Repeats::Unknown => {
                    evidence.push(ReasonEvidence::PossibleRset([InterceptorDiscard, InterceptorReplay].into()));
                    Ambiguous
                }
            };
            explain(rset, reason, evidence);
        }
    }
    Some(())
}

/// Whether the client sent the command cannot be told any more.
pub(super) fn forgotten(command: &mut Command) {
    let evidence = |possible| [ReasonEvidence::ClientCommandsForgotten, possible].into();
    match command {
        Command::Rset(rset) => {
            use RsetReason::{Ambiguous, InterceptorDiscard, InterceptorReplay, Relayed};
            let own = Some(rset.reason).filter(|own| ![Ambiguous, InterceptorReplay].contains(own));
            let mut possible = Reasons::from([Relayed, InterceptorDiscard, InterceptorReplay]);
            possible.extend(own);
            explain(rset, Ambiguous, evidence(ReasonEvidence::PossibleRset(possible)));
        }
        Command::Noop(noop) => {
            use NoopReason::{Ambiguous, InterceptorKeepalive, Relayed};
            let own = Some(noop.reason).filter(|own| ![Ambiguous, InterceptorKeepalive].contains(own));
            let mut possible = Reasons::from([Relayed, InterceptorKeepalive]);
            possible.extend(own);
            explain(noop, Ambiguous, evidence(ReasonEvidence::PossibleNoop(possible)));
        }
    }
}

fn explain<R>(reasoned: &mut Reasoned<R>, reason: R, evidence: EvidenceList) {
    reasoned.reason = reason;
    reasoned.evidence = evidence;
}
