//! HTTP: `/metrics`, `/healthz` and `/readyz` for machines, the status page and what it asks for people.
//!
//! What clients may cost is bounded: a request's head has a size and a time in which it must come, a connection an age,
//! and a newcomer that finds all places taken pushes out the oldest connection, so that idle ones never block a scrape.
//! Streams of the page keep their places, and there are fewer of them than places.

mod api;
mod guard;
mod page;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::debug;

use self::stream::{Seat, Streams};
use crate::observation::Observation;
use crate::sink::connection_table::{ConnectionState, ConnectionTable, Since};
use crate::sink::metrics::Format;

/// What a request needs of the agent. It answers between two batches of observations, so an answer is also proof that
/// observations are taken in.
#[derive(Debug)]
pub enum Ask {
    /// The metrics' text, in this format.
    Metrics(Format, oneshot::Sender<String>),
    /// A sign of life.
    Ready(oneshot::Sender<()>),
    /// The connections of now.
    Connections(oneshot::Sender<Listing>),
    /// One of them, with what was observed of it last.
    Connection(String, oneshot::Sender<Option<ConnectionState>>),
    /// What is, or was, in the middle of clients' connections.
    Interceptions(oneshot::Sender<Verdicts>),
    /// What was observed after the observation of this number; without a number, what is kept.
    Observations(Option<u64>, oneshot::Sender<Since>),
}

/// The connections of now.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those heard last, without their transcripts.
    pub rows: Vec<ConnectionState>,
    /// How many there are.
    pub total: u64,
}

/// What is, or was, in the middle of clients' connections.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// The latest one of each connection, the latest one last.
    pub list: Vec<Arc<Observation>>,
    /// Verdicts, and connections with a verdict or an anomaly, that had to make way for others.
    pub dropped: u64,
}

impl Verdicts {
    /// Those of a table.
    pub fn of(table: &ConnectionTable) -> Self {
        Self { list: table.interceptions().cloned().collect(), dropped: table.dropped() }
    }
}

/// Most connections in a [`Listing`].
pub const MAX_LISTED: usize = 1000;

/// Tells those who follow the observations that there are new ones, and counts what they miss. What they have not seen
/// yet waits on the agent's table alone, so that a slow one takes no memory.
#[derive(Debug)]
pub struct Viewers {
    taken: watch::Sender<u64>,
    dropped: Arc<AtomicU64>,
}

impl Viewers {
    /// The number of the latest observation.
    pub fn tell(&self, taken: u64) {
        self.taken.send_if_modified(|told| std::mem::replace(told, taken) != taken);
    }

    /// Observations that one of them missed since the start, each counted as often as it was missed.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The agent, as HTTP clients reach it.
#[derive(Clone, Debug)]
pub struct Agent {
    asks: mpsc::Sender<Ask>,
    taken: watch::Receiver<u64>,
    dropped: Arc<AtomicU64>,
    /// Tells one run of the agent from the next.
    run: Arc<str>,
}

/// The two ends: what clients reach, and what the agent answers and tells.
pub fn channel(asks: usize) -> (Agent, mpsc::Receiver<Ask>, Viewers) {
    let (asks, questions) = mpsc::channel(asks);
    let (sender, taken) = watch::channel(0);
    let dropped = Arc::<AtomicU64>::default();
    let run = format!("{:x}", jiff::Timestamp::now().as_nanosecond()).into();
    (Agent { asks, taken, dropped: Arc::clone(&dropped), run }, questions, Viewers { taken: sender, dropped })
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
    /// Connections that may follow the observations; of too many, the one that has followed for longest has to go.
    pub streams: usize,
    /// For following them on one connection. It ends in good order, well before the connection's age, and browsers
    /// come again by themselves.
    pub stream: Duration,
    /// From one look at what is new to the next.
    pub pace: Duration,
    /// How often one who follows is told that there is nothing new.
    pub heartbeat: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(10),
            take: Duration::from_secs(10),
            age: Duration::from_secs(600),
            answer: Duration::from_secs(5),
            streams: 16,
            stream: Duration::from_secs(300),
            pace: Duration::from_millis(100),
            heartbeat: Duration::from_secs(5),
        }
    }
}

/// Most bytes of a request's head.
const HEAD_LENGTH: usize = 16 * 1024;

const NOT_FOUND: &str = "not found: try / in a browser, /api/v1/connections, /api/v1/interceptions, \
    /api/v1/observations, /metrics, /healthz or /readyz\n";

/// How long to wait when the host has no descriptor left for a client.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What all requests share.
#[derive(Clone)]
struct Context {
    agent: Agent,
    limits: Limits,
    streams: Arc<Streams>,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, agent: Agent, limits: Limits) -> Infallible {
    let streams = Arc::new(Streams::new(limits.streams));
    let service = TowerToHyperService::new(router(Context { agent, limits, streams }));
    let mut connections: VecDeque<(AbortHandle, Arc<Seat>)> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!("cannot accept an HTTP client: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        connections.retain(|(connection, _)| !connection.is_finished());
        while connections.len() >= limits.connections {
            let oldest = connections.iter().position(|(_, seat)| !seat.is_taken()).unwrap_or(0);
            if let Some((oldest, _)) = connections.remove(oldest) {
                oldest.abort();
            }
        }
        let seat = Arc::<Seat>::default();
        let task = tokio::spawn(connection(stream, service.clone(), Arc::clone(&seat), limits));
        connections.push_back((task.abort_handle(), seat));
    }
}

async fn connection(stream: TcpStream, service: TowerToHyperService<Router>, seat: Arc<Seat>, limits: Limits) {
    let take = u32::try_from(limits.take.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = setsockopt(&stream, sockopt::TcpUserTimeout, &take) {
        debug!("cannot bound the time that an HTTP client takes: {error}");
    }
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(HEAD_LENGTH);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&seat));
        service.call(request)
    });
    match tokio::time::timeout(limits.age, server.serve_connection(TokioIo::new(stream), service)).await {
        Ok(Ok(())) => (),
        Ok(Err(error)) => debug!("an HTTP client was cut off: {error}"),
        Err(_) => debug!("an HTTP client was cut off: its connection was open for too long"),
    }
}

fn router(context: Context) -> Router {
    Router::new()
        .merge(guard::guarded(page::routes().merge(api::routes())))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { plain(StatusCode::OK, "alive\n") }))
        .route("/readyz", get(ready))
        .fallback(|| async { plain(StatusCode::NOT_FOUND, NOT_FOUND) })
        .with_state(context)
}

async fn metrics(State(context): State<Context>, headers: HeaderMap) -> Response {
    let format = Format::accepted(headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()));
    match context.ask(|reply| Ask::Metrics(format, reply)).await {
        Some(text) => {
            let kind = HeaderValue::from_static(format.content_type());
            ([(CONTENT_TYPE, kind), (VARY, ACCEPT.into())], text).into_response()
        }
        None => unavailable(),
    }
}

async fn ready(State(context): State<Context>) -> Response {
    match context.ask(Ask::Ready).await {
        Some(()) => plain(StatusCode::OK, "ready: the hooks are attached\n"),
        None => unavailable(),
    }
}

fn unavailable() -> Response {
    plain(StatusCode::SERVICE_UNAVAILABLE, "the agent does not answer\n")
}

impl Context {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.agent.asks.send(question(reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(self.limits.answer, asked).await.ok().flatten()
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
