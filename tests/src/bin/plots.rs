//! Plots of the dashboard's panels from a real run: mail traffic, an antivirus that comes into its way, the agent, and the
//! Prometheus that scrapes it. They are written as PNGs into a directory.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::grafana::{Target, built_in, dashboard, panels, substituted, targets, text};
use smtp_observer_tests::process::Running;
use smtp_observer_tests::prometheus::{INTERVAL, Prometheus, now};
use smtp_observer_tests::traffic::{Traffic, antivirus};
use smtp_observer_tests::unpacked::Root;

/// Draws what it reads from standard input.
const DRAW: &str = include_str!("plots.py");

/// The step of a plot, in seconds.
const STEP: u32 = 5;

/// Each image: its file, and titles of panels.
const IMAGES: [(&str, [&str; 3]); 2] = [
    ("interception.png", ["Intercepted connections", "NOOP by reason", "RSET by reason"]),
    (
        "data.png",
        [
            "From DATA to its 354: quantiles",
            "From the 354 to the end of the content: quantiles",
            "Commands by class of reply",
        ],
    ),
];

#[derive(Parser)]
struct Cli {
    /// Where the images go
    #[arg(default_value = "docs/images")]
    directory: PathBuf,
    /// How long mail is sent, in seconds; the antivirus comes after a third of it
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    // Found missing before the run, not behind it.
    let root = Root::new("matplotlib", &[])?;
    let agent = Agent::start_silent(&[])?;
    let prometheus = Prometheus::start(agent.http, "groups: []")?;
    let traffic = Traffic::start()?;
    let begin = now();
    send(&traffic, Duration::from_secs(cli.seconds))?;
    traffic.stop()?;
    prometheus.catch_up()?;
    let end = now();

    let mut images = Vec::new();
    for (file, titles) in IMAGES {
        let panels = titles.map(|title| panel(&prometheus, title, [begin, end])).into_iter();
        images.push(json!({ "file": file, "panels": panels.collect::<Result<Vec<_>>>()? }));
    }
    // Empty: all as it comes.
    root.write("etc/matplotlibrc", "")?;
    root.write("input", &json!({ "begin": begin, "end": end, "images": images }).to_string())?;
    let mut python = root.command_here("/usr/bin/python3")?;
    // An installation would have made links to these.
    let libraries = ["blas", "lapack"].map(|name| format!("/usr/lib/x86_64-linux-gnu/{name}"));
    python.env("LD_LIBRARY_PATH", libraries.join(":")).args(["-c", DRAW]);
    let drawn = Running::start(python)?.finish()?;
    ensure!(drawn.status.success(), "the plots cannot be drawn: {}", drawn.log.join("\n"));
    fs::create_dir_all(&cli.directory)?;
    for (file, _) in IMAGES {
        let place = cli.directory.join(file);
        fs::write(&place, root.read(&format!("tmp/{file}"))?)?;
        println!("{}", place.display());
    }
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{}", stopped.log.join("\n"));
    Ok(())
}

/// Mail all the time, some of it refused; after a third of the time, and for another third, some through an antivirus.
fn send(traffic: &Traffic, time: Duration) -> Result<()> {
    let begin = Instant::now();
    let is_before = |thirds: u32| begin.elapsed() < time * thirds / 3;
    thread::scope(|scope| {
        let scanned = scope.spawn(|| -> Result<()> {
            while is_before(1) {
                thread::sleep(Duration::from_millis(100));
            }
            while is_before(2) {
                antivirus()?;
            }
            Ok(())
        });
        for count in (2..10).chain((3..9).rev()).cycle().take_while(|_| is_before(3)) {
            traffic.mail(count)?;
            if count % 4 == 0 {
                traffic.refused()?;
            }
            thread::sleep(Duration::from_secs(1));
        }
        scanned.join().ok().context("the antivirus's thread panicked")?
    })
}

/// A panel's series, as Grafana would ask for them with all picked.
fn panel(prometheus: &Prometheus, title: &str, [begin, end]: [f64; 2]) -> Result<Value> {
    let dashboard = dashboard()?;
    let mut variables = built_in(INTERVAL, STEP);
    variables.extend(["instance", "process", "role"].map(|name| (name.to_owned(), ".*".to_owned())));
    let panels = panels(&dashboard)?;
    let panel = panels.iter().find(|panel| panel["title"] == title).with_context(|| format!("there is no {title}"))?;
    let mut lines = Vec::new();
    for target in targets(&dashboard)?.iter().filter(|target| target.panel == title) {
        let query = substituted(&target.expression, &variables)?;
        for series in prometheus.query_range(&query, begin, end, STEP)? {
            // JSON knows no NaN: where nothing is, nothing is drawn.
            let values: Vec<_> = series.values.iter().filter(|(_, value)| value.is_finite()).collect();
            lines.push(json!({ "name": Target::name(target, &series), "values": values }));
        }
    }
    Ok(json!({
        "title": title,
        "unit": text(panel, "/fieldConfig/defaults/unit")?,
        "stacked": panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal",
        "lines": lines,
    }))
}
