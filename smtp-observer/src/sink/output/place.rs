//! Where a file lies, so that it can be opened again by an agent that has no privileges any more.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, faccessat};

/// A name in a directory that is held open: whoever may not walk the path any more may still use the directory.
#[derive(Debug)]
pub(super) struct Place {
    directory: OwnedFd,
    name: OsString,
}

impl Place {
    /// The place that a path leads to.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(if path.as_os_str().is_empty() { Errno::ENOENT } else { Errno::EISDIR })?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { directory, name: name.to_owned() })
    }

    /// Opens the file there to append to it, or makes it, readable by its owner and group; and says whether it ends in the
    /// middle of a line.
    pub(super) fn open(&self) -> io::Result<(File, bool)> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_CLOEXEC;
        // Without O_NONBLOCK it would wait until somebody reads a named pipe.
        let file = match self.open_with(flags | OFlag::O_NONBLOCK) {
            Err(Errno::ENXIO) => return Err(io::Error::other("nobody reads this pipe: start its reader first")),
            opened => File::from(opened?),
        };
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
        let metadata = file.metadata()?;
        let torn = metadata.is_file() && metadata.len() > 0 && !self.ends_a_line(metadata.len());
        Ok((file, torn))
    }

    /// Whether it can be opened again, and made anew once it was renamed.
    pub(super) fn try_again(&self) -> io::Result<()> {
        self.open_with(OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CLOEXEC)?;
        Ok(faccessat(&self.directory, ".", AccessFlags::W_OK, AtFlags::AT_EACCESS)?)
    }

    /// The last byte ends a line. Who may not read it takes the file as whole.
    fn ends_a_line(&self, length: u64) -> bool {
        let mut last = [b'\n'];
        let read = self
            .open_with(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
            .map_err(io::Error::from)
            .and_then(|file| File::from(file).read_exact_at(&mut last, length - 1));
        read.is_err() || last == *b"\n"
    }

    fn open_with(&self, flags: OFlag) -> Result<OwnedFd, Errno> {
        openat(&self.directory, self.name.as_os_str(), flags, Mode::from_bits_truncate(0o640))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_pipe_has_a_reader() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("events");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
        let place = Place::new(&path).expect("a directory");
        assert!(place.open().expect_err("no reader").to_string().contains("nobody reads"));
        let _reader = open(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()).expect("there");
        let (writer, torn) = place.open().expect("a reader");
        let flags = OFlag::from_bits_retain(fcntl(&writer, FcntlArg::F_GETFL).expect("flags"));
        assert!(!torn && flags.contains(OFlag::O_APPEND) && !flags.contains(OFlag::O_NONBLOCK));
    }

    #[test]
    fn what_cannot_be_a_file_is_refused() {
        for (path, expected) in [
            ("", Errno::ENOENT),
            ("/", Errno::EISDIR),
            ("..", Errno::EISDIR),
            ("/nonexistent/events", Errno::ENOENT),
            ("/etc/passwd/events", Errno::ENOTDIR),
        ] {
            let error = Place::new(Path::new(path)).expect_err(path);
            assert_eq!(error.raw_os_error(), Some(expected as i32), "{path}");
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(folder.path().join("events")).expect("a directory");
        let place = Place::new(&folder.path().join("events")).expect("a directory");
        assert_eq!(place.open().expect_err("a directory").raw_os_error(), Some(Errno::EISDIR as i32));
    }

    #[test]
    fn a_name_alone_lies_here() {
        assert_eq!(Place::new(Path::new("events")).expect("here").name, "events");
    }
}
