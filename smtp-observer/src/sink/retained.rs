//! What is kept of facts until somebody looks.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::event::Time;
use crate::fact::{Fact, What};
use crate::observation::{Caller, Connection, Event, Evidence, Interception, Observation, Timestamp};
use crate::redact::{self, RedactionPolicy};
use crate::smtp::{Command, EnhancedCode, Exchange, Repeated, Reply};

/// Bytes of a command and its reply that are kept as they were said. What is longer is cut, and cut only when it is redacted: half
/// a mailbox is not known for one.
const MAX_SAID: usize = 512;

/// Characters that are kept of a text.
const MAX_TEXT: usize = 256;

/// A fact that is kept. Nearly all are commands, and few of these are ever looked at: they are kept as they were said, and
/// redacted and put in words for who looks.
#[derive(Clone, Debug)]
pub struct Retained(Arc<Kept>);

#[derive(Debug)]
enum Kept {
    Shown(Observation),
    Command(Said),
}

/// A command and its reply.
#[derive(Debug)]
struct Said {
    time: Timestamp,
    connection: Arc<Connection>,
    process: Option<Caller>,
    intercepted: bool,
    policy: RedactionPolicy,
    /// The verb as it is shown.
    verb: Cow<'static, str>,
    /// The command's line and, from `text` on, the reply's text.
    bytes: Box<[u8]>,
    text: usize,
    /// Bytes of the whole line.
    length: u64,
    pipelined: bool,
    reply: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    code: u16,
    enhanced_code: Option<EnhancedCode>,
    withheld: bool,
    latency: Duration,
}

impl From<Observation> for Retained {
    fn from(mut observation: Observation) -> Self {
        texts_mut(&mut observation.event).for_each(cut);
        Self(Arc::new(Kept::Shown(observation)))
    }
}

/// The texts of any length that a peer has said.
fn texts(event: &Event) -> impl Iterator<Item = &String> {
    let texts = match event {
        Event::Greeting(greeting) => [Some(&greeting.text), None],
        Event::Command(command) => [command.argument.as_ref(), command.reply.as_ref()],
        Event::Data(data) => [data.go_ahead_text.as_ref(), data.reply.as_ref()],
        Event::Transaction(transaction) => [transaction.sender.as_ref(), None],
        _ => [None, None],
    };
    texts.into_iter().flatten()
}

/// Bytes of memory that an event takes beside its own, about.
pub(super) fn cost(event: &Event) -> usize {
    let said: usize = texts(event).map(String::len).sum();
    said + match event {
        Event::Rset(rset) => size_of_val(&**rset),
        Event::Noop(noop) => size_of_val(&**noop),
        Event::Anomaly(anomaly) => anomaly.detail.len(),
        Event::Interception(interception) => {
            let evidence = interception.evidence.iter().map(|it| size_of::<Evidence>() + it.detail.len());
            size_of::<Interception>() + evidence.sum::<usize>()
        }
        _ => 0,
    }
}

fn texts_mut(event: &mut Event) -> impl Iterator<Item = &mut String> {
    let texts = match event {
        Event::Greeting(greeting) => [Some(&mut greeting.text), None],
        Event::Command(command) => [command.argument.as_mut(), command.reply.as_mut()],
        Event::Data(data) => [data.go_ahead_text.as_mut(), data.reply.as_mut()],
        Event::Transaction(transaction) => [transaction.sender.as_mut(), None],
        _ => [None, None],
    };
    texts.into_iter().flatten()
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT
        && let Some((end, _)) = text.char_indices().nth(MAX_TEXT)
    {
        text.truncate(end);
        text.push('…');
        text.shrink_to_fit();
    }
}

fn length(Exchange { command, reply }: &Exchange) -> usize {
    command.line.len() + reply.as_ref().map_or(0, |reply| reply.text.len())
}

/// Its reply repeats no name that was said before: nothing but the two is needed to show them.
fn names_nobody(Exchange { reply, .. }: &Exchange) -> bool {
    reply.as_ref().is_none_or(|reply| reply.repeated.names_nobody())
}

impl Retained {
    /// Keeps a fact, of which as much is shown as the policy allows.
    pub fn of(fact: &Fact<'_>, policy: RedactionPolicy) -> Self {
        match fact.what {
            What::Command(exchange) if length(exchange) <= MAX_SAID && names_nobody(exchange) => {
                Self(Arc::new(Kept::Command(Said::of(fact, exchange, policy))))
            }
            _ => Observation::of(fact, policy).into(),
        }
    }

    /// Bytes of memory that it takes, about.
    pub fn cost(&self) -> usize {
        let more = match &*self.0 {
            Kept::Shown(observation) => cost(&observation.event),
            Kept::Command(said) => said.bytes.len(),
        };
        size_of::<Kept>() + more
    }

    /// When it was.
    pub fn time(&self) -> Timestamp {
        match &*self.0 {
            Kept::Shown(observation) => observation.time,
            Kept::Command(said) => said.time,
        }
    }

    /// The connection that it is about.
    pub fn connection(&self) -> &Arc<Connection> {
        match &*self.0 {
            Kept::Shown(observation) => &observation.connection,
            Kept::Command(said) => &said.connection,
        }
    }

    /// The process that used the connection.
    pub fn process(&self) -> Option<&Caller> {
        match &*self.0 {
            Kept::Shown(observation) => observation.process.as_ref(),
            Kept::Command(said) => said.process.as_ref(),
        }
    }

    /// The conversation goes through a program that its client knows nothing of.
    pub fn is_intercepted(&self) -> bool {
        match &*self.0 {
            Kept::Shown(observation) => observation.intercepted,
            Kept::Command(said) => said.intercepted,
        }
    }

    /// A command, and the code that it was answered with; none where it is something else, or was never put in words.
    pub(super) fn command(&self) -> Option<(&str, Option<u16>)> {
        match &*self.0 {
            Kept::Shown(_) => None,
            Kept::Command(said) => Some((&said.verb, said.reply.as_ref().map(|reply| reply.code))),
        }
    }

    /// It in words.
    pub fn shown(&self) -> Cow<'_, Observation> {
        match &*self.0 {
            Kept::Shown(observation) => Cow::Borrowed(observation),
            Kept::Command(said) => Cow::Owned(said.shown()),
        }
    }
}

impl Serialize for Retained {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.shown().serialize(serializer)
    }
}

impl Said {
    fn of(fact: &Fact<'_>, exchange: &Exchange, policy: RedactionPolicy) -> Self {
        let Exchange { command, reply } = exchange;
        let text = reply.as_ref().map_or(&[][..], |reply| &reply.text);
        Self {
            time: fact.time,
            connection: Arc::clone(fact.connection),
            process: fact.process.cloned(),
            intercepted: fact.intercepted,
            policy,
            verb: redact::verb(command),
            bytes: [&command.line, text].concat().into(),
            text: command.line.len(),
            length: command.length,
            pipelined: command.pipelined,
            reply: reply.as_ref().map(|reply| Answer {
                code: reply.code,
                enhanced_code: reply.enhanced_code,
                withheld: reply.withheld,
                latency: exchange.latency().unwrap_or_default(),
            }),
        }
    }

    /// The command, as if it had been sent at the time zero.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.bytes[..self.text], Time::default(), Time::default());
        (command.length, command.pipelined) = (self.length, self.pipelined);
        command
    }

    fn shown(&self) -> Observation {
        let reply = self.reply.as_ref().map(|answer| {
            let heard = Time(answer.latency.as_nanos() as u64);
            Box::new(Reply {
                code: answer.code,
                enhanced_code: answer.enhanced_code,
                text: self.bytes[self.text..].to_vec(),
                withheld: answer.withheld,
                repeated: Repeated::default(),
                span: 0..0,
                first_byte: heard,
                last_byte: heard,
            })
        });
        let exchange = Exchange { command: Box::new(self.command()), reply };
        let fact = Fact {
            time: self.time,
            connection: &self.connection,
            process: self.process.as_ref(),
            intercepted: self.intercepted,
            what: What::Command(&exchange),
        };
        Observation::of(&fact, self.policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::samples as facts;
    use crate::redact::Addresses;
    use crate::sink::samples::Sample;

    #[test]
    fn what_is_long_is_cut_behind_its_redaction() {
        let sample = Sample::client();
        let policy = RedactionPolicy::new(Addresses::Domain);
        // At every place of a cut.
        for before in MAX_TEXT - 20..MAX_TEXT {
            let text = format!("{} <bobmarker@client.example> {}", "a".repeat(before), "\u{1b}".repeat(4000));
            let kept = Retained::of(&sample.fact(facts::command("EHLO x", 250, &text)), policy);
            let json = serde_json::to_string(&kept).expect("JSON");
            assert!(!json.contains("bob"), "{json}");
            assert!(json.contains('…') && json.len() < MAX_TEXT + 1000, "{json}");
            assert!(kept.cost() < size_of::<Kept>() + 2 * MAX_SAID, "{}", kept.cost());
        }
    }

    #[test]
    fn a_command_is_shown_as_it_would_have_been_at_once() {
        let sample = Sample::client();
        for addresses in [Addresses::Full, Addresses::Domain, Addresses::None] {
            let policy = RedactionPolicy::new(addresses);
            for what in [
                facts::command("MAIL FROM:<bob@client.example> SIZE=5", 250, "2.1.0 <bob@client.example>... ok"),
                facts::command("VRFY bob", 252, "2.5.2 bob"),
                facts::command("xfoo bar", 500, "what\nis that"),
                facts::command("GET / HTTP/1.1", 500, ""),
                facts::unanswered("quit"),
            ] {
                let fact = sample.fact(what);
                let shown = Observation::of(&fact, policy);
                let kept = Retained::of(&fact, policy);
                let json = |observation: &Observation| serde_json::to_string(observation).expect("JSON");
                assert_eq!(json(&kept.shown()), json(&shown));
                assert_eq!(serde_json::to_string(&kept).expect("JSON"), json(&shown));
            }
        }
    }
}
