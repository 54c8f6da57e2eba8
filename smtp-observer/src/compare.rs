//! What two agents saw from the two ends of the same conversations, and what differs between them: a program in the middle,
//! wherever it is, is known by what it changes.

mod clock;
mod end;
mod pairs;
mod rows;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::time::Duration;

use foldhash::HashSet;

pub use self::clock::Clocks;
pub use self::end::{Conversation, End};
pub use self::pairs::By;
use self::pairs::{ALWAYS, Pair};
pub use self::rows::{Mark, Row, Turn};
use crate::observation::{Endpoint, Evidence, EvidenceKind, Timestamp};
use crate::proxy::comparison::{self, Differences, Part, Sides};
use crate::proxy::dialogue::Dialogue;
use crate::redact::Addresses;

/// What is found out about two ends.
#[derive(Debug)]
pub struct Report<'a> {
    /// How the hosts' clocks stand, where that is known; where it is not they are taken for equal.
    pub clocks: Option<Clocks>,
    /// Conversations that both ends saw, in the order of the client's.
    pub pairs: Vec<Compared<'a>>,
    /// Conversations with the server of the other end that it did not see.
    pub client_only: Vec<&'a Conversation>,
    /// Conversations with the client of the other end that it did not see.
    pub server_only: Vec<&'a Conversation>,
    /// How many more there are at each end, with others.
    pub with_others: [usize; 2],
}

/// A conversation as its two ends saw it.
#[derive(Debug)]
pub struct Compared<'a> {
    /// At the client's end.
    pub client: &'a Conversation,
    /// At the server's end.
    pub server: &'a Conversation,
    /// Why they are taken for one.
    pub by: By,
    /// The server's end by the client's clock.
    outer: Dialogue,
    of: Part,
    part: Part,
    slack: Duration,
    /// Until then all was seen at both ends.
    seen_until: Timestamp,
    /// What proves that something is in the middle.
    pub evidence: Vec<Evidence>,
    /// From the client's DATA to the DATA that the server got.
    pub hold: Option<Duration>,
    /// What to bear in mind.
    pub notes: Vec<Note>,
}

/// What comes out of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The two ends did not see the same.
    Differs,
    /// They saw the same.
    Same,
    /// Nothing differs, but there is something that one end could not see, or no command that both ends saw.
    AlikeInPart,
}

/// What limits a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// Something of the client's end was not seen, or its lines were lost.
    GapAtClient,
    /// Something of the server's end was not seen, or its lines were lost.
    GapAtServer,
    /// The client's end was seen from its middle.
    ClientFromMiddle,
    /// The server's end was seen from its middle.
    ServerFromMiddle,
    /// Both ends went on under TLS.
    Encrypted,
    /// The client's end alone went on under TLS, and the server's was heard since: TLS ends on the way.
    EncryptedAtClient,
    /// The server's end alone went on under TLS, and the client's was heard since: TLS begins on the way.
    EncryptedAtServer,
    /// They were found by an envelope that does not show whole mailboxes: it may be another mail's.
    DomainsAlone,
}

/// Compares what two agents saw: one where the clients are, one where the servers are.
pub fn compare<'a>(client: &'a End, server: &'a End) -> Report<'a> {
    let clients: Vec<&Conversation> = client.conversations().collect();
    let servers: Vec<&Conversation> = server.conversations().collect();
    let (pairs, clocks) = pairs::find(&clients, &servers);
    let span = span(&clients).max(span(&servers));
    let has_mailboxes = client.addresses() == Some(Addresses::Full);
    let compared = pairs.iter().map(|pair| {
        let mut compared = Compared::new(clients[pair.client], servers[pair.server], pair, clocks, span);
        compared.notes.extend((pair.by == By::Envelope && !has_mailboxes).then_some(Note::DomainsAlone));
        compared
    });
    let (seen_clients, seen_servers): (HashSet<usize>, HashSet<usize>) =
        pairs.iter().map(|pair| (pair.client, pair.server)).unzip();
    let alone = |conversations: &[&'a Conversation], seen: &HashSet<usize>| -> Vec<&'a Conversation> {
        let rest = conversations.iter().enumerate().filter(|(place, _)| !seen.contains(place));
        rest.map(|(_, conversation)| *conversation).collect()
    };
    let of_servers: HashSet<Endpoint> = servers.iter().map(|server| server.connection.local).collect();
    let of_clients: HashSet<_> = clients.iter().map(|client| client.connection.local.address).collect();
    let (client_only, others) = alone(&clients, &seen_clients)
        .into_iter()
        .partition::<Vec<_>, _>(|it| of_servers.contains(&it.connection.remote));
    let (server_only, more) = alone(&servers, &seen_servers)
        .into_iter()
        .partition::<Vec<_>, _>(|it| of_clients.contains(&it.connection.remote.address));
    Report { clocks, pairs: compared.collect(), client_only, server_only, with_others: [others.len(), more.len()] }
}

/// The time that conversations tell of.
fn span(conversations: &[&Conversation]) -> Duration {
    let opened = conversations.iter().map(|it| it.time().0).min();
    let last = conversations.iter().map(|it| it.time().1).max();
    opened.zip(last).map_or(Duration::ZERO, |(first, last)| elapsed(first, last))
}

fn elapsed(first: Timestamp, last: Timestamp) -> Duration {
    last.since(first)
}

impl<'a> Compared<'a> {
    fn new(
        client: &'a Conversation,
        server: &'a Conversation,
        pair: &Pair,
        clocks: Option<Clocks>,
        span: Duration,
    ) -> Self {
        let bounds = clock::bounds(client, server, &pair.part);
        let ahead = clocks.map_or(0, |clocks| clocks.during(&bounds, span));
        let by_client = |time: &Timestamp| Timestamp(time.0.saturating_sub(ahead));
        let outer = server.dialogue.by_clock(ahead.saturating_neg());
        let (opened, last) = client.time();
        let mut compared = Self {
            client,
            server,
            by: pair.by,
            outer,
            of: pair.of.clone(),
            part: match pair.part == ALWAYS {
                true => ALWAYS,
                false => by_client(pair.part.start())..=by_client(pair.part.end()),
            },
            slack: clock::slack(elapsed(opened, last)),
            seen_until: [client.seen_until, server.seen_until.as_ref().map(by_client)]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(Timestamp(i64::MAX)),
            evidence: Vec::new(),
            hold: None,
            notes: Vec::new(),
        };
        compared.limit();
        let mut differences = Differences::new(true);
        // Behind a gap, a command may be taken for another one.
        let [of, part] = [&compared.of, &compared.part].map(|it| *it.start()..=compared.seen_until.min(*it.end()));
        comparison::compare(&mut differences, &Sides { of: &of, part: &part, ..compared.sides() });
        compared.hold = differences.hold;
        compared.evidence = differences.evidence;
        // What was not seen may have been said.
        let doubtful = |kind: EvidenceKind| match kind {
            EvidenceKind::CommandInjected => client.has_gaps(),
            EvidenceKind::CommandSwallowed => server.has_gaps(),
            EvidenceKind::GoAheadNotFromUpstream | EvidenceKind::SuccessBeforeUpstream => server.has_gaps(),
            _ => false,
        };
        compared.evidence.retain(|evidence| !doubtful(evidence.kind));
        compared
    }

    /// Leaves out what one end alone could not see, and notes it.
    fn limit(&mut self) {
        let inner = &self.client.dialogue;
        let mut note = |is_so: bool, note: Note| self.notes.extend(is_so.then_some(note));
        note(self.client.has_gaps(), Note::GapAtClient);
        note(self.server.has_gaps(), Note::GapAtServer);
        note(inner.greeting.is_none(), Note::ClientFromMiddle);
        note(self.outer.greeting.is_none(), Note::ServerFromMiddle);
        let (at_client, at_server) = (inner.unread_since(), self.outer.unread_since());
        let (client_speaks_tls, server_does) = (inner.encrypted.is_some(), self.outer.encrypted.is_some());
        note(client_speaks_tls && server_does && at_client.or(at_server).is_some(), Note::Encrypted);
        // An end that was not heard any more may have gone on under TLS, too.
        let slack = self.slack;
        let goes_on_without = |conversation: &Conversation, dialogue: &Dialogue, tls: Option<Timestamp>| {
            let (last, tls) = (dialogue.last(), tls.map(|started| started.after(slack)));
            !conversation.has_gaps() && dialogue.encrypted.is_none() && tls.is_some_and(|tls| last > Some(tls))
        };
        note(goes_on_without(self.server, &self.outer, inner.encrypted), Note::EncryptedAtClient);
        note(goes_on_without(self.client, inner, self.outer.encrypted), Note::EncryptedAtServer);
        let slack = i64::try_from(self.slack.as_nanos()).unwrap_or(i64::MAX);
        let begins = |dialogue: &Dialogue| {
            let first = dialogue.steps.front().filter(|_| dialogue.greeting.is_none());
            first.map_or(i64::MIN, |first| first.sent.0.saturating_sub(slack))
        };
        let from = Timestamp(begins(inner).max(begins(&self.outer)));
        let until = [at_client, at_server].into_iter().flatten().min().unwrap_or(Timestamp(i64::MAX));
        for part in [&mut self.of, &mut self.part] {
            *part = from.max(*part.start())..=until.min(*part.end());
        }
    }

    fn sides(&self) -> Sides<'_> {
        Sides { inner: &self.client.dialogue, of: &self.of, outer: &self.outer, part: &self.part, slack: self.slack }
    }

    /// What was said, line by line.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let mut rows = rows::rows(&self.sides(), &self.client.arguments, &self.server.arguments);
        let is_behind_gap = |turn: &Turn<'_>| turn.time > self.seen_until;
        for row in &mut rows {
            row.mark = match row.mark {
                Mark::ClientOnly if self.server.has_gaps() => Mark::Unknown,
                Mark::ServerOnly if self.client.has_gaps() => Mark::Unknown,
                Mark::Changed if [row.client, row.server].iter().flatten().any(is_behind_gap) => Mark::Unknown,
                mark => mark,
            };
        }
        rows
    }

    /// The two ends did not see the same.
    pub fn differs(&self) -> bool {
        self.outcome() == Outcome::Differs
    }

    /// What comes out.
    pub fn outcome(&self) -> Outcome {
        let rows = self.rows();
        let is_unknown = |row: &Row<'_>| row.mark == Mark::Unknown;
        let is_shared = |row: &Row<'_>| row.client.and_then(|turn| turn.step).is_some() && row.server.is_some();
        if !self.evidence.is_empty() || rows.iter().any(|row| !is_unknown(row) && row.mark != Mark::Same) {
            Outcome::Differs
        } else if rows.iter().any(is_unknown) || !rows.iter().any(is_shared) {
            Outcome::AlikeInPart
        } else {
            Outcome::Same
        }
    }
}

impl Dialogue {
    /// When something was last heard of it.
    fn last(&self) -> Option<Timestamp> {
        let step = self.steps.back().map(|step| step.reply.as_ref().map_or(step.sent, |reply| reply.time));
        self.closed.or(step).or(self.greeting.as_ref().map(|said| said.time))
    }
}
