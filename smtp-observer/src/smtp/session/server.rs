//! The server's bytes.

use super::super::Peer;
use super::super::anomalies::shown;
use super::super::command::Verb;
use super::super::item::{Exchange, Item, Message};
use super::super::line::Step;
use super::super::reply::Reply;
use super::super::tls::Look;
use super::super::waiting::Slot;
use super::client::Flaws;
use super::{Mode, Session};
use crate::event::Time;
use crate::observation::AnomalyKind;

impl Session {
    pub(super) fn server_bytes(&mut self, time: Time, mut bytes: &[u8], items: &mut Vec<Item>) {
        self.give_up_preamble(items);
        let reversed = self.reversed;
        while !bytes.is_empty() {
            if self.reversed != reversed {
                return self.client_bytes(time, bytes, items);
            }
            match self.mode {
                Mode::Opaque => {
                    self.opaque_bytes = self.opaque_bytes.saturating_add(bytes.len() as u64);
                    return;
                }
                Mode::StartTls { .. } => return self.inject(time, items),
                _ => {}
            }
            if self.preamble.awaits_answer() {
                self.read_answer(time, &mut bytes, items);
                continue;
            }
            if matches!(self.mode, Mode::Lost(_)) && !self.server.opening.is_past() {
                match self.server.opening.look(time, &mut bytes) {
                    Look::Undecided => continue,
                    Look::Tls(since) => {
                        items.push(Item::TlsStarted(since));
                        self.become_opaque();
                        continue;
                    }
                    // A line that begins with a withheld byte is malformed with or without it.
                    Look::Plain(_) => {}
                }
            }
            self.server_step(time, &mut bytes, items);
        }
    }

    /// Reads up to the end of a line.
    fn server_step(&mut self, time: Time, bytes: &mut &[u8], items: &mut Vec<Item>) {
        if self.server.lines.at_start() {
            self.reply_line = time;
        }
        let lost = matches!(self.mode, Mode::Lost(_));
        let line = match self.server.lines.step(bytes) {
            Step::More => return,
            Step::TooLong(kept) => {
                if !lost {
                    let detail = || format!("a line of the server is longer than {} bytes", kept.len());
                    self.anomalies.report(time, AnomalyKind::LineTooLong, items, detail);
                }
                return;
            }
            Step::Line(line) => line,
        };
        let outcome = self.replies.line(line.bytes, self.reply_line, time);
        if self.waiting.for_greeting() && self.replies.is_no_reply(&outcome) && !line.bytes.trim_ascii().is_empty() {
            let detail = format!("the server's first line is {}", shown(line.bytes));
            self.not_smtp(time, detail, items);
            return;
        }
        if !lost {
            Flaws::of(&line).report(
                Peer::Server,
                || shown(line.bytes),
                |kind, detail| {
                    self.anomalies.report(time, kind, items, || detail);
                },
            );
            if outcome.malformed {
                self.anomalies.report(time, AnomalyKind::MalformedReply, items, || shown(line.bytes));
            }
        }
        if let Some(reply) = outcome.reply {
            self.reply(reply, items);
        }
    }

    /// A reply is complete.
    pub(super) fn reply(&mut self, reply: Reply, items: &mut Vec<Item>) {
        if let Mode::Lost(lost) = &mut self.mode {
            if self.waiting.is_empty() {
                self.reply_while_lost(reply, items);
                return;
            }
            lost.reply_to_older();
        }
        let alone = self.waiting.is_single();
        if let Some(Slot::Command(command, _)) = self.waiting.front_mut()
            && reply.code == 334
            && alone
            && match self.mode {
                Mode::Held => command.verb != Verb::Data,
                Mode::Answer | Mode::Command => true,
                _ => false,
            }
        {
            command.challenges = command.challenges.saturating_add(1);
            // A challenge (RFC 4954, 4): the command's own reply is still to come.
            self.mode = Mode::Answer;
            self.read_held(true, items);
            return;
        }
        match self.waiting.pop() {
            None if self.write == 0 && self.is_one_sided() => {
                self.lose(reply.last_byte, || "nothing is seen of the client".into(), items);
            }
            None => self.reply_to_nothing(reply, items),
            Some(Slot::Greeting) => self.greeted(reply, items),
            Some(Slot::Octets) => {}
            Some(Slot::Message(message, expected)) => self.reply_to_message(message, expected, reply, items),
            Some(Slot::Command(command, None)) => self.reply_to_command(command, reply, items),
            Some(Slot::Command(command, Some(message))) => {
                items.push(Item::Exchange(Exchange { command, reply: Some(reply.clone()) }));
                self.reply_to_message(message, None, reply, items);
            }
        }
    }

    /// A reply to the end of a message. It may be one of several: one a recipient with LMTP (RFC 2033, 4.2), and behind
    /// a 353 (per-recipient data responses) one a recipient and one for all.
    fn reply_to_message(
        &mut self,
        mut message: Box<Message>,
        expected: Option<u32>,
        reply: Reply,
        items: &mut Vec<Item>,
    ) {
        let expected = match expected {
            Some(expected) => expected,
            None if reply.code == 353 => self.recipients.saturating_add(2),
            None if self.lmtp => self.recipients.max(1),
            None => 1,
        };
        message.accepted += u32::from(reply.accepts());
        message.reply = Some(reply);
        if expected > 1 {
            self.waiting.push_front(Slot::Message(message, Some(expected - 1)));
            return;
        }
        self.recipients = 0;
        items.push(Item::Message(*message));
    }

    /// A reply that nothing waits for.
    fn reply_to_nothing(&mut self, reply: Reply, items: &mut Vec<Item>) {
        let time = reply.last_byte;
        let line = || shown(&[reply.code.to_string().as_bytes(), b" ", &reply.text].concat());
        if reply.code == 421 {
            self.anomalies.report(time, AnomalyKind::ServerShutdown, items, line);
            return;
        }
        let (unseen_end, disputed_end) = match &self.mode {
            Mode::Body(body, _) => (body.has_hole(), body.disputed_end()),
            _ => (false, None),
        };
        if !unseen_end && disputed_end.is_none() {
            self.anomalies.report(time, AnomalyKind::UnsolicitedReply, items, line);
            return;
        }
        let Mode::Body(body, mut message) = std::mem::replace(&mut self.mode, Mode::Command) else { return };
        if !body.may_have_ended() {
            message.ended_at = None;
        }
        if unseen_end {
            // The end of data was in the hole; whether the client sent more behind it is only known if it stops there.
            message.size = Some(body.size_at_end());
            self.reply_to_message(message, None, reply, items);
            let detail = || "a reply shows that the message is over".into();
            match body.may_have_ended() {
                true => {
                    items.push(Item::Lost);
                    self.anomalies.report(time, AnomalyKind::Resynchronised, items, detail);
                }
                false => self.lose(time, || "the end of a message".into(), items),
            }
            return;
        }
        self.anomalies.report(time, AnomalyKind::SmugglingEffective, items, line);
        message.size = disputed_end;
        self.reply_to_message(message, None, reply, items);
        self.lose(time, || "the server reads commands where the message goes on".into(), items);
    }
}
