//! Prometheus as it comes, unpacked, and its tool.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::agent;
use crate::feed::PATIENCE;
use crate::http;
use crate::process::{Ended, Running};
use crate::unpacked::Root;

/// Where it is unpacked.
const UNPACKED: &str = "prometheus";

/// How often it scrapes, and looks at its rules, in seconds.
pub const INTERVAL: u32 = 1;

/// Its rules, in its own root.
const RULES: &str = "etc/rules.yml";

/// A Prometheus that scrapes one agent.
#[derive(Debug)]
pub struct Prometheus {
    _running: Running,
    address: SocketAddr,
    _root: Root,
}

/// A series, as a query answers it: its labels, and its values at their times.
#[derive(Debug)]
pub struct Series {
    /// Labels, `__name__` among them where there is one.
    pub labels: BTreeMap<String, String>,
    /// Seconds since the epoch, and the value then.
    pub values: Vec<(f64, f64)>,
}

impl Series {
    /// The value of a label, empty where it has none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// Its last value.
    pub fn last(&self) -> Option<f64> {
        self.values.last().map(|(_, value)| *value)
    }
}

impl Prometheus {
    /// Starts it with these rules, and waits until it answers.
    pub fn start(agent: SocketAddr, rules: &str) -> Result<Self> {
        Self::start_with(agent, &[("smtp-observer", String::new())], &[(RULES, rules)])
    }

    /// Starts it with these jobs, each with a name and further lines of its configuration, and with these files in its own
    /// root, and waits until it answers.
    pub fn start_with(agent: SocketAddr, jobs: &[(&str, String)], files: &[(&str, &str)]) -> Result<Self> {
        let root = Root::new(UNPACKED, &[])?;
        let address = agent::http_address();
        for (place, text) in files {
            root.write(place, text)?;
        }
        let mut configuration = format!(
            "global: {{scrape_interval: {INTERVAL}s, scrape_timeout: {INTERVAL}s, evaluation_interval: {INTERVAL}s}}\n\
             rule_files: [/{RULES}]\nscrape_configs:\n"
        );
        for (name, lines) in jobs {
            configuration += &format!("- job_name: {name}\n  static_configs: [{{targets: [\"{agent}\"]}}]\n{lines}");
        }
        root.write("etc/prometheus.yml", &configuration)?;
        let mut command = root.command_here("/usr/bin/prometheus")?;
        command.args(["--config.file=/etc/prometheus.yml", "--storage.tsdb.path=/var/prometheus"]);
        command.arg(format!("--web.listen-address={address}"));
        let running = Running::start(command)?;
        let ready = |lines: &[String]| lines.iter().any(|line| line.contains("Server is ready")).then_some(());
        running
            .log
            .wait_for("Prometheus' `Server is ready`", ready)
            .with_context(|| running.log.so_far().join("\n"))?;
        Ok(Self { _running: running, address, _root: root })
    }

    /// Waits until it has twice scraped what is so now: whatever has happened is in its data, and its rules have seen it.
    pub fn catch_up(&self) -> Result<()> {
        for _ in 0..2 {
            let now = now();
            self.wait_for("a scrape", &format!("timestamp(smtp_observer_build_info) > {now}"), |series| {
                !series.is_empty()
            })?;
        }
        Ok(())
    }

    /// Asks again until the answer is enough.
    pub fn wait_for(&self, what: &str, query: &str, enough: impl Fn(&[Series]) -> bool) -> Result<Vec<Series>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let series = self.query(query)?;
            if enough(&series) {
                return Ok(series);
            }
            ensure!(Instant::now() < deadline, "Prometheus does not come to {what}: {query} is {series:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What a query is now.
    pub fn query(&self, query: &str) -> Result<Vec<Series>> {
        self.series(&format!("/api/v1/query?query={}", encoded(query)))
    }

    /// What it was from one time to another, once in so many seconds.
    pub fn query_range(&self, query: &str, from: f64, to: f64, step: u32) -> Result<Vec<Series>> {
        self.series(&format!("/api/v1/query_range?query={}&start={from}&end={to}&step={step}", encoded(query)))
    }

    /// The values of a label among the series that a selector picks.
    pub fn label_values(&self, selector: &str, label: &str) -> Result<Vec<String>> {
        let data = self.data(&format!("/api/v1/label/{label}/values?match[]={}", encoded(selector)))?;
        let values = data.as_array().context("the values are no list")?;
        values.iter().map(|value| Ok(value.as_str().context("a value is no text")?.to_owned())).collect()
    }

    /// What type the scrapes say a family of metrics is.
    pub fn kind(&self, family: &str) -> Result<String> {
        let data = self.data(&format!("/api/v1/metadata?metric={family}"))?;
        let kind = data[family][0]["type"].as_str().with_context(|| format!("no type of {family} in {data}"))?;
        Ok(kind.to_owned())
    }

    /// Its rules, each with its health, and an alert with its state.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let data = self.data("/api/v1/rules")?;
        let groups = data["groups"].as_array().context("the groups are no list")?;
        Ok(groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect())
    }

    fn series(&self, path: &str) -> Result<Vec<Series>> {
        let data = self.data(path)?;
        data["result"].as_array().context("a result is no list")?.iter().map(series).collect()
    }

    fn data(&self, path: &str) -> Result<Value> {
        let (status, body) = http::get(self.address, path)?;
        let answer: Value = serde_json::from_str(&body).with_context(|| format!("{status}: {body}"))?;
        match (status, &answer["warnings"], &answer["infos"]) {
            (200, Value::Null, Value::Null) => Ok(answer["data"].clone()),
            _ => bail!("{status}: {body}"),
        }
    }
}

/// Seconds since the epoch.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn series(answer: &Value) -> Result<Series> {
    let labels = answer["metric"].as_object().context("a series has no labels")?;
    let labels = labels.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    let one = std::slice::from_ref(&answer["value"]);
    let values = answer["values"].as_array().map_or(one, Vec::as_slice);
    let value = |pair: &Value| {
        let time = pair[0].as_f64().context("a value has no time")?;
        Ok((time, pair[1].as_str().context("a time has no value")?.parse()?))
    };
    Ok(Series { labels: labels.collect(), values: values.iter().map(value).collect::<Result<_>>()? })
}

/// A query as part of an address.
fn encoded(query: &str) -> String {
    query.bytes().fold(String::new(), |text, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => text + char::from(byte).encode_utf8(&mut [0; 4]),
        _ => text + &format!("%{byte:02X}"),
    })
}

/// Runs a program that came with Prometheus, with these files beside it and the first as its input; what it says.
pub fn tool(program: &str, arguments: &[&str], files: &[(&str, &str)]) -> Result<Ended> {
    let root = Root::new(UNPACKED, &[])?;
    for (place, text) in files {
        root.write(place, text)?;
    }
    let mut command: Command = root.command_here(program)?;
    command.args(arguments);
    Running::start(command)?.finish()
}
