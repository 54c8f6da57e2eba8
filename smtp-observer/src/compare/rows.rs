//! Two conversations side by side.

use std::time::Duration;

use crate::observation::Timestamp;
use crate::proxy::comparison::{self, Alignment, Sides};
use crate::proxy::dialogue::{Dialogue, Said, Step};

/// What was said at one moment, at one end or at both.
#[derive(Debug)]
pub struct Row<'a> {
    /// Whether both ends saw the same.
    pub mark: Mark,
    /// At the client's end.
    pub client: Option<Turn<'a>>,
    /// At the server's end.
    pub server: Option<Turn<'a>>,
    /// How long after the client had sent it the server got it.
    pub delay: Option<Duration>,
}

/// How the two ends of a row differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// They do not.
    Same,
    /// They do.
    Changed,
    /// The client said it, and it did not arrive.
    ClientOnly,
    /// It arrived, and the client had not said it.
    ServerOnly,
    /// It was seen at one end; of the other end that moment was not seen.
    Unknown,
}

/// A command with its reply, or the greeting.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// When the command was sent or had arrived, or the greeting was given or heard.
    pub time: Timestamp,
    /// The command; absent for the greeting.
    pub step: Option<&'a Step>,
    /// Its argument, as far as it is shown.
    pub argument: Option<&'a str>,
    /// The reply, or the greeting.
    pub reply: Option<&'a Said>,
}

/// The rows, in the order of time. Both dialogues are by one clock; the arguments are of their steps.
pub fn rows<'a>(sides: &Sides<'a>, inner: &'a [Option<Box<str>>], outer: &'a [Option<Box<str>>]) -> Vec<Row<'a>> {
    let Alignment { carried, origin } = Alignment::of(sides);
    let sent = turns(sides.inner, inner, sides.of.start(), sides.of.end());
    let got = turns(sides.outer, outer, sides.part.start(), sides.part.end());
    let mut rows = Vec::from_iter(greeting(sides));
    let (mut sent, mut got) = (sent.peekable(), got.peekable());
    loop {
        let step = sent.peek().map(|(place, turn)| (carried.get(*place).copied().flatten(), turn.time));
        let other = got.peek().map(|(place, turn)| (origin.get(*place).copied().flatten(), turn.time));
        let (takes_sent, takes_got) = match (step, other) {
            (None, None) => return rows,
            (Some((Some(_), _)), Some((Some(_), _))) => (true, true),
            // What waits for its counterpart waits for all that is before that.
            (Some((Some(_), _)), Some((None, _))) | (None, Some(_)) => (false, true),
            (Some((None, _)), Some((Some(_), _))) | (Some(_), None) => (true, false),
            (Some((None, sent)), Some((None, got))) => (sent <= got, sent > got),
        };
        let client = if takes_sent { sent.next().map(|(_, turn)| turn) } else { None };
        let server = if takes_got { got.next().map(|(_, turn)| turn) } else { None };
        rows.push(Row::new(sides, client, server));
    }
}

/// The steps of a part, with their places.
fn turns<'a>(
    dialogue: &'a Dialogue,
    arguments: &'a [Option<Box<str>>],
    from: &'a Timestamp,
    until: &'a Timestamp,
) -> impl Iterator<Item = (usize, Turn<'a>)> {
    let part = from..=until;
    let steps = dialogue.steps.iter().enumerate().filter(move |(_, step)| part.contains(&&step.sent));
    steps.map(|(place, step)| {
        let argument = arguments.get(place).and_then(Option::as_deref);
        (place, Turn { time: step.sent, step: Some(step), argument, reply: step.reply.as_ref() })
    })
}

/// The greetings, of conversations whose beginnings belong together.
fn greeting<'a>(sides: &Sides<'a>) -> Option<Row<'a>> {
    let turn = |said: &'a Said| Turn { time: said.time, step: None, argument: None, reply: Some(said) };
    let client = sides.inner.greeting.as_ref().filter(|said| sides.of.contains(&said.time)).map(turn);
    let server = sides.outer.greeting.as_ref().filter(|said| sides.part.contains(&said.time)).map(turn);
    let mark = match (client?.reply, server.and_then(|turn| turn.reply)) {
        (Some(heard), Some(said)) if heard.says_what(said) => Mark::Same,
        (_, Some(_)) => Mark::Changed,
        (_, None) => Mark::Unknown,
    };
    Some(Row { mark, client, server, delay: None })
}

impl<'a> Row<'a> {
    fn new(sides: &Sides<'_>, client: Option<Turn<'a>>, server: Option<Turn<'a>>) -> Self {
        let mark = match (client, server) {
            (Some(sent), Some(got)) if sent.is(&got) => Mark::Same,
            (Some(_), Some(_)) => Mark::Changed,
            (Some(sent), None) if sides.outer.saw(sent.time) => Mark::ClientOnly,
            (None, Some(got)) if sides.inner.saw(got.time) => Mark::ServerOnly,
            _ => Mark::Unknown,
        };
        let delay = client.zip(server).map(|(sent, got)| got.time.since(sent.time));
        Self { mark, client, server, delay }
    }
}

impl Turn<'_> {
    /// Nothing of it was changed on the way.
    fn is(&self, other: &Turn<'_>) -> bool {
        let verb = |turn: &Turn<'_>| turn.step.map(|step| step.verb.clone());
        let replies = match (self.reply, other.reply) {
            (Some(heard), Some(said)) => heard.says_what(said),
            (heard, said) => heard.is_some() == said.is_some(),
        };
        let passed = |(step, carrier)| comparison::between(step, carrier).is_empty();
        let same = verb(self) == verb(other) && self.argument == other.argument && replies;
        same && self.step.zip(other.step).is_none_or(passed)
    }
}

impl Dialogue {
    /// Its beginning and its end are not in doubt at this moment: what was said then is here.
    fn saw(&self, time: Timestamp) -> bool {
        let begins = self.greeting.is_some() || self.steps.front().is_some_and(|first| first.sent <= time);
        begins && self.unread_since().is_none_or(|started| time < started) && self.knows(time, Timestamp(i64::MIN))
    }
}
