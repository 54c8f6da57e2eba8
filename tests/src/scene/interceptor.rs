//! The interceptor: stands between a client and the server that the client asked for, as virus scanners do.
//!
//! It passes commands and replies through, except those that have to do with the message itself: it wants the whole
//! message before the server sees any of it, so it answers DATA, the end of data and QUIT itself.

use std::io;
use std::net::{SocketAddrV4, TcpStream};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::OriginalDst;

use super::lines::{Lines, verb};

/// Serves one client, then delivers what it has sent.
pub fn intercept(client: TcpStream) -> io::Result<()> {
    let upstream = TcpStream::connect(asked_for(&client)?)?;
    let mut client = Lines::new(client)?;
    let mut upstream = Lines::new(upstream)?.printed("S: ", "C: ");
    let mut envelope = Vec::new();
    let mut message = String::new();

    client.write(&upstream.read_reply()?)?;
    while let Some(command) = client.read()? {
        match verb(&command).as_str() {
            "DATA" => message = take_message(&mut client, &mut upstream)?,
            "QUIT" => {
                client.write("221 Closing connection. Good bye.\r\n")?;
                break;
            }
            other => {
                let reply = upstream.ask(&command)?;
                client.write(&reply)?;
                if matches!(other, "MAIL" | "RCPT") && reply.starts_with('2') {
                    envelope.push(command);
                }
            }
        }
    }
    drop(client);
    deliver(&mut upstream, &envelope, &message)
}

/// The address that the client asked for before its connection was redirected to here.
fn asked_for(client: &TcpStream) -> io::Result<SocketAddrV4> {
    let address = getsockopt(client, OriginalDst)?;
    // The kernel's own structure: both numbers in network byte order.
    Ok(SocketAddrV4::new(u32::from_be(address.sin_addr.s_addr).into(), u16::from_be(address.sin_port)))
}

/// Takes the message off the client while the server hears nothing but NOOPs, one for each time that something arrives.
fn take_message(client: &mut Lines, upstream: &mut Lines) -> io::Result<String> {
    client.write("354 Please start mail input.\r\n")?;
    let mut message = String::new();
    loop {
        let line = client.read()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        message.push_str(&line);
        if line == ".\r\n" {
            client.write("250 Mail queued for delivery.\r\n")?;
            return Ok(message);
        }
        if !client.has_more() {
            upstream.ask("NOOP\r\n")?;
        }
    }
}

/// Sends the message on as if it were a new one. Nobody is left to hear what the server says of it.
fn deliver(upstream: &mut Lines, envelope: &[String], message: &str) -> io::Result<()> {
    if !message.is_empty() {
        upstream.ask("RSET\r\n")?;
        for command in envelope {
            upstream.ask(command)?;
        }
        upstream.ask("DATA\r\n")?;
        upstream.ask(message)?;
    }
    upstream.ask("QUIT\r\n")?;
    Ok(())
}
