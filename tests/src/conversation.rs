//! What both ends of a sender's connections were seen to say.

use crate::agent::Agent;
use crate::netns::Host;
use crate::seen::{Observed, Seen};
use anyhow::{Result, ensure};

/// A connection as it was seen at both ends.
pub struct Conversation {
    /// The sender's end.
    pub client: Seen,
    /// The server's.
    pub server: Seen,
}

impl Conversation {
    /// Both ends saw this, each RSET and NOOP for this reason: commands with the codes of their replies in their order,
    /// and the outcomes of the transactions.
    pub fn check(&self, said: &[&str], reasons: &[&str], outcomes: &[&str]) {
        for end in [&self.client, &self.server] {
            assert_eq!(commands(end), said, "\n{end}");
            assert_eq!(self::reasons(end), reasons, "\n{end}");
            assert_eq!(self::outcomes(end), outcomes, "\n{end}");
        }
    }

    fn is_over(&self) -> bool {
        [&self.client, &self.server].iter().all(|end| end.count("connection.closed") > 0)
    }
}

/// The commands in their order, with the codes of their replies; that of QUIT is left out, since not every sender waits
/// for it.
pub fn commands(end: &Seen) -> Vec<String> {
    let said = |command: &Observed| match (command.text("/verb").unwrap_or_default(), command.count("/code")) {
        (verb @ "QUIT", _) | (verb, None) => verb.to_owned(),
        (verb, Some(code)) => format!("{verb} {code}"),
    };
    end.of("smtp.command").0.iter().map(said).collect()
}

/// Why each RSET and NOOP was sent.
pub fn reasons(end: &Seen) -> Vec<String> {
    let told = end.only(|observed| ["smtp.rset", "smtp.noop"].contains(&observed.event()));
    told.0.iter().filter_map(|observed| observed.text("/reason")).map(str::to_owned).collect()
}

/// What became of each transaction.
pub fn outcomes(end: &Seen) -> Vec<String> {
    end.of("smtp.transaction").0.iter().filter_map(|observed| observed.text("/outcome")).map(str::to_owned).collect()
}

/// Lets an agent see all it can of these hosts until there is enough and every connection is over; then all of those
/// that a server has greeted.
pub fn observed(agent: Agent, hosts: &[&Host], enough: impl Fn(&[Conversation]) -> bool) -> Result<Vec<Conversation>> {
    agent.wait_for("the end of all that was to be said", hosts, |seen| {
        let conversations = conversations(seen);
        enough(&conversations) && conversations.iter().all(Conversation::is_over)
    })?;
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "the agent ended with {}:\n{}", stopped.status, stopped.log.join("\n"));
    let seen = stopped.seen.on(hosts)?;
    println!("{seen}");
    Ok(conversations(&seen))
}

fn conversations(seen: &Seen) -> Vec<Conversation> {
    let servers = seen.sides("server");
    let socket = |end: &Seen, which: &str| end.0.first().and_then(|observed| observed.end(which));
    let mut conversations = Vec::new();
    for client in seen.sides("client") {
        // Two connections may have the same port of the client's, to different servers.
        let its = |server: &&Seen| {
            [("remote", "local"), ("local", "remote")]
                .iter()
                .all(|(of, other)| socket(server, of) == socket(&client, other))
        };
        let server = servers.iter().find(its).cloned().unwrap_or_default();
        if client.count("smtp.greeting") > 0 {
            conversations.push(Conversation { client, server });
        }
    }
    conversations
}
