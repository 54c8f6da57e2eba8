//! Services at addresses that are translated: a client is led to them by its own host or by a router.

use std::process::Command;

use anyhow::{Result, ensure};
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::Running;
use smtp_observer_tests::seen::{Observed, Seen};
use smtp_observer_tests::unpacked::Root;

use super::{Innocent, run, sink};
use crate::between::{SERVER, swaks_to};
use crate::chosen::nginx_between;
use crate::methods::behind_a_router;
use crate::pipes::haproxy_between;

/// The service's virtual address, which no host has.
const VIRTUAL: &str = "10.96.0.25";

/// Where the service's server is.
const BACK_END: &str = "10.99.0.2";

/// A router that leads clients from the virtual address to a front, and a server that the front goes on to (a Kubernetes
/// ClusterIP).
struct Service {
    client: Host,
    router: Host,
    front: Host,
    back_end: Host,
    server: Running,
}

impl Service {
    fn new() -> Result<Self> {
        let (client, router, front) = behind_a_router()?;
        let back_end = Host::new()?;
        front.cable(&back_end, 99)?;
        front.ip("route add default via 10.77.0.1")?;
        router.nft(&format!(
            "table ip scene {{
                chain prerouting {{
                    type nat hook prerouting priority -100;
                    ip daddr {VIRTUAL} tcp dport 25 dnat to {SERVER}:10025
                }}
            }}\n"
        ))?;
        let server = sink(&back_end, &[], BACK_END, 25)?;
        Ok(Self { client, router, front, back_end, server })
    }

    fn innocent(
        self,
        name: &'static str,
        programs: &'static [&'static str],
        root: Root,
        front: Command,
    ) -> Result<Innocent> {
        let Self { client, router, front: front_host, back_end, server } = self;
        let front = Running::start(front)?;
        front_host.wait_bound(10025)?;
        let host = client.clone();
        Ok(Innocent {
            name,
            hosts: vec![client, router, front_host, back_end],
            send: Box::new(move || run(swaks_to(&host, VIRTUAL)?)),
            // The front's socket takes it, and the server's.
            accepted: 2,
            programs,
            _running: vec![Box::new(front), Box::new(root), Box::new(server)],
        })
    }
}

/// A front that passes every byte to the server.
pub fn cluster_ip() -> Result<Innocent> {
    let service = Service::new()?;
    let (root, haproxy) = haproxy_between(&service.front, ":10025", &format!("{BACK_END}:25"))?;
    service.innocent("virtual address", &["haproxy", "smtp-sink"], root, haproxy)
}

/// A front that speaks for itself, and goes on to the server when it knows a recipient.
pub fn cluster_ip_of_mail_front() -> Result<Innocent> {
    let service = Service::new()?;
    let (root, nginx) = nginx_between(&service.front, "10025", BACK_END)?;
    service.innocent("virtual address of a mail front", &["nginx", "smtp-sink"], root, nginx)
}

/// A server in a container whose port is published (as by `docker run -p 25:25`), and a client on the host itself.
pub fn published() -> Result<Innocent> {
    let (host, container) = Host::pair()?;
    host.ip("address add 192.0.2.1/24 dev lo")?;
    host.nft(
        "table ip scene {
            chain output {
                type nat hook output priority -100;
                ip daddr 192.0.2.1 tcp dport 25 dnat to 10.77.0.2
            }
            chain postrouting {
                type nat hook postrouting priority 100;
                oifname eth77 masquerade
            }
        }\n",
    )?;
    let server = sink(&container, &[], SERVER, 25)?;
    let client = host.clone();
    Ok(Innocent {
        name: "published port",
        hosts: vec![host, container],
        send: Box::new(move || run(swaks_to(&client, "192.0.2.1")?)),
        accepted: 1,
        programs: &["smtp-sink"],
        _running: vec![Box::new(server)],
    })
}

/// Servers at other ports of the host, to which its own clients are led, whatever address they ask from.
pub fn own_address() -> Result<Innocent> {
    let (host, other) = Host::pair()?;
    let other_addresses = ["10.78.0.1", "fd78::1"];
    other_addresses.iter().try_for_each(|address| host.ip(&format!("address add {address} dev lo")))?;
    host.nft(
        "table inet scene {
            chain output {
                type nat hook output priority -100;
                ip daddr 10.77.0.1 tcp dport 25 redirect to :10025
                ip6 daddr fd77::1 tcp dport 25 redirect to :24
            }
        }\n",
    )?;
    let servers = [sink(&host, &[], "127.0.0.1", 10025)?, sink(&host, &[], "[::1]", 24)?];
    let client = host.clone();
    let send = move || {
        ["10.77.0.1:25", "[fd77::1]:25"].into_iter().try_for_each(|own| {
            let mut source = client.command(machine::installed("smtp-source")?);
            source.args(["-f", "alice@client.example", "-t", "bob@test.example", own]);
            run(source)
        })?;
        other_addresses.into_iter().zip(["10.77.0.1", "fd77::1"]).try_for_each(|(from, own)| {
            let mut msmtp = client.command(machine::installed("msmtp")?);
            msmtp.args([&format!("--host={own}"), &format!("--source-ip={from}"), "--domain=client.example"]);
            msmtp.args(["--from=alice@client.example", "bob@test.example"]);
            run(msmtp)
        })
    };
    Ok(Innocent {
        name: "own address",
        hosts: vec![host, other],
        send: Box::new(send),
        accepted: 4,
        programs: &["smtp-sink"],
        _running: vec![Box::new(servers)],
    })
}

/// All that is told is that the client was led to another server than it asked for.
pub fn check_redirected(seen: &Seen) -> Result<()> {
    let verdicts = seen.of("interception");
    let is_finding = |observed: &Observed| observed.text("/verdict") == Some("redirected");
    ensure!(!verdicts.0.is_empty() && verdicts.0.iter().all(is_finding), "{verdicts}");
    Ok(())
}

#[test]
fn a_virtual_address_with_a_front_that_goes_on() -> Result<()> {
    let _turn = crate::beside_others();
    check_redirected(&cluster_ip()?.check()?)
}

#[test]
fn a_virtual_address_with_a_mail_front() -> Result<()> {
    let _turn = crate::beside_others();
    check_redirected(&cluster_ip_of_mail_front()?.check()?)
}

/// Nothing is told: the client asked for its own host, and got that.
fn check_nothing(seen: &Seen) -> Result<()> {
    let verdicts = seen.of("interception");
    ensure!(verdicts.0.is_empty(), "{verdicts}");
    Ok(())
}

#[test]
fn a_published_port_asked_for_by_its_own_host() -> Result<()> {
    let _turn = crate::beside_others();
    check_nothing(&published()?.check()?)
}

#[test]
fn an_own_address_that_leads_to_another_port() -> Result<()> {
    let _turn = crate::beside_others();
    check_nothing(&own_address()?.check()?)
}
