//! Clients that speak to the very server that they asked for.

use anyhow::Result;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{Running, succeeded};

use super::services::check_redirected;
use super::{Innocent, run, sink};
use crate::between::{SERVER, typist};
use crate::methods::behind_a_router;

/// msmtp in sendmail's place.
pub fn msmtp() -> Result<Innocent> {
    let (client_host, server_host) = Host::pair()?;
    let server = sink(&server_host, &[], SERVER, 25)?;
    let host = client_host.clone();
    let send = move || {
        let mut msmtp = host.command(machine::installed("msmtp")?);
        msmtp.args([&format!("--host={SERVER}"), "--domain=client.example", "--from=alice@client.example"]);
        msmtp.arg("bob@test.example");
        run(msmtp)
    };
    Ok(Innocent {
        name: "msmtp",
        hosts: vec![client_host, server_host],
        send: Box::new(send),
        accepted: 1,
        programs: &["msmtp", "smtp-sink"],
        _running: vec![Box::new(server)],
    })
}

const MAILS: usize = 20;

/// Many mails with one envelope, several at a time.
fn source_from(hosts: Vec<Host>, server: Running, name: &'static str, to: &'static str) -> Innocent {
    let host = hosts[0].clone();
    let send = move || {
        let mut source = host.command(machine::installed("smtp-source")?);
        source.args(["-s", "5", "-m", &MAILS.to_string(), "-f", "alice@client.example", "-t", "bob@test.example"]);
        source.arg(format!("{to}:25"));
        run(source)
    };
    let programs = &["smtp-source", "smtp-sink"];
    Innocent { name, hosts, send: Box::new(send), accepted: MAILS, programs, _running: vec![Box::new(server)] }
}

/// Postfix's load generator and its sink.
pub fn source() -> Result<Innocent> {
    let (client_host, server_host) = Host::pair()?;
    let server = sink(&server_host, &[], SERVER, 25)?;
    Ok(source_from(vec![client_host, server_host], server, "smtp-source", SERVER))
}

/// The clients of a host whose address the router before it takes.
pub fn masqueraded() -> Result<Innocent> {
    let (client_host, router, server_host) = behind_a_router()?;
    router.nft(
        "table ip scene {
            chain postrouting {
                type nat hook postrouting priority 100;
                oifname eth77 masquerade
            }
        }\n",
    )?;
    let server = sink(&server_host, &[], SERVER, 25)?;
    Ok(source_from(vec![client_host, router, server_host], server, "masquerade", SERVER))
}

/// A server in a container, whose port is the host's (as with `docker run -p 25:25`).
pub fn forwarded() -> Result<Innocent> {
    let (client_host, router, container) = behind_a_router()?;
    router.nft(
        "table ip scene {
            chain prerouting {
                type nat hook prerouting priority -100;
                ip daddr 10.88.0.1 tcp dport 25 dnat to 10.77.0.2
            }
        }\n",
    )?;
    container.ip("route add default via 10.77.0.1")?;
    let server = sink(&container, &[], SERVER, 25)?;
    Ok(source_from(vec![client_host, router, container], server, "forwarded port", "10.88.0.1"))
}

/// Two mails with the same envelope at the same time, one to this host and one to another.
pub fn twins() -> Result<Innocent> {
    let (client_host, server_host) = Host::pair()?;
    let servers = [sink(&client_host, &[], "127.0.0.1", 25)?, sink(&server_host, &[], SERVER, 25)?];
    let host = client_host.clone();
    let send = move || {
        let [here, there] = ["127.0.0.1", SERVER].map(|server| Running::start(typist(&host, server)?));
        for client in [here?, there?] {
            succeeded("the client", client)?;
        }
        Ok(())
    };
    Ok(Innocent {
        name: "twins",
        hosts: vec![client_host, server_host],
        send: Box::new(send),
        accepted: 2,
        programs: &["mail-client", "smtp-sink"],
        _running: vec![Box::new(servers)],
    })
}

#[test]
fn msmtp_as_sendmail() -> Result<()> {
    let _turn = crate::beside_others();
    msmtp()?.check().map(drop)
}

#[test]
fn smtp_source_against_smtp_sink() -> Result<()> {
    let _turn = crate::beside_others();
    source()?.check().map(drop)
}

#[test]
fn many_clients_behind_one_address() -> Result<()> {
    let _turn = crate::beside_others();
    masqueraded()?.check().map(drop)
}

#[test]
fn a_port_forwarded_to_a_container() -> Result<()> {
    let _turn = crate::beside_others();
    check_redirected(&forwarded()?.check()?)
}

#[test]
fn two_mails_with_the_same_envelope_at_the_same_time() -> Result<()> {
    let _turn = crate::beside_others();
    twins()?.check().map(drop)
}
