mod history;

use super::verdicts::MAX_INTERCEPTIONS;
use super::*;
use crate::observation::{Anomaly, AnomalyKind, Command, InterceptedClient, Method, News, Tls, TlsPhase};
use crate::sink::samples::{self, Sample};

fn session(sample: &Sample, events: Vec<Event>) -> ConnectionTable {
    let mut table = ConnectionTable::with_transcripts(3);
    table.take(sample.opened());
    for event in events {
        table.take(sample.at(event));
    }
    table
}

fn only(table: &ConnectionTable) -> &ConnectionState {
    assert_eq!(table.rows().len(), 1);
    table.rows().next().expect("a row")
}

fn found(sample: &Sample, verdict: Verdict) -> Observation {
    let remote = samples::endpoint("192.0.2.25", 25);
    sample.at(Event::Interception(Box::new(Interception {
        verdict,
        method: Method::Redirect,
        interceptor: Some(Sample::server().with_program(6, "/opt/proxy").caller()),
        product: None,
        client: InterceptedClient { process: Some(sample.caller()), connection_id: "b-1".into(), requested: remote },
        upstream: None,
        confidence: 0.9,
        evidence: Vec::new(),
        hold: None,
        news: News::default(),
    })))
}

#[test]
fn a_session_goes_through_its_states() {
    let sample = Sample::client();
    for (events, state, last) in [
        (vec![], State::Connected, None),
        (vec![samples::greeting()], State::Ready, Some((None, Some(220)))),
        (vec![samples::command("MAIL", 250)], State::Envelope, Some((Some("MAIL"), Some(250)))),
        (vec![samples::command("MAIL", 550)], State::Ready, Some((Some("MAIL"), Some(550)))),
        (vec![samples::command("DATA", 354)], State::Content, Some((Some("DATA"), Some(354)))),
        (vec![samples::command("DATA", 354), samples::data()], State::Ready, Some((Some("DATA"), Some(250)))),
        (
            vec![samples::command("MAIL", 250), samples::command("RSET", 250)],
            State::Ready,
            Some((Some("RSET"), Some(250))),
        ),
        (vec![samples::unanswered("QUIT")], State::Quitting, Some((Some("QUIT"), None))),
    ] {
        let table = session(&sample, events);
        let row = only(&table);
        assert_eq!(row.state, state);
        assert_eq!(row.last().as_ref().map(|last| (last.verb.as_deref(), last.code)), last);
    }
    let started = |visible| Event::Tls(Tls { visible, ..Tls::new(TlsPhase::Started) });
    assert_eq!(only(&session(&sample, vec![started(false)])).state, State::Encrypted);
    assert_eq!(only(&session(&sample, vec![samples::greeting(), started(true)])).state, State::Ready);
}

#[test]
fn what_is_over_stays_for_a_while() {
    let sample = Sample::client();
    let mut table = session(&sample, vec![samples::rset()]);
    table.take(sample.closed());
    let row = only(&table);
    assert_eq!((row.state, row.bytes), (State::Closed, Some((311, 2290))));
    assert_eq!(row.note.map(Note::as_str), Some("recipients_rejected"));
    table.forget(Timestamp(samples::TIME.0 + KEPT.as_nanos() as i64));
    assert_eq!(table.rows().len(), 1);
    table.forget(Timestamp(samples::TIME.0 + KEPT.as_nanos() as i64 + 1));
    assert_eq!(table.rows().len(), 0);
    table.take(sample.at(samples::noop()));
    assert_eq!(table.rows().len(), 0, "an explanation that comes late brings nothing back");
}

#[test]
fn the_last_verdict_counts_and_a_withdrawn_one_leaves_nothing() {
    let sample = Sample::client();
    let mut table = session(&sample, vec![]);
    table.take(found(&sample, Verdict::LikelyInterceptor));
    table.take(found(&sample, Verdict::TransparentInterceptor));
    assert_eq!(table.interceptions().count(), 1);
    assert_eq!(only(&table).verdict(), Some(Verdict::TransparentInterceptor));
    assert!(only(&table).intercepted);
    table.take(found(&sample, Verdict::Direct));
    assert_eq!(table.interceptions().count(), 0);
    assert_eq!(only(&table).verdict(), None);
    assert!(!only(&table).intercepted);
}

#[test]
fn rsets_are_counted_and_every_change_shows() {
    let sample = Sample::client();
    let mut table = session(&sample, vec![samples::rset(), samples::rset(), samples::ambiguous()]);
    let seen: Vec<_> = table.rsets().filter(|(_, count)| *count > 0).collect();
    assert_eq!(seen, [(RsetReason::RecipientsRejected, 2), (RsetReason::Ambiguous, 1)]);
    let before = table.changes();
    table.take(sample.closed());
    let closed = table.changes();
    table.forget(Timestamp(i64::MAX));
    assert!(before < closed && closed < table.changes());
}

#[test]
fn a_still_board_has_the_bytes_of_then() {
    let sample = Sample::client();
    let mut table = session(&sample, vec![]);
    let still = table.still(&|_| Some((1, 2)));
    table.take(sample.closed());
    assert_eq!((only(&still).bytes, only(&still).state), (Some((1, 2)), State::Connected));
    assert_eq!(only(&table.still(&|_| None)).bytes, Some((311, 2290)));
}

#[test]
fn many_connections_have_short_transcripts() {
    let sample = Sample::client();
    let mut table = ConnectionTable::with_transcripts(100);
    let connections = 2048;
    let samples: Vec<_> = (0..connections).map(|number| sample.clone().with_id(&format!("b-{number}"))).collect();
    samples.iter().for_each(|sample| table.take(sample.opened()));
    for _ in 0..100 {
        samples.iter().for_each(|sample| table.take(sample.at(samples::delivered())));
    }
    let kept: usize = table.rows().map(|row| row.transcript.len()).sum();
    assert_eq!(kept, MAX_KEPT);
}

#[test]
fn transcripts_have_a_bound_in_bytes() {
    let sample = Sample::client();
    let mut table = ConnectionTable::with_transcripts(32);
    let long = || Event::Command(Command { reply: Some("x".repeat(24_000)), ..command() });
    let costs =
        |table: &ConnectionTable| -> usize { table.rows().flat_map(|row| &row.transcript).map(Retained::cost).sum() };
    for round in 0..100 {
        for number in 0..500 {
            let sample = sample.clone().with_id(&format!("b-{number}"));
            if round == 0 {
                table.take(sample.opened());
            }
            table.take(sample.at(long()));
        }
        assert!(costs(&table) <= MAX_KEPT_BYTES, "{} bytes", costs(&table));
        assert_eq!(table.accounts.ordinary(), costs(&table));
    }
    // The latest is there of each, and all is given back.
    assert!(table.rows().all(|row| !row.transcript.is_empty()));
    assert!(costs(&table) > MAX_KEPT_BYTES / 2);
    assert!(table.accounts.entries() <= MAX_ENTRIES);
    for number in 0..500 {
        table.take(sample.clone().with_id(&format!("b-{number}")).closed());
    }
    table.forget(Timestamp(i64::MAX));
    assert_eq!((table.rows().len(), table.accounts.ordinary(), table.row_bytes, table.owners.bytes()), (0, 0, 0, 0));
}

#[test]
fn what_is_followed_again_is_listed_again() {
    let sample = Sample::client();
    let unfollowed = Event::ConnectionUnfollowed { bytes_sent: 1, bytes_received: 2, duration: Duration::from_secs(1) };
    let long_after = samples::TIME.after(2 * KEPT);
    let gap = Event::Anomaly(Anomaly { kind: AnomalyKind::Gap, detail: "7 bytes".into() });
    for anomalous in [false, true] {
        let events = anomalous.then(|| gap.clone()).into_iter().chain([unfollowed.clone()]);
        let mut table = session(&sample, events.collect());
        assert_eq!(only(&table).state, State::Unfollowed);
        // At once, and after a while.
        table.take(sample.opened());
        assert_eq!((only(&table).state, only(&table).closed, only(&table).bytes), (State::Connected, None, None));
        table.forget(long_after);
        assert_eq!(table.rows().len(), 1, "it is open");
        table.take(sample.at(unfollowed.clone()));
        table.forget(long_after);
        assert_eq!((table.rows().len(), table.len()), (0, usize::from(anomalous)));
        table.take(sample.opened());
        assert_eq!((only(&table).state, table.len()), (State::Connected, 1));
        table.take(sample.closed());
        table.forget(long_after);
        assert_eq!((table.rows().len(), table.len()), (0, usize::from(anomalous)));
    }
}

#[test]
fn a_clock_that_was_set_makes_nothing_older_or_younger() {
    for by in [-5 * 3600, 5 * 3600].map(|seconds: i64| seconds * 1_000_000_000) {
        let [over, open] = ["over", "open"].map(|id| Sample::client().with_id(id));
        let mut table = session(&over, vec![]);
        table.take(over.closed());
        table.set_clock(by);
        let now = samples::TIME.by_clock(by);
        let mut opened = open.opened();
        opened.time = now.after(KEPT / 2);
        table.take(opened);
        let heard = |table: &ConnectionTable| table.heard_last(1)[0].connection.id.to_string();
        assert_eq!((table.rows().len(), heard(&table)), (2, "open".to_owned()));
        table.forget(now.after(2 * KEPT));
        assert_eq!((table.rows().len(), only(&table).closed), (1, None));
    }
}

fn command() -> Command {
    let Event::Command(command) = samples::command("EHLO", 250) else { panic!("a command") };
    command
}

#[test]
fn all_that_is_kept_has_a_bound() {
    let sample = Sample::client();
    let mut table = session(&sample, vec![]);
    for _ in 0..2 * MAX_LATEST {
        table.take(sample.at(samples::noop()));
    }
    assert_eq!(table.since(None).observations.len(), MAX_LATEST);
    assert_eq!(only(&table).transcript.len(), 3);
    for number in 0..MAX_ROWS + 5 {
        table.take(sample.clone().with_id(&format!("b-{}", number + 10)).opened());
    }
    assert_eq!((table.rows().len(), table.unlisted()), (MAX_ROWS, 6));
    for number in 0..MAX_ROWS {
        table.take(sample.clone().with_id(&format!("b-{}", number + 10)).closed());
        table.take(found(&sample.clone().with_id(&format!("b-{}", number + 10)), Verdict::Relay));
    }
    assert_eq!(table.rows().len(), MAX_OVER + 1);
    assert_eq!(table.interceptions().count(), MAX_INTERCEPTIONS);
}

#[test]
fn one_who_looks_again_sees_what_is_new_and_what_is_lost() {
    let sample = Sample::client();
    let mut table = session(&sample, vec![samples::greeting(), samples::noop()]);
    let since = |table: &ConnectionTable, seen| {
        let Since { observations, taken, lost } = table.since(seen);
        (observations.len(), taken, lost)
    };
    assert_eq!(since(&table, None), (3, 3, 0));
    assert_eq!(since(&table, Some(2)), (1, 3, 0));
    assert_eq!(since(&table, Some(3)), (0, 3, 0));
    assert_eq!(since(&table, Some(9)), (0, 3, 0), "a number of another agent");
    let most = MAX_LATEST as u64;
    for _ in 0..most {
        table.take(sample.at(samples::noop()));
    }
    assert_eq!(since(&table, Some(3)), (MAX_LATEST, most + 3, 0));
    assert_eq!(since(&table, Some(1)), (MAX_LATEST, most + 3, 2));
    assert_eq!(since(&table, None), (MAX_LATEST, most + 3, 0));
}

#[test]
fn a_list_that_is_cut_has_those_heard_last() {
    let mut table = ConnectionTable::default();
    for number in 0..5 {
        let mut opened = Sample::client().with_id(&format!("b-{number}")).opened();
        opened.time = Timestamp(samples::TIME.0 + (number * 7) % 5);
        table.take(opened);
    }
    let mut heard: Vec<_> = table.heard_last(2).into_iter().map(|row| row.heard.0 - samples::TIME.0).collect();
    heard.sort_unstable();
    assert_eq!(heard, [3, 4]);
    assert_eq!(table.heard_last(9).len(), 5);
}
