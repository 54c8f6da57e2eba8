//! One agent before which paths are taken one after the other, and what it must have seen each time.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};

use super::{Absent, End, Path, Sight};
use crate::seen::Seen;
use crate::watch::Watch;

/// What is said before a path is taken.
const OPENING: &str = "
    S: 220 server.example ESMTP
    C: EHLO client.example
    S: 250-server.example
    S: 250 PIPELINING";

/// What takes the path: a command and its reply.
const COMMAND: &[u8] = b"NOOP\r\n";
const REPLY: &[u8] = b"250 2.0.0 Ok\r\n";

/// What is said behind it, as most programs say it: here the dialogue must be understood again. Behind bytes that were not seen
/// the first line shows where a line begins, and is not told.
const ENDING: &str = "
    C: RSET
    S: 250 Reset
    C: HELO again.example
    S: 250 server.example
    C: QUIT
    S: 221 Bye";
const FIRST: &str = "RSET\r\n";
const FIRST_REPLY: &str = "250 Reset\r\n";

/// Bytes that did not come within the tests' sight, by cause, all zero where there is none.
type CaptureMiss = BTreeMap<&'static str, u64>;

/// The values of the label `cause`.
const CAUSES: [&str; 10] =
    ["long", "fault", "path", "compat", "vector", "content", "discarded", "pages", "uncertain", "hole"];

/// What both ends of a connection agree on.
#[derive(Debug, Clone, Copy)]
pub struct Alike<'a> {
    /// What is seen, in brief.
    pub events: &'a [&'a str],
    /// Bytes that the client sent.
    pub client: u64,
    /// Bytes that the server sent.
    pub server: u64,
}

/// An agent that nobody else makes see anything.
#[derive(Debug)]
pub struct Scene {
    /// The hosts, and the agent.
    pub watch: Watch,
    fentry: bool,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    /// Starts the agent, when the scene before is over: agents see the whole host.
    pub fn start() -> Result<Self> {
        static STAGE: Mutex<()> = Mutex::new(());
        let alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = Watch::start(&["--addresses", "full"])?;
        let fentry = watch.agent.hooks_functions()?;
        Ok(Self { watch, fentry, _alone: alone })
    }

    /// What the agent's hooks see, of what those of the two families see: tracepoint, fentry.
    pub fn sight(&self, [tracepoint, fentry]: [Sight; 2]) -> Sight {
        if self.fentry { fentry } else { tracepoint }
    }

    /// Takes every path, and then says of all those that were not seen as they should be.
    pub fn check(&self, paths: &[Path]) -> Result<()> {
        let wrong: Vec<String> =
            paths.iter().filter_map(|path| Some(format!("{}: {:#}", path.name, self.check_one(path).err()?))).collect();
        ensure!(wrong.is_empty(), "{} of {} paths:\n{}", wrong.len(), paths.len(), wrong.join("\n"));
        Ok(())
    }

    fn check_one(&self, path: &Path) -> Result<()> {
        let before = self.unseen()?;
        let mut dialogue = self.watch.dialogue("10.77.0.2:25")?;
        let port = dialogue.port()?;
        dialogue.play(OPENING)?;
        if let Err(error) = (path.pass)(&dialogue.client, &dialogue.server, COMMAND) {
            return absent(&path.name, error);
        }
        (path.pass)(&dialogue.server, &dialogue.client, REPLY)?;
        dialogue.play(ENDING)?;
        dialogue.close()?;

        let sight = self.sight([path.tracepoint, path.fentry]);
        let [client, server] = self.ends(port)?;
        let (command, reply) = (COMMAND.len() as u64, REPLY.len() as u64);
        let (first, first_reply) = (FIRST.len() as u64, FIRST_REPLY.len() as u64);
        let ((lost_by_client, uncertain_to_client), (lost_by_server, uncertain_to_server)) = match (sight, path.end) {
            (Sight::Read, _) => ((0, 0), (0, 0)),
            (_, End::Sender) => ((command, first), (reply, first_reply)),
            (_, End::Receiver) => ((reply, first_reply), (command, first)),
        };
        let (sent, received) = (said("C: ") + command, said("S: ") + reply);
        let lost = [sent, received, lost_by_client + uncertain_to_client];
        compare(&client, &events(sight, path.end == End::Sender), lost)?;
        let lost = [received, sent, lost_by_server + uncertain_to_server];
        compare(&server, &events(sight, path.end == End::Receiver), lost)?;
        let uncertain = uncertain_to_client + uncertain_to_server;
        self.check_unseen(&before, &[(sight, lost_by_client + lost_by_server), (Sight::Gap("uncertain"), uncertain)])
    }

    /// Wants both ends of the connection from this port to have seen the same, and nothing to be missing.
    pub fn check_alike(&self, port: u16, before: &CaptureMiss, alike: Alike<'_>) -> Result<()> {
        self.check_ends(port, before, alike, Some(0))
    }

    /// The same where positions tell nothing: what is missing is not known then, and not told.
    pub fn check_apart(&self, port: u16, before: &CaptureMiss, alike: Alike<'_>) -> Result<()> {
        self.check_ends(port, before, alike, None)
    }

    fn check_ends(&self, port: u16, before: &CaptureMiss, alike: Alike<'_>, lost: Option<u64>) -> Result<()> {
        let [at_client, at_server] = self.ends(port)?;
        let Alike { events, client, server } = alike;
        compare_ends(&at_client, events, [Some(client), Some(server), lost])?;
        compare_ends(&at_server, events, [Some(server), Some(client), lost])?;
        self.check_unseen(before, &[])
    }

    /// What was seen at the client's and at the server's end of the connection from this port, which is over.
    pub fn ends(&self, port: u16) -> Result<[Seen; 2]> {
        let Watch { client_host, server_host, agent } = &self.watch;
        let from = |seen: &Seen, end: &str| {
            let pointer = format!("/connection/{end}/port");
            seen.only(|observed| observed.count(&pointer) == Some(port.into()))
        };
        let closed = |seen: &Seen| from(seen, "local").count("connection.closed") > 0;
        let closed_too = |seen: &Seen| from(seen, "remote").count("connection.closed") > 0;
        let seen =
            agent.wait_for("both ends closed", &[client_host, server_host], |seen| closed(seen) && closed_too(seen))?;
        Ok([from(&seen.on(&[client_host])?, "local"), from(&seen.on(&[server_host])?, "remote")])
    }

    /// Bytes unseen so far, by cause.
    pub fn unseen(&self) -> Result<CaptureMiss> {
        let metrics = self.watch.agent.metrics()?;
        let of = |cause| metrics.sum("smtp_observer_uncaptured_bytes_total", &[&format!("cause=\"{cause}\"")]);
        CAUSES
            .into_iter()
            .map(|cause| Ok((cause, of(cause).with_context(|| format!("no bytes unseen of cause {cause}"))? as u64)))
            .collect()
    }

    /// Wants so many bytes to have gone unseen since as are given for each sight, and no others.
    pub fn check_unseen(&self, before: &CaptureMiss, sights: &[(Sight, u64)]) -> Result<()> {
        let mut grown = self.unseen()?;
        grown.iter_mut().for_each(|(cause, bytes)| *bytes -= before[cause]);
        grown.retain(|_, bytes| *bytes > 0);
        let mut expected = CaptureMiss::new();
        for (sight, bytes) in sights {
            if let Some(cause) = sight.cause().filter(|_| *bytes > 0) {
                *expected.entry(cause).or_default() += bytes;
            }
        }
        ensure!(grown == expected, "unseen are {grown:?}, not {expected:?}");
        Ok(())
    }
}

/// Says aloud that a path is not there to be taken; any other error stays one.
pub fn absent(name: &str, error: anyhow::Error) -> Result<()> {
    let Some(absent) = error.downcast_ref::<Absent>() else { return Err(error) };
    // Not by a macro, whose output a test that passes does not show.
    writeln!(std::io::stderr(), "NOT TESTED: {name}: {absent}")?;
    Ok(())
}

/// Wants these events at one end, and so many bytes sent, received and lost.
pub fn compare(side: &Seen, events: &[&str], bytes: [u64; 3]) -> Result<()> {
    compare_ends(side, events, bytes.map(Some))
}

fn compare_ends(side: &Seen, events: &[&str], bytes: [Option<u64>; 3]) -> Result<()> {
    ensure!(side.brief() == events, "seen is {:?}, not {events:?}, in:\n{side}", side.brief());
    let closed = side.one("connection.closed")?;
    let counted = ["/bytes_sent", "/bytes_received", "/lost_bytes"].map(|pointer| closed.count(pointer));
    ensure!(counted == bytes, "sent, received, lost are {counted:?}, not {bytes:?}, in:\n{side}");
    Ok(())
}

/// The events of the whole dialogue at one end; the bytes that took the path there are the client's or the server's.
fn events(sight: Sight, clients_bytes: bool) -> Vec<&'static str> {
    let mut events = vec!["EHLO 250", "QUIT 221", "connection.closed", "connection.opened", "smtp.greeting 220"];
    let gap = ["smtp.anomaly gap", "smtp.anomaly resynchronised"];
    match (sight, clients_bytes) {
        (Sight::Read, _) => {
            events.extend(["HELO 250", "NOOP 250 2.0.0", "RSET 250", "smtp.noop 250", "smtp.rset 250"]);
        }
        // RSET shows where a line begins.
        (Sight::Gap(_) | Sight::Hole, true) => events.extend(gap.into_iter().chain(["HELO 250"])),
        // The reply to RSET shows that. The one to HELO may be to either: it is 221 that tells.
        (Sight::Gap(_), false) => events.extend(gap.into_iter().chain(["NOOP"])),
        // Found when the reply to RSET comes.
        (Sight::Hole, false) => events.extend(gap.into_iter().chain(["NOOP", "RSET"])),
    }
    events.sort_unstable();
    events
}

/// Bytes that one side says outside the path.
fn said(speaker: &str) -> u64 {
    let lines = OPENING.lines().chain(ENDING.lines());
    lines.filter_map(|line| line.trim_start().strip_prefix(speaker)).map(|text| text.len() as u64 + 2).sum()
}
