//! The eBPF programs: attach points only, each a short function.
#![no_std]
#![no_main]
#![expect(internal_features, reason = "this target's atomic operations are intrinsics alone")]
#![feature(core_intrinsics)]

mod atomic;
mod buffer;
mod buffer_location;
mod capture;
mod dialogue;
mod environment;
mod kernel;
mod local_pair;
mod open;
mod owner;
mod plaintext;
mod program;
mod socket;
mod state;
mod tell;
mod track;
mod transfer;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_attach_cookie;
use aya_ebpf::macros::{btf_tracepoint, fexit, uprobe, uretprobe};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, ProbeContext, RetProbeContext};
use smtp_ebpf::event::CaptureMiss;

use crate::kernel::{Message, Sock, Socket, stack_pointer};
use crate::program::Program;

/// `sock:inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(context: BtfTracePointContext) -> i32 {
    state::changes(&context, Sock::new(context.arg(0)), context.arg(1), context.arg(2));
    0
}

#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state_inside(context: BtfTracePointContext) -> i32 {
    state::changes_meanwhile(&context, Sock::new(context.arg(0)), context.arg(1), context.arg(2));
    0
}

// The family `tracepoint`.

/// `sock:sock_send_length(struct sock *sk, int ret, int flags)`, since 6.3
#[btf_tracepoint(function = "sock_send_length")]
fn sock_send_length(context: BtfTracePointContext) -> i32 {
    transfer::on_tracepoint(&context, Program::Send, Sock::new(context.arg(0)), context.arg(2), context.arg(1));
    0
}

/// `sock:sock_recv_length(struct sock *sk, int ret, int flags)`, since 6.3
#[btf_tracepoint(function = "sock_recv_length")]
fn sock_recv_length(context: BtfTracePointContext) -> i32 {
    transfer::on_tracepoint(&context, Program::Receive, Sock::new(context.arg(0)), context.arg(2), context.arg(1));
    0
}

// The family `fentry`. A function's return value follows its arguments, which are still those that it was called with.

/// `int inet_sendmsg(struct socket *sock, struct msghdr *msg, size_t size)`
#[fexit(function = "inet_sendmsg")]
fn inet_sendmsg_exit(context: FExitContext) -> i32 {
    let message = Message::new(context.arg(1), context.arg(2));
    transfer::on_exit(&context, Program::Send, Socket::new(context.arg(0)), message, message.flags(), context.arg(3));
    0
}

/// `int inet6_sendmsg(struct socket *sock, struct msghdr *msg, size_t size)`, since 5.3
#[fexit(function = "inet6_sendmsg")]
fn inet6_sendmsg_exit(context: FExitContext) -> i32 {
    let message = Message::new(context.arg(1), context.arg(2));
    transfer::on_exit(&context, Program::Send6, Socket::new(context.arg(0)), message, message.flags(), context.arg(3));
    0
}

/// `int inet_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)`
#[fexit(function = "inet_recvmsg")]
fn inet_recvmsg_exit(context: FExitContext) -> i32 {
    let message = Message::new(context.arg(1), context.arg(2));
    transfer::on_exit(&context, Program::Receive, Socket::new(context.arg(0)), message, context.arg(3), context.arg(4));
    0
}

/// `int inet6_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)`, since 5.3
#[fexit(function = "inet6_recvmsg")]
fn inet6_recvmsg_exit(context: FExitContext) -> i32 {
    let message = Message::new(context.arg(1), context.arg(2));
    transfer::on_exit(
        &context,
        Program::Receive6,
        Socket::new(context.arg(0)),
        message,
        context.arg(3),
        context.arg(4),
    );
    0
}

/// `ssize_t tcp_splice_read(struct socket *sock, loff_t *ppos, struct pipe_inode_info *pipe, size_t len, unsigned int flags)`
#[fexit(function = "tcp_splice_read")]
fn tcp_splice_read_exit(context: FExitContext) -> i32 {
    transfer::leaves_unseen(&context, Program::Splice, Socket::new(context.arg(0)), CaptureMiss::Path, context.arg(5));
    0
}

/// `ssize_t inet_sendpage(struct socket *sock, struct page *page, int offset, size_t size, int flags)`, until 6.4
#[fexit(function = "inet_sendpage")]
fn inet_sendpage_exit(context: FExitContext) -> i32 {
    transfer::leaves_unseen(
        &context,
        Program::SendPages,
        Socket::new(context.arg(0)),
        CaptureMiss::Pages,
        context.arg(5),
    );
    0
}

// TLS libraries: probes on functions that `smtp_ebpf::library_call` describes.

/// A function of a TLS library is called.
#[uprobe]
fn tls_call(context: ProbeContext) -> u32 {
    let argument = |number| context.arg::<u64>(number).unwrap_or(0);
    let arguments = [argument(0), argument(1), argument(2), argument(3), argument(4)];
    // SAFETY: it is the program's context.
    unsafe { plaintext::call_begins(arguments, stack_pointer(context.regs), bpf_get_attach_cookie(context.as_ptr())) };
    plaintext::keep_own_stack(&context);
    0
}

/// It returns.
#[uretprobe]
fn tls_return(context: RetProbeContext) -> u32 {
    // SAFETY: it is the program's context.
    plaintext::call_ends(context.ret(), unsafe { stack_pointer(context.regs) });
    plaintext::keep_own_stack(&context);
    0
}

/// A function of a TLS library is called that hands over a record, somewhere on its way to a socket: `BIO_write`.
#[uprobe]
fn tls_record(context: ProbeContext) -> u32 {
    plaintext::record_leaves(context.arg(1).unwrap_or(0), context.arg(2).unwrap_or(0));
    plaintext::keep_own_stack(&context);
    0
}

/// A function of a TLS library is called that ends a session.
#[uprobe]
fn tls_end(context: ProbeContext) -> u32 {
    plaintext::session_ends(context.arg(0).unwrap_or(0));
    plaintext::keep_own_stack(&context);
    0
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets only GPL-compatible programs call the helpers used here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
