//! The records in the ring buffer. Every record starts with a [`Header`]; its [`Kind`] says what follows.
//!
//! All integers are in the host's byte order. Padding is explicit, so that no byte of kernel memory leaks and user
//! space may read a record as plain bytes.

/// Bytes of a task's `comm`, its terminating NUL included (`TASK_COMM_LEN` in `include/linux/sched.h`).
pub const COMM_LENGTH: usize = 16;

/// Most bytes of a call that are looked at together, and told in one record.
pub const WINDOW_LENGTH: usize = 4096;

/// Most bytes of an executable's path: path components, leaf first, each ended by a NUL.
pub const EXECUTABLE_LENGTH: usize = 512;

/// Most processes that the programs remember to have described.
pub const DESCRIBED_PROCESSES: u32 = 8192;

/// Most connections between two processes of this host that are remembered.
pub const CONNECTIONS_ON_THIS_HOST: u32 = 16_384;

/// Most bytes of the argument vector: arguments, each ended by a NUL (`mm->arg_start` to `mm->arg_end`).
pub const ARGUMENTS_LENGTH: usize = 512;

/// Most bytes of a cgroup's path: path components, leaf first, each ended by a NUL.
pub const CGROUP_LENGTH: usize = 512;

/// Most bytes of the value of `LD_PRELOAD`.
pub const PRELOAD_LENGTH: usize = 128;

/// What a record tells.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A [`Process`]: a task seen for the first time, before the first record that names it.
    Process = 1,
    /// A [`State`]: a TCP socket changed its state.
    State = 2,
    /// A [`Transfer`] out of the process.
    Send = 3,
    /// A [`Transfer`] into the process.
    Receive = 4,
    /// An [`Owner`]: who uses a socket, before the first transfer that names it, and when that changes.
    Owner = 5,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Process, Self::State, Self::Send, Self::Receive, Self::Owner];

    /// The kind with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// Records that found no room, at the number of their [`Kind`].
pub type Lost = [u64; Kind::ALL.len() + 1];

/// Why bytes that a call moved are not in its record.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureMiss {
    /// All of them are.
    None = 0,
    /// The call was longer than what is captured: its middle is missing.
    Long = 1,
    /// The caller's buffer could not be read (`bpf_probe_read_user` failed).
    Fault = 2,
    /// The call came by a system call whose buffer is not in the caller's registers (io_uring, sendfile, splice).
    Path = 3,
    /// The caller is a 32-bit program: its registers follow another convention.
    Compat = 4,
    /// The call's vector had more parts than the program walks.
    Vector = 5,
    /// They are content of a message, which stays in the kernel.
    Content = 6,
    /// The caller had them thrown away: `MSG_TRUNC` on a TCP socket (tcp(7)).
    Discarded = 7,
    /// They went from or to pages that no process has mapped for the call (`ITER_BVEC` and later kinds of `iov_iter`):
    /// sendfile, splice, fixed buffers of io_uring.
    Pages = 8,
    /// The kernel itself encrypts or decrypts them (kTLS).
    Tls = 9,
    /// It is not certain what they are, so they stay in the kernel: they may be content or a credential.
    Uncertain = 10,
}

impl CaptureMiss {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::None,
        Self::Long,
        Self::Fault,
        Self::Path,
        Self::Compat,
        Self::Vector,
        Self::Content,
        Self::Discarded,
        Self::Pages,
        Self::Tls,
        Self::Uncertain,
    ];

    /// The cause with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| *cause as u32 == number)
    }
}

/// The start of every record.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header {
    /// The record's [`Kind`].
    pub kind: u32,
    /// Explicit padding, zero.
    pub padding: u32,
    /// `CLOCK_BOOTTIME` in nanoseconds, where the hook ran (`bpf_ktime_get_boot_ns`).
    pub time: u64,
}

/// The task that made the call, or all zero where the kernel ran on its own behalf (softirq).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Task {
    /// `task_struct.group_leader->start_boottime`: with [`Self::pid`], a process for as long as the host runs.
    pub start_time: u64,
    /// `task_struct.tgid`, in the host's pid namespace.
    pub pid: u32,
    /// `task_struct.pid`, the thread.
    pub tid: u32,
    /// The effective user, in the host's user namespace.
    pub uid: u32,
    /// `task_struct.self_exec_id`: changes when the process executes another program.
    pub exec_id: u32,
    /// `task_struct.group_leader->comm`.
    pub comm: [u8; COMM_LENGTH],
}

/// The socket a record is about.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Socket {
    /// `bpf_get_socket_cookie`: names the socket for as long as the host runs.
    pub cookie: u64,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// `sock_common.skc_num`.
    pub local_port: u16,
    /// `sock_common.skc_dport`, in the host's byte order.
    pub remote_port: u16,
    /// `sock_common.skc_state`, before the change in a [`State`] record.
    pub state: u16,
    /// Not zero where the sequence numbers are not those of the stream that processes use: kTLS, MPTCP.
    pub seq_unreliable: u32,
    /// The local address; IPv4 as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2).
    pub local: [u8; 16],
    /// The remote address, likewise.
    pub remote: [u8; 16],
}

/// Stream positions of a socket when the record was made; they wrap. A FIN, which takes a sequence number too, is not
/// counted.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SeqNumbers {
    /// `tcp_sock.write_seq`: the sequence number after the last byte the process has handed over.
    pub write_seq: u32,
    /// `tcp_sock.copied_seq`: the sequence number of the first byte the process has not read.
    pub copied_seq: u32,
}

/// A TCP socket changed its state (`sock:inet_sock_set_state`).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct State {
    /// Kind [`Kind::State`].
    pub header: Header,
    /// The caller of `connect`, where [`Self::new`] is `TCP_SYN_SENT`; all zero otherwise.
    pub task: Task,
    /// The socket.
    pub socket: Socket,
    /// Its positions.
    pub positions: SeqNumbers,
    /// The state it leaves (`include/net/tcp_states.h`); the one it enters where nothing changes. Then the socket turned out
    /// to be the accepted one of a proxy, and [`Self::peer`] is its client, which the header's time is that of; or without a
    /// peer it may be such a client.
    pub old: u32,
    /// The state it enters.
    pub new: u32,
    /// The address asked of `connect`, where [`Self::requested_family`] is not zero.
    pub requested: [u8; 16],
    /// The port asked of `connect`.
    pub requested_port: u16,
    /// `AF_INET`, `AF_INET6`, or zero: not known.
    pub requested_family: u16,
    /// Not zero: it may have an address that is not this host's (`IP_TRANSPARENT`, `inet_sock.transparent`).
    pub transparent: u16,
    /// Not zero: its host takes what it sends to the remote end for its own (`RTN_LOCAL`); where [`Self::old`] is
    /// `TCP_SYN_SENT`.
    pub local_route: u16,
    /// The cookie of the socket at the other end of the connection, where this one was accepted from a watched client
    /// on this host; else zero.
    pub peer: u64,
    /// `sock.sk_err`: why the kernel ended the connection, where [`Self::new`] is `TCP_CLOSE`; else zero.
    pub error: u32,
    /// Where [`Self::new`] is `TCP_CLOSE`: so many bytes have come and can still be read, unless the process closes its socket
    /// just now; else zero.
    pub unread: u32,
}

/// A process uses a socket: which both are. Transfers name them by number.
///
/// It comes before the first transfer of a process on a socket, when the user or the name of the process has changed, and
/// again now and then.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Owner {
    /// Kind [`Kind::Owner`].
    pub header: Header,
    /// The caller.
    pub task: Task,
    /// The socket.
    pub socket: Socket,
}

/// Bytes moved between a process and a socket. What of them crosses follows as [`Segment`]s.
///
/// A call that is longer than [`WINDOW_LENGTH`] is told in several records, in their order. Each has the length and the
/// positions of its part, as if it were a call of its own.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Transfer {
    /// Kind [`Kind::Send`] or [`Kind::Receive`], as in a [`Header`].
    pub kind: u32,
    /// `sock_common.skc_state`.
    pub state: u8,
    /// As [`Socket::seq_unreliable`].
    pub seq_unreliable: u8,
    /// Not zero: the record before it on this socket, in this direction, tells of the same call.
    pub continues: u8,
    /// The [`Library`](crate::library_call::Library) whose session the socket carries, if that is known, and
    /// [`TLS_PLAINTEXT`] and [`TLS_FROM_START`] where they hold.
    pub tls: u8,
    /// As in a [`Header`].
    pub time: u64,
    /// The socket's [`Socket::cookie`].
    pub cookie: u64,
    /// Its positions after the part of the call that this record tells of.
    pub positions: SeqNumbers,
    /// Bytes of that part; never zero.
    pub length: u32,
    /// Bytes of segments that follow this record.
    pub size: u32,
    /// The caller's [`Task::pid`]: the last [`Owner`] of this socket with it is the caller.
    pub pid: u32,
    /// The caller's [`Task::tid`].
    pub tid: u32,
}

/// Of [`Transfer::tls`]: the bits that tell the library.
pub const TLS_LIBRARY: u8 = 0x0f;
/// The bytes are plaintext of a TLS session that the socket carries, and positions count its plaintext.
pub const TLS_PLAINTEXT: u8 = 0x10;
/// They count it from the session's start.
pub const TLS_FROM_START: u8 = 0x20;

/// A part of one direction of a dialogue, in the order in which it was said.
///
/// A line that a call leaves unfinished waits in the kernel until its form is known, and so do bytes of content that may
/// begin its end. So the lengths of a record's segments need not add up to the record's length; those of all records of a
/// direction add up to what was said, less what waits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// A [`SegmentKind`].
    pub kind: u8,
    /// Of [`SegmentKind::Withheld`]: its `WITHHELD_…` bits. Of [`SegmentKind::Uncaptured`]: the [`CaptureMiss`] that is the cause.
    pub flags: u8,
    /// Of [`SegmentKind::Text`] and [`SegmentKind::Begun`]: so many bytes follow. Of [`SegmentKind::Uncaptured`]: lines that
    /// end in it, where they were counted.
    pub count: u16,
    /// Bytes of the dialogue that it stands for.
    pub length: u32,
}

/// What a [`Segment`] stands for.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// Commands or replies, as they were said: the text follows. Of content: its end, or the first disputed form of one, in
    /// which any byte but CR, LF, NUL and dot is `x`.
    Text = 1,
    /// A line, or a part of one, that does not cross: an unknown verb, an argument, an answer to 334, the text of a reply
    /// that may repeat one of these.
    Withheld = 2,
    /// Octets of a message (RFC 5321, 4.1.1.4; RFC 3030).
    Content = 3,
    /// Bytes that could not be read, or of which it is not certain what they are.
    Uncaptured = 4,
    /// TLS, but for what crosses of a handshake, which is text: hellos, heads of records, and alerts in clear.
    Ciphertext = 5,
    /// The next segment waited in the kernel: when its first byte was moved, 8 bytes of nanoseconds like [`Header::time`].
    Begun = 6,
}

impl SegmentKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Text, Self::Withheld, Self::Content, Self::Uncaptured, Self::Ciphertext, Self::Begun];

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// A withheld line ends here, with LF; its length counts the line's end.
pub const WITHHELD_LF: u8 = 1;
/// A withheld line ends here, with CR LF; its length counts the line's end. Of a line in several parts, the CR may be in the
/// part before.
pub const WITHHELD_CRLF: u8 = 2;
/// A NUL is among what was withheld.
pub const WITHHELD_NUL: u8 = 4;
/// A CR is among what was withheld that is not part of the line's end.
pub const WITHHELD_BARE_CR: u8 = 8;
/// The last byte of what was withheld is a CR, and the line goes on: an LF that follows makes it part of the line's end.
pub const WITHHELD_CR: u8 = 16;

/// A process, described. Its executable, arguments, cgroup and the value of `LD_PRELOAD` follow, in this order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Process {
    /// Kind [`Kind::Process`].
    pub header: Header,
    /// Who it is.
    pub task: Task,
    /// `task_struct.real_parent->tgid`.
    pub parent_pid: u32,
    /// Bytes of the executable's path that follow.
    pub executable: u32,
    /// Bytes of arguments that follow those.
    pub arguments: u32,
    /// Bytes of the cgroup's path that follow those.
    pub cgroup: u32,
    /// Bytes of `LD_PRELOAD` that follow those: libraries that are loaded before the program's own (ld.so(8)).
    pub preload: u32,
    /// Not zero: the executable is in no directory, and its only component is its name (`memfd_create`).
    pub detached: u32,
    /// `task_struct.real_parent->group_leader->comm`.
    pub parent_comm: [u8; COMM_LENGTH],
}

/// A process holds an open socket: what the iterator writes, not into the ring buffer but to its reader. The
/// executable and the cgroup follow, in this order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Open {
    /// `CLOCK_BOOTTIME` in nanoseconds, when the socket was read.
    pub time: u64,
    /// The holder; as thread its leader.
    pub task: Task,
    /// The socket.
    pub socket: Socket,
    /// Its positions.
    pub positions: SeqNumbers,
    /// `task_struct.real_parent->tgid`.
    pub parent_pid: u32,
    /// Bytes of the executable's path that follow.
    pub executable: u32,
    /// Bytes of the cgroup's path that follow those.
    pub cgroup: u32,
    /// Not zero: the executable is in no directory, and its only component is its name (`memfd_create`).
    pub detached: u32,
    /// `task_struct.real_parent->group_leader->comm`.
    pub parent_comm: [u8; COMM_LENGTH],
}

impl Segment {
    /// Its bytes as they stand in memory, as one number.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        u64::from_ne_bytes(self.to_bytes())
    }

    /// Its bytes as they stand in memory.
    #[inline(always)]
    pub const fn to_bytes(self) -> [u8; 8] {
        let (count, length) = (self.count.to_ne_bytes(), self.length.to_ne_bytes());
        [self.kind, self.flags, count[0], count[1], length[0], length[1], length[2], length[3]]
    }

    /// The segment with these bytes.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        let [kind, flags, a, b, c, d, e, f] = bytes;
        Self { kind, flags, count: u16::from_ne_bytes([a, b]), length: u32::from_ne_bytes([c, d, e, f]) }
    }
}
