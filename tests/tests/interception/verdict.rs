//! What the agent says of a conversation: who stood in between, and by which means.

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::seen::{Observed, Seen};

/// The verdicts that accuse a program of standing where the client does not know of it.
const ACCUSATIONS: [&str; 3] = ["transparent_interceptor", "likely_interceptor", "transparent_relay"];

/// The means that a client knows of, or that nobody can tell.
const OPEN_METHODS: [&str; 3] = ["local_proxy", "remote", "unknown"];

/// What is to be said of a client's connection.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The verdict.
    pub verdict: &'a str,
    /// By which means the client was led there.
    pub method: &'a str,
    /// The end of the path of the program in between.
    pub executable: &'a str,
}

/// The last verdict on this client's connection, which must be the expected one and name the program with this pid, or a
/// child of it. Stronger verdicts come later, and so does a withdrawal.
pub fn check(seen: &Seen, client: &Seen, expected: Expected, proxy: u32) -> Result<Observed> {
    let connection = client.0.first().context("nothing was seen of the client")?.connection();
    let verdicts = seen.of("interception").only(|observed| observed.connection() == connection);
    let last = verdicts.0.last().with_context(|| format!("no verdict on {connection}, in:\n{seen}"))?;
    assert_eq!(last.text("/verdict"), Some(expected.verdict), "{last}");
    assert_eq!(last.text("/method"), Some(expected.method), "{last}");
    let executable = last.text("/interceptor/executable").with_context(|| last.to_string())?;
    ensure!(executable.ends_with(expected.executable), "{executable} is not {}: {last}", expected.executable);
    let pids = ["/interceptor/pid", "/interceptor/parent/pid"].map(|pointer| last.count(pointer));
    ensure!(pids.contains(&Some(proxy.into())), "neither {proxy} nor its child is named: {last}");
    assert_eq!(last.text("/client/connection_id"), Some(connection), "{last}");
    assert_eq!(last.count("/client/process/pid"), client.0.iter().find_map(Observed::pid), "{last}");
    let confidence = last.number("/confidence").with_context(|| last.to_string())?;
    ensure!(confidence > 0.0 && confidence <= 1.0, "{last}");
    ensure!(!evidence(last).is_empty(), "there is no evidence: {last}");
    Ok(last.clone())
}

/// The kinds of evidence that a verdict rests on.
pub fn evidence(verdict: &Observed) -> Vec<&str> {
    let pieces = verdict.value().pointer("/evidence").and_then(|evidence| evidence.as_array());
    pieces.into_iter().flatten().filter_map(|piece| piece.get("kind")?.as_str()).collect()
}

/// Nobody is said to have stood where a client could not know of it, not even for a while.
pub fn check_innocent(seen: &Seen) -> Result<()> {
    let accuses = |observed: &Observed| {
        let [verdict, method] = ["/verdict", "/method"].map(|pointer| observed.text(pointer).unwrap_or_default());
        ACCUSATIONS.contains(&verdict) || verdict == "transparent_l4" && !OPEN_METHODS.contains(&method)
    };
    let accusations = seen.of("interception").only(accuses);
    ensure!(accusations.0.is_empty(), "somebody is accused who did nothing:\n{accusations}\nof:\n{seen}");
    Ok(())
}

/// Waits until every connection on these hosts is over, and ends the agent.
pub fn seen_to_the_end(agent: Agent, hosts: &[&Host]) -> Result<Seen> {
    let sides = |seen: &Seen| ["client", "server"].iter().flat_map(|role| seen.sides(role)).collect::<Vec<_>>();
    agent.wait_for("the end of every connection", hosts, |seen| sides(seen).iter().all(is_over))?;
    let stopped = agent.stop()?;
    ensure!(stopped.status.success(), "the agent ended with {}:\n{}", stopped.status, stopped.log.join("\n"));
    let seen = stopped.seen.on(hosts)?;
    println!("{seen}");
    Ok(seen)
}

/// Whether a connection is closed.
pub fn is_over(side: &Seen) -> bool {
    side.count("connection.closed") > 0
}
