//! The records of the ring buffer, as the program `ring` prints them.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use smtp_observer::event::{Flow, KernelEvent, Segment, TcpState, TransferEvent};

use crate::machine;
use crate::process::Running;

/// A record.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its bytes, each the character with its number.
    pub bytes: String,
    /// What it tells of, unless it is a part of another.
    pub event: Option<KernelEvent<'static>>,
}

impl Record {
    /// The first line: the hooks are in.
    pub const ATTACHED: &str = "null";

    /// The line that a record is printed as.
    pub fn line(bytes: &[u8], event: Option<&KernelEvent>) -> String {
        let bytes: String = bytes.iter().copied().map(char::from).collect();
        format!("{}\n", json!([bytes, event]))
    }

    fn parse(line: &str) -> Result<Self> {
        let (bytes, event) = serde_json::from_str::<Option<_>>(line)?.unwrap_or_default();
        Ok(Self { bytes, event })
    }
}

/// What crossed of one end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crossed {
    /// The port of the client.
    pub client_port: u16,
    /// It is the client's end.
    pub at_client: bool,
    /// In clear: what the client said and what the server said; where other bytes than text stood there is `…`.
    pub clear: [String; 2],
    /// The same of what was said inside of TLS.
    pub plaintext: [String; 2],
    is_closed: bool,
}

/// The hooks on a port, and what they write.
#[derive(Debug)]
pub struct Ring {
    port: u16,
    reader: Running<Record>,
}

impl Ring {
    /// Attaches them, with this value of `--tls`.
    pub fn attach(port: u16, tls: &str) -> Result<Self> {
        machine::require_root()?;
        let mut ring = Command::new(machine::sibling("ring")?);
        ring.arg("read").arg(port.to_string()).arg(tls);
        let reader = Running::start_parsed(ring, Record::parse)?;
        let attached = reader.output.wait_for("the hooks", |records| records.first().map(drop));
        attached.with_context(|| reader.log.so_far().join("\n"))?;
        Ok(Self { port, reader })
    }

    /// The pid of the process that reads it.
    pub fn pid(&self) -> u32 {
        self.reader.pid()
    }

    /// Waits until so many ends of connections are closed, and ends the hooks: all that was written, and each end.
    pub fn finish(self, ends: usize) -> Result<(Vec<Record>, Vec<Crossed>)> {
        let port = self.port;
        let all = |records: &[Record]| {
            (crossed(records, port).iter().filter(|end| end.is_closed).count() >= ends).then_some(())
        };
        self.reader.output.wait_for("the end of all connections", all)?;
        let ended = self.reader.stop()?;
        ensure!(ended.log.is_empty(), "{}", ended.log.join("\n"));
        let ends = crossed(&ended.output, port);
        Ok((ended.output, ends))
    }
}

fn crossed(records: &[Record], port: u16) -> Vec<Crossed> {
    let mut ends: Vec<Crossed> = Vec::new();
    for event in records.iter().filter_map(|record| record.event.as_ref()) {
        let socket = match event {
            KernelEvent::State(state) => &state.socket,
            KernelEvent::Transfer(transfer) => &transfer.socket,
            _ => continue,
        };
        let at_client = socket.remote.port() == port;
        if !at_client && socket.local.port() != port {
            // Another test's, which may be the client of a proxy: that is decided later.
            continue;
        }
        let client_port = if at_client { socket.local.port() } else { socket.remote.port() };
        if client_port == 0 {
            // It has not got one yet.
            continue;
        }
        let known = ends.iter().position(|end| (end.client_port, end.at_client) == (client_port, at_client));
        let index = known.unwrap_or_else(|| {
            ends.push(Crossed { client_port, at_client, ..Crossed::default() });
            ends.len() - 1
        });
        match event {
            KernelEvent::State(state) => ends[index].is_closed |= state.new == TcpState::Close,
            KernelEvent::Transfer(transfer) => ends[index].take(transfer),
            _ => {}
        }
    }
    ends
}

impl Crossed {
    fn take(&mut self, transfer: &TransferEvent) {
        let of_client = (transfer.flow == Flow::Sent) == self.at_client;
        let speaker = usize::from(!of_client);
        let text = match transfer.tls.plaintext {
            true => &mut self.plaintext[speaker],
            false => &mut self.clear[speaker],
        };
        for segment in transfer.said.segments() {
            match segment {
                Segment::Text(bytes) => text.extend(bytes.iter().copied().map(char::from)),
                Segment::Begun(_) => {}
                _ if text.ends_with('…') => {}
                _ => text.push('…'),
            }
        }
    }
}
