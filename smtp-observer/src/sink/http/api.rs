//! What the page asks for, as JSON: with the names of the events, and with the texts of `trace`.
//!
//! An answer is rendered piece by piece, as its client reads it: a long answer that nobody reads takes no memory.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::stream;
use serde::Serialize;
use serde_json::Value;

use super::access::Sight;
use super::stream::Seat;
use super::{Ask, Context, Unavailable, Verdicts, plain};
use crate::observation::{Caller, Connection, Observation, Timestamp, Verdict};
use crate::sink::connection_table::{ConnectionState, Exchange};
use crate::sink::text::Text;

/// The number of all connections, of which an answer may have a part.
const TOTAL: HeaderName = HeaderName::from_static("x-total-count");

/// How many earlier entries are kept no longer.
const DROPPED: HeaderName = HeaderName::from_static("x-dropped-count");

/// Bytes of a piece, about.
pub(super) const PIECE: usize = 32 * 1024;

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/api/v1/connections", get(connections))
        .route("/api/v1/connections/{id}", get(connection))
        .route("/api/v1/interceptions", get(interceptions))
        .route("/api/v1/observations", get(observations))
}

async fn connections(
    State(context): State<Context>,
    Extension(sight): Extension<Sight>,
) -> Result<Response, Unavailable> {
    let listing = context.ask(Ask::Connections).await?;
    let now = now();
    let mut response = array(listing.rows, move |row, out| sight.write(&View::new(row, now), out));
    response.headers_mut().insert(TOTAL, HeaderValue::from(listing.total));
    Ok(response)
}

async fn connection(
    State(context): State<Context>,
    Extension(sight): Extension<Sight>,
    Path(id): Path<String>,
) -> Result<Response, Unavailable> {
    let Some(row) = context.ask(|reply| Ask::Connection(id, reply)).await? else {
        return Ok(plain(StatusCode::NOT_FOUND, "no such connection: it may be over for long\n"));
    };
    let mut out = Vec::new();
    let observations = row.transcript.iter().map(|kept| Displayed::new(Cow::Owned(kept.shown()))).collect();
    let observations_dropped = Some(row.forgotten).filter(|dropped| *dropped > 0);
    let view = View { observations: Some(observations), observations_dropped, ..View::new(&row, now()) };
    sight.write(&view, &mut out);
    Ok(json(out))
}

async fn interceptions(
    State(context): State<Context>,
    Extension(sight): Extension<Sight>,
) -> Result<Response, Unavailable> {
    let Verdicts { list, dropped } = context.ask(Ask::Interceptions).await?;
    let mut response = array(list, move |found, out| sight.write(&Displayed::new(Cow::Borrowed(&**found)), out));
    response.headers_mut().insert(DROPPED, HeaderValue::from(dropped));
    Ok(response)
}

/// The last observations; for a client that accepts `text/event-stream`, the stream.
async fn observations(
    State(context): State<Context>,
    Extension(seat): Extension<Arc<Seat>>,
    Extension(sight): Extension<Sight>,
    headers: HeaderMap,
) -> Result<Response, Unavailable> {
    let accepts = |kind: &str| {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
        accepted.flat_map(|accept| accept.split(',')).any(|accept| accept.trim().split(';').next() == Some(kind))
    };
    if accepts("text/event-stream") {
        return Ok(context.follow(seat, sight, &headers));
    }
    let since = context.ask(|reply| Ask::Observations(None, reply)).await?;
    Ok(array(since.observations, move |kept, out| sight.write(&Displayed::new(Cow::Owned(kept.shown())), out)))
}

pub(super) fn now() -> Timestamp {
    Timestamp(i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX))
}

/// The field that has a process's arguments, wherever a process is told of.
const ARGUMENTS: &str = "command_line";

impl Sight {
    /// Appends what of this may be seen, in one line. Writing to memory does not fail, nor do these values.
    pub(super) fn write(self, value: &impl Serialize, out: &mut Vec<u8>) {
        let written = match self {
            Self::Whole => serde_json::to_writer(&mut *out, value),
            Self::WithoutArguments => serde_json::to_value(value).and_then(|mut value| {
                remove_arguments(&mut value);
                serde_json::to_writer(&mut *out, &value)
            }),
        };
        debug_assert!(written.is_ok(), "{written:?}");
    }
}

fn remove_arguments(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove(ARGUMENTS);
            fields.values_mut().for_each(remove_arguments);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_arguments),
        _ => (),
    }
}

fn json(body: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.into()).into_response()
}

/// An array, rendered as it is read.
fn array<T: Send + 'static>(items: Vec<T>, write: impl Fn(&T, &mut Vec<u8>) + Send + 'static) -> Response {
    let mut items = items.into_iter();
    let mut separator = Some("[");
    json(Body::from_stream(stream::poll_fn(move |_| {
        let mut piece = Vec::new();
        while let Some(before) = separator
            && piece.len() < PIECE
        {
            match items.next() {
                Some(item) => {
                    piece.extend_from_slice(before.as_bytes());
                    write(&item, &mut piece);
                    separator = Some(",\n");
                }
                None => {
                    piece.extend_from_slice(if before == "[" { b"[]\n" } else { b"]\n" });
                    separator = None;
                }
            }
        }
        std::task::Poll::Ready((!piece.is_empty()).then(|| Ok::<_, Infallible>(Bytes::from(piece))))
    })))
}

/// A connection, as it is shown.
#[derive(Serialize)]
struct View<'a> {
    connection: &'a Connection,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<&'a Caller>,
    state: &'static str,
    opened: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed: Option<Timestamp>,
    /// Until now, or until it was over.
    age_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Last>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_received: Option<u64>,
    intercepted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observations: Option<Vec<Displayed<'a>>>,
    /// Earlier ones that are kept no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    observations_dropped: Option<u64>,
}

/// An observation, as an event has it, and how it is displayed.
#[derive(Serialize)]
pub(super) struct Displayed<'a> {
    #[serde(flatten)]
    observation: Cow<'a, Observation>,
    /// Absent where another observation's text says the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    display: Option<Display>,
}

/// What a line about an observation says.
#[derive(Serialize)]
struct Display {
    text: String,
    level: &'static str,
}

impl<'a> Displayed<'a> {
    pub(super) fn new(observation: Cow<'a, Observation>) -> Self {
        let text = Text::of(&observation.event, observation.connection.role);
        Self { observation, display: text.map(|text| Display { text: text.to_string(), level: text.level() }) }
    }
}

/// The last reply; the greeting's has no verb, and a command that was not answered no code.
#[derive(Serialize)]
struct Last {
    /// What a line about it says.
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    verb: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    reply: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_seconds: Option<f64>,
}

impl<'a> View<'a> {
    fn new(row: &'a ConnectionState, now: Timestamp) -> Self {
        let age = row.closed.unwrap_or(now).0.saturating_sub(row.opened.0);
        Self {
            connection: &row.connection,
            process: row.owner.as_ref(),
            state: row.state.as_str(),
            opened: row.opened,
            closed: row.closed,
            age_seconds: Duration::from_nanos(u64::try_from(age).unwrap_or(0)).as_secs_f64(),
            last: row.last().map(Last::new),
            note: row.note.map(crate::sink::connection_table::Note::as_str),
            bytes_sent: row.bytes.map(|(sent, _)| sent),
            bytes_received: row.bytes.map(|(_, received)| received),
            intercepted: row.intercepted,
            verdict: row.verdict(),
            observations: None,
            observations_dropped: None,
        }
    }
}

impl Last {
    fn new(Exchange { verb, code, text, latency }: Exchange) -> Self {
        Self {
            text: Text::exchange(verb.as_deref(), code, &text).to_string(),
            verb,
            code,
            reply: text,
            latency_seconds: latency.map(|latency| latency.as_secs_f64()),
        }
    }
}
