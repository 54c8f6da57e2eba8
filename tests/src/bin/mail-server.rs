//! The server of the scene: takes mail and forgets it.

use std::net::{SocketAddr, TcpListener};

use clap::Parser;
use smtp_observer_tests::scene::server;

/// Takes mail and forgets it.
#[derive(Parser)]
struct Arguments {
    /// Where it listens.
    listen: SocketAddr,
    /// How many sessions it serves before it ends.
    #[arg(long, default_value_t = 1)]
    sessions: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(arguments.listen)?;
    println!("listening on {}", listener.local_addr()?);
    Ok(server::serve(&listener, arguments.sessions)?)
}
