//! Files that options name.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `-`.
    StandardOutput,
    /// A file, appended to.
    File(PathBuf),
}

impl Destination {
    /// The file, where it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::StandardOutput => None,
            Self::File(path) => Some(path),
        }
    }
}

/// No name for a file.
#[derive(Debug, thiserror::Error)]
#[error("no file has an empty name: give another FILE")]
pub struct NoName;

impl FromStr for Destination {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err(NoName),
            "-" => Ok(Self::StandardOutput),
            name => Ok(Self::File(name.into())),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StandardOutput => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Where a recording or events come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `-`.
    StandardInput,
    /// A file.
    File(PathBuf),
}

impl From<OsString> for Source {
    fn from(name: OsString) -> Self {
        if name == "-" { Self::StandardInput } else { Self::File(name.into()) }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StandardInput => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// A recording is kept, and begun anew each time: it has a file of its own.
pub fn new_recording(path: PathBuf) -> Result<PathBuf, NoRecording> {
    match path.as_os_str().as_encoded_bytes() {
        b"" => Err(NoName.into()),
        b"-" => Err(NoRecording::Output),
        _ => Ok(path),
    }
}

/// No name for a recording.
#[derive(Debug, thiserror::Error)]
pub enum NoRecording {
    /// It is none of a file.
    #[error(transparent)]
    Name(#[from] NoName),
    /// It is standard output's.
    #[error("a recording goes to a new file, and not to standard output")]
    Output,
}
