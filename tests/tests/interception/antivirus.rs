//! Virus scanners for mail, as they come: what a client is told is not what the server says.

use anyhow::Result;
use smtp_observer_tests::seen::{Observed, Seen};
use smtp_observer_tests::unpacked::Root;

use crate::between::{Between, Mail, PROXY_PORT, SERVER, typist};
use crate::verdict::{Expected, evidence};

/// Keeps the server waiting with a NOOP each second at most.
const PROXSMTP: &str = "\
Listen: 0.0.0.0:10025
OutAddress: 10.77.0.2:25
FilterType: pipe
KeepAlives: 1
TempDirectory: /tmp
";

/// A mail that a user types goes through proxsmtp with this filter.
fn proxsmtp(filter: &str) -> Result<Mail> {
    let between = Between::redirected()?;
    let root = Root::new("proxsmtp", &[])?;
    root.write("etc/proxsmtpd.conf", &format!("{PROXSMTP}FilterCommand: {filter}\n"))?;
    let mut proxsmtp = root.command(&between.proxy_host, "/usr/sbin/proxsmtpd")?;
    // With its messages on standard error it stays in the foreground.
    proxsmtp.args(["-f", "/etc/proxsmtpd.conf", "-d", "3"]);
    let proxy = between.proxy(proxsmtp, PROXY_PORT)?;
    let client = typist(&between.client_host, SERVER)?;
    let mail = between.send(client, proxy)?;
    // It answers DATA itself, in other words than the server does.
    let client = mail.client()?.command("DATA")?;
    assert_eq!(client.text("/reply"), Some("Start mail input; end with <CRLF>.<CRLF>"), "{client}");
    Ok(mail)
}

const EXPOSED: Expected = Expected { verdict: "transparent_interceptor", method: "redirect", executable: "/proxsmtpd" };

/// Why each of its NOOPs or RSETs was sent; there is one at least.
fn reasons(leg: &Seen, event: &str) -> Vec<String> {
    let reasons = leg.of(event).0.iter().filter_map(|observed| observed.text("/reason").map(str::to_owned)).collect();
    println!("{event}: {reasons:?}");
    reasons
}

fn held(verdict: &Observed) -> f64 {
    verdict.number("/hold_seconds").unwrap_or_default()
}

#[test]
fn proxsmtp_that_passes_a_mail() -> Result<()> {
    let mail = proxsmtp("/bin/cat")?;
    mail.check_delivered()?;
    assert_eq!(mail.client()?.count("smtp.noop"), 0, "the client never said NOOP");
    for leg in [&mail.upstream, &mail.server] {
        let data = leg.one("smtp.data")?;
        assert_eq!(data.text("/go_ahead"), Some("End data with <CR><LF>.<CR><LF>"), "{data}");
        assert!(leg.count("smtp.noop") > 0, "it sent no NOOP while the client was typing:\n{leg}");
    }

    let verdict = mail.check(EXPOSED)?;
    for kind in
        ["local_peer", "envelope_mirrored", "reply_text_differs", "go_ahead_not_from_upstream", "data_held_back"]
    {
        assert!(evidence(&verdict).contains(&kind), "there is no {kind}: {verdict}");
    }
    // The client types for a second and a half, and the server hears of DATA only then.
    assert!(held(&verdict) > 1.0, "{verdict}");
    for leg in [&mail.upstream, &mail.server] {
        assert!(reasons(leg, "smtp.noop").iter().all(|reason| reason == "interceptor_keepalive"), "{leg}");
    }
    Ok(())
}

#[test]
fn proxsmtp_that_rejects_a_mail() -> Result<()> {
    let mail = proxsmtp("/bin/false")?;
    assert!(!mail.sent, "the client's mail was taken");
    assert_eq!(mail.client()?.one("smtp.data")?.count("/code"), Some(550));
    for leg in [&mail.upstream, &mail.server] {
        assert_eq!(leg.count("smtp.data"), 0, "the server never heard of DATA:\n{leg}");
        assert_eq!(leg.count("smtp.rset"), 1, "{leg}");
    }

    let verdict = mail.check(EXPOSED)?;
    assert!(evidence(&verdict).contains(&"command_injected"), "{verdict}");
    for leg in [&mail.upstream, &mail.server] {
        assert_eq!(reasons(leg, "smtp.rset"), ["interceptor_discard"], "{leg}");
    }
    Ok(())
}
