//! The probes of some of the processes, by a thread of the process that attaches them.
//!
//! It reads which files a process has mapped, and puts probes on the functions in them: in this process, where they do not
//! stand in all processes.

use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use foldhash::{HashMap, HashSet};
use lru::LruCache;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tracing::{debug, warn};

use super::attach::{Link, Programs};
use super::confined;
use super::library::{self, Place, Role};
use super::mapped::{self, FileIdentity, MappedFile};
use super::reach::{Libraries, Outgoing};
use super::removal;
use super::report::Report;
use crate::event::{Time, TlsLibrary};
use crate::kernel::now;

/// Files that are remembered to have been searched.
const MAX_SEARCHED: usize = 16_384;

/// Ends of processes that are taken note of at once.
const ENDS: usize = 64;

/// What a thread is told.
pub enum Told {
    /// A process of its own uses a watched socket; and it was seen at a time that no library's call is around the TLS that it
    /// speaks.
    Used { pid: u32, speaks_tls: Option<Time> },
    /// One that is followed has ended.
    Ended { pid: u32 },
    /// A file is not probed in all processes any more, once these links are not held any more.
    Narrowed(Arc<Outgoing>),
    /// A file is probed in all processes.
    Widened(FileIdentity),
}

/// What all threads know.
pub struct Shared {
    /// Whatever it costs others, all processes have the probes.
    pub all: bool,
    /// A probe would end a process that has a filter of system calls: only processes without one have probes.
    spares_confined: bool,
    pub libraries: Libraries,
    searched: Mutex<LruCache<FileIdentity, Arc<[Place]>>>,
    /// The processes that use watched sockets and have a library, each until it ends.
    alive: Epoll,
}

impl Shared {
    /// `multi`: links hold many probes.
    pub fn new(all: bool, multi: bool) -> Result<Self, Errno> {
        let most = MAX_SEARCHED.try_into().unwrap_or(std::num::NonZero::<usize>::MIN);
        let alive = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let spares_confined = confined::is_affected();
        if spares_confined {
            debug!("this kernel ends programs with a filter of system calls where they are probed: they are not");
        }
        Ok(Self {
            all,
            spares_confined,
            libraries: Libraries::new(multi)?,
            searched: Mutex::new(LruCache::new(most)),
            alive,
        })
    }

    /// Readable when one of the processes has ended.
    pub fn alive(&self) -> BorrowedFd<'_> {
        self.alive.0.as_fd()
    }

    /// Will tell when a process ends.
    fn follow(&self, process: &Process) {
        // Once: it stays there until its descriptor is closed.
        let once = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
        let told = self.alive.add(&process.descriptor, EpollEvent::new(once, process.pid.get().into()));
        if let Err(error) = told {
            warn!("the end of process {} will not be seen: {error}", process.pid);
        }
    }

    /// The processes that have ended. Where there are more, the next call has them.
    pub fn ends(&self) -> Result<impl Iterator<Item = u32>, Errno> {
        let mut ended = [EpollEvent::empty(); ENDS];
        let count = self.alive.wait(&mut ended, EpollTimeout::ZERO)?;
        Ok(ended.into_iter().take(count).map(|event| event.data() as u32))
    }

    /// Where a file is to be probed.
    fn places(&self, file: &MappedFile) -> Arc<[Place]> {
        // A thread that has panicked leaves nothing half done.
        let searched = || self.searched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = searched().get(&file.identity) {
            return Arc::clone(places);
        }
        // Another may search the same meanwhile, and finds the same.
        let places: Arc<[Place]> = match library::search(&file.path) {
            Ok(places) => places.into(),
            Err(error) => {
                debug!("{}: {error}", file.name.display());
                Arc::default()
            }
        };
        searched().put(file.identity, Arc::clone(&places));
        places
    }
}

/// The processes of a thread that use watched sockets and have a library.
pub struct Processes<'a> {
    programs: Programs,
    shared: &'a Shared,
    /// Where probes go that are not needed any more.
    unwanted: Sender<Link>,
    known: HashMap<u32, Process>,
}

/// A process. The kernel asks each probe of a file about each process that maps it, also where the probe's own process has
/// ended: so the probes go when it ends.
struct Process {
    pid: NonZeroU32,
    descriptor: OwnedFd,
    /// Since when its calls are seen.
    probed: Option<Time>,
    /// The files with a library that it has.
    libraries: HashSet<FileIdentity>,
    /// The probes that it has of its own, by file, and whether they are for the records that it hands over.
    files: HashMap<(FileIdentity, bool), Vec<Link>>,
}

impl Process {
    /// The one that has a number now.
    fn open(pid: u32) -> Option<Self> {
        let pid = NonZeroU32::new(pid)?;
        let descriptor = pidfd_open(Pid::from_raw(pid.get().cast_signed())?, PidfdFlags::empty());
        let descriptor = descriptor.inspect_err(|error| debug!("process {pid} cannot be followed: {error}")).ok()?;
        Some(Self { pid, descriptor, probed: None, libraries: HashSet::default(), files: HashMap::default() })
    }

    fn has_ended(&self) -> bool {
        let mut waits = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        poll(&mut waits, PollTimeout::ZERO).is_ok_and(|ended| ended > 0)
    }
}

impl<'a> Processes<'a> {
    pub fn new(programs: Programs, shared: &'a Shared, unwanted: &Sender<Link>) -> Self {
        Self { programs, shared, unwanted: unwanted.clone(), known: HashMap::default() }
    }

    /// Probes the processes of which it is told, until nobody tells of any.
    pub fn work(mut self, told: &Receiver<Told>) {
        for told in told {
            match told {
                Told::Used { pid, speaks_tls } => self.process(pid, speaks_tls).iter().for_each(say),
                Told::Ended { pid } => self.forget_if_ended(pid),
                Told::Narrowed(outgoing) => {
                    let pids: Vec<u32> = self.known.keys().copied().collect();
                    for pid in pids {
                        self.process(pid, None);
                    }
                    drop(outgoing);
                }
                Told::Widened(file) => {
                    let links = self.known.values_mut().filter_map(|process| process.files.remove(&(file, false)));
                    links.flatten().for_each(|link| removal::discard(&self.unwanted, link));
                }
            }
        }
        for (_, process) in std::mem::take(&mut self.known) {
            self.discard(process);
        }
    }

    /// Searches the libraries that programs will load, and probes them; where all processes are to have the probes in any case,
    /// what every process of now has mapped, too. What there is to tell of these, once this is done.
    pub fn prepare(&mut self) -> Vec<Report> {
        for file in mapped::installed() {
            let (_, calls) = self.places(&file);
            if !calls.is_empty() && !self.shared.spares_confined {
                self.shared.libraries.install(&mut self.programs, &file, &calls);
            }
        }
        if !self.shared.all || self.shared.spares_confined {
            return Vec::new();
        }
        let processes = procfs::process::all_processes().into_iter().flatten().flatten();
        processes.filter_map(|process| self.process(process.pid.cast_unsigned(), None)).collect()
    }

    /// Where a file's records and calls are to be probed.
    fn places(&self, file: &MappedFile) -> (Vec<Place>, Vec<Place>) {
        self.shared.places(file).iter().cloned().partition(|place| place.role == Role::Record)
    }

    /// Probes the files that a process has mapped, and that are not probed yet. Where it speaks TLS and no library's call was
    /// seen around that, though those were probed by then, it sends by itself what a library has encrypted.
    fn process(&mut self, pid: u32, speaks_tls: Option<Time>) -> Option<Report> {
        let begun = Instant::now();
        self.forget_if_ended(pid);
        if self.shared.spares_confined && confined::is_confined(pid) {
            debug!("process {pid} has a filter of system calls, and is not probed");
            return Some(Report::Searched { pid, libraries: Vec::new() });
        }
        let mut process = match self.known.remove(&pid) {
            Some(process) => process,
            None => Process::open(pid)?,
        };
        let files =
            mapped::files(pid).inspect_err(|error| debug!("process {pid}: its files cannot be listed: {error}"));
        let files: Vec<MappedFile> = files.into_iter().flatten().collect();
        let mut links = 0;
        let mut libraries = Vec::new();
        let before = std::mem::take(&mut process.libraries);
        let mut since = Time::default();
        let mut hand_over = Vec::new();
        for file in &files {
            let (records, calls) = self.places(file);
            if let Some(first) = calls.first() {
                libraries.push(TlsLibrary::from(first.library));
                let libraries = Some(&self.shared.libraries).filter(|_| !self.shared.spares_confined);
                let everywhere = libraries.and_then(|known| known.everywhere(&mut self.programs, file, &calls));
                if let Some((stand, count)) = everywhere {
                    since = since.max(stand);
                    links += count;
                } else {
                    links += self.probe(&mut process, file, &calls);
                    since = now().unwrap_or(Time(u64::MAX));
                }
                process.libraries.insert(file.identity);
            }
            if !records.is_empty() {
                hand_over.push((file, records));
            }
        }
        // It may be another program than before.
        process.libraries.difference(&before).for_each(|&file| self.shared.libraries.is_used(file));
        before.difference(&process.libraries).for_each(|&file| self.shared.libraries.is_left(file));
        // Whoever has ended meanwhile has no files.
        if libraries.is_empty() {
            self.discard(process);
        } else {
            let since = match process.probed {
                Some(since) => since,
                None => {
                    self.shared.follow(&process);
                    *process.probed.insert(since)
                }
            };
            if speaks_tls.is_some_and(|seen| since < seen) {
                for (file, records) in hand_over {
                    links += self.probe(&mut process, file, &records);
                }
            }
            self.known.insert(pid, process);
        }
        debug!("process {pid}: {links} links in {:?}", begun.elapsed());
        (!files.is_empty()).then_some(Report::Searched { pid, libraries })
    }

    /// Probes a file in a process, where that is not done yet; how many links that took.
    fn probe(&mut self, process: &mut Process, file: &MappedFile, places: &[Place]) -> usize {
        let is_of_records = places.first().is_some_and(|place| place.role == Role::Record);
        let key = (file.identity, is_of_records);
        if process.files.contains_key(&key) {
            return 0;
        }
        let links = self.programs.attach(file, places, Some(process.pid));
        let count = links.len();
        process.files.insert(key, links);
        count
    }

    /// Has the probes of a process taken away, if it has ended. Another may have its number since.
    fn forget_if_ended(&mut self, pid: u32) {
        if self.known.get(&pid).is_some_and(Process::has_ended)
            && let Some(process) = self.known.remove(&pid)
        {
            self.discard(process);
        }
    }

    fn discard(&self, process: Process) {
        process.libraries.into_iter().for_each(|file| self.shared.libraries.is_left(file));
        process.files.into_values().flatten().for_each(|link| removal::discard(&self.unwanted, link));
    }
}

/// Tells the agent. Where it has ended, this process ends soon, too.
pub fn say(report: &Report) {
    let _ = io::stdout().write_all(report.to_line().as_bytes());
}
