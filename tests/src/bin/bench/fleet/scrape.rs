//! A scrape in the OpenMetrics format, as a fleet of hosts like the one it is from would show it.

use std::collections::HashMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};

/// A scrape: its lines as they came.
pub struct Scrape(String);

impl Scrape {
    /// What of a scrape is about programs of one host: all lines that name no program, and those of these.
    pub fn of(text: &str, is_wanted: impl Fn(&str) -> bool) -> Self {
        let lines = text.lines().filter(|line| line.starts_with('#') || is_wanted(line));
        Self(lines.fold(String::new(), |text, line| text + line + "\n"))
    }

    /// As text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The names of its series, each with its labels.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.samples().map(|(series, _)| series)
    }

    fn samples(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '))
    }
}

/// A line of the scrapes of a fleet.
enum Line {
    /// As it is in every scrape.
    Fixed(String),
    /// A counter: what it was, and how much more it was at the end of a further load.
    Growing { series: String, was: f64, more: f64 },
}

/// What hosts of a kind show while they go on with their load.
pub struct Growth(Vec<Line>);

impl Growth {
    /// By a scrape and a later one.
    pub fn between(first: &Scrape, last: &Scrape) -> Result<Self> {
        let before: HashMap<&str, &str> = first.samples().collect();
        let mut lines = Vec::new();
        let mut is_counted = false;
        for line in last.text().lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ").and_then(|kind| kind.rsplit(' ').next()) {
                is_counted = matches!(kind, "counter" | "histogram");
            }
            if line.starts_with('#') || !is_counted {
                lines.push(Line::Fixed(format!("{line}\n")));
                continue;
            }
            let (series, value) = line.rsplit_once(' ').with_context(|| format!("no sample: {line}"))?;
            let was: f64 = before.get(series).map_or(Ok(0.0), |value| value.parse())?;
            let more = value.parse::<f64>()? - was;
            lines.push(Line::Growing { series: series.to_owned(), was, more });
        }
        Ok(Self(lines))
    }

    /// The scrape of a host that has done the load so many more times. It is as whole as what was measured: buckets, sums and
    /// counts have grown alike.
    pub fn after(&self, times: u64) -> String {
        let mut text = String::new();
        for line in &self.0 {
            match line {
                Line::Fixed(line) => text.push_str(line),
                Line::Growing { series, was, more } => {
                    // Writing into a string never fails.
                    let _ = writeln!(text, "{series} {}", was + more * times as f64);
                }
            }
        }
        text
    }
}
