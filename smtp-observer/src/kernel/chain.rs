//! Clients whose connection ends in another process of this host than they asked for, by the addresses of open sockets.
//!
//! A translation of addresses leaves the client's own end as it is. So the accepted socket whose remote end is the client's
//! local end is the other end of its connection; where that socket's own address is not the one that the client is
//! connected to, the connection was redirected.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::host::{NoProcess, OpenConnection, Socket};
use crate::identity::{Endpoint, Process, Role};
use crate::names::Method;

/// The process that a client's connection ends in, in place of the server it asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Via {
    /// How the connection came to it.
    pub method: Method,
    /// Where it was accepted.
    pub accepted: Endpoint,
    /// The process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Arc<Process>>,
    /// Why none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_process: Option<NoProcess>,
    /// Its own connection to the server, where it has exactly one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
}

/// The connection that a process in the middle goes on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Upstream {
    /// The process's end.
    pub local: Endpoint,
    /// The server's.
    pub remote: Endpoint,
    /// The process at the server's end, where that is on this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Arc<Process>>,
}

/// A socket, with its inode.
pub(super) type Open = (u64, Socket);

/// All open sockets, by their remote ends.
pub(super) struct Ends(HashMap<Endpoint, Vec<Open>>);

impl Ends {
    pub(super) fn new(open: impl Iterator<Item = Open>) -> Self {
        let mut ends: HashMap<Endpoint, Vec<Open>> = HashMap::new();
        for (inode, socket) in open {
            ends.entry(socket.remote).or_default().push((inode, socket));
        }
        Self(ends)
    }

    /// The socket that a client's connection was redirected to, and how. One in the client's own network namespace is it;
    /// elsewhere there may be several with the same addresses, and then none is known to be.
    pub(super) fn redirected(&self, client: &Socket) -> Option<(Open, Method)> {
        if client.role != Role::Client {
            return None;
        }
        let ends = self.0.get(&client.local)?;
        let here = |(_, socket): &&Open| socket.netns == client.netns;
        let (inode, end) = match only(ends.iter().filter(here)) {
            Some(end) => *end,
            None if ends.iter().any(|end| here(&end)) => return None,
            None => *only(ends.iter())?,
        };
        let method = match end.local {
            local if local == client.remote => return None,
            local if local.address.is_loopback() || local.address == client.remote.address => Method::Redirect,
            // The redirection of packets that this host sends leads to loopback, of others to the address they came in by.
            local if end.netns == client.netns && local.address == client.local.address => Method::Redirect,
            _ => Method::Dnat,
        };
        Some(((inode, end), method))
    }
}

/// The other end of a client's connection that was redirected.
pub(super) struct Redirected {
    pub(super) accepted: Endpoint,
    pub(super) method: Method,
    /// The processes that hold it.
    pub(super) holders: Vec<Arc<Process>>,
    /// Why there is none.
    pub(super) no_process: Option<NoProcess>,
}

/// What is in the middle of each of these connections; `redirected` is in their order.
pub(super) fn complete(connections: &mut [OpenConnection], redirected: Vec<Option<Redirected>>) {
    let ways = Ways::new(connections);
    let found = connections.iter().enumerate().zip(redirected).map(|((place, client), redirected)| {
        let Redirected { accepted, method, holders, no_process } = redirected?;
        let upstream = ways.on(place, client, &holders, connections);
        Some(Via { method, accepted, process: holders.into_iter().next(), no_process, upstream })
    });
    let found: Vec<_> = found.collect();
    for (connection, via) in connections.iter_mut().zip(found) {
        connection.via = via;
    }
}

/// Where connections are in their list.
struct Ways {
    /// Those of clients, by process and server.
    of_clients: HashMap<(u32, Endpoint), Vec<usize>>,
    by_ends: HashMap<(Endpoint, Endpoint), Vec<usize>>,
}

impl Ways {
    fn new(connections: &[OpenConnection]) -> Self {
        let mut ways = Self { of_clients: HashMap::new(), by_ends: HashMap::new() };
        for (place, open) in connections.iter().enumerate() {
            let Socket { role, local, remote, .. } = open.connection;
            ways.by_ends.entry((local, remote)).or_default().push(place);
            let holders = open.process.iter().chain(&open.shared_with).filter(|_| role == Role::Client);
            for process in holders {
                ways.of_clients.entry((process.pid, remote)).or_default().push(place);
            }
        }
        ways
    }

    /// The one connection of these processes that leads where the client wanted to go.
    fn on(
        &self,
        place: usize,
        client: &OpenConnection,
        holders: &[Arc<Process>],
        connections: &[OpenConnection],
    ) -> Option<Upstream> {
        let theirs = holders.iter().filter_map(|holder| self.of_clients.get(&(holder.pid, client.connection.remote)));
        let theirs: BTreeSet<usize> = theirs.flatten().copied().filter(|other| *other != place).collect();
        let Socket { local, remote, .. } = connections.get(only(theirs.into_iter())?)?.connection;
        let server = self.by_ends.get(&(remote, local)).and_then(|ends| only(ends.iter()));
        let process = server.and_then(|place| connections.get(*place)?.process.clone());
        Some(Upstream { local, remote, process })
    }
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let item = items.next()?;
    items.next().is_none().then_some(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: u32 = 1;
    const ELSEWHERE: u32 = 2;

    fn endpoint(text: &str) -> Endpoint {
        let address: std::net::SocketAddr = text.parse().expect("an address");
        Endpoint { address: address.ip(), port: address.port() }
    }

    fn socket(role: Role, local: &str, remote: &str, netns: u32) -> Socket {
        Socket { role, local: endpoint(local), remote: endpoint(remote), netns }
    }

    fn client() -> Socket {
        socket(Role::Client, "10.0.0.1:40000", "192.0.2.25:25", HERE)
    }

    fn accepted(local: &str, netns: u32) -> Socket {
        socket(Role::Server, local, "10.0.0.1:40000", netns)
    }

    /// Where the client's connection leads, of these sockets.
    fn found(sockets: &[Socket]) -> Option<(u64, Method)> {
        let ends = Ends::new(sockets.iter().enumerate().map(|(inode, socket)| (inode as u64, *socket)));
        ends.redirected(&client()).map(|((inode, _), method)| (inode, method))
    }

    #[test]
    fn methods() {
        for (local, netns, method) in [
            ("127.0.0.1:10025", HERE, Some(Method::Redirect)),
            ("10.0.0.1:10025", HERE, Some(Method::Redirect)),
            ("192.0.2.25:2525", ELSEWHERE, Some(Method::Redirect)),
            ("172.17.0.2:25", ELSEWHERE, Some(Method::Dnat)),
            ("10.0.0.9:10025", HERE, Some(Method::Dnat)),
            ("192.0.2.25:25", ELSEWHERE, None),
            ("192.0.2.25:25", HERE, None),
        ] {
            let sockets = [client(), accepted(local, netns)];
            assert_eq!(found(&sockets), method.map(|method| (1, method)), "{local}");
        }
        assert_eq!(found(&[client()]), None, "the other end is on another host");
    }

    #[test]
    fn the_clients_own_namespace_goes_first() {
        let near = accepted("127.0.0.1:10025", HERE);
        let far = [accepted("172.17.0.2:25", ELSEWHERE), accepted("172.17.0.3:25", 3)];
        assert_eq!(found(&[far[0], near, far[1]]), Some((1, Method::Redirect)));
        assert_eq!(found(&[far[0]]), Some((0, Method::Dnat)));
        assert_eq!(found(&far), None, "either may be it");
        assert_eq!(found(&[near, near]), None);
        // A direct connection within the namespace, and another's of the same addresses elsewhere.
        assert_eq!(found(&[accepted("192.0.2.25:25", HERE), far[0]]), None);
    }

    #[test]
    fn servers_lead_nowhere() {
        let ends = Ends::new([(1, client())].into_iter());
        assert_eq!(ends.redirected(&socket(Role::Server, "192.0.2.25:25", "10.0.0.1:40000", HERE)), None);
    }

    fn process(pid: u32) -> Arc<Process> {
        Arc::new(Process {
            pid,
            name: format!("program-{pid}").into(),
            executable: None,
            script: None,
            command_line: None,
            uid: 0,
            user: None,
            preload: None,
            parent: None,
            cgroup: None,
            container_id: None,
            systemd_unit: None,
        })
    }

    fn open(connection: Socket, pid: u32) -> OpenConnection {
        OpenConnection { connection, process: Some(process(pid)), no_process: None, shared_with: Vec::new(), via: None }
    }

    #[test]
    fn the_way_on() {
        let way_on = socket(Role::Client, "10.0.0.1:40001", "192.0.2.25:25", HERE);
        let server = socket(Role::Server, "192.0.2.25:25", "10.0.0.1:40001", ELSEWHERE);
        let to_another = socket(Role::Client, "10.0.0.1:40002", "192.0.2.26:25", HERE);
        let mut connections = [open(client(), 1), open(way_on, 2), open(server, 3), open(to_another, 2)];
        let redirected = || {
            let accepted = endpoint("127.0.0.1:10025");
            let first = Redirected { accepted, method: Method::Redirect, holders: vec![process(2)], no_process: None };
            std::iter::once(Some(first)).chain(std::iter::repeat_with(|| None)).take(5).collect::<Vec<_>>()
        };
        complete(&mut connections, redirected());
        let upstream = Upstream { local: way_on.local, remote: way_on.remote, process: Some(process(3)) };
        let expected = Via {
            method: Method::Redirect,
            accepted: endpoint("127.0.0.1:10025"),
            process: Some(process(2)),
            no_process: None,
            upstream: Some(upstream),
        };
        assert_eq!(connections[0].via, Some(expected));
        assert!(connections[1..].iter().all(|other| other.via.is_none()));

        // Another connection to the same server: which of them is for this client is not known.
        let second = socket(Role::Client, "10.0.0.1:40003", "192.0.2.25:25", HERE);
        let mut connections = [connections.to_vec(), vec![open(second, 2)]].concat();
        complete(&mut connections, redirected());
        assert_eq!(connections[0].via.as_ref().map(|via| via.upstream.clone()), Some(None));
    }
}
