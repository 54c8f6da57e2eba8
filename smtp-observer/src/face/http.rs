//! HTTP for machines: `/metrics`, `/healthz`, `/readyz`.
//!
//! What clients may cost is bounded: a request's head has a size and a time in which it must come, a connection an age,
//! and a newcomer that finds all places taken pushes out the oldest connection, so that idle ones never block a scrape.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::debug;

use crate::face::metrics::Format;

/// What a request needs of the agent. It answers between two batches of observations, so an answer is also proof that
/// observations are taken in.
#[derive(Debug)]
pub enum Ask {
    /// The metrics' text, in this format.
    Metrics(Format, oneshot::Sender<String>),
    /// A sign of life.
    Ready(oneshot::Sender<()>),
}

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// For a request's head to come, also the next one of a connection that is kept open.
    pub head: Duration,
    /// For the client to take a part of the answer.
    pub take: Duration,
    /// For a connection altogether.
    pub age: Duration,
    /// For the agent to answer.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(10),
            take: Duration::from_secs(10),
            age: Duration::from_secs(600),
            answer: Duration::from_secs(5),
        }
    }
}

/// Most bytes of a request's head.
const HEAD_LENGTH: usize = 16 * 1024;

/// How long to wait when the host has no descriptor left for a client.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone)]
struct Agent {
    asks: mpsc::Sender<Ask>,
    answer: Duration,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, asks: mpsc::Sender<Ask>, limits: Limits) -> Infallible {
    let service = TowerToHyperService::new(router(Agent { asks, answer: limits.answer }));
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!("cannot accept an HTTP client: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        connections.retain(|connection| !connection.is_finished());
        while connections.len() >= limits.connections {
            if let Some(oldest) = connections.pop_front() {
                oldest.abort();
            }
        }
        connections.push_back(tokio::spawn(connection(stream, service.clone(), limits)).abort_handle());
    }
}

async fn connection(stream: TcpStream, service: TowerToHyperService<Router>, limits: Limits) {
    let take = u32::try_from(limits.take.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = setsockopt(&stream, sockopt::TcpUserTimeout, &take) {
        debug!("cannot bound the time that an HTTP client takes: {error}");
    }
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(HEAD_LENGTH);
    match tokio::time::timeout(limits.age, server.serve_connection(TokioIo::new(stream), service)).await {
        Ok(Ok(())) => (),
        Ok(Err(error)) => debug!("an HTTP client was cut off: {error}"),
        Err(_) => debug!("an HTTP client was cut off: its connection was open for too long"),
    }
}

fn router(agent: Agent) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { plain(StatusCode::OK, "alive\n") }))
        .route("/readyz", get(ready))
        .fallback(|| async { plain(StatusCode::NOT_FOUND, "not found: try /metrics, /healthz or /readyz\n") })
        .with_state(agent)
}

async fn metrics(State(agent): State<Agent>, headers: HeaderMap) -> Response {
    let format = Format::accepted(headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()));
    match agent.ask(|reply| Ask::Metrics(format, reply)).await {
        Some(text) => {
            let kind = HeaderValue::from_static(format.content_type());
            ([(CONTENT_TYPE, kind), (VARY, ACCEPT.into())], text).into_response()
        }
        None => plain(StatusCode::SERVICE_UNAVAILABLE, "the agent does not answer\n"),
    }
}

async fn ready(State(agent): State<Agent>) -> Response {
    match agent.ask(Ask::Ready).await {
        Some(()) => plain(StatusCode::OK, "ready: the hooks are attached\n"),
        None => plain(StatusCode::SERVICE_UNAVAILABLE, "the agent does not answer\n"),
    }
}

impl Agent {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.asks.send(question(reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(self.answer, asked).await.ok().flatten()
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Longer than any test takes; what must end by itself is given a far shorter limit.
    const LONG: Duration = Duration::from_secs(60);

    const LIMITS: Limits = Limits { connections: 8, head: LONG, take: LONG, age: LONG, answer: LONG };

    async fn start(limits: Limits) -> SocketAddr {
        let (asks, mut questions) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(question) = questions.recv().await {
                match question {
                    Ask::Metrics(Format::Text, reply) => {
                        reply.send("smtp_connections_open 1\n".into()).expect("waited for");
                    }
                    Ask::Metrics(Format::OpenMetrics, reply) => reply.send("# EOF\n".into()).expect("waited for"),
                    Ask::Ready(reply) => reply.send(()).expect("waited for"),
                }
            }
        });
        start_with(limits, asks).await
    }

    async fn start_with(limits: Limits, asks: mpsc::Sender<Ask>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(serve(listener, asks, limits));
        address
    }

    /// Everything the server says until it closes.
    async fn until_closed(mut stream: TcpStream) -> String {
        let mut text = Vec::new();
        // Being cut off with a reset is being cut off.
        let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut text)).await.expect("the server closes");
        String::from_utf8(text).expect("UTF-8")
    }

    async fn request(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("listening");
        stream.write_all(head.as_bytes()).await.expect("connected");
        until_closed(stream).await
    }

    async fn fetch(address: SocketAddr, path: &str) -> String {
        request(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
    }

    #[tokio::test]
    async fn paths() {
        let address = start(LIMITS).await;
        let metrics = fetch(address, "/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
        assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
        assert!(metrics.ends_with("\r\n\r\nsmtp_connections_open 1\n"), "{metrics}");
        let head = "Accept: application/openmetrics-text; version=1.0.0\r\nHost: x\r\nConnection: close\r\n\r\n";
        let metrics = request(address, &format!("GET /metrics HTTP/1.1\r\n{head}")).await;
        assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0"), "{metrics}");
        assert!(metrics.ends_with("\r\n\r\n# EOF\n"), "{metrics}");
        assert!(fetch(address, "/healthz").await.ends_with("\r\n\r\nalive\n"));
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200 OK\r\n"));
        for path in ["/", "/metrics/", "/../etc/passwd", "/metrics%00"] {
            let missing = fetch(address, path).await;
            assert!(missing.starts_with("HTTP/1.1 404 Not Found\r\n"), "{missing}");
            assert!(missing.contains("content-type: text/plain"), "{missing}");
        }
        let post = request(address, "POST /metrics HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    }

    #[tokio::test]
    async fn an_agent_that_is_stuck_is_not_ready() {
        let (asks, _questions) = mpsc::channel(1);
        let address = start_with(Limits { answer: Duration::from_millis(10), ..LIMITS }, asks).await;
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 503 "));
        assert!(fetch(address, "/metrics").await.starts_with("HTTP/1.1 503 "));
        assert!(fetch(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_to_its_end_is_cut_off() {
        let address = start(Limits { head: Duration::from_millis(20), ..LIMITS }).await;
        request(address, "GET /metrics HTTP/1.1\r\nHost: slow").await;
        request(address, "").await;
        // One that is kept open and says no more.
        let kept = request(address, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(kept.ends_with("alive\n"), "{kept}");
    }

    #[tokio::test]
    async fn idle_connections_do_not_block_a_scrape() {
        let address = start(LIMITS).await;
        let mut idle = Vec::new();
        for _ in 0..1000 {
            idle.push(TcpStream::connect(address).await.expect("listening"));
        }
        assert!(fetch(address, "/metrics").await.starts_with("HTTP/1.1 200 OK\r\n"));
        until_closed(idle.swap_remove(0)).await;
    }

    #[tokio::test]
    async fn a_long_head_is_refused() {
        let address = start(LIMITS).await;
        let long = fetch(address, &format!("/{}", "x".repeat(2 * HEAD_LENGTH))).await;
        assert!(long.is_empty() || long.starts_with("HTTP/1.1 4"), "{long}");
    }

    #[tokio::test]
    async fn a_connection_has_an_age() {
        let address = start(Limits { age: Duration::from_millis(20), ..LIMITS }).await;
        assert_eq!(request(address, "GET /").await, "");
    }
}
