//! Who is in the middle: connections of clients that end in a process on this host, and the connections that this process
//! goes on with.
//!
//! [`Interceptions`] takes all observations in their order and passes them on, with its own among them. It knows nothing
//! of the kernel but which two sockets are the ends of one connection ([`Interceptions::meet`]).

pub(crate) mod comparison;
mod cursor;
pub(crate) mod dialogue;
mod envelope;
mod fingerprint;
mod held;
mod legs;
mod link;
mod pairing;
mod process_relation;
mod proxied_session;
mod proxy_processes;
mod reasons;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashSet};
use ipnet::IpNet;

use self::dialogue::Said;
use self::envelope::Envelopes;
use self::fingerprint::Fingerprints;
use self::held::HeldCommands;
use self::legs::{Leg, Legs};
pub use self::proxied_session::Accepted;
use self::proxied_session::ProxiedSession;
use self::proxy_processes::ProxyProcesses;
use crate::fact::{Fact, What};
use crate::identity;
use crate::identity::{Caller, Endpoint, Role};
use crate::names::Method;
use crate::redact::RedactionPolicy;
use crate::smtp::{Exchange, Verb};
use crate::timestamp::Timestamp;

/// What was sent is known when its reply is there: after so long it counts as not sent.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How long a connection that is over may still be the beginning of something.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Most connections that are over and remembered.
const MAX_REMEMBERED: usize = 4096;

/// Most beginnings of connections that are kept while there are no cases.
const MAX_RECENT: usize = 64;

/// Most accepted sockets whose clients are not known yet.
const MAX_EXPECTED: usize = 256;

/// Steps that are kept of a dialogue behind those that are compared: an RSET or a NOOP may be told a little later.
const KEPT_STEPS: u64 = 16;

/// Finds programs in the middle.
pub struct Interceptions {
    /// Of the texts that evidence quotes.
    policy: RedactionPolicy,
    /// Addresses that lead to servers of one's own on this host.
    pub(crate) service_addresses: Vec<IpNet>,
    /// The clients' connections, by cookie.
    legs: Legs,
    /// Those of them that end on this host.
    cases: HashMap<u64, ProxiedSession>,
    /// The clients that do not know who is in their middle, as was told.
    exposed: HashSet<u64>,
    /// The client's cookie, by that of the accepted socket.
    accepted: HashMap<u64, u64>,
    /// Accepted sockets whose clients' connections are not known yet.
    expected: VecDeque<(u64, Accepted)>,
    /// How the last connections to servers began, while there are no cases: one of them may be the way on of a proxy that
    /// was not known yet.
    recent: VecDeque<Beginning>,
    texts: Fingerprints,
    middles: ProxyProcesses,
    envelopes: Envelopes,
    /// Connections that are over, until when they are remembered, in this order.
    over: VecDeque<(Timestamp, u64)>,
    /// Cases that wait for the other side, and until when, in about this order.
    due: VecDeque<(Timestamp, u64)>,
    /// RSETs and NOOPs that do.
    held: HeldCommands,
    /// The time of the latest thing that was observed; what is told of a connection may be from before.
    heard: Timestamp,
}

/// A client's connection that has been opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The connection.
    pub connection: Arc<identity::Connection>,
    /// Its process.
    pub process: Option<Caller>,
    /// What the process asked for, where it is not what it got.
    pub requested: Option<Endpoint>,
    /// Its host takes what it sends to the remote end for its own, if that is known.
    pub local_route: bool,
    /// When it was opened.
    pub time: Timestamp,
}

/// How a connection began.
enum Beginning {
    Opened(Opened),
    /// And what the server has said first.
    Greeted(Opened, Said),
}

impl Opened {
    fn by(fact: &Fact<'_>) -> Self {
        let requested = match fact.what {
            What::ConnectionOpened { requested } => requested,
            _ => None,
        };
        Self {
            connection: Arc::clone(fact.connection),
            process: fact.process.cloned(),
            requested,
            local_route: false,
            time: fact.time,
        }
    }

    /// It was opened before what is known now, nobody knows when.
    fn before(fact: &Fact<'_>) -> Self {
        Self { time: Timestamp(i64::MIN), ..Self::by(fact) }
    }
}

impl Interceptions {
    /// Nothing is known yet. Fingerprints that evidence quotes are redacted by `policy`.
    pub fn new(policy: RedactionPolicy) -> Self {
        Self {
            policy,
            service_addresses: Vec::new(),
            legs: Legs::default(),
            cases: HashMap::default(),
            exposed: HashSet::default(),
            accepted: HashMap::default(),
            expected: VecDeque::new(),
            recent: VecDeque::new(),
            texts: Fingerprints::default(),
            middles: ProxyProcesses::default(),
            envelopes: Envelopes::default(),
            over: VecDeque::new(),
            due: VecDeque::new(),
            held: HeldCommands::default(),
            heard: Timestamp::default(),
        }
    }

    /// A connection from this client, which has a case from now on, was accepted on this host. `own` are the addresses
    /// known of the client's network namespace; `transparent`: the accepted socket may have another's.
    pub fn meet(&mut self, client: Opened, accepted: Accepted, transparent: bool, own: &[IpAddr]) {
        let cookie = client.connection.cookie;
        // But what has another's address may have it by that very route.
        let is_routed_here = client.local_route && !transparent;
        let leg = Leg::new(client);
        let method = method(&leg, accepted.local, transparent);
        let asked = leg.asked.address;
        let is_service = self.service_addresses.iter().any(|network| network.contains(&asked));
        // Unless it chooses another, a client asks for an address of its namespace from that very address.
        let is_own = asked == leg.connection.local.address
            || asked == leg.connection.remote.address && is_routed_here
            || own.contains(&asked);
        let asked_this_host = asked.is_loopback() || is_own || is_service;
        self.legs.insert(cookie, leg);
        self.exposed.remove(&cookie);
        let case = ProxiedSession::new(cookie, accepted, method, asked_this_host);
        self.accepted.insert(case.accepted.cookie, cookie);
        if let Some(before) = self.cases.insert(cookie, case) {
            // The socket has connected again: what is over is not this connection.
            self.over.retain(|(_, over)| *over != cookie);
            self.accepted.remove(&before.accepted.cookie);
        }
    }

    /// A connection was accepted from a client that will be heard of when it has heard the greeting: it asked for a
    /// proxy on a port that is not watched.
    pub fn expect(&mut self, client: u64, accepted: Accepted) {
        push(&mut self.expected, (client, accepted), MAX_EXPECTED);
        for beginning in mem::take(&mut self.recent) {
            match beginning {
                Beginning::Opened(opened) => drop(self.opens(opened)),
                Beginning::Greeted(opened, greeting) => {
                    let cookie = opened.connection.cookie;
                    self.legs.change(cookie, || Leg::new(opened), |leg| leg.dialogue.greeted(greeting));
                    self.greets(cookie);
                }
            }
        }
    }

    /// Whether something waits for time to pass: [`Self::settle`] wants to be called in time.
    pub fn is_waiting(&self) -> bool {
        !self.due.is_empty() || self.held.is_waiting()
    }

    /// Time has passed.
    pub fn settle(&mut self, now: Timestamp, sink: &mut dyn FnMut(&Fact<'_>)) {
        self.forget(now);
        // Each once: what still waits then is due later.
        for _ in 0..self.due.len() {
            let Some((_, client)) = self.due.pop_front_if(|(due, _)| *due <= now) else { break };
            if let Some(case) = self.cases.get_mut(&client) {
                case.awaited = false;
            }
            self.judge(client, now, true, sink);
        }
        self.release_overdue(now, sink);
    }

    /// Takes a fact, and passes it on.
    pub fn observe(&mut self, fact: &Fact<'_>, sink: &mut dyn FnMut(&Fact<'_>)) {
        self.heard = self.heard.max(fact.time);
        let now = self.heard;
        let suspicion = self.texts.read(fact, self.policy);
        let concerned = match fact.connection.role {
            role if self.cases.is_empty() && self.expected.is_empty() => {
                if role == Role::Client {
                    self.remember(fact);
                }
                None
            }
            Role::Client => self.client(fact),
            Role::Server => self.server(fact),
        };
        let milestone = matches!(
            fact.what,
            What::Data(_)
                | What::Transaction(_)
                | What::ConnectionClosed(_)
                | What::ConnectionUnfollowed(_)
                | What::Greeting { .. }
        );
        self.advance(fact.connection, now);
        self.legs.make_room(|cookie| self.cases.contains_key(&cookie));
        if !self.hold(fact, sink) {
            if matches!(fact.what, What::ConnectionClosed(_) | What::ConnectionUnfollowed(_)) {
                let cookie = fact.connection.cookie;
                self.release_of(fact.connection, sink);
                self.texts.close(cookie);
                if !self.legs.contains_key(&cookie) {
                    self.texts.forget(cookie);
                }
            }
            sink(&Fact { intercepted: self.is_intercepted(fact.connection), ..*fact });
        }
        if let Some(client) = concerned {
            self.judge(client, now, milestone, sink);
            self.release(client, now, sink);
        } else if let Some(sign) = suspicion {
            let leg = Leg::new(Opened { requested: None, ..Opened::by(fact) });
            sink(&leg.tells(now, &proxied_session::suspected(&leg, sign)));
        }
    }

    /// Remembers how a connection began.
    fn remember(&mut self, fact: &Fact<'_>) {
        let beginning = match fact.what {
            What::ConnectionOpened { .. } => Beginning::Opened(Opened::by(fact)),
            What::Greeting { reply, .. } => {
                let text = self.policy.reply(reply).unwrap_or_default();
                Beginning::Greeted(Opened::before(fact), Said::new(fact.time, reply.code, text))
            }
            _ => return,
        };
        push(&mut self.recent, beginning, MAX_RECENT);
    }

    /// Whether it was told that the connection belongs to a conversation whose client does not know who is in its middle.
    fn is_intercepted(&self, connection: &identity::Connection) -> bool {
        if self.exposed.is_empty() {
            return false;
        }
        let near = self.near_end(connection);
        let serves = self.legs.get(&near).and_then(|leg| leg.serves);
        [Some(near), serves].into_iter().flatten().any(|client| self.exposed.contains(&client))
    }

    /// What a client's connection shows; the case that it concerns.
    fn client(&mut self, fact: &Fact<'_>) -> Option<u64> {
        let cookie = fact.connection.cookie;
        if let What::ConnectionOpened { .. } = fact.what {
            return self.opens(Opened::by(fact));
        }
        // One that was open before there were cases may carry them on, too.
        let takes = |leg: &mut Leg| {
            if let Some(process) = fact.process.filter(|process| leg.process.as_ref() != Some(process)) {
                leg.process = Some(process.clone());
            }
            leg.dialogue.take(fact, self.policy)
        };
        let says = self.legs.change(cookie, || Leg::new(Opened::before(fact)), takes);
        if !says {
            return None;
        }
        match fact.what {
            What::Command(Exchange { command, .. }) if command.verb == Verb::Rcpt => self.named(cookie),
            What::Greeting { .. } => self.greets(cookie),
            What::Tls(_) => self.shakes_hands(cookie),
            What::ConnectionClosed(_) | What::ConnectionUnfollowed(_) => {
                self.over.push_back((fact.time.after(REMEMBERED), cookie));
                self.forget(fact.time);
            }
            _ => {}
        }
        let serves = self.legs.get(&cookie).and_then(|leg| leg.serves);
        serves.or_else(|| self.cases.contains_key(&cookie).then_some(cookie))
    }

    /// A client has connected.
    fn opens(&mut self, opened: Opened) -> Option<u64> {
        let Opened { connection, process, .. } = opened.clone();
        let expected = self.expected.iter().position(|(client, _)| *client == connection.cookie);
        match expected.and_then(|place| self.expected.remove(place)) {
            // What a client asked for by another port than a watched one is what it got.
            Some((_, accepted)) => self.meet(opened, accepted, false, &[]),
            None => self.legs.insert(connection.cookie, Leg::new(opened)),
        }
        self.middles.opens(process?.process.pid, connection.cookie);
        self.leads_on(connection.cookie)
    }

    /// What an accepted socket shows: who is in the middle.
    fn server(&mut self, fact: &Fact<'_>) -> Option<u64> {
        let client = *self.accepted.get(&fact.connection.cookie)?;
        let middle = fact.process?;
        let case = self.cases.get_mut(&client)?;
        if case.middle.as_ref().is_some_and(|known| Arc::ptr_eq(&known.process, &middle.process)) {
            return None;
        }
        let pid = middle.process.pid;
        let before = case.middle.replace(middle.clone()).map(|before| before.process.pid);
        if before == Some(pid) {
            return None;
        }
        // Who talks to itself is in nobody's middle.
        if self.legs.get(&client)?.process.as_ref().is_some_and(|caller| caller.process.pid == pid) {
            self.accepted.remove(&fact.connection.cookie);
            self.cases.remove(&client);
            self.exposed.remove(&client);
            return None;
        }
        if case.links.is_empty() {
            self.middles.waits(pid, client);
            self.seek(client, |case, asked, leg| case.is_hidden() && leg.connection.remote == asked);
        }
        Some(client)
    }

    /// Compares what a connection has said with the other side: with what it carries on, and with what carries it on.
    fn advance(&mut self, connection: &identity::Connection, now: Timestamp) {
        let near = self.near_end(connection);
        let Some(leg) = self.legs.get(&near).filter(|leg| leg.is_carried || leg.serves.is_some()) else { return };
        // What is settled in all comparisons is forgotten.
        let mut settled = None::<u64>;
        let mut least = |number: u64| settled = Some(settled.map_or(number, |settled| settled.min(number)));
        for client in [Some(near), leg.serves].into_iter().flatten() {
            let (Some(case), Some(inner)) = (self.cases.get_mut(&client), self.legs.get(&client)) else { continue };
            if client == near && case.links.is_empty() {
                least(0);
            }
            for link in case.links.iter_mut().filter(|link| client == near || link.cookie == near) {
                let Some(outer) = self.legs.get(&link.cookie) else { continue };
                if link.is_compared() {
                    link.advance(&inner.dialogue, &outer.dialogue, now);
                }
                least(if client == near { link.cursor.open_inner() } else { link.cursor.open_outer() });
            }
        }
        if let Some(settled) = settled.and_then(|settled| settled.checked_sub(KEPT_STEPS)) {
            self.legs.release(near, settled);
        }
    }

    /// Judges a case. What only grows is told at a milestone.
    fn judge(&mut self, client: u64, now: Timestamp, milestone: bool, sink: &mut dyn FnMut(&Fact<'_>)) {
        let Some(case) = self.cases.get_mut(&client).filter(|case| !case.is_plain()) else { return };
        let Some(leg) = self.legs.get(&client) else { return };
        let upstream = case.onward().and_then(|link| self.legs.get(&link.cookie));
        let signs = self.texts.signs(client);
        let was_exposed = case.is_exposed();
        let finding = case.judge(leg, upstream, signs, now.before(PATIENCE), milestone);
        if finding.is_anothers
            && let Some(upstream) = case.onward().map(|link| link.cookie)
        {
            self.withdraw(client, upstream);
            return self.judge(client, now, milestone, sink);
        }
        if finding.open && !mem::replace(&mut case.awaited, true) {
            self.due.push_back((now.after(PATIENCE), client));
        }
        match case.is_exposed() {
            is_exposed if is_exposed == was_exposed => {}
            true => drop(self.exposed.insert(client)),
            false => drop(self.exposed.remove(&client)),
        }
        if let Some(interception) = finding.interception {
            sink(&leg.tells(self.heard, &interception));
        }
    }

    /// Forgets what is over for long.
    fn forget(&mut self, now: Timestamp) {
        while let Some((_, cookie)) = self
            .over
            .pop_front_if(|(until, _)| *until <= now)
            .or_else(|| (self.over.len() > MAX_REMEMBERED).then(|| self.over.pop_front()).flatten())
        {
            if let Some(leg) = self.legs.remove(&cookie)
                && let Some(caller) = &leg.process
            {
                self.middles.forget(caller.process.pid, |cookie| self.legs.contains_key(&cookie));
            }
            self.texts.forget(cookie);
            self.exposed.remove(&cookie);
            if let Some(case) = self.cases.remove(&cookie) {
                self.accepted.remove(&case.accepted.cookie);
                if let Some(middle) = &case.middle {
                    self.middles.forget(middle.process.pid, |cookie| self.legs.contains_key(&cookie));
                }
            }
        }
    }
}

/// How the client's connection came to the socket that accepted it.
fn method(leg: &Leg, accepted: Endpoint, transparent: bool) -> Method {
    let remote = leg.connection.remote;
    if leg.asked != remote {
        Method::ConnectRewrite
    } else if accepted == remote {
        if transparent { Method::Tproxy } else { Method::LocalProxy }
    } else if accepted.address.is_loopback() || accepted.address == remote.address {
        Method::Redirect
    } else {
        Method::Dnat
    }
}

/// Adds one, of which a queue holds so many at most; the first that has to go for it.
fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) -> Option<T> {
    let gone = if queue.len() >= most { queue.pop_front() } else { None };
    queue.push_back(item);
    gone
}
