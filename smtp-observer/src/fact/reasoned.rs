//! Why a command was sent.

use std::time::Duration;

use serde::Serialize;

use super::evidence::EvidenceList;
use super::words;
use crate::timestamp::optional_seconds;

/// A command that needs explaining, with the explanation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reasoned<R> {
    /// Why it was sent.
    pub reason: R,
    /// What leads to that reason; in JSON each piece is a short text.
    #[serde(serialize_with = "words::serialize")]
    pub evidence: EvidenceList,
    /// From the command's last byte to the reply's last byte.
    #[serde(rename = "latency_seconds", serialize_with = "optional_seconds", skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    /// The reply's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
}
