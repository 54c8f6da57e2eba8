//! What answers in place of a thousand agents: scrapes as they were measured, with counters that grow. These are no agents.
//! What is measured with them is what scrapes and keeps.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use smtp_observer_tests::netns::Host;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::kinds::Kind;
use super::scrape::Growth;

/// The port of an agent.
const PORT: u16 = 9725;

/// The address before that of the first host.
const BEFORE_FIRST: u32 = Ipv4Addr::new(127, 16, 0, 0).to_bits();

/// Of which kind a host of the fleet is: one has a program in the middle; of twenty others, four have no mail, and one is a mail
/// server.
pub fn kind(host: u16) -> Kind {
    match (host, host % 20) {
        (0, _) => Kind::Intercepted,
        (_, 0) => Kind::MailServer,
        (_, 1..=4) => Kind::Idle,
        _ => Kind::Client,
    }
}

/// Where a host of the fleet is.
pub fn address(host: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from_bits(BEFORE_FIRST + 1 + u32::from(host)).into(), PORT)
}

/// What they have in common.
struct StandIns {
    growths: HashMap<Kind, Growth>,
    began: Instant,
    interval: Duration,
    served: Arc<AtomicU64>,
}

/// Starts them on a host of their own: the bytes of scrapes that they will have served.
pub fn start(on: &Host, growths: HashMap<Kind, Growth>, interval: Duration) -> Result<Arc<AtomicU64>> {
    let listener = on.listen(&SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT).to_string())?;
    listener.set_nonblocking(true)?;
    let served = Arc::new(AtomicU64::new(0));
    let all = StandIns { growths, began: Instant::now(), interval, served: Arc::clone(&served) };
    // It goes on until the program ends.
    thread::spawn(move || serve(listener, all));
    Ok(served)
}

fn serve(listener: TcpListener, all: StandIns) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let all = Arc::new(all);
        loop {
            let (stream, _) = listener.accept().await?;
            let all = Arc::clone(&all);
            // Whoever hangs up has had what it wanted.
            tokio::task::spawn_local(async move { all.answer(stream).await });
        }
    }))
}

impl StandIns {
    /// Answers every request on a connection with the scrape of the host that was asked.
    async fn answer(&self, stream: TcpStream) -> Result<()> {
        let SocketAddr::V4(address) = stream.local_addr()? else { return Ok(()) };
        let host = u16::try_from(address.ip().to_bits() - BEFORE_FIRST - 1)?;
        let growth = self.growths.get(&kind(host)).context("a kind that was not measured")?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 0 {
            if line == "\r\n" {
                // Hosts are not all at the same count.
                let loads = self.began.elapsed().as_secs() / self.interval.as_secs() + u64::from(host) % 97;
                let body = growth.after(loads);
                self.served.fetch_add(body.len() as u64, Ordering::Relaxed);
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
                     Content-Length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + &body).as_bytes()).await?;
            }
            line.clear();
        }
        Ok(())
    }
}
