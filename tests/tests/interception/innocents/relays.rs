//! Exim, which delivers by LMTP, and nullmailer, which has no server.

use std::fs;

use anyhow::Result;
use nix::sys::stat::Mode;
use nix::unistd::{chown, mkfifo};
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::Running;
use smtp_observer_tests::unpacked::Root;

use super::{Innocent, run, sink};
use crate::between::{SERVER, swaks_to};

/// Takes mail from the programs of its host, and gives it to the store of mailboxes there.
const EXIM: &str = "\
primary_hostname = client.example
spool_directory = /var/spool/exim
log_file_path = /var/spool/exim/%slog
local_interfaces = 127.0.0.1
daemon_smtp_ports = 25
tls_advertise_hosts =
keep_environment =
host_lookup =
rfc1413_hosts =
acl_smtp_rcpt = all
begin acl
all:
  accept
begin routers
all:
  driver = manualroute
  transport = lmtp
  route_list = * 127.0.0.1 byname
  self = send
begin transports
lmtp:
  driver = smtp
  protocol = lmtp
  port = 24
  allow_localhost
begin retry
* * F,2h,15m
";

/// Exim and a store of mailboxes on one host.
pub fn exim_to_lmtp() -> Result<Innocent> {
    let host = Host::new()?;
    let store = sink(&host, &["-L"], "127.0.0.1", 24)?;
    let root = Root::new("exim", &["Debian-exim"])?;
    root.directory("etc/exim4")?;
    root.write("etc/exim4/exim4.conf", EXIM)?;
    root.directory_of_first_user("var/spool/exim")?;
    let mut exim = root.command(&host, "/usr/sbin/exim4")?;
    exim.args(["-bdf", "-oX", "25", "-oP", "/run/exim.pid"]);
    let exim = Running::start(exim)?;
    host.wait_bound(25)?;
    let clients = host.clone();
    Ok(Innocent {
        name: "Exim and LMTP",
        hosts: vec![host],
        send: Box::new(move || run(swaks_to(&clients, "127.0.0.1")?)),
        accepted: 2,
        programs: &["exim4"],
        _running: vec![Box::new(exim), Box::new(root), Box::new(store)],
    })
}

/// A host whose mail all goes to the server.
pub fn nullmailer() -> Result<Innocent> {
    let (client_host, server_host) = Host::pair()?;
    let server = sink(&server_host, &[], SERVER, 25)?;
    let root = Root::new("nullmailer", &[])?;
    root.directory("etc/nullmailer")?;
    root.write("etc/mailname", "client.example\n")?;
    root.write("etc/nullmailer/remotes", &format!("{SERVER} smtp\n"))?;
    root.write("input", "Subject: x\n\nhello\n")?;
    // What puts a mail into the queue runs as its owner's user.
    let owner = root.owner("sbin/nullmailer-queue")?;
    let spool = root.directory("var/spool/nullmailer")?;
    let [queue, tmp] = ["queue", "tmp"].map(|directory| spool.join(directory));
    let trigger = spool.join("trigger");
    mkfifo(&trigger, Mode::from_bits_truncate(0o600))?;
    for directory in [&queue, &tmp] {
        fs::create_dir(directory)?;
    }
    for path in [&spool, &queue, &tmp, &trigger] {
        chown(path, Some(owner), None)?;
    }
    let send = root.command(&client_host, "/usr/sbin/nullmailer-send")?;
    let send = Running::start(send)?;
    let ready = |lines: &[String]| lines.iter().any(|line| line.starts_with("Rescanning")).then_some(());
    send.output.wait_for("nullmailer's `Rescanning queue.`", ready)?;
    let host = client_host.clone();
    let inject = move || {
        let mut inject = root.command(&host, "/usr/bin/nullmailer-inject")?;
        inject.args(["-f", "alice@client.example", "bob@test.example"]);
        run(inject)
    };
    Ok(Innocent {
        name: "nullmailer",
        hosts: vec![client_host, server_host],
        send: Box::new(inject),
        accepted: 1,
        programs: &["smtp"],
        _running: vec![Box::new(send), Box::new(server)],
    })
}

#[test]
fn exim_that_delivers_by_lmtp() -> Result<()> {
    let _turn = crate::beside_others();
    exim_to_lmtp()?.check().map(drop)
}

#[test]
fn a_null_client() -> Result<()> {
    let _turn = crate::beside_others();
    nullmailer()?.check().map(drop)
}
