//! Which probes there are, and that none is left.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use smtp_observer_tests::agent::{Agent, Stopped};
use smtp_observer_tests::bpf::Objects;
use smtp_observer_tests::breakpoint;
use smtp_observer_tests::certificate::Certificate;
use smtp_observer_tests::conversation::{commands, observed};
use smtp_observer_tests::feed::PATIENCE;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::tls::{DIALOGUE, MAIL, Server, Stranger, check_whole, smtplib};
use smtp_observer_tests::watch::Watch;

/// The children of a process.
fn children(pid: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let list = fs::read_to_string(thread?.path().join("children"))?;
        for child in list.split_ascii_whitespace() {
            children.push(child.parse()?);
        }
    }
    Ok(children)
}

/// Waits until a process that is no child of this one has ended; whoever became its parent may leave it unburied.
fn wait_ended(pid: u32) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let runs = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while runs() {
        ensure!(Instant::now() < deadline, "process {pid} has not ended");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The programs of an agent with this value of `--tls` that are probes, and its children.
fn parts(tls: &str) -> Result<(Vec<String>, usize)> {
    let before = Objects::now()?;
    let agent = Agent::start(&["--port", "2860", "--tls", tls])?;
    let mut programs = Objects::now()?.since(&before).programs()?;
    ensure!(programs.len() > 3, "{programs:?}");
    programs.retain(|name| name.starts_with("tls_"));
    Ok((programs, children(agent.pid())?.len()))
}

#[test]
fn off_attaches_nothing() -> Result<()> {
    let _alone = crate::alone();
    assert_eq!(parts("all")?, (["tls_call", "tls_return", "tls_end", "tls_record"].map(String::from).to_vec(), 1));
    assert_eq!(parts("off")?, (vec![], 0));
    let watch = Watch::start(&["--tls", "off"])?;
    let server = Server::start(&watch.server_host, "TLSv1_3")?;
    smtplib(&watch.client_host, "TLSv1_3", "one")?;
    ensure!(!breakpoint::is_set(server.pid(), server.do_handshake)?, "the server is probed");
    let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| !seen.is_empty())?;
    for end in [&seen[0].client, &seen[0].server] {
        assert_eq!(commands(end), ["EHLO 250", "STARTTLS 220"], "\n{end}");
        ensure!(end.of("smtp.tls").0.iter().any(|tls| tls.text("/phase") == Some("started")), "\n{end}");
    }
    Ok(())
}

/// It is killed while a session is under way, which goes on.
#[test]
fn none_is_left_behind() -> Result<()> {
    let _alone = crate::alone();
    let certificate = Certificate::new()?;
    for (tls, version) in [("all", "TLSv1_3"), ("auto", "TLSv1_2")] {
        let host = Host::new()?;
        let others = Objects::now()?;
        let agent = Agent::start(&["--tls", tls])?;
        let objects = Objects::now()?.since(&others);
        let [prober] = children(agent.pid())?[..] else { bail!("the agent should have one child") };
        let session = Paused::start(&host, &certificate, version, &["C: RSET\r\n", "S: 250 2.0.0 Ok\r\n"])?;
        breakpoint::wait(session.process.pid(), session.do_handshake, true)?;
        let objects_and_links = Objects::now()?.since(&others);
        agent.end_by(Signal::SIGKILL)?;
        wait_ended(prober)?;
        objects.wait_gone()?;
        objects_and_links.wait_gone()?;
        breakpoint::wait(session.process.pid(), session.do_handshake, false)?;
        session.go_on()?;
    }
    Ok(())
}

/// Several threads attach, each to its own processes: all of them are at work, where a stranger to mail is busy.
#[test]
fn processes_that_come_at_once_are_probed() -> Result<()> {
    const PROCESSES: usize = 16;
    let _alone = crate::alone();
    let agent = Agent::start(&[])?;
    let _stranger = Stranger::busy()?;
    let start = || -> Result<(Host, Server)> {
        let host = Host::new()?;
        host.ip("address add 10.77.0.2/24 dev lo")?;
        let server = Server::start(&host, "TLSv1_3")?;
        Ok((host, server))
    };
    let servers = (0..PROCESSES).map(|_| start()).collect::<Result<Vec<_>>>()?;
    let clients = servers.iter().map(|(host, _)| host.connect("10.77.0.2:25")).collect::<Result<Vec<_>>>()?;
    for (_, server) in &servers {
        breakpoint::wait(server.pid(), server.do_handshake, true)?;
    }
    drop(clients);
    ensure!(agent.stop()?.status.success());
    Ok(())
}

/// Each call of the library would be asked about by their probes, too. They have their own where a stranger to mail is busy.
#[test]
fn the_probes_of_processes_that_have_ended_are_taken_away() -> Result<()> {
    let _alone = crate::alone();
    let agent = Agent::start(&[])?;
    let _stranger = Stranger::busy()?;
    let host = Host::new()?;
    host.ip("address add 10.77.0.2/24 dev lo")?;
    for _ in 0..3 {
        let before = Objects::now()?;
        let server = Server::start(&host, "TLSv1_3")?;
        let client = host.connect("10.77.0.2:25")?;
        breakpoint::wait(server.pid(), server.do_handshake, true)?;
        let probes = Objects::now()?.since(&before);
        ensure!(probes != Objects::default(), "the server has no probes");
        drop((client, server));
        probes.wait_gone()?;
    }
    ensure!(agent.stop()?.status.success());
    Ok(())
}

/// Whoever lists processes sees whose it is.
#[test]
fn the_process_that_attaches_probes_has_the_agents_name() -> Result<()> {
    let _alone = crate::alone();
    let agent = Agent::start(&[])?;
    let [prober] = children(agent.pid())?[..] else { bail!("the agent should have one child") };
    let [name, line] = ["comm", "cmdline"].map(|file| fs::read_to_string(format!("/proc/{prober}/{file}")));
    let (name, line) = (name?, line?);
    ensure!(name == "smtp-observer\n" && line.starts_with("smtp-observer\0probe-tls\0"), "{name}{line}");
    Ok(())
}

/// It is killed, and the agent goes on without it.
#[test]
fn the_end_of_the_process_that_attaches_probes_is_told() -> Result<()> {
    const METRIC: &str = "smtp_observer_tls_prober_up";
    let _alone = crate::alone();
    let agent = Agent::start(&[])?;
    assert_eq!(agent.metrics()?.sum(METRIC, &[]), Some(1.0));
    let [prober] = children(agent.pid())?[..] else { bail!("the agent should have one child") };
    kill(Pid::from_raw(prober.cast_signed()), Signal::SIGKILL)?;
    agent.wait_logged("the process that attaches probes has ended", 1)?;
    assert_eq!(agent.metrics()?.sum(METRIC, &[]), Some(0.0));
    ensure!(agent.stop()?.status.success());

    let without = Agent::start(&["--tls", "off"])?;
    assert_eq!(without.metrics()?.sum(METRIC, &[]), None);
    Ok(())
}

/// What a terminal or a service manager tells the whole group ends the agent, and that ends the other process.
#[test]
fn signals_are_the_agents_to_follow() -> Result<()> {
    let _alone = crate::alone();
    let certificate = Certificate::new()?;
    let host = Host::new()?;
    let agent = Agent::start(&[])?;
    let [prober] = children(agent.pid())?[..] else { bail!("the agent should have one child") };
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        kill(Pid::from_raw(prober.cast_signed()), signal)?;
    }
    let session = Paused::start(&host, &certificate, "TLSv1_3", &["C: RSET\r\n", "S: 250 2.0.0 Ok\r\n"])?;
    breakpoint::wait(session.process.pid(), session.do_handshake, true)?;
    session.go_on()?;
    let Stopped { status, log, .. } = agent.stop()?;
    ensure!(status.success() && !log.iter().any(|line| line.contains("has ended")), "{status}: {}", log.join("\n"));
    wait_ended(prober)
}

/// A session that stands still inside of TLS.
struct Paused {
    process: Running,
    do_handshake: u64,
}

impl Paused {
    /// Both ends are one process, on one host. Then this is said.
    fn start(host: &Host, certificate: &Certificate, version: &str, then: &[&str]) -> Result<Self> {
        let before = [
            "S: 220 mx.example ESMTP\r\n",
            "C: EHLO client.example\r\n",
            "S: 250-mx.example\r\n250 STARTTLS\r\n",
            "C: STARTTLS\r\n",
            "S: 220 2.0.0 Go\r\n",
            "TLS",
            "C: EHLO client.example\r\n",
            "S: 250 mx.example\r\n",
            "C: MAIL FROM:<alice@client.example>\r\n",
            "S: 250 2.1.0 Ok\r\n",
            "PAUSE",
        ];
        let steps = serde_json::to_string(&[&before, then, &["C: QUIT\r\n", "S: 221 2.0.0 Bye\r\n"]].concat())?;
        let mut python = host.command(machine::installed("python3")?);
        python.args(["-c", DIALOGUE, "25"]).arg(certificate.both()).args([version, "0", &steps]);
        let process = Running::start(python)?;
        let do_handshake = breakpoint::address(&process)?;
        Ok(Self { process, do_handshake })
    }

    fn go_on(self) -> Result<()> {
        self.process.signal(Signal::SIGUSR1)?;
        process::succeeded("the dialogue", self.process).map(drop)
    }
}

/// From the next point that is certain it is told what is said, and nothing of what was said before.
#[test]
fn an_agent_comes_in_the_middle_of_a_session() -> Result<()> {
    let _alone = crate::alone();
    let certificate = Certificate::new()?;
    for (tls, version) in [("all", "TLSv1_3"), ("auto", "TLSv1_2")] {
        let host = Host::new()?;
        let then = [
            "C: RCPT TO:<bob@mx.example>\r\n",
            "S: 250 2.1.5 Ok\r\n",
            "C: RSET\r\n",
            "S: 250 2.0.0 Ok\r\n",
            "C: MAIL FROM:<carol@client.example>\r\n",
            "S: 250 2.1.0 Ok\r\n",
        ];
        let session = Paused::start(&host, &certificate, version, &then)?;
        let agent = Agent::start(&["--addresses", "full", "--tls", tls])?;
        if tls == "all" {
            breakpoint::wait(session.process.pid(), session.do_handshake, true)?;
        }
        session.go_on()?;
        agent.wait_closed(&[&host], 2)?;
        let seen = agent.stop()?.seen.on(&[&host])?;
        for role in ["client", "server"] {
            let end = seen.side(role)?;
            let said = commands(&end);
            println!("{tls} {role}: {said:?}\n{end}");
            let mut possible = ["RCPT 250", "RSET 250", "MAIL 250", "QUIT"].iter();
            ensure!(said.iter().all(|command| possible.any(|known| known == command)), "{said:?}\n{end}");
            ensure!(tls == "auto" || said.ends_with(&["MAIL 250".into(), "QUIT".into()]), "{said:?}\n{end}");
        }
    }
    Ok(())
}

/// Each has its own probes, and sees all.
#[test]
fn two_agents() -> Result<()> {
    let _alone = crate::alone();
    let other = Agent::start(&["--addresses", "full", "--tls", "all"])?;
    let watch = Watch::start(&["--addresses", "full", "--tls", "all"])?;
    let _server = Server::start(&watch.server_host, "TLSv1_3")?;
    smtplib(&watch.client_host, "TLSv1_3", "one")?;
    let hosts = [&watch.client_host, &watch.server_host];
    for agent in [other, watch.agent] {
        let seen = observed(agent, &hosts, |seen| !seen.is_empty())?;
        seen[0].check(&MAIL, &[], &["delivered"]);
        check_whole(&seen[0])?;
    }
    Ok(())
}

/// A server that runs on has the probes when its second session begins, also where a stranger to mail is busy.
#[test]
fn a_process_that_is_known_is_read_from_the_start() -> Result<()> {
    let _alone = crate::alone();
    let watch = Watch::start(&["--addresses", "full", "--tls", "auto"])?;
    let _stranger = Stranger::busy()?;
    let server = Server::start(&watch.server_host, "TLSv1_3")?;
    smtplib(&watch.client_host, "TLSv1_3", "one")?;
    breakpoint::wait(server.pid(), server.do_handshake, true)?;
    smtplib(&watch.client_host, "TLSv1_3", "one")?;
    let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| seen.len() == 2)?;
    let end = &seen[1].server;
    assert_eq!(commands(end), MAIL, "\n{end}");
    ensure!(end.count("smtp.anomaly") == 0, "\n{end}");
    Ok(())
}
