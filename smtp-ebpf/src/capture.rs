//! One record into the ring buffer; what does not fit is counted.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_RING_SIZE};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use aya_log_ebpf::debug;
use smtp_ebpf::event::{Header, Kind, Lost};

use crate::program::Program;

/// All records; the loader sets its size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Records that found no room, for each [`Program`] by [`Kind`]. A program's counts are its own: one that interrupts
/// another cannot spoil what the other is adding to.
#[map]
static LOST: PerCpuArray<Lost> = PerCpuArray::with_max_entries(Program::COUNT, 0);

/// The boot clock, in nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The start of a record.
#[inline(always)]
pub fn header(kind: Kind, time: u64) -> Header {
    Header { kind: kind as u32, padding: 0, time }
}

/// Hands over a record; whether there was room.
///
/// # Safety
/// `limit` bytes at `record` belong to a map value; `length` is cut to it.
#[inline(always)]
pub unsafe fn output<C: EbpfContext>(
    context: &C,
    program: u32,
    kind: Kind,
    record: *mut u8,
    length: usize,
    limit: usize,
) -> bool {
    // SAFETY: the caller's promise.
    let there_was_room = unsafe { hand_over(program, kind, record, length, limit, true) };
    if !there_was_room {
        debug!(context, "no room for a record of kind {} and {} bytes", kind as u32, length);
    }
    there_was_room
}

#[inline(always)]
fn is_half_full() -> bool {
    EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) > EVENTS.query(u64::from(BPF_RB_RING_SIZE)) / 2
}

/// Hands over a record; whether there was room.
///
/// The reader is woken when it has read all there was, and once more when the ring is half full: in between it comes
/// by itself, so that a busy host does not pay for a wake-up a record. How full it is, is `asked` only now and then.
///
/// # Safety
/// As of [`output`].
#[inline(always)]
pub unsafe fn hand_over(
    program: u32,
    kind: Kind,
    record: *mut u8,
    mut length: usize,
    limit: usize,
    asked: bool,
) -> bool {
    if length > limit {
        length = limit;
    }
    let flags = if asked && is_half_full() { u64::from(BPF_RB_FORCE_WAKEUP) } else { 0 };
    // SAFETY: the caller's promise.
    let bytes = unsafe { core::slice::from_raw_parts(record, length) };
    if EVENTS.output::<[u8]>(bytes, flags).is_ok() {
        return true;
    }
    lose(program, kind);
    false
}

/// Counts a record that is not handed over.
#[inline(always)]
pub fn lose(program: u32, kind: Kind) {
    let Some(lost) = LOST.get_ptr_mut(program) else { return };
    let mut place = kind as u64;
    // SAFETY: this CPU's counter, and this program's. The place goes through memory: else the compiler, which knows all
    // kinds, leaves out the check that the verifier wants to see.
    unsafe {
        let place = (&raw mut place).read_volatile();
        if place < Kind::ALL.len() as u64 + 1 {
            let count = lost.cast::<u64>().add(place as usize);
            count.write(count.read() + 1);
        }
    }
}
