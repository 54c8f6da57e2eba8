//! Mail that goes its way as its senders wish. Nobody is to be accused of anything there, though much of it looks alike: the
//! same envelope on two connections of one host, a program that accepts one and makes the other, addresses that change.

mod direct;
mod postfix;
mod relays;
mod scripts;
mod services;

use std::any::Any;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::Running;
use smtp_observer_tests::seen::{Observed, Seen};

use crate::verdict::{check_innocent, seen_to_the_end};

/// The ports at which innocents listen: SMTP's, LMTP's, and the one where filters hand a mail back.
pub const PORTS: &str = "25,24,10025";

/// A way that mail takes, with all that runs on it.
pub struct Innocent {
    /// What it is.
    pub name: &'static str,
    /// Where it takes place.
    pub hosts: Vec<Host>,
    /// Sends mail; it has not yet arrived when this returns.
    send: Box<dyn Fn() -> Result<()> + Send + Sync>,
    /// How often a server takes a message when mail was sent once.
    accepted: usize,
    /// The programs that hold the connections.
    programs: &'static [&'static str],
    /// What ends when it is over.
    _running: Vec<Box<dyn Any + Send + Sync>>,
}

impl Innocent {
    /// Sends mail once.
    pub fn send(&self) -> Result<()> {
        (self.send)().with_context(|| self.name)
    }

    /// Mail is sent twice under an agent's eyes, all of it arrives, and nobody is accused.
    fn check(self) -> Result<Seen> {
        let hosts = self.hosts.clone();
        let hosts: Vec<_> = hosts.iter().collect();
        let agent = Agent::start(&["--addresses", "full", "--port", PORTS])?;
        for times in 1..=2 {
            self.send()?;
            agent.wait_for("the mail's arrival", &hosts, |seen| accepted(seen) >= times * self.accepted)?;
        }
        let (programs, expected) = (self.programs, 2 * self.accepted);
        drop(self);
        let seen = seen_to_the_end(agent, &hosts)?;
        assert_eq!(accepted(&seen), expected);
        for program in programs {
            let is_its = |observed: &Observed| observed.text("/process/name") == Some(program);
            ensure!(seen.0.iter().any(is_its), "nothing was seen of {program}");
        }
        check_innocent(&seen)?;
        Ok(seen)
    }
}

/// How often a server took a message.
fn accepted(seen: &Seen) -> usize {
    seen.only(|observed| is_accepted(observed.value())).0.len()
}

/// Whether this is told of a server that took a message.
pub fn is_accepted(observed: &serde_json::Value) -> bool {
    let is = |pointer: &str, text: &str| observed.pointer(pointer).and_then(|value| value.as_str()) == Some(text);
    is("/event", "smtp.transaction") && is("/outcome", "delivered") && is("/connection/role", "server")
}

/// One of each.
pub fn all() -> Result<Vec<Innocent>> {
    let all = [
        postfix::relay,
        postfix::gateway,
        postfix::content_filter,
        postfix::milter,
        postfix::screened,
        relays::exim_to_lmtp,
        relays::nullmailer,
        direct::msmtp,
        direct::source,
        direct::twins,
        direct::masqueraded,
        direct::forwarded,
        scripts::python,
        services::cluster_ip,
        services::cluster_ip_of_mail_front,
        services::published,
        services::own_address,
    ];
    all.iter().map(|make| make()).collect()
}

/// A server at port 25 of a host, unless it is told another place.
fn sink(host: &Host, options: &[&str], place: &str, port: u16) -> Result<Running> {
    let mut sink = host.command(machine::installed("smtp-sink")?);
    sink.args(["-u", "nobody"]).args(options).args([&format!("{place}:{port}"), "64"]);
    let sink = Running::start(sink)?;
    host.wait_bound(port)?;
    Ok(sink)
}

/// Runs a client, which is to succeed.
fn run(client: Command) -> Result<()> {
    smtp_observer_tests::process::run(client).map(drop)
}
