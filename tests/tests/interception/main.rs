//! Real programs between a client and the server that it asked for, and real programs that only look as if they were.
//!
//! Each scene first shows that it took place: the mail arrived, and every socket was seen in the right hands. Then it looks
//! at the verdict.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

mod antivirus;
mod between;
mod chosen;
mod innocents;
mod load;
mod methods;
mod pipes;
mod rewrite;
mod verdict;

/// An agent sees the whole host: beside a load, a test would have to read all that is told of it.
static TURN: RwLock<()> = RwLock::new(());

/// Held by a test that others may run beside.
fn beside_others() -> RwLockReadGuard<'static, ()> {
    TURN.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held by a test that has the machine to itself.
fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}
