//! The dashboard, read as Grafana reads it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::prometheus::Series;

const DASHBOARD: &str = include_str!("../../deploy/grafana/smtp-observer.json");

/// A query of a panel.
#[derive(Debug)]
pub struct Target {
    /// The panel's title.
    pub panel: String,
    /// The query, with variables.
    pub expression: String,
    /// How a series is called, with labels in `{{}}`.
    pub legend: String,
    /// It is asked for one time, not for a range.
    pub instant: bool,
}

/// The whole of it.
pub fn dashboard() -> Result<Value> {
    Ok(serde_json::from_str(DASHBOARD)?)
}

/// All panels but rows, which only part the others.
pub fn panels(dashboard: &Value) -> Result<Vec<Value>> {
    let mut panels = Vec::new();
    for panel in dashboard["panels"].as_array().context("there are no panels")? {
        match panel["type"].as_str() {
            Some("row") => panels.extend(panel["panels"].as_array().context("a row has no list")?.iter().cloned()),
            _ => panels.push(panel.clone()),
        }
    }
    Ok(panels)
}

/// The text at a JSON pointer.
pub fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer} in {value}"))
}

/// All queries of all panels.
pub fn targets(dashboard: &Value) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for panel in panels(dashboard)? {
        for target in panel["targets"].as_array().context("a panel has no targets")? {
            targets.push(Target {
                panel: text(&panel, "/title")?.to_owned(),
                expression: text(target, "/expr")?.to_owned(),
                legend: text(target, "/legendFormat")?.to_owned(),
                instant: target["instant"] == true,
            });
        }
    }
    Ok(targets)
}

/// Puts values in the place of variables, as Grafana does.
pub fn substituted(expression: &str, variables: &BTreeMap<String, String>) -> Result<String> {
    let mut query = expression.to_owned();
    // The longest first: one name may begin with another.
    let mut names: Vec<_> = variables.keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in names {
        query = query.replace(&format!("${{{name}}}"), &variables[name]).replace(&format!("${name}"), &variables[name]);
    }
    ensure!(!query.contains('$'), "a variable is not known: {query}");
    Ok(query)
}

/// Grafana's own variables where there is a scrape, and a step of a panel, in so many seconds.
pub fn built_in(scrape: u32, step: u32) -> BTreeMap<String, String> {
    let rate_interval = (4 * scrape).max(step + scrape);
    [("__rate_interval", format!("{rate_interval}s")), ("__interval", format!("{step}s"))]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

impl Target {
    /// What the legend calls a series.
    pub fn name(&self, series: &Series) -> String {
        let mut name = self.legend.clone();
        for (label, value) in &series.labels {
            name = name.replace(&format!("{{{{{label}}}}}"), value);
        }
        name
    }
}
