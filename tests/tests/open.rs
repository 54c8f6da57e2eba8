//! Connections that were open before the agent: named at once, and followed from their middle.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use smtp_observer::event::{KernelEvent, ProcessKey, TransferEvent};
use smtp_observer::kernel::{Kernel, Settings, Tls};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::feed::{Feed, PATIENCE};
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::{Host, accept};
use smtp_observer_tests::seen::{Observed, Seen};
use tracing::level_filters::LevelFilter;

const SERVER: &str = "10.77.0.2:25";

const GREETED: &str = "
    S: 220 server.example ESMTP
    C: EHLO client.example
    S: 250 server.example";

/// One test at a time: a child that another one starts holds copies of this program's sockets until it runs its own, and
/// of the holders of a socket a snapshot names the youngest.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A time namespace has a boot clock of its own, and the hooks read the kernel's.
#[test]
fn in_a_time_namespace_times_are_right() -> Result<()> {
    let _alone = alone();
    let (client, server) = Host::pair()?;
    let mut dialogue = Dialogue::open(&client, &server, SERVER)?;
    dialogue.play(GREETED)?;
    let mut command = Command::new(machine::installed("unshare")?);
    command.args(["--time", "--boottime", "100000"]).arg(machine::agent()?).args(["run", "--events", "-"]);
    let agent = Agent::start_command(command, &[])?;
    let seen = agent.wait_for("both ends open", &[&client, &server], |seen| seen.count("connection.opened") == 2)?;
    for opened in &seen.0 {
        is_this_process(opened)?;
        let told: jiff::Timestamp = opened.text("/time").context("no time")?.parse()?;
        let off = (jiff::Timestamp::now() - told).total(jiff::Unit::Second)?;
        ensure!(off.abs() < 1000.0, "{off} s: {}", opened.json());
    }
    dialogue.close()
}

/// Both ends are this process's.
fn is_this_process(opened: &Observed) -> Result<()> {
    let program = std::env::current_exe()?;
    assert_eq!(opened.pid(), Some(std::process::id().into()), "{}", opened.json());
    assert_eq!(opened.text("/process/executable").map(Path::new), Some(&*program), "{}", opened.json());
    let arguments: Vec<String> = std::env::args().collect();
    assert_eq!(opened.text("/process/command_line"), Some(&*arguments.join(" ")), "{}", opened.json());
    let parent = opened.count("/process/parent/pid");
    assert_eq!(parent, Some(nix::unistd::getppid().as_raw().unsigned_abs().into()), "{}", opened.json());
    assert_eq!(opened.text("/process/user"), Some("root"), "{}", opened.json());
    assert_eq!(opened.end(if opened.role() == "client" { "remote" } else { "local" }).as_deref(), Some(SERVER));
    Ok(())
}

/// The two ends of the only connection on these hosts.
fn ends(seen: &Seen) -> Result<[Seen; 2]> {
    Ok([seen.side("client")?, seen.side("server")?])
}

#[test]
fn a_session_is_followed_from_its_middle() -> Result<()> {
    let _alone = alone();
    let (client, server) = Host::pair()?;
    let mut dialogue = Dialogue::open(&client, &server, SERVER)?;
    dialogue.play(GREETED)?;
    let agent = Agent::start(&["--addresses", "full"])?;

    // Without a byte of traffic.
    let at_once = agent.wait_for("both ends open", &[&client, &server], |seen| seen.count("connection.opened") == 2)?;
    assert_eq!(at_once.0.len(), 2, "{at_once}");
    at_once.0.iter().try_for_each(is_this_process)?;
    let metrics = agent.metrics()?;
    let open = metrics.sum("smtp_connections_open", &[]).context("no gauge")?;
    ensure!(open >= 2.0, "only {open} connections are open");

    let commands = "C: MAIL FROM:<alice@client.example>\nS: 250 Ok\nC: RCPT TO:<bob@server.example>\nS: 250 Ok\nC: QUIT\nS: 221 Bye";
    dialogue.play(commands)?;
    dialogue.close()?;
    agent.wait_closed(&[&client, &server], 2)?;
    let seen = agent.stop()?.seen.on(&[&client, &server])?;
    let said =
        |who: &str| -> usize { commands.lines().filter(|line| line.starts_with(who)).map(|line| line.len() - 1).sum() };
    for end in ends(&seen)? {
        let (ours, theirs) = if end.0[0].role() == "client" { ("C", "S") } else { ("S", "C") };
        for (verb, code) in [("MAIL", 250), ("RCPT", 250), ("QUIT", 221)] {
            assert_eq!(end.command(verb)?.count("/code"), Some(code), "{end}");
        }
        assert_eq!(end.count("connection.opened"), 1, "{end}");
        assert_eq!(end.count("connection.owner_changed"), 0, "{end}");
        assert_eq!(end.count("smtp.anomaly"), 0, "{end}");
        let closed = end.one("connection.closed")?;
        assert_eq!(closed.count("/bytes_sent"), Some(said(ours) as u64), "{closed}");
        assert_eq!(closed.count("/bytes_received"), Some(said(theirs) as u64), "{closed}");
        assert_eq!(closed.count("/lost_bytes"), Some(0), "{closed}");
    }
    Ok(())
}

#[test]
fn an_idle_connection_is_opened_and_closed() -> Result<()> {
    let _alone = alone();
    let (client, server) = Host::pair()?;
    let mut dialogue = Dialogue::open(&client, &server, SERVER)?;
    dialogue.play(GREETED)?;
    let agent = Agent::start(&[])?;
    agent.wait_for("both ends open", &[&client, &server], |seen| seen.count("connection.opened") == 2)?;
    dialogue.close()?;
    agent.wait_closed(&[&client, &server], 2)?;
    for end in ends(&agent.stop()?.seen.on(&[&client, &server])?)? {
        assert_eq!(end.brief(), ["connection.closed", "connection.opened"], "{end}");
        let closed = end.one("connection.closed")?;
        for bytes in ["/bytes_sent", "/bytes_received", "/lost_bytes"] {
            assert_eq!(closed.count(bytes), Some(0), "{closed}");
        }
    }
    Ok(())
}

#[test]
fn nothing_in_the_middle_of_a_message_is_taken_for_a_command() -> Result<()> {
    let _alone = alone();
    let (client, server) = Host::pair()?;
    let mut dialogue = Dialogue::open(&client, &server, SERVER)?;
    dialogue.play(GREETED)?;
    dialogue.play(
        "C: MAIL FROM:<alice@client.example>\nS: 250 Ok\nC: RCPT TO:<bob@server.example>\nS: 250 Ok\nC: DATA\nS: 354 Go",
    )?;
    dialogue.client_says(b"Subject: how to talk\r\n\r\nFirst say\r\nEHLO me.example\r\n")?;
    let agent = Agent::start(&[])?;
    agent.wait_for("both ends open", &[&client, &server], |seen| seen.count("connection.opened") == 2)?;
    for call in ["then say\r\nMAIL FROM:<x@example.org>\r\n", "RSET\r\n", "QUIT\r\n", "and that is all.\r\n", ".\r\n"] {
        dialogue.client_says(call.as_bytes())?;
    }
    dialogue.play("S: 250 Queued\nC: NOOP\nS: 250 Ok\nC: QUIT\nS: 221 Bye")?;
    dialogue.close()?;
    agent.wait_closed(&[&client, &server], 2)?;
    for end in ends(&agent.stop()?.seen.on(&[&client, &server])?)? {
        let commands: Vec<String> = end.of("smtp.command").0.iter().map(Observed::brief).collect();
        assert_eq!(commands, ["NOOP 250", "QUIT 221"], "{end}");
        assert_eq!(end.count("smtp.transaction"), 0, "{end}");
    }
    Ok(())
}

/// They take turns: while one is in a call on the socket, the other waits for something else. Of two that are at it together
/// on one processor, one may interrupt the other in the middle of a hook, which the kernel then skips.
#[test]
fn the_connection_of_another_process_is_named() -> Result<()> {
    let _alone = alone();
    let (client, server) = Host::pair()?;
    let listener = server.listen(SERVER)?;
    // Nothing on the way to this client's end: bash speaks TCP itself. Its turn comes with a line of input, and is over with
    // a line of output.
    let script = "exec 3<>/dev/tcp/10.77.0.2/25; while read -r verb; do read -r line <&3; \
                  [ \"$verb\" ] && printf \"$verb\\r\\n\" >&3; echo done; done";
    let mut bash = client.command(machine::installed("bash")?);
    let mut bash =
        bash.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting bash")?;
    let mut turn = bash.stdin.take().context("bash takes no input")?;
    let done = Feed::read(bash.stdout.take().context("bash has no output")?, |line| Ok(line.to_owned()));
    let stream = accept(&listener)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let agent = Agent::start(&[])?;

    let at_once = agent.wait_for("both ends open", &[&client, &server], |seen| seen.count("connection.opened") == 2)?;
    let [at_client, at_server] = ends(&at_once)?;
    is_this_process(&at_server.0[0])?;
    let opened = &at_client.0[0];
    assert_eq!(opened.pid(), Some(bash.id().into()), "{}", opened.json());
    let executable = std::fs::canonicalize(machine::installed("bash")?)?;
    assert_eq!(opened.text("/process/executable").map(Path::new), Some(&*executable), "{}", opened.json());
    ensure!(opened.text("/process/command_line").is_some_and(|line| line.ends_with(script)), "{}", opened.json());
    assert_eq!(opened.text("/process/parent/name"), at_server.0[0].text("/process/name"), "{}", opened.json());

    let mut reader = BufReader::new(&stream);
    let turns = [("220 server.example ESMTP", "NOOP"), ("250 Ok", "QUIT"), ("221 Bye", "")];
    for (number, (reply, command)) in turns.into_iter().enumerate() {
        (&stream).write_all(format!("{reply}\r\n").as_bytes())?;
        turn.write_all(format!("{command}\n").as_bytes())?;
        done.wait_for("the end of bash's turn", |lines| (lines.len() > number).then_some(()))?;
        if !command.is_empty() {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            assert_eq!(line, format!("{command}\r\n"));
        }
    }
    drop(stream);
    drop(turn);
    bash.wait()?;
    agent.wait_closed(&[&client, &server], 2)?;
    for end in ends(&agent.stop()?.seen.on(&[&client, &server])?)? {
        for (verb, code) in [("NOOP", 250), ("QUIT", 221)] {
            assert_eq!(end.command(verb)?.count("/code"), Some(code), "{end}");
        }
        assert_eq!(end.count("connection.owner_changed"), 0, "{end}");
        assert_eq!(end.one("connection.closed")?.count("/lost_bytes"), Some(0), "{end}");
    }
    Ok(())
}

/// Waits until a thread of this process is in read(2) on a socket.
fn wait_reads(thread: i32, socket: i32) -> Result<()> {
    let path = format!("/proc/self/task/{thread}/syscall");
    let call = format!("{} {socket:#x} ", libc::SYS_read);
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A thread that runs, in whatever call, is only said to run.
        let now = std::fs::read_to_string(&path)?;
        if now.starts_with(&call) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the thread does not come to wait for the greeting: {now}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The function that waits for the bytes was called when no hook was there, and returns past those that came meanwhile: the
/// hooks on functions do not see the call. Their hole is known to the byte, and the dialogue is understood from there on.
/// The tracepoints are behind the call's end, and see it.
#[test]
fn a_call_that_began_before_the_agent() -> Result<()> {
    const GREETING: &[u8] = b"220 server.example ESMTP\r\n";
    let _alone = alone();
    let (client, server) = Host::pair()?;
    let mut dialogue = Dialogue::open(&client, &server, SERVER)?;
    let reading = dialogue.client.try_clone()?;
    let socket = reading.as_raw_fd();
    let (sender, receiver) = mpsc::channel();
    let reader = thread::spawn(move || -> Result<usize> {
        sender.send(nix::unistd::gettid().as_raw())?;
        Ok(nix::unistd::read(&reading, &mut [0; GREETING.len() + 1])?)
    });
    wait_reads(receiver.recv()?, socket)?;
    let agent = Agent::start(&[])?;
    (&dialogue.server).write_all(GREETING)?;
    assert_eq!(reader.join().ok().context("the reader panicked")??, GREETING.len());
    dialogue.play("C: EHLO client.example\nS: 250 server.example\nC: QUIT\nS: 221 Bye")?;
    dialogue.close()?;
    agent.wait_closed(&[&client, &server], 2)?;
    let lost = if agent.hooks_functions()? { GREETING.len() as u64 } else { 0 };
    let [at_client, at_server] = ends(&agent.stop()?.seen.on(&[&client, &server])?)?;
    for (end, lost) in [(&at_client, lost), (&at_server, 0)] {
        assert_eq!(end.one("connection.closed")?.count("/lost_bytes"), Some(lost), "{end}");
        assert_eq!(end.count("smtp.greeting"), usize::from(lost == 0), "{end}");
        assert_eq!(end.command("QUIT")?.count("/code"), Some(221), "{end}");
    }
    Ok(())
}

/// The snapshot and the hooks name a process alike, so that one is not taken for two.
#[test]
fn the_snapshot_names_processes_as_the_hooks_do() -> Result<()> {
    let _alone = alone();
    machine::require_root()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    let (client, server) = Host::pair()?;
    let mut dialogue = Dialogue::open(&client, &server, "10.77.0.2:2610")?;
    let settings = Settings {
        ports: vec![2610],
        hooks: machine::hooks()?,
        ring_bytes: 4 << 20,
        tls: Tls::Off,
        user: None,
        diagnostics: LevelFilter::OFF,
    };
    let mut kernel = Kernel::attach(&settings)?;
    let snapshot = kernel.snapshot()?;
    assert_eq!(snapshot.sockets.len(), 2, "{snapshot:?}");
    dialogue.play("S: 220 server.example ESMTP")?;

    let (mut transfers, mut processes): (Vec<TransferEvent<'static>>, Vec<_>) = Default::default();
    kernel.drain(&mut |event| match event {
        KernelEvent::Transfer(transfer) => transfers.push(transfer.to_static()),
        KernelEvent::Process(process) => processes.push(process),
        _ => {}
    });
    assert_eq!(transfers.len(), 2, "{transfers:?}");
    for transfer in &transfers {
        let listed = snapshot
            .sockets
            .iter()
            .find(|open| open.socket.cookie == transfer.socket.cookie)
            .with_context(|| format!("not listed: {transfer:?}"))?;
        assert_eq!(listed.task.process, transfer.task.process);
        assert_eq!(listed.task.comm, transfer.task.comm);
        assert_eq!(listed.socket, transfer.socket);
        let (written, read) = (listed.positions.write_seq, listed.positions.copied_seq);
        let moved =
            (transfer.positions.write_seq.wrapping_sub(written), transfer.positions.copied_seq.wrapping_sub(read));
        ensure!(moved == (transfer.length, 0) || moved == (0, transfer.length), "{listed:?} {transfer:?}");
    }
    let ProcessKey { pid, .. } = transfers[0].task.process;
    let of = |event: &&smtp_observer::event::ProcessEvent| event.task.process.pid == pid;
    let (by_hooks, by_snapshot) = (processes.iter().find(of), snapshot.processes.iter().find(of));
    let (by_hooks, by_snapshot) = by_hooks.zip(by_snapshot).context("the process is not described")?;
    assert_eq!(by_snapshot.executable, by_hooks.executable);
    assert_eq!(by_snapshot.arguments, by_hooks.arguments);
    assert_eq!(by_snapshot.cgroup, by_hooks.cgroup);
    assert_eq!(by_snapshot.task.user, by_hooks.task.user);
    assert_eq!((by_snapshot.parent_pid, &by_snapshot.parent_comm), (by_hooks.parent_pid, &by_hooks.parent_comm));
    Ok(())
}

/// Where `/proc` hides processes from those who are not root, the agent has read what it needs while it was.
#[test]
fn arguments_of_older_processes_are_known_where_proc_hides_them() -> Result<()> {
    const MARK: &str = "known-by-this-word";
    let _alone = alone();
    let (client, server) = Host::pair()?;
    let listener = server.listen("10.77.0.2:2770")?;
    let mut older = client
        .command(machine::installed("bash")?)
        .args(["-c", "exec 3<>/dev/tcp/10.77.0.2/2770; read -r line <&3; true", MARK])
        .spawn()?;
    let stream = accept(&listener)?;
    let mut command = Command::new(machine::installed("unshare")?);
    let script = "mount -t proc -o hidepid=2 proc /proc && exec \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(machine::agent()?).args(["run", "--events", "-"]);
    let agent = Agent::start_command(command, &["--port", "2770"])?;
    let look = || -> Result<String> {
        let seen = agent.wait_for("the client", &[&client], |seen| seen.count("connection.opened") > 0)?;
        let opened = seen.one("connection.opened")?;
        Ok(opened.text("/process/command_line").unwrap_or_default().to_owned())
    };
    let line = look();
    drop(stream);
    older.wait()?;
    agent.stop()?;
    let line = line?;
    ensure!(line.ends_with(MARK), "{line}");
    Ok(())
}
