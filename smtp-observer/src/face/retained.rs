//! What is kept of facts until somebody looks.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::event::Time;
use crate::fact::{Fact, What};
use crate::observation::{Caller, Connection, Observation, Timestamp};
use crate::redact::RedactionPolicy;
use crate::smtp::{Command, EnhancedCode, Exchange, Reply};

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
    fn from(observation: Observation) -> Self {
        Self(Arc::new(Kept::Shown(observation)))
    }
}

impl Retained {
    /// Keeps a fact, of which as much is shown as the policy allows.
    pub fn of(fact: &Fact<'_>, policy: RedactionPolicy) -> Self {
        match fact.what {
            What::Command(exchange) => Self(Arc::new(Kept::Command(Said::of(fact, exchange, policy)))),
            _ => Observation::of(fact, policy).into(),
        }
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
    pub(super) fn command(&self) -> Option<(Cow<'static, str>, Option<u16>)> {
        match &*self.0 {
            Kept::Shown(_) => None,
            Kept::Command(said) => {
                let verb = crate::redact::verb(&said.command());
                Some((verb, said.reply.as_ref().map(|reply| reply.code)))
            }
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
    use crate::face::samples::Sample;
    use crate::fact::samples as facts;
    use crate::redact::Addresses;

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
