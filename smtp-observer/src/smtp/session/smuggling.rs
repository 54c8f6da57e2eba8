//! A message that some servers have over before its end: what the replies say of it.
//!
//! Behind a form that some servers take for the end of data, two readings go on beside each other: the message goes on,
//! or it is over and commands follow. With the first, its end earns one reply; with the second, each of the commands
//! earns one more. Replies are withheld until they tell, or the client goes on as if all had been said and is answered.

use memchr::memchr;

use super::super::body::Form;
use super::super::command::Verb;
use super::super::decoder_output::DecoderOutput;
use super::super::item::{Item, Message};
use super::super::pending_replies::PendingReply;
use super::super::reply::Reply;
use super::server::line;
use super::{Mode, Session};
use crate::event::Time;
use crate::names::AnomalyKind;

/// Replies that are withheld at most; then the message was one.
const MAX_WITHHELD: usize = 32;

/// The two readings of a message.
#[derive(Debug)]
pub(super) struct SmugglingState {
    form: Form,
    /// All lines of the client end as this form has it: it ends the message, if the server takes it for that.
    is_own: bool,
    /// When the form was seen.
    ended_at: Time,
    commands: Commands,
    /// Replies since the end of data.
    #[expect(clippy::vec_box, reason = "they are handed on as they are")]
    withheld: Vec<Box<Reply>>,
    /// The client went on when it had as many replies as one message earns.
    client_went_on: bool,
}

/// What follows the form, read as commands. Of a line only as much is kept as tells a verb.
#[derive(Debug, Default)]
struct Commands {
    start: [u8; 4],
    length: u64,
    last: u8,
    in_content: bool,
    /// Replies that they earn.
    owed: u64,
    /// Some of them stayed in the kernel.
    missed: bool,
}

impl SmugglingState {
    /// A form ended now.
    pub(super) fn new(form: Form, time: Time, is_own: bool) -> Self {
        Self {
            form,
            is_own,
            ended_at: time,
            commands: Commands::default(),
            withheld: Vec::new(),
            client_went_on: false,
        }
    }

    /// Takes what follows the form, up to the end of data.
    pub(super) fn follow(&mut self, bytes: &[u8]) {
        self.commands.read(bytes);
    }

    /// The form is the client's own end of data.
    pub(super) fn is_own(&self) -> bool {
        self.is_own
    }

    /// Nothing follows the form.
    pub(super) fn is_last(&self) -> bool {
        self.commands.is_empty()
    }

    /// What follows the form stayed in the kernel.
    pub(super) fn miss(&mut self) {
        self.commands.missed = true;
    }

    /// The first reply that is withheld.
    pub(super) fn first_withheld(&self) -> Option<&Reply> {
        self.withheld.first().map(|reply| &**reply)
    }

    /// Replies that the commands earn, where that is known.
    pub(super) fn owed(&self) -> Option<usize> {
        (!self.commands.missed).then(|| usize::try_from(self.commands.owed).unwrap_or(usize::MAX))
    }

    /// The message as the server has it.
    pub(super) fn end(&self, message: &mut Message) {
        message.size = Some(self.form.size);
        message.ended_at = Some(self.ended_at);
    }
}

impl Commands {
    fn is_empty(&self) -> bool {
        self.length == 0 && self.owed == 0 && !self.missed
    }

    fn read(&mut self, mut bytes: &[u8]) {
        while let Some(line) = memchr(b'\n', bytes) {
            self.grow(&bytes[..line]);
            self.line_ended();
            bytes = &bytes[line + 1..];
        }
        self.grow(bytes);
    }

    fn grow(&mut self, part: &[u8]) {
        let room = self.start.get_mut(usize::try_from(self.length).unwrap_or(usize::MAX)..).unwrap_or_default();
        room.iter_mut().zip(part).for_each(|(kept, byte)| *kept = *byte);
        self.length = self.length.saturating_add(part.len() as u64);
        self.last = part.last().copied().unwrap_or(self.last);
    }

    fn line_ended(&mut self) {
        let length = self.length - u64::from(self.length > 0 && self.last == b'\r');
        let is_data = length == 4 && self.start.eq_ignore_ascii_case(Verb::Data.as_str().as_bytes());
        let is_dot = length == 1 && self.start[0] == b'.';
        let is_command = !self.in_content || is_dot;
        if is_command {
            self.owed = self.owed.saturating_add(1);
            self.in_content = is_data;
        }
        self.length = 0;
    }
}

impl Session {
    /// A form that some servers take for the end of data.
    pub(super) fn report_attempt(&mut self, items: &mut DecoderOutput) {
        if let Some(fork) = &mut self.fork {
            fork.is_own = false;
            let detail = || format!("a lone dot in a message: {}.{}", fork.form.before, fork.form.behind);
            self.anomalies.report(fork.ended_at, AnomalyKind::SmugglingAttempt, items, detail);
        }
    }

    /// Whether the replies of a message that may have been several are withheld.
    pub(super) fn withholds(&self) -> bool {
        self.fork.is_some() && !matches!(self.mode, Mode::Body(..))
    }

    /// All that the client is due, if the message was one, has come and is withheld.
    pub(super) fn has_withheld_all(&self) -> bool {
        match &self.fork {
            Some(fork) if self.withholds() => fork.withheld.len() >= self.due(fork),
            _ => false,
        }
    }

    /// The client sends more.
    pub(super) fn client_went_on(&mut self) {
        if self.has_withheld_all()
            && let Some(fork) = &mut self.fork
        {
            fork.client_went_on = true;
        }
    }

    /// A reply behind the end of data.
    pub(super) fn withhold(&mut self, reply: Box<Reply>, items: &mut DecoderOutput) {
        let Some(mut fork) = self.fork.take() else { return };
        let tells_nothing = reply.code == 421 || fork.withheld.len() >= MAX_WITHHELD;
        fork.withheld.push(reply);
        let due = self.due(&fork);
        let smuggled = fork.withheld.len() > due || !self.can_be_last(&fork);
        let settled = fork.withheld.len() == due
            && (fork.client_went_on
                || matches!(self.mode, Mode::Undecided | Mode::Answer | Mode::UndecidedForLine(..)));
        if tells_nothing || !smuggled && settled {
            self.release(*fork, items);
        } else if smuggled {
            self.smuggled_behind_its_end(*fork, items);
        } else {
            self.fork = Some(fork);
        }
    }

    /// The message was one: its replies are what they seem.
    pub(super) fn settle_fork(&mut self, items: &mut DecoderOutput) {
        if let Some(fork) = self.fork.take() {
            self.release(*fork, items);
        }
    }

    fn release(&mut self, fork: SmugglingState, items: &mut DecoderOutput) {
        for reply in fork.withheld {
            self.reply(reply, items);
        }
    }

    /// Replies that one message and the commands behind it earn.
    fn due(&self, fork: &SmugglingState) -> usize {
        self.due_to_message(fork).saturating_add(self.waiting.len()).saturating_sub(1)
    }

    fn due_to_message(&self, fork: &SmugglingState) -> usize {
        let replies = match fork.withheld.first() {
            Some(first) => self.expected_replies(first).count(),
            None => self.replies_to_message(),
        };
        usize::try_from(replies).unwrap_or(usize::MAX)
    }

    /// The last reply can be the one to what waits in its place.
    fn can_be_last(&self, fork: &SmugglingState) -> bool {
        let Some(reply) = fork.withheld.last() else { return true };
        let place = fork.withheld.len().saturating_sub(self.due_to_message(fork));
        match self.waiting.get(place) {
            Some(PendingReply::Command(command, _)) => match command.verb {
                Verb::Data | Verb::Xexch50 | Verb::Other => true,
                Verb::Quit => reply.code == 221 || !reply.accepts() && reply.code != 354,
                _ => reply.code != 354,
            },
            _ => reply.code != 354,
        }
    }

    /// More was answered behind the end of data than was asked.
    fn smuggled_behind_its_end(&mut self, fork: SmugglingState, items: &mut DecoderOutput) {
        let Some(PendingReply::Message(mut message, _)) = self.waiting.pop(items) else { return };
        let due = |owed: usize| self.due_to_message(&fork).saturating_add(owed).saturating_add(self.waiting.len());
        let later = fork.owed().map(|owed| due(owed).saturating_sub(fork.withheld.len()));
        let own = self.due_to_message(&fork);
        fork.end(&mut message);
        let deciding = fork.withheld.last().cloned();
        let mut expected = fork.withheld.first().map(|first| self.expected_replies(first));
        for reply in fork.withheld.into_iter().take(own) {
            let Some(now) = expected else { break };
            message.answer(now, reply);
            expected = now.behind_one();
        }
        let Some(reply) = deciding else { return };
        self.smuggled(&reply, Some(message), later, items);
    }

    /// The server has read commands where the client sent content. It has so many replies still to give, where that is
    /// known.
    pub(super) fn smuggled(
        &mut self,
        reply: &Reply,
        message: Option<Box<Message>>,
        later: Option<usize>,
        items: &mut DecoderOutput,
    ) {
        self.anomalies.report(reply.last_byte, AnomalyKind::SmugglingEffective, items, || line(reply));
        message.into_iter().for_each(|message| items.push(Item::Message(message)));
        self.give_up_waiting(items);
        self.lose(reply.last_byte, || "the server reads commands where the message goes on".into(), items);
        // Where it is not known how many, those that come are replies to nothing of the client's.
        if let Mode::Resync(lost) = &mut self.mode {
            lost.expect(later.unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_that_commands_earn() {
        for (text, owed) in [
            ("", 0),
            ("MAIL FROM:<>\r\nRCPT TO:<b@y.example>\r\n", 2),
            ("MAIL FROM:<>\r\nRCPT TO:<b@y.example>\r\nDATA\r\nevil\r\nmore\r\n.\r\n", 4),
            ("data\nevil\n.\nQUIT\n", 3),
            ("\r\ntext\r\n.\r\n", 3),
            ("DATA", 0),
        ] {
            for size in 1..8 {
                let mut commands = Commands::default();
                text.as_bytes().chunks(size).for_each(|piece| commands.read(piece));
                assert_eq!(commands.owed, owed, "{text:?} in pieces of {size}");
            }
        }
    }
}
