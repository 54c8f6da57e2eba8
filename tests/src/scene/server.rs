//! The server: small, correct as far as it goes (RFC 5321, RFC 2920), and forgetful of every mail.
//!
//! It refuses a transaction where a mailbox in it asks for that: `no-mail@` as the sender, `no-rcpt@` as a recipient,
//! `no-data@` at DATA, `no-message@` at the end of the content.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::thread::{self, JoinHandle};

use nix::sys::socket::{self, shutdown};

use super::lines::{Lines, verb};

const NAME: &str = "250-mail.server.example\r\n";
const EXTENSIONS: &str = "250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n";

/// Serves this many sessions, each in a thread, and returns when the last has ended.
pub fn serve(listener: &TcpListener, sessions: usize) -> io::Result<()> {
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..sessions {
            let (stream, _) = listener.accept()?;
            let client = Lines::new(stream)?.printed("C: ", "S: ");
            threads.push(scope.spawn(|| session(client, "")));
        }
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// A server that serves whoever comes, until it is dropped.
#[derive(Debug)]
pub struct Serving {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Starts it in this process; a line of `offer`, such as `250-SIZE 1000`, is told to those who say EHLO.
    pub fn start(listener: TcpListener, offer: &'static str) -> io::Result<Self> {
        let accepting = listener.try_clone()?;
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                // A client that breaks off is its own test's business.
                thread::spawn(move || session(Lines::new(stream)?, offer));
            }
        });
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = shutdown(self.listener.as_raw_fd(), socket::Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A mail transaction, as far as it has come.
#[derive(Debug, Default)]
struct Transaction {
    sender: Option<String>,
    recipients: Vec<String>,
}

impl Transaction {
    /// Whether a mailbox in it asks to be refused at this step.
    fn is_refused_at(&self, step: &str) -> bool {
        self.sender.iter().chain(&self.recipients).any(|command| asks(command, step))
    }
}

fn asks(command: &str, step: &str) -> bool {
    command.contains(&format!("<no-{step}@"))
}

/// Serves one client until it quits or closes.
fn session(mut client: Lines, offer: &str) -> io::Result<()> {
    let mut transaction = Transaction::default();
    // Replies to commands that came together go back together.
    let mut replies = String::from("220 mail.server.example ESMTP ready\r\n");
    loop {
        if !client.has_more() {
            client.write(&std::mem::take(&mut replies))?;
        }
        let Some(command) = client.read()? else { return Ok(()) };
        let reply = match verb(&command).as_str() {
            "EHLO" | "HELO" if command.split_ascii_whitespace().nth(1).is_none() => "501 5.5.4 Hostname, please\r\n",
            "EHLO" => {
                transaction = Transaction::default();
                replies.push_str(NAME);
                replies.push_str(offer);
                EXTENSIONS
            }
            "HELO" => {
                transaction = Transaction::default();
                "250 mail.server.example\r\n"
            }
            "MAIL" if transaction.sender.is_none() => {
                if asks(&command, "mail") {
                    "550 5.7.1 Sender refused\r\n"
                } else {
                    transaction.sender = Some(command);
                    "250 2.1.0 Sender ok\r\n"
                }
            }
            "RCPT" if transaction.sender.is_some() => {
                if asks(&command, "rcpt") {
                    "550 5.1.1 Recipient refused\r\n"
                } else {
                    transaction.recipients.push(command);
                    "250 2.1.5 Recipient ok\r\n"
                }
            }
            "DATA" if transaction.is_refused_at("data") => "554 5.7.1 Data refused\r\n",
            "DATA" if !transaction.recipients.is_empty() => {
                client.write(&std::mem::take(&mut replies))?;
                client.write("354 End data with <CR><LF>.<CR><LF>\r\n")?;
                while client.read()?.ok_or(io::ErrorKind::UnexpectedEof)? != ".\r\n" {}
                match std::mem::take(&mut transaction).is_refused_at("message") {
                    true => "550 5.7.1 Message refused\r\n",
                    false => "250 2.0.0 Ok: queued as 4F1C0A77\r\n",
                }
            }
            "RSET" => {
                transaction = Transaction::default();
                "250 2.0.0 Reset\r\n"
            }
            "NOOP" => "250 2.0.0 Still here\r\n",
            "QUIT" => {
                replies.push_str("221 2.0.0 Bye\r\n");
                return client.write(&replies);
            }
            "MAIL" | "RCPT" | "DATA" => "503 5.5.1 Bad sequence of commands\r\n",
            _ => "500 5.5.2 What was that?\r\n",
        };
        replies.push_str(reply);
    }
}
