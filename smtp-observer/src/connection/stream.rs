//! The two byte streams of a connection, or of the TLS session that it carries: what of them is accounted for.

use crate::event::TransferEvent;

/// The plaintext of a TLS session.
#[derive(Default)]
pub(super) struct Plaintext {
    pub(super) sent: Stream,
    pub(super) received: Stream,
}

/// One direction.
#[derive(Default)]
pub(super) struct Stream {
    /// The sequence number after the last byte that is accounted for.
    next: u32,
    /// It is known.
    known: bool,
    /// Bytes of transfers whose segments have not come.
    pub(super) waiting: u16,
    pub(super) bytes: u64,
}

impl Stream {
    pub(super) fn next(&self) -> Option<u32> {
        self.known.then_some(self.next)
    }

    /// Notes what of a transfer waits in the kernel.
    pub(super) fn wait(&mut self, event: &TransferEvent) {
        let waiting = (u64::from(self.waiting) + u64::from(event.length)).saturating_sub(event.said.length());
        self.waiting = u16::try_from(waiting).unwrap_or(u16::MAX);
    }

    /// All up to there is accounted for.
    pub(super) fn begin(&mut self, next: u32) {
        (self.next, self.known) = (next, true);
    }

    /// Accounts for a transfer whose positions tell nothing.
    pub(super) fn grow(&mut self, length: u32) -> u64 {
        self.known = false;
        self.bytes += u64::from(length);
        0
    }

    /// Whether all up to `end` is accounted for, as far as the stream is known.
    pub(super) fn reaches(&self, end: u32) -> bool {
        self.next().is_none_or(|next| (end.wrapping_sub(next) as i32) <= 0)
    }

    /// Accounts for a transfer that ended at `end`: how many bytes before it were not seen.
    pub(super) fn advance(&mut self, end: u32, length: u32) -> u64 {
        let start = end.wrapping_sub(length);
        // A start before the end of what is known comes of two threads in one call each; there is no hole then.
        let hole = self.next().map_or(0, |next| start.wrapping_sub(next) as i32).max(0).unsigned_abs();
        // Such calls may also be told in the other order: what is accounted for stays so.
        if !self.known || !self.reaches(end) {
            self.begin(end);
        }
        self.bytes += u64::from(hole) + u64::from(length);
        hole.into()
    }
}
