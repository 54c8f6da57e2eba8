//! What a reply makes of the session: extensions, TLS, content, roles.

use super::super::body::Body;
use super::super::command::{Command, Verb};
use super::super::decoder_output::DecoderOutput;
use super::super::escape::escape;
use super::super::extensions::{Extensions, keywords};
use super::super::item::{Exchange, GoAhead, Item, Transfer};
use super::super::masked;
use super::super::pending_replies::{ExpectedReplies, PendingReply};
use super::super::reply::Reply;
use super::super::tls::Tls;
use super::super::undecided_input::Unread;
use super::{Direction, Mode, Session, message};
use crate::event::Time;
use crate::names::AnomalyKind;

impl Session {
    /// What the client says behind a reply that came early may be lines: how much of it is content is not known.
    pub(super) fn end_answered_message(&mut self, unread: Unread, items: &mut DecoderOutput) {
        let Mode::Body(_, message) = &mut self.mode else { return };
        let Some(reply) = message.reply.take_if(|_| unread == Unread::Uncertain) else { return };
        let Mode::Body(_, mut message) = std::mem::replace(&mut self.mode, Mode::Command) else { return };
        (message.size, message.ended_at) = (None, None);
        (self.fork, self.cut_short) = (None, false);
        self.reply_to_message(message, ExpectedReplies::Unknown, reply, items);
    }

    /// A command has its reply: what the session is from now on.
    pub(super) fn reply_to_command(&mut self, command: Box<Command>, reply: Box<Reply>, items: &mut DecoderOutput) {
        let verb = command.verb;
        let octets = if verb == Verb::Xexch50 { command.octets() } else { None };
        let (requested_at, time, code) = (command.last_byte, reply.last_byte, reply.code);
        let accepted = reply.accepts();
        let go_ahead = match verb {
            Verb::Data if matches!(code / 100, 2 | 3) => {
                Some(GoAhead { time, text: go_ahead_text(&reply), repeated: reply.repeated.clone() })
            }
            _ => None,
        };
        self.report_hello(&command, Some(&reply), items);
        let offered = (accepted && matches!(verb, Verb::Ehlo | Verb::Lhlo)).then(|| Extensions::parse(&reply.text));
        let mask = offered.and_then(|_| keywords(&reply.text).find(|word| masked::is_keyword(word))).map(escape);
        items.push(Item::Exchange(Exchange { command, reply: Some(reply) }));
        if let Some(mask) = mask {
            let detail = || format!("the server offers {mask}");
            self.anomalies.report(time, AnomalyKind::MaskedCommand, items, detail);
        }

        if matches!(verb, Verb::Ehlo | Verb::Lhlo | Verb::Helo | Verb::Mail | Verb::Rset) {
            self.end_of_chunks(accepted);
        }
        match verb {
            Verb::Ehlo | Verb::Lhlo | Verb::Helo if accepted => {
                self.extensions = Some(offered.unwrap_or_default());
                self.lmtp = Some(verb == Verb::Lhlo);
                self.recipients = Some(0);
                if offered.is_some_and(|offered| offered.starttls) {
                    items.push(Item::Tls(time, Tls::Offered));
                    self.offer.made();
                }
            }
            Verb::Auth | Verb::XExps if accepted => self.goes_on_in_clear(time, items),
            Verb::Mail | Verb::Rset if accepted => {
                self.recipients = Some(0);
                if verb == Verb::Mail {
                    self.goes_on_in_clear(time, items);
                }
            }
            Verb::XClient if code == 220 => self.begin_anew(),
            verb if verb.starts_tls() => {
                self.offer.settle();
                items.push(Item::Tls(time, if code == 220 { Tls::Requested } else { Tls::Refused(code) }));
            }
            Verb::Rcpt if accepted => self.recipients = self.recipients.map(|recipients| recipients.saturating_add(1)),
            _ => {}
        }
        if matches!(verb, Verb::Atrn | Verb::Turn) && accepted && matches!(self.mode, Mode::Undecided) {
            self.turn(time, verb.as_str(), items);
            return;
        }
        // Only now is it known how to read what the client sent since.
        match (&self.mode, go_ahead) {
            (Mode::Undecided, Some(go_ahead)) if self.waiting.is_empty() && code / 100 == 3 => {
                let message = message(Transfer::Data, Some(requested_at), Some(go_ahead));
                self.mode = Mode::Body(Box::new(Body::new()), message);
                self.read_held(Some(time), items);
            }
            (Mode::Undecided, Some(go_ahead)) if self.waiting.is_empty() => {
                self.mode = Mode::UndecidedForLine(Box::new(go_ahead), requested_at);
                self.read_held_for_line(items);
            }
            (Mode::Undecided | Mode::Answer, _) if self.waiting.is_empty() => {
                self.decided(verb, code, octets, time, items);
            }
            _ => {}
        }
    }

    /// The reply to a command other than DATA says how to read on.
    fn decided(&mut self, verb: Verb, code: u16, octets: Option<u64>, time: Time, items: &mut DecoderOutput) {
        if verb.starts_tls() && code == 220 {
            self.mode = Mode::StartTls { injected: false, in_line: false };
            self.client = Direction::default();
            self.read_held(Some(time), items);
            return;
        }
        // An answer that was not complete stays an answer, be it that it waits in the kernel.
        let answers = matches!(self.mode, Mode::Answer);
        self.client.skip = answers && !self.client.lines.at_start();
        self.answer_waits = answers && !self.client.skip;
        self.mode = match octets {
            Some(octets) if octets > 0 && code / 100 == 3 => {
                self.waiting.push(PendingReply::Octets, items);
                Mode::Octets(octets)
            }
            _ => Mode::Command,
        };
        self.read_held(Some(time), items);
    }

    /// The server greets.
    pub(super) fn greeted(&mut self, reply: Box<Reply>, items: &mut DecoderOutput) {
        self.report_early(items);
        if masked::is_greeting(&reply.text) {
            let detail = || format!("the greeting is {}", escape(&reply.text));
            self.anomalies.report(reply.last_byte, AnomalyKind::MaskedCommand, items, detail);
        }
        items.push(Item::Greeting(reply));
    }

    /// HELO has nothing behind it (RFC 5321, 4.1.1.1): told with what the server made of it. What stayed in the kernel is
    /// something.
    pub(super) fn report_hello(&mut self, command: &Command, reply: Option<&Reply>, items: &mut DecoderOutput) {
        let verb = command.verb;
        if !matches!(verb, Verb::Ehlo | Verb::Helo | Verb::Lhlo) || !command.argument().is_empty() || command.is_cut() {
            return;
        }
        let time = reply.map_or(command.last_byte, |reply| reply.last_byte);
        self.anomalies.report(time, AnomalyKind::HeloWithoutHostname, items, || match reply {
            Some(reply) if reply.accepts() => format!("{}, accepted with {}", verb.as_str(), reply.code),
            Some(reply) => format!("{}, answered {}", verb.as_str(), reply.code),
            None => format!("{}, not answered", verb.as_str()),
        });
    }

    /// A command that ends a message in chunks has its reply. Refused, it ends nothing.
    fn end_of_chunks(&mut self, accepted: bool) {
        let Some(mut shelved) = self.shelved.take() else { return };
        if !accepted {
            let newer = self.chunks.take().map_or(Some(0), |chunks| chunks.size);
            shelved.size = shelved.size.zip(newer).map(|(older, newer)| older.saturating_add(newer));
            self.chunks = Some(shelved);
        }
    }

    /// What the server said before does not count any more: the next command is EHLO (RFC 3207, 4.2).
    pub(super) fn begin_anew(&mut self) {
        self.extensions = None;
        self.lmtp = Some(false);
        self.recipients = Some(0);
        self.chunks = None;
        self.shelved = None;
        self.in_chunk = false;
        self.had_content = false;
    }
}

/// The text of a go-ahead, which is kept with its message; none where it repeats a name.
fn go_ahead_text(reply: &Reply) -> Vec<u8> {
    if reply.repeated.names_nobody() { reply.text.clone() } else { Vec::new() }
}
