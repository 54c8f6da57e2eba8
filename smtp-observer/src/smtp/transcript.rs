//! Dialogues written down, for tests.
//!
//! A line `C: text` is sent by the client and `S: text` by the server, each ended by CR LF; with `C|` or `S|` nothing is
//! added. Lines of one peer in a row travel in one write, `--` alone starts another. `C gap 100` are bytes that were not
//! seen, `C content 100` bytes that were left out because they are content, `C withheld 20` a line that stayed in the
//! kernel, with CR LF at its end, and `C withheld| 20` one without its end. `\r`, `\n`, `\0` and `\xNN` stand for bytes.

use super::{DecoderOutput, Exchange, Item, Message, Peer, Session};
use crate::event::{LineEnd, Segment, Time, Withheld};

/// What reaches a session.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Bytes(Peer, Vec<u8>),
    Gap(Peer, u64),
    Content(Peer, u64),
    Withheld(Peer, Withheld),
}

/// Reads a transcript.
pub(crate) fn steps(transcript: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut apart = true;
    for line in transcript.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
        if line == "--" {
            apart = true;
            continue;
        }
        let peer = if line.starts_with('C') { Peer::Client } else { Peer::Server };
        let (kind, text) = (line.as_bytes()[1], line.get(3..).unwrap_or_default());
        if let Some(length) = line[1..].strip_prefix(" gap ") {
            steps.push(Step::Gap(peer, length.parse().expect("a number")));
            continue;
        }
        let mut bytes = unescape(text);
        if kind == b':' {
            bytes.extend(b"\r\n");
        }
        if let Some(length) = line[1..].strip_prefix(" content ") {
            steps.push(Step::Content(peer, length.parse().expect("a number")));
            continue;
        }
        if let Some(line) = line[1..].strip_prefix(" withheld") {
            let (end, length) = match line.strip_prefix('|') {
                Some(length) => (LineEnd::None, length),
                None => (LineEnd::Crlf, line),
            };
            let length = length.trim().parse().expect("a number");
            steps.push(Step::Withheld(peer, Withheld { length, end, nul: false, bare_cr: false }));
            continue;
        }
        match steps.last_mut() {
            Some(Step::Bytes(last, sent)) if *last == peer && !apart => sent.extend(bytes),
            _ => steps.push(Step::Bytes(peer, bytes)),
        }
        apart = false;
    }
    steps
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut characters = text.as_bytes().iter().copied();
    while let Some(byte) = characters.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match characters.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b'0') => b'\0',
            Some(b'x') => {
                let digits: Vec<u8> = characters.by_ref().take(2).collect();
                let digits = str::from_utf8(&digits).expect("two digits");
                u8::from_str_radix(digits, 16).expect("two hexadecimal digits")
            }
            other => panic!("the transcript has the unknown escape {other:?}"),
        });
    }
    bytes
}

/// The items of a dialogue, each step a second after the one before, from second 1 on.
pub(crate) fn items(mut session: Session, steps: &[Step]) -> Vec<Item> {
    let mut items = DecoderOutput::default();
    let mut seconds = 0;
    for step in steps {
        seconds += 1;
        feed(&mut session, Time(seconds * 1_000_000_000), step, &mut items);
    }
    session.finish(Time((seconds + 1) * 1_000_000_000), &mut items);
    // Its anomaly tells of it.
    let is_told = |item: &&Item| !matches!(item, Item::Lost(_) | Item::Reversed);
    items.iter().filter(is_told).cloned().collect()
}

/// The same without times: each piece of at most `size` bytes in a call of its own.
pub(crate) fn items_in_pieces(mut session: Session, steps: &[Step], size: usize) -> Vec<Item> {
    let mut items = DecoderOutput::default();
    for step in steps {
        match step {
            Step::Bytes(peer, bytes) => {
                bytes.chunks(size).for_each(|piece| session.receive(*peer, Time(1), piece, &mut items));
            }
            gap => feed(&mut session, Time(1), gap, &mut items),
        }
    }
    session.finish(Time(1), &mut items);
    items.to_vec()
}

pub(crate) fn feed(session: &mut Session, time: Time, step: &Step, items: &mut DecoderOutput) {
    match step {
        Step::Bytes(peer, bytes) => session.receive(*peer, time, bytes, items),
        Step::Gap(peer, length) => session.gap(*peer, time, *length, items),
        Step::Content(peer, length) => session.content(*peer, time, *length, items),
        Step::Withheld(peer, withheld) => {
            session.begin_call(*peer);
            session.segment(*peer, time, None, Segment::Withheld(*withheld), items);
        }
    }
}

/// An item on a line: `greeting 220 text`, `NOOP x -> 250 text`, `message DATA 12 -> 250`, `tls started`, `! kind`. A
/// pipelined command has a `~` before it; without a reply, nothing follows the arrow.
pub(crate) fn line(item: &Item) -> String {
    let shown = |size: &Option<u64>| size.map_or_else(|| "?".to_owned(), |size| size.to_string());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\n', "|");
    match item {
        Item::Greeting(reply) => format!("greeting {} {}", reply.code, text(&reply.text)),
        Item::Exchange(Exchange { command, reply }) => {
            let early = if command.pipelined { "~" } else { "" };
            match reply {
                Some(reply) => format!("{early}{} -> {} {}", text(&command.line), reply.code, text(&reply.text)),
                None => format!("{early}{} ->", text(&command.line)),
            }
        }
        Item::Message(message) => {
            let Message { transfer, size, reply, .. } = &**message;
            match reply {
                Some(reply) => format!("message {} {} -> {}", transfer.as_str(), shown(size), reply.code),
                None => format!("message {} {} ->", transfer.as_str(), shown(size)),
            }
        }
        Item::Tls(_, tls) => format!("tls {}", tls.phase().as_str()),
        Item::Lost(_) => "lost".into(),
        Item::Reversed => "reversed".into(),
        Item::Anomaly(anomaly) => format!("! {}", anomaly.kind.as_str()),
    }
}

/// The lines of a dialogue's items, checked to be the same in pieces of every size.
pub(crate) fn lines(session: impl Fn() -> Session, transcript: &str) -> Vec<String> {
    let steps = steps(transcript);
    let whole = items_in_pieces(session(), &steps, usize::MAX);
    for size in 1..20 {
        assert_eq!(items_in_pieces(session(), &steps, size), whole, "in pieces of {size}");
    }
    items(session(), &steps).iter().map(line).collect()
}
