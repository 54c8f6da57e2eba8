//! Whose socket the other end of a connection is, where it is on this host (sock_diag(7)).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagMessage, constants};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// The kernel answers at once; that it does not is no reason to stand still.
const PATIENCE: Duration = Duration::from_secs(1);

/// The user whose socket has this address and is connected to that one; none where no process has such a socket.
pub(super) fn user(peer: SocketAddr, own: SocketAddr) -> io::Result<Option<u32>> {
    // A client that speaks IPv4 to a socket of both has a socket of IPv4.
    let (source, destination) = (peer.ip().to_canonical(), own.ip().to_canonical());
    let family = if source.is_ipv4() { constants::AF_INET } else { constants::AF_INET6 };
    let id = SocketId {
        source_address: source,
        destination_address: destination,
        source_port: peer.port(),
        destination_port: own.port(),
        interface_id: 0,
        // Any (INET_DIAG_NOCOOKIE).
        cookie: [0xff; 8],
    };
    let request = InetRequest {
        family,
        protocol: constants::IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let diag = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    setsockopt(&diag, sockopt::ReceiveTimeout, &TimeVal::milliseconds(PATIENCE.as_millis() as i64))?;
    send(diag.as_raw_fd(), &bytes, MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(diag.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&answer[..length]).map_err(io::Error::other)?;
    match answer.payload {
        // A socket that no process has any more has no inode, and no user: its 0 is not root.
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
            Ok(Some(found.header.uid).filter(|_| found.header.inode != 0))
        }
        NetlinkPayload::Error(error) => match error.to_io() {
            error if error.kind() == io::ErrorKind::NotFound => Ok(None),
            error => Err(error),
        },
        _ => Ok(None),
    }
}

/// Whether a connection between these two addresses leaves this host.
pub(super) fn is_local(peer: SocketAddr, own: SocketAddr) -> bool {
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    is_loopback(peer.ip()) && is_loopback(own.ip())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_socket_is_its_users_until_nobody_has_it() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                assert!(address.starts_with('['), "a host without IPv6");
                continue;
            };
            let own = listener.local_addr().expect("bound");
            let client = TcpStream::connect(own).expect("listening");
            let (served, peer) = listener.accept().expect("connected");
            let me = nix::unistd::geteuid().as_raw();
            assert_eq!(user(peer, own).expect("the kernel answers"), Some(me));
            if let (IpAddr::V4(peer_ip), IpAddr::V4(own_ip)) = (peer.ip(), own.ip()) {
                let mapped = |ip: Ipv4Addr, port| SocketAddr::new(ip.to_ipv6_mapped().into(), port);
                let (peer, own) = (mapped(peer_ip, peer.port()), mapped(own_ip, own.port()));
                assert_eq!(user(peer, own).expect("the kernel answers"), Some(me));
            }
            drop(client);
            assert_eq!(user(peer, own).expect("the kernel answers"), None, "it is nobody's");
            drop(served);
            let free = SocketAddr::new(own.ip(), 1);
            assert_eq!(user(free, own).expect("the kernel answers"), None, "there never was one");
        }
    }

    #[test]
    fn local_is_loopback_at_both_ends() {
        for (peer, own, local) in [
            ("127.0.0.1:1", "127.0.0.2:9725", true),
            ("[::1]:1", "[::1]:9725", true),
            ("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:9725", true),
            ("192.0.2.1:1", "192.0.2.1:9725", false),
            ("192.0.2.1:1", "127.0.0.1:9725", false),
        ] {
            assert_eq!(is_local(peer.parse().expect("one"), own.parse().expect("one")), local, "{peer} {own}");
        }
    }
}
