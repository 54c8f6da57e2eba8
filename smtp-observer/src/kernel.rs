//! The kernel side as user space sees it: the only code that knows aya.
//!
//! [`layout`] finds the kernel's fields, [`hooks`] has the programs of each family, [`Kernel::attach`] loads and attaches
//! them, [`ring`] reads their records, [`open`] lists the sockets that are open now, [`probe`] says what the host allows,
//! [`host`] reads the host's own files.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use aya::programs::ProgramError;
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};
use procfs::KernelVersion;
use smtp_ebpf::config::{Iterators, Offsets, PORT_WORDS, Syscalls};
use smtp_ebpf::event::{Kind, Lost};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::level_filters::LevelFilter;
use tracing::{debug, warn};

use crate::event::{Host, KernelEvent, MalformedRecord, Snapshot};
use layout::Layout;
use open::Arguments;

pub mod chain;
mod diagnostics;
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

pub use diagnostics::{Diagnostic, State};
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

/// Why this host or this user cannot observe.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No root, no capabilities.
    #[error("this user may not load eBPF programs: run it as root, or with CAP_BPF and CAP_PERFMON.")]
    Privileges,
    /// The kernel does not say where its fields are.
    #[error(transparent)]
    Layout(#[from] NoLayout),
    /// It is older than what the programs are made for.
    #[error("this kernel is Linux {0}: 5.17 or newer is needed.")]
    TooOld(String),
    /// A tracepoint is missing.
    #[error("this kernel has no tracepoint {0}: Linux 6.3 or newer is needed.")]
    NoTracepoint(&'static str),
    /// A function is missing, or has other parameters.
    #[error("this kernel has no function {0} of the kind that the fentry hooks are made for.")]
    NoFunction(&'static str),
    /// The functions of IPv6 are not the kernel's own.
    #[error("IPv6 is a module of this kernel, whose functions the fentry hooks do not reach.")]
    Ipv6IsModule,
    /// Trampolines are forbidden.
    #[error("this kernel forbids programs on its functions (fentry), as in lockdown.")]
    NoTrampolines,
    /// The family that was asked for does not work here.
    #[error("{0} Use --hooks auto, which takes what the kernel allows.")]
    Asked(Box<Self>),
    /// The kernel refused.
    #[error("the kernel refuses the eBPF programs: {0}. `smtp-observer check` says what this host allows.")]
    Refused(String),
    /// Its cgroup is too small: the kernel's answer would be a kill.
    #[error(
        "the cgroup of the agent may have {most} MiB of memory, and it needs {needed} MiB: allow more (MemoryMax= of a unit, \
         --memory of a container), or give a smaller --ring-size."
    )]
    Memory {
        /// What it may have.
        most: u64,
        /// What is needed.
        needed: u64,
    },
    /// It may not open as many files as there are programs and maps.
    #[error(
        "this process may have {most} descriptors, and it needs {needed}: allow more (LimitNOFILE= of a unit, `ulimit -n`)."
    )]
    Descriptors {
        /// How many it may have.
        most: u64,
        /// How many are needed.
        needed: u64,
    },
    /// The ring buffer cannot be polled.
    #[error("the ring buffer cannot be polled: {0}.")]
    Poll(#[source] io::Error),
    /// The process that attaches probes cannot be started.
    #[error("the process that reads TLS cannot be started: {0}. With --tls off it is not needed.")]
    Prober(#[source] io::Error),
    /// The host does not say when it is, or which boot this is.
    #[error("the host's clocks cannot be read: {0}. /proc must be mounted.")]
    Clock(#[source] io::Error),
}

/// The kernel's types are not to be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}. A kernel built with CONFIG_DEBUG_INFO_BTF shows its types in {vmlinux}.", vmlinux = layout::VMLINUX)]
pub struct NoLayout(#[from] layout::Error);

impl From<EbpfError> for Error {
    fn from(error: EbpfError) -> Self {
        Self::Refused(chain(&error))
    }
}

impl From<ProgramError> for Error {
    fn from(error: ProgramError) -> Self {
        Self::Refused(chain(&error))
    }
}

impl Error {
    /// The kernel does not take a program of this family.
    fn refused(family: Family, error: &ProgramError) -> Self {
        match os_error(error) {
            Some(libc::EPERM | libc::EOPNOTSUPP | ENOTSUPP) if family == Family::Fentry => {
                debug!("{error:#?}");
                Self::NoTrampolines
            }
            _ => Self::Refused(chain(error)),
        }
    }
}

/// What a kernel says whose processor has no trampolines (`include/linux/errno.h`); no C library knows it.
const ENOTSUPP: i32 = 524;

/// The system's own number of an error, or of what caused it.
fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(number) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        cause = error.source();
    }
    None
}

/// An error with its causes, in one line; the verifier's log is for the debug level.
fn chain(error: &dyn std::error::Error) -> String {
    debug!("{error:#?}");
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    with_reason(&text)
}

/// The first line of an error; of the verifier's log, which may follow, its reason: the last line that is none of its figures.
fn with_reason(text: &str) -> String {
    const FIGURES: [&str; 3] = ["verification time", "stack depth", "processed"];
    let (head, log) = text.split_once(". Verifier output: ").unwrap_or((text, ""));
    let head = head.lines().next().unwrap_or_default();
    let is_reason = |line: &&str| !line.is_empty() && !FIGURES.iter().any(|figure| line.starts_with(figure));
    match log.lines().map(str::trim).rfind(is_reason) {
        Some(reason) => format!("{head}. Verifier output: {reason}"),
        None => head.to_owned(),
    }
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
    host: ThisHost,
    /// Of processes that were there before: `/proc` may hide them once privileges are given up.
    arguments: Arguments,
    seen: Counts,
    /// Events of sockets that no record has named.
    unnamed: Counts,
    /// Events were left in the ring buffer.
    behind: bool,
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
        probe::require_privileges()?;
        diagnostics::require_memory(settings.ring_bytes)?;
        diagnostics::require_descriptors()?;
        let host = ThisHost::new().map_err(Error::Clock)?;
        let layout = Layout::of_kernel().map_err(NoLayout)?;
        let mut programs = load(settings, &layout)?;
        let btf = Btf::from_sys_fs().map_err(|error| Error::Refused(chain(&error)))?;
        let loaded = Loaded::choose(settings.hooks, &mut programs, &layout, &btf)?;
        drop((layout, btf));
        let mut prober = tls::start(&mut programs, settings);
        loaded.attach(&mut programs)?;
        if let Some(prober) = &mut prober {
            prober.wait();
        }
        give_memory_back();
        diagnose(&mut programs, settings.diagnostics);
        let ring = RingBuf::try_from(take(&mut programs, "EVENTS")?).map_err(|error| Error::Refused(chain(&error)))?;
        let lost =
            PerCpuArray::try_from(take(&mut programs, "LOST")?).map_err(|error| Error::Refused(chain(&error)))?;
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
            host,
            seen: Counts::default(),
            unnamed: Counts::default(),
            behind: false,
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

    /// What ties the events to wall-clock time, as it was told last: the first item of the stream.
    pub fn host(&self) -> Host {
        self.host.told().clone()
    }

    /// Completes when events wait, and then a little later, so that those that follow come with them.
    ///
    /// Nothing is lost when it is cancelled.
    pub async fn ready(&self) -> io::Result<()> {
        if self.behind {
            // The kernel does not wake who has not read all: others have their turn, and it goes on.
            tokio::task::yield_now().await;
            return Ok(());
        }
        tokio::select! {
            ready = self.ring.readable() => ready?.clear_ready(),
            () = tls::reported(self.prober.as_ref()) => return Ok(()),
        }
        // The kernel wakes early where the ring is half full.
        tokio::select! {
            () = tokio::time::sleep(BATCH) => {}
            guard = self.ring.readable() => guard?.clear_ready(),
        }
        Ok(())
    }

    /// Takes the events that wait, at most [`MAX_AT_ONCE`]: a host that never pauses must not keep the agent from
    /// anything else.
    pub fn drain(&mut self, sink: &mut dyn FnMut(KernelEvent<'_>)) {
        let Self { ring, reader, seen, unnamed, host, prober, told_tls, .. } = self;
        let reads_tls = prober.as_ref().is_some_and(Prober::is_at_work);
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
        self.behind = records(ring.get_mut(), &mut |record| match reader.read(record) {
            Ok((kind, event)) => {
                seen.extend([(kind, 1)]);
                event.into_iter().for_each(&mut *sink);
            }
            Err(MalformedRecord::Owner(kind)) => unnamed.extend([(kind, 1)]),
            Err(error) => warn!("{error}"),
        });
    }

    /// Takes what [`drain`](Self::drain) would take, as the kernel side has written it: for a [`Reader`] of later on.
    pub fn records(&mut self, sink: &mut dyn FnMut(&[u8])) {
        self.behind = records(self.ring.get_mut(), sink);
    }

    /// Events were left by the last [`drain`](Self::drain).
    pub fn is_behind(&self) -> bool {
        self.behind
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

/// Takes the records that wait, at most [`MAX_AT_ONCE`]: whether some were left.
fn records(ring: &mut RingBuf<MapData>, sink: &mut dyn FnMut(&[u8])) -> bool {
    for _ in 0..MAX_AT_ONCE {
        let Some(record) = ring.next() else { return false };
        sink(&record);
    }
    true
}

fn take(programs: &mut Ebpf, map: &str) -> Result<Map, Error> {
    programs.take_map(map).ok_or_else(|| Error::Refused(format!("the object has no map {map}")))
}

/// The object with its maps, and what it is told of this kernel; none of its programs is loaded yet.
fn load(settings: &Settings, layout: &Layout) -> Result<Ebpf, Error> {
    let ports = bitmap(settings.ports.iter().copied());
    let network_ports = bitmap(settings.ports.iter().map(|port| port.to_be()));
    let offsets = PlainOffsets(layout.offsets().map_err(no_field)?);
    let iterators = PlainIterators(layout.iterators().map_err(NoLayout)?);
    let syscalls = PlainSyscalls(layout::syscalls());
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
        _ => NoLayout(error).into(),
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
struct PlainOffsets(Offsets);
// SAFETY: `repr(C)`, integers of one size, so no padding.
unsafe impl aya::Pod for PlainOffsets {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct PlainSyscalls(Syscalls);
// SAFETY: as above.
unsafe impl aya::Pod for PlainSyscalls {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct PlainIterators(Iterators);
// SAFETY: as above.
unsafe impl aya::Pod for PlainIterators {}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_reason_is_told() {
        let text = "the call failed. Verifier output: 0: R1=ctx()\n1: (95) exit\nthe call stack is too deep!\n\
                    processed 9 insns (limit 1000000)\n";
        assert_eq!(with_reason(text), "the call failed. Verifier output: the call stack is too deep!");
        assert_eq!(with_reason("the call failed. Verifier output: "), "the call failed");
        assert_eq!(with_reason("no such file"), "no such file");
    }
}
