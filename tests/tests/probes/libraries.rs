//! Where the library is: in the program itself, or in a file that nobody knows before it is loaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use smtp_observer_tests::breakpoint;
use smtp_observer_tests::conversation::{Conversation, commands, observed};
use smtp_observer_tests::feed::PATIENCE;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::tls::{Server, VERSIONS, check_whole};
use smtp_observer_tests::watch::Watch;
use tempfile::TempDir;

/// What the client says.
const SAID: [&str; 7] = ["EHLO 250", "STARTTLS 220", "EHLO 250", "NOOP 250", "MAIL 250", "RSET 250", "QUIT"];

/// Compiles the client with these options.
fn compiled(folder: &TempDir, options: &[&str]) -> Result<PathBuf> {
    let program = folder.path().join("client");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/probes/client.c");
    let mut compiler = Command::new("cc");
    compiler.arg("-o").arg(&program).arg(source).args(options);
    process::run(compiler).context("compiling the client")?;
    Ok(program)
}

fn check(conversation: &Conversation) -> Result<()> {
    for end in [&conversation.client, &conversation.server] {
        assert_eq!(commands(end), SAID, "\n{end}");
    }
    check_whole(conversation)
}

#[test]
fn in_the_program_itself() -> Result<()> {
    let _alone = crate::alone();
    let folder = tempfile::tempdir()?;
    let options = ["-Wl,-Bstatic", "-lssl", "-lcrypto", "-Wl,-Bdynamic", "-ldl", "-lpthread"];
    let client = compiled(&folder, &options)?;
    for version in VERSIONS {
        let watch = Watch::start(&["--addresses", "full", "--tls", "all"])?;
        let _server = Server::start(&watch.server_host, version)?;
        let mut client = watch.client_host.command(&client);
        client.args(["10.77.0.2", "25", "", "2"]);
        let client = Running::start(client)?;
        let do_handshake = breakpoint::address(&client)?;
        breakpoint::wait(client.pid(), do_handshake, true)?;
        client.signal(Signal::SIGUSR1)?;
        process::succeeded("the client", client)?;
        let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| seen.len() == 2)?;
        check(&seen[1])?;
    }
    Ok(())
}

/// It lives, and is read, though its filter ends it at the system calls that a probed function makes: this kernel does not ask it.
#[test]
fn in_a_confined_program() -> Result<()> {
    let _alone = crate::alone();
    let folder = tempfile::tempdir()?;
    let client = compiled(&folder, &["-DCONFINED", "-lssl", "-lcrypto"])?;
    let watch = Watch::start(&["--addresses", "full"])?;
    let _server = Server::start(&watch.server_host, "TLSv1_3")?;
    let mut client = watch.client_host.command(&client);
    client.args(["10.77.0.2", "25", "", "2"]);
    let client = Running::start(client)?;
    breakpoint::wait(client.pid(), breakpoint::address(&client)?, true)?;
    client.signal(Signal::SIGUSR1)?;
    process::succeeded("the client", client)?;
    let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| seen.len() == 2)?;
    seen.iter().try_for_each(check)
}

/// The probes come while the first session is under way, since it shows that there is a library; those of the process are there
/// from the second one's start.
#[test]
fn loaded_behind_starttls() -> Result<()> {
    let _alone = crate::alone();
    let folder = tempfile::tempdir()?;
    let client = compiled(&folder, &["-DLATER", "-ldl"])?;
    for tls in ["all", "auto"] {
        let library = folder.path().join(format!("libssl-{tls}.so.3"));
        fs::copy("/usr/lib/x86_64-linux-gnu/libssl.so.3", &library)?;
        let watch = Watch::start(&["--addresses", "full", "--tls", tls])?;
        let server = Server::start(&watch.server_host, "TLSv1_3")?;
        let mut client = watch.client_host.command(&client);
        client.args(["10.77.0.2", "25"]).arg(&library).arg("2");
        let client = Running::start(client)?;
        for (pid, do_handshake) in [(client.pid(), breakpoint::address(&client)?), (server.pid(), server.do_handshake)]
        {
            breakpoint::wait(pid, do_handshake, true)?;
        }
        client.signal(Signal::SIGUSR1)?;
        process::succeeded("the client", client)?;
        let seen = observed(watch.agent, &[&watch.client_host, &watch.server_host], |seen| seen.len() == 2)?;
        for end in [&seen[0].client, &seen[0].server] {
            // All that is told of the first is true.
            let mut said = SAID.iter();
            assert!(commands(end).iter().all(|command| said.any(|known| known == command)), "\n{end}");
        }
        check(&seen[1])?;
    }
    Ok(())
}

/// A container's file system can be unmounted once its processes have ended: probes hold it for a few seconds more.
#[test]
fn whose_file_system_goes_away() -> Result<()> {
    let _alone = crate::alone();
    let folder = tempfile::tempdir()?;
    let client = compiled(&folder, &["-DLATER", "-ldl"])?;
    let file_system = tempfile::tempdir()?;
    let mount = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).arg(file_system.path());
        process::run(command).map(drop)
    };
    mount("mount", &["-t", "tmpfs", "tmpfs"])?;
    let library = file_system.path().join("libssl-contained.so.3");
    fs::copy("/usr/lib/x86_64-linux-gnu/libssl.so.3", &library)?;
    let watch = Watch::start(&["--addresses", "full"])?;
    let _server = Server::start(&watch.server_host, "TLSv1_3")?;
    let mut client = watch.client_host.command(&client);
    client.args(["10.77.0.2", "25"]).arg(&library).arg("2");
    let client = Running::start(client)?;
    breakpoint::wait(client.pid(), breakpoint::address(&client)?, true)?;
    let busy = mount("umount", &[]);
    client.signal(Signal::SIGUSR1)?;
    process::succeeded("the client", client)?;
    ensure!(busy.is_err(), "a file system is there as long as its library is loaded");
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = mount("umount", &[]) {
        ensure!(Instant::now() < deadline, "the file system is still in use: {error:#}");
        thread::sleep(Duration::from_millis(100));
    }
    ensure!(watch.agent.stop()?.status.success());
    Ok(())
}
