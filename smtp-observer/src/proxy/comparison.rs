//! What differs between what a client said and heard, and what was said and heard upstream of it.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::cursor::{Cursor, Message};
use super::dialogue::{Content, Dialogue, Said, Step};
use crate::fact::Elapsed;
use crate::fact::Evidence;
use crate::names::EvidenceKind;
use crate::smtp::cut;
use crate::timestamp::Timestamp;

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

/// Characters kept of what a piece of evidence says.
const LONGEST_DETAIL: usize = 512;

/// Most injected verbs that are named: a file of events may have any.
const MAX_INJECTED: usize = 16;

/// A part of a dialogue: what was sent from one moment to another.
pub type Part = RangeInclusive<Timestamp>;

/// The steps of two dialogues that belong together, by their places.
#[derive(Debug)]
pub struct Alignment {
    /// Of each inner step, the outer one that carries it on.
    pub carried: Vec<Option<usize>>,
    /// Of each outer step, the inner one that it carries on.
    pub origin: Vec<Option<usize>>,
}

impl Alignment {
    /// Aligns two dialogues of which nothing is forgotten.
    pub fn of(sides: &Sides<'_>) -> Self {
        let mut cursor = Cursor::default();
        cursor.advance(sides);
        let (mut carried, mut origin) = (vec![None; sides.inner.steps.len()], vec![None; sides.outer.steps.len()]);
        for (inner, outer) in cursor.pairs().map(|(inner, outer)| (inner as usize, outer as usize)) {
            (carried[inner], origin[outer]) = (Some(outer), Some(inner));
        }
        Self { carried, origin }
    }
}

impl Sides<'_> {
    /// The latest moment that may be before this one.
    pub(super) fn latest(&self, time: Timestamp) -> Timestamp {
        time.after(self.slack)
    }

    /// What was sent at the one moment may be the cause of what was sent at the other, which may be told a little early.
    pub(super) fn may_cause(&self, cause: Timestamp, effect: Timestamp) -> bool {
        cause <= self.latest(effect).after(LATE)
    }

    /// The outer step may carry the inner one on.
    pub(super) fn may_carry(&self, carrier: &Step, step: &Step) -> bool {
        self.may_cause(step.sent, carrier.sent) && carrier.says_what(step)
    }
}

/// What is found out by a comparison.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// Each kind at most once, in the order of the dialogue; empty unless they are wanted in words.
    pub evidence: Vec<Evidence>,
    kinds: Kinds,
    /// The verbs that the server got and the client had not sent, in the order of the dialogue.
    injected: Vec<Box<str>>,
    /// The details of the evidence are wanted: they are for people, and made when they are told or their steps are let go.
    in_words: bool,
    /// How long DATA was held back.
    pub hold: Option<Duration>,
    /// The same message was asked for at both ends, or the same greeting was given.
    pub same: bool,
    /// The server was told of a sender of whom the client has not spoken.
    pub foreign: bool,
    /// Something waits for the other side.
    pub open: bool,
}

/// A set of kinds of evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u32);

impl Kinds {
    fn bit(kind: EvidenceKind) -> u32 {
        1 << kind as u32
    }

    /// Adds one; whether it is new.
    fn insert(&mut self, kind: EvidenceKind) -> bool {
        let is_new = self.0 & Self::bit(kind) == 0;
        self.0 |= Self::bit(kind);
        is_new
    }

    /// The kinds that are in it.
    pub fn iter(self) -> impl Iterator<Item = EvidenceKind> {
        EvidenceKind::ALL.iter().copied().filter(move |kind| self.0 & Self::bit(*kind) != 0)
    }

    /// How many are in it.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }
}

impl Differences {
    /// Nothing was found yet.
    pub fn new(in_words: bool) -> Self {
        Self { in_words, ..Self::default() }
    }

    /// The same, with all that is added in words.
    pub fn in_words(self) -> Self {
        Self { in_words: true, ..self }
    }

    /// The kinds of evidence.
    pub fn kinds(&self) -> Kinds {
        self.kinds
    }

    /// How much is known: it grows with every kind of evidence and with every verb.
    pub fn extent(&self) -> usize {
        self.kinds.len() + self.injected.len()
    }

    /// Adds a piece of evidence, if there is none of its kind.
    pub fn add(&mut self, kind: EvidenceKind, detail: impl FnOnce() -> String) {
        if self.kinds.insert(kind) && self.in_words {
            self.evidence.push(Evidence { kind, detail: cut(detail(), LONGEST_DETAIL) });
        }
    }

    /// Adds a verb that the client had not sent: all of them are one piece of evidence.
    fn inject(&mut self, verb: &str) {
        if self.injected.len() >= MAX_INJECTED || self.injected.iter().any(|known| &**known == verb) {
            return;
        }
        self.injected.push(verb.into());
        self.add(EvidenceKind::CommandInjected, String::new);
        if let Some(evidence) = self.evidence.iter_mut().find(|it| it.kind == EvidenceKind::CommandInjected) {
            let verbs = match &*self.injected {
                [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
                verbs => verbs.join(", "),
            };
            let detail = format!("the server got {verbs} that the client had not sent");
            evidence.detail = cut(detail, LONGEST_DETAIL);
        }
    }

    /// Adds what was found before, of steps that wait for nothing.
    pub fn extend(&mut self, settled: &Self) {
        match self.in_words {
            true => settled.evidence.iter().for_each(|it| self.add(it.kind, || it.detail.clone())),
            false => self.kinds.0 |= settled.kinds.0,
        }
        settled.injected.iter().for_each(|verb| self.inject(verb));
        self.hold = settled.hold.or(self.hold);
        self.same |= settled.same;
        self.foreign |= settled.foreign;
    }
}

/// Compares two sides of which nothing is forgotten: what differs is added to what was found.
pub fn compare(found: &mut Differences, sides: &Sides<'_>) {
    let mut cursor = Cursor::default();
    cursor.advance(sides);
    cursor.compare(found, sides, Timestamp(i64::MIN));
}

/// What differs between the greetings.
pub(super) fn greeting(found: &mut Differences, sides: &Sides<'_>) {
    if let (Some(heard), Some(said)) = (&sides.inner.greeting, &sides.outer.greeting)
        && sides.part.contains(&said.time)
    {
        found.same |= heard.says_what(said);
        differ(found, "connecting", heard, said);
    }
}

/// Commands whose presence at one side alone says something: a proxy may well say hello, or leave, in its own name.
fn is_telling(verb: &str) -> bool {
    !matches!(verb, "EHLO" | "HELO" | "LHLO" | "QUIT" | "AUTH" | "STARTTLS")
}

/// The same, in words.
pub fn between(step: &Step, carrier: &Step) -> Vec<Evidence> {
    let mut found = Differences::new(true);
    pair(&mut found, step, carrier);
    found.evidence
}

/// What differs between a step and the one that carries it on.
pub(super) fn pair(found: &mut Differences, step: &Step, carrier: &Step) {
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

/// An inner step that nothing carries on, though what came later is.
pub(super) fn swallowed(found: &mut Differences, step: &Step) {
    // A proxy that refuses something itself asks nobody; what came before its connection was there is not for it.
    if is_telling(&step.verb) && step.is_accepted() {
        found.add(EvidenceKind::CommandSwallowed, || format!("the client's {} did not reach the server", step.verb));
    }
}

/// An outer step that carries nothing on, if that `is_known` by now.
pub(super) fn injected(found: &mut Differences, step: &Step, is_known: bool) {
    if !is_telling(&step.verb) {
        return;
    }
    found.foreign |= is_known && step.verb == "MAIL";
    match is_known {
        true => found.inject(&step.verb),
        false => found.open = true,
    }
}

/// A message of the client, and when the server was asked for it: by what carries the client's DATA on, or by BDAT.
pub(super) fn message(found: &mut Differences, step: &Step, message: &Message, sides: &Sides<'_>, overdue: Timestamp) {
    if &*step.verb != "DATA" || message.asked.is_none() && message.is_doubtful {
        return;
    }
    let outer = sides.outer;
    let Some(go_ahead) = step.reply.as_ref().filter(|reply| reply.code == 354) else { return };
    let is_late = message.asked.is_none_or(|(_, asked)| asked > sides.latest(go_ahead.time));
    if is_late {
        match message.asked.is_some() || outer.knows(go_ahead.time, overdue) {
            true => found.add(EvidenceKind::GoAheadNotFromUpstream, || {
                format!("the client was told \"354 {}\" before the server was asked", go_ahead.text)
            }),
            false => found.open = true,
        }
    }
    if let Some((_, asked)) = message.asked {
        let since = |time: Timestamp| asked.since(time);
        found.hold = Some(since(step.sent));
        if let Some(ended) = step.content.as_ref().and_then(|content| content.ended)
            && is_late
            && sides.latest(asked) >= ended
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
    let Some(success) = step.content.as_ref().and_then(Content::accepted) else { return };
    let asked = message.asked.map_or(outer.end(), |(number, _)| number);
    let is_of_part = |other: &Step| other.is_message() && sides.part.contains(&other.sent);
    let mut served = outer.range(asked..outer.end()).filter(|(_, other)| is_of_part(other));
    let took = |other: &Step| other.content.as_ref().and_then(Content::accepted);
    let is_taken = served.any(|(_, other)| took(other).is_some_and(|time| time <= sides.latest(success)));
    if !is_taken && asked >= outer.first() {
        found.add(EvidenceKind::SuccessBeforeUpstream, || {
            "the client was told that its message is taken before the server had taken it".to_owned()
        });
    }
}

/// A duration as people read it.
pub fn seconds(duration: Duration) -> String {
    Elapsed(duration).to_string()
}
