//! What many hosts give those who keep it: the series, bytes and lines of hosts of several kinds, from the agent under real
//! loads; and a Prometheus with a store behind it that scrape a thousand hosts like them.
//!
//! - [`kinds`]: hosts, and what the agent says of them
//! - [`scrape`]: a scrape that was measured, and what later ones of another such host are
//! - [`stand_ins`]: what answers in place of a thousand agents
//! - [`stores`]: Prometheus and VictoriaMetrics, and what they take

mod kinds;
mod scrape;
mod stand_ins;
mod stores;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use self::kinds::{Kind, Measured};
use self::stores::Simulation;

/// How large a fleet, and how long.
#[derive(Args)]
pub struct Options {
    /// Hosts of the fleet.
    #[arg(long, default_value_t = 1000)]
    hosts: u16,
    /// Seconds between two scrapes of a host.
    #[arg(long, default_value_t = 15)]
    interval: u32,
    /// How long the fleet is scraped, in seconds; a store shows what came half a minute ago, and rules look at that.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(120..))]
    seconds: u64,
    /// Prometheus forwards only, and drops what `deploy/prometheus/fleet-agent.yml` drops.
    #[arg(long)]
    forward: bool,
    /// Keeps the events that were measured in this file.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
}

/// Prints both tables.
pub fn print(options: &Options) -> Result<()> {
    let measured = Kind::ALL.into_iter().map(Kind::measure).collect::<Result<Vec<_>>>()?;
    if let Some(place) = &options.events {
        let lines: Vec<&str> = measured.iter().flat_map(|measured| &measured.events).map(String::as_str).collect();
        fs::write(place, lines.join("\n") + "\n")?;
    }
    print_kinds(&measured);
    let simulation = Simulation {
        hosts: options.hosts,
        interval: options.interval,
        time: Duration::from_secs(options.seconds),
        forward: options.forward,
    };
    simulation.play(measured)?.print();
    Ok(())
}

fn print_kinds(measured: &[Measured]) {
    println!(
        "\n| a host | series | of these commands' durations | bytes of a scrape | gzip | events a mail | bytes a mail |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for Measured { kind, last, events, mails, compressed, .. } in measured {
        let by_verb = last.series().filter(|series| series.starts_with("smtp_command_duration_seconds")).count();
        let bytes: usize = events.iter().map(|line| line.len() + 1).sum();
        let a_mail = |number: usize| match mails {
            0 => String::new(),
            mails => format!("{:.1}", number as f64 / *mails as f64),
        };
        println!(
            "| {} | {} | {by_verb} | {} | {compressed} | {} | {} |",
            kind.name(),
            last.series().collect::<BTreeSet<_>>().len(),
            last.text().len(),
            a_mail(events.len()),
            a_mail(bytes),
        );
    }
}
