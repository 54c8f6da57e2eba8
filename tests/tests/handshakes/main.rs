//! TLS as Python's ssl speaks it, which is OpenSSL: what the handshakes show without a probe, at both ends.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use smtp_observer_tests::machine;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::seen::{Observed, Seen};
use smtp_observer_tests::watch::Watch;

const SERVER: &str = "10.77.0.2";

/// The cipher of the certificate, as IANA has it: `openssl ciphers -stdname ECDHE-ECDSA-AES128-GCM-SHA256`.
const CIPHER_1_2: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";

/// What is told of TLS on a connection.
fn of_tls(side: &Seen) -> Vec<String> {
    let told = |observed: &Observed| {
        let code = observed.count("/code").map(|code| code.to_string());
        // Without probes each session that has started goes unread, for that reason.
        let is_known = observed.text("/phase") == Some("started") && observed.text("/reason") == Some("off");
        let text = |name: &str| observed.text(name).filter(|_| !is_known || name != "/reason").map(str::to_owned);
        let words = ["/phase", "/version", "/cipher", "/server_name", "/reason", "/alert_by"].map(text);
        words.into_iter().chain([code]).flatten().collect::<Vec<_>>().join(" ")
    };
    side.of("smtp.tls").0.iter().map(told).collect()
}

#[test]
fn handshakes_at_both_ends() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
    let mut openssl = std::process::Command::new(machine::installed("openssl")?);
    openssl
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", "/CN=mx.example", "-days", "2", "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key);
    process::run(openssl)?;

    let watch = Watch::start(&["--port", "25,465", "--tls", "off"])?;
    let python = machine::installed("python3")?;
    let mut server = watch.server_host.command(&python);
    server.args(["-c", include_str!("server.py"), SERVER]).arg(&certificate).arg(&key);
    let _server = Running::start(server)?;
    for port in [25, 465] {
        watch.server_host.wait_bound(port)?;
    }
    let mut client = watch.client_host.command(&python);
    client.args(["-c", include_str!("client.py"), SERVER]);
    let told_by_python = process::run(client)?.output;

    let of_1_3: BTreeSet<_> = told_by_python.iter().filter_map(|line| line.strip_prefix("TLSv1.3 ")).collect();
    let [of_1_3] = of_1_3.into_iter().collect::<Vec<_>>()[..] else {
        bail!("one cipher of TLS 1.3 was to be used: {told_by_python:?}");
    };
    let (of_1_2, of_1_3) = (format!("1.2 {CIPHER_1_2}"), format!("1.3 {of_1_3}"));
    let behind_starttls = |last: String| vec!["offered".into(), "requested".into(), last];
    let expected: Vec<Vec<String>> = vec![
        behind_starttls(format!("started {of_1_2} mx.example")),
        behind_starttls(format!("started {of_1_2} mx.example")),
        behind_starttls(format!("started {of_1_3} mx.example")),
        behind_starttls(format!("started {of_1_3} mx.example")),
        // smtplib names the server by its address, which is no name.
        vec![format!("started {of_1_3}")],
        behind_starttls(format!("failed {of_1_2} unknown_ca client")),
        behind_starttls(format!("failed {of_1_3} unknown_ca client")),
        behind_starttls(format!("failed {of_1_2} mx.example closed_in_handshake")),
        vec!["offered".into(), "refused 454".into()],
        vec!["offered".into(), "not_used".into()],
    ];
    watch.wait(expected.len())?;
    let metrics = watch.agent.metrics()?;
    let (clients, servers) = watch.stop()?;
    for (name, sides) in [("client", clients), ("server", servers)] {
        let told: Vec<_> = sides.iter().map(of_tls).collect();
        ensure!(told == expected, "at the {name}'s end: {told:#?}");
        for side in &sides {
            let closed = side.one("connection.closed")?;
            assert_eq!(closed.count("/lost_bytes"), Some(0), "{closed}");
        }
    }
    for (version, sessions) in [("1.2", 2.0), ("1.3", 3.0), ("unknown", 0.0)] {
        for role in ["client", "server"] {
            let [role, version] = [format!("role=\"{role}\""), format!("version=\"{version}\"")];
            let labels = [&*role, &*version, "visible=\"false\""];
            let counted = metrics.sum("smtp_tls_sessions_total", &labels).context("no such series")?;
            assert_eq!(counted, sessions, "{version} {role}");
        }
    }
    Ok(())
}
