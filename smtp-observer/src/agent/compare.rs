//! `compare`: two hosts' events, from their files.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use tracing::warn;

use super::{Error, colour, note, print};
use crate::cli::{CompareArgs, reason};
use crate::compare::{End, compare as compare_ends};
use crate::observation::Role;
use crate::sink::comparison::{Format, json};

/// Two hosts' events cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A file cannot be read.
    #[error("cannot read {}: {}. Give the files that run --events FILE wrote on the two hosts.", path.display(), reason(source))]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no event.
    #[error("{}:{line}: {what}. Give the files that run --events FILE wrote on the two hosts.", path.display())]
    Line {
        /// In which file.
        path: PathBuf,
        /// Which line, counted from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// One agent showed more of mailboxes than the other.
    #[error(
        "the events in {} were written with --addresses {in_client}, those in {} with {in_server}: what they show cannot be \
         compared. Run both agents with the same --addresses.",
        client.display(),
        server.display()
    )]
    Addresses {
        /// The clients' file.
        client: PathBuf,
        /// How much is shown there.
        in_client: &'static str,
        /// The servers' file.
        server: PathBuf,
        /// How much is shown there.
        in_server: &'static str,
    },
}

impl CompareError {
    /// The wrong files were given, as opposed to one that is damaged.
    pub(super) fn is_usage(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Addresses { .. } => true,
            Self::Line { line, .. } => *line == 1,
        }
    }
}

pub(super) fn compare(args: &CompareArgs) -> Result<(), Error> {
    let client = read(&args.client, Role::Client)?;
    let server = read(&args.server, Role::Server)?;
    if let (Some(of_client), Some(of_server)) = (client.addresses(), server.addresses())
        && of_client != of_server
    {
        let (client, in_client) = (args.client.clone(), of_client.as_str());
        let (server, in_server) = (args.server.clone(), of_server.as_str());
        return Err(CompareError::Addresses { client, in_client, server, in_server }.into());
    }
    for (end, path, role) in [(&client, &args.client, Role::Client), (&server, &args.server, Role::Server)] {
        if end.conversations().next().is_none() {
            let other = if end.is_the_other() { ": it may be the other end's. CLIENT comes first" } else { "" };
            note(&format!("no SMTP conversation of a {} is in {}{other}", role.as_str(), path.display()));
        }
    }
    let report = compare_ends(&client, &server);
    print(|out| match args.json {
        true => json(&report, out),
        false => Format { colour: colour(&io::stdout()) }.write(&report, out),
    })
}

fn read(path: &Path, role: Role) -> Result<End, CompareError> {
    let failed = |source| CompareError::Io { path: path.to_owned(), source };
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?);
    let mut end = End::new(role);
    let (mut text, mut line, mut cut) = (Vec::new(), 0, 0_u64);
    loop {
        text.clear();
        if file.read_until(b'\n', &mut text).map_err(failed)? == 0 {
            if cut > 0 {
                let lines =
                    if cut == 1 { "line that is no whole event is" } else { "lines that are no whole events are" };
                warn!("{cut} {lines} left out of {}", path.display());
            }
            return Ok(end);
        }
        line += 1;
        let is_whole = text.pop_if(|last| *last == b'\n').is_some();
        match end.take(&text) {
            Ok(()) => {}
            // The agent may be writing it just now.
            Err(_) if !is_whole && line > 1 => warn!("{} ends in the middle of a line", path.display()),
            // A killed agent leaves half a line, which the next one ends.
            Err(_) if is_cut(&text) && (line > 1 || text.trim_ascii().is_empty()) => cut += 1,
            Err(what) => return Err(CompareError::Line { path: path.to_owned(), line, what }),
        }
    }
}

/// The line stops before the object in it does.
fn is_cut(line: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(line).is_err_and(|error| error.is_eof())
}
