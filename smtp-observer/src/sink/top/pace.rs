//! When to draw: soon after a key, a few times a second where something was observed, and otherwise not.

use std::time::{Duration, Instant};

/// Between two drawings, however many keys come.
const KEYS: Duration = Duration::from_millis(30);

/// Between two drawings, however much is observed.
const OBSERVED: Duration = Duration::from_millis(250);

/// Between two drawings where nothing but the time has changed.
const TIME: Duration = Duration::from_secs(1);

/// What there is to draw for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A key, or the terminal has another size.
    Key,
    /// Something was observed.
    Observed,
    /// The time shows.
    Time,
}

/// When to draw next.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<Instant>,
    due: Option<Instant>,
}

impl Pace {
    /// There is something to draw.
    pub fn want(&mut self, cause: Cause, now: Instant) {
        let gap = match cause {
            Cause::Key => KEYS,
            Cause::Observed => OBSERVED,
            Cause::Time => TIME,
        };
        let due = self.last.map_or(now, |last| now.max(last + gap));
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    /// When to draw; not at all, without a time.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It was drawn.
    pub fn drawn(&mut self, now: Instant) {
        *self = Self { last: Some(now), due: None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_times_a_second_at_most() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut pace = Pace::default();
        assert_eq!(pace.due(), None);
        pace.want(Cause::Observed, at(0));
        assert_eq!(pace.due(), Some(at(0)), "the first at once");
        pace.drawn(at(1));
        assert_eq!(pace.due(), None, "nothing has changed since");
        pace.want(Cause::Time, at(2));
        assert_eq!(pace.due(), Some(at(1001)));
        pace.want(Cause::Observed, at(3));
        assert_eq!(pace.due(), Some(at(251)));
        pace.want(Cause::Key, at(100));
        assert_eq!(pace.due(), Some(at(100)));
        pace.want(Cause::Observed, at(101));
        assert_eq!(pace.due(), Some(at(100)), "what is due sooner stays");
        pace.drawn(at(100));
        pace.want(Cause::Key, at(101));
        assert_eq!(pace.due(), Some(at(130)));
    }
}
