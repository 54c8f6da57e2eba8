//! What the agent takes for itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::agent::Agent;

/// What an agent has taken so far.
struct Taken {
    events: f64,
    lost: f64,
    processor: Duration,
    wake_ups: u64,
}

impl Taken {
    fn by(agent: &Agent) -> Result<Self> {
        // Before it answers, it takes in all that waits.
        let metrics = agent.metrics()?;
        let sum = |metric: &'static str| metrics.sum(metric, &[]).with_context(|| format!("the agent has no {metric}"));
        Ok(Self {
            events: sum("smtp_observer_kernel_events_total")?,
            lost: sum("smtp_observer_kernel_events_lost_total")?,
            processor: agent.processor_time()?,
            wake_ups: agent.wake_ups()?,
        })
    }
}

/// What an agent took for one load.
pub struct Load {
    /// Events.
    pub events: f64,
    /// Nanoseconds of processor time an event.
    pub nanoseconds: f64,
    /// Wake-ups a thousand events.
    pub wake_ups: f64,
    /// Events a second.
    pub rate: f64,
    /// Events lost.
    pub lost: f64,
    /// Megabytes resident behind it.
    pub resident: f64,
    /// Most megabytes that ever were.
    pub peak: f64,
}

impl Load {
    /// Plays the load, and adds what it took to `loads`, where there is an agent.
    pub fn of<T>(agent: Option<&Agent>, loads: &mut Vec<Self>, play: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(agent) = agent else { return play() };
        let before = Taken::by(agent)?;
        let started = Instant::now();
        let played = play()?;
        let after = Taken::by(agent)?;
        let seconds = started.elapsed().as_secs_f64();
        let events = after.events - before.events;
        ensure!(events > 0.0, "the agent saw nothing of the load");
        loads.push(Self {
            events,
            nanoseconds: (after.processor - before.processor).as_nanos() as f64 / events,
            wake_ups: (after.wake_ups - before.wake_ups) as f64 / events * 1e3,
            rate: events / seconds,
            lost: after.lost - before.lost,
            resident: agent.memory("VmRSS")? as f64 / 1e6,
            peak: agent.memory("VmHWM")? as f64 / 1e6,
        });
        Ok(played)
    }
}

/// Wake-ups of an agent that has nothing to do, in each of ten seconds.
pub fn idle_wake_ups() -> Result<Vec<f64>> {
    let agent = Agent::start_silent(&[])?;
    let second = || -> Result<f64> {
        let before = agent.wake_ups()?;
        std::thread::sleep(Duration::from_secs(1));
        Ok((agent.wake_ups()? - before) as f64)
    };
    (0..10).map(|_| second()).collect()
}

/// The family of hooks that the agent takes here.
pub fn family() -> Result<String> {
    let agent = Agent::start_silent(&[])?;
    let metrics = agent.metrics()?;
    let families = ["fentry", "tracepoint"];
    let of = |family: &&str| metrics.sum("smtp_observer_hooks_info", &[&format!("family=\"{family}\"")]).is_some();
    families.into_iter().find(of).map(str::to_owned).context("the agent does not say which hooks it has")
}
