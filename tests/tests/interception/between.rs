//! A client, a proxy, and the server that the client asked for.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use nix::unistd::{Gid, setgid};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::Running;
use smtp_observer_tests::scene::server::Serving;
use smtp_observer_tests::seen::{Observed, Seen};
use smtp_observer_tests::watch::check_closed;

use crate::verdict::{self, Expected, is_over, seen_to_the_end};

/// Where the server is, over IPv4 and over IPv6.
pub const SERVER: &str = "10.77.0.2";
pub const SERVER_6: &str = "fd77::2";

/// Where most proxies listen.
pub const PROXY_PORT: u16 = 10025;

/// The group of those whose connections are led to the proxy: what a proxy connects itself is not.
const CLIENTS: u32 = 901;

/// Leads the clients of a host to the proxy's port, over IPv4 and IPv6.
const REDIRECT: &str = "
table inet scene {
    chain output {
        type nat hook output priority -100;
        tcp dport 25 meta skgid 901 redirect to :10025
    }
}
";

/// Hosts under one agent's eyes, with a server on the last of them.
pub struct Between {
    /// Where the client is.
    pub client_host: Host,
    /// Where the proxy is.
    pub proxy_host: Host,
    server_host: Host,
    agent: Agent,
    _server: [Serving; 2],
}

impl Between {
    /// Client and proxy on one host, and nothing that leads from one to the other.
    pub fn one_host() -> Result<Self> {
        let (client_host, server_host) = Host::pair()?;
        Self::on(client_host.clone(), client_host, server_host)
    }

    /// Client and proxy on one host, with the clients redirected.
    pub fn redirected() -> Result<Self> {
        let between = Self::one_host()?;
        between.client_host.nft(REDIRECT)?;
        Ok(between)
    }

    /// Client and proxy on hosts that are not the same.
    pub fn on(client_host: Host, proxy_host: Host, server_host: Host) -> Result<Self> {
        let serve = |address: String| Ok::<_, anyhow::Error>(Serving::start(server_host.listen(&address)?, "")?);
        let server = [serve(format!("{SERVER}:25"))?, serve(format!("[{SERVER_6}]:25"))?];
        let agent = Agent::start(&["--addresses", "full"])?;
        Ok(Self { client_host, proxy_host, server_host, agent, _server: server })
    }

    /// Starts a proxy and waits until it listens at this port.
    pub fn proxy(&self, command: Command, port: u16) -> Result<Running> {
        let proxy = Running::start(command)?;
        self.proxy_host.wait_bound(port).with_context(|| proxy.log.so_far().join("\n"))?;
        Ok(proxy)
    }

    /// Sends a mail, or tries to, and ends the proxy when the server's session is over.
    pub fn send(self, client: Command, proxy: Running) -> Result<Mail> {
        let client = Running::start(as_client(client))?;
        let pids = [client.pid(), proxy.pid()];
        let client = client.finish()?;
        println!("{}\n{}", client.output.join("\n"), client.log.join("\n"));
        self.agent.wait_for("the end of the server's session", &[&self.server_host], |seen| {
            let sessions = seen.sides("server");
            sessions.iter().any(|session| is_over(session) && session.count("smtp.greeting") > 0)
        })?;
        let ended = proxy.stop()?;
        println!("{}\n{}", ended.output.join("\n"), ended.log.join("\n"));
        let mut hosts = vec![&self.client_host, &self.server_host];
        // The same host twice would be waited for twice.
        if self.proxy_host.inode()? != self.client_host.inode()? {
            hosts.push(&self.proxy_host);
        }
        let seen = seen_to_the_end(self.agent, &hosts)?;
        let upstream = upstream(&seen.on(&[&self.proxy_host])?, pids[1])?;
        let server = seen.on(&[&self.server_host])?.side("server")?;
        for side in [&upstream, &server] {
            check_closed(side)?;
        }
        let [proxys, servers] = [&upstream, &server].map(|side| side.command("MAIL"));
        assert_eq!(proxys?.text("/argument"), servers?.text("/argument"), "the proxy is not the server's client");
        Ok(Mail { sent: client.status.success(), seen, upstream, server, pids })
    }
}

/// The proxy's connection to the server; a child of the proxy may have made it.
fn upstream(seen: &Seen, proxy: u32) -> Result<Seen> {
    let servers = [format!("{SERVER}:25"), format!("[{SERVER_6}]:25")];
    let mut sides = seen.sides("client");
    sides.retain(|side| {
        spoke(side, &["/process/pid", "/process/parent/pid"], proxy)
            && side.0.iter().all(|observed| observed.end("remote").is_some_and(|remote| servers.contains(&remote)))
    });
    only(sides).with_context(|| format!("the proxy's connections to the server, in:\n{seen}"))
}

fn spoke(side: &Seen, pointers: &[&str], pid: u32) -> bool {
    let is_it = |observed: &Observed| pointers.iter().any(|pointer| observed.count(pointer) == Some(pid.into()));
    side.0.iter().any(is_it)
}

fn only(sides: Vec<Seen>) -> Result<Seen> {
    <[Seen; 1]>::try_from(sides)
        .map(|[side]| side)
        .map_err(|sides| anyhow!("there are {} connections where there should be one", sides.len()))
}

/// A mail that was sent through a proxy.
pub struct Mail {
    /// Whether the client believes that its mail was taken.
    pub sent: bool,
    /// All that was seen.
    pub seen: Seen,
    /// The proxy's connection to the server.
    pub upstream: Seen,
    /// The server's end of it.
    pub server: Seen,
    /// Of the client and the proxy.
    pids: [u32; 2],
}

impl Mail {
    /// The client's connection.
    pub fn client(&self) -> Result<Seen> {
        let mut sides = self.seen.sides("client");
        sides.retain(|side| spoke(side, &["/process/pid"], self.pids[0]));
        let client = only(sides).with_context(|| format!("the client's connections, in:\n{}", self.seen))?;
        check_closed(&client)?;
        Ok(client)
    }

    /// The mail has arrived.
    pub fn check_delivered(&self) -> Result<()> {
        assert!(self.sent, "the client's mail was not taken");
        for side in [&self.upstream, &self.server] {
            let transaction = side.one("smtp.transaction")?;
            assert_eq!(transaction.text("/outcome"), Some("delivered"), "{transaction}");
        }
        Ok(())
    }

    /// The last verdict, which must be this one.
    pub fn check(&self, expected: Expected) -> Result<Observed> {
        let verdict = verdict::check(&self.seen, &self.client()?, expected, self.pids[1])?;
        let upstream = self.upstream.0.first().map(Observed::connection);
        assert_eq!(verdict.text("/upstream/connection_id"), upstream, "{verdict}");
        Ok(verdict)
    }
}

/// A client whose connections are led elsewhere.
fn as_client(mut command: Command) -> Command {
    // SAFETY: setgid is a bare system call here, in a child with one thread: fit for a forked child.
    unsafe { command.pre_exec(|| Ok(setgid(Gid::from_raw(CLIENTS))?)) };
    command
}

/// A client that sends a mail to the server.
pub fn swaks(host: &Host) -> Result<Command> {
    swaks_to(host, SERVER)
}

/// A client that sends a mail to this address.
pub fn swaks_to(host: &Host, server: &str) -> Result<Command> {
    let mut swaks = host.command(machine::installed("swaks")?);
    swaks.args(["--server", server, "--helo", "client.example"]);
    swaks.args(["--from", "alice@client.example", "--to", "bob@test.example"]);
    Ok(swaks)
}

/// A client whose user types the mail.
pub fn typist(host: &Host, server: &str) -> Result<Command> {
    let mut client = host.command(machine::sibling("mail-client")?);
    client.arg(format!("{server}:25"));
    Ok(client)
}
