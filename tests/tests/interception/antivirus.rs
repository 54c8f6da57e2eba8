//! Virus scanners for mail, as they come: what a client is told is not what the server says.

use anyhow::{Context, Result};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::machine;
use smtp_observer_tests::process::Running;
use smtp_observer_tests::scene::Scene;
use smtp_observer_tests::seen::{Observed, Seen};
use smtp_observer_tests::unpacked::Root;

use crate::between::{Between, Mail, PROXY_PORT, SERVER, typist};
use crate::verdict::{self, Expected, evidence, seen_to_the_end};

/// What both scanners are told: they keep the server waiting with a NOOP each second at most.
const SETTINGS: &str = "\
Listen: 0.0.0.0:10025
OutAddress: 10.77.0.2:25
KeepAlives: 1
TempDirectory: /tmp
";

/// What they say where the server says something else.
const GO_AHEAD: &str = "Start mail input; end with <CRLF>.<CRLF>";

/// A line of the mail that the client sends.
const LINE: &str = "I am paying.";

/// A mail that a user types goes through proxsmtp with this filter.
fn proxsmtp(filter: &str) -> Result<Mail> {
    let between = Between::redirected()?;
    let root = Root::new("proxsmtp", &[])?;
    root.write("etc/proxsmtpd.conf", &format!("{SETTINGS}FilterType: pipe\nFilterCommand: {filter}\n"))?;
    scanned(between, &root, "proxsmtpd")
}

/// A mail that a user types goes through ClamSMTP, whose clamd knows of one virus: this text.
fn clamsmtp(virus: &str, action: &str) -> Result<Mail> {
    let between = Between::redirected()?;
    let root = Root::new("clamsmtp", &[])?;
    root.directory("var/lib/clamav")?;
    let signature: String = virus.bytes().map(|byte| format!("{byte:02x}")).collect();
    // In files of every kind, anywhere in them.
    root.write("var/lib/clamav/own.ndb", &format!("Test.Line:0:*:{signature}\n"))?;
    root.write("etc/clamd.conf", "Foreground true\nLocalSocket /run/clamd.sock\nDatabaseDirectory /var/lib/clamav\n")?;
    let mut clamd = root.command(&between.proxy_host, "/usr/sbin/clamd")?;
    clamd.args(["-c", "/etc/clamd.conf"]);
    let clamd = Running::start(clamd)?;
    let ready = |lines: &[String]| lines.iter().any(|line| line.contains("Self checking")).then_some(());
    clamd.output.wait_for("clamd's `Self checking`", ready).with_context(|| clamd.log.so_far().join("\n"))?;
    root.write("etc/clamsmtpd.conf", &format!("{SETTINGS}ClamAddress: /run/clamd.sock\nAction: {action}\n"))?;
    scanned(between, &root, "clamsmtpd")
}

/// A mail goes through a scanner, which answers DATA itself.
fn scanned(between: Between, root: &Root, scanner: &str) -> Result<Mail> {
    let mut command = root.command(&between.proxy_host, &format!("/usr/sbin/{scanner}"))?;
    // With its messages on standard error it stays in the foreground.
    command.args(["-f", &format!("/etc/{scanner}.conf"), "-d", "3"]);
    let proxy = between.proxy(command, PROXY_PORT)?;
    let client = typist(&between.client_host, SERVER)?;
    let mail = between.send(client, proxy)?;
    let data = mail.client()?.command("DATA")?;
    assert_eq!(data.text("/reply"), Some(GO_AHEAD), "{data}");
    Ok(mail)
}

/// The scanner waited for the whole mail, and then handed it on.
fn check_passed(mail: &Mail, scanner: &str) -> Result<()> {
    mail.check_delivered()?;
    assert_eq!(mail.client()?.count("smtp.noop"), 0, "the client never said NOOP");
    for leg in [&mail.upstream, &mail.server] {
        let data = leg.one("smtp.data")?;
        assert_eq!(data.text("/go_ahead"), Some("End data with <CR><LF>.<CR><LF>"), "{data}");
        assert!(leg.count("smtp.noop") > 0, "it sent no NOOP while the client was typing:\n{leg}");
    }

    let verdict = check(mail, scanner)?;
    for kind in ["envelope_mirrored", "go_ahead_not_from_upstream", "data_held_back", "command_injected"] {
        assert!(evidence(&verdict).contains(&kind), "there is no {kind}: {verdict}");
    }
    // The client types for two seconds and a half, and only then does the server hear of DATA.
    let held = verdict.number("/data_delay_seconds").with_context(|| verdict.to_string())?;
    assert!(held > 2.0, "{verdict}");
    Ok(())
}

/// The scanner kept the mail, and the server never heard of DATA.
fn check_kept(mail: &Mail, scanner: &str, told: u64) -> Result<()> {
    assert_eq!(mail.client()?.one("smtp.data")?.count("/code"), Some(told));
    for leg in [&mail.upstream, &mail.server] {
        assert_eq!(leg.count("smtp.data"), 0, "{leg}");
        assert_eq!(leg.count("smtp.rset"), 1, "{leg}");
    }

    let verdict = check(mail, scanner)?;
    assert!(evidence(&verdict).contains(&"command_injected"), "{verdict}");
    assert_eq!(reasons(&mail.upstream, "smtp.rset"), ["interceptor_discard"], "{}", mail.upstream);
    Ok(())
}

fn check(mail: &Mail, scanner: &str) -> Result<Observed> {
    let executable = format!("/{scanner}");
    let expected = Expected { verdict: "transparent_interceptor", method: "redirect", executable: &executable };
    let verdict = mail.check(expected)?;
    for kind in ["local_peer", "reply_text_differs"] {
        assert!(evidence(&verdict).contains(&kind), "there is no {kind}: {verdict}");
    }
    let noops = reasons(&mail.upstream, "smtp.noop");
    assert!(noops.iter().all(|reason| reason == "interceptor_keepalive"), "{noops:?} in:\n{}", mail.upstream);
    Ok(verdict)
}

/// The story's program, which answers everything that has to do with the message itself, and hands the mail on when the
/// client has gone.
#[test]
fn the_one_of_the_story() -> Result<()> {
    let verdict = story(Scene::new()?, "auto", "/antivirus-proxy")?;
    assert!(!evidence(&verdict).contains(&"tls_terminated"), "nobody spoke TLS: {verdict}");
    Ok(())
}

/// The same behind STARTTLS: the interceptor ends the client's TLS, and speaks its own to the server.
#[test]
fn the_one_of_the_story_through_tls() -> Result<()> {
    let python = machine::installed("python3")?.canonicalize()?;
    let verdict = story(Scene::with_tls()?, "all", &python.display().to_string())?;
    assert!(evidence(&verdict).contains(&"tls_terminated"), "there is no tls_terminated: {verdict}");
    let script = verdict.text("/interceptor/script").context("the interceptor is a script")?;
    assert!(script.ends_with("/antivirus-proxy.py"), "another script: {verdict}");
    Ok(())
}

/// Client and server speak TLS with each other, and who is in between passes it: what they say is read at both ends, and
/// nothing of it is missed in between.
#[test]
fn a_program_that_passes_tls() -> Result<()> {
    let _turn = crate::beside_others();
    let scene = Scene::with_tls_passed()?;
    let (client_host, server_host) = (scene.client_host.clone(), scene.server_host.clone());
    let agent = Agent::start(&["--addresses", "full", "--tls", "all"])?;
    let pids = scene.play()?.pids;
    let seen = seen_to_the_end(agent, &[&client_host, &server_host])?;
    let is = |pid: u32| move |side: &Seen| side.0.iter().any(|observed| observed.pid() == Some(pid.into()));
    let client = seen.sides("client").into_iter().find(is(pids.client)).context("the client's connection")?;
    let server = seen.sides("server").into_iter().find(is(pids.server)).context("the server's end")?;
    for side in [&client, &server] {
        assert_eq!(side.one("smtp.transaction")?.text("/outcome"), Some("delivered"), "{side}");
        assert_eq!(side.of("smtp.command").0.len(), 7, "{side}");
    }
    let verdict = client.of("interception").0.pop().with_context(|| format!("there is no verdict:\n{seen}"))?;
    assert_eq!(verdict.text("/verdict"), Some("transparent_l4"), "{verdict}");
    let mut evidence = evidence(&verdict);
    evidence.sort_unstable();
    // On a busy machine the two ends may be too far apart to be taken for one.
    evidence.retain(|kind| *kind != "coupled_close");
    assert_eq!(evidence, ["local_peer", "same_destination_connected"], "{verdict}");
    for told in seen.of("interception").0 {
        assert_eq!(told.text("/verdict"), Some("transparent_l4"), "{told}");
    }
    Ok(())
}

/// Plays the story; the verdict.
fn story(scene: Scene, tls: &str, executable: &str) -> Result<Observed> {
    let _turn = crate::beside_others();
    let (client_host, server_host) = (scene.client_host.clone(), scene.server_host.clone());
    let agent = Agent::start(&["--addresses", "full", "--tls", tls])?;
    let pids = scene.play()?.pids;
    let seen = seen_to_the_end(agent, &[&client_host, &server_host])?;
    let sides = seen.on(&[&client_host])?.sides("client");
    let its = |pid: u32| {
        let side = sides.iter().find(|side| side.0.iter().any(|observed| observed.pid() == Some(pid.into())));
        side.with_context(|| format!("nothing was seen of {pid}, in:\n{seen}"))
    };
    let (client, upstream) = (its(pids.client)?, its(pids.interceptor)?);
    assert_eq!([client, upstream].map(|end| end.count("smtp.noop")), [0, 5], "{seen}");

    let expected = Expected { verdict: "transparent_interceptor", method: "redirect", executable };
    let verdict = verdict::check(&seen, client, expected, pids.interceptor)?;
    for kind in ["success_before_upstream", "data_held_back", "go_ahead_not_from_upstream", "command_injected"] {
        assert!(evidence(&verdict).contains(&kind), "there is no {kind}: {verdict}");
    }
    assert_eq!(reasons(upstream, "smtp.rset"), ["interceptor_replay"], "{upstream}");
    assert_eq!(reasons(upstream, "smtp.noop"), ["interceptor_keepalive"; 5], "{upstream}");
    Ok(verdict)
}

/// Why each NOOP or RSET was sent.
fn reasons(leg: &Seen, event: &str) -> Vec<String> {
    leg.of(event).0.iter().filter_map(|observed| observed.text("/reason")).map(str::to_owned).collect()
}

#[test]
fn proxsmtp_that_passes_a_mail() -> Result<()> {
    let _turn = crate::beside_others();
    check_passed(&proxsmtp("/bin/cat")?, "proxsmtpd")
}

#[test]
fn proxsmtp_that_rejects_a_mail() -> Result<()> {
    let _turn = crate::beside_others();
    check_kept(&proxsmtp("/bin/false")?, "proxsmtpd", 550)
}

#[test]
fn clamsmtp_that_passes_a_mail() -> Result<()> {
    let _turn = crate::beside_others();
    check_passed(&clamsmtp("another line", "bounce")?, "clamsmtpd")
}

#[test]
fn clamsmtp_that_rejects_a_mail() -> Result<()> {
    let _turn = crate::beside_others();
    check_kept(&clamsmtp(LINE, "bounce")?, "clamsmtpd", 550)
}

/// The client is told that all is well.
#[test]
fn clamsmtp_that_drops_a_mail() -> Result<()> {
    let _turn = crate::beside_others();
    let mail = clamsmtp(LINE, "drop")?;
    assert!(mail.sent, "the client was told of it");
    check_kept(&mail, "clamsmtpd", 250)
}
