//! A picture of `smtp-observer top` from a real run: `picture FILE.svg`. The text of the two screens goes to standard output.

use std::path::PathBuf;
use std::{fs, thread};

use anstyle_svg::Term;
use anyhow::{Context as _, Result, anyhow};
use smtp_observer_tests::machine;
use smtp_observer_tests::scene::Scene;
use smtp_observer_tests::terminal::Terminal;

fn main() -> Result<()> {
    let path: PathBuf = std::env::args_os().nth(1).context("which file is it to be?")?.into();
    let terminal = Terminal::open(80, 24)?;
    terminal.run(&format!("{} top", machine::agent()?.display()))?;
    terminal.wait_text("smtp-observer top, port")?;
    let scene = Scene::new()?;
    let played = thread::spawn(move || scene.play());
    // The whole story: what the proxy did behind the client's back is told last.
    terminal.wait_text("unusual: interceptor_replay")?;
    terminal.press("Space")?;
    terminal.wait_text("PAUSED")?;
    played.join().map_err(|_| anyhow!("the scene broke off"))??;

    // What else goes on on this machine is no part of it.
    terminal.type_text("/10.77.0")?;
    terminal.press("Enter")?;
    let table = terminal.wait_for("the scene", |screen| screen.contains("match 10.77.0") && screen.contains("Help"))?;
    let picture = Term::new().render_svg(&terminal.coloured_screen()?);
    terminal.press("Enter")?;
    let detail = terminal.wait_text("local_peer")?;
    terminal.press("C-c")?;

    fs::write(&path, picture).with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{table}\n\n{detail}");
    Ok(())
}
