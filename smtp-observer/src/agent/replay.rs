//! `replay`: a recording through the observer, as it was when it was made.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};

use jiff::tz::TimeZone;
use tracing::warn;

use super::{Error, Format, colour, note, system};
use crate::cli::{Ports, ReplayArgs, Source};
use crate::event::Time;
use crate::fact::Fact;
use crate::observation::Observation;
use crate::observer::Observer;
use crate::recorder::Entry;
use crate::recording::{self, ReadError};
use crate::redact::{Addresses, RedactionPolicy};
use crate::sink::filter::Filter;
use crate::sink::reason;
use crate::sink::trace;

/// A recording is of no use, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error("cannot read {from}: {}. Give the file that run --record FILE made.", reason(source))]
    Io {
        /// From where.
        from: Source,
        /// Why.
        source: io::Error,
    },
    /// It is no recording, or a damaged one.
    #[error("{from} {source}")]
    Content {
        /// From where.
        from: Source,
        /// What is wrong with it.
        source: ReadError,
    },
    /// More of mailboxes is asked for than is in it.
    #[error("{from} was recorded with --addresses {recorded}: there is no more of them in it.")]
    Addresses {
        /// From where.
        from: Source,
        /// What is in it.
        recorded: &'static str,
    },
}

impl ReplayError {
    fn new(from: &Source, error: ReadError) -> Self {
        let from = from.clone();
        match error {
            ReadError::Io(source) => Self::Io { from, source },
            source => Self::Content { from, source },
        }
    }

    /// The file that was given is the wrong one, as opposed to one that fails on the way.
    pub(super) fn is_usage(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Addresses { .. } => true,
            Self::Content { source, .. } => {
                matches!(source, ReadError::Foreign(_) | ReadError::Newer { .. } | ReadError::Older { .. })
            }
        }
    }
}

pub(super) fn replay(args: &ReplayArgs) -> Result<(), Error> {
    let from: Box<dyn BufRead> = match &args.file {
        Source::StandardInput => Box::new(io::stdin().lock()),
        Source::File(path) => match File::open(path) {
            Ok(file) => Box::new(BufReader::with_capacity(1 << 16, file)),
            Err(source) => return Err(ReplayError::Io { from: args.file.clone(), source }.into()),
        },
    };
    let read_error = |error| ReplayError::new(&args.file, error);
    let (header, mut entries) = recording::open(from).map_err(read_error)?;
    let addresses = args.addresses.unwrap_or(header.addresses);
    // It shows more.
    if addresses < header.addresses {
        let recorded = header.addresses.as_str();
        return Err(ReplayError::Addresses { from: args.file.clone(), recorded }.into());
    }
    let policy = RedactionPolicy::new(addresses);
    let mut out = Out {
        policy,
        out: io::BufWriter::new(io::stdout().lock()),
        format: match args.json {
            true => Format::Json,
            false => Format::Text(trace::Format { colour: colour(&io::stdout()), zone: TimeZone::system(), day: None }),
        },
        ports: args.port.as_ref(),
        watched: &header.ports,
        filter: args.filter.clone().into(),
        line: Vec::new(),
        told: false,
        shown: false,
        result: Ok(()),
    };
    let mut observer = Observer::new(&header.ports, policy);
    observer.set_service_addresses(header.service_addresses.clone());
    let end = loop {
        match entries.next() {
            Some(Ok(Entry::Event(event))) => observer.event(event, &mut |fact| out.write(fact)),
            Some(Ok(Entry::Settled(now))) => observer.settle(now, &mut |fact| out.write(fact)),
            None => {
                observer.settle(Time(u64::MAX), &mut |fact| out.write(fact));
                break Ok(());
            }
            Some(Err(error)) => break Err(read_error(error).into()),
        }
        if out.result.is_err() {
            break Ok(());
        }
    };
    let (told, shown) = (out.told, out.shown);
    match out.finish() {
        // Nobody reads on.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
        Err(error) => return Err(system("write to standard output")(error)),
        Ok(()) => {}
    }
    match (told, shown) {
        (false, _) => note(&format!("no connection is in {}", args.file)),
        (true, false) => note(&format!("nothing in {} is what the options select", args.file)),
        (true, true) => {}
    }
    match entries.missing() {
        0 => {}
        1 => warn!("1 event is missing in {}", args.file),
        missing => warn!("{missing} events are missing in {}", args.file),
    }
    if entries.is_cut() {
        warn!("{} ends in the middle of an event: what was before is complete", args.file);
    }
    end
}

/// Standard output, until it fails.
struct Out<'a, W: Write> {
    policy: RedactionPolicy,
    out: W,
    format: Format,
    /// Those that are wanted, if not all are.
    ports: Option<&'a Ports>,
    /// Those that were watched.
    watched: &'a [u16],
    filter: Filter,
    line: Vec<u8>,
    /// There was something, and some of it was wanted.
    told: bool,
    shown: bool,
    result: io::Result<()>,
}

impl<W: Write> Out<'_, W> {
    fn write(&mut self, fact: &Fact<'_>) {
        self.told = true;
        let ends = [fact.connection.local.port, fact.connection.remote.port];
        let is_wanted = self.ports.is_none_or(|ports| {
            let is_wanted = |port: &u16| ports.as_slice().contains(port);
            // The other end of a connection that goes through a proxy may have any port.
            let is_leg = !ends.iter().any(|port| self.watched.contains(port));
            ends.iter().any(is_wanted) || is_leg && self.watched.iter().any(is_wanted)
        });
        if !is_wanted || self.result.is_err() {
            return;
        }
        let observation = Observation::of(fact, self.policy);
        if self.filter.passes(&observation) {
            self.line.clear();
            self.format.write(&observation, &mut self.line);
            self.shown |= !self.line.is_empty();
            self.result = self.out.write_all(&self.line);
        }
    }

    fn finish(mut self) -> io::Result<()> {
        self.result.and_then(|()| self.out.flush())
    }
}

impl Addresses {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Domain => "domain",
            Self::None => "none",
        }
    }
}
