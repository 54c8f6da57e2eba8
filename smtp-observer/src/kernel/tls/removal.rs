//! Takes probes away that are not needed any more.

use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::attach::Link;

/// Threads that take probes away, where one link holds many: they wait for the same grace period.
const THREADS: usize = 32;

/// Where each probe is a link, the kernel takes away one at a time, and attaches none meanwhile. So only one is in line.
const THREADS_SINGLE: usize = 1;

/// The stack of a thread that takes probes away, in bytes.
const STACK: usize = 64 * 1024;

/// For how long probes that are not needed any more are gathered, to be taken away together.
const GATHERING: Duration = Duration::from_millis(250);

/// Takes probes away, many at once; all that are left, when no more can come. One link holds many probes, or each has its own.
pub fn remove(unwanted: &Receiver<Link>, multi: bool) {
    let threads = if multi { THREADS } else { THREADS_SINGLE };
    while let Ok(first) = unwanted.recv() {
        let (mut links, begun) = (vec![first], Instant::now());
        while let Ok(link) = unwanted.recv_timeout(GATHERING.saturating_sub(begun.elapsed())) {
            links.push(link);
        }
        let share = links.len().div_ceil(threads);
        thread::scope(|scope| {
            while !links.is_empty() {
                // It is done when they are dropped. Where no thread is to be had, that is here.
                let some = links.split_off(links.len().saturating_sub(share));
                let _ = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || drop(some));
            }
        });
    }
}

/// Has a probe taken away.
pub fn discard(unwanted: &Sender<Link>, link: Link) {
    // Where nobody is left to do it, it is done here.
    let _ = unwanted.send(link);
}
