//! The demonstration: plays the scene with an agent beside it, and shows what the agent saw.
//!
//! It succeeds only where what it shows, and says about it, is in the agent's observations.

use std::fmt::Write as _;
use std::io::{IsTerminal, stdout};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::Value;
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::scene::{Pids, SERVER, Scene};
use smtp_observer_tests::seen::{Observed, Seen};

/// What the client is told where the server says something else.
const GO_AHEAD: &str = "Please start mail input.";
const QUEUED: &str = "Mail queued for delivery.";

/// How much of a reply or an argument is shown.
const SHOWN: usize = 58;

/// Plays the scene with an agent beside it.
#[derive(Parser)]
struct Arguments {
    /// All of them speak TLS behind STARTTLS.
    #[arg(long)]
    tls: bool,
    /// Keeps what the agent sees in this new file, for `replay`.
    #[arg(long)]
    record: Option<String>,
}

fn main() -> ExitCode {
    match demonstrate(&Arguments::parse()) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the demonstration failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate(arguments: &Arguments) -> Result<String> {
    let Arguments { tls, record } = arguments;
    let tls = *tls;
    let scene = if tls { Scene::with_tls()? } else { Scene::new()? };
    let hosts = [scene.client_host.clone(), scene.server_host.clone()];
    let hosts = [&hosts[0], &hosts[1]];
    // The client is read from its first word on, however short its life is.
    let mut options = vec!["--addresses", "full", "--tls", if tls { "all" } else { "auto" }];
    options.extend(record.iter().flat_map(|record| ["--record", record]));
    let agent = Agent::start(&options)?;
    let played = scene.play()?;
    agent.wait_for("the end of the three sockets", &hosts, |seen| {
        Sockets::find(seen).is_ok_and(|found| found.are_closed())
    })?;
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "the agent ended with {}:\n{}", stopped.status, stopped.log.join("\n"));
    let sockets = Sockets::find(&stopped.seen.on(&hosts)?)?;
    sockets.check(&played.pids)?;
    sockets.show(Paint { on: stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() })
}

/// The three sockets with port 25 at one of their ends.
struct Sockets {
    client: Seen,
    upstream: Seen,
    server: Seen,
}

impl Sockets {
    fn find(seen: &Seen) -> Result<Self> {
        let of_program = |role: &str, program: &str, end: &str| -> Result<Seen> {
            let (executable, script) = (format!("/{program}"), format!("/{program}.py"));
            let mut sides = seen.sides(role);
            sides.retain(|side| {
                side.0.iter().any(|observed| {
                    observed.text("/process/executable").is_some_and(|path| path.ends_with(&executable))
                        || observed.text("/process/script").is_some_and(|path| path.ends_with(&script))
                }) && side.0.iter().all(|observed| observed.end(end).as_deref() == Some(SERVER))
            });
            <[Seen; 1]>::try_from(sides).map(|[side]| side).map_err(|sides| {
                anyhow::anyhow!("{program} has {} {role} sockets at {SERVER}, there should be one", sides.len())
            })
        };
        Ok(Self {
            client: of_program("client", "mail-client", "remote")?,
            upstream: of_program("client", "antivirus-proxy", "remote")?,
            server: of_program("server", "mail-server", "local")?,
        })
    }

    fn are_closed(&self) -> bool {
        [&self.client, &self.upstream, &self.server].iter().all(|side| side.count("connection.closed") == 1)
    }

    /// Everything that the text says must have been observed.
    fn check(&self, pids: &Pids) -> Result<()> {
        for (side, pid) in
            [(&self.client, pids.client), (&self.upstream, pids.interceptor), (&self.server, pids.server)]
        {
            for observed in side.only(|observed| observed.event().starts_with("smtp.")).0 {
                ensure!(observed.pid() == Some(pid.into()), "pid {pid} is not named as the owner in {observed}");
            }
            ensure!(side.one("connection.closed")?.count("/lost_bytes") == Some(0), "bytes were lost:\n{side}");
            ensure!(side.count("smtp.anomaly") == 0, "nobody broke the protocol:\n{side}");
        }
        let expected = |side: &Seen, go_ahead: &str, numbers: [usize; 4]| -> Result<()> {
            let data = side.one("smtp.data")?;
            ensure!(data.text("/go_ahead") == Some(go_ahead), "the go-ahead is not `{go_ahead}` in {data}");
            ensure!(side.one("smtp.greeting")?.count("/code") == Some(220), "no greeting:\n{side}");
            for (verb, number) in ["MAIL", "DATA", "NOOP", "RSET"].iter().zip(numbers) {
                let count = commands(side, verb);
                ensure!(count == number, "{verb} was seen {count} times, it was said {number} times:\n{side}");
            }
            Ok(())
        };
        expected(&self.client, GO_AHEAD, [1, 1, 0, 0])?;
        expected(&self.upstream, "End data with <CR><LF>.<CR><LF>", [2, 1, 5, 1])?;
        expected(&self.server, "End data with <CR><LF>.<CR><LF>", [2, 1, 5, 1])?;

        for side in [&self.upstream, &self.server] {
            let rset = side.one("smtp.rset")?;
            ensure!(rset.text("/reason") == Some("interceptor_replay"), "the RSET was not seen through: {rset}");
        }
        for noop in self.upstream.of("smtp.noop").0 {
            ensure!(noop.text("/reason") == Some("interceptor_keepalive"), "the NOOP was not seen through: {noop}");
        }
        let verdict = self.verdict()?;
        ensure!(verdict.text("/verdict") == Some("transparent_interceptor"), "another verdict: {verdict}");
        ensure!(verdict.text("/method") == Some("redirect"), "another method: {verdict}");
        let interceptor = verdict.count("/interceptor/pid");
        ensure!(interceptor == Some(pids.interceptor.into()), "another interceptor: {verdict}");
        let told = self.client.one("smtp.data")?;
        ensure!(told.text("/reply") == Some(QUEUED), "the client was not told that its mail is queued: {told}");
        for words in [GO_AHEAD, QUEUED] {
            let said = |observed: &Observed| observed.json().contains(words);
            ensure!(!self.server.0.iter().any(said), "the server did say `{words}`:\n{}", self.server);
        }
        // Times of one format, in one time zone: they compare as they are.
        let handed_on = self.upstream.command("DATA")?;
        ensure!(told.text("/time") < handed_on.text("/time"), "the server heard DATA before the client's mail was in");
        Ok(())
    }

    /// The last one is the best founded.
    fn verdict(&self) -> Result<Observed> {
        self.client.of("interception").0.pop().context("there is no verdict")
    }

    fn show(&self, paint: Paint) -> Result<String> {
        let mut text =
            paint.bold(&format!("A mail client sends a mail to {SERVER}. What smtp-observer saw on this host:\n"));
        for (side, what) in [
            (&self.client, "the client's connection"),
            (&self.upstream, "another connection to the same server"),
            (&self.server, "the server's end"),
        ] {
            text.push('\n');
            show_side(&mut text, side, what, paint);
        }
        show_verdict(&mut text, &self.verdict()?, paint);
        Ok(text)
    }
}

fn commands(side: &Seen, verb: &str) -> usize {
    side.of("smtp.command").only(|command| command.text("/verb") == Some(verb)).0.len()
}

/// What is in the middle, and how that is known.
fn show_verdict(text: &mut String, verdict: &Observed, paint: Paint) {
    let text_of = |pointer: &str| verdict.text(pointer).unwrap_or("?");
    let sure = verdict.number("/confidence").unwrap_or_default() * 100.0;
    let _ = writeln!(
        text,
        "\n{} {}, {sure:.0} % sure\n  {} → {} (by {}) → {}",
        paint.bold("Verdict:"),
        paint.notable(text_of("/verdict")),
        program(verdict, "/client/process"),
        paint.name(program(verdict, "/interceptor")),
        text_of("/method"),
        verdict.endpoint("/upstream/remote").unwrap_or_default(),
    );
    for evidence in verdict.value().pointer("/evidence").and_then(Value::as_array).into_iter().flatten() {
        let of = |name: &str| evidence.get(name).and_then(|value| value.as_str()).unwrap_or("?");
        let _ = writeln!(text, "  {:<28} {}", of("kind"), of("detail"));
    }
    let _ = writeln!(text, "The NOOPs and the RSET are {}'s:", program(verdict, "/interceptor"));
    let _ = writeln!(text, "  NOOP interceptor_keepalive, RSET interceptor_replay");
}

/// The name of the program at a JSON pointer: its script's, where it is an interpreter.
fn program<'a>(observed: &'a Observed, process: &str) -> &'a str {
    let script = observed.text(&format!("{process}/script")).and_then(|path| path.rsplit('/').next());
    script.or_else(|| observed.text(&format!("{process}/name"))).unwrap_or("?")
}

/// The owner of a socket, then its transcript.
fn show_side(text: &mut String, side: &Seen, what: &str, paint: Paint) {
    let Some(owner) = side.0.iter().find(|observed| observed.pid().is_some()) else { return };
    let text_of = |pointer: &str| owner.text(pointer).unwrap_or("?");
    let [local, remote] = ["local", "remote"].map(|end| owner.end(end).unwrap_or_default());
    let (pid, uid) = (owner.pid().unwrap_or_default(), owner.count("/process/uid").unwrap_or_default());
    let arrow = if owner.role() == "client" { "→" } else { "←" };
    let name = paint.name(program(owner, "/process"));
    let _ = writeln!(text, "{name} pid {pid}, uid {uid}: {what}, {local} {arrow} {remote}");
    let _ = writeln!(text, "  {}", owner.text("/process/script").unwrap_or(text_of("/process/executable")));

    let mut lines: Vec<(String, usize)> = Vec::new();
    for observed in &side.0 {
        let Some(line) = transcript_line(observed, paint) else { continue };
        match lines.last_mut() {
            // The same said again is counted, not repeated.
            Some((before, times)) if *before == line => *times += 1,
            _ => lines.push((line, 1)),
        }
    }
    for (line, times) in lines {
        let again = if times > 1 { format!("  × {times}") } else { String::new() };
        let _ = writeln!(text, "  {line}{again}");
    }
}

/// One line of transcript: what was said, and the answer.
fn transcript_line(observed: &Observed, paint: Paint) -> Option<String> {
    let reply = |pointer: &str| {
        let code = observed.count("/code").map(|code| code.to_string()).unwrap_or_default();
        let first = observed.text(pointer).unwrap_or_default().lines().next().unwrap_or_default();
        cut(format!("{code} {first}"))
    };
    match observed.event() {
        "smtp.greeting" => Some(format!("{:<44} {}", "", reply("/text"))),
        "smtp.command" => {
            let command = format!("{} {}", observed.text("/verb")?, observed.text("/argument").unwrap_or_default());
            let reply = reply("/reply");
            let told = ["NOOP", "RSET"].contains(&observed.text("/verb")?) || reply.starts_with("354");
            let line = format!("{:<44} {reply}", cut(command));
            Some(if told { paint.notable(&line) } else { line })
        }
        "smtp.tls" if observed.text("/phase") == Some("started") => Some(paint.bold("  TLS from here on")),
        "smtp.data" => {
            let size = format!("… {} bytes, then a dot", observed.count("/size_bytes")?);
            Some(format!("{size:<44} {}", reply("/reply")))
        }
        // It comes when what follows has told it.
        "smtp.rset" => Some(paint.notable(&format!("  that RSET is {}", observed.text("/reason")?))),
        _ => None,
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Colours, where there is a terminal to show them.
#[derive(Clone, Copy)]
struct Paint {
    on: bool,
}

impl Paint {
    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn name(self, text: &str) -> String {
        self.with("1;36", text)
    }

    fn notable(self, text: &str) -> String {
        self.with("33", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
