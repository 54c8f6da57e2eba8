//! The lines of the two columns.

use std::time::Duration;

use crate::compare::{Mark, Row, Turn};
use crate::proxy::comparison::seconds;
use crate::proxy::dialogue::{Said, Step};

/// A command that arrives so long after it was sent was held back: no way to a server is as long.
const NOTABLE: Duration = Duration::from_millis(250);

/// Most lines of a reply that are shown.
const MAX_LINES: usize = 24;

/// A line of both columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// `|` where they differ, `<` or `>` where one end alone saw it, `?` where the other could not see.
    pub(super) mark: char,
    pub(super) client: String,
    pub(super) server: String,
}

/// All rows; what is said again and again at one end is counted.
pub(super) fn lines(rows: &[Row<'_>]) -> Vec<Line> {
    let mut blocks: Vec<(Vec<Line>, usize)> = Vec::new();
    for row in rows {
        let block = block(row);
        match blocks.last_mut() {
            Some((before, times)) if *before == block && row.client.is_some() != row.server.is_some() => *times += 1,
            _ => blocks.push((block, 1)),
        }
    }
    let counted = |(mut block, times): (Vec<Line>, usize)| {
        if let (Some(first), 2..) = (block.first_mut(), times) {
            let said = if first.mark == '<' || first.server.is_empty() { &mut first.client } else { &mut first.server };
            said.push_str(&format!("  × {times}"));
        }
        block
    };
    blocks.into_iter().flat_map(counted).collect()
}

/// The lines of one row.
fn block(row: &Row<'_>) -> Vec<Line> {
    let mut block = Block { mark: row.mark, lines: Vec::new() };
    let [client, server] =
        [row.client, row.server].map(|turn| turn.and_then(|turn| turn.step.map(|step| (turn, step))));
    let command = |(turn, step): (Turn<'_>, &Step)| match turn.argument {
        Some(argument) => format!("{} {argument}", step.verb),
        None => step.verb.to_string(),
    };
    if client.is_some() || server.is_some() {
        block.push(client.map(command), server.map(command));
        if let (Some(line), Some(delay)) = (block.lines.last_mut(), row.delay)
            && delay >= NOTABLE
        {
            line.server.push_str(&format!(", {} later", seconds(delay)));
        }
    }
    let is_list = |turn: Option<(Turn<'_>, &Step)>| turn.is_some_and(|(_, step)| step.extensions().is_some());
    let indent = if client.is_some() || server.is_some() { "  " } else { "" };
    let [heard, said] = [row.client, row.server].map(|turn| turn.and_then(|turn| turn.reply));
    block.reply(indent, heard, said, is_list(client) && is_list(server));
    let [sent, got] = [client, server].map(|turn| turn.and_then(|(_, step)| step.content.as_ref()));
    if sent.is_some() || got.is_some() {
        let size = |size: Option<u64>| match size {
            Some(size) => format!("  … {size} bytes"),
            None => "  …".to_owned(),
        };
        block.push(sent.map(|content| size(content.size)), got.map(|content| size(content.size)));
        let [heard, said] = [sent, got].map(|content| content.and_then(|content| content.reply.as_ref()));
        block.reply("  ", heard, said, false);
    }
    block.lines
}

struct Block {
    mark: Mark,
    lines: Vec<Line>,
}

impl Block {
    fn push(&mut self, client: Option<String>, server: Option<String>) {
        let mark = match (&client, &server, self.mark) {
            (Some(client), Some(server), _) if client == server => ' ',
            (Some(_), Some(_), _) => '|',
            (_, _, Mark::Unknown) => '?',
            (Some(_), None, _) => '<',
            (None, Some(_), _) => '>',
            (None, None, _) => return,
        };
        let [client, server] = [client, server].map(Option::unwrap_or_default);
        self.lines.push(Line { mark, client, server });
    }

    /// Line by line; of lists of extensions the same ones side by side.
    fn reply(&mut self, indent: &str, heard: Option<&Said>, said: Option<&Said>, is_list: bool) {
        let [client, server] = [heard, said].map(|said| said.map_or_else(Vec::new, |said| reply_lines(indent, said)));
        let mut client: Vec<Option<String>> = client.into_iter().map(Some).collect();
        let mut next = 0;
        for (place, server) in server.into_iter().enumerate() {
            let is_same = |line: &Option<String>| line.as_deref().is_some_and(|line| keyword(line) == keyword(&server));
            let counterpart = match is_list && place > 0 {
                true => client.iter().skip(1).position(is_same).map(|place| place + 1),
                false => (next < client.len()).then_some(next),
            };
            next = place + 1;
            let counterpart = counterpart.and_then(|place| client.get_mut(place)).and_then(Option::take);
            self.push(counterpart, Some(server));
        }
        client.into_iter().flatten().for_each(|rest| self.push(Some(rest), None));
    }
}

/// Each line with the code.
fn reply_lines(indent: &str, said: &Said) -> Vec<String> {
    let lines = said.text.lines().take(MAX_LINES).map(|line| format!("{indent}{} {line}", said.code));
    let lines: Vec<_> = lines.map(|line| line.trim_end().to_owned()).collect();
    if lines.is_empty() { vec![format!("{indent}{}", said.code)] } else { lines }
}

/// The extension that a line of the reply to EHLO names.
fn keyword(line: &str) -> String {
    let word = line.trim_start().split([' ', '=']).nth(1);
    word.unwrap_or_default().to_ascii_uppercase()
}
