//! A client, a proxy that it knows nothing of, and the server that it asked for.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::unistd::{Gid, setgid};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::Running;
use smtp_observer_tests::scene::server::Serving;
use smtp_observer_tests::seen::{Observed, Seen};
use smtp_observer_tests::watch::{Watch, check_closed};

use crate::verdict::{self, Expected};

/// Where the client believes its server is, and where the server is.
pub const SERVER: &str = "10.77.0.2";

/// Where a proxy listens.
pub const PROXY_PORT: u16 = 10025;

/// The group of those whose connections are redirected: what a proxy connects itself is not.
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

/// Two hosts under one agent's eyes; the clients of one are redirected, and on the other there is a server.
pub struct Between {
    pub watch: Watch,
    _server: Serving,
}

impl Between {
    /// Redirects the clients.
    pub fn redirected() -> Result<Self> {
        let watch = Watch::start(&["--addresses", "full"])?;
        let server = Serving::start(watch.server_host.listen(&format!("{SERVER}:25"))?, "")?;
        watch.client_host.nft(REDIRECT)?;
        Ok(Self { watch, _server: server })
    }

    /// Where the client and the proxy are.
    pub fn host(&self) -> &Host {
        &self.watch.client_host
    }

    /// Starts a proxy and waits until it listens.
    pub fn proxy(&self, command: Command) -> Result<Running> {
        let proxy = Running::start(command)?;
        self.host().wait_bound(PROXY_PORT).with_context(|| proxy.log.so_far().join("\n"))?;
        Ok(proxy)
    }

    /// Sends a mail, or tries to, and ends the proxy; then everything that was seen on both hosts.
    pub fn send(self, client: Command, proxy: Running) -> Result<Mail> {
        let client = Running::start(as_client(client))?;
        let client_pid = client.pid();
        let sent = client.finish()?.status.success();
        let proxy_pid = proxy.pid();
        // What it still has to say to the server comes before its end.
        let hosts = [&self.watch.client_host, &self.watch.server_host];
        self.watch.agent.wait_for("the end of the server's session", &hosts, |seen| {
            let sessions = seen.sides("server");
            sessions.iter().any(|session| is_over(session) && session.count("smtp.greeting") > 0)
        })?;
        let ended = proxy.stop()?;
        println!("{}\n{}", ended.output.join("\n"), ended.log.join("\n"));
        let seen = seen_to_the_end(self.watch.agent, &hosts)?;
        let legs = Legs::find(&seen, client_pid, proxy_pid)?;
        Ok(Mail { sent, seen, legs, proxy: proxy_pid })
    }
}

/// A mail that was sent through a proxy.
pub struct Mail {
    /// Whether the client believes that its mail was taken.
    pub sent: bool,
    /// All that was seen.
    pub seen: Seen,
    /// The sockets with port 25 at one of their ends.
    pub legs: Legs,
    /// The proxy's pid.
    pub proxy: u32,
}

impl Mail {
    /// The last verdict, which must be this one.
    pub fn check(&self, expected: Expected) -> Result<Observed> {
        verdict::check(&self.seen, &self.legs.client, expected, self.proxy)
    }
}

/// The sockets that a mail has passed.
pub struct Legs {
    /// The client's.
    pub client: Seen,
    /// That by which the proxy spoke to the server.
    pub upstream: Seen,
    /// The server's.
    pub server: Seen,
}

impl Legs {
    /// Finds them by the pids of client and proxy; a child of the proxy may have done its work.
    fn find(seen: &Seen, client: u32, proxy: u32) -> Result<Self> {
        let servers = format!("{SERVER}:25");
        let spoke = |side: &Seen, pointer: &str, pid: u32| {
            side.0.iter().any(|observed| observed.count(pointer) == Some(pid.into()))
        };
        let mut clients = seen.sides("client");
        clients.retain(|side| side.0.iter().all(|observed| observed.end("remote").as_deref() == Some(&servers)));
        let only = |whose: &str, is_it: &dyn Fn(&Seen) -> bool| {
            let mut sides = clients.clone();
            sides.retain(is_it);
            <[Seen; 1]>::try_from(sides).map(|[side]| side).map_err(|sides| {
                anyhow::anyhow!("the {whose} has {} sockets to {servers}, there should be one, in:\n{seen}", sides.len())
            })
        };
        let client = only("client", &|side| spoke(side, "/process/pid", client))?;
        let upstream = only("proxy", &|side| {
            ["/process/pid", "/process/parent/pid"].iter().any(|pointer| spoke(side, pointer, proxy))
        })?;
        let legs = Self { client, upstream, server: seen.side("server")? };
        let place = |side: &Seen, which: &str| side.0.first().and_then(|observed| observed.end(which));
        ensure!(place(&legs.server, "remote") == place(&legs.upstream, "local"), "the proxy is not the server's client");
        for side in [&legs.client, &legs.upstream, &legs.server] {
            check_closed(side)?;
        }
        Ok(legs)
    }
}

/// A client whose connections are redirected.
fn as_client(mut command: Command) -> Command {
    // SAFETY: setgid is a bare system call here, in a child with one thread: fit for a forked child.
    unsafe { command.pre_exec(|| Ok(setgid(Gid::from_raw(CLIENTS))?)) };
    command
}

/// A client that says what it is told to say.
pub fn swaks(host: &Host, server: &str, sender: &str, recipient: &str) -> Result<Command> {
    let mut swaks = host.command(machine::installed("swaks")?);
    swaks.args(["--server", server, "--helo", "client.example", "--from", sender, "--to", recipient]);
    Ok(swaks)
}

/// A client whose user types the mail.
pub fn typist(host: &Host) -> Result<Command> {
    let mut client = host.command(machine::sibling("mail-client")?);
    client.arg(format!("{SERVER}:25"));
    Ok(client)
}

/// Waits until every socket on these hosts is closed, and ends the agent.
pub fn seen_to_the_end(agent: Agent, hosts: &[&Host]) -> Result<Seen> {
    let all = |seen: &Seen| ["client", "server"].iter().flat_map(|role| seen.sides(role)).collect::<Vec<_>>();
    agent.wait_for("the end of every connection", hosts, |seen| all(seen).iter().all(is_over))?;
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "the agent ended with {}:\n{}", stopped.status, stopped.log.join("\n"));
    let seen = stopped.seen.on(hosts)?;
    println!("{seen}");
    Ok(seen)
}

fn is_over(side: &Seen) -> bool {
    side.count("connection.closed") > 0
}
