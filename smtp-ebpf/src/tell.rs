//! Tells of a call, once it is known whose it is and where its bytes are: through the filter, and into the ring.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use smtp_ebpf::event::{CaptureMiss, Kind, Owner, Segment, SegmentKind, Transfer, WINDOW_LENGTH};
use smtp_ebpf::protocol::{self, Call, Crossing, Dialogue, HOLD, OUT_LENGTH, Speaker, Work};

use crate::buffer::{self, Walk};
use crate::capture;
use crate::kernel::copy_user;
use crate::program::Program;

/// Most windows of one call that are looked at; what is behind them is a gap.
const MAX_WINDOWS: u64 = 16;

/// Records between two questions how full the ring is: together they are a small part of it.
const ASKED_EVERY: u64 = 32;

/// A record under construction.
#[repr(C)]
pub struct Scratch {
    pub work: Work,
    pub owner: Owner,
    pub walk: Walk,
    /// Bytes of the call, and those of them that are done.
    pub length: u64,
    pub done: u64,
    pub time: u64,
    pub program: u64,
    /// Records that were handed over.
    pub told: u64,
    /// The position behind the call's last byte.
    pub end: u32,
    pub speaker: u32,
    pub has_positions: u32,
    pub is_behind: u32,
    /// The socket was accepted; the call sends.
    pub serves: u32,
    pub sends: u32,
    /// Before the call, TLS was spoken on the socket, and by this speaker.
    pub had_tls: u32,
    pub was_ciphertext: u32,
    /// One of the socket's ports is watched.
    pub is_watched: u32,
    /// It could not be told who calls.
    pub is_nameless: u32,
    /// The kernel itself encrypts or decrypts what the process reads and writes.
    pub is_sealed: u32,
    pub local_port: u16,
    pub remote_port: u16,
    /// What the window takes of the call, and whether its bytes are read, and if not why.
    pub taken: u64,
    pub is_read: u32,
    pub cause: CaptureMiss,
    /// What crosses: all of it as it is, or segments of this size.
    pub is_whole: u32,
    pub size: u32,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(Program::COUNT, 0);

/// What a program works with on this CPU.
#[inline(always)]
pub fn scratch_of(program: Program) -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(program as u32)
}

/// Who speaks in the call.
///
/// # Safety
/// `scratch` is this CPU's map value.
#[inline(always)]
pub unsafe fn speaker(scratch: *const Scratch) -> Speaker {
    // SAFETY: the caller's promise.
    match unsafe { (&raw const (*scratch).speaker).read_volatile() } {
        0 => Speaker::Client,
        _ => Speaker::Server,
    }
}

/// The next so many bytes of the call, as the filter takes them.
///
/// # Safety
/// `scratch` is this CPU's map value.
#[inline(always)]
pub unsafe fn call(scratch: *const Scratch, taken: u64) -> Call {
    // SAFETY: the caller's promise.
    unsafe {
        let left = (&raw const (*scratch).length).read_volatile() - (&raw const (*scratch).done).read_volatile();
        Call {
            speaker: speaker(scratch),
            time: (&raw const (*scratch).time).read_volatile(),
            start: (&raw const (*scratch).end).read_volatile().wrapping_sub(left as u32),
            length: taken as u32,
            positions: (&raw const (*scratch).has_positions).read_volatile() != 0,
            behind: (&raw const (*scratch).is_behind).read_volatile() != 0,
        }
    }
}

/// Tells of a call whose bytes are in one piece, and in one window, as nearly all are; whether they are. They are at this
/// address of the caller's memory; zero: they are not in one piece.
#[inline(always)]
pub fn tell_at_once(scratch: *mut Scratch, dialogue: *mut Dialogue, address: u64) -> bool {
    // SAFETY: the pointers are to this CPU's map value and to the dialogue's.
    unsafe {
        let length = (&raw const (*scratch).length).read_volatile();
        if length > WINDOW_LENGTH as u64 || address == 0 {
            return false;
        }
        let work = &raw mut (*scratch).work;
        let bytes = (&raw mut (*work).bytes).cast::<u8>().add(HOLD);
        if !copy_user(bytes, length as u32, address) {
            return false;
        }
        if protocol::pass_quickly(dialogue, work, &call(scratch, length)) {
            tell_whole(scratch, length);
        } else {
            (&raw mut (*scratch).taken).write_volatile(length);
            (&raw mut (*scratch).is_read).write_volatile(1);
            pass(scratch, dialogue);
            tell(scratch);
        }
        true
    }
}

/// What a step through the windows of a call is given.
#[repr(C)]
struct Telling {
    scratch: *mut Scratch,
    dialogue: *mut Dialogue,
}

/// Tells of a call, in so many windows.
#[inline(always)]
pub fn tell_windows(scratch: *mut Scratch, dialogue: *mut Dialogue, windows: u64) {
    let mut telling = Telling { scratch, dialogue };
    // SAFETY: `tell_window` takes what it is given here.
    unsafe {
        bpf_loop(
            buffer::at_most(windows, MAX_WINDOWS) as u32,
            tell_window as *mut c_void,
            (&raw mut telling).cast(),
            0,
        );
    }
}

/// Tells of the call's next window.
unsafe extern "C" fn tell_window(index: u64, telling: *mut Telling) -> i64 {
    // SAFETY: `tell_windows` passes its own.
    unsafe {
        let Telling { scratch, dialogue } = *telling;
        let walk = &raw const (*scratch).walk;
        let done = (&raw const (*scratch).done).read_volatile();
        let left = (&raw const (*scratch).length).read_volatile() - done;
        if left == 0 {
            return 1;
        }
        // What is taken of the call, and whether its bytes are looked at.
        let mut taken = buffer::at_most(left, WINDOW_LENGTH as u64);
        let mut is_read = false;
        let mut cause = buffer::cause(walk);
        if Dialogue::skips(dialogue, speaker(scratch), left as u32) {
            (taken, cause) = (left, CaptureMiss::None);
        } else if !matches!(cause, CaptureMiss::None) {
            taken = left;
        } else if index != 0 && left > taken && Dialogue::is_in_content(dialogue, speaker(scratch)) {
            // Of long content the beginning and the end are looked at.
            taken = left - taken;
        } else if index + 1 == MAX_WINDOWS && left > taken {
            (taken, cause) = (left, CaptureMiss::Long);
        } else {
            (&raw mut (*scratch).taken).write_volatile(taken);
            copy_window(scratch);
            cause = (&raw const (*scratch).cause).read_volatile();
            is_read = matches!(cause, CaptureMiss::None);
            taken = if is_read { taken } else { left };
        }
        (&raw mut (*scratch).taken).write_volatile(taken);
        (&raw mut (*scratch).is_read).write_volatile(u32::from(is_read));
        (&raw mut (*scratch).cause).write_volatile(cause);
        pass(scratch, dialogue);
        tell(scratch);
        (&raw mut (*scratch).done).write_volatile(done + (&raw const (*scratch).taken).read_volatile());
        0
    }
}

/// Copies what is taken of the call.
///
/// # Safety
/// `scratch` is this CPU's map value, in which the call was located.
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn copy_window(scratch: *mut Scratch) -> u64 {
    if scratch.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let bytes = (&raw mut (*scratch).work.bytes).cast::<u8>().add(HOLD);
        let done = (&raw const (*scratch).done).read_volatile();
        let taken = (&raw const (*scratch).taken).read_volatile();
        let cause = buffer::copy(&raw mut (*scratch).walk, bytes, done, done + taken);
        (&raw mut (*scratch).cause).write_volatile(cause);
        0
    }
}

/// Passes what is taken of the call through the filter.
///
/// # Safety
/// Both are map values.
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn pass(scratch: *mut Scratch, dialogue: *mut Dialogue) -> u64 {
    if scratch.is_null() || dialogue.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let work = &raw mut (*scratch).work;
        let call = call(scratch, (&raw const (*scratch).taken).read_volatile());
        let crossing = if (&raw const (*scratch).is_read).read_volatile() != 0 {
            protocol::step(dialogue, work, call)
        } else {
            protocol::miss(dialogue, work, call, (&raw const (*scratch).cause).read_volatile())
        };
        let (is_whole, size) = match crossing {
            Crossing::Whole => (1, 0),
            Crossing::Segments(size) => (0, size),
        };
        (&raw mut (*scratch).is_whole).write_volatile(is_whole);
        (&raw mut (*scratch).size).write_volatile(size);
        0
    }
}

/// Hands over a record of what was taken of the call.
///
/// # Safety
/// `scratch` is this CPU's map value.
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn tell(scratch: *mut Scratch) -> u64 {
    if scratch.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let work = &raw mut (*scratch).work;
        let transfer = (&raw mut (*work).record).cast::<Transfer>();
        let taken = (&raw const (*scratch).taken).read_volatile();
        let done = (&raw const (*scratch).done).read_volatile() + taken;
        let end = (&raw const (*scratch).end).read_volatile();
        let end = end.wrapping_sub(((&raw const (*scratch).length).read_volatile() - done) as u32);
        if let Kind::Send = kind(transfer) {
            (&raw mut (*transfer).positions.write_seq).write_volatile(end);
        } else {
            (&raw mut (*transfer).positions.copied_seq).write_volatile(end);
        }
        if (&raw const (*scratch).is_whole).read_volatile() == 0 {
            let size = (&raw const (*scratch).size).read_volatile();
            (&raw mut (*transfer).length).write_volatile(taken as u32);
            (&raw mut (*transfer).size).write_volatile(size);
            hand_over(scratch, transfer.cast(), u64::from(size), OUT_LENGTH);
        } else {
            tell_whole(scratch, taken);
        }
        (&raw mut (*transfer).continues).write_volatile(1);
        0
    }
}

/// Hands over a record of so many bytes, which cross as they are. It stands right before them, where nothing waits.
///
/// # Safety
/// `scratch` is this CPU's map value.
#[inline(always)]
unsafe fn tell_whole(scratch: *mut Scratch, taken: u64) {
    const TEXT: usize = size_of::<Segment>();
    // SAFETY: the caller's promise.
    unsafe {
        let work = &raw mut (*scratch).work;
        let transfer = (&raw mut (*work).record).cast::<Transfer>();
        (&raw mut (*transfer).length).write_volatile(taken as u32);
        (&raw mut (*transfer).size).write_volatile(TEXT as u32 + taken as u32);
        let before = (&raw mut (*work).bytes).cast::<u8>().add(HOLD - TEXT - size_of::<Transfer>());
        before.cast::<Transfer>().write(transfer.read());
        let segment = Segment { kind: SegmentKind::Text as u8, flags: 0, count: taken as u16, length: taken as u32 };
        before.add(size_of::<Transfer>()).cast::<u64>().write(segment.to_word());
        hand_over(scratch, before, TEXT as u64 + taken, TEXT + WINDOW_LENGTH);
    }
}

/// The kind of a record.
///
/// # Safety
/// It is a map value.
#[inline(always)]
unsafe fn kind(transfer: *const Transfer) -> Kind {
    // SAFETY: the caller's promise.
    match unsafe { (&raw const (*transfer).kind).read_volatile() } {
        number if number == Kind::Send as u32 => Kind::Send,
        _ => Kind::Receive,
    }
}

/// Hands over a record with so many bytes of segments, at most the limit.
///
/// # Safety
/// `scratch` is this CPU's map value, and so is the record with room for the limit behind it.
#[inline(always)]
unsafe fn hand_over(scratch: *mut Scratch, record: *mut u8, size: u64, limit: usize) {
    const HEAD: usize = size_of::<Transfer>();
    // SAFETY: the caller's promise.
    unsafe {
        let program = (&raw const (*scratch).program).read_volatile() as u32;
        let kind = kind((&raw const (*scratch).work.record).cast());
        if (&raw const (*scratch).is_nameless).read_volatile() != 0 {
            // Nobody could tell whose it is.
            capture::lose(program, kind);
        } else {
            let told = (&raw const (*scratch).told).read_volatile() + 1;
            (&raw mut (*scratch).told).write_volatile(told);
            capture::hand_over(
                program,
                kind,
                record,
                HEAD + size as usize,
                HEAD + limit,
                told.is_multiple_of(ASKED_EVERY),
            );
        }
    }
}
