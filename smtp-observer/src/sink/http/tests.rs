//! The server as its clients see it.

use std::net::SocketAddr;
use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::*;
use crate::observation::{Event, Tls, TlsPhase};
use crate::sink::connection_table::MAX_LATEST;
use crate::sink::samples::{self, Sample};

/// Longer than any test takes; what must end by itself is given a far shorter limit.
const LONG: Duration = Duration::from_secs(60);

pub(super) const LIMITS: Limits = Limits {
    connections: 8,
    head: LONG,
    take: LONG,
    age: LONG,
    answer: LONG,
    streams: 4,
    stream: LONG,
    pace: Duration::ZERO,
    heartbeat: LONG,
};

/// What an agent answers with in these tests, and those whom it tells of what is new.
pub(super) struct TestAgent {
    table: Arc<Mutex<ConnectionTable>>,
    viewers: Viewers,
}

impl TestAgent {
    pub(super) fn observe(&self, observation: Observation) {
        let mut table = self.table.lock().expect("no test panics in it");
        table.take(observation);
        self.viewers.tell(table.taken());
    }
}

async fn start(limits: Limits) -> SocketAddr {
    start_with_table(limits).await.0
}

async fn start_with_table(limits: Limits) -> (SocketAddr, TestAgent) {
    start_with_access(limits, anybody()).await
}

/// Everybody is let in, by one name.
fn anybody() -> Access {
    Access::new(None, vec!["prometheus.example".into()]).expect("nothing to read")
}

pub(super) async fn start_with_access(limits: Limits, access: Access) -> (SocketAddr, TestAgent) {
    let (agent, mut questions, viewers) = channel(1);
    let table = Arc::new(Mutex::new(ConnectionTable::with_transcripts(4)));
    let told = TestAgent { table: Arc::clone(&table), viewers };
    tokio::spawn(async move {
        while let Some(question) = questions.recv().await {
            let table = table.lock().expect("no test panics in it");
            // Who does not wait any more is gone for good reason: a stream of a test that is over.
            match question {
                Ask::Metrics(Format::Text, reply) => reply.send("smtp_connections_open 1\n".into()).ok(),
                Ask::Metrics(Format::OpenMetrics, reply) => reply.send("# EOF\n".into()).ok(),
                Ask::Ready(reply) => reply.send(()).ok(),
                Ask::Connections(reply) => {
                    let rows = table.heard_last(2).into_iter().map(ConnectionState::without_transcript).collect();
                    reply.send(Listing { rows, total: table.len() as u64 }).ok()
                }
                Ask::Connection(id, reply) => reply.send(table.row(&id).cloned()).ok(),
                Ask::Interceptions(reply) => reply.send(Verdicts::of(&table)).ok(),
                Ask::Observations(seen, reply) => reply.send(table.since(seen)).ok(),
            };
        }
    });
    (start_for(limits, agent, access).await, told)
}

async fn start_with(limits: Limits, agent: Agent) -> SocketAddr {
    start_for(limits, agent, anybody()).await
}

async fn start_for(limits: Limits, agent: Agent, access: Access) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(serve(listener, agent, limits, access));
    address
}

/// Everything the server says until it closes.
async fn until_closed(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // Being cut off with a reset is being cut off.
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut text)).await.expect("the server closes");
    String::from_utf8(text).expect("UTF-8")
}

pub(super) async fn request(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("listening");
    stream.write_all(head.as_bytes()).await.expect("connected");
    until_closed(stream).await
}

async fn fetch(address: SocketAddr, path: &str) -> String {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")).await
}

/// The content of a whole answer that comes in chunks.
pub(super) fn content(answer: &str) -> Value {
    let (head, mut rest) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    if !head.contains("transfer-encoding: chunked") {
        return serde_json::from_str(rest).expect("JSON");
    }
    let mut text = String::new();
    while let Some((length, more)) = rest.split_once("\r\n") {
        let (chunk, more) = more.split_at(usize::from_str_radix(length, 16).expect("a length"));
        text.push_str(chunk);
        rest = more.strip_prefix("\r\n").expect("an end");
    }
    serde_json::from_str(&text).expect("JSON")
}

/// One who follows the observations.
struct Follower(BufReader<TcpStream>);

impl Follower {
    async fn start(address: SocketAddr, headers: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("listening");
        let head = "GET /api/v1/observations HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n";
        stream.write_all(format!("{head}{headers}\r\n").as_bytes()).await.expect("connected");
        Self(BufReader::new(stream))
    }

    /// The next event of this name, with its id and its data; none at the stream's end.
    async fn next(&mut self, name: &str) -> Option<(String, Value)> {
        let (mut event, mut id, mut line) = (String::new(), String::new(), String::new());
        loop {
            line.clear();
            let read = tokio::time::timeout(LONG, self.0.read_line(&mut line)).await.expect("it says something");
            // The last chunk, or an end without one.
            if read.unwrap_or(0) == 0 || line == "0\r\n" {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("event", value)) => event = value.into(),
                Some(("id", value)) => id = value.into(),
                Some(("data", value)) if event == name => {
                    return Some((id, serde_json::from_str(value).expect("JSON")));
                }
                _ => (),
            }
        }
    }
}

#[tokio::test]
async fn paths() {
    let address = start(LIMITS).await;
    let metrics = fetch(address, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.ends_with("\r\n\r\nsmtp_connections_open 1\n"), "{metrics}");
    let head = "Accept: application/openmetrics-text; version=1.0.0\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let metrics = request(address, &format!("GET /metrics HTTP/1.1\r\n{head}")).await;
    assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0"), "{metrics}");
    assert!(metrics.ends_with("\r\n\r\n# EOF\n"), "{metrics}");
    assert!(fetch(address, "/healthz").await.ends_with("\r\n\r\nalive\n"));
    assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200 OK\r\n"));
    for path in ["/metrics/", "/page/", "/api/v1", "/page/../metrics", "/../etc/passwd", "/metrics%00"] {
        let missing = fetch(address, path).await;
        assert!(missing.starts_with("HTTP/1.1 404 Not Found\r\n"), "{missing}");
        assert!(missing.contains("content-type: text/plain"), "{missing}");
    }
    let post =
        request(address, "POST /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .await;
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
}

#[tokio::test]
async fn an_agent_that_is_stuck_is_not_ready() {
    let (agent, _questions, _viewers) = channel(1);
    let address = start_with(Limits { answer: Duration::from_millis(10), ..LIMITS }, agent).await;
    assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 503 "));
    assert!(fetch(address, "/metrics").await.starts_with("HTTP/1.1 503 "));
    assert!(fetch(address, "/api/v1/connections").await.starts_with("HTTP/1.1 503 "));
    assert!(fetch(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
    assert!(fetch(address, "/").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_cut_off() {
    let address = start(Limits { head: Duration::from_millis(20), ..LIMITS }).await;
    request(address, "GET /metrics HTTP/1.1\r\nHost: slow").await;
    request(address, "").await;
    // One that is kept open and says no more.
    let kept = request(address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
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

#[tokio::test]
async fn connections_have_the_names_of_the_events() {
    let (address, told) = start_with_table(LIMITS).await;
    assert_eq!(content(&fetch(address, "/api/v1/connections").await), json!([]));
    let sample = Sample::client();
    told.observe(sample.opened());
    told.observe(sample.at(samples::greeting()));
    told.observe(sample.at(samples::rset()));
    told.observe(sample.closed());
    let list = content(&fetch(address, "/api/v1/connections").await);
    let row = &list[0];
    assert_eq!(row["connection"]["remote"], json!({"address": "192.0.2.25", "port": 25}));
    assert_eq!((&row["process"]["pid"], &row["process"]["name"]), (&json!(4711), &json!("perl")));
    assert_eq!(row["state"], "closed");
    let last = json!({
        "text": "(greeting) → 220 mail.example ESMTP Postfix",
        "code": 220,
        "reply": "mail.example ESMTP Postfix",
        "latency_seconds": 0.02,
    });
    assert_eq!(row["last"], last);
    assert_eq!(row["note"], "recipients_rejected");
    assert_eq!((&row["bytes_sent"], &row["bytes_received"]), (&json!(311), &json!(2290)));
    assert_eq!((&row["intercepted"], &row["age_seconds"]), (&json!(false), &json!(0.0)));
    assert_eq!(row["opened"], "2026-11-23T17:04:05.123456789Z");
    assert!(row.get("verdict").is_none() && row.get("observations").is_none(), "{row}");

    let one = content(&fetch(address, "/api/v1/connections/b-1").await);
    let events: Vec<_> = one["observations"].as_array().expect("an array").iter().map(|told| &told["event"]).collect();
    assert_eq!(events, ["connection.opened", "smtp.greeting", "smtp.rset", "connection.closed"]);
    assert!(fetch(address, "/api/v1/connections/b-2").await.starts_with("HTTP/1.1 404 "));

    let all = content(&fetch(address, "/api/v1/observations").await);
    assert_eq!(all.as_array().map(Vec::len), Some(4));
    assert_eq!(content(&fetch(address, "/api/v1/interceptions").await), json!([]));
}

#[tokio::test]
async fn observations_come_with_the_text_and_the_level_of_a_trace() {
    let (address, told) = start_with_table(LIMITS).await;
    let sample = Sample::client();
    let offered = Event::Tls(Tls::new(TlsPhase::Offered));
    let shown = [
        (
            samples::greeting(),
            json!({"text": "(greeting) → 220 mail.example ESMTP Postfix (20.0 ms)", "level": "info"}),
        ),
        (offered, Value::Null),
        (
            samples::rset(),
            json!({
                "text": "RSET because recipients_rejected: MAIL was accepted, 1 recipient was refused; sent in lower case, as by \
                    Python's smtplib",
                "level": "notice",
            }),
        ),
        (
            samples::command("RCPT\u{1b}[2J", 550),
            json!({
                "text": "RCPT\\x1b[2J client.example → 550 mail.example (+2 lines) (2.00 ms)",
                "level": "warning",
            }),
        ),
    ];
    told.observe(sample.opened());
    shown.iter().for_each(|(event, _)| told.observe(sample.at(event.clone())));
    let expected: Vec<_> = shown.iter().map(|(_, display)| display).collect();

    let all = content(&fetch(address, "/api/v1/observations").await);
    let all = all.as_array().expect("an array");
    assert_eq!(all[1..].iter().map(|shown| &shown["display"]).collect::<Vec<_>>(), expected);
    // The fields of the event stay as they are.
    assert_eq!((&all[1]["text"], &all[1]["event"]), (&json!("mail.example ESMTP Postfix"), &json!("smtp.greeting")));

    let one = content(&fetch(address, "/api/v1/connections/b-1").await);
    let one = one["observations"].as_array().expect("an array");
    assert_eq!(one.iter().map(|shown| &shown["display"]).collect::<Vec<_>>(), expected);

    let mut follower = Follower::start(address, "").await;
    for expected in all {
        assert_eq!(follower.next("observation").await.map(|(_, shown)| shown).as_ref(), Some(expected));
    }
}

#[tokio::test]
async fn a_list_that_is_cut_says_of_how_many() {
    let (address, told) = start_with_table(LIMITS).await;
    for number in 0..5 {
        told.observe(Sample::client().with_id(&format!("b-{number}")).opened());
    }
    let answer = fetch(address, "/api/v1/connections").await;
    assert!(answer.contains("\r\nx-total-count: 5\r\n"), "{answer}");
    assert_eq!(content(&answer).as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_cut_off() {
    let (address, told) = start_with_table(LIMITS).await;
    told.observe(Sample::client().opened());
    let mut follower = Follower::start(address, "").await;
    follower.next("hello").await.expect("a greeting");
    let (first, opened) = follower.next("observation").await.expect("what was before");
    assert_eq!(opened["event"], "connection.opened");
    told.observe(Sample::client().at(samples::greeting()));
    let (_, greeting) = follower.next("observation").await.expect("what comes");
    assert_eq!(greeting["event"], "smtp.greeting");
    drop(follower);

    let mut follower = Follower::start(address, &format!("Last-Event-ID: {first}\r\n")).await;
    let (_, again) = follower.next("observation").await.expect("what came after the first");
    assert_eq!(again, greeting);
    // An agent that was started anew knows nothing of that.
    let mut follower = Follower::start(address, "Last-Event-ID: 1-2\r\n").await;
    assert_eq!(follower.next("observation").await.expect("all").1, opened);
    assert_eq!(told.viewers.dropped(), 0);
}

#[tokio::test]
async fn one_who_is_too_slow_is_told_what_is_lost_and_it_is_counted() {
    let (address, told) = start_with_table(Limits { pace: Duration::from_millis(1), ..LIMITS }).await;
    told.observe(Sample::client().opened());
    let mut follower = Follower::start(address, "").await;
    follower.next("observation").await.expect("the first");
    // All at once: nobody is given a chance to look in between.
    for _ in 0..MAX_LATEST + 3 {
        told.observe(Sample::client().at(samples::noop()));
    }
    assert_eq!(follower.next("lost").await.expect("a loss").1, json!({"count": 3}));
    for number in 0..MAX_LATEST {
        let (id, _) = follower.next("observation").await.expect("what was kept");
        assert!(id.ends_with(&format!("-{}", number + 5)), "{id}");
    }
    assert_eq!(told.viewers.dropped(), 3);
}

#[tokio::test]
async fn one_who_does_not_read_takes_no_memory_and_his_loss_is_counted_when_he_goes() {
    let (address, told) = start_with_table(LIMITS).await;
    told.observe(Sample::client().opened());
    let mut follower = Follower::start(address, "").await;
    follower.next("observation").await.expect("the first");
    let long = "x".repeat(2000);
    // Far more than the sockets' buffers hold, with time for the stream to send what it can.
    for _ in 0..40 {
        for _ in 0..MAX_LATEST {
            told.observe(Sample::client().with_id(&long).at(samples::noop()));
        }
        tokio::task::yield_now().await;
    }
    drop(follower);
    let counted = async {
        while told.viewers.dropped() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, counted).await.expect("counted");
}

#[tokio::test]
async fn a_stream_ends_in_good_order_and_says_in_between_that_nothing_is_new() {
    let limits = Limits { stream: Duration::from_millis(500), heartbeat: Duration::from_millis(5), ..LIMITS };
    let (address, _told) = start_with_table(limits).await;
    let head =
        "GET /api/v1/observations HTTP/1.1\r\nHost: [::1]\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n";
    let said = request(address, head).await;
    assert!(said.contains("content-type: text/event-stream"), "{said}");
    assert!(said.matches("event: now\n").count() > 1, "{said}");
    assert!(said.ends_with("\r\n0\r\n\r\n"), "not cut off: {said}");
}

#[tokio::test]
async fn of_too_many_streams_the_oldest_has_to_go() {
    let (address, told) = start_with_table(LIMITS).await;
    let mut followers = Vec::new();
    for _ in 0..LIMITS.streams + 1 {
        let mut follower = Follower::start(address, "").await;
        follower.next("now").await.expect("a seat");
        followers.push(follower);
    }
    followers[0].next("full").await.expect("it is told");
    assert!(followers[0].next("observation").await.is_none(), "and that is its end");
    told.observe(Sample::client().opened());
    for follower in &mut followers[1..] {
        follower.next("observation").await.expect("it stays");
    }
}

#[tokio::test]
async fn neither_do_idle_connections_push_out_a_stream_nor_streams_a_scrape() {
    let (address, told) = start_with_table(LIMITS).await;
    let mut follower = Follower::start(address, "").await;
    follower.next("now").await.expect("a seat");
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(address).await.expect("listening"));
    }
    // The last of them is served: so are all that came before it.
    assert!(fetch(address, "/metrics").await.starts_with("HTTP/1.1 200 OK\r\n"));
    told.observe(Sample::client().opened());
    follower.next("observation").await.expect("it was left alone");

    let mut others = Vec::new();
    for _ in 0..64 {
        others.push(Follower::start(address, "").await);
        assert!(fetch(address, "/metrics").await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
}

#[tokio::test]
async fn a_page_that_is_opened_late_has_both_dialogues() {
    let (address, told) = start_with_table(LIMITS).await;
    let (client, upstream) = (Sample::client().with_id("found"), Sample::client().with_id("onward"));
    for sample in [&client, &upstream] {
        told.observe(sample.opened());
        told.observe(sample.at(samples::greeting()));
    }
    told.observe(samples::found(&client, &upstream));
    for sample in [&client, &upstream] {
        told.observe(sample.closed());
    }
    for number in 0..3000 {
        let other = Sample::client().with_id(&format!("other-{number}"));
        told.observe(other.opened());
        told.observe(other.at(samples::noop()));
        told.observe(other.closed());
    }
    let answer = content(&fetch(address, "/api/v1/interceptions").await);
    let found = &answer[0];
    assert_eq!(found["connection"]["id"], json!("found"));
    for (id, lines) in [(&found["client"]["connection_id"], 4), (&found["upstream"]["connection_id"], 3)] {
        let id = id.as_str().expect("an id");
        let connection = content(&fetch(address, &format!("/api/v1/connections/{id}")).await);
        assert_eq!(connection["observations"].as_array().map(Vec::len), Some(lines), "{connection}");
        assert_eq!(connection["observations"][1]["event"], json!("smtp.greeting"));
        assert_eq!(connection.get("observations_dropped"), None);
    }
    let answer = content(&fetch(address, "/api/v1/connections").await);
    let listed: Vec<_> = answer.as_array().expect("an array").iter().map(|row| &row["connection"]["id"]).collect();
    assert_eq!(listed.len(), 2);
    assert!(listed.contains(&&json!("found")) || listed.contains(&&json!("onward")), "{listed:?}");
    let head = fetch(address, "/api/v1/interceptions").await;
    assert!(head.contains("\r\nx-dropped-count: 0\r\n"), "{head}");
}

#[tokio::test]
async fn what_is_kept_no_longer_is_counted() {
    let (address, told) = start_with_table(LIMITS).await;
    let sample = Sample::client();
    told.observe(sample.opened());
    for _ in 0..10 {
        told.observe(sample.at(samples::noop()));
    }
    let connection = content(&fetch(address, "/api/v1/connections/b-1").await);
    // The table of these tests keeps four.
    assert_eq!(connection["observations"].as_array().map(Vec::len), Some(4));
    assert_eq!(connection["observations_dropped"], json!(7));
}

#[tokio::test]
async fn the_page_is_for_its_own_host_and_site_and_says_what_browsers_may() {
    let (address, _told) = start_with_table(LIMITS).await;
    let ask = |path: &str, headers: &str| {
        let head = format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        async move { request(address, &head).await }
    };
    let page = ask("/", "Host: localhost:9725\r\n").await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    for header in [
        "content-type: text/html; charset=utf-8",
        "content-security-policy: default-src 'none'; script-src 'self'; ",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "cross-origin-resource-policy: same-origin",
    ] {
        assert!(page.contains(&format!("\r\n{header}")), "{header} is missing: {page}");
    }
    for path in [
        "/",
        "/page/main.js",
        "/api/v1/connections",
        "/api/v1/observations",
        "/metrics",
        "/healthz",
        "/readyz",
        "/nothing",
    ] {
        let turned = ask(path, "Host: rebind.example\r\n").await;
        assert!(turned.starts_with("HTTP/1.1 421 "), "{path}: {turned}");
        assert!(turned.contains("content-security-policy"), "{path}: {turned}");
    }
    assert!(ask("/metrics", "Host: prometheus.example\r\n").await.starts_with("HTTP/1.1 200 "));
    let foreign = ask("/api/v1/connections", "Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n").await;
    assert!(foreign.starts_with("HTTP/1.1 403 "), "{foreign}");
    // A link to the page may stand anywhere.
    assert!(ask("/", "Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n").await.starts_with("HTTP/1.1 200 "));
}
