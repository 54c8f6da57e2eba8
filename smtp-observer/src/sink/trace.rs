//! Observations for a reader: one aligned line each.
//!
//! `time  program[pid]  → peer  VERB argument  code text  latency`; the arrow points away from a client and towards a
//! server. What is not a command with its reply is set in by two blanks. A `*` before the program marks a conversation
//! that goes through a program which its client knows nothing of. Why an RSET or a NOOP was sent may be told when
//! later lines are out: such a line has the time of its command's reply, and is about the last one above it.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;

use crate::observation::{
    Caller, ClosedBy, Command, Data, Event, Evidence, Greeting, Interception, Observation, Outcome, Reasoned, Role,
    Timestamp, TlsPhase, Transaction, Verdict,
};
use crate::sink::escape::cut;

/// A name of 15 bytes, and a pid of five digits.
const PROGRAM_WIDTH: usize = 22;
const PEER_WIDTH: usize = 21;
const REQUEST_WIDTH: usize = 40;
const REPLY_WIDTH: usize = 44;

/// Most characters of a line of free text; all of it is in the JSON.
const NOTE_WIDTH: usize = 400;

const PLAIN: Style = Style::new();
const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const GREEN: Style = AnsiColor::Green.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();
const MAGENTA: Style = AnsiColor::Magenta.on_default();

/// How lines are written.
#[derive(Clone, Debug)]
pub struct Format {
    /// With colours.
    pub colour: bool,
    /// The zone of the times.
    pub zone: TimeZone,
}

impl Format {
    /// Appends the observation's line. Some have none: what they say is in another's.
    pub fn write(&self, observation: &Observation, out: &mut Vec<u8>) {
        let Some(text) = self.event(&observation.event, observation.connection.role) else { return };
        let time = self.paint(DIM, self.time(observation.time));
        let program = self.paint(BOLD, pad(&observation.process.as_ref().map_or("?".into(), program), PROGRAM_WIDTH));
        let arrow = match observation.connection.role {
            Role::Client => self.paint(CYAN, "→".into()),
            Role::Server => self.paint(MAGENTA, "←".into()),
        };
        let peer = pad(&observation.connection.remote.to_string(), PEER_WIDTH);
        // A vector takes everything.
        let mark = if observation.intercepted { self.paint(RED.bold(), "*".into()) } else { " ".into() };
        let _ = writeln!(out, "{time} {mark}{program} {arrow} {peer}  {}", text.trim_end());
    }

    fn time(&self, time: Timestamp) -> String {
        match jiff::Timestamp::from_nanosecond(i128::from(time.0)) {
            Ok(timestamp) => timestamp.to_zoned(self.zone.clone()).strftime("%H:%M:%S%.6f").to_string(),
            Err(_) => time.to_string(),
        }
    }

    fn paint(&self, style: Style, text: String) -> String {
        if self.colour && style != PLAIN { format!("{style}{text}{style:#}") } else { text }
    }

    /// What a line says behind its columns; that of a verdict has a line for each piece of evidence.
    pub(crate) fn event(&self, event: &Event, role: Role) -> Option<String> {
        Some(match event {
            Event::ConnectionOpened { requested } => {
                let mut text = String::from(match role {
                    Role::Client => "  connected",
                    Role::Server => "  accepted",
                });
                if let Some(requested) = requested {
                    put(&mut text, format_args!(", asked for {requested}"));
                }
                self.paint(DIM, text)
            }
            Event::ConnectionOwnerChanged { previous_process } => {
                self.paint(YELLOW, format!("  taken over from {}", program(previous_process)))
            }
            Event::ConnectionClosed { bytes_sent, bytes_received, duration, lost_bytes, closed_by } => {
                let lasted = Span(*duration);
                let by = match closed_by {
                    ClosedBy::Local => " by this side",
                    ClosedBy::Remote => " by the other side",
                    ClosedBy::ResetSent => " by this side's reset",
                    ClosedBy::ResetReceived => " by the other side's reset",
                    ClosedBy::Timeout => " for want of an answer",
                    ClosedBy::Unknown => "",
                };
                let mut text =
                    format!("  closed after {lasted}{by}: {bytes_sent} bytes sent, {bytes_received} received");
                if let Some(lost_bytes @ 1..) = lost_bytes {
                    put(&mut text, format_args!(", {lost_bytes} not seen"));
                }
                self.paint(DIM, text)
            }
            Event::Greeting(Greeting { code, text, software: _, latency }) => {
                self.exchange(PLAIN, "(greeting)", Some(*code), text, *latency)
            }
            Event::Command(command) => self.command(command),
            Event::Rset(reasoned) => self.reason("RSET", reasoned.reason.as_str(), reasoned),
            Event::Noop(reasoned) => self.reason("NOOP", reasoned.reason.as_str(), reasoned),
            Event::Data(data) => self.data(data),
            Event::Transaction(transaction) => self.transaction(transaction),
            Event::Tls(tls) => match tls.phase {
                // The EHLO's reply has shown it.
                TlsPhase::Offered => return None,
                TlsPhase::Started if tls.visible => self.paint(CYAN, "  TLS started; its plaintext is read".into()),
                TlsPhase::Started => self.paint(CYAN, "  TLS started; what follows is not visible".into()),
            },
            Event::Anomaly(anomaly) => {
                let detail = cut(&anomaly.detail, NOTE_WIDTH);
                self.paint(RED.bold(), format!("! {}: {detail}", anomaly.kind.as_str()))
            }
            Event::Interception(interception) => self.interception(interception),
        })
    }

    fn command(&self, command: &Command) -> String {
        let mut request = command.verb.to_string();
        if let Some(length) = command.length {
            put(&mut request, format_args!(" ({length} bytes)"));
        }
        if let Some(argument) = &command.argument {
            put(&mut request, format_args!(" {argument}"));
        }
        let mut reply = command.reply.clone().unwrap_or_default();
        if let Some(enhanced) = &command.enhanced_code
            && !reply.starts_with(enhanced.as_str())
        {
            reply = format!("{enhanced} {reply}");
        }
        let style = match &*command.verb {
            "RSET" | "NOOP" => YELLOW,
            _ => PLAIN,
        };
        self.exchange(style, &request, command.code, &reply, command.latency)
    }

    fn exchange(
        &self,
        style: Style,
        request: &str,
        code: Option<u16>,
        reply: &str,
        latency: Option<Duration>,
    ) -> String {
        let request = self.paint(style, pad(&cut(request, REQUEST_WIDTH), REQUEST_WIDTH));
        let reply = match code {
            None => self.paint(DIM, pad("(no reply)", REPLY_WIDTH)),
            Some(code) => self.paint(style_of(code), pad(&reply_text(code, reply), REPLY_WIDTH)),
        };
        let latency = latency.map(|latency| Span(latency).to_string()).unwrap_or_default();
        format!("{request} {reply} {latency:>9}")
    }

    fn reason<R>(&self, verb: &str, reason: &str, reasoned: &Reasoned<R>) -> String {
        let evidence = cut(
            &reasoned.evidence.iter().map(|evidence| evidence.to_string()).collect::<Vec<_>>().join("; "),
            NOTE_WIDTH,
        );
        let separator = if evidence.is_empty() { "" } else { ": " };
        let reason = match reason {
            "ambiguous" => "for a reason that is ambiguous".to_owned(),
            reason => format!("because {reason}"),
        };
        self.paint(YELLOW, format!("  {verb} {reason}{separator}{evidence}"))
    }

    fn data(&self, data: &Data) -> String {
        let mut text = match data.size_bytes {
            Some(size) => format!("  {} {size} bytes", data.verb),
            None => format!("  {}", data.verb),
        };
        for (duration, what) in
            [(data.go_ahead, "go-ahead after"), (data.transfer, "content took"), (data.accept, "final reply after")]
        {
            if let Some(duration) = duration {
                put(&mut text, format_args!(", {what} {}", Span(duration)));
            }
        }
        match data.code {
            None => put(&mut text, format_args!(", no final reply")),
            Some(code) => {
                let reply = reply_text(code, data.reply.as_deref().unwrap_or_default());
                put(&mut text, format_args!(": {}", self.paint(style_of(code), reply)));
            }
        }
        text
    }

    /// The verdict, and a line for each piece of evidence.
    fn interception(&self, interception: &Interception) -> String {
        let Interception { verdict, method, confidence, evidence, hold, .. } = interception;
        let style = match verdict {
            Verdict::TransparentInterceptor | Verdict::LikelyInterceptor => RED.bold(),
            Verdict::TransparentL4 | Verdict::SuspectedMiddlebox => YELLOW,
            Verdict::InlineProxy | Verdict::Relay | Verdict::Direct => CYAN,
        };
        let mut text = self.paint(
            style,
            format!(
                "* {} ({:.0} % sure), by {}: {}",
                verdict.as_str(),
                confidence * 100.0,
                method.as_str(),
                chain(interception)
            ),
        );
        if let Some(product) = interception.product {
            put(&mut text, format_args!(", it speaks like {product}"));
        }
        if let Some(hold) = hold {
            put(&mut text, format_args!(", DATA held for {}", Span(*hold)));
        }
        for Evidence { kind, detail } in evidence {
            put(&mut text, format_args!("\n    {}: {}", kind.as_str(), cut(detail, NOTE_WIDTH)));
        }
        text
    }

    fn transaction(&self, transaction: &Transaction) -> String {
        let style = match transaction.outcome {
            Outcome::Delivered => GREEN,
            Outcome::Rejected => RED,
            Outcome::Reset | Outcome::Abandoned => YELLOW,
        };
        let mut text = format!("  {}", transaction.outcome.as_str());
        if let Some(sender) = &transaction.sender {
            put(&mut text, format_args!(": from {}", cut(sender, REQUEST_WIDTH)));
        }
        let accepted = transaction.recipients_accepted;
        put(&mut text, format_args!(", {accepted} recipient{} accepted", if accepted == 1 { "" } else { "s" }));
        if transaction.recipients_rejected > 0 {
            put(&mut text, format_args!(", {} rejected", transaction.recipients_rejected));
        }
        put(&mut text, format_args!(", {}", Span(transaction.duration)));
        self.paint(style, text)
    }
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

/// A reply's code and its first line, with how many lines follow.
fn reply_text(code: u16, text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    match lines.count() {
        0 => cut(&format!("{code} {first}"), REPLY_WIDTH),
        more => {
            let more = format!(" (+{more} lines)");
            cut(&format!("{code} {first}"), REPLY_WIDTH - more.len()) + &more
        }
    }
}

fn style_of(code: u16) -> Style {
    match code / 100 {
        2 => GREEN,
        3 => CYAN,
        4 => YELLOW,
        _ => RED,
    }
}

fn pad(text: &str, width: usize) -> String {
    format!("{text:width$}")
}

fn put(text: &mut String, more: fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = text.write_fmt(more);
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
    use crate::observation::{Anomaly, AnomalyKind, Tls};
    use crate::sink::samples::{self, Sample};

    fn format(colour: bool) -> Format {
        Format { colour, zone: TimeZone::UTC }
    }

    fn line(observation: &Observation) -> String {
        let mut out = Vec::new();
        format(false).write(observation, &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn an_exchange_is_one_aligned_line() {
        assert_eq!(
            line(&Sample::client().at(samples::command("EHLO", 250))),
            "17:04:05.123456  perl[4711]             → 192.0.2.25:25          EHLO client.example                      \
             250 mail.example (+2 lines)                    2.00 ms\n"
        );
        assert_eq!(
            line(&Sample::client().at(samples::unanswered("QUIT"))),
            "17:04:05.123456  perl[4711]             → 192.0.2.25:25          QUIT                                     \
             (no reply)\n"
        );
        assert_eq!(
            line(&Sample::client().at(samples::greeting())),
            "17:04:05.123456  perl[4711]             → 192.0.2.25:25          (greeting)                               \
             220 mail.example ESMTP Postfix                 20.0 ms\n"
        );
        assert_eq!(
            line(&Sample::server().without_process().opened()),
            "17:04:05.123456  ?                      ← [2001:db8::7]:40007      accepted\n"
        );
    }

    /// What follows the columns that every line has.
    fn text(event: Event) -> String {
        let line = line(&Sample::client().at(event));
        line.strip_prefix("17:04:05.123456  perl[4711]             → 192.0.2.25:25          ")
            .unwrap_or_else(|| panic!("{line}"))
            .to_owned()
    }

    #[test]
    fn what_is_interesting_has_its_own_line() {
        for (event, expected) in [
            (
                Event::ConnectionOpened { requested: Some(samples::endpoint("203.0.113.9", 25)) },
                "  connected, asked for 203.0.113.9:25\n",
            ),
            (
                Event::ConnectionOwnerChanged { previous_process: Sample::server().caller() },
                "  taken over from smtpd[825]\n",
            ),
            (Sample::client().closed().event, "  closed after 5.50 s by this side: 311 bytes sent, 2290 received\n"),
            (
                samples::rset(),
                "  RSET because recipients_rejected: MAIL was accepted, 1 recipient was refused; sent in lower case, \
                 as by Python's smtplib\n",
            ),
            (
                samples::ambiguous(),
                "  RSET for a reason that is ambiguous: what was before was not seen; possible: session_start, reuse_probe\n",
            ),
            (samples::noop(), "  NOOP because idle_keepalive: idle for 28 s before it\n"),
            (
                samples::data(),
                "  DATA 2048 bytes, go-ahead after 250 ms, content took 4.00 s, final reply after 500 ms: 250 2.0.0 \
                 Ok: queued as 4X1\n",
            ),
            (samples::delivered(), "  delivered: from <…@example.org>, 1 recipient accepted, 5.00 s\n"),
            (
                Event::Tls(Tls { phase: TlsPhase::Started, library: None, visible: false }),
                "  TLS started; what follows is not visible\n",
            ),
            (Event::Anomaly(Anomaly { kind: AnomalyKind::Gap, detail: "12 bytes".into() }), "! gap: 12 bytes\n"),
        ] {
            // The two blanks before what is set in belong to the columns' prefix or to the text: both have them.
            assert_eq!(text(event).trim_start_matches(' '), expected.trim_start_matches(' '));
        }
        let offered = Event::Tls(Tls { phase: TlsPhase::Offered, library: None, visible: false });
        assert_eq!(line(&Sample::client().at(offered)), "");
    }

    #[test]
    fn hostile_bytes_steer_nothing() {
        let hostile = "\u{1b}[2J\u{1b}]0;x\u{7}\r\n\u{9b}31m\u{202e}";
        let sample = Sample::client().with_program(1, &format!("/tmp/{hostile}"));
        let Event::Command(mut command) = samples::command(hostile, 250) else { panic!("a command") };
        command.argument = Some(hostile.into());
        command.enhanced_code = Some(hostile.into());
        command.reply = Some(hostile.into());
        let Event::Data(mut data) = samples::data() else { panic!("data") };
        data.reply = Some(hostile.into());
        let Event::Transaction(mut transaction) = samples::delivered() else { panic!("a transaction") };
        transaction.sender = Some(hostile.into());
        for event in [
            Event::Command(command),
            Event::Data(data),
            Event::Transaction(transaction),
            Event::Anomaly(Anomaly { kind: AnomalyKind::NotSmtp, detail: hostile.repeat(1000) }),
            Event::ConnectionOwnerChanged { previous_process: sample.caller() },
            Event::Greeting(Greeting { code: 220, text: hostile.into(), software: None, latency: None }),
        ] {
            let line = line(&sample.at(event));
            let text = line.strip_suffix('\n').expect("a line");
            assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
            assert!(text.chars().count() < 600, "bounded: {}", text.len());
        }
    }

    #[test]
    fn colours_are_put_around_and_nowhere_else() {
        let observation = Sample::client().at(samples::command("RCPT", 550));
        let mut out = Vec::new();
        format(true).write(&observation, &mut out);
        let coloured = String::from_utf8(out).expect("UTF-8");
        assert!(coloured.contains("\u{1b}[31m550 "), "{coloured:?}");
        let stripped: String = coloured
            .split('\u{1b}')
            .enumerate()
            .map(|(index, part)| if index == 0 { part } else { part.split_once('m').map_or("", |(_, text)| text) })
            .collect();
        assert_eq!(stripped, line(&observation));
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
