//! The processes that use a socket: whose the connection is, and who sent each command.
//!
//! Several processes may have one socket. Where one sends commands and another reads the replies (a shell's writer and
//! reader), or one reads commands and another replies (a server's helpers), they share it, and no owner changes. The
//! connection is handed over where another process sends (at the server's end: reads) a command while nothing is
//! outstanding, and goes on to read (write) its reply itself.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::Time;
use crate::observation::Caller;

/// Senders that are remembered behind the last one; who sent a command before them is not known any more.
const MAX_EARLIER: usize = 16;

/// Changes of owner that are told in each [`PERIOD`] at most.
pub(crate) const MAX_TOLD: u32 = 60;
const PERIOD: Duration = Duration::from_secs(60);

/// Who uses a socket. The sender of a command is at the server's end its reader.
#[derive(Default)]
pub(crate) struct Users {
    owner: Option<Caller>,
    /// Who sent the last command, or a part of it, and since when all commands are its own.
    sender: Option<Caller>,
    since: Time,
    /// When the sender, which is not the owner, took the connection up. Whose the reply is decides.
    taken_up: Option<Time>,
    /// Another process than the one that sends commands has used the socket since the last change of owner.
    shared: bool,
    history: Option<Box<History>>,
}

/// What only sockets have that several processes use.
#[derive(Default)]
struct History {
    /// The senders before the last one, each with the time from which on commands are its own.
    senders: VecDeque<(Time, Caller)>,
    /// Changes of owner since the period began.
    changes: u32,
    period: Time,
}

/// A change of owner.
pub(crate) struct Handover {
    /// When the new owner sent its first command.
    pub(crate) time: Time,
    pub(crate) previous: Caller,
    /// It is not one of too many.
    pub(crate) is_told: bool,
}

impl Users {
    /// Whose the connection is, where that is known.
    pub(crate) fn owner(&self) -> Option<&Caller> {
        self.owner.as_ref()
    }

    /// It is of this process, which connects or was found to hold the socket.
    pub(crate) fn set_owner(&mut self, caller: Caller) {
        self.owner = Some(caller);
    }

    /// Who sent the command that ended then, where that is known.
    pub(crate) fn sender(&self, time: Time) -> Option<&Caller> {
        if time >= self.since {
            return self.sender.as_ref();
        }
        let senders = &self.history.as_ref()?.senders;
        senders.iter().rev().find(|(since, _)| time >= *since).map(|(_, caller)| caller)
    }

    /// A process moves bytes of commands.
    pub(crate) fn command(&mut self, caller: &Caller, nothing_outstanding: bool, time: Time) {
        let is_owner = self.refresh(caller);
        let goes_on = self.sender.as_ref().is_some_and(|sender| is_same(sender, caller));
        self.taken_up = match self.taken_up {
            _ if is_owner => None,
            Some(since) if goes_on => Some(since),
            _ => nothing_outstanding.then_some(time),
        };
        if self.sender.as_ref() != Some(caller)
            && let Some(before) = self.sender.replace(caller.clone())
        {
            let senders = &mut self.history.get_or_insert_default().senders;
            if senders.len() == MAX_EARLIER {
                senders.pop_front();
            }
            senders.push_back((std::mem::replace(&mut self.since, time), before));
        }
    }

    /// A process moves bytes of replies; whether that shows that it has become the owner.
    pub(crate) fn reply(&mut self, caller: &Caller) -> Option<Handover> {
        let is_owner = self.refresh(caller);
        let is_sender = self.sender.as_ref().map_or(is_owner, |sender| is_same(sender, caller));
        self.shared |= !is_sender;
        let time = self.taken_up.take()?;
        is_sender.then(|| self.hand_over(time)).flatten()
    }

    /// The connection is over; whether its last sender, which got no reply, had become the owner.
    pub(crate) fn close(&mut self) -> Option<Handover> {
        let time = self.taken_up.take()?;
        if self.shared { None } else { self.hand_over(time) }
    }

    /// Whether this process is the owner, with user, name and thread as in this call; the first one is.
    fn refresh(&mut self, caller: &Caller) -> bool {
        let is_owner = self.owner.as_ref().is_none_or(|owner| is_same(owner, caller));
        if is_owner {
            self.owner = Some(caller.clone());
        }
        is_owner
    }

    fn hand_over(&mut self, time: Time) -> Option<Handover> {
        let previous = std::mem::replace(&mut self.owner, self.sender.clone())?;
        self.shared = false;
        let history = self.history.get_or_insert_default();
        if history.changes == 0 || time.since(history.period) >= PERIOD {
            (history.changes, history.period) = (0, time);
        }
        history.changes = history.changes.saturating_add(1);
        Some(Handover { time, previous, is_told: history.changes <= MAX_TOLD })
    }
}

/// Whether both are threads of one process that runs one program.
fn is_same(one: &Caller, other: &Caller) -> bool {
    one.process.pid == other.process.pid && one.process.executable == other.process.executable
}
