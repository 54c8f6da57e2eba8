//! Mail of all kinds for a while: what an agent holds does not grow.

use std::fs;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{self, Running};

const PORT: u16 = 2660;
const SINK: &str = "127.0.0.1:2660";

/// How much its memory may grow after a third of the load: the dialogues that it keeps for whoever looks later fill their 8 MiB.
const GROWTH: u64 = 10 << 20;

/// Mails of `smtp-source` in one run of it.
const MAILS: u64 = 200;

/// What it holds of its own: the ring is the kernel's.
#[derive(Debug)]
struct Held {
    memory: u64,
    descriptors: usize,
}

impl Held {
    fn by(agent: &Agent) -> Result<Self> {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", agent.pid()))?.count();
        Ok(Self { memory: agent.memory("RssAnon")?, descriptors })
    }
}

/// A mail for each connection, mails on kept connections, programs that live for milliseconds, clients that hang up in the middle,
/// and noise.
#[test]
fn a_mixed_load() -> Result<()> {
    let _alone = crate::alone();
    let duration = crate::duration(Duration::from_secs(9))?;
    let agent = Agent::start_silent(&["--port", &PORT.to_string(), "--ring-size", "64MiB"])?;
    let host = Host::new()?;
    let mut sink = host.command(machine::installed("smtp-sink")?);
    sink.args(["-u", "nobody", SINK, "256"]);
    let _sink = Running::start(sink)?;
    host.wait_listens(SINK)?;

    let (over, mails) = (AtomicBool::new(false), AtomicU64::new(0));
    let again = |step: &(dyn Fn() -> Result<u64> + Sync)| -> Result<()> {
        while !over.load(Ordering::Relaxed) {
            mails.fetch_add(step()?, Ordering::Relaxed);
        }
        Ok(())
    };
    let source = |more: &[&str]| -> Result<u64> {
        let mut source = host.command(machine::installed("smtp-source")?);
        source.args(["-s", "10", "-m", &MAILS.to_string(), "-l", "1000"]).args(more).arg(SINK);
        process::run(source)?;
        Ok(MAILS)
    };
    let brief = || -> Result<u64> {
        let mut client = host.command(machine::sibling("brief-client")?);
        client.arg(SINK);
        process::run(client).map(|_| 0)
    };
    let (early, late) = thread::scope(|scope| -> Result<(Held, Held)> {
        let loads = [
            scope.spawn(|| again(&|| source(&[]))),
            scope.spawn(|| again(&|| source(&["-d"]))),
            scope.spawn(|| again(&brief)),
            scope.spawn(|| again(&|| strange(&host).map(|()| 0))),
        ];
        let begun = Instant::now();
        let watch = || -> Result<(Held, Held)> {
            thread::sleep(duration / 3);
            let early = Held::by(&agent)?;
            thread::sleep(duration.saturating_sub(begun.elapsed()));
            Ok((early, Held::by(&agent)?))
        };
        let held = watch();
        over.store(true, Ordering::Relaxed);
        for load in loads {
            load.join().map_err(|_| anyhow::anyhow!("a load panicked"))??;
        }
        held
    })?;

    let sum =
        |metric: &str, labels: &[&str]| -> Result<f64> { Ok(agent.metrics()?.sum(metric, labels).unwrap_or_default()) };
    let lost = sum("smtp_observer_kernel_events_lost_total", &[])?;
    let misses = sum("smtp_observer_recursion_misses_total", &[])?;
    let accepted = sum("smtp_transactions_total", &["role=\"server\"", "outcome=\"delivered\""])?;
    let sent = mails.into_inner() as f64;
    println!(
        "{sent} mails in {duration:?}, {accepted} seen, {lost} events lost, {misses} hooks skipped; {early:?}, {late:?}"
    );
    ensure!(accepted <= sent && (accepted == sent || lost + misses > 0.0), "{accepted} of {sent} mails were seen");
    ensure!(late.memory <= early.memory + GROWTH, "from {} to {} bytes", early.memory, late.memory);
    ensure!(late.descriptors <= early.descriptors, "{early:?}, {late:?}");
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{:?}", stopped.log);
    Ok(())
}

/// Sessions that end as none should: a server that says no SMTP, a client that is reset in its message.
fn strange(host: &Host) -> Result<()> {
    const PLACE: &str = "127.0.0.2:2660";
    let mut noise = Dialogue::open(host, host, PLACE)?;
    noise.server_says(b"\x00\x01 not a greeting\r\n-\r\n")?;
    noise.client_says(b"GET / HTTP/1.1\r\nHost: mail\r\n\r\n")?;
    noise.client.shutdown(Shutdown::Both).context("hanging up")?;
    let mut cut = Dialogue::open(host, host, PLACE)?;
    cut.play(
        "S: 220 server.example ESMTP
        C: EHLO client.example
        S: 250 server.example
        C: MAIL FROM:<alice@client.example>
        S: 250 Ok
        C: RCPT TO:<bob@server.example>
        S: 550 no such user
        C: DATA
        S: 354 go ahead
        C: a line of many",
    )
}
