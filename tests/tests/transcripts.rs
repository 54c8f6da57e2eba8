//! Every transcript in `tests/transcripts`: as the kernel would tell it, in every cut, and over real sockets.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use smtp_observer::observation::{AnomalyKind, NoopReason, Outcome, Role, RsetReason, TlsPhase};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::seen::Seen;
use smtp_observer_tests::transcript::{Cut, Speaker, Step, Transcript, lines, observe, record, replay};

/// The socket at the client is where another process can be told from the one before.
fn roles(transcript: &Transcript) -> &'static [Role] {
    if transcript.steps.contains(&Step::ClientMoves) { &[Role::Client] } else { &[Role::Client, Role::Server] }
}

/// What differs, for the message of a test that fails.
fn difference(transcript: &Transcript, observed: &[String]) -> String {
    let Transcript { name, expected, .. } = transcript;
    let place = expected.iter().zip(observed).take_while(|(expected, observed)| expected == observed).count();
    let at = |lines: &[String]| lines.get(place).cloned().unwrap_or_else(|| "the end".into());
    let all = observed.join("\n");
    format!("{name}, line {}:\n  expected {}\n  observed {}\nof:\n{all}", place + 1, at(expected), at(observed))
}

#[test]
fn is_observed_as_it_is_written() -> Result<()> {
    let transcripts = Transcript::all()?;
    let mut differences = Vec::new();
    for transcript in &transcripts {
        for role in roles(transcript) {
            let observed: Vec<_> = observe(transcript, *role, Cut::Whole)?.iter().flat_map(lines).collect();
            if observed != transcript.expected {
                differences.push(format!("as {}: {}", role.as_str(), difference(transcript, &observed)));
            }
        }
    }
    ensure!(differences.is_empty(), "{} differ:\n\n{}", differences.len(), differences.join("\n\n"));
    println!("{} transcripts", transcripts.len());
    Ok(())
}

#[test]
fn no_cut_changes_what_is_observed() -> Result<()> {
    let mut differences = Vec::new();
    for transcript in &Transcript::all()? {
        let said = transcript.steps.iter().map(|step| match step {
            Step::Says(_, bytes) => bytes.len(),
            _ => 0,
        });
        let cuts = [Cut::Every(1), Cut::Every(7)].into_iter().chain((1..said.sum()).map(Cut::Behind));
        for role in roles(transcript) {
            let whole = observe(transcript, *role, Cut::Whole)?;
            for cut in cuts.clone() {
                let observed = observe(transcript, *role, cut)?;
                if observed != whole {
                    let lines: Vec<_> = observed.iter().flat_map(lines).collect();
                    differences.push(format!("as {}, {cut:?}: {}", role.as_str(), difference(transcript, &lines)));
                    // One tells enough.
                    break;
                }
            }
        }
    }
    ensure!(differences.is_empty(), "{} differ:\n\n{}", differences.len(), differences.join("\n\n"));
    Ok(())
}

/// Needs two ends that are both seen, more than one dialogue shows, or a kind of connection that no transcript can be.
const NOT_IN_ONE_DIALOGUE: [&str; 7] = [
    "rset same_message_split",
    "rset relayed",
    "rset interceptor_discard",
    "rset encrypted",
    "noop relayed",
    "noop interceptor_keepalive",
    "! ends_disagree",
];

#[test]
fn every_name_has_its_transcript() -> Result<()> {
    let mut missing: BTreeSet<String> = BTreeSet::new();
    missing.extend(RsetReason::ALL.iter().map(|reason| format!("rset {}", reason.as_str())));
    missing.extend(NoopReason::ALL.iter().map(|reason| format!("noop {}", reason.as_str())));
    missing.extend(Outcome::ALL.iter().map(|outcome| format!("transaction {}", outcome.as_str())));
    missing.extend(TlsPhase::ALL.iter().map(|phase| format!("tls {}", phase.as_str())));
    missing.extend(AnomalyKind::ALL.iter().map(|kind| format!("! {}", kind.as_str())));
    for transcript in Transcript::all()? {
        for line in &transcript.expected {
            let words: Vec<_> = line.split(' ').take(2).collect();
            missing.remove(&words.join(" "));
        }
    }
    let left_out: BTreeSet<_> = NOT_IN_ONE_DIALOGUE.map(str::to_owned).into();
    ensure!(missing == left_out, "no transcript has: {:?}", missing.symmetric_difference(&left_out));
    Ok(())
}

#[test]
fn a_recording_leads_to_the_same_observations() -> Result<()> {
    let mut differences = Vec::new();
    for transcript in &Transcript::all()? {
        for role in roles(transcript) {
            for cut in [Cut::Whole, Cut::Every(1), Cut::Every(7)] {
                let (observed, file) = record(transcript, *role, cut)?;
                ensure!(
                    observed == observe(transcript, *role, cut)?,
                    "{}: recording changes something",
                    transcript.name
                );
                let replayed = replay(&file)?;
                let lines: Vec<_> = replayed.iter().flat_map(lines).collect();
                let text = String::from_utf8_lossy(&file);
                if replayed != observed {
                    let other = observed.iter().zip(&replayed).find(|(observed, replayed)| observed != replayed);
                    differences.push(format!(
                        "as {}, {cut:?}: {}\n{text}\n{other:?}",
                        role.as_str(),
                        difference(transcript, &lines)
                    ));
                }
            }
        }
    }
    ensure!(differences.is_empty(), "{}", differences.join("\n\n"));
    Ok(())
}

#[test]
fn is_observed_the_same_over_sockets() -> Result<()> {
    let host = Host::new()?;
    let agent = Agent::start(&[])?;
    let mut live: Vec<Transcript> = Transcript::all()?;
    live.retain(Transcript::is_live);
    for (number, transcript) in live.iter().enumerate() {
        play(&host, transcript, &address(number)).with_context(|| transcript.name.clone())?;
    }
    let seen = agent.wait_closed(&[&host], 2 * live.len())?;
    let mut differences = Vec::new();
    for (number, transcript) in live.iter().enumerate() {
        for (role, end) in [("client", "remote"), ("server", "local")] {
            let address = address(number);
            let own = |seen: &Seen| {
                seen.only(|observed| observed.role() == role && observed.end(end).as_deref() == Some(&*address))
            };
            let observed: Vec<_> = own(&seen).0.iter().flat_map(|observed| lines(observed.value())).collect();
            if observed != transcript.expected {
                differences.push(format!("as {role}: {}", difference(transcript, &observed)));
            }
        }
    }
    ensure!(differences.is_empty(), "{} differ:\n\n{}", differences.len(), differences.join("\n\n"));
    println!("{} transcripts over sockets", live.len());
    Ok(())
}

/// Where a transcript's server is. The client's port may be one that an earlier dialogue had.
fn address(number: usize) -> String {
    format!("127.0.{}.{}:25", number / 250, number % 250 + 1)
}

/// Says all of it.
fn play(host: &Host, transcript: &Transcript, address: &str) -> Result<()> {
    let mut dialogue = Dialogue::open(host, host, address)?;
    for step in &transcript.steps {
        match step {
            Step::Says(Speaker::Client, bytes) => dialogue.client_says(bytes)?,
            Step::Says(Speaker::Server, bytes) => dialogue.server_says(bytes)?,
            Step::Wait(time) => dialogue.pause(*time),
            Step::Gap(..) | Step::ClientMoves => {}
        }
    }
    dialogue.close()
}
