//! How long it takes until probes stand, among many processes that have loaded the library.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::breakpoint;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::Running;
use smtp_observer_tests::tls::{Server, Stranger};

const LIBRARY: &str = "libssl.so.3";

/// Forks so many children, says so, and waits to be ended. The children end with it: a pipe tells them.
const FORKS: &str = "$| = 1; pipe my $end, my $holder; for (1 .. shift) { fork // die or do { close $holder; readline $end; exit } } print qq(there\\n); sleep 36000";

/// Processes that have loaded OpenSSL and do nothing.
pub struct Idle {
    _parent: Running,
}

impl Idle {
    /// Starts so many.
    pub fn gather(processes: usize) -> Result<Self> {
        let mut perl = Command::new(machine::installed("perl")?);
        perl.env("LD_PRELOAD", LIBRARY).args(["-e", FORKS, &processes.to_string()]);
        let perl = Running::start(perl)?;
        perl.output.wait_for("all processes", |lines: &[String]| lines.first().map(drop))?;
        ensure!(perl.log.so_far().is_empty(), "{LIBRARY} cannot be loaded: {:?}", perl.log.so_far());
        Ok(Self { _parent: perl })
    }
}

/// From a process's first use of a watched port to its probes, where those of all processes have been taken away.
pub fn first_use() -> Result<Duration> {
    let host = Host::new()?;
    host.ip("address add 10.77.0.2/24 dev lo")?;
    let server = Server::start(&host, "TLSv1_3")?;
    let agent = Agent::start_silent(&["--tls", "auto"])?;
    // They come back only after a while.
    drop(Stranger::busy()?);
    let started = Instant::now();
    let _client = host.connect("10.77.0.2:25")?;
    breakpoint::wait(server.pid(), server.do_handshake, true)?;
    let took = started.elapsed();
    agent.stop()?;
    Ok(took)
}

/// From the start of an agent that probes everybody to its probes.
pub fn everybody() -> Result<Duration> {
    let agent = Agent::start_silent(&["--tls", "all"])?;
    let took = agent.start_up;
    agent.stop()?;
    Ok(took)
}
