//! The filter of the dialogue on the host: a command, a reply, and a thousand bytes of content, each in a call of its own.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use smtp_ebpf::protocol::{Call, Crossing, Dialogue, HOLD, Speaker, Work, pass_quickly, step};

/// Who says something.
type Said = (Speaker, &'static str);

/// What is said behind the greeting, and behind what.
const CALLS: [(&str, &[Said], Said); 4] = [
    ("command", &[], (Speaker::Client, "MAIL FROM:<alice@client.example> SIZE=4711 BODY=8BITMIME\r\n")),
    ("secret", &[], (Speaker::Client, "AGFsaWNlQGNsaWVudC5leGFtcGxlAGNvcnJlY3QgaG9yc2UgYmF0dGVyeQ\r\n")),
    ("reply", &[(Speaker::Client, "NOOP\r\n")], (Speaker::Server, "250 2.1.5 Ok\r\n")),
    ("content", &[(Speaker::Client, "DATA\r\n"), (Speaker::Server, "354 go\r\n")], (Speaker::Client, "")),
];

/// Lines of 78 characters, up to a thousand bytes.
fn content() -> String {
    let line = format!("{}\r\n", "Lorem ipsum dolor sit. ".repeat(4).split_at(78).0);
    line.repeat(13).split_at(1000).0.to_owned()
}

fn says(dialogue: &mut Dialogue, work: &mut Work, start: u32, speaker: Speaker, bytes: &[u8]) -> Crossing {
    let call = Call { speaker, time: 1, start, length: bytes.len() as u32, positions: true, behind: false };
    work.bytes[HOLD..HOLD + bytes.len()].copy_from_slice(bytes);
    // SAFETY: both are references of their own.
    unsafe { if pass_quickly(dialogue, work, &call) { Crossing::Whole } else { step(dialogue, work, call) } }
}

fn filter(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("filter");
    let content = content();
    for (name, before, (speaker, said)) in CALLS {
        let said = if said.is_empty() { content.as_bytes() } else { said.as_bytes() };
        let (mut begun, mut work) = (Dialogue::beginning(), Work::EMPTY);
        let mut positions = [0, 0];
        let beginning = [
            (Speaker::Server, "220 mx.example ESMTP\r\n"),
            (Speaker::Client, "NOOP\r\n"),
            (Speaker::Server, "250 ok\r\n"),
        ];
        for (speaker, said) in beginning.iter().chain(before) {
            let position = &mut positions[*speaker as usize];
            says(&mut begun, &mut work, *position, *speaker, said.as_bytes());
            *position += said.len() as u32;
        }
        let start = positions[speaker as usize];
        group.throughput(Throughput::Bytes(said.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut dialogue = black_box(begun);
                says(&mut dialogue, &mut work, start, speaker, black_box(said))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, filter);
criterion_main!(benches);
