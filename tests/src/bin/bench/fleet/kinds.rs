//! Hosts of several kinds: a real load, and what the agent says of the host's own programs.
//!
//! The other end of a host's connections is on this machine, too, and so in what the agent says: it is left out.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::postfix::Postfix;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::scene::Scene;

use super::scrape::Scrape;

/// What Prometheus asks for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";

/// Mails of a load, half of them before the first scrape.
const MAILS: usize = 400;

/// What a host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No mail.
    Idle,
    /// A program hands mail to a server.
    Client,
    /// Postfix takes mail and hands it on.
    MailServer,
    /// A client's mail goes through a program in the middle.
    Intercepted,
}

/// What the agent says of a host.
pub struct Measured {
    /// Of which kind.
    pub kind: Kind,
    /// A scrape in the middle of the load.
    pub first: Scrape,
    /// A scrape behind it.
    pub last: Scrape,
    /// Lines of events.
    pub events: Vec<String>,
    /// How many mails that were.
    pub mails: usize,
    /// Bytes of the last scrape when gzip has made it smaller.
    pub compressed: usize,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Idle, Self::Client, Self::MailServer, Self::Intercepted];

    /// What it is, in a few words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "without mail",
            Self::Client => "with a program that sends",
            Self::MailServer => "with Postfix that takes mail and hands it on",
            Self::Intercepted => "with a client and a program in the middle",
        }
    }

    /// Its programs, with the roles of their sockets.
    fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Idle => &[],
            Self::Client => &[("smtp-source", "client")],
            Self::MailServer => &[("smtpd", "server"), ("smtp", "client")],
            Self::Intercepted => {
                &[("mail-client", "client"), ("antivirus-proxy", "server"), ("antivirus-proxy", "client")]
            }
        }
    }

    /// Plays a load of such a host beside a fresh agent.
    pub fn measure(self) -> Result<Measured> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("events.jsonl");
        let agent = Agent::start_silent(&["--events", file.to_str().context("a path that is no text")?])?;
        let load = Load::of(self)?;
        let mut mails = load.play()?;
        let first = self.scrape(&agent)?;
        mails += load.play()?;
        let last = self.scrape(&agent)?;
        drop(load);
        let stopped = agent.stop()?;
        ensure!(stopped.status.success(), "{}", stopped.log.join("\n"));
        let lines = fs::read_to_string(&file)?;
        let events: Vec<String> = lines.lines().filter(|line| self.has_event(line)).map(str::to_owned).collect();
        ensure!(events.is_empty() == self.programs().is_empty(), "{self:?} has no events:\n{lines}");
        let compressed = compressed(last.text())?;
        Ok(Measured { kind: self, first, last, events, mails, compressed })
    }

    fn scrape(self, agent: &Agent) -> Result<Scrape> {
        let text = agent.metrics_as(OPEN_METRICS)?.0;
        let scrape = Scrape::of(&text, |line| self.has_series(line));
        for (program, role) in self.programs() {
            let labels = format!("process=\"{program}\",role=\"{role}\"");
            ensure!(scrape.series().any(|series| series.contains(&labels)), "the agent knows no {labels}\n{text}");
        }
        Ok(scrape)
    }

    fn has_series(self, line: &str) -> bool {
        let is_named = |label: &str| {
            let is_one = |(program, _): &&(&str, &str)| line.contains(&format!("{label}=\"{program}\""));
            self.programs().iter().find(is_one).is_some()
        };
        if line.contains("process=\"") {
            let is_one =
                |(program, role): &(&str, &str)| line.contains(&format!("process=\"{program}\",role=\"{role}\""));
            return self.programs().iter().any(is_one);
        }
        // Of the machine's other programs: who leads connections elsewhere, and where they end.
        let others = ["interceptor", "client", "server"];
        others.iter().all(|label| !line.contains(&format!("{label}=\"")) || is_named(label))
    }

    fn has_event(self, line: &str) -> bool {
        let Ok(event) = serde_json::from_str::<Value>(line) else { return false };
        let own = |(program, role): &(&str, &str)| {
            event["process"]["name"] == *program && event["connection"]["role"] == *role
        };
        self.programs().iter().any(own)
    }
}

/// What happens on a host.
enum Load {
    Nothing,
    Client { clients: Host, _sink: Running },
    MailServer { clients: Host, postfix: Postfix, _sink: Running },
    Intercepted,
}

impl Load {
    fn of(kind: Kind) -> Result<Self> {
        Ok(match kind {
            Kind::Idle => Self::Nothing,
            Kind::Client => {
                let (clients, server) = Host::pair()?;
                let sink = sink(&server)?;
                Self::Client { clients, _sink: sink }
            }
            Kind::MailServer => {
                let (clients, relay) = Host::pair()?;
                let server = Host::new()?;
                relay.cable(&server, 78)?;
                let sink = sink(&server)?;
                let parameters = ["mynetworks = 10.77.0.0/24", "mydestination =", "relayhost = [10.78.0.2]:25"];
                let postfix = Postfix::start_with(&relay, &parameters, &[])?;
                Self::MailServer { clients, postfix, _sink: sink }
            }
            Kind::Intercepted => Self::Intercepted,
        })
    }

    /// Plays half of it: how many mails that is.
    fn play(&self) -> Result<usize> {
        match self {
            Self::Nothing => Ok(0),
            Self::Client { clients, .. } => source(clients),
            Self::MailServer { clients, postfix, .. } => {
                let before = postfix.logged(&["status=sent"]);
                let mails = source(clients)?;
                postfix.wait_logged(&["status=sent"], before + mails)?;
                Ok(mails)
            }
            // Each takes as long as somebody types.
            Self::Intercepted => (0..2).map(|_| Scene::new()?.play().map(|_| 1)).sum(),
        }
    }
}

/// Takes mail and throws it away.
fn sink(host: &Host) -> Result<Running> {
    let mut sink = host.command(machine::installed("smtp-sink")?);
    sink.args(["-u", "nobody", "0.0.0.0:25", "1024"]);
    let sink = Running::start(sink)?;
    host.wait_listens("0.0.0.0:25")?;
    Ok(sink)
}

/// Sends mail, a connection each.
fn source(host: &Host) -> Result<usize> {
    let mails = MAILS / 2;
    let mut source = host.command(machine::installed("smtp-source")?);
    source.args(["-s", "4", "-l", "4000", "-m", &mails.to_string()]);
    source.args(["-f", "alice@client.example", "-t", "bob@server.example", "inet:10.77.0.2:25"]);
    process::run(source)?;
    Ok(mails)
}

/// How many bytes are left when gzip has made a text smaller.
fn compressed(text: &str) -> Result<usize> {
    let mut gzip = Command::new(machine::installed("gzip")?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("gzip cannot be run")?;
    let mut input = gzip.stdin.take().context("gzip takes no input")?;
    // A scrape may be more than a pipe holds: gzip writes hardly anything before it has read all.
    input.write_all(text.as_bytes())?;
    drop(input);
    let output = gzip.wait_with_output()?;
    ensure!(output.status.success(), "gzip ended with {}", output.status);
    Ok(output.stdout.len())
}
