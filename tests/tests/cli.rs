//! The agent from outside: commands, exit statuses, sentences, HTTP, and what is left when it has gone.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use smtp_observer_tests::agent::{Agent, http_address};
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::feed::PATIENCE;
use smtp_observer_tests::http;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{Ended, Running};
use smtp_observer_tests::scene::lines::Lines;
use smtp_observer_tests::scene::{SERVER, Scene};

/// Runs the agent with these arguments to its end.
fn agent(arguments: &[&str]) -> Result<Ended> {
    let mut command = Command::new(machine::agent()?);
    command.args(arguments);
    Running::start(command)?.finish()
}

/// It ended with this status, and said why in a few plain words on standard error alone.
fn check_refusal(ended: &Ended, status: i32, words: &[&str]) {
    let log = ended.log.join("\n");
    assert_eq!(ended.status.code(), Some(status), "{log}");
    assert!(ended.output.is_empty(), "standard output carries results only: {:?}", ended.output);
    for word in words {
        assert!(log.contains(word), "`{word}` is not in: {log}");
    }
    assert!(!log.contains("panicked") && !log.contains("RUST_BACKTRACE"), "{log}");
    assert!((1..600).contains(&log.len()), "that is not one or two sentences: {log}");
}

#[test]
fn an_unknown_option_is_wrong_usage() -> Result<()> {
    check_refusal(&agent(&["run", "--no-such-option"])?, 2, &["--no-such-option"]);
    check_refusal(&agent(&["no-such-command"])?, 2, &["no-such-command"]);
    check_refusal(&agent(&["run", "--port", "mail"])?, 2, &["mail"]);
    check_refusal(&agent(&["trace", "--process", "/usr/sbin/smtpd"])?, 2, &["base name", "`smtpd`"]);
    check_refusal(&agent(&["trace", "--pid", "0"])?, 2, &["`0` is not the number of a process"]);
    check_refusal(&agent(&["replay", "-", "--verb", "RCPT TO"])?, 2, &["`RCPT TO` is not a verb"]);
    Ok(())
}

#[test]
fn a_configuration_that_cannot_be_used_is_wrong_usage() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    check_refusal(&agent(&["run", "--config", &path("missing.toml")])?, 2, &[&path("missing.toml")]);
    // Root reads whatever has the name of a file; a folder it cannot.
    check_refusal(&agent(&["run", "--config", &path("")])?, 2, &[&path("")]);
    for (name, content) in [("broken.toml", "port = [25"), ("unknown.toml", "no_such_setting = 1\n")] {
        fs::write(folder.path().join(name), content)?;
        check_refusal(&agent(&["run", "--config", &path(name)])?, 2, &[&path(name)]);
    }
    Ok(())
}

#[test]
fn a_port_in_use_fails_with_its_name() -> Result<()> {
    let address = http_address();
    let _taken = TcpListener::bind(address)?;
    check_refusal(&agent(&["run", "--listen", &address.to_string()])?, 1, &[&address.to_string(), "in use"]);
    Ok(())
}

#[test]
fn a_user_without_privileges_is_told_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let copy = machine::agent_for_all(folder.path())?;
    for arguments in [&["run"][..], &["trace"]] {
        let mut command = Command::new(&copy);
        command.args(arguments).uid(65534).gid(65534).current_dir("/");
        check_refusal(&Running::start(command)?.finish()?, 3, &["root"]);
    }
    Ok(())
}

#[test]
fn a_kernel_that_hides_its_types_is_named() -> Result<()> {
    // In a mount namespace where something else lies over them.
    let mut command = Command::new(machine::installed("unshare")?);
    let script = "mount -t tmpfs none /sys/kernel/btf && exec \"$0\" run";
    command.args(["--mount", "sh", "-c", script]).arg(machine::agent()?);
    check_refusal(&Running::start(command)?.finish()?, 3, &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"]);
    Ok(())
}

#[test]
fn connections_lists_those_that_were_there_before() -> Result<()> {
    let (client_host, server_host) = Host::pair()?;
    // A host is found by the processes that live on it; those of the dialogue live elsewhere.
    let resident = |host: &Host| -> Result<Running> {
        let mut sleep = host.command(machine::installed("sleep")?);
        sleep.arg(PATIENCE.as_secs().to_string());
        Running::start(sleep)
    };
    let _residents = [resident(&client_host)?, resident(&server_host)?];
    let mut dialogue = Dialogue::open(&client_host, &server_host, "10.77.0.2:25")?;
    dialogue.play("S: 220 server.example ESMTP\nC: EHLO client.example\nS: 250 server.example")?;
    let local = dialogue.client.local_addr()?.to_string();

    let plain = agent(&["connections"])?;
    assert_eq!(plain.status.code(), Some(0), "{}", plain.log.join("\n"));
    let text = plain.output.join("\n");
    let owner = std::env::current_exe()?.file_name().context("no name")?.to_string_lossy().into_owned();
    for word in [local.as_str(), "10.77.0.2:25", &std::process::id().to_string()] {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }

    let json = agent(&["connections", "--json"])?;
    assert_eq!(json.status.code(), Some(0), "{}", json.log.join("\n"));
    let connections: Vec<Value> = serde_json::from_str(&json.output.join("\n"))?;
    let inodes = [client_host.inode()?, server_host.inode()?];
    let ours: Vec<String> = connections
        .iter()
        .map(Value::to_string)
        .filter(|entry| inodes.iter().any(|inode| entry.contains(&inode.to_string())))
        .collect();
    assert!(!ours.is_empty(), "neither end is in {connections:#?}");
    let ours = ours.join("\n");
    for word in ["\"client\"", "\"server\"", owner.as_str()] {
        assert!(ours.contains(word), "`{word}` is not in:\n{ours}");
    }
    dialogue.play("C: QUIT\nS: 221 Bye")?;
    dialogue.close()
}

/// The scene, held open: the client has its greeting, so all its connections are there.
/// No process is listed there, and it must not look like a host without connections.
#[test]
fn a_proc_that_is_not_there_is_told() -> Result<()> {
    for (command, status) in [("connections", 1), ("run", 3)] {
        let mut hidden = Command::new(machine::installed("unshare")?);
        hidden.args(["--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$0\" \"$@\""]);
        hidden.arg(machine::agent()?).args([command]);
        check_refusal(&Running::start(hidden)?.finish()?, status, &["/proc", "must be mounted"]);
    }
    Ok(())
}

/// Root sees all, whatever is hidden from others.
#[test]
fn a_proc_that_hides_processes_hides_none_from_root() -> Result<()> {
    machine::require_root()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let _ends = (TcpStream::connect(address)?, listener.accept()?);
    let mut hiding = Command::new(machine::installed("unshare")?);
    hiding.args(["--mount", "sh", "-c", "mount -t proc -o hidepid=2 none /proc && exec \"$0\" \"$@\""]);
    hiding.arg(machine::agent()?).args(["connections", "--json", "--port", &address.port().to_string()]);
    let ended = Running::start(hiding)?.finish()?;
    assert!(ended.status.success(), "{:?}", ended.log);
    let listed: Vec<Value> = serde_json::from_str(&ended.output.concat())?;
    let own = |row: &&Value| row["process"]["pid"] == std::process::id();
    assert_eq!(listed.iter().filter(own).count(), 2, "both ends are this test's: {listed:?}");
    Ok(())
}

/// From a container no process of the host is visible: that is told, and not taken for a connection that waits.
#[test]
fn connections_that_a_container_cannot_attribute_are_told() -> Result<()> {
    machine::require_root()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let _ends = (TcpStream::connect(address)?, listener.accept()?);
    for options in [&["--pid", "--fork", "--mount-proc"][..], &["--user", "--map-root-user"]] {
        let mut contained = Command::new(machine::installed("unshare")?);
        contained.args(options).arg(machine::agent()?);
        contained.args(["connections", "--json", "--port", &address.port().to_string()]);
        let ended = Running::start(contained)?.finish()?;
        let log = ended.log.join("\n");
        assert!(ended.status.success() && log.contains("namespace are not visible"), "{log}");
        let listed: Vec<Value> = serde_json::from_str(&ended.output.concat())?;
        assert_eq!(listed.len(), 2, "{listed:?}");
        assert!(listed.iter().all(|row| row["no_process"] == "not_visible"), "{listed:?}");
    }
    Ok(())
}

#[test]
fn connections_draws_the_chain() -> Result<()> {
    let scene = Scene::new()?;
    let mut client = Lines::new(scene.client_host.connect(SERVER)?)?;
    let local = client.local_address()?.to_string();
    assert!(client.read_reply()?.starts_with("220 "));

    let json = agent(&["connections", "--json"])?;
    assert_eq!(json.status.code(), Some(0), "{}", json.log.join("\n"));
    let connections: Vec<Value> = serde_json::from_str(&json.output.join("\n"))?;
    let end = |value: &Value| format!("{}:{}", value["address"].as_str().unwrap_or("?"), value["port"]);
    let inodes = [scene.client_host.inode()?, scene.server_host.inode()?];
    let ours =
        connections.iter().filter(|open| open["connection"]["netns"].as_u64().is_some_and(|it| inodes.contains(&it)));
    let (through, direct): (Vec<&Value>, Vec<&Value>) = ours.partition(|open| open.get("via").is_some());
    let [through] = &through[..] else { bail!("{} chains in {connections:#?}", through.len()) };
    assert_eq!(end(&through["connection"]["local"]), local);
    let via = &through["via"];
    assert_eq!((&via["method"], via["accepted"]["port"].as_u64()), (&"redirect".into(), Some(10025)), "{via}");
    assert_eq!(via["process"]["pid"], scene.interceptor.pid(), "{via}");
    assert_eq!(end(&via["upstream"]["remote"]), SERVER, "{via}");
    assert_eq!(via["upstream"]["process"]["pid"], scene.server.pid(), "{via}");
    // The interceptor's own connection, and its other end.
    assert_eq!(direct.len(), 2, "{direct:#?}");

    let text = agent(&["connections"])?.output.join("\n");
    let chain = format!(
        " → antivirus-proxy (pid {}), by redirect to {} → mail-server (pid {}) at {SERVER}",
        scene.interceptor.pid(),
        end(&via["accepted"]),
        scene.server.pid()
    );
    assert!(text.lines().any(|line| line.ends_with(&chain)), "`{chain}` is not in:\n{text}");
    Ok(())
}

#[test]
fn the_agent_answers_over_http() -> Result<()> {
    let (client_host, server_host) = Host::pair()?;
    let agent = Agent::start(&[])?;
    for path in ["/healthz", "/readyz"] {
        let (status, body) = http::get(agent.http, path)?;
        assert_eq!(status, 200, "{path}: {body}");
    }
    assert_eq!(http::get(agent.http, "/no-such-page")?.0, 404);

    let mut dialogue = Dialogue::open(&client_host, &server_host, "10.77.0.2:25")?;
    dialogue.play("S: 220 server.example ESMTP\nC: NOOP\nS: 250 Ok\nC: QUIT\nS: 221 Bye")?;
    dialogue.close()?;
    agent.wait_closed(&[&client_host, &server_host], 2)?;

    let metrics = agent.metrics()?;
    for name in ["smtp_observer_build_info", "smtp_observer_hooks_info", "process_resident_memory_bytes"] {
        assert!(metrics.sum(name, &[]).is_some_and(|value| value > 0.0), "`{name}` is not in:\n{}", metrics.0);
    }
    let owner = format!("process=\"{}\"", std::env::current_exe()?.file_name().context("no name")?.to_string_lossy());
    for role in ["role=\"client\"", "role=\"server\""] {
        let labels = [owner.as_str(), role];
        assert!(metrics.sum("smtp_connections_total", &labels).is_some_and(|count| count >= 1.0), "{}", metrics.0);
        let noop = [owner.as_str(), role, "verb=\"NOOP\"", "code_class=\"2xx\""];
        assert!(metrics.sum("smtp_commands_total", &noop).is_some_and(|count| count >= 1.0), "{}", metrics.0);
        assert!(metrics.sum("smtp_noop_duration_seconds_count", &labels).is_some_and(|count| count >= 1.0));
    }
    for line in metrics.0.lines() {
        assert!(!line.contains("10.77.0"), "an address is a label: {line}");
    }
    assert!(agent.stop()?.status.success());
    Ok(())
}

#[test]
fn sigterm_ends_it_and_leaves_nothing() -> Result<()> {
    let agent = Agent::start(&[])?;
    let programs = loaded_programs(agent.pid())?;
    assert!(!programs.is_empty(), "the agent holds no eBPF program");
    let stopped = agent.stop()?;
    assert_eq!(stopped.status.code(), Some(0), "{}", stopped.log.join("\n"));
    // The kernel frees a program some time after its last user, and tells nobody when it has.
    let deadline = Instant::now() + PATIENCE;
    while programs.iter().any(|id| is_loaded(*id)) {
        ensure!(Instant::now() < deadline, "some of the programs {programs:?} are still loaded");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn a_duration_ends_it() -> Result<()> {
    let address = http_address().to_string();
    let started = Instant::now();
    let ended = agent(&["run", "--listen", &address, "--duration", "1s"])?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log.join("\n"));
    assert!((1.0..10.0).contains(&started.elapsed().as_secs_f64()));
    let ended = agent(&["trace", "--json", "--duration", "1s"])?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log.join("\n"));
    Ok(())
}

/// The ids of the eBPF programs that a process holds, by descriptors of its own or of its links.
fn loaded_programs(pid: u32) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed while they are listed.
        let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
        ids.extend(info.lines().filter_map(|line| line.strip_prefix("prog_id:")?.trim().parse::<u32>().ok()));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// The kernel still has the eBPF program with this id.
fn is_loaded(id: u32) -> bool {
    /// `BPF_PROG_GET_FD_BY_ID` of `enum bpf_cmd`.
    const GET_BY_ID: i32 = 13;
    // The command's part of `union bpf_attr`: the id, the next id and flags.
    let attributes = [id, 0, 0];
    // SAFETY: the kernel reads as many bytes of `attributes` as it is told there are.
    let descriptor = unsafe { libc::syscall(libc::SYS_bpf, GET_BY_ID, attributes.as_ptr(), size_of_val(&attributes)) };
    if descriptor < 0 {
        return io::Error::last_os_error().raw_os_error() != Some(libc::ENOENT);
    }
    // SAFETY: the descriptor was made by the call above and belongs to nobody else.
    unsafe { libc::close(descriptor as i32) };
    true
}
