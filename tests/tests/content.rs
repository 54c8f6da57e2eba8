//! What of a message's content leaves the kernel, seen where it arrives: in the events of the hooks themselves.

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};
use smtp_observer::event::{Flow, KernelEvent, TransferEvent};
use smtp_observer::kernel::{Kernel, Settings};
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use tracing::level_filters::LevelFilter;

/// How the server takes what the client says.
#[derive(Clone, Copy)]
enum Server {
    Reads,
    Peeks,
}

const BEFORE: &str = "
    S: 220 server.example ESMTP
    C: MAIL FROM:<alice@client.example>
    C: RCPT TO:<bob@server.example>
    C: DATA
    S: 250 Ok
    S: 250 Ok
    S: 354 Go";

/// Plays sessions whose message goes out in these calls, and gives what left the kernel of the client's calls after
/// the 354, at each end of each session. A server that peeks looks at each call before it reads it. Every test has a port of its own: the hooks see the whole host.
fn captured(port: u16, server: Server, sessions: &[Vec<Vec<u8>>]) -> Result<Vec<Vec<TransferEvent>>> {
    machine::require_root()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    let settings =
        Settings { ports: vec![port], hooks: machine::hooks()?, ring_bytes: 4 << 20, diagnostics: LevelFilter::OFF };
    let mut kernel = Kernel::attach(&settings)?;
    let (client_host, server_host) = Host::pair()?;
    let mut ends = Vec::new();
    for calls in sessions {
        let mut dialogue = Dialogue::open(&client_host, &server_host, &format!("10.77.0.2:{port}"))?;
        dialogue.play(BEFORE)?;
        for call in calls {
            match server {
                Server::Reads => dialogue.client_says(call)?,
                Server::Peeks => {
                    (&dialogue.client).write_all(call)?;
                    let mut buffer = vec![0; call.len()];
                    while dialogue.server.peek(&mut buffer)? < call.len() {}
                    (&dialogue.server).read_exact(&mut buffer)?;
                }
            }
        }
        dialogue.play("S: 250 Ok\nC: QUIT\nS: 221 Bye")?;
        dialogue.close()?;

        let mut transfers = Vec::new();
        kernel.drain(&mut |event| {
            if let KernelEvent::Transfer(transfer) = event {
                transfers.push(transfer);
            }
        });
        for (ours, theirs) in [(Flow::Sent, Flow::Received), (Flow::Received, Flow::Sent)] {
            let client =
                transfers.iter().any(|transfer| transfer.socket.remote.port() == port && transfer.flow == ours);
            ensure!(client, "the hooks saw nothing of the client");
            // The client's socket sends what the server's receives.
            let at_client = ours == Flow::Sent;
            let end: Vec<&TransferEvent> =
                transfers.iter().filter(|transfer| (transfer.socket.remote.port() == port) == at_client).collect();
            let go_ahead = end
                .iter()
                .position(|transfer| transfer.flow == theirs && transfer.head.ends_with(b"354 Go\r\n"))
                .context("the hooks saw no 354")?;
            let after = end[go_ahead + 1..].iter().filter(|transfer| transfer.flow == ours);
            ends.push(after.map(|transfer| (*transfer).clone()).collect());
        }
    }
    Ok(ends)
}

/// All that left the kernel of these calls.
fn bytes(transfers: &[TransferEvent]) -> Vec<u8> {
    transfers.iter().flat_map(|transfer| [&transfer.head[..], &transfer.tail[..]].concat()).collect()
}

fn calls(calls: &[&[u8]]) -> Vec<Vec<u8>> {
    calls.iter().map(|call| call.to_vec()).collect()
}

#[test]
fn of_content_only_what_may_be_its_end_leaves_the_kernel() -> Result<()> {
    let secret = b"a secret that nobody else may read\r\n";
    let long = secret.repeat(1000);
    let ends = captured(
        2601,
        Server::Reads,
        &[calls(&[b"Subject: secret\r\n\r\n", secret, &long, &long[..4096], &long[..5000], b"s", b"\r\n", b".\r\n"])],
    )?;
    assert_eq!(ends.len(), 2);
    for end in ends {
        let (quit, content) = end.split_last().context("nothing was seen")?;
        assert_eq!(quit.head, &b"QUIT\r\n"[..]);
        ensure!(content.len() >= 2, "{content:?}");
        for call in content {
            let crossed = bytes(std::slice::from_ref(call));
            let of_an_end = crossed.iter().all(|byte| b"\r\n.".contains(byte));
            ensure!(crossed.len() <= 5 && of_an_end, "content left the kernel: {call:?}");
        }
        let lengths: u64 = content.iter().map(|call| u64::from(call.length)).sum();
        let said = 19 + secret.len() + long.len() + 4096 + 5000 + 1 + 2 + 3;
        assert_eq!(lengths, said as u64, "its length is known all the same");
    }
    Ok(())
}

#[test]
fn what_follows_the_content_leaves_the_kernel_whole() -> Result<()> {
    let text = b"Subject: secret\r\n\r\nsecret, and a line with a dot:\r\n..\r\n.x\r\nsecret\r\n".repeat(100);
    let pipelined = [&text[..], b".\r\nMAIL FROM:<alice@client.example>\r\n"].concat();
    for end in captured(2602, Server::Reads, &[vec![pipelined], calls(&[b".\r\n"])])? {
        let seen = String::from_utf8(bytes(&end))?;
        ensure!(!seen.contains("secret"), "{seen}");
        ensure!(seen.ends_with("QUIT\r\n"), "{seen}");
    }
    let end = captured(2603, Server::Reads, &[vec![[&text[..], b".\r\nNOOP\r\n"].concat()]])?;
    for end in end {
        assert_eq!(String::from_utf8(bytes(&end))?, "\r\n.\r\nNOOP\r\nQUIT\r\n");
    }
    Ok(())
}

#[test]
fn the_end_of_data_is_found_in_any_pieces() -> Result<()> {
    let whole = b"secret\r\n.\r\nRSET\r\n";
    // Cut in two at every place, and into single bytes.
    let mut sessions: Vec<Vec<Vec<u8>>> = (1..whole.len()).map(|cut| calls(&[&whole[..cut], &whole[cut..]])).collect();
    sessions.push(whole.iter().map(|&byte| vec![byte]).collect());
    for (index, end) in captured(2604, Server::Reads, &sessions)?.into_iter().enumerate() {
        let seen = String::from_utf8(bytes(&end))?;
        ensure!(seen.ends_with("RSET\r\nQUIT\r\n"), "session {}: {seen:?}", index / 2);
        let content = seen.strip_suffix("RSET\r\nQUIT\r\n").unwrap_or(&seen);
        ensure!(content.bytes().all(|byte| b"\r\n.".contains(&byte)), "session {}: {seen:?}", index / 2);
    }
    Ok(())
}

#[test]
fn a_look_at_the_content_changes_nothing() -> Result<()> {
    let text = b"Subject: secret\r\n\r\nsecret\r\n.\r\n";
    for end in captured(2605, Server::Peeks, &[calls(&[b"secret\r\n", text])])? {
        assert_eq!(String::from_utf8(bytes(&end))?, "\r\n\r\n.\r\nQUIT\r\n");
    }
    Ok(())
}
