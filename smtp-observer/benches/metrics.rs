//! The metrics under a hostile load: ten thousand programs that say whatever comes to their mind. A scrape must stay quick,
//! since nothing else is observed meanwhile; and so must the counting.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use smtp_observer::event::Time;
use smtp_observer::fact::{Fact, What};
use smtp_observer::observation::{Caller, Connection, Endpoint, Process, Role, Timestamp};
use smtp_observer::sink::metrics::{Format, Metrics};
use smtp_observer::smtp::{DecoderOutput, Exchange, Item, Message, Peer, Session};

/// How long a scrape may take.
const AIM: Duration = Duration::from_millis(50);

const NOW: Timestamp = Timestamp(1_795_453_445_000_000_000);

const VERBS: [&str; 9] = ["EHLO", "HELO", "MAIL", "RCPT", "RSET", "NOOP", "VRFY", "EXPN", "HELP"];

/// One end of a connection, with its process.
struct End {
    connection: Arc<Connection>,
    process: Caller,
}

impl End {
    fn of(program: u32) -> Self {
        let name: Arc<str> = format!("{program}-a-program-with-a-long-name").into();
        let process =
            Process { pid: program, executable: Some(format!("/tmp/{name}").into()), name, ..Process::default() };
        let end = Endpoint { address: [192, 0, 2, 25].into(), port: 25 };
        let role = if program.is_multiple_of(2) { Role::Client } else { Role::Server };
        let id = format!("b-{program}").into();
        let connection = Connection { id, role, local: end, remote: end, netns: 1, cookie: program.into() };
        Self { connection: Arc::new(connection), process: Caller { process: Arc::new(process), tid: program } }
    }

    fn fact<'a>(&'a self, what: What<'a>) -> Fact<'a> {
        Fact { time: NOW, connection: &self.connection, process: Some(&self.process), intercepted: false, what }
    }
}

/// What a server's connection shows: one exchange for each verb and code, and a message.
fn said() -> (Vec<Exchange>, Message) {
    let (mut session, mut items) = (Session::new(), DecoderOutput::default());
    let mut say = |peer, text: &str| session.receive(peer, Time(1_000_000), text.as_bytes(), &mut items);
    say(Peer::Server, "220 mx.example\r\n");
    for verb in VERBS {
        for code in [250, 354, 450, 550] {
            say(Peer::Client, &format!("{verb} x\r\n"));
            say(Peer::Server, &format!("{code} x\r\n"));
        }
    }
    say(Peer::Client, "DATA\r\n");
    say(Peer::Server, "354 go\r\n");
    say(Peer::Client, ".\r\n");
    say(Peer::Server, "250 taken\r\n");
    let (mut exchanges, mut message) = (Vec::new(), None);
    for item in items.iter() {
        match item {
            Item::Exchange(exchange) => exchanges.push(exchange.clone()),
            Item::Message(one) => message = Some((**one).clone()),
            _ => {}
        }
    }
    (exchanges, message.expect("a message"))
}

fn hostile() -> Metrics {
    let mut metrics = Metrics::new("tracepoint").expect("valid definitions");
    let (exchanges, message) = said();
    for program in 0..10_000 {
        let end = End::of(program);
        metrics.observe(&end.fact(What::ConnectionOpened { requested: None }));
        exchanges.iter().for_each(|exchange| metrics.observe(&end.fact(What::Command(exchange))));
        metrics.observe(&end.fact(What::Data(&message)));
    }
    metrics
}

fn scrapes(criterion: &mut Criterion) {
    let mut metrics = hostile();
    for format in [Format::Text, Format::OpenMetrics] {
        let mut scrape = || metrics.text(format, NOW).expect("encodes").len();
        let mut times: Vec<_> = (0..31)
            .map(|_| {
                let begin = Instant::now();
                black_box(scrape());
                begin.elapsed()
            })
            .collect();
        times.sort_unstable();
        assert!(times[15] < AIM, "a scrape takes {:?}", times[15]);
        let mut group = criterion.benchmark_group("scrape");
        group.throughput(Throughput::Bytes(scrape() as u64));
        group.bench_function(format!("{format:?}"), |bencher| bencher.iter(&mut scrape));
        group.finish();
    }
}

fn counting(criterion: &mut Criterion) {
    let (mut metrics, (exchanges, _)) = (hostile(), said());
    let mut group = criterion.benchmark_group("count");
    group.throughput(Throughput::Elements(1));
    for (name, program) in [("command_of_a_known_program", 1), ("command_of_another", 9_999)] {
        let end = End::of(program);
        let fact = end.fact(What::Command(&exchanges[0]));
        group.bench_function(name, |bencher| bencher.iter(|| metrics.observe(black_box(&fact))));
    }
    group.finish();
}

criterion_group!(benches, scrapes, counting);
criterion_main!(benches);
