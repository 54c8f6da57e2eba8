//! Exim, which is linked with GnuTLS, and lies in a file system of its own.

use anyhow::{Result, ensure};
use smtp_observer_tests::certificate::Certificate;
use smtp_observer_tests::conversation::{Conversation, commands, observed, outcomes};
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::seen::Seen;
use smtp_observer_tests::tls::{MAIL, Server, VERSIONS, check_whole, smtplib};
use smtp_observer_tests::unpacked::Root;
use smtp_observer_tests::watch::Watch;

const CONFIGURATION: &str = "\
spool_directory = /var/spool/exim
log_file_path = /var/spool/exim/%slog
keep_environment =
host_lookup =
rfc1413_hosts =
acl_smtp_rcpt = check
tls_advertise_hosts = *
tls_certificate = /both.pem
queue_only_load = 1000
message_logs = false
begin acl
check:
  accept
begin routers
";

const CLIENT: &str = "\
all:
  driver = manualroute
  transport = smtp
  route_list = * 10.77.0.2 byname
  self = send
begin transports
smtp:
  driver = smtp
  port = 25
  hosts_require_tls = *
  tls_verify_certificates =
  tls_try_verify_hosts =
begin retry
* * F,2h,15m
";

const SERVER: &str = "\
all:
  driver = accept
  transport = nowhere
begin transports
nowhere:
  driver = appendfile
  file = /dev/null
  user = Debian-exim
";

fn root(name: &str, configuration: &str) -> Result<Root> {
    let root = Root::new("exim", &["Debian-exim"])?;
    root.directory("etc/exim4")?;
    root.write("etc/exim4/exim4.conf", &format!("primary_hostname = {name}\n{CONFIGURATION}{configuration}"))?;
    root.directory_of_first_user("var/spool/exim")?;
    Ok(root)
}

fn exim(host: &Host, root: &Root, arguments: &[&str]) -> Result<()> {
    let mut exim = root.command(host, "/usr/sbin/exim4")?;
    exim.args(arguments);
    process::run(exim).map(drop)
}

/// A daemon that listens at this port. It is there before the agent, which so knows its library.
fn daemon(host: &Host, root: &Root, port: u16) -> Result<Running> {
    let mut daemon = root.command(host, "/usr/sbin/exim4")?;
    daemon.args(["-bdf", "-oX", &port.to_string()]);
    let daemon = Running::start(daemon)?;
    host.wait_bound(port)?;
    Ok(daemon)
}

#[test]
fn as_a_client() -> Result<()> {
    for version in VERSIONS {
        let hosts = Host::pair()?;
        let root = root("client.example", CLIENT)?;
        let _daemon = daemon(&hosts.0, &root, 2526)?;
        let watch = Watch::on(hosts, &["--addresses", "full", "--tls", "all"])?;
        let _server = Server::start(&watch.server_host, version)?;
        // More than a record holds: it leaves the end of it with its library (gnutls_record_cork(3)), with QUIT or without.
        root.write("input", &format!("Subject: x\n\n{}", "hello\n".repeat(4000)))?;
        exim(&watch.client_host, &root, &["-odf", "-f", "alice@client.example", "ok@test.example"])?;
        let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| !seen.is_empty())?;
        // It sends QUIT with the end of its message.
        seen[0].check(&MAIL, &[], &["delivered"]);
        check_whole(&seen[0])?;
        let [client, server] = [&seen[0].client, &seen[0].server];
        let size = |end: &Seen| end.one("smtp.data").map(|data| data.count("/size_bytes"));
        ensure!(size(server)?.is_some() && size(client)? == size(server)?, "\n{client}\n{server}");
        for end in [client, server] {
            assert_eq!(end.one("smtp.data")?.text("/reply"), Some("2.0.0 Ok: queued as 4F1C0A77"), "\n{end}");
            assert_eq!(end.one("smtp.data")?.text("/queue_id"), Some("4F1C0A77"), "\n{end}");
        }
    }
    Ok(())
}

/// What waits for one server goes out on one connection: a process for each mail, and one that speaks TLS for the later ones.
#[test]
fn a_continued_delivery() -> Result<()> {
    for version in VERSIONS {
        let hosts = Host::pair()?;
        let root = root("client.example", CLIENT)?;
        let _daemon = daemon(&hosts.0, &root, 2526)?;
        let watch = Watch::on(hosts, &["--addresses", "full", "--tls", "all"])?;
        let _server = Server::start(&watch.server_host, version)?;
        root.write("input", "Subject: x\n\nhello\n")?;
        for name in ["alice", "bob", "carol"] {
            exim(&watch.client_host, &root, &["-odqs", "-f", &format!("{name}@client.example"), "ok@test.example"])?;
        }
        exim(&watch.client_host, &root, &["-qqf"])?;
        let hosts = [&watch.client_host, &watch.server_host];
        let delivered = |seen: &[Conversation]| seen.iter().map(|of| outcomes(&of.server).len()).sum::<usize>();
        let seen = observed(watch.agent, &hosts, |seen| delivered(seen) == 3)?;
        ensure!(seen.len() == 1, "{} connections", seen.len());
        for end in [&seen[0].client, &seen[0].server] {
            let mut said = commands(end);
            // Whether it resets before the next mail is its own affair.
            said.retain(|command| command != "RSET 250" && command != "QUIT");
            let mail = ["MAIL 250", "RCPT 250", "DATA 354"];
            assert_eq!(said, [&MAIL[..6], &mail, &mail].concat(), "\n{end}");
            assert_eq!(outcomes(end), ["delivered"; 3], "\n{end}");
        }
        check_whole(&seen[0])?;
    }
    Ok(())
}

#[test]
fn as_a_server() -> Result<()> {
    let certificate = Certificate::new()?;
    for version in VERSIONS {
        let hosts = Host::pair()?;
        let root = root("server.example", SERVER)?;
        root.write("both.pem", &std::fs::read_to_string(certificate.both())?)?;
        let daemon = daemon(&hosts.1, &root, 25)?;
        let watch = Watch::on(hosts, &["--addresses", "full", "--tls", "all"])?;
        smtplib(&watch.client_host, version, "one")?;
        let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| !seen.is_empty())?;
        drop(daemon);
        seen[0].check(&MAIL, &[], &["delivered"]);
        check_whole(&seen[0])?;
    }
    Ok(())
}
