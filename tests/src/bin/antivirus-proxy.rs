//! The interceptor of the scene: takes one connection that was redirected to it.

use std::net::{SocketAddr, TcpListener};

use clap::Parser;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use smtp_observer_tests::scene::interceptor;

/// Takes one connection that was redirected to it, and everything that is said on it.
#[derive(Parser)]
struct Arguments {
    /// Where it listens.
    listen: SocketAddr,
    /// The user it becomes, by which the redirection spares its own connections.
    #[arg(long)]
    user: u32,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(arguments.listen)?;
    setgroups(&[])?;
    setgid(Gid::from_raw(arguments.user))?;
    setuid(Uid::from_raw(arguments.user))?;
    // Changing the user has undone what ends this program with the one that started it.
    set_pdeathsig(Signal::SIGTERM)?;
    println!("listening on {}", listener.local_addr()?);
    let (client, _) = listener.accept()?;
    Ok(interceptor::intercept(client)?)
}
