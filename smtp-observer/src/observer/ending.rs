//! How a connection ends, or is followed no longer.

use super::Out;
use super::deadlines::deadline_after;
use super::tracker::{Conversation, Tracker};
use crate::event::{Flow, StateEvent, TcpState, Time};
use crate::fact::{ConnectionClosed, ConnectionUnfollowed, Outstanding, What};
use crate::observation::{Caller, ClosedBy, Role};
use crate::smtp::Peer;

impl Tracker {
    pub(super) fn closed(&mut self, event: StateEvent, out: &mut Out<'_>) {
        let (cookie, time) = (event.socket.cookie, event.time);
        // The end may come late, and the socket have connected again.
        let is_its = |conversation: &Conversation| conversation.connection.first_seen <= time;
        if !self.conversations.get(&cookie).is_some_and(|conversation| is_its(conversation)) {
            return;
        }
        let Some(mut conversation) = self.conversations.remove(&cookie) else { return };
        while let Some(held) = conversation.connection.drain_held() {
            self.follow(&mut conversation, &held, out);
        }
        if conversation.connection.opened.is_some() || conversation.connection.announced {
            conversation.announce(&self.host, out);
            conversation.over = Some(Box::new(event));
            if !self.keep_or_end(cookie, conversation, out) {
                self.deadlines.push_back((deadline_after(time), cookie));
            }
        } else {
            self.count_held(&mut conversation, 0);
            conversation.show_end(out);
        }
    }

    /// Ends a conversation that is over and complete, else keeps it; whether it has ended.
    pub(super) fn keep_or_end(&mut self, cookie: u64, conversation: Box<Conversation>, out: &mut Out<'_>) -> bool {
        let ends = conversation.over.as_ref().is_some_and(|over| {
            conversation.connection.is_complete(over.readable_end()) && !conversation.may_hear(over)
        });
        match ends {
            true => self.end(conversation, out),
            false => self.keep(cookie, conversation, out),
        }
        ends
    }

    /// Accounts for what the socket moved after the last transfer that was seen.
    fn miss_last(&mut self, conversation: &mut Conversation, event: &StateEvent, out: &mut Out<'_>) {
        // The client's bytes first, as if the server's were the reply.
        let flows = match conversation.connection.role() {
            Role::Client => [Flow::Sent, Flow::Received],
            Role::Server => [Flow::Received, Flow::Sent],
        };
        for (flow, peer) in flows.into_iter().zip([Peer::Client, Peer::Server]) {
            let unhooked = conversation.connection.last_hole(flow, event.positions);
            if conversation.connection.has_plaintext() {
                // Ciphertext, whose plaintext is accounted for by itself.
                continue;
            }
            self.unhooked(conversation, peer, event.time, unhooked, out);
        }
    }

    /// Concludes a conversation that is over: when it was, or when it was last heard of.
    pub(super) fn end(&mut self, conversation: Box<Conversation>, out: &mut Out<'_>) {
        self.conclude(conversation, true, out);
    }

    /// Concludes a conversation, whose connection is over or is followed no longer.
    fn conclude(&mut self, mut conversation: Box<Conversation>, is_over: bool, out: &mut Out<'_>) {
        self.part_ends(&mut conversation);
        if let Some(handover) = conversation.connection.users.close() {
            self.hand_over(&mut conversation, &handover, out);
        }
        let over = conversation.over.take();
        let ended = over.as_ref().map(|over| over.time);
        let closed_by = over.as_deref().map_or(ClosedBy::Unknown, StateEvent::closed_by);
        let time = ended.unwrap_or(conversation.connection.last_seen);
        if let Some(over) = over {
            self.miss_last(&mut conversation, &over, out);
        }
        for flow in [Flow::Sent, Flow::Received] {
            let (peer, waiting) = (conversation.peer(flow), conversation.connection.waiting(flow));
            conversation.session.waited(peer, waiting);
        }
        let awaits_greeting = conversation.session.awaits_greeting();
        let is_paired = conversation.session.is_paired();
        if ended.is_none() {
            conversation.session.goes_unseen();
        }
        conversation.session.finish(time, &mut self.items);
        let outstanding = is_paired.then(|| Outstanding::of(&self.items));
        self.analyse(&mut conversation, out);
        let Conversation { connection, analysis, .. } = &mut *conversation;
        let told = &mut |time, process: Option<&Caller>, what: What<'_>| {
            out.tell(&connection.fact_of(&self.host, time, process, what));
        };
        analysis.finish(ended, time, connection.users.owner(), told);
        self.count_held(&mut conversation, 0);
        conversation.show_end(out);
        let connection = &conversation.connection;
        if !is_over {
            let unfollowed = ConnectionUnfollowed {
                bytes_sent: connection.bytes_sent(),
                bytes_received: connection.bytes_received(),
                duration: connection.age(time),
            };
            return out.tell(&connection.fact(&self.host, time, What::ConnectionUnfollowed(unfollowed)));
        }
        let of_server = match connection.role() {
            Role::Client => connection.bytes_received(),
            Role::Server => connection.bytes_sent(),
        };
        let closed = ConnectionClosed {
            bytes_sent: connection.bytes_sent(),
            bytes_received: connection.bytes_received(),
            duration: connection.age(time),
            lost_bytes: (!connection.seq_unreliable).then_some(connection.lost),
            greeting_bytes: Some(of_server).filter(|bytes| awaits_greeting && *bytes > 0),
            closed_by,
            outstanding,
        };
        out.tell(&connection.fact(&self.host, time, What::ConnectionClosed(closed)));
    }

    /// Lets go of the quarter of the connections that were idle longest. Whether they are over is not known, and not told:
    /// one that wakes up is first seen again.
    pub(super) fn evict_idle(&mut self, out: &mut Out<'_>) {
        let mut idle: Vec<(Time, u64)> =
            self.conversations.iter().map(|(cookie, it)| (it.connection.last_seen, *cookie)).collect();
        let quarter = idle.len() / 4;
        idle.select_nth_unstable(quarter);
        idle[..=quarter].sort_unstable();
        for (_, cookie) in idle.drain(..=quarter) {
            let Some(mut conversation) = self.conversations.remove(&cookie) else { continue };
            match conversation.connection.announced {
                true => {
                    let is_over = conversation.over.is_some();
                    self.conclude(conversation, is_over, out);
                }
                false => {
                    self.count_held(&mut conversation, 0);
                    conversation.show_end(out);
                }
            }
        }
    }
}

impl Conversation {
    /// Whether the client may still read a reply from the socket that is over: not if it was closed after the server's.
    fn may_hear(&self, over: &StateEvent) -> bool {
        self.connection.role() == Role::Client && over.socket.state != TcpState::LastAck && self.session.awaits_reply()
    }
}
