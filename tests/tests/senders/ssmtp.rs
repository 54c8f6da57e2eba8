//! sSMTP, which reads replies a byte a call: what crosses of its mail is read in the ring's own records.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use smtp_observer::event::{Flow, KernelEvent, Segment, StateEvent, TcpState, TransferEvent};
use smtp_observer::kernel::{Kernel, Settings, Tls};
use smtp_observer::observation::{Event, Observation, Role};
use smtp_observer::observer::Observer;
use smtp_observer::redact::{Addresses, RedactionPolicy};
use smtp_observer_tests::feed::PATIENCE;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::postfix::Postfix;
use smtp_observer_tests::process;
use smtp_observer_tests::unpacked::Root;
use tracing::level_filters::LevelFilter;

/// A port of this test's own: the hooks see the whole host, and nobody else is to fill the ring.
const PORT: u16 = 2825;
const SERVICE: &str = "2825 inet n - n - - smtpd";
const CONFIGURATION: &str = "mailhub=10.77.0.2:2825\nhostname=client.example\nFromLineOverride=YES\n";

/// Each line of the body has a mark, which nothing else that is said has; some are commands and replies.
const MESSAGE: &str = "\
From: alice@client.example
To: ok@test.example
Subject: zzz

zzz zzz
MAIL FROM:<zzz@zzz.example>
RCPT TO:<zzz@zzz.example>
EHLO zzz
354 zzz
.zzz
zzz
";
const MARK: &str = "zzz";

/// What the client says but for its message.
const SAID: &str = "\
HELO client.example\r
MAIL FROM:<alice@client.example>\r
RCPT TO:<ok@test.example>\r
DATA\r
\r
.\r
QUIT\r
";

/// What crossed at one end.
#[derive(Debug, Default)]
struct Crossed {
    /// Of the client, and of the server.
    text: [String; 2],
    /// Calls that the server's replies were read or written with.
    calls: usize,
    /// Bytes of content.
    content: u64,
    /// Bytes that are neither.
    others: u64,
    is_closed: bool,
}

/// Sends a mail to a real server, and reads what crosses at the client's end and at the server's, and what is told of it.
fn sent() -> Result<([Crossed; 2], Vec<Observation>)> {
    machine::require_root()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    let hooks = machine::hooks()?;
    let settings = Settings {
        ports: vec![PORT],
        hooks,
        ring_bytes: 8 << 20,
        tls: Tls::Off,
        user: None,
        diagnostics: LevelFilter::OFF,
    };
    let mut kernel = Kernel::attach(&settings)?;
    let (client_host, server_host) = Host::pair()?;
    let server = Postfix::start_with(&server_host, &[], &[SERVICE])?;

    let root = Root::new("ssmtp", &[])?;
    root.directory("etc/ssmtp")?;
    root.write("etc/ssmtp/ssmtp.conf", CONFIGURATION)?;
    root.write("input", MESSAGE)?;
    let mut ssmtp = root.command(&client_host, "/usr/sbin/ssmtp")?;
    ssmtp.args(["-f", "alice@client.example", "ok@test.example"]);
    process::run(ssmtp)?;

    let mut crossed = [Crossed::default(), Crossed::default()];
    let policy = RedactionPolicy::new(Addresses::Full);
    let mut observer = Observer::new(&[PORT], policy);
    let mut told = Vec::new();
    let start = Instant::now();
    while !crossed.iter().all(|end| end.is_closed) {
        ensure!(start.elapsed() < PATIENCE, "the connection is not closed: {crossed:?}");
        kernel.drain(&mut |event| {
            if let KernelEvent::State(StateEvent { socket, .. }) | KernelEvent::Transfer(TransferEvent { socket, .. }) =
                &event
            {
                let at_client = socket.remote.port() == PORT;
                note(&mut crossed[usize::from(!at_client)], at_client, &event);
            }
            observer.event(event, &mut |fact| told.push(Observation::of(fact, policy)));
        });
        sleep(Duration::from_millis(20));
    }
    server.stop()?;
    Ok((crossed, told))
}

fn note(end: &mut Crossed, at_client: bool, event: &KernelEvent) {
    match event {
        KernelEvent::State(state) => end.is_closed |= state.new == TcpState::Close,
        KernelEvent::Transfer(transfer) => {
            let of_client = (transfer.flow == Flow::Sent) == at_client;
            end.calls += usize::from(!of_client);
            for segment in transfer.said.segments() {
                match segment {
                    Segment::Text(text) => {
                        end.text[usize::from(!of_client)].push_str(&String::from_utf8_lossy(text));
                    }
                    Segment::Content(length) => end.content += length,
                    Segment::Withheld(withheld) => end.others += withheld.length,
                    Segment::Uncaptured(uncaptured) => end.others += uncaptured.length,
                    Segment::Ciphertext(length) => end.others += length,
                    Segment::Begun(_) => {}
                }
            }
        }
        _ => {}
    }
}

#[test]
fn ssmtp() -> Result<()> {
    let (crossed, told) = sent()?;
    for (name, end) in ["client", "server"].into_iter().zip(&crossed) {
        println!("the {name}'s end: {end:?}");
        assert_eq!(end.text[0], SAID, "the {name}'s end");
        let marked = end.text.iter().find(|text| text.contains(MARK));
        assert_eq!(marked, None, "the {name}'s end");
        assert!(end.text[1].ends_with("221 2.0.0 Bye\r\n"), "the {name}'s end: {end:?}");
        assert_eq!(end.others, 0, "the {name}'s end: {end:?}");
        assert!(end.content > MESSAGE.len() as u64, "the {name}'s end: {end:?}");
    }
    let [client, server] = &crossed;
    assert_eq!((client.content, &client.text[1]), (server.content, &server.text[1]), "the ends disagree");
    assert_eq!(client.calls, client.text[1].len(), "a byte a call");

    for role in [Role::Client, Role::Server] {
        let its = || told.iter().filter(move |observation| observation.connection.role == role);
        let commands: Vec<String> = its()
            .filter_map(|observation| match &observation.event {
                Event::Command(command) => Some(format!("{} {}", command.verb, command.code.unwrap_or_default())),
                _ => None,
            })
            .collect();
        assert_eq!(commands, ["HELO 250", "MAIL 250", "RCPT 250", "DATA 354", "QUIT 221"], "{role:?}");
        let codes: Vec<_> = its()
            .filter_map(|observation| match &observation.event {
                Event::Data(data) => Some((data.code, data.size_bytes)),
                _ => None,
            })
            .collect();
        // The line end before the dot is the message's, too (RFC 5321, 4.1.1.4).
        let size = client.content + 2;
        assert_eq!(codes, [(Some(250), Some(size))], "{role:?}");
        let anomalies: Vec<_> = its().filter(|told| matches!(told.event, Event::Anomaly(_))).collect();
        assert!(anomalies.is_empty(), "{role:?}: {anomalies:?}");
    }
    Ok(())
}
