//! `compare`: two hosts' events, from their files.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use serde::de::IgnoredAny;
use tracing::warn;

use super::{Error, colour, note, print};
use crate::cli::{CompareArgs, Source};
use crate::compare::{End, compare as compare_ends};
use crate::observation::Role;
use crate::sink::comparison::{Format, json};
use crate::sink::reason;

/// Two hosts' events cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A file cannot be read.
    #[error("cannot read {from}: {}. Give the files that run --events FILE wrote on the two hosts.", reason(source))]
    Io {
        /// Which file.
        from: Source,
        /// Why.
        source: io::Error,
    },
    /// A line is no event.
    #[error("{from}:{line}: {what}. Give the files that run --events FILE wrote on the two hosts.")]
    Line {
        /// In which file.
        from: Source,
        /// Which line, counted from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Both were to come from standard input.
    #[error("only one of the two can be standard input. Give the other as a file.")]
    Twice,
    /// One agent showed more of mailboxes than the other.
    #[error(
        "the events in {client} were written with --addresses {in_client}, those in {server} with {in_server}: what they \
         show cannot be compared. Run both agents with the same --addresses."
    )]
    Addresses {
        /// The clients' file.
        client: Source,
        /// How much is shown there.
        in_client: &'static str,
        /// The servers' file.
        server: Source,
        /// How much is shown there.
        in_server: &'static str,
    },
}

impl CompareError {
    /// The wrong files were given, as opposed to one that is damaged.
    pub(super) fn is_usage(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Twice | Self::Addresses { .. } => true,
            Self::Line { line, .. } => *line == 1,
        }
    }
}

pub(super) fn compare(args: &CompareArgs) -> Result<(), Error> {
    if args.client == Source::StandardInput && args.server == Source::StandardInput {
        return Err(CompareError::Twice.into());
    }
    let client = read(&args.client, Role::Client)?;
    let server = read(&args.server, Role::Server)?;
    if let (Some(of_client), Some(of_server)) = (client.addresses(), server.addresses())
        && of_client != of_server
    {
        let (client, in_client) = (args.client.clone(), of_client.as_str());
        let (server, in_server) = (args.server.clone(), of_server.as_str());
        return Err(CompareError::Addresses { client, in_client, server, in_server }.into());
    }
    for (end, from, role) in [(&client, &args.client, Role::Client), (&server, &args.server, Role::Server)] {
        if end.conversations().next().is_none() {
            let other = if end.is_the_other() { ": it may be the other end's. CLIENT comes first" } else { "" };
            note(&format!("no SMTP conversation of a {} is in {from}{other}", role.as_str()));
        }
    }
    let report = compare_ends(&client, &server);
    print(|out| match args.json {
        true => json(&report, out),
        false => Format { colour: colour(&io::stdout()) }.write(&report, out),
    })
}

fn read(from: &Source, role: Role) -> Result<End, CompareError> {
    let failed = |source| CompareError::Io { from: from.clone(), source };
    let mut file: Box<dyn BufRead> = match from {
        Source::StandardInput => Box::new(io::stdin().lock()),
        Source::File(path) => Box::new(BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?)),
    };
    let mut end = End::new(role);
    let (mut text, mut line, mut cut) = (Vec::new(), 0, 0_u64);
    loop {
        text.clear();
        if file.read_until(b'\n', &mut text).map_err(failed)? == 0 {
            if cut > 0 {
                let lines =
                    if cut == 1 { "line that is no whole event is" } else { "lines that are no whole events are" };
                warn!("{cut} {lines} left out of {from}");
            }
            return Ok(end);
        }
        line += 1;
        let is_whole = text.pop_if(|last| *last == b'\n').is_some();
        match end.take(&text) {
            Ok(()) => {}
            // The agent may be writing it just now.
            Err(_) if !is_whole && line > 1 => warn!("{from} ends in the middle of a line"),
            // A killed agent leaves half a line, which the next one ends.
            Err(_) if is_cut(&text) && (line > 1 || text.trim_ascii().is_empty()) => {
                end.lines_lost();
                cut += 1;
            }
            Err(what) => return Err(CompareError::Line { from: from.clone(), line, what }),
        }
    }
}

/// The line stops before the object in it does.
fn is_cut(line: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(line).is_err_and(|error| error.is_eof())
}
