//! The story's scene: a mail client that believes it speaks to a server, and a program in between that it knows nothing
//! of. The interceptor answers DATA itself, keeps the server waiting with NOOPs while the body is typed, and hands the
//! mail on only when the client has gone.

pub mod client;
pub mod interceptor;
pub mod lines;
pub mod server;
pub mod tls;

use std::process::Command;

use anyhow::{Context, Result};

use self::tls::Actors;

use crate::machine;
use crate::netns::Host;
use crate::process::{self, Ended, Running};

/// Where the client believes its server is, and where the server is.
pub const SERVER: &str = "10.77.0.2:25";

/// The interceptor's user: what it connects itself is not redirected to it again.
pub const INTERCEPTOR_USER: u32 = 65534;

/// The hosts of the scene, with interceptor and server running.
#[derive(Debug)]
pub struct Scene {
    /// Where the client and the interceptor are.
    pub client_host: Host,
    /// Where the server is.
    pub server_host: Host,
    /// The program in between.
    pub interceptor: Running,
    /// The real server.
    pub server: Running,
    client: Command,
    /// Where the actors are, if they are scripts.
    _actors: Option<Actors>,
}

impl Scene {
    /// Sets it up, ready for one client.
    pub fn new() -> Result<Self> {
        Self::with(None)
    }

    /// The same, with actors that speak TLS.
    pub fn with_tls() -> Result<Self> {
        Self::with(Some(Actors::new()?))
    }

    fn with(actors: Option<Actors>) -> Result<Self> {
        let (client_host, server_host) = Host::pair()?;
        client_host.nft(&format!(
            "table ip scene {{
                chain output {{
                    type nat hook output priority -100;
                    tcp dport 25 meta skuid != {INTERCEPTOR_USER} redirect to :10025
                }}
            }}\n"
        ))?;
        let [server, interceptor, client] = match &actors {
            Some(actors) => {
                [actors.server(&server_host)?, actors.interceptor(&client_host)?, actors.client(&client_host)?]
            }
            None => {
                let mut server = server_host.command(machine::sibling("mail-server")?);
                server.args([SERVER, "--sessions", "1"]);
                let mut interceptor = client_host.command(machine::sibling("antivirus-proxy")?);
                interceptor.args(["0.0.0.0:10025", "--user", &INTERCEPTOR_USER.to_string()]);
                let mut client = client_host.command(machine::sibling("mail-client")?);
                client.arg(SERVER);
                [server, interceptor, client]
            }
        };
        let (server, interceptor) = (Running::start(server)?, Running::start(interceptor)?);
        for program in [&server, &interceptor] {
            let ready = |lines: &[String]| lines.iter().any(|line| line.starts_with("listening")).then_some(());
            program.output.wait_for("`listening on …`", ready).context("setting up the scene")?;
        }
        Ok(Self { client_host, server_host, interceptor, server, client, _actors: actors })
    }

    /// Lets a client send its mail, and waits until the mail has reached the server by way of the interceptor.
    pub fn play(self) -> Result<Played> {
        let client = Running::start(self.client)?;
        let pids = Pids { client: client.pid(), interceptor: self.interceptor.pid(), server: self.server.pid() };
        let client = process::succeeded("the client", client)?;
        let interceptor = process::succeeded("the interceptor", self.interceptor)?;
        let server = process::succeeded("the server", self.server)?;
        Ok(Played { pids, client, interceptor, server })
    }
}

/// Who took part.
#[derive(Debug, Clone, Copy)]
pub struct Pids {
    /// The client's pid.
    pub client: u32,
    /// The interceptor's pid.
    pub interceptor: u32,
    /// The server's pid.
    pub server: u32,
}

/// A scene that is over: who took part, and what each printed, which is its own side of the dialogue.
#[derive(Debug)]
pub struct Played {
    /// Who took part.
    pub pids: Pids,
    /// The client's dialogue.
    pub client: Ended,
    /// The interceptor's dialogue with the server.
    pub interceptor: Ended,
    /// The server's dialogue.
    pub server: Ended,
}
