//! The state of the view: what is sorted, filtered, selected, opened, paused.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::columns::Sort;
use super::filter::Filter;
use super::keys::{Move, step};
use super::why::ProxyProcesses;
use super::{Moment, Theme};
use crate::observation::Timestamp;
use crate::sink::connection_table::{ConnectionState, ConnectionTable};

/// What the table looks like, whatever is in it.
#[derive(Debug)]
pub struct View {
    /// What is observed.
    pub(super) title: String,
    pub(super) theme: Theme,
    /// The zone of the times.
    pub(super) zone: TimeZone,
    pub(super) mode: Mode,
    pub(super) sort: Sort,
    pub(super) filter: Filter,
    /// Nothing is, until a key selects: then the table does not move by itself.
    pub(super) selected: Option<Arc<str>>,
    /// Where the selected connection was shown last.
    pub(super) place: usize,
    /// The connections that are listed, as they were drawn last.
    pub(super) order: Vec<Arc<str>>,
    /// Which of them is in the first line.
    pub(super) first: usize,
    /// Lines there are for them.
    pub(super) page: usize,
    pub(super) paused: Option<Box<Still>>,
}

/// What fills the screen.
#[derive(Debug)]
pub(super) enum Mode {
    Table,
    /// The table, and keys are the filter's text.
    Filter,
    /// A connection.
    Detail(Box<Detail>),
    /// The keys, from this line on.
    Help(usize),
}

/// A connection that is shown by itself.
#[derive(Debug)]
pub(super) struct Detail {
    /// What was known of it last: it may be forgotten meanwhile.
    pub(super) row: ConnectionState,
    pub(super) scroll: Scroll,
}

/// Which lines of a text are shown.
#[derive(Debug, Default)]
pub(super) struct Scroll {
    /// The first line; the end is followed without one.
    first: Option<usize>,
    /// Of the last drawing: the first line that was shown, the last one that may be, and how many there is room for.
    shown: usize,
    last: usize,
    page: usize,
}

/// What is shown while the display is stopped.
#[derive(Debug)]
pub(super) struct Still {
    pub(super) time: Timestamp,
    pub(super) table: ConnectionTable,
    pub(super) lost: u64,
}

impl View {
    /// A table of what is observed, named by the title.
    pub fn new(title: String, theme: Theme, zone: TimeZone) -> Self {
        Self {
            title,
            theme,
            zone,
            mode: Mode::Table,
            sort: Sort::default(),
            filter: Filter::default(),
            selected: None,
            place: 0,
            order: Vec::new(),
            first: 0,
            page: 0,
            paused: None,
        }
    }

    /// The display stands still.
    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    pub(super) fn pause(&mut self, moment: &Moment<'_>) {
        self.paused = match self.paused.take() {
            Some(_) => None,
            None => {
                Some(Box::new(Still { time: moment.time, table: moment.table.still(moment.bytes), lost: moment.lost }))
            }
        };
    }

    /// Lists the connections, in their order, and finds the selected one again.
    pub(super) fn arrange(&mut self, moment: &Moment<'_>, proxies: &ProxyProcesses<'_>) {
        let rows = moment.table.rows().filter(|row| self.filter.is_empty() || self.filter.admits(row, proxies));
        let sorted = self.sort.sort(rows, moment, proxies);
        self.order.clear();
        self.order.extend(sorted.into_iter().map(|row| Arc::clone(&row.connection.id)));
        if let Some(selected) = &self.selected {
            match self.order.iter().position(|id| id == selected) {
                Some(place) => self.place = place,
                // It is gone: what has come to its place is next.
                None => self.take(self.place.min(self.order.len().saturating_sub(1))),
            }
        }
    }

    /// Has the selected connection among those that are shown.
    pub(super) fn scroll_to_selected(&mut self) {
        if self.selected.is_some() {
            self.first = self.first.min(self.place).max((self.place + 1).saturating_sub(self.page));
        }
        self.first = self.first.min(self.order.len().saturating_sub(self.page));
    }

    pub(super) fn select(&mut self, movement: Move) {
        let last = self.order.len().saturating_sub(1);
        let place = match (&self.selected, movement) {
            (None, Move::Lines(_)) => self.first,
            (None, movement) => step(self.first, movement, last, self.page),
            (Some(_), movement) => step(self.place, movement, last, self.page),
        };
        self.take(place);
    }

    fn take(&mut self, place: usize) {
        self.place = place;
        self.selected = self.order.get(place).cloned();
    }
}

impl Detail {
    pub(super) fn of(row: &ConnectionState) -> Self {
        // Who is in the middle comes before the dialogue.
        let first = row.interception.is_some().then_some(0);
        Self { row: row.clone(), scroll: Scroll { first, ..Scroll::default() } }
    }
}

impl Scroll {
    pub(super) fn go(&mut self, movement: Move) {
        let first = step(self.shown, movement, self.last, self.page);
        self.first = (first < self.last || self.last == 0).then_some(first);
        if self.last == 0 {
            // All of it fits: what comes is followed.
            self.first = None;
        }
        self.shown = first;
    }

    /// The first line to show of so many, where there is room for `page`.
    pub(super) fn first(&mut self, lines: usize, page: usize) -> usize {
        self.last = lines.saturating_sub(page);
        self.page = page;
        self.shown = self.first.map_or(self.last, |first| first.min(self.last));
        self.shown
    }
}

impl Still {
    pub(super) fn moment(&self) -> Moment<'_> {
        Moment { time: self.time, table: &self.table, bytes: &|_| None, lost: self.lost }
    }
}
