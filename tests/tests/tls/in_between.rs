//! What does TLS with buffers of its own, beside the socket's calls, and what ends TLS between a client and a server.

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::certificate::Certificate;
use smtp_observer_tests::conversation::{Conversation, commands, observed, outcomes};
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::tls::{MAIL, Server, VERSIONS, check_true, smtplib};
use smtp_observer_tests::unpacked::Root;
use smtp_observer_tests::watch::Watch;

/// Node.js has its library encrypt into memory, and moves that by itself.
#[test]
fn nodemailer() -> Result<()> {
    for version in VERSIONS {
        let watch = Watch::start(&["--addresses", "full", "--tls", "all"])?;
        let _server = Server::start(&watch.server_host, version)?;
        let root = Root::new("nodemailer", &[])?;
        root.write("pool.js", include_str!("../senders/pool.js"))?;
        let mut node = root.command(&watch.client_host, "/usr/bin/node")?;
        node.env("NODE_PATH", "/usr/local/lib/node_modules").args(["/pool.js", "10.77.0.2", "tls"]);
        process::run(node)?;
        let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| !seen.is_empty())?;
        let server = &seen[0].server;
        check_true(&seen[0].client, server)?;
        assert_eq!(commands(server)[..6], MAIL[..6], "\n{server}");
        let outcomes = outcomes(server);
        ensure!(outcomes.iter().filter(|outcome| *outcome == "delivered").count() == 3, "\n{server}");
    }
    Ok(())
}

const DOVECOT: &str = "\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
protocols = submission
log_path = /dev/stderr
hostname = server.example
ssl_server_cert_file = /both.pem
ssl_server_key_file = /both.pem
submission_relay_host = 127.0.0.1
passdb static {
  password = another
}
service submission-login {
  chroot =
  inet_listener submission {
    port = 25
  }
}
";

/// The process with which Dovecot's clients log in connects its library to a pair of buffers, and moves these by itself.
#[test]
fn dovecot() -> Result<()> {
    let certificate = Certificate::new()?;
    for version in VERSIONS {
        let watch = Watch::start(&["--addresses", "full", "--tls", "all"])?;
        let root = Root::new("dovecot", &["dovecot", "dovenull"])?;
        for directory in ["etc/dovecot", "run/dovecot", "var/lib/dovecot"] {
            root.directory(directory)?;
        }
        root.write("both.pem", &std::fs::read_to_string(certificate.both())?)?;
        root.write("etc/dovecot/dovecot.conf", DOVECOT)?;
        let mut dovecot = root.command(&watch.server_host, "/usr/sbin/dovecot")?;
        dovecot.arg("-F");
        let dovecot = Running::start(dovecot)?;
        watch.server_host.wait_bound(25)?;
        let secrets = smtplib(&watch.client_host, version, "wrong")?;
        let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| !seen.is_empty())?;
        drop(dovecot);
        let [client, server] = [&seen[0].client, &seen[0].server];
        assert_eq!(commands(client), ["EHLO 250", "STARTTLS 220", "EHLO 250", "AUTH 535", "QUIT"], "\n{client}");
        check_true(server, client)?;
        for observed in client.0.iter().chain(&server.0) {
            ensure!(!secrets.iter().any(|secret| observed.json().contains(secret)), "{observed}");
        }
    }
    Ok(())
}

/// It speaks to its client in clear, and to the server inside of TLS: both are told.
#[test]
fn stunnel() -> Result<()> {
    for version in VERSIONS {
        // It is there before the agent, which knows its library then.
        let hosts = Host::pair()?;
        let root = Root::new("stunnel", &[])?;
        let configuration = "foreground = yes\n[mail]\nclient = yes\naccept = 127.0.0.1:2525\nconnect = 10.77.0.2:25\nprotocol = smtp\n";
        root.write("etc/stunnel.conf", configuration)?;
        let mut stunnel = root.command(&hosts.0, "/usr/bin/stunnel4")?;
        stunnel.arg("/etc/stunnel.conf");
        let stunnel = Running::start(stunnel)?;
        hosts.0.wait_bound(2525)?;
        let watch = Watch::on(hosts, &["--addresses", "full", "--tls", "all", "--port", "25,2525"])?;
        let _server = Server::start(&watch.server_host, version)?;
        let mut swaks = watch.client_host.command(machine::installed("swaks")?);
        swaks.args(["--server", "127.0.0.1:2525", "--helo", "client.example"]);
        swaks.args(["--from", "alice@client.example", "--to", "ok@test.example"]);
        process::run(swaks)?;
        let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| seen.len() == 2)?;
        drop(stunnel);
        let is_inner = |of: &&Conversation| commands(&of.server).contains(&"STARTTLS 220".to_owned());
        let inner = seen.iter().find(is_inner).context("no TLS")?;
        for end in [&inner.client, &inner.server] {
            let mut said = commands(end);
            said.retain(|command| command != "QUIT");
            assert_eq!(said, MAIL[..6], "\n{end}");
            assert_eq!(outcomes(end), ["delivered"], "\n{end}");
        }
        let outer = seen.iter().find(|of| !is_inner(of)).context("no client")?;
        for end in [&outer.client, &outer.server] {
            assert_eq!(outcomes(end), ["delivered"], "\n{end}");
        }
    }
    Ok(())
}
