use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::event::{ProcessKey, Said, SeqNumbers, Socket, Task};

fn socket() -> Socket {
    Socket {
        cookie: 1,
        netns: 1,
        local: SocketAddr::from((Ipv4Addr::LOCALHOST, 40000)),
        remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 25)),
        state: TcpState::SynSent,
        seq_unreliable: false,
    }
}

/// Established with both streams at these positions.
fn established(write_seq: u32, copied_seq: u32) -> Connection {
    let end = |port| Endpoint { address: Ipv4Addr::LOCALHOST.into(), port };
    let (local, remote) = (end(40000), end(25));
    let identity = identity::Connection { id: "1".into(), role: Role::Client, local, remote, netns: 1, cookie: 1 };
    let mut connection = Connection::new(identity, Time(0));
    connection.establish(&StateEvent {
        time: Time(1),
        task: None,
        socket: socket(),
        positions: SeqNumbers { write_seq, copied_seq },
        new: TcpState::Established,
        requested: None,
        peer: None,
        transparent: false,
        local_route: false,
        error: 0,
        unread: 0,
    });
    connection
}

fn transfer(flow: Flow, text: &'static str, write_seq: u32, copied_seq: u32) -> TransferEvent<'static> {
    TransferEvent {
        time: Time(2),
        task: Task {
            process: ProcessKey { pid: 1, start_time: Time(0), exec_id: 0 },
            tid: 1,
            uid: 0,
            user: None,
            comm: "swaks".into(),
        },
        socket: socket(),
        positions: SeqNumbers { write_seq, copied_seq },
        flow,
        length: text.len() as u32,
        continues: false,
        tls: Default::default(),
        said: Said::text(text.as_bytes()),
    }
}

/// What has its turn with this event.
fn reorder(connection: &mut Connection, event: TransferEvent<'static>) -> Vec<TransferEvent<'static>> {
    let mut turns = Vec::new();
    let turn = if connection.hold(&event) { connection.release_surplus() } else { Some(event) };
    if let Some(event) = turn {
        connection.advance(&event);
        turns.push(event);
        while let Some(held) = connection.release() {
            turns.push(held);
        }
    }
    turns
}

#[test]
fn what_comes_first_has_closed_it() {
    let closed_by = |state, error| {
        let positions = SeqNumbers { write_seq: 0, copied_seq: 0 };
        let socket = Socket { state, ..socket() };
        let (time, new) = (Time(1), TcpState::Close);
        let event = StateEvent {
            time,
            task: None,
            socket,
            positions,
            new,
            requested: None,
            peer: None,
            transparent: false,
            local_route: false,
            error,
            unread: 0,
        };
        event.closed_by()
    };
    assert_eq!(closed_by(TcpState::FinWait2, 0), ClosedBy::Local);
    assert_eq!(closed_by(TcpState::FinWait1, 104), ClosedBy::Local, "a reset answers the FIN");
    assert_eq!(closed_by(TcpState::LastAck, 0), ClosedBy::Remote);
    assert_eq!(closed_by(TcpState::CloseWait, 32), ClosedBy::Remote, "EPIPE");
    assert_eq!(closed_by(TcpState::Established, 0), ClosedBy::ResetSent);
    assert_eq!(closed_by(TcpState::Established, 104), ClosedBy::ResetReceived);
    assert_eq!(closed_by(TcpState::Established, 110), ClosedBy::Timeout);
    assert_eq!(closed_by(TcpState::Established, 5), ClosedBy::Unknown);
    assert_eq!(closed_by(TcpState::SynReceived, 0), ClosedBy::Unknown);
}

#[test]
fn a_hole_is_known_to_the_byte() {
    let mut connection = established(100, 500);
    assert_eq!(connection.advance(&transfer(Flow::Sent, "NOOP\r\n", 106, 500)), 0);
    // 1,000 bytes went by a path without a hook.
    assert_eq!(connection.advance(&transfer(Flow::Sent, "QUIT\r\n", 1112, 500)), 1000);
    assert_eq!(connection.bytes_sent(), 1012);
}

#[test]
fn the_last_hole_reaches_to_the_sockets_end() {
    let mut connection = established(u32::MAX - 2, 500);
    assert_eq!(connection.advance(&transfer(Flow::Sent, "QUIT\r\n", 3, 500)), 0);
    let last = SeqNumbers { write_seq: 13, copied_seq: 500 };
    assert_eq!(connection.last_hole(Flow::Sent, last), 10);
    assert_eq!(connection.last_hole(Flow::Received, last), 0);
    assert_eq!((connection.bytes_sent(), connection.bytes_received()), (16, 0));
}

#[test]
fn a_stream_whose_start_is_not_known_has_no_hole() {
    let end = |port| Endpoint { address: Ipv4Addr::LOCALHOST.into(), port };
    let (local, remote) = (end(40000), end(25));
    let identity = identity::Connection { id: "1".into(), role: Role::Client, local, remote, netns: 1, cookie: 1 };
    let mut connection = Connection::new(identity, Time(0));
    assert_eq!(connection.last_hole(Flow::Sent, SeqNumbers { write_seq: 900, copied_seq: 900 }), 0);
    assert_eq!(connection.bytes_sent(), 0);
}

#[test]
fn calls_told_in_the_wrong_order_leave_no_hole() {
    let mut connection = established(0, 0);
    // Two threads sent six bytes each; the second was told first, and its six bytes before with it.
    assert_eq!(connection.advance(&transfer(Flow::Sent, "QUIT\r\n", 12, 0)), 6);
    assert_eq!(connection.advance(&transfer(Flow::Sent, "NOOP\r\n", 6, 0)), 0);
    assert_eq!(connection.last_hole(Flow::Sent, SeqNumbers { write_seq: 12, copied_seq: 0 }), 0);
}

#[test]
fn positions_wrap() {
    let mut connection = established(u32::MAX - 2, 0);
    assert_eq!(connection.advance(&transfer(Flow::Sent, "NOOP\r\n", 3, 0)), 0);
    assert_eq!(connection.advance(&transfer(Flow::Sent, "QUIT\r\n", 9, 0)), 0);
}

#[test]
fn an_answer_waits_for_its_command() {
    let mut connection = established(0, 0);
    // Another thread reads the answer before the sender's call returns.
    let answer = transfer(Flow::Received, "250 ok\r\n", 6, 8);
    assert_eq!(reorder(&mut connection, answer.clone()), []);
    let command = transfer(Flow::Sent, "NOOP\r\n", 6, 8);
    let ready = reorder(&mut connection, command.clone());
    assert_eq!(ready, [command, answer]);
}

#[test]
fn a_command_comes_before_its_answer_though_the_answer_before_is_lost() {
    let mut connection = established(0, 0);
    // An answer of six bytes was lost, so the next command seems to be early.
    let command = transfer(Flow::Received, "NOOP\r\n", 6, 12);
    assert_eq!(reorder(&mut connection, command.clone()), []);
    let answer = transfer(Flow::Sent, "250 \r\n", 12, 12);
    assert!(!connection.hold(&answer), "a send never waits");
    assert_eq!(connection.release_before(&answer), Some(command));
    assert_eq!(connection.release_before(&answer), None);
}

#[test]
fn what_waits_in_vain_comes_in_the_end() {
    let mut connection = established(0, 0);
    let answer = transfer(Flow::Received, "250 ok\r\n", 6, 8);
    assert_eq!(reorder(&mut connection, answer.clone()), []);
    assert_eq!(connection.drain_held(), Some(answer));
}

#[test]
fn no_more_waits_than_the_bound() {
    let mut connection = established(0, 0);
    let mut seen = 0;
    for read in 1..=100 {
        seen += reorder(&mut connection, transfer(Flow::Received, "x", 6, read)).len();
    }
    assert!(connection.held.len() <= MAX_HELD);
    while connection.drain_held().is_some() {
        seen += 1;
    }
    assert_eq!(seen, 100);
}
