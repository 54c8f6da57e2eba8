//! Connections that are made, used or ended in ways of their own, and what is seen of them: `docs/paths.md`.

use std::io::Read as _;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::paths::memory::{Pages, page};
use smtp_observer_tests::paths::sockets::FastOpen;
use smtp_observer_tests::paths::{
    Alike, BY_PAGES, FROM_SOCKET, Scene, absent, compare, files, flags, moved, receive, same, sockets, tls, wait_event,
};
use smtp_observer_tests::syscalls::Sending;
use smtp_observer_tests::watch::{SHORT, SHORT_EVENTS, Watch};

#[test]
fn fast_open() -> Result<()> {
    const HELLO: &[u8] = b"EHLO client.example\r\n";
    const REST: &str = "
        S: 220 server.example ESMTP
        S: 250 server.example
        C: QUIT
        S: 221 Bye";
    // The SYN cannot wait for the greeting.
    let events = [
        "EHLO 250",
        "QUIT 221",
        "connection.closed",
        "connection.opened",
        "smtp.anomaly early_talker",
        "smtp.greeting 220",
    ];
    let (client, server) = bytes_of(REST);
    let scene = Scene::start()?;
    for way in FastOpen::ALL {
        let before = scene.unseen()?;
        let (from, to) = way.open(&scene.watch.client_host, &scene.watch.server_host, HELLO)?;
        let mut dialogue = Dialogue::of(from, to)?;
        receive(&dialogue.server, HELLO)?;
        dialogue.play(REST)?;
        let port = dialogue.port()?;
        dialogue.close()?;
        let client = client + HELLO.len() as u64;
        scene.check_alike(port, &before, Alike { events: &events, client, server })?;
    }
    Ok(())
}

/// The accepted socket is read before its connection is there: the acknowledgment that it waits for is lost.
#[test]
fn fast_open_and_a_lost_acknowledgment() -> Result<()> {
    const LOSE: &str = "table ip lost {
        chain output { type filter hook output priority 0; tcp flags & (syn | ack) == ack drop; }
    }";
    const HELLO: &[u8] = b"EHLO client.example\r\nNOOP x\r\n";
    const REST: &str = "
        S: 220 server.example ESMTP
        S: 250 server.example
        S: 250 Ok
        C: QUIT
        S: 221 Bye";
    let events = [
        "EHLO 250",
        "NOOP 250",
        "QUIT 221",
        "connection.closed",
        "connection.opened",
        "smtp.anomaly early_talker",
        "smtp.greeting 220",
        "smtp.noop 250",
    ];
    let (client, server) = bytes_of(REST);
    let scene = Scene::start()?;
    let before = scene.unseen()?;
    let Watch { client_host, server_host, .. } = &scene.watch;
    client_host.nft(LOSE)?;
    let (from, to) = FastOpen::Sendto.open(client_host, server_host, HELLO)?;
    let mut dialogue = Dialogue::of(from, to)?;
    receive(&dialogue.server, HELLO)?;
    client_host.nft("delete table ip lost")?;
    dialogue.play(REST)?;
    let port = dialogue.port()?;
    dialogue.close()?;
    scene.check_alike(port, &before, Alike { events: &events, client: client + HELLO.len() as u64, server })
}

/// `connect` to nowhere, and then to the server again: nothing of the first connection stays with the socket.
#[test]
fn a_socket_that_connects_again() -> Result<()> {
    const ADDRESS: &str = "10.77.0.2:25";
    let scene = Scene::start()?;
    let Watch { client_host, server_host, .. } = &scene.watch;
    let mut first = scene.watch.dialogue(ADDRESS)?;
    first.play(
        "
        S: 220 server.example ESMTP
        C: XYZZY
        S: 500 What?
        C: DATA",
    )?;
    let port = first.port()?;
    let Dialogue { client: from, server: to, .. } = first;
    sockets::disconnect(&from)?;
    wait_event(&to, libc::POLLHUP)?;
    drop(to);
    scene.ends(port)?;
    let before = scene.unseen()?;
    let listener = server_host.listen(ADDRESS)?;
    client_host.enter(|| sockets::connect(&from))?;
    let (to, _) = listener.accept()?;
    let mut second = Dialogue::of(from, to)?;
    let port = second.port()?;
    second.play(SHORT)?;
    second.close()?;
    let (client, server) = bytes_of(SHORT);
    scene.check_alike(port, &before, Alike { events: &SHORT_EVENTS, client, server })
}

#[test]
fn a_listener_of_multipath_tcp() -> Result<()> {
    multipath_tcp(false)
}

/// The program's socket is none of TCP: it has no position in a stream of its own.
#[test]
fn multipath_tcp_at_both_ends() -> Result<()> {
    multipath_tcp(true)
}

fn multipath_tcp(both: bool) -> Result<()> {
    let scene = Scene::start()?;
    let before = scene.unseen()?;
    let (from, to) = match sockets::multipath(&scene.watch.client_host, &scene.watch.server_host, both) {
        Ok(ends) => ends,
        Err(error) => return absent("MPTCP", error),
    };
    let mut dialogue = Dialogue::of(from, to)?;
    let port = dialogue.port()?;
    dialogue.play(SHORT)?;
    dialogue.close()?;
    let (client, server) = bytes_of(SHORT);
    let alike = Alike { events: &SHORT_EVENTS, client, server };
    if both { scene.check_apart(port, &before, alike) } else { scene.check_alike(port, &before, alike) }
}

#[test]
fn tls_in_the_kernel() -> Result<()> {
    const CLEAR: &str = "
        S: 220 server.example ESMTP
        C: EHLO client.example
        S: 250-server.example
        S: 250 STARTTLS
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS";
    const SECRET: &[u8] = b"NOOP\r\n";
    let scene = Scene::start()?;
    let before = scene.unseen()?;
    let mut dialogue = scene.watch.dialogue("10.77.0.2:25")?;
    let port = dialogue.port()?;
    dialogue.play(CLEAR)?;
    if let Err(error) = tls::start(&dialogue.client, &dialogue.server) {
        return absent("TLS in the kernel", error);
    }
    dialogue.client_says(SECRET)?;
    dialogue.server_says(SECRET)?;
    dialogue.close()?;
    let (client, server) = bytes_of(CLEAR);
    let secret = SECRET.len() as u64;
    let events = [
        "EHLO 250",
        "STARTTLS 220 2.0.0",
        "connection.closed",
        "connection.opened",
        "smtp.greeting 220",
        "smtp.tls offered",
        "smtp.tls requested",
        "smtp.tls started",
    ];
    scene.check_apart(port, &before, Alike { events: &events, client: client + secret, server: server + secret })
}

/// From one socket through a pipe to the next, in both directions, from the first byte to the last.
#[test]
fn a_proxy_that_splices() -> Result<()> {
    let scene = Scene::start()?;
    let front = scene.watch.dialogue("10.77.0.2:25")?;
    let back = scene.watch.dialogue("10.77.0.2:25")?;
    let before = scene.unseen()?;
    let pass = |from: &TcpStream, [inward, outward]: [&TcpStream; 2], to: &TcpStream, bytes: &[u8]| -> Result<()> {
        Sending::Write.all(from, bytes)?;
        files::splice_through(inward, outward, bytes.len())?;
        receive(to, bytes)
    };
    let (mut client, mut server) = (0, 0);
    for line in SHORT.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
        let words = [&line.as_bytes()[3..], b"\r\n"].concat();
        let length = words.len() as u64;
        if line.starts_with("C: ") {
            pass(&front.client, [&front.server, &back.client], &back.server, &words)?;
            client += length;
        } else {
            pass(&back.server, [&back.client, &front.server], &front.client, &words)?;
            server += length;
        }
    }
    let ports = [front.port()?, back.port()?];
    front.close()?;
    back.close()?;
    let [front_client, front_server] = scene.ends(ports[0])?;
    let [back_client, back_server] = scene.ends(ports[1])?;
    for (side, bytes) in [(&front_client, [client, server, 0]), (&back_server, [server, client, 0])] {
        compare(side, &SHORT_EVENTS, bytes)?;
    }
    // Of its own two sockets nothing is read, and everything counted.
    let all = client + server;
    for (side, bytes) in [(&front_server, [server, client, all]), (&back_client, [client, server, all])] {
        compare(side, &["connection.closed", "connection.opened", "smtp.anomaly gap"], bytes)?;
    }
    let [sent, received] = [scene.sight(BY_PAGES), scene.sight(FROM_SOCKET)];
    scene.check_unseen(&before, &[(sent, all), (received, all)])
}

/// What is spliced away just before the end, with nothing behind it that would show the gap.
#[test]
fn the_last_bytes_of_a_connection() -> Result<()> {
    const BEGINNING: &str = "
        S: 220 server.example ESMTP
        C: EHLO client.example
        S: 250 server.example";
    const LAST: [&[u8]; 2] = [b"QUIT\r\n", b"221 2.0.0 Bye\r\n"];
    let scene = Scene::start()?;
    let before = scene.unseen()?;
    let mut dialogue = scene.watch.dialogue("10.77.0.2:25")?;
    let port = dialogue.port()?;
    dialogue.play(BEGINNING)?;
    for ((from, to), bytes) in
        [(&dialogue.client, &dialogue.server), (&dialogue.server, &dialogue.client)].into_iter().zip(LAST)
    {
        Sending::Write.all(from, bytes)?;
        files::splice_from(to, &mut vec![0; bytes.len()])?;
    }
    dialogue.close()?;
    let (client, server) = bytes_of(BEGINNING);
    let [quit, bye] = LAST.map(|bytes| bytes.len() as u64);
    let (client, server) = (client + quit, server + bye);
    let sight = scene.sight(FROM_SOCKET);
    let ends = scene.ends(port)?;
    let opened = ["EHLO 250", "connection.closed", "connection.opened", "smtp.anomaly gap", "smtp.greeting 220"];
    let at_client = ["EHLO 250", "QUIT"].into_iter().chain(opened.into_iter().skip(1)).collect::<Vec<_>>();
    compare(&ends[0], &at_client, [client, server, bye])?;
    compare(&ends[1], &opened, [server, client, quit])?;
    scene.check_unseen(&before, &[(sight, quit + bye)])
}

/// A FIN has a sequence number like a byte's, and is none; nor is a reset.
#[test]
fn ways_to_end() -> Result<()> {
    type Way = fn(TcpStream, TcpStream) -> Result<()>;
    let ways: [(&str, Way); 8] = [
        ("one closes, the other reads the end and closes", |first, second| {
            drop(first);
            end(&second)
        }),
        ("one closes, the other closes without reading the end", |first, second| {
            drop(first);
            wait_event(&second, libc::POLLRDHUP)
        }),
        ("one shuts its side, the other reads the end and closes, then the one", |first, second| {
            first.shutdown(Shutdown::Write)?;
            end(&second)?;
            drop(second);
            end(&first)
        }),
        ("both shut their side, then read the end", |first, second| {
            first.shutdown(Shutdown::Write)?;
            second.shutdown(Shutdown::Write)?;
            end(&first)?;
            end(&second)
        }),
        ("one shuts both sides", |first, second| {
            first.shutdown(Shutdown::Both)?;
            end(&second)
        }),
        ("one shuts its side, the other both", |first, second| {
            first.shutdown(Shutdown::Write)?;
            second.shutdown(Shutdown::Both)?;
            end(&first)
        }),
        ("one splices the end", |first, second| {
            first.shutdown(Shutdown::Write)?;
            ensure!(files::splice_from(&second, &mut [0]).is_err(), "more came than was sent");
            drop(second);
            end(&first)
        }),
        ("one resets", |first, second| {
            let now = libc::linger { l_onoff: 1, l_linger: 0 };
            flags::set(&first, libc::SOL_SOCKET, libc::SO_LINGER, &now)?;
            drop(first);
            wait_event(&second, libc::POLLHUP)
        }),
    ];
    let (client, server) = bytes_of(SHORT);
    let scene = Scene::start()?;
    for (name, way) in ways {
        for by_client in [true, false] {
            let before = scene.unseen()?;
            let mut dialogue = scene.watch.dialogue("10.77.0.2:25")?;
            let port = dialogue.port()?;
            dialogue.play(SHORT)?;
            let Dialogue { client: from, server: to, .. } = dialogue;
            if by_client { way(from, to) } else { way(to, from) }.context(name)?;
            scene.check_alike(port, &before, Alike { events: &SHORT_EVENTS, client, server }).context(name)?;
        }
    }
    Ok(())
}

/// Reads the end, and nothing before it.
fn end(stream: &TcpStream) -> Result<()> {
    let mut stream = stream;
    ensure!(stream.read(&mut [0])? == 0, "more came than was sent");
    Ok(())
}

/// Who ended a connection, at either end.
#[test]
fn closed_by_whom() -> Result<()> {
    type Way = fn(TcpStream, TcpStream) -> Result<()>;
    const UNREAD: &[u8] = b"NOOP\r\n";
    let ways: [(&str, Way, [&str; 2]); 6] = [
        (
            "one closes, then the other",
            |first, second| {
                drop(first);
                end(&second)
            },
            ["local", "remote"],
        ),
        (
            "one shuts its side, the other closes",
            |first, second| {
                first.shutdown(Shutdown::Write)?;
                end(&second)?;
                drop(second);
                end(&first)
            },
            ["local", "remote"],
        ),
        (
            "one resets",
            |first, second| {
                let now = libc::linger { l_onoff: 1, l_linger: 0 };
                flags::set(&first, libc::SOL_SOCKET, libc::SO_LINGER, &now)?;
                drop(first);
                wait_event(&second, libc::POLLHUP)
            },
            ["reset_sent", "reset_received"],
        ),
        (
            "one closes with bytes unread",
            |first, second| {
                Sending::Write.all(&second, UNREAD)?;
                wait_event(&first, libc::POLLIN)?;
                drop(first);
                wait_event(&second, libc::POLLHUP)
            },
            ["reset_sent", "reset_received"],
        ),
        (
            "one closes, the other writes, and is reset",
            |first, second| {
                drop(first);
                wait_event(&second, libc::POLLRDHUP)?;
                Sending::Write.all(&second, UNREAD)?;
                wait_event(&second, libc::POLLHUP)
            },
            ["local", "remote"],
        ),
        (
            "one shuts its side, the other resets",
            |first, second| {
                first.shutdown(Shutdown::Write)?;
                end(&second)?;
                let now = libc::linger { l_onoff: 1, l_linger: 0 };
                flags::set(&second, libc::SOL_SOCKET, libc::SO_LINGER, &now)?;
                drop(second);
                wait_event(&first, libc::POLLHUP)
            },
            ["local", "remote"],
        ),
    ];
    let scene = Scene::start()?;
    for (name, way, [first, second]) in ways {
        for by_client in [true, false] {
            let mut dialogue = scene.watch.dialogue("10.77.0.2:25")?;
            let port = dialogue.port()?;
            dialogue.play(SHORT)?;
            let Dialogue { client: from, server: to, .. } = dialogue;
            if by_client { way(from, to) } else { way(to, from) }.context(name)?;
            let expected = if by_client { [first, second] } else { [second, first] };
            for (side, expected) in scene.ends(port)?.iter().zip(expected) {
                let closed = side.one("connection.closed")?;
                ensure!(closed.text("/closed_by") == Some(expected), "{name}: not {expected}: {closed}");
            }
        }
    }
    Ok(())
}

/// Bytes that nobody read are not lost, and not received either.
#[test]
fn bytes_left_unread() -> Result<()> {
    const BEGINNING: &str = "
        S: 220 server.example ESMTP
        C: EHLO client.example
        S: 250 server.example";
    const UNREAD: &[u8] = b"QUIT\r\n";
    let scene = Scene::start()?;
    let before = scene.unseen()?;
    let mut dialogue = scene.watch.dialogue("10.77.0.2:25")?;
    let port = dialogue.port()?;
    dialogue.play(BEGINNING)?;
    Sending::Write.all(&dialogue.client, UNREAD)?;
    wait_event(&dialogue.server, libc::POLLIN)?;
    let Dialogue { client: from, server: to, .. } = dialogue;
    // With something unread the kernel resets the connection.
    drop(to);
    wait_event(&from, libc::POLLHUP)?;
    drop(from);
    let (client, server) = bytes_of(BEGINNING);
    let ends = scene.ends(port)?;
    let events = ["EHLO 250", "QUIT", "connection.closed", "connection.opened", "smtp.greeting 220"];
    compare(&ends[0], &events, [client + UNREAD.len() as u64, server, 0])?;
    let without_quit = ["EHLO 250", "connection.closed", "connection.opened", "smtp.greeting 220"];
    compare(&ends[1], &without_quit, [server, client, 0])?;
    scene.check_unseen(&before, &[])
}

/// The server is gone, so QUIT is answered with a reset, which ends the connection before the call that sends QUIT is over.
#[test]
fn a_command_that_is_answered_with_a_reset() -> Result<()> {
    const BEGINNING: &str = "
        S: 220 server.example ESMTP
        C: EHLO client.example
        S: 250 server.example";
    const REFUSED: &[u8] = b"QUIT\r\n";
    let scene = Scene::start()?;
    let before = scene.unseen()?;
    let mut dialogue = scene.watch.dialogue("10.77.0.2:25")?;
    let port = dialogue.port()?;
    dialogue.play(BEGINNING)?;
    let Dialogue { client: from, server: to, .. } = dialogue;
    drop(to);
    wait_event(&from, libc::POLLRDHUP)?;
    Sending::Write.all(&from, REFUSED)?;
    wait_event(&from, libc::POLLHUP)?;
    drop(from);
    let (client, server) = bytes_of(BEGINNING);
    let ends = scene.ends(port)?;
    let events = ["EHLO 250", "QUIT", "connection.closed", "connection.opened", "smtp.greeting 220"];
    compare(&ends[0], &events, [client + REFUSED.len() as u64, server, 0])?;
    let without_quit = ["EHLO 250", "connection.closed", "connection.opened", "smtp.greeting 220"];
    compare(&ends[1], &without_quit, [server, client, 0])?;
    scene.check_unseen(&before, &[])
}

/// The same of the server's: its socket has no port of its own any more when the call returns.
#[test]
fn an_answer_that_is_answered_with_a_reset() -> Result<()> {
    const BEGINNING: &str = "
        S: 220 server.example ESMTP
        C: EHLO client.example";
    const UNREAD: &[u8] = b"250 server.example\r\n";
    let scene = Scene::start()?;
    let before = scene.unseen()?;
    let mut dialogue = scene.watch.dialogue("10.77.0.2:25")?;
    let port = dialogue.port()?;
    dialogue.play(BEGINNING)?;
    let Dialogue { client: to, server: from, .. } = dialogue;
    drop(to);
    wait_event(&from, libc::POLLRDHUP)?;
    Sending::Write.all(&from, UNREAD)?;
    wait_event(&from, libc::POLLHUP)?;
    drop(from);
    let (client, server) = bytes_of(BEGINNING);
    let ends = scene.ends(port)?;
    let unanswered = ["EHLO", "connection.closed", "connection.opened", "smtp.greeting 220"];
    compare(&ends[0], &unanswered, [client, server, 0])?;
    let events = ["EHLO 250", "connection.closed", "connection.opened", "smtp.greeting 220"];
    compare(&ends[1], &events, [server + UNREAD.len() as u64, client, 0])?;
    scene.check_unseen(&before, &[])
}

/// A client that shuts its side after QUIT reads the answer on a socket that the kernel calls closed.
#[test]
fn an_answer_read_after_the_end() -> Result<()> {
    let scene = Scene::start()?;
    let before = scene.unseen()?;
    let mut dialogue = scene.watch.dialogue("10.77.0.2:25")?;
    let port = dialogue.port()?;
    let (beginning, answer) = SHORT.rsplit_once("\n    S: ").expect("the last line is the server's");
    dialogue.play(beginning)?;
    dialogue.client.shutdown(Shutdown::Write)?;
    let answer = [answer.as_bytes(), b"\r\n"].concat();
    Sending::Write.all(&dialogue.server, &answer)?;
    let Dialogue { client: from, server: to, .. } = dialogue;
    end(&to)?;
    drop(to);
    wait_event(&from, libc::POLLHUP)?;
    receive(&from, &answer)?;
    drop(from);
    let (client, server) = bytes_of(SHORT);
    scene.check_alike(port, &before, Alike { events: &SHORT_EVENTS, client, server })
}

/// One end says its last and resets the connection: what has come before the reset is read behind it.
fn read_after_a_reset(beginning: &str, last: &str, by_server: bool, events: &[&str]) -> Result<()> {
    let scene = Scene::start()?;
    let before = scene.unseen()?;
    let mut dialogue = scene.watch.dialogue("10.77.0.2:25")?;
    let port = dialogue.port()?;
    dialogue.play(beginning)?;
    let Dialogue { client, server, .. } = dialogue;
    let (from, to) = if by_server { (server, client) } else { (client, server) };
    Sending::Write.all(&from, last.as_bytes())?;
    wait_event(&to, libc::POLLIN)?;
    flags::set(&from, libc::SOL_SOCKET, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    drop(from);
    wait_event(&to, libc::POLLHUP)?;
    receive(&to, last.as_bytes())?;
    drop(to);
    let (mut client, mut server) = bytes_of(beginning);
    *(if by_server { &mut server } else { &mut client }) += last.len() as u64;
    scene.check_alike(port, &before, Alike { events, client, server })
}

#[test]
fn an_answer_read_after_a_reset() -> Result<()> {
    const BEGINNING: &str = "
        S: 220 server.example ESMTP
        C: QUIT";
    let events = ["QUIT 221", "connection.closed", "connection.opened", "smtp.greeting 220"];
    read_after_a_reset(BEGINNING, "221 server.example Bye\r\n", true, &events)
}

#[test]
fn a_command_read_after_a_reset() -> Result<()> {
    const BEGINNING: &str = "
        S: 220 server.example ESMTP
        C: EHLO client.example
        S: 250 server.example";
    let events = ["EHLO 250", "QUIT", "connection.closed", "connection.opened", "smtp.greeting 220"];
    read_after_a_reset(BEGINNING, "QUIT\r\n", false, &events)
}

/// Writes that stop where the socket is full, or where the buffer ends: the size is that of what moved.
#[test]
fn writes_in_part() -> Result<()> {
    const BEGINNING: &str = "
        S: 220 server.example ESMTP
        C: EHLO client.example
        S: 250 server.example
        C: MAIL FROM:<alice@client.example>
        S: 250 Ok
        C: RCPT TO:<bob@server.example>
        S: 250 Ok
        C: DATA
        S: 354 Go ahead";
    const ENDING: &str = "
        S: 250 Queued
        C: QUIT
        S: 221 Bye";
    const CONTENT: usize = 16 << 20;
    let scene = Scene::start()?;
    let before = scene.unseen()?;
    let mut dialogue = scene.watch.dialogue("10.77.0.2:25")?;
    let port = dialogue.port()?;
    dialogue.play(BEGINNING)?;

    // More than one buffer of the kernel's, with nothing readable behind it.
    let mut pages = Pages::new(129 * page()?, 0)?;
    pages.cut()?;
    lines(pages.bytes());
    let there = pages.bytes().len();
    // SAFETY: the kernel checks the addresses; what cannot be read is behind the bytes.
    let sent = moved(unsafe {
        libc::send(dialogue.client.as_raw_fd(), pages.start().cast(), there + page()?, libc::MSG_DONTWAIT)
    })?;
    ensure!((1..=there).contains(&sent), "{sent} of {there} bytes were sent");
    receive(&dialogue.server, &pages.bytes()[..sent])?;

    // From here on whole lines, and at their end the end of data, which is not to be seen before it is sent.
    let mut rest = vec![0; CONTENT];
    lines(&mut rest);
    rest[0..2].copy_from_slice(b"\r\n");
    rest.extend_from_slice(b".\r\n");
    let mut received = 0;
    let (partial, full) = flags::fill(&dialogue.client, &rest, || {
        let mut chunk = vec![0; 64 << 10];
        let read = (&dialogue.server).read(&mut chunk)?;
        received += read;
        same(&rest[received - read..received], &chunk[..read])
    })?;
    ensure!(partial > 0 && full > 0, "{partial} writes were partial, {full} found no room");
    receive(&dialogue.server, &rest[received..])?;
    dialogue.play(ENDING)?;
    dialogue.close()?;

    let content = (sent + rest.len()) as u64;
    let (client, server) = bytes_of(&format!("{BEGINNING}{ENDING}"));
    let events = [
        "DATA 354",
        "EHLO 250",
        "MAIL 250",
        "QUIT 221",
        "RCPT 250",
        "connection.closed",
        "connection.opened",
        "smtp.data DATA 250",
        "smtp.greeting 220",
        "smtp.transaction delivered",
    ];
    scene.check_alike(port, &before, Alike { events: &events, client: client + content, server })?;
    for side in scene.ends(port)? {
        let data = side.one("smtp.data")?;
        ensure!(data.count("/size_bytes") == Some(content - ".\r\n".len() as u64), "not {content} bytes: {data}");
    }
    Ok(())
}

/// Fills a buffer with lines.
fn lines(buffer: &mut [u8]) {
    for line in buffer.chunks_mut(64) {
        line.fill(b'x');
        if let [.., cr, lf] = line {
            (*cr, *lf) = (b'\r', b'\n');
        }
    }
}

/// The bytes of a transcript that the client says, and those that the server says.
fn bytes_of(transcript: &str) -> (u64, u64) {
    let of = |speaker| {
        let lines = transcript.lines().filter_map(|line| line.trim_start().strip_prefix(speaker));
        lines.map(|text| text.len() as u64 + 2).sum()
    };
    (of("C: "), of("S: "))
}
