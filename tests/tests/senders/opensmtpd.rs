//! OpenSMTPD, which keeps a connection for all its mails to a destination.

use anyhow::{Result, ensure};
use smtp_observer_tests::machine;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::scene::server::Serving;
use smtp_observer_tests::unpacked::Root;
use smtp_observer_tests::watch::Watch;

use smtp_observer_tests::conversation::{Conversation, observed, outcomes, reasons};

/// Mail comes in on a port where nobody looks, and goes out on one where the agent does.
const CONFIGURATION: &str = "\
listen on 127.0.0.1 port 2525 hostname client.example
action \"out\" relay host smtp://10.77.0.2 helo client.example
match from any for any action \"out\"
";

/// It resets after a refused sender, recipient or DATA, and not after a refused message.
#[test]
fn refusals() -> Result<()> {
    let watch = Watch::start(&["--addresses", "full"])?;
    let _server = Serving::start(watch.server_host.listen("10.77.0.2:25")?, "")?;
    let root = Root::new("opensmtpd", &["opensmtpd", "opensmtpq"])?;
    for directory in ["var/lib/opensmtpd/empty", "var/spool/smtpd", "etc/ssl/certs"] {
        root.directory(directory)?;
    }
    root.write("etc/ssl/certs/ca-certificates.crt", "")?;
    root.write("etc/mailname", "client.example\n")?;
    root.write("etc/smtpd.conf", CONFIGURATION)?;
    let mut smtpd = root.command(&watch.client_host, "/usr/sbin/smtpd")?;
    smtpd.args(["-d", "-f", "/etc/smtpd.conf"]);
    let smtpd = Running::start(smtpd)?;
    watch.client_host.wait_listens("127.0.0.1:2525")?;

    for (sender, recipients) in [
        ("no-mail@client.example", "one@test.example"),
        ("alice@client.example", "no-rcpt@test.example"),
        ("alice@client.example", "no-data@test.example"),
        ("alice@client.example", "no-message@test.example"),
        ("alice@client.example", "one@test.example,no-rcpt@test.example"),
    ] {
        let mut swaks = watch.client_host.command(machine::installed("swaks")?);
        swaks.args(["--server", "127.0.0.1:2525", "--helo", "client.example", "--from", sender, "--to", recipients]);
        process::run(swaks)?;
    }
    // Each refusal sends a report back, which is delivered on the same connection.
    let hosts = [&watch.client_host, &watch.server_host];
    watch.agent.wait_for("five reports delivered", &hosts, |seen| {
        let sides = seen.sides("client");
        sides.iter().flat_map(outcomes).filter(|outcome| outcome == "delivered").count() == 6
    })?;
    smtpd.stop()?;
    let seen = observed(watch.agent, &hosts, |seen| !seen.is_empty())?;

    for end in [|of: &Conversation| of.client.clone(), |of: &Conversation| of.server.clone()] {
        let ends: Vec<_> = seen.iter().map(end).collect();
        let mut reasons: Vec<_> = ends.iter().flat_map(reasons).collect();
        reasons.sort();
        assert_eq!(reasons, ["data_rejected", "recipients_rejected", "sender_rejected"]);
        let rejected = ends.iter().flat_map(outcomes).filter(|outcome| outcome == "rejected").count();
        ensure!(rejected == 4, "{rejected} transactions were rejected");
    }
    Ok(())
}
