//! The benchmarks: what the agent costs others, and what it takes for itself. Prints Markdown.
//!
//! - [`compared`]: the same with the agent, with empty programs in its place, and without
//! - [`empty`]: these empty programs
//! - [`calls`], [`mails`], [`libraries`]: what is measured
//! - [`crowd`]: connections that are open beside it
//! - [`agent`]: what the agent takes meanwhile
//! - [`pipeline`]: what user space takes of an event, stage by stage
//! - [`fleet`]: what many hosts give those who keep it

mod agent;
mod calls;
mod compared;
mod crowd;
mod empty;
mod fleet;
mod libraries;
mod mails;
mod pipeline;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use smtp_observer_tests::machine;
use smtp_observer_tests::relay::{Relay, Security};

use crate::agent::Load;
use crate::compared::{Hooks, Rounds, Spread};
use crate::crowd::Crowd;
use crate::libraries::Idle;
use crate::mails::Sink;

/// What the agent costs others, and what it takes for itself.
#[derive(Parser)]
struct Arguments {
    /// What is measured; without it, all that one host takes.
    #[command(subcommand)]
    what: Option<What>,
    /// Rounds, each with the agent and without.
    #[arg(long, global = true, default_value_t = 7)]
    rounds: usize,
    /// Calls in a measurement of calls.
    #[arg(long, default_value_t = 400_000)]
    calls: usize,
    /// Mails in a measurement of throughput; three times as many where connections are kept.
    #[arg(long, default_value_t = 20_000)]
    mails: usize,
    /// Connections that are open beside a measurement of throughput; each has both its ends on this host.
    #[arg(long, default_value_t = 25_000)]
    open: usize,
    /// Mails in a measurement of throughput between two mail servers.
    #[arg(long, default_value_t = 1_000)]
    relayed: usize,
    /// Processes that have loaded a library of TLS while it is measured how long it takes to probe it.
    #[arg(long, default_value_t = 2_000)]
    processes: usize,
    /// Holds these connections to this address open, as a part of such a measurement.
    #[arg(long, hide = true)]
    hold: Option<String>,
}

/// A part of the benchmarks.
#[derive(clap::Subcommand)]
enum What {
    /// What user space takes of an event, stage by stage.
    Pipeline,
    /// Series, bytes and lines of a host, and what a Prometheus and a VictoriaMetrics take for a thousand of them.
    Fleet(fleet::Options),
    /// What it costs two mail servers of which one hands on to the other what it gets.
    Relay,
    /// What reading TLS costs a mail server, and how long it takes until probes stand.
    Tls,
}

fn main() -> Result<()> {
    let Arguments { what, rounds, calls, mails, open, relayed, processes, hold } = Arguments::parse();
    if let Some(address) = hold {
        crowd::hold(&address, open)?;
    }
    ensure!(rounds > 0 && calls > 0 && mails > 0 && relayed > 0, "nothing to measure");
    match &what {
        Some(What::Pipeline) => return pipeline::print(rounds),
        Some(What::Fleet(options)) => return fleet::print(options),
        Some(What::Relay | What::Tls) | None => {}
    }
    if what.is_none() {
        pipeline::print(rounds)?;
    }
    let mut rounds = Rounds { number: rounds, family: agent::family()?, start_ups: Vec::new() };
    println!("Hooks: {}.\n", rounds.family);
    match what {
        Some(What::Tls) => return print_tls(&mut rounds, relayed, processes),
        Some(What::Relay) => return print_relay(&mut rounds, relayed),
        _ => {}
    }

    let mut loads = Vec::new();
    print_calls(&mut rounds, calls, &mut loads)?;
    print_mails(&mut rounds, mails, &mut loads)?;
    print_crowd(&mut rounds, mails, open)?;
    print_relay(&mut rounds, relayed)?;
    print_agent(&rounds, &loads)?;
    print_tls(&mut rounds, relayed, processes)
}

fn print_calls(rounds: &mut Rounds, calls: usize, loads: &mut Vec<Load>) -> Result<()> {
    println!("| a call | no hook, ns | an empty program adds, ns | the agent adds, ns | agent to empty | aim |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let all = [Hooks::None, Hooks::Empty, Hooks::Agent];
    let nothing = rounds.compare(all, |_| calls::that_move_nothing(calls))?;
    print_added("that moves nothing, port not watched", &nothing, "≤ 2, < 60 ns");
    let unwatched = rounds.compare(all, |_| calls::of_a_dialogue(calls, calls::UNWATCHED))?;
    print_added("that moves a line, port not watched", &unwatched, "≤ 2, < 60 ns");
    let watched =
        rounds.compare(all, |agent| Load::of(agent, loads, || calls::of_a_dialogue(calls, calls::WATCHED)))?;
    print_added("that moves a line, port 25: an event", &watched, "");
    let content = rounds.compare(all, |agent| Load::of(agent, loads, || calls::of_content(calls)))?;
    print_added("that moves 4,096 bytes of content, port 25: an event", &content, "");
    Ok(())
}

fn print_added(what: &str, [none, empty, agent]: &[Vec<f64>; 3], aim: &str) {
    let added = |to: &[f64]| Spread::between(none, to, |none, with| with - none);
    let (by_empty, by_agent) = (added(empty), added(agent));
    println!(
        "| {what} | {} | {} | {} | {:.2} | {aim} |",
        Spread::of(none.iter().copied()).show(0),
        by_empty.show(0),
        by_agent.show(0),
        by_agent.median / by_empty.median,
    );
}

fn print_mails(rounds: &mut Rounds, mails: usize, loads: &mut Vec<Load>) -> Result<()> {
    println!("\n| mails a second | without | with | ratio | aim |");
    println!("| --- | --- | --- | --- | --- |");
    for (what, keep, mails) in [("a connection each", false, mails), ("on kept connections", true, 3 * mails)] {
        let sink = Sink::start()?;
        let [without, with] = rounds
            .compare([Hooks::None, Hooks::Agent], |agent| Load::of(agent, loads, || sink.throughput(mails, keep)))?;
        println!(
            "| {what} | {} | {} | {} | ≥ 0.95 |",
            Spread::of(without.iter().copied()).show(0),
            Spread::of(with.iter().copied()).show(0),
            Spread::between(&without, &with, |without, with| with / without).show(3),
        );
    }
    Ok(())
}

/// How much slower connections come and go while many others are open, with the agent and without.
fn print_crowd(rounds: &mut Rounds, mails: usize, open: usize) -> Result<()> {
    let sink = Sink::start()?;
    let slowed = |_: Option<&_>| -> Result<f64> {
        let alone = sink.throughput(mails, false)?;
        // With its servers it is gone at once, and takes nothing from the next measurement.
        let _crowd = Crowd::gather(sink.host(), open)?;
        Ok(sink.throughput(mails, false)? / alone)
    };
    let [without, with] = rounds.compare([Hooks::None, Hooks::Agent], slowed)?;
    println!(
        "\n| beside {} open sockets, mails a second, each on its own connection | to those beside none | aim |",
        2 * open
    );
    println!("| --- | --- | --- |");
    println!("| without the agent | {} | |", Spread::of(without.iter().copied()).show(3));
    println!("| with it | {} | |", Spread::of(with.iter().copied()).show(3));
    println!(
        "| with it to without | {} | ≥ 0.9 |",
        Spread::between(&without, &with, |without, with| with / without).show(3)
    );
    Ok(())
}

/// What the agent costs a mail server that hands on what it gets to another, in clear: both are on this host, and all four ends
/// are followed.
fn print_relay(rounds: &mut Rounds, mails: usize) -> Result<()> {
    let relay = Relay::start(Security::None)?;
    let mut processor = [Vec::new(), Vec::new()];
    let mut loads = Vec::new();
    let [without, with] = rounds.compare([Hooks::None, Hooks::Agent], |agent| {
        Load::of(agent, &mut loads, || {
            let before = machine::processor_time()?;
            let rate = relay.throughput(mails)?;
            let used = machine::processor_time()? - before;
            processor[usize::from(agent.is_some())].push(used.as_secs_f64() * 1e6 / mails as f64);
            Ok(rate)
        })
    })?;
    let [used_without, used_with] = processor;
    // The first was a warm-up.
    let used_without = &used_without[1..];
    println!("\n| from one Postfix to another | without | with | ratio | aim |");
    println!("| --- | --- | --- | --- | --- |");
    for (what, without, with, aim) in [
        ("mails a second", &without[..], &with[..], "≥ 0.97"),
        ("the host's processor time a mail, µs", used_without, &used_with, "≤ 1.04"),
    ] {
        println!(
            "| {what} | {} | {} | {} | {aim} |",
            Spread::of(without.iter().copied()).show(0),
            Spread::of(with.iter().copied()).show(0),
            Spread::between(without, with, |without, with| with / without).show(3),
        );
    }
    for (what, of) in [
        ("events a mail", (|load| load.events) as fn(&Load) -> f64),
        ("the agent's own processor time a mail, µs", |load| load.events * load.nanoseconds / 1e3),
    ] {
        println!("| {what} | | {} | | |", Spread::of(loads.iter().map(|load| of(load) / mails as f64)).show(1));
    }
    Ok(())
}

/// What reading TLS costs a mail server that hands on what it gets, and how long it takes until probes stand.
fn print_tls(rounds: &mut Rounds, mails: usize, processes: usize) -> Result<()> {
    let relay = Relay::start(Security::Tls)?;
    let whose = ["off", "auto", "all"].map(Hooks::Tls);
    let measured = rounds.compare(whose, |agent| {
        let rate = relay.throughput(mails)?;
        let Some(agent) = agent else { return Ok((rate, 0.0)) };
        let metrics = agent.metrics()?;
        let sessions = |labels: &[&str]| metrics.sum("smtp_tls_sessions_total", labels).unwrap_or_default();
        Ok((rate, sessions(&["visible=\"true\""]) / sessions(&[])))
    })?;
    let [off, auto, all] = measured.map(|rounds| rounds.into_iter().unzip::<f64, f64, Vec<_>, Vec<_>>());
    println!(
        "\n| mails a second from one Postfix to another, inside of TLS | `--tls` | to `off` | aim | sessions read |"
    );
    println!("| --- | --- | --- | --- | --- |");
    println!("| {} | `off` | | | |", Spread::of(off.0.iter().copied()).show(0));
    for (whose, (rates, read)) in [("auto", auto), ("all", all)] {
        let ratio = Spread::between(&off.0, &rates, |off, with| with / off);
        let (rate, read) = (Spread::of(rates.iter().copied()).show(0), Spread::of(read).show(3));
        println!("| {rate} | `{whose}` | {} | ≥ 0.95 | {read} |", ratio.show(3));
    }

    let measure = |probes: fn() -> Result<Duration>| -> Result<Vec<f64>> {
        (0..rounds.number).map(|_| Ok(probes()?.as_secs_f64() * 1e3)).collect()
    };
    let measures = [
        (
            "from a process's first use of the port to its probes (`auto`, where others call the library often), ms",
            libraries::first_use as fn() -> Result<_>,
        ),
        ("from the start to probes in all processes (`all`), ms", libraries::everybody),
    ];
    println!("\n| until probes stand | alone | among {processes} processes with OpenSSL | aim |");
    println!("| --- | --- | --- | --- |");
    for (what, probes) in measures {
        let alone = measure(probes)?;
        let idle = Idle::gather(processes)?;
        let among = measure(probes)?;
        drop(idle);
        println!("| {what} | {} | {} | ≤ 2,000 |", Spread::of(alone).show(0), Spread::of(among).show(0));
    }
    Ok(())
}

fn print_agent(rounds: &Rounds, loads: &[Load]) -> Result<()> {
    println!("\n| the agent itself | median (lowest to highest) | aim |");
    println!("| --- | --- | --- |");
    let of = |value: fn(&Load) -> f64| Spread::of(loads.iter().map(value));
    let start_ups = Spread::of(rounds.start_ups.iter().map(|time| time.as_secs_f64() * 1e3));
    for (what, spread, digits, aim) in [
        ("from start to `observing`, ms", start_ups, 0, "< 500"),
        ("its processor time an event under a load, ns", of(|load| load.nanoseconds), 0, ""),
        ("events a second under a load", of(|load| load.rate), 0, ""),
        ("wake-ups a thousand events under a load", of(|load| load.wake_ups), 2, ""),
        ("kernel events lost under a load", of(|load| load.lost), 0, "0"),
        ("wake-ups a second on an idle host", Spread::of(agent::idle_wake_ups()?), 0, "a few"),
        ("resident memory behind a load, MB", of(|load| load.resident), 0, "< 25"),
        ("its peak, MB", of(|load| load.peak), 0, ""),
    ] {
        println!("| {what} | {} | {aim} |", spread.show(digits));
    }
    Ok(())
}
