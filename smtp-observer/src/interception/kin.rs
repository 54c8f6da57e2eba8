//! Which processes belong together.

use crate::observation::{Caller, Process};

/// How near two processes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kin {
    /// One is the other.
    Same,
    /// One is the other's parent.
    Child,
    /// Both have one parent, which is not the first process of the host.
    Sibling,
}

/// How near they are, if they are.
pub fn kin(one: &Process, other: &Process) -> Option<Kin> {
    let parent = |process: &Process| process.parent.as_ref().map(|parent| parent.pid);
    if one.pid == other.pid {
        Some(Kin::Same)
    } else if parent(one) == Some(other.pid) || parent(other) == Some(one.pid) {
        Some(Kin::Child)
    } else if parent(one).is_some_and(|pid| pid > 1) && parent(one) == parent(other) {
        Some(Kin::Sibling)
    } else {
        None
    }
}

/// The process as people name it.
pub fn program(caller: &Caller) -> String {
    format!("{} (pid {})", caller.process.program(), caller.process.pid)
}
