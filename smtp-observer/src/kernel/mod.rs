//! The kernel side as user space sees it: the only code that knows aya.
//!
//! [`layout`] finds the kernel's fields, [`Kernel::attach`] loads the programs and attaches them, [`ring`] reads their
//! records, [`probe`] says what the host allows, [`host`] lists what was open before.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, ProgramError};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};
use clap::ValueEnum;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use smtp_ebpf::config::{Offsets, PORT_WORDS, Syscalls};
use smtp_ebpf::event::Kind;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::level_filters::LevelFilter;
use tracing::{debug, warn};

use crate::event::{Host, KernelEvent, Time};
use layout::Layout;

pub mod host;
pub mod layout;
pub mod probe;
mod ring;

pub use probe::{Check, check};

/// How long events may wait for each other, so that a busy host wakes the agent once for many.
const BATCH: Duration = Duration::from_millis(20);

/// Most events taken in one go: some milliseconds of work.
const MOST_AT_ONCE: usize = 16_384;

/// The object that the build script made.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/smtp-ebpf"));

/// The hooks, each with the tracepoint that it attaches to; every program has the name of its tracepoint.
const TRACEPOINTS: [&str; 3] = ["inet_sock_set_state", "sock_send_length", "sock_recv_length"];

/// What the kernel side is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Watched when either end of a connection has one of them.
    pub ports: Vec<u16>,
    /// Which hooks.
    pub hooks: Hooks,
    /// Size of the ring buffer in bytes: a power of two, and a multiple of the page size.
    pub ring_bytes: u32,
    /// What the programs say of themselves in the agent's log; off costs nothing.
    pub diagnostics: LevelFilter,
}

/// The choice of a hook family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hooks {
    /// The best that the kernel allows.
    #[default]
    Auto,
    /// Trampolines on the TCP send and receive functions.
    Fentry,
    /// The BTF tracepoints of the socket layer.
    Tracepoint,
}

/// A hook family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Trampolines on the TCP functions.
    Fentry,
    /// `tp_btf` on `sock_send_length` and `sock_recv_length`.
    Tracepoint,
}

impl Family {
    /// The name used in options, events and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Tracepoint => "tracepoint",
        }
    }
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
    /// A tracepoint is missing.
    #[error("this kernel has no tracepoint {0}: Linux 6.3 or newer is needed.")]
    NoTracepoint(&'static str),
    /// A family that this build does not have.
    #[error("this version has no {} hooks yet: use --hooks auto.", .0.as_str())]
    NoFamily(Family),
    /// The kernel refused.
    #[error("the kernel refuses the eBPF programs: {0}. `smtp-observer check` says what this host allows.")]
    Refused(String),
    /// The ring buffer cannot be polled.
    #[error("the ring buffer cannot be polled: {0}.")]
    Poll(#[source] io::Error),
    /// The host does not say when it is, or which boot this is.
    #[error("the host's clocks cannot be read: {0}.")]
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
    text.lines().next().unwrap_or_default().trim_end_matches(". Verifier output: ").to_owned()
}

/// The attached programs. Dropping it detaches them: nothing is pinned.
pub struct Kernel {
    // The links live in here.
    _programs: Ebpf,
    ring: AsyncFd<RingBuf<MapData>>,
    reader: ring::Reader,
    lost: PerCpuArray<MapData, u64>,
    host: Host,
    seen: Counts,
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
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Process => "process",
        Kind::State => "state",
        Kind::Send => "send",
        Kind::Receive => "receive",
    }
}

impl Kernel {
    /// Finds the kernel's fields, loads the programs and attaches them.
    ///
    /// Must be called in a tokio runtime; needs CAP_BPF and CAP_PERFMON, which may be dropped afterwards.
    pub fn attach(settings: &Settings) -> Result<Self, Error> {
        probe::require_privileges()?;
        let host = this_host().map_err(Error::Clock)?;
        let layout = Layout::of_kernel().map_err(NoLayout)?;
        let family = probe::choose(settings.hooks, &layout)?;
        debug!("attaching the {} hooks", family.as_str());
        let offsets = layout.offsets().map_err(NoLayout)?;
        drop(layout);
        let mut programs = load(settings, offsets)?;
        attach(&mut programs)?;
        give_memory_back();
        diagnose(&mut programs, settings.diagnostics);
        let ring = RingBuf::try_from(take(&mut programs, "EVENTS")?).map_err(|error| Error::Refused(chain(&error)))?;
        let lost =
            PerCpuArray::try_from(take(&mut programs, "LOST")?).map_err(|error| Error::Refused(chain(&error)))?;
        Ok(Self {
            _programs: programs,
            ring: pollable(ring).map_err(Error::Poll)?,
            reader: ring::Reader::default(),
            lost,
            host,
            seen: Counts::default(),
            behind: false,
        })
    }

    /// The hooks in use.
    pub fn family(&self) -> Family {
        Family::Tracepoint
    }

    /// What ties the events to wall-clock time: the first item of the stream.
    pub fn host(&self) -> Host {
        self.host.clone()
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
        self.ring.readable().await?.clear_ready();
        // The kernel wakes early where the ring is half full.
        tokio::select! {
            () = tokio::time::sleep(BATCH) => {}
            guard = self.ring.readable() => guard?.clear_ready(),
        }
        Ok(())
    }

    /// Takes the events that wait, at most [`MOST_AT_ONCE`]: a host that never pauses must not keep the agent from
    /// anything else.
    pub fn drain(&mut self, sink: &mut dyn FnMut(KernelEvent)) {
        self.behind = true;
        for _ in 0..MOST_AT_ONCE {
            let Some(record) = self.ring.get_mut().next() else {
                self.behind = false;
                break;
            };
            match self.reader.read(&record) {
                Ok((kind, event)) => {
                    self.seen.0[kind as usize - 1] += 1;
                    sink(event);
                }
                Err(error) => warn!("{error}"),
            }
        }
    }

    /// Events taken so far.
    pub fn seen(&self) -> Counts {
        self.seen
    }

    /// Events that found no room in the ring buffer so far.
    pub fn losses(&self) -> Counts {
        let mut losses = Counts::default();
        for kind in Kind::ALL {
            match self.lost.get(&(kind as u32), 0) {
                Ok(counters) => losses.0[kind as usize - 1] = counters.iter().sum(),
                Err(error) => warn!("the counters of lost events cannot be read: {error}"),
            }
        }
        losses
    }
}

fn take(programs: &mut Ebpf, map: &str) -> Result<Map, Error> {
    programs.take_map(map).ok_or_else(|| Error::Refused(format!("the object has no map {map}")))
}

fn load(settings: &Settings, offsets: Offsets) -> Result<Ebpf, Error> {
    let mut ports = [0u64; PORT_WORDS];
    for port in &settings.ports {
        ports[usize::from(port / 64)] |= 1 << (port % 64);
    }
    let offsets = PlainOffsets(offsets);
    let syscalls = PlainSyscalls(layout::syscalls());
    let level = log_level(settings.diagnostics);
    let programs = EbpfLoader::new()
        // For relocations of fields, which these programs do not have: a parse of all of the kernel's types less.
        .btf(None)
        .override_global("OFFSETS", &offsets, true)
        .override_global("SYSCALLS", &syscalls, true)
        .override_global("WATCHED_PORTS", &ports[..], true)
        .override_global(aya_log::LEVEL, &level, false)
        .map_max_entries("EVENTS", settings.ring_bytes)
        .load(OBJECT)?;
    Ok(programs)
}

fn attach(programs: &mut Ebpf) -> Result<(), Error> {
    let btf = Btf::from_sys_fs().map_err(|error| Error::Refused(chain(&error)))?;
    for tracepoint in TRACEPOINTS {
        let program: &mut BtfTracePoint = programs
            .program_mut(tracepoint)
            .ok_or_else(|| Error::Refused(format!("the object has no program {tracepoint}")))?
            .try_into()?;
        program.load(tracepoint, &btf)?;
    }
    // Attached together, so that none sees a connection that the others miss for long.
    for tracepoint in TRACEPOINTS {
        if let Some(program) = programs.program_mut(tracepoint) {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.attach()?;
        }
    }
    Ok(())
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

/// What the clock of the events says.
pub fn now() -> io::Result<Time> {
    let boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    Ok(Time(boot.as_nanos() as u64))
}

fn this_host() -> io::Result<Host> {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let unix = clock_gettime(ClockId::CLOCK_REALTIME)?;
    let nanoseconds = |time: nix::sys::time::TimeSpec| time.tv_sec() * 1_000_000_000 + time.tv_nsec();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(Host { unix_offset: nanoseconds(unix) - nanoseconds(boot), boot_id: Arc::from(boot_id.trim()) })
}
