//! A tap: whoever is shown the events themselves, and how they were read. Facts go to sinks.

use crate::event::{KernelEvent, Time, TransferEvent};
use crate::smtp::{Item, Peer, Session};

/// Is shown what an observer is told, and what it reads in that.
///
/// A dialogue is named by its socket's cookie. Behind its end, another one may begin on the same socket.
pub trait Tap {
    /// An event that is no transfer, before it is taken.
    fn event(&mut self, event: &KernelEvent<'_>);

    /// What had waited until now is passed on.
    fn settled(&mut self, now: Time);

    /// A transfer, and who spoke in it. `dialogue` is absent where it belongs to none that is followed.
    fn transfer(&mut self, dialogue: Option<u64>, event: &TransferEvent<'_>, peer: Peer);

    /// What was read in a dialogue.
    fn item(&mut self, dialogue: u64, item: &Item);

    /// What a dialogue's session knows now, behind all that was read.
    fn read(&mut self, dialogue: u64, session: &Session);

    /// The same, at the end of the dialogue.
    fn ended(&mut self, dialogue: u64, session: &Session);
}
