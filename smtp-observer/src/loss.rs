//! Loss is never silent: the log tells when it begins, and again while it goes on, but not at every record.

use std::time::{Duration, Instant};

use smtp_ebpf::event::Kind;
use tracing::warn;

use crate::kernel::Counts;

/// How far apart two warnings are at least.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// What of the losses is known, and what was said of them.
#[derive(Debug, Default)]
pub struct Losses {
    known: Counts,
    said: u64,
    last: Option<Instant>,
}

impl Losses {
    /// Takes in how much was lost so far. Whether changes of connections' states are among what is new.
    pub fn note(&mut self, so_far: Counts, now: Instant) -> bool {
        let before = std::mem::replace(&mut self.known, so_far);
        if let Some(count) = self.due(now) {
            warn!(
                "{count} records of the hooks found no room and are lost: give the ring buffer more with --ring-size SIZE"
            );
        }
        so_far.of(Kind::State) > before.of(Kind::State)
    }

    fn due(&mut self, now: Instant) -> Option<u64> {
        let lost = self.known.total();
        let quiet = self.last.is_none_or(|last| now.duration_since(last) >= BETWEEN_WARNINGS);
        if lost <= self.said || !quiet {
            return None;
        }
        self.last = Some(now);
        Some(lost - std::mem::replace(&mut self.said, lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(state: u64, send: u64) -> Counts {
        let mut counts = Counts::default();
        counts.extend([(Kind::State, state), (Kind::Send, send)]);
        counts
    }

    #[test]
    fn the_beginning_is_said_and_what_follows_once_a_minute() {
        let (mut losses, start) = (Losses::default(), Instant::now());
        let mut say = |so_far, seconds| {
            losses.known = so_far;
            losses.due(start + Duration::from_secs(seconds))
        };
        assert_eq!(say(lost(0, 0), 0), None);
        assert_eq!(say(lost(0, 3), 1), Some(3));
        assert_eq!(say(lost(0, 9), 2), None);
        assert_eq!(say(lost(1, 9), 61), Some(7));
        assert_eq!(say(lost(1, 9), 500), None);
    }

    #[test]
    fn lost_states_are_told_from_other_losses() {
        let (mut losses, now) = (Losses::default(), Instant::now());
        assert!(!losses.note(lost(0, 5), now));
        assert!(losses.note(lost(1, 5), now));
        assert!(!losses.note(lost(1, 6), now));
    }
}
