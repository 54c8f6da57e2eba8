//! Connections without a watched port that will be followed if the first thing said on them is a greeting: a process that
//! has accepted one connects to a mail server before it says anything.

use std::collections::VecDeque;

use super::{Conversation, Observer, endpoint, timestamp};
use crate::event::{Positions, Socket, StateEvent};
use crate::interception::Accepted;
use crate::observation::Role;
use crate::smtp::Session;

/// Most of them.
const MOST: usize = 256;

/// What the accepted sockets were when it was told of them; the kernel side tells of what is said on them, or on their
/// clients', when that has begun with a greeting.
#[derive(Default)]
pub(super) struct Expected(VecDeque<StateEvent>);

impl Observer {
    /// An accepted socket may be a proxy's.
    pub(super) fn expect(&mut self, event: StateEvent) {
        let Some(client) = event.peer else { return };
        let cookie = event.socket.cookie;
        let Expected(known) = &mut self.expected;
        if known.iter().any(|other| other.socket.cookie == cookie) || self.conversations.contains_key(&cookie) {
            return;
        }
        if known.len() >= MOST {
            known.pop_front();
        }
        let (local, time) = (endpoint(event.socket.local), timestamp(&self.host, event.time));
        self.interceptions.meet(client, Accepted { cookie, local, time }, event.transparent, &self.host.addresses);
        known.push_back(event);
    }

    /// The conversation on a socket that was expected: it is heard from its first byte.
    pub(super) fn expected(&mut self, socket: &Socket) -> Option<Box<Conversation>> {
        let is_it = |event: &StateEvent| event.socket.cookie == socket.cookie || event.peer == Some(socket.cookie);
        let event = self.expected.0.iter().find(|event| is_it(event))?.clone();
        let accepted = event.socket.cookie == socket.cookie;
        let role = if accepted { Role::Server } else { Role::Client };
        let mut conversation = self.begin(socket, role, event.time, Session::new());
        let Positions { written, read } = event.positions;
        let positions = if accepted { event.positions } else { Positions { written: read, read: written } };
        conversation.connection.establish(&StateEvent { positions, ..event });
        Some(conversation)
    }
}
