//! The client of the scene: `mail-client SERVER:PORT` sends one mail and prints the dialogue.

use std::io;
use std::net::SocketAddr;

use smtp_observer_tests::scene::client;

fn main() -> io::Result<()> {
    let server: SocketAddr =
        std::env::args().nth(1).and_then(|server| server.parse().ok()).ok_or(io::ErrorKind::InvalidInput)?;
    client::send_mail(server)
}
