//! In which processes a library is probed: in all, or in those alone that use watched sockets.
//!
//! One link for all processes costs the kernel less at each call than one for each process, and no process has to be found
//! first. But programs that have nothing to do with mail pay for it. So a library that these call too often
//! ([`MAX_UNWATCHED`](smtp_ebpf::library_call::MAX_UNWATCHED)) is probed in mail's processes alone, for a while.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

use foldhash::HashMap;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::debug;

use super::attach::{Link, Programs};
use super::library::Place;
use super::mapped::{FileIdentity, MappedFile};
use super::removal;
use crate::event::Time;
use crate::kernel::now;

/// For how long a library that others call too often is probed in mail's processes alone, at first. Then it takes a fraction of a
/// second to see whether they still do: then for twice as long, and so on.
const FIRST_RESPITE: Duration = Duration::from_secs(10);

/// See [`FIRST_RESPITE`].
const MAX_RESPITE: Duration = Duration::from_mins(10);

/// For how long a file that no process of mail has any more is probed: the next such process is then read from its start. A file of a
/// container, whose file system the probes hold, is not kept for longer. Those that are installed on this host stay.
const LINGER: Duration = Duration::from_secs(10);

/// Most files that are probed in all processes. Others are probed in mail's processes alone.
const MAX_LIBRARIES: usize = 1024;

/// A file with a library of TLS.
struct Library {
    /// By a descriptor of this process: whose file it was may have ended.
    file: MappedFile,
    _open: fs::File,
    calls: Vec<Place>,
    reach: Reach,
    /// The last one.
    respite: Duration,
    is_installed: bool,
    /// Processes of mail that have it.
    users: usize,
    /// When it is let go of, since there are none.
    leaves: Option<Instant>,
}

/// In which processes it is probed.
enum Reach {
    /// In all, by these links, which stand since then.
    All(Vec<Link>, Time),
    /// In those that use watched sockets: until then, or for good.
    Users(Option<Instant>),
}

/// The libraries that were met.
pub struct Libraries {
    known: Mutex<HashMap<FileIdentity, Library>>,
    /// Those that others called too often are tried again. Without links that hold many probes that would take too long.
    retries: bool,
    /// There is a new moment at which something changes.
    changed: EventFd,
}

/// Links that are not needed any more once the processes that need it have their own: they are taken away with this.
pub struct Outgoing {
    links: Vec<Link>,
    unwanted: Sender<Link>,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.links.drain(..).for_each(|link| removal::discard(&self.unwanted, link));
    }
}

impl Libraries {
    /// None yet. Those that others call too often are tried again, or they are not.
    pub fn new(retries: bool) -> Result<Self, Errno> {
        let changed = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { known: Mutex::default(), retries, changed })
    }

    /// Probes a file that is installed on this host in all processes.
    pub fn install(&self, programs: &mut Programs, file: &MappedFile, calls: &[Place]) {
        self.everywhere(programs, file, calls);
        if let Some(library) = self.lock().get_mut(&file.identity) {
            library.is_installed = true;
        }
    }

    /// One process more of mail has this file.
    pub fn is_used(&self, file: FileIdentity) {
        if let Some(library) = self.lock().get_mut(&file) {
            library.users += 1;
            library.leaves = None;
        }
    }

    /// One process less of mail has this file.
    pub fn is_left(&self, file: FileIdentity) {
        if let Some(library) = self.lock().get_mut(&file) {
            library.users = library.users.saturating_sub(1);
            if library.users == 0 && !library.is_installed {
                library.leaves = Some(Instant::now() + LINGER);
                let _ = self.changed.write(1);
            }
        }
    }

    /// Since when a file is probed in all processes, and how many links that took now; none, if its users have probes of their
    /// own.
    pub fn everywhere(&self, programs: &mut Programs, file: &MappedFile, calls: &[Place]) -> Option<(Time, usize)> {
        // Meanwhile nobody else does the same.
        let mut known = self.lock();
        if let Some(library) = known.get(&file.identity) {
            return match library.reach {
                Reach::All(_, since) => Some((since, 0)),
                Reach::Users(_) => None,
            };
        }
        if known.len() >= MAX_LIBRARIES {
            return None;
        }
        let opened = Library::open(file, calls);
        let mut library = opened.inspect_err(|error| debug!("{}: {error}", file.name.display())).ok()?;
        let (count, since) = library.widen(programs);
        known.insert(file.identity, library);
        Some((since, count))
    }

    /// Those of these files that are probed in all processes are not to be, any more: their names and links.
    pub fn narrow(&self, files: impl Iterator<Item = MappedFile>, unwanted: &Sender<Link>) -> Vec<(PathBuf, Outgoing)> {
        let time = now().unwrap_or_default();
        let mut known = self.lock();
        let mut narrowed = Vec::new();
        for file in files {
            let Some(library) = known.get_mut(&file.identity) else { continue };
            if let Some(links) = library.narrow(time, self.retries) {
                narrowed.push((file.name, Outgoing { links, unwanted: unwanted.clone() }));
            }
        }
        narrowed
    }

    /// Readable where [`Self::next_change`] may have changed since it was asked for.
    pub fn changed(&self) -> BorrowedFd<'_> {
        self.changed.as_fd()
    }

    /// When a file is to be probed in all processes again, or let go of.
    pub fn next_change(&self) -> Option<Instant> {
        let _ = self.changed.read();
        let known = self.lock();
        known.values().flat_map(|library| [library.until(), library.leaves]).flatten().min()
    }

    /// Probes the files in all processes whose time has come, and lets go of those that nobody has any more; the former.
    pub fn change(&self, programs: &mut Programs, unwanted: &Sender<Link>) -> Vec<FileIdentity> {
        let begun = Instant::now();
        let mut known = self.lock();
        let left = known.extract_if(|_, library| library.leaves.is_some_and(|until| until <= begun));
        left.for_each(|(_, library)| library.discard(unwanted));
        let due = known.iter_mut().filter(|(_, library)| library.until().is_some_and(|until| until <= begun));
        due.map(|(identity, library)| {
            library.widen(programs);
            *identity
        })
        .collect()
    }

    /// Takes all links for all processes away.
    pub fn clear(&self, unwanted: &Sender<Link>) {
        self.lock().drain().for_each(|(_, library)| library.discard(unwanted));
    }

    /// A thread that has panicked leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, HashMap<FileIdentity, Library>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Library {
    fn open(file: &MappedFile, calls: &[Place]) -> io::Result<Self> {
        let open = fs::File::open(&file.path)?;
        let path = format!("/proc/self/fd/{}", open.as_raw_fd()).into();
        let file = MappedFile { name: file.name.clone(), path, identity: file.identity };
        Ok(Self {
            file,
            _open: open,
            calls: calls.to_vec(),
            reach: Reach::Users(None),
            respite: Duration::ZERO,
            is_installed: false,
            users: 0,
            leaves: None,
        })
    }

    fn discard(self, unwanted: &Sender<Link>) {
        if let Reach::All(links, _) = self.reach {
            links.into_iter().for_each(|link| removal::discard(unwanted, link));
        }
    }

    /// How many links that took, and since when they stand.
    fn widen(&mut self, programs: &mut Programs) -> (usize, Time) {
        let links = programs.attach(&self.file, &self.calls, None);
        let since = now().unwrap_or(Time(u64::MAX));
        let count = links.len();
        self.reach = Reach::All(links, since);
        (count, since)
    }

    /// Its links, if it was probed in all processes, which it is not to be any more from this time on.
    fn narrow(&mut self, time: Time, retries: bool) -> Option<Vec<Link>> {
        let Reach::All(links, since) = &mut self.reach else { return None };
        let links = std::mem::take(links);
        let calm = time.since(*since);
        self.respite = if calm > self.respite { FIRST_RESPITE } else { MAX_RESPITE.min(self.respite * 2) };
        self.reach = Reach::Users(retries.then(|| Instant::now() + self.respite));
        Some(links)
    }

    fn until(&self) -> Option<Instant> {
        match self.reach {
            Reach::All(..) => None,
            Reach::Users(until) => until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mapped;
    use super::*;

    fn library() -> Library {
        let path = std::env::current_exe().expect("a test is a file");
        let file =
            mapped::files(std::process::id()).expect("a process may look at itself").find(|file| file.name == path);
        Library::open(&file.expect("it executes its own file"), &[]).expect("it can be opened")
    }

    /// Calls it too often so many seconds after it was probed in all processes, again and again: for how long it is spared each time.
    fn respites(calm: &[u64]) -> Vec<u64> {
        let mut library = library();
        let respite = |&calm: &u64| {
            library.reach = Reach::All(Vec::new(), Time::default());
            library.narrow(Time(calm * 1_000_000_000), true).expect("it was probed in all");
            assert!(library.until().is_some());
            library.respite.as_secs()
        };
        calm.iter().map(respite).collect()
    }

    #[test]
    fn who_is_always_busy_is_tried_ever_less_often() {
        assert_eq!(respites(&[1; 9]), [10, 20, 40, 80, 160, 320, 600, 600, 600]);
        assert_eq!(respites(&[1, 1, 21, 1, 1]), [10, 20, 10, 20, 40], "it was calm for longer than it was spared");
    }

    #[test]
    fn without_links_of_many_it_is_not_tried_again() {
        let mut library = library();
        library.reach = Reach::All(Vec::new(), Time::default());
        assert!(library.narrow(Time(1), false).is_some() && library.until().is_none());
        assert!(library.narrow(Time(2), false).is_none(), "it is spared already");
    }

    #[test]
    fn a_file_stays_as_long_as_a_process_has_it_or_it_is_installed() {
        let (found, installed) = (library(), library());
        let identity = found.file.identity;
        for (library, is_installed) in [(found, false), (installed, true)] {
            let libraries = Libraries::new(true).expect("a descriptor");
            libraries.lock().insert(identity, Library { is_installed, ..library });
            let leaves = || libraries.lock()[&identity].leaves.is_some();
            libraries.is_used(identity);
            libraries.is_used(identity);
            libraries.is_left(identity);
            assert!(!leaves());
            libraries.is_left(identity);
            assert_eq!((leaves(), libraries.next_change().is_some()), (!is_installed, !is_installed));
            libraries.is_used(identity);
            assert!(!leaves());
        }
    }
}
