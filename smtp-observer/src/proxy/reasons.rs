//! RSETs and NOOPs on a connection that carries another on, at either end: whether the client sent them, too.

use std::sync::Arc;
use std::time::Duration;

use super::comparison::{Alignment, LATE};
use super::dialogue::{Dialogue, Step};
use super::proxied_session::{ProxiedSession, Recognised};
use super::{Interceptions, MAX_HELD, PATIENCE};
use crate::fact::evidence::{EvidenceList, ReasonEvidence};
use crate::fact::{Fact, What};
use crate::observation::{Caller, Connection, NoopReason, Reasoned, Role, RsetReason, Timestamp};
use crate::smtp::Verb;

/// An RSET or a NOOP that waits for the other side.
#[derive(Clone)]
pub(super) struct Held {
    time: Timestamp,
    connection: Arc<Connection>,
    process: Option<Caller>,
    command: Command,
}

#[derive(Clone)]
enum Command {
    Rset(Reasoned<RsetReason>),
    Noop(Reasoned<NoopReason>),
}

impl Held {
    fn of(fact: &Fact<'_>) -> Option<Self> {
        let command = match fact.what {
            What::Rset(rset) => Command::Rset(*rset),
            What::Noop(noop) => Command::Noop(*noop),
            _ => return None,
        };
        let (connection, process) = (Arc::clone(fact.connection), fact.process.cloned());
        Some(Self { time: fact.time, connection, process, command })
    }

    fn fact(&self, intercepted: bool) -> Fact<'_> {
        Fact {
            time: self.time,
            connection: &self.connection,
            process: self.process.as_ref(),
            intercepted,
            what: match &self.command {
                Command::Rset(rset) => What::Rset(rset),
                Command::Noop(noop) => What::Noop(noop),
            },
        }
    }
}

impl Command {
    fn verb(&self) -> Verb {
        match self {
            Self::Rset(_) => Verb::Rset,
            Self::Noop(_) => Verb::Noop,
        }
    }
}

impl Interceptions {
    /// The client whose conversation is carried on by this connection.
    fn served(&self, connection: &Connection) -> Option<u64> {
        self.legs.get(&self.near_end(connection))?.serves
    }

    /// The cookie of the end that connected: the server's end of a connection on this host has the same dialogue.
    pub(super) fn near_end(&self, connection: &Connection) -> u64 {
        match connection.role {
            Role::Client => connection.cookie,
            Role::Server => self.accepted.get(&connection.cookie).copied().unwrap_or(connection.cookie),
        }
    }

    /// Takes an RSET or a NOOP on a connection that carries another on, and keeps it back unless the client's side is known.
    /// Whether it was one.
    pub(super) fn hold(&mut self, fact: &Fact<'_>, sink: &mut dyn FnMut(&Fact<'_>)) -> bool {
        if !matches!(fact.what, What::Rset(_) | What::Noop(_)) || self.held.len() >= MAX_HELD {
            return false;
        }
        let Some(client) = self.served(fact.connection) else { return false };
        let Some(held) = Held::of(fact) else { return false };
        if let Some(resolved) = self.resolve(&held, held.time.before(PATIENCE)) {
            sink(&resolved.fact(self.is_intercepted(&resolved.connection)));
            return true;
        }
        if let Some(case) = self.cases.get_mut(&client) {
            case.held += 1;
        }
        self.held.push_back(held);
        true
    }

    /// Passes on what the client's side has made clear.
    pub(super) fn release(&mut self, client: u64, now: Timestamp, sink: &mut dyn FnMut(&Fact<'_>)) {
        if self.cases.get(&client).is_some_and(|case| case.held > 0) {
            self.release_those(|this, held| this.served(&held.connection) == Some(client), now, sink);
        }
    }

    /// Passes on what is held of this connection, which is over.
    pub(super) fn release_of(&mut self, over: &Connection, sink: &mut dyn FnMut(&Fact<'_>)) {
        if self.served(over).and_then(|client| self.cases.get(&client)).is_some_and(|case| case.held > 0) {
            self.release_those(|_, held| held.connection.cookie == over.cookie, Timestamp(i64::MAX), sink);
        }
    }

    /// Passes on what has waited long enough.
    pub(super) fn release_overdue(&mut self, now: Timestamp, sink: &mut dyn FnMut(&Fact<'_>)) {
        while self.held.front().is_some_and(|held| held.time <= now.before(PATIENCE)) {
            let Some(held) = self.held.pop_front() else { return };
            let resolved = self.resolve(&held, Timestamp(i64::MAX)).unwrap_or(held);
            self.let_go(&resolved, sink);
        }
    }

    fn release_those(
        &mut self,
        wanted: impl Fn(&Self, &Held) -> bool,
        now: Timestamp,
        sink: &mut dyn FnMut(&Fact<'_>),
    ) {
        let mut place = 0;
        while let Some(held) = self.held.get(place) {
            let resolved = if wanted(self, held) { self.resolve(held, now.before(PATIENCE)) } else { None };
            match resolved {
                Some(resolved) => {
                    self.held.remove(place);
                    self.let_go(&resolved, sink);
                }
                None => place += 1,
            }
        }
    }

    fn let_go(&mut self, resolved: &Held, sink: &mut dyn FnMut(&Fact<'_>)) {
        if let Some(case) = self.served(&resolved.connection).and_then(|client| self.cases.get_mut(&client)) {
            case.held = case.held.saturating_sub(1);
        }
        sink(&resolved.fact(self.is_intercepted(&resolved.connection)));
    }

    /// The same with its reason, if the client's side is known.
    fn resolve(&self, held: &Held, overdue: Timestamp) -> Option<Held> {
        let unchanged = || Some(held.clone());
        let verb = held.command.verb().as_str();
        let upstream = self.near_end(&held.connection);
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
            Some(origin) => relayed(&mut resolved.command, sent.since(origin.sent)),
            None => {
                let moment = Moment { inner, outer: &outer.dialogue, carried: &alignment.carried, place, sent };
                invented(&mut resolved.command, &moment);
            }
        }
        Some(resolved)
    }

    /// The case that a connection served at this moment.
    fn carried(&self, serves: Option<u64>, upstream: u64, sent: Timestamp) -> Option<(&ProxiedSession, &Dialogue)> {
        let case = self.cases.get(&serves?)?;
        let serves = |link: &&super::proxied_session::Link| {
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

fn relayed(command: &mut Command, earlier: Duration) {
    let evidence = [ReasonEvidence::SentByClient { verb: command.verb(), earlier }].into();
    match command {
        Command::Rset(rset) => explain(rset, RsetReason::Relayed, evidence),
        Command::Noop(noop) => explain(noop, NoopReason::Relayed, evidence),
    }
}

fn invented(command: &mut Command, moment: &Moment<'_>) {
    // Between messages a process in the middle has its own reasons, which are a client's.
    let Some(earlier) = moment.held_data() else { return };
    let mut evidence =
        EvidenceList::from([ReasonEvidence::NotSentByClient(command.verb()), ReasonEvidence::DataHeldBack(earlier)]);
    match command {
        Command::Noop(noop) => explain(noop, NoopReason::InterceptorKeepalive, evidence),
        Command::Rset(rset) if moment.is_repeated() => {
            evidence.push(ReasonEvidence::TransactionRepeated);
            explain(rset, RsetReason::InterceptorReplay, evidence);
        }
        Command::Rset(rset) => explain(rset, RsetReason::InterceptorDiscard, evidence),
    }
}

fn explain<R>(reasoned: &mut Reasoned<R>, reason: R, evidence: EvidenceList) {
    reasoned.reason = reason;
    reasoned.evidence = evidence;
}
