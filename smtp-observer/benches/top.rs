//! What drawing the live table costs with as many connections as it lists: it is drawn four times a second at most, and
//! no event is taken meanwhile.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use crossterm::event::{KeyCode, KeyEvent};
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use smtp_observer::fact::evidence::EvidenceList;
use smtp_observer::observation::{
    Caller, Connection, Endpoint, Event, Observation, Process, Reasoned, Role, RsetReason, Timestamp,
};
use smtp_observer::sink::connection_table::{ConnectionTable, MAX_ROWS};
use smtp_observer::sink::top::{Moment, TRANSCRIPT, Theme, View};

/// Connections: as many as an ordinary host has, and as many as are listed.
const CONNECTIONS: [usize; 2] = [100, MAX_ROWS];

/// The keys before the drawing that is measured, with their name.
const KEYS: [(&str, &str); 3] = [("sorted_by_verdict", ""), ("sorted_by_bytes", "B"), ("filtered", "/192.0.2.25")];

fn observation(number: u32, event: Event) -> Observation {
    let endpoint = |address: u32, port| Endpoint { address: Ipv4Addr::from(address).into(), port };
    let process = Process {
        pid: 1000 + number,
        name: "program".into(),
        executable: Some(format!("/usr/sbin/program-{}", number % 100).into()),
        uid: 101,
        user: Some("postfix".into()),
        ..Process::default()
    };
    let connection = Connection {
        id: format!("boot-{number}").into(),
        role: Role::Client,
        // In no order.
        local: endpoint(0x0a00_0000 | (number.wrapping_mul(2_654_435_761) >> 8), 40_000),
        remote: endpoint(0xc000_0219, 25),
        netns: 1,
        cookie: number.into(),
    };
    Observation {
        time: Timestamp(i64::from(number)),
        event,
        connection: Arc::new(connection),
        process: Some(Caller { process: Arc::new(process), tid: 1 }),
        intercepted: false,
    }
}

fn table(connections: usize) -> ConnectionTable {
    let mut table = ConnectionTable::with_transcripts(TRANSCRIPT);
    for number in 0..connections as u32 {
        table.take(observation(number, Event::ConnectionOpened { requested: None }));
        let reason = RsetReason::ALL[number as usize % RsetReason::ALL.len()];
        let latency = Some(Duration::from_millis(1));
        table.take(observation(
            number,
            Event::Rset(Box::new(Reasoned { reason, evidence: EvidenceList::default(), latency, code: Some(250) })),
        ));
    }
    table
}

fn drawing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("top");
    for connections in CONNECTIONS {
        let table = table(connections);
        let bytes = |connection: &Connection| Some((connection.cookie * 7919 % 1000, 1));
        let moment = Moment { time: Timestamp(1_000_000), table: &table, bytes: &bytes, lost: 0 };
        for (name, keys) in KEYS {
            let mut view = View::new("port 25".into(), Theme { colour: true }, TimeZone::UTC);
            for key in keys.chars() {
                view.key(KeyEvent::from(KeyCode::Char(key)), &moment);
            }
            let mut terminal = Terminal::new(TestBackend::new(200, 60)).expect("a terminal in memory");
            group.bench_function(BenchmarkId::new(name, connections), |bencher| {
                bencher.iter(|| terminal.draw(|frame| view.draw(&moment, frame)).map(drop));
            });
        }
        group.bench_function(BenchmarkId::new("stopped", connections), |bencher| bencher.iter(|| table.still(&bytes)));
    }
    group.finish();
}

criterion_group!(benches, drawing);
criterion_main!(benches);
