//! A Prometheus that scrapes a fleet and writes to a VictoriaMetrics behind it, both as Debian has them, and what they take.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use smtp_observer_tests::http::{self, Metrics};
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::Running;
use smtp_observer_tests::unpacked::Root;

use super::kinds::{Kind, Measured};
use super::scrape::Growth;
use super::stand_ins;

const KEEPS: &str = include_str!("../../../../../deploy/prometheus/fleet.yml");
const FORWARDS: &str = include_str!("../../../../../deploy/prometheus/fleet-agent.yml");
const RULES: [(&str, &str); 2] = [
    ("smtp-observer.rules.yml", include_str!("../../../../../deploy/prometheus/smtp-observer.rules.yml")),
    ("fleet.rules.yml", include_str!("../../../../../deploy/prometheus/fleet.rules.yml")),
];

/// Where each is, on the host of both.
const PROMETHEUS: &str = "127.0.0.1:9090";
const STORE: &str = "127.0.0.1:8428";

/// What is to be simulated.
pub struct Simulation {
    /// How many hosts.
    pub hosts: u16,
    /// Seconds between two scrapes of each.
    pub interval: u32,
    /// How long.
    pub time: Duration,
    /// Prometheus keeps nothing, and drops some.
    pub forward: bool,
}

/// What a program has taken.
struct Taken {
    at: Instant,
    metrics: Metrics,
}

impl Taken {
    fn by(host: &Host, address: &str) -> Result<Self> {
        Ok(Self { at: Instant::now(), metrics: Metrics(get(host, address, "/metrics")?) })
    }

    fn sum(&self, metric: &str) -> Result<f64> {
        self.metrics.sum(metric, &[]).with_context(|| format!("there is no {metric}"))
    }

    /// How much a second of a counter was added since then.
    fn rate_since(&self, before: &Self, metric: &str) -> Result<f64> {
        Ok((self.sum(metric)? - before.sum(metric)?) / (self.at - before.at).as_secs_f64())
    }
}

/// What both have taken.
pub struct Outcome {
    simulation: Simulation,
    /// What each line of the table is, for the first and for the second.
    rows: Vec<(&'static str, [String; 2])>,
    /// Samples a second, series, bytes of memory of both, and bytes a sample in the store: what arithmetic goes on with.
    figures: [f64; 5],
}

impl Simulation {
    /// Plays it, with hosts as they were measured.
    pub fn play(self, measured: Vec<Measured>) -> Result<Outcome> {
        let growths =
            measured.iter().map(|measured| Ok((measured.kind, Growth::between(&measured.first, &measured.last)?)));
        let growths = growths.collect::<Result<HashMap<Kind, Growth>>>()?;
        let host = Host::new()?;
        let served = stand_ins::start(&host, growths, Duration::from_secs(self.interval.into()))?;

        let store_root = Root::new("victoria-metrics", &[])?;
        let mut store = store_root.command(&host, "/usr/bin/victoria-metrics")?;
        store.args(["-storageDataPath=/var/store", "-retentionPeriod=1d", &format!("-httpListenAddr={STORE}")]);
        let _store = Running::start(store)?;
        host.wait_listens(STORE)?;
        let rules = if self.forward { Some(Running::start(self.rules(&store_root, &host)?)?) } else { None };
        let root = Root::new("prometheus", &[])?;
        let prometheus = Running::start(self.prometheus(&root, &host)?)?;
        let ready = |lines: &[String]| lines.iter().any(|line| line.contains("Server is ready")).then_some(());
        prometheus
            .log
            .wait_for("Prometheus' `Server is ready`", ready)
            .with_context(|| prometheus.log.so_far().join("\n"))?;

        // The first half is the start: every series is new then.
        thread::sleep(self.time / 2);
        let before = [Taken::by(&host, PROMETHEUS)?, Taken::by(&host, STORE)?];
        let served_before = served.load(Ordering::Relaxed);
        thread::sleep(self.time / 2);
        let after = [Taken::by(&host, PROMETHEUS)?, Taken::by(&host, STORE)?];
        let scraped =
            (served.load(Ordering::Relaxed) - served_before) as f64 / (after[0].at - before[0].at).as_secs_f64();
        let told = || rules.as_ref().map(|rules| rules.log.so_far().join("\n")).unwrap_or_default();
        self.check(&host).with_context(told)?;
        self.outcome(&host, &root, [&before, &after], scraped)
    }

    /// Prometheus with its configuration of `deploy`, but for the hosts and the interval.
    fn prometheus(&self, root: &Root, host: &Host) -> Result<Command> {
        let config = if self.forward { FORWARDS } else { KEEPS };
        let scraped = config.lines().find(|line| line.starts_with("  scrape_interval: ")).context("no interval")?;
        let config = config.replace(scraped, &format!("  scrape_interval: {}s", self.interval));
        root.write("etc/prometheus.yml", &config)?;
        for (name, rules) in RULES {
            root.write(&format!("etc/{name}"), rules)?;
        }
        root.directory("etc/smtp-observer")?;
        let targets: Vec<_> = (0..self.hosts).map(|host| stand_ins::address(host).to_string()).collect();
        root.write("etc/smtp-observer/hosts.yml", &serde_json::json!([{ "targets": targets }]).to_string())?;
        let mut command = root.command(host, "/usr/bin/prometheus")?;
        command.args(["--config.file=/etc/prometheus.yml", &format!("--web.listen-address={PROMETHEUS}")]);
        match self.forward {
            true => command.args(["--enable-feature=agent", "--storage.agent.path=/var/prometheus"]),
            false => command.args(["--storage.tsdb.path=/var/prometheus", "--web.enable-admin-api"]),
        };
        Ok(command)
    }

    /// What evaluates the rules where Prometheus only forwards.
    fn rules(&self, root: &Root, host: &Host) -> Result<Command> {
        let mut vmalert = root.command(host, "/usr/bin/vmalert")?;
        for (name, rules) in RULES {
            root.write(&format!("etc/{name}"), rules)?;
            vmalert.arg(format!("-rule=/etc/{name}"));
        }
        for option in ["datasource", "remoteRead", "remoteWrite"] {
            vmalert.arg(format!("-{option}.url=http://{STORE}"));
        }
        vmalert.args(["-notifier.blackhole", "-httpListenAddr=127.0.0.1:8880"]);
        vmalert.arg(format!("-evaluationInterval={}s", self.interval));
        Ok(vmalert)
    }

    /// All hosts are there, and the one with a program in the middle is found, also by the rules.
    fn check(&self, host: &Host) -> Result<()> {
        get(host, STORE, "/internal/force_flush")?;
        let up = query(host, "count(up{job=\"smtp-observer\"} == 1)")?;
        ensure!(up[0]["value"][1] == format!("{}", self.hosts), "not all hosts are scraped: {up}");
        let found = query(host, "count by (instance, interceptor) (smtp_interceptor_info)")?;
        let names: Vec<_> = found.as_array().into_iter().flatten().map(|row| &row["metric"]).collect();
        let expected = stand_ins::address(0).ip().to_string();
        ensure!(
            names.len() == 1 && names[0]["instance"] == expected && names[0]["interceptor"] == "antivirus-proxy",
            "the program in the middle of {expected} is not found: {found}"
        );
        let recorded = query(host, "job_interceptor_executable_method:smtp_interceptor_hosts:count")?;
        ensure!(recorded[0]["value"][1] == "1", "the rules do not find it: {recorded}");
        Ok(())
    }

    fn outcome(self, host: &Host, root: &Root, [before, after]: [&[Taken; 2]; 2], scraped: f64) -> Result<Outcome> {
        let [series, appended] = match self.forward {
            true => ["prometheus_agent_active_series", "prometheus_agent_samples_appended_total"],
            false => ["prometheus_tsdb_head_series", "prometheus_tsdb_head_samples_appended_total"],
        };
        let [samples, written, stored] = [
            after[0].rate_since(&before[0], appended)?,
            after[0].rate_since(&before[0], "prometheus_remote_storage_bytes_total")?,
            after[1].rate_since(&before[1], "vm_rows_inserted_total")?,
        ];
        let busy = |one: usize| -> Result<String> {
            Ok(format!("{:.0} %", 100.0 * after[one].rate_since(&before[one], "process_cpu_seconds_total")?))
        };
        let series = after[0].sum(series)?;
        let in_store = query(host, "count({job=\"smtp-observer\"})")?[0]["value"][1]
            .as_str()
            .unwrap_or_default()
            .parse::<f64>()?;
        let [first, second] = [0, 1].map(|one| after[one].sum("process_resident_memory_bytes"));
        let (first, second) = (first?, second?);
        get(host, STORE, "/internal/force_merge")?;
        let store = Taken::by(host, STORE)?;
        let in_parts = |metric: &str| {
            let kinds = ["storage/inmemory", "storage/small", "storage/big"];
            kinds.iter().filter_map(|kind| store.metrics.sum(metric, &[&format!("type=\"{kind}\"")])).sum::<f64>()
        };
        let a_sample = in_parts("vm_data_size_bytes") / in_parts("vm_rows");
        let kept = match self.forward {
            true => String::new(),
            false => self.snapshot(host, root, after[0].sum("prometheus_tsdb_head_samples_appended_total")?)?,
        };
        let rows = vec![
            ("series", [format!("{series:.0}"), format!("{in_store:.0}")]),
            ("samples a second", [format!("{samples:.0}"), format!("{stored:.0}")]),
            ("resident memory, MB", [first, second].map(|bytes| format!("{:.0}", bytes / 1e6))),
            ("processor, of one core", [busy(0)?, busy(1)?]),
            ("received, kB a second", [scraped, written].map(|bytes| format!("{:.0}", bytes / 1e3))),
            ("received, bytes a sample", [scraped / samples, written / stored].map(|bytes| format!("{bytes:.1}"))),
            ("on disk, bytes a sample", [kept, format!("{a_sample:.2}")]),
        ];
        Ok(Outcome { simulation: self, rows, figures: [samples, series, first, second, a_sample] })
    }

    /// Bytes a sample in a block that Prometheus writes of what it has.
    fn snapshot(&self, host: &Host, root: &Root, samples: f64) -> Result<String> {
        let address: SocketAddr = PROMETHEUS.parse()?;
        let post = || http::post(address, "/api/v1/admin/tsdb/snapshot").map_err(io::Error::other);
        let (status, body) = host.enter(post)?;
        ensure!(status == 200, "no snapshot: {status}: {body}");
        Ok(format!("{:.2}", bytes_in(&root.directory("var/prometheus/snapshots")?)? as f64 / samples))
    }
}

impl Outcome {
    /// As tables.
    pub fn print(&self) {
        let Self {
            simulation: Simulation { hosts, interval, .. },
            rows,
            figures: [samples, series, first, second, a_sample],
        } = self;
        println!("\n| {hosts} stand-ins, each scraped every {interval} s | Prometheus | VictoriaMetrics |");
        println!("| --- | --- | --- |");
        for (what, [first, second]) in rows {
            println!("| {what} | {first} | {second} |");
        }
        println!("\n| by arithmetic from that | series | samples a second | disk a day, GB | both's memory, GB |");
        println!("| --- | --- | --- | --- | --- |");
        for fleet in [10.0, 1000.0, 100_000.0] {
            let times = fleet / f64::from(*hosts);
            println!(
                "| {fleet} hosts | {:.0} | {:.0} | {:.3} | {:.2} |",
                series * times,
                samples * times,
                samples * times * a_sample * 86400.0 / 1e9,
                (first + second) * times / 1e9,
            );
        }
    }
}

/// What a query of the store is now.
fn query(host: &Host, query: &str) -> Result<Value> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let body = get(host, STORE, &format!("/api/v1/query?query={encoded}"))?;
    let answer: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
    Ok(answer["data"]["result"].clone())
}

fn get(host: &Host, address: &str, path: &str) -> Result<String> {
    let server: SocketAddr = address.parse()?;
    let (status, body) = host.enter(|| http::get(server, path).map_err(io::Error::other))?;
    ensure!(status == 200, "{address}{path} answers {status}: {body}");
    Ok(body)
}

/// The bytes of all files below.
fn bytes_in(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { bytes_in(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}
