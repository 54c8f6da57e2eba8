//! The stream of observations: server-sent events (WHATWG HTML, 9.2).
//!
//! | event | data |
//! | --- | --- |
//! | `hello` | `run`: the same as long as the agent runs; `version` |
//! | `observation` | one, as in the events' file, with its `display`; its `id` is where to go on from |
//! | `lost` | `count`: observations that this client missed |
//! | `now` | `time`: nothing is new, and the agent runs |
//! | `full` | there are too many streams, and this one, the oldest, ends; the client may connect again later |

use std::borrow::Cow;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::access::Sight;
use super::api::{Displayed, PIECE};
use super::{Ask, Context};
use crate::sink::connection_table::{MAX_LATEST, Since};
use crate::sink::retained::Retained;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Asks a proxy in between to pass on each piece at once.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// When a browser connects again after its stream has ended.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// When a browser connects again whose stream ended for a newer one.
const COME_LATER: Duration = Duration::from_secs(15);

/// Marks an HTTP connection that has a stream: it is not closed for a new connection.
#[derive(Debug, Default)]
pub(super) struct Seat {
    taken: AtomicBool,
    leave: Notify,
}

impl Seat {
    /// Whether its connection has a stream.
    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }
}

/// The streams.
#[derive(Debug)]
pub(super) struct Streams {
    most: usize,
    /// The first to come first.
    seats: Mutex<VecDeque<Arc<Seat>>>,
}

impl Streams {
    pub(super) fn new(most: usize) -> Self {
        Self { most, seats: Mutex::default() }
    }

    /// Gives a connection its seat, and ends the oldest stream if there are too many.
    fn seat(&self, seat: &Arc<Seat>) {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.retain(|seat| seat.is_taken());
        seat.taken.store(true, Ordering::Relaxed);
        seats.push_back(Arc::clone(seat));
        while seats.len() > self.most {
            if let Some(oldest) = seats.pop_front() {
                // At once: a client that does not read does not notice the end.
                oldest.taken.store(false, Ordering::Relaxed);
                oldest.leave.notify_one();
            }
        }
    }
}

/// The client of a stream.
struct Viewer {
    context: Context,
    sight: Sight,
    seat: Arc<Seat>,
    /// The number of the last observation that was taken over to `waiting`, or lost; none before the first look.
    seen: Option<u64>,
    /// The number after which it continues, by its `Last-Event-ID`.
    from: Option<u64>,
    /// The observations to be sent next, and the number of the first of them.
    waiting: VecDeque<Retained>,
    next: u64,
    greeted: bool,
    over: bool,
    /// The earliest time to ask the agent again.
    look: Instant,
    end: Instant,
}

impl Context {
    /// The answer to a request for the stream.
    pub(super) fn follow(self, seat: Arc<Seat>, sight: Sight, headers: &HeaderMap) -> Response {
        self.streams.seat(&seat);
        let now = Instant::now();
        let viewer = Viewer {
            from: headers.get(LAST_EVENT_ID).and_then(|id| number(id.to_str().ok()?, &self.agent.run)),
            end: now + self.limits.stream,
            context: self,
            sight,
            seat,
            seen: None,
            waiting: VecDeque::new(),
            next: 0,
            greeted: false,
            over: false,
            look: now,
        };
        let pieces = stream::unfold(viewer, |mut viewer| async {
            let piece = viewer.piece().await?;
            Some((Ok::<_, Infallible>(Bytes::from(piece)), viewer))
        });
        let headers = [(CONTENT_TYPE, "text/event-stream"), (BUFFERING, "no")];
        (headers.map(|(name, value)| (name, HeaderValue::from_static(value))), Body::from_stream(pieces))
            .into_response()
    }
}

/// The number in an id of this run.
fn number(id: &str, run: &str) -> Option<u64> {
    id.strip_prefix(run)?.strip_prefix('-')?.parse().ok()
}

impl Viewer {
    /// The next piece of the stream; none at its end.
    async fn piece(&mut self) -> Option<Vec<u8>> {
        if self.over {
            return None;
        }
        let mut out = Vec::new();
        if !self.greeted {
            self.greeted = true;
            let (run, version) = (&self.context.agent.run, env!("CARGO_PKG_VERSION"));
            retry(&mut out, COME_AGAIN);
            event(&mut out, "hello", &serde_json::json!({"run": &**run, "version": version}));
            return Some(out);
        }
        if self.waiting.is_empty() {
            let heartbeat = Instant::now() + self.context.limits.heartbeat;
            let seat = Arc::clone(&self.seat);
            let end = self.end;
            tokio::select! {
                biased;
                () = seat.leave.notified() => {
                    self.over = true;
                    retry(&mut out, COME_LATER);
                    event(&mut out, "full", &serde_json::json!({}));
                    return Some(out);
                }
                () = sleep_until(end) => return None,
                news = timeout_at(heartbeat, self.news()) => match news {
                    Ok(news) => self.take(news?, &mut out),
                    Err(_) => event(&mut out, "now", &serde_json::json!({"time": super::api::now()})),
                },
            }
        }
        while out.len() < PIECE
            && let Some(observation) = self.waiting.pop_front()
        {
            let _ = write!(out, "id: {}-{}\nevent: observation\ndata: ", self.context.agent.run, self.next);
            self.sight.write(&Displayed::new(Cow::Owned(observation.shown())), &mut out);
            out.extend_from_slice(b"\n\n");
            self.next += 1;
        }
        Some(out)
    }

    /// Waits for new observations. The future may be dropped at any time.
    async fn news(&mut self) -> Option<Since> {
        sleep_until(self.look).await;
        if let Some(seen) = self.seen {
            self.context.agent.taken.wait_for(|taken| *taken > seen).await.ok()?;
        }
        let after = self.seen.or(self.from);
        self.context.ask(|reply| Ask::Observations(after, reply)).await.ok()
    }

    fn take(&mut self, since: Since, out: &mut Vec<u8>) {
        if since.lost > 0 {
            event(out, "lost", &serde_json::json!({"count": since.lost}));
        }
        // What a client missed while it was not connected is not lost by this stream.
        if self.seen.is_some() {
            self.context.agent.dropped.fetch_add(since.lost, Ordering::Relaxed);
        } else {
            event(out, "now", &serde_json::json!({"time": super::api::now()}));
        }
        self.next = since.taken - since.observations.len() as u64 + 1;
        self.seen = Some(since.taken);
        self.waiting = since.observations.into();
        self.look = Instant::now() + self.context.limits.pace;
    }
}

impl Drop for Viewer {
    /// Counts what the client has not read and what is stored no longer.
    fn drop(&mut self) {
        self.seat.taken.store(false, Ordering::Relaxed);
        if let Some(seen) = self.seen {
            let kept = MAX_LATEST as u64;
            let gone = self.context.agent.taken.borrow().saturating_sub(kept);
            self.context.agent.dropped.fetch_add(gone.saturating_sub(seen), Ordering::Relaxed);
        }
    }
}

fn retry(out: &mut Vec<u8>, after: Duration) {
    out.extend_from_slice(format!("retry: {}\n", after.as_millis()).as_bytes());
}

fn event(out: &mut Vec<u8>, name: &str, data: &serde_json::Value) {
    out.extend_from_slice(format!("event: {name}\ndata: {data}\n\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_another_run_leads_nowhere() {
        assert_eq!(number("18a-7", "18a"), Some(7));
        for id in ["18b-7", "18a", "18a-", "18a-x", "7", ""] {
            assert_eq!(number(id, "18a"), None, "{id}");
        }
    }
}
