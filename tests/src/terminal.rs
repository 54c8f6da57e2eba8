//! A terminal with a shell in it, for programs that draw: tmux, whose screen can be read.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::feed::PATIENCE;
use crate::machine;
use crate::process::{self, Running};

/// Between two looks at the screen: it tells nobody that it has changed.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// What the shell asks with.
pub const PROMPT: &str = "ready>";

/// A terminal, and the shell that runs in it.
#[derive(Debug)]
pub struct Terminal {
    // Ended before its socket is removed.
    _server: Running,
    folder: TempDir,
}

impl Terminal {
    /// A terminal of this size, whose shell waits for a command.
    pub fn open(width: u16, height: u16) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut server = tmux(&folder)?;
        // In the foreground, so that it ends with the test.
        server.arg("-D").env("LC_ALL", "C.UTF-8");
        let terminal = Self { _server: Running::start(server)?, folder };
        let size = [width, height].map(|number| number.to_string());
        let shell = format!("exec env PS1='{PROMPT} ' bash --noprofile --norc -i");
        let deadline = Instant::now() + PATIENCE;
        let session = ["new-session", "-d", "-x", &size[0], "-y", &size[1], &shell];
        // It does not say when it can be called.
        while let Err(error) = terminal.tmux(&session) {
            ensure!(Instant::now() < deadline, "{error:#}");
            thread::sleep(BETWEEN_LOOKS);
        }
        terminal.wait_for("the shell's prompt", |screen| screen.starts_with(PROMPT))?;
        Ok(terminal)
    }

    /// Types a line for the shell.
    pub fn run(&self, line: &str) -> Result<()> {
        self.type_text(line)?;
        self.press("Enter")
    }

    /// Types characters.
    pub fn type_text(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", text]).map(drop)
    }

    /// Presses a key, by tmux's name of it.
    pub fn press(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", key]).map(drop)
    }

    /// Gives it another size.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]).map(drop)
    }

    /// What is on the screen now, without blanks at the lines' ends.
    pub fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The same, with the escape sequences of its colours.
    pub fn coloured_screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until the screen is as it should be; returns it.
    pub fn wait_for(&self, what: &str, look: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen()?;
            if look(&screen) {
                return Ok(screen);
            }
            if Instant::now() > deadline {
                bail!("not on the screen within {PATIENCE:?}: {what}\n{screen}");
            }
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Waits until these words are on the screen.
    pub fn wait_text(&self, words: &str) -> Result<String> {
        self.wait_for(words, |screen| screen.contains(words))
    }

    /// Has the shell do something, and waits for what it prints: the lines between the command and the next prompt.
    pub fn ask(&self, command: &str) -> Result<String> {
        self.run("clear")?;
        self.wait_for("an empty screen", |screen| screen.trim() == PROMPT)?;
        self.run(command)?;
        let screen = self.wait_for("the answer", |screen| screen.trim_end().ends_with(&format!("\n{PROMPT}")))?;
        let (_, answer) = screen.split_once('\n').context("no line")?;
        Ok(answer.trim_end().trim_end_matches(PROMPT).trim_end().to_owned())
    }

    /// What tmux knows of it, such as `#{alternate_on}`.
    pub fn property(&self, format: &str) -> Result<String> {
        Ok(self.tmux(&["display-message", "-p", format])?.trim_end().to_owned())
    }

    /// The pid of the program that the shell runs now.
    pub fn program(&self) -> Result<Option<u32>> {
        let shell = self.property("#{pane_pid}")?;
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        Ok(children.split_whitespace().next().map(str::parse).transpose()?)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let mut tmux = tmux(&self.folder)?;
        // One that is not there is not started.
        tmux.arg("-N").args(arguments);
        let ended = process::succeeded("tmux", Running::start(tmux)?)?;
        Ok(ended.output.join("\n"))
    }
}

/// tmux with a socket of its own, and without anybody's configuration.
fn tmux(folder: &TempDir) -> Result<Command> {
    let mut command = Command::new(machine::installed("tmux")?);
    command.env_remove("TMUX").args(["-u", "-f", "/dev/null", "-S"]).arg(folder.path().join("socket"));
    Ok(command)
}
