//! Observations made by hand, for the sinks' tests.

use std::sync::Arc;
use std::time::Duration;

use crate::fact::evidence::{ReasonEvidence, SessionState};
use crate::fact::{Fact, What};
use crate::observation::{
    Caller, ClosedBy, Command, Connection, Data, Endpoint, Event, Greeting, InterceptedClient, Interception, Method,
    News, NoopReason, Observation, Outcome, Parent, Process, Reasoned, Role, RsetReason, Timestamp, Transaction,
    Upstream, Verdict,
};

/// 2026-11-23T17:04:05.123456789Z.
pub(crate) const TIME: Timestamp = Timestamp(1_795_453_445_123_456_789);

/// One end of a connection, with its process.
#[derive(Clone)]
pub(crate) struct Sample {
    connection: Arc<Connection>,
    process: Option<Caller>,
}

impl Sample {
    /// Postfix's smtpd, as server.
    pub(crate) fn server() -> Self {
        let connection = Connection {
            id: "b-2".into(),
            role: Role::Server,
            local: endpoint("192.0.2.25", 25),
            remote: endpoint("2001:db8::7", 40007),
            netns: 4_026_531_840,
            cookie: 0x1f3,
        };
        Self { connection: Arc::new(connection), process: None }.with_program(825, "/usr/lib/postfix/sbin/smtpd")
    }

    /// swaks, as client.
    pub(crate) fn client() -> Self {
        let connection = Connection {
            id: "b-1".into(),
            role: Role::Client,
            local: endpoint("198.51.100.4", 40004),
            remote: endpoint("192.0.2.25", 25),
            netns: 4_026_531_840,
            cookie: 0x1f3,
        };
        Self { connection: Arc::new(connection), process: None }.with_program(4711, "/usr/bin/perl")
    }

    pub(crate) fn with_program(self, pid: u32, executable: &str) -> Self {
        let name = executable.rsplit('/').next().unwrap_or(executable);
        let process = Process {
            pid,
            name: name.chars().take(15).collect::<String>().into(),
            executable: Some(executable.into()),
            script: None,
            command_line: Some(format!("{name} -n smtp").into()),
            uid: 101,
            user: Some("postfix".into()),
            parent: Some(Parent { pid: 700, name: "master".into() }),
            cgroup: Some("/system.slice/system-postfix.slice/postfix@-.service".into()),
            preload: None,
            container_id: None,
            systemd_unit: Some("postfix@-.service".into()),
        };
        Self { process: Some(Caller { process: Arc::new(process), tid: pid }), ..self }
    }

    /// The same by another user.
    pub(crate) fn of_user(self, uid: u32) -> Self {
        let of_user =
            |caller: Caller| Caller { process: Arc::new(Process { uid, ..Process::clone(&caller.process) }), ..caller };
        Self { process: self.process.map(of_user), ..self }
    }

    /// Another connection of the same kind.
    pub(crate) fn with_id(self, id: &str) -> Self {
        let connection = Connection { id: id.into(), ..Connection::clone(&self.connection) };
        Self { connection: Arc::new(connection), ..self }
    }

    /// The same between other ends.
    pub(crate) fn between(self, local: Endpoint, remote: Endpoint) -> Self {
        let connection = Connection { local, remote, ..Connection::clone(&self.connection) };
        Self { connection: Arc::new(connection), ..self }
    }

    /// The same, so much later.
    pub(crate) fn later(&self, event: Event, later: Duration) -> Observation {
        let observation = self.at(event);
        Observation { time: Timestamp(TIME.0 + later.as_nanos() as i64), ..observation }
    }

    pub(crate) fn without_process(self) -> Self {
        Self { process: None, ..self }
    }

    pub(crate) fn caller(&self) -> Caller {
        self.process.clone().expect("a process")
    }

    pub(crate) fn at(&self, event: Event) -> Observation {
        Observation {
            time: TIME,
            event,
            connection: Arc::clone(&self.connection),
            process: self.process.clone(),
            intercepted: false,
        }
    }

    /// A fact of it. What it borrows is never given back.
    pub(crate) fn fact(&self, what: What<'static>) -> Fact<'static> {
        let connection = Box::leak(Box::new(Arc::clone(&self.connection)));
        let process = self.process.clone().map(|process| &*Box::leak(Box::new(process)));
        Fact { time: TIME, connection, process, intercepted: false, what }
    }

    pub(crate) fn opened(&self) -> Observation {
        self.at(Event::ConnectionOpened { requested: None })
    }

    pub(crate) fn closed(&self) -> Observation {
        self.at(Event::ConnectionClosed {
            bytes_sent: 311,
            bytes_received: 2290,
            duration: Duration::from_millis(5500),
            lost_bytes: Some(0),
            greeting_bytes: None,
            closed_by: ClosedBy::Local,
            outstanding_count: Some(0),
            outstanding: Vec::new(),
        })
    }
}

pub(crate) fn endpoint(address: &str, port: u16) -> Endpoint {
    Endpoint { address: address.parse().expect("an address"), port }
}

pub(crate) fn greeting() -> Event {
    Event::Greeting(Greeting {
        code: 220,
        text: "mail.example ESMTP Postfix".into(),
        software: Some("Postfix"),
        latency: Some(Duration::from_millis(20)),
    })
}

pub(crate) fn command(verb: &str, code: u16) -> Event {
    Event::Command(Command {
        verb: verb.to_owned().into(),
        length: None,
        argument: Some("client.example".into()),
        code: Some(code),
        enhanced_code: None,
        reply: Some("mail.example\nPIPELINING\nSIZE 10240000".into()),
        latency: Some(Duration::from_millis(2)),
        pipelined: false,
    })
}

pub(crate) fn unanswered(verb: &str) -> Event {
    Event::Command(Command {
        verb: verb.to_owned().into(),
        length: None,
        argument: None,
        code: None,
        enhanced_code: None,
        reply: None,
        latency: None,
        pipelined: true,
    })
}

pub(crate) fn rset() -> Event {
    Event::Rset(Box::new(Reasoned {
        reason: RsetReason::RecipientsRejected,
        evidence: [
            ReasonEvidence::State(SessionState::Envelope { accepted: 0, rejected: 1, refused_last: true }),
            ReasonEvidence::LowerCase,
        ]
        .into(),
        latency: Some(Duration::from_millis(2)),
        code: Some(250),
    }))
}

pub(crate) fn ambiguous() -> Event {
    Event::Rset(Box::new(Reasoned {
        reason: RsetReason::Ambiguous,
        evidence: [
            ReasonEvidence::State(SessionState::Unknown),
            ReasonEvidence::PossibleRset([RsetReason::SessionStart, RsetReason::ReuseProbe].into()),
        ]
        .into(),
        latency: None,
        code: Some(250),
    }))
}

pub(crate) fn noop() -> Event {
    Event::Noop(Box::new(Reasoned {
        reason: NoopReason::IdleKeepalive,
        evidence: [ReasonEvidence::Idle(Duration::from_secs(28))].into(),
        latency: Some(Duration::from_millis(1)),
        code: Some(250),
    }))
}

pub(crate) fn data() -> Event {
    Event::Data(Data {
        verb: "DATA",
        go_ahead: Some(Duration::from_millis(250)),
        go_ahead_text: Some("End data with <CR><LF>.<CR><LF>".into()),
        transfer: Some(Duration::from_secs(4)),
        accept: Some(Duration::from_millis(500)),
        size_bytes: Some(2048),
        code: Some(250),
        reply: Some("2.0.0 Ok: queued as 4X1F0".into()),
        queue_id: Some("4X1F0".into()),
    })
}

pub(crate) fn delivered() -> Event {
    Event::Transaction(Transaction {
        outcome: Outcome::Delivered,
        sender: Some("<…@example.org>".into()),
        recipients_accepted: Some(1),
        recipients_rejected: Some(0),
        duration: Some(Duration::from_secs(5)),
    })
}

/// A program in the middle of a client's connection, and the connection that it goes on with.
pub(crate) fn found(client: &Sample, upstream: &Sample) -> Observation {
    let remote = endpoint("192.0.2.25", 25);
    client.at(Event::Interception(Box::new(Interception {
        verdict: Verdict::TransparentInterceptor,
        method: Method::Redirect,
        interceptor: Some(upstream.caller()),
        product: None,
        client: InterceptedClient {
            process: Some(client.caller()),
            connection_id: Arc::clone(&client.connection.id),
            requested: remote,
        },
        upstream: Some(Upstream {
            connection_id: Arc::clone(&upstream.connection.id),
            remote,
            source_preserved: false,
        }),
        confidence: 0.9,
        evidence: Vec::new(),
        hold: None,
        news: News::default(),
    })))
}
