//! How many mails a second Postfix's own load generator gets rid of.

use std::time::Instant;

use anyhow::Result;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{self, Running};

/// Postfix's `smtp-sink` on port 25 of a host of its own.
pub struct Sink {
    host: Host,
    _sink: Running,
}

impl Sink {
    const ADDRESS: &str = "127.0.0.1:25";

    /// Starts it, and waits until it listens.
    pub fn start() -> Result<Self> {
        let host = Host::new()?;
        let mut sink = host.command(machine::installed("smtp-sink")?);
        sink.args(["-u", "nobody", Self::ADDRESS, "1024"]);
        let sink = Running::start(sink)?;
        host.wait_listens(Self::ADDRESS)?;
        Ok(Self { host, _sink: sink })
    }

    /// Where it is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Mails a second over ten sessions at once, on kept connections or each on its own.
    pub fn throughput(&self, mails: usize, keep: bool) -> Result<f64> {
        let mut source = self.host.command(machine::installed("smtp-source")?);
        source.args(["-s", "10", "-m", &mails.to_string(), "-f", "alice@client.example", "-t", "bob@server.example"]);
        if keep {
            source.arg("-d");
        }
        source.arg(Self::ADDRESS);
        let started = Instant::now();
        process::run(source)?;
        Ok(mails as f64 / started.elapsed().as_secs_f64())
    }
}
