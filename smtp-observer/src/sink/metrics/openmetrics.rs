//! OpenMetrics 1.0, which the library does not write.
//!
//! It differs from the text format in what a family is called (`smtp_rset`, whose sample is `smtp_rset_total`), in having
//! units and a type for `…_info`, in how a bucket's bound is written, and in its last line, by which a reader knows that
//! nothing is missing.

use std::borrow::Cow;

use prometheus::proto::{Metric, MetricFamily, MetricType};

/// Units that metrics here are in: the last word of the family's name.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// Writes families in OpenMetrics' text format. Every family is a counter, a gauge or a histogram: the agent has no others.
pub(super) fn encode(families: &[MetricFamily]) -> String {
    let mut out = String::new();
    for family in families {
        let name = family.name();
        let (family_name, kind) = match family.get_field_type() {
            MetricType::COUNTER => (name.strip_suffix("_total").unwrap_or(name), "counter"),
            MetricType::HISTOGRAM => (name, "histogram"),
            _ => name.strip_suffix("_info").map_or((name, "gauge"), |described| (described, "info")),
        };
        out.push_str(&format!("# TYPE {family_name} {kind}\n"));
        if let Some(unit) = UNITS.iter().find(|unit| family_name.rsplit('_').next() == Some(unit)) {
            out.push_str(&format!("# UNIT {family_name} {unit}\n"));
        }
        out.push_str(&format!("# HELP {family_name} {}\n", escaped(family.help())));
        for metric in family.get_metric() {
            let mut samples = Samples { out: &mut out, family: family_name, metric };
            match family.get_field_type() {
                MetricType::COUNTER => samples.push("_total", None, metric.get_counter().get_value()),
                MetricType::HISTOGRAM => {
                    let histogram = metric.get_histogram();
                    for bucket in histogram.get_bucket() {
                        // A bound is written as a float: `1.0`, not `1`.
                        let bound = format!("{:?}", bucket.upper_bound());
                        samples.push("_bucket", Some(&bound), bucket.cumulative_count() as f64);
                    }
                    samples.push("_bucket", Some("+Inf"), histogram.get_sample_count() as f64);
                    samples.push("_count", None, histogram.get_sample_count() as f64);
                    samples.push("_sum", None, histogram.get_sample_sum());
                }
                _ => samples.push(if kind == "info" { "_info" } else { "" }, None, metric.get_gauge().get_value()),
            }
        }
    }
    out.push_str("# EOF\n");
    out
}

/// Where the samples of one metric go.
struct Samples<'a> {
    out: &'a mut String,
    family: &'a str,
    metric: &'a Metric,
}

impl Samples<'_> {
    fn push(&mut self, suffix: &str, bound: Option<&str>, value: f64) {
        let labels = self.metric.get_label().iter().map(|label| (label.name(), label.value()));
        self.out.extend([self.family, suffix]);
        let mut before = "{";
        for (name, value) in labels.chain(bound.map(|bound| ("le", bound))) {
            self.out.extend([before, name, "=\"", &escaped(value), "\""]);
            before = ",";
        }
        let end = if before == "," { "} " } else { " " };
        self.out.extend([end, &value.to_string(), "\n"]);
    }
}

fn escaped(text: &str) -> Cow<'_, str> {
    if text.contains(['\\', '\n', '"']) {
        text.replace('\\', r"\\").replace('\n', r"\n").replace('"', r#"\""#).into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

    use super::*;

    /// As the specification's examples are.
    #[test]
    fn a_family_of_each_kind() -> Result<(), prometheus::Error> {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("a_bytes_total", "Says \"a\\b\"."), &["path"])?;
        let histogram = HistogramVec::new(HistogramOpts::new("b_seconds", "Times.").buckets(vec![0.001, 1.0]), &["x"])?;
        let information = IntGaugeVec::new(Opts::new("c_build_info", "Built."), &["version"])?;
        let gauge = IntGauge::new("d_open", "Open.")?;
        registry.register(Box::new(counter.clone()))?;
        registry.register(Box::new(histogram.clone()))?;
        registry.register(Box::new(information.clone()))?;
        registry.register(Box::new(gauge.clone()))?;
        counter.with_label_values(&["C:\\x\n\"y\""]).inc_by(17);
        histogram.with_label_values(&["y"]).observe(0.5);
        information.with_label_values(&["1.2"]).set(1);
        gauge.set(-2);
        assert_eq!(
            encode(&registry.gather()),
            r##"# TYPE a_bytes counter
# UNIT a_bytes bytes
# HELP a_bytes Says \"a\\b\".
a_bytes_total{path="C:\\x\n\"y\""} 17
# TYPE b_seconds histogram
# UNIT b_seconds seconds
# HELP b_seconds Times.
b_seconds_bucket{x="y",le="0.001"} 0
b_seconds_bucket{x="y",le="1.0"} 1
b_seconds_bucket{x="y",le="+Inf"} 1
b_seconds_count{x="y"} 1
b_seconds_sum{x="y"} 0.5
# TYPE c_build info
# HELP c_build Built.
c_build_info{version="1.2"} 1
# TYPE d_open gauge
# HELP d_open Open.
d_open -2
# EOF
"##
        );
        Ok(())
    }
}
