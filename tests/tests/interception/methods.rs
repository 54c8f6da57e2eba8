//! The ways in which a client is led to a proxy, each with HAProxy, which passes every byte.

use std::process::Command;

use anyhow::{Result, ensure};
use smtp_observer_tests::cgroup::Cgroup;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process;

use crate::between::{Between, PROXY_PORT, SERVER, swaks};
use crate::pipes::{check_piped, haproxy_between};
use crate::rewrite::Rewrite;
use crate::verdict::Expected;

/// To a host of its own, from which everything goes back by way of the client's, with the client's address.
#[test]
fn destination_translated_to_another_host() -> Result<()> {
    let _turn = crate::beside_others();
    let (client_host, server_host) = Host::pair()?;
    let proxy_host = Host::new()?;
    client_host.cable(&proxy_host, 88)?;
    client_host.forward()?;
    proxy_host.ip("route add default via 10.88.0.1")?;
    client_host.nft(
        "table ip scene {
            chain output {
                type nat hook output priority -100;
                tcp dport 25 dnat to 10.88.0.2:10025
            }
            chain postrouting {
                type nat hook postrouting priority 100;
                ip saddr 10.88.0.2 masquerade
            }
        }\n",
    )?;
    let between = Between::on(client_host, proxy_host, server_host)?;
    let (_root, haproxy) = haproxy_between(&between.proxy_host, ":10025", &format!("{SERVER}:25"))?;
    let proxy = between.proxy(haproxy, PROXY_PORT)?;
    let client = swaks(&between.client_host)?;
    let mail = between.send(client, proxy)?;
    let server = &mail.server.0[0];
    ensure!(server.text("/connection/remote/address") == Some("10.77.0.1"), "nothing was masqueraded: {server}");
    check_piped(&mail, "dnat", "/haproxy")
}

/// A client at 10.88.0.2, a router, and a server that knows no way to the client.
pub fn behind_a_router() -> Result<(Host, Host, Host)> {
    let (router, server_host) = Host::pair()?;
    let client_host = Host::new()?;
    router.cable(&client_host, 88)?;
    client_host.ip("route add default via 10.88.0.1")?;
    router.forward()?;
    Ok((client_host, router, server_host))
}

/// On a router that lies between, the proxy takes what is addressed to the server.
#[test]
fn taken_by_a_router() -> Result<()> {
    let _turn = crate::beside_others();
    let (client_host, router, server_host) = behind_a_router()?;
    router.ip("rule add fwmark 1 lookup 100")?;
    router.ip("route add local default dev lo table 100")?;
    router.nft(
        "table ip scene {
            chain prerouting {
                type filter hook prerouting priority mangle;
                iifname eth88 tcp dport 25 tproxy to :10025 meta mark set 1 accept
            }
        }\n",
    )?;
    let between = Between::on(client_host, router, server_host)?;
    let (_root, haproxy) = haproxy_between(&between.proxy_host, ":10025 transparent", &format!("{SERVER}:25"))?;
    let proxy = between.proxy(haproxy, PROXY_PORT)?;
    let client = swaks(&between.client_host)?;
    check_piped(&between.send(client, proxy)?, "tproxy", "/haproxy")
}

/// A proxy at a port of the client's host, and a client that is led there as it connects.
fn led_there(port: u16, lead: impl FnOnce(Command, &Host) -> Result<Command>, expected: (&str, &str)) -> Result<()> {
    let between = Between::one_host()?;
    let (_root, haproxy) = haproxy_between(&between.proxy_host, &format!("127.0.0.1:{port}"), &format!("{SERVER}:25"))?;
    let proxy = between.proxy(haproxy, port)?;
    let client = lead(swaks(&between.client_host)?, &between.client_host)?;
    let mail = between.send(client, proxy)?;
    mail.check_delivered()?;
    let (verdict, method) = expected;
    mail.check(Expected { verdict, method, executable: "/haproxy" }).map(drop)
}

/// By a program in the kernel, which gives each `connect` in a cgroup another destination.
fn rewritten_by_the_kernel(port: u16) -> Result<()> {
    let cgroup = Cgroup::new(&format!("smtp-observer-rewrite-{}-{port}", std::process::id()))?;
    let _rewrite = Rewrite::attach(&cgroup, port)?;
    let join = |swaks: Command, host: &Host| {
        let mut client = host.command(machine::installed("sh")?);
        client.args(["-c", r#"echo 0 > "$0" && exec "$@""#]).arg(cgroup.path().join("cgroup.procs"));
        client.arg(swaks.get_program()).args(swaks.get_args());
        Ok(client)
    };
    led_there(port, join, ("transparent_l4", "connect_rewrite"))
}

#[test]
fn address_rewritten_by_the_kernel() -> Result<()> {
    let _turn = crate::beside_others();
    rewritten_by_the_kernel(25)
}

#[test]
fn address_and_port_rewritten_by_the_kernel() -> Result<()> {
    let _turn = crate::beside_others();
    rewritten_by_the_kernel(PROXY_PORT)
}

/// By a library that was loaded before the client's own. Its socket leads where it asked the kernel to lead it, so nothing
/// is hidden there.
fn rewritten_by_a_library(port: u16) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("smtp-observer-library-").tempdir()?;
    let library = folder.path().join("rewrite.so");
    let mut cc = Command::new(machine::installed("cc")?);
    cc.args(["-shared", "-fPIC", &format!("-DPROXY_PORT={port}"), "-o"]).arg(&library);
    cc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interception/rewrite.c"));
    process::run(cc)?;
    let load = |mut swaks: Command, _: &Host| {
        swaks.env("LD_PRELOAD", &library);
        Ok(swaks)
    };
    led_there(port, load, ("inline_proxy", "preload"))
}

#[test]
fn address_rewritten_by_a_library() -> Result<()> {
    let _turn = crate::beside_others();
    rewritten_by_a_library(25)
}

#[test]
fn address_and_port_rewritten_by_a_library() -> Result<()> {
    let _turn = crate::beside_others();
    rewritten_by_a_library(PROXY_PORT)
}
