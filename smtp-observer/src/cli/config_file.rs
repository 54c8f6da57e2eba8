//! The configuration file.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use ipnet::IpNet;
use toml::{Spanned, Value};

use super::file_name::{Destination, new_recording};
use super::{ObserveArgs, Ports, RingSize, parse_duration, parse_host_name, parse_listen, parse_network};
use crate::kernel::{Hooks, Tls};
use crate::redact::Addresses;
use crate::sink::reason;

/// The configuration file. Its keys are the options' names, and its values are written as on the command line.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) port: Option<Ports>,
    pub(super) hooks: Option<Hooks>,
    pub(super) tls: Option<Tls>,
    pub(super) addresses: Option<Addresses>,
    pub(super) service_address: Vec<IpNet>,
    pub(super) ring_size: Option<RingSize>,
    pub(super) record: Option<PathBuf>,
    pub(super) user: Option<String>,
    pub(super) verbose: Option<u8>,
    pub(super) events: Option<Destination>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) web_config_file: Option<PathBuf>,
    pub(super) allowed_host: Vec<String>,
    pub(super) duration: Option<Duration>,
}

impl File {
    pub(super) fn of(args: &ObserveArgs) -> Result<Self, ConfigError> {
        match &args.config {
            Some(path) => Self::read(path),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let wrong = |place: Range<usize>, message| ConfigError::Invalid {
            path: path.to_owned(),
            line: text[..place.start].matches('\n').count() + 1,
            message,
        };
        let entries: BTreeMap<Spanned<String>, Spanned<Value>> = toml::from_str(&text)
            .map_err(|error| wrong(error.span().unwrap_or_default(), error.message().replace('\n', ": ")))?;
        let mut entries: Vec<_> =
            entries.into_iter().map(|(key, value)| (key.span(), key.into_inner(), value)).collect();
        entries.sort_unstable_by_key(|(place, ..)| place.start);
        let mut file = Self::default();
        for (place, key, value) in entries {
            file.set(&key, value.into_inner()).map_err(|why| wrong(place, why))?;
        }
        Ok(file)
    }

    fn set(&mut self, key: &str, value: Value) -> Result<(), String> {
        let set = || -> Result<(), String> {
            match key {
                "port" => self.port = Some(texts(value)?.join(",").parse().map_err(in_words)?),
                "hooks" => self.hooks = Some(choice(&text(value)?)?),
                "tls" => self.tls = Some(choice(&text(value)?)?),
                "addresses" => self.addresses = Some(choice(&text(value)?)?),
                "service-address" => self.service_address = items(value, parse_network)?,
                "ring-size" => self.ring_size = Some(text(value)?.parse().map_err(in_words)?),
                "record" => self.record = Some(new_recording(name(value)?.into()).map_err(in_words)?),
                "user" => self.user = Some(text(value)?),
                "verbose" => self.verbose = Some(times(&text(value)?)?),
                "events" => self.events = Some(name(value)?.parse().map_err(in_words)?),
                "listen" => self.listen = Some(parse_listen(&text(value)?)?),
                "web-config-file" => self.web_config_file = Some(name(value)?.into()),
                "allowed-host" => self.allowed_host = items(value, |text| parse_host_name(text.trim()))?,
                "duration" => self.duration = Some(parse_duration(&text(value)?)?),
                _ => return Err(format!("no option of the file has this name: there are {}", KEYS.join(", "))),
            }
            Ok(())
        };
        set().map_err(|why| format!("`{key}`: {why}"))
    }
}

/// The keys that there are.
const KEYS: [&str; 14] = [
    "port",
    "hooks",
    "tls",
    "addresses",
    "service-address",
    "ring-size",
    "record",
    "user",
    "verbose",
    "events",
    "listen",
    "web-config-file",
    "allowed-host",
    "duration",
];

/// The configuration file is of no use. Exit status 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {}: {}. Give another with --config FILE.", path.display(), reason(source))]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML, or a key or a value is wrong.
    #[error("the configuration {} is wrong in line {line}: {message}.", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What is wrong, naming the key.
        message: String,
    },
}

fn in_words(error: impl std::error::Error) -> String {
    error.to_string()
}

/// A text, or a number as a text.
fn text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Ok(number.to_string()),
        other => Err(format!("a text is needed here, and not a TOML {}", other.type_str())),
    }
}

/// A text, or each of a list.
fn texts(value: Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(values) => values.into_iter().map(text).collect(),
        one => Ok(vec![text(one)?]),
    }
}

/// A file's name: a number is none.
fn name(value: Value) -> Result<String, String> {
    match value {
        Value::String(name) => Ok(name),
        other => Err(format!("a file's name is needed here, in quotes, and not a TOML {}", other.type_str())),
    }
}

/// One of the values that the option has.
fn choice<T: ValueEnum>(text: &str) -> Result<T, String> {
    let names =
        || T::value_variants().iter().filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()));
    T::from_str(text, false).map_err(|_| format!("`{text}` is none of {}", names().collect::<Vec<_>>().join(", ")))
}

/// How often `--verbose` would be given.
fn times(text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| format!("`{text}` is not how often `--verbose` would be given: write 0, 1 or 2"))
}

/// A list, or one text with commas as on the command line.
fn items<T>(value: Value, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    texts(value)?.iter().flat_map(|text| text.split(',')).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A boolean is no value of any: that is what is told, and not that there is no such key.
    #[test]
    fn each_key_is_known() {
        for key in KEYS {
            let error = File::default().set(key, Value::Boolean(true)).expect_err("no text");
            assert!(error.contains("not a TOML boolean"), "{error}");
        }
    }
}
