//! Departures from the protocol, reported a bounded number of times.

use super::decoder_output::DecoderOutput;
use super::item::{Anomaly, Item};
use crate::event::Time;
use crate::names::AnomalyKind;

/// How often one session reports one kind; further ones are not reported, so that a hostile peer cannot flood the
/// record.
pub const MAX_OF_A_KIND: u8 = 16;

/// Counts what a session has reported.
#[derive(Debug, Default)]
pub(super) struct Anomalies {
    /// Of each kind; most sessions have none.
    reported: Option<Box<[u8; AnomalyKind::ALL.len()]>>,
}

impl Anomalies {
    /// Reports an anomaly, unless its kind was reported often enough. The detail is only made where it is shown.
    pub(super) fn report(
        &mut self,
        time: Time,
        kind: AnomalyKind,
        items: &mut DecoderOutput,
        detail: impl FnOnce() -> String,
    ) {
        let reported = &mut self.reported.get_or_insert_default()[kind as usize];
        if *reported < MAX_OF_A_KIND {
            *reported += 1;
            items.push(Item::Anomaly(Anomaly { time, kind, detail: detail() }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_bound() {
        let mut anomalies = Anomalies::default();
        let mut items = DecoderOutput::default();
        for _ in 0..1000 {
            anomalies.report(Time(1), AnomalyKind::NulByte, &mut items, String::new);
        }
        anomalies.report(Time(2), AnomalyKind::Gap, &mut items, || "7 bytes".into());
        assert_eq!(items.len(), 17);
        let last = Anomaly { time: Time(2), kind: AnomalyKind::Gap, detail: "7 bytes".into() };
        assert_eq!(items.last(), Some(&Item::Anomaly(last)));
    }
}
