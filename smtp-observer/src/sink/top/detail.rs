//! One connection: who uses it, what is in its middle and how that is known, and what was said.

use jiff::tz::TimeZone;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use textwrap::{Options, wrap};

use super::columns::{arrow, bytes, lasted};
use super::{Moment, Theme};
use crate::observation::{Interception, Observation, Process, Role, Timestamp};
use crate::sink::connection_table::{ConnectionState, ConnectionTable, interception};
use crate::sink::escape::cut;
use crate::sink::retained::Retained;
use crate::sink::text::{self, Emphasis, Kind, Text};

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
        self.put(&format!("{}, user {user}, {role}", text::program(owner)), self.theme.bold());
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
            text::Span(lasted(row, moment.time))
        );
        if let Some((sent, received)) = bytes(row, moment) {
            text.push_str(&format!(", {sent} bytes sent, {received} received"));
        }
        self.put(&text, Style::new());
    }

    fn interception(&mut self, found: &Interception, row: &ConnectionState) {
        let style = self.theme.of(Emphasis::of_verdict(found.verdict));
        if row.interception.is_none() {
            self.put("This connection is part of another's conversation:", Style::new());
        }
        self.put(&text::chain(found), style);
        self.put(&(text::verdict(found) + &text::signs(found)), style);
        for evidence in text::evidence(found) {
            self.put(&format!("  {evidence}"), Style::new());
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
        let Some(text) = Text::of(&observation.event, observation.connection.role) else { return };
        match text.kind {
            Kind::Exchange => self.exchange(observation.time, &text),
            // The evidence of a verdict stands above.
            _ => self.put(&format!("{} {text}", self.time(observation.time)), self.theme.of(text.emphasis)),
        }
    }

    /// A command and its reply, on one line.
    fn exchange(&mut self, time: Timestamp, Text { emphasis, text, reply, latency, .. }: &Text) {
        let room = self.width.saturating_sub(TIME + LATENCY + 2);
        let request_width = room * 2 / 5;
        let reply_width = room - request_width;
        let (reply, style) = match reply {
            Some(reply) => (reply.fit(reply_width), self.theme.of(Emphasis::of_code(reply.code))),
            None => ("(no reply)".to_owned(), self.theme.dim()),
        };
        let latency = latency.map(|latency| text::Span(latency).to_string()).unwrap_or_default();
        self.lines.push(Line::from(vec![
            Span::styled(format!("{} ", self.time(time)), self.theme.dim()),
            Span::styled(format!("{:request_width$} ", cut(text, request_width)), self.theme.of(*emphasis)),
            Span::styled(format!("{reply:reply_width$} "), style),
            Span::styled(format!("{latency:>LATENCY$}"), self.theme.dim()),
        ]));
    }

    fn time(&self, time: Timestamp) -> String {
        clock(time, self.zone, "%H:%M:%S%.3f")
    }
}

/// A time of day.
pub(super) fn clock(time: Timestamp, zone: &TimeZone, format: &str) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(time.0)) {
        Ok(timestamp) => timestamp.to_zoned(zone.clone()).strftime(format).to_string(),
        Err(_) => time.to_string(),
    }
}
