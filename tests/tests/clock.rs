//! The clock is set, and the host sleeps, in the middle of a mail: times follow the clock, durations do not, and have the sleep
//! in them.
//!
//! Both are done to the whole machine. So only guests run these: `cargo xtask kernels --test right_where`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{Timestamp, ToSpan as _};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use nix::unistd::getppid;
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::seen::Observed;

const SERVER: &str = "10.77.0.2:25";

/// Longer than a test takes.
const HOURS: i64 = 3;

/// How long the host sleeps at least.
const SLEEP: Duration = Duration::from_secs(3);

/// What any step of a test takes at most on an emulated processor.
const STEP: f64 = 60.0;

fn in_a_guest() -> Result<()> {
    ensure!(getppid().as_raw() == 1, "this sets the machine's clock and has it sleep: run `cargo xtask kernels`");
    Ok(())
}

/// Puts the wall clock so many hours forward.
fn set_clock(hours: i64) -> Result<()> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
    clock_settime(ClockId::CLOCK_REALTIME, now + TimeSpec::new(hours * 3600, 0)).context("the clock cannot be set")
}

/// Has the host sleep, and its clock wake it.
fn sleep() -> Result<()> {
    let alarm = Path::new("/sys/class/rtc/rtc0/wakealarm");
    let write = |path: &Path, value: &str| {
        fs::write(path, value).with_context(|| format!("{value} cannot be written to {}", path.display()))
    };
    write(alarm, &format!("+{}", SLEEP.as_secs() + 1))?;
    write(Path::new("/sys/power/mem_sleep"), "deep")?;
    write(Path::new("/sys/power/state"), "mem")
}

/// What the host has slept since it was started, in seconds.
fn slept() -> Result<f64> {
    let seconds = |clock| Ok::<_, anyhow::Error>(Duration::from(clock_gettime(clock)?).as_secs_f64());
    Ok(seconds(ClockId::CLOCK_BOOTTIME)? - seconds(ClockId::CLOCK_MONOTONIC)?)
}

fn is_now(observed: &Observed) -> Result<()> {
    let told: Timestamp = observed.text("/time").context("no time")?.parse()?;
    let now = Timestamp::now();
    ensure!((now - 1.minute()..=now).contains(&told), "it is {now}, and {observed} is told");
    Ok(())
}

fn seconds(observed: &Observed, pointer: &str) -> Result<f64> {
    observed.number(pointer).with_context(|| format!("no {pointer} in {}", observed.json()))
}

/// A mail, with something in the middle of its content.
fn mail(meanwhile: impl FnOnce() -> Result<()>) -> Result<Vec<[Observed; 3]>> {
    let (client, server) = Host::pair()?;
    let agent = Agent::start(&[])?;
    let mut dialogue = Dialogue::open(&client, &server, SERVER)?;
    dialogue.play(
        "S: 220 server.example ESMTP
         C: EHLO client.example
         S: 250 server.example
         C: MAIL FROM:<a@client.example>
         S: 250 Ok
         C: RCPT TO:<b@server.example>
         S: 250 Ok
         C: DATA
         S: 354 go ahead
         C: Subject: a test",
    )?;
    agent.wait_for("DATA at both ends", &[&client, &server], |seen| {
        let is_data = |observed: &Observed| observed.text("/verb") == Some("DATA");
        seen.of("smtp.command").only(is_data).0.len() == 2
    })?;
    meanwhile()?;
    dialogue.play("C: .\nS: 250 Ok")?;
    agent.wait_for("the mail at both ends", &[&client, &server], |seen| seen.count("smtp.data") == 2)?;
    dialogue.play("C: QUIT\nS: 221 Bye")?;
    dialogue.close()?;
    let seen = agent.wait_closed(&[&client, &server], 2)?;
    assert_eq!(seen.count("smtp.anomaly"), 0, "{seen}");
    ["client", "server"]
        .map(|role| {
            let end = seen.side(role)?;
            let told = [end.one("smtp.data")?, end.command("QUIT")?, end.one("connection.closed")?];
            told.iter().try_for_each(is_now)?;
            Ok(told)
        })
        .into_iter()
        .collect()
}

#[test]
fn durations_stay_right_where_the_clock_is_set() -> Result<()> {
    in_a_guest()?;
    for hours in [HOURS, -HOURS] {
        for [data, quit, closed] in mail(|| set_clock(hours))? {
            ensure!((0.0..STEP).contains(&seconds(&data, "/transfer_seconds")?), "{}", data.json());
            ensure!((0.0..STEP).contains(&seconds(&quit, "/latency_seconds")?), "{}", quit.json());
            ensure!((0.0..STEP).contains(&seconds(&closed, "/duration_seconds")?), "{}", closed.json());
        }
    }
    Ok(())
}

#[test]
fn durations_stay_right_where_the_host_sleeps() -> Result<()> {
    in_a_guest()?;
    let before = slept()?;
    for [data, _, closed] in mail(sleep)? {
        let slept = slept()? - before;
        ensure!(slept >= SLEEP.as_secs_f64() - 0.5, "the host has slept for {slept} s");
        for (observed, pointer) in [(&data, "/transfer_seconds"), (&closed, "/duration_seconds")] {
            ensure!((slept..slept + STEP).contains(&seconds(observed, pointer)?), "{slept}: {}", observed.json());
        }
    }
    Ok(())
}
