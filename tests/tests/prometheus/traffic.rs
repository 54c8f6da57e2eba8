//! Traffic of which each panel of the dashboard has something to show.

use std::thread;

use anyhow::{Context, Result};
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::postfix::Postfix;
use smtp_observer_tests::process;
use smtp_observer_tests::scene::Scene;
use smtp_observer_tests::scene::server::Serving;

const SERVER: &str = "10.77.0.2";

/// The beginning of a TLS session, and bytes that are none of SMTP.
const HELLO: &[u8] = b"\x16\x03\x01\x00\x0c\x01\x00\x00\x08abcdefgh";

/// Servers that are there for several rounds.
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

    /// Mail through an antivirus, mail to Postfix, mail that is refused and reset, departures from the protocol, and TLS.
    /// The antivirus's pid.
    pub fn round(&self) -> Result<u32> {
        thread::scope(|scope| {
            let antivirus = scope.spawn(|| Ok::<_, anyhow::Error>(Scene::new()?.play()?.pids.interceptor));
            self.mail()?;
            self.refused()?;
            self.strange()?;
            antivirus.join().map_err(|_| anyhow::anyhow!("the scene panicked"))?.context("the antivirus's scene")
        })
    }

    /// Ends the servers.
    pub fn stop(self) -> Result<()> {
        self.postfix.stop().map(drop)
    }

    fn mail(&self) -> Result<()> {
        let mut source = self.mail[0].command(machine::installed("smtp-source")?);
        source.args(["-s", "2", "-m", "10", "-l", "2000", "-f", "alice@client.example", "-t", "ok@test.example"]);
        source.arg(format!("inet:{SERVER}:25"));
        process::run(source)?;
        let mut swaks = self.mail[0].command(machine::installed("swaks")?);
        swaks.args(["--server", SERVER, "--from", "alice@client.example", "--to", "ok@test.example"]);
        process::run(swaks).map(drop)
    }

    fn refused(&self) -> Result<()> {
        let mut python = self.refusing[0].command(machine::installed("python3")?);
        python.args(["-c", include_str!("../senders/smtplib.py"), SERVER]);
        process::run(python).map(drop)
    }

    fn strange(&self) -> Result<()> {
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
        dialogue.client_says(HELLO)?;
        dialogue.server_says(HELLO)?;
        dialogue.close()
    }
}
