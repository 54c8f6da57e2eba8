//! What a call costs, by one thread that speaks with itself over loopback: nothing else is woken, nothing waits.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Result, bail};
use smtp_observer_tests::netns::{self, Host};

use crate::compared::median;

/// Parts of one measurement, whose median keeps out what else ran on the machine.
const PARTS: usize = 50;

/// A port that nobody watches.
pub const UNWATCHED: u16 = 2500;
/// SMTP's.
pub const WATCHED: u16 = 25;

/// Two ends of a connection.
struct Ends {
    client: TcpStream,
    server: TcpStream,
}

impl Ends {
    fn new(port: u16) -> Result<Self> {
        let host = Host::new()?;
        let address = format!("127.0.0.1:{port}");
        let listener = host.listen(&address)?;
        let client = host.connect(&address)?;
        let server = netns::accept(&listener)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        Ok(Self { client, server })
    }
}

/// Nanoseconds a call that moves nothing: a send of no byte, a receive where none is. It is the shortest way through the
/// socket layer, so what hooks add to it stands out. They take the same way through them as any other on a port that is
/// not watched.
pub fn that_move_nothing(calls: usize) -> Result<f64> {
    let Ends { mut client, server: _server } = Ends::new(UNWATCHED)?;
    client.set_nonblocking(true)?;
    timed(calls, 2, || {
        let sent = client.write(&[])?;
        match client.read(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && sent == 0 => Ok(()),
            other => bail!("a read where nothing is gave {other:?}"),
        }
    })
}

/// Nanoseconds a call that moves a command or a reply: NOOP, again and again.
pub fn of_a_dialogue(calls: usize, port: u16) -> Result<f64> {
    const NOOP: &[u8] = b"NOOP\r\n";
    const OK: &[u8] = b"250 2.0.0 Ok\r\n";
    let Ends { mut client, mut server } = Ends::new(port)?;
    let mut buffer = [0; 64];
    timed(calls, 4, || {
        client.write_all(NOOP)?;
        server.read_exact(&mut buffer[..NOOP.len()])?;
        server.write_all(OK)?;
        client.read_exact(&mut buffer[..OK.len()])?;
        Ok(())
    })
}

/// Nanoseconds a call that moves 4,096 bytes of a message's content: what a mail server writes at once.
pub fn of_content(calls: usize) -> Result<f64> {
    let Ends { mut client, mut server } = Ends::new(WATCHED)?;
    let mut buffer = [0; 4096];
    client.write_all(b"DATA\r\n")?;
    server.read_exact(&mut buffer[..6])?;
    server.write_all(b"354 Go\r\n")?;
    client.read_exact(&mut buffer[..8])?;
    let line = b"The quick brown fox jumps over the lazy dog, again and again. So it goes.\r\n";
    buffer = std::array::from_fn(|place| line[place % line.len()]);
    timed(calls, 2, || {
        client.write_all(&buffer)?;
        server.read_exact(&mut buffer)?;
        Ok(())
    })
}

/// Nanoseconds a call, of so many, with some in each turn.
fn timed(calls: usize, a_turn: usize, mut turn: impl FnMut() -> Result<()>) -> Result<f64> {
    let turns = (calls / a_turn / PARTS).max(1);
    let mut part = || -> Result<f64> {
        let started = Instant::now();
        for _ in 0..turns {
            turn()?;
        }
        Ok(started.elapsed().as_nanos() as f64 / (turns * a_turn) as f64)
    };
    Ok(median((0..PARTS).map(|_| part()).collect::<Result<Vec<_>>>()?))
}
