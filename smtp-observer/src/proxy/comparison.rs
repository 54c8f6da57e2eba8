//! What differs between what a client said and heard, and what was said and heard upstream of it.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::dialogue::{Dialogue, Said, Step};
use crate::observation::{Elapsed, Evidence, EvidenceKind, Timestamp};

/// An inner dialogue and the outer one that carries it on, of each a part.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// What the client said and heard.
    pub inner: &'a Dialogue,
    /// The part of it that is carried on there.
    pub of: &'a Part,
    /// What was said and heard upstream of it.
    pub outer: &'a Dialogue,
    /// The part of that which serves it.
    pub part: &'a Part,
    /// How much earlier than its cause an effect may seem to be: nothing by one clock, a little by those of two hosts.
    pub slack: Duration,
}

/// A call is told when it returns. By so much a cause may seem to be later than its effect on the same host, where its
/// process had lost the processor before it came back from the call.
pub const LATE: Duration = Duration::from_millis(50);

/// A part of a dialogue: what was sent from one moment to another.
pub type Part = RangeInclusive<Timestamp>;

/// The steps of two dialogues that belong together.
#[derive(Debug, Default)]
pub struct Alignment {
    /// Of each inner step, the outer one that carries it on.
    pub carried: Vec<Option<usize>>,
    /// Of each outer step, the inner one that it carries on.
    pub origin: Vec<Option<usize>>,
}

impl Alignment {
    /// Each outer step carries on the first inner step that says the same, was sent before it, and is not behind one that
    /// is carried on already. Where there is none, one will do whose sending was told a little late.
    pub fn of(sides: &Sides<'_>) -> Self {
        let Sides { inner, of, outer, part, .. } = sides;
        let mut carried = vec![None; inner.steps.len()];
        let mut next = inner.steps.partition_point(|step| step.sent < *of.start());
        let origin = outer.steps.iter().enumerate().map(|(place, step)| {
            if !part.contains(&step.sent) {
                return None;
            }
            let until = |time: Timestamp| time.min(*of.end());
            let cause = |until: Timestamp| {
                let before = inner.steps.iter().enumerate().skip(next).take_while(|(_, cause)| cause.sent <= until);
                before.into_iter().find(|(_, cause)| step.says_what(cause)).map(|(cause, _)| cause)
            };
            let latest = sides.latest(step.sent);
            let cause = cause(until(latest)).or_else(|| cause(until(latest.after(LATE))))?;
            carried[cause] = Some(place);
            next = cause + 1;
            Some(cause)
        });
        let origin = origin.collect();
        Self { carried, origin }
    }
}

impl Sides<'_> {
    /// The latest moment that may be before this one.
    fn latest(&self, time: Timestamp) -> Timestamp {
        time.after(self.slack)
    }
}

/// What is found out by a comparison.
#[derive(Debug, Default)]
pub struct Differences {
    /// Each kind at most once, in the order of the dialogue.
    pub evidence: Vec<Evidence>,
    /// The details of the evidence are wanted: they are for people, and made when they are told.
    pub in_words: bool,
    /// How long DATA was held back.
    pub hold: Option<Duration>,
    /// The same message was asked for at both ends, or the same greeting was given.
    pub same: bool,
    /// Something waits for the other side.
    pub open: bool,
}

impl Differences {
    /// Nothing was found yet.
    pub fn new(in_words: bool) -> Self {
        Self { in_words, ..Self::default() }
    }

    /// Adds a piece of evidence, if there is none of its kind.
    pub fn add(&mut self, kind: EvidenceKind, detail: impl FnOnce() -> String) {
        if !self.evidence.iter().any(|evidence| evidence.kind == kind) {
            self.evidence.push(Evidence { kind, detail: if self.in_words { detail() } else { String::new() } });
        }
    }
}

/// Compares the two sides: what differs is added to what was found. What was sent until `overdue` and is not known by now was
/// not sent.
pub fn compare(found: &mut Differences, sides: &Sides<'_>, overdue: Timestamp) {
    let Sides { inner, of, outer, part, .. } = sides;
    if let (Some(heard), Some(said)) = (&inner.greeting, &outer.greeting)
        && part.contains(&said.time)
    {
        found.same |= heard.says_what(said);
        differ(found, "connecting", heard, said);
    }
    let alignment = Alignment::of(sides);
    for (place, step) in inner.steps.iter().enumerate().filter(|(_, step)| of.contains(&step.sent)) {
        match alignment.carried[place].and_then(|place| outer.steps.get(place)) {
            Some(carrier) => {
                pair(found, step, carrier);
                content(found, step, Some(carrier), sides, overdue);
            }
            None => {
                swallowed(found, step, &alignment.carried[place..], sides);
                content(found, step, None, sides, overdue);
            }
        }
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
}

/// Commands whose presence at one side alone says something: a proxy may well say hello, or leave, in its own name.
fn is_telling(verb: &str) -> bool {
    !matches!(verb, "EHLO" | "HELO" | "LHLO" | "QUIT" | "AUTH" | "STARTTLS")
}

/// What differs between a step and the one that carries it on.
pub fn between(step: &Step, carrier: &Step) -> Vec<Evidence> {
    let mut found = Differences::new(true);
    pair(&mut found, step, carrier);
    found.evidence
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

/// A step that nothing carries on; `carried` is of it and those behind it.
fn swallowed(found: &mut Differences, step: &Step, carried: &[Option<usize>], Sides { inner, outer, .. }: &Sides<'_>) {
    // A proxy that refuses something itself asks nobody; what came before its connection was there is not for it.
    if !is_telling(&step.verb) || !step.is_accepted() {
        return;
    }
    let later = carried.iter().any(Option::is_some);
    let ended = inner.closed.is_some() && outer.closed.is_some();
    if later || ended {
        found.add(EvidenceKind::CommandSwallowed, || format!("the client's {} did not reach the server", step.verb));
    }
}

/// A message of the client, and when the server was asked for it: by what carries the client's DATA on, or by BDAT.
fn content(found: &mut Differences, step: &Step, carrier: Option<&Step>, sides: &Sides<'_>, overdue: Timestamp) {
    if &*step.verb != "DATA" {
        return;
    }
    let Sides { outer, part, .. } = sides;
    let Some(go_ahead) = step.reply.as_ref().filter(|reply| reply.code == 354) else { return };
    let served = |other: &&Step| matches!(&*other.verb, "DATA" | "BDAT") && part.contains(&other.sent);
    let asked =
        carrier.or_else(|| outer.steps.iter().filter(served).find(|other| sides.latest(other.sent) >= step.sent));
    let is_late = asked.is_none_or(|asked| asked.sent > sides.latest(go_ahead.time));
    if is_late {
        match asked.is_some() || outer.knows(go_ahead.time, overdue) {
            true => found.add(EvidenceKind::GoAheadNotFromUpstream, || {
                format!("the client was told \"354 {}\" before the server was asked", go_ahead.text)
            }),
            false => found.open = true,
        }
    }
    if let Some(asked) = asked {
        let since = |time: Timestamp| asked.sent.since(time);
        found.hold = Some(since(step.sent));
        if let Some(ended) = step.content.as_ref().and_then(|content| content.ended)
            && is_late
            && sides.latest(asked.sent) >= ended
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
        let taken = outer.steps.iter().filter(served).filter_map(took).any(|time| time <= sides.latest(success));
        if !taken {
            found.add(EvidenceKind::SuccessBeforeUpstream, || {
                "the client was told that its message is taken before the server had taken it".to_owned()
            });
        }
    }
}

/// A duration as people read it.
pub fn seconds(duration: Duration) -> String {
    Elapsed(duration).to_string()
}
