//! Which ports are SMTP's.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// SMTP's port (RFC 5321, 4.5.4.2).
const DEFAULT_PORT: u16 = 25;

/// A set of ports: at least one, none twice, none 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(Vec<u16>);

impl Ports {
    fn new(ports: impl IntoIterator<Item = u16>) -> Result<Self, PortsError> {
        let mut known = BTreeSet::new();
        let mut list = Vec::new();
        for port in ports {
            if port == 0 {
                return Err(PortsError::Zero);
            }
            if !known.insert(port) {
                return Err(PortsError::Twice(port));
            }
            list.push(port);
        }
        Ok(Self(list))
    }

    /// The ports in the order given.
    pub fn as_slice(&self) -> &[u16] {
        &self.0
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self(vec![DEFAULT_PORT])
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, port) in self.0.iter().enumerate() {
            write!(f, "{}{port}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Ports {
    type Err = PortsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(PortsError::None);
        }
        let port = |text: &str| text.trim().parse().map_err(|_| PortsError::NotAPort(text.to_owned()));
        Self::new(text.split(',').map(port).collect::<Result<Vec<u16>, _>>()?)
    }
}

/// A list of ports that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// Not a number from 1 to 65535.
    #[error("`{0}` is not a port: ports are numbers from 1 to 65535, separated by commas")]
    NotAPort(String),
    /// Port 0 means "any" to the kernel.
    #[error("port 0 is no connection's port")]
    Zero,
    /// The same one again.
    #[error("port {0} is given twice")]
    Twice(u16),
    /// An empty list.
    #[error("at least one port is needed")]
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let parse = |text: &str| text.parse::<Ports>();
        assert_eq!(parse("25"), Ok(Ports(vec![25])));
        assert_eq!(parse("25,587, 2525"), Ok(Ports(vec![25, 587, 2525])));
        assert_eq!(parse("0"), Err(PortsError::Zero));
        assert_eq!(parse("25,25"), Err(PortsError::Twice(25)));
        assert_eq!(parse(""), Err(PortsError::None));
        for text in ["25,", "smtp", "-1", "65536", "25;587"] {
            assert!(matches!(parse(text), Err(PortsError::NotAPort(_))), "{text}");
        }
    }
}
