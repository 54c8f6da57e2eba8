//! A name by which the agent is asked for.

use std::str::FromStr;

/// A host's name (RFC 1123, 2.1): labels of letters, digits and hyphens, and of underscores, which some networks use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostName(String);

/// Not the name of a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no host's name: write it without scheme and port, like `observer.example`")]
pub(super) struct NotAHostName(String);

impl FromStr for HostName {
    type Err = NotAHostName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_label = |label: &str| {
            let takes = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
            (1..=63).contains(&label.len()) && label.chars().all(takes)
        };
        match text.len() <= 253 && text.split('.').all(is_label) {
            true => Ok(Self(text.to_owned())),
            false => Err(NotAHostName(text.to_owned())),
        }
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_and_nothing_else() {
        for name in ["observer", "observer.example", "mx_1.mail-server.example", "192.0.2.1"] {
            assert_eq!(name.parse(), Ok(HostName(name.into())));
        }
        for text in ["", "bad host", "a..b", ".a", "http://a", "a:9725", "[::1]", "bücher.example", &"a".repeat(64)] {
            assert_eq!(text.parse::<HostName>(), Err(NotAHostName(text.into())));
        }
    }
}
