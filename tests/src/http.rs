//! The few lines of HTTP that asking an agent takes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};

use crate::feed::PATIENCE;

/// The status and the body that a GET brings.
pub fn get(server: SocketAddr, path: &str) -> Result<(u16, String)> {
    get_as(server, path, "*/*")
}

/// The same, in a format that is named.
pub fn get_as(server: SocketAddr, path: &str, accept: &str) -> Result<(u16, String)> {
    ask(server, "GET", path, accept)
}

/// The status and the body that a POST of nothing brings.
pub fn post(server: SocketAddr, path: &str) -> Result<(u16, String)> {
    ask(server, "POST", path, "*/*")
}

/// The head and the body that a GET brings to one who takes gzip.
pub fn get_compressed(server: SocketAddr, path: &str) -> Result<(String, Vec<u8>)> {
    answer(server, "GET", path, "Accept-Encoding: gzip")
}

fn ask(server: SocketAddr, method: &str, path: &str, accept: &str) -> Result<(u16, String)> {
    let (head, body) = answer(server, method, path, &format!("Accept: {accept}"))?;
    let status = head.split(' ').nth(1).context("the answer has no status")?.parse()?;
    Ok((status, String::from_utf8(body)?))
}

fn answer(server: SocketAddr, method: &str, path: &str, header: &str) -> Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(server).with_context(|| format!("connecting to {server}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // 1.0: its answers are not cut into chunks.
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {server}\r\n{header}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("the answer has no end of headers")?;
    let body = answer.split_off(end + 4);
    Ok((String::from_utf8(answer)?, body))
}

/// A scrape in Prometheus' text format.
#[derive(Debug)]
pub struct Metrics(pub String);

impl Metrics {
    /// The sum over the series of a metric that have all these labels, each as `name="value"`. A metric that is not
    /// there at all has no sum.
    pub fn sum(&self, metric: &str, labels: &[&str]) -> Option<f64> {
        let series = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(metric)?;
            if !rest.starts_with(['{', ' ']) {
                return None;
            }
            let (names, value) = rest.rsplit_once(' ')?;
            labels.iter().all(|label| names.contains(label)).then(|| value.parse::<f64>().ok())?
        });
        series.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }
}
