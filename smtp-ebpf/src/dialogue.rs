//! The dialogue on a socket: what is known of it between two calls, and gone with it.

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;
use smtp_ebpf::event::{SeqNumbers, Task};
use smtp_ebpf::protocol::{Dialogue, Speaker};

use crate::kernel::Sock;

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
    /// The socket's cookie; zero: it was not asked for yet.
    cookie: u64,
    /// Who used it last.
    start_time: u64,
    comm: [u64; 2],
    pid: u32,
    exec_id: u32,
    uid: u32,
    /// Whose session of TLS it carries, the library as [`Self::library`] has it, and the session's address; zero: none, or it
    /// is not known.
    session_pid: u32,
    session_library: u32,
    /// So many calls moved TLS, and its session was not known.
    missed: u32,
    session: u64,
    /// When that was told; zero: it is to be told.
    owner_told: u64,
    /// The last change of the socket's state that was told.
    state_told: u64,
}

/// How often ciphertext is told of, in nanoseconds: positions tell of what lies between.
const CIPHERTEXT_INTERVAL: u64 = 1_000_000_000;

/// How often it is told who uses a socket, in nanoseconds: who reads it may have forgotten, and the record that describes
/// the process may have found no room.
const OWNER_INTERVAL: u64 = 1_000_000_000;

impl Followed {
    /// The dialogue on a socket; one that was not followed yet is under way.
    #[inline(always)]
    pub fn of(sock: Sock) -> Option<*mut Self> {
        Self::get(sock, BPF_SK_STORAGE_GET_F_CREATE)
    }

    #[inline(always)]
    fn get(sock: Sock, flags: u32) -> Option<*mut Self> {
        let map = (&raw const DIALOGUES).cast_mut().cast();
        // SAFETY: the helper takes a map, a socket that the verifier knows, and no first value: it is zeros.
        let followed = unsafe { bpf_sk_storage_get(map, sock.as_ptr(), core::ptr::null_mut(), u64::from(flags)) };
        let followed = followed.cast::<Self>();
        (!followed.is_null()).then_some(followed)
    }

    /// The socket's cookie.
    ///
    /// # Safety
    /// `this` is a map value, of this socket.
    #[inline(always)]
    pub unsafe fn cookie(this: *mut Self, sock: Sock) -> u64 {
        // SAFETY: the caller's promise. Two processors that write it write the same.
        unsafe {
            let known = (&raw const (*this).cookie).read_volatile();
            if known != 0 {
                return known;
            }
            let cookie = sock.cookie();
            (&raw mut (*this).cookie).write_volatile(cookie);
            cookie
        }
    }

    /// The socket's cookie, if it was asked for yet.
    ///
    /// # Safety
    /// `this` is a map value.
    #[inline(always)]
    pub unsafe fn known_cookie(this: *const Self) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { (&raw const (*this).cookie).read_volatile() }
    }

    /// The address of the TLS session that it carries, and whose process's that is.
    ///
    /// # Safety
    /// `this` is a map value.
    #[inline(always)]
    pub unsafe fn session(this: *const Self) -> (u64, u32) {
        // SAFETY: the caller's promise.
        unsafe { ((&raw const (*this).session).read_volatile(), (&raw const (*this).session_pid).read_volatile()) }
    }

    /// Whether it is known to carry a session of this process.
    ///
    /// # Safety
    /// `this` is a map value.
    #[inline(always)]
    pub unsafe fn carries_session_of(this: *const Self, pid: u32) -> bool {
        // SAFETY: the caller's promise.
        let (session, owner) = unsafe { Self::session(this) };
        session != 0 && owner == pid
    }

    /// The number of the library whose session it carries, or zero; with [`TLS_FROM_START`](smtp_ebpf::event::TLS_FROM_START)
    /// where that is followed from its start.
    ///
    /// # Safety
    /// `this` is a map value.
    #[inline(always)]
    pub unsafe fn library(this: *const Self) -> u8 {
        // SAFETY: the caller's promise.
        unsafe { (&raw const (*this).session_library).read_volatile() as u8 }
    }

    /// TLS is spoken on it, and its session is not known. How many calls of before found the same.
    ///
    /// # Safety
    /// `this` is a map value.
    #[inline(always)]
    pub unsafe fn misses_session(this: *mut Self) -> u32 {
        // SAFETY: the caller's promise.
        unsafe {
            let missed = (&raw const (*this).missed).read_volatile();
            (&raw mut (*this).missed).write_volatile(missed.wrapping_add(1));
            missed
        }
    }

    /// It carries this session; zero: none.
    ///
    /// # Safety
    /// `this` is a map value.
    #[inline(always)]
    pub unsafe fn set_session(this: *mut Self, session: u64, pid: u32, library: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            (&raw mut (*this).session).write_volatile(session);
            (&raw mut (*this).session_pid).write_volatile(pid);
            (&raw mut (*this).session_library).write_volatile(library);
            if session != 0 {
                // What is sent when the session is over, and what still comes, is no sign of a library without probes.
                (&raw mut (*this).missed).write_volatile(1);
            }
        }
    }

    /// What is known of a socket, if anything is.
    #[inline(always)]
    pub fn known(sock: Sock) -> Option<*mut Self> {
        Self::get(sock, 0)
    }

    /// Whether this is known to be the task that uses the socket.
    ///
    /// # Safety
    /// Both are map values.
    #[inline(always)]
    pub unsafe fn is_owner(this: *const Self, task: *const Task, time: u64) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            let comm = (&raw const (*task).comm).cast::<u64>();
            (&raw const (*this).start_time).read_volatile() == (&raw const (*task).start_time).read_volatile()
                && (&raw const (*this).pid).read_volatile() == (&raw const (*task).pid).read_volatile()
                && (&raw const (*this).exec_id).read_volatile() == (&raw const (*task).exec_id).read_volatile()
                && (&raw const (*this).uid).read_volatile() == (&raw const (*task).uid).read_volatile()
                && (&raw const (*this).comm[0]).read_volatile() == comm.read_volatile()
                && (&raw const (*this).comm[1]).read_volatile() == comm.add(1).read_volatile()
                && time - (&raw const (*this).owner_told).read_volatile() < OWNER_INTERVAL
        }
    }

    /// This task uses the socket, which was told at this time; zero: it was not.
    ///
    /// # Safety
    /// Both are map values.
    #[inline(always)]
    pub unsafe fn set_owner(this: *mut Self, task: *const Task, told: u64) {
        // SAFETY: the caller's promise. Two processors may write it: then it is told once more.
        unsafe {
            let comm = (&raw const (*task).comm).cast::<u64>();
            (&raw mut (*this).start_time).write_volatile((&raw const (*task).start_time).read_volatile());
            (&raw mut (*this).pid).write_volatile((&raw const (*task).pid).read_volatile());
            (&raw mut (*this).exec_id).write_volatile((&raw const (*task).exec_id).read_volatile());
            (&raw mut (*this).uid).write_volatile((&raw const (*task).uid).read_volatile());
            (&raw mut (*this).comm[0]).write_volatile(comm.read_volatile());
            (&raw mut (*this).comm[1]).write_volatile(comm.add(1).read_volatile());
            (&raw mut (*this).owner_told).write_volatile(told);
        }
    }

    /// The last change of the socket's state that was told, as [`Self::set_state_told`] has it; zero: none.
    ///
    /// # Safety
    /// `this` is a map value.
    #[inline(always)]
    pub unsafe fn state_told(this: *const Self) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { (&raw const (*this).state_told).read_volatile() }
    }

    /// The state that the socket, whose connection is over, was in before.
    ///
    /// # Safety
    /// `this` is a map value.
    #[inline(always)]
    pub unsafe fn last_state(this: *const Self) -> u8 {
        // SAFETY: the caller's promise.
        unsafe { (Self::state_told(this) >> 32) as u8 }
    }

    /// This change of the socket's state is told.
    ///
    /// # Safety
    /// `this` is a map value.
    #[inline(always)]
    pub unsafe fn set_state_told(this: *mut Self, change: u64) {
        // SAFETY: the caller's promise.
        unsafe { (&raw mut (*this).state_told).write_volatile(change) };
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

/// This socket connects: nothing is left of a connection that it may have had before.
///
/// # Safety
/// `followed` is a map value.
#[inline(always)]
pub unsafe fn connects(followed: *mut Followed) {
    // SAFETY: the caller's promise.
    unsafe {
        (&raw mut (*followed).told[0]).write_volatile(0);
        (&raw mut (*followed).told[1]).write_volatile(0);
        (&raw mut (*followed).owner_told).write_volatile(0);
        (&raw mut (*followed).missed).write_volatile(0);
        Dialogue::begin_again(&raw mut (*followed).dialogue);
    }
}

/// The connection of this socket is there, and its streams are at these positions.
///
/// # Safety
/// `followed` is a map value.
#[inline(always)]
pub unsafe fn is_established(followed: *mut Followed, positions: SeqNumbers, accepted: bool) {
    let SeqNumbers { write_seq, copied_seq } = positions;
    let (client, server) = if accepted { (copied_seq, write_seq) } else { (write_seq, copied_seq) };
    // SAFETY: the caller's promise. Only now it is certain which addresses it has.
    unsafe {
        (&raw mut (*followed).owner_told).write_volatile(0);
        if accepted {
            Dialogue::begin_new(&raw mut (*followed).dialogue);
        }
        Dialogue::start_at(&raw mut (*followed).dialogue, client, server);
    }
}
