//! The kernel side as user space sees it: the only code that knows aya.
//!
//! [`layout`] finds the kernel's fields, [`hooks`] has the programs of each family, [`Kernel::attach`] loads and attaches
//! them, [`ring`] reads their records, [`open`] lists the sockets that are open now, [`probe`] says what the host allows,
//! [`host`] reads the host's own files.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData, PerCpuArray, RingBuf};
use aya::{Btf, Ebpf, EbpfLoader, include_bytes_aligned};
use procfs::KernelVersion;
use smtp_ebpf::config::{Iterators, Offsets, PORT_WORDS, Syscalls};
use smtp_ebpf::event::{self as record, Kind, Lost};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::level_filters::LevelFilter;
use tracing::{debug, warn};

use crate::event::{Host, KernelEvent, MalformedRecord, Snapshot};
use crate::privilege;
use layout::Layout;
use open::Arguments;

pub mod chain;
mod diagnostics;
mod error;
mod hooks;
pub mod host;
pub mod layout;
mod open;
mod owners;
pub mod probe;
pub mod ring;
mod this_host;
mod tls;
mod users;

pub use diagnostics::{Diagnostic, State, hidden_owners};
pub use error::{Error, NoLayout};
use error::{os_error, with_causes};
use hooks::Loaded;
pub use hooks::{Family, Hooks};
pub use probe::{Check, FamilyCheck, check};
pub use ring::Reader;
use this_host::ThisHost;
pub use this_host::now;
use tls::Prober;
pub use tls::{Assignment, Failure as ProbeFailure, Tls, probe as probe_tls};

/// How long events may wait for each other, so that a busy host wakes the agent once for many.
const BATCH: Duration = Duration::from_millis(20);

/// How long they may where the last time brought as many as are [`WORTH_WAITING`]: what the agent works with has left the
/// processor's caches by the next time, and is fetched again less often.
const LONG_BATCH: Duration = Duration::from_millis(100);

/// So many events that it pays to wait for more, and not so many that a longer wait makes no difference.
const WORTH_WAITING: Range<usize> = 128..4096;

/// Most events taken in one go: some milliseconds of work.
const MAX_AT_ONCE: usize = 16_384;

/// The object that the build script made.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/smtp-ebpf"));

/// What the kernel side is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Watched when either end of a connection has one of them.
    pub ports: Vec<u16>,
    /// Which hooks.
    pub hooks: Hooks,
    /// Size of the ring buffer in bytes: a power of two, and a multiple of the page size.
    pub ring_bytes: u32,
    /// Whose plaintext of TLS is read.
    pub tls: Tls,
    /// The user that the process becomes which reads TLS, where root starts it; by default the agent's own.
    pub user: Option<String>,
    /// What the programs say of themselves in the agent's log; off costs nothing.
    pub diagnostics: LevelFilter,
}

/// The attached programs. Dropping it detaches them: nothing is pinned.
pub struct Kernel {
    // The links live in here, too.
    programs: Ebpf,
    /// It ends with the agent.
    prober: Option<Prober>,
    /// What was told last of whether TLS is read.
    told_tls: Option<bool>,
    loaded: Loaded,
    ring: AsyncFd<RingBuf<MapData>>,
    reader: Reader,
    lost: PerCpuArray<MapData, Lost>,
    /// Ends of connections that found no room in the ring.
    ends: HashMap<MapData, u64, Plain<record::State>>,
    host: ThisHost,
    /// Of processes that were there before: `/proc` may hide them once privileges are given up.
    arguments: Arguments,
    seen: Counts,
    /// Events of sockets that no record has named.
    unnamed: Counts,
    /// How many records were taken last.
    taken: usize,
}

/// Counts by kind of event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Kind::ALL.len()]);

impl Counts {
    /// Each kind's name with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Kind::ALL.into_iter().zip(self.0).map(|(kind, count)| (name(kind), count))
    }

    /// The count of one kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize - 1]
    }

    /// All kinds together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl Extend<(Kind, u64)> for Counts {
    fn extend<T: IntoIterator<Item = (Kind, u64)>>(&mut self, counts: T) {
        for (kind, count) in counts {
            self.0[kind as usize - 1] += count;
        }
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Process => "process",
        Kind::State => "state",
        Kind::Send => "send",
        Kind::Receive => "receive",
        Kind::Owner => "owner",
    }
}

impl Kernel {
    /// Finds the kernel's fields, loads the programs and attaches them.
    ///
    /// Must be called in a tokio runtime; needs CAP_BPF and CAP_PERFMON, which may be dropped afterwards.
    pub fn attach(settings: &Settings) -> Result<Self, Error> {
        privilege::may_observe().map_err(|_| Error::Privileges)?;
        diagnostics::require_memory(settings.ring_bytes)?;
        diagnostics::require_descriptors()?;
        if let Some(why) = diagnostics::hidden_processes() {
            warn!("{why}");
        }
        let host = ThisHost::new().map_err(Error::Clock)?;
        let layout = Layout::of_kernel().map_err(NoLayout::from)?;
        let mut programs = load(settings, &layout)?;
        let btf = Btf::from_sys_fs().map_err(|error| Error::Refused(with_causes(&error)))?;
        let loaded = Loaded::choose(settings.hooks, &mut programs, &layout, &btf)?;
        drop((layout, btf));
        let mut prober = tls::start(&mut programs, settings);
        loaded.attach(&mut programs)?;
        if let Some(prober) = &mut prober {
            prober.wait();
        }
        give_memory_back();
        diagnose(&mut programs, settings.diagnostics);
        let ring =
            RingBuf::try_from(take(&mut programs, "EVENTS")?).map_err(|error| Error::Refused(with_causes(&error)))?;
        let lost =
            PerCpuArray::try_from(take(&mut programs, "LOST")?).map_err(|error| Error::Refused(with_causes(&error)))?;
        let ends =
            HashMap::try_from(take(&mut programs, "ENDS")?).map_err(|error| Error::Refused(with_causes(&error)))?;
        let arguments = now().map_err(Error::Clock).and_then(|time| open::arguments_now(&mut programs, time));
        Ok(Self {
            arguments: arguments.inspect_err(|error| debug!("arguments are not known: {error}")).unwrap_or_default(),
            programs,
            prober,
            told_tls: None,
            loaded,
            ring: pollable(ring).map_err(Error::Poll)?,
            reader: Reader::default(),
            lost,
            ends,
            host,
            seen: Counts::default(),
            unnamed: Counts::default(),
            taken: 0,
        })
    }

    /// The hooks in use.
    pub fn family(&self) -> Family {
        self.loaded.family
    }

    /// The process that reads TLS. It ends with this.
    pub fn child(&self) -> Option<u32> {
        self.prober.as_ref().map(Prober::pid)
    }

    /// Whether that process is at work; none where TLS is not to be read, or cannot be.
    pub fn reads_tls(&self) -> Option<bool> {
        self.prober.as_ref().map(Prober::is_at_work)
    }

    /// What ties the events to wall-clock time, as it was told last: the first item of the stream.
    pub fn host(&self) -> Host {
        self.host.told().clone()
    }

    /// Completes when events wait, and then a little later, so that those that follow come with them.
    ///
    /// Nothing is lost when it is cancelled.
    pub async fn ready(&self) -> io::Result<()> {
        if self.is_behind() {
            // The kernel does not wake who has not read all: others have their turn, and it goes on.
            tokio::task::yield_now().await;
            return Ok(());
        }
        tokio::select! {
            ready = self.ring.readable() => ready?.clear_ready(),
            () = tls::reported(self.prober.as_ref()) => return Ok(()),
        }
        let batch = if WORTH_WAITING.contains(&self.taken) { LONG_BATCH } else { BATCH };
        // The kernel wakes early where the ring is half full.
        tokio::select! {
            () = tokio::time::sleep(batch) => {}
            guard = self.ring.readable() => guard?.clear_ready(),
        }
        Ok(())
    }

    /// Takes the events that wait, at most [`MAX_AT_ONCE`]: a host that never pauses must not keep the agent from
    /// anything else.
    pub fn drain(&mut self, sink: &mut dyn FnMut(KernelEvent<'_>)) {
        let reads_tls = self.reads_tls().unwrap_or_default();
        let Self { ring, reader, seen, unnamed, host, prober, told_tls, .. } = self;
        if told_tls.replace(reads_tls) != Some(reads_tls) {
            sink(KernelEvent::ReadsTls(reads_tls));
        }
        if let Some(prober) = prober
            && let Ok(time) = now()
        {
            prober.take(time, &mut |libraries| sink(KernelEvent::TlsLibraries(libraries)));
        }
        if let Some(host) = host.news() {
            sink(KernelEvent::Host(host));
        }
        self.taken = records(ring.get_mut(), &mut |record| match reader.read(record) {
            Ok((kind, event)) => {
                seen.extend([(kind, 1)]);
                event.into_iter().for_each(&mut *sink);
            }
            Err(MalformedRecord::Owner(kind)) => unnamed.extend([(kind, 1)]),
            Err(error) => warn!("{error}"),
        });
    }

    /// Takes the ends of connections for which [`drain`](Self::drain) had no record: they found no room, and are counted as lost.
    pub fn late_ends(&mut self, sink: &mut dyn FnMut(KernelEvent<'_>)) {
        let cookies: Vec<_> = self.ends.keys().collect();
        for cookie in cookies {
            let end = cookie.and_then(|cookie| {
                let end = self.ends.get(&cookie, 0)?;
                self.ends.remove(&cookie).map(|()| end)
            });
            match end {
                Ok(Plain(end)) => sink(KernelEvent::State(self.reader.state(&end))),
                Err(error) => warn!("the end of a connection cannot be read: {error}"),
            }
        }
    }

    /// Takes what [`drain`](Self::drain) would take, as the kernel side has written it: for a [`Reader`] of later on.
    pub fn records(&mut self, sink: &mut dyn FnMut(&[u8])) {
        self.taken = records(self.ring.get_mut(), sink);
    }

    /// Events may have been left by the last [`drain`](Self::drain).
    pub fn is_behind(&self) -> bool {
        self.taken == MAX_AT_ONCE
    }

    /// The sockets that are open now. Needs no privilege once the programs are loaded (before Linux 5.19, CAP_BPF).
    ///
    /// To be taken when [`drain`](Self::drain) has left nothing: no event that comes later is then the end of a listed
    /// socket's earlier life.
    pub fn snapshot(&mut self) -> Result<Snapshot, Error> {
        let time = now().map_err(Error::Clock)?;
        open::list(&mut self.programs, &mut self.reader, time, &self.arguments)
    }

    /// Events taken so far.
    pub fn seen(&self) -> Counts {
        self.seen
    }

    /// How often the kernel has skipped each program so far: another call came while its processor was in the middle of it.
    pub fn misses(&self) -> Vec<(&'static str, u64)> {
        self.loaded.misses(&self.programs)
    }

    /// Events that found no room in the ring buffer so far, and those of which it is not known whose they are.
    pub fn losses(&self) -> Counts {
        let mut losses = self.unnamed;
        for program in 0..self.lost.len() {
            match self.lost.get(&program, 0) {
                Ok(processors) => {
                    let counts = |lost: &Lost| Kind::ALL.map(|kind| (kind, lost[kind as usize]));
                    losses.extend(processors.iter().flat_map(counts));
                }
                Err(error) => warn!("the counters of lost events cannot be read: {error}"),
            }
        }
        losses
    }
}

/// Takes the records that wait, at most [`MAX_AT_ONCE`]: how many these were.
fn records(ring: &mut RingBuf<MapData>, sink: &mut dyn FnMut(&[u8])) -> usize {
    let mut taken = 0;
    while taken < MAX_AT_ONCE
        && let Some(record) = ring.next()
    {
        sink(&record);
        taken += 1;
    }
    taken
}

fn take(programs: &mut Ebpf, map: &str) -> Result<Map, Error> {
    programs.take_map(map).ok_or_else(|| Error::Refused(format!("the object has no map {map}")))
}

/// The object with its maps, and what it is told of this kernel; none of its programs is loaded yet.
fn load(settings: &Settings, layout: &Layout) -> Result<Ebpf, Error> {
    let ports = bitmap(settings.ports.iter().copied());
    let network_ports = bitmap(settings.ports.iter().map(|port| port.to_be()));
    let offsets = Plain(layout.offsets().map_err(no_field)?);
    let iterators = Plain(layout.iterators().map_err(NoLayout::from)?);
    let syscalls = Plain(layout::syscalls());
    let level = log_level(settings.diagnostics);
    let reads_tls = u32::from(settings.tls.is_possible());
    let programs = EbpfLoader::new()
        // For relocations of fields, which these programs do not have: a parse of all of the kernel's types less.
        .btf(None)
        .override_global("OFFSETS", &offsets, true)
        .override_global("SYSCALLS", &syscalls, true)
        .override_global("ITERATORS", &iterators, true)
        .override_global("WATCHED_PORTS", &ports[..], true)
        .override_global("WATCHED_NETWORK_PORTS", &network_ports[..], true)
        .override_global("READS_TLS", &reads_tls, true)
        .override_global(aya_log::LEVEL, &level, false)
        .map_max_entries("EVENTS", settings.ring_bytes)
        .load(OBJECT)?;
    Ok(programs)
}

/// A field is missing: in a kernel that is too old, its age is what matters. A vendor may have brought an old one up.
fn no_field(error: layout::Error) -> Error {
    match KernelVersion::current() {
        Ok(version) if version < KernelVersion::new(5, 17, 0) => {
            Error::TooOld(format!("{}.{}", version.major, version.minor))
        }
        _ => NoLayout::from(error).into(),
    }
}

/// One bit a port.
fn bitmap(ports: impl Iterator<Item = u16>) -> [u64; PORT_WORDS] {
    let mut words = [0; PORT_WORDS];
    for port in ports {
        words[usize::from(port / 64)] |= 1 << (port % 64);
    }
    words
}

/// Returns to the host what parsing the kernel's types took: some 20 MB that are never needed again.
fn give_memory_back() {
    // SAFETY: the function has no precondition.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Passes what the programs say of themselves to the agent's log.
fn diagnose(programs: &mut Ebpf, level: LevelFilter) {
    if level == LevelFilter::OFF {
        return;
    }
    let logger = match aya_log::EbpfLogger::init(programs) {
        Ok(logger) => pollable(logger),
        Err(error) => return warn!("the programs' diagnostics cannot be read: {error}"),
    };
    match logger {
        Ok(mut logger) => {
            tokio::spawn(async move {
                while let Ok(mut guard) = logger.readable_mut().await {
                    guard.get_inner_mut().flush();
                    guard.clear_ready();
                }
            });
        }
        Err(error) => warn!("the programs' diagnostics cannot be polled: {error}"),
    }
}

/// Registers a map's descriptor with the runtime.
fn pollable<M: AsRawFd>(map: M) -> io::Result<AsyncFd<M>> {
    // SAFETY: a map owns one descriptor, which stays open and the same until the map is dropped.
    unsafe { AsyncFd::register_with_interest(map, Interest::READABLE) }.map_err(Into::into)
}

fn log_level(level: LevelFilter) -> u8 {
    match level.into_level() {
        None => 0,
        Some(tracing::Level::ERROR) => aya_log::Level::Error as u8,
        Some(tracing::Level::WARN) => aya_log::Level::Warn as u8,
        Some(tracing::Level::INFO) => aya_log::Level::Info as u8,
        Some(tracing::Level::DEBUG) => aya_log::Level::Debug as u8,
        Some(tracing::Level::TRACE) => aya_log::Level::Trace as u8,
    }
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);
// SAFETY: `repr(C)`, integers of one size, so no padding.
unsafe impl aya::Pod for Plain<Offsets> {}
// SAFETY: as above.
unsafe impl aya::Pod for Plain<Syscalls> {}
// SAFETY: as above.
unsafe impl aya::Pod for Plain<Iterators> {}
// SAFETY: `repr(C)`, integers and arrays of integers, with explicit padding.
unsafe impl aya::Pod for Plain<record::State> {}
