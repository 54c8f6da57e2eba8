//! Observations as JSON lines: one object a line.

use crate::observation::Observation;

/// Appends the observation's line.
pub fn write(observation: &Observation, out: &mut Vec<u8>) {
    let start = out.len();
    match serde_json::to_writer(&mut *out, observation) {
        Ok(()) => out.push(b'\n'),
        // Neither an observation nor a vector can fail to be written; half a line must not stand.
        Err(_) => out.truncate(start),
    }
}

/// Marks in the first of these lines that so many before it were lost.
pub fn mark_loss(lost: u64, lines: &mut Vec<u8>) {
    const START: &[u8] = b"{";
    if lines.starts_with(START) {
        let place = START.len();
        lines.splice(place..place, format!("\"lines_lost\":{lost},").into_bytes());
    }
}

#[cfg(test)]
mod schema;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::observation::{Anomaly, AnomalyKind, Event, Tls, TlsPhase};
    use crate::sink::samples::{self, Sample};

    fn line(observation: &Observation) -> Value {
        let mut out = Vec::new();
        write(observation, &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        let (line, rest) = text.split_once('\n').expect("a line");
        assert_eq!(rest, "", "one line");
        serde_json::from_str(line).expect("JSON")
    }

    /// The object without what every line has.
    fn fields(event: Event) -> Value {
        let mut line = line(&Sample::server().at(event));
        let object = line.as_object_mut().expect("an object");
        for common in ["time", "connection", "process"] {
            object.remove(common).expect("every line has it");
        }
        line
    }

    #[test]
    fn what_every_line_has() {
        let sample = Sample::server();
        assert_eq!(
            line(&sample.opened()),
            json!({
                "time": "2026-11-23T17:04:05.123456789Z",
                "event": "connection.opened",
                "connection": {
                    "id": "b-2",
                    "role": "server",
                    "local": {"address": "192.0.2.25", "port": 25},
                    "remote": {"address": "2001:db8::7", "port": 40007},
                    "netns": 4_026_531_840_u32,
                },
                "process": {
                    "pid": 825,
                    "tid": 825,
                    "name": "smtpd",
                    "executable": "/usr/lib/postfix/sbin/smtpd",
                    "command_line": "smtpd -n smtp",
                    "uid": 101,
                    "user": "postfix",
                    "parent": {"pid": 700, "name": "master"},
                    "cgroup": "/system.slice/system-postfix.slice/postfix@-.service",
                    "systemd_unit": "postfix@-.service",
                },
            })
        );
        assert!(line(&sample.without_process().opened()).get("process").is_none());
    }

    #[test]
    fn what_was_lost_before_a_line() {
        let mut lines = Vec::new();
        for _ in 0..2 {
            write(&Sample::server().opened(), &mut lines);
        }
        mark_loss(12, &mut lines);
        let text = String::from_utf8(lines).expect("UTF-8");
        let lost: Vec<Value> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["lines_lost"].clone()).collect();
        assert_eq!(lost, [json!(12), Value::Null]);
    }

    #[test]
    fn connections() {
        let requested = Some(samples::endpoint("203.0.113.9", 25));
        assert_eq!(
            fields(Event::ConnectionOpened { requested }),
            json!({"event": "connection.opened", "requested": {"address": "203.0.113.9", "port": 25}})
        );
        let changed = fields(Event::ConnectionOwnerChanged { previous_process: Sample::client().caller() });
        assert_eq!(changed["event"], "connection.owner_changed");
        assert_eq!(changed["previous_process"]["name"], "perl");
        assert_eq!(
            fields(Sample::server().closed().event),
            json!({
                "event": "connection.closed",
                "bytes_sent": 311,
                "bytes_received": 2290,
                "duration_seconds": 5.5,
                "lost_bytes": 0,
                "closed_by": "local",
                "outstanding_count": 0,
            })
        );
    }

    #[test]
    fn the_dialogue() {
        assert_eq!(
            fields(samples::greeting()),
            json!({
                "event": "smtp.greeting",
                "code": 220,
                "text": "mail.example ESMTP Postfix",
                "software": "Postfix",
                "latency_seconds": 0.02,
            })
        );
        assert_eq!(
            fields(samples::command("EHLO", 250)),
            json!({
                "event": "smtp.command",
                "verb": "EHLO",
                "argument": "client.example",
                "code": 250,
                "reply": "mail.example\nPIPELINING\nSIZE 10240000",
                "latency_seconds": 0.002,
                "pipelined": false,
            })
        );
        assert_eq!(
            fields(samples::unanswered("RCPT")),
            json!({"event": "smtp.command", "verb": "RCPT", "pipelined": true})
        );
        assert_eq!(
            fields(samples::data()),
            json!({
                "event": "smtp.data",
                "verb": "DATA",
                "go_ahead_seconds": 0.25,
                "go_ahead": "End data with <CR><LF>.<CR><LF>",
                "transfer_seconds": 4.0,
                "final_reply_seconds": 0.5,
                "size_bytes": 2048,
                "code": 250,
                "reply": "2.0.0 Ok: queued as 4X1F0",
                "queue_id": "4X1F0",
            })
        );
        assert_eq!(
            fields(samples::delivered()),
            json!({
                "event": "smtp.transaction",
                "outcome": "delivered",
                "sender": "<…@example.org>",
                "recipients_accepted": 1,
                "recipients_rejected": 0,
                "duration_seconds": 5.0,
            })
        );
    }

    #[test]
    fn what_needs_explaining() {
        assert_eq!(
            fields(samples::rset()),
            json!({
                "event": "smtp.rset",
                "reason": "recipients_rejected",
                "evidence": [
                    "MAIL was accepted, 1 recipient was refused",
                    "sent in lower case, as by Python's smtplib",
                ],
                "latency_seconds": 0.002,
                "code": 250,
            })
        );
        assert_eq!(fields(samples::noop())["reason"], "idle_keepalive");
        assert_eq!(
            fields(Event::Tls(Tls { library: Some("openssl".into()), visible: true, ..Tls::new(TlsPhase::Started) })),
            json!({"event": "smtp.tls", "phase": "started", "library": "openssl", "visible": true})
        );
        assert_eq!(
            fields(Event::Anomaly(Anomaly { kind: AnomalyKind::NotSmtp, detail: "GET / HTTP/1.1".into() })),
            json!({"event": "smtp.anomaly", "kind": "not_smtp", "detail": "GET / HTTP/1.1"})
        );
    }

    #[test]
    fn hostile_text_stays_in_its_string() {
        let event = Event::Anomaly(Anomaly { kind: AnomalyKind::NulByte, detail: "\"}\n{\"\u{1b}\u{2028}".into() });
        assert_eq!(fields(event.clone())["detail"], "\"}\n{\"\u{1b}\u{2028}");
        let mut out = Vec::new();
        write(&Sample::server().at(event), &mut out);
        assert_eq!(out.iter().filter(|byte| byte.is_ascii_control()).count(), 1, "only the line's end");
    }

    #[test]
    fn durations_are_decimal_numbers() {
        let Event::ConnectionClosed { bytes_sent, bytes_received, lost_bytes, greeting_bytes, closed_by, .. } =
            Sample::server().closed().event
        else {
            panic!("closed")
        };
        let duration = Duration::from_nanos(1);
        let fields = fields(Event::ConnectionClosed {
            bytes_sent,
            bytes_received,
            duration,
            lost_bytes,
            greeting_bytes,
            closed_by,
            outstanding_count: Some(2),
            outstanding: vec!["RSET", "QUIT"],
        });
        assert_eq!(fields["duration_seconds"].as_f64(), Some(1e-9));
        assert_eq!((&fields["outstanding_count"], &fields["outstanding"]), (&json!(2), &json!(["RSET", "QUIT"])));
    }
}
