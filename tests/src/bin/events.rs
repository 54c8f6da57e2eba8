//! Events of the demo's scene, as a real agent writes them: `events FILE`.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::scene::Scene;

fn main() -> Result<()> {
    let file = std::env::args().nth(1).context("name the file to write")?;
    // The agent appends.
    fs::write(&file, "").with_context(|| file.clone())?;
    let agent = Agent::start_silent(&["--events", &file])?;
    Scene::new()?.play()?;
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{}", stopped.log.join("\n"));
    ensure!(fs::read_to_string(&file)?.contains("\"interception\""), "the agent saw no program in the middle");
    Ok(())
}
