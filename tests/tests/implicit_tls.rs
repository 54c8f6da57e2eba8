//! TLS that both ends begin with, spoken by openssl(1): what other kernels are asked about TLS, since it needs no more than
//! one program.

use std::io::Write;
use std::process::ChildStdin;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::certificate::Certificate;
use smtp_observer_tests::conversation::{Conversation, observed};
use smtp_observer_tests::feed::PATIENCE;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::process::Running;
use smtp_observer_tests::seen::Observed;
use smtp_observer_tests::tls::check_whole;
use smtp_observer_tests::watch::Watch;

const SERVER: &str = "10.77.0.2:25";

/// Commands before those of the mail.
const EXCHANGES: usize = 500;

/// What no command, reply or address has.
const MARK: &str = "zzzzz";

const SAID: [&str; 13] = [
    "S: 220 mx.example ESMTP",
    "C: EHLO client.example",
    "S: 250 mx.example",
    "C: MAIL FROM:<alice@client.example>",
    "S: 250 2.1.0 Ok",
    "C: RCPT TO:<bob@mx.example>",
    "S: 250 2.1.5 Ok",
    "C: DATA",
    "S: 354 go",
    "C: Subject: zzzzz\r\n\r\nRSET\r\nzzzzz\r\n.",
    "S: 250 2.0.0 Ok: queued",
    "C: QUIT",
    "S: 221 2.0.0 Bye",
];

/// An end of the session: it says what it is given, and prints what it hears.
struct End {
    program: Running,
    input: ChildStdin,
}

impl End {
    fn start(host: &Host, arguments: &[&str]) -> Result<Self> {
        let mut openssl = host.command(machine::installed("openssl")?);
        openssl.args(arguments);
        let (program, input) = Running::start_with_input(openssl)?;
        Ok(Self { program, input })
    }

    fn say(&mut self, text: &str) -> Result<()> {
        Ok(self.input.write_all(format!("{text}\r\n").as_bytes())?)
    }

    /// Waits until it has heard all of this.
    fn hear(&self, text: &str) -> Result<()> {
        let last = text.lines().last().unwrap_or_default();
        let heard = |lines: &[String]| (lines.last().map(|line| line.trim_end()) == Some(last)).then_some(());
        self.program.output.wait_for(text, heard).with_context(|| self.program.log.so_far().join("\n"))
    }
}

#[test]
fn a_session_is_read_and_its_body_stays() -> Result<()> {
    let certificate = Certificate::new()?;
    let (chain, key) = (certificate.chain(), certificate.key());
    let watch = Watch::start(&["--addresses", "full", "--tls", "all"])?;
    let files = ["-cert", &chain.to_string_lossy(), "-key", &key.to_string_lossy()];
    let mut server =
        End::start(&watch.server_host, &[&["s_server", "-quiet", "-accept", SERVER], &files[..]].concat())?;
    watch.server_host.wait_listens(SERVER)?;
    let connect = || End::start(&watch.client_host, &["s_client", "-quiet", "-connect", SERVER]);
    // The agent finds the library with its first sessions, which may have begun by then; what follows is read from its start.
    let begun = Instant::now();
    for number in 1.. {
        let (command, reply) = (format!("HELO client{number}.example"), format!("250 mx{number}.example"));
        let mut client = connect()?;
        client.say(&command)?;
        server.hear(&command)?;
        server.say(&reply)?;
        client.hear(&reply)?;
        drop(client);
        let seen = watch.wait(number)?;
        let is_read = |tls: &Observed| tls.flag("/visible") == Some(true);
        let last = |role| seen.sides(role).pop().unwrap_or_default();
        if ["client", "server"].iter().all(|role| last(role).of("smtp.tls").0.iter().any(is_read)) {
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "neither end is read:\n{seen}");
    }
    let mut client = connect()?;
    // So many that one end's call is put aside for the other's now and then, where the kernel preempts itself.
    let many: Vec<_> =
        (1..=EXCHANGES).flat_map(|number| [format!("C: HELO {number}.example"), format!("S: 250 {number}")]).collect();
    for step in SAID[..1].iter().copied().chain(many.iter().map(String::as_str)).chain(SAID[1..].iter().copied()) {
        let (speaker, text) = step.split_once(": ").context("a speaker")?;
        let (from, to) = if speaker == "C" { (&mut client, &server) } else { (&mut server, &client) };
        from.say(text)?;
        to.hear(text)?;
    }
    drop((client, server));
    let has_mail = |conversation: &Conversation| conversation.client.count("smtp.data") == 1;
    let hosts = [&watch.client_host, &watch.server_host];
    let seen = observed(watch.agent, &hosts, |seen| seen.iter().any(has_mail))?;
    let seen = seen.iter().find(|conversation| has_mail(conversation)).context("no mail")?;
    let commands =
        [["HELO 250"; EXCHANGES].as_slice(), &["EHLO 250", "MAIL 250", "RCPT 250", "DATA 354", "QUIT"]].concat();
    seen.check(&commands, &[], &["delivered"]);
    check_whole(seen)?;
    for end in [&seen.client, &seen.server] {
        let tls = end.one("smtp.tls")?;
        assert_eq!((tls.text("/phase"), tls.text("/library")), (Some("started"), Some("openssl")), "\n{end}");
        ensure!(!end.to_string().contains(MARK), "the body is told:\n{end}");
    }
    Ok(())
}
