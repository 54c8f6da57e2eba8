//! Numbers in evidence.

use std::fmt;
use std::time::Duration;

/// `1 recipient was`, `3 recipients were`.
pub(super) struct Count(pub(super) u32, pub(super) &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = self;
        let blank = if noun.is_empty() { "" } else { " " };
        match (count, noun.is_empty()) {
            (1, _) => write!(f, "1{blank}{noun} was"),
            (_, true) => write!(f, "{count} were"),
            (_, false) => write!(f, "{count}{blank}{noun}s were"),
        }
    }
}

/// `0.3 s`, `12 s`: what is below the last digit is cut off.
pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ 0..10 => write!(f, "{seconds}.{} s", self.0.subsec_millis() / 100),
            seconds => write!(f, "{seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(Count(1, "recipient").to_string(), "1 recipient was");
        assert_eq!(Count(2, "recipient").to_string(), "2 recipients were");
        assert_eq!(Count(1, "").to_string(), "1 was");
        assert_eq!(Count(2, "").to_string(), "2 were");
        assert_eq!(Seconds(Duration::from_millis(390)).to_string(), "0.3 s");
        assert_eq!(Seconds(Duration::from_millis(9_999)).to_string(), "9.9 s");
        assert_eq!(Seconds(Duration::from_millis(60_900)).to_string(), "60 s");
    }
}
