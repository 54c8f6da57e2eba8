//! HTTP: `/metrics`, `/healthz` and `/readyz` for machines, the status page and what it asks for people.
//!
//! It has a thread of its own: what clients cost by TLS and by rendering does not delay what is observed.
//!
//! What clients may cost is bounded: a request's head has a size and a time in which it must come, a connection an age,
//! and a newcomer that finds all places taken pushes out the oldest connection, so that idle ones never block a scrape.
//! Streams of the page keep their places, and there are fewer of them than places.

mod access;
mod api;
mod guard;
mod page;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tower_http::compression::CompressionLayer;
use tracing::{debug, warn};

use self::access::Client;
pub use self::access::{Access, TlsError, WebConfigError};
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

/// What is said to who speaks HTTP without TLS where there is TLS.
const WITHOUT_TLS: &str = "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\n\r\nthis address speaks TLS: ask by https\n";

/// How long to wait when there is no descriptor left for a client, and none to be had from another.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Descriptors that clients leave to the agent's other work, such as opening its files again.
const SPARE_DESCRIPTORS: u64 = 16;

/// So many descriptors are enough for all clients and all else.
const PLENTY: u64 = 512;

/// What all requests share.
#[derive(Clone)]
struct Context {
    agent: Agent,
    limits: Limits,
    streams: Arc<Streams>,
}

/// Serves for ever, on a thread of its own.
pub fn start(listener: StdListener, agent: Agent, limits: Limits, access: Access) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || {
        let served =
            runtime.block_on(async { Ok(serve(TcpListener::from_std(listener)?, agent, limits, access).await) });
        let Err::<Infallible, io::Error>(error) = served;
        warn!("HTTP is not served: {error}");
    };
    std::thread::Builder::new().name("http".into()).spawn(serve).map(drop)
}

async fn serve(listener: TcpListener, agent: Agent, limits: Limits, access: Access) -> Infallible {
    let streams = Arc::new(Streams::new(limits.streams));
    let access = Arc::new(access);
    let service = TowerToHyperService::new(router(Context { agent, limits, streams }, Arc::clone(&access)));
    let mut connections = Connections::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!("cannot accept an HTTP client: {error}");
                match connections.push_out() {
                    // Its descriptor is free when its task has been let go of.
                    true => tokio::task::yield_now().await,
                    false => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
                continue;
            }
        };
        connections.0.retain(|(connection, _)| !connection.is_finished());
        while connections.0.len() >= limits.connections && connections.push_out() {}
        while spare_descriptors_are_taken() && connections.push_out() {
            // Its descriptor is free when its task has been let go of.
            tokio::task::yield_now().await;
        }
        let seat = Arc::<Seat>::default();
        let connection = Connection { peer, seat: Arc::clone(&seat), limits, service: service.clone() };
        let access = Arc::clone(&access);
        let task = tokio::spawn(async move {
            if tokio::time::timeout(limits.age, connection.serve(stream, &access)).await.is_err() {
                debug!("an HTTP client was cut off: its connection was open for too long");
            }
        });
        connections.0.push_back((task.abort_handle(), seat));
    }
}

/// The clients' connections, the oldest first.
#[derive(Default)]
struct Connections(VecDeque<(AbortHandle, Arc<Seat>)>);

impl Connections {
    /// Cuts off the oldest, one without a stream first; whether there was one.
    fn push_out(&mut self) -> bool {
        let oldest = self.0.iter().position(|(_, seat)| !seat.is_taken()).unwrap_or(0);
        let Some((oldest, _)) = self.0.remove(oldest) else { return false };
        oldest.abort();
        true
    }
}

/// Whether fewer descriptors are left than clients have to leave (RLIMIT_NOFILE).
fn spare_descriptors_are_taken() -> bool {
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(most, _)| most);
    // Where there are plenty, the bound of connections is reached first, and nothing is counted.
    most < PLENTY && std::fs::read_dir("/proc/self/fd").is_ok_and(|open| open.count() as u64 + SPARE_DESCRIPTORS > most)
}

/// One client's connection.
struct Connection {
    peer: SocketAddr,
    seat: Arc<Seat>,
    limits: Limits,
    service: TowerToHyperService<Router>,
}

impl Connection {
    async fn serve(self, stream: TcpStream, access: &Access) {
        let take = u32::try_from(self.limits.take.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = setsockopt(&stream, sockopt::TcpUserTimeout, &take) {
            debug!("cannot bound the time that an HTTP client takes: {error}");
        }
        let Ok(own) = stream.local_addr() else { return };
        let mut client =
            Client { peer: self.peer, own, certificate: None, certified: false, trusted: OnceLock::default() };
        let Some(tls) = access.tls() else { return self.answer(stream, client).await };
        match tokio::time::timeout(self.limits.head, encrypted(stream, TlsAcceptor::from(tls.server))).await {
            Ok(Ok(Some(stream))) => {
                client.certificate = Some(tls.certificate);
                client.certified = stream.get_ref().1.peer_certificates().is_some();
                self.answer(stream, client).await;
            }
            Ok(Ok(None)) => debug!("an HTTP client was cut off: it does not speak TLS"),
            Ok(Err(error)) => debug!("an HTTP client was cut off: {error}"),
            Err(_) => debug!("an HTTP client was cut off: its handshake took too long"),
        }
    }

    async fn answer(self, stream: impl AsyncRead + AsyncWrite + Unpin, client: Client) {
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(self.limits.head).max_buf_size(HEAD_LENGTH);
        let client = Arc::new(client);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&self.seat));
            request.extensions_mut().insert(Arc::clone(&client));
            self.service.call(request)
        });
        if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
            debug!("an HTTP client was cut off: {error}");
        }
    }
}

/// The stream behind a TLS handshake; none for one who speaks HTTP without, who is told.
async fn encrypted(
    mut stream: TcpStream,
    acceptor: TlsAcceptor,
) -> io::Result<Option<tokio_rustls::server::TlsStream<TcpStream>>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
        stream.write_all(WITHOUT_TLS.as_bytes()).await?;
        stream.shutdown().await?;
        return Ok(None);
    }
    acceptor.accept(stream).await.map(Some)
}

fn router(context: Context, access: Arc<Access>) -> Router {
    Router::new()
        .merge(guard::guarded(page::routes().merge(api::routes())))
        .route("/metrics", get(metrics).layer(CompressionLayer::new()))
        .route("/healthz", get(|| async { plain(StatusCode::OK, "alive\n") }))
        .route("/readyz", get(ready))
        .fallback(|| async { plain(StatusCode::NOT_FOUND, NOT_FOUND) })
        .layer(middleware::from_fn_with_state(access, access::admit))
        .with_state(context)
}

async fn metrics(State(context): State<Context>, headers: HeaderMap) -> Result<impl IntoResponse, Unavailable> {
    let format = Format::accepted(headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()));
    let text = context.ask(|reply| Ask::Metrics(format, reply)).await?;
    let kind = HeaderValue::from_static(format.content_type());
    Ok(([(CONTENT_TYPE, kind), (VARY, ACCEPT.into())], text))
}

async fn ready(State(context): State<Context>) -> Result<Response, Unavailable> {
    let () = context.ask(Ask::Ready).await?;
    Ok(plain(StatusCode::OK, "ready: the hooks are attached\n"))
}

/// The agent does not answer.
struct Unavailable;

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        plain(StatusCode::SERVICE_UNAVAILABLE, "the agent does not answer\n")
    }
}

impl Context {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.agent.asks.send(question(reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(self.limits.answer, asked).await.ok().flatten().ok_or(Unavailable)
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
