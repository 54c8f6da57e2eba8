//! What the keys, the columns and the colours are.

use ratatui::text::{Line, Span};

use super::Theme;
use super::columns::{About, Column};
use super::keys::KEYS;

/// All lines.
pub(super) fn lines(theme: Theme) -> Vec<Line<'static>> {
    let pair = |name: Span<'static>, text: &'static str| Line::from(vec![name, Span::raw(text)]);
    let mut lines = vec![Line::styled("Keys", theme.bold())];
    lines.extend(KEYS.iter().map(|(key, text)| pair(Span::raw(format!("  {key:<24}")), text)));
    lines.push(Line::default());
    lines.push(Line::styled("Columns, each with the letter that sorts by it; wider terminals show more", theme.bold()));
    lines.extend(Column::ALL.iter().map(|column| {
        let About { heading, key, meaning, .. } = column.about();
        pair(Span::raw(format!("  {key}  {heading:<21}")), meaning)
    }));
    lines.push(Line::default());
    lines.push(Line::styled("WHY, by how much it asks to be looked at", theme.bold()));
    lines.extend(
        [
            ("interceptor", theme.interceptor(), "a program that the client knows nothing of, and its doings"),
            ("anomaly", theme.bad(), "a peer broke the protocol, or refused the mail"),
            ("unusual", theme.notable(), "rare: a reset that was not between mails, a suspicion"),
            ("known", theme.plain_news(), "a proxy or relay that the client chose"),
            ("delivered", theme.good(), "the server took the mail"),
        ]
        .map(|(name, style, text)| pair(Span::styled(format!("  {name:<24}"), style), text)),
    );
    lines
}
