//! Where a file lies, so that it can be opened again by an agent that has no privileges any more.
//!
//! Whoever may write in one of the directories on the way could lead root elsewhere by a symbolic link. So a link is followed
//! only if root or the process's own user has made it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl, open, openat, readlinkat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{AccessFlags, faccessat, geteuid};

/// Links that are followed on one way, as the kernel does it (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// A directory that is only a place for names.
const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY);

/// A link that is not followed.
#[derive(Debug, thiserror::Error)]
#[error("the link {} belongs to uid {owner}, and is followed only if it is root's or of the user who opens it", .name.display())]
struct ForeignLink {
    name: PathBuf,
    owner: u32,
}

/// A name in a directory that is held open: whoever may not walk the path any more may still use the directory.
#[derive(Debug)]
pub(super) struct Place {
    directory: OwnedFd,
    name: OsString,
}

/// A file that is open to append to it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    /// It ends in the middle of a line.
    pub(super) torn: bool,
    /// It was not there before.
    pub(super) made: bool,
}

impl Place {
    /// The place that a path leads to.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(if path.as_os_str().is_empty() { Errno::ENOENT } else { Errno::EISDIR })?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let here = open(".", DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let directory = End::of(here, directory)?.open(DIRECTORY)?;
        Ok(Self { directory, name: name.to_owned() })
    }

    /// Opens the file there to append to it, or makes it, readable by its owner and group.
    pub(super) fn open(&self) -> io::Result<Opened> {
        let end = self.end()?;
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
        // Made here, or another's: that must be certain.
        let (made, opened) = match end.open(flags | OFlag::O_EXCL) {
            // Without O_NONBLOCK it would wait until somebody reads a named pipe.
            Err(Errno::EEXIST) => (false, end.open(flags | OFlag::O_NONBLOCK)),
            opened => (true, opened),
        };
        let file = match opened {
            Err(Errno::ENXIO) => return Err(io::Error::other("nobody reads this pipe: start its reader first")),
            opened => File::from(opened?),
        };
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
        let metadata = file.metadata()?;
        let torn = metadata.is_file() && metadata.len() > 0 && !self.ends_a_line(metadata.len());
        Ok(Opened { file, torn, made })
    }

    /// Whether it can be opened again, and made anew once it was renamed.
    pub(super) fn try_again(&self) -> io::Result<()> {
        self.end()?.open(OFlag::O_WRONLY | OFlag::O_APPEND)?;
        Ok(faccessat(&self.directory, ".", AccessFlags::W_OK, AtFlags::AT_EACCESS)?)
    }

    /// The last byte ends a line. Who may not read it takes the file as whole.
    fn ends_a_line(&self, length: u64) -> bool {
        let mut last = [b'\n'];
        let opened = self.end().and_then(|end| Ok(end.open(OFlag::O_RDONLY | OFlag::O_NONBLOCK)?));
        let read = opened.and_then(|file| File::from(file).read_exact_at(&mut last, length - 1));
        read.is_err() || last == *b"\n"
    }

    fn end(&self) -> io::Result<End> {
        End::of(self.directory.try_clone()?, Path::new(&self.name))
    }
}

/// Where a way ends: at a name that is no link, or one that only the kernel can follow.
struct End {
    directory: OwnedFd,
    name: OsString,
    /// What keeps the kernel from following a link that has come there meanwhile.
    nofollow: OFlag,
}

impl End {
    /// The end of the way that begins in a directory.
    fn of(mut directory: OwnedFd, path: &Path) -> io::Result<Self> {
        let mut steps = Vec::new();
        let push = |steps: &mut Vec<OsString>, path: &Path| {
            steps.extend(path.components().rev().map(|step| step.as_os_str().to_owned()));
        };
        push(&mut steps, path);
        let mut links = 0;
        while let Some(name) = steps.pop() {
            let mut nofollow = OFlag::O_NOFOLLOW;
            if let Some(target) = target(&directory, &name)? {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::ELOOP.into());
                }
                // The text of a link there need not be a path (`pipe:[4711]`), and the kernel alone makes links there.
                if fstatfs(&directory)?.filesystem_type() != PROC_SUPER_MAGIC {
                    push(&mut steps, &target);
                    continue;
                }
                nofollow = OFlag::empty();
            }
            let end = Self { directory, name, nofollow };
            if steps.is_empty() {
                return Ok(end);
            }
            directory = end.open(DIRECTORY)?;
        }
        Err(Errno::ENOENT.into())
    }

    fn open(&self, flags: OFlag) -> Result<OwnedFd, Errno> {
        let flags = flags | self.nofollow | OFlag::O_CLOEXEC;
        openat(&self.directory, self.name.as_os_str(), flags, Mode::from_bits_truncate(0o640))
    }
}

/// Where a name leads if it is a link, and one that may be followed.
fn target(directory: &OwnedFd, name: &OsStr) -> io::Result<Option<PathBuf>> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = match openat(directory, name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(None),
        found => File::from(found?),
    };
    let metadata = found.metadata()?;
    match metadata.uid() {
        _ if !metadata.is_symlink() => Ok(None),
        owner if owner == 0 || owner == geteuid().as_raw() => Ok(Some(readlinkat(&found, "")?.into())),
        owner => Err(io::Error::other(ForeignLink { name: name.into(), owner })),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::{lchown, symlink};

    use super::*;

    #[test]
    fn a_named_pipe_has_a_reader() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("events");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
        let place = Place::new(&path).expect("a directory");
        assert!(place.open().expect_err("no reader").to_string().contains("nobody reads"));
        let _reader = open(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()).expect("there");
        let writer = place.open().expect("a reader");
        let flags = OFlag::from_bits_retain(fcntl(&writer.file, FcntlArg::F_GETFL).expect("flags"));
        assert!(!writer.torn && !writer.made && flags.contains(OFlag::O_APPEND) && !flags.contains(OFlag::O_NONBLOCK));
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

    #[test]
    fn only_what_was_not_there_is_made() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("events");
        let place = Place::new(&path).expect("a directory");
        assert!(place.open().expect("made").made);
        assert!(!place.open().expect("there").made);
    }

    #[test]
    fn links_of_its_own_are_followed() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("there")).expect("a directory");
        for (target, link) in [("there", "folder"), ("./folder/../there/file", "relative"), ("relative", "again")] {
            symlink(target, path(link)).expect("a link");
        }
        symlink(path("there/file"), path("absolute")).expect("a link");
        let made: Vec<_> = ["again", "relative", "absolute", "folder/file", "there/file"]
            .map(|name| Place::new(&path(name)).expect(name).open().expect(name).made)
            .into();
        assert_eq!(made, [true, false, false, false, false], "the first makes it where the link leads");
        assert!(path("there/file").is_file());

        symlink("round", path("round")).expect("a link");
        let error = Place::new(&path("round")).expect("a directory").open().expect_err("a circle");
        assert_eq!(error.raw_os_error(), Some(Errno::ELOOP as i32));
    }

    #[test]
    fn descriptors_have_names_that_are_links() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let (_reader, writer) = io::pipe().expect("a pipe");
        for descriptor in [file.as_file().as_raw_fd(), writer.as_raw_fd()] {
            for folder in ["/dev/fd", "/proc/self/fd"] {
                let path = Path::new(folder).join(descriptor.to_string());
                assert!(!Place::new(&path).expect("there").open().expect("open already").made);
            }
        }
    }

    /// Whoever has a directory there leads root nowhere.
    #[test]
    fn links_of_others_are_not_followed() {
        const OTHER: u32 = 4714;
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("there")).expect("a directory");
        std::fs::write(path("there/file"), "").expect("written");
        for (target, link) in [("there/file", "file"), ("there/missing", "missing"), ("there", "folder")] {
            symlink(target, path(link)).expect("a link");
            lchown(path(link), Some(OTHER), None).expect("given away");
        }
        symlink("file", path("own")).expect("a link");
        for (name, link) in [("file", "file"), ("missing", "missing"), ("folder/new", "folder"), ("own", "file")] {
            let error = Place::new(&path(name)).and_then(|place| place.open()).expect_err(name);
            assert_eq!(
                error.to_string(),
                format!(
                    "the link {link} belongs to uid {OTHER}, and is followed only if it is root's or of the user who \
                     opens it"
                )
            );
        }
        assert_eq!(std::fs::read_dir(path("there")).expect("readable").count(), 1, "nothing is made there");
    }
}
