//! Which connection carries a client's conversation on.

use super::dialogue::Dialogue;
use super::envelope::{Envelopes, Inner, Outer};
use super::link::{Link, Recognised};
use super::process_relation::{ProcessRelation, kin};
use super::proxied_session::ProxiedSession;
use super::{Interceptions, Leg};
use crate::identity::Endpoint;
use crate::timestamp::Timestamp;

impl Interceptions {
    /// A server has greeted: a process in the middle that greets alike may have its greeting from there, or have greeted in
    /// the server's words before.
    pub(super) fn greets(&mut self, client: u64) {
        let Some(greeting) = self.legs.get(&client).and_then(|leg| leg.dialogue.greeting.clone()) else { return };
        if self.cases.get(&client).is_some_and(|case| case.links.is_empty()) {
            self.seek(client, |_, _, leg| {
                leg.dialogue.greeting.as_ref().is_some_and(|other| other.says_what(&greeting))
            });
        }
        if self.legs.get(&client).is_some_and(|leg| leg.serves.is_none()) {
            self.leads_on(client);
        }
    }

    /// A process in the middle has connected to where a client that waits wanted to go: the first such client. Who has greeted
    /// its client by itself may go there for any reason.
    pub(super) fn leads_on(&mut self, upstream: u64) -> Option<u64> {
        let leg = self.legs.get(&upstream)?;
        let middle = self.middles.get(leg.process.as_ref()?.process.pid)?;
        let fits = |client: &u64| {
            self.cases.get(client).is_some_and(|case| case.is_hidden() && case.accepted.time <= leg.opened)
                && self.legs.get(client).is_some_and(|inner| {
                    inner.asked == leg.connection.remote && may_have_heard(&inner.dialogue, &leg.dialogue)
                })
        };
        let fitting: Vec<u64> = middle.waiting().filter(fits).take(2).collect();
        let client = *fitting.first()?;
        let is_alike = |_: &ProxiedSession, asked: Endpoint, other: &Leg| other.connection.remote == asked;
        let alone = fitting.len() == 1 && self.candidates(client, is_alike).len() == 1;
        self.link(client, upstream, if alone { Recognised::AlikeAlone } else { Recognised::Alike });
        Some(client)
    }

    /// Seeks a connection of the process in the middle, made since the client's, that looks like the one it goes on with.
    pub(super) fn seek(&mut self, client: u64, is_alike: impl Fn(&ProxiedSession, Endpoint, &Leg) -> bool) {
        let alike = self.candidates(client, is_alike);
        let is_free = |cookie: &&u64| self.legs.get(cookie).is_some_and(|other| other.serves.is_none());
        let Some(upstream) = alike.iter().find(is_free).copied() else { return };
        let middle = self.cases.get(&client).and_then(|case| case.middle.as_ref());
        let waits = middle.and_then(|caller| self.middles.get(caller.process.pid));
        let alone = alike.len() == 1 && waits.is_none_or(|middle| middle.waiting().nth(1).is_none());
        self.link(client, upstream, if alone { Recognised::AlikeAlone } else { Recognised::Alike });
    }

    /// A hello for TLS is known: it may be that of a client, or of one whose connection this process carries on.
    pub(super) fn shakes_hands(&mut self, cookie: u64) {
        self.pair_by_hello(cookie);
        let owner = self.legs.get(&cookie).and_then(|leg| leg.process.as_ref());
        let Some(middle) = owner.and_then(|caller| self.middles.get(caller.process.pid)) else { return };
        let served = middle.free_since(|_| true).filter_map(|upstream| self.legs.get(&upstream)?.serves);
        let clients: Vec<u64> = middle.waiting().chain(served).collect();
        clients.into_iter().for_each(|client| self.pair_by_hello(client));
    }

    /// The random bytes of a client's hello are in no other, so the connection with the same ones carries it on, whatever
    /// else would fit.
    fn pair_by_hello(&mut self, client: u64) {
        let (Some(case), Some(leg)) = (self.cases.get(&client), self.legs.get(&client)) else { return };
        let Some(random) = leg.dialogue.client_random.filter(|_| !case.links.iter().any(Link::is_compared)) else {
            return;
        };
        let same = self.candidates(client, |_, _, other| other.dialogue.client_random == Some(random));
        if let Some(upstream) = same.first().copied() {
            self.link(client, upstream, Recognised::AlikeAlone);
        }
    }

    /// The connections of the process in the middle, made since the client's, that may be the one it goes on with: they
    /// are nobody's for certain.
    fn candidates(&self, client: u64, is_alike: impl Fn(&ProxiedSession, Endpoint, &Leg) -> bool) -> Vec<u64> {
        let (Some(case), Some(leg)) = (self.cases.get(&client), self.legs.get(&client)) else { return Vec::new() };
        let middle = case.middle.as_ref().and_then(|caller| self.middles.get(caller.process.pid));
        let is_since = |cookie| self.legs.get(&cookie).is_some_and(|other| other.opened >= case.accepted.time);
        let alike = |cookie: &u64| {
            *cookie != client && self.legs.get(cookie).is_some_and(|other| is_alike(case, leg.asked, other))
        };
        middle.into_iter().flat_map(|middle| middle.free_since(is_since)).filter(alike).collect()
    }

    /// A transaction names its first recipient: by sender and recipient it is found again at the other side.
    pub(super) fn named(&mut self, cookie: u64) {
        let Some(envelope) = self.legs.get(&cookie).and_then(|leg| Envelopes::envelope(&leg.dialogue)) else { return };
        if self.cases.contains_key(&cookie) {
            let may = |outer: &Outer| outer.1 >= envelope.sent && self.may_carry((cookie, envelope.sent), *outer);
            // What was taken for its way on before any other that names the same.
            let known = |(upstream, _): &Outer| self.legs.get(upstream).is_some_and(|leg| leg.serves == Some(cookie));
            let carrier = prefer(self.envelopes.outer(&envelope).filter(may), known);
            self.envelopes.add_inner(&envelope, cookie);
            if let Some(carrier) = carrier {
                self.envelopes.carry(&envelope, cookie, envelope.sent, carrier);
                self.carry(cookie, envelope.sent, carrier);
            }
        }
        let may = |inner: &Inner| {
            inner.sent <= envelope.sent
                && self.may_carry((inner.client, inner.sent), (cookie, envelope.sent))
                && !self.is_done(inner, (cookie, envelope.sent))
        };
        let serves = self.legs.get(&cookie).and_then(|leg| leg.serves);
        let inner = prefer(self.envelopes.inner(&envelope).filter(may), |inner| serves == Some(inner.client));
        self.envelopes.add_outer(&envelope, cookie);
        if let Some(Inner { client, sent, .. }) = inner {
            self.envelopes.carry(&envelope, client, sent, (cookie, envelope.sent));
            self.carry(client, sent, (cookie, envelope.sent));
        }
    }

    /// Whether nobody carries a client's transaction on any more: another one has brought it to the server, or it is refused.
    fn is_done(&self, inner: &Inner, by: Outer) -> bool {
        let Some(carrier) = inner.carrier.filter(|carrier| *carrier != by) else { return false };
        let is_taken = || {
            let carried = self.legs.get(&carrier.0).map(|leg| &leg.dialogue);
            carried.is_none_or(|dialogue| dialogue.may_have_taken(carrier.1))
        };
        let client = self.legs.get(&inner.client).map(|leg| &leg.dialogue);
        let is_refused = client.is_some_and(|client| client.closed.is_some() && client.accepted.is_none());
        is_refused || is_taken()
    }

    /// The connection may carry on the client's transaction that began then, from this moment: its process is the one in the
    /// middle, or belongs to it.
    fn may_carry(&self, (client, begun): (u64, Timestamp), (upstream, from): Outer) -> bool {
        let (Some(case), Some(inner), Some(outer)) =
            (self.cases.get(&client), self.legs.get(&client), self.legs.get(&upstream))
        else {
            return false;
        };
        let (Some(middle), Some(owner)) = (&case.middle, &outer.process) else { return false };
        // Another connection has it, which is still there.
        let has = |link: &Link| {
            link.cookie != upstream
                && link.sign == Recognised::Envelope
                && !link.is_callout
                && self
                    .legs
                    .get(&link.cookie)
                    .is_some_and(|leg| leg.serves == Some(client) && leg.dialogue.closed.is_none())
        };
        let is_clients = inner.process.as_ref().is_some_and(|caller| caller.process.pid == owner.process.pid);
        client != upstream
            && !is_clients
            && !self.ends_at(upstream, case)
            && match kin(&middle.process, &owner.process) {
                Some(ProcessRelation::Near) => true,
                // What one process of a mail server took, another sends on: when it is taken.
                Some(ProcessRelation::Sibling) => {
                    inner.dialogue.has_taken(begun).is_some_and(|accepted| accepted <= from)
                }
                None => false,
            }
            && !case.links.iter().any(has)
    }

    /// Whether the connection ends in the process that has accepted the case's, or at the same listener in one that belongs
    /// to it: then the one in the middle is its server, not its client.
    fn ends_at(&self, connection: u64, case: &ProxiedSession) -> bool {
        let (Some(end), Some(middle)) = (self.cases.get(&connection), &case.middle) else { return false };
        end.middle.as_ref().is_some_and(|server| {
            server.process.pid == middle.process.pid
                || end.accepted.local == case.accepted.local && kin(&middle.process, &server.process).is_some()
        })
    }

    /// From this transaction on the connection carries the client's conversation.
    fn carry(&mut self, client: u64, inner: Timestamp, (upstream, outer): Outer) {
        let (Some(leg), Some(said)) = (self.legs.get(&upstream), self.legs.get(&client)) else { return };
        let before = leg.serves;
        let case = self.cases.get_mut(&client).filter(|_| before == Some(client));
        if let Some(link) = case.and_then(|case| case.links.iter_mut().rfind(|link| link.cookie == upstream)) {
            link.carries(&said.dialogue, (inner, outer));
            return self.settle_link(client, upstream);
        }
        let mut first = leg.opened;
        if let Some(other) = before.and_then(|before| self.cases.get_mut(&before)) {
            // It was taken for another's, or was: until now.
            let was = other.links.iter_mut().rfind(|link| link.cookie == upstream);
            match was {
                Some(link) if link.sign == Recognised::Envelope => {
                    link.part = *link.part.start()..=Timestamp(outer.0 - 1);
                    first = outer;
                }
                _ => {
                    let other = other.client;
                    self.withdraw(other, upstream);
                }
            }
        }
        let (Some(case), Some(said)) = (self.cases.get_mut(&client), self.legs.get(&client)) else { return };
        let from =
            if case.links.iter().any(|link| link.sign == Recognised::Envelope) { inner } else { Timestamp(i64::MIN) };
        case.links.retain(|link| link.sign == Recognised::Envelope);
        let (of, part) = (from..=Timestamp(i64::MAX), first..=Timestamp(i64::MAX));
        let mut link = Link::new(upstream, of, part, Recognised::Alike);
        link.carries(&said.dialogue, (inner, outer));
        case.link(link);
        self.settle_link(client, upstream);
    }

    /// The connection is not the client's, which waits again.
    pub(super) fn withdraw(&mut self, client: u64, upstream: u64) {
        let Some(case) = self.cases.get_mut(&client) else { return };
        let was_linked = !case.links.is_empty();
        case.links.retain(|link| link.cookie != upstream);
        if was_linked
            && case.links.is_empty()
            && let Some(middle) = &case.middle
        {
            self.middles.waits(middle.process.pid, client);
        }
    }

    /// This connection is taken for the one that carries the client's conversation on.
    pub(super) fn link(&mut self, client: u64, upstream: u64, sign: Recognised) {
        if let Some(before) = self.legs.get(&upstream).and_then(|leg| leg.serves) {
            self.withdraw(before, upstream);
        }
        let (Some(case), Some(leg)) = (self.cases.get_mut(&client), self.legs.get(&upstream)) else { return };
        let (of, part) = (Timestamp(i64::MIN)..=Timestamp(i64::MAX), leg.opened..=Timestamp(i64::MAX));
        case.links.retain(Link::is_compared);
        case.link(Link::new(upstream, of, part, sign));
        if case.middle.is_none() {
            case.middle = leg.process.clone();
        }
        self.settle_link(client, upstream);
    }

    fn settle_link(&mut self, client: u64, upstream: u64) {
        let owner = self.legs.serves(upstream, client).map(|caller| caller.process.pid);
        let Some(case) = self.cases.get(&client) else { return };
        // What is not certain may still be another's.
        let is_certain = case.links.iter().any(|link| link.cookie == upstream && link.is_compared());
        let middle = case.middle.as_ref().map(|caller| caller.process.pid);
        for pid in [owner, middle].into_iter().flatten() {
            self.middles.linked(pid, client, upstream, is_certain);
        }
    }
}

/// The client was not greeted yet, or in the server's words.
fn may_have_heard(inner: &Dialogue, outer: &Dialogue) -> bool {
    let said = outer.greeting.as_ref();
    inner.greeting.as_ref().is_none_or(|heard| said.is_some_and(|said| heard.says_what(said)))
}

/// The first transaction that is preferred, else the first.
fn prefer<T>(transactions: impl Iterator<Item = T>, is_preferred: impl Fn(&T) -> bool) -> Option<T> {
    let mut first = None;
    for transaction in transactions {
        if is_preferred(&transaction) {
            return Some(transaction);
        }
        first = first.or(Some(transaction));
    }
    first
}
