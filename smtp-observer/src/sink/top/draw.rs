//! Draws the view.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::columns::{Column, fitting};
use super::detail::{self, clock};
use super::view::{Mode, View};
use super::why::ProxyProcesses;
use super::{Moment, help};
use crate::sink::text;

/// Less than this shows nothing that makes sense.
const LEAST: (u16, u16) = (40, 8);

/// Lines above the table.
const HEADER: u16 = 3;

/// What the footer says of the keys; those that find no room are left out, from the end.
const TABLE_KEYS: [(&str, &str); 7] = [
    ("?", "Help"),
    ("q", "Quit"),
    ("Enter", "Details"),
    ("/", "Filter"),
    ("<>", "Sort"),
    ("r", "Reverse"),
    ("Space", "Pause"),
];
const DETAIL_KEYS: [(&str, &str); 4] = [("Esc", "Back"), ("↑↓", "Scroll"), ("End", "Follow"), ("Space", "Pause")];
const HELP_KEYS: [(&str, &str); 2] = [("Esc", "Back"), ("↑↓", "Scroll")];

impl View {
    /// Draws what there is, or was when the display was stopped.
    pub fn draw(&mut self, moment: &Moment<'_>, frame: &mut Frame<'_>) {
        let area = frame.area();
        if area.width < LEAST.0 || area.height < LEAST.1 {
            let text = format!("This terminal is too small: it needs {} columns and {} lines.", LEAST.0, LEAST.1);
            too_small(&text, area, frame.buffer_mut());
            return;
        }
        match self.paused.take() {
            Some(still) => {
                self.show(&still.moment(), true, frame);
                self.paused = Some(still);
            }
            None => self.show(moment, false, frame),
        }
    }

    fn show(&mut self, moment: &Moment<'_>, paused: bool, frame: &mut Frame<'_>) {
        let area = frame.area();
        let proxies = ProxyProcesses::of(moment.table);
        self.arrange(moment, &proxies);
        let [header, body, footer] = [
            Rect { height: HEADER, ..area },
            Rect { y: area.y + HEADER, height: area.height - HEADER - 1, ..area },
            Rect { y: area.bottom() - 1, height: 1, ..area },
        ];
        self.header(moment, &proxies, paused, header, frame.buffer_mut());
        match &self.mode {
            Mode::Table | Mode::Filter => self.table(moment, &proxies, body, frame.buffer_mut()),
            Mode::Detail(_) => self.detail(moment, body, frame.buffer_mut()),
            Mode::Help(first) => {
                let lines = help::lines(self.theme);
                let first = (*first).min(lines.len().saturating_sub(body.height.into()));
                self.mode = Mode::Help(first);
                put_lines(&lines[first..], body, frame.buffer_mut());
            }
        }
        self.footer(footer, frame);
    }

    fn header(&self, moment: &Moment<'_>, proxies: &ProxyProcesses<'_>, paused: bool, area: Rect, buffer: &mut Buffer) {
        let table = moment.table;
        let open = table.rows().filter(|row| row.closed.is_none()).count();
        let mut first = format!("smtp-observer top, {}: {open} open", self.title);
        if table.unlisted() > 0 {
            put(&mut first, format_args!(", {} not listed since the start", table.unlisted()));
        }
        if !self.filter.is_empty() {
            put(&mut first, format_args!(", {} match {}", self.order.len(), self.filter.text()));
        }
        let time = clock(moment.time, &self.zone, "%H:%M:%S");
        let mut right = vec![Span::raw(" "), Span::raw(time)];
        if paused {
            right.splice(0..0, [Span::raw(" "), Span::styled(" PAUSED ", self.theme.reversed())]);
        }
        let right = Line::from(right);
        let right_width = right.width() as u16;
        let line = |row: u16| Rect { y: area.y + row, height: 1, ..area };

        let programs = proxies.programs();
        let mut second = vec![Span::raw(format!("Interceptors: {}", programs.len()))];
        if !programs.is_empty() {
            let names: Vec<_> = programs.iter().map(|program| text::program(program)).collect();
            second.push(Span::styled(format!("  {}", names.join(", ")), self.theme.interceptor()));
        }

        let (mut all, mut unusual) = (0, BTreeMap::new());
        for (reason, count) in table.rsets().filter(|(_, count)| *count > 0) {
            all += count;
            if !reason.is_usual() {
                unusual.insert(std::cmp::Reverse((count, std::cmp::Reverse(reason))), reason);
            }
        }
        let named: Vec<_> = unusual.iter().map(|(key, reason)| format!("{} {}", reason.as_str(), key.0.0)).collect();
        let mut third = vec![Span::styled(
            format!("Events lost: {}", moment.lost),
            if moment.lost > 0 { self.theme.bad() } else { Style::new() },
        )];
        third.push(Span::raw(format!("   RSETs: {all}")));
        if !named.is_empty() {
            third.push(Span::raw(", unusual: "));
            third.push(Span::styled(named.join(", "), self.theme.notable()));
        }

        let first = Line::styled(first, self.theme.bold());
        put_line(&first, Rect { width: area.width - right_width, ..line(0) }, buffer);
        put_line(&right, Rect { x: area.right() - right_width, width: right_width, ..line(0) }, buffer);
        put_line(&Line::from(second), line(1), buffer);
        put_line(&Line::from(third), line(2), buffer);
    }

    fn table(&mut self, moment: &Moment<'_>, proxies: &ProxyProcesses<'_>, area: Rect, buffer: &mut Buffer) {
        self.page = usize::from(area.height - 1);
        self.scroll_to_selected();
        let columns = fitting(area.width);
        buffer.set_style(Rect { height: 1, ..area }, self.theme.reversed());
        let mut x = area.x;
        for (column, width) in &columns {
            let mut text = column.about().heading.to_owned();
            let mut style = self.theme.reversed();
            if self.sort.column == *column {
                text.push(if self.sort.reversed { '▲' } else { '▼' });
                style = style.add_modifier(Modifier::BOLD);
            }
            let text = aligned(*column, &text, *width);
            buffer.set_stringn(x, area.y, text, usize::from(*width), style);
            x += width + 1;
        }
        let shown = self.order.iter().skip(self.first).take(self.page).enumerate();
        for (line, id) in shown {
            let Some(row) = moment.table.row(id) else { continue };
            let y = area.y + 1 + line as u16;
            let mut x = area.x;
            for (column, width) in &columns {
                let (text, style) = column.cell(row, moment, proxies, self.theme, *width);
                // What is over stands back.
                let style = if row.closed.is_some() { style.patch(self.theme.dim()) } else { style };
                buffer.set_stringn(x, y, aligned(*column, &text, *width), usize::from(*width), style);
                x += width + 1;
            }
            if self.selected.as_ref() == Some(id) {
                buffer.set_style(Rect { y, height: 1, ..area }, self.theme.reversed());
            }
        }
        if self.order.is_empty() {
            let text = if self.filter.is_empty() { "No connection yet." } else { "No connection matches the filter." };
            buffer.set_stringn(area.x, area.y + 1, text, area.width.into(), self.theme.dim());
        }
    }

    fn detail(&mut self, moment: &Moment<'_>, area: Rect, buffer: &mut Buffer) {
        let Mode::Detail(detail) = &mut self.mode else { return };
        if let Some(row) = moment.table.row(&detail.row.connection.id) {
            detail.row.clone_from(row);
        }
        let lines = detail::lines(&detail.row, moment, self.theme, &self.zone, area.width);
        let first = detail.scroll.first(lines.len(), area.height.into());
        put_lines(&lines[first..], area, buffer);
    }

    fn footer(&self, area: Rect, frame: &mut Frame<'_>) {
        if matches!(self.mode, Mode::Filter) {
            let text = format!("Filter: {}", self.filter.text());
            // The end is where one writes.
            let line = Line::raw(tail(&text, usize::from(area.width) - 1));
            let cursor = area.x + line.width() as u16;
            put_line(&line, area, frame.buffer_mut());
            frame.set_cursor_position(Position::new(cursor.min(area.right() - 1), area.y));
            return;
        }
        let keys = match &self.mode {
            Mode::Detail(_) => &DETAIL_KEYS[..],
            Mode::Help(_) => &HELP_KEYS,
            Mode::Table | Mode::Filter => &TABLE_KEYS,
        };
        let mut spans = Vec::new();
        let mut left = usize::from(area.width);
        for (key, text) in keys {
            let width = key.chars().count() + text.len() + 3;
            if width > left {
                break;
            }
            left -= width;
            spans.push(Span::styled(format!(" {key} "), self.theme.reversed()));
            spans.push(Span::raw(format!("{text} ")));
        }
        put_line(&Line::from(spans), area, frame.buffer_mut());
    }
}

/// A heading or a cell, numbers at the right.
fn aligned(column: Column, text: &str, width: u16) -> String {
    let width = usize::from(width);
    if column.is_number() { format!("{text:>width$}") } else { text.to_owned() }
}

/// The last characters of a text.
fn tail(text: &str, width: usize) -> &str {
    let from = text.chars().count().saturating_sub(width);
    text.char_indices().nth(from).map_or("", |(from, _)| &text[from..])
}

fn put_line(line: &Line<'_>, area: Rect, buffer: &mut Buffer) {
    buffer.set_line(area.x, area.y, line, area.width);
}

fn put_lines(lines: &[Line<'_>], area: Rect, buffer: &mut Buffer) {
    for (line, y) in lines.iter().zip(area.y..area.bottom()) {
        put_line(line, Rect { y, height: 1, ..area }, buffer);
    }
}

fn too_small(text: &str, area: Rect, buffer: &mut Buffer) {
    let lines = textwrap::wrap(text, usize::from(area.width).max(1));
    let lines: Vec<_> = lines.into_iter().map(Line::raw).collect();
    put_lines(&lines, area, buffer);
}

fn put(text: &mut String, more: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = text.write_fmt(more);
}
