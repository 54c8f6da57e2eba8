//! Whether a pod's rights are enough, and whether each of them is needed.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use smtp_observer_tests::conversation::commands;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::tls::{MAIL, Server, smtplib};

use crate::chart::{Objects, render};
use crate::pod::{Pod, says};

/// What `check` finds in a pod: the exit status, and the state of each finding.
struct Check {
    status: Option<i32>,
    report: Value,
}

impl Check {
    fn of(objects: &Objects) -> Result<Self> {
        let ended = says(objects, &["check", "--json"])?;
        let report = serde_json::from_str(&ended.output.join("\n")).with_context(|| ended.log.join("\n"))?;
        Ok(Self { status: ended.status.code(), report })
    }

    fn state(&self, name: &str) -> Result<&str> {
        let findings = self.report["findings"].as_array().context("no findings")?;
        let finding = findings.iter().find(|finding| finding["name"] == name);
        finding.and_then(|finding| finding["state"].as_str()).with_context(|| format!("no {name} in {}", self.report))
    }
}

/// The same pod without one capability.
fn without(values: &[&str], capability: &str) -> Result<Objects> {
    let mut objects = render(values)?;
    let daemons = objects.0.iter_mut().find(|object| object["kind"] == "DaemonSet").context("no DaemonSet")?;
    let added = daemons.pointer_mut("/spec/template/spec/containers/0/securityContext/capabilities/add");
    let added = added.and_then(Value::as_array_mut).context("no capabilities")?;
    let before = added.len();
    added.retain(|name| name != capability);
    ensure!(added.len() + 1 == before, "{capability} is not among them");
    Ok(objects)
}

#[test]
fn a_pod_observes_what_others_on_its_node_say() -> Result<()> {
    let pod = Pod::start(&render(&["events=true"])?)?;
    let (client, server) = Host::pair()?;
    let mut dialogue = Dialogue::open(&client, &server, "10.77.0.2:25")?;
    dialogue.play(
        "S: 220 mx.example ESMTP\nC: EHLO client.example\nS: 250 mx.example\nC: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye",
    )?;
    dialogue.close()?;
    let seen = pod.wait_closed(&[&client, &server], 2)?;
    for role in ["client", "server"] {
        let side = seen.side(role)?;
        assert_eq!(commands(&side), ["EHLO 250", "RSET 250", "QUIT"], "\n{seen}");
        // It is named by the pid that the node has for it, and has its arguments.
        let opened = side.one("connection.opened")?;
        assert_eq!(opened.pid(), Some(u64::from(std::process::id())), "{}", opened.json());
        ensure!(opened.text("/process/command_line").is_some(), "{}", opened.json());
    }
    for path in ["/readyz", "/healthz", "/metrics"] {
        assert_eq!(pod.probe(path)?, 200, "{path}");
    }
    // It has given up what it was given, and is root no more.
    assert_eq!(pod.status("Uid")?, ["65533"; 4].join("\t"));
    assert_eq!(u64::from_str_radix(&pod.status("CapPrm")?, 16)?, 0);
    assert_eq!(pod.status("NoNewPrivs")?, "1");
    pod.stop()
}

#[test]
fn a_pod_that_may_reads_tls() -> Result<()> {
    let (client, server) = Host::pair()?;
    let serving = Server::start(&server, "TLSv1_3")?;
    let pod = Pod::start(&render(&["events=true", "tls=all"])?)?;
    smtplib(&client, "TLSv1_3", "one")?;
    let seen = pod.wait_closed(&[&client, &server], 2)?;
    for role in ["client", "server"] {
        let told = commands(&seen.side(role)?);
        ensure!(told.starts_with(&MAIL.map(String::from)[..6]), "{told:?}\n{seen}");
    }
    drop(serving);
    pod.stop()
}

#[test]
fn both_capabilities_are_needed_to_observe() -> Result<()> {
    let all = Check::of(&render(&[])?)?;
    assert_eq!(all.status, Some(0), "{}", all.report);
    assert_eq!(all.state("may load eBPF")?, "yes");
    for capability in ["BPF", "PERFMON"] {
        let fewer = Check::of(&without(&[], capability)?)?;
        assert_eq!(fewer.status, Some(3), "without {capability}: {}", fewer.report);
        assert_eq!(fewer.state("may load eBPF")?, "no", "without {capability}");
    }
    Ok(())
}

#[test]
fn two_more_are_needed_to_become_another_user() -> Result<()> {
    for capability in ["SETUID", "SETGID"] {
        let objects = without(&[], capability)?;
        let ended = says(&objects, &objects.arguments()?)?;
        assert_eq!(Check::of(&objects)?.state("user")?, "no", "without {capability}");
        assert_eq!(ended.status.code(), Some(3), "without {capability}: {:?}", ended.log);
        ensure!(ended.log.iter().any(|line| line.contains("cannot become the user")), "{:?}", ended.log);
    }
    Ok(())
}

#[test]
fn three_more_are_needed_to_read_tls() -> Result<()> {
    let rights = |check: &Check| -> Result<[bool; 3]> {
        let is_fine = |name| Ok::<_, anyhow::Error>(check.state(name)? == "yes");
        Ok([is_fine("may read TLS")?, is_fine("may read owners")?, is_fine("pid namespace")?])
    };
    assert_eq!(rights(&Check::of(&render(&["tls=auto"])?)?)?, [true; 3]);
    for (capability, left) in [
        ("SYS_ADMIN", [false, true, true]),
        ("SYS_PTRACE", [true, false, true]),
        ("DAC_READ_SEARCH", [true, false, true]),
    ] {
        assert_eq!(rights(&Check::of(&without(&["tls=auto"], capability)?)?)?, left, "without {capability}");
    }
    Ok(())
}
