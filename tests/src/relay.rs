//! A Postfix that hands on to another what it gets, each mail on a connection of its own.

use std::cell::Cell;
use std::time::Instant;

use crate::certificate::Certificate;
use crate::machine;
use crate::netns::Host;
use crate::postfix::Postfix;
use crate::process;
use anyhow::Result;

/// Sends everything to the other.
const RELAY: [&str; 4] =
    ["myhostname = client.example", "mydestination =", "relayhost = [10.77.0.2]:25", "smtp_tls_loglevel = 0"];

/// Whether they speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// They do not.
    None,
    /// The one asks for it.
    Tls,
}

/// Two of them, each on a host of its own.
#[derive(Debug)]
pub struct Relay {
    host: Host,
    relay: Postfix,
    _server: Postfix,
    _server_host: Host,
    _certificate: Certificate,
    /// Lines of the relay's log that were looked at, and mails that these have as sent.
    sent: Cell<(usize, usize)>,
}

impl Relay {
    /// Starts both.
    pub fn start(security: Security) -> Result<Self> {
        let (of_server, of_client) = match security {
            Security::None => ("none", "none"),
            Security::Tls => ("may", "encrypt"),
        };
        let (host, server_host) = Host::pair()?;
        let certificate = Certificate::new()?;
        let chain = format!("smtpd_tls_chain_files = {}", certificate.both().display());
        let level = format!("smtpd_tls_security_level = {of_server}");
        let server = Postfix::start_with(&server_host, &[&level, &chain], &[])?;
        let level = format!("smtp_tls_security_level = {of_client}");
        let relay = Postfix::start_with(&host, &[&RELAY[..], &[&level]].concat(), &[])?;
        let sent = Cell::default();
        Ok(Self { host, relay, _server: server, _server_host: server_host, _certificate: certificate, sent })
    }

    /// Mails a second that come over ten sessions at once, in clear, until the other has the last.
    pub fn throughput(&self, mails: usize) -> Result<f64> {
        let mut source = self.host.command(machine::installed("smtp-source")?);
        source.args(["-s", "10", "-m", &mails.to_string(), "-f", "alice@client.example", "-t", "ok@test.example"]);
        source.arg("127.0.0.1:25");
        let (_, before) = self.sent.get();
        let started = Instant::now();
        process::run(source)?;
        self.relay.wait_until("all mails are sent", |log| {
            // Each line is looked at once, however often more come.
            let (from, mut sent) = self.sent.get();
            sent += log[from..].iter().filter(|line| line.contains("status=sent")).count();
            self.sent.set((log.len(), sent));
            sent >= before + mails
        })?;
        Ok(mails as f64 / started.elapsed().as_secs_f64())
    }
}
