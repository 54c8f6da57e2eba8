//! A proxy that its client asks for by a port that is not watched: both ends of that connection are seen from the greeting on,
//! and nothing of any other connection.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use smtp_observer_tests::bpf::{map_of, number_at};
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::feed::PATIENCE;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::watch::{SHORT, SHORT_EVENTS, Watch, check_closed};

/// Nothing else of these tests uses it.
const PORT: u16 = 10_125;

/// A client and its proxy, which are on one host.
fn front(host: &Host) -> Result<Dialogue> {
    Dialogue::open(host, host, &format!("127.0.0.1:{PORT}"))
}

/// Waits until no socket is looked at any more because of its port.
fn wait_unmarked(ports: &OwnedFd) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let count = number_at(ports, PORT.into())?;
        if count == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{count} sockets are counted at the port");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_proxy_on_another_port() -> Result<()> {
    let watch = Watch::start(&[])?;
    let ports = map_of(watch.agent.pid(), "PORTS")?;

    // Nobody has connected to a server: whoever greets there is no proxy.
    let mut other = front(&watch.client_host)?;
    ensure!(number_at(&ports, PORT.into())? == 2, "both ends wait to be decided");
    other.play(SHORT)?;
    ensure!(number_at(&ports, PORT.into())? == 0, "both ends are decided");
    other.close()?;

    // Its process connects to a server before it greets its client.
    let mut proxied = front(&watch.client_host)?;
    let mut back = watch.dialogue("10.77.0.2:25")?;
    back.play(SHORT)?;
    proxied.play(SHORT)?;
    ensure!(number_at(&ports, PORT.into())? == 2, "both ends are tracked");
    back.close()?;
    proxied.close()?;

    // Of those that do not greet, and those on which the client speaks first, nothing is read.
    for (speaker, words) in [("S", "+OK POP3"), ("C", "GET / HTTP/1.1"), ("C", "EHLO client.example")] {
        let mut stranger = front(&watch.client_host)?;
        let back = watch.dialogue("10.77.0.2:25")?;
        stranger.play(&format!("{speaker}: {words}\nS: 220 server.example\nC: NOOP\n"))?;
        back.close()?;
        stranger.close()?;
    }
    // One that is not used at all.
    let unused = front(&watch.client_host)?;
    unused.client.shutdown(Shutdown::Both)?;
    drop(unused);
    wait_unmarked(&ports)?;

    watch.wait(2 + 3)?;
    let seen = watch.agent.stop()?.seen.on(&[&watch.client_host])?;
    let seen = seen.only(|observed| {
        let port = |end| observed.count(&format!("/connection/{end}/port"));
        [port("local"), port("remote")].contains(&Some(PORT.into()))
    });
    for role in ["client", "server"] {
        let end = seen.side(role)?;
        assert_eq!(end.brief(), SHORT_EVENTS, "{end}");
        check_closed(&end)?;
    }
    Ok(())
}
