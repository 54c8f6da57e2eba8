//! smtp-sink, told to fail at a verb: what Postfix and smtp-source make of it.

use anyhow::{Context, Result};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::postfix::Postfix;
use smtp_observer_tests::process::Running;

use smtp_observer_tests::conversation::{Conversation, observed};

/// What a sender says, why it resets, and what becomes of its mail.
type Said = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

/// A way to fail: an option of smtp-sink and its verb; then what Postfix and what smtp-source make of it. Postfix does not
/// wait for the answer to QUIT, which its end therefore has not always read, and does not reset after a refused message.
const FAILURES: [(&str, &str, Said, Said); 12] = [
    ("-f", "CONNECT", (&["QUIT"], &[], &[]), (&[], &[], &[])),
    (
        "-f",
        "EHLO",
        (&["EHLO 500", "HELO 250", "MAIL 250", "RCPT 250", "DATA 354", "QUIT"], &[], &["delivered"]),
        (&["HELO 250", "MAIL 250", "RCPT 250", "DATA 354", "QUIT"], &[], &["delivered"]),
    ),
    (
        "-f",
        "MAIL",
        (&["EHLO 250", "MAIL 500", "RSET 250", "QUIT"], &["sender_rejected"], &["rejected"]),
        (&["HELO 250", "MAIL 500"], &[], &["rejected"]),
    ),
    (
        "-r",
        "RCPT",
        (&["EHLO 250", "MAIL 250", "RCPT 450", "RSET 250", "QUIT"], &["recipients_rejected"], &["rejected"]),
        (&["HELO 250", "MAIL 250", "RCPT 450"], &[], &["rejected"]),
    ),
    (
        "-f",
        "DATA",
        (&["EHLO 250", "MAIL 250", "RCPT 250", "DATA 500", "RSET 250", "QUIT"], &["data_rejected"], &["rejected"]),
        (&["HELO 250", "MAIL 250", "RCPT 250", "DATA 500"], &[], &["rejected"]),
    ),
    (
        "-r",
        ".",
        (&["EHLO 250", "MAIL 250", "RCPT 250", "DATA 354", "QUIT"], &[], &["rejected"]),
        (&["HELO 250", "MAIL 250", "RCPT 250", "DATA 354"], &[], &["rejected"]),
    ),
    (
        "-f",
        "DATA,RSET",
        (&["EHLO 250", "MAIL 250", "RCPT 250", "DATA 500", "RSET 500", "QUIT"], &["data_rejected"], &["rejected"]),
        (&["HELO 250", "MAIL 250", "RCPT 250", "DATA 500"], &[], &["rejected"]),
    ),
    ("-q", "MAIL", (&["EHLO 250", "MAIL", "RCPT", "DATA"], &[], &[]), (&["HELO 250", "MAIL"], &[], &[])),
    (
        "-q",
        "DATA",
        (&["EHLO 250", "MAIL 250", "RCPT 250", "DATA"], &[], &["abandoned"]),
        (&["HELO 250", "MAIL 250", "RCPT 250", "DATA"], &[], &["abandoned"]),
    ),
    (
        "-q",
        ".",
        (&["EHLO 250", "MAIL 250", "RCPT 250", "DATA 354", "QUIT"], &[], &["abandoned"]),
        (&["HELO 250", "MAIL 250", "RCPT 250", "DATA 354"], &[], &["abandoned"]),
    ),
    (
        "-Q",
        "RCPT",
        // With more than that unanswered at the end, the 421 is the server's farewell, and no reply (RFC 5321, 3.8).
        (&["EHLO 250", "MAIL 250", "RCPT", "DATA"], &[], &["abandoned"]),
        (&["HELO 250", "MAIL 250", "RCPT 421"], &[], &["rejected"]),
    ),
    (
        "-Q",
        ".",
        (&["EHLO 250", "MAIL 250", "RCPT 250", "DATA 354", "QUIT"], &[], &["rejected"]),
        (&["HELO 250", "MAIL 250", "RCPT 250", "DATA 354"], &[], &["rejected"]),
    ),
];

/// Each sink has an address of its own.
fn address(number: usize) -> String {
    format!("127.0.0.{}", number + 2)
}

fn sink(host: &Host, (option, verb, ..): (&str, &str, Said, Said), number: usize) -> Result<Running> {
    let place = format!("{}:25", address(number));
    let mut sink = host.command(machine::installed("smtp-sink")?);
    sink.args(["-u", "nobody", option, verb, &place, "16"]);
    let sink = Running::start(sink)?;
    host.wait_listens(&place)?;
    Ok(sink)
}

#[test]
fn failures_at_every_verb() -> Result<()> {
    let host = Host::new()?;
    let sinks = FAILURES.iter().zip(0..).map(|(failure, number)| sink(&host, *failure, number));
    let sinks = sinks.collect::<Result<Vec<_>>>()?;
    let sender = Postfix::start_with(
        &host,
        &[
            "myhostname = client.example",
            "mydestination = client.example",
            "local_recipient_maps =",
            "inet_interfaces = 127.0.0.1",
        ],
        &[],
    )?;
    let agent = Agent::start(&["--addresses", "full"])?;
    for number in 0..FAILURES.len() {
        let place = address(number);
        let mut source = host.command(machine::installed("smtp-source")?);
        source.args(["-m", "1", "-f", "alice@client.example", "-t", "bob@test.example", &format!("{place}:25")]);
        Running::start(source)?.finish()?;
        sender.submit(&host, "alice@client.example", &format!("bob@[{place}]"))?;
    }
    sender.wait_logged(&["relay=127.0.0", "status="], FAILURES.len())?;
    sender.stop()?;
    let seen = observed(agent, &[&host], |seen| seen.len() >= 2 * FAILURES.len())?;
    drop(sinks);
    for (number, (option, verb, postfix, source)) in FAILURES.iter().enumerate() {
        let remote = format!("{}:25", address(number));
        for (process, (said, reasons, outcomes)) in [("smtp", postfix), ("smtp-source", source)] {
            println!("{process} where {option} {verb} fails");
            let is_it = |conversation: &&Conversation| {
                conversation.client.0.first().is_some_and(|first| {
                    first.end("remote").as_ref() == Some(&remote) && first.text("/process/name") == Some(process)
                })
            };
            seen.iter()
                .find(is_it)
                .with_context(|| format!("nothing was said to {remote}"))?
                .check(said, reasons, outcomes);
        }
    }
    Ok(())
}
