//! Observations as aligned lines, one each, for terminals and files that people read.
//!
//! `time  program[pid]  → peer  VERB argument  code text  latency`; the arrow points away from a client and towards a
//! server. What is not a command with its reply is set in by two blanks. A `*` before the program marks a conversation
//! that goes through a program which its client knows nothing of. A line with the date comes before those of another day. The reason of an RSET or a NOOP may come after
//! later lines: its line has the time of the command's reply, and is about the last such command above it.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::Zoned;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::observation::{Event, Observation, Role, Timestamp};
use crate::sink::escape::cut;
use crate::sink::text::{self, Emphasis, Kind, Span, Text, program};

/// A name of 15 bytes, and a pid of five digits.
const PROGRAM_WIDTH: usize = 22;
const PEER_WIDTH: usize = 21;
const REQUEST_WIDTH: usize = 40;
const REPLY_WIDTH: usize = 44;

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
    /// The day of the last line; where there was none, the day that nobody needs to be told.
    pub day: Option<Date>,
}

impl Format {
    /// Appends the observation's line, and with a verdict a line for each piece of its evidence. Some observations have none: what
    /// they say is in another's.
    pub fn write(&mut self, observation: &Observation, out: &mut Vec<u8>) {
        let Some(text) = Text::of(&observation.event, observation.connection.role) else { return };
        let time = match self.zoned(observation.time) {
            Some(time) => {
                self.begin_day(&time, out);
                time.strftime("%H:%M:%S%.6f").to_string()
            }
            None => observation.time.to_string(),
        };
        let time = self.paint(DIM, time);
        let program = self.paint(BOLD, pad(&observation.process.as_ref().map_or("?".into(), program), PROGRAM_WIDTH));
        let arrow = match observation.connection.role {
            Role::Client => self.paint(CYAN, "→".into()),
            Role::Server => self.paint(MAGENTA, "←".into()),
        };
        let peer = pad(&observation.connection.remote.to_string(), PEER_WIDTH);
        let mark = if observation.intercepted { self.paint(style(Emphasis::Alert), "*".into()) } else { " ".into() };
        // A vector takes everything.
        let _ = writeln!(out, "{time} {mark}{program} {arrow} {peer}  {}", self.text(&text).trim_end());
        if let Event::Interception(interception) = &observation.event {
            text::evidence(interception).for_each(|line| drop(writeln!(out, "    {line}")));
        }
    }

    fn zoned(&self, time: Timestamp) -> Option<Zoned> {
        let time = jiff::Timestamp::from_nanosecond(i128::from(time.0)).ok()?;
        Some(time.to_zoned(self.zone.clone()))
    }

    /// Says which day it is, where that is another than that of the line before.
    fn begin_day(&mut self, time: &Zoned, out: &mut Vec<u8>) {
        let day = time.date();
        if self.day.replace(day) != Some(day) {
            let _ = writeln!(out, "{}", self.paint(DIM, time.strftime("-- %F %:z --").to_string()));
        }
    }

    fn paint(&self, style: Style, text: String) -> String {
        if self.colour && style != PLAIN { format!("{style}{text}{style:#}") } else { text }
    }

    /// What a line says after the columns that all lines have.
    fn text(&self, Text { kind, emphasis, text, reply, latency }: &Text) -> String {
        match kind {
            Kind::Exchange => {
                let request = self.paint(style(*emphasis), pad(&cut(text, REQUEST_WIDTH), REQUEST_WIDTH));
                let reply = match reply {
                    None => self.paint(DIM, pad("(no reply)", REPLY_WIDTH)),
                    Some(reply) => {
                        self.paint(style(Emphasis::of_code(reply.code)), pad(&reply.fit(REPLY_WIDTH), REPLY_WIDTH))
                    }
                };
                let latency = latency.map(|latency| Span(latency).to_string()).unwrap_or_default();
                format!("{request} {reply} {latency:>9}")
            }
            _ => {
                let sentence = self.paint(style(*emphasis), format!("{} {text}", kind.mark().unwrap_or(' ')));
                let reply = reply.as_ref().map(|reply| {
                    format!(": {}", self.paint(style(Emphasis::of_code(reply.code)), reply.fit(REPLY_WIDTH)))
                });
                sentence + &reply.unwrap_or_default()
            }
        }
    }
}

/// Says before these lines that so many were lost.
pub fn mark_loss(lost: u64, lines: &mut Vec<u8>) {
    let what = if lost == 1 { "line was" } else { "lines were" };
    lines.splice(0..0, format!("-- {lost} {what} lost --\n").into_bytes());
}

fn style(emphasis: Emphasis) -> Style {
    match emphasis {
        Emphasis::Dim => DIM,
        Emphasis::Plain => PLAIN,
        Emphasis::Good => GREEN,
        Emphasis::Progress => CYAN,
        Emphasis::Notice => YELLOW,
        Emphasis::Warning => RED,
        Emphasis::Alert => RED.bold(),
    }
}

fn pad(text: &str, width: usize) -> String {
    format!("{text:width$}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observation::{Anomaly, AnomalyKind, Greeting, Tls, TlsPhase};
    use crate::sink::samples::{self, Sample};

    fn format(colour: bool) -> Format {
        Format { colour, zone: TimeZone::UTC, day: Some(jiff::civil::date(2026, 11, 23)) }
    }

    fn line(observation: &Observation) -> String {
        let mut out = Vec::new();
        format(false).write(observation, &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn what_was_outstanding_is_named_or_counted() {
        for (count, verbs, expected) in [
            (Some(0), &[][..], "received"),
            (None, &[], "received"),
            (Some(1), &["QUIT"], "received, without a reply to QUIT"),
            (Some(2), &["RSET", "QUIT"], "received, without a reply to RSET, QUIT"),
            (Some(9), &["NOOP"; 8], "received, 9 commands without a reply"),
        ] {
            let Event::ConnectionClosed { bytes_sent, bytes_received, duration, lost_bytes, closed_by, .. } =
                Sample::server().closed().event
            else {
                panic!("closed")
            };
            let event = Event::ConnectionClosed {
                bytes_sent,
                bytes_received,
                duration,
                lost_bytes,
                greeting_bytes: None,
                closed_by,
                outstanding_count: count,
                outstanding: verbs.to_vec(),
            };
            let text = Text::of(&event, Role::Server).expect("a text").to_string();
            assert!(text.ends_with(expected), "{text}");
        }
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
                "  RSET for a reason that is ambiguous: what came before it is not known; possible: session_start, reuse_probe\n",
            ),
            (samples::noop(), "  NOOP because idle_keepalive: idle for 28 s before it\n"),
            (
                samples::data(),
                "  DATA 2048 bytes, go-ahead after 250 ms, content took 4.00 s, final reply after 500 ms: 250 2.0.0 \
                 Ok: queued as 4X1F0\n",
            ),
            (samples::delivered(), "  delivered: from <…@example.org>, 1 recipient accepted, 5.00 s\n"),
            (Event::Tls(Tls::new(TlsPhase::Started)), "  TLS started; what follows is not visible\n"),
            (Event::Anomaly(Anomaly { kind: AnomalyKind::Gap, detail: "12 bytes".into() }), "! gap: 12 bytes\n"),
        ] {
            // The two blanks before what is set in belong to the columns' prefix or to the text: both have them.
            assert_eq!(text(event).trim_start_matches(' '), expected.trim_start_matches(' '));
        }
        let offered = Event::Tls(Tls::new(TlsPhase::Offered));
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
    fn another_day_is_told_before_its_first_line() {
        let sample = Sample::client();
        let later = |hours| sample.later(Event::Tls(Tls::new(TlsPhase::Started)), Duration::from_hours(hours));
        let mut format = Format { day: None, ..format(false) };
        let mut out = Vec::new();
        [0, 1, 7, 8].into_iter().for_each(|hours| format.write(&later(hours), &mut out));
        let out = String::from_utf8(out).expect("UTF-8");
        let begins: Vec<_> = out.lines().map(|line| line.get(..17).unwrap_or(line)).collect();
        let expected = [
            "-- 2026-11-23 +00",
            "17:04:05.123456  ",
            "18:04:05.123456  ",
            "-- 2026-11-24 +00",
            "00:04:05.123456  ",
            "01:04:05.123456  ",
        ];
        assert_eq!(begins, expected);
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
}
