//! The agent as a service: what it tells the service manager and the journal, what it takes from them, and how it ends.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use smtp_observer_tests::agent::{Agent, http_address};
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::feed::PATIENCE;
use smtp_observer_tests::http;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::Running;
use smtp_observer_tests::schema;
use smtp_observer_tests::service_manager::{Datagrams, WATCHDOG};
use smtp_observer_tests::watch::SHORT;

fn run_agent(manager: &Datagrams) -> Result<Command> {
    let mut command = Command::new(machine::agent()?);
    command.arg("run").env("NOTIFY_SOCKET", manager.path());
    Ok(command)
}

fn value<'a>(lines: &'a [String], name: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// A directory that the agent's user may look into, too.
fn open_folder() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    Ok(folder)
}

#[test]
fn start_and_end_are_told() -> Result<()> {
    let manager = Datagrams::new("notify")?;
    let agent = Agent::start_command(run_agent(&manager)?, &["--port", "2760"])?;
    let ready = manager.notice()?;
    assert_eq!(value(&ready, "READY"), Some("1"), "{ready:?}");
    ensure!(value(&ready, "STATUS").is_some_and(|status| status.starts_with("observing port 2760 with")), "{ready:?}");
    let stopped = agent.stop()?;
    assert_eq!(manager.notice()?, ["STOPPING=1"]);
    ensure!(stopped.status.success(), "SIGTERM is no failure: {}", stopped.status);
    Ok(())
}

/// One thread of a process, which stands still until this is dropped.
struct Stopped(libc::pid_t);

impl Stopped {
    fn new(thread: u32) -> Result<Self> {
        let stopped = Self(thread.cast_signed());
        // SAFETY: this request touches no memory of this process.
        Errno::result(unsafe { libc::ptrace(libc::PTRACE_SEIZE, stopped.0, 0, 0) })?;
        // SAFETY: as above.
        Errno::result(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, stopped.0, 0, 0) })?;
        // SAFETY: the status is not asked for.
        Errno::result(unsafe { libc::waitpid(stopped.0, std::ptr::null_mut(), libc::__WALL) })?;
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: as above. A process that has gone needs no more.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) };
    }
}

/// The watchdog hears the thread that drains the ring buffer, and no other.
#[test]
fn a_core_that_stands_still_is_not_alive() -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let manager = Datagrams::new("notify")?;
    let mut command = Command::new(machine::installed("bash")?);
    let script = format!("export WATCHDOG_USEC={} WATCHDOG_PID=$$; exec \"$0\" \"$@\"", TIMEOUT.as_micros());
    command.args(["-c", &script]).arg(machine::agent()?).arg("run").env("NOTIFY_SOCKET", manager.path());
    // With events there are two threads.
    let folder = tempfile::tempdir()?;
    let events = folder.path().join("events");
    let agent = Agent::start_command(command, &["--port", "2761", "--events", events.to_str().context("no text")?])?;
    let next = |time| -> Result<Option<String>> {
        Ok(manager.within(time)?.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned()))
    };
    manager.notice()?;
    for _ in 0..3 {
        assert_eq!(next(PATIENCE)?.as_deref(), Some(WATCHDOG));
    }
    let stopped = Stopped::new(agent.pid())?;
    // What was on its way is here by now.
    while next(Duration::from_millis(1))?.is_some() {}
    assert_eq!(next(3 * TIMEOUT)?, None, "somebody else says that the core is alive");
    drop(stopped);
    for _ in 0..3 {
        assert_eq!(next(PATIENCE)?.as_deref(), Some(WATCHDOG));
    }
    agent.stop()?;
    Ok(())
}

#[test]
fn a_configuration_is_read_again() -> Result<()> {
    let manager = Datagrams::new("notify")?;
    let folder = open_folder()?;
    let path = folder.path().join("agent.toml");
    // As an editor does it.
    let write = |text: &str, mode: u32| -> Result<()> {
        let new = folder.path().join("new");
        fs::write(&new, text)?;
        fs::set_permissions(&new, Permissions::from_mode(mode))?;
        Ok(fs::rename(&new, &path)?)
    };
    write("port = [2762]\n", 0o644)?;
    let options = ["--config", path.to_str().context("no text")?];
    let agent = Agent::start_command(run_agent(&manager)?, &options)?;
    let status = value(&manager.notice()?, "STATUS").context("no status")?.to_owned();
    let reload = || -> Result<String> {
        agent.signal(Signal::SIGHUP)?;
        let begun = manager.notice()?;
        assert_eq!(value(&begun, "RELOADING"), Some("1"), "{begun:?}");
        let time: u64 = value(&begun, "MONOTONIC_USEC").context("no time")?.parse()?;
        ensure!(time > 0);
        let done = manager.notice()?;
        assert_eq!(value(&done, "READY"), Some("1"), "{done:?}");
        Ok(value(&done, "STATUS").context("no status")?.to_owned())
    };

    assert_eq!(reload()?, status);
    agent.wait_logged("nothing in it has changed", 1)?;

    write("port = [2762]\nverbose = 1\nservice-address = [\"10.96.0.0/12\"]\n", 0o644)?;
    assert_eq!(reload()?, status);
    agent.wait_logged("service-address of", 1)?;
    agent.wait_logged("verbose of", 1)?;

    write("port = [2763]\nverbose = 1\nservice-address = [\"10.96.0.0/12\"]\naddresses = \"full\"\n", 0o644)?;
    assert_eq!(reload()?, format!("{status}; a restart is needed for port, addresses"));
    for setting in ["port", "addresses"] {
        agent.wait_logged(&format!("{setting} of {} has changed: it takes a restart", path.display()), 1)?;
    }

    write("port = [2763]\nno-such-option = 1\n", 0o644)?;
    assert_eq!(reload()?, format!("{status}; the configuration is wrong in line 2, that of before is in force"));
    agent.wait_logged("no-such-option", 1)?;

    // The agent is not root by then.
    write("", 0o600)?;
    assert_eq!(reload()?, format!("{status}; the configuration cannot be read: permission denied"));

    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "{}: {:?}", stopped.status, stopped.log);
    Ok(())
}

#[test]
fn a_socket_that_is_passed_is_served() -> Result<()> {
    let manager = Datagrams::new("notify")?;
    let address = http_address();
    let listener = TcpListener::bind(address)?;
    let inode = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd()))?;
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut command = Command::new(machine::installed("bash")?);
    let script = format!("exec 3<&{}; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"", listener.as_raw_fd());
    command.args(["-c", &script]).arg(machine::agent()?).arg("run").env("NOTIFY_SOCKET", manager.path());
    let agent = Agent::start_command(command, &["--port", "2764"])?;
    drop(listener);
    let (code, metrics) = http::get(address, "/metrics")?;
    ensure!(code == 200 && metrics.contains("smtp_observer_build_info"), "{code}: {metrics}");
    // It was told to serve elsewhere.
    agent.wait_logged(&format!("HTTP is served at {address}"), 1)?;
    ensure!(http::get(agent.http, "/metrics").is_err(), "it is served there, too");
    let holds = |pid: u32| -> Result<bool> {
        let mut descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?;
        // It is 3 as well for bash's sake, in the agent itself.
        Ok(descriptors.any(|fd| fd.and_then(|fd| fs::read_link(fd.path())).is_ok_and(|target| target == inode)))
    };
    ensure!(holds(agent.pid())?);
    agent.stop()?;
    Ok(())
}

#[test]
fn what_is_passed_and_does_not_wait_for_connections_is_refused() -> Result<()> {
    machine::require_root()?;
    let mut command = Command::new(machine::installed("bash")?);
    let script = "exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
    command.args(["-c", script]).arg(machine::agent()?).args(["run", "--port", "2764"]);
    let ended = Running::start(command)?.finish()?;
    assert_eq!(ended.status.code(), Some(1), "{:?}", ended.log);
    ensure!(ended.log.iter().any(|line| line.contains("ListenStream=")), "{:?}", ended.log);
    Ok(())
}

#[test]
fn the_log_is_in_the_journal_with_its_fields() -> Result<()> {
    machine::require_root()?;
    let journal = Datagrams::new("socket")?;
    let (client, server) = Host::pair()?;
    let folder = open_folder()?;
    let config = folder.path().join("agent.toml");
    fs::write(&config, "port = [2765]\n")?;
    // In a mount namespace of its own, where the journal's socket is that of this test.
    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind \"$0\" /run/systemd/journal && \
                  JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$@\"";
    let mut command = Command::new(machine::installed("unshare")?);
    command.args(["--mount", "sh", "-c", script]).arg(journal.path().parent().context("no directory")?);
    command.arg(machine::agent()?).args(["run", "--events", "-", "--listen", &http_address().to_string(), "--config"]);
    command.arg(&config);
    let agent = Running::start(command)?;
    let started = journal.entry("observing port 2765").with_context(|| agent.log.so_far().join("\n"))?;
    let field = |name: &str| started.get(name).map(String::as_str);
    assert_eq!(field("SYSLOG_IDENTIFIER"), Some("smtp-observer"), "{started:?}");
    assert_eq!(field("PRIORITY"), Some("5"), "{started:?}");
    ensure!(field("TARGET").is_some_and(|target| target.starts_with("smtp_observer")), "{started:?}");

    fs::write(&config, "port = [2766]\n")?;
    agent.signal(Signal::SIGHUP)?;
    let changed = journal.entry("port of")?;
    assert_eq!(changed.get("SMTP_OBSERVER_SETTING").map(String::as_str), Some("port"), "{changed:?}");
    assert_eq!(changed.get("PRIORITY").map(String::as_str), Some("4"), "{changed:?}");

    let mut dialogue = Dialogue::open(&client, &server, "10.77.0.2:2765")?;
    dialogue.play(SHORT)?;
    dialogue.close()?;
    agent.output.wait_for("the end of the dialogue", |lines: &[String]| {
        lines.iter().any(|line| line.contains("\"connection.closed\"")).then_some(())
    })?;
    let ended = agent.stop()?;
    ensure!(ended.status.success(), "{}: {:?}", ended.status, ended.log);
    // One object a line, as without a journal, and nothing beside them.
    for line in &ended.output {
        schema::parse(line).with_context(|| line.clone())?;
    }
    assert_eq!(ended.log, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_lost_reader_is_a_failure() -> Result<()> {
    machine::require_root()?;
    let (client, server) = Host::pair()?;
    let (reader, writer) = std::io::pipe()?;
    let mut agent = Command::new(machine::agent()?)
        .args(["run", "--port", "2767", "--events", "-", "--listen", &http_address().to_string()])
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()?;
    let mut log = BufReader::new(agent.stderr.take().context("no standard error")?);
    let mut line = String::new();
    while !line.contains("observing port") {
        line.clear();
        if log.read_line(&mut line)? == 0 {
            bail!("it does not observe: {}", agent.wait()?);
        }
    }
    drop(reader);
    let talk = || -> Result<()> {
        let mut dialogue = Dialogue::open(&client, &server, "10.77.0.2:2767")?;
        dialogue.play(SHORT)?;
        dialogue.close()
    };
    if let Err(error) = talk() {
        kill(Pid::from_raw(agent.id().cast_signed()), Signal::SIGTERM)?;
        return Err(error);
    }
    let mut said = String::new();
    log.read_to_string(&mut said)?;
    assert_eq!(agent.wait()?.code(), Some(1), "{said}");
    ensure!(said.contains("smtp-observer: nobody reads the events any more"), "{said}");
    Ok(())
}

/// The events' file that root's agent makes is for the user that the agent becomes.
#[test]
fn the_events_file_is_the_agents_own() -> Result<()> {
    const USER: u32 = 4712;
    let folder = tempfile::tempdir()?;
    let [new, old] = ["new", "old"].map(|name| folder.path().join(name));
    fs::write(&old, "")?;
    for (path, owner) in [(&new, USER), (&old, 0)] {
        let options = ["--port", "2768", "--user", &USER.to_string(), "--events", path.to_str().context("no text")?];
        let agent = Agent::start_silent(&options)?;
        assert_eq!(fs::metadata(path)?.uid(), owner, "{}", path.display());
        agent.stop()?;
    }
    Ok(())
}
