//! Probes in processes that the tests know. Breakpoints show when they are there, and any agent's would do: so each test is alone.

mod attached;
mod libraries;
mod memory;
mod reach;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// No other test of these goes on meanwhile.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
