//! One reply is late, or never comes: nothing that is told as certain is false.
//!
//! What is true comes from a plain model: a server as RFC 5321 has it, a client that sends one command after the other, and
//! the list of who answered what.

use super::Analysis;
use crate::choices::Choices;
use crate::event::Time;
use crate::event::crossing::Filter;
use crate::fact::What;
use crate::identity::Caller;
use crate::names::{AnomalyKind, NoopReason, RsetReason};
use crate::smtp::{DecoderOutput, Exchange, Peer, Session};

/// What the client does next. `bool`: the server would accept it, were it in its place.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Noop,
    Unknown,
    Rset,
    Mail(bool),
    Rcpt(bool),
    /// With content, which is accepted or not, if DATA is.
    Data(bool, bool),
    Quit,
}

/// What has become of the session, as the server has it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Start,
    Idle,
    SenderRefused,
    Envelope {
        accepted: u32,
        rejected: u32,
        refused_last: bool,
        /// A second MAIL was refused, and no recipient was named behind it.
        mail_refused: bool,
    },
    DataRefused,
    MessageAccepted,
    MessageRefused,
    /// The server has not said what has become of a command that matters.
    Unknown,
}

/// A reply that is not there in time.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Never,
    /// So many further commands are sent before it.
    Late(usize),
}

/// A command, or the end of content, that the server replies to.
#[derive(Debug)]
struct Asked {
    op: Op,
    line: String,
    /// What was sent before this one's reply counts as pipelined, and is in the state before it.
    before: State,
    code: u16,
    /// The end of content: told with the message, not as a command.
    is_content: bool,
    answered: bool,
    /// It was sent before the reply to the one before it.
    early: bool,
}

/// The dialogue's course: who says what when, and what is true of it.
#[derive(Debug, Default)]
struct Course {
    said: Vec<(Time, Peer, String)>,
    asked: Vec<Asked>,
    time: u64,
    codes: bool,
    /// The end of content earns a reply for each recipient.
    lmtp: bool,
    /// Replies that are due, oldest first.
    owed: Vec<usize>,
    /// More commands are sent before the server goes on.
    late: usize,
}

impl Course {
    fn say(&mut self, peer: Peer, text: String) {
        self.time += 10_000_000;
        self.said.push((Time(self.time), peer, text));
    }

    fn reply(&mut self, place: usize) {
        let Asked { op, code, is_content, .. } = self.asked[place];
        let enhanced = match (self.codes, code / 100, op) {
            (false, ..) | (_, 3, _) => "",
            (_, 2, Op::Mail(_)) => "2.1.0 ",
            (_, 2, Op::Rcpt(_)) => "2.1.5 ",
            (_, 2, _) => "2.0.0 ",
            _ => "5.1.1 ",
        };
        let kind = if is_content { "content" } else { "command" };
        self.asked[place].answered = true;
        self.say(Peer::Server, format!("{code} {enhanced}{kind} {place}\r\n"));
    }

    /// The client sends something, and the server replies to it; or not.
    fn ask(&mut self, op: Op, line: String, before: State, code: u16, is_content: bool, fault: Option<Fault>) {
        let early = !self.owed.is_empty();
        self.say(Peer::Client, line.clone());
        self.asked.push(Asked { op, line, before, code, is_content, answered: false, early });
        let place = self.asked.len() - 1;
        match fault {
            Some(Fault::Never) => return,
            Some(Fault::Late(commands)) if self.late == 0 => self.late = commands + 1,
            _ => {}
        }
        let replies = match before {
            State::Envelope { accepted, .. } if is_content && self.lmtp => accepted,
            _ => 1,
        };
        self.owed.extend(std::iter::repeat_n(place, replies as usize));
        self.late = self.late.saturating_sub(1);
        // A client waits for 354 before it sends content, and for 221 before it leaves.
        if self.late == 0 || matches!(op, Op::Data(..) | Op::Quit) {
            self.late = 0;
            for place in std::mem::take(&mut self.owed) {
                self.reply(place);
            }
        }
    }
}

/// The course of a dialogue of which one reply, the one to this operation, is not there in time.
fn course(ops: &[Op], fault: Option<(usize, Fault)>, patience: u64, [codes, pipelining, lmtp]: [bool; 3]) -> Course {
    let mut course = Course { codes, lmtp, time: 1_000_000_000, ..Course::default() };
    course.say(Peer::Server, "220 mx.example\r\n".into());
    course.say(Peer::Client, format!("{} client.example\r\n", if lmtp { "LHLO" } else { "EHLO" }));
    let offered = if pipelining { "250-mx.example\r\n250 PIPELINING\r\n" } else { "250 mx.example\r\n" };
    course.say(Peer::Server, offered.into());
    let mut state = State::Start;
    for (place, op) in ops.iter().enumerate() {
        let fault = fault.and_then(|(at, fault)| (at == place).then_some(fault));
        let (line, code, next) = serve(state, *op);
        let has_content = code == 354;
        // The reply that fails is the one to the content, where there is some.
        course.ask(*op, line, state, code, false, fault.filter(|_| !has_content));
        if has_content {
            let code = if next == State::MessageAccepted { 250 } else { 554 };
            course.ask(*op, "Subject: x\r\n\r\ntext\r\n.\r\n".into(), state, code, true, fault);
        }
        state = next;
        let is_neutral = matches!(op, Op::Noop | Op::Unknown) || *op == Op::Rset && state == State::Start;
        if matches!(fault, Some(Fault::Never)) {
            if !is_neutral {
                state = State::Unknown;
            }
            // No client goes on behind DATA before it has given up.
            course.time += if matches!(op, Op::Data(..)) { patience.max(121_000_000_000) } else { patience };
        }
    }
    for place in std::mem::take(&mut course.owed) {
        course.reply(place);
    }
    course
}

/// What a server says (RFC 5321, 4.1.4 and 4.3.2), and what becomes of the session.
fn serve(state: State, op: Op) -> (String, u16, State) {
    let in_transaction = matches!(state, State::Envelope { .. } | State::DataRefused | State::Unknown);
    let (line, code, next) = match (op, state) {
        (Op::Noop, _) => ("NOOP", 250, state),
        (Op::Unknown, _) => ("", 500, state),
        (Op::Quit, _) => ("QUIT", 221, state),
        (Op::Rset, State::Start) => ("RSET", 250, state),
        (Op::Rset, _) => ("RSET", 250, State::Idle),
        (Op::Mail(_), State::Envelope { accepted, rejected, refused_last, .. }) => {
            let next = State::Envelope { accepted, rejected, refused_last, mail_refused: true };
            ("MAIL FROM:<a@x.example>", 503, next)
        }
        (Op::Mail(_), _) if in_transaction => ("MAIL FROM:<a@x.example>", 503, state),
        (Op::Mail(true), _) => {
            let next = State::Envelope { accepted: 0, rejected: 0, refused_last: false, mail_refused: false };
            ("MAIL FROM:<a@x.example>", 250, next)
        }
        (Op::Mail(false), _) => ("MAIL FROM:<a@x.example>", 550, State::SenderRefused),
        (Op::Rcpt(true), State::Envelope { accepted, rejected, .. }) => {
            let next = State::Envelope { accepted: accepted + 1, rejected, refused_last: false, mail_refused: false };
            ("RCPT TO:<b@y.example>", 250, next)
        }
        (Op::Rcpt(false), State::Envelope { accepted, rejected, .. }) => {
            let rejected = rejected + 1;
            let next = State::Envelope { accepted, rejected, refused_last: true, mail_refused: false };
            ("RCPT TO:<b@y.example>", 550, next)
        }
        (Op::Rcpt(_), _) => ("RCPT TO:<b@y.example>", 503, state),
        (Op::Data(true, taken), State::Envelope { accepted: 1.., .. }) => {
            ("DATA", 354, if taken { State::MessageAccepted } else { State::MessageRefused })
        }
        (Op::Data(false, _), State::Envelope { accepted: 1.., .. }) => ("DATA", 451, State::DataRefused),
        (Op::Data(..), State::Envelope { rejected: 0, .. }) => ("DATA", 503, State::DataRefused),
        (Op::Data(..), _) => ("DATA", 503, state),
    };
    (format!("{line}\r\n"), code, next)
}

impl State {
    /// A reason that is claimed of an RSET is true.
    fn allows(self, reason: RsetReason, early: bool) -> bool {
        use RsetReason::*;
        let in_envelope = matches!(self, Self::Envelope { .. });
        let is_over = matches!(self, Self::Idle | Self::MessageAccepted | Self::MessageRefused);
        match reason {
            Ambiguous => true,
            _ if self == Self::Unknown => false,
            SenderRejected => {
                let is_nested = matches!(self, Self::Envelope { rejected: 0, mail_refused: true, .. });
                (self == Self::SenderRefused || is_nested) && !early
            }
            RecipientsRejected => matches!(self, Self::Envelope { accepted: 0, rejected: 1.., .. }) && !early,
            RecipientRejected => matches!(self, Self::Envelope { accepted: 1.., refused_last: true, .. }) && !early,
            DataRejected => self == Self::DataRefused && !early,
            MessageRejected => self == Self::MessageRefused && !early,
            BetweenMessages | PipelinedBetweenMessages => is_over,
            ReuseProbe | BeforeQuit => is_over || self == Self::Start,
            SessionStart => self == Self::Start,
            ClientAbort | InterceptorReplay => in_envelope,
            // Who does not wait for the replies never meant to send.
            AddressProbe => in_envelope || early,
            _ => false,
        }
    }

    /// The same of a NOOP.
    fn allows_noop(self, reason: NoopReason) -> bool {
        let in_transaction = matches!(self, Self::Envelope { .. } | Self::DataRefused);
        match reason {
            NoopReason::LeaseCheck | NoopReason::IdleKeepalive => !in_transaction && self != Self::Unknown,
            NoopReason::ReachabilityTest => self == Self::Start,
            NoopReason::InterceptorKeepalive | NoopReason::Relayed => false,
            _ => true,
        }
    }
}

/// What is told of a course, held against what is true of it.
fn check_course(course: &Course, filtered: bool) {
    let (mut session, mut analysis, mut filter) = (Session::new(), Analysis::default(), Filter::new());
    let mut items = DecoderOutput::default();
    let (mut replies, mut rsets, mut noops, mut early) = (Vec::new(), Vec::new(), Vec::new(), false);
    let told = &mut |time, _: Option<&Caller>, what: What<'_>| match what {
        What::Command(Exchange { command, reply }) => {
            let line = [&command.line[..], b"\r\n"].concat();
            replies.push((line, reply.as_ref().map(|reply| (time, reply.code, reply.text.clone()))));
        }
        What::Data(message) => {
            replies.push((
                b"content".to_vec(),
                message.reply.as_ref().map(|reply| (time, reply.code, reply.text.clone())),
            ));
        }
        What::Rset(rset) => rsets.push((time, rset.reason)),
        What::Noop(noop) => noops.push((time, noop.reason)),
        What::Anomaly { kind: AnomalyKind::PipeliningNotOffered, .. } => early = true,
        _ => {}
    };
    for (time, peer, text) in &course.said {
        session.begin_call(*peer);
        if filtered {
            for (_, said) in filter.call(*peer, *time, text.as_bytes()) {
                said.segments().for_each(|segment| session.segment(*peer, *time, None, segment, &mut items));
            }
        } else {
            session.receive(*peer, *time, text.as_bytes(), &mut items);
        }
        items.iter().for_each(|item| analysis.item(None, None, item, told));
        items.clear();
    }
    let end = Time(course.time + 1_000_000);
    session.finish(end, &mut items);
    items.iter().for_each(|item| analysis.item(None, None, item, told));
    analysis.finish(Some(end), end, None, told);

    // Each reply that was told is the one that was given to that command: its text has the command's number.
    for (line, reply) in &replies {
        let Some((_, code, text)) = reply else { continue };
        let text = String::from_utf8_lossy(text);
        let Some(place) = text.rsplit(' ').next().and_then(|place| place.parse::<usize>().ok()) else { continue };
        let asked = &course.asked[place];
        assert_eq!(asked.code, *code);
        if asked.is_content {
            assert_eq!(&line[..], b"content", "{}", text);
        } else if !filtered || *asked.line != *"\r\n" && asked.op != Op::Unknown {
            assert_eq!(&*String::from_utf8_lossy(line), &asked.line, "{}", text);
        }
    }
    // A reason has its command's time: that of the reply, which was the server's word at that time.
    let asked_at = |time: Time| {
        let text = course.said.iter().find(|(said, ..)| *said == time).map(|(.., text)| text.trim_end())?;
        text.rsplit(' ').next()?.parse::<usize>().ok().map(|place| &course.asked[place])
    };
    for (time, reason) in rsets {
        let asked = asked_at(time);
        let is_true = asked.is_some_and(|asked| asked.op == Op::Rset && asked.before.allows(reason, asked.early));
        assert!(is_true, "RSET {:?} of {:?}", reason, asked);
    }
    for (time, reason) in noops {
        let asked = asked_at(time);
        let is_true = asked.is_some_and(|asked| asked.op == Op::Noop && asked.before.allows_noop(reason));
        assert!(is_true, "NOOP {:?} of {:?}", reason, asked);
    }
    assert!(!early || course.asked.iter().any(|asked| asked.early), "pipelined in vain");
    // What nobody disturbed is told in full.
    let is_whole = !filtered && course.asked.iter().all(|asked| asked.answered && !asked.early);
    let told = replies.iter().filter(|(_, reply)| reply.is_some()).count();
    assert!(!is_whole || told == course.asked.len() + 1, "{} of {}", told, course.asked.len() + 1);
}

/// How likely each operation is; the truth values are chosen by themselves.
const OPS: [fn(&mut Choices<'_>) -> Op; 20] = {
    const NOOP: fn(&mut Choices<'_>) -> Op = |_| Op::Noop;
    const RSET: fn(&mut Choices<'_>) -> Op = |_| Op::Rset;
    const MAIL: fn(&mut Choices<'_>) -> Op = |choices| Op::Mail(choices.tenths(8));
    const RCPT: fn(&mut Choices<'_>) -> Op = |choices| Op::Rcpt(choices.tenths(7));
    const DATA: fn(&mut Choices<'_>) -> Op = |choices| Op::Data(choices.tenths(8), choices.tenths(8));
    [
        MAIL,
        RCPT,
        DATA,
        RSET,
        NOOP,
        MAIL,
        RCPT,
        DATA,
        RSET,
        NOOP,
        MAIL,
        RCPT,
        DATA,
        RSET,
        RCPT,
        MAIL,
        RCPT,
        MAIL,
        RCPT,
        |_| Op::Unknown,
    ]
};

/// A session with at most one reply that is late or never comes, and what is told of it: nothing certain is false.
pub fn check(bytes: &[u8]) {
    let choices = &mut Choices(bytes);
    let (codes, pipelining, filtered, leaves) =
        (choices.tenths(5), choices.tenths(5), choices.tenths(5), choices.tenths(5));
    let lmtp = choices.tenths(3);
    let patience = choices.of(&[0, 2_000_000_000, 700_000_000_000]);
    let fault = match choices.below(8) {
        0 => None,
        1..=3 => Some(Fault::Never),
        late => Some(Fault::Late(late - 3)),
    };
    let place = choices.below(256);
    let mut ops = Vec::new();
    while choices.has_more() && ops.len() < MAX_OPS {
        ops.push(choices.of(&OPS)(choices));
    }
    if leaves || ops.is_empty() {
        ops.push(Op::Quit);
    }
    let fault = fault.map(|fault| (place % ops.len(), fault));
    let course = course(&ops, fault, patience, [codes, pipelining, lmtp]);
    // Behind DATA that was refused, the kernel is not certain what lines are, and withholds some: that is a second fault.
    let is_refused = |asked: &Asked| matches!(asked.op, Op::Data(..)) && !asked.is_content && asked.code != 354;
    check_course(&course, filtered && !course.asked.iter().any(is_refused));
}

/// Most operations of a session: more than what is undecided for long.
const MAX_OPS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_certain_is_false(bytes in vec(any::<u8>(), 8..60)) {
            super::check(&bytes);
        }
    }
}
