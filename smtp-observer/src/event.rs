//! What the kernel said, as owned Rust values: the one place where the bytes of a record become types.
//!
//! From here inward nothing reads a clock, a file or a socket: a stream of [`KernelEvent`]s replays to the same
//! observations. As a recording has them, they are JSON; a byte is then the character with its number.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod crossing;
mod said;
mod wire;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
pub use smtp_ebpf::event::CaptureMiss;
use smtp_ebpf::event::Kind;
use smtp_ebpf::library_call::Library;

pub use self::said::{LineEnd, Said, Segment, Uncaptured, Withheld};
pub use self::wire::cause_name;
use self::wire::is_default;

/// A moment on the kernel's boot clock, in nanoseconds (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// One item of the stream that the kernel side hands to the observer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelEvent<'a> {
    /// The host's clocks and name of this boot: first in every stream.
    Host(Host),
    /// A process, described before the first event that names it.
    Process(ProcessEvent),
    /// The sockets that are open.
    Snapshot(Snapshot),
    /// A socket changed its state.
    State(StateEvent),
    /// Bytes went out of, or came into, a process.
    Transfer(TransferEvent<'a>),
    /// Whether plaintext of TLS is read, in processes that have a library for it.
    ReadsTls(bool),
    /// A process was searched for libraries of TLS.
    TlsLibraries(TlsLibraries),
}

/// A process was searched for libraries of TLS, whose calls are followed from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsLibraries {
    /// When.
    pub time: Time,
    /// Its thread group's id in the host's pid namespace.
    pub pid: u32,
    /// Those that it has loaded.
    pub libraries: Vec<TlsLibrary>,
}

/// What ties a stream to wall-clock time and to one boot of one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Nanoseconds to add to a [`Time`] to get Unix time.
    pub unix_offset: i64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Arc<str>,
    /// The agent's network namespace; absent in older recordings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// Its addresses: who asks for one of them there asks for this host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

impl Host {
    /// The addresses that are known of a network namespace: none of another than the agent's.
    pub fn addresses_in(&self, netns: u32) -> &[IpAddr] {
        if self.netns.is_none_or(|own| own == netns) { &self.addresses } else { &[] }
    }
}

/// Names a process for as long as the host runs: pids are used again, a start time with its pid is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessKey {
    /// The thread group's id in the host's pid namespace.
    pub pid: u32,
    /// When its leader started, on the boot clock.
    pub start_time: Time,
    /// Changes when the process executes another program (`task_struct.self_exec_id`).
    pub exec_id: u32,
}

/// The caller of a socket call, as every event carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its process.
    pub process: ProcessKey,
    /// The thread.
    pub tid: u32,
    /// The effective user of the thread, at the time of the call.
    pub uid: u32,
    /// That user's name, where the host knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    /// The group leader's `comm`, at the time of the call.
    pub comm: Arc<str>,
}

/// The long description of a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessEvent {
    /// When it was described.
    pub time: Time,
    /// Who it is.
    pub task: Task,
    /// The executable's path from the root of its mount namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<Arc<str>>,
    /// The argument vector, bounded by `smtp_ebpf::event::ARGUMENTS_LENGTH` bytes.
    pub arguments: Vec<String>,
    /// The path of its cgroup in the unified hierarchy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Arc<str>>,
    /// Libraries that are loaded before its own (`LD_PRELOAD`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preload: Option<Arc<str>>,
    /// Its parent's pid.
    pub parent_pid: u32,
    /// Its parent's `comm`.
    pub parent_comm: Arc<str>,
}

/// A socket as every event carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// The kernel's cookie, unique for as long as the host runs.
    pub cookie: u64,
    /// Inode of its network namespace.
    pub netns: u32,
    /// Its own end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Its state, before the change in a [`StateEvent`].
    pub state: TcpState,
    /// Its sequence numbers are not those of the stream that processes use: kTLS, MPTCP.
    #[serde(default, skip_serializing_if = "is_default", alias = "apart")]
    pub seq_unreliable: bool,
}

/// Stream positions, as TCP sequence numbers that wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeqNumbers {
    /// `tcp_sock.write_seq`: after the last byte that the process handed over.
    #[serde(alias = "written")]
    pub write_seq: u32,
    /// `tcp_sock.copied_seq`: of the first byte that the process has not read.
    #[serde(alias = "read")]
    pub copied_seq: u32,
}

/// TCP states (`include/net/tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are RFC 9293's")]
#[serde(rename_all = "snake_case")]
pub enum TcpState {
    Established,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    NewSynReceived,
    BoundInactive,
    /// A number this program does not know.
    Other(u32),
}

impl TcpState {
    /// The state with the kernel's number.
    pub fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            12 => Self::NewSynReceived,
            13 => Self::BoundInactive,
            other => Self::Other(other),
        }
    }
}

/// A socket changed its state; or it turned out to be an accepted one of a proxy that its client asked for by a port that is
/// not watched, where it was established and still is. Then the time is that of its beginning; and one without a peer may be
/// such a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateEvent {
    /// When.
    pub time: Time,
    /// The caller of `connect`; absent in every other change, where whoever ran is a stranger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// The socket, as it was before.
    pub socket: Socket,
    /// Its positions.
    pub positions: SeqNumbers,
    /// The state it enters.
    pub new: TcpState,
    /// What the caller asked `connect` for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<SocketAddr>,
    /// The cookie of the socket at the other end, where this one was accepted from a watched client on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<u64>,
    /// The socket may have an address that is not this host's (`IP_TRANSPARENT`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub transparent: bool,
    /// Its host takes what it sends to the remote end for its own (`RTN_LOCAL`). Told of a client that is established.
    #[serde(default, skip_serializing_if = "is_default")]
    pub local_route: bool,
    /// The error with which the kernel ended the connection (errno(3)); zero: none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub error: u32,
    /// So many bytes had come and could still be read when the connection ended, unless its process has closed the socket.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unread: u32,
}

/// The sockets that processes hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// From before the first of them was read.
    pub time: Time,
    /// Who holds them.
    pub processes: Vec<ProcessEvent>,
    /// Each once.
    pub sockets: Vec<OpenSocket>,
    /// Only some processes were looked at: those of a container's pid namespace.
    #[serde(default, skip_serializing_if = "is_default")]
    pub partial: bool,
}

/// A socket that a process holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenSocket {
    /// When it was read.
    pub time: Time,
    /// The process that holds it: the youngest, where a parent and its children share it.
    pub task: Task,
    /// The socket.
    pub socket: Socket,
    /// Its positions.
    pub positions: SeqNumbers,
}

/// Which way bytes went, seen from the process that owns the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// Out of the process.
    Sent,
    /// Into the process.
    Received,
}

/// Bytes that a call, or a part of one, moved. What was said is borrowed from the record that tells of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransferEvent<'a> {
    /// When the call returned.
    pub time: Time,
    /// Who called.
    pub task: Task,
    /// On which socket.
    pub socket: Socket,
    /// Its positions after the call.
    pub positions: SeqNumbers,
    /// Which way.
    pub flow: Flow,
    /// How many bytes.
    pub length: u32,
    /// The event before it on this socket, in this direction, tells of the same call.
    #[serde(default, skip_serializing_if = "is_default")]
    pub continues: bool,
    /// The TLS session that the socket carries, and whether these are bytes of the socket or of the session.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: TlsSession,
    /// What was said. A line that the call left unfinished comes with a later event.
    #[serde(default, skip_serializing_if = "Said::is_empty")]
    pub said: Said<'a>,
}

/// What is known of the TLS session that a socket carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsSession {
    /// The library that encrypts it, where its calls were seen to use the socket.
    #[serde(skip_serializing_if = "is_default")]
    pub library: Option<TlsLibrary>,
    /// The transfer is of its plaintext, not of the socket's bytes. So are the positions.
    #[serde(skip_serializing_if = "is_default")]
    pub plaintext: bool,
    /// Positions count its plaintext from the start; otherwise from where it was first seen.
    #[serde(skip_serializing_if = "is_default")]
    pub from_start: bool,
}

/// A library that encrypts what a process says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsLibrary {
    /// OpenSSL, and what has its functions.
    OpenSsl,
    /// GnuTLS.
    GnuTls,
}

impl From<Library> for TlsLibrary {
    fn from(library: Library) -> Self {
        match library {
            Library::OpenSsl => Self::OpenSsl,
            Library::GnuTls => Self::GnuTls,
        }
    }
}

impl TlsLibrary {
    /// The name used in events and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenSsl => "openssl",
            Self::GnuTls => "gnutls",
        }
    }
}

impl TransferEvent<'_> {
    /// The same with room of its own, to be kept.
    pub fn to_static(&self) -> TransferEvent<'static> {
        TransferEvent { said: self.said.to_static(), task: self.task.clone(), ..*self }
    }
}

/// A record that is not what the kernel side writes: a bug, or a recording that was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedRecord {
    /// Shorter than its kind needs, or than its own lengths say.
    #[error("a kernel record of {0} bytes is too short for what it says it holds")]
    Short(usize),
    /// Its kind has a number nobody knows.
    #[error("a kernel record has the unknown kind {0}")]
    Kind(u32),
    /// A segment of it has a kind with a number nobody knows.
    #[error("a kernel record has a segment of the unknown kind {0}")]
    Segment(u8),
    /// It is about a socket of which no record has said whose it is, or that was forgotten since.
    #[error("a kernel record of the kind {} is about a socket that no record has named", *.0 as u32)]
    Owner(Kind),
    /// Bytes are missing in it for a reason with a number nobody knows.
    #[error("a kernel record has the unknown cause {0}")]
    Cause(u8),
}

/// An address as the kernel side writes it: IPv4 as IPv4-mapped IPv6, told apart again here.
pub fn socket_address(address: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(address)).to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_agents_namespace_alone() {
        let own = [IpAddr::from([10, 0, 0, 1])];
        let host = Host { unix_offset: 0, boot_id: "".into(), netns: Some(7), addresses: own.to_vec() };
        assert_eq!((host.addresses_in(7), host.addresses_in(8)), (&own[..], &[][..]));
        // As older recordings have it.
        assert_eq!(Host { netns: None, ..host }.addresses_in(8), own);
    }
}
