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
