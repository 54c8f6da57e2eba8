//! Postfix, which takes a mail whole before it sends it on.

use std::collections::BTreeSet;

use anyhow::Result;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::postfix::Postfix;
use smtp_observer_tests::process::Running;
use smtp_observer_tests::unpacked::Root;

use super::{Innocent, run, sink};
use crate::between::{SERVER, swaks_to};
use crate::methods::behind_a_router;

/// Sends everything to the server.
const RELAY: [&str; 4] = [
    "myhostname = relay.example",
    "mydestination =",
    "relayhost = [10.77.0.2]:25",
    "mynetworks = 127.0.0.0/8, 10.88.0.0/24",
];

/// A Postfix that takes mail from its own host and sends it to the server.
fn on_the_clients_host(
    name: &'static str,
    parameters: &[&str],
    services: &[&str],
    accepted: usize,
    programs: &'static [&'static str],
    beside: impl FnOnce(&Host) -> Result<Vec<Box<dyn std::any::Any + Send + Sync>>>,
) -> Result<Innocent> {
    let (client_host, server_host) = Host::pair()?;
    let mut running = beside(&client_host)?;
    running.push(Box::new(sink(&server_host, &[], SERVER, 25)?));
    let parameters = [&RELAY[..], &["inet_interfaces = 127.0.0.1"], parameters].concat();
    running.push(Box::new(Postfix::start_with(&client_host, &parameters, services)?));
    let host = client_host.clone();
    let send = move || run(swaks_to(&host, "127.0.0.1")?);
    let hosts = vec![client_host, server_host];
    Ok(Innocent { name, hosts, send: Box::new(send), accepted, programs, _running: running })
}

/// It takes mail from the programs of its host.
pub fn relay() -> Result<Innocent> {
    on_the_clients_host("relay", &[], &[], 2, &["smtpd", "smtp"], |_| Ok(Vec::new()))
}

/// It takes mail from another host, and is all that this host can reach the server by.
pub fn gateway() -> Result<Innocent> {
    let (client_host, gateway, server_host) = behind_a_router()?;
    let server = sink(&server_host, &[], SERVER, 25)?;
    let postfix = Postfix::start_with(&gateway, &RELAY, &[])?;
    let host = client_host.clone();
    Ok(Innocent {
        name: "gateway",
        hosts: vec![client_host, gateway, server_host],
        send: Box::new(move || run(swaks_to(&host, "10.88.0.1")?)),
        accepted: 2,
        programs: &["smtpd", "smtp"],
        _running: vec![Box::new(postfix), Box::new(server)],
    })
}

/// It has each mail looked at by proxsmtp when it has taken it, and takes it back at another port.
pub fn content_filter() -> Result<Innocent> {
    on_the_clients_host(
        "content filter",
        &["content_filter = smtp:[127.0.0.1]:10024"],
        &["127.0.0.1:10025 inet n - n - - smtpd -o content_filter="],
        // The filter's own end, on a port that nobody watches, among them.
        4,
        &["smtpd", "smtp", "proxsmtpd"],
        |host| {
            let root = Root::new("proxsmtp", &[])?;
            root.write(
                "etc/proxsmtpd.conf",
                "Listen: 127.0.0.1:10024\nOutAddress: 127.0.0.1:10025\nFilterType: pipe\nFilterCommand: /bin/cat\n\
                 TempDirectory: /tmp\n",
            )?;
            let mut proxsmtp = root.command(host, "/usr/sbin/proxsmtpd")?;
            proxsmtp.args(["-f", "/etc/proxsmtpd.conf", "-d", "3"]);
            let proxsmtp = Running::start(proxsmtp)?;
            host.wait_bound(10024)?;
            Ok(vec![Box::new(proxsmtp), Box::new(root)])
        },
    )
}

/// It has each mail looked at by OpenDKIM while it takes it, and could not take it without.
pub fn milter() -> Result<Innocent> {
    on_the_clients_host(
        "milter",
        &["smtpd_milters = inet:127.0.0.1:8891", "milter_default_action = reject"],
        &[],
        2,
        &["smtpd", "smtp"],
        |host| {
            let root = Root::new("opendkim", &[])?;
            let mut opendkim = root.command(host, "/usr/sbin/opendkim")?;
            opendkim.args(["-f", "-b", "v", "-p", "inet:8891@127.0.0.1"]);
            let opendkim = Running::start(opendkim)?;
            host.wait_bound(8891)?;
            Ok(vec![Box::new(opendkim), Box::new(root)])
        },
    )
}

/// postscreen(8) has each client wait before it hands it to smtpd(8).
pub fn screened() -> Result<Innocent> {
    on_the_clients_host(
        "postscreen",
        &["postscreen_access_list =", "postscreen_greet_wait = 1s", "postscreen_cache_map ="],
        &["smtp inet n - n - 1 postscreen", "smtpd pass - - n - - smtpd"],
        2,
        &["postscreen", "smtpd", "smtp"],
        |_| Ok(Vec::new()),
    )
}

#[test]
fn a_relay() -> Result<()> {
    let _turn = crate::beside_others();
    check(relay()?)
}

#[test]
fn a_gateway() -> Result<()> {
    let _turn = crate::beside_others();
    check(gateway()?)
}

#[test]
fn an_after_queue_content_filter() -> Result<()> {
    let _turn = crate::beside_others();
    check(content_filter()?)
}

#[test]
fn a_milter() -> Result<()> {
    let _turn = crate::beside_others();
    check(milter()?)
}

#[test]
fn postscreen_before_smtpd() -> Result<()> {
    let _turn = crate::beside_others();
    check(screened()?)
}

/// If anything is said of what Postfix does, then what it is: that it relays, or that its filter was asked for.
fn check(innocent: Innocent) -> Result<()> {
    let seen = innocent.check()?;
    let verdicts = seen.of("interception");
    let verdicts: BTreeSet<_> = verdicts.0.iter().filter_map(|observed| observed.text("/verdict")).collect();
    let true_ones = ["relay", "inline_proxy", "direct"];
    assert!(verdicts.iter().all(|verdict| true_ones.contains(verdict)), "{verdicts:?}");
    Ok(())
}
