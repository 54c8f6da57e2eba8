//! Programs that speak TLS on a watched port: Python's `ssl`, which is OpenSSL, at one end or at both.

use crate::breakpoint;
use crate::certificate::Certificate;
use crate::conversation::{Conversation, commands};
use crate::machine;
use crate::netns::Host;
use crate::process::{self, Running};
use crate::seen::Seen;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use std::process::Command;

/// Versions of TLS, as Python calls them.
pub const VERSIONS: [&str; 2] = ["TLSv1_2", "TLSv1_3"];

/// What a mail of smtplib's is.
pub const MAIL: [&str; 7] = ["EHLO 250", "STARTTLS 220", "EHLO 250", "MAIL 250", "RCPT 250", "DATA 354", "QUIT"];

/// Plays a dialogue, both ends in one process: the first argument of an interpreter of Python.
pub const DIALOGUE: &str = include_str!("tls/dialogue.py");

/// A server for most clients, with a thread for each session. It is ended when it is dropped.
#[derive(Debug)]
pub struct Server {
    running: Running,
    /// Where the function `SSL_do_handshake` is in its memory.
    pub do_handshake: u64,
    _certificate: Certificate,
}

impl Server {
    /// Starts it at `10.77.0.2:25`, with this version of TLS, and waits until it listens.
    pub fn start(host: &Host, version: &str) -> Result<Self> {
        let certificate = Certificate::new()?;
        let mut python = host.command(machine::installed("python3")?);
        python.args(["-c", include_str!("tls/server.py"), "10.77.0.2:25"]).arg(certificate.both()).arg(version);
        let running = Running::start(python)?;
        let do_handshake = breakpoint::address(&running)?;
        Ok(Self { running, do_handshake, _certificate: certificate })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }
}

/// A program that has nothing to do with mail, and may be as busy as a web server. It is ended when it is dropped.
#[derive(Debug)]
pub struct Stranger {
    running: Running,
    do_handshake: u64,
    _certificate: Certificate,
}

impl Stranger {
    /// Starts it. It rests.
    pub fn start() -> Result<Self> {
        let certificate = Certificate::new()?;
        let mut python = Command::new(machine::installed("python3")?);
        python.args(["-c", include_str!("tls/stranger.py")]).arg(certificate.both());
        let running = Running::start(python)?;
        let do_handshake = breakpoint::address(&running)?;
        Ok(Self { running, do_handshake, _certificate: certificate })
    }

    /// Starts one that is busy, and waits until it has no probes: an agent puts them on mail's processes alone.
    pub fn busy() -> Result<Self> {
        let stranger = Self::start()?;
        stranger.turn()?;
        stranger.wait(false)?;
        Ok(stranger)
    }

    /// It begins to be busy, or to rest.
    pub fn turn(&self) -> Result<()> {
        self.running.signal(Signal::SIGUSR1)
    }

    /// Waits until it has probes, or none any more.
    pub fn wait(&self, probed: bool) -> Result<()> {
        breakpoint::wait(self.running.pid(), self.do_handshake, probed)
    }
}

/// `mail.py` on a host, with an action.
pub fn smtplib(host: &Host, version: &str, action: &str) -> Result<Vec<String>> {
    let mut python = host.command(machine::installed("python3")?);
    python.args(["-c", include_str!("tls/mail.py"), "10.77.0.2", version, action]);
    Ok(process::run(python)?.output)
}

/// Nothing was lost, and nothing was strange.
pub fn check_whole(conversation: &Conversation) -> Result<()> {
    for end in [&conversation.client, &conversation.server] {
        ensure!(end.one("connection.closed")?.count("/lost_bytes") == Some(0), "\n{end}");
        ensure!(end.count("smtp.anomaly") == 0, "\n{end}");
    }
    Ok(())
}

/// TLS was started at this end, and all that is told of what was said inside of it was said, and in this order: nothing else,
/// since it is not read from its start.
pub fn check_true(end: &Seen, whole: &Seen) -> Result<()> {
    let told = commands(end);
    assert_eq!(told[..2], MAIL[..2], "\n{end}");
    ensure!(end.of("smtp.tls").0.iter().any(|tls| tls.text("/phase") == Some("started")), "\n{end}");
    let whole_commands = commands(whole);
    let mut said = whole_commands.iter();
    // A command whose reply was not seen has no code.
    let is_it = |told: &String, said: &String| told == said || said.split(' ').next() == Some(told);
    ensure!(
        told.iter().all(|told| said.any(|said| is_it(told, said))),
        "{told:?} of {whole_commands:?}\n{end}\n{whole}"
    );
    Ok(())
}
