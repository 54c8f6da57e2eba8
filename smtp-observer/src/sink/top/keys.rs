//! What the keys do to the view.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::Moment;
use super::columns::Column;
use super::view::{Detail, Mode, View};

/// What a key asks for that the view cannot do itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To end.
    Quit,
    /// To have all drawn anew.
    Redraw,
    /// To stop until the shell lets it go on.
    Suspend,
}

/// What the keys are, for the help and the footer.
pub(super) const KEYS: [(&str, &str); 12] = [
    ("↑ ↓ PgUp PgDn Home End", "select a connection; or j, k, g, G"),
    ("Enter", "what is known of it: owner, chain, evidence, dialogue"),
    ("< >", "sort by the column to the left, to the right; or F6"),
    ("a column's letter", "sort by it; again: the other way round"),
    ("r", "sort the other way round"),
    ("/", "show only connections with these words; or F4"),
    ("", "Enter keeps the words, Esc drops them"),
    ("Space", "stop the display, and let it go on; nothing is missed"),
    ("Ctrl-L", "draw everything anew"),
    ("Ctrl-Z", "to the shell; `fg` comes back"),
    ("? F1", "this help"),
    ("q Esc Ctrl-C", "back, and from the table to the end; or F10"),
];

/// How far a movement goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Lines(isize),
    Pages(isize),
    First,
    Last,
}

impl View {
    /// Takes a key. What is paused is what was there at `moment`.
    pub fn key(&mut self, key: KeyEvent, moment: &Moment<'_>) -> Option<Wish> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return Some(Wish::Quit),
                KeyCode::Char('l') => return Some(Wish::Redraw),
                KeyCode::Char('z') => return Some(Wish::Suspend),
                KeyCode::Char('u') if matches!(self.mode, Mode::Filter) => self.filter.clear(),
                // Others mean nothing, and are no text either.
                _ => (),
            }
            return None;
        }
        if matches!(self.mode, Mode::Filter) {
            self.filter_key(key.code);
            return None;
        }
        if let Some(movement) = movement(key.code) {
            self.go(movement);
            return None;
        }
        match (&self.mode, key.code) {
            (Mode::Help(_), KeyCode::Char('?' | 'q') | KeyCode::F(1 | 10) | KeyCode::Esc | KeyCode::Enter) => {
                self.mode = Mode::Table;
            }
            (Mode::Help(_), _) => (),
            (_, KeyCode::Char(' ')) => self.pause(moment),
            (Mode::Detail(_), KeyCode::Char('q') | KeyCode::Esc | KeyCode::Enter | KeyCode::Left | KeyCode::F(10)) => {
                self.mode = Mode::Table;
            }
            (_, KeyCode::Char('?') | KeyCode::F(1)) => self.mode = Mode::Help(0),
            (Mode::Detail(_), _) => (),
            (_, KeyCode::Char('q') | KeyCode::Esc | KeyCode::F(10)) => return Some(Wish::Quit),
            (_, KeyCode::Enter | KeyCode::Right) => self.open(moment),
            (_, KeyCode::Char('/') | KeyCode::F(4)) => self.mode = Mode::Filter,
            (_, KeyCode::Char('>') | KeyCode::F(6)) => self.sort.turn(1),
            (_, KeyCode::Char('<')) => self.sort.turn(Column::ALL.len() - 1),
            (_, KeyCode::Char('r')) => self.sort.reversed = !self.sort.reversed,
            (_, KeyCode::Char(letter)) => {
                if let Some(column) = Column::ALL.into_iter().find(|column| column.about().key == letter) {
                    self.sort.by(column);
                }
            }
            _ => (),
        }
        None
    }

    fn filter_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(character) => self.filter.push(character),
            KeyCode::Backspace => self.filter.pop(),
            KeyCode::Enter => self.mode = Mode::Table,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Table;
            }
            KeyCode::Up => self.go(Move::Lines(-1)),
            KeyCode::Down => self.go(Move::Lines(1)),
            _ => (),
        }
    }

    fn go(&mut self, movement: Move) {
        match &mut self.mode {
            Mode::Table | Mode::Filter => self.select(movement),
            Mode::Detail(detail) => detail.scroll.go(movement),
            Mode::Help(first) => *first = step(*first, movement, usize::MAX, self.page),
        }
    }

    fn open(&mut self, moment: &Moment<'_>) {
        if self.selected.is_none() {
            self.select(Move::Lines(1));
        }
        let table = self.paused.as_ref().map_or(moment.table, |still| &still.table);
        if let Some(row) = self.selected.as_ref().and_then(|id| table.row(id)) {
            self.mode = Mode::Detail(Box::new(Detail::of(row)));
        }
    }
}

fn movement(code: KeyCode) -> Option<Move> {
    Some(match code {
        KeyCode::Up | KeyCode::Char('k') => Move::Lines(-1),
        KeyCode::Down | KeyCode::Char('j') => Move::Lines(1),
        KeyCode::PageUp => Move::Pages(-1),
        KeyCode::PageDown => Move::Pages(1),
        KeyCode::Home | KeyCode::Char('g') => Move::First,
        KeyCode::End | KeyCode::Char('G') => Move::Last,
        _ => return None,
    })
}

/// Where a movement leads from a place, at most to the last one.
pub(super) fn step(from: usize, movement: Move, last: usize, page: usize) -> usize {
    let by = match movement {
        Move::Lines(lines) => lines,
        Move::Pages(pages) => pages.saturating_mul(page.max(1) as isize),
        Move::First => return 0,
        Move::Last => return last,
    };
    from.saturating_add_signed(by).min(last)
}
