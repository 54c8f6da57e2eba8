//! What of a message's content leaves the kernel, seen where it arrives: in the events of the hooks themselves.

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};
use smtp_observer::event::{Flow, KernelEvent, Segment, TransferEvent};
use smtp_observer::kernel::{Kernel, Settings, Tls};
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use tracing::level_filters::LevelFilter;

/// How the server takes what the client says.
#[derive(Clone, Copy)]
enum Server {
    Reads,
    Peeks,
    /// It gives up after the first call.
    GivesUp,
    /// It reads, as a proxy on the client's host, at a port that is not watched.
    Proxy,
}

/// Chunks may come now.
const BEFORE_CHUNKS: &str = "
    S: 220 server.example ESMTP
    C: MAIL FROM:<alice@client.example>
    C: RCPT TO:<bob@server.example>
    S: 250 Ok
    S: 250 Go";

const BEFORE: &str = "
    S: 220 server.example ESMTP
    C: MAIL FROM:<alice@client.example>
    C: RCPT TO:<bob@server.example>
    C: DATA
    S: 250 Ok
    S: 250 Ok
    S: 354 Go";

/// Plays sessions whose message goes out in these calls, and gives what left the kernel of the client's calls after
/// the 354, at each end of each session. A server that peeks looks at each call before it reads it. Every test has a
/// port of its own: the hooks see the whole host.
fn captured(port: u16, server: Server, sessions: &[Vec<Vec<u8>>]) -> Result<Vec<Vec<TransferEvent<'static>>>> {
    captured_after(BEFORE, port, server, sessions)
}

/// The same after another beginning, which ends with `Go`.
fn captured_after(
    before: &str,
    port: u16,
    server: Server,
    sessions: &[Vec<Vec<u8>>],
) -> Result<Vec<Vec<TransferEvent<'static>>>> {
    machine::require_root()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    let settings = Settings {
        ports: vec![port],
        hooks: machine::hooks()?,
        ring_bytes: 4 << 20,
        tls: Tls::Off,
        user: None,
        diagnostics: LevelFilter::OFF,
    };
    let mut kernel = Kernel::attach(&settings)?;
    let (client_host, server_host) = Host::pair()?;
    let mut ends = Vec::new();
    for calls in sessions {
        let address = format!("10.77.0.2:{port}");
        let mut dialogue = match server {
            Server::Proxy => {
                let proxy = port + 10_000;
                client_host.nft(&format!(
                    "table ip proxy {{
                        chain output {{
                            type nat hook output priority -100;
                            tcp dport {port} redirect to :{proxy}
                        }}
                    }}\n"
                ))?;
                Dialogue::open_from(&client_host, &client_host, &format!("0.0.0.0:{proxy}"), &address)?
            }
            _ => Dialogue::open(&client_host, &server_host, &address)?,
        };
        dialogue.play(before)?;
        for (number, call) in calls.iter().enumerate() {
            match server {
                Server::GivesUp if number == 0 => {
                    dialogue.client_says(call)?;
                    dialogue.server_says(b"451 4.3.0 No more\r\n")?;
                }
                Server::Reads | Server::GivesUp | Server::Proxy => dialogue.client_says(call)?,
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
                transfers.push(transfer.to_static());
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
                .position(|transfer| transfer.flow == theirs && text(transfer).ends_with(b"Go\r\n"))
                .context("the hooks saw no go-ahead")?;
            let after = end[go_ahead + 1..].iter().filter(|transfer| transfer.flow == ours);
            ends.push(after.map(|transfer| (*transfer).clone()).collect());
        }
    }
    Ok(ends)
}

/// The text that left the kernel of a call.
fn text(transfer: &TransferEvent) -> Vec<u8> {
    let texts = transfer.said.segments().map(|segment| match segment {
        Segment::Text(bytes) => bytes,
        _ => &[],
    });
    texts.flatten().copied().collect()
}

/// All that left the kernel of these calls.
fn bytes(transfers: &[TransferEvent]) -> Vec<u8> {
    transfers.iter().flat_map(text).collect()
}

fn calls(calls: &[&[u8]]) -> Vec<Vec<u8>> {
    calls.iter().map(|call| call.to_vec()).collect()
}

#[test]
fn of_content_only_what_may_be_its_end_leaves_the_kernel() -> Result<()> {
    only_what_may_be_its_end_leaves_the_kernel(2601, Server::Reads)
}

#[test]
fn nor_at_the_end_of_a_proxy_on_another_port() -> Result<()> {
    only_what_may_be_its_end_leaves_the_kernel(2611, Server::Proxy)
}

fn only_what_may_be_its_end_leaves_the_kernel(port: u16, server: Server) -> Result<()> {
    let secret = b"a secret that nobody else may read\r\n";
    let long = secret.repeat(1000);
    let ends = captured(
        port,
        server,
        &[calls(&[b"Subject: secret\r\n\r\n", secret, &long, &long[..4096], &long[..5000], b"s", b"\r\n", b".\r\n"])],
    )?;
    assert_eq!(ends.len(), 2);
    for end in ends {
        let (quit, content) = end.split_last().context("nothing was seen")?;
        assert_eq!(text(quit), b"QUIT\r\n");
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
        assert_eq!(String::from_utf8(bytes(&end))?, "\r\n.\r\nQUIT\r\n");
    }
    Ok(())
}

#[test]
fn of_chunks_only_their_commands_leave_the_kernel() -> Result<()> {
    let secret = b"a secret that nobody else may read\r\n";
    let long = secret.repeat(1000);
    let first = [format!("BDAT {}\r\n", 2 * secret.len()).as_bytes(), secret].concat();
    let last = [format!("BDAT {} LAST\r\n", long.len()).as_bytes(), &long, b"RSET\r\n"].concat();
    let sessions = [calls(&[&first, secret, &last])];
    for end in captured_after(BEFORE_CHUNKS, 2606, Server::Reads, &sessions)? {
        let seen = String::from_utf8(bytes(&end))?;
        ensure!(!seen.contains("secret"), "{seen}");
        ensure!(seen.starts_with("BDAT 72\r\nBDAT 36000 LAST\r\n") && seen.ends_with("QUIT\r\n"), "{seen}");
        let lengths: usize = end.iter().map(|call| call.length as usize).sum();
        assert_eq!(lengths, first.len() + secret.len() + last.len() + b"QUIT\r\n".len());
    }
    Ok(())
}

#[test]
fn chunks_are_left_out_in_any_pieces() -> Result<()> {
    let whole = b"bdat 8\r\nsecret\r\nBDAT 6 LAST\r\nsecretNOOP\r\n";
    let commands = "bdat 8\r\nBDAT 6 LAST\r\nNOOP\r\nQUIT\r\n";
    let mut sessions: Vec<Vec<Vec<u8>>> = (1..whole.len()).map(|cut| calls(&[&whole[..cut], &whole[cut..]])).collect();
    sessions.push(whole.iter().map(|&byte| vec![byte]).collect());
    for (index, end) in captured_after(BEFORE_CHUNKS, 2607, Server::Reads, &sessions)?.into_iter().enumerate() {
        let seen = String::from_utf8(bytes(&end))?;
        ensure!(seen == commands, "session {}: {seen:?}", index / 2);
    }
    Ok(())
}

#[test]
fn a_command_of_data_in_pieces_opens_content_too() -> Result<()> {
    let before = BEFORE_CHUNKS.replace("250 Go", "250 Ok");
    let go = [b"DA".to_vec(), b"TA\r".to_vec(), b"\n".to_vec()];
    machine::require_root()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    let settings = Settings {
        ports: vec![2608],
        hooks: machine::hooks()?,
        ring_bytes: 4 << 20,
        tls: Tls::Off,
        user: None,
        diagnostics: LevelFilter::OFF,
    };
    let mut kernel = Kernel::attach(&settings)?;
    let (client, server) = Host::pair()?;
    let mut dialogue = Dialogue::open(&client, &server, "10.77.0.2:2608")?;
    dialogue.play(&before)?;
    go.iter().try_for_each(|piece| dialogue.client_says(piece))?;
    dialogue.play("S: 354 Go\nC: a secret\nC: .\nS: 250 Ok")?;
    dialogue.close()?;
    let mut seen = Vec::new();
    kernel.drain(&mut |event| {
        if let KernelEvent::Transfer(transfer) = event {
            seen.extend_from_slice(&bytes(&[transfer]));
        }
    });
    ensure!(!String::from_utf8_lossy(&seen).contains("secret"), "{}", String::from_utf8_lossy(&seen));
    Ok(())
}

/// CVE-2023-51764 and its like: what a careless server takes for the end of a message, and goes on with commands behind.
const DISPUTED: [&[u8]; 11] = [
    b"\n.\n",
    b"\n.\r",
    b"\r.\n",
    b"\r.\r",
    b"\n.\r\n",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n\0.\r\n",
];

#[test]
fn of_a_disputed_end_of_content_no_other_byte_leaves_the_kernel() -> Result<()> {
    let secret = b"secret\r\n".repeat(1000);
    let mut sessions = Vec::new();
    for before in [1, 50, 4003] {
        for form in DISPUTED {
            for behind in [&b"secret"[..], &secret] {
                sessions.push(vec![[&secret[..before], form, behind, b"\r\n.\r\n"].concat()]);
            }
        }
    }
    for (index, end) in captured(2610, Server::Reads, &sessions)?.into_iter().enumerate() {
        let form = DISPUTED[index / 4 % DISPUTED.len()];
        // No more than two bytes before the dot.
        let dot = form.iter().position(|&byte| byte == b'.').context("a form has a dot")?;
        let form = String::from_utf8(form[dot.saturating_sub(2)..].to_vec())?;
        let crossed = String::from_utf8(bytes(&end))?;
        ensure!(crossed.bytes().all(|byte| b"\r\n.\0xQUIT".contains(&byte)), "content left the kernel: {crossed:?}");
        ensure!(crossed.starts_with(&form), "{form:?} is not what crossed: {crossed:?}");
        ensure!(crossed.ends_with("\r\n.\r\nQUIT\r\n"), "the end was not found: {crossed:?}");
    }
    Ok(())
}

/// The kernel takes what follows the 354 for content: wrongly, once the server has given up.
#[test]
fn what_follows_the_servers_next_reply_leaves_the_kernel() -> Result<()> {
    for end in captured(2609, Server::GivesUp, &[calls(&[b"secret\r\n", b"RSET\r\n"])])? {
        let seen = String::from_utf8(bytes(&end))?;
        assert_eq!(seen, "RSET\r\nQUIT\r\n");
    }
    Ok(())
}
