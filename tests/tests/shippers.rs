//! The examples for rsyslog, run: a real agent's events go through a real rsyslog to what stands in for Elasticsearch, and
//! to librdkafka's own mock of a Kafka broker.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::feed::PATIENCE;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::{self, Running};
use smtp_observer_tests::scene::Scene;
use smtp_observer_tests::unpacked::Root;

const ELASTICSEARCH: &str = include_str!("../../deploy/rsyslog/elasticsearch.conf");
const KAFKA: &str = include_str!("../../deploy/rsyslog/kafka.conf");
const FLEET: &str = include_str!("../../docs/fleet.md");
const PIPELINES: &str = include_str!("../../docs/pipelines.md");

/// What an agent that was killed leaves.
const CUT: &str = r#"{"time":"2026-11-23T17:04:05.123456789Z","event":"smtp.rs"#;

/// What an agent wrote about a mail that went through a program in the middle.
static EVENTS: LazyLock<Result<Vec<String>, String>> = LazyLock::new(|| events().map_err(|error| format!("{error:#}")));

fn events() -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("events.jsonl");
    let agent = Agent::start_silent(&["--events", file.to_str().context("the path is no text")?])?;
    Scene::new()?.play()?;
    agent.stop()?;
    let lines: Vec<String> = fs::read_to_string(file)?.lines().map(str::to_owned).collect();
    let kinds: BTreeSet<String> =
        lines.iter().map(|line| Ok(event(line)?["event"].to_string())).collect::<Result<_>>()?;
    ensure!(kinds.len() > 5 && kinds.contains("\"interception\""), "the scene has only {kinds:?}");
    Ok(lines)
}

fn event(line: &str) -> Result<Value> {
    serde_json::from_str(line).with_context(|| line.to_owned())
}

/// rsyslog with an example in its configuration's directory, and the file that it reads.
struct Shipper {
    root: Root,
}

impl Shipper {
    const FILE: &str = "var/log/smtp-observer/events.jsonl";

    fn new(example: &str) -> Result<Self> {
        let root = Root::new("rsyslog", &[])?;
        for directory in ["etc/rsyslog.d", "var/log/smtp-observer", "var/spool/rsyslog"] {
            root.directory(directory)?;
        }
        let main = "global(workDirectory=\"/var/spool/rsyslog\")\ninclude(file=\"/etc/rsyslog.d/*.conf\")\n";
        root.write("etc/rsyslog.conf", main)?;
        root.write("etc/rsyslog.d/smtp-observer.conf", example)?;
        Ok(Self { root })
    }

    /// Has rsyslog say what it thinks of the example.
    fn check(&self) -> Result<()> {
        let mut rsyslogd = self.root.command_here("/usr/sbin/rsyslogd")?;
        rsyslogd.args(["-N1", "-f", "/etc/rsyslog.conf"]);
        let said = process::run(rsyslogd)?.log;
        // It goes on in spite of much, and says so in a line of its own.
        ensure!(said.len() == 2 && said[1].contains("End of config validation"), "{}", said.join("\n"));
        Ok(())
    }

    /// Lets it read these lines, and more when `arrived` says that the first ones have come; meanwhile the file is rotated.
    fn ship(&self, host: &Host, lines: &[String], mut arrived: impl FnMut(usize) -> Result<()>) -> Result<()> {
        let (first, rest) = lines.split_at(lines.len() / 2);
        self.root.write(Self::FILE, &(first.join("\n") + "\n" + CUT + "\n"))?;
        let mut rsyslogd = self.root.command(host, "/usr/sbin/rsyslogd")?;
        rsyslogd.args(["-n", "-i", "/run/rsyslogd.pid", "-f", "/etc/rsyslog.conf"]);
        let rsyslogd = Running::start(rsyslogd)?;
        let told = |error: anyhow::Error| error.context(rsyslogd.log.so_far().join("\n"));
        arrived(first.len()).map_err(told)?;
        let file = self.root.directory("var/log/smtp-observer")?.join("events.jsonl");
        fs::rename(&file, file.with_extension("jsonl.1"))?;
        self.root.write(Self::FILE, &(rest.join("\n") + "\n"))?;
        arrived(rest.len()).map_err(told)?;
        let ended = rsyslogd.stop()?;
        ensure!(ended.log.is_empty(), "rsyslog says: {}", ended.log.join("\n"));
        Ok(())
    }
}

/// This machine's name, as rsyslog gives it.
fn host_name() -> Result<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
    Ok(name.trim_end().split('.').next().unwrap_or_default().to_owned())
}

fn lines() -> Result<&'static [String]> {
    match &*EVENTS {
        Ok(lines) => Ok(lines),
        Err(error) => bail!("{error}"),
    }
}

#[test]
fn rsyslog_takes_the_examples() -> Result<()> {
    for (name, example) in [("elasticsearch", ELASTICSEARCH), ("kafka", KAFKA)] {
        Shipper::new(example)?.check().context(name)?;
        let link = format!("(../deploy/rsyslog/{name}.conf)");
        ensure!(PIPELINES.contains(&link), "docs/pipelines.md does not show {link}");
    }
    // What a large fleet ships.
    let condition = "$parsesuccess == \"OK\" and $!event != \"smtp.command\"";
    ensure!(FLEET.contains(condition), "docs/fleet.md has another condition");
    let fewer = KAFKA.replace("$parsesuccess == \"OK\"", condition);
    ensure!(fewer != KAFKA, "the example has another condition");
    Shipper::new(&fewer)?.check()?;
    let wrong = KAFKA.replace("dynaKey=\"on\"", "dynamicKey=\"on\"");
    ensure!(Shipper::new(&wrong)?.check().is_err(), "a parameter that there is not is taken");
    Ok(())
}

#[test]
fn every_event_comes_to_elasticsearch_as_it_is() -> Result<()> {
    let host = Host::new()?;
    let stored = stand_in(host.listen("127.0.0.1:9200")?);
    let mut documents = Vec::new();
    Shipper::new(ELASTICSEARCH)?.ship(&host, lines()?, |count| {
        for _ in 0..count {
            documents.push(stored.recv_timeout(PATIENCE).context("no further document comes")??);
        }
        Ok(())
    })?;
    ensure!(stored.try_recv().is_err(), "more came than there is");

    let mut ids = BTreeSet::new();
    for ([action, document], line) in documents.iter().zip(lines()?) {
        let action = event(action)?;
        let id = action["create"]["_id"].as_str().context("a document without an id")?;
        assert_eq!(action, json!({"create": {"_index": "logs-smtp_observer-default", "_id": id}}));
        ensure!(!id.is_empty() && ids.insert(id.to_owned()), "two documents are {id}");
        let mut expected = event(line)?;
        expected["host"] = host_name()?.into();
        expected["@timestamp"] = expected["time"].clone();
        assert_eq!(event(document)?, expected);
    }
    assert_eq!(documents.len(), lines()?.len());
    Ok(())
}

/// What each document of a bulk request is: its action and itself.
type Document = [String; 2];

/// Takes bulk requests as Elasticsearch does, and says of each document that it is stored. It stores none.
fn stand_in(listener: TcpListener) -> Receiver<Result<Document>> {
    let (sender, stored) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            thread::spawn(move || {
                if let Err(error) = stream.map_err(Into::into).and_then(|stream| answer(stream, &sender)) {
                    // Where nobody listens any more, the test is over.
                    let _ = sender.send(Err(error));
                }
            });
        }
    });
    stored
}

fn answer(stream: TcpStream, stored: &Sender<Result<Document>>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let header = |name: &str| {
            let of_name = |line: &'_ str| {
                let (header, value) = line.split_once(": ")?;
                header.eq_ignore_ascii_case(name).then(|| value.to_owned())
            };
            head.lines().find_map(of_name)
        };
        let mut body = vec![0; header("content-length").map_or(Ok(0), |length| length.parse())?];
        if header("expect").is_some() {
            stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        stream.read_exact(&mut body)?;
        let mut items = Vec::new();
        if head.starts_with("POST ") {
            ensure!(head.starts_with("POST /_bulk "), "no bulk request: {head}");
            let kind = header("content-type").unwrap_or_default();
            ensure!(kind.starts_with("application/json") || kind.starts_with("application/x-ndjson"), "{head}");
            let body = String::from_utf8(body)?;
            ensure!(body.ends_with('\n'), "the last line of a bulk request has no end: {body}");
            let lines: Vec<&str> = body.lines().filter(|line| !line.is_empty()).collect();
            ensure!(lines.len().is_multiple_of(2), "a document without its action, or an action without one: {body}");
            for pair in lines.chunks_exact(2) {
                items.push(json!({"create": {"status": 201}}));
                stored.send(Ok([pair[0].to_owned(), pair[1].to_owned()]))?;
            }
        }
        let answer = json!({"took": 1, "errors": false, "items": items}).to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.get_mut().write_all((head + &answer).as_bytes())?;
    }
}

#[test]
fn every_event_comes_to_kafka_with_its_connection_as_key() -> Result<()> {
    let host = Host::new()?;
    // kcat has librdkafka make a broker in this very process, and reads from it what others have written.
    let root = Root::new("rsyslog", &[])?;
    let mut kcat = root.command(&host, "/usr/bin/kcat")?;
    kcat.args(["-C", "-u", "-J", "-t", "smtp-events", "-b", "127.0.0.1:1", "-d", "mock"]);
    kcat.args(["-X", "test.mock.num.brokers=1", "-X", "allow.auto.create.topics=true"]);
    let kcat = Running::start(kcat)?;
    let broker = kcat.log.wait_for("the broker's address", |log| {
        let address = log.iter().find_map(|line| line.split_once(" bootstrap.servers="))?.1;
        Some(address.to_owned())
    })?;
    let example = KAFKA.replace("127.0.0.1:9092", &broker);
    ensure!(example != KAFKA, "the example names no broker");

    let mut expected = 0;
    Shipper::new(&example)?.ship(&host, lines()?, |count| {
        expected += count;
        kcat.output.wait_for(&format!("{expected} messages"), |messages| (messages.len() >= expected).then_some(()))
    })?;
    let messages = kcat.output.so_far();
    drop(kcat);

    let by_connection = |lines: &[String]| -> Result<BTreeMap<String, Vec<Value>>> {
        let mut connections = BTreeMap::<_, Vec<_>>::new();
        for line in lines {
            let mut line = event(line)?;
            line["host"] = host_name()?.into();
            let id = line["connection"]["id"].as_str().context("an event without a connection")?.to_owned();
            connections.entry(id).or_default().push(line);
        }
        Ok(connections)
    };
    let mut partitions = BTreeMap::<String, BTreeSet<u64>>::new();
    let mut payloads = Vec::new();
    for message in &messages {
        let message = event(message)?;
        let payload = message["payload"].as_str().context("a message without content")?;
        let key = message["key"].as_str().context("a message without a key")?;
        assert_eq!(event(payload)?["connection"]["id"], key);
        let partition = message["partition"].as_u64().context("a message without a partition")?;
        partitions.entry(key.to_owned()).or_default().insert(partition);
        payloads.push(payload.to_owned());
    }
    // Each connection's in order; what happens on two of them is in no order.
    assert_eq!(by_connection(&payloads)?, by_connection(lines()?)?);
    ensure!(partitions.values().all(|of_one| of_one.len() == 1), "a connection is in two partitions: {partitions:?}");
    Ok(())
}
