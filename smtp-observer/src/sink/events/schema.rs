//! The published schema describes what is written: every kind of event, every name, and nothing beside them.

use std::collections::BTreeSet;
use std::time::Duration;

use jsonschema::Validator;
use serde_json::{Value, json};

use super::{mark_loss, write};
use crate::fact::evidence::EvidenceList;
use crate::observation::{
    Anomaly, AnomalyKind, ClosedBy, Command, Data, Event, Evidence, EvidenceKind, Greeting, InterceptedClient,
    Interception, Method, News, NoopReason, Observation, Outcome, Process, Reasoned, Role, RsetReason, Tls, TlsPhase,
    TlsUnread, TlsVersion, Transaction, Upstream, Verdict,
};
use crate::sink::samples::{self, Sample, endpoint};
use crate::smtp::{Peer, TlsFailure, Transfer};

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../../docs/events.schema.json")).expect("JSON")
}

fn validator() -> Validator {
    let schema = schema();
    jsonschema::meta::validate(&schema).expect("a schema");
    jsonschema::draft202012::options().should_validate_formats(true).build(&schema).expect("a schema")
}

fn line(observation: &Observation) -> Value {
    let mut out = Vec::new();
    write(observation, &mut out);
    serde_json::from_slice(&out).expect("JSON")
}

fn interception(caller: Option<crate::observation::Caller>) -> Interception {
    Interception {
        verdict: Verdict::TransparentInterceptor,
        method: Method::Redirect,
        interceptor: caller.clone(),
        product: Some("Avast Mail Shield"),
        client: InterceptedClient {
            process: caller,
            connection_id: "b-1".into(),
            requested: endpoint("2001:db8::25", 25),
        },
        upstream: Some(Upstream {
            connection_id: "b-3".into(),
            remote: endpoint("192.0.2.25", 25),
            source_preserved: true,
        }),
        confidence: 0.99,
        evidence: vec![Evidence { kind: EvidenceKind::LocalPeer, detail: "it ends on this host".into() }],
        hold: Some(Duration::from_millis(2500)),
        news: News::default(),
    }
}

/// The first line after a loss.
fn line_behind_loss(observation: &Observation) -> Value {
    let mut out = Vec::new();
    write(observation, &mut out);
    mark_loss(u64::MAX, &mut out);
    serde_json::from_slice(&out).expect("JSON")
}

/// Every kind of event, once with all its fields and once with as few as it can have.
fn events() -> Vec<Event> {
    let caller = Sample::client().caller();
    let bare_interception = Interception {
        interceptor: None,
        product: None,
        client: InterceptedClient { process: None, ..interception(None).client },
        upstream: None,
        evidence: Vec::new(),
        hold: None,
        confidence: 0.0,
        ..interception(None)
    };
    let command = |event| match event {
        Event::Command(command) => command,
        other => panic!("{other:?}"),
    };
    let answered = command(samples::command("RCPT", 550));
    let bare_data = Data {
        verb: "BDAT",
        go_ahead: None,
        go_ahead_text: None,
        transfer: None,
        accept: None,
        size_bytes: None,
        code: None,
        reply: None,
        queue_id: None,
    };
    vec![
        Event::ConnectionOpened { requested: Some(endpoint("203.0.113.9", 25)) },
        Event::ConnectionOpened { requested: None },
        Event::ConnectionOwnerChanged { previous_process: caller.clone() },
        Sample::client().closed().event,
        Event::ConnectionClosed {
            bytes_sent: u64::MAX,
            bytes_received: 0,
            duration: Duration::from_nanos(1),
            lost_bytes: None,
            greeting_bytes: Some(7),
            closed_by: ClosedBy::Unknown,
            outstanding_count: Some(u32::MAX),
            outstanding: vec!["other"; 8],
        },
        Event::ConnectionUnfollowed { bytes_sent: 0, bytes_received: u64::MAX, duration: Duration::from_secs(1) },
        samples::greeting(),
        Event::Greeting(Greeting { code: 554, text: String::new(), software: None, latency: None }),
        Event::Command(Command { enhanced_code: Some("5.1.1".into()), ..answered }),
        Event::Command(Command { length: Some(0), ..command(samples::unanswered("other")) }),
        samples::unanswered("QUIT"),
        samples::rset(),
        Event::Rset(Box::new(Reasoned {
            reason: RsetReason::Ambiguous,
            evidence: EvidenceList::default(),
            latency: None,
            code: None,
        })),
        samples::noop(),
        Event::Noop(Box::new(Reasoned {
            reason: NoopReason::Excessive,
            evidence: EvidenceList::default(),
            latency: None,
            code: None,
        })),
        samples::data(),
        Event::Data(bare_data),
        samples::delivered(),
        Event::Transaction(Transaction {
            outcome: Outcome::Abandoned,
            sender: None,
            recipients_accepted: Some(0),
            recipients_rejected: Some(u32::MAX),
            duration: Some(Duration::ZERO),
        }),
        Event::Transaction(Transaction {
            outcome: Outcome::Rejected,
            sender: None,
            recipients_accepted: None,
            recipients_rejected: None,
            duration: None,
        }),
        Event::Tls(Tls { library: Some("OpenSSL".into()), visible: true, ..Tls::new(TlsPhase::Started) }),
        Event::Tls(Tls::new(TlsPhase::Offered)),
        Event::Tls(Tls { code: Some(454), ..Tls::new(TlsPhase::Refused) }),
        Event::Tls(Tls {
            version: Some(TlsVersion::Tls12),
            cipher: Some("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384".into()),
            server_name: Some("mx.example".into()),
            reason: Some("unknown_ca".into()),
            alert_by: Some("client"),
            ..Tls::new(TlsPhase::Failed)
        }),
        Event::Anomaly(Anomaly { kind: AnomalyKind::NulByte, detail: "\\0\u{1b}\u{2028}".into() }),
        Event::Interception(Box::new(interception(Some(caller)))),
        Event::Interception(Box::new(bare_interception)),
    ]
}

/// A process of which all is known, on an intercepted connection; and none, on another.
fn observations() -> Vec<Observation> {
    let full = Process {
        preload: Some("/opt/wrap.so".into()),
        script: Some("/opt/smtpd.py".into()),
        container_id: Some("4f9c".into()),
        ..Process::clone(&Sample::client().caller().process)
    };
    let mut caller = Sample::client().caller();
    caller.process = full.into();
    let mut observations = Vec::new();
    for event in events() {
        let mut whole = Sample::client().at(event.clone());
        (whole.process, whole.intercepted) = (Some(caller.clone()), true);
        observations.push(whole);
        observations.push(Sample::server().without_process().at(event));
    }
    observations
}

#[test]
fn every_event_is_as_the_schema_says() {
    let (schema, validator) = (schema(), validator());
    let mut kinds = BTreeSet::new();
    let observations = observations();
    for line in observations.iter().flat_map(|it| [line(it), line_behind_loss(it)]) {
        let faults: Vec<String> = validator.iter_errors(&line).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?} in {line}");
        kinds.insert(line["event"].as_str().expect("a name").to_owned());
    }
    let named: BTreeSet<String> = names(&schema["properties"]["event"]["enum"]).into_iter().collect();
    assert_eq!(kinds, named, "the events of the schema have samples");
    assert_eq!(schema["oneOf"].as_array().expect("a list").len(), named.len());
}

/// Every field that is described was written by some sample: none is described that there is not.
#[test]
fn every_field_of_the_schema_is_written() {
    let schema = schema();
    let lines: Vec<Value> = observations().iter().map(line_behind_loss).collect();
    for kind in names(&schema["properties"]["event"]["enum"]) {
        for (field, _) in schema["$defs"][&kind]["properties"].as_object().expect("properties") {
            let is_written = lines.iter().any(|line| line["event"] == kind && line.get(field).is_some());
            assert!(is_written, "no {kind} has `{field}`");
        }
    }
    for (definition, pointer) in [("connection", "/connection"), ("process", "/process"), ("endpoint", "/requested")] {
        for (field, _) in schema["$defs"][definition]["properties"].as_object().expect("properties") {
            let is_written = |line: &Value| line.pointer(pointer).is_some_and(|object| object.get(field).is_some());
            assert!(lines.iter().any(is_written), "no {definition} has `{field}`");
        }
    }
}

#[test]
fn what_the_agent_never_writes_is_refused() {
    let validator = validator();
    let refused = |line: &Value, what: &str| assert!(!validator.is_valid(line), "{what} is taken: {line}");
    for observation in observations() {
        let written = line_behind_loss(&observation);
        let mut objects = vec![String::new()];
        find_objects(&written, "", &mut objects);
        for pointer in objects {
            let mut line = written.clone();
            let object = line.pointer_mut(&pointer).and_then(Value::as_object_mut).expect("an object");
            object.insert("surprise".into(), json!(1));
            refused(&line, "another field");
        }
        for field in ["time", "event", "connection"] {
            let mut line = written.clone();
            line.as_object_mut().expect("an object").remove(field);
            refused(&line, "a missing field");
        }
        for (pointer, wrong) in [
            ("/time", json!("2026-11-23 17:04:05")),
            ("/time", json!("2026-13-23T17:04:05.123456789Z")),
            ("/event", json!("smtp.helo")),
            ("/connection/role", json!("peer")),
            ("/connection/local/address", json!("localhost")),
            ("/connection/local/port", json!(65536)),
            ("/process", Value::Null),
            ("/process/executable", json!("")),
            ("/intercepted", json!(false)),
            ("/lines_lost", json!(0)),
            ("/reason", json!("because")),
            ("/code", json!("250")),
            ("/latency_seconds", json!(-0.1)),
            ("/confidence", json!(1.01)),
            ("/verdict", json!("guilty")),
        ] {
            let mut line = written.clone();
            if let Some(value) = line.pointer_mut(pointer) {
                *value = wrong;
                refused(&line, pointer);
            }
        }
    }
}

/// The places of all objects in a value but itself.
fn find_objects(value: &Value, place: &str, found: &mut Vec<String>) {
    let parts: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
        _ => return,
    };
    for (name, part) in parts {
        let place = format!("{place}/{name}");
        if part.is_object() {
            found.push(place.clone());
        }
        find_objects(part, &place, found);
    }
}

#[test]
fn the_names_are_those_of_the_code() {
    let schema = schema();
    let named = |definition: &str| names(&schema["$defs"][definition]["enum"]);
    macro_rules! same {
        ($definition:literal, $names:ty) => {
            assert_eq!(named($definition), <$names>::ALL.iter().map(|name| name.as_str()).collect::<Vec<_>>());
        };
    }
    same!("rset_reason", RsetReason);
    same!("noop_reason", NoopReason);
    same!("verdict", Verdict);
    same!("method", Method);
    same!("evidence_kind", EvidenceKind);
    same!("closed_by", ClosedBy);
    same!("outcome", Outcome);
    same!("tls_phase", TlsPhase);
    same!("tls_unread", TlsUnread);
    same!("tls_version", TlsVersion);
    let endings = [
        TlsFailure::EncryptedAlert(Peer::Client),
        TlsFailure::NoClientHello,
        TlsFailure::NoServerHello,
        TlsFailure::Closed,
        TlsFailure::AnsweredInClear,
    ];
    let alerts = (0..=u8::MAX).map(|number| TlsFailure::Alert(Peer::Client, number));
    let failures = endings.into_iter().chain(alerts).map(|failure| failure.name().into_owned());
    assert_eq!(named("tls_failure_name"), failures.filter(|name| !name.starts_with("alert_")).collect::<Vec<_>>());
    same!("anomaly_kind", AnomalyKind);
    assert_eq!(named("data_verb"), [Transfer::Data, Transfer::Bdat, Transfer::Burl].map(Transfer::as_str));
    assert_eq!(named("role"), [Role::Client, Role::Server].map(Role::as_str));
}

/// The table for readers has every event and every field.
#[test]
fn the_document_names_all_of_it() {
    let (schema, document) = (schema(), include_str!("../../../../docs/events.md"));
    let mut all = names(&schema["properties"]["event"]["enum"]);
    find_properties(&schema, &mut all);
    for name in all {
        assert!(document.contains(&format!("`{name}`")), "docs/events.md does not name `{name}`");
    }
}

/// The names of all fields that a schema describes, at whatever depth.
fn find_properties(schema: &Value, found: &mut Vec<String>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        found.extend(properties.keys().cloned());
    }
    match schema {
        Value::Object(parts) => parts.values().for_each(|part| find_properties(part, found)),
        Value::Array(parts) => parts.iter().for_each(|part| find_properties(part, found)),
        _ => {}
    }
}

fn names(list: &Value) -> Vec<String> {
    let name = |value: &Value| value.as_str().expect("a name").to_owned();
    list.as_array().expect("a list").iter().map(name).collect()
}
