//! Proxies that pass every byte as it is.

use std::fs;
use std::process::Command;

use anyhow::Result;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::seen::Seen;
use smtp_observer_tests::unpacked::Root;

use crate::between::{Between, Mail, PROXY_PORT, SERVER, SERVER_6, swaks, typist};
use crate::verdict::Expected;

/// HAProxy in TCP mode, from a place to listen at to a server.
pub fn haproxy_between(host: &Host, bind: &str, server: &str) -> Result<(Root, Command)> {
    let root = Root::new("haproxy", &[])?;
    let defaults = "defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n";
    root.write("etc/haproxy.cfg", &format!("{defaults}listen smtp\n bind {bind}\n server server {server}\n"))?;
    let mut haproxy = root.command(host, "/usr/sbin/haproxy")?;
    haproxy.args(["-db", "-f", "/etc/haproxy.cfg"]);
    Ok((root, haproxy))
}

/// A mail went through a pipe: it has arrived, and all ends heard the same.
pub fn check_piped(mail: &Mail, method: &str, executable: &str) -> Result<()> {
    mail.check_delivered()?;
    let client = mail.client()?;
    for leg in [&mail.upstream, &mail.server] {
        assert_eq!(dialogue(leg), dialogue(&client));
    }
    mail.check(Expected { verdict: "transparent_l4", method, executable }).map(drop)
}

/// Commands and replies.
fn dialogue(leg: &Seen) -> Vec<[Option<String>; 3]> {
    let words = ["/verb", "/argument", "/reply"];
    leg.of("smtp.command").0.iter().map(|command| words.map(|word| command.text(word).map(str::to_owned))).collect()
}

/// A mail goes through a pipe behind a redirect.
fn redirected(executable: &str, pipe: impl FnOnce(&Host) -> Result<(Root, Command)>) -> Result<()> {
    let between = Between::redirected()?;
    let (_root, command) = pipe(&between.proxy_host)?;
    let proxy = between.proxy(command, PROXY_PORT)?;
    let client = swaks(&between.client_host)?;
    check_piped(&between.send(client, proxy)?, "redirect", executable)
}

#[test]
fn haproxy() -> Result<()> {
    let _turn = crate::beside_others();
    redirected("/haproxy", |host| haproxy_between(host, ":10025", &format!("{SERVER}:25")))
}

#[test]
fn haproxy_over_ipv6() -> Result<()> {
    let _turn = crate::beside_others();
    let between = Between::redirected()?;
    let (_root, haproxy) = haproxy_between(&between.proxy_host, ":::10025", &format!("[{SERVER_6}]:25"))?;
    let proxy = between.proxy(haproxy, PROXY_PORT)?;
    let client = typist(&between.client_host, &format!("[{SERVER_6}]"))?;
    check_piped(&between.send(client, proxy)?, "redirect", "/haproxy")
}

/// A child of its own for each connection.
#[test]
fn socat() -> Result<()> {
    let _turn = crate::beside_others();
    redirected("/socat1", |host| {
        let root = Root::new("socat", &[])?;
        let mut socat = root.command(host, "/usr/bin/socat1")?;
        socat.args(["TCP-LISTEN:10025,fork", "TCP:10.77.0.2:25"]);
        Ok((root, socat))
    })
}

/// The process that accepts hands the bytes to a child, which is another program and connects to the server.
#[test]
fn handed_to_a_child_of_another_program() -> Result<()> {
    let _turn = crate::beside_others();
    let between = Between::redirected()?;
    let folder = tempfile::tempdir()?;
    let [accept, relay] = ["accept.py", "relay.pl"].map(|name| folder.path().join(name));
    fs::write(&accept, include_str!("accept.py"))?;
    fs::write(&relay, include_str!("relay.pl"))?;
    let python = machine::installed("python3")?;
    let mut proxy = between.proxy_host.command(&python);
    proxy.arg(&accept).arg(PROXY_PORT.to_string()).arg(machine::installed("perl")?).arg(&relay);
    proxy.arg(format!("{SERVER}:25"));
    let proxy = between.proxy(proxy, PROXY_PORT)?;
    let client = swaks(&between.client_host)?;
    let executable = fs::canonicalize(python)?;
    check_piped(&between.send(client, proxy)?, "redirect", &executable.to_string_lossy())
}

/// Two services of one process, since it speaks TLS on one side of each: in clear to the client and to the server, and
/// encrypted in between.
#[test]
fn stunnel() -> Result<()> {
    let _turn = crate::beside_others();
    redirected("/stunnel4", |host| {
        let root = Root::new("stunnel", &[])?;
        root.write("etc/psk", "pair:0123456789abcdef0123456789abcdef\n")?;
        root.write(
            "etc/stunnel.conf",
            "foreground = yes\npid =\nPSKsecrets = /etc/psk\nciphers = PSK\n\
             [far]\naccept = 127.0.0.1:10465\nconnect = 10.77.0.2:25\n\
             [near]\nclient = yes\naccept = 0.0.0.0:10025\nconnect = 127.0.0.1:10465\n",
        )?;
        let mut stunnel = root.command(host, "/usr/bin/stunnel4")?;
        stunnel.arg("/etc/stunnel.conf");
        Ok((root, stunnel))
    })
}
