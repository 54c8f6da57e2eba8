//! What is worth looking at later, beside floods of what is not.

use super::*;
use crate::observation::{Anomaly, AnomalyKind, Evidence, EvidenceKind};
use crate::sink::connection_table::verdicts::MAX_VERDICT_BYTES;

const SECOND: i64 = 1_000_000_000;

/// A client's connection, the one that carries it on, and what was found of them.
struct Story {
    client: Sample,
    upstream: Sample,
}

impl Story {
    fn new(name: &str, program: (u32, &str)) -> Self {
        let client = Sample::client().with_id(&format!("{name}-client"));
        let upstream = Sample::client().with_id(&format!("{name}-upstream"));
        Self { client, upstream: upstream.with_program(program.0, program.1) }
    }

    fn dialogues(&self, table: &mut ConnectionTable) {
        for sample in [&self.client, &self.upstream] {
            table.take(sample.opened());
            table.take(sample.at(samples::greeting()));
            for verb in ["EHLO", "MAIL", "RCPT"] {
                table.take(sample.at(samples::command(verb, 250)));
            }
        }
    }

    fn is_found(&self, table: &mut ConnectionTable, verdict: Verdict) {
        let mut found = samples::found(&self.client, &self.upstream);
        let Event::Interception(interception) = &mut found.event else { panic!("{found:?}") };
        interception.verdict = verdict;
        interception.evidence.push(Evidence { kind: EvidenceKind::LocalPeer, detail: "x".repeat(200) });
        table.take(found);
    }

    fn ends(&self, table: &mut ConnectionTable) {
        for sample in [&self.client, &self.upstream] {
            table.take(sample.closed());
        }
    }

    fn tell(&self, table: &mut ConnectionTable, verdict: Verdict) {
        self.dialogues(table);
        self.is_found(table, verdict);
        self.ends(table);
    }

    /// Both dialogues are there as a whole, and so is the verdict.
    #[track_caller]
    fn check_is_there(&self, table: &ConnectionTable) {
        for (sample, lines) in [(&self.client, 7), (&self.upstream, 6)] {
            let id = &sample.at(samples::noop()).connection.id;
            let row = table.row(id).unwrap_or_else(|| panic!("{id} is there"));
            assert_eq!((row.transcript.len(), row.forgotten), (lines, 0), "{id}");
            assert!(table.heard_last(10).iter().any(|row| row.connection.id == *id), "{id} is listed");
        }
        let client = &self.client.at(samples::noop()).connection.id;
        assert!(table.interceptions().any(|found| found.connection.id == *client), "{client}");
    }
}

fn anomaly() -> Event {
    Event::Anomaly(Anomaly { kind: AnomalyKind::BareLf, detail: "\\x1b".repeat(50) })
}

/// So many connections of a program, each opened, used with one event more, and closed, a millisecond after each other.
fn flood(table: &mut ConnectionTable, name: &str, program: &str, count: usize, event: fn() -> Event) {
    let sample = Sample::client().with_program(9, program);
    for number in 0..count {
        let sample = sample.clone().with_id(&format!("{name}-{number}"));
        let time = Timestamp(samples::TIME.0 + number as i64 * SECOND / 1000);
        let mut take = |observation: Observation| table.take(Observation { time, ..observation });
        take(sample.opened());
        for _ in 0..5 {
            take(sample.at(samples::command("RCPT", 250)));
        }
        take(sample.at(event()));
        take(sample.closed());
    }
}

#[test]
fn an_interception_is_there_behind_a_flood() {
    let mut table = ConnectionTable::with_transcripts(32);
    let story = Story::new("found", (6, "/opt/proxy"));
    story.tell(&mut table, Verdict::TransparentInterceptor);
    flood(&mut table, "flood", "/usr/sbin/exim4", 40_000, samples::noop);
    assert!(table.rows().all(|row| !row.connection.id.starts_with("found")), "it is over for long");
    story.check_is_there(&table);
    assert_eq!(table.dropped(), 0);
}

#[test]
fn an_open_interception_keeps_its_dialogues_beside_many_open_connections() {
    let mut table = ConnectionTable::with_transcripts(32);
    let story = Story::new("found", (6, "/opt/proxy"));
    story.dialogues(&mut table);
    story.is_found(&mut table, Verdict::TransparentInterceptor);
    let others: Vec<_> = (0..9000).map(|number| Sample::client().with_id(&format!("other-{number}"))).collect();
    others.iter().for_each(|sample| table.take(sample.opened()));
    for _ in 0..10 {
        others.iter().for_each(|sample| table.take(sample.at(samples::command("RCPT", 250))));
    }
    story.ends(&mut table);
    story.check_is_there(&table);
}

#[test]
fn a_flood_of_verdicts_or_anomalies_pushes_out_its_own() {
    let mut table = ConnectionTable::with_transcripts(32);
    let story = Story::new("found", (6, "/opt/proxy"));
    story.tell(&mut table, Verdict::TransparentInterceptor);
    let quiet = Sample::client().with_program(5, "/usr/bin/swaks").with_id("quiet");
    table.take(quiet.opened());
    table.take(quiet.at(anomaly()));
    table.take(quiet.closed());
    // The very program that is in the middle is a relay to others, and another's clients break the protocol.
    for number in 0..3000 {
        Story::new(&format!("relay-{number}"), (6, "/opt/proxy")).tell(&mut table, Verdict::Relay);
    }
    flood(&mut table, "flood", "/usr/sbin/exim4", 20_000, anomaly);
    story.check_is_there(&table);
    assert_eq!(table.row("quiet").map(|row| row.transcript.len()), Some(3));
    assert!(table.accounts.noted() <= MAX_NOTED_BYTES, "{} bytes", table.accounts.noted());
    assert!(table.verdicts.bytes() <= MAX_VERDICT_BYTES && table.interceptions().count() <= MAX_INTERCEPTIONS);
    // What is not there was dropped, and counted: a verdict each of the relays', their connections, and the anomalies.
    let there = table.past.len() + table.rows().filter(|row| row.class > Class::Ordinary).count();
    let told = 2 + 1 + 3000 * 2 + 20_000 + 3001;
    assert_eq!(table.dropped() as usize, told - there - table.interceptions().count());
}

#[test]
fn a_program_that_says_much_pushes_out_its_own_transcripts() {
    let mut table = ConnectionTable::with_transcripts(32);
    let quiet = Sample::client().with_program(5, "/usr/bin/swaks").with_id("quiet");
    table.take(quiet.opened());
    for _ in 0..10 {
        table.take(quiet.at(samples::command("RCPT", 250)));
    }
    let loud: Vec<_> = (0..900)
        .map(|number| Sample::client().with_program(9, "/usr/sbin/exim4").with_id(&format!("loud-{number}")))
        .collect();
    let long = || Event::Command(Command { reply: Some("\\x1b".repeat(3000)), ..command() });
    loud.iter().for_each(|sample| table.take(sample.opened()));
    for _ in 0..50 {
        loud.iter().for_each(|sample| table.take(sample.at(long())));
    }
    let all = table.accounts.ordinary() + table.row_bytes + table.owners.bytes();
    assert!(all <= MAX_KEPT_BYTES && all > MAX_KEPT_BYTES / 2, "{all} bytes");
    assert!(loud.len() * 33 > table.rows().map(|row| row.transcript.len()).sum(), "some of the flood is forgotten");
    assert_eq!(table.row("quiet").map(|row| (row.transcript.len(), row.forgotten)), Some((11, 0)));
}

#[test]
fn connections_have_a_bound_in_bytes() {
    let mut table = ConnectionTable::with_transcripts(32);
    for number in 0..MAX_ROWS {
        // Processes that come and go, as somebody starts them who wants room.
        let program = format!("/tmp/{}", "x".repeat(500));
        let sample = Sample::client().with_id(&format!("b-{number}")).with_program(number as u32, &program);
        table.take(sample.opened());
        table.take(sample.at(samples::command("RCPT", 250)));
    }
    let (rows, bytes) = (table.rows().len(), table.row_bytes + table.owners.bytes());
    assert!(bytes <= MAX_ROW_BYTES + MAX_ROW_BYTES / 8, "{bytes} bytes");
    assert_eq!(rows as u64 + table.unlisted(), MAX_ROWS as u64);
    assert!(table.unlisted() > 0);
    let all = table.accounts.ordinary() + bytes;
    assert!(all <= MAX_KEPT_BYTES, "{all} bytes");
}

#[test]
fn a_verdict_of_a_connection_that_is_gone_is_kept() {
    let mut table = ConnectionTable::with_transcripts(32);
    let story = Story::new("found", (6, "/opt/proxy"));
    story.is_found(&mut table, Verdict::LikelyInterceptor);
    assert_eq!(table.row("found-client").and_then(ConnectionState::verdict), Some(Verdict::LikelyInterceptor));
    story.is_found(&mut table, Verdict::Direct);
    assert!(table.row("found-client").is_none(), "a verdict that is withdrawn leaves nothing");
    assert_eq!((table.accounts.noted(), table.owners.bytes()), (0, 0));
}

#[test]
fn a_long_dialogue_is_cut_and_says_so() {
    let mut table = ConnectionTable::with_transcripts(32);
    let story = Story::new("found", (6, "/opt/proxy"));
    story.dialogues(&mut table);
    story.is_found(&mut table, Verdict::TransparentInterceptor);
    for _ in 0..1000 {
        table.take(story.upstream.at(samples::command("NOOP", 250)));
    }
    let row = table.row("found-upstream").expect("it is open");
    assert_eq!((row.transcript.len(), row.forgotten), (NOTED * 32, 1005 - NOTED as u64 * 32));
    assert!(row.kept <= MAX_NOTED_OF_ONE + 4096);
}
