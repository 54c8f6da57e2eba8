//! What the table of the status page costs `run` for each observation while nobody looks: the difference between an
//! observation that is kept and one that is only made.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use smtp_observer::observation::{Caller, Command, Connection, Event, Observation, Process, Role, Timestamp};
use smtp_observer::sink::connection_table::ConnectionTable;

/// Connections that are open, and say something in turn.
const OPEN: [u32; 2] = [10, 10_000];

/// What `run` keeps of each connection.
const TRANSCRIPT: usize = 32;

fn observation(number: u32, event: Event) -> Observation {
    let endpoint = |address: &str, port| smtp_observer::observation::Endpoint {
        address: address.parse().expect("an address"),
        port,
    };
    let connection = Connection {
        id: format!("b-{number:x}").into(),
        role: Role::Client,
        local: endpoint("198.51.100.4", 40_000),
        remote: endpoint("192.0.2.25", 25),
        netns: 4_026_531_840,
        cookie: number.into(),
    };
    let process = Process {
        pid: 4711,
        name: "smtp".into(),
        executable: Some("/usr/lib/postfix/sbin/smtp".into()),
        command_line: Some("smtp -n smtp -t unix -u -c".into()),
        uid: 101,
        user: Some("postfix".into()),
        ..Process::default()
    };
    Observation {
        time: Timestamp(1),
        event,
        connection: Arc::new(connection),
        process: Some(Caller { process: Arc::new(process), tid: 4711 }),
        intercepted: false,
    }
}

fn command(number: u32) -> Observation {
    let command = Command {
        length: None,
        verb: "RCPT".into(),
        argument: Some("TO:<*@server.example>".into()),
        code: Some(250),
        enhanced_code: Some("2.1.5".into()),
        reply: Some("2.1.5 Ok".into()),
        latency: Some(Duration::from_millis(2)),
        pipelined: false,
    };
    observation(number, Event::Command(command))
}

fn table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    for open in OPEN {
        let commands: Vec<_> = (0..open).map(command).collect();
        let mut turn = commands.iter().cycle();
        let mut next = || turn.next().expect("it has no end").clone();
        group.bench_function(BenchmarkId::new("made", open), |bencher| bencher.iter(|| black_box(next())));
        let mut table = ConnectionTable::with_transcripts(TRANSCRIPT);
        for number in 0..open {
            table.take(observation(number, Event::ConnectionOpened { requested: None }));
        }
        group.bench_function(BenchmarkId::new("made and kept", open), |bencher| {
            bencher.iter(|| table.take(black_box(next())));
        });
    }
    group.finish();
}

criterion_group!(benches, table);
criterion_main!(benches);
