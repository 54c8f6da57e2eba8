//! Connections over which a greeting is said, and nothing else.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

/// What the server says.
pub const GREETING: &[u8] = b"220 server.example ESMTP\r\n";

/// A client that has been greeted, and its server. Dropping it resets the connection.
#[derive(Debug)]
pub struct Greeted {
    _client: TcpStream,
    _server: TcpStream,
}

impl Greeted {
    /// Connects to a listener of this process.
    pub fn at(listener: &TcpListener) -> io::Result<Self> {
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        // It leaves no port that waits.
        setsockopt(&client, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
        let (mut server, _) = listener.accept()?;
        server.write_all(GREETING)?;
        client.read_exact(&mut [0; GREETING.len()])?;
        Ok(Self { _client: client, _server: server })
    }
}
