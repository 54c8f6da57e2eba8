//! The live table: what `top` shows, and what the keys do to it.
//!
//! All but [`screen`] is pure: a [`View`] changes by the keys it is told and draws a [`Moment`] that it is given, so that
//! it is tested without a terminal and without a clock.

mod columns;
mod detail;
mod draw;
mod filter;
mod help;
mod keys;
pub mod pace;
pub mod screen;
mod theme;
mod view;
mod why;

#[cfg(test)]
mod tests;

use crate::observation::{Connection, Timestamp};
use crate::sink::connection_table::ConnectionTable;

pub use self::keys::Wish;
pub use self::theme::Theme;
pub use self::view::View;

/// Observations that the detail pane has of a connection.
pub const TRANSCRIPT: usize = 200;

/// What there is to show.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// When.
    pub time: Timestamp,
    /// The connections.
    pub table: &'a ConnectionTable,
    /// Bytes sent and received so far on a connection that is open.
    pub bytes: &'a dyn Fn(&Connection) -> Option<(u64, u64)>,
    /// Events of the kernel that found no room.
    pub lost: u64,
}
