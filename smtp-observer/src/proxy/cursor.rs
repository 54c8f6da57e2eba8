//! How far two dialogues are compared. What is behind the cursor is counted and is not read again, so a step costs the same
//! however many there were before it, and its dialogue may forget it.

use std::collections::VecDeque;
use std::time::Duration;

use super::PATIENCE;
use super::comparison::{self, Differences, LATE, Sides};
use super::dialogue::{Dialogue, Step};
use crate::timestamp::Timestamp;

/// Most steps of one side that wait for the other side. Beyond it the first one is settled by what is known.
const MAX_OPEN: u64 = 48;

/// Most messages that are remembered, and of those that are settled.
const MAX_MESSAGES: usize = 64;
const SETTLED_MESSAGES: usize = 8;

const _: () = assert!(MAX_OPEN < super::dialogue::MAX_STEPS as u64, "a step is settled before it is forgotten");

/// A place in two dialogues, and what was found out before it.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    inner: Side,
    outer: Side,
    /// The steps that belong together, in their order.
    pairs: VecDeque<Pair>,
    /// The client's messages, in their order.
    messages: VecDeque<Message>,
    /// There may have been messages before them.
    had_messages: bool,
    /// The greetings were compared.
    greeted: bool,
    /// When a transaction began that was forgotten before it was known whose it is.
    begun: Option<Timestamp>,
    /// What the settled steps have shown.
    settled: Differences,
    /// What was sent since then at one side cannot be seen at the other, which is encrypted.
    pub unread_since: Option<Timestamp>,
}

/// A place in one dialogue. Steps are meant by their numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    /// The first step that is not settled.
    open: u64,
    /// The first step that was not aligned yet.
    new: u64,
    /// Behind the last step that has a counterpart.
    next: u64,
    /// What was said since then in steps that are forgotten and may have had one.
    forgotten: Sayings,
    /// What has no counterpart and is before this may have had one that is forgotten: of these.
    doubtful: (u64, Sayings),
}

/// What was said, as a filter: what is not in it was certainly not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sayings(u64);

/// An inner step and the outer one that carries it on.
#[derive(Clone, Copy, Debug)]
struct Pair {
    inner: u64,
    outer: u64,
    /// When the client sent it.
    sent: Timestamp,
}

/// A DATA or BDAT of the client.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    number: u64,
    sent: Timestamp,
    /// It was not sent before: when the client had heard what was said to the command before it, unless it did not wait.
    earliest: Timestamp,
    /// The number of the outer DATA or BDAT with which the server was asked for it, and when that was sent.
    pub asked: Option<(u64, Timestamp)>,
    /// If there is none, it may be forgotten.
    pub is_doubtful: bool,
}

/// Whether the client sent what was sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It did, at this moment.
    Client(Timestamp),
    /// It did not.
    Middle,
    /// What it sent then is forgotten, or cannot be seen.
    Unknown,
}

/// Whether a message of the client was held back at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBack {
    /// It was: the step with this number began it, so long before.
    Message(u64, Duration),
    /// None was.
    Nothing,
    /// What the client sent before is forgotten, or cannot be seen.
    Unknown,
}

impl Cursor {
    /// Aligns what is new of the two dialogues. Each outer step carries on the first inner step that says the same, was sent
    /// before it, or seems to be a little later, and is not behind one that is carried on already.
    pub fn advance(&mut self, sides: &Sides<'_>) {
        let Sides { inner, of, outer, part, .. } = sides;
        self.had_messages |= self.inner.skip(inner, *of.start());
        self.outer.skip(outer, *part.start());
        for (number, step) in inner.range(self.inner.new..inner.end()) {
            self.inner.new = number + 1;
            if !of.contains(&step.sent) {
                continue;
            }
            if step.is_message() {
                self.begins(number, step, sides);
            }
            let waiting = outer.range(self.outer.open.max(self.outer.next)..self.outer.new);
            let mut waiting = waiting.filter(|(_, carrier)| part.contains(&carrier.sent));
            if let Some((carrier, _)) = waiting.find(|(_, carrier)| sides.may_carry(carrier, step)) {
                self.pair(number, step, carrier, sides);
            }
        }
        for (number, step) in outer.range(self.outer.new..outer.end()) {
            self.outer.new = number + 1;
            if !part.contains(&step.sent) {
                continue;
            }
            if step.is_message() {
                let asks = |message: &&mut Message| message.asked.is_none() && sides.latest(step.sent) >= message.sent;
                self.messages.iter_mut().filter(asks).for_each(|message| message.asked = Some((number, step.sent)));
            }
            let waiting = inner.range(self.inner.open.max(self.inner.next)..self.inner.new);
            let mut waiting = waiting
                .skip_while(|(_, cause)| cause.sent < *of.start())
                .take_while(|(_, cause)| cause.sent <= *of.end() && sides.may_cause(cause.sent, step.sent));
            if let Some((cause, origin)) = waiting.find(|(_, cause)| step.says_what(cause)) {
                self.pair(cause, origin, number, sides);
            }
        }
    }

    /// Counts what nothing can change any more of what is known `now`, and moves behind it.
    pub fn settle(&mut self, sides: &Sides<'_>, now: Timestamp) {
        let mut settled = std::mem::take(&mut self.settled).in_words();
        if !self.greeted && sides.inner.greeting.is_some() && sides.outer.greeting.is_some() {
            self.greeted = true;
            comparison::greeting(&mut settled, sides);
        }
        while self.settle_inner(&mut settled, sides, now) || self.settle_outer(&mut settled, sides, now) {}
        self.settled = settled;
        while self.pairs.pop_front_if(|pair| pair.outer < sides.outer.first() && pair.inner < self.inner.open).is_some()
        {
        }
        let is_settled = |message: &Message| message.number < self.inner.open;
        while self.messages.len() > MAX_MESSAGES
            || self.messages.len() > SETTLED_MESSAGES && self.messages.front().is_some_and(is_settled)
        {
            self.messages.pop_front();
            self.had_messages = true;
        }
    }

    /// Adds all that differs. What was sent until `overdue` and is not known by now was not sent.
    pub fn compare(&self, found: &mut Differences, sides: &Sides<'_>, overdue: Timestamp) {
        found.extend(&self.settled);
        if !self.greeted {
            comparison::greeting(found, sides);
        }
        let inner = sides.inner.range(self.inner.open..self.inner.new);
        for (number, step) in inner.filter(|(_, step)| sides.of.contains(&step.sent)) {
            self.compare_inner(found, number, step, sides, overdue);
        }
        // A transaction that the client has not begun may be another's, which is known when it names a recipient there.
        let mut begun = self.begun;
        let outer = sides.outer.range(self.outer.open..self.outer.new);
        for (number, step) in outer.filter(|(_, step)| sides.part.contains(&step.sent)) {
            if step.verb == "MAIL" && number >= self.outer.next {
                begun = Some(step.sent);
            }
            match begun.is_some_and(|begun| begun > overdue) && number >= self.outer.next {
                true => found.open = true,
                false => self.compare_outer(found, number, step, sides, overdue),
            }
        }
    }

    /// The outer steps that are not settled begin with this number.
    pub fn open_outer(&self) -> u64 {
        self.outer.open
    }

    /// The inner steps that are not settled begin with this number.
    pub fn open_inner(&self) -> u64 {
        self.inner.open
    }

    /// The steps that belong together: of each pair the inner and the outer one.
    pub fn pairs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.pairs.iter().map(|pair| (pair.inner, pair.outer))
    }

    /// Where an outer step comes from.
    pub fn origin(&self, number: u64, step: &Step) -> Origin {
        match self.pair_of(number) {
            Some(pair) => Origin::Client(pair.sent),
            None if self.is_unread(step.sent)
                || number >= self.outer.new
                || self.outer.is_doubtful(number, step, &self.inner) =>
            {
                Origin::Unknown
            }
            None => Origin::Middle,
        }
    }

    /// Whether all that the client sent until this outer step is known.
    pub fn knows(&self, number: u64, step: &Step, inner: &Dialogue, overdue: Timestamp) -> bool {
        inner.knows(step.sent, overdue) && (step.sent <= overdue || !self.is_behind_message(number, inner))
    }

    /// Whether the outer step stands behind the message that the client still seems to send: it may have ended that, and
    /// have sent commands behind it in one go.
    fn is_behind_message(&self, number: u64, inner: &Dialogue) -> bool {
        let asked = self.messages.back().and_then(|message| message.asked);
        inner.transferring && inner.closed.is_none() && asked.is_some_and(|(asked, _)| asked < number)
    }

    /// Whether the client's last message was held back when the outer step of this number was sent, at this moment.
    pub fn held_back(&self, number: u64, sent: Timestamp) -> HeldBack {
        let may_be_before = |message: &&Message| message.earliest <= sent && message.sent <= sent.after(LATE);
        let before = self.messages.iter().rfind(may_be_before);
        match before {
            _ if self.is_unread(sent) => HeldBack::Unknown,
            None if self.had_messages => HeldBack::Unknown,
            None => HeldBack::Nothing,
            Some(message) if message.asked.is_some_and(|(asked, _)| asked < number) => HeldBack::Nothing,
            Some(message) if message.is_doubtful => HeldBack::Unknown,
            Some(message) => HeldBack::Message(message.number, sent.since(message.sent)),
        }
    }

    /// Whether what was sent then may have a counterpart that cannot be seen.
    fn is_unread(&self, sent: Timestamp) -> bool {
        self.unread_since.is_some_and(|since| sent > since)
    }

    /// The inner step is the beginning of a message.
    fn begins(&mut self, number: u64, step: &Step, sides: &Sides<'_>) {
        let mut before = sides.outer.range(self.outer.open..self.outer.new);
        let asks = |(_, other): &(u64, &Step)| {
            other.is_message() && sides.part.contains(&other.sent) && sides.latest(other.sent) >= step.sent
        };
        let asked = before.find(asks).map(|(number, other)| (number, other.sent));
        let before = number.checked_sub(1).and_then(|before| sides.inner.step(before)?.reply.as_ref());
        self.messages.push_back(Message {
            number,
            sent: step.sent,
            earliest: before.map_or(Timestamp(i64::MIN), |reply| reply.time.min(step.sent)),
            asked,
            is_doubtful: self.outer.forgotten != Sayings::default(),
        });
    }

    fn pair(&mut self, inner: u64, step: &Step, outer: u64, sides: &Sides<'_>) {
        self.pairs.push_back(Pair { inner, outer, sent: step.sent });
        // What stands before them at one side may belong to what is forgotten before them at the other.
        self.inner.doubt(inner, std::mem::take(&mut self.outer.forgotten));
        self.outer.doubt(outer, std::mem::take(&mut self.inner.forgotten));
        (self.inner.next, self.outer.next) = (inner + 1, outer + 1);
        if let Some(carrier) = sides.outer.step(outer).filter(|carrier| carrier.is_message())
            && let Some(message) = self.messages.iter_mut().rfind(|message| message.number == inner)
        {
            message.asked = Some((outer, carrier.sent));
        }
    }

    fn pair_with(&self, inner: u64) -> Option<&Pair> {
        self.pairs.binary_search_by_key(&inner, |pair| pair.inner).ok().and_then(|place| self.pairs.get(place))
    }

    fn pair_of(&self, outer: u64) -> Option<&Pair> {
        self.pairs.binary_search_by_key(&outer, |pair| pair.outer).ok().and_then(|place| self.pairs.get(place))
    }

    /// Settles the first inner step, if it can be.
    fn settle_inner(&mut self, settled: &mut Differences, sides: &Sides<'_>, now: Timestamp) -> bool {
        let Sides { inner, of, outer, .. } = sides;
        let number = self.inner.open;
        let Some(step) = inner.step(number).filter(|step| number < self.inner.new && step.sent <= *of.end()) else {
            return false;
        };
        if step.sent >= *of.start() {
            // Nothing is added to a step when another one is there.
            let is_whole = |dialogue: &Dialogue, number| number + 1 < dialogue.end() || dialogue.closed.is_some();
            let has_ended = inner.closed.is_some() && outer.closed.is_some();
            let is_decided = match self.pair_with(number) {
                Some(pair) => is_whole(outer, pair.outer),
                None => number < self.inner.next || has_ended,
            };
            let is_one_too_many = self.inner.new - number > MAX_OPEN;
            let is_settled = is_decided && is_whole(inner, number);
            if !is_one_too_many && !is_settled {
                return false;
            }
            if !is_decided && number >= self.inner.next {
                self.inner.forgotten.add(step);
            }
            self.compare_inner(settled, number, step, sides, now.before(PATIENCE));
        }
        self.inner.open += 1;
        true
    }

    /// Settles the first outer step, if it can be.
    fn settle_outer(&mut self, settled: &mut Differences, sides: &Sides<'_>, now: Timestamp) -> bool {
        let Sides { inner, outer, part, .. } = sides;
        let number = self.outer.open;
        let Some(step) = outer.step(number).filter(|step| number < self.outer.new && step.sent <= *part.end()) else {
            return false;
        };
        if step.sent >= *part.start() {
            let overdue = now.before(PATIENCE);
            let awaits_message =
                || step.is_message() && self.messages.back().is_some_and(|it| it.number >= self.inner.open);
            let is_unmatched = number >= self.outer.next;
            let is_decided = match self.pair_of(number) {
                Some(pair) => pair.inner < self.inner.open,
                None if !is_unmatched => true,
                None => {
                    let may_begin = || step.verb == "MAIL" && step.sent > overdue;
                    let latest = sides.latest(step.sent.after(LATE));
                    let is_complete = inner.is_complete(latest, now) && !self.is_behind_message(number, inner);
                    is_complete && !awaits_message() && !may_begin()
                }
            };
            let is_one_too_many = self.outer.new - number > MAX_OPEN;
            if !is_one_too_many && !is_decided {
                return false;
            }
            if is_unmatched && step.verb == "MAIL" {
                self.begun = Some(step.sent);
            }
            let is_anothers = self.begun.is_some_and(|begun| begun > overdue);
            match is_unmatched && !is_decided && (is_anothers || !self.knows(number, step, inner, overdue)) {
                true => self.outer.forgotten.add(step),
                false => self.compare_outer(settled, number, step, sides, overdue),
            }
        }
        self.outer.open += 1;
        true
    }

    fn compare_inner(&self, found: &mut Differences, number: u64, step: &Step, sides: &Sides<'_>, overdue: Timestamp) {
        match self.pair_with(number) {
            Some(pair) => {
                if let Some(carrier) = sides.outer.step(pair.outer) {
                    comparison::pair(found, step, carrier);
                }
            }
            None => {
                let has_ended = sides.inner.closed.is_some() && sides.outer.closed.is_some();
                if (number < self.inner.next || has_ended) && !self.inner.is_doubtful(number, step, &self.outer) {
                    comparison::swallowed(found, step);
                }
            }
        }
        if let Some(message) = self.messages.iter().rfind(|message| message.number == number) {
            comparison::message(found, step, message, sides, overdue);
        }
    }

    fn compare_outer(&self, found: &mut Differences, number: u64, step: &Step, sides: &Sides<'_>, overdue: Timestamp) {
        if self.pair_of(number).is_none() && !self.outer.is_doubtful(number, step, &self.inner) {
            // What the client sent is carried on in its order.
            let is_known = number < self.outer.next || self.knows(number, step, sides.inner, overdue);
            comparison::injected(found, step, is_known);
        }
    }
}

impl Side {
    /// Goes on behind what the dialogue has forgotten of a part that begins at this moment; whether that was not read.
    fn skip(&mut self, dialogue: &Dialogue, from: Timestamp) -> bool {
        let first = dialogue.first();
        let is_of_part = dialogue.range(first..first + 1).next().is_none_or(|(_, step)| step.sent > from);
        if first > self.open.max(self.next) && is_of_part {
            self.forgotten = Sayings::ALL;
        }
        let was_unread = first > self.new && is_of_part;
        (self.open, self.new) = (self.open.max(first), self.new.max(first));
        was_unread
    }

    /// What has no counterpart before this may have had one of these.
    fn doubt(&mut self, number: u64, forgotten: Sayings) {
        if forgotten != Sayings::default() {
            self.doubtful = (number, Sayings(self.doubtful.1.0 | forgotten.0));
        }
    }

    /// Whether a step that has no counterpart may have had one that the other side has forgotten.
    fn is_doubtful(&self, number: u64, step: &Step, other: &Self) -> bool {
        let (doubtful, of) = self.doubtful;
        number < doubtful && of.may_have(step) || number >= self.next && other.forgotten.may_have(step)
    }
}

impl Sayings {
    /// Anything.
    const ALL: Self = Self(u64::MAX);

    fn add(&mut self, step: &Step) {
        self.0 |= Self::bit(step);
    }

    /// A step may have said the same.
    fn may_have(self, step: &Step) -> bool {
        self.0 & Self::bit(step) != 0
    }

    fn bit(step: &Step) -> u64 {
        let verb = step.kind().bytes().fold(0_u64, |hash, byte| hash.wrapping_mul(33).wrapping_add(byte.into()));
        // The upper bits of a product depend on all of its factor (Fibonacci hashing).
        1 << ((verb ^ step.mailbox.unwrap_or_default()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn usual_commands_are_told_apart_when_they_are_forgotten() {
        let usual = ["EHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "AUTH", "STARTTLS"];
        let mut dialogue = Dialogue::whole();
        usual.iter().for_each(|verb| dialogue.command(Cow::Borrowed(verb), None, None, Timestamp(1), None));
        let bits: HashSet<u64> = dialogue.steps.iter().map(Sayings::bit).collect();
        assert_eq!(bits.len(), usual.len());
    }
}
