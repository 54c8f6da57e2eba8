//! A reply that does not come: which commands the replies behind it answer.
//!
//! The server replies to each command in turn (RFC 5321, 4.2). A client that has waited for every reply so far, and sends
//! its next command without one, leaves two readings. The reply is late: the next one is it. Or it never comes: the next one
//! answers the next command. Replies are kept, and the commands wait, until only one reading is left. Where a client
//! pipelines, or all is answered in turn, nothing is kept.
//!
//! The same with a reply of which the last line is not there: the line is late, or it never comes, and the client has read
//! what came.

use std::time::Duration;

use super::super::command::{Command, Verb};
use super::super::decoder_output::DecoderOutput;
use super::super::item::{Item, Lost};
use super::super::pending_replies::{ExpectedReplies, PendingReply};
use super::super::reply::{EnhancedCode, Reply};
use super::client::of_client;
use super::resync::Resync;
use super::{Mode, Session};
use crate::event::Time;
use crate::names::AnomalyKind;

/// Replies that are kept at most.
pub(super) const MAX_UNSETTLED: usize = 16;

/// The replies since the first command that waits, where it is not certain that the first of them answers that command.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    #[expect(clippy::vec_box, reason = "they are handed on as they are")]
    replies: Vec<Box<Reply>>,
    /// What came before them of a reply, without its last line.
    begun: Option<Box<Reply>>,
    /// The client has waited as long as RFC 5321 wants it to, and then gave up waiting.
    timed_out: bool,
    /// The client has pipelined in both readings.
    pipelines: bool,
}

impl Unsettled {
    /// The first reply that is kept.
    pub(super) fn first(&self) -> Option<&Reply> {
        self.begun.iter().chain(&self.replies).next().map(|reply| &**reply)
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn cost(&self) -> usize {
        self.begun.iter().chain(&self.replies).map(|reply| size_of::<Reply>() + reply.text.capacity()).sum()
    }

    /// The reply may have the lines behind those that came before.
    fn may_go_on(&self, reply: &Reply) -> bool {
        self.begun.as_ref().is_none_or(|begun| begun.code == reply.code)
    }
}

impl Session {
    /// A command line is complete, and nothing was made of it yet: whether it was sent before its time tells what the
    /// client does, or that a reply is missing.
    pub(super) fn suspect(&mut self, command: &Command) {
        if let Some(unsettled) = &mut self.unsettled {
            // If the first reply never comes, as many as that are due.
            unsettled.pipelines |= unsettled.replies.len() + 1 < self.waiting.len();
            return;
        }
        if !command.pipelined || self.pipelines {
            return;
        }
        let waited = command.first_byte.since(self.command_at);
        let limit = match self.waiting.get(0) {
            _ if !self.waiting.is_single() || self.fork.is_some() || self.sent_early => None,
            Some(PendingReply::Command(command, None)) => Some(time_limit(command.verb)),
            Some(PendingReply::Command(_, Some(_))) => Some(END_OF_DATA),
            // With a final reply for each recipient, some may have come.
            Some(PendingReply::Message(_, ExpectedReplies::Unknown | ExpectedReplies::Each(_))) => Some(END_OF_DATA),
            _ => None,
        };
        match limit.filter(|_| !waited.is_zero()) {
            Some(limit) => {
                self.unsettled = Some(Box::new(Unsettled { timed_out: waited >= limit, ..Unsettled::default() }));
            }
            // An empty line is none that a client means to send: some servers answer it, and others do not.
            None if command.length == 0 => {}
            // In one write with the command before it, as a client does that pipelines.
            None => self.pipelines = true,
        }
    }

    /// Only one more reply is due, and it is not one of several.
    pub(super) fn is_last_owed(&self) -> bool {
        let is_one = matches!(
            self.waiting.last(),
            Some(PendingReply::Command(..) | PendingReply::Message(_, ExpectedReplies::Unknown))
        );
        is_one && self.lmtp != Some(true) && self.fork.is_none()
    }

    /// The client goes on behind the first lines of a reply.
    pub(super) fn suspect_last_line(&mut self, mut begun: Box<Reply>) {
        begun.repeated = self.names().repeated_in(&begun.text);
        self.unsettled = Some(Box::new(Unsettled { begun: Some(begun), ..Unsettled::default() }));
    }

    /// Whether the last line of a reply is late stays open. It is told as missing, unless more of its lines have come.
    pub(super) fn give_up_last_line(&mut self, items: &mut DecoderOutput) {
        let Some(unsettled) = self.unsettled.take_if(|unsettled| unsettled.begun.is_some()) else { return };
        let first = unsettled.replies.first();
        match first.is_some_and(|reply| unsettled.may_go_on(reply) && reply.text.contains(&b'\n')) {
            true => self.is_late(*unsettled, items),
            false => self.never_comes(*unsettled, items),
        }
    }

    /// A reply is to be paired with what it answers.
    pub(super) fn pair(&mut self, reply: Box<Reply>, items: &mut DecoderOutput) {
        if matches!(self.mode, Mode::Undecided) && !self.held.is_empty() && self.waiting.is_single() {
            self.skip_held(&reply, items);
        }
        if self.unsettled.is_some() {
            self.keep_apart(reply, items);
            return;
        }
        if (earned_by_few(reply.code) || self.waiting.for_greeting()) && !matches!(self.mode, Mode::Resync(_)) {
            self.skip_unanswered(&reply, items);
        }
        self.reply_in_turn(reply, items);
    }

    /// The client has gone on behind DATA, or another command whose reply decides how to read on.
    fn skip_held(&mut self, reply: &Reply, items: &mut DecoderOutput) {
        let is_earned = self.earns(0, reply);
        if is_earned && earned_by_few(reply.code) {
            return;
        }
        let Some(PendingReply::Command(command, _)) = self.waiting.get(0) else { return };
        let verb = command.verb;
        let waited = self.held.time().map_or(Duration::ZERO, |time| time.since(self.command_at));
        let is_command = self.holds_command();
        if is_command && !self.pipelines && !waited.is_zero() {
            // The reply may be the one to that.
            self.mode = Mode::Command;
            self.read_held(None, items);
        } else if is_command && !is_earned {
            self.leave_unanswered(items);
            self.mode = Mode::Command;
            self.read_held(None, items);
        } else if !is_earned || verb == Verb::Data && reply.accepts() || waited >= time_limit(verb) {
            // Who accepts DATA with 250 has no content yet; and a client that has given up waiting sends none.
            self.leave_unanswered(items);
            self.lose(reply.last_byte, || "what the client sent behind a command that got no reply".into(), items);
        }
    }

    /// The client pipelines, and the first command that waits does not earn this reply; the one behind it does. A reply is
    /// missing: this one's, or one before.
    fn skip_unanswered(&mut self, reply: &Reply, items: &mut DecoderOutput) {
        let is_command = matches!(self.waiting.get(1), Some(PendingReply::Command(..)));
        if !is_command || self.earns(0, reply) || !self.earns(1, reply) {
            return;
        }
        if self.waiting.for_greeting() {
            // None came, or the client would not have been answered.
            self.early = None;
            self.leave_unanswered(items);
            return;
        }
        self.leave_unanswered(items);
        items.push(Item::Lost(Lost::Reply));
        let detail = || format!("a reply with {} shows that one before it is missing", reply.code);
        self.anomalies.report(reply.last_byte, AnomalyKind::Resynchronised, items, detail);
    }

    /// Whether what waits at a place may earn this reply.
    fn earns(&self, place: usize, reply: &Reply) -> bool {
        let is_last = place + 1 == self.waiting.len();
        self.waiting.get(place).is_some_and(|waits| can_answer(waits, is_last, reply, self.extensions.is_some()))
    }

    /// The first line that is held is a command.
    fn holds_command(&self) -> bool {
        self.held.first_line().is_some_and(|line| Verb::of_line(&line) != Verb::Other)
    }

    /// Keeps a reply, unless it tells which reading is right.
    fn keep_apart(&mut self, reply: Box<Reply>, items: &mut DecoderOutput) {
        let Some(mut unsettled) = self.unsettled.take() else { return };
        let (time, place) = (reply.last_byte, unsettled.replies.len());
        let goes_on = place > 0 || unsettled.may_go_on(&reply);
        // All final replies that a message still earns are late, or none comes.
        let more = match self.waiting.get(0) {
            Some(PendingReply::Message(_, ExpectedReplies::Unknown) | PendingReply::Command(_, Some(_))) => {
                self.replies_to_message() as usize - 1
            }
            Some(PendingReply::Message(_, owed)) => owed.count() as usize - 1,
            _ => 0,
        };
        let late = goes_on && self.earns(place.saturating_sub(more), &reply);
        let never = self.earns(place + 1, &reply);
        // How many the next message earns is not known before its recipients have their replies.
        let mut waits = (1..self.waiting.len()).filter_map(|place| self.waiting.get(place));
        let is_countable =
            self.lmtp != Some(true) || waits.all(|waits| !matches!(waits, PendingReply::Command(_, Some(_))));
        // Behind a refusal of DATA commands may wait that are not read, be it in the kernel: one of them may earn it.
        let may_be_refused =
            matches!(self.mode, Mode::Undecided) && unsettled.replies.last().is_some_and(|last| last.refuses());
        let never_behind =
            place + 1 == self.waiting.len() && !earned_by_few(reply.code) && (may_be_refused || !self.held.is_empty());
        unsettled.replies.push(reply);
        match (late, never) {
            (true, _) if !is_countable => {
                self.unsettled = Some(unsettled);
                self.give_up_pairing(time, items);
            }
            (true, true) if unsettled.replies.len() < MAX_UNSETTLED => self.unsettled = Some(unsettled),
            (true, true) if unsettled.pipelines => self.is_late(*unsettled, items),
            (true, false) if !never_behind => self.is_late(*unsettled, items),
            (false, true) => self.never_comes(*unsettled, items),
            _ => {
                self.unsettled = Some(unsettled);
                self.give_up_pairing(time, items);
            }
        }
    }

    /// The client goes on behind a refusal. Nothing follows DATA, AUTH or STARTTLS before its reply (RFC 2920, 3.1): so a
    /// command behind one of them shows that the client has read that.
    pub(super) fn settle_by_next_line(&mut self, time: Time, items: &mut DecoderOutput) {
        let shows = match (&self.unsettled, self.waiting.last()) {
            (Some(unsettled), Some(PendingReply::Command(command, _))) => {
                matches!(self.mode, Mode::Undecided)
                    && unsettled.replies.len() + 1 == self.waiting.len()
                    && unsettled.replies.last().is_some_and(|reply| reply.refuses())
                    && time.since(command.last_byte) < time_limit(command.verb)
                    && self.holds_command()
            }
            _ => false,
        };
        if shows && let Some(unsettled) = self.unsettled.take() {
            self.never_comes(*unsettled, items);
        }
    }

    /// The client has pipelined, or has given up waiting too early for the server.
    fn is_late(&mut self, mut unsettled: Unsettled, items: &mut DecoderOutput) {
        if let (Some(mut begun), Some(first)) = (unsettled.begun.take(), unsettled.replies.first_mut()) {
            begun.goes_on(first);
            begun.repeated = self.names().repeated_in(&begun.text);
            *first = begun;
        }
        self.pipelines |= !unsettled.timed_out;
        if !unsettled.timed_out {
            self.report_pipelined(items);
        }
        self.pair_in_turn(unsettled, items);
    }

    /// The first command that waits gets no reply, or no more of one: those that are kept answer the ones behind it.
    fn never_comes(&mut self, mut unsettled: Unsettled, items: &mut DecoderOutput) {
        match unsettled.begun.take() {
            Some(begun) => {
                self.report_without_end(&begun, items);
                self.reply_in_turn(begun, items);
            }
            None => self.leave_unanswered(items),
        }
        self.mark_pipelined(&unsettled.replies, 0);
        self.report_pipelined(items);
        self.pair_in_turn(unsettled, items);
    }

    fn pair_in_turn(&mut self, unsettled: Unsettled, items: &mut DecoderOutput) {
        for reply in unsettled.replies {
            self.reply_in_turn(reply, items);
        }
    }

    /// It stays open which commands the replies answer.
    pub(super) fn give_up_pairing(&mut self, time: Time, items: &mut DecoderOutput) {
        self.give_up_last_line(items);
        let Some(unsettled) = self.unsettled.take() else { return };
        self.mark_pipelined(&unsettled.replies, 1);
        self.give_up_waiting(items);
        let replies = unsettled.replies.len();
        if replies == 0 {
            return;
        }
        items.push(Item::Lost(Lost::Reply));
        let detail = || format!("a reply is missing, and it is not certain which: {replies} came since");
        self.anomalies.report(time, AnomalyKind::Resynchronised, items, detail);
        self.forget(Resync::unpaired());
    }

    /// Which of the commands from a place on were sent early, if the replies answer them in turn.
    fn mark_pipelined(&mut self, replies: &[Box<Reply>], from: usize) {
        for place in from..self.waiting.len() {
            let Some(PendingReply::Command(command, _)) = self.waiting.get_mut(place) else { continue };
            let before = (place - from).checked_sub(1).map(|before| replies.get(before));
            command.pipelined =
                before.is_some_and(|reply| reply.is_none_or(|reply| command.first_byte < reply.last_byte));
            self.pipelines |= command.pipelined;
        }
    }

    fn leave_unanswered(&mut self, items: &mut DecoderOutput) {
        if let Some(waits) = self.waiting.pop(items) {
            self.unanswered(waits, items);
        }
    }

    /// Tells of commands that were sent too early, when it is certain that they were.
    fn report_pipelined(&mut self, items: &mut DecoderOutput) {
        if self.extensions.is_none_or(|offered| offered.pipelining) {
            return;
        }
        for place in 0..self.waiting.len() {
            if let Some(PendingReply::Command(command, _)) = self.waiting.get(place)
                && command.pipelined
            {
                let kind = AnomalyKind::PipeliningNotOffered;
                self.anomalies.report(command.last_byte, kind, items, || of_client(command, command.length));
            }
        }
    }
}

/// What waits, and is the last that does, may earn this reply. Where the session has not begun, another protocol's first line
/// may earn a farewell.
fn can_answer(waits: &PendingReply, is_last: bool, reply: &Reply, has_begun: bool) -> bool {
    const SENDER: EnhancedCode = EnhancedCode(2, 1, 0);
    const RECIPIENT: EnhancedCode = EnhancedCode(2, 1, 5);
    let verb = match waits {
        PendingReply::Command(command, _) => command.verb,
        PendingReply::Message(..) => return !earned_by_few(reply.code) && reply.enhanced_code != Some(SENDER),
        PendingReply::Greeting => return reply.code == 220 || reply.refuses(),
        PendingReply::Octets => return true,
    };
    match (reply.code, reply.enhanced_code) {
        (220, _) => verb.starts_tls() || verb == Verb::XClient,
        (221, _) => verb == Verb::Quit || verb == Verb::Other && !has_begun,
        (235 | 334, _) => verb.authenticates(),
        (354, _) => matches!(verb, Verb::Data | Verb::Xexch50),
        // Who accepts DATA so waits for content, not for a command.
        (200..=299, _) if verb == Verb::Data => is_last,
        // RFC 5321, 4.3.2.
        (code, _) if verb == Verb::Quit => matches!(code, 421 | 500..=504),
        // smtp-sink and Gmail reply to RSET with one of these.
        (_, Some(SENDER)) => verb.opens_transaction() || verb == Verb::Rset,
        (_, Some(RECIPIENT)) => matches!(verb, Verb::Rcpt | Verb::Vrfy | Verb::Expn | Verb::Rset),
        _ => true,
    }
}

/// Only a few commands earn this code.
pub(super) fn earned_by_few(code: u16) -> bool {
    matches!(code, 220 | 221 | 235 | 334 | 354)
}

/// How long a client waits for a message's final reply (RFC 5321, 4.5.3.2.6).
const END_OF_DATA: Duration = Duration::from_secs(600);

/// How long it waits for the reply to a command (RFC 5321, 4.5.3.2). Those that are not listed have the time of MAIL.
fn time_limit(verb: Verb) -> Duration {
    Duration::from_secs(if verb == Verb::Data { 120 } else { 300 })
}
