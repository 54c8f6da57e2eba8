//! RSETs and NOOPs on a connection that carries another on, at either end: whether the client sent them, too.

use super::case::{Case, Recognised};
use super::comparison::{Alignment, LATE, seconds};
use super::dialogue::{Dialogue, Step};
use super::{Interceptions, MOST_HELD, PATIENCE};
use crate::observation::{Event, NoopReason, Observation, Reasoned, Role, RsetReason, Timestamp};
use std::time::Duration;

impl Interceptions {
    /// An RSET or a NOOP on a connection that carries another on.
    pub(super) fn is_doubtful(&self, observation: &Observation) -> bool {
        matches!(observation.event, Event::Rset(_) | Event::Noop(_))
            && self.held.len() < MOST_HELD
            && self.served(observation).is_some()
    }

    /// The client whose conversation is carried on by the connection that this was observed of.
    fn served(&self, observation: &Observation) -> Option<u64> {
        self.legs.get(&self.near_end(observation))?.serves
    }

    /// The cookie of the end that connected: the server's end of a connection on this host has the same dialogue.
    pub(super) fn near_end(&self, observation: &Observation) -> u64 {
        let cookie = observation.connection.cookie;
        match observation.connection.role {
            Role::Client => cookie,
            Role::Server => self.accepted.get(&cookie).copied().unwrap_or(cookie),
        }
    }

    /// Keeps it back, unless the client's side is known.
    pub(super) fn hold(&mut self, observation: Observation, sink: &mut dyn FnMut(Observation)) {
        if let Some(mut resolved) = self.resolve(&observation, observation.time.before(PATIENCE)) {
            resolved.intercepted = self.is_intercepted(&resolved);
            return sink(resolved);
        }
        if let Some(case) = self.served(&observation).and_then(|client| self.cases.get_mut(&client)) {
            case.held += 1;
        }
        self.held.push_back(observation);
    }

    /// Passes on what the client's side has made clear.
    pub(super) fn release(&mut self, client: u64, now: Timestamp, sink: &mut dyn FnMut(Observation)) {
        if self.cases.get(&client).is_some_and(|case| case.held > 0) {
            self.release_those(|this, held| this.served(held) == Some(client), now, sink);
        }
    }

    /// Passes on what is held of this connection, which is over.
    pub(super) fn release_of(&mut self, over: &Observation, sink: &mut dyn FnMut(Observation)) {
        if self.served(over).and_then(|client| self.cases.get(&client)).is_some_and(|case| case.held > 0) {
            let cookie = over.connection.cookie;
            self.release_those(|_, held| held.connection.cookie == cookie, Timestamp(i64::MAX), sink);
        }
    }

    /// Passes on what has waited long enough.
    pub(super) fn release_overdue(&mut self, now: Timestamp, sink: &mut dyn FnMut(Observation)) {
        while self.held.front().is_some_and(|held| held.time <= now.before(PATIENCE)) {
            let Some(held) = self.held.pop_front() else { return };
            let resolved = self.resolve(&held, Timestamp(i64::MAX)).unwrap_or(held);
            self.let_go(resolved, sink);
        }
    }

    fn release_those(
        &mut self,
        wanted: impl Fn(&Self, &Observation) -> bool,
        now: Timestamp,
        sink: &mut dyn FnMut(Observation),
    ) {
        let mut place = 0;
        while let Some(held) = self.held.get(place) {
            let resolved = if wanted(self, held) { self.resolve(held, now.before(PATIENCE)) } else { None };
            match resolved {
                Some(resolved) => {
                    self.held.remove(place);
                    self.let_go(resolved, sink);
                }
                None => place += 1,
            }
        }
    }

    fn let_go(&mut self, mut resolved: Observation, sink: &mut dyn FnMut(Observation)) {
        if let Some(case) = self.served(&resolved).and_then(|client| self.cases.get_mut(&client)) {
            case.held = case.held.saturating_sub(1);
        }
        resolved.intercepted = self.is_intercepted(&resolved);
        sink(resolved);
    }

    /// The observation with its reason, if the client's side is known.
    fn resolve(&self, held: &Observation, overdue: Timestamp) -> Option<Observation> {
        let unchanged = || Some(held.clone());
        let verb = if matches!(held.event, Event::Rset(_)) { "RSET" } else { "NOOP" };
        let upstream = self.near_end(held);
        let Some(outer) = self.legs.get(&upstream) else { return unchanged() };
        let place = match held.connection.role {
            Role::Client => outer.dialogue.steps.iter().position(|step| answers(step, verb) == Some(held.time)),
            Role::Server => other_end(&outer.dialogue, verb, held.time, overdue),
        };
        let Some(place) = place else {
            let comes = upstream != held.connection.cookie && held.time > overdue;
            return if comes { None } else { unchanged() };
        };
        let sent = outer.dialogue.steps[place].sent;
        let Some((case, inner)) = self.carried(outer.serves, upstream, sent) else { return unchanged() };
        // Whether an RSET begins the same again, what follows it tells.
        let last = verb == "RSET" && place + 1 == outer.dialogue.steps.len();
        if !inner.knows(sent, overdue) || last && !outer.dialogue.knows(sent, overdue) {
            return None;
        }
        let Some(link) = case.links.iter().find(|link| link.cookie == upstream) else { return unchanged() };
        let alignment = Alignment::of(&link.sides(inner, &outer.dialogue));
        let mut resolved = held.clone();
        match alignment.origin.get(place).copied().flatten().and_then(|origin| inner.steps.get(origin)) {
            Some(origin) => relayed(&mut resolved.event, verb, sent.since(origin.sent)),
            None => {
                let moment = Moment { inner, outer: &outer.dialogue, carried: &alignment.carried, place, sent };
                invented(&mut resolved.event, &moment);
            }
        }
        Some(resolved)
    }

    /// The case that a connection served at this moment.
    fn carried(&self, serves: Option<u64>, upstream: u64, sent: Timestamp) -> Option<(&Case, &Dialogue)> {
        let case = self.cases.get(&serves?)?;
        let serves = |link: &&super::case::Link| {
            link.cookie == upstream && link.part.contains(&sent) && link.sign != Recognised::Alike
        };
        case.links.iter().find(serves)?;
        Some((case, &self.legs.get(&case.client)?.dialogue))
    }
}

/// When a step with this verb was answered.
fn answers(step: &Step, verb: &str) -> Option<Timestamp> {
    step.reply.as_ref().filter(|_| &*step.verb == verb).map(|reply| reply.time)
}

/// The place of the command in the dialogue of the end that sent it, which the other end answered at this time: it was sent
/// before, and the answer was heard later. But each call is told when it returns, which may be late: if nothing more can come,
/// it is the nearest.
fn other_end(dialogue: &Dialogue, verb: &str, answered: Timestamp, overdue: Timestamp) -> Option<usize> {
    let within = |late: Duration| {
        let steps = dialogue.steps.iter().enumerate();
        let alike = steps.filter_map(|(place, step)| Some((place, step.sent, answers(step, verb)?)));
        let fits = |(_, sent, heard): &(usize, Timestamp, Timestamp)| {
            *sent <= answered.after(late) && answered <= (*heard).after(late)
        };
        alike.filter(fits).min_by_key(|(_, _, heard)| heard.0.abs_diff(answered.0)).map(|(place, _, _)| place)
    };
    within(Duration::ZERO).or_else(|| within(LATE).filter(|_| dialogue.knows(answered, overdue)))
}

/// When a command was sent that no client sent.
struct Moment<'a> {
    inner: &'a Dialogue,
    outer: &'a Dialogue,
    /// Of each inner step, the outer one that carries it on.
    carried: &'a [Option<usize>],
    place: usize,
    sent: Timestamp,
}

impl Moment<'_> {
    /// The client's DATA that was not sent on by then, and how long before.
    fn held_data(&self) -> Option<Duration> {
        let is_data = |step: &Step| matches!(&*step.verb, "DATA" | "BDAT");
        let until = self.sent.after(LATE);
        let (place, asked) =
            self.inner.steps.iter().enumerate().rfind(|(_, step)| is_data(step) && step.sent <= until)?;
        let is_carrier = |carrier: Option<usize>| carrier.is_some_and(|carrier| carrier < self.place);
        let before = self.outer.steps.iter().take(self.place);
        let passed = is_carrier(self.carried.get(place).copied().flatten())
            || before.into_iter().any(|step| is_data(step) && step.sent >= asked.sent);
        (!passed).then(|| self.sent.since(asked.sent))
    }

    /// The transaction that was open is begun again.
    fn is_repeated(&self) -> bool {
        let is_mail = |step: &&Step| &*step.verb == "MAIL";
        let before = self.outer.steps.iter().take(self.place).rfind(is_mail);
        let behind = self.outer.steps.iter().skip(self.place).find(is_mail);
        before.zip(behind).is_some_and(|(before, behind)| before.mailbox == behind.mailbox)
    }
}

fn relayed(event: &mut Event, verb: &str, earlier: Duration) {
    let evidence = format!("the client had sent {verb} {} before", seconds(earlier));
    match event {
        Event::Rset(rset) => explain(rset, RsetReason::Relayed, vec![evidence]),
        Event::Noop(noop) => explain(noop, NoopReason::Relayed, vec![evidence]),
        _ => {}
    }
}

fn invented(event: &mut Event, moment: &Moment<'_>) {
    // Between messages a process in the middle has its own reasons, which are a client's.
    let Some(earlier) = moment.held_data() else { return };
    let evidence = |verb| {
        vec![
            format!("the client had not sent {verb}"),
            format!("the client had sent DATA {} before, the server had not got it", seconds(earlier)),
        ]
    };
    match event {
        Event::Noop(noop) => explain(noop, NoopReason::InterceptorKeepalive, evidence("NOOP")),
        Event::Rset(rset) => {
            let mut evidence = evidence("RSET");
            let repeated = moment.is_repeated();
            if repeated {
                evidence.push("the same transaction was begun again behind it".to_owned());
            }
            let reason = if repeated { RsetReason::InterceptorReplay } else { RsetReason::InterceptorDiscard };
            explain(rset, reason, evidence);
        }
        _ => {}
    }
}

fn explain<R>(reasoned: &mut Reasoned<R>, reason: R, evidence: Vec<String>) {
    reasoned.reason = reason;
    reasoned.evidence = evidence;
}
