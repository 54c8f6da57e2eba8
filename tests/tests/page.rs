//! The status page, in a real browser, beside real traffic.

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::browser::Browser;
use smtp_observer_tests::scene::Scene;

#[test]
fn look() -> Result<()> {
    let scene = Scene::new()?;
    let agent = Agent::start(&["--addresses", "full"])?;
    let mut browser = Browser::start(1280)?;
    browser.open(&format!("http://{}/", agent.http))?;
    scene.play()?;
    browser.wait_for("document.querySelector('#answer-title').textContent.includes('antivirus-proxy')")?;
    for scheme in ["light", "dark"] {
        browser.prefer(scheme)?;
        browser.screenshot(2000, std::path::Path::new(&format!("/tmp/w/page-{scheme}.png")))?;
    }
    println!("{:?}", browser.complaints()?);
    browser.close()
}
