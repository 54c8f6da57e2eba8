//! Observations in words: the one renderer of `trace`, the live table and the status page, each of which lays a [`Text`] out in its
//! own way.

mod tls;

use std::fmt;
use std::time::Duration;

use crate::observation::{
    Caller, ClosedBy, Command, Data, Event, EvidenceKind, Greeting, Interception, Outcome, Reasoned, Role, Transaction,
    Verdict,
};
use crate::sink::escape::cut;

/// Most characters of a text that a peer chose; all of it is in the JSON.
pub(crate) const MAX_LENGTH: usize = 400;

/// Most characters of a mailbox in a sentence.
const MAX_MAILBOX: usize = 40;

/// What is said of an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) kind: Kind,
    /// How `text` looks; a reply has its own emphasis.
    pub(crate) emphasis: Emphasis,
    /// A request, or a sentence. It is escaped.
    pub(crate) text: String,
    /// The reply to a request, or the one that a sentence ends with.
    pub(crate) reply: Option<ReplyText>,
    /// From the request to its reply.
    pub(crate) latency: Option<Duration>,
}

/// What a [`Text`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request and its reply, if there was one.
    Exchange,
    /// A sentence.
    Sentence,
    /// A sentence about a departure from the protocol.
    Anomaly,
    /// A sentence about a program in the middle.
    Verdict,
}

impl Kind {
    /// The mark before the sentence.
    pub(crate) fn mark(self) -> Option<char> {
        match self {
            Self::Exchange | Self::Sentence => None,
            Self::Anomaly => Some('!'),
            Self::Verdict => Some('*'),
        }
    }
}

/// How a text is set off from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Emphasis {
    /// Stands back: the life of a connection.
    Dim,
    /// As it is.
    Plain,
    /// All is well: 2yz, a message that was delivered.
    Good,
    /// Something goes on: 3yz, TLS, a proxy that its client asked for.
    Progress,
    /// It asks for a look: 4yz, why an RSET or a NOOP was sent, another owner.
    Notice,
    /// It was refused: 5yz.
    Warning,
    /// A departure from the protocol, or a program in the middle that its client knows nothing of.
    Alert,
}

impl Emphasis {
    /// That of a reply with this code (RFC 5321, 4.2.1).
    pub(crate) fn of_code(code: u16) -> Self {
        match code / 100 {
            2 => Self::Good,
            3 => Self::Progress,
            4 => Self::Notice,
            _ => Self::Warning,
        }
    }

    /// The severity, by its name in syslog (RFC 5424, 6.2.1).
    pub(crate) fn level(self) -> &'static str {
        match self {
            Self::Dim | Self::Plain | Self::Good | Self::Progress => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Alert => "alert",
        }
    }
}

/// A reply's code and its first line, with how many lines follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplyText {
    pub(crate) code: u16,
    first: String,
    more: usize,
}

impl ReplyText {
    fn new(code: u16, text: &str) -> Self {
        let mut lines = text.lines();
        Self { code, first: lines.next().unwrap_or_default().to_owned(), more: lines.count() }
    }

    /// As much of it as this many characters have room for, escaped.
    pub(crate) fn fit(&self, width: usize) -> String {
        let more = match self.more {
            0 => String::new(),
            more => format!(" (+{more} lines)"),
        };
        cut(&format!("{} {}", self.code, self.first), width.saturating_sub(more.len())) + &more
    }
}

impl Text {
    /// What is said of an event on a connection whose socket has this role. Some events have none: another event's text says it.
    pub(crate) fn of(event: &Event, role: Role) -> Option<Self> {
        Some(match event {
            Event::ConnectionOpened { requested } => {
                let opened = match role {
                    Role::Client => "connected",
                    Role::Server => "accepted",
                };
                let requested = requested.map(|requested| format!(", asked for {requested}")).unwrap_or_default();
                Self::sentence(Emphasis::Dim, format!("{opened}{requested}"))
            }
            Event::ConnectionOwnerChanged { previous_process } => {
                Self::sentence(Emphasis::Notice, format!("taken over from {}", program(previous_process)))
            }
            Event::ConnectionClosed {
                bytes_sent,
                bytes_received,
                duration,
                lost_bytes,
                greeting_bytes,
                closed_by,
                outstanding_count,
                outstanding,
            } => {
                let lasted = Span(*duration);
                let by = match closed_by {
                    ClosedBy::Local => " by this side",
                    ClosedBy::Remote => " by the other side",
                    ClosedBy::ResetSent => " by this side's reset",
                    ClosedBy::ResetReceived => " by the other side's reset",
                    ClosedBy::Timeout => " for want of an answer",
                    ClosedBy::Unknown => "",
                };
                let lost = match lost_bytes {
                    Some(lost_bytes @ 1..) => format!(", {lost_bytes} not seen"),
                    _ => String::new(),
                };
                let cut_short = |bytes: &u64| format!(", {bytes} of a greeting that was cut short");
                let greeting = greeting_bytes.as_ref().map(cut_short).unwrap_or_default();
                let unanswered = match outstanding_count {
                    Some(count @ 1..) if *count as usize > outstanding.len() => {
                        format!(", {count} commands without a reply")
                    }
                    Some(1..) => format!(", without a reply to {}", outstanding.join(", ")),
                    _ => String::new(),
                };
                let bytes = format!("{bytes_sent} bytes sent, {bytes_received} received");
                let missing = format!("{lost}{greeting}{unanswered}");
                Self::sentence(Emphasis::Dim, format!("closed after {lasted}{by}: {bytes}{missing}"))
            }
            Event::ConnectionUnfollowed { bytes_sent, bytes_received, duration } => {
                let lasted = Span(*duration);
                let bytes = format!("{bytes_sent} bytes sent, {bytes_received} received");
                Self::sentence(Emphasis::Dim, format!("followed no longer, after {lasted}: {bytes}"))
            }
            Event::Greeting(Greeting { code, text, software: _, latency }) => {
                Self { latency: *latency, ..Self::exchange(None, Some(*code), text) }
            }
            Event::Command(command) => Self::command(command),
            Event::Rset(reasoned) => Self::reason("RSET", reasoned.reason.as_str(), reasoned),
            Event::Noop(reasoned) => Self::reason("NOOP", reasoned.reason.as_str(), reasoned),
            Event::Data(data) => Self::data(data),
            Event::Transaction(transaction) => Self::transaction(transaction),
            Event::Tls(tls) => return Self::tls(tls),
            Event::Anomaly(anomaly) => {
                let detail = cut(&anomaly.detail, MAX_LENGTH);
                let text = format!("{}: {detail}", anomaly.kind.as_str());
                Self { kind: Kind::Anomaly, ..Self::sentence(Emphasis::Alert, text) }
            }
            Event::Interception(interception) => Self::interception(interception),
        })
    }

    /// A command, or where there is none the greeting, with its reply.
    pub(crate) fn exchange(request: Option<&str>, code: Option<u16>, reply: &str) -> Self {
        let text = cut(request.unwrap_or("(greeting)"), MAX_LENGTH);
        let reply = code.map(|code| ReplyText::new(code, reply));
        Self { kind: Kind::Exchange, emphasis: Emphasis::Plain, text, reply, latency: None }
    }

    fn sentence(emphasis: Emphasis, text: String) -> Self {
        Self { kind: Kind::Sentence, emphasis, text, reply: None, latency: None }
    }

    fn command(command: &Command) -> Self {
        let length = command.length.map(|length| format!(" ({length} bytes)")).unwrap_or_default();
        let argument = command.argument.as_ref().map(|argument| format!(" {argument}")).unwrap_or_default();
        let reply = command.reply.as_deref().unwrap_or_default();
        let enhanced = match &command.enhanced_code {
            Some(enhanced) if !reply.starts_with(enhanced.as_str()) => format!("{enhanced} "),
            _ => String::new(),
        };
        let request = format!("{}{length}{argument}", command.verb);
        let exchange = Self::exchange(Some(&request), command.code, &format!("{enhanced}{reply}"));
        let emphasis = match &*command.verb {
            "RSET" | "NOOP" => Emphasis::Notice,
            _ => Emphasis::Plain,
        };
        Self { emphasis, latency: command.latency, ..exchange }
    }

    fn reason<R>(verb: &str, reason: &str, reasoned: &Reasoned<R>) -> Self {
        let evidence: Vec<_> = reasoned.evidence.iter().map(|evidence| evidence.to_string()).collect();
        let separator = if evidence.is_empty() { "" } else { ": " };
        let reason = match reason {
            "ambiguous" => "for a reason that is ambiguous".to_owned(),
            reason => format!("because {reason}"),
        };
        let evidence = cut(&evidence.join("; "), MAX_LENGTH);
        Self::sentence(Emphasis::Notice, format!("{verb} {reason}{separator}{evidence}"))
    }

    fn data(data: &Data) -> Self {
        let mut text = match data.size_bytes {
            Some(size) => format!("{} {size} bytes", data.verb),
            None => data.verb.to_owned(),
        };
        for (duration, what) in
            [(data.go_ahead, "go-ahead after"), (data.transfer, "content took"), (data.accept, "final reply after")]
        {
            if let Some(duration) = duration {
                text.push_str(&format!(", {what} {}", Span(duration)));
            }
        }
        if data.code.is_none() {
            text.push_str(", no final reply");
        }
        let reply = data.code.map(|code| ReplyText::new(code, data.reply.as_deref().unwrap_or_default()));
        Self { reply, ..Self::sentence(Emphasis::Plain, text) }
    }

    fn transaction(transaction: &Transaction) -> Self {
        let emphasis = match transaction.outcome {
            Outcome::Delivered => Emphasis::Good,
            Outcome::Rejected => Emphasis::Warning,
            Outcome::Reset | Outcome::Abandoned => Emphasis::Notice,
        };
        let mut text = transaction.outcome.as_str().to_owned();
        if let Some(sender) = &transaction.sender {
            text.push_str(&format!(": from {}", cut(sender, MAX_MAILBOX)));
        }
        if let Some(accepted) = transaction.recipients_accepted {
            text.push_str(&format!(", {accepted} recipient{} accepted", if accepted == 1 { "" } else { "s" }));
        }
        if let Some(rejected @ 1..) = transaction.recipients_rejected {
            text.push_str(&format!(", {rejected} rejected"));
        }
        if let Some(duration) = transaction.duration {
            text.push_str(&format!(", {}", Span(duration)));
        }
        Self::sentence(emphasis, text)
    }

    fn interception(interception: &Interception) -> Self {
        let emphasis = Emphasis::of_verdict(interception.verdict);
        let text = match interception.verdict {
            Verdict::Direct => {
                let client = interception.client.process.as_ref().map_or("?".into(), program);
                let server = interception.client.requested;
                format!("direct: the verdict before was wrong, no program is between {client} and {server}")
            }
            _ => {
                let (verdict, signs) = (verdict(interception), signs(interception));
                format!("{verdict}: {}{signs}", chain(interception))
            }
        };
        Self { kind: Kind::Verdict, ..Self::sentence(emphasis, text) }
    }

    /// The severity of the whole: that of the text or of the reply, whichever is higher.
    pub(crate) fn level(&self) -> &'static str {
        let reply = self.reply.as_ref().map(|reply| Emphasis::of_code(reply.code));
        reply.map_or(self.emphasis, |reply| reply.max(self.emphasis)).level()
    }
}

/// In one line, with no columns.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mark) = self.kind.mark() {
            write!(f, "{mark} ")?;
        }
        f.write_str(&self.text)?;
        match (self.kind, &self.reply) {
            (Kind::Exchange, Some(reply)) => write!(f, " → {}", reply.fit(MAX_LENGTH)),
            (Kind::Exchange, None) => f.write_str(" → (no reply)"),
            (_, Some(reply)) => write!(f, ": {}", reply.fit(MAX_LENGTH)),
            (_, None) => Ok(()),
        }?;
        match self.latency {
            Some(latency) => write!(f, " ({})", Span(latency)),
            None => Ok(()),
        }
    }
}

impl Emphasis {
    pub(crate) fn of_verdict(verdict: Verdict) -> Self {
        match verdict {
            verdict if verdict.is_hidden() => Self::Alert,
            Verdict::SuspectedMiddlebox | Verdict::Redirected => Self::Notice,
            _ => Self::Progress,
        }
    }
}

/// A verdict, how sure it is, and how the client came to the program in the middle.
pub(crate) fn verdict(interception: &Interception) -> String {
    let Interception { verdict, method, confidence, .. } = interception;
    format!("{} ({:.0} % sure), by {}", verdict.as_str(), confidence * 100.0, method.as_str())
}

/// What else is known of the program in the middle.
pub(crate) fn signs(interception: &Interception) -> String {
    let product = interception.product.map(|product| format!(", it speaks like {product}")).unwrap_or_default();
    // Who passes DATA on takes some time, too.
    let holds = interception.evidence.iter().any(|it| it.kind == EvidenceKind::DataHeldBack);
    let hold = interception.hold.filter(|_| holds).map(|hold| format!(", DATA held for {}", Span(hold)));
    let hold = hold.unwrap_or_default();
    product + &hold
}

/// A line for each piece of evidence of a verdict.
pub(crate) fn evidence(interception: &Interception) -> impl Iterator<Item = String> {
    let evidence = interception.evidence.iter();
    evidence.map(|evidence| format!("{}: {}", evidence.kind.as_str(), cut(&evidence.detail, MAX_LENGTH)))
}

/// A client, what is in the middle, and the server, as one would draw them.
pub(crate) fn chain(interception: &Interception) -> String {
    let client = interception.client.process.as_ref().map_or("?".into(), program);
    let middle = interception.interceptor.as_ref().map_or("?".into(), program);
    let server = interception.upstream.as_ref().map_or(interception.client.requested, |upstream| upstream.remote);
    format!("{client} → {middle} → {server}")
}

/// A process: its program and pid.
pub(crate) fn program(caller: &Caller) -> String {
    format!("{}[{}]", cut(caller.process.program(), 15), caller.process.pid)
}

/// A duration with three significant digits and the unit that fits.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        let (value, unit) = match seconds {
            // Where rounding would show a thousand of one unit, it is one of the next.
            ..0.000_999_5 => (seconds * 1e6, "µs"),
            ..0.999_5 => (seconds * 1e3, "ms"),
            ..59.95 => (seconds, "s"),
            _ => {
                let seconds = seconds.round() as u64;
                return write!(f, "{} min {:02} s", seconds / 60, seconds % 60);
            }
        };
        match value {
            ..9.995 => write!(f, "{value:.2} {unit}"),
            ..99.95 => write!(f, "{value:.1} {unit}"),
            _ => write!(f, "{value:.0} {unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{Anomaly, AnomalyKind, EvidenceKind, InterceptedClient, Method, News};
    use crate::sink::samples::{self, Sample, endpoint};

    fn text(event: &Event) -> Text {
        Text::of(event, Role::Client).expect("it has a text")
    }

    fn interception(verdict: Verdict) -> Interception {
        Interception {
            verdict,
            method: Method::Redirect,
            interceptor: Some(Sample::client().with_program(8, "/opt/antivirus-proxy").caller()),
            product: None,
            client: InterceptedClient {
                process: Some(Sample::client().caller()),
                connection_id: "b-1".into(),
                requested: endpoint("192.0.2.25", 25),
            },
            upstream: None,
            confidence: 0.94,
            evidence: vec![crate::observation::Evidence {
                kind: EvidenceKind::DataHeldBack,
                detail: "it ends\non this host".into(),
            }],
            hold: Some(Duration::from_millis(2500)),
            news: News::default(),
        }
    }

    #[test]
    fn one_line_with_its_level() {
        let anomaly = Event::Anomaly(Anomaly { kind: AnomalyKind::Gap, detail: "12 bytes".into() });
        let verdict = |verdict| Event::Interception(Box::new(interception(verdict)));
        for (event, expected, level) in [
            (samples::greeting(), "(greeting) → 220 mail.example ESMTP Postfix (20.0 ms)", "info"),
            (samples::command("EHLO", 250), "EHLO client.example → 250 mail.example (+2 lines) (2.00 ms)", "info"),
            (samples::command("MAIL", 451), "MAIL client.example → 451 mail.example (+2 lines) (2.00 ms)", "notice"),
            (samples::command("RCPT", 550), "RCPT client.example → 550 mail.example (+2 lines) (2.00 ms)", "warning"),
            // It asks for a look, however it is answered.
            (samples::command("NOOP", 250), "NOOP client.example → 250 mail.example (+2 lines) (2.00 ms)", "notice"),
            (samples::command("RSET", 503), "RSET client.example → 503 mail.example (+2 lines) (2.00 ms)", "warning"),
            (samples::unanswered("QUIT"), "QUIT → (no reply)", "info"),
            (Sample::client().opened().event, "connected", "info"),
            (
                Sample::client().closed().event,
                "closed after 5.50 s by this side: 311 bytes sent, 2290 received",
                "info",
            ),
            (samples::noop(), "NOOP because idle_keepalive: idle for 28 s before it", "notice"),
            (
                samples::data(),
                "DATA 2048 bytes, go-ahead after 250 ms, content took 4.00 s, final reply after 500 ms: 250 2.0.0 Ok: \
                 queued as 4X1F0",
                "info",
            ),
            (samples::delivered(), "delivered: from <…@example.org>, 1 recipient accepted, 5.00 s", "info"),
            (anomaly, "! gap: 12 bytes", "alert"),
            (
                verdict(Verdict::LikelyInterceptor),
                "* likely_interceptor (94 % sure), by redirect: perl[4711] → antivirus-proxy[8] → 192.0.2.25:25, DATA held \
                 for 2.50 s",
                "alert",
            ),
            (
                verdict(Verdict::Direct),
                "* direct: the verdict before was wrong, no program is between perl[4711] and 192.0.2.25:25",
                "info",
            ),
        ] {
            let text = text(&event);
            assert_eq!((&*text.to_string(), text.level()), (expected, level));
        }
    }

    #[test]
    fn a_verdict_is_an_alert_where_it_is_hidden() {
        for verdict in Verdict::ALL {
            let text = text(&Event::Interception(Box::new(interception(*verdict))));
            assert_eq!(text.level() == "alert", verdict.is_hidden(), "{verdict:?}");
        }
        let lines: Vec<_> = evidence(&interception(Verdict::Relay)).collect();
        assert_eq!(lines, ["data_held_back: it ends\\non this host"]);
    }

    #[test]
    fn a_reply_keeps_its_count_of_lines() {
        let reply = ReplyText::new(250, "mx.example greets you\nPIPELINING\nSIZE");
        assert_eq!(reply.fit(80), "250 mx.example greets you (+2 lines)");
        assert_eq!(reply.fit(24), "250 mx.examp… (+2 lines)");
        assert_eq!(ReplyText::new(250, "").fit(80), "250 ");
    }

    #[test]
    fn spans() {
        for (nanoseconds, expected) in [
            (0, "0.00 µs"),
            (1_234, "1.23 µs"),
            (999_400, "999 µs"),
            (999_900, "1.00 ms"),
            (12_345_678, "12.3 ms"),
            (250_000_000, "250 ms"),
            (999_900_000, "1.00 s"),
            (59_000_000_000, "59.0 s"),
            (59_999_600_000, "1 min 00 s"),
            (185_000_000_000, "3 min 05 s"),
        ] {
            assert_eq!(Span(Duration::from_nanos(nanoseconds)).to_string(), expected);
        }
    }
}
