//! Exim: callouts, and deliveries of a message in parts.

use anyhow::Result;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::postfix::Postfix;
use smtp_observer_tests::process;
use smtp_observer_tests::scene::server::Serving;
use smtp_observer_tests::unpacked::Root;
use smtp_observer_tests::watch::Watch;

use smtp_observer_tests::conversation::observed;

const CONFIGURATION: &str = "\
primary_hostname = client.example
spool_directory = /var/spool/exim
log_file_path = /var/spool/exim/%slog
keep_environment =
host_lookup =
rfc1413_hosts =
acl_smtp_rcpt = check
begin acl
check:
  require verify = recipient/callout=random,postmaster
  accept
begin routers
all:
  driver = manualroute
  transport = smtp
  route_list = * 10.77.0.2 byname
  self = send
begin transports
smtp:
  driver = smtp
  port = 25
begin retry
* * F,2h,15m
";

/// Runs Exim with this input.
fn exim(host: &Host, arguments: &[&str], input: &str) -> Result<()> {
    let root = Root::new("exim", &["Debian-exim"])?;
    root.directory("etc/exim4")?;
    root.write("etc/exim4/exim4.conf", CONFIGURATION)?;
    root.directory_of_first_user("var/spool/exim")?;
    root.write("input", input)?;
    let mut exim = root.command(host, "/usr/sbin/exim4")?;
    exim.args(arguments);
    process::run(exim).map(drop)
}

/// It asks for a mailbox that cannot be there, then for the one in question, then for the postmaster.
#[test]
fn callout() -> Result<()> {
    let watch = Watch::start(&["--addresses", "full"])?;
    let mailboxes = "local_recipient_maps = inline:{ {ok=1}, {postmaster=1} }";
    let server = Postfix::start_with(&watch.server_host, &[mailboxes], &[])?;
    let session = "EHLO there.example\r\nMAIL FROM:<alice@client.example>\r\nRCPT TO:<ok@test.example>\r\nQUIT\r\n";
    exim(&watch.client_host, &["-bs"], session)?;
    let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| !seen.is_empty())?;
    server.stop()?;
    assert_eq!(seen.len(), 1);
    seen[0].check(
        &[
            "EHLO 250", "MAIL 250", "RCPT 550", "RSET 250", //
            "MAIL 250", "RCPT 250", "RSET 250", //
            "MAIL 250", "RCPT 250", "QUIT",
        ],
        &["recipients_rejected", "address_probe"],
        &["rejected", "reset", "abandoned"],
    );
    Ok(())
}

/// The server takes one recipient at a time (RFC 9422): it resets after a refused one, and not between accepted ones.
#[test]
fn a_message_in_parts() -> Result<()> {
    let watch = Watch::start(&["--addresses", "full"])?;
    let server = Serving::start(watch.server_host.listen("10.77.0.2:25")?, "250-LIMITS RCPTMAX=1\r\n")?;
    let recipients = ["no-rcpt@test.example", "one@test.example", "two@test.example"];
    let arguments = [&["-odf", "-f", "<>"], &recipients[..]].concat();
    exim(&watch.client_host, &arguments, "Subject: x\n\nhello\n")?;
    let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| !seen.is_empty())?;
    drop(server);
    assert_eq!(seen.len(), 1);
    seen[0].check(
        &[
            "EHLO 250", "MAIL 250", "RCPT 550", "DATA 503", "RSET 250", //
            "MAIL 250", "RCPT 250", "DATA 354", //
            "MAIL 250", "RCPT 250", "DATA 354", "QUIT",
        ],
        &["recipients_rejected"],
        &["rejected", "delivered", "delivered"],
    );
    Ok(())
}
