//! Plaintext of TLS, read from the libraries of the processes that use watched sockets.
//!
//! [`library`] finds in a file the functions that are to be probed, [`mapped`] the files of a process. A process of its own,
//! the [`prober`], attaches the probes: it keeps the privileges that this takes, and reads nothing that comes from a network.

mod found;
mod library;
mod mapped;
mod prober;
mod report;

use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aya::Ebpf;
use aya::programs::{ProgramError, UProbe};
use clap::ValueEnum;
use procfs::KernelVersion;
use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing::{debug, warn};

use self::report::Reports;
use super::{Error, Settings, with_causes};
use crate::event::{Time, TlsLibraries};
use crate::privilege;
pub(super) use found::diagnose;
pub use prober::{Assignment, Failure, probe};

/// The first kernel that gives a map of probes its memory as it is needed.
const FIRST_KERNEL: [u8; 2] = [6, 1];

/// Whose plaintext of TLS is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// That of processes that use watched sockets, from the moment that they do.
    #[default]
    Auto,
    /// The same; but every process has the probes, so that the shortest-lived one is read from its start.
    All,
    /// Nobody's.
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
        let mut numbers = Vec::new();
        for name in PROGRAMS {
            let program: &mut UProbe = object.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
            program.load()?;
            let information = program.info()?;
            let steps = information.verified_instruction_count().unwrap_or_default();
            debug!("{name}: accepted after {steps} steps of the verifier");
            numbers.push(information.id());
        }
        let processes = object.map("TLS_PROCESSES").ok_or_else(|| Error::Refused("the object has no map".into()))?;
        let aya::maps::Map::RingBuf(processes) = processes else {
            return Err(Error::Refused("TLS_PROCESSES is no ring buffer".into()));
        };
        numbers.push(processes.info().map_err(|error| Error::Refused(with_causes(&error)))?.id());
        let child = Command::new("/proc/self/exe")
            .arg0(env!("CARGO_PKG_NAME"))
            .arg("probe-tls")
            .arg(settings.tls.as_str())
            .args(numbers.iter().map(u32::to_string))
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

    /// Completes when it has something to report.
    pub(super) async fn reports(&self) {
        match &self.reports {
            Some(reports) if reports.readable().await.is_ok() => {}
            _ => std::future::pending().await,
        }
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
    match prober {
        Some(prober) => prober.reports().await,
        None => std::future::pending().await,
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        if let Err(error) = process.kill() {
            debug!("the process that attaches probes cannot be ended: {error}");
            return;
        }
        // The kernel takes its probes away as it ends, one after the other. Where there are hundreds, that takes minutes, and
        // nobody waits for it.
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
