//! How far one host's clock is ahead of the other's, by what was said between them.
//!
//! A command cannot arrive before it was sent, nor its reply be heard before it was given. So each exchange that both ends
//! saw bounds the difference of their clocks from both sides. The moment that most exchanges allow is taken (K. Marzullo's
//! algorithm, by which NTP picks its servers): what a program in the middle has held back, or answered itself, is outvoted.

use std::time::Duration;

use super::end::Conversation;
use super::pairs::ALWAYS;
use crate::observation::Timestamp;
use crate::proxy::comparison::{Alignment, Part, Sides};

/// The times of events have this much in common with those of the packets.
const GRAIN: i64 = 1_000_000;

/// A hook notes the time that much later, at the worst, when the processor has other work to do.
const LATE: i64 = 50_000_000;

/// How much two clocks drift apart: 100 parts in a million, more than a quartz does.
const DRIFT: i64 = 10_000;

/// A clock that is set, is set by less than this.
const STEP: i64 = 1_000_000_000;

/// The bounds that one exchange sets, in nanoseconds that the server's clock is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    low: i64,
    high: i64,
}

/// What is known of the two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Nanoseconds that the server's is ahead of the client's.
    pub ahead: i64,
    /// What that is certain to.
    pub within: Duration,
}

/// The bounds that two conversations set which may be the two ends of one. Of the server's, the part that is meant.
pub fn bounds(client: &Conversation, server: &Conversation, part: &Part) -> Vec<Bounds> {
    let (inner, outer) = (&client.dialogue, &server.dialogue);
    // Nothing is known of the clocks yet: the order alone counts.
    let sides = Sides { inner, of: &ALWAYS, outer, part, slack: Duration::MAX };
    let alignment = Alignment::of(&sides);
    let mut bounds = Vec::new();
    if let (Some(heard), Some(said)) = (&inner.greeting, &outer.greeting)
        && heard.says_what(said)
        && part.contains(&said.time)
    {
        bounds.extend(Bounds::new([client.opened, heard.time], [said.time, said.time]));
    }
    for (step, place) in sides.inner.steps.iter().zip(alignment.carried) {
        let Some(carrier) = place.and_then(|place| sides.outer.steps.get(place)) else { continue };
        if let (Some(heard), Some(said)) = (&step.reply, &carrier.reply)
            && heard.says_what(said)
        {
            bounds.extend(Bounds::new([step.sent, heard.time], [carrier.sent, said.time]));
        }
        if let (Some(sent), Some(got)) = (&step.content, &carrier.content)
            && let (Some(sent_at), Some(got_at)) = (sent.ended, got.ended)
            && let (Some(heard), Some(said)) = (&sent.reply, &got.reply)
            && heard.says_what(said)
        {
            bounds.extend(Bounds::new([sent_at, heard.time], [got_at, said.time]));
        }
    }
    bounds
}

impl Bounds {
    /// Of a command and its reply, at the client and at the server. There are none if the server took longer than the client
    /// had to wait: then the reply was not its own.
    fn new(client: [Timestamp; 2], server: [Timestamp; 2]) -> Option<Self> {
        let low = server[1].0.saturating_sub(client[1].0).saturating_sub(GRAIN);
        let high = server[0].0.saturating_sub(client[0].0).saturating_add(GRAIN);
        (low <= high).then_some(Self { low, high })
    }
}

/// What most of the bounds allow; where several do alike, what is nearest to equal clocks.
pub fn agreed(bounds: &[Bounds]) -> Option<Bounds> {
    // At one place all begin before any ends.
    let mut edges: Vec<(i64, i8)> = bounds.iter().flat_map(|it| [(it.low, -1), (it.high, 1)]).collect();
    edges.sort_unstable();
    let (mut open, mut best) = (0_usize, None::<(usize, Bounds)>);
    for (place, &(low, kind)) in edges.iter().enumerate() {
        if kind > 0 {
            open -= 1;
            continue;
        }
        open += 1;
        let Some(&(high, 1)) = edges.get(place + 1) else { continue };
        let found = Bounds { low, high };
        if best
            .is_none_or(|(most, known)| open > most || open == most && found.nearest(0).abs() < known.nearest(0).abs())
        {
            best = Some((open, found));
        }
    }
    best.map(|(_, bounds)| bounds)
}

impl Bounds {
    /// The middle.
    pub fn clocks(self) -> Clocks {
        let half = (self.high - self.low) / 2;
        Clocks { ahead: self.low + half, within: Duration::from_nanos(half.unsigned_abs()) }
    }

    fn nearest(self, to: i64) -> i64 {
        to.clamp(self.low, self.high)
    }
}

impl Clocks {
    /// How far the clock was ahead during one conversation, which sets these bounds: clocks drift, and are set, if only by
    /// a little. `apart`: the time that the events tell of.
    pub fn during(self, bounds: &[Bounds], apart: Duration) -> i64 {
        let far = STEP + nanoseconds(apart) / DRIFT;
        agreed(bounds)
            .map(|agreed| agreed.nearest(self.ahead))
            .filter(|ahead| ahead.abs_diff(self.ahead) <= far.unsigned_abs())
            .unwrap_or(self.ahead)
    }
}

/// How much earlier than its cause an effect may seem to be, in a conversation of this length.
pub fn slack(length: Duration) -> Duration {
    Duration::from_nanos((LATE + nanoseconds(length) / DRIFT).unsigned_abs())
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: i64 = 1_000_000;

    fn within(low: i64, high: i64) -> Bounds {
        Bounds { low: low * MILLISECOND, high: high * MILLISECOND }
    }

    #[test]
    fn the_most_win() {
        let honest = [within(178, 184), within(180, 190), within(175, 181)];
        assert_eq!(agreed(&honest), Some(within(180, 181)));
        let held = [within(500, 501), within(1500, 1502)];
        assert_eq!(agreed(&[&honest[..], &held].concat()), Some(within(180, 181)));
        assert_eq!(agreed(&[]), None);
        assert_eq!(agreed(&[within(5, 5)]), Some(within(5, 5)));
    }

    #[test]
    fn of_two_alike_the_smaller_difference_is_taken() {
        assert_eq!(agreed(&[within(-90_000, -80_000), within(300, 310)]), Some(within(300, 310)));
        assert_eq!(agreed(&[within(-90, -80), within(300, 310)]), Some(within(-90, -80)));
    }

    #[test]
    fn an_exchange_bounds_from_both_sides() {
        let at = |ms: i64| Timestamp(ms * MILLISECOND);
        // 5 ms to the server, 20 ms there, 7 ms back, by a clock that is 1000 ms ahead; a millisecond is the grain.
        let bounds = Bounds::new([at(0), at(32)], [at(1005), at(1025)]).expect("bounds");
        assert_eq!(bounds, within(992, 1006));
        assert_eq!(bounds.clocks(), Clocks { ahead: 999 * MILLISECOND, within: Duration::from_millis(7) });
        assert_eq!(
            Bounds::new([at(0), at(1)], [at(2000), at(2010)]),
            None,
            "the server took longer than the client waited"
        );
    }

    #[test]
    fn a_conversation_may_differ_by_a_drift_and_no_more() {
        let clocks = within(0, 0).clocks();
        assert_eq!(clocks.during(&[within(40, 50)], Duration::ZERO), 40 * MILLISECOND);
        assert_eq!(clocks.during(&[within(40_000, 50_000)], Duration::ZERO), 0);
        assert_eq!(clocks.during(&[within(2_000, 3_000)], Duration::from_secs(86_400)), 2000 * MILLISECOND);
        assert_eq!(clocks.during(&[], Duration::ZERO), 0);
    }
}
