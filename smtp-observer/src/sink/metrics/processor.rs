//! The processor time that the agent has taken. The library counts it in whole seconds, which a rate of a light agent does
//! not survive.

use prometheus::proto::{Counter, MetricFamily};

/// What the library calls it.
const NAME: &str = "process_cpu_seconds_total";

/// Puts the time with its fraction where there is the one without.
pub(super) fn refine(families: &mut [MetricFamily]) {
    let Some(family) = families.iter_mut().find(|family| family.name() == NAME) else { return };
    let Some(seconds) = seconds() else { return };
    for metric in family.mut_metric() {
        let mut counter = Counter::default();
        counter.set_value(seconds);
        metric.set_counter(counter);
    }
}

fn seconds() -> Option<f64> {
    let stat = procfs::process::Process::myself().and_then(|process| process.stat()).ok()?;
    Some((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::metrics::{Format, Metrics, Timestamp};

    #[test]
    fn a_fraction_of_a_second_counts() {
        let mut metrics = Metrics::new("tracepoint").expect("valid definitions");
        // Work until there is a fraction that whole seconds would lack.
        while seconds().expect("the process's own times").fract() < 0.1 {}
        let before = seconds().expect("the process's own times");
        let text = metrics.text(Format::Text, Timestamp(0)).expect("encodes");
        let line = text.lines().find_map(|line| line.strip_prefix(NAME)?.strip_prefix(' ')).expect("it is there");
        let value: f64 = line.parse().expect("a number");
        assert!(value >= before && value <= seconds().expect("the process's own times"), "{value} after {before}");
    }
}
