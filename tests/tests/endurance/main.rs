//! What an agent is to outlive, and what it says of it: of each observation it is known whether it was made or lost.
//!
//! In a whole run each load lasts seconds. `SMTP_OBSERVER_LOAD_SECONDS` and `SMTP_OBSERVER_LOAD_CONNECTIONS` make it last and
//! grow; with `--nocapture` the figures are printed.

mod connections;
mod faults;
mod hostile;
mod mixed;

use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

/// One test at a time: each is to have the machine to itself, as far as there is one.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a load lasts.
fn duration(ordinary: Duration) -> Result<Duration> {
    Ok(setting("SMTP_OBSERVER_LOAD_SECONDS")?.map_or(ordinary, Duration::from_secs))
}

/// A whole number in the environment.
fn setting<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(name: &str) -> Result<Option<T>> {
    let value = std::env::var(name).ok();
    value.map(|value| value.parse().with_context(|| format!("{name} is no number"))).transpose()
}
