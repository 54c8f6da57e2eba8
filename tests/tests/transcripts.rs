//! Every transcript in `tests/transcripts`: as the kernel would tell it, in every cut, and over real sockets.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use smtp_observer::observation::{AnomalyKind, NoopReason, Outcome, Role, RsetReason, TlsPhase};
use smtp_observer_tests::agent::Agent;
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::seen::Seen;
use smtp_observer_tests::transcript::{
    Cut, Speaker, Step, Transcript, lines, observe, record, record_inside_tls, replay,
};

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
const NOT_IN_ONE_DIALOGUE: [&str; 8] = [
    "rset same_message_split",
    "rset relayed",
    "rset interceptor_discard",
    "rset encrypted",
    "noop relayed",
    "noop interceptor_keepalive",
    "! ends_disagree",
    // What is said is in clear.
    "tls read",
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

/// Transcripts that are others inside of TLS.
const NOT_INSIDE_OF_TLS: [&str; 7] = [
    // They end with bytes that went unseen: the socket's positions, which tell of these, count ciphertext.
    "noop_and_then_a_gap",
    "rset_and_then_a_gap",
    // Nothing is said that is seen.
    "opening_server_unseen",
    "tls_in_the_kernel",
    // An offer of TLS inside of TLS is none.
    "opening_keywords",
    "tls_offered_and_left",
    "tls_offered_and_not_used",
];

/// What is said inside of TLS is observed as if it were said in clear, and so is its recording.
#[test]
fn is_observed_the_same_inside_of_tls() -> Result<()> {
    let mut differences = Vec::new();
    let transcripts = Transcript::all()?;
    let is_left_out = |transcript: &&Transcript| NOT_INSIDE_OF_TLS.contains(&transcript.name.as_str());
    ensure!(
        transcripts.iter().filter(is_left_out).count() == NOT_INSIDE_OF_TLS.len(),
        "one that is left out is not there"
    );
    for transcript in transcripts.iter().filter(|transcript| !transcript.midstream && !is_left_out(transcript)) {
        for role in roles(transcript) {
            for cut in [Cut::Whole, Cut::Every(1), Cut::Every(7)] {
                let (observed, file) = record_inside_tls(transcript, *role, cut)?;
                let begins = lines(&observed[1]);
                ensure!(begins == ["tls started"], "{}: TLS begins with {begins:?}", transcript.name);
                let inside: Vec<_> = [&observed[..1], &observed[2..]].concat().iter().flat_map(lines).collect();
                if inside != transcript.expected {
                    let difference = difference(transcript, &inside);
                    differences.push(format!("as {}, {cut:?}: {difference}", role.as_str()));
                }
                ensure!(replay(&file)? == observed, "{}: its recording leads to others", transcript.name);
            }
        }
    }
    ensure!(differences.is_empty(), "{} differ:\n\n{}", differences.len(), differences.join("\n\n"));
    Ok(())
}

#[test]
fn is_observed_the_same_over_sockets() -> Result<()> {
    let host = Host::new()?;
    let agent = Agent::start(&[])?;
    let mut live: Vec<Transcript> = Transcript::all()?;
    live.retain(Transcript::is_live);
    let mut addresses = (0..).map(address);
    let (mut plays, mut played) = (0, Vec::new());
    for transcript in &live {
        // A machine that is busy makes pauses longer: what is said with others is another dialogue.
        let mut tries = addresses.by_ref().take(MAX_PLAYS).map(|address| {
            plays += 1;
            Ok((play(&host, transcript, &address)?, address))
        });
        let punctual = tries.find(|play: &Result<_>| !matches!(play, Ok((Pauses::Longer, _))));
        let (_, address) = punctual.context("the pauses were longer than they are written, each time")??;
        played.push((transcript, address));
    }
    let seen = agent.wait_closed(&[&host], 2 * plays)?;
    let mut differences = Vec::new();
    for (transcript, address) in &played {
        for (role, end) in [("client", "remote"), ("server", "local")] {
            let own = |seen: &Seen| {
                seen.only(|observed| observed.role() == role && observed.end(end).as_ref() == Some(address))
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

/// Most plays of a transcript until its pauses are as they are written.
const MAX_PLAYS: usize = 10;

/// How much later than it is written a call may end.
const LATE: Duration = Duration::from_millis(50);

/// The pauses of a dialogue that was said.
enum Pauses {
    AsWritten,
    Longer,
}

/// Says all of it.
fn play(host: &Host, transcript: &Transcript, address: &str) -> Result<Pauses> {
    let mut dialogue = Dialogue::open(host, host, address).with_context(|| transcript.name.clone())?;
    let (mut pauses, mut wanted, mut last) = (Pauses::AsWritten, Duration::ZERO, Instant::now());
    for step in &transcript.steps {
        match step {
            Step::Says(Speaker::Client, bytes) => dialogue.client_says(bytes)?,
            Step::Says(Speaker::Server, bytes) => dialogue.server_says(bytes)?,
            Step::Wait(time) => {
                dialogue.pause(*time);
                wanted += *time;
                continue;
            }
            Step::Gap(..) | Step::ClientMoves => {}
        }
        if last.elapsed() > wanted + LATE {
            pauses = Pauses::Longer;
        }
        (wanted, last) = (Duration::ZERO, Instant::now());
    }
    dialogue.close()?;
    Ok(pauses)
}
