//! Two hosts under one agent's eyes, and the session that most tests let them hold.

use anyhow::{Result, ensure};

use crate::agent::{Agent, Stopped};
use crate::dialogue::Dialogue;
use crate::netns::Host;
use crate::seen::Seen;

/// The shortest whole session.
pub const SHORT: &str = "
    S: 220 server.example ESMTP
    C: EHLO client.example
    S: 250-server.example
    S: 250 ENHANCEDSTATUSCODES
    C: NOOP
    S: 250 2.0.0 Ok
    C: QUIT
    S: 221 2.0.0 Bye";

/// What is seen of it at either end, in brief.
pub const SHORT_EVENTS: [&str; 7] = [
    "EHLO 250",
    "NOOP 250 2.0.0",
    "QUIT 221 2.0.0",
    "connection.closed",
    "connection.opened",
    "smtp.greeting 220",
    "smtp.noop 250",
];

/// Two hosts and an agent that watches them.
#[derive(Debug)]
pub struct Watch {
    /// Where clients are.
    pub client_host: Host,
    /// Where servers are.
    pub server_host: Host,
    /// Who watches.
    pub agent: Agent,
}

impl Watch {
    /// Makes the hosts and starts an agent with further options.
    pub fn start(options: &[&str]) -> Result<Self> {
        Self::on(Host::pair()?, options)
    }

    /// Starts an agent that watches the clients' host and the servers'.
    pub fn on((client_host, server_host): (Host, Host), options: &[&str]) -> Result<Self> {
        Ok(Self { client_host, server_host, agent: Agent::start(options)? })
    }

    /// A connection to an address of the server's host.
    pub fn dialogue(&self, address: &str) -> Result<Dialogue> {
        Dialogue::open(&self.client_host, &self.server_host, address)
    }

    /// Waits until both ends of this many dialogues are closed.
    pub fn wait(&self, dialogues: usize) -> Result<Seen> {
        self.agent.wait_closed(&[&self.client_host, &self.server_host], 2 * dialogues)
    }

    /// Ends the agent; what it saw at the clients' ends and at the servers'.
    pub fn stop(self) -> Result<(Vec<Seen>, Vec<Seen>)> {
        let Stopped { status, seen, log } = self.agent.stop()?;
        ensure!(status.success(), "the agent ended with {status}:\n{}", log.join("\n"));
        let clients = seen.on(&[&self.client_host])?.sides("client");
        let servers = seen.on(&[&self.server_host])?.sides("server");
        Ok((clients, servers))
    }
}

/// Nothing of this connection was lost.
pub fn check_closed(side: &Seen) -> Result<()> {
    let closed = side.one("connection.closed")?;
    assert_eq!(closed.count("/lost_bytes"), Some(0), "{closed}");
    Ok(())
}
