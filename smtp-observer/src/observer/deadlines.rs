//! What only time settles: whether a connection that is over has been told of in full, and whether the client goes on.
//!
//! Both are decided by the times of events. That the clock is read late, or often, changes nothing in what is told.

use std::time::Duration;

use super::tracker::{Conversation, Tracker};
use super::{Observer, Out};
use crate::event::Time;
use crate::fact::What;
use crate::observation::Caller;

/// How long a connection that is over waits for transfers that no event has told of.
///
/// A transfer is told when its call returns; a reset may end the connection inside of the call. And what has arrived
/// before the end can still be read.
pub const GRACE_PERIOD: Duration = Duration::from_secs(1);

/// How long one waits whose process can still read what had come.
const READING_PERIOD: Duration = Duration::from_secs(10);

impl Observer {
    /// Whether something waits for time to pass: [`Self::settle`] wants to be called in time.
    pub fn has_deadlines(&self) -> bool {
        !self.tracker.deadlines.is_empty() || self.interceptions.is_waiting()
    }

    /// Whether a connection is followed: its end may go unseen.
    pub fn follows_any(&self) -> bool {
        !self.tracker.conversations.is_empty()
    }
}

impl Tracker {
    /// Ends the connections that have waited for [`GRACE_PERIOD`]; what is missing of them has gone unseen. And tells the
    /// judges whose deadlines have passed.
    pub(super) fn pass_deadlines(&mut self, now: Time, out: &mut Out<'_>) {
        while let Some((_, cookie)) = self.deadlines.pop_front_if(|(due, _)| *due <= now) {
            self.settle_one(cookie, now, out);
        }
    }

    fn settle_one(&mut self, cookie: u64, now: Time, out: &mut Out<'_>) {
        // It may have ended by itself, or its socket may have connected again.
        let Some(mut conversation) = self.conversations.remove(&cookie) else { return };
        match &conversation.over {
            Some(over) if deadline_after(over.time) > now => {}
            Some(over) if over.readable_end() == over.positions || now.since(over.time) >= READING_PERIOD => {
                return self.end(conversation, out);
            }
            Some(_) => self.deadlines.push_back((deadline_after(now), cookie)),
            None => {
                conversation.connection.awaited = false;
                // What the client has begun to say, or has said behind bytes that went unseen, will tell more, and comes
                // before the deadline.
                if conversation.session.is_at_rest() && !conversation.connection.holds() {
                    self.pass(&mut conversation, now, out);
                    self.await_next(cookie, &mut conversation);
                }
            }
        }
        self.keep(cookie, conversation, out);
    }

    /// Nothing was said until now, unless the client has begun a line that is not over.
    pub(super) fn pass(&mut self, conversation: &mut Conversation, now: Time, out: &mut Out<'_>) {
        if conversation.session.is_at_rest() {
            let Conversation { connection, analysis, .. } = conversation;
            let told = &mut |time, process: Option<&Caller>, what: What<'_>| {
                out.tell(&connection.fact_of(&self.host, time, process, what));
            };
            analysis.pass(now, told);
        }
    }

    /// Has the judge called at its deadline.
    pub(super) fn await_next(&mut self, cookie: u64, conversation: &mut Conversation) {
        if !conversation.connection.awaited
            && let Some(deadline) = conversation.analysis.deadline()
        {
            conversation.connection.awaited = true;
            self.deadlines.push_back((deadline, cookie));
        }
    }
}

/// When what was over at this time has settled.
pub(super) fn deadline_after(over: Time) -> Time {
    Time(over.0.saturating_add(GRACE_PERIOD.as_nanos() as u64))
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use crate::event::{Flow, KernelEvent, StateEvent, TcpState, Time};
    use crate::fact::evidence::{NextAction, ReasonEvidence};
    use crate::observation::{Event, Observation};
    use crate::observer::tests::{CLIENT, OTHER, Story, shown, socket};

    const SECOND: u64 = 1_000_000_000;

    /// A message was accepted, and then an RSET.
    fn reset() -> Story {
        let mut story = Story::new();
        story.connect();
        story.transfer(CLIENT, Flow::Received, "220 mx ESMTP\r\n");
        for (command, reply) in [
            ("MAIL FROM:<a@x.example>\r\n", "250 ok\r\n"),
            ("RCPT TO:<b@y.example>\r\n", "250 ok\r\n"),
            ("DATA\r\n", "354 go\r\n"),
            (".\r\n", "250 taken\r\n"),
            ("RSET\r\n", "250 ok\r\n"),
        ] {
            story.transfer(CLIENT, Flow::Sent, command);
            story.transfer(CLIENT, Flow::Received, reply);
        }
        story
    }

    /// The observation of the RSET, its reason, and its evidence without the state of the session.
    #[track_caller]
    fn rset(story: &Story) -> (&Observation, &str, Vec<ReasonEvidence>) {
        let mut rsets = story.told.iter().filter_map(|observation| match &observation.event {
            Event::Rset(rset) => Some((observation, rset.reason.as_str(), rset.evidence.iter().skip(1).collect())),
            _ => None,
        });
        let rset = rsets.next().expect("an RSET was judged");
        assert!(rsets.next().is_none(), "once");
        rset
    }

    /// The clock is read so much later than the last event.
    fn settle(story: &mut Story, later: u64) {
        let now = Time(story.time + later);
        story.observer.settle(now, &mut |fact| story.told.push(shown(fact)));
    }

    #[test]
    fn an_rset_that_nothing_follows_is_told_after_a_second() {
        let mut story = reset();
        let told = story.told.len();
        assert!(story.observer.has_deadlines());
        settle(&mut story, SECOND - 1);
        assert_eq!(story.told.len(), told);
        settle(&mut story, SECOND);
        let (observation, reason, evidence) = rset(&story);
        assert_eq!((reason, evidence), ("between_messages", vec![ReasonEvidence::Next(NextAction::Nothing)]));
        // It has the RSET's own time.
        assert_eq!(observation.time, story.told[told - 1].time);
        assert!(!story.observer.has_deadlines());
    }

    #[test]
    fn what_was_sent_in_time_counts_however_late_its_reply() {
        let mut story = reset();
        story.transfer(CLIENT, Flow::Sent, "QUIT\r\n");
        settle(&mut story, 9 * SECOND);
        assert!(!story.observer.has_deadlines());
        story.time += 9 * SECOND;
        story.transfer(CLIENT, Flow::Received, "221 bye\r\n");
        assert_eq!(rset(&story).1, "before_quit");
    }

    #[test]
    fn a_command_that_has_begun_in_time_counts() {
        let mut story = reset();
        story.transfer(CLIENT, Flow::Sent, "QU");
        settle(&mut story, 9 * SECOND);
        story.time += 9 * SECOND;
        story.transfer(CLIENT, Flow::Sent, "IT\r\n");
        story.transfer(CLIENT, Flow::Received, "221 bye\r\n");
        assert_eq!(rset(&story).1, "before_quit");
    }

    #[test]
    fn what_is_held_for_lost_bytes_counts() {
        let mut story = reset();
        // QUIT went by a path without a hook; its reply is held for it.
        story.written += 6;
        story.transfer(CLIENT, Flow::Received, "221 bye\r\n");
        settle(&mut story, 9 * SECOND);
        story.time += 9 * SECOND;
        story.state(TcpState::LastAck, TcpState::Close, None);
        settle(&mut story, 9 * SECOND);
        assert_eq!(rset(&story).1, "ambiguous");
    }

    #[test]
    fn a_clock_that_is_not_read_changes_nothing() {
        let mut story = reset();
        story.time += 9 * SECOND;
        story.transfer(CLIENT, Flow::Sent, "QUIT\r\n");
        assert_eq!(rset(&story).1, "between_messages");
    }

    /// The server has reset the connection behind this reply, which the client reads so much later, if it reads it.
    fn reset_behind(reply: &str, read: Option<u64>) -> Story {
        let mut story = reset();
        story.transfer(CLIENT, Flow::Sent, "QUIT\r\n");
        let (error, unread) = (libc::ECONNRESET as u32, reply.len() as u32);
        let over = story.state_event(TcpState::Established, TcpState::Close, None);
        story.event(KernelEvent::State(StateEvent { error, unread, ..over }));
        if let Some(later) = read {
            settle(&mut story, later);
            story.time += later;
            story.transfer_on(socket(TcpState::Close), CLIENT, Flow::Received, reply);
        }
        story
    }

    #[test]
    fn what_can_still_be_read_is_waited_for() {
        let story = reset_behind("221 bye\r\n", Some(9 * SECOND));
        assert!(story.names().contains(&"QUIT Some(221)".to_owned()), "{:?}", story.names());
        assert_eq!(story.bytes().2, 0);
        let mut story = reset_behind("221 bye\r\n", None);
        settle(&mut story, 9 * SECOND);
        assert!(!story.names().iter().any(|name| name == "connection.closed"), "{:?}", story.names());
        settle(&mut story, 10 * SECOND);
        assert_eq!(story.bytes().2, 0);
    }

    #[test]
    fn who_has_closed_its_socket_reads_no_more() {
        let mut story = reset();
        let over = story.state_event(TcpState::Established, TcpState::Close, None);
        story.event(KernelEvent::State(StateEvent { unread: 9, ..over }));
        assert_eq!(story.bytes().2, 0);
    }

    #[test]
    fn an_rset_is_its_own_process() {
        let mut story = reset();
        story.transfer(OTHER, Flow::Sent, "MAIL FROM:<a@x.example>\r\n");
        story.transfer(OTHER, Flow::Received, "250 ok\r\n");
        let (observation, reason, evidence) = rset(&story);
        assert_eq!(reason, "between_messages");
        assert_eq!(evidence, [ReasonEvidence::Next(NextAction::OwnerChanged)]);
        assert_eq!(observation.process.as_ref().map(|caller| caller.process.pid), Some(CLIENT.0));
    }

    #[test]
    fn the_end_in_time_is_what_followed() {
        let mut story = reset();
        story.state(TcpState::LastAck, TcpState::Close, None);
        assert_eq!(rset(&story).2, [ReasonEvidence::Next(NextAction::Closed)]);
        let mut story = reset();
        story.time += 2 * SECOND;
        story.state(TcpState::LastAck, TcpState::Close, None);
        assert_eq!(rset(&story).2, [ReasonEvidence::Next(NextAction::Nothing)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut story = reset();
        for _ in 0..1000 {
            story.transfer(CLIENT, Flow::Sent, "NOOP\r\n");
            story.transfer(CLIENT, Flow::Received, "250 ok\r\n");
        }
        assert_eq!(story.observer.tracker.deadlines.len(), 1);
        settle(&mut story, SECOND);
        assert!(!story.observer.has_deadlines());
        let noops = story.told.iter().filter(|observation| matches!(observation.event, Event::Noop(_)));
        assert_eq!(noops.count(), 1000);
    }
}
