//! Many connections, at once and one after the other.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{Shutdown, shutdown};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::feed::PATIENCE;
use smtp_observer_tests::greeted::{GREETING, Greeted};
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{self, Running};

/// As many sockets as are followed at once (`docs/limits.md`).
const MAX_FOLLOWED: f64 = 65_536.0;

/// Connections of one process: both ends of them fit into the 20,000 descriptors that root has in many a container.
const OF_ONE_PROCESS: usize = 9_000;

/// All ports but those of the system are there for connections.
fn widen_ports() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")
}

/// On its own host, in a thread that is on it.
fn on_a_host<T: Send>(work: impl FnOnce(&TcpListener) -> Result<T> + Send, port: u16) -> Result<T> {
    let host = Host::new()?;
    host.enter(|| {
        widen_ports()?;
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        Ok(work(&listener))
    })?
}

/// What of these connections was told at both ends, and how many events were lost.
fn opened(agent: &Agent) -> Result<(f64, f64)> {
    let metrics = agent.metrics()?;
    let sum = |metric: &str| metrics.sum(metric, &[]).with_context(|| format!("no {metric}"));
    Ok((sum("smtp_connections_total")?, sum("smtp_observer_kernel_events_lost_total")?))
}

/// So many that are open at the same time: each end is counted while it is open, or as one that is followed no longer, and
/// none is open afterwards.
#[test]
fn at_once() -> Result<()> {
    const PORT: u16 = 2640;
    let _alone = crate::alone();
    let connections = crate::setting("SMTP_OBSERVER_LOAD_CONNECTIONS")?.unwrap_or(4_000_usize);
    let agent = Agent::start_silent(&["--port", &PORT.to_string()])?;
    let before = agent.memory("VmRSS")?;
    let open = || -> Result<f64> { agent.metrics()?.sum("smtp_connections_open", &[]).context("no open connections") };
    let host = Host::new()?;
    host.enter(widen_ports)?;
    let mut crowds = Vec::new();
    for (number, first) in (0..connections).step_by(OF_ONE_PROCESS).enumerate() {
        let mut crowd = host.command(machine::sibling("crowd")?);
        // An address each: all of a host's ports are there for each of them.
        crowd.arg(format!("127.0.0.{}:{PORT}", number + 1));
        crowd.arg((connections - first).min(OF_ONE_PROCESS).to_string());
        let (crowd, input) = Running::start_with_input(crowd)?;
        let is_open = |lines: &[String]| lines.iter().any(|line| line == "open").then_some(());
        crowd.log.wait_for("`open`", is_open)?;
        crowds.push((crowd, input));
    }
    let (held, peak) = (open()?, agent.memory("VmRSS")?);
    let unfollowed = agent.metrics()?.sum("smtp_observer_connections_unfollowed_total", &[]).unwrap_or_default();
    for (crowd, input) in crowds {
        drop(input);
        process::succeeded("crowd", crowd)?;
    }
    let (told, lost) = opened(&agent)?;
    println!(
        "{connections} connections: {held} ends open, {unfollowed} followed no longer, {told} told, {lost} events lost, \
         {} KiB grown",
        (peak - before) / 1024
    );
    let (ends, known) = (2.0 * connections as f64, held + unfollowed);
    ensure!(known + lost >= ends && known <= ends, "of {ends} ends {held} are open, {unfollowed} followed no longer");
    ensure!(held <= MAX_FOLLOWED && (unfollowed == 0.0 || ends > MAX_FOLLOWED), "{held} are open, {unfollowed} let go");
    wait_until_none(open)
}

/// One after the other, as fast as they can be made.
#[test]
fn a_second() -> Result<()> {
    const PORT: u16 = 2641;
    let _alone = crate::alone();
    let duration = crate::duration(Duration::from_secs(2))?;
    let agent = Agent::start_silent(&["--port", &PORT.to_string()])?;
    let made = on_a_host(
        |listener| {
            let (mut made, begun) = (0_u32, Instant::now());
            while begun.elapsed() < duration {
                Greeted::at(listener)?;
                made += 1;
            }
            Ok(made)
        },
        PORT,
    )?;
    let (told, lost) = opened(&agent)?;
    println!("{made} connections in {duration:?}: {told} ends told, {lost} events lost");
    let ends = 2.0 * f64::from(made);
    ensure!(told <= ends && told + lost >= ends, "of {ends} ends {told} were told, and {lost} events were lost");
    wait_until_none(|| agent.metrics()?.sum("smtp_connections_open", &[]).context("no open connections"))
}

/// Programs that live for one connection each, as many as the machine can start: each is named, or an event of it was lost.
#[test]
fn programs_a_second() -> Result<()> {
    const PORT: u16 = 2642;
    const AT_ONCE: usize = 4;
    const ORDINARY: Duration = Duration::from_secs(2);
    let _alone = crate::alone();
    let duration = crate::duration(ORDINARY)?;
    // What is remembered of processes and connections is bounded; in a longer run these bounds are reached.
    let bound = if duration > ORDINARY { 48 << 20 } else { 16 << 20 };
    let program = machine::sibling("brief-client")?;
    let agent = Agent::start_silent(&["--port", &PORT.to_string()])?;
    let before = agent.memory("VmRSS")?;
    let address = format!("127.0.0.1:{PORT}");
    let run_all = |end: Instant| -> Result<u32> {
        let mut ran = 0;
        while Instant::now() < end {
            let status = Command::new(&program).arg(&address).arg(format!("--number={ran}")).status()?;
            ensure!(status.success(), "a client ended with {status}");
            ran += 1;
        }
        Ok(ran)
    };
    let ran = on_a_host(
        |listener| {
            let end = Instant::now() + duration;
            let ended = AtomicBool::new(false);
            thread::scope(|scope| {
                // Each is gone before the next one is told what it is. One that resets its connection is no reason to stop.
                scope.spawn(|| {
                    for stream in listener.incoming() {
                        if ended.load(Ordering::Relaxed) {
                            break;
                        }
                        let _ = stream.and_then(|mut stream| {
                            stream.write_all(GREETING)?;
                            stream.read_to_end(&mut Vec::new())
                        });
                    }
                });
                let runners: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| run_all(end))).collect();
                let ran = runners.into_iter().map(|runner| runner.join().ok().context("a runner panicked")?);
                let ran = ran.sum::<Result<u32>>();
                ended.store(true, Ordering::Relaxed);
                // It takes no more, and says so to who waits for one.
                shutdown(listener.as_raw_fd(), Shutdown::Both)?;
                ran
            })
        },
        PORT,
    )?;
    let metrics = agent.metrics()?;
    let sum = |metric: &str, labels: &[&str]| metrics.sum(metric, labels).unwrap_or_default();
    let named = sum("smtp_connections_total", &["process=\"brief-client\"", "role=\"client\""]);
    let lost = sum("smtp_observer_kernel_events_lost_total", &[]);
    let grown = agent.memory("VmRSS")?.saturating_sub(before);
    println!("{ran} programs in {duration:?}: {named} named, {lost} events lost, {} KiB grown", grown / 1024);
    let ran = f64::from(ran);
    ensure!(named <= ran && named + lost >= ran, "of {ran} programs {named} were named, and {lost} events were lost");
    ensure!(grown <= bound, "{grown} bytes grown, {bound} are allowed");
    wait_until_none(|| agent.metrics()?.sum("smtp_connections_open", &[]).context("no open connections"))
}

/// Nothing says when the last end was told.
fn wait_until_none(open: impl Fn() -> Result<f64>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match open()? {
            0.0 => return Ok(()),
            left => ensure!(Instant::now() < deadline, "{left} ends are still open"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}
