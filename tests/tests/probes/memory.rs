//! Sessions that a program sends by itself: its library only encrypts into memory.

use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use smtp_observer_tests::breakpoint;
use smtp_observer_tests::conversation::{commands, observed};
use smtp_observer_tests::machine;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::seen::Observed;
use smtp_observer_tests::tls::{MAIL, Server, check_whole};
use smtp_observer_tests::watch::Watch;

/// The first session shows that the program sends by itself what its library encrypts; the next is read from its start.
#[test]
fn the_next_session_is_read() -> Result<()> {
    let _alone = crate::alone();
    for (tls, version) in [("all", "TLSv1_2"), ("all", "TLSv1_3"), ("auto", "TLSv1_3")] {
        let watch = Watch::start(&["--addresses", "full", "--tls", tls])?;
        let server = Server::start(&watch.server_host, version)?;
        let mut python = watch.client_host.command(machine::installed("python3")?);
        python.args(["-c", include_str!("memory.py"), "10.77.0.2", "25", version]);
        let client = Running::start(python)?;
        let hosts = [&watch.client_host, &watch.server_host];
        watch.agent.wait_for("what the client says inside of TLS", &hosts, |seen| {
            let is_read = |tls: &Observed| tls.role() == "client" && tls.flag("/visible") == Some(true);
            seen.of("smtp.tls").0.iter().any(is_read)
        })?;
        breakpoint::wait(server.pid(), server.do_handshake, true)?;
        client.signal(Signal::SIGUSR1)?;
        process::succeeded("the client", client)?;
        let seen = observed(watch.agent, &hosts, |seen| seen.len() == 2)?;
        let [first, second] = &seen[..] else { bail!("two sessions") };
        let said = [&MAIL[..3], &["NOOP 250", "MAIL 250", "RSET 250", "QUIT"]].concat();
        for end in [&second.client, &second.server] {
            assert_eq!(commands(end), said, "\n{end}");
        }
        check_whole(second)?;
        for end in [&first.client, &first.server] {
            let mut told = commands(end);
            told.dedup();
            let mut said = MAIL[..3].iter().chain(&["NOOP 250", "QUIT"]);
            assert!(told.iter().all(|told| said.any(|said| told == said)), "{told:?}\n{end}");
        }
    }
    Ok(())
}
