//! TLS told from SMTP by the first two bytes.

use crate::event::Time;

/// Looks at the first bytes of a direction for the head of a TLS record (RFC 8446, 5.1): a content type from 20 to 23,
/// then the major version 3. No SMTP line begins like that.
#[derive(Debug, Default)]
pub(super) enum Opening {
    #[default]
    Start,
    /// This byte may be the first of a record.
    Record(u8, Time),
    Past,
}

/// What the first bytes are.
#[derive(Debug, PartialEq)]
pub(super) enum Look {
    /// One byte is not enough to tell; it was taken.
    Undecided,
    /// TLS, since then.
    Tls(Time),
    /// Something else. A byte that was taken comes back with its time.
    Plain(Option<(u8, Time)>),
}

impl Opening {
    pub(super) fn is_past(&self) -> bool {
        matches!(self, Self::Past)
    }

    /// A byte was taken that may come back.
    pub(super) fn is_undecided(&self) -> bool {
        matches!(self, Self::Record(..))
    }

    /// Looks at `bytes`, which are not empty.
    pub(super) fn look(&mut self, time: Time, bytes: &mut &[u8]) -> Look {
        if let (Self::Start, Some((&first @ 20..=23, rest))) = (&*self, bytes.split_first()) {
            *self = Self::Record(first, time);
            *bytes = rest;
        }
        let Self::Record(first, since) = *self else {
            *self = Self::Past;
            return Look::Plain(None);
        };
        match bytes.first() {
            None => Look::Undecided,
            Some(3) => {
                *self = Self::Past;
                Look::Tls(since)
            }
            Some(_) => {
                *self = Self::Past;
                Look::Plain(Some((first, since)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(pieces: &[&[u8]]) -> Vec<Look> {
        let mut opening = Opening::default();
        pieces.iter().enumerate().map(|(at, piece)| opening.look(Time(at as u64), &mut &**piece)).collect()
    }

    #[test]
    fn records() {
        assert_eq!(look(&[&[0x16, 3, 1, 2]]), [Look::Tls(Time(0))]);
        assert_eq!(look(&[&[0x17], &[3, 3]]), [Look::Undecided, Look::Tls(Time(0))]);
    }

    #[test]
    fn others() {
        assert_eq!(look(&[b"EHLO x\r\n"]), [Look::Plain(None)]);
        assert_eq!(look(&[&[0x16], b"x"]), [Look::Undecided, Look::Plain(Some((0x16, Time(0))))]);
    }
}
