//! One JSON object for each conversation.

use std::io::{self, Write};

use serde::Serialize;

use crate::compare::{By, Compared, Conversation, Mark, Note, Report, Row, Turn};
use crate::observation::{Connection, Evidence, Process, Timestamp};
use crate::proxy::dialogue::{Content, Said};

#[derive(Serialize)]
struct Pair<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Side<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Side<'a>>,
    #[serde(flatten)]
    comparison: Option<Comparison<'a>>,
}

/// What is known of conversations that both ends saw.
#[derive(Serialize)]
struct Comparison<'a> {
    paired_by: By,
    differs: bool,
    evidence: &'a [Evidence],
    #[serde(skip_serializing_if = "Option::is_none")]
    data_delay_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_clock_ahead_seconds: Option<f64>,
    notes: &'a [Note],
    rows: Vec<Both<'a>>,
}

#[derive(Serialize)]
struct Side<'a> {
    connection: &'a Connection,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<&'a Process>,
}

#[derive(Serialize)]
struct Both<'a> {
    mark: Mark,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Spoken<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Spoken<'a>>,
}

/// The greeting has no verb.
#[derive(Serialize)]
struct Spoken<'a> {
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    verb: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    argument: Option<&'a str>,
    #[serde(flatten)]
    reply: Option<Reply<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Message<'a>>,
}

#[derive(Serialize)]
struct Reply<'a> {
    code: u16,
    reply: &'a str,
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    #[serde(flatten)]
    reply: Option<Reply<'a>>,
}

/// Writes a line for each pair, then one for each conversation that one end alone saw.
pub fn json(report: &Report<'_>, mut out: impl Write) -> io::Result<()> {
    let ahead = report.clocks.map(|clocks| clocks.ahead as f64 / 1e9);
    let mut line = |pair: &Pair<'_>| {
        serde_json::to_writer(&mut out, pair)?;
        writeln!(out)
    };
    for compared in &report.pairs {
        let rows = compared.rows();
        let (client, server) = (Some(side(compared.client)), Some(side(compared.server)));
        line(&Pair { client, server, comparison: Some(comparison(compared, &rows, ahead)) })?;
    }
    for client in &report.client_only {
        line(&Pair { client: Some(side(client)), server: None, comparison: None })?;
    }
    for server in &report.server_only {
        line(&Pair { client: None, server: Some(side(server)), comparison: None })?;
    }
    Ok(())
}

fn comparison<'a>(compared: &'a Compared<'_>, rows: &[Row<'a>], ahead: Option<f64>) -> Comparison<'a> {
    Comparison {
        paired_by: compared.by,
        differs: compared.differs(),
        evidence: &compared.evidence,
        data_delay_seconds: compared.hold.map(|hold| hold.as_secs_f64()),
        server_clock_ahead_seconds: ahead,
        notes: &compared.notes,
        rows: rows.iter().map(both).collect(),
    }
}

fn side<'a>(conversation: &'a Conversation) -> Side<'a> {
    Side { connection: &conversation.connection, process: conversation.process.as_ref() }
}

fn both<'a>(row: &Row<'a>) -> Both<'a> {
    Both {
        mark: row.mark,
        delay_seconds: row.delay.map(|delay| delay.as_secs_f64()),
        client: row.client.as_ref().map(turn),
        server: row.server.as_ref().map(turn),
    }
}

fn turn<'a>(turn: &Turn<'a>) -> Spoken<'a> {
    Spoken {
        time: turn.time,
        verb: turn.step.map(|step| &*step.verb),
        argument: turn.argument,
        reply: turn.reply.map(reply),
        content: turn.step.and_then(|step| step.content.as_ref()).map(message),
    }
}

fn message(content: &Content) -> Message<'_> {
    Message { size_bytes: content.size, reply: content.reply.as_ref().map(reply) }
}

fn reply(said: &Said) -> Reply<'_> {
    Reply { code: said.code, reply: &said.text }
}
