//! Measurements of the same with different hooks in place, one beside the other.
//!
//! On a busy machine the ratio of neighbours is worth more than any time: what is compared is measured round by round,
//! every other round the other way, so that a machine that grows slower favours nobody; what is shown is the median of
//! the rounds, with the lowest and the highest.

use std::time::Duration;

use anyhow::{Result, ensure};
use smtp_observer_tests::agent::Agent;

use crate::empty::Empty;

/// What watches while something is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hooks {
    /// Nothing.
    None,
    /// A program that returns at once, wherever the agent has one that is run for every call: what the kernel itself
    /// takes for having any hook there.
    Empty,
    /// The agent.
    Agent,
    /// The agent with this value of `--tls`.
    Tls(&'static str),
}

impl Hooks {
    fn options(self) -> Vec<&'static str> {
        match self {
            Self::Tls(whose) => vec!["--tls", whose],
            Self::None | Self::Empty | Self::Agent => Vec::new(),
        }
    }
}

/// Measures round by round.
pub struct Rounds {
    /// How many.
    pub number: usize,
    /// Whose programs the empty ones stand in for.
    pub family: String,
    /// How long each agent took from its start to its hooks being in.
    pub start_ups: Vec<Duration>,
}

impl Rounds {
    /// Measures with each of these hooks in each round; what was measured with each of them, in the order of the rounds.
    pub fn compare<T, const N: usize>(
        &mut self,
        hooks: [Hooks; N],
        mut measure: impl FnMut(Option<&Agent>) -> Result<T>,
    ) -> Result<[Vec<T>; N]> {
        // The first measurement of a kind warms up what the others find warm.
        measure(None)?;
        let mut measured = [const { Vec::new() }; N];
        for round in 0..self.number {
            for place in 0..N {
                let place = if round % 2 == 0 { place } else { N - 1 - place };
                measured[place].push(self.with(hooks[place], &mut measure)?);
            }
        }
        Ok(measured)
    }

    fn with<T>(&mut self, hooks: Hooks, measure: &mut impl FnMut(Option<&Agent>) -> Result<T>) -> Result<T> {
        match hooks {
            Hooks::None => measure(None),
            Hooks::Empty => {
                let _attached = Empty::attach(&self.family)?;
                measure(None)
            }
            Hooks::Agent | Hooks::Tls(_) => {
                let agent = Agent::start_silent(&hooks.options())?;
                self.start_ups.push(agent.start_up);
                let measured = measure(Some(&agent))?;
                let stopped = agent.stop()?;
                ensure!(
                    stopped.status.success(),
                    "the agent ended with {}:\n{}",
                    stopped.status,
                    stopped.log.join("\n")
                );
                Ok(measured)
            }
        }
    }
}

/// The median of the rounds, with the lowest and the highest.
pub struct Spread {
    /// The median.
    pub median: f64,
    lowest: f64,
    highest: f64,
}

impl Spread {
    /// Of these.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.into_iter().collect();
        Self {
            lowest: values.iter().copied().fold(f64::INFINITY, f64::min),
            highest: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            median: median(values),
        }
    }

    /// Of a number made of what was measured in the same round with the one and with the other.
    pub fn between(one: &[f64], other: &[f64], number: impl Fn(f64, f64) -> f64) -> Self {
        Self::of(one.iter().zip(other).map(|(&one, &other)| number(one, other)))
    }

    /// With so many digits behind the point.
    pub fn show(&self, digits: usize) -> String {
        let Self { median, lowest, highest } = self;
        format!("{median:.digits$} ({lowest:.digits$} to {highest:.digits$})")
    }
}

/// The one in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}
