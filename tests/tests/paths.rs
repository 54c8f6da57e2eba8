//! Every path that a byte can take between a process and a TCP socket, and what is seen of it: `docs/paths.md`.

use anyhow::Result;
use smtp_observer_tests::paths::{
    BY_32_BIT, BY_PAGES, BY_RING, End, FROM_SOCKET, Path, READ, Scene, THROWN_AWAY, files, flags, memory,
};
use smtp_observer_tests::syscalls::{Receiving, Sending};
use smtp_observer_tests::uring::{self, Executor, Operation};

#[test]
fn system_calls() -> Result<()> {
    use Receiving::{Preadv2, Read, Readv, Recv, Recvfrom, Recvmmsg, Recvmsg};
    use Sending::{Pwritev2, Send, Sendmmsg, Sendmsg, Sendto, Write, Writev};
    let sends = [Write, Writev, Pwritev2, Send, Sendto, Sendmsg, Sendmmsg]
        .map(|call| Path::sends(&format!("{call:?}"), READ, move |to, bytes| Ok(call.all(to, bytes)?)));
    let receives = [Read, Readv, Preadv2, Recv, Recvfrom, Recvmsg, Recvmmsg]
        .map(|call| Path::receives(&format!("{call:?}"), READ, move |from, buffer| Ok(call.all(from, buffer)?)));
    Scene::start()?.check(&sends.into_iter().chain(receives).collect::<Vec<_>>())
}

#[test]
fn files_and_pipes() -> Result<()> {
    Scene::start()?.check(&[
        Path::sends("sendfile", BY_PAGES, files::sendfile),
        Path::sends("splice to a socket", BY_PAGES, files::splice_to),
        Path::receives("splice from a socket", FROM_SOCKET, files::splice_from),
    ])
}

#[test]
fn flags_of_calls() -> Result<()> {
    Scene::start()?.check(&[
        Path::sends("MSG_ZEROCOPY", READ, flags::zerocopy),
        Path::sends("MSG_ERRQUEUE", READ, flags::timestamped),
        Path::receives("MSG_PEEK", READ, flags::peek),
        Path::sends("MSG_PEEK, sending", READ, flags::send_as_if_looking),
        Path::passes("MSG_OOB", End::Receiver, READ, flags::urgent),
        Path::passes("MSG_TRUNC", End::Receiver, THROWN_AWAY, flags::discard),
        Path::passes("MSG_WAITALL", End::Receiver, READ, flags::wait_for_all),
        Path::passes("O_NONBLOCK", End::Receiver, READ, flags::not_blocking),
    ])
}

#[test]
fn buffers_that_are_not_there() -> Result<()> {
    Scene::start()?.check(&[
        Path::sends("sent from nowhere", READ, memory::send_faulting),
        Path::receives("received to nowhere", READ, memory::receive_faulting),
        Path::sends("sent from a file's page", READ, memory::send_untouched),
        Path::receives("received to a new page", READ, memory::receive_untouched),
    ])
}

#[cfg(target_arch = "x86_64")]
#[test]
fn callers_of_32_bits() -> Result<()> {
    use smtp_observer_tests::paths::compat::Call;
    let sends = [Call::Write, Call::SocketcallSend, Call::Sendto]
        .map(|call| Path::sends(&format!("i386 {call:?}"), BY_32_BIT, move |to, bytes| call.send(to, bytes)));
    let receives = [Call::Read, Call::SocketcallRecv, Call::Recvfrom].map(|call| {
        Path::receives(&format!("i386 {call:?}"), BY_32_BIT, move |from, buffer| call.receive(from, buffer))
    });
    Scene::start()?.check(&sends.into_iter().chain(receives).collect::<Vec<_>>())
}

#[test]
fn rings() -> Result<()> {
    check_rings(Executor::Submitter)
}

#[test]
fn rings_with_a_worker() -> Result<()> {
    check_rings(Executor::Worker)
}

#[test]
fn rings_with_a_poller() -> Result<()> {
    check_rings(Executor::Poller)
}

fn check_rings(by: Executor) -> Result<()> {
    use Operation::{Read, ReadFixed, Readv, Recv, RecvMsg, Send, SendMsg, SendZc, Write, WriteFixed, Writev};
    let sights = |operation| if matches!(operation, WriteFixed | ReadFixed) { BY_PAGES } else { BY_RING };
    let name = |operation: Operation| format!("io_uring {operation:?}, {by:?}");
    let sends = [Send, SendMsg, SendZc, Write, Writev, WriteFixed].map(|operation| {
        Path::sends(&name(operation), sights(operation), move |to, bytes| operation.all(by, to, &mut bytes.to_vec()))
    });
    let receives = [Recv, RecvMsg, Read, Readv, ReadFixed].map(|operation| {
        Path::receives(&name(operation), sights(operation), move |from, buffer| operation.all(by, from, buffer))
    });
    Scene::start()?.check(&sends.into_iter().chain(receives).collect::<Vec<_>>())
}

#[test]
fn calls_of_a_thread_that_has_a_ring() -> Result<()> {
    Scene::start()?.check(&[
        Path::sends("write, with a ring", READ, uring::send_beside),
        Path::receives("read, with a ring", READ, uring::receive_beside),
    ])
}

#[test]
fn a_ring_that_receives_during_another_call() -> Result<()> {
    Scene::start()?.check(&[Path::passes(
        "io_uring Recv, in passing",
        End::Receiver,
        BY_RING,
        uring::receive_in_passing,
    )])
}
