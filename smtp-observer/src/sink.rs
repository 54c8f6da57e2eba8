//! The sinks: each a fold over observations, bounded, its drops counted.

pub mod comparison;
pub mod connection_table;
pub mod connections;
pub mod escape;
pub mod events;
pub mod filter;
pub mod http;
pub mod metrics;
pub mod output;
pub mod retained;
mod text;
pub mod top;
pub mod trace;

#[cfg(test)]
mod samples;

use std::io;

/// The cause of an I/O error in words, without Rust's "(os error 98)".
pub fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}
