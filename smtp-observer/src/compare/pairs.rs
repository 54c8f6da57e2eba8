//! Which conversations of the two ends belong together.

use std::cmp::Reverse;
use std::time::Duration;

use foldhash::{HashMap, HashSet};

use super::clock::{self, Bounds, Clocks};
use super::end::Conversation;
use crate::observation::{Endpoint, Timestamp};
use crate::proxy::comparison::Part;
use crate::proxy::dialogue::{Dialogue, Step};

/// All of a conversation.
pub const ALWAYS: Part = Timestamp(i64::MIN)..=Timestamp(i64::MAX);

/// How long after the client has gone its message may still be handed on.
const HANDED_ON: Duration = Duration::from_secs(60);

/// How much a clock that is not known may be wrong.
const UNKNOWN: Duration = Duration::from_secs(3600);

/// Most pairs of transactions that are tried to find out how the clocks stand.
const MAX_TRIED: usize = 4096;

/// What two conversations are taken for a pair by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Each is at the other's address: one connection, or two that look like one.
    Addresses,
    /// The agent at the client's end has found the connection that carries the conversation on, and the other end of this is
    /// known by its addresses.
    Upstream,
    /// The same sender and recipient, at about the same time.
    Envelope,
}

/// Two conversations that belong together, by their places at the two ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// At the client's end.
    pub client: usize,
    /// The part of it that is meant, by the client's clock.
    pub of: Part,
    /// At the server's end.
    pub server: usize,
    /// The part of it that is meant, by the server's clock.
    pub part: Part,
    /// How they were found.
    pub by: By,
}

/// The pairs, in the order of the client's conversations, and how the two clocks stand, where that is known.
pub fn find(clients: &[&Conversation], servers: &[&Conversation]) -> (Vec<Pair>, Option<Clocks>) {
    let alike = same_addresses(clients, servers);
    let mut clocks = agree(clients, servers, &all(&alike, MAX_TRIED));
    if clocks.is_none() {
        let alike = same_envelopes(clients.iter().copied().enumerate(), servers.iter().copied().enumerate());
        let all =
            alike.iter().flat_map(|[sent, got]| sent.iter().flat_map(|sent| got.iter().map(|got| begun(*sent, *got))));
        clocks = agree(clients, servers, &all.take(MAX_TRIED).collect::<Vec<_>>());
    }
    let mut pairs = by_addresses(clients, servers, alike, clocks);
    let more = by_envelope(clients, servers, clocks, &pairs);
    pairs.extend(more);
    pairs.sort_by_key(|pair| (pair.client, *pair.of.start(), pair.server));
    (pairs, clocks)
}

fn agree(clients: &[&Conversation], servers: &[&Conversation], pairs: &[Pair]) -> Option<Clocks> {
    let bounds = pairs.iter().flat_map(|pair| clock::bounds(clients[pair.client], servers[pair.server], &pair.part));
    clock::agreed(&bounds.collect::<Vec<_>>()).map(Bounds::clocks)
}

fn whole(client: usize, server: usize, by: By) -> Pair {
    Pair { client, of: ALWAYS, server, part: ALWAYS, by }
}

/// Conversations whose ends are at each other's addresses, in the order of time; where a port was used again there are several.
type Alike = [Vec<usize>; 2];

/// All of these, those with the fewest that may be meant first.
fn same_addresses(clients: &[&Conversation], servers: &[&Conversation]) -> Vec<Alike> {
    let mut by_ends: HashMap<(Endpoint, Endpoint), Alike> = HashMap::default();
    for (place, client) in clients.iter().enumerate() {
        by_ends.entry((client.connection.local, client.connection.remote)).or_default()[0].push(place);
    }
    for (place, server) in servers.iter().enumerate() {
        if let Some([_, known]) = by_ends.get_mut(&(server.connection.remote, server.connection.local)) {
            known.push(place);
        }
    }
    let mut alike: Vec<Alike> = by_ends.into_values().filter(|[_, servers]| !servers.is_empty()).collect();
    for [of_clients, of_servers] in &mut alike {
        of_clients.sort_by_key(|place| clients[*place].opened);
        of_servers.sort_by_key(|place| servers[*place].opened);
    }
    // A map has no order.
    alike.sort_by_key(|[of_clients, of_servers]| (of_clients.len() * of_servers.len(), of_clients.first().copied()));
    alike
}

/// Whatever may belong together.
fn all(alike: &[Alike], most: usize) -> Vec<Pair> {
    let pairs = alike.iter().flat_map(|[clients, servers]| {
        clients.iter().flat_map(|client| servers.iter().map(|server| whole(*client, *server, By::Addresses)))
    });
    pairs.take(most).collect()
}

/// What was open at the same time belongs together; where the clocks are not known the last ones do, since a file may begin
/// later than the other.
fn by_addresses(
    clients: &[&Conversation],
    servers: &[&Conversation],
    alike: Vec<Alike>,
    clocks: Option<Clocks>,
) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for [of_clients, of_servers] in alike {
        let Some(clocks) = clocks else {
            pairs.extend(of_clients.into_iter().rev().zip(of_servers.into_iter().rev()));
            continue;
        };
        let mut rest = of_servers.into_iter().peekable();
        for client in of_clients {
            let (opened, closed) = clients[client].time();
            // What was over before is no later client's either.
            while rest.next_if(|server| by_client(clocks, servers[*server].time().1) < opened).is_some() {}
            let server = rest.next_if(|server| by_client(clocks, servers[*server].time().0) <= closed);
            pairs.extend(server.map(|server| (client, server)));
        }
    }
    pairs.into_iter().map(|(client, server)| whole(client, server, By::Addresses)).collect()
}

/// A moment of the server's clock.
fn by_client(clocks: Clocks, time: Timestamp) -> Timestamp {
    Timestamp(time.0.saturating_sub(clocks.ahead))
}

/// A client's connection ends on its own host, in a program that goes on with a connection which has its other end here: by
/// the client's place, that of the server.
fn by_upstream(clients: &[&Conversation], pairs: &[Pair]) -> HashMap<usize, usize> {
    let places = clients.iter().enumerate();
    let by_id: HashMap<&str, usize> = places.clone().map(|(place, client)| (&*client.connection.id, place)).collect();
    let servers: HashMap<usize, usize> = pairs.iter().map(|pair| (pair.client, pair.server)).collect();
    let known = places.filter(|(place, _)| !servers.contains_key(place)).filter_map(|(place, client)| {
        let upstream = by_id.get(client.upstream.as_deref()?)?;
        Some((place, *servers.get(upstream)?))
    });
    known.collect()
}

/// What has no partner by its addresses, transaction by transaction.
fn by_envelope(
    clients: &[&Conversation],
    servers: &[&Conversation],
    clocks: Option<Clocks>,
    paired: &[Pair],
) -> Vec<Pair> {
    let upstream = by_upstream(clients, paired);
    let paired_clients: HashSet<usize> = paired.iter().map(|pair| pair.client).collect();
    let paired_servers: HashSet<usize> = paired.iter().map(|pair| pair.server).collect();
    let ahead = clocks.map_or(0, |clocks| clocks.ahead);
    // What is known by its addresses is nobody else's, but for those whose way on is known.
    let of_upstream: HashSet<usize> = upstream.values().copied().collect();
    let free_clients = clients.iter().copied().enumerate().filter(|(place, _)| !paired_clients.contains(place));
    let free_servers = (servers.iter().copied().enumerate())
        .filter(|(place, _)| !paired_servers.contains(place) || of_upstream.contains(place));
    let mut found: Vec<Pair> = (same_envelopes(free_clients, free_servers).into_iter())
        .flat_map(|alike| in_time(clients, clocks, alike))
        .filter_map(|pair| match upstream.get(&pair.client) {
            Some(known) if *known == pair.server => Some(Pair { by: By::Upstream, ..pair }),
            None if !paired_servers.contains(&pair.server) => Some(pair),
            _ => None,
        })
        .collect();
    // What is most alike is a pair, then what is nearest in time.
    let apart = |pair: &Pair| pair.part.start().0.saturating_sub(ahead).abs_diff(pair.of.start().0);
    found.sort_by_cached_key(|pair| {
        let likeness = likeness(clients[pair.client], servers[pair.server]);
        (Reverse(likeness), apart(pair), pair.client, pair.server)
    });
    let (mut sent, mut got) = (HashSet::default(), HashSet::default());
    found.retain(|pair| {
        let transactions = ((pair.client, *pair.of.start()), (pair.server, *pair.part.start()));
        let is_new = !sent.contains(&transactions.0) && !got.contains(&transactions.1);
        is_new && sent.insert(transactions.0) && got.insert(transactions.1)
    });
    let met: HashSet<usize> = found.iter().map(|pair| pair.client).collect();
    let mut pairs = parted(found);
    // Where no envelope was named, the connection may still be known.
    let rest = upstream.into_iter().filter(|(client, _)| !met.contains(client));
    pairs.extend(rest.map(|(client, server)| whole(client, server, By::Upstream)));
    pairs
}

/// Pairs of transactions become pairs of conversations: of each as much as up to where another's begins.
fn parted(mut transactions: Vec<Pair>) -> Vec<Pair> {
    transactions.sort_by_key(|pair| (pair.client, *pair.of.start()));
    let in_a_row = |one: &Pair, next: &Pair| (one.client, one.server) == (next.client, next.server);
    let mut runs: Vec<Pair> = Vec::new();
    for run in transactions.chunk_by(in_a_row) {
        let first = run.iter().map(|pair| *pair.part.start()).min();
        runs.extend(run.first().zip(first).map(|(pair, first)| Pair { part: first..=*ALWAYS.end(), ..pair.clone() }));
    }
    bound(&mut runs, |pair| (pair.client, *pair.of.start()), |pair| &mut pair.of);
    bound(&mut runs, |pair| (pair.server, *pair.part.start()), |pair| &mut pair.part);
    runs
}

/// At one side each part lasts until the next one begins; the first has what was before it, too.
fn bound(runs: &mut [Pair], place: fn(&Pair) -> (usize, Timestamp), side: fn(&mut Pair) -> &mut Part) {
    runs.sort_by_key(place);
    let places: Vec<_> = runs.iter().map(place).collect();
    for (at, run) in runs.iter_mut().enumerate() {
        let (own, begins) = places[at];
        let is_first = at == 0 || places[at - 1].0 != own;
        let next = places.get(at + 1).filter(|next| next.0 == own);
        let from = if is_first { *ALWAYS.start() } else { begins };
        *side(run) = from..=next.map_or(*ALWAYS.end(), |next| Timestamp(next.1.0 - 1));
    }
}

/// A transaction: its sender's and first recipient's mailboxes, and when it began.
type Transaction = ((u64, u64), Timestamp);

/// Transactions with one envelope: whose, and when it began.
type Places = Vec<(usize, Timestamp)>;

/// The transactions of a dialogue that came as far as a recipient.
fn transactions(dialogue: &Dialogue) -> Vec<Transaction> {
    let mut found = Vec::new();
    let mut mail: Option<&Step> = None;
    for step in &dialogue.steps {
        match &*step.verb {
            "MAIL" => mail = Some(step),
            "RSET" | "EHLO" | "HELO" | "LHLO" => mail = None,
            "RCPT" => {
                if let Some(mail) = mail.take()
                    && let Some(mailboxes) = mail.mailbox.zip(step.mailbox)
                {
                    found.push((mailboxes, mail.sent));
                }
            }
            _ => {}
        }
    }
    found
}

/// The transactions that have one envelope, at the client's end and at the server's; the rarest envelopes first.
fn same_envelopes<'a>(
    clients: impl Iterator<Item = (usize, &'a Conversation)>,
    servers: impl Iterator<Item = (usize, &'a Conversation)>,
) -> Vec<[Places; 2]> {
    let mut by_envelope: HashMap<(u64, u64), [Places; 2]> = HashMap::default();
    let all = clients.map(|client| (0, client)).chain(servers.map(|server| (1, server)));
    for (side, (place, conversation)) in all {
        for (envelope, begins) in transactions(&conversation.dialogue) {
            by_envelope.entry(envelope).or_default()[side].push((place, begins));
        }
    }
    let mut alike: Vec<_> = by_envelope.into_iter().collect();
    alike.sort_by_key(|(envelope, [sent, got])| (sent.len() * got.len(), *envelope));
    alike.into_iter().map(|(_, places)| places).collect()
}

/// The pairs of transactions with one envelope in which the server got its own after the client had begun, and not long after
/// the client had gone.
fn in_time(clients: &[&Conversation], clocks: Option<Clocks>, [sent, mut got]: [Places; 2]) -> Vec<Pair> {
    let ahead = clocks.map_or(0, |clocks| clocks.ahead);
    let doubt = clocks.map_or(UNKNOWN, |clocks| clocks.within + clock::slack(Duration::ZERO));
    let by_client = |(_, begins): &(usize, Timestamp)| Timestamp(begins.0.saturating_sub(ahead));
    got.sort_by_key(|&(place, begins)| (begins, place));
    let mut pairs = Vec::new();
    for (client, begins) in sent {
        let (from, ended) = (begins.before(doubt), clients[client].dialogue.closed.unwrap_or(*ALWAYS.end()));
        let until = ended.after(HANDED_ON);
        let later = &got[got.partition_point(|other| by_client(other) < from)..];
        let known = later.iter().take_while(|other| by_client(other) <= until);
        pairs.extend(known.map(|other| begun((client, begins), *other)));
    }
    pairs
}

/// Two conversations from a transaction on.
fn begun((client, sent): (usize, Timestamp), (server, got): (usize, Timestamp)) -> Pair {
    Pair { client, of: sent..=*ALWAYS.end(), server, part: got..=*ALWAYS.end(), by: By::Envelope }
}

/// How much two conversations have in common besides an envelope.
fn likeness(client: &Conversation, server: &Conversation) -> usize {
    let (inner, outer) = (&client.dialogue, &server.dialogue);
    let ends = (client.connection.local, client.connection.remote);
    let addresses = usize::from(ends.0.address == server.connection.remote.address)
        + usize::from(ends.1 == server.connection.local);
    let names = |dialogue: &Dialogue| dialogue.steps.iter().find_map(|step| step.name.clone());
    let name = usize::from(names(inner) == names(outer));
    let contents =
        |dialogue: &Dialogue| dialogue.steps.iter().filter_map(|step| step.content.clone()).collect::<Vec<_>>();
    let (sent, got) = (contents(inner), contents(outer));
    let sizes = sent.iter().filter(|sent| got.iter().any(|got| sent.size.is_some() && got.size == sent.size)).count();
    // A queue's identifier is in it: nothing tells two messages apart as well.
    let replies = sent.iter().filter_map(|sent| sent.reply.as_ref());
    let taken =
        replies.filter(|heard| got.iter().filter_map(|got| got.reply.as_ref()).any(|said| heard.says_what(said)));
    addresses + name + 2 * sizes + 4 * taken.count()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{CLIENT, PROXY, Path, client, server};
    use super::*;

    /// So many mails with one envelope, a minute apart, as many ports as there are: from elsewhere at the server.
    fn mails(number: u16) -> Path {
        let mut path = Path::ahead(30_000);
        let ids: Vec<&'static str> = (0..number).map(|id| &*Box::leak(id.to_string().into_boxed_str())).collect();
        for (at, id) in (0..).zip(ids) {
            let (from, to) = (client(id, (CLIENT.0, 1000 + at)), server(id, ("203.0.113.7", 1000 + at)));
            path.mail(i64::from(at) * 60_000, from, to);
        }
        path
    }

    fn conversations(path: &Path) -> [Vec<&Conversation>; 2] {
        [path.client.conversations().collect(), path.server.conversations().collect()]
    }

    fn sides<'a>(all: &'a [&'a Conversation]) -> impl Iterator<Item = (usize, &'a Conversation)> {
        all.iter().copied().enumerate()
    }

    /// As `in_time`, but all with all.
    fn slowly(clients: &[&Conversation], clocks: Clocks, [sent, got]: &[Places; 2]) -> Vec<(usize, usize)> {
        let doubt = clocks.within + clock::slack(Duration::ZERO);
        let mut pairs = Vec::new();
        for (client, begins) in sent {
            for (server, other) in got {
                let ended = clients[*client].dialogue.closed.expect("closed").after(HANDED_ON);
                let is_in_time = (begins.before(doubt)..=ended).contains(&Timestamp(other.0 - clocks.ahead));
                pairs.extend(is_in_time.then_some((*client, *server)));
            }
        }
        pairs
    }

    #[test]
    fn what_is_far_apart_is_not_tried() {
        let path = mails(100);
        let [clients, servers] = conversations(&path);
        let alike = same_envelopes(sides(&clients), sides(&servers));
        assert_eq!((alike.len(), alike[0][0].len(), alike[0][1].len()), (1, 100, 100));
        for (ahead, within) in [(30_000, 5), (0, 5), (90_000, 40_000), (-7_000_000, 5)] {
            let clocks = Clocks { ahead: ahead * 1_000_000, within: Duration::from_millis(within) };
            let tried = in_time(&clients, Some(clocks), alike[0].clone());
            let tried: Vec<_> = tried.iter().map(|pair| (pair.client, pair.server)).collect();
            assert_eq!(tried, slowly(&clients, clocks, &alike[0]));
            assert!(tried.len() <= 300, "{} pairs of 10000 were tried", tried.len());
        }
        let (pairs, _) = find(&clients, &servers);
        assert!(pairs.iter().all(|pair| pair.client == pair.server && pair.by == By::Envelope));
        assert_eq!(pairs.len(), 100);
    }

    #[test]
    fn what_is_paired_is_not_tried_again() {
        let mut path = Path::ahead(0);
        path.mail(0, client("known", CLIENT), server("known", CLIENT));
        path.mail_at(10, client("alone", PROXY));
        let [clients, servers] = conversations(&path);
        let paired = [whole(0, 0, By::Addresses)];
        assert_eq!(by_envelope(&clients, &servers, None, &paired), []);
        let free: Vec<_> = by_envelope(&clients, &servers, None, &[]).iter().map(|pair| pair.server).collect();
        assert_eq!(free, [0], "it would have been the other's");
    }
}
