//! One connection: who uses it, what is in its middle and how that is known, and what was said.

use jiff::tz::TimeZone;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use textwrap::{Options, wrap};

use super::columns::{arrow, bytes, lasted};
use super::{Moment, Theme};
use crate::observation::{Event, Interception, Observation, Outcome, Process, Role, Timestamp};
use crate::sink::connection_table::{ConnectionState, ConnectionTable, interception};
use crate::sink::escape::cut;
use crate::sink::retained::Retained;
use crate::sink::trace;

/// Most characters of a text that others chose.
const LONGEST: usize = 400;

/// Columns of the time before a line of the dialogue, and of the time that passed behind it.
const TIME: usize = 13;
const LATENCY: usize = 9;

/// How far a line's further parts are set in.
const INDENT: &str = "    ";

/// All lines, none wider than that.
pub(super) fn lines(
    row: &ConnectionState,
    moment: &Moment<'_>,
    theme: Theme,
    zone: &TimeZone,
    width: u16,
) -> Vec<Line<'static>> {
    let mut page = Page { lines: Vec::new(), theme, zone, width: usize::from(width).max(20) };
    page.owner(row);
    page.connection(row, moment);
    if let Some(found) = found(row, moment.table) {
        page.blank();
        page.interception(found, row);
    }
    page.blank();
    page.dialogue(row);
    page.lines
}

/// What is in the middle of the conversation that this connection is a part of.
fn found<'a>(row: &'a ConnectionState, table: &'a ConnectionTable) -> Option<&'a Interception> {
    if let Some(own) = &row.interception {
        return interception(own);
    }
    let id = &row.connection.id;
    table.interceptions().rev().find_map(|observation| {
        let found = interception(observation)?;
        let upstream = found.upstream.as_ref();
        let goes_on = upstream.is_some_and(|upstream| upstream.connection_id == *id);
        // The interceptor's end of the client's connection, and the server's of its own.
        let accepted = row.connection.role == Role::Server
            && (observation.connection.local == row.connection.remote
                || upstream
                    .and_then(|upstream| table.row(&upstream.connection_id))
                    .is_some_and(|upstream| upstream.connection.local == row.connection.remote));
        (goes_on || accepted).then_some(found)
    })
}

struct Page<'a> {
    lines: Vec<Line<'static>>,
    theme: Theme,
    zone: &'a TimeZone,
    width: usize,
}

impl Page<'_> {
    fn blank(&mut self) {
        self.lines.push(Line::default());
    }

    /// A text, on as many lines as it needs.
    fn put(&mut self, text: &str, style: Style) {
        for part in wrap(text, Options::new(self.width).subsequent_indent(INDENT)) {
            self.lines.push(Line::styled(part.into_owned(), style));
        }
    }

    fn owner(&mut self, row: &ConnectionState) {
        let Some(owner) = &row.owner else {
            self.put("No process has used this connection yet.", Style::new());
            return;
        };
        let process: &Process = &owner.process;
        let user = match &process.user {
            Some(user) => format!("{} ({})", cut(user, LONGEST), process.uid),
            None => process.uid.to_string(),
        };
        let role = row.connection.role.as_str();
        self.put(&format!("{}, user {user}, {role}", trace::program(owner)), self.theme.bold());
        if let Some(executable) = &process.executable {
            self.put(&format!("  executable {}", cut(executable, LONGEST)), Style::new());
        }
        if let Some(command_line) = &process.command_line {
            self.put(&format!("  command    {}", cut(command_line, LONGEST)), Style::new());
        }
        if let Some(parent) = &process.parent {
            self.put(&format!("  parent     {}[{}]", cut(&parent.name, LONGEST), parent.pid), Style::new());
        }
        if let Some(unit) = &process.systemd_unit {
            self.put(&format!("  unit       {}", cut(unit, LONGEST)), Style::new());
        }
        if let Some(container) = &process.container_id {
            self.put(&format!("  container  {}", cut(container, LONGEST)), Style::new());
        }
    }

    fn connection(&mut self, row: &ConnectionState, moment: &Moment<'_>) {
        let connection = &row.connection;
        let state = match row.closed {
            Some(_) => "closed after",
            None => "open for",
        };
        let mut text = format!(
            "  {} {} {}, {}, {state} {}",
            connection.local,
            arrow(connection.role),
            connection.remote,
            row.state.as_str(),
            trace::Span(lasted(row, moment.time))
        );
        if let Some((sent, received)) = bytes(row, moment) {
            text.push_str(&format!(", {sent} bytes sent, {received} received"));
        }
        self.put(&text, Style::new());
    }

    fn interception(&mut self, found: &Interception, row: &ConnectionState) {
        let style = if found.verdict.is_hidden() { self.theme.interceptor() } else { self.theme.notable() };
        if row.interception.is_none() {
            self.put("This connection is part of another's conversation:", Style::new());
        }
        self.put(&trace::chain(found), style);
        let mut text =
            format!("{}, {:.0} % sure, by {}", found.verdict.as_str(), found.confidence * 100.0, found.method.as_str());
        if let Some(product) = found.product {
            text.push_str(&format!(", it speaks like {product}"));
        }
        if let Some(hold) = found.hold {
            text.push_str(&format!(", DATA held for {}", trace::Span(hold)));
        }
        self.put(&text, style);
        for evidence in &found.evidence {
            self.put(&format!("  {}: {}", evidence.kind.as_str(), cut(&evidence.detail, LONGEST)), Style::new());
        }
    }

    fn dialogue(&mut self, row: &ConnectionState) {
        if row.transcript.is_empty() {
            self.put("Nothing was said yet.", self.theme.dim());
        }
        for observation in row.transcript.iter().map(Retained::shown) {
            self.said(&observation);
        }
    }

    fn said(&mut self, observation: &Observation) {
        let event = &observation.event;
        match event {
            Event::Greeting(greeting) => {
                self.exchange(observation.time, "(greeting)", Some(greeting.code), &greeting.text, greeting.latency);
            }
            Event::Command(command) => {
                let request = match &command.argument {
                    Some(argument) => format!("{} {argument}", command.verb),
                    None => command.verb.to_string(),
                };
                let reply = command.reply.as_deref().unwrap_or_default();
                self.exchange(observation.time, &request, command.code, reply, command.latency);
            }
            _ => {
                let lines = trace::Format { colour: false, zone: self.zone.clone() };
                let Some(text) = lines.event(event, observation.connection.role) else { return };
                // The evidence of a verdict stands above.
                let text = text.lines().next().unwrap_or_default().trim();
                self.put(&format!("{} {text}", self.time(observation.time)), self.style(event));
            }
        }
    }

    /// A command and its reply, on one line.
    fn exchange(
        &mut self,
        time: Timestamp,
        request: &str,
        code: Option<u16>,
        reply: &str,
        latency: Option<std::time::Duration>,
    ) {
        let room = self.width.saturating_sub(TIME + LATENCY + 2);
        let request_width = room * 2 / 5;
        let reply_width = room - request_width;
        let (reply, style) = match code {
            Some(code) => {
                let mut lines = reply.lines();
                let first = lines.next().unwrap_or_default();
                let more = match lines.count() {
                    0 => String::new(),
                    more => format!(" (+{more})"),
                };
                let text = cut(&format!("{code} {first}"), reply_width.saturating_sub(more.len()));
                (text + &more, self.theme.code(code))
            }
            None => ("(no reply)".to_owned(), self.theme.dim()),
        };
        let latency = latency.map(|latency| trace::Span(latency).to_string()).unwrap_or_default();
        let emphasis = match request {
            "RSET" | "NOOP" => self.theme.notable(),
            _ => Style::new(),
        };
        self.lines.push(Line::from(vec![
            Span::styled(format!("{} ", self.time(time)), self.theme.dim()),
            Span::styled(format!("{:request_width$} ", cut(request, request_width)), emphasis),
            Span::styled(format!("{reply:reply_width$} "), style),
            Span::styled(format!("{latency:>LATENCY$}"), self.theme.dim()),
        ]));
    }

    fn time(&self, time: Timestamp) -> String {
        clock(time, self.zone, "%H:%M:%S%.3f")
    }

    fn style(&self, event: &Event) -> Style {
        match event {
            Event::Rset(_) | Event::Noop(_) | Event::ConnectionOwnerChanged { .. } => self.theme.notable(),
            Event::Anomaly(_) => self.theme.bad(),
            Event::Tls(_) => self.theme.plain_news(),
            Event::Interception(found) if found.verdict.is_hidden() => self.theme.interceptor(),
            Event::Interception(_) => self.theme.notable(),
            Event::Transaction(transaction) => match transaction.outcome {
                Outcome::Delivered => self.theme.good(),
                Outcome::Rejected => self.theme.bad(),
                Outcome::Reset | Outcome::Abandoned => self.theme.notable(),
            },
            Event::ConnectionOpened { .. } | Event::ConnectionClosed { .. } => self.theme.dim(),
            Event::Data(_) | Event::Greeting(_) | Event::Command(_) => Style::new(),
        }
    }
}

/// A time of day.
pub(super) fn clock(time: Timestamp, zone: &TimeZone, format: &str) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(time.0)) {
        Ok(timestamp) => timestamp.to_zoned(zone.clone()).strftime(format).to_string(),
        Err(_) => time.to_string(),
    }
}
