//! A client that begins as one user and ends as another: `changing-client SERVER:PORT UID NAME` connects, reads the greeting,
//! says EHLO, becomes that user, takes that name, and quits.

use std::ffi::CString;
use std::io;
use std::net::TcpStream;

use nix::sys::prctl;
use nix::unistd::{Uid, setuid};
use smtp_observer_tests::scene::lines::Lines;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, uid, name] = &arguments[..] else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut lines = Lines::new(TcpStream::connect(server)?)?;
    lines.read_reply()?;
    lines.ask("EHLO client.example\r\n")?;
    setuid(Uid::from_raw(uid.parse().map_err(io::Error::other)?))?;
    prctl::set_name(&CString::new(&**name)?)?;
    lines.ask("NOOP\r\n")?;
    lines.ask("QUIT\r\n").map(drop)
}
