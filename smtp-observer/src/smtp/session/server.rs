//! The server's bytes.

use std::num::NonZero;

use super::super::Peer;
use super::super::body::Body;
use super::super::command::{Command, Verb};
use super::super::decoder_output::DecoderOutput;
use super::super::escape::escape;
use super::super::item::{Exchange, GoAhead, Item, Lost, Message, Transfer};
use super::super::line::{LONGEST_LINE, Line, Step};
use super::super::mailbox_names::{Names, is_about};
use super::super::pending_replies::{ExpectedReplies, PendingReply};
use super::super::reply::{EnhancedCode, Reply};
use super::super::tls::{Look, Opening, Part};
use super::client::Flaws;
use super::said::LONGEST_WAITING;
use super::{Mode, Session, message};
use crate::event::Time;
use crate::names::AnomalyKind;

/// The first byte of a handshake's record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;

impl Session {
    pub(super) fn server_bytes(&mut self, time: Time, mut bytes: &[u8], items: &mut DecoderOutput) {
        self.give_up_preamble(items);
        let reversed = self.reversed;
        while !bytes.is_empty() {
            if self.reversed != reversed {
                return self.client_bytes(time, bytes, items);
            }
            match self.mode {
                Mode::Opaque { .. } | Mode::Handshake(_) => {
                    return self.tls_goes_on(Peer::Server, time, Part::Said(bytes), items);
                }
                Mode::StartTls { in_line: false, .. } if bytes[0] == TLS_HANDSHAKE => {
                    self.server_speaks_tls(time, items);
                    continue;
                }
                Mode::StartTls { .. } => {
                    self.inject(time, &mut bytes, items);
                    continue;
                }
                _ => {}
            }
            if self.preamble.is_socks() {
                self.read_answer(time, &mut bytes, items);
                continue;
            }
            if self.preamble.is_unfinished() {
                // What it has of the header may be lines to it.
                self.lose(time, || "the server speaks in the middle of a proxy's header".into(), items);
            }
            if self.server_may_be_tls() {
                match self.server.opening.look(time, &mut bytes) {
                    Look::Undecided => continue,
                    Look::Tls(first, since) => {
                        self.server_speaks_tls(since, items);
                        self.tls_goes_on(Peer::Server, since, Part::Said(&[first]), items);
                        continue;
                    }
                    // A line that begins with a withheld byte is malformed with or without it.
                    Look::Plain(_) => self.server_speaks_plainly(time, items),
                }
            }
            self.server_step(time, &mut bytes, items);
        }
    }

    /// Reads up to the end of a line.
    fn server_step(&mut self, time: Time, bytes: &mut &[u8], items: &mut DecoderOutput) {
        let socket = self.socket(Peer::Server);
        if self.server.lines.at_start() {
            self.reply_line = time;
            self.reply_line_at = self.ends[socket] - bytes.len() as u64;
        }
        let lost = matches!(self.mode, Mode::Resync(_));
        let line = match self.server.lines.step(bytes, self.origin) {
            Step::More => return,
            Step::TooLong(_) => {
                if !lost {
                    let detail = || format!("a line of the server is longer than {LONGEST_LINE} bytes");
                    self.anomalies.report(time, AnomalyKind::LineTooLong, items, detail);
                }
                return;
            }
            Step::Line(line) => line,
        };
        let span = self.reply_line_at..self.ends[socket] - bytes.len() as u64;
        let outcome = self.replies.line(&line, span, self.reply_line, time, self.waiting.for_greeting(), items);
        let is_foreign =
            self.waiting.for_greeting() && self.replies.is_no_reply(&outcome) && !line.bytes.trim_ascii().is_empty();
        if is_foreign {
            let detail = match self.reversed {
                true => "the server's first line is no reply".into(),
                false => format!("the server's first line is {}", of_server(&line)),
            };
            self.not_smtp(time, detail, items);
            return;
        }
        if !lost {
            let length = line.length;
            // Who has only taken the part of a server may still send credentials.
            let shown = || match self.reversed {
                true => format!("a line of {length} bytes"),
                false if Names::of(&self.names).repeated_in(line.said()).is_any() => codes_of(&line),
                false => of_server(&line),
            };
            Flaws::of(&line).report(Peer::Server, shown, |kind, detail| {
                self.anomalies.report(time, kind, items, || detail);
            });
            if outcome.malformed || outcome.contradicts {
                self.anomalies.report(time, AnomalyKind::MalformedReply, items, shown);
            }
            let is_flawed = outcome.dropped || outcome.continues && !self.pipelines;
            self.garbled |= is_flawed && self.waiting.is_single() && !self.waiting.for_greeting();
        }
        if let Some(greeting) = outcome.before {
            self.greeted_in_part(greeting, outcome.code, items);
        }
        if let Some(reply) = outcome.reply {
            self.reply(reply, items);
        }
    }

    /// The client goes on: it has read a reply whose last line is missing.
    pub(super) fn reply_without_end(&mut self, reply: Box<Reply>, items: &mut DecoderOutput) {
        self.report_without_end(&reply, items);
        self.reply(reply, items);
    }

    pub(super) fn report_without_end(&mut self, reply: &Reply, items: &mut DecoderOutput) {
        let detail = || format!("the last line of a reply with {} is missing", reply.code);
        self.anomalies.report(reply.last_byte, AnomalyKind::MalformedReply, items, detail);
    }

    /// Another reply follows the first lines of a greeting: a refusal, as of a server that tests whether its client waits
    /// (Postfix's postscreen), or the reply to a client that has taken these lines for all of it.
    fn greeted_in_part(&mut self, greeting: Box<Reply>, next: u16, items: &mut DecoderOutput) {
        if next < 400 {
            self.early = None;
            self.report_without_end(&greeting, items);
        }
        self.reply(greeting, items);
    }

    /// A reply is complete.
    pub(super) fn reply(&mut self, mut reply: Box<Reply>, items: &mut DecoderOutput) {
        reply.repeated = self.names().repeated_in(&reply.text);
        self.known_reply(reply, items);
    }

    /// A reply is complete, and what it repeats is known.
    fn known_reply(&mut self, reply: Box<Reply>, items: &mut DecoderOutput) {
        self.garbled = false;
        if self.withholds() {
            self.withhold(reply, items);
            return;
        }
        if let Some(not_last) = self.last_word.take() {
            self.reply_in_turn(not_last, items);
        }
        if reply.code == 421 {
            self.give_up_last_line(items);
        }
        let is_lost = matches!(self.mode, Mode::Resync(_));
        if reply.code != 421 || is_lost || !self.waiting.for_command() || self.waiting.for_greeting() {
            self.pair(reply, items);
        } else if self.unsettled.is_some() {
            self.give_up_waiting(items);
            self.shut_down(&reply, items);
        } else if self.has_crossed(&reply) {
            self.shut_down(&reply, items);
        } else if self.waiting.holds_more_than_quit() && !self.names_first(&reply) {
            self.last_word = Some(reply);
        } else {
            self.reply_in_turn(reply, items);
        }
    }

    /// The server was tired of waiting before it saw what was sent last: nothing runs out of time in less than the way
    /// there and back.
    fn has_crossed(&self, timeout: &Reply) -> bool {
        let sent = match self.waiting.get(0) {
            Some(PendingReply::Command(command, _)) => Some(command.last_byte.0),
            Some(PendingReply::Message(message, _)) => message.ended_at.map(|time| time.0),
            _ => None,
        };
        let quicker =
            |quickest: NonZero<u32>, sent| timeout.first_byte.0.saturating_sub(sent) < u64::from(quickest.get() / 2);
        timeout.names_a_timeout() && self.quickest.zip(sent).is_some_and(|(quickest, sent)| quicker(quickest, sent))
    }

    /// It names the mailbox of the command that has waited longest: it is the reply to that, whatever becomes of the others.
    fn names_first(&self, reply: &Reply) -> bool {
        match self.waiting.get(0) {
            Some(PendingReply::Command(command, _)) => is_about(&reply.text, command),
            _ => false,
        }
    }

    /// A 421 that is no reply.
    pub(super) fn shut_down(&mut self, reply: &Reply, items: &mut DecoderOutput) {
        self.anomalies.report(reply.last_byte, AnomalyKind::ServerShutdown, items, || line(reply));
    }

    /// A reply to what has waited longest.
    pub(super) fn reply_in_turn(&mut self, reply: Box<Reply>, items: &mut DecoderOutput) {
        if let Mode::Resync(lost) = &mut self.mode {
            if self.waiting.is_empty() {
                self.reply_while_lost(reply, items);
                return;
            }
            lost.reply_to_older();
        }
        let alone = self.waiting.is_single();
        if reply.code == 334
            && alone
            && let Some(PendingReply::Command(command, _)) = self.waiting.get(0)
            && match self.mode {
                Mode::Undecided => command.verb != Verb::Data,
                Mode::Answer | Mode::Command => true,
                _ => false,
            }
        {
            // A challenge (RFC 4954, 4): the command's own reply is still to come.
            self.mode = Mode::Answer;
            self.read_held(Some(reply.last_byte), items);
            return;
        }
        match self.waiting.pop(items) {
            None if !self.has_written && self.is_one_sided() => {
                self.lose(reply.last_byte, || "nothing is seen of the client".into(), items);
            }
            None => self.reply_to_nothing(reply, items),
            Some(PendingReply::Greeting) => self.greeted(reply, items),
            Some(PendingReply::Octets) => {}
            Some(PendingReply::Message(message, owed)) => self.reply_to_message(message, owed, reply, items),
            Some(PendingReply::Command(command, None)) if self.opens_content(&command, &reply) => {
                self.go_ahead_to_another(command, reply, items);
            }
            Some(PendingReply::Command(command, None)) => {
                self.may_owe_more = false;
                self.answered_at = reply.last_byte;
                if !command.pipelined {
                    let took = reply.first_byte.0.saturating_sub(command.last_byte.0);
                    let took = NonZero::new(u32::try_from(took).unwrap_or(u32::MAX));
                    self.quickest = self.quickest.into_iter().chain(took).min();
                }
                self.reply_to_command(command, reply, items);
            }
            Some(PendingReply::Command(command, Some(message))) => {
                self.cut_short = reply.accepts() && matches!(self.mode, Mode::Octets(1..)) && self.waiting.is_empty();
                // The command was not understood, or is out of place: that is one reply for all.
                let owed =
                    if matches!(reply.code, 500..=504) { ExpectedReplies::One } else { ExpectedReplies::Unknown };
                items.push(Item::Exchange(Exchange { command, reply: Some(reply.clone()) }));
                self.reply_to_message(message, owed, reply, items);
            }
        }
        if matches!(self.mode, Mode::Resync(_)) {
            // It was known what this one replied to; what the client has said since is not.
            items.push(Item::Lost(Lost::Bytes));
        }
    }

    /// A go-ahead to a command that was not read as DATA; the server has read it so.
    fn opens_content(&self, command: &Command, reply: &Reply) -> bool {
        reply.code == 354
            && matches!(self.mode, Mode::Command | Mode::Undecided | Mode::Answer)
            && !matches!(command.verb, Verb::Data | Verb::Xexch50)
    }

    fn go_ahead_to_another(&mut self, command: Box<Command>, reply: Box<Reply>, items: &mut DecoderOutput) {
        let (time, requested_at) = (reply.last_byte, command.last_byte);
        let known = command.verb != Verb::Other;
        items.push(Item::Exchange(Exchange { command, reply: Some(reply.clone()) }));
        if known && self.had_content {
            // The client did not ask for this one.
            self.smuggled(&reply, None, Some(0), items);
            return;
        }
        if !self.waiting.is_empty() {
            // What was taken for commands is content. Their verbs have led to here.
            while self.waiting.pop(items).is_some() {}
            self.client.lines.reset();
            self.lose(time, || "content that was sent before its go-ahead".into(), items);
            return;
        }
        let go_ahead = GoAhead { time, text: reply.text, repeated: reply.repeated };
        let (begun, length) = self.client.lines.take();
        self.client.opening = Opening::Past;
        self.mode = Mode::Body(Box::new(Body::new()), message(Transfer::Data, Some(requested_at), Some(go_ahead)));
        let since = self.line.time;
        self.read_client(since, &begun, items);
        self.content(Peer::Client, self.line.time, length - begun.len() as u64, items);
        self.read_held(Some(time), items);
    }

    /// A reply to the end of a message. It may be one of several: one a recipient with LMTP (RFC 2033, 4.2), and behind
    /// a 353 (per-recipient data responses) one a recipient and one for all.
    pub(super) fn reply_to_message(
        &mut self,
        mut message: Box<Message>,
        owed: ExpectedReplies,
        reply: Box<Reply>,
        items: &mut DecoderOutput,
    ) {
        let expected = match owed {
            ExpectedReplies::Unknown => {
                self.may_owe_more = match self.recipients {
                    Some(recipients) => recipients > 1 && self.lmtp.is_none(),
                    None => self.lmtp != Some(false),
                };
                self.expected_replies(&reply)
            }
            known => known,
        };
        message.answer(expected, reply);
        match expected.behind_one() {
            Some(owed) => self.waiting.push_front(PendingReply::Message(message, owed), items),
            None => {
                self.recipients = Some(0);
                items.push(Item::Message(message));
            }
        }
    }

    /// What the end of a message earns that has this final reply first.
    pub(super) fn expected_replies(&self, first: &Reply) -> ExpectedReplies {
        match u32::from(self.recipients.unwrap_or(0)) {
            recipients if first.code == 353 => ExpectedReplies::EachAndAll(recipients.saturating_add(2)),
            recipients @ 1.. if self.lmtp == Some(true) => ExpectedReplies::Each(recipients),
            _ => ExpectedReplies::One,
        }
    }

    /// A reply that nothing waits for.
    fn reply_to_nothing(&mut self, reply: Box<Reply>, items: &mut DecoderOutput) {
        // RFC 5321, 3.8; RFC 7504, 3. And where nobody has asked for anything but the connection, it is that which is refused.
        if matches!(reply.code, 421 | 521) || !self.has_written && reply.refuses() {
            self.shut_down(&reply, items);
            return;
        }
        match &self.mode {
            Mode::Body(body, _) if body.has_hole() => self.reply_behind_a_hole(reply, items),
            Mode::Body(..) => self.reply_in_content(reply, items),
            // The octets do not come, or not as they were announced.
            Mode::Octets(_) => self.lose(reply.last_byte, || "a reply where octets were to come".into(), items),
            // The client did not ask for this one: the message before it held commands for the server.
            _ if reply.code == 354 && self.had_content => self.smuggled(&reply, None, Some(0), items),
            // It may be to what was not seen of the client, or of another recipient.
            _ if self.is_behind || self.may_owe_more => {}
            _ => self.anomalies.report(reply.last_byte, AnomalyKind::UnsolicitedReply, items, || line(&reply)),
        }
    }

    /// The end of data was in a hole; whether the client sent more behind it is only known if it stops there.
    pub(super) fn reply_behind_a_hole(&mut self, reply: Box<Reply>, items: &mut DecoderOutput) {
        let time = reply.last_byte;
        let Mode::Body(body, mut message) = std::mem::replace(&mut self.mode, Mode::Command) else { return };
        self.left_waiting = LONGEST_WAITING;
        let may_have_ended = body.may_have_ended();
        if !may_have_ended {
            message.ended_at = None;
        }
        message.size = body.size_at_end();
        self.reply_to_message(message, ExpectedReplies::Unknown, reply, items);
        if may_have_ended {
            items.push(Item::Lost(Lost::Bytes));
            let detail = || "a reply shows that the message is over".into();
            self.anomalies.report(time, AnomalyKind::Resynchronised, items, detail);
        } else {
            self.lose(time, || "the end of a message".into(), items);
        }
    }

    /// A reply before the end of data: the server refuses the message early, or has it over.
    fn reply_in_content(&mut self, reply: Box<Reply>, items: &mut DecoderOutput) {
        let Mode::Body(body, message) = &mut self.mode else { return };
        let is_first = message.reply.is_none();
        if self.fork.as_ref().is_some_and(|fork| fork.is_own() && (fork.is_last() || reply.accepts())) {
            self.reply_to_own_end(reply, items);
            return;
        }
        // Only a refusal comes early, and only once.
        let smuggled = match &self.fork {
            Some(_) => reply.accepts() || !is_first,
            None => reply.code == 354 && !is_first && body.is_left_out(),
        };
        if !smuggled {
            if is_first && reply.accepts() {
                // The client may have shut its direction: then this is the final reply.
                message.reply = Some(reply);
                self.cut_short = true;
                return;
            }
            if is_first && reply.refuses() {
                message.reply = Some(reply.clone());
            }
            // With the connection's end, nothing more is said of the message.
            if !matches!(reply.code, 221 | 421) {
                self.content_goes_on(items);
            }
            self.anomalies.report(reply.last_byte, AnomalyKind::UnsolicitedReply, items, || line(&reply));
            return;
        }
        self.content_goes_on(items);
        let Mode::Body(_, mut message) = std::mem::replace(&mut self.mode, Mode::Command) else { return };
        let fork = self.fork.take();
        message.size = None;
        message.ended_at = None;
        if let Some(fork) = &fork {
            fork.end(&mut message);
        }
        let first = message.reply.get_or_insert_with(|| reply.clone());
        message.accepted = u32::from(first.accepts());
        let later = fork.map_or(Some(0), |fork| fork.owed()).map(|owed| owed.saturating_sub(usize::from(!is_first)));
        self.smuggled(&reply, Some(message), later, items);
    }

    /// All lines of the client end with LF alone, and the server takes LF `.` LF for the end of data, too.
    fn reply_to_own_end(&mut self, reply: Box<Reply>, items: &mut DecoderOutput) {
        let Some(fork) = self.fork.take() else { return };
        let Mode::Body(_, mut message) = std::mem::replace(&mut self.mode, Mode::Command) else { return };
        let time = reply.last_byte;
        fork.end(&mut message);
        message.reply = None;
        self.had_content = true;
        self.reply_to_message(message, ExpectedReplies::Unknown, reply, items);
        if !fork.is_last() {
            self.lose(time, || "commands behind the end of a message".into(), items);
            if let Mode::Resync(lost) = &mut self.mode {
                lost.expect(fork.owed().unwrap_or(0));
            }
        }
    }

    /// The message goes on, or more is said to it: the reply that has accepted it was none to its end.
    pub(super) fn content_goes_on(&mut self, items: &mut DecoderOutput) {
        if std::mem::take(&mut self.cut_short)
            && let Mode::Body(_, message) = &self.mode
            && let Some(reply) = &message.reply
        {
            self.anomalies.report(reply.last_byte, AnomalyKind::UnsolicitedReply, items, || line(reply));
        }
    }

    /// The connection is over, and so is a message that was accepted before its end.
    pub(super) fn report_cut_short(&mut self, time: Time, mode: &mut Mode, items: &mut DecoderOutput) {
        if !std::mem::take(&mut self.cut_short) {
            if let Mode::Body(_, message) = mode {
                // It was none to the end of the message, which did not come.
                message.reply.take_if(|reply| reply.accepts());
            }
            return;
        }
        let detail = match mode {
            Mode::Body(_, message) => {
                let Some(reply) = &message.reply else { return };
                message.accepted = 1;
                line(reply)
            }
            Mode::Octets(remaining) => format!("{remaining} bytes of a chunk did not come"),
            _ => return,
        };
        self.anomalies.report(time, AnomalyKind::ContentCutShort, items, || detail);
    }

    /// The connection is over: its last line may be a reply though its end is missing.
    pub(super) fn read_unfinished_reply(&mut self, items: &mut DecoderOutput) {
        let is_due = self.waiting.for_command() && !self.waiting.for_greeting();
        if self.is_opaque() || matches!(self.mode, Mode::StartTls { .. } | Mode::Resync(_)) || !is_due {
            return;
        }
        let crossed = self.server.lines.crossed();
        let (line, length) = self.server.lines.take();
        if line.get(3) != Some(&b' ') || length > line.len() as u64 {
            return;
        }
        let line = Line::unfinished(&line, crossed);
        let span = self.reply_line_at..self.end(Peer::Server);
        if let Some(mut reply) = self.replies.line(&line, span, self.reply_line, self.reply_line, false, items).reply {
            reply.repeated = self.names().repeated_before_cut(&reply.text);
            self.known_reply(reply, items);
        }
    }
}

/// A server's line in a detail.
fn of_server(line: &Line<'_>) -> String {
    match (line.is_withheld(), line.said()) {
        (false, said) => escape(said),
        (true, b"") => format!("a line of {} bytes", line.length),
        (true, said) => format!("{} in a line of {} bytes", escape(said.trim_ascii_end()), line.length),
    }
}

/// The codes of a server's line whose text may repeat what is shown to nobody.
fn codes_of(line: &Line<'_>) -> String {
    let length = line.length;
    match line.said().split_at_checked(3) {
        Some((code, text)) if code.iter().all(u8::is_ascii_digit) => {
            let text = text.get(1..).unwrap_or_default();
            let codes = [code, b" ", &text[..EnhancedCode::length(text)]].concat();
            format!("{} in a line of {length} bytes", escape(codes.trim_ascii_end()))
        }
        _ => format!("a line of {length} bytes"),
    }
}

/// A reply as a detail shows it: without its text where that may repeat what is shown to nobody.
pub(super) fn line(reply: &Reply) -> String {
    if reply.repeated.is_any() {
        let enhanced_code = reply.enhanced_code.map(|code| format!(" {code}"));
        return format!("{}{}", reply.code, enhanced_code.unwrap_or_default());
    }
    let line = [reply.code.to_string().as_bytes(), b" ", &reply.text].concat();
    escape(if reply.withheld { line.trim_ascii_end() } else { &line })
}
