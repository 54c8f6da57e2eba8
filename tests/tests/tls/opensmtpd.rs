//! OpenSMTPD, whose TLS is libtls over OpenSSL's library.

use anyhow::Result;
use smtp_observer_tests::certificate::Certificate;
use smtp_observer_tests::conversation::{commands, observed, outcomes};
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::tls::{MAIL, Server, VERSIONS, check_whole, smtplib};
use smtp_observer_tests::unpacked::Root;
use smtp_observer_tests::watch::Watch;

/// Mail comes in on a port where nobody looks, and goes out on one where the agent does.
const CLIENT: &str = "\
listen on 127.0.0.1 port 2525 hostname client.example
action \"out\" relay host smtp+tls://10.77.0.2 helo client.example tls no-verify
match from any for any action \"out\"
";

/// What it takes it sends where nobody listens.
const SERVER: &str = "\
pki server cert \"/certificate.pem\"
pki server key \"/key.pem\"
listen on 10.77.0.2 port 25 tls pki server hostname server.example
action \"on\" relay host smtp://127.0.0.1:2526
match from any for any action \"on\"
";

/// A daemon that listens at this port. It is there before the agent, which so knows its library.
fn smtpd(host: &Host, configuration: &str, port: u16) -> Result<(Root, Running)> {
    let certificate = Certificate::new()?;
    let root = Root::new("opensmtpd", &["opensmtpd", "opensmtpq"])?;
    for directory in ["var/lib/opensmtpd/empty", "var/spool/smtpd", "etc/ssl/certs"] {
        root.directory(directory)?;
    }
    root.write("etc/ssl/certs/ca-certificates.crt", "")?;
    root.write("etc/mailname", "client.example\n")?;
    root.write("etc/smtpd.conf", configuration)?;
    root.write("certificate.pem", &std::fs::read_to_string(certificate.chain())?)?;
    root.write_secret("key.pem", &std::fs::read_to_string(certificate.key())?)?;
    let mut smtpd = root.command(host, "/usr/sbin/smtpd")?;
    smtpd.args(["-d", "-f", "/etc/smtpd.conf"]);
    let smtpd = Running::start(smtpd)?;
    host.wait_bound(port)?;
    Ok((root, smtpd))
}

#[test]
fn as_a_client() -> Result<()> {
    for version in VERSIONS {
        let hosts = Host::pair()?;
        let (_root, smtpd) = smtpd(&hosts.0, CLIENT, 2525)?;
        let watch = Watch::on(hosts, &["--addresses", "full", "--tls", "all"])?;
        let _server = Server::start(&watch.server_host, version)?;
        let mut swaks = watch.client_host.command(machine::installed("swaks")?);
        swaks.args(["--server", "127.0.0.1:2525", "--helo", "client.example"]);
        swaks.args(["--from", "alice@client.example", "--to", "ok@test.example"]);
        process::run(swaks)?;
        let hosts = [&watch.client_host, &watch.server_host];
        watch.agent.wait_for("a mail delivered", &hosts, |seen| {
            seen.sides("client").iter().flat_map(outcomes).any(|outcome| outcome == "delivered")
        })?;
        smtpd.stop()?;
        let seen = observed(watch.agent, &hosts, |seen| !seen.is_empty())?;
        for end in [&seen[0].client, &seen[0].server] {
            let mut said = commands(end);
            said.retain(|command| command != "QUIT");
            assert_eq!(said, MAIL[..6], "\n{end}");
            assert_eq!(outcomes(end), ["delivered"], "\n{end}");
        }
        check_whole(&seen[0])?;
    }
    Ok(())
}

#[test]
fn as_a_server() -> Result<()> {
    for version in VERSIONS {
        let hosts = Host::pair()?;
        let (_root, smtpd) = smtpd(&hosts.1, SERVER, 25)?;
        let watch = Watch::on(hosts, &["--addresses", "full", "--tls", "all"])?;
        smtplib(&watch.client_host, version, "one")?;
        let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| !seen.is_empty())?;
        drop(smtpd);
        seen[0].check(&MAIL, &[], &["delivered"]);
        check_whole(&seen[0])?;
    }
    Ok(())
}
