//! Libraries of TLS: in which processes they are followed.

use std::num::NonZero;

use lru::LruCache;

use crate::event::{TlsLibraries, TransferEvent};
use crate::names::TlsUnread;
use crate::smtp::Plaintext;

/// Most processes of which it is remembered what was found in them.
const MAX_PROCESSES: NonZero<usize> = NonZero::new(8192).unwrap();

/// What is known of the processes' libraries.
pub(super) struct Libraries {
    /// TLS is read.
    are_followed: bool,
    /// By process: whether one was found in it.
    found: LruCache<u32, bool>,
}

impl Default for Libraries {
    fn default() -> Self {
        Self { are_followed: false, found: LruCache::unbounded() }
    }
}

impl Libraries {
    /// A process was searched.
    pub(super) fn note(&mut self, found: TlsLibraries) {
        self.are_followed = true;
        // Searching has begun.
        if found.pid == 0 {
            return;
        }
        self.found.put(found.pid, !found.libraries.is_empty());
        if self.found.len() > MAX_PROCESSES.get() {
            self.found.pop_lru();
        }
    }

    /// Whether the plaintext will be read of a session whose handshake this transfer is a part of.
    pub(super) fn plaintext(&mut self, event: &TransferEvent<'_>) -> Plaintext {
        if let Some(library) = event.tls.library.filter(|_| event.tls.from_start) {
            return Plaintext::Read(library);
        }
        Plaintext::Unread(match self.found.get(&event.task.process.pid) {
            _ if !self.are_followed => TlsUnread::Off,
            None => TlsUnread::NotSearched,
            Some(false) => TlsUnread::NoLibrary,
            Some(true) => TlsUnread::OutsideCalls,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Time, TlsLibrary};

    #[test]
    fn processes_are_forgotten_in_the_order_of_their_use() {
        let mut libraries = Libraries::default();
        for pid in 0..=8193 {
            libraries.note(TlsLibraries { time: Time(0), pid, libraries: vec![TlsLibrary::GnuTls] });
        }
        assert!(libraries.are_followed);
        assert_eq!(libraries.found.len(), MAX_PROCESSES.get());
        assert!(libraries.found.peek(&1).is_none() && libraries.found.peek(&8193).is_some());
    }
}
