//! Names the process behind every SMTP connection of a Linux host, and follows what the two ends say.
//!
//! Data goes one way: [`kernel`] turns hook records into [`event`]s, the [`observer`] turns those into
//! [`observation`]s without reading a clock, a file or a socket, and every [`sink`] is a fold over observations.

pub mod agent;
pub mod analysis;
pub mod cgroup;
#[cfg(any(test, feature = "fuzzing"))]
mod choices;
pub mod cli;
pub mod compare;
pub mod connection;
pub mod event;
pub mod fact;
pub mod identity;
pub mod kernel;
pub mod log;
pub mod loss;
pub mod names;
pub mod observation;
pub mod observer;
pub mod privilege;
pub mod process;
pub mod proxy;
pub mod recorder;
pub mod recording;
pub mod redact;
pub mod sink;
pub mod smtp;
pub mod timestamp;

/// What holds for any bytes that are made to a case: each panics where it does not.
#[cfg(feature = "fuzzing")]
pub mod fuzzed {
    pub use crate::analysis::missing_replies::check as replies;
    pub use crate::recorder::hidden::check as hidden;
}
