//! A socket that goes from process to process: each is named while it uses it, and each change is told.

use std::io::{IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::{Host, accept};
use smtp_observer_tests::scene::lines::Lines;
use smtp_observer_tests::seen::Seen;

const SERVER: &str = "10.77.0.2:25";

fn this_process() -> u64 {
    std::process::id().into()
}

/// Two hosts and the agent; this process serves the second.
struct Stage {
    client: Host,
    server: Host,
    agent: Agent,
}

impl Stage {
    fn new() -> Result<Self> {
        let (client, server) = Host::pair()?;
        Ok(Self { client, server, agent: Agent::start(&[])? })
    }

    /// A connection that this process makes, with what serves it.
    fn connect(&self) -> Result<(TcpStream, Lines)> {
        let listener = self.server.listen(SERVER)?;
        let client = self.client.connect(SERVER)?;
        let server = greet(&listener)?;
        Lines::new(client.try_clone()?)?.read_reply()?;
        Ok((client, server))
    }

    /// What was seen of the client's end, once both are closed.
    fn client_end(self) -> Result<Seen> {
        self.agent.wait_closed(&[&self.client, &self.server], 2)?;
        self.agent.stop()?.seen.on(&[&self.client])?.side("client")
    }
}

fn greet(listener: &std::net::TcpListener) -> Result<Lines> {
    let mut server = Lines::new(accept(listener)?)?;
    server.write("220 server.example ESMTP\r\n")?;
    Ok(server)
}

/// Reads a command and answers it.
fn serve(server: &mut Lines, command: &str) -> Result<()> {
    let line = server.read()?.with_context(|| format!("the client left before {command}"))?;
    ensure!(line.trim_end() == command, "{line:?} is not {command}");
    Ok(server.write("250 Ok\r\n")?)
}

fn ended(mut child: Child) -> Result<()> {
    let status = child.wait()?;
    ensure!(status.success(), "a child ended with {status}");
    Ok(())
}

/// Who used the connection, in order: those to whom it went, after the first.
fn check_owners(end: &Seen, owners: &[u64]) -> Result<()> {
    let changes = end.of("connection.owner_changed").0;
    assert_eq!(changes.len() + 1, owners.len(), "{end}");
    assert_eq!(end.0[0].event(), "connection.opened", "{end}");
    assert_eq!(end.0[0].pid(), owners.first().copied(), "{end}");
    for (change, pair) in changes.iter().zip(owners.windows(2)) {
        assert_eq!(change.count("/previous_process/pid"), Some(pair[0]), "{end}");
        assert_eq!(change.pid(), Some(pair[1]), "{end}");
    }
    Ok(())
}

/// Which process said each command.
fn who_said(end: &Seen, verb: &str) -> Result<Option<u64>> {
    Ok(end.command(verb)?.pid())
}

#[test]
fn a_socket_passed_to_another_process_and_back() -> Result<()> {
    let stage = Stage::new()?;
    let (client, mut server) = stage.connect()?;
    let (ours, theirs) = UnixStream::pair()?;
    let heir = stage
        .client
        .command(machine::sibling("socket-heir")?)
        .args(["received", "NOOP"])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let heir_pid = u64::from(heir.id());
    let descriptors = [client.as_raw_fd()];
    sendmsg::<()>(
        ours.as_raw_fd(),
        &[IoSlice::new(b"!")],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::empty(),
        None,
    )?;
    serve(&mut server, "NOOP")?;
    ended(heir)?;
    (&client).write_all(b"QUIT\r\n")?;
    serve(&mut server, "QUIT")?;
    Lines::new(client)?.read_reply()?;
    drop(server);

    let end = stage.client_end()?;
    check_owners(&end, &[this_process(), heir_pid, this_process()])?;
    assert_eq!(who_said(&end, "NOOP")?, Some(heir_pid));
    assert_eq!(who_said(&end, "QUIT")?, Some(this_process()));
    let change = &end.of("connection.owner_changed").0[0];
    assert_eq!(change.text("/process/name"), Some("socket-heir"), "{}", change.json());
    ensure!(change.text("/process/command_line").is_some_and(|line| line.ends_with(" received NOOP")));
    Ok(())
}

#[test]
fn a_socket_inherited_by_a_program_as_from_inetd() -> Result<()> {
    let stage = Stage::new()?;
    let (client, mut server) = stage.connect()?;
    let heir = stage
        .client
        .command(machine::sibling("socket-heir")?)
        .args(["inherited", "NOOP", "QUIT"])
        .stdin(Stdio::from(OwnedFd::from(client)))
        .spawn()?;
    let heir_pid = u64::from(heir.id());
    serve(&mut server, "NOOP")?;
    serve(&mut server, "QUIT")?;
    ended(heir)?;
    drop(server);
    let end = stage.client_end()?;
    check_owners(&end, &[this_process(), heir_pid])
}

/// What a shell does with one connection, whose greeting it has read: its pid, and what was seen of its end.
fn shell(script: &str, commands: &[&str]) -> Result<(u64, Seen)> {
    connected_shell(&format!("read -r line <&3; {script}"), commands)
}

/// What a shell does with one connection, its descriptor 3.
fn connected_shell(script: &str, commands: &[&str]) -> Result<(u64, Seen)> {
    let stage = Stage::new()?;
    let listener = stage.server.listen(SERVER)?;
    let script = format!("exec 3<>/dev/tcp/10.77.0.2/25; {script}");
    let bash = stage.client.command(machine::installed("bash")?).args(["-c", &script]).stdin(Stdio::null()).spawn()?;
    let pid = bash.id().into();
    let mut server = greet(&listener)?;
    for command in commands {
        serve(&mut server, command)?;
    }
    ended(bash)?;
    drop(server);
    Ok((pid, stage.client_end()?))
}

#[test]
fn a_socket_shared_by_a_fork() -> Result<()> {
    let say = |verb: &str| format!("printf '{verb}\\r\\n' >&3; read -r line <&3");
    let script = format!("{}; ( {}; true ); {}", say("EHLO x"), say("NOOP"), say("QUIT"));
    let (pid, end) = shell(&script, &["EHLO x", "NOOP", "QUIT"])?;
    let child = who_said(&end, "NOOP")?.context("the NOOP has no owner")?;
    assert_ne!(child, pid);
    check_owners(&end, &[pid, child, pid])?;
    let noop = end.command("NOOP")?;
    assert_eq!(noop.count("/process/parent/pid"), Some(pid), "{}", noop.json());
    assert_eq!(noop.text("/process/name"), Some("bash"), "{}", noop.json());
    Ok(())
}

const SHARED: [&str; 5] = ["EHLO x", "RSET", "NOOP", "RSET", "QUIT"];

/// Why each RSET and NOOP was sent.
fn reasons(end: &Seen) -> Vec<Option<String>> {
    let told = |event| end.of(event).0.into_iter().map(|told| told.text("/reason").map(str::to_owned));
    told("smtp.rset").chain(told("smtp.noop")).collect()
}

/// One process writes to the socket and another reads from it: the commands are the writer's, nobody takes the connection
/// over, and the reasons are those of one process that does both.
#[test]
fn a_socket_shared_by_a_writer_and_a_reader() -> Result<()> {
    let say = |wait: &str| SHARED.map(|line| format!("printf '{line}\\r\\n' >&3; {wait}")).join("; ");
    let (_, alone) = shell(&say("read -r line <&3"), &SHARED)?;
    // The shell goes on when the reader has passed a reply on to it.
    let wait = "read -r line <&${R[0]}";
    let in_turn = format!("coproc R {{ exec cat <&3; }}; {wait}; {}", say(wait));
    // It does not wait.
    let early = format!("cat <&3 >/dev/null & {}", say("true"));
    for (script, is_in_turn) in [(in_turn, true), (early, false)] {
        let (pid, end) = connected_shell(&script, &SHARED)?;
        check_owners(&end, &[pid])?;
        let commands = end.of("smtp.command").0;
        assert_eq!(commands.len(), SHARED.len(), "{end}");
        for command in &commands {
            assert_eq!(command.pid(), Some(pid), "{}", command.json());
        }
        for told in end.of("smtp.rset").0.iter().chain(&end.of("smtp.noop").0) {
            assert_eq!(told.pid(), Some(pid), "{}", told.json());
        }
        if is_in_turn {
            assert_eq!(reasons(&end), reasons(&alone), "{end}\nalone:\n{alone}");
            assert_eq!(reasons(&end).len(), 3, "{end}");
        }
    }
    Ok(())
}

#[test]
fn a_process_that_becomes_another_program() -> Result<()> {
    let script = "exec perl -e 'open($s, \"+<&=3\"); syswrite($s, \"QUIT\\r\\n\"); sysread($s, $l, 512)'";
    let (pid, end) = shell(script, &["QUIT"])?;
    check_owners(&end, &[pid, pid])?;
    let change = end.one("connection.owner_changed")?;
    let names = ["/previous_process/executable", "/process/executable"].map(|pointer| change.text(pointer));
    ensure!(names[0].is_some_and(|path| path.ends_with("/bash")), "{}", change.json());
    ensure!(names[1].is_some_and(|path| path.ends_with("/perl")), "{}", change.json());
    assert_eq!(end.command("QUIT")?.text("/process/name"), Some("perl"), "{end}");
    Ok(())
}

#[test]
fn threads_are_one_process_by_its_own_name() -> Result<()> {
    let stage = Stage::new()?;
    let (client, mut server) = stage.connect()?;
    for name in ["first-thread", "second-thread"] {
        let talk = || (&client).write_all(b"NOOP\r\n");
        std::thread::scope(|scope| -> Result<()> {
            let talking = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, talk)?;
            Ok(talking.join().ok().context("the thread panicked")??)
        })?;
        serve(&mut server, "NOOP")?;
        Lines::new(client.try_clone()?)?.read_reply()?;
    }
    drop((client, server));

    let end = stage.client_end()?;
    check_owners(&end, &[this_process()])?;
    let name = std::fs::read_to_string("/proc/self/comm")?;
    for told in &end.0 {
        assert_eq!(told.pid(), Some(this_process()), "{}", told.json());
        assert_eq!(told.text("/process/name"), Some(name.trim_end()), "{}", told.json());
    }
    Ok(())
}
