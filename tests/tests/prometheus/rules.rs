//! The rules: as promtool judges them, and as Prometheus comes to them on real data.

use anyhow::{Context, Result};
use smtp_observer_tests::prometheus::{Prometheus, Series, tool};

pub const RULES: &str = include_str!("../../../deploy/prometheus/smtp-observer.rules.yml");
const TESTS: &str = include_str!("../../../deploy/prometheus/smtp-observer.rules.test.yml");
const FLEET: &str = include_str!("../../../deploy/prometheus/fleet.rules.yml");
const FLEETS_TESTS: &str = include_str!("../../../deploy/prometheus/fleet.rules.test.yml");
const CONFIGS: [(&str, &str); 2] = [
    ("tmp/fleet.yml", include_str!("../../../deploy/prometheus/fleet.yml")),
    ("tmp/fleet-agent.yml", include_str!("../../../deploy/prometheus/fleet-agent.yml")),
];
const FLEETS_DOCUMENTATION: &str = include_str!("../../../docs/fleet.md");
const DOCUMENTATION: &str = include_str!("../../../docs/prometheus.md");

fn promtool(arguments: &[&str]) -> Result<String> {
    let files = [
        ("tmp/smtp-observer.rules.yml", RULES),
        ("tmp/smtp-observer.rules.test.yml", TESTS),
        ("tmp/fleet.rules.yml", FLEET),
        ("tmp/fleet.rules.test.yml", FLEETS_TESTS),
        CONFIGS[0],
        CONFIGS[1],
    ];
    let ended = tool("/usr/bin/promtool", arguments, &files)?;
    let said = [ended.output, ended.log].concat().join("\n");
    assert!(ended.status.success(), "promtool {arguments:?}: {said}");
    Ok(said)
}

#[test]
fn promtool_takes_the_rules() -> Result<()> {
    for rules in ["/tmp/smtp-observer.rules.yml", "/tmp/fleet.rules.yml"] {
        let said = promtool(&["check", "rules", "--lint=all", "--lint-fatal", rules])?;
        assert!(said.contains("SUCCESS"), "{said}");
    }
    Ok(())
}

#[test]
fn promtool_takes_the_configurations_of_a_fleet() -> Result<()> {
    let said = promtool(&["check", "config", "/tmp/fleet.yml"])?;
    assert!(said.contains("2 rule files found"), "{said}");
    promtool(&["check", "config", "--agent", "/tmp/fleet-agent.yml"]).map(drop)
}

#[test]
fn the_rules_hold_their_tests() -> Result<()> {
    for (rules, tests, file, documentation) in [
        (RULES, TESTS, "/tmp/smtp-observer.rules.test.yml", DOCUMENTATION),
        (FLEET, FLEETS_TESTS, "/tmp/fleet.rules.test.yml", FLEETS_DOCUMENTATION),
    ] {
        promtool(&["test", "rules", file])?;
        for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
            assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} has no test");
            assert!(documentation.contains(&format!("\n| `{alert}` | ")), "{alert} is not documented");
        }
    }
    Ok(())
}

/// After mail through an antivirus: each rule is evaluated, each recording has data, and the right alerts fire.
pub fn check_evaluated(prometheus: &Prometheus) -> Result<()> {
    let rules = prometheus.rules()?;
    assert_eq!(rules.len(), RULES.matches("- record: ").count() + RULES.matches("- alert: ").count());
    for rule in &rules {
        let name = rule["name"].as_str().with_context(|| rule.to_string())?;
        assert_eq!(rule["health"], "ok", "{rule}");
        if rule["type"] == "recording" {
            let recorded = prometheus.query(name)?;
            let finite = recorded.iter().filter_map(|series| series.last()).any(f64::is_finite);
            assert!(finite, "{name} is {recorded:?}");
        }
    }
    let state = |alert: &str| {
        let rule = rules.iter().find(|rule| rule["name"] == alert);
        rule.and_then(|rule| rule["state"].as_str()).with_context(|| format!("there is no {alert}"))
    };
    for alert in ["SmtpInterceptorAppeared", "SmtpUnprovokedRset"] {
        assert_eq!(state(alert)?, "firing", "{alert}");
    }
    for alert in [
        "SmtpSmugglingEffective",
        "SmtpObserverDown",
        "SmtpObserverAbsent",
        "SmtpDataGoAheadHeld",
        "SmtpDataAcceptSlow",
    ] {
        assert_ne!(state(alert)?, "firing", "{alert}");
    }
    let interceptor = prometheus.query("ALERTS{alertname=\"SmtpInterceptorAppeared\",alertstate=\"firing\"}")?;
    assert!(interceptor.iter().any(|series| series.label("interceptor") == "antivirus-proxy"), "{interceptor:?}");
    let resets = prometheus.query("ALERTS{alertname=\"SmtpUnprovokedRset\",alertstate=\"firing\"}")?;
    let blamed = |series: &Series| ["process", "reason"].map(|name| series.label(name).to_owned());
    assert!(resets.iter().any(|series| blamed(series) == ["antivirus-proxy", "interceptor_replay"]), "{resets:?}");
    Ok(())
}

/// After mail through an antivirus: what is to find it among many hosts finds it on this one.
pub fn check_queries_of_the_fleet(prometheus: &Prometheus) -> Result<()> {
    let (_, section) = FLEETS_DOCUMENTATION.split_once("## Find the program").context("there is no such section")?;
    let queries: Vec<_> = section
        .split("\n\n")
        .filter_map(|block| block.strip_prefix("    "))
        // Those of ClickHouse are run elsewhere; what the fleet's own rules record, promtool has judged.
        .filter(|query| !query.starts_with("SELECT ") && !query.starts_with("job_"))
        .collect();
    assert_eq!(queries.len(), 3, "{queries:?}");
    for query in queries {
        let found = prometheus.query(query)?;
        assert!(!found.is_empty(), "nothing is found: {query}");
        let is_named = |series: &&Series| series.label("interceptor") == "antivirus-proxy";
        assert!(!query.contains("interceptor,") || found.iter().find(is_named).is_some(), "{query}: {found:?}");
    }
    Ok(())
}

/// The texts of an alert are sentences.
#[test]
fn every_alert_says_what_it_means_and_what_to_do() {
    for alert in [RULES, FLEET].iter().flat_map(|rules| rules.split("- alert: ").skip(1)) {
        let name = alert.lines().next().unwrap_or_default();
        for part in ["summary: '", "description: >-\n", "severity: "] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        let (_, description) = alert.split_once("description: >-\n").unwrap_or_default();
        let text: Vec<_> =
            description.lines().take_while(|line| line.starts_with("            ")).map(str::trim).collect();
        let text = text.join(" ");
        assert!(text.ends_with('.') && text.matches(". ").count() >= 1, "{name}: {text}");
    }
}
