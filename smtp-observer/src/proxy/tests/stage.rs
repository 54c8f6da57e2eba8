//! Where stories are told.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use crate::fact::Interception;
use crate::fact::{ConnectionClosed, Fact, What, samples as facts};
use crate::identity::{Caller, Connection, Endpoint, Parent, Process, Role};
use crate::names::{NoopReason, RsetReason, Verdict};
use crate::observation::{Event, Observation};
use crate::proxy::{Accepted, Interceptions, Opened};
use crate::redact::{Addresses, RedactionPolicy};
use crate::timestamp::Timestamp;

pub(super) const SERVER: Endpoint = Endpoint { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 25)), port: 25 };
pub(super) const OTHER_SERVER: Endpoint = Endpoint { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 26)), port: 25 };
pub(super) const PROXY: Endpoint = Endpoint { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 10025 };
pub(super) const OWN: Endpoint = Endpoint { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 25 };

/// Where clients connect from.
pub(super) const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

pub(super) const CLIENT: (u32, u32) = (100, 1);
pub(super) const MIDDLE: (u32, u32) = (200, 1);

pub(super) const MILLISECOND: i64 = 1_000_000;

fn policy() -> RedactionPolicy {
    RedactionPolicy::new(Addresses::Full)
}

/// A fact in words.
pub(super) fn shown(fact: &Fact<'_>) -> Observation {
    Observation::of(fact, policy())
}

/// Where a story is told; each thing that happens is a millisecond after the one before.
pub(super) struct Stage {
    pub(super) interceptions: Interceptions,
    pub(super) time: i64,
    pub(super) told: Vec<Observation>,
    pub(super) ends: HashMap<u64, (Arc<Connection>, Option<Caller>)>,
    pub(super) opened: HashMap<u64, Opened>,
}

/// From this pid on all processes are of one program, which forks.
pub(super) const FORKED: u32 = 900;

pub(in crate::proxy) fn process((pid, parent): (u32, u32)) -> Caller {
    let executable = if pid < FORKED { format!("/opt/server-{parent}/program-{pid}") } else { "/opt/forks".into() };
    let process = Process {
        pid,
        name: format!("program-{pid}").into(),
        executable: Some(executable.into()),
        parent: Some(Parent { pid: parent, name: "parent".into() }),
        ..Process::default()
    };
    Caller { process: Arc::new(process), tid: pid }
}

impl Default for Stage {
    fn default() -> Self {
        let (ends, opened) = (HashMap::default(), HashMap::default());
        Self { interceptions: Interceptions::new(policy()), time: 0, told: Vec::new(), ends, opened }
    }
}

impl Stage {
    pub(super) fn happens(&mut self, cookie: u64, what: What<'_>) {
        self.time += MILLISECOND;
        let (connection, process) = self.ends[&cookie].clone();
        let (time, process) = (Timestamp(self.time), process.as_ref());
        let fact = Fact { time, connection: &connection, process, intercepted: false, what };
        self.interceptions.observe(&fact, &mut |fact| self.told.push(shown(fact)));
    }

    pub(super) fn end(&mut self, cookie: u64, role: Role, local: Endpoint, remote: Endpoint, who: (u32, u32)) {
        let id = format!("{cookie:x}").into();
        let connection = Connection { id, role, local, remote, netns: 1, cookie };
        self.ends.insert(cookie, (Arc::new(connection), Some(process(who))));
    }

    pub(super) fn connect(&mut self, cookie: u64, who: (u32, u32), remote: Endpoint) {
        self.connect_asking(cookie, who, remote, None);
    }

    pub(super) fn connect_asking(
        &mut self,
        cookie: u64,
        who: (u32, u32),
        remote: Endpoint,
        requested: Option<Endpoint>,
    ) {
        let address = if remote.address.is_loopback() { remote.address } else { HOST };
        let local = Endpoint { address, port: 40000 + (cookie % 10_000) as u16 };
        self.end(cookie, Role::Client, local, remote, who);
        self.happens(cookie, What::ConnectionOpened { requested });
        let (connection, process) = self.ends[&cookie].clone();
        self.opened
            .insert(cookie, Opened { connection, process, requested, local_route: false, time: Timestamp(self.time) });
    }

    /// The client's connection is there: it was accepted at this address.
    pub(super) fn reach(&mut self, client: u64, cookie: u64, at: Endpoint, transparent: bool) {
        self.time += MILLISECOND;
        let accepted = Accepted { cookie, local: at, time: Timestamp(self.time) };
        self.interceptions.meet(self.opened[&client].clone(), accepted, transparent, &[]);
    }

    /// The accepted socket is used for the first time.
    pub(super) fn serve(&mut self, cookie: u64, who: (u32, u32), at: Endpoint) {
        self.end(cookie, Role::Server, at, SERVER, who);
        self.happens(cookie, facts::opened());
    }

    pub(super) fn greet(&mut self, cookie: u64, text: &str) {
        self.happens(cookie, facts::greeting(text));
    }

    /// A command that was sent half a millisecond before, and its reply.
    pub(super) fn say(&mut self, cookie: u64, command: &str, code: u16, reply: &str) {
        self.say_after(cookie, command, code, reply, Duration::from_micros(500));
    }

    pub(super) fn say_after(&mut self, cookie: u64, command: &str, code: u16, reply: &str, latency: Duration) {
        self.happens(cookie, facts::command_after(command, code, reply, latency));
    }

    /// A message of this size, whose end was sent half a millisecond before its reply.
    pub(super) fn message(&mut self, cookie: u64, size: u64, code: u16, reply: &str) {
        self.happens(cookie, facts::message(size, code, reply, Duration::from_micros(500)));
    }

    /// An RSET of which its connection alone shows this reason.
    pub(super) fn rset_because(&mut self, cookie: u64, reason: RsetReason) {
        self.say(cookie, "RSET", 250, "Ok");
        self.time -= MILLISECOND;
        self.happens(cookie, facts::rset(reason));
    }

    /// The same of a NOOP.
    pub(super) fn noop_because(&mut self, cookie: u64, reason: NoopReason) {
        self.say(cookie, "NOOP", 250, "Ok");
        self.time -= MILLISECOND;
        self.happens(cookie, facts::noop(reason));
    }

    pub(super) fn rset(&mut self, cookie: u64) {
        self.rset_because(cookie, RsetReason::Ambiguous);
    }

    pub(super) fn noop(&mut self, cookie: u64) {
        self.noop_after(cookie, Duration::from_micros(500));
    }

    pub(super) fn noop_after(&mut self, cookie: u64, latency: Duration) {
        self.say_after(cookie, "NOOP", 250, "Ok", latency);
        self.time -= MILLISECOND;
        self.happens(cookie, facts::noop(NoopReason::Ambiguous));
    }

    pub(super) fn close(&mut self, cookie: u64) {
        self.happens(cookie, facts::closed());
    }

    /// It is over; its client had sent and received so many bytes.
    pub(super) fn close_with(&mut self, cookie: u64, bytes_sent: u64, bytes_received: u64) {
        let What::ConnectionClosed(closed) = facts::closed() else { unreachable!("the sample of an end") };
        self.happens(cookie, What::ConnectionClosed(ConnectionClosed { bytes_sent, bytes_received, ..closed }));
    }

    pub(super) fn pass(&mut self, seconds: i64) {
        self.time += seconds * 1000 * MILLISECOND;
        self.interceptions.settle(Timestamp(self.time), &mut |fact| self.told.push(shown(fact)));
    }

    pub(super) fn verdicts_of(&self, client: u64) -> Vec<&Interception> {
        let of = self.told.iter().filter(|told| told.connection.cookie == client);
        let of = of.filter_map(|told| match &told.event {
            Event::Interception(interception) => Some(&**interception),
            _ => None,
        });
        of.collect()
    }

    #[track_caller]
    pub(super) fn verdict(&self, client: u64) -> &Interception {
        self.verdicts_of(client).pop().expect("there is a verdict")
    }

    pub(super) fn rsets(&self) -> Vec<RsetReason> {
        let rset = |told: &Observation| match &told.event {
            Event::Rset(rset) => Some(rset.reason),
            _ => None,
        };
        self.told.iter().filter_map(rset).collect()
    }

    pub(super) fn noops(&self) -> Vec<NoopReason> {
        let noop = |told: &Observation| match &told.event {
            Event::Noop(noop) => Some(noop.reason),
            _ => None,
        };
        self.told.iter().filter_map(noop).collect()
    }

    /// A client whose connection ends in a proxy, and the proxy's own to the server.
    pub(super) fn redirected(client: u64, accepted: u64, upstream: u64) -> Self {
        let mut stage = Self::default();
        stage.redirect(client, accepted, upstream, SERVER);
        stage
    }

    pub(super) fn redirect(&mut self, client: u64, accepted: u64, upstream: u64, server: Endpoint) {
        self.connect(client, CLIENT, SERVER);
        self.reach(client, accepted, PROXY, false);
        self.connect(upstream, MIDDLE, server);
        self.greet(upstream, "mx ESMTP");
        self.serve(accepted, MIDDLE, PROXY);
        self.greet(client, "mx ESMTP");
    }

    /// Said by the client, passed on, and answered: the answer comes to the client last.
    pub(super) fn pass_on(&mut self, client: u64, upstream: u64, command: &str, code: u16, reply: &str) {
        self.say(upstream, command, code, reply);
        self.say_after(client, command, code, reply, Duration::from_millis(2));
    }

    /// Each of these clients' conversations was passed on unchanged by this connection, and was never taken for another.
    #[track_caller]
    pub(super) fn check_passed_on(&self, pairs: &[(u64, &str)]) {
        for (client, upstream) in pairs {
            let verdict = self.verdict(*client);
            assert_eq!(verdict.verdict, Verdict::TransparentL4, "{:?}", verdict.evidence);
            assert_eq!(verdict.upstream.as_ref().map(|upstream| &*upstream.connection_id), Some(*upstream));
            assert!(self.verdicts_of(*client).iter().all(|told| told.verdict != Verdict::TransparentInterceptor));
        }
    }
}
