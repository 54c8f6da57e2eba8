//! `trace` and `replay`: what is shown of what is observed, and to whom.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{Running, run, succeeded};
use smtp_observer_tests::scene::Scene;
use smtp_observer_tests::seen::{Observed, Seen};
use smtp_observer_tests::watch::SHORT;

/// `trace` with these options, once it observes.
fn trace(mut command: Command, options: &[&str]) -> Result<Running> {
    machine::require_root()?;
    command.arg("trace").args(options);
    let trace = Running::start(command)?;
    let observing = |lines: &[String]| lines.iter().any(|line| line.contains("observing port")).then_some(());
    trace.log.wait_for("`observing port …`", observing)?;
    Ok(trace)
}

fn replay(recording: &Path, options: &[&str]) -> Result<Vec<String>> {
    let mut command = Command::new(machine::agent()?);
    command.arg("replay").arg(recording).args(options);
    Ok(run(command)?.output)
}

fn ends_with(observed: &Observed, pointer: &str, name: &str) -> bool {
    observed.text(&format!("{pointer}/executable")).is_some_and(|path| path.ends_with(&format!("/{name}")))
}

/// The story's scene, recorded: three programs, one of them in the middle of the others.
#[test]
fn a_replay_shows_what_is_asked_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let recording = folder.path().join("recording");
    let agent = Agent::start(&["--record", recording.to_str().context("the path is no text")?])?;
    let scene = Scene::new()?;
    let inodes = [scene.client_host.inode()?, scene.server_host.inode()?];
    let hosts = [scene.client_host.clone(), scene.server_host.clone()];
    let server = scene.server.pid();
    scene.play()?;
    agent.wait_closed(&[&hosts[0], &hosts[1]], 4)?;
    agent.stop()?;

    let observe = |options: &[&str]| -> Result<Seen> {
        let lines = replay(&recording, &[&["--json"], options].concat())?;
        let all = lines.iter().map(|line| Observed::parse(line)).collect::<Result<Vec<_>>>()?;
        // Other tests' hosts are seen, too.
        Ok(Seen(all).only(|observed| observed.is_on(&inodes)))
    };
    let json = |seen: &Seen| seen.0.iter().map(Observed::json).collect::<Vec<_>>();
    let all = observe(&[])?;
    let check = |options: &[&str], expected: &dyn Fn(&Observed) -> bool| -> Result<Seen> {
        let (shown, expected) = (observe(options)?, all.only(expected));
        ensure!(!expected.0.is_empty() && expected.0.len() < all.0.len(), "{options:?} decide nothing:\n{all}");
        assert_eq!(json(&shown), json(&expected), "{options:?}");
        Ok(shown)
    };

    let concerns = |observed: &Observed, name: &str| {
        let places = ["/process", "/previous_process", "/interceptor", "/client/process"];
        places.iter().any(|pointer| ends_with(observed, pointer, name))
    };
    let by_proxy = check(&["--process", "antivirus-proxy"], &|observed| concerns(observed, "antivirus-proxy"))?;
    ensure!(by_proxy.count("interception") > 0, "the verdict is about it:\n{by_proxy}");
    check(&["--process", "mail-client,mail-server"], &|observed| {
        concerns(observed, "mail-client") || concerns(observed, "mail-server")
    })?;
    check(&["--pid", &server.to_string()], &|observed| observed.pid() == Some(server.into()))?;
    let is_verb = |observed: &Observed, verbs: &[&str]| match observed.event() {
        "smtp.command" | "smtp.data" => observed.text("/verb").is_some_and(|verb| verbs.contains(&verb)),
        "smtp.rset" => verbs.contains(&"RSET"),
        "smtp.noop" => verbs.contains(&"NOOP"),
        _ => false,
    };
    check(&["--verb", "rset", "--verb", "DATA"], &|observed| is_verb(observed, &["RSET", "DATA"]))?;
    check(&["--verb", "noop", "--process", "mail-server"], &|observed| {
        is_verb(observed, &["NOOP"]) && ends_with(observed, "/process", "mail-server")
    })?;

    // The server's end and the proxy's upstream one know each other's addresses, the client's own is another.
    let server_at = all.only(|observed| observed.pid() == Some(server.into())).0;
    let peer = server_at.first().and_then(|observed| observed.text("/connection/remote/address")).context("no peer")?;
    check(&["--peer", peer], &|observed| observed.text("/connection/remote/address") == Some(peer))?;

    // What the interceptor makes of the mail, and nothing of what each of the three says in an ordinary way.
    let odd = observe(&["--only-anomalies"])?;
    let has = |event: &str, pointer: &str, text: &str| {
        !odd.of(event).only(|observed| observed.text(pointer) == Some(text)).0.is_empty()
    };
    ensure!(has("smtp.rset", "/reason", "interceptor_replay"), "{odd}");
    ensure!(has("smtp.noop", "/reason", "interceptor_keepalive"), "{odd}");
    ensure!(has("smtp.transaction", "/outcome", "reset"), "{odd}");
    ensure!(!has("smtp.transaction", "/outcome", "delivered"), "{odd}");
    ensure!(odd.count("interception") > 0 && odd.count("smtp.command") == 0, "{odd}");

    // A pipe has colours where they are asked for.
    for (options, coloured) in [(&[][..], false), (&["--color", "never"], false), (&["--color", "always"], true)] {
        let text = replay(&recording, options)?;
        assert_eq!(text.iter().any(|line| line.contains("\u{1b}[")), coloured, "{options:?}:\n{}", text.join("\n"));
    }

    // The same lines as text, one each, behind the day.
    let mut text = replay(&recording, &["--verb", "RSET", "--pid", &server.to_string()])?;
    let expected = check(&["--verb", "RSET", "--pid", &server.to_string()], &|observed| {
        is_verb(observed, &["RSET"]) && observed.pid() == Some(server.into())
    })?;
    let is_day = |line: &String| line.starts_with("-- ");
    ensure!(text.first().is_some_and(is_day), "{text:#?}");
    text.retain(|line| !is_day(line));
    assert_eq!(text.len(), expected.0.len(), "{text:#?}");
    ensure!(
        text.iter().all(|line| line.contains(&format!("mail-server[{server}]")) && line.contains("RSET")),
        "{text:#?}"
    );
    Ok(())
}

/// Live, as text and as JSON: an exchange that is asked for comes, others do not.
#[test]
fn a_trace_shows_what_is_asked_for() -> Result<()> {
    let (client, server) = Host::pair()?;
    let (agent, own) = (machine::agent()?, std::process::id().to_string());
    let options = ["--port", "2711", "--pid", &own, "--verb", "NOOP"];
    let text = trace(Command::new(&agent), &options)?;
    let json = trace(Command::new(&agent), &[&options[..], &["--json"]].concat())?;
    let others = trace(Command::new(&agent), &["--port", "2711", "--process", "swaks", "--json"])?;
    let mut dialogue = Dialogue::open(&client, &server, "10.77.0.2:2711")?;
    dialogue.play(SHORT)?;
    dialogue.close()?;

    // At both ends the exchange, and why.
    let lines =
        text.output.wait_for("two exchanges with their reasons", |lines| (lines.len() >= 4).then(|| lines.to_vec()))?;
    ensure!(lines.iter().all(|line| line.contains(&format!("[{own}]")) && line.contains("NOOP")), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line.contains("250 2.0.0 Ok")).count(), 2, "{lines:#?}");
    json.output.wait_for("two exchanges with their reasons", |lines| (lines.len() >= 4).then_some(()))?;
    assert_eq!(succeeded("trace", stop(text)?)?.output.len(), 4);
    let mut events = Vec::new();
    for line in succeeded("trace --json", stop(json)?)?.output {
        let observed = Observed::parse(&line)?;
        ensure!(observed.pid() == Some(std::process::id().into()), "{line}");
        events.push(observed.event().to_owned());
    }
    events.sort();
    assert_eq!(events, ["smtp.command", "smtp.command", "smtp.noop", "smtp.noop"]);
    assert_eq!(succeeded("trace of others", stop(others)?)?.output, Vec::<String>::new());
    Ok(())
}

fn stop(running: Running) -> Result<Running> {
    running.signal(nix::sys::signal::Signal::SIGTERM)?;
    Ok(running)
}

/// `trace | head`: nobody reads on.
#[test]
fn a_reader_that_leaves_ends_a_trace_quietly() -> Result<()> {
    let (client, server) = Host::pair()?;
    let mut pipeline = Command::new(machine::installed("bash")?);
    let script = "set -o pipefail; \"$0\" \"$@\" | { read -r line; exec <&-; echo \"$line\"; }";
    pipeline.args(["-c", script]).arg(machine::agent()?);
    let trace = trace(pipeline, &["--port", "2712"])?;
    let mut dialogue = Dialogue::open(&client, &server, "10.77.0.2:2712")?;
    dialogue.play(SHORT)?;
    dialogue.close()?;
    let line = trace.output.wait_for("the first line", |lines| lines.first().cloned())?;
    ensure!(line.contains("10.77.0."), "{line}");
    // The reader has closed its end by now, and no other line comes.
    let ended = succeeded("trace", trace)?;
    assert_eq!(ended.output.len(), 1, "{:?}", ended.output);
    let last = ended.log.last().context("nothing was said")?;
    ensure!(last.starts_with("observing port"), "something is said of the end: {:?}", ended.log);
    Ok(())
}

/// Whoever keeps what a trace shows is told that it is not complete.
#[test]
fn a_trace_that_cannot_be_written_fails() -> Result<()> {
    let (client, server) = Host::pair()?;
    for options in [&["--port", "2714"][..], &["--port", "2714", "--json"]] {
        let mut full = Command::new(machine::installed("sh")?);
        full.args(["-c", "exec \"$0\" \"$@\" > /dev/full"]).arg(machine::agent()?);
        let trace = trace(full, options)?;
        let mut dialogue = Dialogue::open(&client, &server, "10.77.0.2:2714")?;
        dialogue.play(SHORT)?;
        dialogue.close()?;
        trace
            .log
            .wait_for("the full disk", |log| log.iter().any(|line| line.contains("No space left")).then_some(()))?;
        let ended = stop(trace)?.finish()?;
        assert_eq!(ended.status.code(), Some(1), "{:?}", ended.log);
        let said = |words: &str| ended.log.iter().any(|line| line.contains(words));
        ensure!(said("observations were not written: trace") && said("not complete"), "{:?}", ended.log);
    }
    Ok(())
}

/// A trace whose terminal goes away ends as with Ctrl-C.
#[test]
fn a_hang_up_ends_a_trace() -> Result<()> {
    // The tests may have been started by nohup(1).
    let mut heeding = Command::new(machine::installed("env")?);
    heeding.arg("--default-signal=HUP").arg(machine::agent()?);
    let trace = trace(heeding, &["--port", "2713"])?;
    trace.signal(nix::sys::signal::Signal::SIGHUP)?;
    succeeded("trace", trace).map(drop)
}

/// `nohup smtp-observer trace &`.
#[test]
fn a_trace_ignores_the_signals_that_it_was_started_to_ignore() -> Result<()> {
    let (client, server) = Host::pair()?;
    let mut ignoring = Command::new(machine::installed("sh")?);
    ignoring.args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\""]).arg(machine::agent()?);
    let trace = trace(ignoring, &["--port", "2715"])?;
    for signal in [nix::sys::signal::Signal::SIGHUP, nix::sys::signal::Signal::SIGINT] {
        trace.signal(signal)?;
    }
    let mut dialogue = Dialogue::open(&client, &server, "10.77.0.2:2715")?;
    dialogue.play(SHORT)?;
    dialogue.close()?;
    trace.output.wait_for("what is said behind them", |lines| (!lines.is_empty()).then_some(()))?;
    succeeded("trace", stop(trace)?).map(drop)
}
