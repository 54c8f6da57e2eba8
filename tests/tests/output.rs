//! The events' file: renamed under the agent, on a full disk, and out of reach. Each line is written or counted, and whole.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use serde_json::Value;
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::feed::PATIENCE;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::Running;
use smtp_observer_tests::schema;
use smtp_observer_tests::watch::{SHORT, SHORT_EVENTS};

/// Lines that one short session makes, at both ends.
const LINES: usize = 2 * SHORT_EVENTS.len();

/// The user that the agent becomes.
const AGENT: u32 = 4713;

/// A user to whom things are given that the agent may then not touch.
const OTHER: u32 = 4714;

/// Two hosts whose sessions are on a port of their own: the agent sees no others.
struct Talkers {
    client: Host,
    server: Host,
    port: u16,
}

impl Talkers {
    fn new(port: u16) -> Result<Self> {
        let (client, server) = Host::pair()?;
        Ok(Self { client, server, port })
    }

    fn talk(&self, sessions: usize) -> Result<()> {
        for _ in 0..sessions {
            let mut dialogue = Dialogue::open(&self.client, &self.server, &format!("10.77.0.2:{}", self.port))?;
            dialogue.play(SHORT)?;
            dialogue.close()?;
        }
        Ok(())
    }

    fn agent(&self, events: &Path) -> Result<Agent> {
        let events = events.to_str().context("the path is no text")?;
        let (port, user) = (self.port.to_string(), AGENT.to_string());
        Agent::start_silent(&["--port", &port, "--user", &user, "--events", events])
    }
}

/// The lines of a file, each as the schema says.
fn lines(path: &Path) -> Result<usize> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines().try_for_each(|line| schema::parse(line).map(drop)).with_context(|| path.display().to_string())?;
    ensure!(text.is_empty() || text.ends_with('\n'), "{} ends in the middle of a line", path.display());
    Ok(text.lines().count())
}

fn dropped(agent: &Agent) -> Result<usize> {
    let dropped = agent.metrics()?.sum("smtp_observer_sink_dropped_total", &["sink=\"events\""]);
    Ok(dropped.context("no metric of what is dropped")? as usize)
}

/// Waits until so many lines have been written to a file or were dropped; how many were.
fn wait_settled(agent: &Agent, path: &Path, expected: usize) -> Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // What is being written may end anywhere.
        let written = fs::read(path)?.iter().filter(|byte| **byte == b'\n').count();
        let dropped = dropped(agent)?;
        if written + dropped >= expected {
            assert_eq!(written + dropped, expected, "{written} lines are in the file, {dropped} were dropped");
            lines(path)?;
            return Ok(dropped);
        }
        ensure!(Instant::now() < deadline, "{written} lines in the file, {dropped} dropped, {expected} expected");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As logrotate does it: the file is renamed, the agent told, and mail goes on all the while.
#[test]
fn a_renamed_file_is_made_anew_and_no_line_is_lost() -> Result<()> {
    const SESSIONS: usize = 5;
    let talkers = Talkers::new(2701)?;
    let folder = tempfile::tempdir()?;
    chown(folder.path(), Some(AGENT), None)?;
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let (file, old) = (path("events.jsonl"), path("events.jsonl.1"));
    let agent = talkers.agent(&file)?;
    talkers.talk(SESSIONS)?;
    wait_settled(&agent, &file, SESSIONS * LINES)?;

    std::thread::scope(|scope| -> Result<()> {
        let talk = scope.spawn(|| talkers.talk(SESSIONS));
        fs::rename(&file, &old)?;
        agent.signal(Signal::SIGHUP)?;
        agent.wait_logged("was opened again", 1)?;
        talk.join().expect("no panic")
    })?;
    talkers.talk(SESSIONS)?;
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{:?}", stopped.log);
    let (before, after) = (lines(&old)?, lines(&file)?);
    assert_eq!(before + after, 3 * SESSIONS * LINES, "{before} lines before the rotation, {after} behind it");
    ensure!(before >= SESSIONS * LINES && after >= SESSIONS * LINES, "{before} and {after} lines");
    assert_eq!(file.metadata()?.permissions().mode() & 0o777, 0o640);
    Ok(())
}

/// By then the agent is another user than root, and may what this one may.
#[test]
fn what_cannot_be_opened_again_is_written_on() -> Result<()> {
    let talkers = Talkers::new(2702)?;
    let folder = tempfile::tempdir()?;
    let (outer, inner) = (folder.path().join("outer"), folder.path().join("outer/inner"));
    fs::create_dir_all(&inner)?;
    chown(&inner, Some(AGENT), None)?;
    let (file, old) = (inner.join("events.jsonl"), inner.join("events.jsonl.1"));
    let agent = talkers.agent(&file)?;

    // The directory is root's.
    chown(&inner, Some(0), None)?;
    fs::rename(&file, &old)?;
    agent.signal(Signal::SIGHUP)?;
    agent.wait_logged("cannot be opened again", 1)?;
    talkers.talk(1)?;
    wait_settled(&agent, &old, LINES)?;
    ensure!(!file.exists(), "who made {}?", file.display());

    // It is its own again, and the way to it is closed: the agent holds it open.
    chown(&inner, Some(AGENT), None)?;
    chown(&outer, Some(OTHER), None)?;
    fs::set_permissions(&outer, fs::Permissions::from_mode(0o700))?;
    agent.signal(Signal::SIGHUP)?;
    agent.wait_logged("was opened again", 1)?;
    talkers.talk(1)?;
    wait_settled(&agent, &file, LINES)?;

    // The file is there, and another's, as logrotate's `create` may leave it.
    fs::rename(&file, inner.join("events.jsonl.2"))?;
    File::create(&file)?.set_permissions(fs::Permissions::from_mode(0o644))?;
    chown(&file, Some(OTHER), None)?;
    agent.signal(Signal::SIGHUP)?;
    agent.wait_logged("cannot be opened again", 2)?;
    talkers.talk(1)?;
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{:?}", stopped.log);
    assert_eq!((lines(&old)?, lines(&inner.join("events.jsonl.2"))?, lines(&file)?), (LINES, 2 * LINES, 0));
    let complaint = stopped.log.iter().find(|line| line.contains("cannot be opened again")).context("no complaint")?;
    for words in [&file.display().to_string(), "Permission denied", "the old file", "SIGHUP"] {
        ensure!(complaint.contains(words), "`{words}` is not in: {complaint}");
    }
    Ok(())
}

/// Whoever sets up rotation need not wait for the first.
#[test]
fn that_a_file_cannot_be_rotated_is_told_at_the_start() -> Result<()> {
    let talkers = Talkers::new(2705)?;
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let file = folder.path().join("events.jsonl");
    let warned = |agent: Agent| -> Result<bool> {
        let stopped = agent.stop()?;
        ensure!(stopped.status.success(), "{:?}", stopped.log);
        Ok(stopped.log.iter().any(|line| line.contains("events.jsonl cannot be rotated") && line.contains("denied")))
    };
    // The file is the agent's, its directory is root's.
    ensure!(warned(talkers.agent(&file)?)?, "nothing is said");
    chown(folder.path(), Some(AGENT), None)?;
    ensure!(!warned(talkers.agent(&file)?)?, "it can be rotated");
    Ok(())
}

/// The agent's user may make links in its directory: root follows none of them, and makes nothing behind one.
#[test]
fn a_link_of_the_agents_user_leads_root_nowhere() -> Result<()> {
    machine::require_root()?;
    let folder = tempfile::tempdir()?;
    chown(folder.path(), Some(AGENT), None)?;
    let [link, target] = ["events.jsonl", "root's"].map(|name| folder.path().join(name));
    symlink(&target, &link)?;
    lchown(&link, Some(AGENT), None)?;
    let mut agent = Command::new(machine::agent()?);
    agent.args(["run", "--port", "2707", "--user", &AGENT.to_string(), "--events"]).arg(&link);
    let ended = Running::start(agent)?.finish()?;
    ensure!(ended.status.code() == Some(1), "{}: {:?}", ended.status, ended.log);
    let words = format!("belongs to uid {AGENT}");
    ensure!(ended.log.iter().any(|line| line.contains(&words)), "{:?}", ended.log);
    ensure!(!target.exists(), "root made {}", target.display());
    Ok(())
}

#[test]
fn a_hang_up_ends_no_agent() -> Result<()> {
    let talkers = Talkers::new(2703)?;
    let port = talkers.port.to_string();
    let (silent, speaking) = (Agent::start_silent(&["--port", &port])?, Agent::start(&["--port", &port])?);
    for agent in [&silent, &speaking] {
        agent.signal(Signal::SIGHUP)?;
        agent.metrics()?;
    }
    talkers.talk(1)?;
    speaking.wait_closed(&[&talkers.client, &talkers.server], 2)?;
    for agent in [silent, speaking] {
        let stopped = agent.stop()?;
        ensure!(stopped.status.success(), "{}: {:?}", stopped.status, stopped.log);
    }
    Ok(())
}

/// What the lines of a file say of those that were lost before them.
fn lines_lost(file: &Path) -> Result<Vec<u64>> {
    let text = fs::read_to_string(file)?;
    let events = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    Ok(events.iter().filter_map(|event| event["lines_lost"].as_u64()).collect())
}

/// `ulimit -f`: as on a full disk.
#[test]
fn a_file_that_may_not_become_larger_ends_no_agent() -> Result<()> {
    let talkers = Talkers::new(2706)?;
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(machine::installed("sh")?);
    command.args(["-c", "ulimit -f 1 && exec \"$0\" \"$@\""]).arg(machine::agent()?);
    command.arg("run").arg("--events").arg(folder.path().join("events.jsonl"));
    let agent = Agent::start_command(command, &["--port", &talkers.port.to_string()])?;
    talkers.talk(2)?;
    agent.wait_logged("lines are lost until it can: File too large", 1)?;
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{}: {:?}", stopped.status, stopped.log);
    Ok(())
}

/// `trace` ends all the same, and says what is missing.
#[test]
fn what_waits_for_a_stuck_reader_is_counted_at_the_end() -> Result<()> {
    const SESSIONS: usize = 5;
    let talkers = Talkers::new(2708)?;
    let folder = tempfile::tempdir()?;
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU)?;
    // It has a reader, which reads nothing, and room for a few lines.
    let reader = OpenOptions::new().read(true).write(true).open(&pipe)?;
    fcntl(&reader, FcntlArg::F_SETPIPE_SZ(4096))?;
    let mut command = Command::new(machine::installed("sh")?);
    command.args(["-c", "exec \"$@\" > \"$0\""]).arg(&pipe).arg(machine::agent()?);
    command.args(["trace", "--json", "--port", &talkers.port.to_string()]);
    let trace = Running::start(command)?;
    let observing = |lines: &[String]| lines.iter().any(|line| line.contains("observing port")).then_some(());
    trace.log.wait_for("`observing port …`", observing)?;
    talkers.talk(SESSIONS)?;
    let ended = trace.stop()?;
    ensure!(ended.status.code() == Some(1), "{}: {:?}", ended.status, ended.log);
    let lost =
        ended.log.iter().find_map(|line| line.split_once(" observations were not written")?.0.split(' ').next_back());
    let lost: usize = lost.with_context(|| format!("nothing is said: {:?}", ended.log))?.parse()?;
    ensure!(lost > 0 && lost <= SESSIONS * LINES, "{lost} lines");
    Ok(())
}

/// A small file system that is filled to its last page and emptied again.
#[test]
fn a_full_disk_costs_lines_and_nothing_else() -> Result<()> {
    const SIZE: usize = 1 << 20;
    const PAGE: u64 = 4096;
    const SESSIONS: usize = 4;
    let talkers = Talkers::new(2704)?;
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(machine::installed("unshare")?);
    // In a mount namespace of its own, which goes with the agent.
    let script = format!("mount -t tmpfs -o size={SIZE} none \"$0\" && exec \"$@\"");
    command.args(["--mount", "sh", "-c", &script]).arg(folder.path()).arg(machine::agent()?);
    command.arg("run").arg("--events").arg(folder.path().join("events.jsonl"));
    let agent = Agent::start_command(command, &["--port", &talkers.port.to_string()])?;
    let disk = PathBuf::from(format!("/proc/{}/root", agent.pid())).join(folder.path().strip_prefix("/")?);
    ensure!(disk.metadata()?.dev() != folder.path().metadata()?.dev(), "nothing is mounted there");
    let (file, filler) = (disk.join("events.jsonl"), disk.join("filler"));
    talkers.talk(1)?;
    let mut expected = LINES;
    assert_eq!(wait_settled(&agent, &file, expected)?, 0);

    // Full, but for one page, into which a part of the next lines goes.
    let mut filling = OpenOptions::new().append(true).create(true).open(&filler)?;
    while filling.write_all(&[0; PAGE as usize]).is_ok() {}
    filling.set_len(filling.metadata()?.len() - PAGE)?;
    // All lines at once.
    agent.stall()?;
    talkers.talk(SESSIONS)?;
    expected += SESSIONS * LINES;
    agent.go_on()?;
    let lost = wait_settled(&agent, &file, expected)?;
    ensure!(lost > 0, "all {expected} lines had room on a full disk");

    // It goes on losing them, and lives.
    talkers.talk(SESSIONS)?;
    expected += SESSIONS * LINES;
    let lost_more = wait_settled(&agent, &file, expected)?;
    ensure!(lost_more > lost, "the disk is full, and {SESSIONS} sessions had room on it");

    fs::remove_file(&filler)?;
    drop(filling);
    talkers.talk(SESSIONS)?;
    expected += SESSIONS * LINES;
    assert_eq!(wait_settled(&agent, &file, expected)?, lost_more, "there is room again");
    // The file system goes with the agent.
    let (written, marked) = (lines(&file)?, lines_lost(&file)?);
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{}: {:?}", stopped.status, stopped.log);
    assert_eq!(written + lost_more, expected);
    assert_eq!(marked, [lost_more as u64], "the first line behind the loss says how many were lost");
    let said = |words: &str| stopped.log.iter().filter(|line| line.contains(words)).count();
    assert_eq!(said("cannot be written, lines are lost until it can: No space left"), 1, "{:?}", stopped.log);
    assert_eq!(said(&format!("can be written again; {lost_more} lines were lost")), 1, "{:?}", stopped.log);
    Ok(())
}
