//! What was said on one connection, kept to be compared with what was said on another.

mod step;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

pub use self::step::{Content, Said, Step};
use self::step::{cut, kept};
use crate::analysis;
use crate::fact::{Fact, What};
use crate::redact::{self, RedactionPolicy};
use crate::smtp::{Exchange, Plaintext, Reply, Tls, TlsFailure, Verb};
use crate::timestamp::Timestamp;

/// Most steps kept of a connection by an agent; beyond it the first ones are forgotten.
pub const MAX_STEPS: usize = 64;

/// Most bytes of texts kept of a connection by an agent, about, likewise.
pub const MAX_TEXTS: usize = 16 * 1024;

/// The greeting, and the commands with what was replied.
#[derive(Clone, Debug, Default)]
pub struct Dialogue {
    /// The server's first reply.
    pub greeting: Option<Said>,
    /// Commands in their order, without those that are forgotten.
    pub steps: VecDeque<Step>,
    /// How many are forgotten: the number of the first one that is kept.
    forgotten: u64,
    /// Bytes of the texts of greeting and steps.
    texts: usize,
    /// The connection is over.
    pub closed: Option<Timestamp>,
    /// Bytes that the client had sent and received then, where both are known.
    bytes_at_end: Option<(u64, u64)>,
    /// TLS has started, or failed.
    pub encrypted: Option<Timestamp>,
    /// The client was told to begin it.
    agreed: Option<Timestamp>,
    /// What is said inside of it is seen, from its start on.
    pub is_read: bool,
    /// By what the client's hello is known again.
    pub client_random: Option<u64>,
    /// When the server took a message first.
    pub accepted: Option<Timestamp>,
    /// The client sends a message's content: until its end no command can come. Those behind it are told later than its end.
    pub transferring: bool,
    /// The mailbox that the last MAIL named.
    sender: Option<u64>,
    /// The first mailbox that was accepted since.
    recipient: Option<u64>,
    /// The room of a reply's text that is forgotten, for the next one.
    spare: String,
    /// All that is said is kept.
    is_whole: bool,
}

impl Dialogue {
    /// One that keeps all that is said.
    pub fn whole() -> Self {
        Self { is_whole: true, ..Self::default() }
    }

    /// Since when what is said is not seen, because it is encrypted.
    pub fn unread_since(&self) -> Option<Timestamp> {
        self.encrypted.filter(|_| !self.is_read).map(|started| self.agreed.unwrap_or(started))
    }

    /// The number of the first step that is kept; they are counted from 0.
    pub fn first(&self) -> u64 {
        self.forgotten
    }

    /// The number of the step that comes next.
    pub fn end(&self) -> u64 {
        self.forgotten + self.steps.len() as u64
    }

    /// The step with this number, if it is kept.
    pub fn step(&self, number: u64) -> Option<&Step> {
        self.steps.get(usize::try_from(number.checked_sub(self.forgotten)?).ok()?)
    }

    /// The steps with these numbers that are kept.
    pub fn range(&self, numbers: Range<u64>) -> impl DoubleEndedIterator<Item = (u64, &Step)> {
        let place = |number: u64| {
            let place = usize::try_from(number.saturating_sub(self.forgotten)).unwrap_or(usize::MAX);
            place.min(self.steps.len())
        };
        let (from, until) = (place(numbers.start), place(numbers.end));
        let first = self.forgotten + from as u64;
        self.steps.range(from..until.max(from)).enumerate().map(move |(place, step)| {
            #[cfg(test)]
            reads::count();
            (first + place as u64, step)
        })
    }

    /// Bytes that the client had sent and received when the connection was over, where that is known.
    pub fn bytes_at_end(&self) -> Option<(u64, u64)> {
        self.bytes_at_end
    }

    /// Bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        self.texts + self.spare.capacity() + self.steps.capacity() * size_of::<Step>()
    }

    /// Lets go of the steps before this number.
    pub fn release(&mut self, number: u64) {
        while self.forgotten < number && self.forget_first() {}
    }

    /// Lets go of all that was said.
    pub fn forget(&mut self) {
        self.release(u64::MAX);
        (self.greeting, self.steps, self.spare, self.texts) = (None, VecDeque::new(), String::new(), 0);
    }

    /// Forgets the first step, if there is one.
    fn forget_first(&mut self) -> bool {
        let Some(gone) = self.steps.pop_front() else { return false };
        self.forgotten += 1;
        self.texts -= gone.texts();
        if let Some(reply) = gone.reply {
            self.spare = reply.text;
            self.spare.clear();
        }
        true
    }

    /// Takes what is known of the connection; whether that was something said, or the end.
    pub fn take(&mut self, fact: &Fact<'_>, policy: RedactionPolicy) -> bool {
        let time = fact.time;
        match fact.what {
            What::Greeting { reply, .. } => {
                self.greeted(Said::new(time, reply.code, policy.reply(reply).unwrap_or_default()));
            }
            What::Command(exchange) => {
                let Exchange { command, reply } = exchange;
                let sent = time.before(exchange.latency().unwrap_or_default());
                let mut step = self.next_step(redact::verb(command), sent);
                step.mailbox = match command.verb {
                    Verb::Mail | Verb::Rcpt => Some(analysis::fingerprint(command.argument())),
                    _ => None,
                };
                if step.says_hello() && !command.argument().is_empty() {
                    step.name = Some(kept(&policy.text(command.argument())));
                }
                step.reply = reply.as_ref().map(|reply| {
                    let mut text = std::mem::take(&mut self.spare);
                    policy.write_reply_to(command, reply, &mut text);
                    cut(&mut text);
                    Said { time, code: reply.code, text }
                });
                self.push(step);
            }
            What::Data(message) => {
                let said = |reply: &Reply| Said::new(time, reply.code, policy.reply(reply).unwrap_or_default());
                let content = Content {
                    ended: message.final_reply_latency().map(|latency| time.before(latency)),
                    size: message.size,
                    reply: message.reply.as_deref().map(said),
                    is_taken: message.is_taken() == Some(true),
                };
                self.content(message.transfer.as_str(), content);
            }
            What::Tls(Tls::Requested) => self.agreed = Some(time),
            What::Tls(Tls::Failed(_, TlsFailure::NoClientHello)) => return false,
            What::Tls(Tls::Started(session) | Tls::Failed(session, _)) => {
                self.encrypted = Some(time);
                self.is_read = matches!(session.plaintext, Plaintext::Read(_));
                self.client_random = session.client_random;
            }
            What::ConnectionClosed(closed) => {
                self.closed = Some(time);
                // Where positions tell nothing, bytes may have gone by unseen.
                self.bytes_at_end = closed.lost_bytes.map(|_| (closed.bytes_sent, closed.bytes_received));
            }
            // No more of it is known.
            What::ConnectionUnfollowed(_) => {
                self.closed = Some(time);
                self.bytes_at_end = None;
            }
            _ => return false,
        }
        true
    }

    /// The server has said its first reply.
    pub fn greeted(&mut self, greeting: Said) {
        self.texts += greeting.text.len();
        let before = self.greeting.replace(greeting);
        self.texts -= before.map_or(0, |before| before.text.len());
    }

    /// A command and its reply. `argument` is what is shown of what followed the verb, `mailbox` the fingerprint of the one in
    /// it.
    pub fn command(
        &mut self,
        verb: Cow<'static, str>,
        argument: Option<&str>,
        mailbox: Option<u64>,
        sent: Timestamp,
        reply: Option<Said>,
    ) {
        let mut step = Step { mailbox, reply, ..self.next_step(verb, sent) };
        step.name = argument.filter(|_| step.says_hello()).map(kept);
        self.push(step);
    }

    /// A step of which nothing but the verb is known.
    fn next_step(&mut self, verb: Cow<'static, str>, sent: Timestamp) -> Step {
        let has_most = |known: &Self| known.steps.len() >= MAX_STEPS || known.texts >= MAX_TEXTS;
        while !self.is_whole && has_most(self) && self.forget_first() {}
        let (sender_before, recipient_before) = (self.sender, self.recipient);
        Step { verb, name: None, mailbox: None, sent, reply: None, content: None, sender_before, recipient_before }
    }

    fn push(&mut self, step: Step) {
        self.transferring = step.verb == "DATA" && step.reply.as_ref().is_some_and(|reply| reply.code == 354);
        match &*step.verb {
            "MAIL" => (self.sender, self.recipient) = (step.mailbox, None),
            "RCPT" if step.reply.as_ref().is_some_and(|reply| reply.code < 300) => {
                self.recipient = self.recipient.or(step.mailbox);
            }
            _ => {}
        }
        self.texts += step.texts();
        self.steps.push_back(step);
    }

    /// The content that followed the last command with this verb.
    pub fn content(&mut self, verb: &str, content: Content) {
        self.transferring = false;
        self.accepted = self.accepted.or(content.accepted());
        if let Some(step) = self.steps.iter_mut().rfind(|step| step.verb == verb && step.content.is_none()) {
            self.texts += content.texts();
            step.content = Some(content);
        }
    }

    /// The steps of the transaction that began then, as far as they are not forgotten.
    fn transaction(&self, begun: Timestamp) -> impl Iterator<Item = &Step> {
        let mut since = self.steps.iter().skip_while(move |step| step.sent != begun || step.verb != "MAIL");
        let mail = since.next();
        mail.into_iter().chain(since.take_while(|step| step.verb != "MAIL"))
    }

    /// When the server took the message of the transaction that began then, as far as that is not forgotten.
    pub fn took(&self, begun: Timestamp) -> Option<Timestamp> {
        self.transaction(begun).filter_map(|step| step.content.as_ref()).find_map(Content::accepted)
    }

    /// The same; of a transaction that is forgotten, which is over, when the first message was taken.
    pub fn has_taken(&self, begun: Timestamp) -> Option<Timestamp> {
        let is_forgotten = self.steps.front().is_none_or(|first| first.sent > begun);
        if is_forgotten { self.accepted } else { self.took(begun) }
    }

    /// Whether the server was asked for the message of the transaction that began then, as far as that is not forgotten.
    pub fn asked_for_message(&self, begun: Timestamp) -> bool {
        self.transaction(begun).any(Step::is_message)
    }

    /// Whether the client waited at this moment for what is said to the first recipient of the transaction that began then.
    pub fn awaited_recipient(&self, begun: Timestamp, moment: Timestamp) -> bool {
        let mut steps = self.transaction(begun);
        let Some(mail) = steps.next() else { return false };
        let Some(rcpt) = steps.find(|step| step.verb == "RCPT") else { return false };
        // It may have been sent before its call has returned.
        let asked = mail.reply.as_ref().map_or(rcpt.sent, |reply| reply.time.min(rcpt.sent));
        asked <= moment && rcpt.reply.as_ref().is_none_or(|reply| moment <= reply.time)
    }

    /// Whether the server took a message of a transaction that began then or later, as far as that is not forgotten.
    pub fn may_have_taken(&self, since: Timestamp) -> bool {
        let took = |step: &Step| {
            step.sent >= since && step.content.as_ref().is_some_and(|content| content.accepted().is_some())
        };
        let is_forgotten = self.steps.front().is_none_or(|first| first.sent > since);
        self.accepted.is_some_and(|accepted| accepted >= since || is_forgotten || self.steps.iter().any(took))
    }

    /// Whether all that the client sent until this moment is here. What was sent is known when it is answered, so
    /// something later must have been; `now` is the latest moment that a reply may have taken.
    pub fn knows(&self, time: Timestamp, overdue: Timestamp) -> bool {
        let later = self.steps.back().is_some_and(|last| last.sent > time);
        later || self.closed.is_some() || self.transferring || time <= overdue
    }

    /// Whether nothing that the client sent until this moment can still become known, as is known `now`.
    pub fn is_complete(&self, time: Timestamp, now: Timestamp) -> bool {
        let later = self.steps.back().is_some_and(|last| last.sent > time);
        later || self.closed.is_some() || self.transferring && time <= now
    }

    /// The same by another clock, which is this many nanoseconds ahead.
    pub fn by_clock(&self, ahead: i64) -> Self {
        let at = |time: Timestamp| Timestamp(time.0.saturating_add(ahead));
        let said = |said: &Said| Said { time: at(said.time), ..said.clone() };
        let content = |content: &Content| Content {
            ended: content.ended.map(at),
            reply: content.reply.as_ref().map(said),
            ..content.clone()
        };
        let step = |step: &Step| Step {
            sent: at(step.sent),
            reply: step.reply.as_ref().map(said),
            content: step.content.as_ref().map(content),
            ..step.clone()
        };
        Self {
            greeting: self.greeting.as_ref().map(said),
            steps: self.steps.iter().map(step).collect(),
            closed: self.closed.map(at),
            encrypted: self.encrypted.map(at),
            accepted: self.accepted.map(at),
            spare: String::new(),
            ..*self
        }
    }
}

/// How many steps were read, for tests that count the work.
#[cfg(test)]
pub(super) mod reads {
    use std::cell::Cell;

    thread_local!(static READS: Cell<usize> = const { Cell::new(0) });

    pub fn count() {
        READS.set(READS.get() + 1);
    }

    /// Since this was asked last.
    pub fn take() -> usize {
        READS.take()
    }
}
