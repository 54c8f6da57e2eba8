//! The dialogue on a socket: what is known of it between two calls, and gone with it.

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;
use smtp_ebpf::event::{Positions, Socket, Task};
use smtp_ebpf::protocol::{Dialogue, Speaker};

use crate::kernel::Sock;
use crate::socket::Stream;
use crate::state::TCP_ESTABLISHED;

#[btf_map]
static DIALOGUES: SkStorage<Followed> = SkStorage::new();

/// A dialogue that is followed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Followed {
    pub dialogue: Dialogue,
    /// When the ciphertext of each direction was told of, by who connected and who accepted.
    told: [u64; 2],
    /// The socket's `struct file`, as far as a call has shown it.
    pub file: u64,
    /// The process that used it last: it is described.
    start_time: u64,
    pid: u32,
    exec_id: u32,
    /// When it was looked up whether it is.
    looked_up: u64,
    /// The socket as records name it, since its connection is there: a cookie of zero says that it is not written down.
    socket: Socket,
}

/// How often ciphertext is told of, in nanoseconds: positions tell of what lies between.
const CIPHERTEXT_INTERVAL: u64 = 1_000_000_000;

/// How often it is looked up whether the process that uses a socket is described, in nanoseconds: the record that describes
/// it may have found no room.
const LOOK_UP_INTERVAL: u64 = 1_000_000_000;

impl Followed {
    /// The dialogue on a socket; one that was not followed yet is under way.
    #[inline(always)]
    pub fn of(sock: Sock) -> Option<*mut Self> {
        let map = (&raw const DIALOGUES).cast_mut().cast();
        // SAFETY: the helper takes a map, a socket that the verifier knows, and no first value: it is zeros.
        let followed = unsafe {
            bpf_sk_storage_get(map, sock.as_ptr(), core::ptr::null_mut(), u64::from(BPF_SK_STORAGE_GET_F_CREATE))
        };
        let followed = followed.cast::<Self>();
        (!followed.is_null()).then_some(followed)
    }

    /// Whether another process than the last uses the socket, or the last was looked up long ago; from now on it is the last.
    ///
    /// # Safety
    /// `this` is a map value.
    #[inline(always)]
    pub unsafe fn is_another(this: *mut Self, task: &Task, time: u64) -> bool {
        // SAFETY: the caller's promise. Two processors may write it: then one more look is taken.
        unsafe {
            let known = (&raw const (*this).start_time).read_volatile() == task.start_time
                && (&raw const (*this).pid).read_volatile() == task.pid
                && (&raw const (*this).exec_id).read_volatile() == task.exec_id
                && time - (&raw const (*this).looked_up).read_volatile() < LOOK_UP_INTERVAL;
            if known {
                return false;
            }
            (&raw mut (*this).start_time).write_volatile(task.start_time);
            (&raw mut (*this).pid).write_volatile(task.pid);
            (&raw mut (*this).exec_id).write_volatile(task.exec_id);
            (&raw mut (*this).looked_up).write_volatile(time);
            true
        }
    }

    /// The socket as a record names it, into that record. While its connection lasts nothing else of it changes.
    ///
    /// # Safety
    /// `this` and `record` are map values.
    #[inline(always)]
    pub unsafe fn describe(this: *mut Self, stream: Stream, record: *mut Socket) {
        // SAFETY: the caller's promise. Two processors that write it write the same.
        unsafe {
            let known = &raw mut (*this).socket;
            let is_there = u32::from(stream.state()) == TCP_ESTABLISHED;
            if is_there && (&raw const (*known).cookie).read_volatile() != 0 {
                copy(record, known);
                (&raw mut (*record).apart).write_volatile(stream.apart());
                return;
            }
            record.write_volatile(stream.describe());
            if is_there {
                copy(known, record);
            }
        }
    }

    /// Whether ciphertext of this speaker is told of now.
    ///
    /// # Safety
    /// `this` is a map value.
    #[inline(always)]
    pub unsafe fn is_told(this: *mut Self, speaker: Speaker, time: u64) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            let told = match speaker {
                Speaker::Client => &raw mut (*this).told[0],
                Speaker::Server => &raw mut (*this).told[1],
            };
            if time - told.read_volatile() < CIPHERTEXT_INTERVAL {
                return false;
            }
            told.write_volatile(time);
            true
        }
    }
}

/// Copies what names a socket, in words: it never is on the stack.
#[inline(always)]
unsafe fn copy(to: *mut Socket, from: *const Socket) {
    let mut word = 0;
    while word < size_of::<Socket>() / size_of::<u64>() {
        // SAFETY: the caller passes places of map values.
        unsafe { to.cast::<u64>().add(word).write_volatile(from.cast::<u64>().add(word).read_volatile()) };
        word += 1;
    }
}

/// A dialogue begins on this socket.
#[inline(always)]
pub fn begins(sock: Sock) {
    let Some(followed) = Followed::of(sock) else { return };
    // SAFETY: it is a map value. The socket may have had another connection.
    unsafe {
        (&raw mut (*followed).socket.cookie).write_volatile(0);
        Dialogue::begin(&raw mut (*followed).dialogue);
    }
}

/// The connection of this socket is there, and its streams are at these positions.
#[inline(always)]
pub fn is_established(sock: Sock, positions: Positions, accepted: bool) {
    let Some(followed) = Followed::of(sock) else { return };
    let Positions { written, read } = positions;
    let (client, server) = if accepted { (read, written) } else { (written, read) };
    // SAFETY: it is a map value.
    unsafe { Dialogue::start_at(&raw mut (*followed).dialogue, client, server) };
}
