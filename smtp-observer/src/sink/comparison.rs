//! What differs between the two ends of conversations, for a reader: side by side, like `diff --side-by-side`.

mod json;
mod lines;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};

pub use self::json::json;
use self::lines::{Line, lines};
use crate::compare::{By, Clocks, Compared, Conversation, Note, Outcome, Report};
use crate::observation::Role;
use crate::proxy::comparison;
use crate::sink::escape::cut;

/// Most characters of a column; all of it is in the JSON.
const WIDTH: usize = 56;

/// Most characters of a line of free text.
const NOTE_WIDTH: usize = 400;

/// Most conversations that are named of those that do not differ, and of those that one end alone saw.
const MAX_NAMED: usize = 20;

const PLAIN: Style = Style::new();
const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const RED: Style = AnsiColor::Red.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();

/// How the report is written.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// With colours.
    pub colour: bool,
}

impl Format {
    /// Writes the report: what differs, conversation by conversation, then the sum.
    pub fn write(self, report: &Report<'_>, mut out: impl Write) -> io::Result<()> {
        let outcomes: Vec<_> = report.pairs.iter().map(|pair| (pair, pair.outcome())).collect();
        let (different, alike): (Vec<_>, Vec<_>) =
            outcomes.into_iter().partition(|(_, outcome)| *outcome == Outcome::Differs);
        for (compared, _) in &different {
            self.heading(compared, &mut out)?;
            self.columns(compared, &mut out)?;
            for evidence in &compared.evidence {
                let kind = self.paint(RED, format!("{:<28}", evidence.kind.as_str()));
                writeln!(out, "  {kind} {}", cut(&evidence.detail, NOTE_WIDTH))?;
            }
            if compared.evidence.is_empty() {
                writeln!(out, "  nothing of this proves that a program is in the middle")?;
            }
            writeln!(out)?;
        }
        for (compared, outcome) in alike.iter().take(MAX_NAMED) {
            self.heading(compared, &mut out)?;
            match outcome {
                Outcome::Same => writeln!(out, "  the same was said at both ends\n")?,
                _ => writeln!(out, "  nothing differs in what both ends saw\n")?,
            }
        }
        let is_same = |(_, outcome): &&(&Compared<'_>, Outcome)| *outcome == Outcome::Same;
        let (same, more) = (alike.iter().filter(is_same).count(), alike.iter().skip(MAX_NAMED));
        let (more_same, more) = (more.clone().filter(is_same).count(), more.len());
        for (count, words) in [
            (more_same, "of which the same was said at both ends"),
            (more - more_same, "of which nothing differs in what both ends saw"),
        ] {
            if count > 0 {
                writeln!(out, "and {count} more {words}\n")?;
            }
        }
        for (role, alone) in [(Role::Client, &report.client_only), (Role::Server, &report.server_only)] {
            self.alone(role, alone, &mut out)?;
        }
        self.sum(report, different.len(), same, &mut out)
    }

    /// Whose the two ends are, and why they are taken for one conversation's.
    fn heading(self, compared: &Compared<'_>, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", self.paint(BOLD, named(compared.client)))?;
        writeln!(out, "{}", self.paint(BOLD, named(compared.server)))?;
        let by = match compared.by {
            By::Addresses => "each end is at the other's address",
            By::Upstream => {
                "the client's connection ends on its own host, in a program that has this connection to the server"
            }
            By::Envelope => "the addresses are not each other's: found by sender, recipient and time",
        };
        writeln!(out, "  {by}")?;
        compared
            .notes
            .iter()
            .try_for_each(|note| writeln!(out, "  {}", self.paint(YELLOW, note_text(*note).to_owned())))
    }

    fn columns(self, compared: &Compared<'_>, out: &mut impl Write) -> io::Result<()> {
        let rows = compared.rows();
        let lines = lines(&rows);
        let width = |line: &Line| cut(&line.client, WIDTH).chars().count();
        let width = lines.iter().map(width).max().unwrap_or_default().max("the client's end".len());
        writeln!(out)?;
        writeln!(out, "  {}", self.paint(DIM, format!("{:<width$}     the server's end", "the client's end")))?;
        for Line { mark, client, server } in &lines {
            let line = format!("  {:<width$}  {mark}  {}", cut(client, WIDTH), cut(server, WIDTH));
            let style = if *mark == ' ' { PLAIN } else { YELLOW };
            writeln!(out, "{}", self.paint(style, line.trim_end().to_owned()))?;
        }
        writeln!(out)
    }

    /// Conversations that the other end did not see.
    fn alone(self, role: Role, conversations: &[&Conversation], out: &mut impl Write) -> io::Result<()> {
        for conversation in conversations.iter().take(MAX_NAMED) {
            writeln!(out, "{}", self.paint(BOLD, named(conversation)))?;
            writeln!(out, "  seen at the {}'s end alone", role.as_str())?;
        }
        match conversations.len().saturating_sub(MAX_NAMED) {
            0 if conversations.is_empty() => Ok(()),
            0 => writeln!(out),
            more => writeln!(out, "and {more} more at the {}'s end alone\n", role.as_str()),
        }
    }

    fn sum(self, report: &Report<'_>, different: usize, same: usize, out: &mut impl Write) -> io::Result<()> {
        let seen = report.pairs.len();
        let outcome = match different {
            0 if seen == 0 => String::new(),
            0 if seen == same => ": nothing differs".to_owned(),
            0 => ": nothing differs in what both ends saw".to_owned(),
            1 => ": 1 differs".to_owned(),
            more => format!(": {more} differ"),
        };
        let sum = format!("{} at both ends{outcome}", were_seen(seen));
        writeln!(out, "{}", self.paint(if different > 0 { RED } else { BOLD }, sum))?;
        for (alone, role) in [(report.client_only.len(), Role::Client), (report.server_only.len(), Role::Server)] {
            if alone > 0 {
                writeln!(out, "{} at the {}'s end alone", were_seen(alone), role.as_str())?;
            }
        }
        match report.with_others {
            [0, 0] => {}
            [client, server] => {
                writeln!(out, "with others than each other: {client} at the client's end, {server} at the server's")?;
            }
        }
        if seen > 0 {
            writeln!(out, "{}", clocks(report.clocks))?;
        }
        let mut kinds: BTreeMap<_, usize> = BTreeMap::new();
        for evidence in report.pairs.iter().flat_map(|compared| &compared.evidence) {
            *kinds.entry(evidence.kind).or_default() += 1;
        }
        if !kinds.is_empty() {
            let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{} {count}", kind.as_str())).collect();
            writeln!(out, "evidence: {}", kinds.join(", "))?;
        }
        Ok(())
    }

    fn paint(self, style: Style, text: String) -> String {
        if self.colour && style != PLAIN { format!("{style}{text}{style:#}") } else { text }
    }
}

/// `10.77.0.1:43044 → 10.77.0.2:25, mail-client (pid 5)`.
fn named(conversation: &Conversation) -> String {
    let connection = &conversation.connection;
    let arrow = if connection.role == Role::Client { "→" } else { "←" };
    let process = conversation.process.as_ref().map_or_else(
        || "a process that is not known".to_owned(),
        |process| format!("{} (pid {})", cut(process.program(), WIDTH), process.pid),
    );
    format!("{} {arrow} {}, {process}", connection.local, connection.remote)
}

fn were_seen(number: usize) -> String {
    match number {
        1 => "1 conversation was seen".to_owned(),
        number => format!("{number} conversations were seen"),
    }
}

fn clocks(clocks: Option<Clocks>) -> String {
    let Some(Clocks { ahead, within }) = clocks else {
        return "how the hosts' clocks stand is not known: they are taken for equal".to_owned();
    };
    let apart = Duration::from_nanos(ahead.unsigned_abs());
    let way = if ahead < 0 { "behind" } else { "ahead of" };
    match apart <= within {
        true => format!("the hosts' clocks are alike, within {}", span(within)),
        false => format!("the server's clock is {} {way} the client's, within {}", span(apart), span(within)),
    }
}

/// A duration that may be long, rounded to its last unit: two clocks that are set 7 minutes apart are measured a microsecond
/// less or more.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let (whole_seconds, whole_minutes) = (seconds.round() as u64, (seconds / 60.0).round() as u64);
    match seconds {
        ..59.95 => comparison::seconds(duration),
        ..3599.5 => format!("{} min {} s", whole_seconds / 60, whole_seconds % 60),
        _ => format!("{} h {} min", whole_minutes / 60, whole_minutes % 60),
    }
}

fn note_text(note: Note) -> &'static str {
    match note {
        Note::GapAtClient => "not all of the client's end was seen: what is missing there may have been said",
        Note::GapAtServer => "not all of the server's end was seen: what is missing there may have been said",
        Note::ClientFromMiddle => "the client's end was seen from its middle",
        Note::ServerFromMiddle => "the server's end was seen from its middle",
        Note::Encrypted => "what follows is under TLS",
        Note::EncryptedAtClient => "the client speaks TLS, and the server does not hear any: it ends on the way",
        Note::DomainsAlone => {
            "mailboxes are not shown whole: another mail between the same domains may have been taken for it"
        }
        Note::EncryptedAtServer => "the server speaks TLS, and the client did not begin any: it begins on the way",
    }
}

#[cfg(test)]
mod tests;
