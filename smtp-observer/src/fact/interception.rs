//! What is in the middle of a conversation.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::identity::{Caller, Endpoint};
use crate::names::{EvidenceKind, Method, Verdict};
use crate::timestamp::optional_seconds;

/// What is in the middle of a client's conversation, and how that is known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interception {
    /// What it is.
    pub verdict: Verdict,
    /// How the client's connection came to it.
    pub method: Method,
    /// The process in the middle; absent where it is on another host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interceptor: Option<Caller>,
    /// A product that is known to speak as the program in the middle does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<&'static str>,
    /// The client.
    pub client: InterceptedClient,
    /// The connection that it goes on with; absent where that was not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// How sure the verdict is, from 0 to 1.
    pub confidence: f64,
    /// What leads to it.
    pub evidence: Vec<Evidence>,
    /// From the client's DATA to the DATA that the server got.
    #[serde(
        rename = "data_delay_seconds",
        serialize_with = "optional_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub hold: Option<Duration>,
    /// What was not told before of this conversation.
    #[serde(skip)]
    pub news: News,
}

/// What an [`Interception`] tells for the first time of its conversation, so that it is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// That the client does not know of what is in the middle.
    pub hidden: bool,
    /// That it is so by now, and was not by what was told last.
    pub appears: bool,
    /// That it is not so by now, and was by what was told last.
    pub withdrawn: bool,
    /// That the client is led to another server than it asked for.
    pub redirected: bool,
    /// How long DATA was held back.
    pub hold: bool,
}

impl News {
    /// What is news beside what was told before.
    pub(crate) fn since(self, told: Self) -> Self {
        Self {
            hidden: self.hidden && !told.hidden,
            redirected: self.redirected && !told.redirected,
            hold: self.hold && !told.hold,
            ..self
        }
    }

    /// What was told in the one or the other.
    pub(crate) fn and(self, told: Self) -> Self {
        Self {
            hidden: self.hidden || told.hidden,
            redirected: self.redirected || told.redirected,
            hold: self.hold || told.hold,
            ..self
        }
    }
}

/// The client of an intercepted conversation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterceptedClient {
    /// Its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Caller>,
    /// Its connection.
    pub connection_id: Arc<str>,
    /// The server that it asked for.
    pub requested: Endpoint,
}

/// The other connection of a process in the middle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Upstream {
    /// Its identifier.
    pub connection_id: Arc<str>,
    /// Where it leads.
    pub remote: Endpoint,
    /// The server sees the client's own address.
    pub source_preserved: bool,
}

/// A piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// What it is.
    pub kind: EvidenceKind,
    /// What was seen.
    pub detail: String,
}
