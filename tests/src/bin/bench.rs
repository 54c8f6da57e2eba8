//! The benchmarks: what the agent costs others, and what it takes for itself. Prints Markdown.
//!
//! Whatever is compared is measured in interleaved pairs, with the agent and without, and shown as the median of the
//! pairs with the lowest and the highest: on a busy machine the ratio of neighbours is worth more than any time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::feed::PATIENCE;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{self, Running};

/// What the agent costs others, and what it takes for itself.
#[derive(Parser)]
struct Arguments {
    /// Pairs of measurements, with the agent and without.
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Messages of 64 bytes in a measurement of calls that are not watched.
    #[arg(long, default_value_t = 200_000)]
    pings: usize,
    /// Mails in a measurement of throughput; three times as many where connections are kept.
    #[arg(long, default_value_t = 20_000)]
    mails: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.pairs > 0 && arguments.pings >= CHUNKS && arguments.mails > 0, "nothing to measure");
    let mut start_ups = Vec::new();

    println!("| what | without | with | ratio: median (lowest to highest) | aim |");
    println!("| --- | --- | --- | --- | --- |");
    let calls = pairs(arguments.pairs, &mut start_ups, |_| nanoseconds_a_call(arguments.pings))?;
    let added = median(calls.pairs.iter().map(|(without, with)| with - without));
    println!(
        "| a call of 64 bytes on a port that is not watched | {:.0} ns | {:.0} ns | {}, {added:+.0} ns a call | < 1.02, < 60 ns |",
        calls.without(),
        calls.with(),
        calls.ratio()
    );

    let mut loads = Vec::new();
    for (what, keep, mails) in [
        ("mails a second, a connection each", false, arguments.mails),
        ("mails a second on kept connections", true, 3 * arguments.mails),
    ] {
        let sink = Sink::start()?;
        let throughput = pairs(arguments.pairs, &mut start_ups, |agent| {
            let mails_a_second = sink.throughput(mails, keep)?;
            loads.extend(agent.map(Load::of).transpose()?);
            Ok(mails_a_second)
        })?;
        println!(
            "| {what} | {:.0} | {:.0} | {} | ≥ 0.95 |",
            throughput.without(),
            throughput.with(),
            throughput.ratio()
        );
    }

    println!("\n| the agent itself | median | highest | aim |");
    println!("| --- | --- | --- | --- |");
    let rows: [(&str, Vec<f64>, &str, &str); 5] = [
        (
            "from start to `observing`",
            start_ups.iter().map(|time| time.as_secs_f64() * 1e3).collect(),
            "ms",
            "< 500 ms",
        ),
        ("resident memory after a load", loads.iter().map(|load| load.resident).collect(), "MB", "< 25 MB"),
        ("its peak", loads.iter().map(|load| load.peak).collect(), "MB", ""),
        (
            "processor time under a load",
            loads.iter().map(|load| load.processor.as_secs_f64() * 1e3).collect(),
            "ms",
            "",
        ),
        ("kernel events lost under a load", loads.iter().map(|load| load.lost).collect(), "", "0"),
    ];
    for (what, values, unit, aim) in rows {
        let highest = values.iter().copied().fold(0.0, f64::max);
        println!("| {what} | {:.0} {unit} | {highest:.0} {unit} | {aim} |", median(values));
    }
    let idle = idle_wake_ups()?;
    let highest = idle.iter().copied().fold(0.0, f64::max);
    println!("| wake-ups a second on an idle host | {:.0} | {highest:.0} | a few |", median(idle));
    println!("\nLoads are {} and {} mails over 10 sessions at once.", arguments.mails, 3 * arguments.mails);
    Ok(())
}

/// The same measured without the agent and with it.
struct Compared {
    pairs: Vec<(f64, f64)>,
}

impl Compared {
    fn without(&self) -> f64 {
        median(self.pairs.iter().map(|pair| pair.0))
    }

    fn with(&self) -> f64 {
        median(self.pairs.iter().map(|pair| pair.1))
    }

    fn ratio(&self) -> String {
        let ratios: Vec<f64> = self.pairs.iter().map(|(without, with)| with / without).collect();
        let lowest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = ratios.iter().copied().fold(0.0, f64::max);
        format!("{:.3} ({lowest:.3} to {highest:.3})", median(ratios))
    }
}

/// Measures in pairs, every other one the other way round, so that a machine that grows slower favours neither.
fn pairs(
    number: usize,
    start_ups: &mut Vec<Duration>,
    mut measure: impl FnMut(Option<&Agent>) -> Result<f64>,
) -> Result<Compared> {
    // The first measurement of a kind warms up what the others find warm.
    measure(None)?;
    let mut with_agent = |measure: &mut dyn FnMut(Option<&Agent>) -> Result<f64>| -> Result<f64> {
        let agent = Agent::start_silent(&[])?;
        start_ups.push(agent.start_up);
        let measured = measure(Some(&agent))?;
        let stopped = agent.stop()?;
        ensure!(stopped.status.success(), "the agent ended with {}:\n{}", stopped.status, stopped.log.join("\n"));
        Ok(measured)
    };
    let mut pairs = Vec::new();
    for pair in 0..number {
        pairs.push(if pair % 2 == 0 {
            let without = measure(None)?;
            (without, with_agent(&mut measure)?)
        } else {
            let with = with_agent(&mut measure)?;
            (measure(None)?, with)
        });
    }
    Ok(Compared { pairs })
}

/// Parts of one measurement of calls, whose median keeps out what else ran on the machine.
const CHUNKS: usize = 50;

/// One thread sends 64 bytes to itself over loopback, again and again.
fn nanoseconds_a_call(pings: usize) -> Result<f64> {
    let host = Host::new()?;
    let listener = host.listen("127.0.0.1:2500")?;
    let mut sender = host.connect("127.0.0.1:2500")?;
    let (mut receiver, _) = listener.accept()?;
    sender.set_nodelay(true)?;
    let mut ping = |times: usize| -> Result<f64> {
        let mut buffer = [0; 64];
        let started = Instant::now();
        for _ in 0..times {
            sender.write_all(&buffer)?;
            receiver.read_exact(&mut buffer)?;
        }
        Ok(started.elapsed().as_nanos() as f64 / times as f64)
    };
    let chunks = (0..CHUNKS).map(|_| ping(pings / CHUNKS)).collect::<Result<Vec<_>>>()?;
    // A send and a receive: two calls.
    Ok(median(chunks) / 2.0)
}

/// Postfix's `smtp-sink` on port 25 of a host of its own.
struct Sink {
    host: Host,
    _sink: Running,
}

impl Sink {
    const ADDRESS: &str = "127.0.0.1:25";

    fn start() -> Result<Self> {
        let host = Host::new()?;
        let mut sink = host.command(machine::installed("smtp-sink")?);
        sink.args(["-u", "nobody", Self::ADDRESS, "1024"]);
        let sink = Running::start(sink)?;
        // It says nothing when it is ready.
        let deadline = Instant::now() + PATIENCE;
        while host.enter(|| TcpStream::connect(Self::ADDRESS)).is_err() {
            ensure!(Instant::now() < deadline, "smtp-sink does not listen: {:?}", sink.log.so_far());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { host, _sink: sink })
    }

    /// Mails a second that `smtp-source` gets rid of, over ten sessions at once.
    fn throughput(&self, mails: usize, keep: bool) -> Result<f64> {
        let mut source = self.host.command(machine::installed("smtp-source")?);
        source.args(["-s", "10", "-m", &mails.to_string(), "-f", "alice@client.example", "-t", "bob@server.example"]);
        if keep {
            source.arg("-d");
        }
        source.arg(Self::ADDRESS);
        let started = Instant::now();
        process::run(source)?;
        Ok(mails as f64 / started.elapsed().as_secs_f64())
    }
}

/// What an agent took for a load that it has just seen.
struct Load {
    resident: f64,
    peak: f64,
    processor: Duration,
    lost: f64,
}

impl Load {
    fn of(agent: &Agent) -> Result<Self> {
        let metrics = agent.metrics()?;
        let commands = metrics.sum("smtp_commands_total", &["process=\"smtp-source\""]).unwrap_or(0.0);
        ensure!(commands > 0.0, "the agent saw nothing of the load");
        let lost = metrics.sum("smtp_observer_kernel_events_lost_total", &[]);
        Ok(Self {
            resident: agent.memory("VmRSS")? as f64 / 1e6,
            peak: agent.memory("VmHWM")? as f64 / 1e6,
            processor: agent.processor_time()?,
            lost: lost.context("the agent does not count what it loses")?,
        })
    }
}

/// Wake-ups of an agent that has nothing to do, in each of ten seconds.
fn idle_wake_ups() -> Result<Vec<f64>> {
    let agent = Agent::start_silent(&[])?;
    let second = || -> Result<f64> {
        let before = agent.wake_ups()?;
        std::thread::sleep(Duration::from_secs(1));
        Ok((agent.wake_ups()? - before) as f64)
    };
    (0..10).map(|_| second()).collect()
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}
