//! What a scraper gets.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;
use smtp_observer_tests::http::{self, Metrics};
use smtp_observer_tests::prometheus::tool;
use tempfile::NamedTempFile;

/// Reads OpenMetrics as strictly as there is, and lists the families.
const READER: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    print(family.type, family.name, family.unit)
";

const DOCUMENTATION: &str = include_str!("../../../docs/prometheus.md");

/// Every metric is documented.
pub fn check_documented(metrics: &Metrics) {
    let names: Vec<_> =
        metrics.0.lines().filter_map(|line| line.strip_prefix("# TYPE smtp_")?.split(' ').next()).collect();
    assert_eq!(names.len(), 28, "{names:#?}");
    for name in names {
        assert!(DOCUMENTATION.contains(&format!("\n| `smtp_{name}` | ")), "smtp_{name} is not documented");
    }
}

/// Prometheus' own linter has nothing to say of the text format.
pub fn check_text(metrics: &Metrics) -> Result<()> {
    let linted = tool("/usr/bin/promtool", &["check", "metrics"], &[("input", &metrics.0)])?;
    assert!(linted.status.success(), "{}: {:#?}", linted.status, linted.log);
    assert_eq!((linted.output, linted.log), (Vec::new(), Vec::new()));
    Ok(())
}

/// Who takes gzip gets the same in a third of the bytes, or less.
pub fn check_compressed(agent: SocketAddr, metrics: &Metrics) -> Result<()> {
    let (head, body) = http::get_compressed(agent, "/metrics")?;
    assert!(head.contains("\r\ncontent-encoding: gzip\r\n"), "{head}");
    let mut file = NamedTempFile::new()?;
    file.write_all(&body)?;
    let read = Command::new("/bin/gzip").arg("-dc").stdin(file.reopen()?).output()?;
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let text = String::from_utf8(read.stdout)?;
    assert!(3 * body.len() < text.len(), "{} bytes of {}", body.len(), text.len());
    for family in metrics.0.lines().filter(|line| line.starts_with("# TYPE ")) {
        assert!(text.contains(family), "{family}");
    }
    Ok(())
}

/// The reference reader of OpenMetrics takes every family for what it is.
pub fn check_open_metrics(metrics: &Metrics) -> Result<()> {
    let read = tool("/usr/bin/python3", &["-c", READER], &[("input", &metrics.0)])?;
    assert!(read.status.success(), "{}: {:#?}", read.status, read.log);
    for family in [
        "counter smtp_commands ",
        "counter smtp_data_bytes bytes",
        "gauge smtp_connections_open ",
        "histogram smtp_data_final_reply_seconds seconds",
        "info smtp_interceptor ",
        "info smtp_observer_build ",
        "counter process_cpu_seconds seconds",
    ] {
        assert!(read.output.iter().any(|line| line.trim_end() == family.trim_end()), "{family}: {:#?}", read.output);
    }
    Ok(())
}
