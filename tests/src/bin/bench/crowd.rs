//! Connections that are open and silent while something else is measured.

use std::convert::Infallible;
use std::fs;
use std::io::Read;
use std::net::TcpStream;

use anyhow::{Context, Result};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::Running;

/// Connections of one process: fewer than it may have open files on any host.
const OF_ONE: usize = 10_000;

/// Clients that say nothing, and their servers.
pub struct Crowd {
    _clients: Vec<Running>,
    _sinks: Vec<Running>,
}

impl Crowd {
    /// Connects so many clients, to as many servers as they need. All are gone when it is dropped, and leave nothing that
    /// waits.
    pub fn gather(host: &Host, clients: usize) -> Result<Self> {
        // Each client has a port of its own.
        host.enter(|| fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535"))?;
        let mut crowd = Self { _clients: Vec::new(), _sinks: Vec::new() };
        for (number, before) in (0..clients).step_by(OF_ONE).enumerate() {
            let (clients, address) = (OF_ONE.min(clients - before).to_string(), format!("127.0.1.{}:25", number + 1));
            let mut sink = host.command(machine::installed("smtp-sink")?);
            sink.args(["-u", "nobody", "-m", &OF_ONE.to_string(), &address, "1024"]);
            crowd._sinks.push(Running::start(sink)?);
            host.wait_listens(&address)?;
            let mut holder = host.command(std::env::current_exe()?);
            holder.args(["--hold", &address, "--open", &clients]);
            let holder = Running::start(holder)?;
            let holding = |lines: &[String]| lines.iter().any(|line| line == HOLDING).then_some(());
            holder.output.wait_for(HOLDING, holding)?;
            crowd._clients.push(holder);
        }
        Ok(crowd)
    }
}

const HOLDING: &str = "holding";

/// Connects so many clients, and keeps them until it is ended.
pub fn hold(address: &str, clients: usize) -> Result<Infallible> {
    let connect = |_| -> Result<TcpStream> {
        let mut client = TcpStream::connect(address)?;
        setsockopt(&client, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
        // The greeting: from here on nothing is to be said.
        client.read_exact(&mut [0; 4])?;
        Ok(client)
    };
    let _held: Vec<TcpStream> =
        (0..clients).map(connect).collect::<Result<_>>().with_context(|| format!("opening {clients} connections"))?;
    println!("{HOLDING}");
    loop {
        std::thread::park();
    }
}
