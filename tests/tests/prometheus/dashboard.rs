//! The dashboard: every query in it is asked as Grafana asks, on data of real traffic.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::grafana::{Target, built_in, dashboard, panels, substituted, targets, text};
use smtp_observer_tests::prometheus::{INTERVAL, Prometheus, Series, now};
use smtp_observer_tests::traffic::Traffic;

use crate::rules::{self, RULES};
use crate::scrape;

/// What is zero when all is well: panels of these may show zeroes.
const MAY_BE_ZERO: [&str; 4] = [
    "smtp_observer_kernel_events_lost_total",
    "smtp_observer_uncaptured_bytes_total",
    "smtp_observer_recursion_misses_total",
    "smtp_observer_sink_dropped_total",
];

/// The dashboard's variables where all is picked, and where each value is picked by itself.
fn variables(dashboard: &Value, prometheus: &Prometheus) -> Result<[BTreeMap<String, String>; 2]> {
    let (mut all, mut each) = (built_in(INTERVAL, INTERVAL), built_in(INTERVAL, INTERVAL));
    for variable in dashboard["templating"]["list"].as_array().context("there are no variables")? {
        let name = text(variable, "/name")?;
        if variable["type"] == "datasource" {
            continue;
        }
        all.insert(name.to_owned(), text(variable, "/allValue")?.to_owned());
        let query = substituted(text(variable, "/query/query")?, &each)?;
        let (selector, label) = query
            .strip_prefix("label_values(")
            .and_then(|query| query.strip_suffix(')')?.rsplit_once(", "))
            .with_context(|| format!("not label_values(SELECTOR, LABEL): {query}"))?;
        let values = prometheus.label_values(selector, label)?;
        ensure!(!values.is_empty(), "{query} has no values");
        each.insert(name.to_owned(), format!("({})", values.join("|").replace('.', r"\\.")));
    }
    Ok([all, each])
}

/// Something is shown, nothing of it is nonsense, and every label that the legend names is there.
fn check_shown(target: &Target, query: &str, answer: &[Series]) {
    let Target { panel, legend, .. } = target;
    let values: Vec<f64> = answer.iter().flat_map(|series| &series.values).map(|(_, value)| *value).collect();
    assert!(values.iter().any(|value| value.is_finite()), "{panel} is empty: {query}\n{answer:?}");
    assert!(values.iter().all(|value| value.is_nan() || *value >= 0.0), "{panel} is below zero: {query}\n{answer:?}");
    let may_be_zero = MAY_BE_ZERO.iter().any(|metric| query.contains(metric));
    assert!(may_be_zero || values.iter().any(|value| *value > 0.0), "{panel} shows zeroes: {query}\n{answer:?}");
    for label in legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(label, _)| label) {
        for series in answer {
            assert!(
                !series.label(label).is_empty(),
                "{panel}'s legend names {label}, which is not in {:?}",
                series.labels
            );
        }
    }
}

#[test]
fn every_query_shows_what_happened() -> Result<()> {
    let dashboard = dashboard()?;
    let agent = Agent::start(&[])?;
    let prometheus = Prometheus::start(agent.http, RULES)?;
    let traffic = Traffic::start()?;
    prometheus.catch_up()?;

    let begin = now();
    // Twice, with scrapes in between: a rate is the difference of two.
    let mut interceptors = Vec::new();
    for round in 1..=2 {
        interceptors.push(traffic.round()?.to_string());
        let counted =
            format!("sum(smtp_rset_total{{process=\"antivirus-proxy\",reason=\"interceptor_replay\"}}) >= {round}");
        prometheus.wait_for("the antivirus's RSET", &counted, |series| !series.is_empty())?;
        prometheus.catch_up()?;
    }
    traffic.stop()?;
    prometheus.catch_up()?;
    let end = now();

    let mut shown = BTreeMap::new();
    for variables in variables(&dashboard, &prometheus)? {
        for target in targets(&dashboard)? {
            let query = substituted(&target.expression, &variables)?;
            let answer = match target.instant {
                true => prometheus.query(&query)?,
                false => prometheus.query_range(&query, begin, end, INTERVAL)?,
            };
            check_shown(&target, &query, &answer);
            shown.entry(target.panel).or_insert_with(Vec::new).push(answer);
        }
    }
    check_story(&shown, &interceptors)?;
    let counted = prometheus.query_range("sum by (kind) (smtp_anomalies_total)", begin, end, INTERVAL)?;
    check_first_counts(&shown["Anomalies by kind"][0], &counted, begin);
    let counted = prometheus.query_range("sum by (process, role) (smtp_anomalies_total)", begin, end, INTERVAL)?;
    check_first_counts(&shown["Anomalies by program"][0], &counted, begin);
    rules::check_evaluated(&prometheus)?;
    rules::check_queries_of_the_fleet(&prometheus)?;
    // Prometheus asks for OpenMetrics, which alone has this type.
    assert_eq!(prometheus.kind("smtp_interceptor")?, "info");
    let scraped = agent.metrics()?;
    scrape::check_documented(&scraped);
    scrape::check_text(&scraped)?;
    scrape::check_compressed(agent.http, &scraped)?;
    scrape::check_open_metrics(&agent.metrics_as("application/openmetrics-text; version=1.0.0")?)?;
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{}", stopped.log.join("\n"));
    Ok(())
}

/// The panels tell what is known to have happened: two mails went through the antivirus, and the rest.
fn check_story(shown: &BTreeMap<String, Vec<Vec<Series>>>, interceptors: &[String]) -> Result<()> {
    let panel = |title: &str| {
        let answers = shown.get(title).with_context(|| format!("there is no panel {title}"))?;
        answers.first().with_context(|| format!("{title} has no answer"))
    };
    for pid in interceptors {
        let row = panel("Programs in the middle")?.iter().find(|row| row.label("pid") == pid).context(pid.clone())?;
        assert_eq!(
            ["interceptor", "uid", "method"].map(|label| row.label(label)),
            ["antivirus-proxy", "65534", "redirect"]
        );
        assert!(row.label("executable").ends_with("/antivirus-proxy"), "{row:?}");
        assert_eq!(row.last(), Some(2.0), "{row:?}");
    }
    let labels = ["client", "interceptor", "method"];
    let pair = ["mail-client", "antivirus-proxy", "redirect"];
    let of_pair = |title: &str| -> Result<&Series> {
        let found = panel(title)?.iter().find(|row| labels.map(|label| row.label(label)) == pair);
        found.with_context(|| format!("{title} has no {pair:?}"))
    };
    assert_eq!(of_pair("Whose connections they answered")?.last(), Some(2.0));
    // The first one is counted though its series begins with it, and then the second.
    let bars = of_pair("Intercepted connections")?;
    let first = bars.values.iter().find(|(_, value)| *value > 0.0).map(|(_, value)| *value);
    assert_eq!(first, Some(1.0), "{bars:?}");
    // Five times half a second, in which the body is typed.
    let held = panel("How long messages were held back")?;
    let held =
        held.iter().find(|series| series.label("interceptor") == "antivirus-proxy").context("nothing was held back")?;
    assert!(held.last().is_some_and(|seconds| (2.5..60.0).contains(&seconds)), "{held:?}");

    for (title, label, values) in [
        ("RSET by reason", "reason", &["interceptor_replay", "sender_rejected", "message_rejected"][..]),
        ("NOOP by reason", "reason", &["interceptor_keepalive", "lease_check"]),
        ("Transactions by outcome", "outcome", &["delivered", "rejected"]),
        ("Commands by class of reply", "code_class", &["2xx", "3xx", "5xx"]),
        ("Commands by verb", "verb", &["EHLO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT", "STARTTLS"]),
        ("Anomalies by kind", "kind", &["helo_without_hostname"]),
        ("New connections", "process", &["mail-client", "antivirus-proxy", "mail-server", "smtp-source", "smtpd"]),
    ] {
        let moved = panel(title)?.iter().filter(|series| series.values.iter().any(|(_, value)| *value > 0.0));
        let moved: BTreeSet<_> = moved.map(|series| series.label(label)).collect();
        for value in values {
            assert!(moved.contains(value), "{title} lacks {value}: {moved:?}");
        }
    }
    Ok(())
}

/// What is shown of each counter begins with it, and is as much.
fn check_first_counts(shown: &[Series], counted: &[Series], begin: f64) {
    let begun: Vec<_> =
        counted.iter().filter(|counter| counter.values.first().is_some_and(|(time, _)| *time > begin)).collect();
    assert!(!begun.is_empty(), "no counter began: {counted:?}");
    for counter in begun {
        let panel = shown.iter().find(|series| series.labels == counter.labels);
        let first = panel.and_then(|series| series.values.first());
        assert_eq!(first, counter.values.first(), "{:?}", counter.labels);
    }
}

/// Grafana shows a panel that is put together wrongly without a word.
#[test]
fn every_panel_is_whole() -> Result<()> {
    let dashboard = dashboard()?;
    let (mut ids, mut titles, mut cells) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let all = dashboard["panels"].as_array().context("there are no panels")?;
    for panel in all {
        let title = text(panel, "/title")?;
        assert!(
            ids.insert(panel["id"].as_u64().with_context(|| format!("{title} has no id"))?),
            "{title}'s id is another's"
        );
        assert!(titles.insert(title), "two panels are called {title}");
        let [x, y, width, height] = ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64());
        let (x, y) = x.zip(y).with_context(|| format!("{title} has no place"))?;
        let (width, height) = width.zip(height).with_context(|| format!("{title} has no size"))?;
        assert!(width > 0 && height > 0 && x + width <= 24, "{title} does not fit");
        for cell in (x..x + width).flat_map(|column| (y..y + height).map(move |line| (column, line))) {
            assert!(cells.insert(cell), "{title} lies on another panel");
        }
    }
    for panel in panels(&dashboard)? {
        let title = text(&panel, "/title")?;
        let description = text(&panel, "/description")?;
        assert!(description.len() > 40 && description.ends_with('.'), "{title} is not described: {description}");
        assert!(!text(&panel, "/fieldConfig/defaults/unit")?.is_empty(), "{title} has no unit");
        assert_eq!(text(&panel, "/datasource/uid")?, "${datasource}", "{title}");
        let targets = panel["targets"].as_array().context("no targets")?;
        let references: BTreeSet<_> = targets.iter().filter_map(|target| target["refId"].as_str()).collect();
        assert!(!targets.is_empty() && references.len() == targets.len(), "{title}'s targets are not told apart");
        let is_table = panel["type"] == "table";
        for target in targets {
            assert_eq!(target["format"] == "table" && target["instant"] == true, is_table, "{title}");
            assert_eq!(target["format"] == "heatmap", panel["type"] == "heatmap", "{title}");
        }
    }
    let first = all.iter().find(|panel| panel["type"] == "row").context("there are no rows")?;
    assert_eq!(text(first, "/title")?, "Who is in the middle of connections to port 25");
    let names: Vec<_> = dashboard["templating"]["list"].as_array().context("no variables")?.iter().collect();
    let names: Vec<_> = names.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "instance", "process", "role", "distribution_role"]);
    Ok(())
}
