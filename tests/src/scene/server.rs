//! The server: small, correct as far as it goes (RFC 5321, RFC 2920), and forgetful of every mail.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::lines::{Lines, verb};

const EHLO: &str = "250-mail.server.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n";

/// Serves this many sessions, each in a thread, and returns when the last has ended.
pub fn serve(listener: &TcpListener, sessions: usize) -> io::Result<()> {
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..sessions {
            let (stream, _) = listener.accept()?;
            threads.push(scope.spawn(|| session(stream)));
        }
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// How far a mail transaction has come.
#[derive(Debug, Default, PartialEq)]
enum Transaction {
    #[default]
    None,
    Sender,
    Recipient,
}

/// Serves one client until it quits or closes.
pub fn session(stream: TcpStream) -> io::Result<()> {
    let mut client = Lines::new(stream)?.printed("C: ", "S: ");
    let mut transaction = Transaction::None;
    // Replies to commands that came together go back together.
    let mut replies = String::from("220 mail.server.example ESMTP ready\r\n");
    loop {
        if !client.has_more() {
            client.write(&std::mem::take(&mut replies))?;
        }
        let Some(command) = client.read()? else { return Ok(()) };
        let reply = match (verb(&command).as_str(), &transaction) {
            ("EHLO" | "HELO", _) if command.split_ascii_whitespace().nth(1).is_none() => {
                "501 5.5.4 Hostname, please\r\n"
            }
            ("EHLO", _) => {
                transaction = Transaction::None;
                EHLO
            }
            ("HELO", _) => {
                transaction = Transaction::None;
                "250 mail.server.example\r\n"
            }
            ("MAIL", Transaction::None) => {
                transaction = Transaction::Sender;
                "250 2.1.0 Sender ok\r\n"
            }
            ("RCPT", Transaction::Sender | Transaction::Recipient) => {
                transaction = Transaction::Recipient;
                "250 2.1.5 Recipient ok\r\n"
            }
            ("DATA", Transaction::Recipient) => {
                client.write(&std::mem::take(&mut replies))?;
                client.write("354 End data with <CR><LF>.<CR><LF>\r\n")?;
                while client.read()?.ok_or(io::ErrorKind::UnexpectedEof)? != ".\r\n" {}
                transaction = Transaction::None;
                "250 2.0.0 Ok: queued as 4F1C0A77\r\n"
            }
            ("RSET", _) => {
                transaction = Transaction::None;
                "250 2.0.0 Reset\r\n"
            }
            ("NOOP", _) => "250 2.0.0 Still here\r\n",
            ("QUIT", _) => {
                replies.push_str("221 2.0.0 Bye\r\n");
                return client.write(&replies);
            }
            ("MAIL" | "RCPT" | "DATA", _) => "503 5.5.1 Bad sequence of commands\r\n",
            _ => "500 5.5.2 What was that?\r\n",
        };
        replies.push_str(reply);
    }
}
