//! Plaintext of TLS, read from the libraries of the processes that use watched sockets.
//!
//! [`library`] finds in a file the functions that are to be probed, [`mapped`] the files of a process; [`reach`] decides in which
//! processes. A process of its own, the [`prober`], attaches the probes: it keeps the privileges that this takes, and reads
//! nothing that comes from a network.

mod attach;
mod confined;
mod found;
mod library;
mod mapped;
mod multi;
mod prober;
mod processes;
mod reach;
mod removal;
mod report;

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::Map;
use aya::programs::{ProgramError, UProbe};
use clap::ValueEnum;
use nix::unistd::dup;
use procfs::KernelVersion;
use tracing::level_filters::LevelFilter;
use tracing::{debug, warn};

use self::report::Reports;
use super::{Error, OBJECT, Settings};
use crate::event::{Time, TlsLibraries};
use crate::privilege;
pub(super) use found::diagnose;
pub use prober::{Assignment, Failure, probe};

/// The first kernel that gives a map of probes its memory as it is needed.
const FIRST_KERNEL: [u8; 2] = [6, 1];

/// Whose plaintext of TLS is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Tls {
    /// Every process that has loaded them; where others call a library often, only those that use a watched port.
    #[default]
    Auto,
    /// Every process that has loaded them, always.
    All,
    /// None: what is said behind STARTTLS is not read.
    Off,
}

impl Tls {
    /// The name used in options.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::All => "all",
            Self::Off => "off",
        }
    }

    /// Whether this kernel can do it.
    pub(super) fn is_possible(self) -> bool {
        self != Self::Off
            && privilege::may_probe()
            && KernelVersion::current().is_ok_and(|version| [version.major, version.minor] >= FIRST_KERNEL)
    }
}

/// Programs that are probes, by what they stand on: a call, its return, the end of a session, a record that is handed over.
const PROGRAMS: [&str; 4] = ["tls_call", "tls_return", "tls_end", "tls_record"];

/// How long the end waits until the kernel has taken the probes away.
const LAST_PROBES: Duration = Duration::from_secs(5);

/// The process that attaches probes. It ends with this.
pub(super) struct Prober {
    /// There until this is dropped.
    process: Option<Child>,
    /// Its pid.
    number: u32,
    /// Until the first report has come.
    starting: Option<ChildStdout>,
    reports: Option<Reports>,
}

impl Prober {
    /// Has the kernel check the probes, and starts the process that attaches them.
    fn start(object: &mut Ebpf, settings: &Settings) -> Result<Self, Error> {
        let multi = multi::is_possible().then(|| multi::load(OBJECT, object, PROGRAMS));
        let multi =
            multi.and_then(|loaded| loaded.inspect_err(|error| debug!("probes stand one by one: {error}")).ok());
        // What is duplicated is inherited by the process.
        let hand = |descriptor: BorrowedFd<'_>| dup(descriptor).map_err(|error| Error::Prober(error.into()));
        let mut handed = Vec::new();
        let programs = match &multi {
            Some(programs) => {
                for program in programs {
                    handed.push(hand(program.as_fd())?);
                }
                handed.iter().map(|program| program.as_raw_fd().cast_unsigned()).collect()
            }
            None => load(object)?,
        };
        let Some(Map::RingBuf(processes)) = object.map("TLS_PROCESSES") else {
            return Err(Error::Refused("the object has no map TLS_PROCESSES".into()));
        };
        let processes = hand(processes.fd().as_fd())?;
        let child = Command::new("/proc/self/exe")
            .arg0(env!("CARGO_PKG_NAME"))
            .arg("probe-tls")
            .arg(settings.tls.as_str())
            .args(programs.iter().map(u32::to_string))
            .arg(processes.as_raw_fd().to_string())
            .args(multi.is_some().then_some("--multi"))
            .args(settings.user.iter().flat_map(|user| ["--user", user]))
            .args((settings.diagnostics != LevelFilter::OFF).then_some("--verbose"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = child.map_err(Error::Prober)?;
        let starting = process.stdout.take();
        Ok(Self { number: process.id(), process: Some(process), starting, reports: None })
    }

    pub(super) fn pid(&self) -> u32 {
        self.number
    }

    /// Waits until it is ready to probe whatever comes. Where it cannot be, it says why itself, and nothing is probed.
    pub(super) fn wait(&mut self) {
        if let Some(pipe) = self.starting.take() {
            self.reports = Reports::after_the_first(pipe.into()).ok();
        }
    }

    /// It attaches probes.
    pub(super) fn is_at_work(&self) -> bool {
        self.reports.is_some()
    }

    /// Takes what it reports.
    pub(super) fn take(&mut self, time: Time, sink: &mut dyn FnMut(TlsLibraries)) {
        if let Some(reports) = &mut self.reports
            && !reports.take(time, sink)
        {
            warn!(
                "the process that attaches probes has ended: TLS is not read any more. Restart the agent to read it."
            );
            self.reports = None;
        }
    }
}

/// Starts the process that attaches probes, if TLS is to be read. Where that fails, all else is observed.
pub(super) fn start(programs: &mut Ebpf, settings: &Settings) -> Option<Prober> {
    if !settings.tls.is_possible() {
        if settings.tls == Tls::All {
            warn!("TLS is not read, for want of a right or of a newer kernel: `smtp-observer check` says which.");
        }
        return None;
    }
    Prober::start(programs, settings).inspect_err(|error| warn!("TLS is not read: {error}")).ok()
}

/// Completes when the process that attaches probes has something to report.
pub(super) async fn reported(prober: Option<&Prober>) {
    match prober.and_then(|prober| prober.reports.as_ref()) {
        Some(reports) if reports.readable().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// Loads the programs that stand on one function each: their numbers.
fn load(object: &mut Ebpf) -> Result<Vec<u32>, Error> {
    let mut numbers = Vec::new();
    for name in PROGRAMS {
        let program: &mut UProbe = object.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
        program.load()?;
        numbers.push(program.info()?.id());
    }
    Ok(numbers)
}

impl Drop for Prober {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // It takes its probes away, many at once, and ends. Where there are thousands, nobody waits for it.
        drop(process.stdin.take());
        let (ended, has_ended) = mpsc::channel();
        let wait = move || {
            let _ = ended.send(process.wait());
        };
        match thread::Builder::new().name("prober".into()).spawn(wait) {
            Ok(_) if has_ended.recv_timeout(LAST_PROBES).is_err() => debug!("probes are still being taken away"),
            Ok(_) => {}
            Err(error) => debug!("the process that attaches probes is not waited for: {error}"),
        }
    }
}
