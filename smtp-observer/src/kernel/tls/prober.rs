//! The process that attaches probes to the TLS libraries of other processes.
//!
//! It learns from the kernel side which processes use watched sockets, and which call a library too often without that; its
//! threads ([`super::processes`]) put the probes. It ends when its standard input does, as that of a child does when the agent
//! ends, and takes its probes away.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use aya::maps::{Map, MapData, RingBuf};
use aya::programs::{ProbeKind, loaded_programs};
use caps::Capability;
use foldhash::HashMap;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use smtp_ebpf::library_call::Notice;
use tracing::debug;

use super::attach::{Link, Probe, Programs};
use super::processes::{Processes, Shared, Told, say};
use super::report::Report;
use super::{PROGRAMS, Tls, mapped, removal};
use crate::event::Time;
use crate::kernel::with_causes;
use crate::privilege::{self, Calls};

/// The name by which ps(1) and top(1) list it, as the agent.
const NAME: &CStr = c"smtp-observer";

/// Threads that attach probes. To attach one, and to take it away, the kernel waits for a grace period: a tenth of a second each
/// time, and more on a busy host. Those who wait at the same time wait for the same one.
const ATTACHING: usize = 8;

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
    let shared = Shared::new(assignment.tls == Tls::All, assignment.multi)?;
    let (unwanted, gathered) = channel();
    // All threads have ended behind it, and all probes are taken away.
    thread::scope(|scope| {
        thread::Builder::new().spawn_scoped(scope, move || removal::remove(&gathered, assignment.multi))?;
        let mut first = Processes::new(programs(assignment)?, &shared, &unwanted);
        // The agent waits for the probes, unless each is a link of its own: that takes long, and is worth it for all processes only.
        let waits = shared.all || assignment.multi;
        let searched = if waits { first.prepare() } else { Vec::new() };
        let mut shares = vec![first];
        for _ in 1..ATTACHING {
            shares.push(Processes::new(programs(assignment)?, &shared, &unwanted));
        }
        let mut threads = Threads { shared: &shared, programs: programs(assignment)?, told: Vec::new(), unwanted };
        let mut running = Vec::new();
        let mut prepares = !waits;
        for mut processes in shares {
            let (sender, told) = channel();
            let prepares = std::mem::take(&mut prepares);
            running.push(thread::Builder::new().spawn_scoped(scope, move || {
                if prepares {
                    processes.prepare();
                }
                processes.work(&told);
            })?);
            threads.told.push(sender);
        }
        say(&Report::Ready);
        searched.iter().for_each(say);
        let followed = threads.follow(&mut notices);
        threads.told.clear();
        for thread in running {
            let _ = thread.join();
        }
        shared.libraries.clear(&threads.unwanted);
        followed
    })
}

/// The programs that this process was told of.
fn programs(assignment: &Assignment) -> Result<Programs, Failure> {
    let refused = |error: &dyn std::error::Error| Failure::Programs(with_causes(error));
    let probe = |number: u32, name, kind| {
        if assignment.multi {
            // SAFETY: it was handed to this process, and stays open.
            let program = unsafe { BorrowedFd::borrow_raw(number.cast_signed()) };
            let program = program.try_clone_to_owned().map_err(|error| refused(&error))?;
            return Ok(Probe::Multi(program, kind));
        }
        let found = loaded_programs().filter_map(Result::ok).find(|program| program.id() == number);
        let found = found.ok_or_else(|| Failure::Programs(format!("there is no program {number} ({name})")))?;
        Probe::single(found, name, kind).map_err(|error| refused(&error))
    };
    let [call, returns, end, record] = PROGRAMS;
    Ok(Programs {
        calls: probe(assignment.call, call, ProbeKind::Entry)?,
        returns: probe(assignment.returns, returns, ProbeKind::Return)?,
        ends: probe(assignment.end, end, ProbeKind::Entry)?,
        records: probe(assignment.record, record, ProbeKind::Entry)?,
    })
}

/// The threads that attach probes.
struct Threads<'a> {
    shared: &'a Shared,
    programs: Programs,
    told: Vec<Sender<Told>>,
    /// Where probes go that are not needed any more.
    unwanted: Sender<Link>,
}

impl Threads<'_> {
    /// Tells them of processes until standard input ends.
    fn follow(&mut self, notices: &mut RingBuf<MapData>) -> Result<(), Failure> {
        let input = io::stdin();
        loop {
            let mut processes: HashMap<u32, Option<Time>> = HashMap::default();
            while let Some(notice) = notices.next().as_deref().and_then(Notice::read) {
                let pid = notice.pid as u32;
                if notice.is_unwatched != 0 {
                    self.narrow(pid)?;
                } else {
                    let known = processes.entry(pid).or_default();
                    *known = (*known).max((notice.speaks_tls != 0).then_some(Time(notice.speaks_tls)));
                }
            }
            for pid in self.shared.ends()? {
                self.tell(pid, Told::Ended { pid })?;
            }
            for (pid, speaks_tls) in processes {
                self.tell(pid, Told::Used { pid, speaks_tls })?;
            }
            self.change()?;
            let change = self.shared.libraries.next_change();
            let change = change.map(|due| due.saturating_duration_since(Instant::now()));
            let timeout = change.map_or(PollTimeout::NONE, |left| left.try_into().unwrap_or(PollTimeout::MAX));
            // SAFETY: the ring buffer has it open for longer than it is used here.
            let ring = unsafe { BorrowedFd::borrow_raw(notices.as_raw_fd()) };
            let waits = [ring, input.as_fd(), self.shared.alive(), self.shared.libraries.changed()];
            let mut waits = waits.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
            match poll(&mut waits, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if waits[1].any() == Some(true) {
                return Ok(());
            }
        }
    }

    /// A process calls libraries too often: they are to be probed in mail's processes alone.
    fn narrow(&self, pid: u32) -> Result<(), Failure> {
        if self.shared.all {
            return Ok(());
        }
        let files =
            mapped::files(pid).inspect_err(|error| debug!("process {pid}: its files cannot be listed: {error}"));
        for (name, outgoing) in self.shared.libraries.narrow(files.into_iter().flatten(), &self.unwanted) {
            debug!("{}, which process {pid} calls often, is probed in mail's processes alone", name.display());
            // The last of them takes the links away.
            let outgoing = Arc::new(outgoing);
            for thread in &self.told {
                thread.send(Told::Narrowed(Arc::clone(&outgoing))).map_err(|_| Failure::Ended)?;
            }
        }
        Ok(())
    }

    /// Libraries whose time has come are probed in all processes again, or let go of.
    fn change(&mut self) -> Result<(), Failure> {
        for file in self.shared.libraries.change(&mut self.programs, &self.unwanted) {
            for thread in &self.told {
                thread.send(Told::Widened(file)).map_err(|_| Failure::Ended)?;
            }
        }
        Ok(())
    }

    /// Tells the thread whose process this is.
    fn tell(&self, pid: u32, told: Told) -> Result<(), Failure> {
        self.told[pid as usize % ATTACHING].send(told).map_err(|_| Failure::Ended)
    }
}
