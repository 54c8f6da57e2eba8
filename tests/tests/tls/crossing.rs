//! What crosses from the kernel of what is said inside of TLS, read in the ring's own records: of content and credentials
//! nothing does.
//!
//! All that is secret here consists of the letter z, which no command, reply or address has.

use anyhow::{Result, ensure};
use smtp_observer_tests::certificate::Certificate;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process;
use smtp_observer_tests::ring::{Crossed, Record, Ring};
use smtp_observer_tests::tls::{DIALOGUE, VERSIONS};

/// Random bytes are not as likely to have it.
const MARK: &str = "zzzzz";

const BEFORE: [&str; 6] = [
    "S: 220 mx.example ESMTP\r\n",
    "C: EHLO client.example\r\n",
    "S: 250-mx.example\r\n250 STARTTLS\r\n",
    "C: STARTTLS\r\n",
    "S: 220 2.0.0 Go\r\n",
    "TLS",
];

const ENVELOPE: [&str; 4] = [
    "C: EHLO client.example\r\n",
    "S: 250 mx.example\r\n",
    "C: MAIL FROM:<a@client.example>\r\nRCPT TO:<b@mx.example>\r\n",
    "S: 250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n",
];

const BYE: [&str; 2] = ["C: QUIT\r\n", "S: 221 2.0.0 Bye\r\n"];

/// Plays a dialogue with both versions, in whole calls and in such of one byte, and gives what crossed of each.
fn played(port: u16, steps: &[&str]) -> Result<Vec<(Vec<Record>, Vec<Crossed>)>> {
    let certificate = Certificate::new()?;
    let steps = serde_json::to_string(&[&BEFORE, steps, &BYE].concat())?;
    let mut played = Vec::new();
    for version in VERSIONS {
        for size in ["0", "1"] {
            let host = Host::new()?;
            let ring = Ring::attach(port, "all")?;
            let mut python = host.command(machine::installed("python3")?);
            python.args(["-c", DIALOGUE, &port.to_string()]).arg(certificate.both());
            python.args([version, size, &steps]);
            process::run(python)?;
            played.push(ring.finish(2)?);
        }
    }
    Ok(played)
}

/// Plays a dialogue behind the envelope, inside of TLS; no z may cross, and at both ends the rest does.
fn no_secret_crosses(port: u16, steps: &[&str]) -> Result<()> {
    ensure!(steps.iter().any(|step| step.contains(MARK)), "there is no secret");
    for (records, ends) in played(port, &[&ENVELOPE, steps].concat())? {
        ensure!(!records.iter().any(|record| record.bytes.contains(MARK)), "a record has the secret: {ends:#?}");
        ensure!(ends.len() == 2, "{ends:#?}");
        for end in &ends {
            let [client, server] = &end.plaintext;
            for text in [client, server] {
                ensure!(!text.contains('z'), "{end:#?}");
            }
            ensure!(client.starts_with("EHLO client.example\r\nMAIL FROM:<a@client.example>\r\n"), "{end:#?}");
            ensure!(client.ends_with("QUIT\r\n") && server.ends_with("221 2.0.0 Bye\r\n"), "{end:#?}");
        }
        assert_eq!(ends[0].plaintext, ends[1].plaintext, "the ends disagree");
    }
    Ok(())
}

#[test]
fn a_body_stays() -> Result<()> {
    let body = "C: zzzzz: zz\r\n\r\nzz\r\nRSET\r\nMAIL FROM:<zz@zz.zz>\r\n354 zz\r\nzzzzz\r\n";
    no_secret_crosses(2850, &["C: DATA\r\n", "S: 354 go\r\n", body, "C: zz\r\n.\r\n", "S: 250 2.0.0 Ok\r\n"])
}

#[test]
fn a_body_in_one_call_with_data_stays() -> Result<()> {
    let steps = ["C: DATA\r\nzzzzz: zz\r\n\r\nzz\r\nRSET\r\nzz\r\n.\r\n", "S: 354 go\r\n", "S: 250 2.0.0 Ok\r\n"];
    no_secret_crosses(2851, &steps)?;
    let steps = ["C: DATA\r\nzzzzz: zz\r\n\r\nzz\r\n", "S: 354 go\r\n", "C: zz\r\n.\r\n", "S: 250 2.0.0 Ok\r\n"];
    no_secret_crosses(2852, &steps)
}

#[test]
fn a_long_body_stays() -> Result<()> {
    // More than a record of TLS holds (RFC 8446, 5.1), and than a window of the filter.
    let body = format!("C: {}.\r\n", "zzzzz zzzzz\r\n".repeat(3000));
    let steps = ["C: DATA\r\n", "S: 354 go\r\n", &body, "S: 250 2.0.0 Ok\r\n"];
    no_secret_crosses(2853, &steps)
}

#[test]
fn chunks_stay() -> Result<()> {
    let steps = [
        "C: BDAT 4\r\nzzzzBDAT 9\r\nzz\r\nzzzzzBDAT 2 LAST\r\nzzMAIL FROM:<c@client.example>\r\n",
        "S: 250 2.0.0 Ok\r\n250 2.0.0 Ok\r\n250 2.0.0 Ok\r\n250 2.1.0 Ok\r\n",
    ];
    no_secret_crosses(2854, &steps)
}

#[test]
fn credentials_and_what_repeats_them_stay() -> Result<()> {
    let steps = [
        "C: AUTH LOGIN\r\n",
        "S: 334 zz\r\n",
        "C: zzz\r\n",
        "S: 334 zzz\r\n",
        "C: zzzzz\r\n",
        "S: 535 5.7.8 zzzzz is no password\r\n",
        "C: AUTH PLAIN zzzzz\r\n",
        "S: 501 5.5.4 cannot decode AUTH parameter zzzzz\r\n",
        "C: zzzzz\r\n",
        "S: 500-5.5.2 command unrecognized:\r\n500 5.5.2 zzzzz\r\n",
        "C: NOOP zzzzz\r\n",
        "S: 250 2.0.0 zzzzz\r\n",
    ];
    no_secret_crosses(2855, &steps)
}

/// HTTPS in a process that speaks SMTP, too.
#[test]
fn a_session_that_no_watched_socket_carries_stays() -> Result<()> {
    let certificate = Certificate::new()?;
    let host = Host::new()?;
    let ring = Ring::attach(2856, "all")?;
    let mut python = host.command(machine::installed("python3")?);
    python.args(["-c", include_str!("others.py"), "2856", "2857"]).arg(certificate.both());
    process::run(python)?;
    let (records, ends) = ring.finish(4)?;
    ensure!(!records.iter().any(|record| record.bytes.contains(MARK)), "a record has the secret: {ends:#?}");
    ensure!(ends.len() == 4, "{ends:#?}");
    for end in &ends {
        let said = ["EHLO client.example\r\nQUIT\r\n", "250 mx.example\r\n221 Bye\r\n"];
        assert_eq!(end.plaintext, said, "{end:#?}");
    }
    Ok(())
}
