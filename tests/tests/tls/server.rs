//! The server that most clients speak to here: Python's `ssl`, which is OpenSSL, with a thread for each session.

use anyhow::Result;
use smtp_observer_tests::breakpoint;
use smtp_observer_tests::certificate::Certificate;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::Running;

/// Versions of TLS, as Python calls them.
pub const VERSIONS: [&str; 2] = ["TLSv1_2", "TLSv1_3"];

/// A server that is ended when it is dropped.
#[derive(Debug)]
pub struct Server {
    running: Running,
    /// Where the function `SSL_free` is in its memory.
    pub ssl_free: u64,
    _certificate: Certificate,
}

impl Server {
    /// Starts it at `10.77.0.2:25`, with this version of TLS, and waits until it listens.
    pub fn start(host: &Host, version: &str) -> Result<Self> {
        Self::start_at(host, "10.77.0.2:25", version)
    }

    /// The same at another address.
    pub fn start_at(host: &Host, address: &str, version: &str) -> Result<Self> {
        let certificate = Certificate::new()?;
        let mut python = host.command(machine::installed("python3")?);
        python.args(["-c", include_str!("server.py"), address]).arg(certificate.both()).arg(version);
        let running = Running::start(python)?;
        let ssl_free = breakpoint::address(&running)?;
        Ok(Self { running, ssl_free, _certificate: certificate })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }
}
