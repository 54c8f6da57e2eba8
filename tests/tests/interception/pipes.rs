//! Proxies that pass every byte as it is.

use std::process::Command;

use anyhow::Result;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::unpacked::Root;

use crate::between::{Between, SERVER, swaks};
use crate::verdict::Expected;

/// A mail goes through a pipe, and both ends hear the same.
fn piped(executable: &str, pipe: impl FnOnce(&Host) -> Result<(Root, Command)>) -> Result<()> {
    let between = Between::redirected()?;
    let (_root, command) = pipe(between.host())?;
    let proxy = between.proxy(command)?;
    let client = swaks(between.host(), SERVER, &format!("alice@{executable}.example"), "bob@test.example")?;
    let mail = between.send(client, proxy)?;
    assert!(mail.sent, "the client's mail was not taken");
    let legs = &mail.legs;
    for leg in [&legs.upstream, &legs.server] {
        assert_eq!(dialogue(leg), dialogue(&legs.client));
    }
    assert_eq!(legs.server.one("smtp.transaction")?.text("/outcome"), Some("delivered"));
    let executable = format!("/{executable}");
    mail.check(Expected { verdict: "transparent_l4", method: "redirect", executable: &executable }).map(drop)
}

/// Commands and replies.
fn dialogue(leg: &smtp_observer_tests::seen::Seen) -> Vec<[Option<String>; 3]> {
    let words = ["/verb", "/argument", "/reply"];
    leg.of("smtp.command").0.iter().map(|command| words.map(|word| command.text(word).map(str::to_owned))).collect()
}

#[test]
fn haproxy() -> Result<()> {
    piped("haproxy", |host| {
        let root = Root::new("haproxy", &[])?;
        root.write(
            "etc/haproxy.cfg",
            "defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n\
             listen smtp\n bind :10025\n server server 10.77.0.2:25\n",
        )?;
        let mut haproxy = root.command(host, "/usr/sbin/haproxy")?;
        haproxy.args(["-db", "-f", "/etc/haproxy.cfg"]);
        Ok((root, haproxy))
    })
}

/// A child of its own for each connection.
#[test]
fn socat() -> Result<()> {
    piped("socat1", |host| {
        let root = Root::new("socat", &[])?;
        let mut socat = root.command(host, "/usr/bin/socat1")?;
        socat.args(["TCP-LISTEN:10025,fork", "TCP:10.77.0.2:25"]);
        Ok((root, socat))
    })
}
