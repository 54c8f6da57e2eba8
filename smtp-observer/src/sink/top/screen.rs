//! The terminal: taken, drawn on, and given back as it was, whatever happens.
//!
//! Frames are written by a thread of their own, one at a time: a terminal that takes none, since it is slow or was
//! stopped, misses frames and holds up nothing.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::panic;
use std::rc::Rc;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as threads;
use std::thread;
use std::time::Duration;

use crossterm::cursor::{Hide, Show};
use crossterm::event::{self, Event};
use crossterm::terminal::{self, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{execute, queue};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, raise};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Position, Rect};
use ratatui::{Frame, Terminal};
use tokio::sync::mpsc;

use crate::log;

/// How long the end waits for a terminal that does not take its last frame.
const LAST_FRAME: Duration = Duration::from_secs(1);

/// Keys that may wait.
const KEYS: usize = 64;

/// This is no terminal that a table can be drawn on. Exit status 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Standard output goes somewhere else.
    #[error("top draws on a terminal, and standard output is none: use `smtp-observer trace` for files and pipes.")]
    Output,
    /// Keys would come from somewhere else.
    #[error("top takes its keys from a terminal, and standard input is none: leave it to the terminal.")]
    Input,
    /// The terminal cannot place text.
    #[error(
        "top needs a terminal that can place text, and TERM says that this one cannot: set TERM to what it is, or use \
         `smtp-observer trace`."
    )]
    Dumb,
}

/// Whether there is a terminal that a table can be drawn on.
pub fn usable() -> Result<(), Unusable> {
    let term = std::env::var_os("TERM").filter(|term| !term.is_empty() && term != "dumb");
    match (io::stdout().is_terminal(), io::stdin().is_terminal(), term) {
        (false, _, _) => Err(Unusable::Output),
        (_, false, _) => Err(Unusable::Input),
        (_, _, None) => Err(Unusable::Dumb),
        (true, true, Some(_)) => Ok(()),
    }
}

/// Whether the terminal is gone, and nobody is there to be told anything.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe || error.raw_os_error() == Some(libc::EIO)
}

/// The terminal while it is ours.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Frames>>,
    /// Where a frame gathers.
    frame: Frames,
    frames: threads::Sender<Vec<u8>>,
    written: mpsc::Receiver<io::Result<()>>,
    /// A frame is on its way.
    busy: bool,
}

impl Screen {
    /// Takes the terminal, and has it given back at the latest when this is dropped or the program panics.
    ///
    /// To be called when privileges are given up: it starts threads.
    pub fn take() -> io::Result<Self> {
        let frame = Frames::default();
        let (frames, queue) = threads::channel::<Vec<u8>>();
        let (done, written) = mpsc::channel(1);
        let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        thread::Builder::new().name("screen".into()).spawn(move || {
            for bytes in queue {
                let result = output.write_all(&bytes);
                if done.blocking_send(result).is_err() {
                    break;
                }
            }
        })?;
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                // What is said of the panic is to be read.
                give_back();
                before(info);
            }));
        });
        enter()?;
        let terminal = Terminal::new(CrosstermBackend::new(frame.clone())).inspect_err(|_| give_back())?;
        Ok(Self { terminal, frame, frames, written, busy: false })
    }

    /// The terminal has not taken the last frame yet: it can be given no other.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Completes when the last frame is written; never, where none is on its way. Cancel-safe.
    pub async fn written(&mut self) -> io::Result<()> {
        if !self.busy {
            std::future::pending::<()>().await;
        }
        let result = self.written.recv().await;
        self.busy = false;
        result.unwrap_or_else(|| Err(ErrorKind::BrokenPipe.into()))
    }

    /// Draws what has changed since the last frame. Not to be called while it is busy.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw)?;
        let bytes = self.frame.0.take();
        if !bytes.is_empty() {
            self.busy = self.frames.send(bytes).is_ok();
        }
        Ok(())
    }

    /// Has the next frame drawn as a whole.
    pub fn forget(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }

    /// Stops this program, as Ctrl-Z does, and takes the terminal again when it goes on.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // Nothing stops where no shell could let it go on.
        raise(Signal::SIGTSTP)?;
        self.resume()
    }

    /// Takes the terminal again from whoever has used it meanwhile.
    pub fn resume(&mut self) -> io::Result<()> {
        give_back();
        enter()?;
        self.forget()
    }

    /// Gives the terminal back.
    pub async fn leave(mut self) {
        if self.busy {
            // One that takes nothing any more is given back as it is.
            let _ = tokio::time::timeout(LAST_FRAME, self.written()).await;
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.busy {
            // Writing would wait for as long as it takes nothing.
            let _ = terminal::disable_raw_mode();
            log::release();
        } else {
            give_back();
        }
    }
}

/// The terminal is ours.
static OURS: AtomicBool = AtomicBool::new(false);

fn enter() -> io::Result<()> {
    log::hold();
    OURS.store(true, Ordering::Relaxed);
    terminal::enable_raw_mode()
        .and_then(|()| execute!(io::stdout(), EnterAlternateScreen, Hide))
        .inspect_err(|_| give_back())
}

/// Has the terminal as it was before, if it is ours.
fn give_back() {
    if OURS.swap(false, Ordering::Relaxed) {
        // Where this fails there is no terminal left to be given back.
        let mut output = io::stdout();
        let _ = queue!(output, LeaveAlternateScreen, Show).and_then(|()| output.flush());
        let _ = terminal::disable_raw_mode();
        log::release();
    }
}

/// Gathers what is written.
#[derive(Clone, Debug, Default)]
struct Frames(Rc<RefCell<Vec<u8>>>);

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What comes from the terminal; the end is that it is gone. In threads, which wait as long as the program lives.
pub fn input() -> io::Result<mpsc::Receiver<io::Result<Event>>> {
    let (sender, events) = mpsc::channel(KEYS);
    let gone = sender.clone();
    thread::Builder::new().name("keys".into()).spawn(move || {
        loop {
            let event = event::read();
            let failed = event.is_err();
            if sender.blocking_send(event).is_err() || failed {
                break;
            }
        }
    })?;
    // Who reads a terminal's keys is not told that it hung up.
    thread::Builder::new().name("hangup".into()).spawn(move || {
        let stdin = io::stdin();
        let hangup = || poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::empty())], PollTimeout::NONE);
        let error = loop {
            match hangup() {
                // It was stopped, and goes on.
                Err(Errno::EINTR) => (),
                Err(error) => break error.into(),
                Ok(_) => break ErrorKind::BrokenPipe.into(),
            }
        };
        // Whoever would be told may have ended.
        let _ = gone.blocking_send(Err(error));
    })?;
    Ok(events)
}
