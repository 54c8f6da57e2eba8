//! What differs between what a client said and heard, and what was said and heard upstream of it.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::dialogue::{Dialogue, Said, Step};
use crate::observation::{Evidence, EvidenceKind, Timestamp};

/// The steps of two dialogues that belong together.
#[derive(Debug, Default)]
pub struct Alignment {
    /// Of each inner step, the outer one that carries it on.
    pub carried: Vec<Option<usize>>,
    /// Of each outer step, the inner one that it carries on.
    pub origin: Vec<Option<usize>>,
}

/// The part of an outer dialogue that serves an inner one.
pub type Part = RangeInclusive<Timestamp>;

impl Alignment {
    /// Each outer step carries on the first inner step that says the same, was sent before it, and is not behind one that
    /// is carried on already.
    pub fn of(inner: &Dialogue, outer: &Dialogue, from: Timestamp, part: &Part) -> Self {
        let mut carried = vec![None; inner.steps.len()];
        let mut next = inner.steps.partition_point(|step| step.sent < from);
        let origin = outer.steps.iter().enumerate().map(|(place, step)| {
            if !part.contains(&step.sent) {
                return None;
            }
            let before = inner.steps.iter().enumerate().skip(next).take_while(|(_, cause)| cause.sent <= step.sent);
            let (cause, _) = before.into_iter().find(|(_, cause)| step.says_what(cause))?;
            carried[cause] = Some(place);
            next = cause + 1;
            Some(cause)
        });
        let origin = origin.collect();
        Self { carried, origin }
    }
}

/// What is found out by a comparison.
#[derive(Debug, Default)]
pub struct Differences {
    /// Each kind at most once, in the order of the dialogue.
    pub evidence: Vec<Evidence>,
    /// How long DATA was held back.
    pub hold: Option<Duration>,
    /// The same message was asked for at both ends, or the same greeting was given.
    pub same: bool,
    /// Something waits for the other side.
    pub open: bool,
}

impl Differences {
    fn add(&mut self, kind: EvidenceKind, detail: impl FnOnce() -> String) {
        if !self.evidence.iter().any(|evidence| evidence.kind == kind) {
            self.evidence.push(Evidence { kind, detail: detail() });
        }
    }
}

/// Compares an inner dialogue, from a moment on, with a part of an outer one. What was sent until `overdue` and is not
/// known by now was not sent.
pub fn compare(inner: &Dialogue, outer: &Dialogue, from: Timestamp, part: &Part, overdue: Timestamp) -> Differences {
    let mut found = Differences::default();
    if let (Some(heard), Some(said)) = (&inner.greeting, &outer.greeting)
        && part.contains(&said.time)
    {
        found.same |= heard.says_what(said);
        differ(&mut found, "connecting", heard, said);
    }
    let alignment = Alignment::of(inner, outer, from, part);
    for (step, carried) in inner.steps.iter().zip(&alignment.carried).filter(|(step, _)| step.sent >= from) {
        match carried.and_then(|place| outer.steps.get(place)) {
            Some(carrier) => pair(&mut found, step, carrier),
            None => swallowed(&mut found, step, &alignment, inner, outer, overdue),
        }
        content(&mut found, step, outer, part, overdue);
    }
    for (step, origin) in outer.steps.iter().zip(&alignment.origin) {
        if origin.is_none() && part.contains(&step.sent) && is_telling(&step.verb) {
            match inner.knows(step.sent, overdue) {
                true => found.add(EvidenceKind::CommandInjected, || {
                    format!("the server got a {} that the client had not sent", step.verb)
                }),
                false => found.open = true,
            }
        }
    }
    found
}

/// Commands whose presence at one side alone says something: a proxy may well say hello, or leave, in its own name.
fn is_telling(verb: &str) -> bool {
    !matches!(verb, "EHLO" | "HELO" | "LHLO" | "QUIT" | "AUTH" | "STARTTLS")
}

/// A step and the one that carries it on.
fn pair(found: &mut Differences, step: &Step, carrier: &Step) {
    if step.name != carrier.name {
        found.add(EvidenceKind::HeloChanged, || {
            format!("the client said {}, the server was told {}", greets(step), greets(carrier))
        });
    }
    let (Some(heard), Some(said)) = (&step.reply, &carrier.reply) else { return };
    match (step.extensions(), carrier.extensions()) {
        (Some(offered), Some(known)) => {
            let missing: Vec<_> = known.iter().filter(|word| !offered.contains(word)).map(String::as_str).collect();
            let added: Vec<_> = offered.iter().filter(|word| !known.contains(word)).map(String::as_str).collect();
            if missing.contains(&"STARTTLS") {
                found.add(EvidenceKind::StarttlsStripped, || {
                    "the server offers STARTTLS, the client was not offered it".to_owned()
                });
            }
            let others: Vec<_> = missing.into_iter().filter(|word| *word != "STARTTLS").collect();
            if !others.is_empty() {
                found.add(EvidenceKind::CapabilityRemoved, || {
                    format!("not offered to the client: {}", others.join(", "))
                });
            }
            if !added.is_empty() {
                found.add(EvidenceKind::CapabilityAdded, || {
                    format!("offered to the client alone: {}", added.join(", "))
                });
            }
        }
        _ => {
            found.same |= step.mailbox.is_some() && heard.says_what(said);
            differ(found, &step.verb, heard, said);
        }
    }
    if let (Some(sent), Some(passed)) = (&step.content, &carrier.content) {
        if let (Some(size), Some(got)) = (sent.size, passed.size)
            && size != got
        {
            found.add(EvidenceKind::BodyChanged, || {
                format!("the client sent a message of {size} bytes, the server got one of {got}")
            });
        }
        if let (Some(heard), Some(said)) = (&sent.reply, &passed.reply) {
            differ(found, "the end of data", heard, said);
        }
    }
}

fn greets(step: &Step) -> String {
    format!("{} {}", step.verb, step.name.as_deref().unwrap_or_default()).trim_end().to_owned()
}

fn differ(found: &mut Differences, what: &str, heard: &Said, said: &Said) {
    if !heard.says_what(said) {
        found.add(EvidenceKind::ReplyTextDiffers, || {
            let text = |said: &Said| format!("{} {}", said.code, said.text.lines().next().unwrap_or_default());
            format!("to {what} the client heard \"{}\", the server had said \"{}\"", text(heard), text(said))
        });
    }
}

/// A step that nothing carries on.
fn swallowed(
    found: &mut Differences,
    step: &Step,
    alignment: &Alignment,
    inner: &Dialogue,
    outer: &Dialogue,
    overdue: Timestamp,
) {
    // A proxy that refuses something itself asks nobody; what came before its connection was there is not for it.
    if !is_telling(&step.verb) || !step.is_accepted() {
        return;
    }
    let place = inner.steps.iter().position(|other| std::ptr::eq(other, step));
    let later = place.is_some_and(|place| alignment.carried[place..].iter().any(Option::is_some));
    let ended = inner.closed.is_some() && outer.closed.is_some_and(|closed| outer.knows(closed, overdue));
    if later || ended {
        found.add(EvidenceKind::CommandSwallowed, || format!("the client's {} did not reach the server", step.verb));
    } else {
        found.open = true;
    }
}

/// A message of the client, and when the server was asked for it.
fn content(found: &mut Differences, step: &Step, outer: &Dialogue, part: &Part, overdue: Timestamp) {
    if &*step.verb != "DATA" {
        return;
    }
    let Some(go_ahead) = step.reply.as_ref().filter(|reply| reply.code == 354) else { return };
    let served = |other: &&Step| matches!(&*other.verb, "DATA" | "BDAT") && part.contains(&other.sent);
    let asked = outer.steps.iter().filter(served).find(|other| other.sent >= step.sent);
    if asked.is_none_or(|asked| asked.sent > go_ahead.time) {
        match asked.is_some() || outer.knows(go_ahead.time, overdue) {
            true => found.add(EvidenceKind::GoAheadNotFromUpstream, || {
                format!("the client was told \"354 {}\" before the server was asked", go_ahead.text)
            }),
            false => found.open = true,
        }
    }
    if let Some(asked) = asked {
        let since = |time: Timestamp| Duration::from_nanos(asked.sent.0.saturating_sub(time.0).max(0) as u64);
        found.hold = Some(since(step.sent));
        if let Some(ended) = step.content.as_ref().and_then(|content| content.ended)
            && asked.sent >= ended
        {
            found.add(EvidenceKind::DataHeldBack, || {
                format!(
                    "the server got DATA {} after the client's, {} after the end of the message",
                    seconds(since(step.sent)),
                    seconds(since(ended))
                )
            });
        }
    }
    if let Some(success) = step.content.as_ref().and_then(super::dialogue::Content::accepted) {
        let took = |other: &Step| other.content.as_ref().and_then(super::dialogue::Content::accepted);
        let taken = outer.steps.iter().filter(served).filter_map(took).any(|time| time <= success);
        if !taken {
            found.add(EvidenceKind::SuccessBeforeUpstream, || {
                "the client was told that its message is taken before the server had taken it".to_owned()
            });
        }
    }
}

/// A duration as people read it.
pub fn seconds(duration: Duration) -> String {
    match duration.as_secs_f64() {
        long if long >= 1.0 => format!("{long:.1} s"),
        short => format!("{:.1} ms", short * 1000.0),
    }
}
