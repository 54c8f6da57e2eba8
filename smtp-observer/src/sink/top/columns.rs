//! The table's columns: what each shows, how wide it is, and how connections are sorted by it.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::net::IpAddr;
use std::time::Duration;

use ratatui::style::Style;

use super::why::{Level, ProxyProcesses};
use super::{Moment, Theme};
use crate::observation::{Role, Timestamp};
use crate::sink::connection_table::{ConnectionState, State};
use crate::sink::escape::cut;
use crate::sink::text::Emphasis;

/// A column, in the order of their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Pid,
    User,
    Program,
    Role,
    Local,
    Peer,
    State,
    Last,
    Sent,
    Received,
    Age,
    Why,
}

/// What is fixed of a column.
pub(super) struct About {
    pub(super) heading: &'static str,
    /// The key that sorts by it.
    pub(super) key: char,
    /// The least width at which it is of use.
    least: u16,
    /// What it shows, for the help.
    pub(super) meaning: &'static str,
}

impl Column {
    pub(super) const ALL: [Self; 12] = [
        Self::Pid,
        Self::User,
        Self::Program,
        Self::Role,
        Self::Local,
        Self::Peer,
        Self::State,
        Self::Last,
        Self::Sent,
        Self::Received,
        Self::Age,
        Self::Why,
    ];

    /// Those that have to be there before others.
    const BY_IMPORTANCE: [Self; 12] = [
        Self::Program,
        Self::Why,
        Self::Peer,
        Self::Pid,
        Self::Last,
        Self::Age,
        Self::State,
        Self::User,
        Self::Sent,
        Self::Received,
        Self::Role,
        Self::Local,
    ];

    /// What is fixed of it.
    pub(super) fn about(self) -> About {
        let (heading, key, least, meaning) = match self {
            Self::Pid => ("PID", 'N', 7, "the process that uses the connection"),
            Self::User => ("USER", 'U', 8, "its user"),
            Self::Program => ("PROGRAM", 'P', 15, "its program"),
            Self::Role => ("ROLE", 'R', 6, "client: it connected; server: it accepted"),
            Self::Local => ("LOCAL", 'L', 21, "this end's address"),
            Self::Peer => ("PEER", 'E', 17, "the other end's; → a client's, ← a server's"),
            Self::State => ("STATE", 'S', 9, "how far the session is"),
            Self::Last => ("LAST", 'V', 8, "the last verb, and the reply's code"),
            Self::Sent => ("SENT", 'B', 6, "bytes sent"),
            Self::Received => ("RCVD", 'I', 6, "bytes received"),
            Self::Age => ("AGE", 'T', 5, "since the connection was opened"),
            Self::Why => ("WHY", 'W', 23, "a verdict, or the last reason or anomaly"),
        };
        About { heading, key, least, meaning }
    }

    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Pid | Self::Sent | Self::Received | Self::Age)
    }

    /// The text of its cell, no wider than that.
    pub(super) fn cell(
        self,
        row: &ConnectionState,
        moment: &Moment<'_>,
        proxies: &ProxyProcesses<'_>,
        theme: Theme,
        width: u16,
    ) -> (String, Style) {
        let process = row.owner.as_ref().map(|owner| &*owner.process);
        let width = usize::from(width);
        let plain = |text: String| (text, Style::new());
        let (text, style) = match self {
            Self::Pid => plain(process.map_or("?".into(), |process| process.pid.to_string())),
            Self::User => plain(process.map_or("?".into(), |process| {
                process.user.as_ref().map_or_else(|| process.uid.to_string(), |user| cut(user, width))
            })),
            Self::Program => {
                let style = if proxies.owns(row) { theme.interceptor() } else { theme.bold() };
                (process.map_or("?".into(), |process| cut(process.program(), width)), style)
            }
            Self::Role => plain(row.connection.role.as_str().into()),
            Self::Local => plain(row.connection.local.to_string()),
            Self::Peer => plain(format!("{} {}", arrow(row.connection.role), row.connection.remote)),
            Self::State => (
                row.state.as_str().into(),
                if matches!(row.state, State::Closed | State::Unfollowed) { theme.dim() } else { Style::new() },
            ),
            Self::Last => match row.last() {
                None => plain(String::new()),
                Some(last) => {
                    let verb = last.verb.as_deref().unwrap_or_default();
                    match last.code {
                        // The code is what has to be seen of a long verb.
                        Some(code) => {
                            let verb = cut(verb, width.saturating_sub(4));
                            let gap = if verb.is_empty() { "" } else { " " };
                            (format!("{verb}{gap}{code}"), theme.of(Emphasis::of_code(code)))
                        }
                        None => (cut(verb, width), theme.dim()),
                    }
                }
            },
            Self::Sent => plain(bytes(row, moment).map_or(String::new(), |(sent, _)| size(sent))),
            Self::Received => plain(bytes(row, moment).map_or(String::new(), |(_, received)| size(received))),
            Self::Age => plain(age(lasted(row, moment.time))),
            Self::Why => proxies.why(row, theme, width),
        };
        (cut(&text, width), style)
    }

    fn sorts<'a>(self, row: &'a ConnectionState, moment: &Moment<'_>, proxies: &ProxyProcesses<'_>) -> Key<'a> {
        let process = row.owner.as_ref().map(|owner| &*owner.process);
        match self {
            Self::Pid => Key::Number(process.map_or(0, |process| process.pid.into())),
            Self::User => {
                let user = process.and_then(|process| process.user.as_deref());
                Key::Name(user.unwrap_or_default().into(), process.map_or(0, |process| process.uid))
            }
            Self::Program => Key::Name(process.map_or("", |process| process.program()).into(), 0),
            Self::Role => Key::Name(row.connection.role.as_str().into(), 0),
            Self::Local => Key::Address(row.connection.local.address, row.connection.local.port),
            Self::Peer => Key::Address(row.connection.remote.address, row.connection.remote.port),
            Self::State => Key::State(row.state),
            Self::Last => {
                let (verb, code) = row.last().map_or((None, None), |last| (last.verb, last.code));
                Key::Name(verb.unwrap_or_default(), code.unwrap_or_default().into())
            }
            Self::Sent => Key::Most(Reverse(bytes(row, moment).map_or(0, |(sent, _)| sent))),
            Self::Received => Key::Most(Reverse(bytes(row, moment).map_or(0, |(_, received)| received))),
            Self::Age => Key::Most(Reverse(lasted(row, moment.time).as_nanos() as u64)),
            Self::Why => Key::Level(Reverse(proxies.level(row))),
        }
    }
}

/// What is compared; of two connections it is always the same kind.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Number(u64),
    Name(Cow<'a, str>, u32),
    Address(IpAddr, u16),
    State(State),
    Most(Reverse<u64>),
    Level(Reverse<Level>),
}

/// By which column, and in which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) column: Column,
    pub(super) reversed: bool,
}

impl Default for Sort {
    /// What asks most to be looked at first.
    fn default() -> Self {
        Self { column: Column::Why, reversed: false }
    }
}

impl Sort {
    /// By this column; the other way round where it is this one already.
    pub(super) fn by(&mut self, column: Column) {
        *self = Self { column, reversed: self.column == column && !self.reversed };
    }

    /// By the column so many places to the right.
    pub(super) fn turn(&mut self, places: usize) {
        let place = Column::ALL.iter().position(|column| *column == self.column).unwrap_or_default();
        *self = Self { column: Column::ALL[(place + places) % Column::ALL.len()], reversed: false };
    }

    /// Sorts connections; those that are equal, the latest one first.
    pub(super) fn sort<'a>(
        self,
        rows: impl Iterator<Item = &'a ConnectionState>,
        moment: &Moment<'_>,
        proxies: &ProxyProcesses<'_>,
    ) -> Vec<&'a ConnectionState> {
        let mut keyed: Vec<_> = rows.map(|row| (self.column.sorts(row, moment, proxies), row)).collect();
        keyed.sort_unstable_by(|(first, one), (second, other)| {
            let order = first.cmp(second);
            let order = if self.reversed { order.reverse() } else { order };
            order.then_with(|| latest(one, other))
        });
        keyed.into_iter().map(|(_, row)| row).collect()
    }
}

fn latest(one: &ConnectionState, other: &ConnectionState) -> Ordering {
    other.opened.cmp(&one.opened).then_with(|| one.connection.id.cmp(&other.connection.id))
}

/// The columns that there is room for, each with its width, blanks between them.
pub(super) fn fitting(width: u16) -> Vec<(Column, u16)> {
    let mut used = 0;
    let mut columns: Vec<(Column, u16)> = Vec::new();
    for column in Column::BY_IMPORTANCE {
        let least = column.about().least;
        let more = least + u16::from(!columns.is_empty());
        if used + more > width {
            break;
        }
        used += more;
        columns.push((column, least));
    }
    columns.sort_unstable_by_key(|(column, _)| *column as u8);
    // An IPv4 address whole, a verdict with its program, an IPv6 address, and then whatever there is.
    let mut rest = width.saturating_sub(used);
    for (wide, most) in [(Column::Peer, 23), (Column::Why, 46), (Column::Peer, 49), (Column::Why, u16::MAX)] {
        if let Some((_, width)) = columns.iter_mut().find(|(column, _)| *column == wide) {
            let more = rest.min(most - *width);
            *width += more;
            rest -= more;
        }
    }
    columns
}

/// Which way the commands go.
pub(super) fn arrow(role: Role) -> &'static str {
    match role {
        Role::Client => "→",
        Role::Server => "←",
    }
}

pub(super) fn bytes(row: &ConnectionState, moment: &Moment<'_>) -> Option<(u64, u64)> {
    row.bytes.or_else(|| (moment.bytes)(&row.connection))
}

/// How long a connection is there, or was.
pub(super) fn lasted(row: &ConnectionState, now: Timestamp) -> Duration {
    let end = row.closed.unwrap_or(now);
    end.since(row.opened)
}

/// In five characters.
fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..600 => format!("{minutes}m{:02}s", seconds % 60),
        600..3600 => format!("{minutes}m"),
        3600..36_000 => format!("{hours}h{:02}m", minutes % 60),
        36_000..86_400 => format!("{hours}h"),
        _ => format!("{}d", hours / 24),
    }
}

/// In six characters.
fn size(bytes: u64) -> String {
    if bytes < 100_000 {
        return bytes.to_string();
    }
    let units = ["k", "M", "G", "T", "P", "E"];
    let (mut value, mut unit) = (bytes as f64 / 1000.0, 0);
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if value < 99.95 { format!("{value:.1}{}", units[unit]) } else { format!("{value:.0}{}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_fit_their_columns() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (599, "9m59s"),
            (600, "10m"),
            (3600, "1h00m"),
            (35_999, "9h59m"),
            (36_000, "10h"),
            (86_400, "1d"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), expected);
        }
        for (bytes, expected) in [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100k"),
            (999_499, "999k"),
            (999_500, "1.0M"),
            (12_345_678, "12.3M"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn columns_come_by_importance_and_fill_the_line() {
        let shown =
            |width| fitting(width).into_iter().map(|(column, _)| column.about().heading).collect::<Vec<_>>().join(" ");
        assert_eq!(shown(40), "PROGRAM WHY");
        assert_eq!(shown(80), "PID PROGRAM PEER LAST AGE WHY");
        assert_eq!(shown(100), "PID USER PROGRAM PEER STATE LAST AGE WHY");
        assert_eq!(shown(142), "PID USER PROGRAM ROLE LOCAL PEER STATE LAST SENT RCVD AGE WHY");
        for width in 39..300 {
            let columns = fitting(width);
            let used: u16 = columns.iter().map(|(_, width)| width).sum::<u16>() + columns.len() as u16 - 1;
            assert_eq!(used, width);
            assert!(columns.iter().all(|(column, width)| *width >= column.about().least));
        }
    }

    #[test]
    fn each_column_has_a_key_of_its_own() {
        let mut keys = Column::ALL.map(|column| column.about().key);
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
    }
}
