//! The eBPF programs: attach points only, each a short function.
#![no_std]
#![no_main]

mod buffer;
mod capture;
mod content;
mod kernel;
mod open;
mod owner;
mod socket;

use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use smtp_ebpf::event::{Kind, State, Transfer, Unseen};

use crate::kernel::{Call, Sock, Task, probe_user};

const TCP_ESTABLISHED: u32 = 1;
const TCP_SYN_SENT: u32 = 2;
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;

/// `include/linux/socket.h`
const MSG_PEEK: u32 = 2;

/// `sock:inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(context: BtfTracePointContext) -> i32 {
    state_changed(&context);
    0
}

/// `sock:sock_send_length(struct sock *sk, int ret, int flags)`, since 6.3
#[btf_tracepoint(function = "sock_send_length")]
fn sock_send_length(context: BtfTracePointContext) -> i32 {
    transferred(&context, Kind::Send);
    0
}

/// `sock:sock_recv_length(struct sock *sk, int ret, int flags)`, since 6.3
#[btf_tracepoint(function = "sock_recv_length")]
fn sock_recv_length(context: BtfTracePointContext) -> i32 {
    transferred(&context, Kind::Receive);
    0
}

/// A record under construction. One slot a hook: a softirq may change a socket's state in the middle of a send.
#[repr(C)]
struct Scratch {
    transfer: Transfer,
    room: buffer::Room,
    captured: buffer::Captured,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(2, 0);

#[inline(always)]
fn transferred(context: &BtfTracePointContext, kind: Kind) {
    let sock = Sock::new(context.arg(0));
    if !socket::has_watched_port(sock) {
        return;
    }
    let length: i32 = context.arg(1);
    if length <= 0 {
        buffer::moved_nothing();
        return;
    }
    let flags: u32 = context.arg(2);
    if flags & MSG_PEEK != 0 {
        // What was looked at comes again when it is read.
        return;
    }
    let Some(tcp) = socket::tcp_over_ip(sock) else { return };
    let Some(scratch) = SCRATCH.get_ptr_mut(if matches!(kind, Kind::Send) { 0 } else { 1 }) else { return };

    let time = capture::now();
    let task = owner::current();
    owner::describe_once(context, &task, time);
    // SAFETY: the pointer is to this CPU's map value; `output` cuts to its size.
    unsafe {
        (*scratch).transfer = Transfer {
            header: capture::header(kind, time),
            task,
            socket: socket::describe(sock, tcp),
            positions: tcp.positions(sock.state()),
            length: length as u32,
            flags,
            head: 0,
            tail: 0,
            unseen: Unseen::None as u32,
            syscall: 0,
        };
        let room = &raw mut (*scratch).room;
        // Through memory, so that the verifier does not follow what comes next once for each way to get here.
        let captured = &raw mut (*scratch).captured;
        captured.write_volatile(buffer::capture(room, kind, length as u32));
        // Who accepted the connection speaks for the server.
        if kernel::is_watched(sock.local_port()) == matches!(kind, Kind::Send) {
            content::server_said(sock, room, captured);
        } else {
            content::client_said(sock, room, captured);
        }
        let captured = captured.read_volatile();
        let transfer = &raw mut (*scratch).transfer;
        (*transfer).head = captured.head;
        (*transfer).tail = captured.tail;
        (*transfer).unseen = captured.unseen as u32;
        (*transfer).syscall = captured.syscall;
        if !matches!(captured.unseen, Unseen::None | Unseen::Long | Unseen::Content) {
            debug!(
                context,
                "{} bytes of pid {} not seen: cause {}, system call {}",
                (*transfer).length,
                (*transfer).task.pid,
                captured.unseen as u32,
                captured.syscall
            );
        }
        let size = size_of::<Transfer>() + captured.head as usize + captured.tail as usize;
        capture::output(context, kind, scratch.cast(), size, size_of::<Scratch>());
    }
}

#[map]
static STATE: PerCpuArray<State> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
fn state_changed(context: &BtfTracePointContext) {
    let old: u32 = context.arg(1);
    let new: u32 = context.arg(2);
    if old == TCP_LISTEN || !(new == TCP_ESTABLISHED || new == TCP_SYN_SENT || new == TCP_CLOSE) {
        return;
    }
    let sock = Sock::new(context.arg(0));
    let Some(tcp) = socket::tcp_over_ip(sock) else { return };
    // `skc_num` may already be given back.
    if !kernel::is_watched(sock.remote_port()) && !kernel::is_watched(tcp.local_port()) {
        return;
    }
    let Some(state) = STATE.get_ptr_mut(0) else { return };

    let time = capture::now();
    let mut task = owner::NOBODY;
    let mut requested = Requested::NONE;
    if new == TCP_SYN_SENT {
        task = owner::current();
        owner::describe_once(context, &task, time);
        requested = Requested::of_caller();
    }
    // SAFETY: the pointer is to this CPU's map value.
    unsafe {
        *state = State {
            header: capture::header(Kind::State, time),
            task,
            socket: socket::describe(sock, tcp),
            positions: tcp.positions(sock.state()),
            old,
            new,
            requested: requested.address,
            requested_port: requested.port,
            requested_family: requested.family,
            padding: 0,
        };
        capture::output(context, Kind::State, state.cast(), size_of::<State>(), size_of::<State>());
    }
}

/// The address that the caller of `connect` asked for; a cgroup program may have sent it elsewhere.
struct Requested {
    address: [u8; 16],
    port: u16,
    family: u16,
}

/// `struct sockaddr_in`
#[repr(C)]
#[derive(Clone, Copy)]
struct SockAddrIn {
    family: u16,
    port: u16,
    address: [u8; 4],
}

/// `struct sockaddr_in6`
#[repr(C)]
#[derive(Clone, Copy)]
struct SockAddrIn6 {
    family: u16,
    port: u16,
    flow: u32,
    address: [u8; 16],
}

impl Requested {
    const NONE: Self = Self { address: [0; 16], port: 0, family: 0 };

    #[inline(always)]
    fn of_caller() -> Self {
        let registers = Task::current().registers();
        if !registers.is_native() || !matches!(registers.call(), Call::Connect) {
            return Self::NONE;
        }
        let Some(v4) = probe_user::<SockAddrIn>(registers.argument_2()) else {
            return Self::NONE;
        };
        let port = u16::from_be(v4.port);
        match v4.family {
            socket::AF_INET => Self { address: socket::mapped(v4.address), port, family: v4.family },
            socket::AF_INET6 => match probe_user::<SockAddrIn6>(registers.argument_2()) {
                Some(v6) => Self { address: v6.address, port, family: v6.family },
                None => Self::NONE,
            },
            _ => Self::NONE,
        }
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets only GPL-compatible programs call the helpers used here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
