//! Processes that may be in the middle: clients whose conversation waits for its other side, and connections that are
//! nobody's other side yet.

use std::collections::VecDeque;

use foldhash::HashMap;

use super::push;

/// Most of each that are kept of one process, and that are looked at in one search.
const MOST: usize = 1024;
const LOOKED_AT: usize = 16;

/// The processes, by pid.
#[derive(Default)]
pub struct ProxyProcesses(HashMap<u32, Middle>);

/// A process.
#[derive(Default)]
pub struct Middle {
    /// Clients whose conversations have no other side yet, by cookie, the first one first.
    waiting: VecDeque<u64>,
    /// Its own connections that are no other side for certain, likewise.
    free: VecDeque<u64>,
}

impl ProxyProcesses {
    /// The process, if it may be in the middle.
    pub fn get(&self, pid: u32) -> Option<&Middle> {
        self.0.get(&pid)
    }

    /// It has connected.
    pub fn opens(&mut self, pid: u32, cookie: u64) -> &Middle {
        let middle = self.0.entry(pid).or_default();
        push(&mut middle.free, cookie, MOST);
        middle
    }

    /// It has accepted a client.
    pub fn waits(&mut self, pid: u32, client: u64) {
        push(&mut self.0.entry(pid).or_default().waiting, client, MOST);
    }

    /// The connection carries the client's conversation on; where that is not certain, it may still be another's.
    pub fn linked(&mut self, pid: u32, client: u64, upstream: u64, is_certain: bool) {
        let Some(middle) = self.0.get_mut(&pid) else { return };
        remove(&mut middle.waiting, client);
        if is_certain {
            remove(&mut middle.free, upstream);
        }
        if middle.is_empty() {
            self.0.remove(&pid);
        }
    }

    /// Forgets the first ones that are not known any more.
    pub fn forget(&mut self, pid: u32, is_known: impl Fn(u64) -> bool) {
        let Some(middle) = self.0.get_mut(&pid) else { return };
        for queue in [&mut middle.waiting, &mut middle.free] {
            while queue.pop_front_if(|cookie| !is_known(*cookie)).is_some() {}
        }
        if middle.is_empty() {
            self.0.remove(&pid);
        }
    }
}

impl Middle {
    /// The first clients that wait.
    pub fn waiting(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().copied().take(LOOKED_AT)
    }

    /// The first of its connections for which `is_since` is true, as it is for all behind it.
    pub fn free_since(&self, is_since: impl Fn(u64) -> bool) -> impl Iterator<Item = u64> {
        let first = self.free.partition_point(|cookie| !is_since(*cookie));
        self.free.iter().copied().skip(first).take(LOOKED_AT)
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.free.is_empty()
    }
}

/// What is linked is mostly the first.
fn remove(queue: &mut VecDeque<u64>, cookie: u64) {
    if let Some(place) = queue.iter().position(|known| *known == cookie) {
        queue.remove(place);
    }
}
