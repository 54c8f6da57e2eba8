//! A conversation through a proxy, from its first packet to its last: three sockets, paired and compared. However many
//! others are open, it must cost the same.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use smtp_observer::event::{
    Flow, KernelEvent, ProcessKey, Said, SeqNumbers, Socket, StateEvent, Task, TcpState, Time, TransferEvent,
};
use smtp_observer::fact::What;
use smtp_observer::observation::Verdict;
use smtp_observer::observer::Observer;
use smtp_observer::redact::{Addresses, RedactionPolicy};

/// Sockets that are open beside the conversation that is measured: three each.
const OPEN: [u64; 2] = [30, 50_000];

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 25)), 25);
const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10025);

const DIALOGUE: [(&str, &str); 3] =
    [("EHLO client.example", "250 mx.example"), ("RCPT TO:<bob@server.example>", "250 Ok"), ("QUIT", "221 Bye")];

/// Conversations that one process passes on.
struct Host {
    observer: Observer,
    time: u64,
    begun: u64,
    /// Verdicts that everything passes as it came.
    found: u64,
}

fn task(pid: u32) -> Task {
    let process = ProcessKey { pid, start_time: Time(1), exec_id: 1 };
    Task { process, tid: pid, uid: 0, user: None, comm: "program".into() }
}

fn address(number: u64) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0a00_0000 | (number >> 8) as u32), 1024 + (number & 0xff) as u16))
}

impl Host {
    fn event(&mut self, event: KernelEvent) {
        let found = &mut self.found;
        self.observer.event(event, &mut |fact| {
            if let What::Interception(interception) = fact.what
                && interception.verdict == Verdict::TransparentL4
            {
                *found += 1;
            }
        });
    }

    fn state(&mut self, socket: Socket, new: TcpState, pid: Option<u32>, peer: Option<u64>) {
        self.time += 1000;
        self.event(KernelEvent::State(StateEvent {
            time: Time(self.time),
            task: pid.map(task),
            socket,
            positions: SeqNumbers { write_seq: 0, copied_seq: 0 },
            new,
            requested: None,
            peer,
            transparent: false,
            local_route: false,
            error: 0,
            unread: 0,
        }));
    }

    fn moves(&mut self, socket: Socket, pid: u32, flow: Flow, text: &str) {
        self.time += 1000;
        let text = format!("{text}\r\n");
        self.event(KernelEvent::Transfer(TransferEvent {
            time: Time(self.time),
            task: task(pid),
            socket: Socket { state: TcpState::Established, ..socket },
            positions: SeqNumbers { write_seq: 0, copied_seq: 0 },
            flow,
            length: text.len() as u32,
            continues: false,
            tls: Default::default(),
            said: Said::text(text.as_bytes()),
        }));
    }

    /// The sockets of the next conversation, each with its process: the client's, the accepted one, the proxy's own.
    fn begin(&mut self) -> [(Socket, u32); 3] {
        let number = self.begun;
        self.begun += 1;
        let socket = |place: u64, local: SocketAddr, remote: SocketAddr| Socket {
            cookie: number * 3 + place,
            netns: 1,
            local,
            remote,
            state: TcpState::Close,
            seq_unreliable: true,
        };
        let client = socket(1, address(number), SERVER);
        let accepted = Socket { state: TcpState::SynReceived, ..socket(2, PROXY, address(number)) };
        let upstream = socket(3, address(number + (1 << 22)), SERVER);
        let (who, proxy) = (1000 + (number % 1000) as u32, 7);
        self.state(client, TcpState::SynSent, Some(who), None);
        self.state(Socket { state: TcpState::SynSent, ..client }, TcpState::Established, None, None);
        self.state(accepted, TcpState::Established, None, Some(client.cookie));
        self.state(upstream, TcpState::SynSent, Some(proxy), None);
        self.state(Socket { state: TcpState::SynSent, ..upstream }, TcpState::Established, None, None);
        let sockets = [(client, who), (accepted, proxy), (upstream, proxy)];
        self.reply(&sockets, "220 mx.example ESMTP");
        sockets
    }

    fn reply(&mut self, [client, accepted, upstream]: &[(Socket, u32); 3], text: &str) {
        self.moves(upstream.0, upstream.1, Flow::Received, text);
        self.moves(accepted.0, accepted.1, Flow::Sent, text);
        self.moves(client.0, client.1, Flow::Received, text);
    }

    fn say(&mut self, sockets: &[(Socket, u32); 3], command: &str, reply: &str) {
        let [client, accepted, upstream] = sockets;
        self.moves(client.0, client.1, Flow::Sent, command);
        self.moves(accepted.0, accepted.1, Flow::Received, command);
        self.moves(upstream.0, upstream.1, Flow::Sent, command);
        self.reply(sockets, reply);
    }

    fn talk(&mut self, sockets: &[(Socket, u32); 3]) {
        let sender = format!("MAIL FROM:<sender-{}@client.example>", self.begun);
        self.say(sockets, &sender, "250 Ok");
        for (command, reply) in DIALOGUE {
            self.say(sockets, command, reply);
        }
    }

    fn end(&mut self, sockets: [(Socket, u32); 3]) {
        for (socket, _) in sockets {
            self.state(Socket { state: TcpState::LastAck, ..socket }, TcpState::Close, None, None);
        }
    }
}

fn conversations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("conversation_through_a_proxy");
    group.throughput(Throughput::Elements(1));
    for open in OPEN {
        let mut host = Host {
            observer: Observer::new(&[25], RedactionPolicy::new(Addresses::Domain)),
            time: 0,
            begun: 0,
            found: 0,
        };
        for _ in 0..open / 3 {
            let sockets = host.begin();
            host.say(&sockets, "EHLO client.example", "250 mx.example");
        }
        group.bench_function(BenchmarkId::new("open_sockets", open), |bencher| {
            bencher.iter(|| {
                let sockets = host.begin();
                host.talk(&sockets);
                host.end(sockets);
                // What is over is remembered for a while.
                host.time += Duration::from_millis(10).as_nanos() as u64;
            });
        });
        assert!(host.found + 1 >= host.begun, "{} of {} conversations were seen through", host.found, host.begun);
    }
    group.finish();
}

criterion_group!(benches, conversations);
criterion_main!(benches);
