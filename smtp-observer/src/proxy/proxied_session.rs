//! A client, the process on this host that its connection ends in, and the connections that it goes on with.

use std::collections::VecDeque;
use std::time::Duration;

use super::comparison::{Differences, Kinds, seconds};
use super::dialogue::Dialogue;
use super::fingerprint::BannerMismatch;
use super::legs::Leg;
use super::link::{Link, Recognised};
use super::process_relation::{ProcessRelation, kin, program};
use super::push;
use crate::fact::{Interception, News, Upstream};
use crate::identity::{Caller, Endpoint};
use crate::names::{EvidenceKind, Method, Verdict};
use crate::timestamp::Timestamp;
use std::sync::Arc;

/// Most upstream connections of one conversation.
const MAX_LINKS: usize = 8;

/// Ends this close together are one end.
const COUPLED: Duration = Duration::from_millis(100);

/// A client's conversation with a process on this host.
#[derive(Debug)]
pub struct ProxiedSession {
    /// The cookie of the client's socket.
    pub client: u64,
    /// The accepted socket.
    pub accepted: Accepted,
    /// The process that uses it, when it has used it.
    pub middle: Option<Caller>,
    /// The client was given another peer than it asked for, or may have been, and how.
    pub method: Method,
    /// The client asked for an address of this host.
    pub asked_this_host: bool,
    /// The connections that the process goes on with, the last one last.
    pub links: VecDeque<Link>,
    /// A time is set for what it waits for.
    pub awaited: bool,
    /// What was told last.
    told: Option<Told>,
    /// What was ever told.
    counted: News,
}

/// A socket that a process here accepted from a client here.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// Its cookie.
    pub cookie: u64,
    /// Its own end.
    pub local: Endpoint,
    /// When the connection was there.
    pub time: Timestamp,
}

#[derive(Debug, PartialEq, Eq)]
struct Told {
    verdict: Verdict,
    evidence: usize,
    hold: bool,
}

/// What the evidence comes to.
struct Weighed {
    found: Differences,
    judgement: Judgement,
}

/// What is known of what is in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// Nothing is.
    Nothing,
    /// What comes next will tell more: what was told before stays.
    Waits,
    /// This is.
    Known(Verdict),
}

/// What a case comes to.
pub struct Finding {
    /// To be told, if it is news.
    pub interception: Option<Interception>,
    /// Something waits for the other side.
    pub open: bool,
    /// What was taken for the way on is another's.
    pub is_anothers: bool,
}

impl ProxiedSession {
    /// A connection from a client on this host was accepted.
    pub fn new(client: u64, accepted: Accepted, method: Method, asked_this_host: bool) -> Self {
        Self {
            client,
            accepted,
            middle: None,
            method,
            asked_this_host,
            links: VecDeque::new(),
            awaited: false,
            told: None,
            counted: News::default(),
        }
    }

    /// The client does not know of the process.
    pub fn is_hidden(&self) -> bool {
        self.method.is_hidden() && !self.asked_this_host
    }

    /// The client has got what it asked for, and there is nothing to be told: what is said changes nothing in that.
    pub fn is_plain(&self) -> bool {
        self.links.is_empty() && !self.is_hidden() && self.told.is_none()
    }

    /// It was told that the client does not know who is in the middle.
    pub fn is_exposed(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.verdict.is_hidden())
    }

    /// The last connection that carries it on.
    pub fn onward(&self) -> Option<&Link> {
        self.links.iter().rfind(|link| !link.is_callout)
    }

    /// From now on this connection carries it on.
    pub fn link(&mut self, link: Link) {
        self.links.retain(|known| known.cookie != link.cookie || *known.part.start() < *link.part.start());
        push(&mut self.links, link, MAX_LINKS);
    }

    /// Judges what is known by now. `upstream` is the other end of what carries it on.
    pub fn judge(
        &mut self,
        client: &Leg,
        upstream: Option<&Leg>,
        signs: &[BannerMismatch],
        overdue: Timestamp,
        milestone: bool,
    ) -> Finding {
        let Weighed { found, judgement } = self.weigh(client, upstream, signs, overdue, false);
        // A sender that the client has not named, and nothing that is common to both.
        let is_certain = self.onward().is_none_or(|link| link.sign == Recognised::Envelope) || found.same;
        if found.foreign && !is_certain {
            return Finding { interception: None, open: false, is_anothers: true };
        }
        let nothing = Finding { interception: None, open: found.open, is_anothers: false };
        let verdict = match judgement {
            Judgement::Waits => return nothing,
            Judgement::Nothing => None,
            Judgement::Known(verdict) => Some(verdict),
        };
        let told = verdict.map(|verdict| Told { verdict, evidence: found.extent(), hold: found.hold.is_some() });
        let verdict_of = |told: &Option<Told>| told.as_ref().map(|told| told.verdict);
        let news = verdict_of(&self.told) != verdict_of(&told) || milestone && self.told != told;
        if !news {
            return nothing;
        }
        let was_hidden = verdict_of(&self.told).is_some_and(Verdict::is_hidden);
        self.told = told;
        // What is told is put in words.
        let Weighed { found, .. } = self.weigh(client, upstream, signs, overdue, true);
        let verdict = verdict.unwrap_or(Verdict::Direct);
        let now = News {
            hidden: verdict.is_hidden(),
            appears: verdict.is_hidden() && !was_hidden,
            withdrawn: was_hidden && !verdict.is_hidden(),
            redirected: verdict == Verdict::Redirected,
            hold: verdict.is_hidden() && found.hold.is_some(),
        };
        let news = now.since(self.counted);
        self.counted = now.and(self.counted);
        let interception = Interception {
            verdict,
            method: self.method(client),
            interceptor: self.middle.clone(),
            product: signs.iter().filter(|_| self.is_hidden()).find_map(|sign| sign.product),
            client: client.intercepted(),
            upstream: upstream.map(|upstream| Upstream {
                connection_id: Arc::clone(&upstream.connection.id),
                remote: upstream.connection.remote,
                source_preserved: upstream.connection.local.address == client.connection.local.address,
            }),
            confidence: confidence(verdict, score(found.kinds())),
            evidence: found.evidence,
            hold: found.hold,
            news,
        };
        Finding { interception: Some(interception), ..nothing }
    }

    /// What the evidence comes to.
    fn weigh(
        &self,
        client: &Leg,
        upstream: Option<&Leg>,
        signs: &[BannerMismatch],
        overdue: Timestamp,
        in_words: bool,
    ) -> Weighed {
        let mut found = Differences::new(in_words);
        self.structure(client, &mut found);
        let (mut relays, mut mirrored) = (false, false);
        if let (Some(link), Some(upstream)) = (self.onward(), upstream) {
            let asked_for = self.is_hidden() && upstream.connection.remote == client.asked;
            if asked_for {
                found.add(EvidenceKind::SameDestinationConnected, || {
                    let process = upstream.process.as_ref().map_or_else(|| "the process".to_owned(), program);
                    format!("{process} connected to {}, too", upstream.connection.remote)
                });
            }
            mirrored = link.sign == Recognised::Envelope;
            if mirrored {
                found.add(EvidenceKind::EnvelopeMirrored, || {
                    "the server was told the same sender and recipient".to_owned()
                });
            }
            relays = link.relays(&client.dialogue) || self.is_siblings(upstream);
            // What a relay says is its own; that it has what the client said is all that is common to them.
            if link.is_compared() && !relays {
                let (inner, outer) = (&client.dialogue, &upstream.dialogue);
                link.compare(&mut found, inner, outer, overdue);
                encrypted(inner, outer, &mut found);
                coupled(inner, outer, &mut found);
                for sign in signs.iter().filter(|_| self.is_hidden()) {
                    found.add(sign.evidence.kind, || sign.evidence.detail.clone());
                }
            }
        }
        let passes = found.same || (mirrored && !is_changed(found.kinds()));
        let judgement = match upstream {
            _ if self.middle.is_none() => Judgement::Nothing,
            None => self.without_upstream(client),
            Some(_) if relays && self.is_hidden() => Judgement::Known(Verdict::TransparentRelay),
            Some(_) if relays => Judgement::Known(Verdict::Relay),
            Some(_) if !self.is_hidden() => Judgement::Known(Verdict::InlineProxy),
            Some(upstream) if upstream.connection.remote != client.asked => Judgement::Known(Verdict::Redirected),
            Some(_) if self.onward().is_some_and(|link| !link.is_compared()) => Judgement::Waits,
            Some(upstream) => hidden(client, upstream, found.kinds(), passes),
        };
        Weighed { found, judgement }
    }

    fn middle(&self) -> String {
        self.middle.as_ref().map_or_else(|| "the process".to_owned(), program)
    }

    /// How the client came to the process. Whoever wrote the library that is loaded before its own may have chosen for it.
    fn method(&self, client: &Leg) -> Method {
        let preloads = client.process.as_ref().is_some_and(|caller| caller.process.preload.is_some());
        if self.method == Method::LocalProxy && preloads { Method::Preload } else { self.method }
    }

    /// The connection is another process's of the same mail server: it has the message from its queue.
    fn is_siblings(&self, upstream: &Leg) -> bool {
        let processes = self.middle.as_ref().zip(upstream.process.as_ref());
        processes.is_some_and(|(middle, owner)| kin(&middle.process, &owner.process) == Some(ProcessRelation::Sibling))
    }

    /// What the addresses alone show.
    fn structure(&self, client: &Leg, found: &mut Differences) {
        if self.method == Method::ConnectRewrite {
            found.add(EvidenceKind::ConnectRewritten, || {
                format!("the client asked for {}, and was connected to {}", client.asked, client.connection.remote)
            });
        }
        if self.is_hidden() {
            found.add(EvidenceKind::LocalPeer, || {
                let (asked, local) = (client.asked, self.accepted.local);
                format!("the connection to {asked} ends on this host at {local}, in {}", self.middle())
            });
        }
    }

    /// The process goes on with no connection that is known. Where it is another than the client asked for, it is what the
    /// client was led to, as soon as it has done a server's work; one that sends on what it took is another matter.
    fn without_upstream(&self, client: &Leg) -> Judgement {
        let is_server =
            client.dialogue.accepted.is_some() || client.dialogue.closed.is_some() && client.dialogue.end() > 0;
        match self.is_hidden() && is_server {
            true => Judgement::Known(Verdict::Redirected),
            false => Judgement::Nothing,
        }
    }
}

/// What a process that the client knows nothing of does, which goes on to the very server that the client asked for.
fn hidden(client: &Leg, upstream: &Leg, evidence: Kinds, passes: bool) -> Judgement {
    let (inner, outer) = (&client.dialogue, &upstream.dialogue);
    let is_over = inner.closed.is_some();
    match () {
        () if is_changed(evidence) && score(evidence) >= CERTAIN => Judgement::Known(Verdict::TransparentInterceptor),
        () if is_changed(evidence) => Judgement::Known(Verdict::LikelyInterceptor),
        // How much was encrypted is known at the end.
        () if (inner.encrypted.or(outer.encrypted)).is_some()
            && inner.bytes_at_end().zip(outer.bytes_at_end()).is_none() =>
        {
            Judgement::Waits
        }
        () if passes => Judgement::Known(Verdict::TransparentL4),
        // Nothing was said yet that could be compared.
        () if !is_over => Judgement::Waits,
        () => Judgement::Known(Verdict::LikelyInterceptor),
    }
}

/// What the texts of a connection come to, if nothing else is known of it.
pub fn suspected(client: &Leg, sign: BannerMismatch) -> Interception {
    Interception {
        verdict: Verdict::SuspectedMiddlebox,
        method: Method::Remote,
        interceptor: None,
        product: sign.product,
        client: client.intercepted(),
        upstream: None,
        confidence: confidence(Verdict::SuspectedMiddlebox, weight(sign.evidence.kind)),
        evidence: vec![sign.evidence],
        hold: None,
        news: News::default(),
    }
}

/// TLS that passes has the same hello at either side, and as many bytes; a process that takes part in it makes handshakes of
/// its own.
fn encrypted(inner: &Dialogue, outer: &Dialogue, found: &mut Differences) {
    if let (Some(one), Some(other)) = (inner.client_random, outer.client_random)
        && one != other
    {
        return found
            .add(EvidenceKind::TlsTerminated, || "the server got another hello than the client sent".to_owned());
    }
    let (Some(one), Some(other)) = (inner.bytes_at_end(), outer.bytes_at_end()) else { return };
    match (inner.encrypted, outer.encrypted) {
        (Some(_), Some(_)) if one != other => found.add(EvidenceKind::TlsTerminated, || {
            let (sent, received) = one;
            let (passed, got) = other;
            format!("with TLS, the client sent {sent} bytes and got {received}, the server got {passed} and sent {got}")
        }),
        (Some(_), None) => found.add(EvidenceKind::TlsTerminated, || "only the client spoke TLS".to_owned()),
        (None, Some(_)) => found.add(EvidenceKind::TlsTerminated, || "only the server spoke TLS".to_owned()),
        _ => {}
    }
}

fn coupled(inner: &Dialogue, outer: &Dialogue, found: &mut Differences) {
    let (Some(one), Some(other)) = (inner.closed, outer.closed) else { return };
    let apart = Duration::from_nanos(one.0.abs_diff(other.0));
    if apart <= COUPLED {
        found.add(EvidenceKind::CoupledClose, || format!("both connections ended within {}", seconds(apart)));
    }
}

/// The score from which an interceptor is certain.
const CERTAIN: u32 = 8;

/// How much a piece of evidence says, in halves of an order of magnitude or so: docs/interception.md has the software
/// that these were tried on.
fn weight(kind: EvidenceKind) -> u32 {
    match kind {
        EvidenceKind::LocalPeer => 5,
        EvidenceKind::ConnectRewritten | EvidenceKind::GoAheadNotFromUpstream | EvidenceKind::TlsTerminated => 4,
        EvidenceKind::EnvelopeMirrored
        | EvidenceKind::DataHeldBack
        | EvidenceKind::SuccessBeforeUpstream
        | EvidenceKind::StarttlsStripped => 3,
        EvidenceKind::SameDestinationConnected
        | EvidenceKind::ReplyTextDiffers
        | EvidenceKind::CommandInjected
        | EvidenceKind::CommandSwallowed
        | EvidenceKind::CapabilityRemoved
        | EvidenceKind::CapabilityAdded
        | EvidenceKind::OfferedExtensionRefused
        | EvidenceKind::WordingMismatch => 2,
        EvidenceKind::HeloChanged | EvidenceKind::BodyChanged | EvidenceKind::CoupledClose => 1,
    }
}

fn score(evidence: Kinds) -> u32 {
    evidence.iter().map(weight).sum()
}

/// Something did not pass as it came.
fn is_changed(evidence: Kinds) -> bool {
    evidence.iter().any(|kind| {
        !matches!(
            kind,
            EvidenceKind::LocalPeer
                | EvidenceKind::ConnectRewritten
                | EvidenceKind::SameDestinationConnected
                | EvidenceKind::EnvelopeMirrored
                | EvidenceKind::CoupledClose
        )
    })
}

/// The weights as odds: at a score of 4 a verdict is as likely as not. Of what was withdrawn nothing is left to doubt.
fn confidence(verdict: Verdict, score: u32) -> f64 {
    let score = match verdict {
        Verdict::Direct => return 1.0,
        // Proxies and relays need no proof that something is hidden: the client asked for them.
        Verdict::InlineProxy | Verdict::Relay => score + 5,
        _ => score,
    };
    let odds = (f64::from(score) - 4.0) / 1.5;
    // Nothing that is told by signs is beyond doubt.
    ((1000.0 / (1.0 + (-odds).exp())).round() / 1000.0).min(0.99)
}
