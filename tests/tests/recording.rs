//! Recordings: made of real conversations, replayed by a user without rights, byte for byte; and what is in them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum as _;
use nix::sys::signal::Signal;
use smtp_observer_tests::agent::http_address;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::feed::PATIENCE;
use smtp_observer_tests::http::{self, Metrics};
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{Ended, Running};
use smtp_observer_tests::scene::Scene;
use smtp_observer_tests::schema;
use smtp_observer_tests::seen::Observed;

/// What must not be in any recording: a password in each form of AUTH, and content.
const SECRETS: [&str; 5] = ["c2VjcmV0LW9uZQ", "c2VjcmV0LXR3", "bydGhyZWU", "Dear Bob", "Yours, Ann"];

/// What is in one only with `--addresses full`.
const NAMES: [&str; 2] = ["annmarker", "bobmarker"];

const GREETING: &str = "S: 220 server.example ESMTP
    C: EHLO client.example
    S: 250-server.example
    S: 250-PIPELINING
    S: 250 AUTH PLAIN LOGIN
    C: AUTH PLAIN c2VjcmV0LW9uZQ==
    S: 535 5.7.8 no
    C: AUTH LOGIN
    S: 334 VXNlcm5hbWU6";

const ENVELOPE: &str = "S: 334 UGFzc3dvcmQ6
    C: c2VjcmV0LXR3bydGhyZWU=
    S: 235 2.7.0 in
    C: MAIL FROM:<annmarker@client.example>
    C: RCPT TO:<bobmarker@server.example>
    S: 250 2.1.0 <annmarker@client.example> ok
    S: 550 5.1.1 User bobmarker unknown
    C: RSET
    S: 250 2.0.0 reset
    C: MAIL FROM:<annmarker@client.example>
    S: 250 2.1.0 ok
    C: RCPT TO:<bobmarker@server.example>
    S: 250 2.1.5 ok
    C: DATA
    ";

/// Content after its 354, content before it, content that nobody wanted, and chunks.
const MESSAGES: [&str; 4] = [
    "S: 354 go
     C: Dear Bob,
     C: .
     S: 250 2.0.0 taken
     C: QUIT
     S: 221 bye",
    "C: Dear Bob,
     C: Yours, Ann
     C: .
     S: 354 go
     S: 250 2.0.0 taken
     C: QUIT
     S: 221 bye",
    "C: Dear Bob,
     C: Yours, Ann
     C: .
     S: 451 later
     S: 500 what
     S: 500 what
     S: 500 what
     C: QUIT
     S: 221 bye",
    "S: 503 no
     C: BDAT 10
     C: Dear Bob
     S: 250 10 octets
     C: BDAT 12 LAST
     C: Yours, Ann
     S: 250 taken
     C: STARTTLS
     S: 220 go
     C: \u{16}\u{3}\u{1} secret",
];

/// An agent that records, and writes what it observes to standard output.
struct Recording {
    agent: Running,
    http: std::net::SocketAddr,
}

impl Recording {
    /// Starts it, behind a command where one is given.
    fn start(mut command: Command, options: &[&str]) -> Result<Self> {
        machine::require_root()?;
        let http = http_address();
        command.args(["run", "--events", "-", "--listen", &http.to_string()]);
        if let Some(hooks) = machine::hooks()?.to_possible_value() {
            command.args(["--hooks", hooks.get_name()]);
        }
        command.args(options);
        let agent = Running::start(command)?;
        let observing = |lines: &[String]| lines.iter().any(|line| line.contains("observing port")).then_some(());
        agent.log.wait_for("`observing port …`", observing)?;
        Ok(Self { agent, http })
    }

    /// Waits until it saw both ends of so many connections end.
    fn wait_closed(&self, hosts: &[&Host], connections: usize) -> Result<()> {
        let nets = hosts.iter().map(|host| Ok(format!("\"netns\":{}}}", host.inode()?))).collect::<Result<Vec<_>>>()?;
        let is_one = |line: &&String| {
            line.contains("\"connection.closed\"") && nets.iter().any(|net| line.contains(net.as_str()))
        };
        let all = |lines: &[String]| (lines.iter().filter(is_one).count() >= 2 * connections).then_some(());
        self.agent.output.wait_for("the ends of all connections", all)
    }

    fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics(http::get(self.http, "/metrics")?.1))
    }
}

/// One conversation with everything that is not to be kept.
fn converse(client: &Host, server: &Host, message: &str) -> Result<()> {
    let mut dialogue = Dialogue::open(client, server, "10.77.0.2:25")?;
    dialogue.play(GREETING)?;
    // An answer in two calls.
    dialogue.client_says(b"c2VjcmV0LXR3")?;
    dialogue.client_says(b"bydGhyZWU=\r\n")?;
    dialogue.play(&format!("{ENVELOPE}{message}"))?;
    dialogue.close()
}

/// The recording, replayed by a user who may do nothing.
fn replay(recording: &Path, options: &[&str]) -> Result<Ended> {
    let folder = tempfile::tempdir()?;
    let agent = machine::agent_for_all(folder.path())?;
    let copy = folder.path().join("recording");
    fs::copy(recording, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o644))?;
    let mut command = Command::new(agent);
    command.arg("replay").arg(copy).args(options).uid(65534).gid(65534).current_dir("/");
    let ended = Running::start(command)?.finish()?;
    if options.contains(&"--json") {
        ended.output.iter().try_for_each(|line| schema::parse(line).map(drop))?;
    }
    Ok(ended)
}

fn replayed(recording: &Path, options: &[&str]) -> Result<Vec<String>> {
    let ended = replay(recording, options)?;
    ensure!(ended.status.success() && ended.log.is_empty(), "{}: {:?}", ended.status, ended.log);
    Ok(ended.output)
}

fn agent() -> Result<Command> {
    Ok(Command::new(machine::agent()?))
}

/// A place for a recording, and its folder, which goes with the test.
fn place() -> Result<(tempfile::TempDir, PathBuf, String)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("recording");
    let name = path.display().to_string();
    Ok((folder, path, name))
}

/// What was observed and what is replayed, compared line by line.
fn check_same(observed: &[String], replayed: &[String]) -> Result<()> {
    for (number, (observed, replayed)) in observed.iter().zip(replayed).enumerate() {
        ensure!(observed == replayed, "line {number}:\n{observed}\n{replayed}");
        schema::parse(observed).with_context(|| observed.clone())?;
    }
    ensure!(observed.len() == replayed.len(), "{} lines, replayed {}", observed.len(), replayed.len());
    Ok(())
}

#[test]
fn a_replay_is_the_same_to_the_byte() -> Result<()> {
    for addresses in ["domain", "none", "full"] {
        let (client_host, server_host) = Host::pair()?;
        // One that was there before the agent.
        let mut before = Dialogue::open(&client_host, &server_host, "10.77.0.2:25")?;
        before.play("S: 220 server.example ESMTP\nC: AUTH LOGIN\nS: 334 VXNlcm5hbWU6")?;
        let (_folder, path, name) = place()?;
        let recording = Recording::start(agent()?, &["--record", &name, "--addresses", addresses])?;
        before.play("C: c2VjcmV0LXR3bydGhyZWU=\nS: 535 no\nC: QUIT\nS: 221 bye")?;
        before.close()?;
        for message in MESSAGES {
            converse(&client_host, &server_host, message)?;
        }
        // And one that is there behind it: a command that was not answered, and half of another.
        let mut behind = Dialogue::open(&client_host, &server_host, "10.77.0.2:25")?;
        behind.play("S: 220 server.example ESMTP\nC: MAIL FROM:<annmarker@client.example>")?;
        behind.client_says(b"RCPT TO:<bobmarker@")?;
        let scene = Scene::new()?;
        let hosts = [scene.client_host.inode()?, scene.server_host.inode()?];
        let played = scene.play()?;
        ensure!(!played.client.output.is_empty(), "the scene of {hosts:?} was not played");
        recording.wait_closed(&[&client_host, &server_host], 1 + MESSAGES.len())?;
        let dropped = recording.metrics()?.sum("smtp_observer_sink_dropped_total", &["sink=\"record\""]);
        ensure!(dropped == Some(0.0), "the metric of what is lost says {dropped:?}");
        let ended = recording.agent.stop()?;
        ensure!(ended.status.success(), "{}: {:?}", ended.status, ended.log);

        ensure!(path.metadata()?.permissions().mode() & 0o777 == 0o600, "others may read it");
        check_same(&ended.output, &replayed(&path, &["--json"])?).context(addresses)?;
        let text = fs::read_to_string(&path)?;
        for secret in SECRETS {
            ensure!(!text.contains(secret), "--addresses {addresses}: {secret} is in the recording");
        }
        for name in NAMES {
            ensure!(text.contains(name) == (addresses == "full"), "--addresses {addresses}: {name}");
        }
        // What is in it can be looked for.
        ensure!(text.contains("RCPT TO:<") && text.contains("AUTH LOGIN"), "the dialogue is not in the recording");
    }
    Ok(())
}

#[test]
fn a_replay_has_the_faces_of_trace() -> Result<()> {
    let (client_host, server_host) = Host::pair()?;
    let (_folder, path, name) = place()?;
    let recording = Recording::start(agent()?, &["--record", &name])?;
    converse(&client_host, &server_host, MESSAGES[0])?;
    recording.wait_closed(&[&client_host, &server_host], 1)?;
    let observed = recording.agent.stop()?.output;

    let text = replayed(&path, &[])?.join("\n");
    ensure!(text.contains("RCPT TO:<*@server.example>") && !text.contains('{'), "{text}");
    let less = replayed(&path, &["--json", "--addresses", "none"])?.join("\n");
    ensure!(less.contains("TO:<*>") && !less.contains("*@server.example"), "{less}");
    let others = replay(&path, &["--json", "--port", "26"])?;
    ensure!(others.output.is_empty(), "no connection has that port");
    ensure!(others.log.concat().ends_with("is what the options select"), "{:?}", others.log);
    check_same(&observed, &replayed(&path, &["--json", "--port", "26,25"])?)?;

    let more = replay(&path, &["--addresses", "full"])?;
    ensure!(more.status.code() == Some(2) && more.log.join("").contains("--addresses domain"), "{:?}", more.log);
    Ok(())
}

#[test]
fn trace_records_too() -> Result<()> {
    let (client_host, server_host) = Host::pair()?;
    let (_folder, path, name) = place()?;
    let mut command = agent()?;
    command.args(["trace", "--json", "--record", &name]);
    let trace = Running::start(command)?;
    let observing = |lines: &[String]| lines.iter().any(|line| line.contains("observing port")).then_some(());
    trace.log.wait_for("`observing port …`", observing)?;
    converse(&client_host, &server_host, MESSAGES[0])?;
    let net = format!("\"netns\":{}}}", client_host.inode()?);
    let is_end = |line: &String| line.contains("\"connection.closed\"") && line.contains(net.as_str());
    trace.output.wait_for("the end of the connection", |lines| lines.iter().any(is_end).then_some(()))?;
    check_same(&trace.stop()?.output, &replayed(&path, &["--json"])?)
}

#[test]
fn what_an_agent_that_was_killed_has_recorded_is_replayed() -> Result<()> {
    let (client_host, server_host) = Host::pair()?;
    let (_folder, path, name) = place()?;
    let recording = Recording::start(agent()?, &["--record", &name])?;
    converse(&client_host, &server_host, MESSAGES[0])?;
    recording.wait_closed(&[&client_host, &server_host], 1)?;
    let observed = recording.agent.output.so_far();
    // It is written by a thread that tells nobody when it has.
    let net = format!("\"netns\":{},", server_host.inode()?);
    let is_end = |line: &str| line.contains(&net) && line.contains("\"new\":\"close\"");
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(&path)?.lines().any(is_end) {
        ensure!(Instant::now() < deadline, "the end of the connection is not in the recording");
        std::thread::sleep(Duration::from_millis(20));
    }
    recording.agent.signal(Signal::SIGKILL)?;
    recording.agent.finish()?;
    let ended = replay(&path, &["--json"])?;
    ensure!(ended.status.success(), "{}: {:?}", ended.status, ended.log);
    // Of conversations under way, which other tests hold, what was not concluded is missing.
    let own = |lines: &[String]| {
        let net = net.replace(',', "}");
        lines.iter().filter(|line| line.contains(&net)).cloned().collect::<Vec<_>>()
    };
    ensure!(own(&observed).len() > 10, "{observed:#?}");
    check_same(&own(&observed), &own(&ended.output))
}

#[test]
fn a_file_that_is_there_is_not_written_to() -> Result<()> {
    let (_folder, path, name) = place()?;
    fs::write(&path, "precious")?;
    let mut command = agent()?;
    command.args(["run", "--listen", &http_address().to_string(), "--record", &name]);
    let ended = Running::start(command)?.finish()?;
    let log = ended.log.join("\n");
    ensure!(ended.status.code() == Some(1) && log.contains(&name) && log.contains("--record FILE"), "{log}");
    ensure!(log.contains("file exists"), "{log}");
    ensure!(fs::read_to_string(&path)? == "precious", "it was written to");
    Ok(())
}

#[test]
fn a_full_disk_leaves_a_hole_that_is_told() -> Result<()> {
    let (client_host, server_host) = Host::pair()?;
    let folder = tempfile::tempdir()?;
    let disk = folder.path().display().to_string();
    let mut command = Command::new(machine::installed("unshare")?);
    let script = "mount -t tmpfs -o size=256k none \"$0\" && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, &disk]).arg(machine::agent()?);
    let recording = Recording::start(command, &["--record", &format!("{disk}/recording")])?;
    converse(&client_host, &server_host, MESSAGES[0])?;
    recording.wait_closed(&[&client_host, &server_host], 1)?;

    // The disk as the agent sees it.
    let seen = PathBuf::from(format!("/proc/{}/root{disk}", recording.agent.pid()));
    let mut ballast = fs::File::create(seen.join("ballast"))?;
    while ballast.write_all(&[0; 4096]).is_ok() {}
    drop(ballast);
    for _ in 0..20 {
        converse(&client_host, &server_host, MESSAGES[0])?;
    }
    recording.wait_closed(&[&client_host, &server_host], 21)?;
    let sink = ["sink=\"record\""];
    // Its thread may not have come to it yet; it notes the loss of what it cannot write.
    let noted = |lines: &[String]| lines.iter().any(|line| line.contains("cannot be written")).then_some(());
    recording.agent.log.wait_for("the loss", noted)?;
    fs::remove_file(seen.join("ballast"))?;
    converse(&client_host, &server_host, MESSAGES[1])?;
    recording.wait_closed(&[&client_host, &server_host], 22)?;
    let dropped = recording.metrics()?.sum("smtp_observer_sink_dropped_total", &sink).context("no such metric")?;
    ensure!(dropped > 0.0, "nothing was lost");
    converse(&client_host, &server_host, MESSAGES[1])?;
    recording.wait_closed(&[&client_host, &server_host], 23)?;
    recording.metrics()?;
    let again = |lines: &[String]| lines.iter().any(|line| line.contains("can be written again")).then_some(());
    recording.agent.log.wait_for("the end of the loss", again)?;

    let copy = folder.path().join("copy");
    fs::copy(seen.join("recording"), &copy)?;
    let ended = replay(&copy, &["--json"])?;
    let log = ended.log.join("\n");
    ensure!(ended.status.success() && log.contains("events are missing in"), "{log}");
    let closed = ended.output.iter().filter(|line| line.contains("\"connection.closed\"")).count();
    ensure!((2..46).contains(&closed), "{closed} ends of connections");
    let stopped = recording.agent.stop()?;
    ensure!(stopped.log.iter().any(|line| line.contains("events were not written: record")), "{:?}", stopped.log);
    Ok(())
}

#[test]
fn what_is_no_recording_is_refused_in_a_sentence() -> Result<()> {
    let (folder, path, name) = place()?;
    let refused = |file: &str, words: &str| -> Result<()> {
        let mut command = agent()?;
        command.args(["replay", file]);
        let ended = Running::start(command)?.finish()?;
        let log = ended.log.join("\n");
        ensure!(ended.status.code() == Some(2) && ended.output.is_empty(), "{}: {log}", ended.status);
        ensure!(log.contains(file) && log.contains(words) && log.lines().count() == 1, "{log}");
        Ok(())
    };
    refused(&name, "no such file or directory")?;
    refused(&folder.path().display().to_string(), "is a directory")?;
    for (content, words) in [
        (&b""[..], "it is empty"),
        (b"From ann@client.example Mon Nov 23 17:04:05 2026\n", "does not begin like one"),
        (b"{\"recording\":\"smtp-observer\",\"version\":2,", "does not begin like one"),
        (b"{\"recording\":\"smtp-observer\",\"version\":1,\"agent\":\"0.1.0\"}\n", "older"),
        (b"{\"recording\":\"smtp-observer\",\"version\":3,\"agent\":\"9.0.0\"}\n", "newer"),
    ] {
        fs::write(&path, content)?;
        refused(&name, words)?;
    }
    Ok(())
}

#[test]
fn damage_in_the_middle_is_a_failure_and_a_cut_is_not() -> Result<()> {
    let (_folder, path, _) = place()?;
    let header =
        "{\"recording\":\"smtp-observer\",\"version\":2,\"agent\":\"0.1.0\",\"ports\":[25],\"addresses\":\"domain\"}\n";
    let host = "{\"event\":[0,{\"host\":{\"unix_offset\":0,\"boot_id\":\"0\"}}]}\n";
    fs::write(&path, format!("{header}{host}garbage\n"))?;
    let ended = replay(&path, &[])?;
    ensure!(ended.status.code() == Some(1) && ended.log.join("").contains("damaged in line 3"), "{:?}", ended.log);

    fs::write(&path, format!("{header}{host}{{\"eve"))?;
    let ended = replay(&path, &[])?;
    ensure!(ended.status.success() && ended.log.join("").contains("in the middle of an event"), "{:?}", ended.log);
    Ok(())
}

#[test]
fn a_recording_may_come_by_a_pipe() -> Result<()> {
    let (client_host, server_host) = Host::pair()?;
    let (_folder, path, name) = place()?;
    let recording = Recording::start(agent()?, &["--record", &name])?;
    converse(&client_host, &server_host, MESSAGES[0])?;
    recording.wait_closed(&[&client_host, &server_host], 1)?;
    let observed = recording.agent.stop()?.output;
    let mut command = Command::new(machine::installed("bash")?);
    command.args(["-c", "cat \"$0\" | \"$1\" replay --json -"]).arg(&path).arg(machine::agent()?);
    check_same(&observed, &Running::start(command)?.finish()?.output)?;
    // A reader that leaves is no failure.
    let mut command = Command::new(machine::installed("bash")?);
    command.args(["-c", "set -o pipefail; \"$1\" replay --json \"$0\" | true"]).arg(&path).arg(machine::agent()?);
    let ended = Running::start(command)?.finish()?;
    ensure!(ended.status.success() && ended.log.is_empty(), "{}: {:?}", ended.status, ended.log);
    Ok(())
}

/// The example of the documentation can be replayed, and tells the story of the README.
#[test]
fn the_example_is_replayed() -> Result<()> {
    let mut replay = Command::new(machine::agent()?);
    replay
        .args(["replay", "--json"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/antivirus.recording"));
    let Ended { status, output, log } = Running::start(replay)?.finish()?;
    ensure!(status.success() && log.is_empty(), "{status}: {log:?}");
    output.iter().try_for_each(|line| schema::parse(line).map(drop))?;
    let seen = output.iter().map(|line| Observed::parse(line)).collect::<Result<Vec<_>>>()?;
    let has = |event: &str, pointer: &str, text: &str| {
        seen.iter().any(|observed| observed.event() == event && observed.text(pointer) == Some(text))
    };
    ensure!(has("interception", "/verdict", "transparent_interceptor"), "{output:#?}");
    ensure!(has("smtp.rset", "/reason", "interceptor_replay"), "{output:#?}");
    ensure!(has("smtp.noop", "/reason", "interceptor_keepalive"), "{output:#?}");
    ensure!(has("smtp.command", "/reply", "Please start mail input."), "{output:#?}");
    Ok(())
}
