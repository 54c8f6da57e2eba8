//! The metrics under a hostile load: ten thousand programs that say whatever comes to their mind. A scrape must stay quick,
//! since nothing else is observed meanwhile; and so must the counting.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use smtp_observer::face::metrics::{Format, Metrics};
use smtp_observer::observation::{
    Caller, Command, Connection, Data, Endpoint, Event, Observation, Process, Role, Timestamp,
};

/// How long a scrape may take.
const AIM: Duration = Duration::from_millis(50);

const NOW: Timestamp = Timestamp(1_795_453_445_000_000_000);

const VERBS: [&str; 10] = ["EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT", "VRFY", "AUTH"];

fn observation(program: u32, event: Event) -> Observation {
    let name: Arc<str> = format!("{program}-a-program-with-a-long-name").into();
    let process = Process {
        pid: program,
        executable: Some(format!("/tmp/{name}").into()),
        name,
        command_line: None,
        uid: 0,
        user: None,
        parent: None,
        preload: None,
        cgroup: None,
        container_id: None,
        systemd_unit: None,
    };
    let end = Endpoint { address: [192, 0, 2, 25].into(), port: 25 };
    let role = if program.is_multiple_of(2) { Role::Client } else { Role::Server };
    let id = format!("b-{program}").into();
    let connection = Connection { id, role, local: end, remote: end, netns: 1, cookie: program.into() };
    Observation {
        time: NOW,
        event,
        connection: Arc::new(connection),
        process: Some(Caller { process: Arc::new(process), tid: program }),
        intercepted: false,
    }
}

fn command(verb: &str, code: u16) -> Event {
    Event::Command(Command {
        length: None,
        verb: verb.into(),
        argument: None,
        code: Some(code),
        enhanced_code: None,
        reply: None,
        latency: Some(Duration::from_millis(2)),
        pipelined: false,
        mailbox: None,
    })
}

fn hostile() -> Metrics {
    let mut metrics = Metrics::new("tracepoint").expect("valid definitions");
    let second = Some(Duration::from_secs(1));
    for program in 0..10_000 {
        metrics.observe(&observation(program, Event::ConnectionOpened { requested: None }));
        for verb in VERBS.iter().copied().chain([&*program.to_string()]) {
            metrics.observe(&observation(program, command(verb, 200 + 100 * (program as u16 / 2 % 4))));
        }
        let data = Data {
            verb: "DATA",
            go_ahead: second,
            go_ahead_text: None,
            transfer: second,
            accept: second,
            size_bytes: Some(1),
            code: Some(250),
            reply: None,
        };
        metrics.observe(&observation(program, Event::Data(data)));
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
    let mut metrics = hostile();
    let mut group = criterion.benchmark_group("count");
    group.throughput(Throughput::Elements(1));
    for (name, program) in [("command_of_a_known_program", 1), ("command_of_another", 9_999)] {
        let observation = observation(program, command("RCPT", 250));
        group.bench_function(name, |bencher| bencher.iter(|| metrics.observe(black_box(&observation))));
    }
    group.finish();
}

criterion_group!(benches, scrapes, counting);
criterion_main!(benches);
