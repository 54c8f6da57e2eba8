//! All innocents at once, for a while.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::seen::{Observed, Seen};

use crate::innocents::{self, Innocent, PORTS};
use crate::verdict::check_innocent;

/// How long mail is sent: `SMTP_OBSERVER_LOAD_SECONDS`, or a minute.
fn duration() -> Result<Duration> {
    match std::env::var("SMTP_OBSERVER_LOAD_SECONDS") {
        Ok(seconds) => Ok(Duration::from_secs(seconds.parse().context("SMTP_OBSERVER_LOAD_SECONDS is no number")?)),
        Err(_) => Ok(Duration::from_secs(60)),
    }
}

/// Nobody is accused, whatever goes on beside.
#[test]
fn all_innocents_at_once() -> Result<()> {
    let _turn = crate::alone();
    let innocents = innocents::all()?;
    let folder = tempfile::Builder::new().prefix("smtp-observer-load-").tempdir()?;
    let events = folder.path().join("events");
    // In a file: the events of ten minutes are too many to hold.
    let path = events.to_str().context("the path is no text")?;
    let agent = Agent::start_silent(&["--port", PORTS, "--ring-size", "64MiB", "--events", path])?;
    send_until(Instant::now() + duration()?, &innocents)?;
    let names: BTreeMap<u64, &str> =
        innocents.iter().map(named).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    let mut idle: Vec<_> = innocents.iter().map(|innocent| innocent.name).collect();
    drop(innocents);
    let metrics = agent.metrics()?;
    agent.stop()?;
    // What was not seen cannot be judged.
    assert_eq!(metrics.sum("smtp_observer_kernel_events_lost_total", &[]), Some(0.0));
    assert_eq!(metrics.sum("smtp_observer_sink_dropped_total", &[]), Some(0.0));

    let (mut accepted, mut verdicts) = (0, Seen::default());
    for line in BufReader::new(File::open(&events)?).lines() {
        let observed = Observed::parse(&line?)?;
        match observed.event() {
            "interception" => verdicts.0.push(observed),
            "smtp.transaction" => {
                let name = observed.count("/connection/netns").and_then(|host| names.get(&host));
                if let Some(name) = name
                    && innocents::is_accepted(observed.value())
                {
                    accepted += 1;
                    idle.retain(|other| other != name);
                }
            }
            _ => {}
        }
    }
    println!("{accepted} messages were accepted, {} verdicts were told", verdicts.0.len());
    ensure!(idle.is_empty(), "no mail arrived at {idle:?}");
    // Other tests run beside this one, and not all are innocent.
    let hosts: Vec<_> = names.into_keys().collect();
    check_innocent(&verdicts.only(|observed| observed.is_on(&hosts)))
}

/// How long each innocent takes at least to send mail once: so that none of them has the machine to itself.
const PACE: Duration = Duration::from_millis(250);

/// Each sends mail again and again, all at the same time.
fn send_until(end: Instant, innocents: &[Innocent]) -> Result<()> {
    let again = |innocent: &Innocent| -> Result<()> {
        while Instant::now() < end {
            let next = Instant::now() + PACE;
            innocent.send()?;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = innocents.iter().map(|innocent| scope.spawn(|| again(innocent))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Its hosts, each with its name.
fn named(innocent: &Innocent) -> Result<Vec<(u64, &'static str)>> {
    innocent.hosts.iter().map(|host| Ok((host.inode()?, innocent.name))).collect()
}
