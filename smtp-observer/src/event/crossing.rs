//! What crosses of a dialogue, for tests: the kernel's own filter.

use smtp_ebpf::event::WINDOW_LENGTH;
use smtp_ebpf::protocol::{Call, Dialogue, Speaker, Work, pass};

use super::{Said, Time};
use crate::smtp::Peer;

/// A dialogue as the kernel follows it.
pub(crate) struct Filter {
    dialogue: Box<Dialogue>,
    work: Box<Work>,
    /// The position of each peer's next byte.
    next: [u32; 2],
}

impl Filter {
    /// Of a dialogue that begins.
    pub(crate) fn new() -> Self {
        Self::of(Dialogue::beginning())
    }

    /// Of a dialogue that was under way when it was first seen.
    pub(crate) fn midstream() -> Self {
        Self::of(Dialogue::UNDER_WAY)
    }

    fn of(dialogue: Dialogue) -> Self {
        Self { dialogue: Box::new(dialogue), work: Box::new(Work::EMPTY), next: [1000, 5000] }
    }

    /// What crosses of a call: the length of each of its parts, and what was said in it.
    pub(crate) fn call(&mut self, peer: Peer, time: Time, bytes: &[u8]) -> Vec<(u32, Said<'static>)> {
        let speaker = if peer == Peer::Client { Speaker::Client } else { Speaker::Server };
        let mut parts = Vec::new();
        for bytes in bytes.chunks(WINDOW_LENGTH) {
            let next = &mut self.next[speaker as usize];
            let length = bytes.len() as u32;
            let call = Call { speaker, time: time.0, start: *next, length, positions: true, behind: false };
            *next = next.wrapping_add(length);
            let segments = pass(&mut self.dialogue, &mut self.work, call, bytes);
            parts.push((length, Said::read(segments).expect("the filter's segments").to_static()));
        }
        parts
    }

    /// So many bytes go by unseen.
    pub(crate) fn hole(&mut self, peer: Peer, length: u64) {
        let next = &mut self.next[usize::from(peer == Peer::Server)];
        *next = next.wrapping_add(length as u32);
    }
}
