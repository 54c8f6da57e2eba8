//! The processes that use a socket: whose the connection is, and who sent each command.
//!
//! Several processes may have one socket. Where one sends commands and another reads the replies (a shell's writer and
//! reader), or one reads commands and another replies (a server's helpers), they share it, and no owner changes. The
//! connection is handed over where another process sends (at the server's end: reads) a command while nothing is
//! outstanding, and goes on to read (write) its reply itself.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::Time;
use crate::identity::Caller;

/// Senders that are remembered behind the last one; who sent a command before them is not known any more.
const MAX_EARLIER: usize = 16;

/// Changes of owner that are told in each [`PERIOD`] at most.
pub(crate) const MAX_TOLD: u32 = 60;
const PERIOD: Duration = Duration::from_secs(60);

/// Who uses a socket.
#[derive(Default)]
pub(crate) struct Users {
    owner: Option<Caller>,
    /// What is not the same for all calls. Without it, all were the owner's, as it is now.
    several: Option<Box<Several>>,
}

/// What only sockets have that several processes or threads use. The sender of a command is at the server's end its reader.
struct Several {
    /// Who sent the last command, or a part of it, and since when all commands are its own.
    sender: Caller,
    since: Time,
    /// The senders before, each with the time from which on commands are its own.
    earlier: VecDeque<(Time, Caller)>,
    /// When the sender, which is not the owner, took the connection up. Whose the reply is decides.
    taken_up: Option<Time>,
    /// Nobody has replied since the sender last sent.
    goes_on: bool,
    /// Another process than the one that sends commands has used the socket since the last change of owner.
    shared: bool,
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
        let Some(several) = &self.several else { return self.owner.as_ref() };
        if time >= several.since {
            return Some(&several.sender);
        }
        several.earlier.iter().rev().find(|(since, _)| time >= *since).map(|(_, caller)| caller)
    }

    /// A process moves bytes of commands. It may take the connection up where nothing is outstanding.
    pub(crate) fn command(&mut self, caller: &Caller, may_take_up: bool, time: Time) {
        let is_owner = self.take(caller);
        let Some(several) = &mut self.several else { return };
        let is_sender = is_same(&several.sender, caller);
        let goes_on = std::mem::replace(&mut several.goes_on, true) && is_sender;
        several.taken_up = match several.taken_up {
            _ if is_owner => None,
            Some(since) if is_sender => Some(since),
            // What was outstanding when it began to send is no less so by what else it sends, be it not known any more.
            None if goes_on => None,
            _ => may_take_up.then_some(time),
        };
        if several.sender != *caller {
            let before = std::mem::replace(&mut several.sender, caller.clone());
            let since = std::mem::replace(&mut several.since, time);
            if several.earlier.len() == MAX_EARLIER {
                several.earlier.pop_front();
            }
            several.earlier.push_back((since, before));
        }
    }

    /// A process moves bytes of replies; whether that shows that it has become the owner.
    pub(crate) fn reply(&mut self, caller: &Caller) -> Option<Handover> {
        self.take(caller);
        let several = self.several.as_mut()?;
        let is_sender = is_same(&several.sender, caller);
        several.goes_on = false;
        several.shared |= !is_sender;
        let time = several.taken_up.take()?;
        if is_sender { self.hand_over(time) } else { None }
    }

    /// The connection is over; whether its last sender, which got no reply, had become the owner.
    pub(crate) fn close(&mut self) -> Option<Handover> {
        let several = self.several.as_mut()?;
        let time = several.taken_up.take()?;
        if several.shared { None } else { self.hand_over(time) }
    }

    /// Takes notice of a caller; whether it is the owner, of which user, name and thread are those of the last call. The
    /// first one is.
    fn take(&mut self, caller: &Caller) -> bool {
        let Some(owner) = &mut self.owner else {
            self.owner = Some(caller.clone());
            return true;
        };
        if owner == caller {
            return true;
        }
        let is_owner = is_same(owner, caller);
        self.several.get_or_insert_with(|| Box::new(Several::of(owner.clone())));
        if is_owner {
            *owner = caller.clone();
        }
        is_owner
    }

    fn hand_over(&mut self, time: Time) -> Option<Handover> {
        let several = self.several.as_mut()?;
        let previous = self.owner.replace(several.sender.clone())?;
        several.shared = false;
        if several.changes == 0 || time.since(several.period) >= PERIOD {
            (several.changes, several.period) = (0, time);
        }
        several.changes = several.changes.saturating_add(1);
        Some(Handover { time, previous, is_told: several.changes <= MAX_TOLD })
    }
}

impl Several {
    /// All that was sent so far is this caller's.
    fn of(sender: Caller) -> Self {
        Self {
            sender,
            since: Time::default(),
            earlier: VecDeque::new(),
            taken_up: None,
            goes_on: false,
            shared: false,
            changes: 0,
            period: Time::default(),
        }
    }
}

/// Whether both are threads of one process that runs one program.
fn is_same(one: &Caller, other: &Caller) -> bool {
    one.process.pid == other.process.pid && one.process.executable == other.process.executable
}
