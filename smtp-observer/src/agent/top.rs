//! `top`: the agent with a screen in place of lines.

use std::io;
use std::time::Instant;

use crossterm::event::Event;
use jiff::tz::TimeZone;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::level_filters::LevelFilter;

use super::{Error, Runtime, Sinks, attach, colour, create, if_any, named, start_record, system, tokio_runtime};
use crate::cli::Observe;
use crate::kernel;
use crate::observation::Timestamp;
use crate::privilege::{self, Files, Unprivileged};
use crate::sink::connection_table::ConnectionTable;
use crate::sink::top::pace::{Cause, Pace};
use crate::sink::top::screen::{self, Screen};
use crate::sink::top::{Moment, TRANSCRIPT, Theme, View, Wish};

pub(super) fn top(observe: Observe, diagnostics: LevelFilter) -> Result<(), Error> {
    screen::usable()?;
    privilege::may_observe()?;
    let user = Unprivileged::choose(observe.user.as_deref())?;
    let recording = observe.record.as_deref().map(create).transpose()?;
    tokio_runtime()?.block_on(async {
        let (kernel, mut signals) = attach(&observe, diagnostics, recording.as_ref(), user, Files::default())?;
        let continued = signal(SignalKind::from_raw(libc::SIGCONT)).map_err(system("wait for signals"))?;
        // It would end the agent, and leave the terminal as it is.
        let mut quit = signal(SignalKind::quit()).map_err(system("wait for signals"))?;

        let record = start_record(recording, &observe)?;
        let title = format!("{}, {}", named(&observe.ports), kernel.family().as_str());
        let (addresses, table) = (observe.addresses, Some(ConnectionTable::with_transcripts(TRANSCRIPT)));
        let sinks = Sinks { addresses, metrics: None, lines: None, table, viewers: None };
        let mut runtime = Runtime::new(kernel, &observe, sinks, record);
        runtime.resnapshot();

        let view = View::new(title, Theme { colour: colour(&io::stdout()) }, TimeZone::system());
        let screen = Screen::take().map_err(system("draw on the terminal"))?;
        let mut top = Top { runtime, screen, view, pace: Pace::default(), stops: false, changes: 0 };
        let outcome = tokio::select! {
            over = top.show(continued) => over.0,
            () = signals.wait() => Ok(()),
            _ = quit.recv() => Ok(()),
            () = if_any(observe.duration.map(tokio::time::sleep)) => Ok(()),
        };
        let Top { runtime, screen, .. } = top;
        // First, so that what is said of losses can be read.
        screen.leave().await;
        runtime.finish(false).await;
        outcome
    })
}

/// A session and its screen.
struct Top {
    runtime: Runtime,
    screen: Screen,
    view: View,
    pace: Pace,
    /// It is to be stopped, when no frame is under way.
    stops: bool,
    /// Of the table, when it was drawn last.
    changes: u64,
}

/// Why nothing more is shown.
struct Over(Result<(), Error>);

impl From<Error> for Over {
    fn from(error: Error) -> Self {
        Self(Err(error))
    }
}

impl From<io::Error> for Over {
    /// That the terminal has gone is an end like any other.
    fn from(error: io::Error) -> Self {
        Self(if screen::is_gone(&error) { Ok(()) } else { Err(system("use the terminal")(error)) })
    }
}

impl Top {
    /// Observes and shows until a key ends it.
    async fn show(&mut self, continued: Signal) -> Over {
        match self.run(continued).await {
            Ok(()) => Over(Ok(())),
            Err(over) => over,
        }
    }

    async fn run(&mut self, mut continued: Signal) -> Result<(), Over> {
        let mut input: mpsc::Receiver<_> = screen::input()?;
        self.pace.want(Cause::Key, Instant::now());
        loop {
            let due = self.pace.due().map(|due| sleep_until(due.into()));
            tokio::select! {
                ready = self.runtime.kernel.ready() => ready.map_err(system("read what the hooks deliver"))?,
                () = if_any(self.runtime.look.map(sleep_until)) => self.runtime.resnapshot(),
                Some(event) = input.recv() => {
                    if self.input(event?)? {
                        return Ok(());
                    }
                }
                // A frame that is under way belongs to the screen of before.
                _ = continued.recv(), if !self.screen.is_busy() => {
                    self.screen.resume()?;
                    self.pace.want(Cause::Key, Instant::now());
                }
                written = self.screen.written() => written?,
                () = if_any(due), if !self.screen.is_busy() => self.draw()?,
            }
            // The signal that lets it go on has the screen drawn.
            if self.stops && !self.screen.is_busy() {
                self.stops = false;
                self.screen.suspend()?;
            }
            // Whatever it was: it may have come between the kernel's waking and the taking.
            self.runtime.take_in();
            self.runtime.plan_look();
            self.plan();
        }
    }

    /// Does what a key says. Whether it is the end.
    fn input(&mut self, event: Event) -> Result<bool, Over> {
        self.pace.want(Cause::Key, Instant::now());
        let Event::Key(key) = event else { return Ok(false) };
        match self.look(|view, _, moment| view.key(key, moment))? {
            None => (),
            Some(Wish::Quit) => return Ok(true),
            Some(Wish::Redraw) => self.screen.forget()?,
            Some(Wish::Suspend) => self.stops = true,
        }
        Ok(false)
    }

    /// Says when to draw next.
    fn plan(&mut self) {
        let now = Instant::now();
        let Some(table) = &self.runtime.sinks.table else { return };
        if !self.view.is_paused() {
            if table.changes() != self.changes {
                self.pace.want(Cause::Observed, now);
            }
            if table.rows().len() > 0 {
                self.pace.want(Cause::Time, now);
            }
        }
        // What only time settles is settled before it is drawn.
        if self.runtime.observer.has_deadlines() {
            self.pace.want(Cause::Time, now);
        }
    }

    fn draw(&mut self) -> Result<(), Over> {
        if self.runtime.observer.has_deadlines() {
            self.runtime.settle(kernel::now().map_err(system("read the clock"))?);
        }
        self.look(|view, screen, moment| screen.draw(|frame| view.draw(moment, frame)))??;
        self.changes = self.runtime.sinks.table.as_ref().map_or(0, ConnectionTable::changes);
        self.pace.drawn(Instant::now());
        Ok(())
    }

    /// Looks at what there is now.
    fn look<T>(&mut self, look: impl FnOnce(&mut View, &mut Screen, &Moment<'_>) -> T) -> Result<T, Error> {
        let now = kernel::now().map_err(system("read the clock"))?;
        let time = Timestamp((now.0 as i64).saturating_add(self.runtime.kernel.host().unix_offset));
        let Runtime { kernel, observer, sinks, .. } = &mut self.runtime;
        let table = sinks.table.get_or_insert_default();
        table.forget(time);
        let bytes = |connection: &_| observer.bytes(connection);
        let moment = Moment { time, table, bytes: &bytes, lost: kernel.losses().total() };
        Ok(look(&mut self.view, &mut self.screen, &moment))
    }
}
