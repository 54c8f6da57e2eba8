//! Mail traffic of every sort that the metrics tell apart.

use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::dialogue::Dialogue;
use crate::machine;
use crate::netns::Host;
use crate::postfix::Postfix;
use crate::process;
use crate::scene::Scene;
use crate::scene::server::Serving;

const SERVER: &str = "10.77.0.2";

/// A handshake of TLS 1.2 (RFC 5246, 7.3), as far as it is in clear: what the client says first, and what the server does.
const HELLOS: [&[u8]; 2] = [
    b"\x16\x03\x01\x00\x0c\x01\x00\x00\x08abcdefgh",
    b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03abcdefghabcdefghabcdefghabcdefgh\x00\xc0\x2c\x00",
];

/// What both say last.
const FINISHED: &[u8] = b"\x14\x03\x03\x00\x01\x01\x16\x03\x03\x00\x10abcdefghabcdefgh";

/// Servers that are there for several rounds.
#[derive(Debug)]
pub struct Traffic {
    refusing: [Host; 2],
    _server: Serving,
    postfix: Postfix,
    mail: [Host; 2],
}

impl Traffic {
    /// Starts the servers: one that refuses what it is asked to refuse, and Postfix.
    pub fn start() -> Result<Self> {
        let (refused, refusing) = Host::pair()?;
        let server = Serving::start(refusing.listen(&format!("{SERVER}:25"))?, "")?;
        let (sender, receiver) = Host::pair()?;
        let postfix = Postfix::start(&receiver)?;
        Ok(Self { refusing: [refused, refusing], _server: server, postfix, mail: [sender, receiver] })
    }

    /// All of it once. The antivirus's pid.
    pub fn round(&self) -> Result<u32> {
        thread::scope(|scope| {
            let antivirus = scope.spawn(antivirus);
            self.mail(10)?;
            self.refused()?;
            self.strange()?;
            antivirus.join().map_err(|_| anyhow!("the scene panicked"))?
        })
    }

    /// Ends the servers.
    pub fn stop(self) -> Result<()> {
        self.postfix.stop().map(drop)
    }

    /// So many mails and one more to Postfix.
    pub fn mail(&self, count: u32) -> Result<()> {
        let mut source = self.mail[0].command(machine::installed("smtp-source")?);
        source.args([
            "-s",
            "2",
            "-m",
            &count.to_string(),
            "-l",
            "2000",
            "-f",
            "alice@client.example",
            "-t",
            "ok@test.example",
        ]);
        source.arg(format!("inet:{SERVER}:25"));
        process::run(source)?;
        let mut swaks = self.mail[0].command(machine::installed("swaks")?);
        swaks.args(["--server", SERVER, "--from", "alice@client.example", "--to", "ok@test.example"]);
        process::run(swaks).map(drop)
    }

    /// Mail that is refused at each step, and reset.
    pub fn refused(&self) -> Result<()> {
        let mut python = self.refusing[0].command(machine::installed("python3")?);
        python.args(["-c", include_str!("../tests/senders/smtplib.py"), SERVER]);
        process::run(python).map(drop)
    }

    /// A departure from the protocol, and TLS.
    pub fn strange(&self) -> Result<()> {
        let [client, server] = &self.refusing;
        let mut dialogue = Dialogue::open(client, server, "[fd77::2]:25")?;
        dialogue.play(
            "
            S: 220 server.example ESMTP
            C: HELO
            S: 501 5.5.4 Hostname, please
            C: EHLO client.example
            S: 250-server.example
            S: 250 STARTTLS
            C: STARTTLS
            S: 220 2.0.0 Ready to start TLS",
        )?;
        for [client, server] in [HELLOS, [FINISHED; 2]] {
            dialogue.client_says(client)?;
            dialogue.server_says(server)?;
        }
        dialogue.close()
    }
}

/// A mail that goes through an antivirus, whose pid this is.
pub fn antivirus() -> Result<u32> {
    Ok(Scene::new()?.play().context("the antivirus's scene")?.pids.interceptor)
}
