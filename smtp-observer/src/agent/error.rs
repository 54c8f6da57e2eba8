//! Why a command failed.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{CompareError, ReplayError};
use crate::cli::{ConfigError, Destination};
use crate::kernel;
use crate::kernel::host::ScanError;
use crate::privilege;
use crate::sink::http::WebConfigError;
use crate::sink::reason;
use crate::sink::top::screen::Unusable;

/// Why a command failed. Each is one or two plain sentences: the cause and the mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file is of no use.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This user may not.
    #[error(transparent)]
    Privilege(#[from] privilege::Missing),
    /// The hooks cannot be attached.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// Probes cannot be attached.
    #[error(transparent)]
    ProbeTls(#[from] kernel::ProbeFailure),
    /// `check` found that nothing can be observed.
    #[error("this host or user cannot observe: the lines above say why.")]
    Unusable,
    /// The HTTP address cannot be had.
    #[error("cannot listen on {address}: {}. Give another with --listen ADDR:PORT.", reason(source))]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The file that says who is let in by HTTP is of no use.
    #[error(transparent)]
    WebConfig(#[from] WebConfigError),
    /// What the service manager has passed is no use.
    #[error("cannot serve HTTP on the socket that the service manager has passed: {}.", reason(.0))]
    Passed(#[source] io::Error),
    /// The events' file cannot be opened.
    #[error("cannot append events to {destination}: {}. Give another file with --events FILE.", reason(source))]
    Events {
        /// Which file.
        destination: Destination,
        /// Why.
        source: io::Error,
    },
    /// Who has read the events is gone.
    #[error(
        "nobody reads the events any more: what has read the pipe of --events has ended. Start it again, then the agent."
    )]
    Unread,
    /// Not all that was observed is written.
    #[error("not everything was written, as the lines above say: what is there is not complete.")]
    Unwritten,
    /// There is no user to become.
    #[error(transparent)]
    User(#[from] privilege::UnusableUser),
    /// The recording's file cannot be made.
    #[error(
        "cannot record to {}: {}. Give another file with --record FILE; one that is there is not written to.",
        path.display(),
        reason(source)
    )]
    Record {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A recording cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Two hosts' events cannot be compared.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// There is no terminal to draw on.
    #[error(transparent)]
    Terminal(#[from] Unusable),
    /// Privileges that are no longer needed could not be given up.
    #[error(transparent)]
    Relinquish(#[from] privilege::DropError),
    /// /proc is of no use.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The host refuses what any program may ask for.
    #[error("cannot {what}: {}.", reason(source))]
    System {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// 1: failed while running; 2: wrong usage; 3: this host or user cannot observe.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Replay(error) if error.is_usage() => ExitCode::from(2),
            Self::Compare(error) if error.is_usage() => ExitCode::from(2),
            Self::Relinquish(privilege::DropError::User { .. }) => ExitCode::from(3),
            Self::Listen { .. }
            | Self::Passed(_)
            | Self::Events { .. }
            | Self::Unread
            | Self::Unwritten
            | Self::Record { .. }
            | Self::Replay(_)
            | Self::Compare(_)
            | Self::Relinquish(_)
            | Self::Scan(_)
            | Self::System { .. } => ExitCode::from(1),
            Self::Config(_) | Self::WebConfig(_) | Self::User(_) | Self::Terminal(_) => ExitCode::from(2),
            Self::Privilege(_) | Self::Kernel(_) | Self::ProbeTls(_) | Self::Unusable => ExitCode::from(3),
        }
    }
}

pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { what, source }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn exit_statuses() {
        assert_eq!(Error::from(privilege::Missing::Observe).exit_code(), ExitCode::from(3));
        assert_eq!(Error::Unusable.exit_code(), ExitCode::from(3));
        assert_eq!(Error::Unread.exit_code(), ExitCode::from(1));
        assert_eq!(Error::Unwritten.exit_code(), ExitCode::from(1));
        assert_eq!(Error::from(privilege::UnusableUser::Root("root".into())).exit_code(), ExitCode::from(2));
        assert_eq!(Error::from(Unusable::Output).exit_code(), ExitCode::from(2));
        let unreadable = ConfigError::Unreadable { path: "x".into(), source: ErrorKind::NotFound.into() };
        assert_eq!(Error::from(unreadable).exit_code(), ExitCode::from(2));
    }
}
