//! A recording: a header, then what the observer was told, a JSON object a line, numbered in the order in which it was told.
//!
//! ```text
//! {"recording":"smtp-observer","version":2,"agent":"0.1.0","ports":[25],"addresses":"domain"}
//! {"event":[0,{"host":{"unix_offset":1790000000000000000,"boot_id":"…"}}]}
//! {"event":[2,{"transfer":{"time":…,"flow":"sent",…,"said":[{"text":"EHLO client.example\r\n"}]}}]}
//! {"settled":[3,90210000000]}
//! {"lost":{"before":57}}
//! ```
//!
//! Lines may stand in another order than their numbers, as what is withheld comes late. A number that is in no line is
//! that of an event which is not there: the disk was too slow, or the agent was killed.

mod read;

use std::io;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::read::{Entries, ReadError, open};
use crate::event::{KernelEvent, Time};
use crate::recorder::Entry;
use crate::redact::Addresses;

/// The form of recordings that this program writes and reads.
pub const VERSION: u32 = 2;

/// What the first line says, besides the version.
const NAME: &str = "smtp-observer";

/// The first line: what has to be known to read the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    recording: String,
    version: u32,
    /// The version of the agent that wrote it.
    pub agent: String,
    /// The ports that were watched.
    pub ports: Vec<u16>,
    /// How much of mailboxes is in it.
    pub addresses: Addresses,
    /// Addresses that lead to servers of one's own on this host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_addresses: Vec<IpNet>,
}

impl Header {
    /// The header of a recording that this program makes.
    pub fn new(ports: &[u16], addresses: Addresses, service_addresses: &[IpNet]) -> Self {
        let agent = env!("CARGO_PKG_VERSION").into();
        let (ports, service_addresses) = (ports.to_vec(), service_addresses.to_vec());
        Self { recording: NAME.into(), version: VERSION, agent, ports, addresses, service_addresses }
    }

    /// Appends its line.
    pub fn write(&self, out: &mut Vec<u8>) {
        line(self, out);
    }
}

/// Any other line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<E> {
    Event(u64, E),
    Settled(u64, Time),
    Lost {
        /// Of what has a smaller number, nothing comes any more.
        before: u64,
    },
}

/// Appends the line of an entry.
pub fn write(number: u64, entry: &Entry, out: &mut Vec<u8>) {
    match entry {
        Entry::Event(event) => line(&Line::Event(number, event), out),
        Entry::Settled(time) => line(&Line::<&KernelEvent>::Settled(number, *time), out),
    }
}

/// Appends a line that says that entries were lost, all of which had smaller numbers.
pub fn write_loss(before: u64, out: &mut Vec<u8>) {
    line(&Line::<&KernelEvent>::Lost { before }, out);
}

/// JSON in printable ASCII: what a peer said cannot steer the terminal of somebody who looks at the file.
struct Printable;

impl serde_json::ser::Formatter for Printable {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let is_plain = |character: char| matches!(character, ' '..='~');
        for part in fragment.split_inclusive(|character| !is_plain(character)) {
            let plain = part.trim_end_matches(|character| !is_plain(character));
            out.write_all(plain.as_bytes())?;
            for unit in part[plain.len()..].encode_utf16() {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

fn line(value: &impl Serialize, out: &mut Vec<u8>) {
    let start = out.len();
    match value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, Printable)) {
        Ok(()) => out.push(b'\n'),
        // Neither an event nor a vector can fail to be written; half a line must not stand.
        Err(_) => out.truncate(start),
    }
}

#[cfg(test)]
mod tests;
