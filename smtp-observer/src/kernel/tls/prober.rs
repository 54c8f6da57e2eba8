//! The process that attaches probes to the TLS libraries of other processes.
//!
//! It learns from the kernel side which processes use watched sockets, reads which files they have mapped, and puts probes on
//! the functions in them. It ends when its standard input does, as that of a child does when the agent ends, and takes its
//! probes away.
//!
//! To attach a probe, and to take it away, the kernel waits for a grace period: a tenth of a second each time, and more on a
//! busy host. Those who wait at the same time wait for the same one. So several threads attach, each the probes of its own
//! processes in their order, and many take away what stood in processes that have ended.

use std::ffi::CStr;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use aya::maps::{Map, MapData, RingBuf};
use aya::programs::{ProbeKind, loaded_programs};
use caps::Capability;
use foldhash::HashMap;
use lru::LruCache;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use smtp_ebpf::library_call::Notice;
use tracing::{debug, warn};

use super::attach::{Link, Probe};
use super::library::{self, Place, Role};
use super::mapped::{self, FileIdentity, MappedFile};
use super::report::Report;
use super::{PROGRAMS, Tls, removal};
use crate::event::{Time, TlsLibrary};
use crate::kernel::{now, with_causes};
use crate::privilege::{self, Calls};

/// The name by which ps(1) and top(1) list it, as the agent.
const NAME: &CStr = c"smtp-observer";

/// Files that are remembered to have been searched.
const MAX_SEARCHED: usize = 16_384;

/// Threads that attach probes.
const ATTACHING: usize = 8;

/// Ends of processes that are taken note of at once.
const ENDS: usize = 64;

/// What finding libraries takes: other users' processes (CAP_SYS_PTRACE), their files (CAP_DAC_READ_SEARCH), and those of them
/// that were replaced since (CAP_CHECKPOINT_RESTORE, as in `proc_map_files_get_link` of `fs/proc/base.c`). To attach probes many
/// at once takes nothing more.
const KEPT: [Capability; 3] =
    [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH, Capability::CAP_CHECKPOINT_RESTORE];

/// What each probe by a link of its own takes: the probe (CAP_SYS_ADMIN, since the mend of CVE-2025-38466, and CAP_PERFMON), and
/// programs by their number (CAP_SYS_ADMIN, CAP_BPF).
const KEPT_SINGLE: [Capability; 5] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_BPF,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// What the process is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Assignment {
    /// Whom to probe.
    #[arg(value_enum)]
    pub tls: Tls,
    /// The programs for a call, its return and the end of a session: their numbers, or the descriptors that it inherits.
    pub call: u32,
    /// See `call`.
    pub returns: u32,
    /// See `call`.
    pub end: u32,
    /// The program for a record that is handed over.
    pub record: u32,
    /// The descriptor of the map that names processes, which it inherits.
    pub processes: RawFd,
    /// The programs are descriptors, and for links that hold many probes.
    #[arg(long)]
    pub multi: bool,
    /// The user that it becomes where root has started it.
    #[arg(long)]
    pub user: Option<String>,
}

/// Why probes cannot be attached at all.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A program, or the map, is not to be had.
    #[error("the agent's eBPF programs cannot be found: {0}.")]
    Programs(String),
    /// The kernel does not say what happens, or signals cannot be left to the agent.
    #[error("the kernel's notices cannot be waited for: {0}.")]
    Wait(#[from] Errno),
    /// There is no user to become.
    #[error(transparent)]
    User(#[from] privilege::UnusableUser),
    /// Privileges could not be given up.
    #[error(transparent)]
    Privileges(#[from] privilege::DropError),
    /// A thread has panicked.
    #[error("a thread that attaches probes has ended.")]
    Ended,
    /// There is no thread to be had.
    #[error("a thread cannot be started: {0}.")]
    Thread(#[from] io::Error),
}

/// Attaches probes until standard input ends.
pub fn probe(assignment: &Assignment) -> Result<(), Failure> {
    // It was started by the name `/proc/self/exe`.
    prctl::set_name(NAME)?;
    // What a terminal or a service manager tells a whole group is the agent's to follow: it ends this process with itself.
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]).thread_block()?;
    // Each probe takes descriptors.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    let kept = privilege::confine(&privilege::Confinement {
        user: privilege::Unprivileged::choose(assignment.user.as_deref())?.as_ref(),
        capabilities: if assignment.multi { &KEPT } else { &KEPT_SINGLE },
        // Landlock would keep it from other processes, too.
        files: None,
        calls: Calls::Prober { multi: assignment.multi },
    })?;
    debug!("what attaches probes has left: {kept}");
    // SAFETY: it was handed to this process, for this alone.
    let processes = unsafe { OwnedFd::from_raw_fd(assignment.processes) };
    let data = MapData::from_fd(processes).map_err(|error| Failure::Programs(with_causes(&error)))?;
    let mut notices = RingBuf::try_from(Map::RingBuf(data)).map_err(|error| Failure::Programs(with_causes(&error)))?;
    let shared = Shared::new(assignment.tls == Tls::All)?;
    let (unwanted, gathered) = channel();
    // All threads have ended behind it, and all probes are taken away.
    thread::scope(|scope| {
        thread::Builder::new().spawn_scoped(scope, move || removal::remove(&gathered, assignment.multi))?;
        let mut first = Prober::new(assignment, &shared, &unwanted)?;
        let searched = first.prepare();
        let mut probers = vec![first];
        for _ in 1..ATTACHING {
            probers.push(Prober::new(assignment, &shared, &unwanted)?);
        }
        let mut threads = Vec::new();
        let mut senders = Vec::new();
        for prober in probers {
            let (sender, processes) = channel();
            threads.push(thread::Builder::new().spawn_scoped(scope, move || prober.work(&processes))?);
            senders.push(sender);
        }
        say(&Report::Ready);
        searched.iter().for_each(say);
        let followed = follow(&mut notices, &shared, &senders);
        drop(senders);
        for thread in threads {
            let _ = thread.join();
        }
        locked(&shared.everywhere)
            .drain()
            .flat_map(|(_, links)| links)
            .for_each(|link| removal::discard(&unwanted, link));
        drop(unwanted);
        followed
    })
}

/// The programs, in the order of [`PROGRAMS`].
fn programs(assignment: &Assignment) -> Result<[Probe; 4], Failure> {
    let refused = |error: &dyn std::error::Error| Failure::Programs(with_causes(error));
    let numbers = [assignment.call, assignment.returns, assignment.end, assignment.record];
    let kinds = [ProbeKind::Entry, ProbeKind::Return, ProbeKind::Entry, ProbeKind::Entry];
    let mut probes = Vec::new();
    for ((number, kind), name) in numbers.into_iter().zip(kinds).zip(PROGRAMS) {
        probes.push(if assignment.multi {
            // SAFETY: it was handed to this process, and stays open.
            let program = unsafe { BorrowedFd::borrow_raw(number.cast_signed()) };
            Probe::Multi(program.try_clone_to_owned().map_err(|error| refused(&error))?, kind)
        } else {
            let mut loaded = loaded_programs().filter_map(Result::ok);
            let found = loaded.find(|program| program.id() == number);
            let found = found.ok_or_else(|| Failure::Programs(format!("there is no program {number} ({name})")))?;
            Probe::single(found, name, kind).map_err(|error| refused(&error))?
        });
    }
    probes.try_into().map_err(|_| Failure::Programs("one is missing".into()))
}

/// Tells the threads of their processes until standard input ends.
fn follow(notices: &mut RingBuf<MapData>, shared: &Shared, probers: &[Sender<Told>]) -> Result<(), Failure> {
    let input = io::stdin();
    loop {
        let mut processes: HashMap<u32, Option<Time>> = HashMap::default();
        while let Some(notice) = notices.next().as_deref().and_then(Notice::read) {
            let known = processes.entry(notice.pid as u32).or_default();
            *known = (*known).max((notice.speaks_tls != 0).then_some(Time(notice.speaks_tls)));
        }
        let used = processes.into_iter().map(|(pid, speaks_tls)| Told::Used { pid, speaks_tls });
        for told in shared.ends()?.chain(used) {
            probers[told.pid() as usize % ATTACHING].send(told).map_err(|_| Failure::Ended)?;
        }
        // SAFETY: the ring buffer has it open for longer than it is used here.
        let ring = unsafe { BorrowedFd::borrow_raw(notices.as_raw_fd()) };
        let mut waits = [ring, input.as_fd(), shared.alive.0.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut waits, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if waits[1].any() == Some(true) {
            return Ok(());
        }
    }
}

/// What a thread is told of its processes.
enum Told {
    /// One uses a watched socket; and it was seen at a time that no library's call is around the TLS that it speaks.
    Used { pid: u32, speaks_tls: Option<Time> },
    /// One that is probed has ended.
    Ended { pid: u32 },
}

impl Told {
    fn pid(&self) -> u32 {
        match self {
            Self::Used { pid, .. } | Self::Ended { pid } => *pid,
        }
    }
}

/// A thread that has panicked leaves nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all threads know.
struct Shared {
    all: bool,
    searched: Mutex<LruCache<FileIdentity, Arc<[Place]>>>,
    /// Files that are probed in all processes.
    everywhere: Mutex<HashMap<FileIdentity, Vec<Link>>>,
    /// The probed processes, each until it ends.
    alive: Epoll,
}

impl Shared {
    fn new(all: bool) -> Result<Self, Errno> {
        let most = MAX_SEARCHED.try_into().unwrap_or(std::num::NonZero::<usize>::MIN);
        let alive = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { all, searched: Mutex::new(LruCache::new(most)), everywhere: Mutex::default(), alive })
    }

    /// Will tell when a process ends.
    fn follow(&self, process: &Process) {
        // Once: it stays there until its probes are taken away.
        let once = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
        let told = self.alive.add(&process.descriptor, EpollEvent::new(once, process.pid.get().into()));
        if let Err(error) = told {
            warn!("the end of process {} will not be seen: {error}", process.pid);
        }
    }

    /// The probed processes that have ended. Where there are more, the next call has them.
    fn ends(&self) -> Result<impl Iterator<Item = Told>, Errno> {
        let mut ended = [EpollEvent::empty(); ENDS];
        let count = self.alive.wait(&mut ended, EpollTimeout::ZERO)?;
        Ok(ended.into_iter().take(count).map(|event| Told::Ended { pid: event.data() as u32 }))
    }

    /// Where a file is to be probed.
    fn places(&self, file: &MappedFile) -> Arc<[Place]> {
        if let Some(places) = locked(&self.searched).get(&file.identity) {
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
        locked(&self.searched).put(file.identity, Arc::clone(&places));
        places
    }
}

/// The probes of some of the processes.
struct Prober<'a> {
    calls: Probe,
    returns: Probe,
    ends: Probe,
    records: Probe,
    shared: &'a Shared,
    /// Where probes go that are not needed any more.
    unwanted: Sender<Link>,
    probed: HashMap<u32, Process>,
}

/// A process that is probed. The kernel asks each probe of a file about each process that maps it, also where the probe's own
/// process has ended: so the probes go when it ends.
struct Process {
    pid: NonZeroU32,
    descriptor: OwnedFd,
    /// Since when its first probes stand.
    probed: Option<Time>,
    /// Its probes, by file, and whether they are only for the records that it hands over.
    files: HashMap<(FileIdentity, bool), Vec<Link>>,
}

impl Process {
    /// The one that has a number now.
    fn open(pid: u32) -> Option<Self> {
        let pid = NonZeroU32::new(pid)?;
        let descriptor = pidfd_open(Pid::from_raw(pid.get().cast_signed())?, PidfdFlags::empty());
        let descriptor = descriptor.inspect_err(|error| debug!("process {pid} cannot be followed: {error}")).ok()?;
        Some(Self { pid, descriptor, probed: None, files: HashMap::default() })
    }

    fn has_ended(&self) -> bool {
        let mut waits = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        poll(&mut waits, PollTimeout::ZERO).is_ok_and(|ended| ended > 0)
    }
}

impl<'a> Prober<'a> {
    fn new(assignment: &Assignment, shared: &'a Shared, unwanted: &Sender<Link>) -> Result<Self, Failure> {
        let [calls, returns, ends, records] = programs(assignment)?;
        Ok(Self { calls, returns, ends, records, shared, unwanted: unwanted.clone(), probed: HashMap::default() })
    }

    /// Probes the processes of which it is told, until nobody tells of any.
    fn work(mut self, processes: &Receiver<Told>) {
        for told in processes {
            match told {
                Told::Used { pid, speaks_tls } => self.process(pid, speaks_tls).iter().for_each(say),
                Told::Ended { pid } => self.forget_if_ended(pid),
            }
        }
        for (_, process) in std::mem::take(&mut self.probed) {
            self.discard(process);
        }
    }

    /// Searches the libraries that programs will load, and probes them and what every process of now has mapped, if all
    /// processes are to be probed: what there is to tell of them, once this is done.
    fn prepare(&mut self) -> Vec<Report> {
        for file in mapped::installed() {
            let places = self.shared.places(&file);
            if self.shared.all {
                self.probe_everywhere(&file, &places);
            }
        }
        if !self.shared.all {
            return Vec::new();
        }
        let processes = procfs::process::all_processes().into_iter().flatten().flatten();
        processes.filter_map(|process| self.process(process.pid.cast_unsigned(), None)).collect()
    }

    /// Probes the files that a process has mapped, and that are not probed yet. Where it speaks TLS and no library's call was
    /// seen around that, though those were probed by then, it sends by itself what a library has encrypted.
    fn process(&mut self, pid: u32, speaks_tls: Option<Time>) -> Option<Report> {
        let begun = Instant::now();
        self.forget_if_ended(pid);
        let mut process = match self.probed.remove(&pid) {
            Some(process) => process,
            None => Process::open(pid)?,
        };
        let files =
            mapped::files(pid).inspect_err(|error| debug!("process {pid}: its files cannot be listed: {error}"));
        let sends_records =
            speaks_tls.is_some_and(|seen| self.shared.all || process.probed.is_some_and(|since| since < seen));
        let mut probes = 0;
        let mut libraries = Vec::new();
        let mut is_seen = false;
        for file in files.into_iter().flatten() {
            is_seen = true;
            let places = self.shared.places(&file);
            let (records, calls): (Vec<Place>, Vec<Place>) =
                places.iter().cloned().partition(|place| place.role == Role::Record);
            libraries.extend(calls.first().map(|place| place.library));
            probes += if self.shared.all {
                self.probe_everywhere(&file, &calls)
            } else {
                self.probe(&mut process, &file, &calls)
            };
            if sends_records {
                probes += self.probe(&mut process, &file, &records);
            }
        }
        if !process.files.is_empty() {
            process.probed = process.probed.or_else(|| now().ok());
            self.probed.insert(pid, process);
        }
        if !is_seen {
            // It has ended meanwhile.
            return None;
        }
        let libraries = libraries.into_iter().map(TlsLibrary::from).collect();
        debug!("process {pid}: {probes} probes in {:?}", begun.elapsed());
        Some(Report::Searched { pid, libraries })
    }

    /// Probes a file in a process, where that is not done yet; how many probes that took.
    fn probe(&mut self, process: &mut Process, file: &MappedFile, places: &[Place]) -> usize {
        let Some(first) = places.first() else { return 0 };
        let key = (file.identity, first.role == Role::Record);
        if process.files.contains_key(&key) {
            return 0;
        }
        if process.files.is_empty() {
            self.shared.follow(process);
        }
        let links = self.attach(file, places, Some(process.pid));
        let count = links.len();
        process.files.insert(key, links);
        count
    }

    /// Probes a file in all processes, where that is not done yet; how many probes that took.
    fn probe_everywhere(&mut self, file: &MappedFile, places: &[Place]) -> usize {
        let shared = self.shared;
        // Meanwhile nobody else does the same.
        let mut everywhere = locked(&shared.everywhere);
        if places.is_empty() || everywhere.contains_key(&file.identity) {
            return 0;
        }
        let links = self.attach(file, places, None);
        let count = links.len();
        everywhere.insert(file.identity, links);
        count
    }

    /// Attaches a file's probes, in one process or in all.
    fn attach(&mut self, file: &MappedFile, places: &[Place], process: Option<NonZeroU32>) -> Vec<Link> {
        let of = |wanted: fn(&Role) -> bool| places.iter().filter(|place| wanted(&place.role)).collect::<Vec<_>>();
        let calls = of(|role| matches!(role, Role::Call(_)));
        let ends = of(|role| matches!(role, Role::End));
        let records = of(|role| matches!(role, Role::Record));
        // The returns first: a call that is noted is then noted to end.
        let programs = [
            (&mut self.returns, &calls),
            (&mut self.calls, &calls),
            (&mut self.ends, &ends),
            (&mut self.records, &records),
        ];
        let wanted = programs.into_iter().filter(|(_, places)| !places.is_empty());
        wanted.flat_map(|(program, places)| program.attach(file, places, process)).collect()
    }

    /// Has the probes of a process taken away, if it has ended. Another may have its number since.
    fn forget_if_ended(&mut self, pid: u32) {
        if self.probed.get(&pid).is_some_and(Process::has_ended)
            && let Some(process) = self.probed.remove(&pid)
        {
            self.discard(process);
        }
    }

    fn discard(&self, process: Process) {
        process.files.into_values().flatten().for_each(|link| removal::discard(&self.unwanted, link));
    }
}

/// Tells the agent. Where it has ended, this process ends soon, too.
fn say(report: &Report) {
    let _ = io::stdout().write_all(report.to_line().as_bytes());
}
