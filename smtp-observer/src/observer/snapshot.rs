//! What a snapshot of the open sockets tells: connections whose beginning was not seen, and those whose end was not.
//!
//! A snapshot is taken when all that waited in the ring buffer has been taken in. What comes after it may still be
//! from before it: the beginning of a connection that it lists, or its first transfers. Its end cannot be, since a
//! closed socket is not listed.

use std::mem;
use std::num::NonZero;
use std::time::Duration;

use foldhash::{HashSet, HashSetExt as _};

use super::Out;
use super::tracker::{Conversation, MAX_CONNECTIONS, Tracker};
use crate::event::{OpenSocket, Snapshot, TcpState, Time};
use crate::observation::Role;
use crate::smtp::Session;

/// How long a connection that nobody holds has to be quiet before it counts as over. The kernel gives one that is left to it up
/// after a hundred seconds without an answer (tcp(7), `tcp_orphan_retries`), and a server waits five minutes for a command (RFC
/// 5321, 4.5.3.2.7).
const LONG_QUIET: Duration = Duration::from_secs(600);

impl Tracker {
    /// Begins to follow each connection that is not known yet, and ends those that are there no more.
    pub(super) fn snapshot(&mut self, mut snapshot: Snapshot, out: &mut Out<'_>) {
        for process in mem::take(&mut snapshot.processes) {
            self.processes.describe(process);
        }
        self.needs_second_snapshot = false;
        if !snapshot.partial {
            self.miss(&snapshot, out);
        }
        // Later looks bring nothing back that was let go for want of room: it is followed again when it moves bytes.
        let most = if mem::replace(&mut self.has_looked, true) { MAX_CONNECTIONS / 2 } else { usize::MAX };
        for open in snapshot.sockets {
            if !self.conversations.contains_key(&open.socket.cookie) && self.conversations.len() < most {
                let conversation = self.join(&open, snapshot.time, out);
                self.keep(open.socket.cookie, conversation, out);
            }
        }
    }

    /// Ends the connections whose end the kernel has not told: two snapshots found them in no process's hands, and they have been
    /// quiet for long. One is not enough: a descriptor may be on its way from one process to another, or go to one that the
    /// walk has passed already. Nor are two at once: a process has left its socket to the kernel until the last bytes have
    /// arrived, or has it in a table of io_uring's. What waits to be accepted is in nobody's hands, too, and not announced.
    fn miss(&mut self, snapshot: &Snapshot, out: &mut Out<'_>) {
        let mut held = HashSet::with_capacity(snapshot.sockets.len());
        held.extend(snapshot.sockets.iter().map(|open| open.socket.cookie));
        let mut gone = Vec::new();
        for (cookie, conversation) in &mut self.conversations {
            let connection = &mut conversation.connection;
            let seen = NonZero::new(connection.last_seen.0);
            let is_quiet = snapshot.time.since(connection.last_seen) >= LONG_QUIET;
            if held.contains(cookie) || !connection.announced || !is_quiet {
                connection.missed = None;
            } else if seen.is_some() && mem::replace(&mut connection.missed, seen) == seen {
                gone.push(*cookie);
            } else {
                self.needs_second_snapshot = true;
            }
        }
        // In an order that the next observer of the same events has, too.
        gone.sort_unstable();
        for cookie in gone {
            let Some(mut conversation) = self.conversations.remove(&cookie) else { continue };
            while let Some(waiting) = conversation.connection.drain_held() {
                self.follow(&mut conversation, &waiting, out);
            }
            conversation.connection.last_seen = snapshot.time;
            self.end(conversation, out);
        }
    }

    /// A connection from its middle on, or one that is being made.
    fn join(&mut self, open: &OpenSocket, time: Time, out: &mut Out<'_>) -> Box<Conversation> {
        let connecting = open.socket.state == TcpState::SynSent;
        let (role, session) = if connecting {
            (Role::Client, Session::new())
        } else {
            (self.role_by_port(&open.socket), Session::midstream())
        };
        let mut conversation = self.begin(&open.socket, role, time, session);
        conversation.connection.listed = NonZero::new(open.time.0.max(1));
        conversation.connection.users.set_owner(self.processes.caller(&open.task));
        if !connecting {
            conversation.connection.join(open.positions);
            conversation.announce(&self.host, out);
        }
        conversation
    }

    /// Makes way for a connection whose beginning the ring buffer tells of. Whether it is announced already, by a
    /// snapshot that was taken before its beginning was taken in.
    pub(super) fn replace_existing(&mut self, cookie: u64, time: Time, out: &mut Out<'_>) -> bool {
        let Some(mut before) = self.conversations.remove(&cookie) else { return false };
        self.count_held(&mut before, 0);
        before.show_end(out);
        let announced = before.connection.announced;
        if before.connection.listed.is_some_and(|listed| time.0 <= listed.get()) {
            return announced;
        }
        if announced {
            // A socket may connect again; the end of its last connection was lost.
            self.end(before, out);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::*;
    use crate::event::{Flow, KernelEvent, SeqNumbers};
    use crate::observation::{Event, Timestamp};

    const LATER: u64 = LONG_QUIET.as_nanos() as u64;

    /// The sockets that a snapshot lists.
    fn snapshot(story: &Story, time: u64, states: &[TcpState]) -> KernelEvent<'static> {
        let open = |state: &TcpState| OpenSocket {
            time: Time(time + 10),
            task: task(OTHER),
            socket: socket(*state),
            positions: SeqNumbers { write_seq: story.written, copied_seq: story.read },
        };
        let sockets = states.iter().map(open).collect();
        KernelEvent::Snapshot(Snapshot { time: Time(time), processes: Vec::new(), sockets, partial: false })
    }

    #[test]
    fn what_was_open_before_is_told_at_once_and_followed() {
        let mut story = Story::new();
        story.event(snapshot(&story, 5000, &[TcpState::Established]));
        assert_eq!(story.names(), ["connection.opened"]);
        assert_eq!(story.told[0].time, Timestamp(1_000_005_000));
        assert_eq!(story.told[0].process.as_ref().map(|caller| caller.process.pid), Some(OTHER.0));
        story.time = 6000;
        // What is lost from now on is known.
        story.written += 10;
        story.transfer(OTHER, Flow::Sent, "NOOP\r\n");
        story.transfer(OTHER, Flow::Received, "250 ok\r\n");
        story.state(TcpState::LastAck, TcpState::Close, None);
        let Some(Event::ConnectionClosed { bytes_sent, bytes_received, .. }) =
            story.told.last().map(|told| told.event.clone())
        else {
            panic!("{:?}", story.names());
        };
        assert_eq!((bytes_sent, bytes_received), (16, 8));
    }

    #[test]
    fn what_is_known_is_left_as_it_is() {
        let mut story = Story::new();
        story.connect();
        story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
        story.event(snapshot(&story, 5000, &[TcpState::Established]));
        story.transfer(CLIENT, Flow::Sent, "QUIT\r\n");
        story.transfer(CLIENT, Flow::Received, "221 Bye\r\n");
        assert_eq!(story.names(), ["connection.opened", "smtp.greeting", "QUIT Some(221)"]);
    }

    #[test]
    fn an_end_after_the_snapshot_is_told_and_one_before_brings_nothing_back() {
        let mut story = Story::new();
        story.event(snapshot(&story, 5000, &[TcpState::Established]));
        story.time = 5010;
        story.state(TcpState::LastAck, TcpState::Close, None);
        assert_eq!(story.names(), ["connection.opened", "connection.closed"]);

        // Closed before the snapshot, which therefore does not list it; the close is taken in before or after.
        for close_first in [true, false] {
            let mut story = Story::new();
            if close_first {
                story.state(TcpState::LastAck, TcpState::Close, None);
            }
            story.event(snapshot(&story, 5000, &[]));
            if !close_first {
                story.state(TcpState::LastAck, TcpState::Close, None);
            }
            assert_eq!(story.names(), [""; 0]);
        }
    }

    #[test]
    fn a_connection_whose_beginning_comes_after_the_snapshot_is_opened_once() {
        let mut story = Story::new();
        story.event(snapshot(&story, 5000, &[TcpState::Established]));
        // From before.
        story.connect();
        story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
        assert_eq!(story.names(), ["connection.opened", "smtp.greeting"]);
    }

    #[test]
    fn an_accepted_connection_whose_beginning_comes_after_the_snapshot_is_opened_once() {
        let mut story = Story::new();
        story.event(snapshot(&story, 5000, &[TcpState::Established]));
        story.state(TcpState::SynReceived, TcpState::Established, None);
        story.transfer(OTHER, Flow::Sent, "220 mx ESMTP\r\n");
        assert_eq!(story.names(), ["connection.opened", "smtp.greeting"]);
    }

    #[test]
    fn a_connection_that_is_being_made_is_told_when_it_is() {
        let mut story = Story::new();
        story.event(snapshot(&story, 5000, &[TcpState::SynSent]));
        assert_eq!(story.names(), [""; 0]);
        story.state(TcpState::SynSent, TcpState::Established, None);
        story.transfer(OTHER, Flow::Received, "220 mx ESMTP\r\n");
        assert_eq!(story.names(), ["connection.opened", "smtp.greeting"]);
    }

    #[test]
    fn a_socket_that_connects_again_ends_what_it_was() {
        let mut story = Story::new();
        story.connect();
        // Its end was lost.
        story.connect();
        assert_eq!(story.names(), ["connection.opened", "connection.closed", "connection.opened"]);
    }

    #[test]
    fn an_end_that_comes_late_is_not_that_of_the_next_connection() {
        let mut story = Story::new();
        story.connect();
        let late = story.state_event(TcpState::Established, TcpState::Close, None);
        story.time += 1000;
        story.connect();
        story.event(KernelEvent::State(late));
        assert_eq!(story.names(), ["connection.opened", "connection.closed", "connection.opened"]);
    }

    #[test]
    fn a_connection_whose_end_was_lost_is_closed_by_the_second_snapshot() {
        let mut story = Story::new();
        story.connect();
        // Its socket may be the kernel's alone.
        story.event(snapshot(&story, 5000, &[]));
        assert!(!story.observer.needs_second_snapshot());
        story.event(snapshot(&story, LATER + 5000, &[]));
        assert!(story.observer.needs_second_snapshot());
        assert_eq!(story.names(), ["connection.opened"]);
        story.event(snapshot(&story, LATER + 6000, &[]));
        assert!(!story.observer.needs_second_snapshot());
        assert_eq!(story.names(), ["connection.opened", "connection.closed"]);
        assert_eq!(story.told[1].time, Timestamp((LATER + 1_000_006_000) as i64));
        // The end itself, late.
        story.time = LATER + 7000;
        story.state(TcpState::LastAck, TcpState::Close, None);
        assert_eq!(story.names(), ["connection.opened", "connection.closed"]);
    }

    #[test]
    fn a_connection_that_is_held_or_speaks_between_two_snapshots_is_not_closed() {
        let mut story = Story::new();
        story.connect();
        story.event(snapshot(&story, LATER + 5000, &[]));
        story.event(snapshot(&story, LATER + 6000, &[TcpState::Established]));
        story.event(snapshot(&story, LATER + 7000, &[]));
        assert!(story.observer.needs_second_snapshot());
        story.time = LATER + 7000;
        story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
        for time in [LATER + 9000, 2 * LATER + 9000] {
            story.event(snapshot(&story, time, &[]));
            assert_eq!(story.observer.needs_second_snapshot(), time > 2 * LATER);
        }
        assert_eq!(story.names(), ["connection.opened", "smtp.greeting"]);
    }

    /// Its process may be in another pid namespace than the agent.
    #[test]
    fn where_only_some_processes_are_looked_at_nothing_is_closed() {
        let mut story = Story::new();
        story.connect();
        for time in [LATER + 5000, LATER + 6000, 2 * LATER] {
            let KernelEvent::Snapshot(whole) = snapshot(&story, time, &[]) else { unreachable!("it is one") };
            story.event(KernelEvent::Snapshot(Snapshot { partial: true, ..whole }));
            assert!(!story.observer.needs_second_snapshot());
        }
        assert_eq!(story.names(), ["connection.opened"]);
    }

    #[test]
    fn what_waits_to_be_accepted_is_not_closed() {
        let mut story = Story::new();
        story.state(TcpState::SynReceived, TcpState::Established, None);
        story.event(snapshot(&story, LATER + 5000, &[]));
        story.event(snapshot(&story, LATER + 6000, &[]));
        assert!(!story.observer.needs_second_snapshot());
        story.time = 7000;
        story.transfer(OTHER, Flow::Sent, "220 mx ESMTP\r\n");
        assert_eq!(story.names(), ["connection.opened", "smtp.greeting"]);
    }
}
