//! The configuration file.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{self, Deserialize, Deserializer};

use super::file_name::{Destination, new_recording};
use super::{ObserveArgs, Ports, RingSize, parse_duration, parse_host_name, parse_network};
use crate::kernel::{Hooks, Tls};
use crate::redact::Addresses;
use crate::sink::reason;

/// The configuration file. Its keys are the options' names.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) port: Option<Ports>,
    pub(super) hooks: Option<Hooks>,
    pub(super) tls: Option<Tls>,
    pub(super) addresses: Option<Addresses>,
    #[serde(rename = "service-address", default, deserialize_with = "networks")]
    pub(super) service_address: Vec<IpNet>,
    #[serde(rename = "ring-size")]
    pub(super) ring_size: Option<RingSize>,
    #[serde(default, deserialize_with = "record")]
    pub(super) record: Option<PathBuf>,
    #[serde(default, deserialize_with = "user")]
    pub(super) user: Option<String>,
    pub(super) verbose: Option<u8>,
    pub(super) events: Option<Destination>,
    pub(super) listen: Option<SocketAddr>,
    #[serde(rename = "web-config-file")]
    pub(super) web_config_file: Option<PathBuf>,
    #[serde(rename = "allowed-host", default, deserialize_with = "host_names")]
    pub(super) allowed_host: Vec<String>,
    #[serde(default, deserialize_with = "duration")]
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
        toml::from_str(&text).map_err(|error| ConfigError::Invalid {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1),
            message: error.message().replace('\n', ": "),
        })
    }
}

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

/// What [`parse_network`] takes.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    items(deserializer, parse_network)
}

fn host_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    items(deserializer, |text| parse_host_name(text.trim()))
}

/// A list, or one text with commas as on the command line.
fn items<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged, expecting = "a text, or a list of texts")]
    enum Items {
        Text(String),
        List(Vec<String>),
    }

    let texts = match Items::deserialize(deserializer)? {
        Items::Text(text) => text.split(',').map(str::to_owned).collect(),
        Items::List(texts) => texts,
    };
    texts.iter().map(|text| parse(text).map_err(de::Error::custom)).collect()
}

fn user<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged, expecting = "a user's name or number")]
    enum User {
        Name(String),
        Number(u32),
    }

    Ok(Some(match User::deserialize(deserializer)? {
        User::Name(name) => name,
        User::Number(number) => number.to_string(),
    }))
}

fn record<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    new_recording(PathBuf::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map(Some).map_err(de::Error::custom)
}
