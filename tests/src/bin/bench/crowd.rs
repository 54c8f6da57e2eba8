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

/// Servers whose clients say nothing.
pub struct Crowd<'a> {
    host: &'a Host,
    sinks: Vec<Sink>,
}

struct Sink {
    address: String,
    clients: usize,
    _running: Running,
}

impl<'a> Crowd<'a> {
    /// Starts as many servers as so many clients need.
    pub fn new(host: &'a Host, clients: usize) -> Result<Self> {
        // Each client has a port of its own.
        host.enter(|| fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535"))?;
        let sizes = (0..clients).step_by(OF_ONE).map(|before| OF_ONE.min(clients - before));
        let start = |(number, clients): (usize, usize)| -> Result<Sink> {
            let address = format!("127.0.1.{}:25", number + 1);
            let mut sink = host.command(machine::installed("smtp-sink")?);
            // One more, who asks whether it listens.
            sink.args(["-u", "nobody", "-m", &(clients + 1).to_string(), &address, "1024"]);
            let running = Running::start(sink)?;
            host.wait_listens(&address)?;
            Ok(Sink { address, clients, _running: running })
        };
        Ok(Self { host, sinks: sizes.enumerate().map(start).collect::<Result<_>>()? })
    }

    /// Connects all clients. They are gone when they are dropped, and leave nothing that waits.
    pub fn gather(&self) -> Result<Vec<Running>> {
        let gather = |sink: &Sink| -> Result<Running> {
            let mut holder = self.host.command(std::env::current_exe()?);
            holder.args(["--hold", &sink.address, "--open", &sink.clients.to_string()]);
            let holder = Running::start(holder)?;
            let holding = |lines: &[String]| lines.iter().any(|line| line == HOLDING).then_some(());
            holder.output.wait_for(HOLDING, holding)?;
            Ok(holder)
        };
        self.sinks.iter().map(gather).collect()
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
