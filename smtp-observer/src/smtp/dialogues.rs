//! Whole dialogues and what they yield. Each is also fed in pieces of 1 to 19 bytes.

mod commands;
mod content;
mod loss;

use super::Session;
use super::transcript::lines;
use crate::event::Time;

#[track_caller]
fn check(transcript: &str, expected: &[&str]) {
    assert_eq!(lines(Session::new, transcript), expected);
}

fn at(seconds: u64) -> Time {
    Time(seconds * 1_000_000_000)
}
