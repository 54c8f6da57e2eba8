//! What a reply makes of the session: extensions, TLS, content.

use super::super::body::Body;
use super::super::command::{Command, Verb};
use super::super::extensions::Extensions;
use super::super::item::{Exchange, GoAhead, Item, Transfer};
use super::super::reply::Reply;
use super::super::waiting::Slot;
use super::{Mode, Session, message};
use crate::event::Time;
use crate::observation::AnomalyKind;

impl Session {
    /// A command has its reply: what the session is from now on.
    pub(super) fn reply_to_command(&mut self, command: Command, reply: Reply, items: &mut Vec<Item>) {
        let verb = command.verb;
        let octets = if verb == Verb::Xexch50 { command.octets() } else { None };
        let (requested_at, time, code) = (command.last_byte, reply.last_byte, reply.code);
        let accepted = reply.accepts();
        let go_ahead = match verb {
            Verb::Data if matches!(code / 100, 2 | 3) => Some(GoAhead { time, text: reply.text.clone() }),
            _ => None,
        };
        let offered = (accepted && matches!(verb, Verb::Ehlo | Verb::Lhlo)).then(|| Extensions::parse(&reply.text));
        items.push(Item::Exchange(Exchange { command, reply: Some(reply) }));

        match verb {
            Verb::Ehlo | Verb::Lhlo | Verb::Helo if accepted => {
                self.extensions = Some(offered.unwrap_or_default());
                self.lmtp = verb == Verb::Lhlo;
                self.recipients = 0;
                if offered.is_some_and(|offered| offered.starttls) {
                    items.push(Item::TlsOffered(time));
                }
            }
            Verb::Mail | Verb::Rset if accepted => self.recipients = 0,
            Verb::Rcpt if accepted => self.recipients = self.recipients.saturating_add(1),
            _ => {}
        }
        // Only now is it known how to read what the client sent since.
        match (&self.mode, go_ahead) {
            (Mode::Held, Some(go_ahead)) if self.waiting.is_empty() && code / 100 == 3 => {
                let message = message(Transfer::Data, Some(requested_at), Some(go_ahead));
                self.mode = Mode::Body(Box::new(Body::new()), message);
                self.read_held(true, items);
            }
            (Mode::Held, Some(go_ahead)) if self.waiting.is_empty() => {
                self.mode = Mode::HeldForLine(go_ahead, requested_at);
                self.read_held_for_line(items);
            }
            (Mode::Held | Mode::Answer, _) if self.waiting.is_empty() => {
                self.decided(verb, code, octets, time, items);
            }
            _ => {}
        }
    }

    /// The reply to a command other than DATA says how to read on.
    fn decided(&mut self, verb: Verb, code: u16, octets: Option<u64>, time: Time, items: &mut Vec<Item>) {
        if verb.starts_tls() && code == 220 {
            if !self.held.is_empty() {
                let detail = || "the client sent more behind STARTTLS".into();
                self.anomalies.report(time, AnomalyKind::StarttlsInjection, items, detail);
            }
            items.push(Item::TlsStarted(time));
            self.become_opaque(false);
            return;
        }
        // An answer that was not complete stays an answer.
        self.client.skip = matches!(self.mode, Mode::Answer) && !self.client.lines.at_start();
        self.mode = match octets {
            Some(octets) if octets > 0 && code / 100 == 3 => {
                self.waiting.push(Slot::Octets);
                Mode::Octets(octets)
            }
            _ => Mode::Command,
        };
        self.read_held(true, items);
    }
}
