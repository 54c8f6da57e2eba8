//! The client: sends one mail, whose body somebody types.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use super::lines::Lines;

/// How long a line of the body takes to be typed.
const TYPING: Duration = Duration::from_millis(500);

const HEADER: &str = "From: <alice@client.example>\r\nTo: <bob@server.example>\r\nSubject: Lunch\r\n\r\n";
const BODY: [&str; 4] = ["Hello Bob,\r\n", "shall we meet at noon?\r\n", "I am paying.\r\n", "Alice\r\n"];

/// Sends the mail, and fails where the server does not answer as a server that takes it.
pub fn send_mail(server: SocketAddr) -> io::Result<()> {
    let mut server = Lines::new(TcpStream::connect(server)?)?.printed("S: ", "C: ");
    expect("220", &server.read_reply()?)?;
    expect("250", &server.ask("EHLO client.example\r\n")?)?;
    expect("250", &server.ask("MAIL FROM:<alice@client.example>\r\n")?)?;
    expect("250", &server.ask("RCPT TO:<bob@server.example>\r\n")?)?;
    expect("354", &server.ask("DATA\r\n")?)?;
    server.write(HEADER)?;
    for line in BODY {
        thread::sleep(TYPING);
        server.write(line)?;
    }
    thread::sleep(TYPING);
    expect("250", &server.ask(".\r\n")?)?;
    expect("221", &server.ask("QUIT\r\n")?)
}

fn expect(code: &str, reply: &str) -> io::Result<()> {
    if reply.starts_with(code) {
        return Ok(());
    }
    Err(io::Error::other(format!("the server should have said {code}, it said: {}", reply.trim_end())))
}
