//! A running agent, and what it says it sees.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::http::{self, Metrics};
use crate::machine;
use crate::netns::Host;
use crate::process::Running;
use crate::seen::{Observed, Seen};

/// `smtp-observer run`, attached and observing the whole host.
#[derive(Debug)]
pub struct Agent {
    running: Running<Observed>,
    /// Where it serves HTTP.
    pub http: SocketAddr,
    /// From its start to its hooks being in.
    pub start_up: Duration,
}

/// An agent that has ended.
#[derive(Debug)]
pub struct Stopped {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it observed, on the whole host.
    pub seen: Seen,
    /// Lines of its log.
    pub log: Vec<String>,
}

impl Agent {
    /// Starts an agent with further options and waits until it observes. What it observes comes here.
    pub fn start(options: &[&str]) -> Result<Self> {
        Self::start_with(&["--events", "-"], options)
    }

    /// Starts an agent that keeps what it observes to itself and to its metrics, as most will run.
    pub fn start_silent(options: &[&str]) -> Result<Self> {
        Self::start_with(&[], options)
    }

    /// Starts a silent one that serves HTTP where another did.
    pub fn start_at(http: SocketAddr, options: &[&str]) -> Result<Self> {
        Self::launch(http, &[], options)
    }

    fn start_with(events: &[&str], options: &[&str]) -> Result<Self> {
        Self::launch(http_address(), events, options)
    }

    fn launch(http: SocketAddr, events: &[&str], options: &[&str]) -> Result<Self> {
        let mut command = Command::new(machine::agent()?);
        command.arg("run").args(events);
        Self::start_command_at(http, command, options)
    }

    /// Starts an agent by a command that becomes `smtp-observer run`, and takes further options.
    pub fn start_command(command: Command, options: &[&str]) -> Result<Self> {
        Self::start_command_at(http_address(), command, options)
    }

    fn start_command_at(http: SocketAddr, mut command: Command, options: &[&str]) -> Result<Self> {
        machine::require_root()?;
        command.arg("--listen").arg(http.to_string());
        if let Some(hooks) = machine::hooks()?.to_possible_value() {
            command.arg("--hooks").arg(hooks.get_name());
        }
        command.args(options);
        let started = Instant::now();
        let running = Running::start_parsed(command, Observed::parse)?;
        let observing = |lines: &[String]| lines.iter().any(|line| line.contains("observing port")).then_some(());
        if let Err(error) = running.log.wait_for("`observing port …`", observing) {
            bail!("the agent does not observe: {error}\n{}", running.log.so_far().join("\n"));
        }
        Ok(Self { running, http, start_up: started.elapsed() })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Waits until what it saw on these hosts is enough.
    pub fn wait_for(&self, what: &str, hosts: &[&Host], enough: impl Fn(&Seen) -> bool) -> Result<Seen> {
        let inodes = hosts.iter().map(|host| host.inode()).collect::<Result<Vec<_>>>()?;
        // Each observation of the whole host is looked at once, however often more come: else its lines come faster than
        // they are read, and some are lost.
        let known = RefCell::new((0, Seen::default(), None));
        let look = |all: &[Observed]| {
            let (from, seen, judged) = &mut *known.borrow_mut();
            seen.0.extend(all[*from..].iter().filter(|observed| observed.is_on(&inodes)).cloned());
            *from = all.len();
            let is_news = judged.replace(seen.0.len()) != Some(seen.0.len());
            (is_news && enough(seen)).then(|| seen.clone())
        };
        self.running.output.wait_for(what, look).with_context(|| self.told(hosts))
    }

    /// For the message of a test that failed.
    fn told(&self, hosts: &[&Host]) -> String {
        let lost = |metric: &str| self.metrics().ok().and_then(|metrics| metrics.sum(metric, &[]));
        let [events, lines] = ["smtp_observer_kernel_events_lost_total", "smtp_observer_sink_dropped_total"].map(lost);
        match self.so_far().on(hosts) {
            Ok(seen) => format!("lost: {events:?} kernel events, {lines:?} lines; all that was seen there:\n{seen}"),
            Err(error) => error.to_string(),
        }
    }

    /// Waits until it saw this many connections on these hosts end, each socket counted by itself.
    pub fn wait_closed(&self, hosts: &[&Host], sockets: usize) -> Result<Seen> {
        let what = format!("{sockets} times `connection.closed`");
        let inodes = hosts.iter().map(|host| host.inode()).collect::<Result<Vec<_>>>()?;
        // Each observation is looked at once, however often more come.
        let looked_at = Cell::new((0, 0));
        let look = |all: &[Observed]| {
            let (from, mut closed) = looked_at.get();
            let is_one = |observed: &&Observed| observed.event() == "connection.closed" && observed.is_on(&inodes);
            closed += all[from..].iter().filter(is_one).count();
            looked_at.set((all.len(), closed));
            (closed >= sockets).then(|| Seen(all.to_vec()).on(hosts))
        };
        self.running.output.wait_for(&what, look).and_then(|seen| seen).with_context(|| self.told(hosts))
    }

    /// What it saw up to now, on the whole host.
    pub fn so_far(&self) -> Seen {
        Seen(self.running.output.so_far())
    }

    /// Its metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        self.metrics_as("*/*")
    }

    /// Its metrics, in the format of this media type.
    pub fn metrics_as(&self, accept: &str) -> Result<Metrics> {
        match http::get_as(self.http, "/metrics", accept)? {
            (200, body) => Ok(Metrics(body)),
            (status, body) => bail!("/metrics answers {status}: {body}"),
        }
    }

    /// Whether its hooks are on functions, the family `fentry`, and not on tracepoints.
    pub fn hooks_functions(&self) -> Result<bool> {
        let metrics = self.metrics()?;
        let uses = |family: &str| metrics.sum("smtp_observer_hooks_info", &[&format!("family=\"{family}\"")]).is_some();
        let fentry = uses("fentry");
        ensure!(fentry != uses("tracepoint"), "the agent's hooks are of no family, or of two");
        Ok(fentry)
    }

    /// A line of its `/proc/PID/status` that is in kilobytes, such as `VmRSS`, in bytes.
    pub fn memory(&self, line: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let kilobytes = status
            .lines()
            .find_map(|candidate| candidate.strip_prefix(line)?.strip_prefix(':')?.trim().strip_suffix(" kB"))
            .with_context(|| format!("no `{line}` in the agent's status"))?;
        Ok(kilobytes.parse::<u64>()? * 1024)
    }

    /// The processor time it has taken so far.
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name in parentheses may hold blanks; behind it the state is field 3, the times are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("the agent's stat has no name")?;
        let times = fields.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks = times.sum::<Result<u64, _>>()?;
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no clock ticks")?;
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }

    /// How often its threads have gone to sleep so far, and so were woken.
    pub fn wake_ups(&self) -> Result<u64> {
        let mut sum = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let status = std::fs::read_to_string(thread?.path().join("status"))?;
            let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += switches.context("a thread's status has no switches")?.trim().parse::<u64>()?;
        }
        Ok(sum)
    }

    /// Stops it in its tracks, and waits until it stands still.
    pub fn stall(&self) -> Result<()> {
        self.running.signal(Signal::SIGSTOP)?;
        match waitpid(Pid::from_raw(self.pid().cast_signed()), Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(..) => Ok(()),
            other => bail!("the agent did not stand still: {other:?}"),
        }
    }

    /// Lets it go on, and waits until it has taken in all that happened meanwhile.
    pub fn go_on(&self) -> Result<()> {
        self.running.signal(Signal::SIGCONT)?;
        // It answers when it has.
        self.metrics().map(drop)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running.signal(signal)
    }

    /// Waits until so many lines of its log have these words.
    pub fn wait_logged(&self, words: &str, lines: usize) -> Result<()> {
        let logged = |log: &[String]| (log.iter().filter(|line| line.contains(words)).count() >= lines).then_some(());
        self.running.log.wait_for(&format!("{lines} times `{words}` in the log"), logged)
    }

    /// Ends it with this signal, whatever it makes of it.
    pub fn end_by(self, signal: Signal) -> Result<()> {
        self.running.signal(signal)?;
        self.running.finish().map(|_| ())
    }

    /// Ends it with SIGTERM.
    pub fn stop(self) -> Result<Stopped> {
        let ended = self.running.stop()?;
        Ok(Stopped { status: ended.status, seen: Seen(ended.output), log: ended.log })
    }
}

/// An address that no other test uses: a loopback address made from this process's pid, and a port for each call.
pub fn http_address() -> SocketAddr {
    static PORT: AtomicU16 = AtomicU16::new(9725);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 1 + high, middle, low);
    SocketAddr::new(address.into(), PORT.fetch_add(1, Ordering::Relaxed))
}
