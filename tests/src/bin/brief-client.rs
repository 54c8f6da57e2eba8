//! A client that lives a few milliseconds: `brief-client SERVER:PORT [TAG…]` reads the greeting, quits and is gone.

use std::io::{self, Write};
use std::net::TcpStream;

use smtp_observer_tests::scene::lines::Lines;

fn main() -> io::Result<()> {
    let server = std::env::args().nth(1).ok_or(io::ErrorKind::InvalidInput)?;
    let stream = TcpStream::connect(server)?;
    let mut writer = stream.try_clone()?;
    Lines::new(stream)?.read_reply()?;
    writer.write_all(b"QUIT\r\n")
}
