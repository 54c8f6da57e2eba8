//! Signals that end the agent, or have it open its files again.

use std::io;

use procfs::process::Process;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::if_any;

/// The signals that end the agent.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Option<Signal>,
    /// The terminal is gone.
    hangup: Option<Signal>,
}

impl Signals {
    /// What whoever starts it has ignored for it stays ignored: SIGHUP by nohup(1), SIGINT by a shell's `&`.
    pub(super) fn new() -> io::Result<Self> {
        // A file that may not become larger is one more that cannot be written, and nothing to die of.
        let _ = signal(SignalKind::from_raw(libc::SIGXFSZ))?;
        let ignored = Process::myself().and_then(|process| process.status()).map_or(0, |status| status.sigign);
        let heeded = |kind: SignalKind| {
            let is_ignored = ignored >> (kind.as_raw_value() - 1) & 1 == 1;
            (!is_ignored).then(|| signal(kind)).transpose()
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: heeded(SignalKind::interrupt())?,
            hangup: heeded(SignalKind::hangup())?,
        })
    }

    /// SIGHUP for a daemon, to whom it is not the end of a terminal.
    pub(super) fn take_hangup(&mut self) -> io::Result<Signal> {
        self.hangup.take().map_or_else(|| signal(SignalKind::hangup()), Ok)
    }

    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = if_any(self.interrupt.as_mut().map(Signal::recv)) => (),
            _ = if_any(self.hangup.as_mut().map(Signal::recv)) => (),
        }
    }
}
