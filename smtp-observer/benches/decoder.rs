//! The decoder on one core: commands and their replies, and the content of messages; beside smtp-proto, the parser of a
//! mail server, on the same text.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use smtp_observer::event::Time;
use smtp_observer::smtp::{DecoderOutput, Peer, Session};
use smtp_proto::request::receiver::{DataReceiver, DummyDataReceiver};
use smtp_proto::response::parser::ResponseReceiver;
use smtp_proto::{Request, Response};

/// Commands in a write.
const GROUP: usize = 100;

/// A group of commands, and the replies to it: nothing but NOOP, and deliveries up to the content.
const DIALOGUES: [(&str, &[(&str, &str)]); 2] = [
    ("noop", &[("NOOP\r\n", "250 2.0.0 Ok\r\n")]),
    (
        "envelopes",
        &[
            ("MAIL FROM:<alice@client.example> SIZE=4711\r\n", "250 2.1.0 Ok\r\n"),
            ("RCPT TO:<bob@server.example>\r\n", "250 2.1.5 Ok\r\n"),
            ("RCPT TO:<carol@server.example>\r\n", "550 5.1.1 <carol@server.example>: unknown\r\n"),
            ("RSET\r\n", "250 2.0.0 Ok\r\n"),
        ],
    ),
];

/// Content of a message, as a call of a mail client moves it.
const PIECE: usize = 64 * 1024;

/// A session that has been greeted.
fn session(items: &mut DecoderOutput) -> Session {
    let mut session = Session::new();
    session.receive(Peer::Server, Time(1), b"220 mx.example ESMTP\r\n", items);
    session.receive(Peer::Client, Time(1), b"EHLO client.example\r\n", items);
    session.receive(Peer::Server, Time(1), b"250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n", items);
    session
}

fn commands(criterion: &mut Criterion) {
    for (name, pairs) in DIALOGUES {
        let client: String = pairs.iter().cycle().take(GROUP).map(|(command, _)| *command).collect();
        let server: String = pairs.iter().cycle().take(GROUP).map(|(_, reply)| *reply).collect();
        let mut group = criterion.benchmark_group(format!("pipelined_{name}"));
        group.throughput(Throughput::Elements(GROUP as u64));
        group.bench_function("session", |bencher| {
            let mut items = DecoderOutput::default();
            let mut session = session(&mut items);
            bencher.iter(|| {
                session.receive(Peer::Client, Time(2), black_box(client.as_bytes()), &mut items);
                session.receive(Peer::Server, Time(3), black_box(server.as_bytes()), &mut items);
                let told = items.len();
                items.clear();
                told
            });
        });
        group.bench_function("smtp_proto", |bencher| {
            bencher.iter(|| {
                let (mut requests, mut replies) =
                    (black_box(client.as_bytes()).iter(), black_box(server.as_bytes()).iter());
                let mut told = 0;
                while let Ok(request) = Request::parse(&mut requests) {
                    black_box(&request);
                    told += 1;
                }
                let mut receiver = ResponseReceiver::default();
                while let Ok(reply) = receiver.parse(&mut replies) {
                    let _: &Response<String> = black_box(&reply);
                    receiver.reset();
                    told += 1;
                }
                assert_eq!(told, 2 * GROUP);
                told
            });
        });
        group.finish();
    }
}

/// Lines of text with a stuffed dot now and then, and lines of base64.
fn contents() -> [(&'static str, Vec<u8>); 2] {
    let text = "The quick brown fox jumps over the lazy dog, again and again. So it goes.\r\n..and on\r\n";
    let base64 = "VGhlIHF1aWNrIGJyb3duIGZveCBqdW1wcyBvdmVyIHRoZSBsYXp5IGRvZywgYWdhaW4gYW5kIGFn\r\n";
    [("text", text), ("base64", base64)].map(|(name, line)| (name, line.bytes().cycle().take(PIECE).collect()))
}

fn content(criterion: &mut Criterion) {
    for (name, content) in contents() {
        let mut group = criterion.benchmark_group(format!("content_{name}"));
        group.throughput(Throughput::Bytes(PIECE as u64));
        group.bench_function("session", |bencher| {
            let mut items = DecoderOutput::default();
            let mut session = session(&mut items);
            session.receive(Peer::Client, Time(1), b"DATA\r\n", &mut items);
            session.receive(Peer::Server, Time(1), b"354 go\r\n", &mut items);
            bencher.iter(|| session.receive(Peer::Client, Time(2), black_box(&content), &mut items));
        });
        group.bench_function("smtp_proto", |bencher| {
            let mut receiver = DummyDataReceiver::new_data(&DataReceiver::new());
            bencher.iter(|| receiver.ingest(&mut black_box(&content).iter()));
        });
        group.finish();
    }
}

criterion_group!(benches, commands, content);
criterion_main!(benches);
