//! The process that attaches probes to the TLS libraries of other processes.
//!
//! It learns from the kernel side which processes use watched sockets, reads which files they have mapped, and puts probes on
//! the functions in them. It ends when its standard input does, or the agent.
//!
//! To attach a probe, and to take it away, the kernel waits for a grace period: on a busy host that is a tenth of a second each
//! time. Those who wait at the same time wait for the same one. So several threads attach, each the probes of its own
//! processes in their order, and others take away what stood in processes that have ended.

use std::ffi::CStr;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData, RingBuf};
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use aya::programs::{ProbeKind, UProbe, loaded_programs};
use caps::Capability;
use foldhash::HashMap;
use lru::LruCache;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use procfs::process::Process;
use smtp_ebpf::library_call::SPEAKS_TLS;
use tracing::{debug, warn};

use super::library::{self, Place, Role};
use super::mapped::{self, FileIdentity, MappedFile};
use super::report::Report;
use super::{PROGRAMS, Tls};
use crate::event::TlsLibrary;
use crate::kernel::{os_error, with_causes};
use crate::privilege::{self, Calls};

/// The name by which ps(1) and top(1) list it, as the agent.
const NAME: &CStr = c"smtp-observer";

/// Files that are remembered to have been searched.
const MAX_SEARCHED: usize = 16_384;

/// How often it is looked which probed processes have ended.
const SWEEP: Duration = Duration::from_secs(10);

/// Threads that attach probes.
const ATTACHING: usize = 8;

/// Threads that take probes away.
const REMOVING: usize = 4;

/// What attaching takes: probes (CAP_SYS_ADMIN, since the mend of CVE-2025-38466, and CAP_PERFMON), programs by their number
/// (CAP_SYS_ADMIN, CAP_BPF), other users' processes (CAP_SYS_PTRACE) and their files (CAP_DAC_READ_SEARCH).
const KEPT: [Capability; 5] = [
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
    /// The numbers of the programs for a call, its return and the end of a session.
    pub call: u32,
    /// See `call`.
    pub returns: u32,
    /// See `call`.
    pub end: u32,
    /// The number of the program for a record that is handed over.
    pub record: u32,
    /// The number of the map that names processes.
    pub processes: u32,
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
    prctl::set_pdeathsig(Signal::SIGKILL)?;
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
        capabilities: &KEPT,
        // Landlock would keep it from other processes, too.
        files: None,
        calls: Calls::Prober,
    })?;
    debug!("what attaches probes has left: {kept}");
    let (ended, removed) = channel();
    let shared = Arc::new(Shared::new(assignment.tls == Tls::All, ended));
    let mut first = Prober::new(assignment, &shared)?;
    let data = MapData::from_id(assignment.processes).map_err(|error| Failure::Programs(with_causes(&error)))?;
    let mut notices = RingBuf::try_from(Map::RingBuf(data)).map_err(|error| Failure::Programs(with_causes(&error)))?;
    let searched = first.prepare();
    let removed = Arc::new(Mutex::new(removed));
    for _ in 0..REMOVING {
        let removed = Arc::clone(&removed);
        thread::Builder::new().spawn(move || remove(&removed))?;
    }
    let mut probers = vec![first];
    for _ in 1..ATTACHING {
        probers.push(Prober::new(assignment, &shared)?);
    }
    let probers = probers.into_iter().map(start).collect::<Result<Vec<_>, _>>()?;
    say(&Report::Ready);
    searched.iter().for_each(say);
    let input = io::stdin();
    loop {
        let mut processes: HashMap<u32, bool> = HashMap::default();
        while let Some(notice) = notices.next() {
            let Some(notice) = notice.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes)) else { continue };
            *processes.entry(notice as u32).or_default() |= notice & SPEAKS_TLS != 0;
        }
        for (pid, speaks_tls) in processes {
            probers[pid as usize % ATTACHING].send(Used { pid, speaks_tls }).map_err(|_| Failure::Ended)?;
        }
        // SAFETY: the ring buffer has it open for longer than it is used here.
        let ring = unsafe { BorrowedFd::borrow_raw(notices.as_raw_fd()) };
        let mut waits = [PollFd::new(ring, PollFlags::POLLIN), PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waits, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if waits[1].any() == Some(true) {
            return Ok(());
        }
    }
}

/// A process uses a watched socket.
struct Used {
    pid: u32,
    speaks_tls: bool,
}

/// Starts a thread that attaches probes; it is told of its processes.
fn start(mut prober: Prober) -> io::Result<Sender<Used>> {
    let (sender, processes) = channel();
    thread::Builder::new().spawn(move || prober.work(&processes))?;
    Ok(sender)
}

/// Takes probes away, which is done when they are dropped.
fn remove(ended: &Mutex<Receiver<Probed>>) {
    loop {
        // The lock is not held meanwhile.
        let next = locked(ended).recv();
        match next {
            Ok(probed) => drop(probed),
            Err(_) => return,
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
    everywhere: Mutex<HashMap<FileIdentity, Vec<UProbeLink>>>,
    /// Where the probes go that stood in processes that have ended.
    ended: Sender<Probed>,
}

impl Shared {
    fn new(all: bool, ended: Sender<Probed>) -> Self {
        let most = MAX_SEARCHED.try_into().unwrap_or(std::num::NonZero::<usize>::MIN);
        Self { all, searched: Mutex::new(LruCache::new(most)), everywhere: Mutex::default(), ended }
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
struct Prober {
    calls: UProbe,
    returns: UProbe,
    ends: UProbe,
    records: UProbe,
    shared: Arc<Shared>,
    /// Of each process, when it was started and the files that are probed in it.
    probed: HashMap<u32, Probed>,
}

struct Probed {
    started: u64,
    /// By file, and whether it is only for the records that it hands over.
    files: HashMap<(FileIdentity, bool), Vec<UProbeLink>>,
}

impl Prober {
    fn new(assignment: &Assignment, shared: &Arc<Shared>) -> Result<Self, Failure> {
        let mut numbers =
            [assignment.call, assignment.returns, assignment.end, assignment.record].map(|number| (number, None));
        for program in loaded_programs() {
            let program = program.map_err(|error| Failure::Programs(with_causes(&error)))?;
            if let Some((_, found)) = numbers.iter_mut().find(|(number, _)| *number == program.id()) {
                *found = Some(program);
            }
        }
        let mut programs = numbers.into_iter().zip(PROGRAMS);
        let mut next = |kind| {
            let ((number, found), name) = programs.next().unwrap_or_default();
            let found = found.ok_or_else(|| Failure::Programs(format!("there is no program {number} ({name})")))?;
            // SAFETY: the kind is the one that the program of this name was written for.
            unsafe { UProbe::from_program_info(found, name.into(), kind) }
                .map_err(|error| Failure::Programs(with_causes(&error)))
        };
        Ok(Self {
            calls: next(ProbeKind::Entry)?,
            returns: next(ProbeKind::Return)?,
            ends: next(ProbeKind::Entry)?,
            records: next(ProbeKind::Entry)?,
            shared: Arc::clone(shared),
            probed: HashMap::default(),
        })
    }

    /// Probes the processes of which it is told, until nobody tells of any.
    fn work(&mut self, processes: &Receiver<Used>) {
        let mut swept = Instant::now();
        loop {
            // Where nothing is probed, nothing ends.
            let used = match self.probed.is_empty() {
                true => processes.recv().map_err(RecvTimeoutError::from),
                false => processes.recv_timeout(SWEEP),
            };
            match used {
                Ok(Used { pid, speaks_tls }) => self.process(pid, speaks_tls).iter().for_each(say),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if swept.elapsed() >= SWEEP {
                self.sweep();
                swept = Instant::now();
            }
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
        processes.filter_map(|process| self.process(process.pid.cast_unsigned(), false)).collect()
    }

    /// Probes the files that a process has mapped, and that are not probed yet. Where it speaks TLS and no library's call was
    /// seen around that, though those were probed, it sends by itself what a library has encrypted.
    fn process(&mut self, pid: u32, speaks_tls: bool) -> Option<Report> {
        let begun = Instant::now();
        let stat = Process::new(pid.cast_signed()).and_then(|process| process.stat()).ok()?;
        let files = mapped::files(pid);
        let files = files.inspect_err(|error| debug!("process {pid}: its files cannot be listed: {error}")).ok()?;
        if let Some(probed) = self.probed.remove(&pid) {
            if probed.started == stat.starttime {
                self.probed.insert(pid, probed);
            } else {
                self.discard(probed);
            }
        }
        let sends_records = speaks_tls && self.is_probed(pid);
        let mut probes = 0;
        let mut libraries = Vec::new();
        let mut is_seen = false;
        for file in files {
            is_seen = true;
            let places = self.shared.places(&file);
            let (records, calls): (Vec<Place>, Vec<Place>) =
                places.iter().cloned().partition(|place| place.role == Role::Record);
            libraries.extend(calls.first().map(|place| place.library));
            probes += if self.shared.all {
                self.probe_everywhere(&file, &calls)
            } else {
                self.probe(pid, stat.starttime, &file, &calls)
            };
            if sends_records {
                probes += self.probe(pid, stat.starttime, &file, &records);
            }
        }
        if !is_seen {
            // It has ended meanwhile.
            return None;
        }
        let libraries = libraries.into_iter().map(TlsLibrary::from).collect();
        debug!("process {pid} ({}): {probes} probes in {:?}", stat.comm, begun.elapsed());
        Some(Report::Searched { pid, libraries })
    }

    /// Probes a file in a process, where that is not done yet; how many probes that took.
    fn probe(&mut self, pid: u32, started: u64, file: &MappedFile, places: &[Place]) -> usize {
        let (Some(first), Some(process)) = (places.first(), NonZeroU32::new(pid)) else { return 0 };
        let key = (file.identity, first.role == Role::Record);
        if self.probed.get(&pid).is_some_and(|probed| probed.files.contains_key(&key)) {
            return 0;
        }
        let links = self.attach(file, places, UProbeScope::OneProcess(process));
        let count = links.len();
        let new = || Probed { started, files: HashMap::default() };
        self.probed.entry(pid).or_insert_with(new).files.insert(key, links);
        count
    }

    /// Probes a file in all processes, where that is not done yet; how many probes that took.
    fn probe_everywhere(&mut self, file: &MappedFile, places: &[Place]) -> usize {
        let shared = Arc::clone(&self.shared);
        // Meanwhile nobody else does the same.
        let mut everywhere = locked(&shared.everywhere);
        if places.is_empty() || everywhere.contains_key(&file.identity) {
            return 0;
        }
        let links = self.attach(file, places, UProbeScope::AllProcesses);
        let count = links.len();
        everywhere.insert(file.identity, links);
        count
    }

    /// Whether the calls of a process are followed already.
    fn is_probed(&self, pid: u32) -> bool {
        self.shared.all || self.probed.contains_key(&pid)
    }

    /// Attaches a file's probes. One that the kernel refuses is left out.
    fn attach(&mut self, file: &MappedFile, places: &[Place], scope: UProbeScope) -> Vec<UProbeLink> {
        let mut links = Vec::new();
        for place in places {
            let attached = match place.role {
                // The return first: a call that is noted is then noted to end.
                Role::Call(call) => {
                    attach(&mut self.returns, &file.path, place.offset, None, scope).and_then(|returns| {
                        links.push(returns);
                        attach(&mut self.calls, &file.path, place.offset, Some(call.to_cookie()), scope)
                    })
                }
                Role::Record => attach(&mut self.records, &file.path, place.offset, None, scope),
                Role::End => attach(&mut self.ends, &file.path, place.offset, None, scope),
            };
            match attached {
                Ok(link) => links.push(link),
                // It has ended meanwhile.
                Err(error) if os_error(&error) == Some(libc::ESRCH) => break,
                Err(error) => {
                    warn!("{} of {} cannot be probed: {}", place.function, file.name.display(), with_causes(&error))
                }
            }
        }
        links
    }

    /// Forgets processes that have ended: their probes take descriptors.
    fn sweep(&mut self) {
        let has_ended = |pid: &u32, probed: &mut Probed| {
            let stat = Process::new(pid.cast_signed()).and_then(|process| process.stat());
            !stat.is_ok_and(|stat| stat.starttime == probed.started)
        };
        let ended: Vec<_> = self.probed.extract_if(has_ended).collect();
        ended.into_iter().for_each(|(_, probed)| self.discard(probed));
    }

    /// Has probes taken away.
    fn discard(&self, probed: Probed) {
        let _ = self.shared.ended.send(probed);
    }
}

/// Tells the agent. Where it has ended, this process ends soon, too.
fn say(report: &Report) {
    let _ = io::stdout().write_all(report.to_line().as_bytes());
}

fn attach(
    program: &mut UProbe,
    path: &Path,
    offset: u64,
    cookie: Option<u64>,
    scope: UProbeScope,
) -> Result<UProbeLink, aya::programs::ProgramError> {
    let point = UProbeAttachPoint { location: UProbeAttachLocation::AbsoluteOffset(offset), cookie };
    let link = program.attach(point, path, scope)?;
    program.take_link(link)
}
