//! What is kept of facts until somebody looks.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::event::Time;
use crate::fact::{Fact, What};
use crate::observation::{
    Caller, Connection, Data, Event, Evidence, Interception, Observation, Outcome, Timestamp, Transaction,
};
use crate::redact::{self, Addresses, RedactionPolicy};
use crate::smtp::{Command, EnhancedCode, Exchange, Repeated, Reply};

/// Bytes of a command and its reply that are kept as they were said. What is longer is cut, and cut only when it is redacted: half
/// a mailbox is not known for one.
const MAX_SAID: usize = 512;

/// Characters that are kept of a text.
const MAX_TEXT: usize = 256;

/// A fact that is kept. Nearly all are of mails, and few of these are ever looked at: they are kept as they were said, and redacted
/// and put in words for who looks.
#[derive(Clone, Debug)]
pub struct Retained(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    time: Timestamp,
    connection: Arc<Connection>,
    process: Option<Caller>,
    intercepted: bool,
    event: KeptEvent,
}

#[derive(Debug)]
enum KeptEvent {
    Shown(Event),
    Command(Said),
    Data(Box<Data>, Texts),
    Transaction(Transaction, Texts),
}

/// A command and its reply.
#[derive(Debug)]
struct Said {
    texts: Texts,
    /// The verb as it is shown.
    verb: Cow<'static, str>,
    /// Bytes of the whole line.
    length: u64,
    pipelined: bool,
    reply: Option<Answer>,
}

/// Two texts as they were said, and how much of them is shown: a command's line and its reply's text, a go-ahead's and the final
/// reply's, or a mailbox and nothing.
#[derive(Debug)]
struct Texts {
    addresses: Addresses,
    bytes: Box<[u8]>,
    /// Where the second one begins.
    second: usize,
}

#[derive(Debug)]
struct Answer {
    code: u16,
    enhanced_code: Option<EnhancedCode>,
    withheld: bool,
    latency: Duration,
}

/// What is told of a connection by something that is kept.
pub(super) enum Gist<'a> {
    /// A command, and the code that it was answered with.
    Command(&'a str, Option<u16>),
    /// A message was handed over.
    Data,
    /// A transaction ended.
    Transaction(Outcome),
    /// Anything else.
    Other(&'a Event),
}

impl From<Observation> for Retained {
    fn from(mut observation: Observation) -> Self {
        texts_mut(&mut observation.event).for_each(cut);
        let Observation { time, event, connection, process, intercepted } = observation;
        Self(Arc::new(Kept { time, connection, process, intercepted, event: KeptEvent::Shown(event) }))
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

impl KeptEvent {
    fn of(what: What<'_>, addresses: Addresses) -> Option<Self> {
        match what {
            What::Command(exchange @ Exchange { command, reply }) => {
                let texts = Texts::of(addresses, &command.line, reply.as_deref())?;
                Some(Self::Command(Said::of(exchange, texts)))
            }
            What::Data(message) => {
                let (go_ahead, reply) = (message.go_ahead.as_ref(), message.reply.as_deref());
                let data = Data::without_texts(message);
                // It is known by its latency that there was a go-ahead, and by its code that there was a reply.
                let is_plain = data.go_ahead.is_some() == go_ahead.is_some()
                    && go_ahead.is_none_or(|go_ahead| go_ahead.repeated.names_nobody())
                    && reply.is_none_or(|reply| !reply.withheld);
                let text = go_ahead.map_or(&[][..], |go_ahead| &go_ahead.text);
                let texts = Texts::of(addresses, text, reply).filter(|_| is_plain)?;
                Some(Self::Data(data.into(), texts))
            }
            What::Transaction(ended) => {
                let texts = Texts::of(addresses, ended.sender?, None)?;
                Some(Self::Transaction(Transaction::without_sender(&ended), texts))
            }
            _ => None,
        }
    }
}

impl Texts {
    /// One that is followed by a reply's, if they can be kept like that.
    fn of(addresses: Addresses, first: &[u8], reply: Option<&Reply>) -> Option<Self> {
        let second = reply.map_or(&[][..], |reply| &reply.text);
        let fits = first.len() + second.len() <= MAX_SAID && reply.is_none_or(|reply| reply.repeated.names_nobody());
        fits.then(|| Self { addresses, bytes: [first, second].concat().into(), second: first.len() })
    }

    fn first(&self) -> &[u8] {
        &self.bytes[..self.second]
    }

    fn second(&self) -> &[u8] {
        &self.bytes[self.second..]
    }

    fn policy(&self) -> RedactionPolicy {
        RedactionPolicy::new(self.addresses)
    }

    /// A server's text that repeats nothing.
    fn shown(&self, text: &[u8]) -> String {
        self.policy().repeating(text, &Repeated::default())
    }
}

impl Retained {
    /// Keeps a fact, of which as much is shown as `addresses` allows.
    pub fn of(fact: &Fact<'_>, addresses: Addresses) -> Self {
        match KeptEvent::of(fact.what, addresses) {
            Some(event) => Self(Arc::new(Kept {
                time: fact.time,
                connection: Arc::clone(fact.connection),
                process: fact.process.cloned(),
                intercepted: fact.intercepted,
                event,
            })),
            None => Observation::of(fact, RedactionPolicy::new(addresses)).into(),
        }
    }

    /// Bytes of memory that it takes, about.
    pub fn cost(&self) -> usize {
        let more = match &self.0.event {
            KeptEvent::Shown(event) => cost(event),
            KeptEvent::Data(data, texts) => size_of_val(&**data) + texts.bytes.len(),
            KeptEvent::Command(Said { texts, .. }) | KeptEvent::Transaction(_, texts) => texts.bytes.len(),
        };
        size_of::<Kept>() + more
    }

    /// When it was.
    pub fn time(&self) -> Timestamp {
        self.0.time
    }

    /// The connection that it is about.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.0.connection
    }

    /// The process that used the connection.
    pub fn process(&self) -> Option<&Caller> {
        self.0.process.as_ref()
    }

    /// The conversation goes through a program that its client knows nothing of.
    pub fn is_intercepted(&self) -> bool {
        self.0.intercepted
    }

    /// What it tells, without its texts.
    pub(super) fn gist(&self) -> Gist<'_> {
        match &self.0.event {
            KeptEvent::Command(said) => Gist::Command(&said.verb, said.reply.as_ref().map(|reply| reply.code)),
            KeptEvent::Shown(Event::Command(command)) => Gist::Command(&command.verb, command.code),
            KeptEvent::Data(..) | KeptEvent::Shown(Event::Data(_)) => Gist::Data,
            KeptEvent::Transaction(ended, _) | KeptEvent::Shown(Event::Transaction(ended)) => {
                Gist::Transaction(ended.outcome)
            }
            KeptEvent::Shown(event) => Gist::Other(event),
        }
    }

    /// It in words.
    pub fn shown(&self) -> Observation {
        let event = match &self.0.event {
            KeptEvent::Shown(event) => event.clone(),
            KeptEvent::Command(said) => said.shown(),
            KeptEvent::Data(data, texts) => Event::Data((**data).clone().with_texts(
                Some(texts.first()).filter(|text| !text.is_empty()).map(|text| texts.shown(text)),
                data.code.map(|_| texts.shown(texts.second())),
            )),
            KeptEvent::Transaction(ended, texts) => Event::Transaction(Transaction {
                sender: Some(texts.policy().reverse_path(texts.first())),
                ..ended.clone()
            }),
        };
        let Kept { time, connection, process, intercepted, .. } = &*self.0;
        let (connection, process) = (Arc::clone(connection), process.clone());
        Observation { time: *time, event, connection, process, intercepted: *intercepted }
    }
}

impl Said {
    fn of(exchange: &Exchange, texts: Texts) -> Self {
        let Exchange { command, reply } = exchange;
        Self {
            texts,
            verb: redact::verb(command),
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
        let mut command = Command::new(self.texts.first(), Time::default(), Time::default());
        (command.length, command.pipelined) = (self.length, self.pipelined);
        command
    }

    fn shown(&self) -> Event {
        let reply = self.reply.as_ref().map(|answer| {
            let heard = Time(answer.latency.as_nanos() as u64);
            Box::new(Reply {
                code: answer.code,
                enhanced_code: answer.enhanced_code,
                text: self.texts.second().to_vec(),
                withheld: answer.withheld,
                repeated: Repeated::default(),
                span: 0..0,
                first_byte: heard,
                last_byte: heard,
            })
        });
        let exchange = Exchange { command: Box::new(self.command()), reply };
        Event::of(What::Command(&exchange), self.texts.policy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::samples as facts;
    use crate::sink::samples::Sample;

    #[test]
    fn what_is_long_is_cut_behind_its_redaction() {
        let sample = Sample::client();
        // At every place of a cut.
        for before in MAX_TEXT - 20..MAX_TEXT {
            let text = format!("{} <bobmarker@client.example> {}", "a".repeat(before), "\u{1b}".repeat(4000));
            let kept = Retained::of(&sample.fact(facts::command("EHLO x", 250, &text)), Addresses::Domain);
            let json = serde_json::to_string(&kept.shown()).expect("JSON");
            assert!(!json.contains("bob"), "{json}");
            assert!(json.contains('…') && json.len() < MAX_TEXT + 1000, "{json}");
            assert!(kept.cost() < size_of::<Kept>() + 2 * MAX_SAID, "{}", kept.cost());
        }
    }

    #[test]
    fn a_go_ahead_whose_text_is_not_known_has_none() {
        let What::Data(message) = facts::message(5, 250, "taken", Duration::from_millis(2)) else { panic!() };
        let message = Box::leak(Box::new(message.clone()));
        message.go_ahead.as_mut().expect("one").text.clear();
        let sample = Sample::client();
        let fact = sample.fact(What::Data(message));
        let at_once = Observation::of(&fact, RedactionPolicy::new(Addresses::Full));
        for shown in [Retained::of(&fact, Addresses::Full).shown(), at_once] {
            let json = serde_json::to_value(&shown).expect("JSON");
            assert_eq!((json.get("go_ahead"), &json["go_ahead_seconds"]), (None, &0.25.into()));
        }
    }

    #[test]
    fn what_is_kept_is_shown_as_it_would_have_been_at_once() {
        let sample = Sample::client();
        for addresses in [Addresses::Full, Addresses::Domain, Addresses::None] {
            let policy = RedactionPolicy::new(addresses);
            for what in [
                facts::command("MAIL FROM:<bob@client.example> SIZE=5", 250, "2.1.0 <bob@client.example>... ok"),
                facts::command("VRFY bob", 252, "2.5.2 bob"),
                facts::command("xfoo bar", 500, "what\nis that"),
                facts::command("GET / HTTP/1.1", 500, ""),
                facts::unanswered("quit"),
                facts::message(5, 250, "2.0.0 <bob@client.example> has it", Duration::from_millis(2)),
                facts::transaction(Outcome::Delivered),
                facts::rset(crate::names::RsetReason::BetweenMessages),
            ] {
                let fact = sample.fact(what);
                let shown = Observation::of(&fact, policy);
                let kept = Retained::of(&fact, addresses);
                let json = |observation: &Observation| serde_json::to_string(observation).expect("JSON");
                assert_eq!(json(&kept.shown()), json(&shown));
            }
        }
    }
}
