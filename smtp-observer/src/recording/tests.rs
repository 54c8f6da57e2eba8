use std::io::Cursor;
use std::net::{Ipv6Addr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::event::{
    CaptureMiss, Flow, Host, LineEnd, OpenSocket, ProcessEvent, ProcessKey, Said, Segment, SeqNumbers, Snapshot,
    Socket, StateEvent, Task, TcpState, TransferEvent, Uncaptured, Withheld,
};
use crate::redact::RedactionPolicy;

fn task() -> Task {
    let process = ProcessKey { pid: 10, start_time: Time(1), exec_id: 1 };
    Task { process, tid: 10, uid: 0, user: Some("root".into()), comm: "program".into() }
}

/// One of each kind, with all that an event can have.
fn entries() -> Vec<Entry> {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 25));
    let state = TcpState::Other(99);
    let socket = Socket { cookie: u64::MAX, netns: 7, local: address, remote: address, state, seq_unreliable: true };
    let positions = SeqNumbers { write_seq: u32::MAX, copied_seq: 0 };
    let process = ProcessEvent {
        time: Time(3),
        task: task(),
        executable: Some("/usr/bin/\u{1b}[31m".into()),
        arguments: vec!["a \"b\"".into(), "\n".into()],
        cgroup: Some("/".into()),
        preload: Some("/opt/hook.so".into()),
        parent_pid: 1,
        parent_comm: "".into(),
    };
    let open = OpenSocket { time: Time(4), task: task(), socket, positions };
    let state = StateEvent {
        time: Time(5),
        task: Some(task()),
        socket,
        positions,
        new: TcpState::SynSent,
        requested: Some(address),
        peer: Some(7),
        transparent: true,
        local_route: true,
        error: 104,
        unread: 9,
    };
    let transfer = TransferEvent {
        time: Time(6),
        task: task(),
        socket,
        positions,
        flow: Flow::Sent,
        length: 1000,
        continues: true,
        tls: Default::default(),
        said: Said::of([
            Segment::Begun(Time(5)),
            Segment::Text(&Vec::from_iter(0..=255)),
            Segment::Withheld(Withheld { length: 20, end: LineEnd::Crlf, nul: true, bare_cr: true }),
            Segment::Content(9),
            Segment::Uncaptured(Uncaptured { cause: CaptureMiss::Uncertain, length: 7, lines: 1 }),
            Segment::Ciphertext(5),
        ]),
    };
    let bare = TransferEvent { continues: false, said: Said::default(), ..transfer.clone() };
    vec![
        Entry::Event(KernelEvent::Host(Host {
            unix_offset: i64::MIN,
            boot_id: "0123".into(),
            netns: Some(7),
            addresses: vec![address.ip()],
        })),
        Entry::Event(KernelEvent::Process(process.clone())),
        Entry::Event(KernelEvent::Snapshot(Snapshot {
            time: Time(4),
            processes: vec![process],
            sockets: vec![open],
            partial: true,
        })),
        Entry::Event(KernelEvent::State(state.clone())),
        Entry::Event(KernelEvent::State(StateEvent { task: None, requested: None, ..state })),
        Entry::Event(KernelEvent::Transfer(transfer)),
        Entry::Event(KernelEvent::Transfer(bare)),
        Entry::Settled(Time(u64::MAX)),
    ]
}

/// A file with these numbers' entries.
fn file(numbers: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    Header::new(&[25, 2525], Addresses::None, &["192.0.2.0/24".parse().expect("a block")]).write(&mut out);
    let entries = entries();
    numbers.iter().for_each(|number| write(*number, &entries[*number as usize % entries.len()], &mut out));
    out
}

/// The entries that are read, how many are missing, whether the file is cut.
fn read(file: &[u8]) -> Result<(Vec<Entry>, u64, bool), ReadError> {
    let (_, mut entries) = open(Cursor::new(file))?;
    let read = entries.by_ref().collect::<Result<_, _>>()?;
    Ok((read, entries.missing(), entries.is_cut()))
}

fn refusal(file: &[u8]) -> String {
    read(file).expect_err("it is no recording").to_string()
}

#[test]
fn what_is_written_is_read() {
    let file = file(&[0, 1, 2, 3, 4, 5, 6, 7]);
    let (header, _) = open(Cursor::new(&file)).expect("a recording");
    assert_eq!(header, Header::new(&[25, 2525], Addresses::None, &["192.0.2.0/24".parse().expect("a block")]));
    assert_eq!(read(&file).expect("a recording"), (entries(), 0, false));
    assert!(file.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~')), "no peer steers a reader's terminal");
}

#[test]
fn text_can_be_read() {
    let mut out = Vec::new();
    write(5, &entries()[5], &mut out);
    let line = String::from_utf8(out).expect("UTF-8");
    assert!(line.starts_with("{\"event\":[5,{\"transfer\":{\"time\":6,"), "{line}");
    assert!(line.contains("GHIJKLMNOPQRSTUVWXYZ") && line.contains("{\"content\":9}"), "{line}");
}

#[test]
fn the_order_is_that_of_the_numbers() {
    assert_eq!(read(&file(&[2, 0, 1, 7, 3, 6, 5, 4])).expect("a recording"), (entries(), 0, false));
}

#[test]
fn what_is_missing_is_counted_and_waited_for_no_longer_than_needed() {
    let all = entries();
    let some = [0, 1, 4, 6].map(|number| all[number].clone()).to_vec();
    assert_eq!(read(&file(&[0, 1, 4, 6])).expect("a recording"), (some, 3, false));

    let mut cut = file(&[0, 2]);
    write_loss(2, &mut cut);
    // It is not in turn, and the file is not at its end: what follows is not needed to know that.
    cut.extend(b"nonsense");
    let (_, mut entries) = open(Cursor::new(cut)).expect("a recording");
    assert_eq!(entries.next().transpose().expect("readable"), Some(all[0].clone()));
    assert_eq!(entries.next().transpose().expect("readable"), Some(all[2].clone()));
    assert_eq!(entries.missing(), 1);
}

#[test]
fn what_was_lost_last_is_counted() {
    let mut file = file(&[0, 1]);
    write_loss(5, &mut file);
    assert_eq!(read(&file).expect("a recording"), (entries()[..2].to_vec(), 3, false));
}

#[test]
fn every_cut_leaves_what_was_complete() {
    let file = file(&[0, 1, 2, 3, 4, 5, 6, 7]);
    let header = file.iter().position(|byte| *byte == b'\n').expect("lines") + 1;
    for length in 0..file.len() {
        let cut = &file[..length];
        if length < header {
            assert!(refusal(cut).starts_with("is no recording: it "), "{length}");
            continue;
        }
        let lines = cut[header..].iter().filter(|byte| **byte == b'\n').count();
        let ends = cut.ends_with(b"\n");
        assert_eq!(read(cut).expect("a recording"), (entries()[..lines].to_vec(), 0, !ends), "{length}");
    }
}

#[test]
fn what_is_no_recording_is_refused() {
    assert_eq!(refusal(b""), "is no recording: it is empty. Make one with smtp-observer run --record FILE.");
    for foreign in
        [&b"\n"[..], b"Subject: hello\n", b"{}\n", b"{\"event\":\"smtp.command\"}\n", b"\x1f\x8b\x08\n", b"[]\n"]
    {
        assert!(refusal(foreign).starts_with("is no recording: it does not begin like one."), "{foreign:?}");
    }
    let other = b"{\"recording\":\"tcpdump\",\"version\":1,\"agent\":\"4\"}\n";
    assert!(refusal(other).starts_with("is no recording"));
    let of = |version| format!("{{\"recording\":\"smtp-observer\",\"version\":{version},\"agent\":\"7.1.0\"}}\n");
    for (version, age) in [(1, "older"), (3, "newer")] {
        assert_eq!(
            refusal(of(version).as_bytes()),
            format!(
                "is of version {version}, made by smtp-observer 7.1.0, which is {age} than this one: replay it with that."
            )
        );
    }
}

#[test]
fn what_is_damaged_is_named_with_its_line() {
    let mut twice = file(&[0, 1]);
    write(1, &entries()[1], &mut twice);
    assert_eq!(
        refusal(&twice),
        "is damaged in line 4: number 1 is there twice. What was before is as it was recorded."
    );
    let mut broken = file(&[0]);
    broken.extend(b"{\"event\":[1,{\"transfer\":{}}]}\n");
    assert_eq!(refusal(&broken), "is damaged in line 3: missing field `time`. What was before is as it was recorded.");
    let mut no_byte = file(&[0]);
    let line = String::from_utf8(file(&[5])).expect("UTF-8").replace("GHI", "G\u{20ac}I");
    no_byte.extend(line.lines().last().expect("a line").bytes().chain(*b"\n"));
    assert!(refusal(&no_byte).contains("in line 3: a character that stands for no byte."), "{}", refusal(&no_byte));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_damage_is_lived_with(places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut damaged = file(&[0, 1, 2, 3, 4, 5, 6, 7]);
        for (place, byte) in places {
            let place = place.index(damaged.len());
            damaged[place] = byte;
        }
        if let Ok((_, entries)) = open(Cursor::new(damaged)) {
            let mut observer = crate::observer::Observer::new(&[25], RedactionPolicy::new(Addresses::Full));
            for entry in entries.map_while(Result::ok) {
                match entry {
                    Entry::Event(event) => observer.event(event, &mut |_| {}),
                    Entry::Settled(now) => observer.settle(now, &mut |_| {}),
                }
            }
            observer.settle(Time(u64::MAX), &mut |_| {});
        }
    }
}
