//! What the hooks deliver under real loads, kept as the bytes of the ring, and passed through user space again and again: the
//! reader, the core and the sinks, without a kernel to wait for.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use jiff::tz::TimeZone;
use smtp_observer::event::KernelEvent;
use smtp_observer::kernel::{Hooks, Kernel, Reader, Settings, Tls};
use smtp_observer::observation::Observation;
use smtp_observer::observer::Observer;
use smtp_observer::redact::{Addresses, RedactionPolicy};
use smtp_observer::sink::connection_table::ConnectionTable;
use smtp_observer::sink::metrics::Metrics;
use smtp_observer::sink::retained::Retained;
use smtp_observer::sink::{events, trace};
use tracing::level_filters::LevelFilter;

use crate::dialogue::Dialogue;
use crate::machine;
use crate::netns::Host;
use crate::process::{self, Running};
use crate::relay::{Relay, Security};
use crate::scene::Scene;

/// How long nothing comes any more when a load is over.
const QUIET: Duration = Duration::from_millis(100);

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// `smtp-source` against `smtp-sink`, a connection a mail.
    Single,
    /// The same on kept connections.
    Kept,
    /// A hundred recipients, and DATA, in one write.
    Pipelined,
    /// Mails that go through a program in the middle.
    Proxied,
    /// Mails in chunks.
    Chunks,
    /// A Postfix that hands on to another what it gets, and all four ends are on this host.
    Relayed,
}

impl Load {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Single, Self::Kept, Self::Pipelined, Self::Proxied, Self::Chunks, Self::Relayed];

    /// What it is, in a few words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "a connection a mail",
            Self::Kept => "kept connections",
            Self::Pipelined => "pipelined groups",
            Self::Proxied => "a proxied session",
            Self::Chunks => "BDAT",
            Self::Relayed => "from one Postfix to another",
        }
    }

    /// Plays so many mails of it with the hooks attached: what they deliver. Needs root.
    pub fn record(self, mails: usize) -> Result<Recorded> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let settings = Settings {
                ports: vec![25],
                hooks: Hooks::Auto,
                ring_bytes: 16 << 20,
                tls: Tls::Off,
                user: None,
                diagnostics: LevelFilter::OFF,
            };
            let mut kernel = Kernel::attach(&settings)?;
            let mut recorded = Recorded { host: KernelEvent::Host(kernel.host()), bytes: Vec::new(), ends: Vec::new() };
            let player = thread::spawn(move || self.play(mails));
            loop {
                let ready = tokio::time::timeout(QUIET, kernel.ready()).await;
                kernel.records(&mut |record| recorded.push(record));
                if ready.is_err() && player.is_finished() {
                    break;
                }
            }
            player.join().map_err(|_| anyhow!("the load panicked"))??;
            let lost = kernel.losses().total();
            ensure!(lost == 0, "{lost} records were lost");
            Ok(recorded)
        })
    }

    fn play(self, mails: usize) -> Result<()> {
        match self {
            Self::Single => smtp_source(mails, &[]),
            Self::Kept => smtp_source(mails, &["-d"]),
            Self::Pipelined => dialogue(mails, &pipelined()),
            Self::Proxied => (0..mails).try_for_each(|_| Scene::new()?.play().map(drop)),
            Self::Chunks => dialogue(mails, CHUNKS),
            Self::Relayed => Relay::start(Security::None)?.throughput(mails).map(drop),
        }
    }
}

fn smtp_source(mails: usize, more: &[&str]) -> Result<()> {
    const ADDRESS: &str = "127.0.0.1:25";
    let host = Host::new()?;
    let mut sink = host.command(machine::installed("smtp-sink")?);
    sink.args(["-u", "nobody", ADDRESS, "1024"]);
    let _sink = Running::start(sink)?;
    host.wait_listens(ADDRESS)?;
    let mut source = host.command(machine::installed("smtp-source")?);
    source.args(["-s", "10", "-l", "1000", "-m", &mails.to_string()]);
    source.args(["-f", "alice@client.example", "-t", "bob@server.example"]);
    source.args(more).arg(ADDRESS);
    process::run(source).map(drop)
}

const HELLO: &str = "S: 220 server.example ESMTP
C: EHLO client.example
S: 250-server.example
S: 250-PIPELINING
S: 250 CHUNKING";

const CHUNKS: &str = "C: MAIL FROM:<alice@client.example>
S: 250 2.1.0 Ok
C: RCPT TO:<bob@server.example>
S: 250 2.1.5 Ok
C: BDAT 22
C: Subject: chunks
C:
C: a
S: 250 2.0.0 22 octets
C: BDAT 5 LAST
C: one
S: 250 2.0.0 Ok: queued";

fn pipelined() -> String {
    let (mut commands, mut replies) = (vec!["C: MAIL FROM:<alice@client.example>".to_owned()], vec!["S: 250 2.1.0 Ok"]);
    for number in 0..100 {
        commands.push(format!("C: RCPT TO:<user{number}@server.example>"));
        replies.push("S: 250 2.1.5 Ok");
    }
    commands.push("C: DATA".to_owned());
    replies.push("S: 354 End data with <CR><LF>.<CR><LF>");
    format!(
        "{}\n{}\nC: Subject: many\nC:\nC: a\nC: .\nS: 250 2.0.0 Ok: queued",
        commands.join("\n"),
        replies.join("\n")
    )
}

/// So many mails on one connection.
fn dialogue(mails: usize, mail: &str) -> Result<()> {
    let host = Host::new()?;
    let mut dialogue = Dialogue::open(&host, &host, "127.0.0.1:25")?;
    dialogue.play(HELLO)?;
    (0..mails).try_for_each(|_| dialogue.play(mail))?;
    dialogue.play("C: QUIT\nS: 221 2.0.0 Bye")?;
    dialogue.close()
}

/// What the hooks have delivered.
pub struct Recorded {
    host: KernelEvent<'static>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Recorded {
    fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// How many records these are.
    pub fn records(&self) -> usize {
        self.ends.len()
    }

    /// How many bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many events the reader makes of them.
    pub fn events(&self) -> Result<usize> {
        let mut passage = Passage::new(Through::Reader)?;
        Ok(passage.warm_up(self)? + passage.take_rest(self)?)
    }

    fn part(&self, records: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        let bounds = begins.zip(self.ends.iter().copied()).skip(records.start).take(records.len());
        bounds.map(|(begin, end)| &self.bytes[begin..end])
    }
}

/// User space, as far as records go.
pub struct Passage {
    reader: Reader,
    sinks: Sinks,
}

/// What is behind the reader.
struct Sinks {
    observer: Observer,
    policy: RedactionPolicy,
    through: Through,
    metrics: Option<Metrics>,
    table: Option<ConnectionTable>,
    trace: trace::Format,
    out: Vec<u8>,
}

impl Passage {
    /// All that is made once.
    pub fn new(through: Through) -> Result<Self> {
        let policy = RedactionPolicy::new(Addresses::Domain);
        let metrics = matches!(through, Through::Metrics | Through::Run);
        let table = matches!(through, Through::Table | Through::Run);
        let sinks = Sinks {
            observer: Observer::new(&[25], policy),
            policy,
            through,
            metrics: metrics.then(|| Metrics::new("tracepoint")).transpose()?,
            table: table.then(|| ConnectionTable::with_transcripts(32)),
            trace: trace::Format { colour: false, zone: TimeZone::UTC, day: None },
            out: Vec::new(),
        };
        Ok(Self { reader: Reader::default(), sinks })
    }

    /// Passes the first third of what the hooks have delivered: how many events it is. What is made once for each program and
    /// connection is made then.
    pub fn warm_up(&mut self, recorded: &Recorded) -> Result<usize> {
        self.sinks.observer.event(recorded.host.clone(), &mut |_| ());
        self.take(recorded.part(0..recorded.records() / 3))
    }

    /// Passes the rest of it: how many events it is.
    pub fn take_rest(&mut self, recorded: &Recorded) -> Result<usize> {
        self.take(recorded.part(recorded.records() / 3..recorded.records()))
    }

    fn take<'a>(&mut self, records: impl Iterator<Item = &'a [u8]>) -> Result<usize> {
        let mut events = 0;
        for record in records {
            let (_, event) = self.reader.read(record).context("a record that was delivered")?;
            let Some(event) = event else { continue };
            events += 1;
            self.sinks.event(event);
        }
        Ok(events)
    }
}

impl Sinks {
    fn event(&mut self, event: KernelEvent) {
        let Self { observer, policy, through, metrics, table, trace, out } = self;
        if *through == Through::Reader {
            return;
        }
        observer.event(event, &mut |fact| {
            out.clear();
            if let Some(metrics) = metrics {
                metrics.observe(fact);
            }
            match through {
                Through::Json => events::write(&Observation::of(fact, *policy), out),
                Through::Trace => trace.write(&Observation::of(fact, *policy), out),
                _ => {}
            }
            if let Some(table) = table {
                table.take(Retained::of(fact, Addresses::Domain));
            }
        });
    }
}

/// How far records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// To the reader.
    Reader,
    /// To the core.
    Core,
    /// To the metrics.
    Metrics,
    /// To lines of JSON.
    Json,
    /// To lines for people.
    Trace,
    /// To the table of connections with their transcripts.
    Table,
    /// To what `run` shows: metrics and page.
    Run,
}

impl Through {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Reader, Self::Core, Self::Metrics, Self::Json, Self::Trace, Self::Table, Self::Run];

    /// What it is, in a few words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader alone",
            Self::Core => "core, no sink",
            Self::Metrics => "metrics",
            Self::Json => "JSON lines",
            Self::Trace => "trace lines",
            Self::Table => "table",
            Self::Run => "metrics and table (`run`)",
        }
    }
}
