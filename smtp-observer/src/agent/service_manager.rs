//! The service manager that has started the agent: what it is told (`sd_notify(3)`), and what it has passed
//! (`sd_listen_fds(3)`). Without one, nothing is told.

use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use sd_notify::NotifyState;
use tokio::time::Instant;
use tracing::debug;

/// The agent observes, and `status` says what.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It reads its configuration again; [`ready`] ends that.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!("cannot read the clock: {error}"),
    }
}

/// It ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        debug!("cannot tell the service manager: {error}");
    }
}

/// When the service manager wants to hear that the agent goes on (`WatchdogSec=`).
///
/// It is told by the loop that drains the ring buffer, right after it has: a core that does not come round is not alive.
pub(super) struct Watchdog {
    period: Option<Duration>,
    due: Option<Instant>,
}

impl Watchdog {
    /// As the service manager has asked for it.
    pub(super) fn new() -> Self {
        let mut microseconds = 0;
        let is_wanted = sd_notify::watchdog_enabled(false, &mut microseconds);
        // Half of the time, as sd_watchdog_enabled(3) recommends.
        let period = is_wanted.then(|| Duration::from_micros(microseconds) / 2);
        Self { period, due: period.map(|_| Instant::now()) }
    }

    /// When the ring buffer is to be drained next, at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It has been drained.
    pub(super) fn drained(&mut self) {
        tell(&[NotifyState::Watchdog]);
        self.due = self.period.map(|period| Instant::now() + period);
    }
}

/// The socket for HTTP clients that the service manager has opened (`ListenStream=` of a `.socket` unit), if it has.
///
/// To be called once, before other threads start.
pub(super) fn listener() -> io::Result<Option<TcpListener>> {
    let mut sockets = sd_notify::listen_fds()?;
    let Some(socket) = sockets.next() else { return Ok(None) };
    // SAFETY: the service manager has opened it for this process, and it is asked for once.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    if sockets.next().is_some() {
        return Err(io::Error::other("more than one socket was passed: leave one ListenStream="));
    }
    if !getsockopt(&socket, sockopt::AcceptConn).unwrap_or(false) {
        return Err(io::Error::other("what was passed waits for no connection: give an address with ListenStream="));
    }
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}
