//! What crosses from the kernel, read in the ring's own records: of content and credentials nothing does.
//!
//! All that is secret here consists of the letter z, which no command, reply or address has.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use anyhow::{Context, Result, ensure};
use smtp_observer::event::{Flow, KernelEvent, Segment};
use smtp_observer::kernel::{Kernel, Settings, Tls};
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use tracing::level_filters::LevelFilter;

/// How bytes are parted into calls, at both ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Calls {
    /// Each step is one.
    Whole,
    /// Each byte is one.
    OfOneByte,
}

/// Who calls at the client's end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Threads {
    /// One thread reads and writes.
    One,
    /// One reads, another writes.
    Two,
}

/// A step of a dialogue: `C: …` or `S: …`, with `\r`, `\n` and all as they are.
struct Step {
    of_client: bool,
    bytes: Vec<u8>,
}

fn step(text: &str) -> Step {
    let (speaker, text) = text.split_once(": ").expect("a speaker");
    Step { of_client: speaker == "C", bytes: text.as_bytes().to_vec() }
}

/// What crossed of one direction at one end, as text; withheld bytes are `_`, other bytes that did not cross are `…`.
#[derive(Default)]
struct Crossed {
    client: [String; 2],
    server: [String; 2],
}

const ENVELOPE: [&str; 5] = [
    "S: 220 mx.example ESMTP\r\n",
    "C: EHLO client.example\r\n",
    "S: 250 mx.example\r\n",
    "C: MAIL FROM:<a@client.example>\r\nRCPT TO:<b@mx.example>\r\n",
    "S: 250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n",
];

/// The hooks, on a port of their own, and two hosts.
struct Scene {
    port: u16,
    settings: Settings,
    kernel: Option<Kernel>,
    hosts: (Host, Host),
    runtime: tokio::runtime::Runtime,
}

impl Scene {
    fn new(port: u16) -> Result<Self> {
        machine::require_root()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let hooks = machine::hooks()?;
        let settings = Settings {
            ports: vec![port],
            hooks,
            ring_bytes: 8 << 20,
            tls: Tls::Off,
            user: None,
            diagnostics: LevelFilter::OFF,
        };
        Ok(Self { port, settings, kernel: None, hosts: Host::pair()?, runtime })
    }

    fn attach(&mut self) -> Result<()> {
        let _guard = self.runtime.enter();
        self.kernel = Some(Kernel::attach(&self.settings)?);
        Ok(())
    }

    /// Plays a dialogue, and gives what crossed of it. The hooks come with the step of this number, unless they are there.
    fn crossed(&mut self, steps: &[Step], attach_at: usize, calls: Calls, threads: Threads) -> Result<Crossed> {
        let port = self.port;
        let dialogue = Dialogue::open(&self.hosts.0, &self.hosts.1, &format!("10.77.0.2:{port}"))?;
        let reader = Reader::of(&dialogue.client, threads)?;
        for (number, step) in steps.iter().enumerate() {
            if number == attach_at && self.kernel.is_none() {
                self.attach()?;
            }
            let size = if calls == Calls::OfOneByte { 1 } else { step.bytes.len() };
            for bytes in step.bytes.chunks(size) {
                if step.of_client {
                    (&dialogue.client).write_all(bytes)?;
                    (&dialogue.server).read_exact(&mut vec![0; bytes.len()])?;
                } else {
                    (&dialogue.server).write_all(bytes)?;
                    reader.read(&dialogue.client, bytes.len())?;
                }
            }
        }
        drop(reader);
        dialogue.close()?;

        let mut crossed = Crossed::default();
        let kernel = self.kernel.as_mut().context("the hooks were never attached")?;
        kernel.drain(&mut |event| {
            let KernelEvent::Transfer(transfer) = event else { return };
            let at_client = transfer.socket.remote.port() == port;
            if !at_client && transfer.socket.local.port() != port {
                return;
            }
            let of_client = (transfer.flow == Flow::Sent) == at_client;
            let end = if at_client { &mut crossed.client } else { &mut crossed.server };
            let text = &mut end[usize::from(!of_client)];
            for segment in transfer.said.segments() {
                match segment {
                    Segment::Text(bytes) => text.push_str(&String::from_utf8_lossy(bytes)),
                    Segment::Withheld { .. } => text.push('_'),
                    Segment::Begun(_) => {}
                    _ => text.push('…'),
                }
            }
        });
        Ok(crossed)
    }
}

/// Reads what the server says.
struct Reader {
    thread: Option<(Sender<usize>, Receiver<std::io::Result<()>>)>,
}

impl Reader {
    fn of(client: &TcpStream, threads: Threads) -> Result<Self> {
        if threads == Threads::One {
            return Ok(Self { thread: None });
        }
        let mut client = client.try_clone()?;
        let (wanted, wants) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            for length in wants {
                if done.send(client.read_exact(&mut vec![0; length])).is_err() {
                    break;
                }
            }
        });
        Ok(Self { thread: Some((wanted, is_done)) })
    }

    fn read(&self, mut client: &TcpStream, length: usize) -> Result<()> {
        match &self.thread {
            None => client.read_exact(&mut vec![0; length])?,
            Some((wanted, is_done)) => {
                wanted.send(length)?;
                is_done.recv()??;
            }
        }
        Ok(())
    }
}

/// Plays a dialogue behind the envelope in all manners; no z may cross, and what the client says last does.
fn no_secret_crosses(port: u16, before: &[&str], steps: &[&str]) -> Result<()> {
    no_secret_crosses_from(port, 0, before, steps)
}

fn no_secret_crosses_from(port: u16, attach_at: usize, before: &[&str], steps: &[&str]) -> Result<()> {
    let steps: Vec<Step> = before.iter().chain(steps).map(|text| step(text)).collect();
    ensure!(steps.iter().any(|step| step.bytes.contains(&b'z')), "there is no secret");
    let mut scene = Scene::new(port)?;
    for calls in [Calls::Whole, Calls::OfOneByte] {
        for threads in [Threads::One, Threads::Two] {
            if attach_at == 0 {
                // They stay for the next manner.
                if scene.kernel.is_none() {
                    scene.attach()?;
                }
            } else {
                scene.kernel = None;
            }
            let crossed = scene.crossed(&steps, attach_at, calls, threads)?;
            for (name, end) in [("client", &crossed.client), ("server", &crossed.server)] {
                for text in end {
                    let manner = format!("{calls:?} calls, {threads:?} thread, the {name}'s end");
                    ensure!(!text.to_lowercase().contains('z'), "{manner}: {text:?}");
                }
                ensure!(end[0].ends_with("QUIT\r\n"), "the {name}'s end, {calls:?}, {threads:?}: {:?}", end[0]);
            }
        }
    }
    Ok(())
}

const BYE: [&str; 2] = ["C: QUIT\r\n", "S: 221 2.0.0 Bye\r\n"];

fn with_bye<'a>(steps: &[&'a str]) -> Vec<&'a str> {
    steps.iter().copied().chain(BYE).collect()
}

#[test]
fn a_body_stays_behind_a_go_ahead_in_two_writes() -> Result<()> {
    let steps =
        ["C: DATA\r\n", "S: 35", "S: 4 go\r\n", "C: zz zzz\r\nzz\r\n", "C: zzzz\r\n.\r\n", "S: 250 2.0.0 Ok\r\n"];
    no_secret_crosses(2801, &ENVELOPE, &with_bye(&steps))
}

#[test]
fn a_body_that_quotes_commands_stays() -> Result<()> {
    let body = "C: RSET\r\nMAIL FROM:<zz@zz.zz>\r\nzz\r\n354 zz\r\nEHLO zz\r\n.\r\n";
    no_secret_crosses(2802, &ENVELOPE, &with_bye(&["C: DATA\r\n", "S: 354 go\r\n", body, "S: 250 2.0.0 Ok\r\n"]))
}

#[test]
fn a_body_stays_behind_a_long_go_ahead() -> Result<()> {
    let lines = format!("S: 354-{}\r\n354-{}\r\n354 go\r\n", "a".repeat(300), "b".repeat(500));
    let line = format!("S: 354 {}\r\n", "c".repeat(700));
    for (port, reply) in [(2803, lines), (2804, line)] {
        let steps = ["C: DATA\r\n", &reply, "C: zz zzz\r\nzz\r\n", "C: zzzz\r\n.\r\n", "S: 250 2.0.0 Ok\r\n"];
        no_secret_crosses(port, &ENVELOPE, &with_bye(&steps))?;
    }
    Ok(())
}

#[test]
fn a_body_in_one_write_with_data_stays() -> Result<()> {
    let steps = ["C: DATA\r\nzz: zz\r\n\r\nzz\r\nRSET\r\nzz\r\n.\r\n", "S: 354 go\r\n", "S: 250 2.0.0 Ok\r\n"];
    no_secret_crosses(2805, &ENVELOPE, &with_bye(&steps))?;
    let steps = ["C: DATA\r\nzz: zz\r\n\r\nzz\r\n", "S: 354 go\r\n", "C: zz\r\n.\r\n", "S: 250 2.0.0 Ok\r\n"];
    no_secret_crosses(2806, &ENVELOPE, &with_bye(&steps))
}

#[test]
fn a_body_behind_data_with_an_argument_stays() -> Result<()> {
    let steps = ["C: DATA zz\r\n", "S: 354 go\r\n", "C: zz zzz\r\nzz\r\n.\r\n", "S: 250 2.0.0 Ok\r\n"];
    no_secret_crosses(2807, &ENVELOPE, &with_bye(&steps))
}

#[test]
fn a_body_that_is_streamed_on_whatever_the_server_said_stays() -> Result<()> {
    for (port, reply) in [(2808, "S: 250 2.0.0 Ok\r\n"), (2809, "S: 554 5.5.1 No\r\n"), (2810, "S: 451 4.3.0 No\r\n")] {
        let steps = ["C: DATA\r\n", reply, "C: zz: zz\r\n\r\nzz zzz\r\n", "C: zzzz\r\n.\r\n", "S: 500 5.5.2 What\r\n"];
        no_secret_crosses(port, &ENVELOPE, &with_bye(&steps))?;
    }
    Ok(())
}

#[test]
fn a_body_stays_behind_a_reply_in_its_middle() -> Result<()> {
    let steps = [
        "C: DATA\r\n",
        "S: 354 go\r\n",
        "C: zz zzz\r\nzz\r\n",
        "S: 451 4.3.0 Enough\r\n",
        "C: zz\r\nzzz zz\r\n",
        "C: zz\r\n.\r\n",
        "S: 250 2.0.0 Ok\r\n",
    ];
    no_secret_crosses(2811, &ENVELOPE, &with_bye(&steps))
}

#[test]
fn a_body_stays_where_the_agent_comes_in_its_middle() -> Result<()> {
    let steps = ["C: DATA\r\n", "S: 354 go\r\n", "C: zz\r\n", "C: zz zzz\r\nzz\r\n.\r\n", "S: 250 2.0.0 Ok\r\n"];
    no_secret_crosses_from(2812, ENVELOPE.len() + 3, &ENVELOPE, &with_bye(&steps))
}

#[test]
fn a_body_stays_behind_a_go_ahead_that_nobody_asked_for() -> Result<()> {
    let steps = ["C: XEXCH50 4 2\r\n", "S: 354 go\r\n", "C: zzzz", "S: 250 2.0.0 Ok\r\n"];
    no_secret_crosses(2813, &ENVELOPE, &with_bye(&steps))?;
    let steps = ["C: NOOP\r\n", "S: 354 go\r\n", "C: zz\r\nzz\r\n.\r\n", "S: 250 2.0.0 Ok\r\n"];
    no_secret_crosses(2814, &ENVELOPE, &with_bye(&steps))
}

#[test]
fn chunks_stay() -> Result<()> {
    let steps = [
        "C: BDAT 4\r\nzzzzBDAT 6\r\nzz\r\nzzBDAT 2 LAST\r\nzzMAIL FROM:<c@client.example>\r\n",
        "S: 250 2.0.0 Ok\r\n250 2.0.0 Ok\r\n250 2.0.0 Ok\r\n250 2.1.0 Ok\r\n",
    ];
    no_secret_crosses(2815, &ENVELOPE, &with_bye(&steps))?;
    // A wrong size, and sizes that are none.
    for (port, chunk) in [(2816, "C: BDAT 4 LAST\r\n"), (2817, "C: BDAT zz\r\n"), (2818, "C: BDAT 1z\r\n")] {
        let steps = [chunk, "C: zzzzzz zz\r\nzz\r\n", "S: 501 5.5.4 No\r\n", "C: zz zz\r\n", "S: 500 5.5.2 What\r\n"];
        no_secret_crosses(port, &ENVELOPE, &with_bye(&steps))?;
    }
    Ok(())
}

#[test]
fn credentials_and_what_repeats_them_stay() -> Result<()> {
    let steps = [
        "C: AUTH LOGIN\r\n",
        "S: 334 zz\r\n",
        "C: zzz\r\n",
        "S: 334 zzz\r\n",
        "C: zzzz\r\n",
        "S: 535 5.7.8 zzzz is no password\r\n",
        "C: AUTH PLAIN zzzz\r\n",
        "S: 501 5.5.4 cannot decode AUTH parameter zzzz\r\n",
        "C: AUTH zzzz\r\n",
        "S: 504 5.5.4 zzzz unknown\r\n",
        "C: zzzz\r\n",
        "S: 500-5.5.2 command unrecognized:\r\n500 5.5.2 zzzz\r\n",
        "C: NOOP zzz\r\n",
        "S: 250 2.0.0 zzz\r\n",
        "C: HELP zzz\r\nVRFY zzz\r\n",
        "S: 214 zzz\r\n252 2.0.0 zzz\r\n",
    ];
    no_secret_crosses(2819, &ENVELOPE, &with_bye(&steps))
}

#[test]
fn of_a_handshake_nothing_but_hellos_heads_and_alerts_crosses() -> Result<()> {
    let steps = [
        "C: STARTTLS\r\n",
        "S: 220 2.0.0 ready\r\n",
        "C: \x16\x03\x01\0\x06\x01hello",
        "S: \x16\x03\x03\0\x06\x02hello\x16\x03\x03\0\x04\x0bzzz",
        "S: \x15\x03\x03\0\x02\x01\x5a",
        "C: \x16\x03\x03\0\x04zzzz\x14\x03\x03\0\x01z",
        "C: \x16\x03\x03\0\x08zzzzzzzz\x17\x03\x03\0\x03zzz\x15\x03\x03\0\x02zz",
        "S: \x14\x03\x03\0\x01z\x16\x03\x03\0\x08zzzz",
        "S: zzzz\x17\x03\x03\0\x02zz\x17\x03\x03\0\x05zzzzz",
    ];
    let steps: Vec<Step> = ENVELOPE[..3].iter().chain(&steps).map(|text| step(text)).collect();
    let said = [
        "STARTTLS\r\n\x16\x03\x01\0\x06\x01hello\x16\x03\x03\0\x04…\x14\x03\x03\0\x01…\x16\x03\x03\0\x08…\x17\x03\x03\0\x03…",
        "220 2.0.0 ready\r\n\x16\x03\x03\0\x06\x02hello\x16\x03\x03\0\x04…\x15\x03\x03\0\x02\x01\x5a\
         \x14\x03\x03\0\x01…\x16\x03\x03\0\x08…\x17\x03\x03\0\x02…",
    ];
    let mut scene = Scene::new(2820)?;
    scene.attach()?;
    for calls in [Calls::Whole, Calls::OfOneByte] {
        for threads in [Threads::One, Threads::Two] {
            let crossed = scene.crossed(&steps, 0, calls, threads)?;
            for (name, end) in [("client", &crossed.client), ("server", &crossed.server)] {
                for (text, said) in end.iter().zip(said) {
                    // A part of a record that did not cross is one or more.
                    let mut text = text.clone();
                    while text.contains("……") {
                        text = text.replace("……", "…");
                    }
                    ensure!(text.ends_with(said), "{calls:?} calls, {threads:?} thread, the {name}'s end: {text:?}");
                }
            }
        }
    }
    Ok(())
}
