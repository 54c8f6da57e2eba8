//! Of a process's memory the hooks read a call's own bytes and no others: what lies around them is marked here, and each
//! byte that leaves the kernel must be the one of the stream that is said to.

use std::io::Read;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use smtp_observer::event::{CaptureMiss, Flow, KernelEvent, Segment, TransferEvent};
use smtp_observer::kernel::{Family, Kernel, Settings, Tls};
use smtp_observer_tests::dialogue::Dialogue;
use smtp_observer_tests::machine;
use smtp_observer_tests::netns::Host;
use smtp_observer_tests::paths::{absent, moved, wait_taken, wait_until};
use smtp_observer_tests::syscalls::{Sending, halves, header, messages, moved as several};
use smtp_observer_tests::uring::{self, Shots};
use tracing::level_filters::LevelFilter;

/// What no side ever says.
const MARK: u8 = b'#';

/// Bytes around a call's own.
const AROUND: usize = 4096;

/// What the server says: replies, which cross, in which no byte is like the others around it.
fn stream(length: usize) -> Vec<u8> {
    const LINE: u32 = 16;
    let letter = |place: u32| b'a' + (place.wrapping_mul(2_654_435_761) >> 24) as u8 % 26;
    let byte = |place: u32| match place % LINE {
        code @ 0..4 => b"220 "[code as usize],
        14 => b'\r',
        15 => b'\n',
        _ => letter(place),
    };
    (0..length as u32).map(byte).collect()
}

/// What was seen of what the server said.
struct Said {
    /// At its own end.
    sent: Vec<TransferEvent<'static>>,
    /// At the client's.
    received: Vec<TransferEvent<'static>>,
    family: Family,
}

impl Said {
    /// Has the server say something, to a client that receives it all. Every test has a port of its own: the hooks see the
    /// whole host.
    fn watch(port: u16, pass: impl FnOnce(&TcpStream, &TcpStream) -> Result<()>) -> Result<Self> {
        machine::require_root()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _guard = runtime.enter();
        let hooks = machine::hooks()?;
        let mut kernel = Kernel::attach(&Settings {
            ports: vec![port],
            hooks,
            ring_bytes: 4 << 20,
            tls: Tls::Off,
            user: None,
            diagnostics: LevelFilter::OFF,
        })?;
        let (client_host, server_host) = Host::pair()?;
        let dialogue = Dialogue::open(&client_host, &server_host, &format!("10.77.0.2:{port}"))?;
        pass(&dialogue.server, &dialogue.client)?;
        let mut said = Self { sent: Vec::new(), received: Vec::new(), family: kernel.family() };
        kernel.drain(&mut |event| match event {
            KernelEvent::Transfer(transfer) if transfer.flow == Flow::Sent => said.sent.push(transfer.to_static()),
            KernelEvent::Transfer(transfer) => said.received.push(transfer.to_static()),
            _ => {}
        });
        Ok(said)
    }

    /// Wants all of these bytes to have been read, at both ends.
    fn check(&self, stream: &[u8]) -> Result<()> {
        check(&self.sent, stream, true).context("sent")?;
        check(&self.received, stream, true).context("received")
    }

    /// Wants them to have been read if the hooks are on functions: from a system call's registers it is not certain which.
    fn check_uncertain(&self, end: &[TransferEvent], stream: &[u8]) -> Result<()> {
        check(end, stream, self.family == Family::Fentry)
    }
}

/// Wants these bytes to have been seen at one end: each that is shown is that of the stream, in its place, and either some
/// are or none.
fn check(end: &[TransferEvent], stream: &[u8], are_shown: bool) -> Result<()> {
    let shown = check_places(end, stream, &[if are_shown { CaptureMiss::Uncertain } else { CaptureMiss::Path }])?;
    ensure!((shown > 0) == are_shown, "{shown} bytes were shown");
    Ok(())
}

/// The same, where others are missing for these causes: how many are shown.
fn check_places(end: &[TransferEvent], stream: &[u8], causes: &[CaptureMiss]) -> Result<usize> {
    let (mut moved, mut told, mut shown) = (0, 0, 0);
    for transfer in end {
        moved += transfer.length as usize;
        for segment in transfer.said.segments() {
            told += match segment {
                Segment::Text(text) => {
                    let there = stream.get(told..told + text.len()).context("more was seen than was said")?;
                    ensure!(there == text, "this is not what was said: {transfer:?}");
                    shown += text.len();
                    text.len()
                }
                Segment::Uncaptured(missed) => {
                    let is_known = missed.cause == CaptureMiss::Long || causes.contains(&missed.cause);
                    ensure!(is_known, "the cause is {:?}, none of {causes:?}: {transfer:?}", missed.cause);
                    missed.length as usize
                }
                Segment::Withheld(withheld) => withheld.length as usize,
                Segment::Begun(_) => 0,
                Segment::Content(_) | Segment::Ciphertext(_) => bail!("the server says replies: {transfer:?}"),
            };
        }
        ensure!(told <= moved, "{told} bytes were told of {moved}");
    }
    ensure!(moved == stream.len(), "{moved} of {} bytes were counted", stream.len());
    Ok(shown)
}

/// A buffer with marks in it and behind it.
fn marked(length: usize) -> Vec<u8> {
    vec![MARK; length + AROUND]
}

/// Waits until so many bytes can be received.
fn wait_arrived(at: &TcpStream, bytes: usize) -> Result<()> {
    wait_until("bytes are on their way", || {
        let mut waiting: libc::c_int = 0;
        // SAFETY: the question is answered with one int.
        moved(unsafe { libc::ioctl(at.as_raw_fd(), libc::FIONREAD, &mut waiting) })?;
        Ok(waiting as usize >= bytes)
    })
}

#[test]
fn a_ring_that_receives_once_during_recv() -> Result<()> {
    beside_a_ring(2641, Shots::One)
}

#[test]
fn a_ring_that_goes_on_receiving_during_recv() -> Result<()> {
    beside_a_ring(2642, Shots::Many)
}

/// The kernel carries out a ring's request when a system call of the thread ends, whose registers are still there.
fn beside_a_ring(port: u16, shots: Shots) -> Result<()> {
    const ROUNDS: usize = 20;
    const ASKED: usize = 16;
    let bytes = stream(3000);
    let mut lacks = Ok(());
    let said = Said::watch(port, |from, to| {
        for _ in 0..ROUNDS {
            let mut buffer = marked(ASKED);
            if let Err(error) = uring::receive_at_once(from, to, &bytes, shots, (&mut buffer, ASKED)) {
                lacks = Err(error);
                break;
            }
        }
        Ok(())
    })?;
    match lacks {
        Ok(()) => {
            check(&said.sent, &bytes.repeat(ROUNDS), true)?;
            // Of the calls recv is read; what the ring receives in the middle of it is, if the hooks are on functions.
            check_places(&said.received, &bytes.repeat(ROUNDS), &[CaptureMiss::Path, CaptureMiss::Uncertain])?;
            Ok(())
        }
        Err(error) => absent("a ring beside recv", error),
    }
}

#[test]
fn what_follows_a_recvmmsg_that_its_timeout_ended() -> Result<()> {
    // Two lines: behind what was not read the first shows where a line begins.
    const LENGTH: usize = 32;
    let bytes = stream(4 * LENGTH);
    let said = Said::watch(2643, |from, to| {
        let mut buffers: [Vec<u8>; 4] = std::array::from_fn(|_| marked(LENGTH));
        let mut vectors =
            buffers.each_mut().map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: LENGTH });
        let mut messages = vectors.each_mut().map(|vector| header(std::slice::from_mut(vector)));
        let mut pieces = bytes.chunks(LENGTH);
        let mut next = || pieces.next().context("all is said");
        // The second message comes when the time is over, and ends the call.
        let (first, second) = (next()?, next()?);
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 500_000_000 };
        Sending::Write.all(from, first)?;
        let count = thread::scope(|scope| {
            scope.spawn(|| {
                wait_taken(from, to)?;
                sleep(Duration::from_secs(1));
                anyhow::Ok(Sending::Write.all(from, second)?)
            });
            // SAFETY: the messages lead to buffers of the lengths they say.
            moved(unsafe { libc::recvmmsg(to.as_raw_fd(), messages.as_mut_ptr(), 4, 0, &mut time) })
        })?;
        ensure!(count == 2, "{count} messages were received");
        // The same array again, from its start.
        Sending::Write.all(from, next()?)?;
        wait_arrived(to, LENGTH)?;
        let flags = libc::MSG_DONTWAIT as _;
        // SAFETY: as before.
        let count = moved(unsafe { libc::recvmmsg(to.as_raw_fd(), messages.as_mut_ptr(), 4, flags, null_mut()) })?;
        ensure!(count == 1, "{count} messages were received");
        // And as one message.
        Sending::Write.all(from, next()?)?;
        // SAFETY: as before.
        let count = moved(unsafe { libc::recvmmsg(to.as_raw_fd(), messages.as_mut_ptr(), 1, 0, null_mut()) })?;
        ensure!(count == 1, "{count} messages were received");
        Ok(())
    })?;
    check(&said.sent, &bytes, true)?;
    let (last, before) = said.received.split_last().context("nothing was received")?;
    check(std::slice::from_ref(last), &bytes[3 * LENGTH..], true)?;
    said.check_uncertain(before, &bytes[..3 * LENGTH])
}

#[test]
fn several_messages_in_one_call() -> Result<()> {
    const CALLS: usize = 3;
    let bytes = stream(1000);
    let said = Said::watch(2648, |from, to| {
        for _ in 0..CALLS {
            let mut vector = halves(bytes.as_ptr().cast_mut(), bytes.len());
            let mut sent = messages(&mut vector);
            // SAFETY: the messages lead to bytes that are only read.
            let count = moved(unsafe { libc::sendmmsg(from.as_raw_fd(), sent.as_mut_ptr(), 2, 0) })?;
            ensure!(count == 2, "{count} messages were sent");
            wait_arrived(to, bytes.len())?;
            let mut buffer = marked(bytes.len());
            let mut vector = halves(buffer.as_mut_ptr(), bytes.len());
            let mut received = messages(&mut vector);
            // SAFETY: the messages lead into the buffer.
            let count = moved(unsafe { libc::recvmmsg(to.as_raw_fd(), received.as_mut_ptr(), 2, 0, null_mut()) })?;
            ensure!(count == 2 && buffer.starts_with(&bytes), "{count} messages were received");
        }
        Ok(())
    })?;
    said.check_uncertain(&said.sent, &bytes.repeat(CALLS))?;
    said.check_uncertain(&said.received, &bytes.repeat(CALLS))
}

#[test]
fn messages_that_are_sent_in_part() -> Result<()> {
    // More than any socket takes.
    const LONG: usize = 32 << 20;
    let bytes = stream(LONG);
    let mut sent = Vec::new();
    let said = Said::watch(2644, |from, to| {
        let marks = marked(0);
        let mut drained = vec![0; LONG];
        from.set_nonblocking(true)?;
        // Calls that end within their first message, the second from there on.
        for _ in 0..2 {
            let start = sent.len();
            let mut vectors = [&bytes[start..], &marks[..]].map(part);
            let mut messages = vectors.each_mut().map(|vector| header(std::slice::from_mut(vector)));
            // SAFETY: the messages lead to bytes that are only read.
            let count = moved(unsafe { libc::sendmmsg(from.as_raw_fd(), messages.as_mut_ptr(), 2, 0) })?;
            let length = messages[0].msg_len as usize;
            ensure!(count == 1 && length < bytes.len() - start, "{count} messages were sent, of {length} bytes");
            sent.extend_from_slice(&bytes[start..start + length]);
            let mut to = to;
            to.read_exact(&mut drained[..length])?;
        }
        Ok(())
    })?;
    ensure!(!said.sent.is_empty(), "nothing was seen");
    said.check_uncertain(&said.sent, &sent)?;
    check(&said.received, &sent, true)
}

/// A call with a vector.
#[derive(Debug, Clone, Copy)]
enum Call {
    Vector,
    Message,
    OneOfMessages,
}

/// Lengths of a vector's parts.
const PARTS: [&[usize]; 6] =
    [&[100], &[0, 0, 5, 0, 0, 3, 0, 0], &[1; 1024], &[4096, 4096], &[50, 0, 9000, 1], &[7, 1, 0, 2000]];

/// How much of the vector is used: all, all but the last byte, one byte, a half, and just the first part that has bytes.
fn uses(parts: &[usize]) -> Result<[usize; 5]> {
    let all: usize = parts.iter().sum();
    let first = parts.iter().copied().find(|&length| length > 0).context("the vector has no room")?;
    Ok([all, all - 1, 1, all / 2, first])
}

#[test]
fn vectors_of_every_shape() -> Result<()> {
    let mut all = Vec::new();
    let said = Said::watch(2645, |from, to| {
        for call in [Call::Vector, Call::Message, Call::OneOfMessages] {
            for parts in PARTS {
                for used in uses(parts)?.into_iter().filter(|&used| used > 0) {
                    let bytes = stream(used);
                    all.extend_from_slice(&bytes);
                    let mut out = Scattered::new(parts);
                    out.fill(&bytes);
                    out.shorten(used);
                    ensure!(call.send(from, &mut out)? == used, "not all was sent");
                    wait_arrived(to, used)?;
                    let mut into = Scattered::new(parts);
                    ensure!(call.receive(to, &mut into)? == used, "not all was received");
                    ensure!(into.bytes().starts_with(&bytes), "{parts:?}: what arrived is not what was sent");
                }
            }
        }
        Ok(())
    })?;
    said.check(&all)
}

/// A vector whose parts have marks between them.
struct Scattered {
    memory: Vec<u8>,
    /// Where each part begins, and how long it is.
    parts: Vec<(usize, usize)>,
}

impl Scattered {
    fn new(lengths: &[usize]) -> Self {
        const BETWEEN: usize = 64;
        let mut parts = Vec::new();
        let mut end = BETWEEN;
        for &length in lengths {
            parts.push((end, length));
            end += length + BETWEEN;
        }
        Self { memory: vec![MARK; end + AROUND], parts }
    }

    fn fill(&mut self, mut bytes: &[u8]) {
        for &(start, length) in &self.parts {
            let (now, then) = bytes.split_at(length.min(bytes.len()));
            self.memory[start..start + now.len()].copy_from_slice(now);
            bytes = then;
        }
    }

    /// Leaves room for so many bytes.
    fn shorten(&mut self, mut room: usize) {
        for (_, length) in &mut self.parts {
            *length = room.min(*length);
            room -= *length;
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.parts.iter().flat_map(|&(start, length)| self.memory[start..start + length].to_vec()).collect()
    }

    fn vector(&mut self) -> Vec<libc::iovec> {
        self.parts.iter().map(|&(start, length)| part(&self.memory[start..start + length])).collect()
    }
}

impl Call {
    fn send(self, to: &TcpStream, bytes: &mut Scattered) -> Result<usize> {
        let (socket, mut vector) = (to.as_raw_fd(), bytes.vector());
        let mut message = header(&mut vector);
        // SAFETY: the vector leads into `bytes`.
        Ok(moved(unsafe {
            match self {
                Self::Vector => libc::writev(socket, vector.as_ptr(), vector.len() as i32),
                Self::Message => libc::sendmsg(socket, &message.msg_hdr, 0),
                Self::OneOfMessages => several(libc::sendmmsg(socket, &mut message, 1, 0), &[message]),
            }
        })?)
    }

    fn receive(self, from: &TcpStream, room: &mut Scattered) -> Result<usize> {
        let (socket, mut vector) = (from.as_raw_fd(), room.vector());
        let mut message = header(&mut vector);
        // SAFETY: the vector leads into `room`, which nothing else uses.
        Ok(moved(unsafe {
            match self {
                Self::Vector => libc::readv(socket, vector.as_ptr(), vector.len() as i32),
                Self::Message => libc::recvmsg(socket, &mut message.msg_hdr, 0),
                Self::OneOfMessages => several(libc::recvmmsg(socket, &mut message, 1, 0, null_mut()), &[message]),
            }
        })?)
    }
}

#[test]
fn a_vector_that_is_sent_in_part() -> Result<()> {
    const LONG: usize = 16 << 20;
    let bytes = stream(2 * LONG + 1000);
    let mut sent = 0;
    let said = Said::watch(2646, |from, to| {
        from.set_nonblocking(true)?;
        let (first, second) = bytes.split_at(1000);
        let (second, third) = second.split_at(LONG);
        let vector = [first, second, third].map(part);
        // SAFETY: the vector leads to bytes that are only read.
        sent = moved(unsafe { libc::writev(from.as_raw_fd(), vector.as_ptr(), 3) })?;
        ensure!(sent < bytes.len(), "all was sent");
        let mut to = to;
        Ok(to.read_exact(&mut vec![0; sent])?)
    })?;
    said.check(&bytes[..sent])
}

#[test]
fn calls_that_ask_for_less_than_there_is() -> Result<()> {
    const ASKED: usize = 16;
    let bytes = stream(5 * ASKED);
    let said = Said::watch(2647, |from, to| {
        Sending::Write.all(from, &bytes)?;
        wait_arrived(to, bytes.len())?;
        for flags in [0, libc::MSG_DONTWAIT, libc::MSG_WAITALL, libc::MSG_PEEK, libc::MSG_NOSIGNAL, 0] {
            let mut buffer = marked(ASKED);
            // SAFETY: the buffer is longer than what is asked for.
            let received = moved(unsafe { libc::recv(to.as_raw_fd(), buffer.as_mut_ptr().cast(), ASKED, flags) })?;
            ensure!(received == ASKED, "{received} bytes were received");
        }
        Ok(())
    })?;
    said.check(&bytes)
}

fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}
