//! Both ends of a connection in one hand, so that a test decides what is said, in which order, to the byte.

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::shutdown;

use crate::feed::PATIENCE;
use crate::netns::Host;
use crate::syscalls::{ORDINARY, Pair};

/// A connection whose two ends are both this process's.
#[derive(Debug)]
pub struct Dialogue {
    /// The end that connected.
    pub client: TcpStream,
    /// The end that was accepted.
    pub server: TcpStream,
    calls: Pair,
}

impl Dialogue {
    /// Connects one host to an address of the other.
    pub fn open(client: &Host, server: &Host, address: &str) -> Result<Self> {
        Self::open_from(client, server, address, address)
    }

    /// Listens at one address and connects to another that leads there.
    pub fn open_from(client: &Host, server: &Host, listen: &str, connect: &str) -> Result<Self> {
        let listener = server.listen(listen)?;
        let client = client.connect(connect)?;
        let (server, _) = listener.accept()?;
        // Closing alone would not do: a child that another test is just starting holds a copy until it executes.
        shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both)?;
        Self::of(client, server)
    }

    /// A connection that was made in a way of its own.
    pub fn of(client: TcpStream, server: TcpStream) -> Result<Self> {
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
        }
        Ok(Self { client, server, calls: ORDINARY })
    }

    /// The client's port, by which its connection is told from others.
    pub fn port(&self) -> Result<u16> {
        Ok(self.client.local_addr()?.port())
    }

    /// Says everything with other system calls than `write` and `read` from now on.
    pub fn with(mut self, calls: Pair) -> Self {
        self.calls = calls;
        self
    }

    /// Says what a transcript says. Its lines begin with `C: ` or `S: `; lines of one side that stand together go out
    /// in one call, and are read whole by the other side before anything else is said. An empty line parts two calls.
    pub fn play(&mut self, transcript: &str) -> Result<()> {
        let mut speech: Option<(&str, String)> = None;
        for line in transcript.lines().map(str::trim_start) {
            let (speaker, text) = match line.split_once(':') {
                Some((speaker @ ("C" | "S"), text)) => (speaker, text.strip_prefix(' ').unwrap_or(text)),
                _ if line.is_empty() => {
                    self.say(speech.take())?;
                    continue;
                }
                _ => bail!("a transcript's line begins with neither `C: ` nor `S: `: {line}"),
            };
            if speech.as_ref().is_some_and(|(before, _)| *before != speaker) {
                self.say(speech.take())?;
            }
            let (_, words) = speech.get_or_insert((speaker, String::new()));
            words.push_str(text);
            words.push_str("\r\n");
        }
        self.say(speech)
    }

    /// Says bytes that are no lines.
    pub fn client_says(&mut self, bytes: &[u8]) -> Result<()> {
        self.pass(&self.client, &self.server, bytes)
    }

    /// The server's.
    pub fn server_says(&mut self, bytes: &[u8]) -> Result<()> {
        self.pass(&self.server, &self.client, bytes)
    }

    /// A server that thinks before it goes on.
    pub fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// The client closes, then the server.
    pub fn close(mut self) -> Result<()> {
        self.client.shutdown(Shutdown::Write)?;
        let mut rest = Vec::new();
        self.server.read_to_end(&mut rest)?;
        if !rest.is_empty() {
            bail!("{} bytes were left unread", rest.len());
        }
        drop(self.server);
        self.client.read_to_end(&mut rest)?;
        Ok(())
    }

    fn say(&self, speech: Option<(&str, String)>) -> Result<()> {
        match speech {
            Some(("C", words)) => self.pass(&self.client, &self.server, words.as_bytes()),
            Some((_, words)) => self.pass(&self.server, &self.client, words.as_bytes()),
            None => Ok(()),
        }
    }

    fn pass(&self, from: &TcpStream, to: &TcpStream, bytes: &[u8]) -> Result<()> {
        let (sending, receiving) = self.calls;
        let mut received = vec![0; bytes.len()];
        sending
            .all(from, bytes)
            .and_then(|()| receiving.all(to, &mut received))
            .with_context(|| format!("saying {:?}", String::from_utf8_lossy(bytes)))?;
        if received != bytes {
            bail!("{:?} arrived as {:?}", String::from_utf8_lossy(bytes), String::from_utf8_lossy(&received));
        }
        Ok(())
    }
}
